// Any bytes as a token file: an error, or a header that counts what is there. Seeds are in hex, so that they
// are text; what begins with "fix" gets the checksum that it should have, so that what lies behind that
// check is reached too.

#include <cstddef>
#include <cstdint>

#include "base/text.h"
#include "train/token_file.h"

namespace {

constexpr size_t kHeaderBytes = 128, kDigestAt = 48;

std::string bytes_of_hex(std::string_view hex) {
  const auto digit = [](char c) { return c >= 'a' ? c - 'a' + 10 : c - '0'; };
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2)
    bytes += static_cast<char>(digit(hex[i]) << 4 | digit(hex[i + 1]));
  return bytes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const bool is_fixed = input.starts_with("fix"), is_hex = is_fixed || input.starts_with("hex");
  std::string file = is_hex ? bytes_of_hex(input.substr(3)) : std::string(input);
  if (is_fixed && file.size() >= kHeaderBytes)
    file.replace(kDigestAt, 32, bytes_of_hex(th::sha256_hex(std::string_view(file).substr(kHeaderBytes))));
  auto header = th::train::parse_token_file(file, "fuzz");
  if (header) {
    TH_CHECK(header->num_documents <= header->num_tokens && header->sha256.size() == 64);
  } else {
    TH_CHECK(header.error().code == th::Code::kDataLoss);
  }
  return 0;
}
