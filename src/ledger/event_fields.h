#pragma once
// How an event says its kind and lists its fields (event_types.h), and what events of several topics are made
// of.

#include <cstdint>
#include <string>

#define TH_EVENT(kind)                       \
  static constexpr const char* kKind = kind; \
  template <class Self, class V>             \
  static void fields(Self& e, V& v)
#define TH_PART() TH_EVENT("")

namespace th::ledger {

/// A share of one host that a slice owns.
struct Share {
  std::string host, rack, leaf;
  int64_t gpus = 0;
  TH_PART() { v("host", e.host), v("rack", e.rack), v("leaf", e.leaf), v("gpus", e.gpus); }
};

/// Of a model or a data set.
struct ModelFile {
  std::string name;
  int64_t bytes = 0;
  std::string sha256;
  TH_PART() { v("name", e.name), v("bytes", e.bytes), v("sha256", e.sha256); }
};

}  // namespace th::ledger
