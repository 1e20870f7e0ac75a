#pragma once
// Things by the ids that the ledger gives out.

#include <map>
#include <string>
#include <string_view>

namespace th::ledger {

/// "job-2" before "job-10".
struct IdLess {
  using is_transparent = void;
  bool operator()(std::string_view a, std::string_view b) const {
    return a.size() != b.size() ? a.size() < b.size() : a < b;
  }
};
template <class T>
using ById = std::map<std::string, T, IdLess>;

}  // namespace th::ledger
