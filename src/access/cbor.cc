#include "access/cbor.h"

namespace th::access {
namespace {

constexpr int kMaxDepth = 4;
constexpr uint64_t kMaxItems = 64;

class Reader {
 public:
  explicit Reader(std::string_view& bytes) : bytes_(bytes) {}

  Result<Cbor> read(int depth) {
    if (depth > kMaxDepth) return bad("it is nested too deeply");
    if (bytes_.empty()) return bad("it ends too early");
    const auto first = static_cast<unsigned char>(bytes_.front());
    bytes_.remove_prefix(1);
    TH_TRY(const uint64_t argument, read_argument(first & 0x1f));
    switch (first >> 5) {
      case 0:
      case 1:
        return integer(argument, (first >> 5) == 1);
      case 2:
      case 3:
        return text(argument, (first >> 5) == 2 ? Cbor::Kind::kBytes : Cbor::Kind::kText);
      case 4:
        return array(argument, depth);
      case 5:
        return map(argument, depth);
      case 7:
        if ((first & 0x1f) >= 20 && (first & 0x1f) <= 22) return simple(argument);
        [[fallthrough]];
      default:
        return bad("a tag, a float or a simple value that passkeys do not have");
    }
  }

 private:
  static tl::unexpected<Error> bad(const char* problem) {
    return fail(Code::kInvalidArgument, std::string("CBOR: ") + problem);
  }

  Result<uint64_t> read_argument(int small) {
    if (small < 24) return static_cast<uint64_t>(small);
    if (small > 27) return bad("an indefinite length");
    const size_t size = size_t{1} << (small - 24);
    if (bytes_.size() < size) return bad("it ends too early");
    uint64_t value = 0;
    for (size_t i = 0; i < size; ++i) value = value << 8 | static_cast<unsigned char>(bytes_[i]);
    bytes_.remove_prefix(size);
    return value;
  }

  static Result<Cbor> integer(uint64_t argument, bool negative) {
    if (argument > uint64_t{INT64_MAX}) return bad("an integer over 63 bits");
    Cbor out;
    out.kind = Cbor::Kind::kInteger;
    out.integer = negative ? -1 - static_cast<int64_t>(argument) : static_cast<int64_t>(argument);
    return out;
  }

  static Result<Cbor> simple(uint64_t argument) {
    Cbor out;
    out.integer = static_cast<int64_t>(argument);
    return out;
  }

  Result<Cbor> text(uint64_t size, Cbor::Kind kind) {
    if (size > bytes_.size()) return bad("it ends too early");
    Cbor out;
    out.kind = kind;
    out.bytes = bytes_.substr(0, size);
    bytes_.remove_prefix(size);
    return out;
  }

  Result<Cbor> array(uint64_t count, int depth) {
    if (count > kMaxItems) return bad("a list of over 64 items");
    Cbor out;
    out.kind = Cbor::Kind::kArray;
    for (uint64_t i = 0; i < count; ++i) {
      TH_TRY(out.items.emplace_back(), read(depth + 1));
    }
    return out;
  }

  Result<Cbor> map(uint64_t count, int depth) {
    if (count > kMaxItems) return bad("a map of over 64 entries");
    Cbor out;
    out.kind = Cbor::Kind::kMap;
    for (uint64_t i = 0; i < count; ++i) {
      TH_TRY(Cbor key, read(depth + 1));
      const bool is_text = key.kind == Cbor::Kind::kText;
      if (!is_text && key.kind != Cbor::Kind::kInteger) return bad("a key that is neither integer nor text");
      if (is_text ? out.find(key.bytes) : out.find(key.integer)) return bad("a key stands twice in a map");
      TH_TRY(Cbor value, read(depth + 1));
      out.entries.emplace_back(std::move(key), std::move(value));
    }
    return out;
  }

  std::string_view& bytes_;
};

}  // namespace

const Cbor* Cbor::find(int64_t key) const {
  for (const auto& [at, value] : entries)
    if (at.kind == Kind::kInteger && at.integer == key) return &value;
  return nullptr;
}
const Cbor* Cbor::find(std::string_view key) const {
  for (const auto& [at, value] : entries)
    if (at.kind == Kind::kText && at.bytes == key) return &value;
  return nullptr;
}

Result<Cbor> read_cbor(std::string_view& bytes) { return Reader(bytes).read(0); }

}  // namespace th::access
