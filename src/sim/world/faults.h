#pragma once
// Physical faults at published rates: what breaks, how often, and what it takes with it.

#include <cstdint>
#include <span>

namespace th::sim {

enum class Takes {
  kRank,    // one process; its node can be used again after a reset
  kHost,    // one host, until it is repaired
  kLeaf,    // nothing gets through below one leaf switch for a while
  kRack,    // every host of a rack: its power or its cooling
  kNobody,  // every process ends, no hardware is lost (software)
};

/// One row of the published mix.
struct FaultKind {
  const char* name;
  int64_t count;  // of the unexpected interruptions of Llama 3's 54 days on 16,384 GPUs
  Takes takes;
  /// Whether the survivors' memory still holds a whole and sound copy of the state, so that they can save it.
  bool survivors_can_save;
};

/// Llama 3 405B: "The Llama 3 Herd of Models" (arXiv 2407.21783), table 5: 419 unexpected interruptions in 54
/// days on 16,384 H100 GPUs. What each kind takes with it is ours: a fault of a host's part takes the host.
std::span<const FaultKind> llama3_faults();
inline constexpr int64_t kLlama3Interruptions = 419;
/// The kind that a number drawn from [0, kLlama3Interruptions) stands for: each as often as it was counted.
const FaultKind& llama3_fault(int64_t drawn);
inline constexpr int64_t kLlama3Days = 54;
inline constexpr int64_t kLlama3Gpus = 16'384;

}  // namespace th::sim
