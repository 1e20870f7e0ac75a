// Any bytes as a token file: an error, or tokens and documents that can all be read.

#include <cstddef>
#include <cstdint>

#include "train/token_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view file(reinterpret_cast<const char*>(data), size);
  auto header = th::train::parse_token_file(file, "fuzz");
  if (!header)
    TH_CHECK(header.error().code == th::Code::kDataLoss);
  else
    TH_CHECK(header->num_documents <= header->num_tokens && header->sha256.size() == 64);
  return 0;
}
