#include "cloud/libvirt/options.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/text.h"

namespace th::cloud::libvirt {
namespace {

/// 0.2 to 2 GB/s were seen on two processors; a busy machine leaves a tenth of that.
constexpr int64_t kEmulatedBytesPerS = 10'000'000;

bool is_loopback(std::string_view url) {
  return url.find("//127.") != url.npos || url.find("//localhost") != url.npos ||
         url.find("//[::1]") != url.npos;
}

}  // namespace

Status check_options(const LibvirtProviderOptions& options) {
  auto bad = [](std::string problem) { return fail(Code::kInvalidArgument, std::move(problem)); };
  if (!options.state_dir.is_absolute())
    return bad(fmt::format("state folder '{}': want an absolute path", options.state_dir.string()));
  if (options.controller_url.empty() || is_loopback(options.controller_url))
    return bad(fmt::format(
        "VMs cannot reach the controller at '{}'; let it listen on the bridge's address (--address), or set "
        "cloud.controller_url",
        options.controller_url));
  TH_RETURN_IF_ERROR(check_name(options.cluster, "cloud.cluster"));
  if (!options.image.is_absolute())
    return bad(fmt::format("cloud.image '{}': want an absolute path", options.image.string()));
  if (!options.gateway.empty()) {
    TH_RETURN_IF_ERROR(parse_ipv4(options.gateway, "cloud.gateway"));
  }
  if (options.memory_bytes < int64_t{192} << 20) return bad("cloud.memory: a VM needs 192MiB at least");
  if (options.cpus < 1 || options.cpus > 512) return bad("cloud.cpus: want 1 to 512");
  TH_RETURN_IF_ERROR(check_shared_folder((options.state_dir / "jobs").string()));
  for (const std::filesystem::path& folder : options.share)
    TH_RETURN_IF_ERROR(check_shared_folder(folder.string()));
  return {};
}

std::filesystem::path image_of(const LibvirtProviderOptions& options, const CreateVms& request) {
  return request.image.empty() ? options.image : std::filesystem::path(request.image);
}

Status check_image(const std::filesystem::path& image) {
  for (const char* name : {"vmlinuz", "initrd.img"}) {
    const std::filesystem::path file = image / name;
    if (access(file.c_str(), R_OK) != 0)
      return fail(
          Code::kNotFound,
          fmt::format("image {}: {}; build it with tools/vm_image, or set cloud.image to a folder that "
                      "has it",
                      file.string(), errno == ENOENT ? "no such file" : "it cannot be read"));
  }
  return {};
}

std::string node_config(const LibvirtProviderOptions& options, const VmSpec& spec, const Record& record,
                        const std::string& token) {
  Json expect = {{"gpus", spec.gpus},
                 {"cpus", std::max(spec.cpus, options.cpus)},
                 // The kernel keeps a part for itself.
                 {"memory_bytes", std::max(spec.memory_bytes, options.memory_bytes * 3 / 4)},
                 {"disk_free_bytes", spec.disk_free_bytes},
                 {"memory_bytes_per_s", record.emulated ? kEmulatedBytesPerS : 0},
                 {"programs", {"th-train"}}};
  Json config = {{"name", spec.vm},
                 {"host", spec.host},
                 {"vm", spec.vm},
                 {"series", spec.series},
                 {"controller", options.controller_url},
                 {"token", token},
                 {"dir", "/var/lib/thunderhead"},
                 {"jobs_dir", (options.state_dir / "jobs").string()},
                 {"registry", Json::array({(options.state_dir / "models").string(),
                                           (options.state_dir / "data").string()})},
                 {"address", record.address.substr(0, record.address.find('/'))},
                 {"gpus", spec.gpus},
                 {"run_as", options.run_as},
                 {"expect", expect}};
  if (!options.authority_pem.empty()) config["authority"] = options.authority_pem;
  return config.dump() + "\n";
}

}  // namespace th::cloud::libvirt
