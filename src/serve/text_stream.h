#pragma once
// Token bytes in, text that may be sent out.

#include <string>
#include <string_view>
#include <vector>

#include "model/tokenizer.h"

namespace th::serve {

/// Joins the bytes of tokens and lets through only whole code points that cannot belong to a stop string any
/// more. The joined output does not depend on where token borders lie. Thread: one owner. Cost: O(bytes ·
/// stop strings).
class TextStream {
 public:
  /// `stop`: none empty.
  explicit TextStream(std::vector<std::string> stop) : stop_(std::move(stop)) {}
  /// Returns what may be sent now. When a stop string is complete: what stands before the first, then always
  /// "".
  std::string push(std::string_view bytes);
  /// The rest, at the end of the completion.
  std::string finish();
  bool stopped() const { return stopped_; }

 private:
  void add(std::string text);
  std::string release(size_t keep);
  size_t possible_stop() const;

  std::vector<std::string> stop_;
  model::Utf8Stream utf8_;
  std::string held_;  // valid text not yet sent
  bool stopped_ = false;
};

}  // namespace th::serve
