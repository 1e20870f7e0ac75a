#pragma once
// Which cloud the VMs come from: the `cloud:` section of docs/libvirt.md and docs/azure.md.

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "cloud/provider.h"

namespace th::control {

struct CloudContext {
  std::filesystem::path state_dir;
  std::string controller_url;      // where nodes of this machine dial; others need cloud.controller_url
  std::string authority_pem = {};  // whom nodes have to trust there; empty: those that their system trusts
};

/// Reads the section and makes the provider; nothing is asked of the cloud. `file` is the name in messages.
/// An empty text is kind: local. Errors: kInvalidArgument, "cloud.yaml:3: cloud.kind: ...", those of reading
/// the file of a secret and of the providers. Azure's nodes get a secret of their own, made once in
/// STATE/azure-nodes.key (0600).
Result<std::unique_ptr<cloud::Provider>> open_cloud(std::string_view text, std::string_view file,
                                                    const CloudContext& context);

}  // namespace th::control
