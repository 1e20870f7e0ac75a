#pragma once
// The weights of a Hugging Face folder, read into a model's flat buffer and written from it.

#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "model/layout.h"
#include "model/safetensors.h"

namespace th::model {

/// Gives elements begin, begin+1, … of the flat buffer of a layout.
using ReadWeights = std::function<Status(int64_t begin, std::span<float> values)>;

/// model.safetensors, or the files that model.safetensors.index.json names; F32, BF16 or F16. Thread: const
/// members from any thread.
class WeightFolder {
 public:
  /// All tensors of the layout have to be there, with their shapes; others are ignored. GPT-2's may lack
  /// their "transformer." in front. `layout` must outlive it. Errors: kNotFound; kDataLoss, naming file,
  /// tensor and what was found instead.
  static Result<WeightFolder> open(const std::filesystem::path& folder, const ParameterLayout& layout);
  /// Elements begin, begin+1, … of the flat buffer. Errors: kDataLoss, naming a tensor with a value that is
  /// not finite.
  Status read(int64_t begin, std::span<float> values) const;

 private:
  explicit WeightFolder(const ParameterLayout& layout) : layout_(layout) {}
  Status add(const SafetensorsFile& file, const std::filesystem::path& path);
  const ParameterLayout& layout_;
  std::vector<SafetensorsFile> files_;
  std::vector<const SafeTensor*> tensors_;  // as layout_.parameters
};

/// The same file from `weights` (layout.size), in float32 and as Hugging Face stores each. Errors: those of
/// write_safetensors.
Status write_weights(const std::filesystem::path& path, const ParameterLayout& layout,
                     std::span<const float> weights);

}  // namespace th::model
