#include "launch/slurm/options.h"

#include <fmt/format.h>

#include "base/config.h"
#include "base/files.h"

namespace th::launch {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxTokenBytes = 16 << 10;

Result<std::string> read_token(const fs::path& path) {
  auto text = read_file(path, kMaxTokenBytes);
  if (!text)
    return fail(text.error().code, fmt::format("token file {}: {}", path.string(), text.error().message));
  std::error_code ec;
  const fs::perms mode = fs::status(path, ec).permissions();
  if ((mode & (fs::perms::group_all | fs::perms::others_all)) != fs::perms::none) {
    return fail(Code::kPermissionDenied,
                fmt::format("token file {}: others may read it; chmod 600 it", path.string()));
  }
  std::string token = *std::move(text);
  if (token.starts_with("SLURM_JWT=")) token.erase(0, 10);  // as scontrol prints it
  while (!token.empty() && (token.back() == '\n' || token.back() == ' ')) token.pop_back();
  if (token.empty() || token.find_first_of(" \r\n") != std::string::npos) {
    return fail(
        Code::kInvalidArgument,
        fmt::format("token file {}: want one JSON web token: scontrol token username=NAME", path.string()));
  }
  return token;
}

}  // namespace

Result<SlurmOptions> read_slurm_options(std::string_view text, const fs::path& file,
                                        const fs::path& jobs_folder) {
  TH_TRY(Config root, Config::parse(text, file.string(), {"slurm"}));
  TH_TRY(Config slurm,
         root.map("slurm", {"url", "user", "token_file", "partition", "account", "qos", "path"}));
  SlurmOptions options;
  TH_TRY(options.url, slurm.string("url"));
  if (!options.url.starts_with("http://") && !options.url.starts_with("https://")) {
    return slurm.bad("url", "want that of slurmrestd, such as http://10.0.0.1:6820");
  }
  while (options.url.ends_with('/')) options.url.pop_back();
  TH_TRY(options.user, slurm.string("user"));
  TH_TRY(const std::string token_file, slurm.string("token_file"));
  TH_TRY(options.token, read_token(file.parent_path() / token_file));
  SlurmQueue queue;
  TH_TRY(queue.partition, slurm.string("partition", std::string()));
  TH_TRY(queue.account, slurm.string("account", std::string()));
  TH_TRY(queue.qos, slurm.string("qos", std::string()));
  TH_TRY(options.path, slurm.string("path", options.path));
  options.queue_of = [queue](const GangSpec&) { return queue; };
  options.folder = jobs_folder;
  return options;
}

}  // namespace th::launch
