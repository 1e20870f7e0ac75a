#include "model/weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "base/bf16.h"
#include "base/files.h"
#include "base/json.h"

namespace th::model {
namespace {

namespace fs = std::filesystem;
constexpr std::string_view kGpt2Prefix = "transformer.";

/// IEEE half precision: 1 bit sign, 5 exponent, 10 fraction.
float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const int exponent = half >> 10 & 31, fraction = half & 1023;
  if (exponent == 0) return (sign != 0 ? -1.0f : 1.0f) * std::ldexp(static_cast<float>(fraction), -24);
  const uint32_t wide = exponent == 31 ? 255 : static_cast<uint32_t>(exponent + 127 - 15);
  return std::bit_cast<float>(sign | wide << 23 | static_cast<uint32_t>(fraction) << 13);
}

float to_value(float value) { return value; }
float to_value(Bf16 value) { return to_float(value); }
struct Half {
  uint16_t bits;
};
float to_value(Half value) { return half_to_float(value.bits); }

std::vector<int64_t> stored_shape(const Parameter& parameter) {
  std::vector<int64_t> shape = parameter.shape;
  if (parameter.transposed) std::swap(shape[0], shape[1]);
  return shape;
}

/// Where element i of our tensor lies in the file.
int64_t stored_index(const Parameter& p, int64_t i) {
  return p.transposed ? i % p.shape[1] * p.shape[0] + i / p.shape[1] : i;
}

/// Elements first, first+1, … of our tensor; whether all are finite.
template <class Stored>
bool copy_values(const SafeTensor& tensor, const Parameter& p, int64_t first, std::span<float> values) {
  float worst = 0;  // becomes NaN with the first value that is not finite
  for (size_t i = 0; i < values.size(); ++i) {
    Stored stored;
    std::memcpy(&stored,
                tensor.data.data() +
                    static_cast<size_t>(stored_index(p, first + static_cast<int64_t>(i))) * sizeof(Stored),
                sizeof(Stored));
    values[i] = to_value(stored);
    worst += values[i] * 0.0f;
  }
  return worst == 0;
}

Result<std::vector<fs::path>> files_of(const fs::path& folder) {
  const fs::path whole = folder / "model.safetensors", index = folder / "model.safetensors.index.json";
  std::error_code ignored;
  if (fs::exists(whole, ignored)) return std::vector{whole};
  if (!fs::exists(index, ignored))
    return fail(Code::kNotFound,
                fmt::format("{}: no model.safetensors and no model.safetensors.index.json", folder.string()));
  TH_TRY(const std::string text, read_file(index, size_t{64} << 20));
  TH_TRY(const Json json, parse_json(text, index.string()));
  std::set<std::string> names;
  if (json.is_object() && json.contains("weight_map") && json["weight_map"].is_object()) {
    for (const Json& file : json["weight_map"]) names.insert(file.is_string() ? file.get<std::string>() : "");
  }
  std::vector<fs::path> files;
  for (const std::string& name : names) {
    if (name.empty() || name.find('/') != name.npos || name.starts_with('.')) {
      files.clear();
      break;
    }
    files.push_back(folder / name);
  }
  if (!files.empty()) return files;
  return fail(Code::kDataLoss, index.string() +
                                   ": field 'weight_map': want names of tensors with the files "
                                   "beside it that they are in");
}

}  // namespace

Result<WeightFolder> WeightFolder::open(const fs::path& folder, const ParameterLayout& layout) {
  WeightFolder weights(layout);
  weights.tensors_.resize(layout.parameters.size());
  TH_TRY(const std::vector<fs::path> files, files_of(folder));
  for (const fs::path& path : files) {
    TH_TRY(SafetensorsFile file, SafetensorsFile::open(path));
    TH_RETURN_IF_ERROR(weights.add(file, path));
    weights.files_.push_back(std::move(file));
  }
  const fs::path where = files.size() == 1 ? files[0] : folder / "model.safetensors.index.json";
  for (size_t i = 0; i < layout.parameters.size(); ++i) {
    if (weights.tensors_[i] == nullptr)
      return fail(Code::kDataLoss,
                  fmt::format("{}: no tensor '{}'", where.string(), layout.parameters[i].name));
  }
  return weights;
}

Status WeightFolder::add(const SafetensorsFile& file, const fs::path& path) {
  for (size_t i = 0; i < layout_.parameters.size(); ++i) {
    const Parameter& p = layout_.parameters[i];
    const SafeTensor* tensor = file.find(p.name);
    if (tensor == nullptr && p.name.starts_with(kGpt2Prefix))
      tensor = file.find(p.name.substr(kGpt2Prefix.size()));
    if (tensor == nullptr) continue;
    const bool is_known = tensor->dtype == "F32" || tensor->dtype == "BF16" || tensor->dtype == "F16";
    if (!is_known || tensor->shape != stored_shape(p)) {
      return fail(Code::kDataLoss,
                  fmt::format("{}: tensor '{}' is {} of shape [{}], want F32, BF16 or F16 of [{}]",
                              path.string(), tensor->name, tensor->dtype, fmt::join(tensor->shape, ","),
                              fmt::join(stored_shape(p), ",")));
    }
    tensors_[i] = tensor;
  }
  return {};
}

Status WeightFolder::read(int64_t begin, std::span<float> values) const {
  const int64_t end = begin + static_cast<int64_t>(values.size());
  TH_CHECK(begin >= 0 && end <= layout_.size);
  for (size_t k = 0; k < layout_.parameters.size(); ++k) {
    const Parameter& p = layout_.parameters[k];
    const int64_t first = std::max(begin, p.offset), last = std::min(end, p.offset + p.size);
    if (first >= last) continue;
    const std::span<float> part =
        values.subspan(static_cast<size_t>(first - begin), static_cast<size_t>(last - first));
    const SafeTensor& tensor = *tensors_[k];
    const auto copy = tensor.dtype == "F32"    ? copy_values<float>
                      : tensor.dtype == "BF16" ? copy_values<Bf16>
                                               : copy_values<Half>;
    if (!copy(tensor, p, first - p.offset, part))
      return fail(Code::kDataLoss, fmt::format("tensor '{}' has a value that is not finite", p.name));
  }
  return {};
}

Status write_weights(const fs::path& path, const ParameterLayout& layout, std::span<const float> weights) {
  TH_CHECK(static_cast<int64_t>(weights.size()) == layout.size);
  std::vector<F32Tensor> tensors;
  std::vector<std::vector<float>> turned;
  for (const Parameter& p : layout.parameters) {
    std::span<const float> values =
        weights.subspan(static_cast<size_t>(p.offset), static_cast<size_t>(p.size));
    if (p.transposed) {
      turned.emplace_back(values.size());
      for (int64_t i = 0; i < p.size; ++i)
        turned.back()[static_cast<size_t>(stored_index(p, i))] = values[static_cast<size_t>(i)];
      values = turned.back();
    }
    tensors.push_back({p.name, stored_shape(p), values});
  }
  return write_safetensors(path, tensors, {{"format", "pt"}});
}

}  // namespace th::model
