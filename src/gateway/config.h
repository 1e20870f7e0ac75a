#pragma once
// What the controller tells the gateway: deployments, their replicas, and the hashes of the keys.

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "safety/content_filter.h"

namespace th::gateway {

struct Replica {
  std::string id;
  std::string url;  // "http://127.0.0.1:41000", no slash at the end
};

struct Deployment {
  std::string name;
  std::string model;
  int64_t tokens_per_minute = 0;  // 0: no limit
  std::vector<Replica> replicas;  // those that are ready
  std::shared_ptr<const safety::ContentFilter> filter;
  std::optional<std::vector<std::string>> tenants;  // whose keys may use it; none: everybody's
};

struct ApiKey {
  std::string id, tenant;
  int64_t expires_ns = 0, tokens_per_minute = 0;  // 0: never, no limit
};

/// Immutable once made; requests share the one they started with.
struct GatewayConfig {
  int64_t generation = 0;
  std::map<std::string, Deployment, std::less<>> deployments;
  std::map<std::string, ApiKey, std::less<>> key_of_sha256;

  /// nullptr where it does not exist for that key.
  const Deployment* find(std::string_view deployment, const ApiKey& key) const;
  /// By its SHA-256; nullptr when it is not known, or has expired.
  const ApiKey* find_key(std::string_view key, int64_t now_ns) const;
};

using ConfigSnapshot = std::shared_ptr<const GatewayConfig>;

/// Reads the answer of GET /api/v1/gateway/config. Unknown fields are ignored, so that either side may be
/// newer. Errors: kInvalidArgument, naming the field. Limits: 10,000 deployments, keys, and replicas of a
/// deployment.
Result<ConfigSnapshot> parse_gateway_config(std::string_view text);

}  // namespace th::gateway
