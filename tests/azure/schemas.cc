#include "schemas.h"

#include <fmt/format.h>

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <valijson/adapters/nlohmann_json_adapter.hpp>
#include <valijson/schema.hpp>
#include <valijson/schema_parser.hpp>
#include <valijson/validator.hpp>

namespace th::azure_emulator {
namespace {

// Derived from Azure/azure-rest-api-specs, Compute 2025-04-01 ComputeRP.json (VirtualMachineScaleSet,
// VirtualMachineScaleSetUpdate, VirtualMachineScaleSetVMInstanceIDs, CapacityReservationGroup,
// CapacityReservation, ScheduleProfile), and learn.microsoft.com: OAuth 2.0 client credentials, scheduled
// events 2020-07-01, managed identity 2018-02-01, retail prices. Names that these do not have are refused.

constexpr const char* kParts = R"json({
  "version": {"type": "object", "required": ["api-version"], "additionalProperties": false, "properties": {
    "api-version": {"enum": ["2025-04-01", "2021-07-01"]},
    "$expand": {"enum": ["instanceView"]}, "$filter": {"type": "string"}, "$skiptoken": {"type": "string"}}},
  "compute": {"type": "object", "required": ["api-version"], "additionalProperties": false, "properties": {
    "api-version": {"enum": ["2025-04-01"]}, "forceDeletion": {"enum": ["true", "false"]}}},
  "bearer": {"type": "object", "required": ["authorization"], "properties": {
    "authorization": {"type": "string", "minLength": 8}}},
  "json": {"type": "object", "required": ["authorization", "content-type"], "properties": {
    "authorization": {"type": "string", "minLength": 8},
    "content-type": {"enum": ["application/json"]},
    "if-none-match": {"enum": ["*"]}}},
  "nothing": {"type": "null"},
  "tags": {"type": "object", "maxProperties": 50, "additionalProperties": {"type": "string", "maxLength": 256}},
  "zones": {"type": "array", "maxItems": 3, "items": {"enum": ["1", "2", "3"]}},
  "id": {"type": "object", "required": ["id"], "additionalProperties": false, "properties": {
    "id": {"type": "string", "pattern": "^/subscriptions/[^/]+/"}}},
  "sku": {"type": "object", "required": ["name", "capacity"], "additionalProperties": false, "properties": {
    "name": {"type": "string", "pattern": "^Standard_"}, "tier": {"enum": ["Standard"]},
    "capacity": {"type": "integer", "minimum": 0, "maximum": 1000}}}
})json";

constexpr const char* kProfile = R"json({"type": "object", "additionalProperties": false,
  "required": ["storageProfile", "osProfile", "networkProfile"], "properties": {
    "storageProfile": {"type": "object", "required": ["imageReference", "osDisk"], "additionalProperties": false,
      "properties": {
        "imageReference": {"oneOf": [
          {"type": "object", "required": ["id"], "additionalProperties": false, "properties": {
            "id": {"type": "string", "pattern": "^/"}}},
          {"type": "object", "required": ["publisher", "offer", "sku", "version"], "additionalProperties": false,
            "properties": {"publisher": {"type": "string"}, "offer": {"type": "string"}, "sku": {"type": "string"},
              "version": {"type": "string"}}}]},
        "osDisk": {"type": "object", "required": ["createOption"], "additionalProperties": false, "properties": {
          "createOption": {"enum": ["FromImage"]},
          "managedDisk": {"type": "object", "additionalProperties": false, "properties": {
            "storageAccountType": {"enum": ["Standard_LRS", "StandardSSD_LRS", "Premium_LRS"]}}}}}}},
    "osProfile": {"type": "object", "required": ["computerNamePrefix", "adminUsername", "linuxConfiguration"],
      "additionalProperties": false, "properties": {
        "computerNamePrefix": {"type": "string", "minLength": 1, "maxLength": 58},
        "adminUsername": {"type": "string", "minLength": 1, "maxLength": 64},
        "customData": {"type": "string", "pattern": "^[A-Za-z0-9+/]*=*$", "maxLength": 87380},
        "linuxConfiguration": {"type": "object", "required": ["disablePasswordAuthentication", "ssh"],
          "additionalProperties": false, "properties": {
            "disablePasswordAuthentication": {"enum": [true]},
            "ssh": {"type": "object", "required": ["publicKeys"], "properties": {"publicKeys": {"type": "array",
              "minItems": 1, "items": {"type": "object", "required": ["path", "keyData"]}}}}}}}},
    "networkProfile": {"type": "object", "required": ["networkInterfaceConfigurations"],
      "additionalProperties": false, "properties": {"networkInterfaceConfigurations": {"type": "array",
        "minItems": 1, "items": {"type": "object", "required": ["name", "properties"], "properties": {
          "properties": {"type": "object", "required": ["primary", "ipConfigurations"], "properties": {
            "ipConfigurations": {"type": "array", "minItems": 1, "items": {"type": "object",
              "required": ["name", "properties"], "properties": {"properties": {"type": "object",
                "required": ["subnet"]}}}}}}}}}}},
    "priority": {"enum": ["Regular", "Low", "Spot"]},
    "evictionPolicy": {"enum": ["Deallocate", "Delete"]},
    "billingProfile": {"type": "object", "additionalProperties": false, "properties": {
      "maxPrice": {"type": "number"}}},
    "capacityReservation": {"type": "object", "required": ["capacityReservationGroup"],
      "additionalProperties": false, "properties": {"capacityReservationGroup": {"type": "object",
        "required": ["id"], "properties": {"id": {"type": "string",
          "pattern": "/providers/Microsoft.Compute/capacityReservationGroups/[^/]+$"}}}}}
  }})json";

