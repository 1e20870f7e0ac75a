// A SentencePiece model from anywhere: an error, or a tokenizer that encodes and decodes. Seeds are in hex,
// so that they are text.

#include <cstddef>
#include <cstdint>
#include <string>

#include "model/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string file(reinterpret_cast<const char*>(data), size);
  if (file.starts_with("hex")) {
    const auto digit = [](char c) { return c >= 'a' ? c - 'a' + 10 : c - '0'; };
    std::string bytes;
    for (size_t i = 3; i + 1 < file.size(); i += 2)
      bytes += static_cast<char>(digit(file[i]) << 4 | digit(file[i + 1]));
    file = std::move(bytes);
  }
  auto tokenizer = th::model::Tokenizer::from_sentencepiece(file, "fuzz");
  if (!tokenizer) return 0;
  const auto ids = tokenizer->encode("ab ac  \xe4\xb8\xad\xff\n");
  for (const int32_t id : ids) TH_CHECK(id >= 0 && id < tokenizer->vocab_size());
  tokenizer->decode(ids);
  return 0;
}
