#pragma once
// Every backward pass against finite differences of its forward.

#include <cstdint>
#include <string>
#include <vector>

namespace th::model {

/// What is acceptable for float32.
inline constexpr double kMaxGradientError = 1e-3;

struct GradientError {
  std::string operation;
  double worst_relative_error;
};

/// One entry an operation and one a kind of whole model, on small random inputs. For
/// each element of each input, the backward's gradient a is compared with n = (8·(f(x+h) - f(x-h)) - (f(x+2h)
/// - f(x-2h))) / 12h, where f is the forward in float32 with its outputs weighted and summed in double and h
/// is the best of a few steps; the relative error is |a - n| / max(|a|, |n|, root mean square of that input's
/// gradient). Cost: seconds.
std::vector<GradientError> check_gradients(uint64_t seed);

}  // namespace th::model
