#include "access/rate_limit.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cstring>

namespace th::access {

int64_t RateLimit::wait_ns(const std::string& who, int64_t now_ns) const {
  const auto found = full_ns_.find(who);
  if (found == full_ns_.end()) return 0;
  return std::max<int64_t>(0, found->second - now_ns - (rate_.burst - 1) * rate_.interval_ns);
}

void RateLimit::count(const std::string& who, int64_t now_ns) {
  // No later than an empty bucket: tries that were refused anyway do not keep somebody out for longer.
  const int64_t latest_ns = now_ns + rate_.burst * rate_.interval_ns;
  auto [at, fresh] = full_ns_.try_emplace(who, now_ns);
  if (!fresh) by_full_ns_.erase({at->second, who});
  at->second = std::min(std::max(at->second, now_ns) + rate_.interval_ns, latest_ns);
  by_full_ns_.emplace(at->second, who);
  forget(now_ns);
}

int64_t RateLimit::take(const std::string& who, int64_t now_ns) {
  const int64_t wait = wait_ns(who, now_ns);
  if (wait == 0) count(who, now_ns);
  return wait;
}

void RateLimit::forget(int64_t now_ns) {
  while (!by_full_ns_.empty() &&
         (by_full_ns_.begin()->first <= now_ns || by_full_ns_.size() > max_entries_)) {
    full_ns_.erase(by_full_ns_.begin()->second);
    by_full_ns_.erase(by_full_ns_.begin());
  }
}

std::string peer_group(std::string_view peer) {
  std::string address(peer.substr(0, peer.rfind(':')));
  in6_addr v6{};
  if (::inet_pton(AF_INET6, address.c_str(), &v6) != 1) return address;
  char text[INET6_ADDRSTRLEN] = "";
  if (IN6_IS_ADDR_V4MAPPED(&v6)) {
    ::inet_ntop(AF_INET, v6.s6_addr + 12, text, sizeof text);
    return text;
  }
  std::memset(v6.s6_addr + 8, 0, 8);
  ::inet_ntop(AF_INET6, &v6, text, sizeof text);
  return std::string(text) + "/64";
}

}  // namespace th::access
