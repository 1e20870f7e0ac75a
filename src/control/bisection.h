#pragma once
// Finds the slow among many by measuring parts of them. Pure.

#include <cstddef>
#include <string>
#include <vector>

namespace th::control {

/// First all, then halves of what is slow, each beside the others, and in the end every one that is left
/// together with one that was fast. Cost: log2(n) + 2 rounds for one slow member of n, some more where each
/// part has one.
class Bisection {
 public:
  /// Pre: two or more.
  explicit Bisection(std::vector<std::string> members);

  /// What to measure now, at the same time: no two parts share a member. Empty: it is over.
  const std::vector<std::vector<std::string>>& round() const { return round_; }
  /// fast[i]: whether round()[i] was. Pre: one a part.
  void take(const std::vector<bool>& fast);

  // Once it is over:
  bool passed() const { return passed_; }  // all of them together were fast
  /// Those that were slow with one that is fast, or, where none is, all. Empty though they did not pass: only
  /// all of them together are slow.
  const std::vector<std::string>& slow() const { return slow_; }

 private:
  void plan();
  void search();

  std::vector<std::vector<std::string>> round_;
  std::vector<std::vector<std::string>> halves_;  // to measure
  std::vector<std::string> alone_;                // to measure with a fast one
  std::vector<std::string> fast_, slow_;
  enum { kAll, kHalves, kSearch, kPairs } stage_ = kAll;
  size_t mask_ = 0;  // kSearch: alone_[i] was measured with alone_[i ^ mask_]
  bool passed_ = false;
};

}  // namespace th::control
