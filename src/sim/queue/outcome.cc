#include "sim/queue/outcome.h"

#include <algorithm>
#include <bit>

namespace th::sim {

void QueueSamples::add(const QueueSample& sample) {
  constexpr size_t kMost = 2000;
  if (seen_++ % stride_ != 0) return;
  kept_.push_back(sample);
  if (kept_.size() < kMost) return;
  for (size_t i = 0; 2 * i < kept_.size(); ++i) kept_[i] = kept_[2 * i];
  kept_.resize((kept_.size() + 1) / 2);
  stride_ *= 2;
}

void LogHash::add(uint64_t value) {
  for (int byte = 0; byte < 8; ++byte) hash_word(hash_, (value >> (8 * byte)) & 0xff);
}

void LogHash::add(double value) { add(std::bit_cast<uint64_t>(value)); }

double quantile(std::vector<double>& values, double fraction) {
  if (values.empty()) return 0;
  const auto at =
      std::min(static_cast<size_t>(fraction * static_cast<double>(values.size())), values.size() - 1);
  std::nth_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(at), values.end());
  return values[at];
}

double mean(std::span<const double> values) {
  double sum = 0;
  for (double value : values) sum += value;
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

}  // namespace th::sim
