// Bytes as a safetensors file: an error, or tensors that can all be read. What starts with '{' is a header up
// to the end of the line, then data; its length is put in front here, so that seeds are text and mutations
// reach the header.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "model/safetensors.h"

namespace {

std::string with_length(std::string_view text) {
  const uint64_t header_bytes = std::min(text.find('\n'), text.size());
  std::string bytes(sizeof(header_bytes), '\0');
  std::memcpy(bytes.data(), &header_bytes, sizeof(header_bytes));
  bytes += text.substr(0, header_bytes);
  if (header_bytes < text.size()) bytes += text.substr(header_bytes + 1);
  return bytes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace th::model;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  auto file =
      SafetensorsFile::parse(input.starts_with('{') ? with_length(input) : std::string(input), "fuzz");
  if (!file) return 0;
  volatile unsigned sum = 0;
  for (const SafeTensor& tensor : file->tensors()) {
    TH_CHECK(file->find(tensor.name) == &tensor && tensor.size() >= 0);
    for (std::byte byte : tensor.data) sum = sum + static_cast<unsigned>(byte);
  }
  return 0;
}
