#include "model/safetensors.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <unordered_map>

#include "base/files.h"

namespace th::model {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors are read as they lie in the file");

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the reference implementation's limit

/// Bytes of one element; 0 for an unknown name.
int64_t dtype_bytes(std::string_view dtype) {
  static const std::unordered_map<std::string_view, int64_t> sizes = {
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"U16", 2}, {"I16", 2}, {"F16", 2},
      {"BF16", 2}, {"U32", 4}, {"I32", 4}, {"F32", 4},     {"U64", 8},     {"I64", 8}, {"F64", 8}};
  auto found = sizes.find(dtype);
  return found == sizes.end() ? 0 : found->second;
}

/// Product of the sizes, or nothing when it overflows or one is negative.
std::optional<int64_t> element_count(std::span<const int64_t> shape) {
  int64_t count = 1;
  for (int64_t size : shape) {
    if (size < 0 || __builtin_mul_overflow(count, size, &count)) return std::nullopt;
  }
  return count;
}

std::string shape_text(std::span<const int64_t> shape) { return fmt::format("[{}]", fmt::join(shape, ",")); }

tl::unexpected<Error> damaged(std::string_view what, std::string_view problem) {
  return fail(Code::kDataLoss,
              fmt::format("{}: {}; the file is damaged or no safetensors file", what, problem));
}

/// Turns down a key that stands twice in one object, which a plain parse would silently drop.
class NoDuplicates {
 public:
  bool operator()(int, nlohmann::json::parse_event_t event, nlohmann::json& parsed) {
    using Event = nlohmann::json::parse_event_t;
    if (event == Event::object_start) keys_.emplace_back();
    if (event == Event::object_end) keys_.pop_back();
    if (event == Event::key && !keys_.back().insert(parsed.get<std::string>()).second && duplicate.empty()) {
      duplicate = parsed.get<std::string>();
    }
    return true;
  }
  std::string duplicate;

 private:
  std::vector<std::set<std::string>> keys_;
};

/// One entry of the header: `data` are the bytes behind it.
Result<SafeTensor> read_entry(const std::string& name, const nlohmann::json& entry, std::string_view data,
                              std::string_view what) {
  auto bad = [&](std::string_view problem) {
    return damaged(what, fmt::format("tensor '{}': {}", name, problem));
  };
  if (!entry.is_object() || !entry.contains("dtype") || !entry.contains("shape") ||
      !entry.contains("data_offsets")) {
    return bad("want an object with dtype, shape and data_offsets");
  }
  const auto &dtype = entry["dtype"], &shape = entry["shape"], &offsets = entry["data_offsets"];
  SafeTensor tensor{.name = name, .dtype = {}, .shape = {}, .data = {}};
  if (!dtype.is_string() || dtype_bytes(dtype.get_ref<const std::string&>()) == 0)
    return bad("unknown dtype");
  tensor.dtype = dtype;
  if (!shape.is_array()) return bad("shape: want a list");
  for (const auto& size : shape) {
    if (!size.is_number_unsigned() || size.get<uint64_t>() > std::numeric_limits<int64_t>::max()) {
      return bad("shape: want integers >= 0");
    }
    tensor.shape.push_back(size.get<int64_t>());
  }
  if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
      !offsets[1].is_number_unsigned()) {
    return bad("data_offsets: want two integers >= 0");
  }
  const uint64_t begin = offsets[0], end = offsets[1];
  if (begin > end || end > data.size()) {
    return bad(fmt::format("bytes {} to {} are outside of the data ({} bytes)", begin, end, data.size()));
  }
  auto count = element_count(tensor.shape);
  int64_t bytes = 0;
  if (!count || __builtin_mul_overflow(*count, dtype_bytes(tensor.dtype), &bytes))
    return bad("the shape overflows");
  if (static_cast<uint64_t>(bytes) != end - begin) {
    return bad(fmt::format("{}{} needs {} bytes, the header gives it {}", tensor.dtype,
                           shape_text(tensor.shape), bytes, end - begin));
  }
  tensor.data = std::as_bytes(std::span(data.substr(begin, end - begin)));
  return tensor;
}

}  // namespace

int64_t SafeTensor::size() const { return *element_count(shape); }

struct SafetensorsFile::Mapping {
  std::string what;
  std::vector<uint64_t> copy;  // parse: the bytes, aligned
  void* address = nullptr;     // open: the mapping
  size_t size = 0;
  std::vector<SafeTensor> tensors;
  std::unordered_map<std::string_view, size_t> by_name;
  std::map<std::string, std::string> metadata;

  Mapping() = default;
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() {
    if (address != nullptr) munmap(address, size);
  }

  Status read(std::string_view bytes);
  Status read_header(const nlohmann::json& header, std::string_view data);
  Status check_ranges(std::string_view data) const;
};

Status SafetensorsFile::Mapping::read(std::string_view bytes) {
  if (bytes.size() < kLengthBytes)
    return damaged(what, fmt::format("{} bytes are too short for a header", bytes.size()));
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data(), kLengthBytes);
  if (header_bytes > kMaxHeaderBytes)
    return damaged(what, fmt::format("a header of {} bytes is over the limit", header_bytes));
  if (header_bytes > bytes.size() - kLengthBytes) {
    return damaged(what, fmt::format("the header should have {} bytes, the file ends after {}", header_bytes,
                                     bytes.size() - kLengthBytes));
  }
  const std::string_view text = bytes.substr(kLengthBytes, header_bytes);
  NoDuplicates no_duplicates;
  auto header = nlohmann::json::parse(text, std::ref(no_duplicates), /*allow_exceptions=*/false);
  if (header.is_discarded() || !header.is_object()) return damaged(what, "the header is not a JSON object");
  if (!no_duplicates.duplicate.empty()) {
    return damaged(what, fmt::format("'{}' stands twice in the header", no_duplicates.duplicate));
  }
  TH_RETURN_IF_ERROR(read_header(header, bytes.substr(kLengthBytes + header_bytes)));
  return check_ranges(bytes.substr(kLengthBytes + header_bytes));
}

