#pragma once
// The safetensors format: an 8-byte little-endian header length, a JSON header, then the tensors' bytes.
// Source: https://huggingface.co/docs/safetensors (format section).

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace th::model {

/// One tensor of a file. `data` points into the mapped file: valid as long as its SafetensorsFile (or a copy)
/// lives.
struct SafeTensor {
  std::string name;
  std::string dtype;           // "F32", "BF16", "F16", "I64", …
  std::vector<int64_t> shape;  // row major; empty: a scalar
  std::span<const std::byte> data;

  /// Number of elements; cannot overflow in a file that was opened.
  int64_t size() const;
};

/// A memory-mapped file, checked whole at open: a forged header is an error there, never a fault later.
/// (Truncating the file while it is mapped is still one: replace files by rename.) Cheap to copy. Thread:
/// const members from any thread.
class SafetensorsFile {
 public:
  /// Errors: kNotFound, kPermissionDenied; kDataLoss, naming file, tensor and what is wrong: shorter than its
  /// header or data, header not JSON or over 100 MB, unknown dtype, negative or overflowing shape, byte range
  /// outside the file, overlapping another or leaving a gap, not the size that dtype and shape ask for, a
  /// name given twice.
  static Result<SafetensorsFile> open(const std::filesystem::path& path);
  /// The same over bytes in memory, which are copied; `what` names them in errors.
  static Result<SafetensorsFile> parse(std::string_view bytes, std::string_view what);

  /// In the order of their bytes.
  std::span<const SafeTensor> tensors() const;
  /// nullptr when there is none of that name.
  const SafeTensor* find(std::string_view name) const;
  /// The "__metadata__" entries.
  const std::map<std::string, std::string>& metadata() const;

 private:
  struct Mapping;
  explicit SafetensorsFile(std::shared_ptr<const Mapping> mapping) : mapping_(std::move(mapping)) {}
  std::shared_ptr<const Mapping> mapping_;
};

/// One float32 tensor to write. The name must not be "__metadata__" nor stand twice.
struct F32Tensor {
  std::string name;
  std::vector<int64_t> shape;
  std::span<const float> values;  // as many as the shape says
};

/// Writes all tensors, in this order, whole or not at all also over a crash (temporary file, fsync, rename,
/// fsync of the folder). Errors: kInvalidArgument (a name twice, values and shape differ); kNoSpace,
/// kPermissionDenied, kInternal: an older file of that name is then intact.
Status write_safetensors(const std::filesystem::path& path, std::span<const F32Tensor> tensors,
                         const std::map<std::string, std::string>& metadata);

}  // namespace th::model
