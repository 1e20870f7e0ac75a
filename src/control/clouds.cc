#include "control/clouds.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/config.h"
#include "base/files.h"
#include "base/text.h"
#include "cloud/azure/provider.h"
#include "cloud/libvirt/provider.h"
#include "cloud/local/provider.h"

namespace th::control {
namespace {

namespace fs = std::filesystem;

std::string trimmed(std::string text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) text.pop_back();
  return text;
}

/// Secrets stand in files of their own, never in the section.
Result<std::string> secret_of(const Config& section, const char* key) {
  TH_TRY(const std::string path, section.string(key, ""));
  if (path.empty()) return std::string();
  auto text = read_file(path, 4096);
  if (!text) return section.bad(key, text.error().message);
  std::string secret = trimmed(*std::move(text));
  if (secret.empty()) return section.bad(key, fmt::format("{} is empty", path));
  return secret;
}

Result<std::string> nodes_secret(const fs::path& path) {
  auto kept = read_file(path, 1024);
  if (kept) return trimmed(*std::move(kept));
  if (kept.error().code != Code::kNotFound) return fail(kept.error());
  std::string secret = random_token();
  TH_RETURN_IF_ERROR(write_file_durable(path, secret + "\n", 0600));
  return secret;
}

Result<std::unique_ptr<cloud::Provider>> open_local(const CloudContext& context, bool private_networks) {
  cloud::LocalProviderOptions local;
  local.private_networks = private_networks;
  local.state_dir = context.state_dir, local.controller_url = context.controller_url;
  local.authority_pem = context.authority_pem;
  return cloud::make_local_provider(local);
}

Result<std::unique_ptr<cloud::Provider>> open_azure(const Config& section, const CloudContext& context) {
  cloud::AzureProviderOptions azure;
  const std::pair<const char*, std::string*> texts[] = {{"subscription", &azure.subscription},
                                                        {"resource_group", &azure.resource_group},
                                                        {"region", &azure.region},
                                                        {"cluster", &azure.cluster},
                                                        {"tenant", &azure.tenant},
                                                        {"client_id", &azure.client_id},
                                                        {"subnet", &azure.subnet},
                                                        {"image", &azure.image},
                                                        {"admin_user", &azure.admin_user},
                                                        {"ssh_public_key", &azure.ssh_public_key},
                                                        {"controller_url", &azure.controller_url},
                                                        {"arm_url", &azure.arm_url},
                                                        {"login_url", &azure.login_url},
                                                        {"prices_url", &azure.prices_url},
                                                        {"metadata_url", &azure.metadata_url}};
  for (const auto& [key, value] : texts) {
    TH_TRY(*value, section.string(key, *value));
  }
  TH_TRY(azure.client_secret, secret_of(section, "client_secret_file"));
  TH_TRY(azure.node_secret, nodes_secret(context.state_dir / "azure-nodes.key"));
  azure.authority_pem = context.authority_pem;
  return cloud::make_azure_provider(std::move(azure));
}

Result<std::unique_ptr<cloud::Provider>> open_libvirt(const Config& section, const CloudContext& context) {
  cloud::LibvirtProviderOptions libvirt;
  libvirt.state_dir = context.state_dir, libvirt.controller_url = context.controller_url;
  libvirt.authority_pem = context.authority_pem;
  const std::pair<const char*, std::string*> texts[] = {
      {"uri", &libvirt.uri},         {"cluster", &libvirt.cluster},
      {"bridge", &libvirt.bridge},   {"network", &libvirt.network},
      {"gateway", &libvirt.gateway}, {"controller_url", &libvirt.controller_url}};
  for (const auto& [key, value] : texts) {
    TH_TRY(*value, section.string(key, *value));
  }
  TH_TRY(libvirt.image, section.string("image"));
  TH_TRY(libvirt.addresses, section.string("addresses"));
  TH_TRY(libvirt.memory_bytes, section.bytes_or("memory", libvirt.memory_bytes));
  TH_TRY(const int64_t cpus, section.integer_or("cpus", libvirt.cpus, {.min = 1, .max = 512}));
  libvirt.cpus = static_cast<int>(cpus);
  TH_TRY(const auto share, section.strings("share"));
  libvirt.share.assign(share.begin(), share.end());
  // Models and data sets are staged from here.
  for (const char* name : {"models", "data"}) {
    const fs::path folder = context.state_dir / name;
    std::error_code error;
    fs::create_directories(folder, error);
    if (error) return fail(errno_error(fmt::format("making {}", folder.string()), error.value()));
    libvirt.share.push_back(folder);
  }
  TH_TRY(libvirt.boot_ns, section.duration_ns_or("boot_timeout", 0));
  TH_TRY(const std::string acceleration, section.string("acceleration", "auto"));
  constexpr std::array<std::string_view, 3> kAccelerations = {"auto", "kvm", "software"};
  const auto chosen = std::ranges::find(kAccelerations, acceleration);
  if (chosen == kAccelerations.end())
    return section.bad("acceleration", fmt::format("want auto, kvm or software, got '{}'", acceleration));
  libvirt.acceleration = static_cast<cloud::Acceleration>(chosen - kAccelerations.begin());
  return cloud::make_libvirt_provider(std::move(libvirt));
}

}  // namespace

Result<std::unique_ptr<cloud::Provider>> open_cloud(std::string_view text, std::string_view file,
                                                    const CloudContext& context) {
  if (text.empty()) return open_local(context, true);
  TH_TRY(const Config root, Config::parse(text, file, {"cloud"}));
  TH_TRY(const Config section,
         root.map("cloud", {"kind",           "subscription", "resource_group", "region",
                            "cluster",        "tenant",       "client_id",      "client_secret_file",
                            "subnet",         "image",        "admin_user",     "ssh_public_key",
                            "controller_url", "arm_url",      "login_url",      "prices_url",
                            "metadata_url",   "uri",          "bridge",         "network",
                            "addresses",      "gateway",      "memory",         "cpus",
                            "share",          "boot_timeout", "acceleration",   "private_networks"}));
  TH_TRY(const std::string kind, section.string("kind"));
  if (kind == "local") {
    TH_TRY(const bool private_networks, section.boolean_or("private_networks", true));
    return open_local(context, private_networks);
  }
  if (kind == "azure") return open_azure(section, context);
  if (kind == "libvirt") return open_libvirt(section, context);
  return section.bad("kind", fmt::format("'{}' is not a cloud; want local, libvirt or azure", kind));
}

}  // namespace th::control
