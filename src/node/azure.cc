#include "node/azure.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/env.h"
#include "base/files.h"
#include "base/json.h"
#include "base/log.h"
#include "base/text.h"
#include "http/client.h"
#include "http/url.h"

namespace th::node {
namespace {

constexpr const char* kInstancePath = "/metadata/instance?api-version=2021-02-01";
constexpr int64_t kCallNs = 5 * kSecond, kPauseNs = 2 * kSecond;
constexpr size_t kMaxBootBytes = 64 << 10;

/// The member of an object, the first of a list; null where there is none.
const Json& member(const Json& json, const char* name) {
  static const Json null;
  if (!json.is_object()) return null;
  const auto found = json.find(name);
  return found == json.end() ? null : *found;
}
const Json& first_of(const Json& json) {
  static const Json null;
  return json.is_array() && !json.empty() ? json.front() : null;
}

Result<int64_t> amount_of(const Json& json, const char* field, int64_t most) {
  TH_TRY(const int64_t value, get_int(json, field, 0));
  if (value >= 0 && value <= most) return value;
  return fail(Code::kInvalidArgument, fmt::format("field '{}': want 0 to {}, got {}", field, most, value));
}

Result<AzureBoot> boot_of(const Json& json) {
  AzureBoot boot;
  TH_TRY(boot.controller, get_string(json, "controller"));
  while (boot.controller.ends_with('/')) boot.controller.pop_back();
  if (auto url = http::parse_url(boot.controller); !url)
    return fail(Code::kInvalidArgument, "field 'controller': " + url.error().message);
  TH_TRY(boot.authority, get_string(json, "authority", ""));
  TH_TRY(boot.set_secret, get_string(json, "set_secret"));
  if (boot.set_secret.size() < 32)
    return fail(Code::kInvalidArgument, "field 'set_secret': is shorter than 32 characters");
  TH_TRY(boot.run_as, get_string(json, "run_as", ""));
  constexpr int64_t kMaxCount = 1'000'000, kMaxBytes = int64_t{1} << 60;
  TH_TRY(const int64_t gpus, amount_of(json, "gpus", kMaxCount));
  TH_TRY(const int64_t cpus, amount_of(json, "cpus", kMaxCount));
  TH_TRY(boot.expect.memory_bytes, amount_of(json, "memory_bytes", kMaxBytes));
  TH_TRY(boot.expect.disk_free_bytes, amount_of(json, "disk_free_bytes", kMaxBytes));
  boot.gpus = boot.expect.gpus = static_cast<int>(gpus);
  boot.expect.cpus = static_cast<int>(cpus);
  return boot;
}

/// Early in the boot the network may not be up.
Result<AzureInstance> ask_instance(const AzureNodeOptions& options) {
  const int64_t deadline_ns = Env::real().monotonic_ns() + options.timeout_ns;
  http::Call call;
  call.url = options.metadata_url + kInstancePath;
  call.headers = {{"Metadata", "true"}};
  call.timeout_ns = kCallNs;
  while (true) {
    auto answer = http::fetch(call);
    if (answer && answer->status == 200) return read_azure_instance(answer->body);
    const bool passing = !answer || answer->status == 429 || answer->status == 404 || answer->status >= 500;
    const std::string why =
        answer ? fmt::format("{}: status {}", options.metadata_url, answer->status) : answer.error().message;
    if (!passing || Env::real().monotonic_ns() + kPauseNs >= deadline_ns)
      return fail(Code::kUnavailable,
                  "the Instance Metadata Service does not answer, is this a VM of Azure? " + why);
    log_info("waiting for the Instance Metadata Service: {}", why);
    std::this_thread::sleep_for(std::chrono::nanoseconds(kPauseNs));
  }
}

Status make_folders(const NodeConfig& config) {
  for (const auto& [folder, mode] : {std::pair(config.dir, 0700), {config.jobs_dir, 0755}}) {
    std::error_code problem;
    std::filesystem::create_directories(folder, problem);
    if (problem) return fail(errno_error(folder.string(), problem.value()));
    if (::chmod(folder.c_str(), static_cast<mode_t>(mode)) != 0)
      return fail(errno_error(folder.string(), errno));
  }
  return {};
}

}  // namespace

Result<AzureBoot> read_azure_boot(std::string_view text, const std::string& file) {
  TH_TRY(const Json json, parse_json(text, file));
  auto boot = boot_of(json);
  if (!boot) return fail(boot.error().code, fmt::format("{}: {}", file, boot.error().message));
  return boot;
}

Result<AzureInstance> read_azure_instance(std::string_view text) {
  TH_TRY(const Json json, parse_json(text, "instance metadata"));
  const auto bad = [](const char* field, std::string_view problem) {
    return fail(Code::kInvalidArgument, fmt::format("instance metadata: {}: {}", field, problem));
  };
  AzureInstance instance;
  instance.name = get_string(member(json, "compute"), "name", "").value_or("");
  instance.set = get_string(member(json, "compute"), "vmScaleSetName", "").value_or("");
  if (Status good = check_name(instance.name, "instance"); !good)
    return bad("compute.name", good.error().message);
  const Json& card = first_of(member(member(json, "network"), "interface"));
  const Json& ip = first_of(member(member(card, "ipv4"), "ipAddress"));
  instance.address = get_string(ip, "privateIpAddress", "").value_or("");
  const bool looks_right =
      !instance.address.empty() && instance.address.size() <= 45 &&
      instance.address.find_first_not_of("0123456789abcdefABCDEF.:") == std::string::npos;
  if (!looks_right) return bad("network.interface[0].ipv4.ipAddress[0].privateIpAddress", "want an address");
  return instance;
}

std::string azure_node_token(std::string_view set_secret, std::string_view instance) {
  return sha256_hex(fmt::format("{}\n{}", set_secret, instance));
}

Result<NodeConfig> azure_node_config(const AzureNodeOptions& options) {
  TH_TRY(const std::string text, read_file(options.boot_file, kMaxBootBytes));
  struct stat info {};
  if (::stat(options.boot_file.c_str(), &info) == 0 && (info.st_mode & 077) != 0)
    return fail(Code::kPermissionDenied,
                fmt::format("{}: others may read it, and it holds a secret; chmod 600 it",
                            options.boot_file.string()));
  TH_TRY(AzureBoot boot, read_azure_boot(text, options.boot_file.string()));
  TH_TRY(AzureInstance instance, ask_instance(options));
  NodeConfig config;
  config.name = config.vm = instance.name;
  config.host = instance.set;
  config.controller = std::move(boot.controller);
  config.authority = std::move(boot.authority);
  config.token = azure_node_token(boot.set_secret, instance.name);
  config.dir = options.dir, config.jobs_dir = options.jobs_dir;
  config.address = std::move(instance.address);
  config.gpus = boot.gpus, config.expect = std::move(boot.expect);
  if (!boot.run_as.empty()) config.run_as = std::move(boot.run_as);
  TH_RETURN_IF_ERROR(make_folders(config));
  return config;
}

}  // namespace th::node
