#include "emulator.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "base/units.h"
#include "http/url.h"
#include "schemas.h"

namespace th::azure_emulator {
namespace {

constexpr const char* kSays = "not Azure: Thunderhead's emulator of Azure Resource Manager";
constexpr int64_t kTokenNs = 3599 * kSecond;

std::string http_date(int64_t ns) {
  const std::time_t seconds = ns / kSecond;
  return fmt::format("{:%a, %d %b %Y %H:%M:%S} GMT", fmt::gmtime(seconds));
}

Json form_of(const std::string& body) {
  Json form = Json::object();
  const auto target = http::parse_target("/?" + body);
  if (target) {
    for (const auto& [name, value] : target->query) form[name] = value;
  }
  return form;
}

}  // namespace

http::Response fault(int status, const std::string& code, const std::string& message) {
  return http::json_response({{"error", {{"code", code}, {"message", message}}}}, status);
}

std::string stamp(int64_t ns) {
  const std::time_t seconds = ns / kSecond;
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:07}+00:00", fmt::gmtime(seconds), ns % kSecond / 100);
}

http::Response page_of(const http::Request& request, const std::vector<Json>& values, size_t page,
                       const std::string& base_url) {
  const auto skip = request.query.find("$skiptoken");
  const size_t first = skip == request.query.end() ? 0 : std::strtoull(skip->second.c_str(), nullptr, 10);
  Json body = {{"value", Json::array()}};
  for (size_t i = first; i < std::min(first + page, values.size()); ++i) body["value"].push_back(values[i]);
  if (first + page < values.size()) {
    std::string link = fmt::format("{}{}?$skiptoken={}", base_url, request.path, first + page);
    for (const auto& [name, value] : request.query) {
      if (name != "$skiptoken") link += fmt::format("&{}={}", name, http::percent_encode(value));
    }
    body["nextLink"] = link;
  }
  return http::json_response(body);
}

