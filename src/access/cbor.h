#pragma once
// As much of CBOR (RFC 8949) as passkeys send: definite lengths, no tags, no floats; the keys of maps are
// integers or texts.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace th::access {

struct Cbor {
  enum class Kind { kInteger, kBytes, kText, kArray, kMap, kSimple };
  Kind kind = Kind::kSimple;
  int64_t integer = 0;                              // kInteger; of kSimple: 20 false, 21 true, 22 null
  std::string bytes;                                // kBytes, kText
  std::vector<Cbor> items;                          // kArray
  std::vector<std::pair<Cbor, Cbor>> entries = {};  // kMap, as they came; no key twice

  /// The value of a map under this key; nullptr: there is none, or this is no map.
  const Cbor* find(int64_t key) const;
  const Cbor* find(std::string_view key) const;
};

/// One value at the begin of `bytes`; takes what it read off it. Errors: kInvalidArgument (over 4 levels
/// deep, or anything that is not as said above). Cost: O(bytes).
Result<Cbor> read_cbor(std::string_view& bytes);

}  // namespace th::access
