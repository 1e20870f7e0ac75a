#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "base/units.h"
#include "emulator.h"

namespace th::azure_emulator {
namespace {

constexpr size_t kSetsAPage = 3, kInstancesAPage = 40;

std::map<std::string, std::string> tags_of(const Json& body) {
  std::map<std::string, std::string> tags;
  if (body.contains("tags")) {
    for (const auto& [name, value] : body["tags"].items()) tags[name] = value.get<std::string>();
  }
  return tags;
}

http::Response gone() { return {204, {}, ""}; }

}  // namespace

http::Response Emulator::arm(const http::Request& request, const std::vector<std::string>& way) {
  const std::string compute = "Microsoft.Compute";
  if (way.size() >= 3 && way[0] == "providers" && way[1] == compute) {
    if (auto bad = checked("read", request, nullptr); bad.status != 200) return bad;
    if (way[2] == "skus") return sizes(request);
    if (way.size() == 5 && way[4] == "usages") return quotas();
    if (way.size() == 6 && way[4] == "operations") return operation(way[5]);
  }
  if (way.size() >= 2 && way[0] == "resourceGroups" && way[1] != account_.resource_group)
    return fault(404, "ResourceGroupNotFound", "Resource group '" + way[1] + "' could not be found.");
  if (way.size() >= 5 && way[2] == "providers" && way[3] == compute) {
    const std::vector<std::string> rest(way.begin() + 5, way.end());
    if (way[4] == "virtualMachineScaleSets") return scale_sets(request, rest);
    if (way[4] == "capacityReservationGroups") return reservation_groups(request, rest);
  }
  return fault(404, "InvalidResourceType", "the emulator has no such resource");
}

http::Response Emulator::sizes(const http::Request& request) const {
  std::vector<Json> values;
  for (const Offer& offer : account_.offers) {
    Json size = {{"resourceType", "virtualMachines"},
                 {"name", offer.size},
                 {"family", offer.family},
                 {"locations", Json::array({account_.region})},
                 {"locationInfo", Json::array({{{"location", account_.region}, {"zones", {"1", "2"}}}})},
                 {"capabilities", Json::array({{{"name", "vCPUs"}, {"value", std::to_string(offer.vcpus)}}})},
                 {"restrictions", Json::array()}};
    if (offer.restricted)
      size["restrictions"].push_back({{"type", "Location"},
                                      {"values", Json::array({account_.region})},
                                      {"restrictionInfo", {{"locations", Json::array({account_.region})}}},
                                      {"reasonCode", "NotAvailableForSubscription"}});
    values.push_back(size);
  }
  return page_of(request, values, 2, base_url);
}

int64_t Emulator::vcpus_used(const std::string& family) const {
  int64_t used = 0;
  for (const auto& [name, set] : sets_) {
    const std::string size = set.model["sku"]["name"];
    const auto offer = std::ranges::find(account_.offers, size, &Offer::size);
    if (offer == account_.offers.end() || offer->family != family) continue;
    for (const auto& [id, one] : set.instances)
      used += one.power.empty() || one.power == "deallocated" ? 0 : offer->vcpus;
  }
  return used;
}

http::Response Emulator::quotas() const {
  Json values = Json::array();
  for (const Offer& offer : account_.offers)
    values.push_back({{"unit", "Count"},
                      {"currentValue", vcpus_used(offer.family)},
                      {"limit", account_.quota_vcpus},
                      {"name", {{"value", offer.family}, {"localizedValue", offer.family}}}});
  values.push_back({{"unit", "Count"},
                    {"currentValue", 0},
                    {"limit", account_.quota_vcpus},
                    {"name", {{"value", "lowPriorityCores"}, {"localizedValue", "Spot"}}}});
  return http::json_response({{"value", values}});
}

http::Response Emulator::operation(const std::string& id) const {
  const auto found = operations_.find(id);
  if (found == operations_.end()) return fault(404, "NotFound", "no such operation");
  const Operation& operation = found->second;
  if (operation.by_location)
    return operation.status == "InProgress" ? http::Response{202, {{"Retry-After", "5"}}, ""} : gone();
  Json body = {{"name", id}, {"status", operation.status}};
  if (!operation.code.empty()) body["error"] = {{"code", operation.code}, {"message", operation.message}};
  return http::json_response(body);
}

/// 202, or 201 by the caller, with where to look. Some operations only have a Location.
http::Response Emulator::begin(int64_t takes_ns, bool may_be_location,
                               std::function<void(Operation&)> finish) {
  const std::string id = fmt::format("op-{}", next_++);
  if (chance(faults.slow)) takes_ns = between(10 * kMinute, kHour);
  operations_[id].by_location = may_be_location && prng_.below(2);
  after(takes_ns, [this, id, finish] {
    operations_[id].status = "Succeeded";
    finish(operations_[id]);
  });
  const std::string url = fmt::format(
      "{}/subscriptions/{}/providers/Microsoft.Compute/locations/{}/operations/{}?api-version=2025-04-01",
      base_url, account_.subscription, account_.region, id);
  http::Response accepted{202, {{"Location", url}}, ""};
  if (!operations_[id].by_location) accepted.headers.emplace_back("Azure-AsyncOperation", url);
  if (prng_.below(2)) accepted.headers.emplace_back("Retry-After", std::to_string(1 + prng_.below(20)));
  return accepted;
}

http::Response Emulator::scale_sets(const http::Request& request, const std::vector<std::string>& way) {
  Json body;
  if (!request.body.empty()) {
    auto parsed = parse_json(request.body, "body");
    if (!parsed) return fault(400, "InvalidRequestContent", parsed.error().message);
    body = *parsed;
  }
  const bool one = way.size() == 1;
  const std::string kind = request.method == "GET"                       ? "read"
                           : request.method == "PUT" && one              ? "put set"
                           : request.method == "PATCH" && one            ? "patch set"
                           : request.method == "POST" && way.size() == 2 ? "deallocate"
                                                                         : "change";
  if (auto bad = checked(kind, request, body); bad.status != 200) return bad;
  if (way.empty()) {
    std::vector<Json> values;
    for (const auto& [name, set] : sets_) values.push_back(json_of(set));
    return page_of(request, values, kSetsAPage, base_url);
  }
  if (request.method == "PUT" && one) return put_set(request, way[0], body);
  const auto found = sets_.find(way[0]);
  if (found == sets_.end()) {
    if (request.method == "DELETE") return gone();
    return fault(404, "ResourceNotFound",
                 "The Resource 'Microsoft.Compute/virtualMachineScaleSets/" + way[0] + "' was not found.");
  }
  ScaleSet& set = found->second;
  if (request.method == "GET" && one) return http::json_response(json_of(set));
  if (request.method == "GET") {
    std::vector<Json> values;
    for (const auto& [id, instance] : set.instances) values.push_back(json_of(set, instance));
    return page_of(request, values, kInstancesAPage, base_url);
  }
  if (request.method == "DELETE" && one) return delete_set(set);
  if (set.busy()) return fault(409, "OperationNotAllowed", "Another operation is in progress.");
  if (request.method == "PATCH") {
    set.tags = tags_of(body);
    return http::json_response(json_of(set));
  }
  if (request.method == "POST" && way.size() == 2 && way[1] == "deallocate") return deallocate(set, body);
  if (request.method == "DELETE" && way.size() == 3) return delete_instance(set, std::atoi(way[2].c_str()));
  return fault(405, "MethodNotAllowed", request.method);
}

/// Status 200: there is nothing against it.
http::Response Emulator::refuse_set(const Json& body) const {
  const std::string size = body["sku"]["name"], region = body["location"];
  const int64_t count = body["sku"]["capacity"];
  const auto offer = std::ranges::find(account_.offers, size, &Offer::size);
  if (region != account_.region || offer == account_.offers.end() || offer->restricted)
    return fault(
        409, "SkuNotAvailable",
        fmt::format("The requested size {} is currently not available in location '{}'.", size, region));
  const Json& properties = body["properties"];
  if (properties.value("singlePlacementGroup", true) && count > 100)
    return fault(400, "InvalidParameter", "a single placement group holds at most 100 VMs");
  const Json& profile = properties["virtualMachineProfile"];
  const Json& image = profile["storageProfile"]["imageReference"];
  if (image.value("publisher", "") == "missing")
    return fault(404, "PlatformImageNotFound", "The platform image 'missing' is not available.");
  if (vcpus_used(offer->family) + count * offer->vcpus > account_.quota_vcpus)
    return fault(
        409, "OperationNotAllowed",
        fmt::format("Operation could not be completed as it results in exceeding approved {} Cores quota.",
                    offer->family));
  if (profile.contains("capacityReservation")) {
    const std::string id = profile["capacityReservation"]["capacityReservationGroup"]["id"];
    if (!groups_.count(id.substr(id.rfind('/') + 1)))
      return fault(404, "ResourceNotFound", "no capacity reservation group " + id);
  }
  return {};
}

http::Response Emulator::put_set(const http::Request& request, const std::string& name, const Json& body) {
  const auto old = sets_.find(name);
  if (old != sets_.end() && request.header("If-None-Match"))
    return fault(412, "PreconditionFailed", "the scale set exists");
  if (old != sets_.end() && old->second.busy())
    return fault(409, "OperationNotAllowed", "Another operation is in progress.");
  if (auto refused = refuse_set(body); refused.status != 200) return refused;
  ScaleSet& set = sets_[name];
  set.name = name, set.model = body, set.tags = tags_of(body), set.provisioning = "Creating";
  if (set.serial == 0) set.serial = next_++;
  const auto capacity = static_cast<size_t>(body["sku"]["capacity"].get<int64_t>());
  while (set.instances.size() < capacity) {
    Instance instance;
    instance.id = std::to_string(set.next_id), instance.name = fmt::format("{}_{}", name, set.next_id);
    instance.created_ns = instance.changed_ns = now_ns_;
    set.instances[set.next_id++] = instance;
  }
  http::Response accepted = begin(
      between(30 * kSecond, 5 * kMinute), false,
      [this, name, serial = set.serial](Operation& operation) { make_instances(name, serial, operation); });
  accepted.status = 201, accepted.body = dump_json(json_of(set));
  return accepted;
}

ScaleSet* Emulator::same_set(const std::string& name, int64_t serial) {
  const auto found = sets_.find(name);
  return found != sets_.end() && found->second.serial == serial ? &found->second : nullptr;
}

void Emulator::make_instances(const std::string& name, int64_t serial, Operation& operation) {
  ScaleSet* set = same_set(name, serial);
  if (set == nullptr || set->provisioning != "Creating") {
    operation.status = "Canceled", operation.code = "OperationPreempted",
    operation.message = "deleted meanwhile";
    return;
  }
  const bool none = chance(faults.no_capacity), half = !none && chance(faults.half);
  const bool silent = !none && !half && chance(faults.half_silent);
  constexpr const char* kCodes[] = {"AllocationFailed", "ZonalAllocationFailed",
                                    "OverconstrainedAllocationRequest"};
  const std::string code = kCodes[prng_.below(3)];
  size_t hosts = none ? 0 : half || silent ? set->instances.size() / 2 : set->instances.size();
  for (auto& [id, instance] : set->instances) {
    if (instance.provisioning != "Creating") continue;
    const bool gets = hosts > 0;
    if (gets) --hosts;
    instance.provisioning = gets ? "Succeeded" : "Failed";
    instance.power = gets ? "running" : "", instance.fault_code = gets ? "" : code;
    instance.changed_ns = now_ns_;
    if (gets) instance.billed_from_ns = instance.created_ns;
  }
  set->provisioning = none || half ? "Failed" : "Succeeded";
  if (none || half)
    operation.status = "Failed", operation.code = code, operation.message = "emulated: no room";
  if (on_allocated) on_allocated(*set);
}

void Emulator::release(Instance& instance) {
  if (instance.billed_from_ns == 0 || instance.billed_to_ns != 0) return;
  instance.billed_to_ns = now_ns_;
  ended_.push_back(instance);
}

http::Response Emulator::deallocate(ScaleSet& set, const Json& body) {
  std::vector<int> ids;
  for (const auto& [id, instance] : set.instances) {
    bool named = !body.contains("instanceIds");
    if (!named) {
      for (const Json& wanted : body["instanceIds"]) named = named || wanted == instance.id;
    }
    if (named) ids.push_back(id);
  }
  for (int id : ids) {
    Instance& instance = set.instances[id];
    if (instance.power == "running") instance.power = "deallocating";
  }
  return begin(between(10 * kSecond, 2 * kMinute), true,
               [this, ids, name = set.name, serial = set.serial](Operation&) {
                 ScaleSet* set = same_set(name, serial);
                 for (int id : ids) {
                   if (set == nullptr || !set->instances.count(id)) continue;
                   Instance& instance = set->instances[id];
                   if (instance.power != "deallocating") continue;
                   instance.power = "deallocated", instance.changed_ns = now_ns_;
                   release(instance);
                 }
               });
}

http::Response Emulator::delete_instance(ScaleSet& set, int id) {
  if (!set.instances.count(id)) return gone();
  set.instances[id].provisioning = "Deleting";
  return begin(between(10 * kSecond, 2 * kMinute), true,
               [this, id, name = set.name, serial = set.serial](Operation&) {
                 ScaleSet* set = same_set(name, serial);
                 if (set == nullptr || !set->instances.count(id)) return;
                 release(set->instances[id]);
                 set->instances.erase(id);
               });
}

http::Response Emulator::delete_set(ScaleSet& set) {
  set.provisioning = "Deleting";
  return begin(between(10 * kSecond, 3 * kMinute), true,
               [this, name = set.name, serial = set.serial](Operation&) {
                 if (same_set(name, serial) != nullptr) erase(name);
               });
}

void Emulator::erase(const std::string& name) {
  for (auto& [id, instance] : sets_.at(name).instances) release(instance);
  sets_.erase(name);
}

Json Emulator::json_of(const ScaleSet& set) const {
  Json json = set.model;
  json["name"] = set.name, json["tags"] = set.tags;
  json["type"] = "Microsoft.Compute/virtualMachineScaleSets";
  json["properties"]["provisioningState"] = set.provisioning;
  // Azure does not give these back.
  json["properties"]["virtualMachineProfile"]["osProfile"].erase("customData");
  return json;
}

Json Emulator::json_of(const ScaleSet& set, const Instance& instance) const {
  std::string state = instance.provisioning;
  state[0] = static_cast<char>(std::tolower(state[0]));
  if (!instance.fault_code.empty()) state += "/" + instance.fault_code;
  Json statuses = Json::array(
      {{{"code", "ProvisioningState/" + state}, {"level", "Info"}, {"time", stamp(instance.changed_ns)}}});
  if (!instance.power.empty())
    statuses.push_back({{"code", "PowerState/" + instance.power}, {"level", "Info"}});
  return {{"name", instance.name},
          {"instanceId", instance.id},
          {"location", account_.region},
          {"sku", {{"name", set.model["sku"]["name"]}, {"tier", "Standard"}}},
          {"properties",
           {{"provisioningState", instance.provisioning},
            {"timeCreated", stamp(instance.created_ns)},
            {"instanceView", {{"statuses", statuses}}}}}};
}

http::Response Emulator::reservation_groups(const http::Request& request,
                                            const std::vector<std::string>& way) {
  const auto parsed = parse_json(request.body.empty() ? "null" : request.body, "body");
  if (!parsed) return fault(400, "InvalidRequestContent", parsed.error().message);
  const std::string kind = request.method == "GET"      ? "read"
                           : request.method == "DELETE" ? "change"
                           : way.size() == 1            ? "put group"
                                                        : "put reservation";
  if (auto bad = checked(kind, request, *parsed); bad.status != 200) return bad;
  if (way.empty()) {
    std::vector<Json> values;
    for (const auto& [name, group] : groups_) values.push_back(group);
    return page_of(request, values, kSetsAPage, base_url);
  }
  const std::string name = way.size() == 3 ? way[0] + "/" + way[2] : way[0];
  auto& kept = way.size() == 3 ? reservations_ : groups_;
  if (request.method == "DELETE") {
    if (!kept.count(name)) return gone();
    const bool full =
        way.size() == 1 && reservations_.lower_bound(name + "/") != reservations_.lower_bound(name + "0");
    if (full) return fault(409, "OperationNotAllowed", "the group still holds reservations");
    leaving_.insert(name);
    return begin(between(kSecond, 20 * kSecond), true, [this, &kept, name](Operation&) {
      kept.erase(name);
      leaving_.erase(name);
    });
  }
  if (way.size() == 3 && !groups_.count(way[0])) return fault(404, "ResourceNotFound", "no such group");
  if (leaving_.count(name) || leaving_.count(way[0]))
    return fault(409, "OperationNotAllowed", "Another operation is in progress.");
  if (way.size() == 3 && chance(faults.no_capacity))
    return fault(409, "AllocationFailed", "emulated: no room");
  Json body = *parsed;
  body["name"] = way.back();
  kept[name] = body;
  return http::json_response(body, 201);
}

}  // namespace th::azure_emulator
