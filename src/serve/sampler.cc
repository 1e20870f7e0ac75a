#include "serve/sampler.h"

#include <algorithm>
#include <cmath>

namespace th::serve {

bool Sampler::likelier(const Candidate& a, const Candidate& b) {
  return a.weight != b.weight ? a.weight > b.weight : a.token < b.token;
}

Sampler::Sampler(const SamplingParams& params) : params_(params), prng_(params.seed) {}

int32_t Sampler::sample(std::span<const float> logits) {
  const int32_t token = params_.temperature == 0 ? most_likely(logits) : draw(logits);
  ++counts_[token];
  return token;
}

float Sampler::adjusted(std::span<const float> logits, int32_t token) const {
  const float logit = logits[static_cast<size_t>(token)];
  if (params_.frequency_penalty == 0 && params_.presence_penalty == 0) return logit;
  const auto seen = counts_.find(token);
  if (seen == counts_.end()) return logit;
  return logit - static_cast<float>(params_.frequency_penalty * seen->second + params_.presence_penalty);
}

int32_t Sampler::most_likely(std::span<const float> logits) const {
  int32_t best = 0;
  float best_logit = -INFINITY;
  for (int32_t token = 0; token < static_cast<int32_t>(logits.size()); ++token) {
    const float logit = adjusted(logits, token);
    if (logit > best_logit) {
      best = token;
      best_logit = logit;
    }
  }
  return best;
}

int32_t Sampler::draw(std::span<const float> logits) {
  const double place = prng_.uniform();
  const int32_t best = most_likely(logits);
  const float top = adjusted(logits, best);
  if (!std::isfinite(top)) return best;
  candidates_.clear();
  const auto scale = static_cast<float>(1 / params_.temperature);
  for (int32_t token = 0; token < static_cast<int32_t>(logits.size()); ++token) {
    const float weight = std::exp((adjusted(logits, token) - top) * scale);
    if (weight > 0) candidates_.push_back({weight, token});
  }
  const double total = cut();
  double left = place * total;
  for (const Candidate& candidate : candidates_) {
    left -= candidate.weight;
    if (left < 0) return candidate.token;
  }
  return candidates_.empty() ? best : candidates_.back().token;
}

// Leaves the candidates that top_k and top_p allow; returns the sum of their weights.
double Sampler::cut() {
  size_t most = candidates_.size();
  if (params_.top_k > 0) most = std::min(most, static_cast<size_t>(params_.top_k));
  if (most < candidates_.size()) {
    const auto end = candidates_.begin() + static_cast<std::ptrdiff_t>(most);
    std::partial_sort(candidates_.begin(), end, candidates_.end(), likelier);
    candidates_.resize(most);
  }
  double total = 0;
  for (const Candidate& candidate : candidates_) total += candidate.weight;
  if (params_.top_p >= 1) return total;
  // The tokens that matter are few: sort as many as needed, not all.
  double kept = 0;
  size_t count = 0, sorted = 0;
  while (count < candidates_.size() && (count == 0 || kept < params_.top_p * total)) {
    if (count == sorted) {
      sorted = std::min(candidates_.size(), std::max(size_t{64}, 8 * sorted));
      const auto from = candidates_.begin() + static_cast<std::ptrdiff_t>(count);
      const auto end = candidates_.begin() + static_cast<std::ptrdiff_t>(sorted);
      std::partial_sort(from, end, candidates_.end(), likelier);
    }
    kept += candidates_[count++].weight;
  }
  candidates_.resize(count);
  return kept;
}

}  // namespace th::serve
