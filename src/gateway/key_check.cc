#include "gateway/key_check.h"

#include "base/env.h"

namespace th::gateway {
namespace {

std::string key_of(const http::Request& request) {
  std::optional<std::string> key = request.header("api-key");
  if (!key) key = request.bearer();
  return key.value_or("");
}

}  // namespace

KeyCheck::Found KeyCheck::find(const http::Request& request, const GatewayConfig& config) {
  const std::string key = key_of(request);
  if (key.empty()) return tl::unexpected(invalid_key(true));
  const ApiKey* known = config.find_key(key, Env::real().unix_ns());
  if (known == nullptr) return tl::unexpected(invalid_key(false));
  return known;
}

KeyCheck::Found KeyCheck::check(const http::Request& request, const GatewayConfig& config) {
  Found found = find(request, config);
  if (found || key_of(request).empty()) return found;
  const std::lock_guard lock(mutex_);
  const int64_t wait_ns = wrong_.take(access::peer_group(request.peer), Env::real().monotonic_ns());
  if (wait_ns == 0) return found;
  return tl::unexpected(
      too_many("requests", "Too many wrong API keys came from your address; try again later.", wait_ns));
}

}  // namespace th::gateway
