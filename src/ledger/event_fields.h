#pragma once
// How an event says its kind and lists its fields (event_types.h).

#define TH_EVENT(kind)                       \
  static constexpr const char* kKind = kind; \
  template <class Self, class V>             \
  static void fields(Self& e, V& v)
#define TH_PART() TH_EVENT("")
