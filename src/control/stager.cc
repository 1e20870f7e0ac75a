#include "control/stager.h"

#include <unistd.h>

#include "base/log.h"
#include "node/job_folder.h"
#include "node/tenant.h"

namespace th::control {
namespace {

constexpr const char* kRankUser = "nobody";  // as both kinds of nodes have it

}  // namespace

bool Stager::nodes_see_jobs() const {
  const std::string_view kind = core_.provider().kind();
  return kind == "local" || kind == "libvirt";
}

Result<std::optional<node::User>> Stager::user_of(const std::string& account) const {
  if (geteuid() != 0 || !nodes_see_jobs()) return std::optional<node::User>();
  const std::filesystem::path jobs_dir = core_.state_dir() / "jobs";
  std::error_code ignored;
  std::filesystem::create_directories(jobs_dir, ignored);
  TH_TRY(const auto run_as, node::user_to_become(kRankUser));
  return node::user_of(node::tenant_of(account), run_as, jobs_dir);
}

void Stager::begin(const std::string& job, const request::JobSpec& spec, const std::string& account) {
  std::erase_if(copies_, [](const Copy& copy) { return copy.done->load(); });
  if (spec.stage.empty() || !nodes_see_jobs() || copies_.size() >= kMaxCopies) return;
  auto user = user_of(account);
  if (!user) return;
  const std::filesystem::path& state = core_.state_dir();
  node::Staging staging{state / "jobs", job, {}, {}, spec.stage, {state / "models", state / "data"}, *user};
  auto done = std::make_shared<std::atomic<bool>>(false);
  copies_.push_back({done, std::jthread([staging, done](std::stop_token stop) {
                       if (Status staged = node::stage_job(staging, stop); !staged)
                         log_info("{}: nothing was staged ahead: {}", staging.job, staged.error().message);
                       *done = true;
                     })});
}

}  // namespace th::control
