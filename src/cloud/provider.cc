#include "cloud/provider.h"

#include <array>

namespace th::cloud {

std::string_view phase_name(VmPhase phase) {
  constexpr std::array<std::string_view, 3> kNames = {"creating", "running", "dead"};
  return kNames.at(static_cast<size_t>(phase));
}

}  // namespace th::cloud
