#pragma once
// What the provider checks of its options, and what it tells a node.

#include <filesystem>
#include <string>

#include "base/result.h"
#include "cloud/libvirt/domain.h"
#include "cloud/libvirt/provider.h"

namespace th::cloud::libvirt {

/// All that can be seen in them alone. Errors: kInvalidArgument, kNotFound (a shared folder).
Status check_options(const LibvirtProviderOptions& options);

/// Its files are there. Errors: kNotFound, which says how to build them.
Status check_image(const std::filesystem::path& image);
/// Of the request, else of the options.
std::filesystem::path image_of(const LibvirtProviderOptions& options, const CreateVms& request);

/// node.json (docs/node.md) of a VM; `token` is the node's secret.
std::string node_config(const LibvirtProviderOptions& options, const VmSpec& spec, const Record& record,
                        const std::string& token);

}  // namespace th::cloud::libvirt
