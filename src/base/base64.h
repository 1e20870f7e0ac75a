#pragma once
// Base64: standard alphabet, padded.

#include <optional>
#include <string>
#include <string_view>

namespace th {

std::string to_base64(std::string_view bytes);
/// None: it is not base64.
std::optional<std::string> from_base64(std::string_view text);

}  // namespace th
