#pragma once
// FNV-1a over what happened, in order: the same seed gives the same hash.

#include <cstdint>
#include <string_view>

namespace th::sim {

inline constexpr uint64_t kLogHashStart = 0xcbf29ce484222325ull;

/// A byte, or a whole word at once.
inline void hash_word(uint64_t& hash, uint64_t word) { hash = (hash ^ word) * 0x100000001b3ull; }
inline void hash_text(uint64_t& hash, std::string_view text) {
  for (const char c : text) hash_word(hash, static_cast<unsigned char>(c));
}

}  // namespace th::sim
