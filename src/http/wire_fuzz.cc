// Raw bytes through the parsers as the server and the client use them, whole and cut in two: a cut must not
// change what was read. The first byte says where to cut.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "http/wire.h"

namespace {

using th::http::Fed;

struct Outcome {
  bool done = false;
  bool refused = false;
  std::string text;
  bool operator==(const Outcome&) const = default;
};

template <class Reader>
Fed feed_in_two(Reader& reader, std::string_view bytes, size_t cut) {
  std::string input(bytes.substr(0, cut));
  Fed fed = reader.feed(input);
  if (fed.consumed > input.size()) std::abort();
  if (fed.done || fed.bad_status != 0 || cut >= bytes.size()) return fed;
  input.erase(0, fed.consumed);
  input += bytes.substr(cut);
  fed = reader.feed(input);
  if (fed.consumed > input.size()) std::abort();
  return fed;
}

Outcome read_request(std::string_view bytes, size_t cut) {
  th::http::RequestReader reader(512, 256);
  Fed fed = feed_in_two(reader, bytes, cut);
  Outcome outcome{fed.done, fed.bad_status != 0, {}};
  if (fed.done) {
    th::http::Request request = reader.take();
    if (request.body.size() > 256) std::abort();
    outcome.text = request.method + " " + request.path + "\n" + request.body;
  }
  return outcome;
}

Outcome read_response(std::string_view bytes, size_t cut) {
  th::http::ResponseReader reader(false);
  Fed fed = feed_in_two(reader, bytes, cut);
  Outcome outcome{fed.done, fed.bad_status != 0, {}};
  if (!outcome.refused && reader.has_head())
    outcome.text = std::to_string(reader.status()) + reader.take_body();
  if (!outcome.refused) static_cast<void>(reader.feed_end());
  return outcome;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  size_t cut = data[0] % (bytes.size() + 1);
  Outcome whole = read_request(bytes, bytes.size());
  Outcome cut_request = read_request(bytes, cut);
  if (whole.done && cut_request.done && !(whole == cut_request)) std::abort();
  Outcome response = read_response(bytes, bytes.size());
  Outcome cut_response = read_response(bytes, cut);
  if (response.done && cut_response.done && !(response == cut_response)) std::abort();
  return 0;
}
