#include "control/stager.h"

#include <unistd.h>

#include "base/log.h"
#include "node/job_folder.h"

namespace th::control {
namespace {

constexpr const char* kRankUser = "nobody";  // as both kinds of nodes have it

}  // namespace

void Stager::begin(const std::string& job, const request::JobSpec& spec) {
  std::erase_if(copies_, [](const Copy& copy) { return copy.done->load(); });
  const std::string_view kind = core_.provider().kind();
  if (spec.stage.empty() || (kind != "local" && kind != "libvirt") || copies_.size() >= kMaxCopies) return;
  auto user = node::user_to_become(geteuid() == 0 ? std::optional<std::string>(kRankUser) : std::nullopt);
  if (!user) return;
  node::Staging staging{core_.state_dir() / "jobs", job, {}, {}, spec.stage, *user};
  std::error_code ignored;
  std::filesystem::create_directories(staging.jobs_dir, ignored);
  auto done = std::make_shared<std::atomic<bool>>(false);
  copies_.push_back({done, std::jthread([staging, done](std::stop_token stop) {
                       if (Status staged = node::stage_job(staging, stop); !staged)
                         log_info("{}: nothing was staged ahead: {}", staging.job, staged.error().message);
                       *done = true;
                     })});
}

}  // namespace th::control
