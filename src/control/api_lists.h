#pragma once
// Lists by pages, the same for every list route: ?limit=N&after=CURSOR&order=desc →
// {"items":[…],"next":CURSOR or null}.

#include <cstring>
#include <functional>
#include <iterator>
#include <map>
#include <optional>
#include <string>

#include "base/json.h"
#include "base/result.h"
#include "http/message.h"

namespace th::control {

inline constexpr int64_t kMaxPage = 10'000;

/// "a@9" before "a@10".
struct NaturalLess {
  bool operator()(const std::string& a, const std::string& b) const {
    return strverscmp(a.c_str(), b.c_str()) < 0;
  }
};
template <class T>
using ByName = std::map<std::string, T, NaturalLess>;

struct Page {
  int64_t limit = 0;  // 0: all
  std::string after;  // the key of the last item of the page before
  bool descending = false;
};
/// Errors: kInvalidArgument (limit is not 1 to kMaxPage, order neither asc nor desc).
Result<Page> page_of(const http::Request& request);

/// Takes one item (null: not shown); false: the page is full.
using TakeItem = std::function<bool(const std::string& key, Json&& item)>;
/// `walk(page, take)` hands over the items that come after page.after, in order, until one is not taken.
Result<Json> list_page(const http::Request& request,
                       const std::function<void(const Page& page, const TakeItem& take)>& walk);

/// Which of them, by ?state=active or ended; nullopt: all. Errors: kInvalidArgument (another word).
Result<std::optional<bool>> wants_ended(const http::Request& request);

/// The items of `map`, made by `make(key, value)` (null: not shown), in the map's order or against it. A
/// cursor is a key: items that come or go elsewhere move nothing. Without a limit there is no "next". Cost:
/// O(log n) and the page.
template <class Map, class Make>
auto list_json(const http::Request& request, const Map& map, Make make) {
  return list_page(request, [&](const Page& page, const TakeItem& take) {
    const auto walk = [&](auto at, auto end) {
      while (at != end && take(at->first, make(at->first, at->second))) ++at;
    };
    const bool whole = page.after.empty();
    if (page.descending)
      walk(std::make_reverse_iterator(whole ? map.end() : map.lower_bound(page.after)), map.rend());
    else
      walk(whole ? map.begin() : map.upper_bound(page.after), map.end());
  });
}

}  // namespace th::control