using Plain = nlohmann::json;  // the adapter knows this one

Plain request(const Plain& query, const Plain& headers, const Plain& body) {
  return {{"type", "object"},
          {"required", {"query", "headers", "body"}},
          {"properties", {{"query", query}, {"headers", headers}, {"body", body}}}};
}

Plain object(Plain properties, Plain required) {
  return {{"type", "object"},
          {"additionalProperties", false},
          {"properties", std::move(properties)},
          {"required", std::move(required)}};
}

Plain text() { return {{"type", "string"}, {"minLength", 1}}; }

// A regular expression is made anew at each check, so they are few.
Plain text(const char* pattern) { return {{"type", "string"}, {"pattern", pattern}}; }

std::map<std::string, Plain> make_kinds() {
  const Plain parts = Plain::parse(kParts), nothing = parts["nothing"], compute = parts["compute"];
  const Plain json = parts["json"], bearer = parts["bearer"], any = {{"type", "object"}};
  const Plain set =
      object({{"orchestrationMode", {{"enum", {"Uniform"}}}},
              {"singlePlacementGroup", {{"type", "boolean"}}},
              {"overprovision", {{"type", "boolean"}}},
              {"upgradePolicy", object({{"mode", {{"enum", {"Automatic", "Manual", "Rolling"}}}}}, {"mode"})},
              {"virtualMachineProfile", Plain::parse(kProfile)}},
             {"upgradePolicy", "virtualMachineProfile"});
  const Plain date = text("^[0-9]{4}-[0-9]{2}-[0-9]{2}$");
  const Plain metadata = {
      {"type", "object"}, {"required", {"metadata"}}, {"properties", {{"metadata", {{"enum", {"true"}}}}}}};
  const Plain events = object({{"api-version", {{"enum", {"2020-07-01"}}}}}, {"api-version"});
  return {
      {"read", request(parts["version"], bearer, nothing)},
      {"change", request(compute, bearer, nothing)},
      {"token", request(object(Plain::object(), Plain::array()), any,
                        object({{"grant_type", {{"enum", {"client_credentials"}}}},
                                {"client_id", text()},
                                {"client_secret", text()},
                                {"scope", text("/\\.default$")}},
                               {"grant_type", "client_id", "client_secret", "scope"}))},
      {"identity",
       request(
           object({{"api-version", {{"enum", {"2018-02-01"}}}}, {"resource", text()}, {"client_id", text()}},
                  {"api-version", "resource"}),
           metadata, nothing)},
      {"put set", request(compute, json,
                          object({{"location", text()},
                                  {"tags", parts["tags"]},
                                  {"sku", parts["sku"]},
                                  {"zones", parts["zones"]},
                                  {"properties", set}},
                                 {"location", "sku", "properties"}))},
      {"patch set", request(compute, json, object({{"tags", parts["tags"]}}, {"tags"}))},
      {"deallocate",
       request(compute, json,
               object({{"instanceIds", {{"type", "array"}, {"minItems", 1}, {"items", text("^[0-9]+$")}}}},
                      Plain::array()))},
      {"put group",
       request(compute, json,
               object({{"location", text()},
                       {"tags", parts["tags"]},
                       {"zones", parts["zones"]},
                       {"properties",
                        object({{"reservationType", {{"enum", {"Targeted", "Block"}}}}}, Plain::array())}},
                      {"location"}))},
      {"put reservation",
       request(compute, json,
               object({{"location", text()},
                       {"tags", parts["tags"]},
                       {"zones", parts["zones"]},
                       {"sku", parts["sku"]},
                       {"properties", object({{"scheduleProfile",
                                               object({{"start", date}, {"end", date}}, {"start", "end"})}},
                                             Plain::array())}},
                      {"location", "sku"}))},
      {"metadata", request(events, metadata, nothing)},
      {"acknowledge", request(events, metadata,
                              object({{"StartRequests",
                                       {{"type", "array"},
                                        {"minItems", 1},
                                        {"items", object({{"EventId", text()}}, {"EventId"})}}}},
                                     {"StartRequests"}))},
      {"prices",
       request(object({{"api-version", text()}, {"$filter", text()}, {"$skip", text()}}, {"$filter"}), any,
               nothing)},
  };
}

const std::map<std::string, std::shared_ptr<valijson::Schema>>& schemas() {
  static const auto all = [] {
    std::map<std::string, std::shared_ptr<valijson::Schema>> out;
    for (const auto& [kind, text] : make_kinds()) {
      out[kind] = std::make_shared<valijson::Schema>();
      valijson::SchemaParser().populateSchema(valijson::adapters::NlohmannJsonAdapter(text), *out[kind]);
    }
    return out;
  }();
  return all;
}

}  // namespace

std::string check_request(const std::string& kind, const Json& request) {
  const Plain plain = request;
  valijson::Validator validator;
  valijson::ValidationResults results;
  const auto& schema = *schemas().at(kind);
  if (validator.validate(schema, valijson::adapters::NlohmannJsonAdapter(plain), &results)) return {};
  // The innermost error comes first.
  valijson::ValidationResults::Error error;
  std::string where, what = "does not fit the schema";
  if (results.popError(error)) {
    for (const std::string& step : error.context) where += step;
    what = error.description;
  }
  return fmt::format("{} ({}): {}", kind, where, what);
}

}  // namespace th::azure_emulator
