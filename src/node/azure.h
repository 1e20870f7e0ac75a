#pragma once
// A node on Azure: cloud-init left azure.json, the Instance Metadata Service says the rest.
//
// learn.microsoft.com, Instance Metadata Service, instance metadata 2021-02-01, read 2026-11-22. Tested
// against the emulator in tests/azure and a metadata service in the test, never on Azure.

#include <string>
#include <string_view>

#include "base/result.h"
#include "base/units.h"
#include "node/config.h"

namespace th::node {

/// What cloud-init wrote: src/cloud/azure/requests.cc.
struct AzureBoot {
  std::string controller;
  std::string authority;   // PEM, as in NodeConfig
  std::string set_secret;  // of the scale set: the tokens of its nodes derive from it
  std::string run_as;      // user of the ranks; empty: our own
  int gpus = 0;
  Expectation expect;
};
/// Errors: kInvalidArgument, naming the field; never the secret.
Result<AzureBoot> read_azure_boot(std::string_view text, const std::string& file);

struct AzureInstance {
  std::string name;     // "th-1f3c-0_3": in the node's URLs and its token
  std::string set;      // "th-1f3c-0"
  std::string address;  // private, of the first card
};
/// The answer of GET /metadata/instance. Errors: kInvalidArgument, naming the field.
Result<AzureInstance> read_azure_instance(std::string_view text);

/// The token that this instance shows to the controller; the provider derives the same.
std::string azure_node_token(std::string_view set_secret, std::string_view instance);

struct AzureNodeOptions {
  std::filesystem::path boot_file = "/etc/thunderhead/azure.json";
  std::filesystem::path dir = "/var/lib/thunderhead/node";
  std::filesystem::path jobs_dir = "/var/lib/thunderhead/jobs";
  std::string metadata_url = "http://169.254.169.254";
  int64_t timeout_ns = 5 * kMinute;  // for the metadata service to answer
};
/// Makes the folders. Errors: those above, kPermissionDenied (others may read the file), kUnavailable,
/// kDeadlineExceeded.
Result<NodeConfig> azure_node_config(const AzureNodeOptions& options);

}  // namespace th::node
