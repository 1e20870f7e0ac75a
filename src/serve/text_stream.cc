#include "serve/text_stream.h"

#include <algorithm>

namespace th::serve {

std::string TextStream::push(std::string_view bytes) {
  if (stopped_) return {};
  add(utf8_.push(bytes));
  return release(stopped_ ? 0 : possible_stop());
}

std::string TextStream::finish() {
  if (stopped_) return {};
  add(utf8_.finish());
  return release(0);
}

void TextStream::add(std::string text) {
  held_ += text;
  size_t first = std::string::npos;
  for (const std::string& stop : stop_) first = std::min(first, held_.find(stop));
  if (first == std::string::npos) return;
  held_.resize(first);
  stopped_ = true;
}

std::string TextStream::release(size_t keep) {
  std::string out = held_.substr(0, held_.size() - keep);
  held_.erase(0, out.size());
  return out;
}

// How many bytes at the end may be the start of a stop string. A stop string that is not whole UTF-8 could
// begin inside a code point; requests come as JSON, which cannot say such a string.
size_t TextStream::possible_stop() const {
  size_t longest = 0;
  for (const std::string& stop : stop_) {
    for (size_t n = std::min(stop.size() - 1, held_.size()); n > longest; --n) {
      if (std::string_view(held_).substr(held_.size() - n) == std::string_view(stop).substr(0, n))
        longest = n;
    }
  }
  return longest;
}

}  // namespace th::serve
