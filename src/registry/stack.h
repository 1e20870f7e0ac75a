#pragma once
// Stacks: named, versioned software suites that the nodes of a slice hold (docs/stacks.md).

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace th::registry {

struct Stack {
  std::string name, version;
  std::string about;                          // one line, for people
  std::map<std::string, std::string> images;  // kind of cloud → what its VMs boot from; none: its default
  std::vector<std::string> packages;          // Debian's, that have to be installed
  std::vector<std::string> programs;          // beside th-node or in PATH
  std::map<std::string, std::string> environment;  // of every job in the slice
  std::string validate;  // shell command; a status other than 0: the node does not match. Empty: none

  std::string id() const { return name + "@" + version; }
};

/// Errors: kInvalidArgument, "stack.yaml:3: packages: ...".
Result<Stack> parse_stack(std::string_view yaml, std::string_view file);

inline constexpr const char* kBaseStack = "base";  // of a slice that names none

/// Those that come with this version, as YAML: base, train, serve, hpc.
std::span<const std::string_view> shipped_stacks();

}  // namespace th::registry
