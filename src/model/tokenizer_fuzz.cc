// A tokenizer.json, or a vocab.json and merges.txt with an empty line between them, from anywhere: an error
// or a tokenizer that round-trips; the first byte chooses what the rest is.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "model/bpe_trainer.h"
#include "model/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace th::model;
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const size_t middle = std::min(text.find("\n\n"), text.size());
  auto tokenizer = data[0] == '{' ? Tokenizer::from_json({reinterpret_cast<const char*>(data), size}, "fuzz")
                   : data[0] == '2'
                       ? Tokenizer::from_gpt2(text.substr(0, middle), text.substr(middle), "fuzz")
                       : train_bpe(text, {.vocab_size = 280});
  if (!tokenizer) return 0;
  TH_CHECK(tokenizer->decode(tokenizer->encode(text)) == text);
  TH_CHECK(Tokenizer::from_json(tokenizer->to_json(), "again").has_value());
  Utf8Stream stream;
  stream.push(text);
  stream.finish();
  tokenizer->encode_with_specials(text);
  return 0;
}
