#include "gateway/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/text.h"

namespace th::gateway {

namespace {

constexpr size_t kMaxItems = 10'000;

Result<const Json*> get_list(const Json& object, const char* field) {
  static const Json kEmpty = Json::array();
  auto found = object.find(field);
  if (found == object.end() || found->is_null()) return &kEmpty;
  if (!found->is_array()) return fail(Code::kInvalidArgument, fmt::format("field '{}': want a list", field));
  if (found->size() > kMaxItems) {
    return fail(Code::kInvalidArgument, fmt::format("field '{}': over {} items", field, kMaxItems));
  }
  for (const Json& item : *found) {
    if (!item.is_object())
      return fail(Code::kInvalidArgument, fmt::format("field '{}': want a list of objects", field));
  }
  return &*found;
}

Result<safety::Policy> read_policy(const Json& deployment) {
  safety::Policy policy;
  auto found = deployment.find("content_filter");
  if (found == deployment.end() || found->is_null()) return policy;
  if (!found->is_object()) return fail(Code::kInvalidArgument, "field 'content_filter': want an object");
  TH_TRY(std::string level, get_string(*found, "level", "medium"));
  TH_TRY(policy.block_at, safety::parse_level(level));
  TH_TRY(const Json* lists, get_list(*found, "blocklists"));
  for (const Json& list : *lists) {
    safety::Blocklist blocklist;
    TH_TRY(blocklist.name, get_string(list, "name"));
    auto terms = list.find("terms");
    if (terms == list.end() || !terms->is_array()) {
      return fail(Code::kInvalidArgument, "field 'terms' of a blocklist: want a list of strings");
    }
    for (const Json& term : *terms) {
      if (!term.is_string())
        return fail(Code::kInvalidArgument, "field 'terms' of a blocklist: want strings");
      blocklist.terms.push_back(term.get<std::string>());
    }
    policy.blocklists.push_back(std::move(blocklist));
  }
  return policy;
}

Result<Deployment> read_deployment(const Json& item) {
  Deployment deployment;
  TH_TRY(deployment.name, get_string(item, "name"));
  TH_RETURN_IF_ERROR(check_name(deployment.name, "deployment"));
  TH_TRY(deployment.model, get_string(item, "model", deployment.name));
  if (auto limit = item.find("tokens_per_minute"); limit != item.end() && !limit->is_null()) {
    TH_TRY(deployment.tokens_per_minute, get_int(item, "tokens_per_minute"));
  }
  if (deployment.tokens_per_minute < 0) {
    return fail(Code::kInvalidArgument,
                fmt::format("deployment '{}': tokens_per_minute is {}, want 0 (no limit) or more",
                            deployment.name, deployment.tokens_per_minute));
  }
  if (auto tenants = item.find("tenants"); tenants != item.end()) {
    deployment.tenants.emplace();
    for (const Json& tenant : tenants->is_array() ? *tenants : Json::array()) {
      if (!tenant.is_string())
        return fail(Code::kInvalidArgument, "field 'tenants' of a deployment: want strings");
      deployment.tenants->push_back(tenant.get<std::string>());
    }
  }
  TH_TRY(const Json* replicas, get_list(item, "replicas"));
  for (const Json& entry : *replicas) {
    Replica replica;
    TH_TRY(replica.id, get_string(entry, "id"));
    TH_TRY(replica.url, get_string(entry, "url"));
    while (replica.url.ends_with('/')) replica.url.pop_back();
    if (!replica.url.starts_with("http://") && !replica.url.starts_with("https://")) {
      return fail(Code::kInvalidArgument,
                  fmt::format("deployment '{}': replica '{}' has no http URL", deployment.name, replica.id));
    }
    deployment.replicas.push_back(std::move(replica));
  }
  TH_TRY(safety::Policy policy, read_policy(item));
  TH_TRY(deployment.filter, safety::ContentFilter::create(std::move(policy)));
  return deployment;
}

}  // namespace

const Deployment* GatewayConfig::find(std::string_view deployment, const ApiKey& key) const {
  auto found = deployments.find(deployment);
  if (found == deployments.end()) return nullptr;
  const auto& tenants = found->second.tenants;
  const bool may = !tenants || std::find(tenants->begin(), tenants->end(), key.tenant) != tenants->end();
  return may ? &found->second : nullptr;
}

const ApiKey* GatewayConfig::find_key(std::string_view key, int64_t now_ns) const {
  auto found = key_of_sha256.find(sha256_hex(key));
  if (found == key_of_sha256.end()) return nullptr;
  const int64_t expires_ns = found->second.expires_ns;
  return expires_ns == 0 || now_ns < expires_ns ? &found->second : nullptr;
}

Result<ConfigSnapshot> parse_gateway_config(std::string_view text) {
  TH_TRY(Json root, parse_json(text, "gateway configuration"));
  if (!root.is_object()) return fail(Code::kInvalidArgument, "gateway configuration: want an object");
  auto config = std::make_shared<GatewayConfig>();
  TH_TRY(config->generation, get_int(root, "generation"));
  TH_TRY(const Json* deployments, get_list(root, "deployments"));
  for (const Json& item : *deployments) {
    TH_TRY(Deployment deployment, read_deployment(item));
    std::string name = deployment.name;
    if (!config->deployments.emplace(name, std::move(deployment)).second) {
      return fail(Code::kInvalidArgument,
                  fmt::format("gateway configuration: deployment '{}' stands there twice", name));
    }
  }
  TH_TRY(const Json* keys, get_list(root, "keys"));
  for (const Json& item : *keys) {
    ApiKey key;
    TH_TRY(key.id, get_string(item, "id"));
    TH_TRY(key.tenant, get_string(item, "tenant", ""));
    TH_TRY(key.expires_ns, get_int(item, "expires_ns", 0));
    TH_TRY(key.tokens_per_minute, get_int(item, "tokens_per_minute", 0));
    TH_TRY(std::string sha256, get_string(item, "sha256"));
    if (sha256.size() != 64 || sha256.find_first_not_of("0123456789abcdef") != std::string::npos) {
      return fail(Code::kInvalidArgument,
                  fmt::format("key '{}': sha256 is not 64 hex digits in lower case", key.id));
    }
    if (key.expires_ns < 0 || key.tokens_per_minute < 0)
      return fail(Code::kInvalidArgument, fmt::format("key '{}': want no number below 0", key.id));
    config->key_of_sha256.emplace(std::move(sha256), std::move(key));
  }
  return ConfigSnapshot(std::move(config));
}

}  // namespace th::gateway
