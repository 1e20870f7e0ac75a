#pragma once
// Answers of Azure's services as plain values. Everything here reads what came over the wire: whatever is
// missing is empty, whatever has another type counts as missing, and what cannot be used at all is an error.
//
// Shapes, from Azure/azure-rest-api-specs (Compute 2025-04-01, ComputeRP.json and its examples; Skus
// 2021-07-01) and learn.microsoft.com (resource manager's asynchronous operations; identity platform, client
// credentials; Instance Metadata Service, scheduled events 2020-07-01 and managed identity 2018-02-01; retail
// prices 2023-01-01-preview), read 2026-11-22.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "cloud/provider.h"

namespace th::cloud::azure {

/// "code" and "message" of {"error": {...}} or of what OAuth says; empty where the body has none.
struct Fault {
  std::string code, message;
};
Fault read_fault(std::string_view body);

/// What a fault means to us. `what`: what was asked, "creating scale set x". Codes: kNoCapacity
/// (AllocationFailed, ZonalAllocationFailed, OverconstrainedAllocationRequest, ...), kUnsatisfiable
/// (SkuNotAvailable), kResourceExhausted (QuotaExceeded), kUnauthenticated, kPermissionDenied, kNotFound,
/// kFailedPrecondition (412), kUnavailable (429, 409 of an operation under way, 5xx: try again),
/// kInvalidArgument, kInternal. `spot`: for a spot VM SkuNotAvailable means no capacity
/// (learn.microsoft.com, error codes of spot VMs).
Error error_of_fault(int status, const Fault& fault, std::string_view what, bool spot = false);

struct ScaleSet {
  std::string name, location, size, provisioning_state;
  int64_t capacity = 0;
  bool spot = false;
  std::map<std::string, std::string> tags;

  bool settled() const;  // no operation is under way on it
};

struct Instance {
  std::string id;                  // "3"
  std::string name;                // "th-1f3c_3": also how scheduled events call it
  std::string provisioning_state;  // "Succeeded"
  std::string power;               // "running", "deallocated", ...; empty: never had a host
  std::string fault_code;          // of "ProvisioningState/failed/AllocationFailed"
  int64_t created_ns = 0;          // since 1970
  int64_t changed_ns = 0;          // when its provisioning state was last set
};

template <class T>
struct Page {
  std::vector<T> values;
  std::string next;  // URL of the next page; empty: the last
};
Result<ScaleSet> read_set(std::string_view body);
Result<Page<ScaleSet>> read_sets(std::string_view body);
Result<Page<Instance>> read_instances(std::string_view body);
struct NamedTags {
  std::string name;
  std::map<std::string, std::string> tags;
};
Result<Page<NamedTags>> read_groups(std::string_view body);

struct Operation {
  enum class State { kUnderWay, kSucceeded, kFailed };
  State state = State::kUnderWay;
  Fault fault;  // kFailed
};
Result<Operation> read_operation(std::string_view body);

struct Sku {
  std::string name, family;
  int64_t vcpus = 0;
  std::vector<std::string> zones;
  bool here = true;                           // not restricted in the whole region
  std::vector<std::string> restricted_zones;  // not to be had there
  std::string reason;                         // "NotAvailableForSubscription"
};
/// Of virtual machines in this region; others are left out.
Result<Page<Sku>> read_skus(std::string_view body, std::string_view region);

struct Usage {
  std::string name;  // "standardNDSv5H100Family"
  int64_t used = 0, limit = 0;
};
Result<Page<Usage>> read_usages(std::string_view body);

struct Price {
  std::string meter, product;
  int64_t microusd_per_hour = 0;
};
/// Those in US dollars an hour; others are left out.
Result<Page<Price>> read_prices(std::string_view body);

struct Token {
  std::string secret;
  int64_t lifetime_s = 0;
};
Result<Token> read_token(std::string_view body);

struct Event {
  std::string id;
  NoticeKind kind = NoticeKind::kPreempt;
  std::vector<std::string> instances;  // names
  int64_t not_before_ns = 0;           // 0: it has begun
  std::string detail;
};
/// Kinds that we do not know are left out.
Result<std::vector<Event>> read_events(std::string_view body);

/// "2024-11-01T04:58:58.0882815+00:00" → nanoseconds since 1970; none: not such a time.
std::optional<int64_t> parse_rfc3339_ns(std::string_view text);
/// "Mon, 19 Sep 2016 18:29:47 GMT".
std::optional<int64_t> parse_http_date_ns(std::string_view text);

}  // namespace th::cloud::azure
