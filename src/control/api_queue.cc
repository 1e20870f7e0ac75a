// Routes of accounts, reservations and power caps.

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "base/units.h"
#include "control/api.h"
#include "control/api_lists.h"
#include "control/views.h"
#include "control/visible.h"

namespace th::control {
namespace {

constexpr int64_t kMaxCapW = 1'000'000'000'000;

Result<std::vector<std::string>> strings(const Json& body, const char* field) {
  std::vector<std::string> out;
  const auto found = body.find(field);
  if (found == body.end()) return out;
  if (!found->is_array())
    return fail(Code::kInvalidArgument, fmt::format("field '{}': want a list of names", field));
  for (const Json& item : *found) {
    if (!item.is_string())
      return fail(Code::kInvalidArgument, fmt::format("field '{}': want a list of names", field));
    out.push_back(item.get<std::string>());
  }
  return out;
}

/// Named, or so many GPUs of a series, where there is room for them in the window.
Result<std::vector<std::string>> choose_hosts(Controller& c, const Json& body,
                                              const ledger::ReservationCreated& made) {
  TH_TRY(std::vector<std::string> hosts, strings(body, "hosts"));
  TH_TRY(const int64_t gpus, get_int(body, "gpus", 0));
  TH_TRY(const std::string series, get_string(body, "series", std::string()));
  if (hosts.empty() == (gpus == 0))
    return fail(Code::kInvalidArgument, "want either 'hosts', or 'gpus' and 'series'");
  if (gpus != 0) {
    reserve::Request request;
    request.name = made.reservation, request.gpus = gpus, request.series = series;
    request.start_ns = made.start_ns,
    request.duration_ns = made.end_ns - std::max(made.start_ns, c.core.now_ns());
    auto plan = reserve::decide(c.jobs.reservations(), request, {}, c.core.now_ns());
    if (!plan) return fail(plan.error().error());
    for (const reserve::HostGpus& part : plan->hosts) hosts.push_back(c.core.fleet().host(part.host).id);
    return hosts;
  }
  std::ranges::sort(hosts);
  hosts.erase(std::unique(hosts.begin(), hosts.end()), hosts.end());
  c.core.extend_overdue_claims();  // a lease may have run out since the last step
  reserve::Claim claim{"asked", made.start_ns, made.end_ns, {}};
  for (const std::string& host : hosts) {
    TH_TRY(const fleet::HostIndex index, c.core.fleet().find_host(host));
    claim.hosts.push_back({index, reserve::all_gpus(c.core.fleet().host(index).gpus)});
  }
  std::ranges::sort(claim.hosts, {}, &reserve::HostGpus::host);
  auto free = c.core.snapshot().with_claim(claim);
  if (!free) {
    return fail(Code::kFailedPrecondition, "reservation '" + made.reservation +
                                               "': a host is taken in that time: " + free.error().message +
                                               "; choose other hosts or a later start");
  }
  return hosts;
}

Result<ledger::ReservationCreated> read_reservation(Controller& c, const Json& body) {
  TH_RETURN_IF_ERROR(check_fields(body, {"name", "hosts", "gpus", "series", "start_ns", "duration_ns",
                                         "accounts", "users", "maintenance", "reason"}));
  ledger::ReservationCreated made;
  TH_TRY(made.reservation, get_name(body, "reservation"));
  if (c.core.state().reservations.count(made.reservation))
    return fail(Code::kAlreadyExists, "reservation '" + made.reservation + "' exists; delete it first");
  TH_TRY(made.reason, get_string(body, "reason", std::string()));
  TH_TRY(made.maintenance, get_bool(body, "maintenance", false));
  TH_TRY(made.accounts, strings(body, "accounts"));
  TH_TRY(made.users, strings(body, "users"));
  TH_TRY(const int64_t start_ns, get_int(body, "start_ns", 0));
  TH_TRY(const int64_t duration_ns, get_int(body, "duration_ns"));
  if (duration_ns < kSecond || duration_ns > request::kMaxRequestDurationNs || start_ns < 0 ||
      start_ns > INT64_MAX / 2)
    return fail(Code::kInvalidArgument, "want a start that is not before 1970 and a time of 1s to 365d");
  if (made.maintenance && !(made.accounts.empty() && made.users.empty()))
    return fail(Code::kInvalidArgument, "maintenance is for nobody: leave out accounts and users");
  if (!made.maintenance && made.accounts.empty() && made.users.empty())
    return fail(Code::kInvalidArgument, "name accounts or users that may use it, or say maintenance");
  for (const std::string& account : made.accounts) {
    if (auto owner = c.core.owner_for(account, "", ""); !owner) return fail(owner.error());
  }
  made.start_ns = std::max(start_ns, c.core.now_ns());
  made.end_ns = made.start_ns + duration_ns;
  TH_TRY(made.hosts, choose_hosts(c, body, made));
  return made;
}

Result<ledger::PowerCapped> read_power_cap(Controller& c, const Json& body) {
  TH_RETURN_IF_ERROR(check_fields(body, {"name", "site", "watts", "start_ns", "duration_ns", "reason"}));
  ledger::PowerCapped made;
  TH_TRY(made.cap, get_name(body, "power cap"));
  if (c.core.state().power_caps.count(made.cap))
    return fail(Code::kAlreadyExists, "power cap '" + made.cap + "' exists; lift it first");
  const auto sites = c.core.fleet().sites();
  TH_TRY(made.site, get_string(body, "site", sites.size() == 1 ? sites[0].id : std::string()));
  std::vector<std::string> names;
  for (const fleet::Site& site : sites) names.push_back(site.id);
  if (std::ranges::find(names, made.site) == names.end())
    return fail(Code::kNotFound, "field 'site': there is no site '" + made.site + "'" +
                                     did_you_mean(made.site, names) + "; there is " + join(names, ", "));
  TH_TRY(made.watts, get_int(body, "watts"));
  TH_TRY(const int64_t start_ns, get_int(body, "start_ns", 0));
  TH_TRY(const int64_t duration_ns, get_int(body, "duration_ns"));
  TH_TRY(made.reason, get_string(body, "reason", std::string()));
  if (made.watts < 0 || made.watts > kMaxCapW)
    return fail(Code::kInvalidArgument, fmt::format("field 'watts': want 0 to {}", kMaxCapW));
  if (start_ns < 0 || start_ns > INT64_MAX / 2)
    return fail(Code::kInvalidArgument, "field 'start_ns': want a time that is not before 1970");
  if (duration_ns < kSecond || duration_ns > request::kMaxRequestDurationNs)
    return fail(Code::kInvalidArgument, "field 'duration_ns': want 1s to 365d");
  made.start_ns = std::max(start_ns, c.core.now_ns());
  made.end_ns = made.start_ns + duration_ns;
  return made;
}

}  // namespace

Json reservation_json(const ledger::ReservationCreated& of) {
  return {{"name", of.reservation}, {"start_ns", of.start_ns},
          {"end_ns", of.end_ns},    {"maintenance", of.maintenance},
          {"hosts", of.hosts},      {"accounts", of.accounts},
          {"users", of.users},      {"reason", of.reason}};
}

Json power_cap_json(const ledger::PowerCapped& of) {
  return {{"name", of.cap},          {"site", of.site},     {"watts", of.watts},
          {"start_ns", of.start_ns}, {"end_ns", of.end_ns}, {"reason", of.reason}};
}

std::vector<Json> accounts_json(const Controller& c) {
  const int64_t now_ns = c.core.now_ns();
  const reserve::QueuePolicy& policy = c.core.policy();
  const reserve::Standing standing = c.core.tenants().standing(c.core.state(), now_ns);
  const reserve::Accounts accounts = c.core.tenants().accounts(c.core.state(), now_ns);
  std::vector<int64_t> cost(policy.accounts.size());
  for (const auto& [id, slice] : c.core.state().slices)
    cost[accounts.index_of(account_of(slice.owner))] += slice.cost_microusd_at(now_ns);
  std::vector<Json> items;
  for (size_t i = 0; i < policy.accounts.size(); ++i) {
    const reserve::AccountSpec& spec = policy.accounts[i];
    if (!is_within(policy, spec.name, c.core.caller().account)) continue;
    items.push_back({{"name", spec.name},
                     {"parent", spec.parent},
                     {"shares", spec.shares},
                     {"max_gpus", spec.max_gpus ? Json(*spec.max_gpus) : Json(nullptr)},
                     {"borrow", spec.borrow},
                     {"gpus", accounts.gpus_at(i, now_ns)},
                     {"gpu_hours_decayed", standing.usage_gpu_s[i] / 3600},
                     {"fair_share", static_cast<double>(accounts.fair_share_ppm(spec.name)) / 1e6},
                     {"budget_microusd", spec.budget_microusd ? Json(*spec.budget_microusd) : Json(nullptr)},
                     {"budget_period_ns", spec.budget_period_ns},
                     {"committed_microusd", standing.committed_microusd[i]},
                     {"cost_microusd", cost[i]}});
  }
  return items;
}

void Api::add_queue_routes(http::Router& router) {
  read(router, "/api/v1/accounts", [](Controller& c, const http::Request& request) {
    ByName<Json> accounts;  // in the policy's order
    for (Json& account : accounts_json(c))
      accounts.emplace(std::to_string(accounts.size() + 1), std::move(account));
    return list_json(request, accounts, [](const std::string&, const Json& account) { return account; });
  });
  read(router, "/api/v1/reservations", [](Controller& c, const http::Request& request) {
    return list_json(request, c.core.state().reservations,
                     [&c](const std::string&, const ledger::ReservationCreated& of) {
                       return sees(c.core, of) ? reservation_json(of) : Json();
                     });
  });
  write(router, "POST", "/api/v1/reservations", kPlatformOperator,
        [](Controller& c, const http::Request&, const Json& body) -> Result<Answer> {
          TH_TRY(const ledger::ReservationCreated made, read_reservation(c, body));
          c.core.stage(made);
          return Answer(reservation_json(made));
        });
  write(router, "DELETE", "/api/v1/reservations/{name}", kPlatformOperator,
        [](Controller& c, const http::Request& request, const Json&) -> Result<Answer> {
          const std::string& name = request.params.at("name");
          const auto found = c.core.state().reservations.find(name);
          if (found == c.core.state().reservations.end()) {
            return fail(Code::kNotFound,
                        "there is no reservation '" + name + "'; th reservation list shows those that are");
          }
          Answer answer(reservation_json(found->second));
          c.core.stage(ledger::ReservationEnded{name, "deleted by hand"});
          return answer;
        });
  read(router, "/api/v1/power-caps", [](Controller& c, const http::Request& request) {
    return list_json(request, c.core.state().power_caps,
                     [](const std::string&, const ledger::PowerCapped& of) { return power_cap_json(of); });
  });
  write(router, "POST", "/api/v1/power-caps", kPlatformOperator,
        [](Controller& c, const http::Request&, const Json& body) -> Result<Answer> {
          TH_TRY(const ledger::PowerCapped made, read_power_cap(c, body));
          c.core.stage(made);
          return Answer(power_cap_json(made));
        });
  write(router, "DELETE", "/api/v1/power-caps/{name}", kPlatformOperator,
        [](Controller& c, const http::Request& request, const Json&) -> Result<Answer> {
          const std::string& name = request.params.at("name");
          const auto found = c.core.state().power_caps.find(name);
          if (found == c.core.state().power_caps.end()) {
            return fail(Code::kNotFound,
                        "there is no power cap '" + name + "'; th power list shows those that are");
          }
          Answer answer(power_cap_json(found->second));
          c.core.stage(ledger::PowerUncapped{name, "lifted by hand"});
          return answer;
        });
}

}  // namespace th::control
