#pragma once
// VMs of Microsoft Azure: scale sets of ND and NC series, by Azure Resource Manager over HTTPS. Tested
// against the emulator in tests/azure, never against Azure itself. How VMs are kept: docs/azure.md; sources
// and API versions: answers.h and requests.h.

#include <functional>
#include <memory>
#include <string>

#include "cloud/provider.h"
#include "http/client.h"

namespace th::cloud {

struct AzureProviderOptions {
  std::string subscription, resource_group;  // must exist
  std::string region;                        // "eastus"
  std::string cluster = "thunderhead";       // tells our VMs from those of another controller
  std::string tenant, client_id;
  std::string client_secret;  // empty: managed identity, of `client_id` if it is given
  std::string subnet;         // resource id
  std::string image;          // resource id, or "publisher:offer:sku:version"
  std::string admin_user = "thunderhead", ssh_public_key;
  std::string controller_url;      // where nodes dial
  std::string authority_pem = {};  // whose certificate they take there; empty: those of the image
  std::string node_secret;         // at least 32 characters; keep it: the tokens of the nodes derive from it
  // An address other than Azure's must be https, or of this machine: secrets go there.
  std::string arm_url = "https://management.azure.com";
  std::string login_url = "https://login.microsoftonline.com";
  std::string prices_url = "https://prices.azure.com";
  std::string metadata_url = "http://169.254.169.254";  // of a VM in the placement group whose notices count
};

/// The world outside: the real one waits and speaks HTTP; a test brings its own clock and answers.
struct AzureWorld {
  std::function<Result<http::Response>(const http::Call&)> fetch;
  std::function<int64_t()> unix_ns;
  std::function<void(int64_t ns)> wait;

  static AzureWorld real();
};

/// Nothing is asked of Azure yet. create() takes minutes there; a call that its deadline ended goes on with
/// the same token. one_fabric: all in one placement group, so at most 100 VMs, of a series with InfiniBand;
/// else as many groups as it takes. A VM that ended stays listed as dead until remove(). Neither the client
/// secret nor a token is ever part of an error or a log line. Errors: kInvalidArgument (options).
Result<std::unique_ptr<Provider>> make_azure_provider(AzureProviderOptions options,
                                                      AzureWorld world = AzureWorld::real());

}  // namespace th::cloud
