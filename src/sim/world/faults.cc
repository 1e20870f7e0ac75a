#include "sim/world/faults.h"

#include <array>

namespace th::sim {
namespace {

constexpr std::array<FaultKind, 18> kLlama3 = {{
    {"faulty GPU", 148, Takes::kHost, true},
    {"GPU HBM3 memory", 72, Takes::kHost, true},
    {"software bug", 54, Takes::kNobody, false},
    {"network switch or cable", 35, Takes::kLeaf, true},
    {"host maintenance", 32, Takes::kHost, true},
    {"GPU SRAM memory", 19, Takes::kHost, true},
    {"GPU system processor", 17, Takes::kHost, true},
    {"NIC", 7, Takes::kHost, true},
    {"NCCL watchdog timeout", 7, Takes::kNobody, false},
    {"silent data corruption", 6, Takes::kHost, false},
    {"GPU thermal interface and sensor", 6, Takes::kHost, true},
    {"SSD", 3, Takes::kHost, true},
    {"power supply", 3, Takes::kRack, true},
    {"server chassis", 2, Takes::kHost, true},
    {"IO expansion board", 2, Takes::kHost, true},
    {"dependency", 2, Takes::kNobody, false},
    {"CPU", 2, Takes::kHost, true},
    {"system memory", 2, Takes::kHost, true},
}};

}  // namespace

std::span<const FaultKind> llama3_faults() { return kLlama3; }

const FaultKind& llama3_fault(int64_t drawn) {
  size_t kind = 0;
  while ((drawn -= kLlama3[kind].count) >= 0) ++kind;
  return kLlama3[kind];
}

}  // namespace th::sim
