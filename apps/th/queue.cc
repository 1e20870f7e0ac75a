// Who may have how much, and what is kept for whom: accounts and reservations.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/env.h"
#include "base/text.h"
#include "base/units.h"
#include "context.h"
#include "http/url.h"
#include "terminal.h"

namespace th::cli {
namespace {

struct ReservationOptions {
  std::string name, series, start = "0s", duration, reason;
  std::vector<std::string> hosts, accounts, users;
  int64_t gpus = 0;
  bool maintenance = false;
};

std::string number_or_dash(const Json& item, const char* field) {
  return item.contains(field) && item[field].is_number() ? std::to_string(int_of(item, field)) : "-";
}

Result<Json> list_accounts(Context& context) {
  TH_TRY(Json accounts, context.get("/accounts"));
  std::vector<std::vector<std::string>> rows = {
      {"ACCOUNT", "PARENT", "SHARES", "GPUS", "QUOTA", "FAIR SHARE", "PROMISED", "BUDGET", "COST"}};
  for (const Json& item : list_of(accounts)) {
    const bool has_budget = item.contains("budget_microusd") && item["budget_microusd"].is_number();
    std::string budget = has_budget ? format_money(int_of(item, "budget_microusd")) : "-";
    if (int64_t period = int_of(item, "budget_period_ns"); period > 0)
      budget += " / " + format_duration(period);
    rows.push_back({text_of(item, "name"), text_of(item, "parent"), std::to_string(int_of(item, "shares")),
                    std::to_string(int_of(item, "gpus")), number_or_dash(item, "max_gpus"),
                    fmt::format("{:.3f}", double_of(item, "fair_share")),
                    format_money(int_of(item, "committed_microusd")), budget,
                    format_money(int_of(item, "cost_microusd"))});
  }
  context.put(table(rows));
  return accounts;
}

Result<Json> create_reservation(Context& context, const ReservationOptions& options) {
  TH_TRY(const int64_t in_ns, parse_duration_ns(options.start));
  TH_TRY(const int64_t duration_ns, parse_duration_ns(options.duration));
  Json body{{"name", options.name}, {"duration_ns", duration_ns}, {"maintenance", options.maintenance}};
  if (in_ns > 0) body["start_ns"] = Env::real().unix_ns() + in_ns;
  if (!options.hosts.empty()) body["hosts"] = options.hosts;
  if (options.gpus > 0) body["gpus"] = options.gpus, body["series"] = options.series;
  if (!options.accounts.empty()) body["accounts"] = options.accounts;
  if (!options.users.empty()) body["users"] = options.users;
  if (!options.reason.empty()) body["reason"] = options.reason;
  TH_TRY(Json made, context.post("/reservations", body));
  std::vector<std::string> hosts;
  for (const Json& host : list_of(made, "hosts")) hosts.push_back(host.get<std::string>());
  context.say(fmt::format("reservation {} from {} to {}: {}", options.name,
                          format_time(int_of(made, "start_ns")), format_time(int_of(made, "end_ns")),
                          join(hosts, ", ")));
  return made;
}

Result<Json> list_reservations(Context& context) {
  TH_TRY(Json all, context.get("/reservations"));
  std::vector<std::vector<std::string>> rows = {{"RESERVATION", "START", "END", "HOSTS", "FOR", "REASON"}};
  for (const Json& item : list_of(all)) {
    std::vector<std::string> who;
    for (const char* field : {"accounts", "users"}) {
      for (const Json& name : list_of(item, field)) who.push_back(name.get<std::string>());
    }
    rows.push_back({text_of(item, "name"), format_time(int_of(item, "start_ns")),
                    format_time(int_of(item, "end_ns")), std::to_string(list_of(item, "hosts").size()),
                    who.empty() ? "nobody" : join(who, ","), text_of(item, "reason")});
  }
  context.put(rows.size() == 1 ? "no reservations\n" : table(rows));
  return all;
}

Result<Json> delete_reservation(Context& context, const std::string& name) {
  TH_TRY(Json gone, context.del("/reservations/" + http::percent_encode(name)));
  context.say(fmt::format("reservation {} is deleted", name));
  return gone;
}

}  // namespace

void add_queue(CLI::App& app, Verb& verb) {
  auto* accounts = app.add_subcommand("accounts", "Show accounts: quota, budget, fair share, cost");
  accounts->footer("Example:\n  th accounts");
  accounts->callback([&verb] { verb = list_accounts; });

  auto options = std::make_shared<ReservationOptions>();
  auto* group = app.add_subcommand("reservation", "Keep hosts for some accounts, or for maintenance");
  group->require_subcommand(1);
  group->footer(
      "Example:\n  th reservation create class --gpus 4 --series LOCAL --in 1h --for 2h --accounts lab");
  auto* create = group->add_subcommand("create", "Keep hosts from everybody but some");
  create->add_option("NAME", options->name, "name of the reservation")->required();
  create->add_option("--hosts", options->hosts, "these hosts")->delimiter(',');
  create->add_option("--gpus", options->gpus, "so many GPUs, where there is room");
  create->add_option("--series", options->series, "of this series");
  create->add_option("--in", options->start, "starts so long from now (default: now)");
  create->add_option("--for", options->duration, "how long")->required();
  create->add_option("--accounts", options->accounts, "accounts that may use it")->delimiter(',');
  create->add_option("--users", options->users, "names of keys that may use it")->delimiter(',');
  create->add_flag("--maintenance", options->maintenance, "for nobody");
  create->add_option("--reason", options->reason, "shown to those who wait");
  create->footer("Example:\n  th reservation create psu --hosts r1h1,r1h2 --for 2h --maintenance");
  create->callback([&verb, options] {
    verb = [options](Context& context) { return create_reservation(context, *options); };
  });
  group->add_subcommand("list", "List reservations")->callback([&verb] { verb = list_reservations; });
  auto* remove = group->add_subcommand("delete", "Give its hosts back");
  remove->add_option("NAME", options->name, "name of the reservation")->required();
  remove->callback([&verb, options] {
    verb = [options](Context& context) { return delete_reservation(context, options->name); };
  });
}

}  // namespace th::cli
