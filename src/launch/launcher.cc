#include "launch/launcher.h"

#include <array>

namespace th::launch {

std::string_view state_name(GangState state) {
  constexpr std::array<std::string_view, 6> kNames = {"starting",  "running", "ready",
                                                      "succeeded", "failed",  "gone"};
  return kNames.at(static_cast<size_t>(state));
}

}  // namespace th::launch