Status SafetensorsFile::Mapping::read_header(const nlohmann::json& header, std::string_view data) {
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      if (!entry.is_object()) return damaged(what, "__metadata__: want an object");
      for (const auto& [key, value] : entry.items()) {
        if (!value.is_string()) return damaged(what, "__metadata__: want texts");
        metadata[key] = value;
      }
      continue;
    }
    TH_TRY(SafeTensor tensor, read_entry(name, entry, data, what));
    tensors.push_back(std::move(tensor));
  }
  std::stable_sort(tensors.begin(), tensors.end(), [](const SafeTensor& a, const SafeTensor& b) {
    return std::pair(a.data.data(), a.data.size()) < std::pair(b.data.data(), b.data.size());
  });
  for (size_t i = 0; i < tensors.size(); ++i) by_name.emplace(tensors[i].name, i);
  return {};
}

Status SafetensorsFile::Mapping::check_ranges(std::string_view data) const {
  size_t at = 0;
  for (const SafeTensor& tensor : tensors) {
    const size_t begin = reinterpret_cast<const char*>(tensor.data.data()) - data.data();
    if (begin < at) return damaged(what, fmt::format("tensor '{}' overlaps another", tensor.name));
    if (begin > at)
      return damaged(what,
                     fmt::format("{} bytes before tensor '{}' belong to none", begin - at, tensor.name));
    at = begin + tensor.data.size();
  }
  if (at != data.size())
    return damaged(what, fmt::format("{} bytes at the end belong to no tensor", data.size() - at));
  return {};
}

Result<SafetensorsFile> SafetensorsFile::open(const std::filesystem::path& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return fail(errno_error(path.string(), errno));
  struct stat info {};
  if (fstat(fd.get(), &info) != 0) return fail(errno_error(path.string(), errno));
  if (!S_ISREG(info.st_mode)) return fail(Code::kInvalidArgument, path.string() + ": not a regular file");
  auto mapping = std::make_shared<Mapping>();
  mapping->what = path.string();
  if (info.st_size > 0) {
    void* address = mmap(nullptr, info.st_size, PROT_READ, MAP_PRIVATE, fd.get(), 0);
    if (address == MAP_FAILED) return fail(errno_error(path.string(), errno));
    mapping->address = address;
    mapping->size = info.st_size;
  }
  TH_RETURN_IF_ERROR(mapping->read({static_cast<const char*>(mapping->address), mapping->size}));
  return SafetensorsFile(std::move(mapping));
}

Result<SafetensorsFile> SafetensorsFile::parse(std::string_view bytes, std::string_view what) {
  auto mapping = std::make_shared<Mapping>();
  mapping->what = what;
  mapping->copy.resize((bytes.size() + 7) / 8);
  if (!bytes.empty()) std::memcpy(mapping->copy.data(), bytes.data(), bytes.size());
  TH_RETURN_IF_ERROR(mapping->read({reinterpret_cast<const char*>(mapping->copy.data()), bytes.size()}));
  return SafetensorsFile(std::move(mapping));
}

std::span<const SafeTensor> SafetensorsFile::tensors() const { return mapping_->tensors; }

const SafeTensor* SafetensorsFile::find(std::string_view name) const {
  auto found = mapping_->by_name.find(name);
  return found == mapping_->by_name.end() ? nullptr : &mapping_->tensors[found->second];
}

const std::map<std::string, std::string>& SafetensorsFile::metadata() const { return mapping_->metadata; }

Status write_safetensors(const std::filesystem::path& path, std::span<const F32Tensor> tensors,
                         const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t at = 0;
  for (const F32Tensor& tensor : tensors) {
    auto bad = [&](std::string_view problem) {
      return fail(Code::kInvalidArgument,
                  fmt::format("{}: tensor '{}': {}", path.string(), tensor.name, problem));
    };
    if (tensor.name == "__metadata__" || header.contains(tensor.name)) return bad("the name is taken");
    auto count = element_count(tensor.shape);
    if (!count || static_cast<uint64_t>(*count) != tensor.values.size()) {
      return bad(fmt::format("{} values for shape {}", tensor.values.size(), shape_text(tensor.shape)));
    }
    const uint64_t end = at + tensor.values.size_bytes();
    header[tensor.name] = {{"dtype", "F32"}, {"shape", tensor.shape}, {"data_offsets", {at, end}}};
    at = end;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');  // so that the data are aligned
  std::string bytes(kLengthBytes, '\0');
  const uint64_t header_bytes = text.size();
  std::memcpy(bytes.data(), &header_bytes, kLengthBytes);
  bytes.reserve(kLengthBytes + text.size() + at);
  bytes += text;
  for (const F32Tensor& tensor : tensors) {
    bytes.append(reinterpret_cast<const char*>(tensor.values.data()), tensor.values.size_bytes());
  }
  return write_file_durable(path, bytes);
}

}  // namespace th::model
