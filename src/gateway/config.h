#pragma once
// What the controller tells the gateway: deployments, their replicas, and the hashes of the keys.

#include <cstdint>
#include <map>
#include <memory>
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
};

/// Immutable once made; requests share the one they started with.
struct GatewayConfig {
  int64_t generation = 0;
  std::map<std::string, Deployment, std::less<>> deployments;
  std::map<std::string, std::string, std::less<>> key_id_of_sha256;

  const Deployment* find(std::string_view deployment) const;
  /// The id of a key by its SHA-256; nullptr when it is not known.
  const std::string* key_id(std::string_view key) const;
};

using ConfigSnapshot = std::shared_ptr<const GatewayConfig>;

/// Reads the answer of GET /api/v1/gateway/config. Unknown fields are ignored, so that either side may be
/// newer. Errors: kInvalidArgument, naming the field. Limits: 10,000 deployments, keys, and replicas of a
/// deployment.
Result<ConfigSnapshot> parse_gateway_config(std::string_view text);

}  // namespace th::gateway
