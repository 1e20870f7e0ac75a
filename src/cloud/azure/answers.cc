#include "cloud/azure/answers.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/units.h"

namespace th::cloud::azure {
namespace {

/// Null where the way does not exist.
const Json& at(const Json& json, std::initializer_list<const char*> way) {
  static const Json kNull;
  const Json* here = &json;
  for (const char* field : way) {
    if (!here->is_object()) return kNull;
    const auto found = here->find(field);
    if (found == here->end()) return kNull;
    here = &*found;
  }
  return *here;
}

std::string text(const Json& json, std::initializer_list<const char*> way) {
  const Json& found = at(json, way);
  return found.is_string() ? found.get<std::string>() : std::string();
}

/// Also a number in a string; 0 for what is out of range.
int64_t number(const Json& found) {
  if (found.is_number_integer()) return found.get<int64_t>();
  if (found.is_number_float()) {
    const double value = found.get<double>();
    return std::abs(value) < 9e15 ? static_cast<int64_t>(value) : 0;
  }
  if (!found.is_string()) return 0;
  const std::string digits = found.get<std::string>();
  return digits.size() < 18 ? std::strtoll(digits.c_str(), nullptr, 10) : 0;
}

int64_t time_of(const Json& json, std::initializer_list<const char*> way) {
  return parse_rfc3339_ns(text(json, way)).value_or(0);
}

std::map<std::string, std::string> tags_of(const Json& json) {
  std::map<std::string, std::string> tags;
  const Json& found = at(json, {"tags"});
  if (!found.is_object()) return tags;
  for (const auto& [name, value] : found.items()) {
    if (value.is_string()) tags[name] = value.get<std::string>();
  }
  return tags;
}

std::vector<std::string> strings(const Json& list) {
  std::vector<std::string> out;
  if (!list.is_array()) return out;
  for (const Json& item : list) {
    if (item.is_string()) out.push_back(item.get<std::string>());
  }
  return out;
}

Result<Json> object(std::string_view body, const char* what) {
  TH_TRY(Json json, parse_json(body, what));
  if (!json.is_object()) return fail(Code::kInvalidArgument, fmt::format("{}: want a JSON object", what));
  return json;
}

/// `list` of the body through `read`, which returns none for what is to be left out.
template <class T, class Read>
Result<Page<T>> page(std::string_view body, const char* what, const char* list, const char* next, Read read) {
  TH_TRY(const Json json, object(body, what));
  const Json& values = at(json, {list});
  if (!values.is_array())
    return fail(Code::kInvalidArgument, fmt::format("{}: has no list '{}'", what, list));
  Page<T> out;
  for (const Json& value : values) {
    if (std::optional<T> item = read(value)) out.values.push_back(*std::move(item));
  }
  out.next = text(json, {next});
  return out;
}

std::optional<ScaleSet> set_of(const Json& json) {
  ScaleSet set;
  set.name = text(json, {"name"}), set.location = text(json, {"location"});
  if (set.name.empty()) return std::nullopt;
  set.size = text(json, {"sku", "name"}), set.capacity = number(at(json, {"sku", "capacity"}));
  set.provisioning_state = text(json, {"properties", "provisioningState"});
  set.spot = text(json, {"properties", "virtualMachineProfile", "priority"}) == "Spot";
  set.tags = tags_of(json);
  return set;
}

std::optional<Instance> instance_of(const Json& json) {
  Instance instance;
  instance.id = text(json, {"instanceId"}), instance.name = text(json, {"name"});
  if (instance.id.empty()) return std::nullopt;
  instance.provisioning_state = text(json, {"properties", "provisioningState"});
  instance.created_ns = time_of(json, {"properties", "timeCreated"});
  const Json& statuses = at(json, {"properties", "instanceView", "statuses"});
  if (!statuses.is_array()) return instance;
  constexpr std::string_view kPower = "PowerState/", kFailed = "ProvisioningState/failed/";
  for (const Json& status : statuses) {
    const std::string code = text(status, {"code"});
    if (code.starts_with(kPower)) instance.power = code.substr(kPower.size());
    if (code.starts_with(kFailed)) instance.fault_code = code.substr(kFailed.size());
    if (code.starts_with("ProvisioningState/")) instance.changed_ns = time_of(status, {"time"});
  }
  return instance;
}

bool one_of(std::string_view word, std::initializer_list<std::string_view> words) {
  return std::ranges::find(words, word) != words.end();
}

/// Codes as Azure's pages on allocation failures, quotas and common deployment errors list them.
Code code_of(int status, const Fault& fault, bool spot) {
  const std::string_view code = fault.code;
  if (one_of(code, {"AllocationFailed", "ZonalAllocationFailed", "OverconstrainedAllocationRequest",
                    "OverconstrainedZonalAllocationRequest", "AllocationTimedOut"}))
    return Code::kNoCapacity;
  if (code == "SkuNotAvailable") return spot ? Code::kNoCapacity : Code::kUnsatisfiable;
  const bool quota =
      fault.message.find("quota") != std::string::npos || fault.message.find("Quota") != std::string::npos;
  if (code == "QuotaExceeded" || (code == "OperationNotAllowed" && quota)) return Code::kResourceExhausted;
  if (status == 401 || one_of(code, {"invalid_client", "unauthorized_client", "InvalidAuthenticationToken",
                                     "ExpiredAuthenticationToken"}))
    return Code::kUnauthenticated;
  if (status == 403) return Code::kPermissionDenied;
  if (status == 404 || one_of(code, {"PlatformImageNotFound", "ImageNotFound", "GalleryImageNotFound",
                                     "InvalidImageReference", "ResourceNotFound"}))
    return Code::kNotFound;
  if (status == 412) return Code::kFailedPrecondition;
  if (status == 409 || status == 429 || status >= 500) return Code::kUnavailable;
  if (one_of(code, {"Conflict", "OperationPreempted", "OperationNotAllowed", "InternalExecutionError",
                    "InternalServerError", "InternalOperationError", "RetryableError",
                    "NetworkingInternalOperationError"}))
    return Code::kUnavailable;
  return status >= 400 ? Code::kInvalidArgument : Code::kInternal;
}

std::string_view advice(Code code, std::string_view fault) {
  if (fault.find("ImageNotFound") != fault.npos || fault == "InvalidImageReference")
    return "; name an image that exists in the region (cloud.image)";
  if (fault == "ResourceGroupNotFound")
    return "; make the resource group, or name another (cloud.resource_group)";
  if (fault == "SubscriptionNotFound" || fault == "InvalidSubscriptionId")
    return "; name a subscription of the tenant (cloud.subscription)";
  switch (code) {
    case Code::kNoCapacity:
      return "; try another series, zone or region, fewer VMs, or later";
    case Code::kUnsatisfiable:
      return "; ask for another series, zone or region";
    case Code::kResourceExhausted:
      return "; ask for fewer VMs, or ask Microsoft for more quota";
    case Code::kUnauthenticated:
      return "; check tenant, client id and client secret";
    case Code::kPermissionDenied:
      return "; give the identity the role Contributor on the resource group";
    case Code::kUnavailable:
      return "; try again";
    default:
      return "";
  }
}

std::optional<Sku> sku_of(const Json& json, std::string_view region) {
  auto same = [](std::string_view a, std::string_view b) {
    return std::ranges::equal(a, b, [](char x, char y) { return std::tolower(x) == std::tolower(y); });
  };
  if (text(json, {"resourceType"}) != "virtualMachines") return std::nullopt;
  const auto regions = strings(at(json, {"locations"}));
  if (std::ranges::none_of(regions, [&](const auto& one) { return same(one, region); })) return std::nullopt;
  Sku sku;
  sku.name = text(json, {"name"}), sku.family = text(json, {"family"});
  for (const Json& info : at(json, {"locationInfo"})) {
    if (same(text(info, {"location"}), region)) sku.zones = strings(at(info, {"zones"}));
  }
  for (const Json& capability : at(json, {"capabilities"})) {
    if (text(capability, {"name"}) == "vCPUs") sku.vcpus = number(at(capability, {"value"}));
  }
  for (const Json& restriction : at(json, {"restrictions"})) {
    sku.reason = text(restriction, {"reasonCode"});
    if (text(restriction, {"type"}) == "Location") sku.here = false;
    for (std::string& zone : strings(at(restriction, {"restrictionInfo", "zones"})))
      sku.restricted_zones.push_back(std::move(zone));
  }
  return sku;
}

}  // namespace

Fault read_fault(std::string_view body) {
  const auto json = object(body, "an error of Azure");
  if (!json) return {};
  const Json& error = at(*json, {"error"});
  if (error.is_string()) return {error.get<std::string>(), text(*json, {"error_description"})};
  const Json& holder = error.is_object() ? error : *json;
  Fault fault{text(holder, {"code"}), text(holder, {"message"})};
  // A deployment that failed names its cause further in.
  const Json& details = at(holder, {"details"});
  if (details.is_array() && !details.empty() && !text(details[0], {"code"}).empty())
    fault = {text(details[0], {"code"}), text(details[0], {"message"})};
  return fault;
}

Error error_of_fault(int status, const Fault& fault, std::string_view what, bool spot) {
  const Code code = code_of(status, fault, spot);
  const std::string name = !fault.code.empty() ? fault.code : fmt::format("HTTP {}", status);
  // The text of somebody else, so bounded.
  const std::string why = fault.message.empty() ? "" : ": " + fault.message.substr(0, 400);
  return {code, fmt::format("Azure, {}: {}{}{}", what, name, why, advice(code, fault.code))};
}

bool ScaleSet::settled() const { return one_of(provisioning_state, {"Succeeded", "Failed", "Canceled"}); }

Result<ScaleSet> read_set(std::string_view body) {
  TH_TRY(const Json json, object(body, "a scale set"));
  if (auto set = set_of(json)) return *std::move(set);
  return fail(Code::kInvalidArgument, "a scale set without a name");
}

Result<Page<ScaleSet>> read_sets(std::string_view body) {
  return page<ScaleSet>(body, "the list of scale sets", "value", "nextLink", set_of);
}

Result<Page<Instance>> read_instances(std::string_view body) {
  return page<Instance>(body, "the instances of a scale set", "value", "nextLink", instance_of);
}

Result<Page<NamedTags>> read_groups(std::string_view body) {
  return page<NamedTags>(body, "the capacity reservation groups", "value", "nextLink",
                         [](const Json& json) -> std::optional<NamedTags> {
                           return NamedTags{text(json, {"name"}), tags_of(json)};
                         });
}

Result<Operation> read_operation(std::string_view body) {
  TH_TRY(const Json json, object(body, "an operation"));
  const std::string status = text(json, {"status"});
  if (status.empty()) return fail(Code::kInvalidArgument, "an operation without a status");
  if (status == "Succeeded") return Operation{Operation::State::kSucceeded, {}};
  if (status == "Failed" || status == "Canceled")
    return Operation{Operation::State::kFailed, read_fault(body)};
  return Operation{};
}

Result<Page<Sku>> read_skus(std::string_view body, std::string_view region) {
  return page<Sku>(body, "the list of VM sizes", "value", "nextLink",
                   [&](const Json& json) { return sku_of(json, region); });
}

Result<Page<Usage>> read_usages(std::string_view body) {
  return page<Usage>(body, "the quotas", "value", "nextLink", [](const Json& json) -> std::optional<Usage> {
    return Usage{text(json, {"name", "value"}), number(at(json, {"currentValue"})),
                 number(at(json, {"limit"}))};
  });
}

Result<Page<Price>> read_prices(std::string_view body) {
  return page<Price>(
      body, "the list of prices", "Items", "NextPageLink", [](const Json& json) -> std::optional<Price> {
        const Json& price = at(json, {"retailPrice"});
        const double dollars = price.is_number() ? price.get<double>() : -1;
        if (text(json, {"unitOfMeasure"}) != "1 Hour" || text(json, {"currencyCode"}) != "USD" ||
            !(dollars > 0 && dollars < 1e6))
          return std::nullopt;
        return Price{text(json, {"meterName"}), text(json, {"productName"}), std::llround(dollars * 1e6)};
      });
}

Result<Token> read_token(std::string_view body) {
  TH_TRY(const Json json, object(body, "an access token"));
  Token token{text(json, {"access_token"}), number(at(json, {"expires_in"}))};
  if (token.secret.empty()) return fail(Code::kInvalidArgument, "the answer holds no access token");
  return token;
}

Result<std::vector<Event>> read_events(std::string_view body) {
  TH_TRY(auto found, page<Event>(body, "the scheduled events", "Events", "", [](const Json& json) {
           std::string kind = text(json, {"EventType"});
           std::ranges::transform(kind, kind.begin(), [](unsigned char c) { return std::tolower(c); });
           const auto known = notice_from_name(kind);
           const std::string id = text(json, {"EventId"});
           if (!known || id.empty()) return std::optional<Event>();
           return std::optional<Event>({id, *known, strings(at(json, {"Resources"})),
                                        parse_http_date_ns(text(json, {"NotBefore"})).value_or(0),
                                        text(json, {"Description"})});
         }));
  return std::move(found.values);
}

namespace {

std::optional<int64_t> unix_ns_of(std::tm time) {
  if (time.tm_mon < 0 || time.tm_mon > 11 || time.tm_mday < 1 || time.tm_mday > 31 || time.tm_hour > 23 ||
      time.tm_min > 59 || time.tm_sec > 60 || time.tm_year < 70 || time.tm_year > 300)
    return std::nullopt;
  return timegm(&time) * kSecond;
}

/// Digits of `text` from `from`; -1: not so many there.
int digits(std::string_view text, size_t from, size_t count) {
  int value = 0;
  for (size_t i = from; i < from + count; ++i) {
    if (i >= text.size() || text[i] < '0' || text[i] > '9') return -1;
    value = value * 10 + (text[i] - '0');
  }
  return value;
}

}  // namespace

std::optional<int64_t> parse_rfc3339_ns(std::string_view text) {
  std::tm time{};
  const int parts[] = {digits(text, 0, 4),  digits(text, 5, 2),  digits(text, 8, 2),
                       digits(text, 11, 2), digits(text, 14, 2), digits(text, 17, 2)};
  if (std::ranges::min(parts) < 0 || text[4] != '-' || text[7] != '-' || text[10] != 'T' || text[13] != ':' ||
      text[16] != ':')
    return std::nullopt;
  time.tm_year = parts[0] - 1900, time.tm_mon = parts[1] - 1, time.tm_mday = parts[2];
  time.tm_hour = parts[3], time.tm_min = parts[4], time.tm_sec = parts[5];
  auto ns = unix_ns_of(time);
  if (!ns) return std::nullopt;
  size_t rest = 19;
  if (rest < text.size() && text[rest] == '.') {
    int64_t unit = kSecond / 10;
    for (++rest; rest < text.size() && text[rest] >= '0' && text[rest] <= '9'; ++rest, unit /= 10)
      *ns += (text[rest] - '0') * unit;
  }
  const std::string_view zone = text.substr(rest);
  if (zone == "Z") return ns;
  const int hours = digits(zone, 1, 2), minutes = digits(zone, 4, 2);
  if (zone.size() != 6 || (zone[0] != '+' && zone[0] != '-') || zone[3] != ':' || hours < 0 || minutes < 0)
    return std::nullopt;
  const int64_t offset_ns = hours * kHour + minutes * kMinute;
  return zone[0] == '+' ? *ns - offset_ns : *ns + offset_ns;
}

std::optional<int64_t> parse_http_date_ns(std::string_view text) {
  constexpr std::string_view kMonths = "JanFebMarAprMayJunJulAugSepOctNovDec";
  if (text.size() != 29 || !text.ends_with(" GMT") || text.substr(3, 2) != ", ") return std::nullopt;
  const size_t month = kMonths.find(text.substr(8, 3));
  std::tm time{};
  time.tm_mday = digits(text, 5, 2), time.tm_year = digits(text, 12, 4) - 1900;
  time.tm_hour = digits(text, 17, 2), time.tm_min = digits(text, 20, 2), time.tm_sec = digits(text, 23, 2);
  if (month == kMonths.npos || month % 3 != 0 || time.tm_hour < 0 || time.tm_min < 0 || time.tm_sec < 0)
    return std::nullopt;
  time.tm_mon = static_cast<int>(month / 3);
  return unix_ns_of(time);
}

}  // namespace th::cloud::azure
