#pragma once
// A network namespace for each tenant of a machine: its ranks reach one another over loopback, and the
// controller by a relay; nobody else reaches them, and they nobody else. Nodes of one machine share a
// tenant's.

#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "base/files.h"
#include "base/result.h"

namespace th::node {

/// Thread: one owner. Needs root.
class TenantNetworks {
 public:
  /// Of the nodes with these jobs' folders; `controller`: "http://127.0.0.1:7070".
  TenantNetworks(const std::filesystem::path& jobs_dir, std::string controller);
  /// Ends the relays, and the namespaces that no other node uses.
  ~TenantNetworks();

  /// The tenant's namespace, open, made if there is none. Errors: of the kernel, as kInternal or
  /// kPermissionDenied.
  Result<int> enter(const std::string& tenant);

 private:
  class Relay;
  struct Network {
    UniqueFd lock, space;
    std::unique_ptr<Relay> relay;
  };
  UniqueFd wait_for_turn() const;
  Result<Network> open(const std::string& tenant) const;

  std::filesystem::path folder_;
  std::string prefix_, controller_;
  std::map<std::string, Network> networks_;
};

}  // namespace th::node