Emulator::Emulator(uint64_t seed) : Emulator(seed, Account()) {}
Emulator::Emulator(uint64_t seed, Account account)
    : account_(std::move(account)), prng_(seed), now_ns_(1'795'000'000 * kSecond) {}

bool Emulator::chance(int64_t per_mille) {
  if (per_mille <= 0 || static_cast<int64_t>(prng_.below(1000)) >= per_mille) return false;
  ++misbehaved;
  return true;
}

/// Whole milliseconds, so that times survive their text form.
int64_t Emulator::between(int64_t low_ns, int64_t high_ns) {
  const auto span = static_cast<uint64_t>((high_ns - low_ns) / kMillisecond + 1);
  return low_ns + static_cast<int64_t>(prng_.below(span)) * kMillisecond;
}

void Emulator::after(int64_t ns, std::function<void()> what) {
  due_.emplace(std::pair(now_ns_ + ns, next_++), std::move(what));
}

void Emulator::advance(int64_t ns) {
  const int64_t to_ns = now_ns_ + ns;
  while (!due_.empty() && due_.begin()->first.first <= to_ns) {
    auto first = due_.extract(due_.begin());
    now_ns_ = std::max(now_ns_, first.key().first);
    first.mapped()();
  }
  now_ns_ = to_ns;
}

void Emulator::drain() {
  while (!due_.empty()) advance(std::max<int64_t>(due_.begin()->first.first - now_ns_, 0));
}

Result<http::Response> Emulator::carry(const http::Call& call) {
  TH_TRY(const auto url, http::parse_url(call.url));
  TH_TRY(const auto target, http::parse_target(url.target));
  http::Request request{call.method, target.path, target.query, call.headers, call.body, {}, "emulated"};
  auto lost = [&](const char* how) {
    advance(std::min<int64_t>(call.timeout_ns, between(kSecond, 30 * kSecond)));
    return fail(Code::kUnavailable, fmt::format("{} {}: {}", call.method, target.path, how));
  };
  advance(between(20 * kMillisecond, 400 * kMillisecond));
  if (chance(faults.lost_request)) return lost("connection refused");
  if (chance(faults.late_request)) {
    after(between(kMinute, 10 * kMinute), [this, request] { answer(request); });
    advance(call.timeout_ns);
    return fail(Code::kDeadlineExceeded, fmt::format("{} {}: no answer", call.method, target.path));
  }
  http::Response response = answer(request);
  if (chance(faults.repeated)) after(between(0, 10 * kMinute), [this, request] { answer(request); });
  if (chance(faults.lost_answer)) return lost("connection reset");
  advance(between(20 * kMillisecond, 400 * kMillisecond));
  return response;
}

http::Response Emulator::answer(const http::Request& request) {
  ++requests;
  http::Response response = route(request);
  response.headers.emplace_back("X-Emulator", kSays);
  // All that it says in JSON are objects.
  if (response.body.starts_with('{')) {
    const bool more = response.body != "{}";
    response.body.insert(1, fmt::format("\"emulator\":\"{}\"{}", kSays, more ? "," : ""));
  }
  return response;
}

http::Response Emulator::route(const http::Request& request) {
  const std::vector<std::string> way = split(request.path.substr(1), '/');
  const std::string& first = way[0];
  if (first == "metadata")
    return way.size() > 1 && way[1] == "identity" ? identity(request) : scheduled_events(request);
  if (chance(faults.throttle)) {
    auto slow = fault(429, "TooManyRequests", "slow down");
    slow.headers.emplace_back("Retry-After", std::to_string(1 + prng_.below(60)));
    return slow;
  }
  if (chance(faults.server_error))
    return fault(prng_.below(2) ? 500 : 503, "InternalServerError", "emulated");
  if (request.path == "/api/retail/prices") return prices(request);
  if (request.path == "/" + account_.tenant + "/oauth2/v2.0/token") return tokens(request);
  if (request.path.ends_with("/oauth2/v2.0/token"))
    return http::json_response({{"error", "invalid_request"},
                                {"error_description", "AADSTS90002: Tenant '" + first + "' not found."}},
                               400);
  if (first != "subscriptions") return fault(404, "NotFound", "the emulator knows no such address");
  if (!known_token(request)) return fault(401, "InvalidAuthenticationToken", "The access token is invalid.");
  if (way.size() < 2 || way[1] != account_.subscription)
    return fault(404, "SubscriptionNotFound",
                 "The subscription '" + (way.size() > 1 ? way[1] : "") + "' could not be found.");
  return arm(request, {way.begin() + 2, way.end()});
}

/// 200 when the request fits the schema of its kind.
http::Response Emulator::checked(const std::string& kind, const http::Request& request, const Json& body) {
  Json whole = {{"query", Json::object()}, {"headers", Json::object()}, {"body", body}};
  for (const auto& [name, value] : request.query) whole["query"][name] = value;
  for (const auto& [name, value] : request.headers) {
    std::string lower = name;
    std::ranges::transform(lower, lower.begin(), [](unsigned char c) { return std::tolower(c); });
    whole["headers"][lower] = value;
  }
  const std::string problem = check_request(kind, whole);
  if (problem.empty()) return {};
  refused.push_back(request.method + " " + request.path + ": " + problem);
  return fault(400, "InvalidRequestContent", problem);
}

std::string Emulator::new_token() {
  std::string token = fmt::format("emulated-token-{}-{:016x}", next_++, prng_.next());
  tokens_[token] = now_ns_ + kTokenNs;
  return token;
}

bool Emulator::known_token(const http::Request& request) {
  const auto token = request.bearer();
  if (token && chance(faults.token_expires)) tokens_.erase(*token);
  return token && tokens_.count(*token) && now_ns_ < tokens_[*token];
}

http::Response Emulator::tokens(const http::Request& request) {
  const Json form = form_of(request.body);
  if (auto bad = checked("token", request, form); bad.status != 200) return bad;
  if (form["client_id"] != account_.client_id || form["client_secret"] != account_.client_secret) {
    // It repeats the secret, which Azure does not: what is shown to people must not hold it even then.
    return http::json_response({{"error", "invalid_client"},
                                {"error_description", "AADSTS7000215: Invalid client secret provided: " +
                                                          form["client_secret"].get<std::string>()}},
                               401);
  }
  return http::json_response({{"token_type", "Bearer"}, {"expires_in", 3599}, {"access_token", new_token()}});
}

http::Response Emulator::identity(const http::Request& request) {
  if (auto bad = checked("identity", request, nullptr); bad.status != 200) return bad;
  return http::json_response(
      {{"token_type", "Bearer"}, {"expires_in", "3599"}, {"access_token", new_token()}});
}

std::string Emulator::announce(const std::string& kind, const std::string& set, int instance, int64_t in_ns) {
  const std::string id = fmt::format("event-{}", next_++);
  events_[id] = {kind, set, instance, now_ns_ + in_ns, false};
  after(in_ns, [this, id] { start_event(id); });
  return id;
}

void Emulator::start_event(const std::string& id) {
  const auto event = events_.find(id);
  if (event == events_.end() || event->second.started) return;
  event->second.started = true;
  const auto set = sets_.find(event->second.set);
  if (event->second.kind == "Preempt" && set != sets_.end()) {
    const auto instance = set->second.instances.find(event->second.instance);
    if (instance != set->second.instances.end() && instance->second.power == "running") {
      instance->second.power = "deallocated", instance->second.changed_ns = now_ns_;
      release(instance->second);
    }
  }
  after(kMinute, [this, id] { events_.erase(id); });
}

http::Response Emulator::scheduled_events(const http::Request& request) {
  if (request.method == "POST") {
    const auto body = parse_json(request.body, "body");
    if (auto bad = checked("acknowledge", request, body ? *body : Json()); bad.status != 200) return bad;
    for (const Json& start : (*body)["StartRequests"]) {
      const std::string id = start["EventId"];
      if (!events_.count(id)) return fault(400, "Bad request", "no such event");
      start_event(id);
    }
    return http::json_response(Json::object());
  }
  if (auto bad = checked("metadata", request, nullptr); bad.status != 200) return bad;
  Json list = Json::array();
  for (const auto& [id, event] : events_) {
    list.push_back({{"EventId", id},
                    {"EventType", event.kind},
                    {"ResourceType", "VirtualMachine"},
                    {"Resources", Json::array({fmt::format("{}_{}", event.set, event.instance)})},
                    {"EventStatus", event.started ? "Started" : "Scheduled"},
                    {"NotBefore", event.started ? "" : http_date(event.not_before_ns)},
                    {"Description", "emulated"},
                    {"EventSource", "Platform"},
                    {"DurationInSeconds", -1}});
  }
  return http::json_response({{"DocumentIncarnation", next_}, {"Events", list}});
}

http::Response Emulator::prices(const http::Request& request) const {
  const std::string filter = request.query.count("$filter") ? request.query.at("$filter") : "";
  Json items = Json::array();
  for (const Offer& offer : account_.offers) {
    if (filter.find("armSkuName eq '" + offer.size + "'") == filter.npos ||
        filter.find("armRegionName eq '" + account_.region + "'") == filter.npos)
      continue;
    for (const auto& [meter, product, price] :
         {std::tuple(offer.size + " Spot", "Virtual Machines Series", offer.spot_dollars_per_hour),
          {offer.size, "Virtual Machines Series Windows", offer.dollars_per_hour * 1.2},
          {offer.size + " Low Priority", "Virtual Machines Series", offer.spot_dollars_per_hour},
          {offer.size, "Virtual Machines Series", offer.dollars_per_hour}}) {
      items.push_back({{"currencyCode", "USD"},
                       {"retailPrice", price},
                       {"unitPrice", price},
                       {"armRegionName", account_.region},
                       {"meterName", meter},
                       {"productName", product},
                       {"unitOfMeasure", "1 Hour"},
                       {"type", "Consumption"},
                       {"armSkuName", offer.size}});
    }
  }
  return http::json_response(
      {{"BillingCurrency", "USD"}, {"Items", items}, {"NextPageLink", nullptr}, {"Count", items.size()}});
}

}  // namespace th::azure_emulator
