// Who may come in: tenants, users, invitations, applications, and the audit log.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/env.h"
#include "base/text.h"
#include "base/units.h"
#include "context.h"
#include "http/url.h"
#include "request/job_options.h"
#include "request/slice_spec.h"
#include "terminal.h"

namespace th::cli {
namespace {

using Rows = std::vector<std::vector<std::string>>;

struct AccessOptions {
  std::string name, tenant, role, expires, reason, contact, why, who, what, since, format, parent;
  bool project = false, list = false;
  std::string new_gpus, new_budget;  // of a tenant that is changed; "none": no limit any more
  int64_t max_gpus = -1, tokens_per_minute = 0, shares = 1, limit = 100, new_shares = 0;
  double budget = -1;
};
using Options = std::shared_ptr<AccessOptions>;

std::string or_platform(const std::string& tenant) { return tenant.empty() ? "(platform)" : tenant; }

Status add_expiry(Json& body, const std::string& expires) {
  if (expires.empty()) return {};
  TH_TRY(const int64_t in_ns, parse_duration_ns(expires));
  body["expires_ns"] = Env::real().unix_ns() + in_ns;
  return {};
}

Result<Json> create_tenant(Context& context, const AccessOptions& options) {
  Json body{
      {"name", options.name}, {"kind", options.project ? "project" : "tenant"}, {"shares", options.shares}};
  if (!options.parent.empty()) body["parent"] = options.parent;
  if (options.max_gpus >= 0) body["max_gpus"] = options.max_gpus;
  if (options.budget >= 0) body["budget_microusd"] = static_cast<int64_t>(options.budget * 1e6 + 0.5);
  TH_TRY(Json made, context.post("/tenants", body));
  context.say(fmt::format("{} {} is below {}", text_of(made, "kind"), options.name,
                          or_platform(text_of(made, "parent"))));
  return made;
}

Result<Json> set_tenant(Context& context, const AccessOptions& options) {
  Json body = Json::object();
  if (options.new_gpus == "none") {
    body["max_gpus"] = nullptr;
  } else if (!options.new_gpus.empty()) {
    auto gpus = request::parse_count_range(options.new_gpus, request::kMaxRequestGpus);
    if (!gpus || gpus->min != gpus->max)
      return fail(Code::kInvalidArgument,
                  fmt::format("--max-gpus: want a number or none, got '{}'", options.new_gpus));
    body["max_gpus"] = gpus->max;
  }
  if (options.new_budget == "none") {
    body["budget_microusd"] = nullptr;
  } else if (!options.new_budget.empty()) {
    auto budget = parse_money_microusd(options.new_budget);
    if (!budget) return fail_with("--budget", budget.error());
    body["budget_microusd"] = *budget;
  }
  if (options.new_shares > 0) body["shares"] = options.new_shares;
  if (body.empty())
    return fail(Code::kInvalidArgument, "th tenant set wants --max-gpus, --budget, --shares, or several");
  TH_TRY(Json tenant, context.patch("/tenants/" + http::percent_encode(options.name), body));
  const auto limit = [&](const char* field, auto as_text) {
    const auto found = tenant.find(field);
    return found == tenant.end() || found->is_null() ? "no limit" : as_text(int_of(tenant, field));
  };
  context.say(fmt::format("tenant {}: GPUs at once: {}, budget: {}, shares: {}", options.name,
                          limit("max_gpus", [](int64_t n) { return std::to_string(n); }),
                          limit("budget_microusd", [](int64_t n) { return format_money(n); }),
                          int_of(tenant, "shares")));
  return tenant;
}

Result<Json> reset_user(Context& context, const AccessOptions& options) {
  Json body = Json::object();
  TH_RETURN_IF_ERROR(add_expiry(body, options.expires));
  TH_TRY(Json made, context.post("/users/" + http::percent_encode(options.name) + "/reset", body));
  if (text_of(made, "code").empty()) {
    context.say("its code was lost with the connection: th user reset makes another");
  } else if (!context.json) {
    context.say(fmt::format(
        "{}{}\nwhoever opens it until {} sets the password of {}; it is shown this once, and good once",
        context.url(), text_of(made, "link"), format_time(int_of(made, "expires_ns")),
        text_of(made, "name")));
  }
  return made;
}

Result<Json> list_tenants(Context& context) {
  TH_TRY(Json tenants, context.get("/tenants"));
  Rows rows = {{"TENANT", "KIND", "PARENT", "GPUS", "BUDGET", "SHARES", "FROM"}};
  for (const Json& item : list_of(tenants)) {
    const bool gpus = item.contains("max_gpus") && item["max_gpus"].is_number();
    const bool budget = item.contains("budget_microusd") && item["budget_microusd"].is_number();
    rows.push_back({text_of(item, "name"), text_of(item, "kind"), or_platform(text_of(item, "parent")),
                    gpus ? std::to_string(int_of(item, "max_gpus")) : "-",
                    budget ? format_money(int_of(item, "budget_microusd")) : "-",
                    std::to_string(int_of(item, "shares")),
                    get_bool(item, "removed", false).value_or(false) ? "removed" : text_of(item, "made_by")});
  }
  context.put(table(rows));
  return tenants;
}

Result<Json> remove_one(Context& context, const char* path, const std::string& name, const char* what) {
  TH_TRY(Json gone, context.del(path + http::percent_encode(name)));
  context.say(fmt::format("{} {} is removed", what, name));
  return gone;
}

Json invitation_body(const AccessOptions& options) {
  Json body = Json::object();
  if (!options.tenant.empty()) body["tenant"] = options.tenant;
  if (!options.role.empty()) body["role"] = options.role;
  if (!options.name.empty()) body["name"] = options.name;
  if (options.max_gpus >= 0) body["max_gpus"] = options.max_gpus;
  if (options.tokens_per_minute > 0) body["tokens_per_minute"] = options.tokens_per_minute;
  return body;
}

void tell_invitation(const Context& context, const Json& made) {
  context.say(fmt::format("{}: {} of {} until {}", text_of(made, "id"), text_of(made, "role"),
                          or_platform(text_of(made, "tenant")), format_time(int_of(made, "expires_ns"))));
  if (text_of(made, "code").empty())
    return context.say("its code was lost with the connection: th invite makes another");
  if (!context.json)
    context.say(fmt::format("{}\nby web: {}{}\nit is shown this once, and good for one person",
                            text_of(made, "code"), context.url(), text_of(made, "link")));
}

Result<Json> list_invitations(Context& context) {
  TH_TRY(Json all, context.get("/invitations"));
  Rows rows = {{"INVITATION", "STATE", "TENANT", "ROLE", "FOR", "BY", "EXPIRES"}};
  for (const Json& item : list_of(all)) {
    const std::string name = text_of(item, "name");
    rows.push_back({text_of(item, "id"), text_of(item, "state"), or_platform(text_of(item, "tenant")),
                    text_of(item, "role"), name.empty() ? "anybody" : name, text_of(item, "by"),
                    format_time(int_of(item, "expires_ns"))});
  }
  context.put(rows.size() == 1 ? "no invitations\n" : table(rows));
  return all;
}

Result<Json> invite(Context& context, const AccessOptions& options) {
  if (options.list) return list_invitations(context);
  Json body = invitation_body(options);
  TH_RETURN_IF_ERROR(add_expiry(body, options.expires));
  TH_TRY(Json made, context.post("/invitations", body));
  tell_invitation(context, made);
  return made;
}

Result<Json> join_by(Context& context, const std::string& code, const std::string& name) {
  TH_TRY(Json made, context.post_without_key("/invitations/take", {{"code", code}, {"name", name}}));
  context.say(fmt::format("{} is {} of {}\nkey: {}\nit is shown this once: keep it, and use it as TH_KEY",
                          name, text_of(made, "role"), or_platform(text_of(made, "tenant")),
                          context.json ? "(in the JSON)" : text_of(made, "key")));
  return made;
}

Result<Json> apply(Context& context, const AccessOptions& options) {
  Json body{{"name", options.name}, {"contact", options.contact}, {"why", options.why}};
  if (!options.tenant.empty()) body["tenant"] = options.tenant;
  TH_TRY(Json made, context.post_without_key("/applications", body));
  context.say(fmt::format("{} is kept; who reviews it answers to {}", text_of(made, "id"), options.contact));
  return made;
}

Result<Json> list_applications(Context& context) {
  TH_TRY(Json all, context.get("/applications"));
  Rows rows = {{"APPLICATION", "STATE", "NAME", "CONTACT", "TENANT", "MADE", "WHY"}};
  for (const Json& item : list_of(all)) {
    rows.push_back({text_of(item, "id"), text_of(item, "state"), text_of(item, "name"),
                    text_of(item, "contact"), text_of(item, "tenant"), format_time(int_of(item, "made_ns")),
                    text_of(item, "why")});
  }
  context.put(rows.size() == 1 ? "no applications\n" : table(rows));
  return all;
}

Result<Json> review(Context& context, const std::string& id, bool accept, const AccessOptions& options) {
  Json body = accept ? invitation_body(options) : Json::object();
  body["accept"] = accept;
  if (!options.reason.empty()) body["reason"] = options.reason;
  TH_RETURN_IF_ERROR(add_expiry(body, options.expires));
  TH_TRY(Json made, context.post("/applications/" + http::percent_encode(id) + "/review", body));
  context.say(fmt::format("{} is {}", id, text_of(made, "state")));
  if (accept) tell_invitation(context, object_of(made, "invitation"));
  return made;
}

Result<Json> list_users(Context& context) {
  TH_TRY(Json users, context.get("/users"));
  Rows rows = {{"USER", "NAME", "ROLES", "SINCE", "STATE"}};
  for (const Json& user : list_of(users)) {
    std::vector<std::string> roles;
    for (const Json& role : list_of(user, "roles"))
      roles.push_back(text_of(role, "role") + " of " + or_platform(text_of(role, "tenant")));
    rows.push_back({text_of(user, "id"), text_of(user, "name"), join(roles, ", "),
                    format_time(int_of(user, "created_ns")),
                    get_bool(user, "removed", false).value_or(false) ? "removed" : "active"});
  }
  context.put(rows.size() == 1 ? "no users: th invite makes one\n" : table(rows));
  return users;
}

Result<Json> set_role(Context& context, const AccessOptions& options) {
  const bool none = options.role == "none";
  Json body{{"role", none ? Json(nullptr) : Json(options.role)}};
  if (!options.tenant.empty()) body["tenant"] = options.tenant;
  TH_TRY(Json user, context.post("/users/" + http::percent_encode(options.name) + "/role", body));
  context.say(fmt::format("{} is {} of {}", options.name, none ? "nothing" : options.role,
                          options.tenant.empty() ? "your tenant" : options.tenant));
  return user;
}

Result<Json> show_audit(Context& context, const AccessOptions& options) {
  std::string path = fmt::format("/audit?limit={}&who={}&what={}", options.limit,
                                 http::percent_encode(options.who), http::percent_encode(options.what));
  if (!options.since.empty()) {
    TH_TRY(const int64_t ago_ns, parse_duration_ns(options.since));
    path += fmt::format("&since_ns={}", Env::real().unix_ns() - ago_ns);
  }
  TH_TRY(Json log, context.get(path));
  Rows rows = {{"TIME", "WHO", "KEY", "FROM", "STATUS", "WHAT", "SUMMARY"}};
  for (const Json& row : list_of(log)) {
    const std::string who = text_of(row, "who");
    rows.push_back({format_time(int_of(row, "time_ns")), who.empty() ? "-" : who, text_of(row, "key"),
                    text_of(row, "peer"), std::to_string(int_of(row, "status")),
                    text_of(row, "method") + " " + text_of(row, "path"), text_of(row, "summary")});
  }
  context.put(rows.size() == 1 ? "nothing of that kind\n" : table(rows));
  return log;
}

void add_tenants(CLI::App& app, Verb& verb) {
  auto options = std::make_shared<AccessOptions>();
  auto* group = app.add_subcommand("tenant", "Make, change, list and remove tenants and their projects");
  group->require_subcommand(1);
  group->footer(
      "Example:\n  th tenant create lab --max-gpus 64\n  th tenant create thesis --parent lab --project");
  auto* create = group->add_subcommand("create", "Make a tenant, or a project of one");
  create->add_option("NAME", options->name, "its name")->required();
  create->add_option("--parent", options->parent, "the tenant above it (default: yours)");
  create->add_flag("--project", options->project, "a project: it has no tenants below it");
  create->add_option("--max-gpus", options->max_gpus, "at most so many GPUs at once");
  create->add_option("--budget", options->budget, "at most so many dollars");
  create->add_option("--shares", options->shares, "of its parent, beside its siblings")
      ->capture_default_str();
  create->footer("Example:\n  th tenant create vision --parent lab --max-gpus 16 --budget 5000");
  create->callback(
      [&verb, options] { verb = [options](Context& context) { return create_tenant(context, *options); }; });
  auto* set = group->add_subcommand("set", "Change the limits of a tenant below yours");
  set->add_option("NAME", options->name, "its name")->required();
  set->add_option("--max-gpus", options->new_gpus, "at most so many GPUs at once, or none");
  set->add_option("--budget", options->new_budget, "at most so many dollars, or none");
  set->add_option("--shares", options->new_shares, "of its parent, beside its siblings")
      ->check(CLI::PositiveNumber);
  set->footer("Example:\n  th tenant set lab --max-gpus 128 --budget none");
  set->callback(
      [&verb, options] { verb = [options](Context& context) { return set_tenant(context, *options); }; });
  group->add_subcommand("list", "List tenants")->callback([&verb] { verb = list_tenants; });
  auto* remove = group->add_subcommand("remove", "Remove a tenant that has nothing left");
  remove->add_option("NAME", options->name, "its name")->required();
  remove->callback([&verb, options] {
    verb = [options](Context& context) { return remove_one(context, "/tenants/", options->name, "tenant"); };
  });
}

void add_invitation_options(CLI::App& sub, const Options& options) {
  sub.add_option("--tenant", options->tenant, "tenant (default: yours)");
  sub.add_option("--role", options->role, "viewer, member (default), operator or admin");
  sub.add_option("--expires", options->expires, "good for so long (default: 7d)");
  sub.add_option("--max-gpus", options->max_gpus,
                 "in a project of the user's own, with so many GPUs at once");
  sub.add_option("--tokens-per-minute", options->tokens_per_minute, "of the user's key at the gateway");
}

void add_invitations(CLI::App& app, Verb& verb) {
  auto options = std::make_shared<AccessOptions>();
  auto* sub = app.add_subcommand("invite", "Invite one person: the code is printed once");
  sub->add_option("--name", options->name, "for this name only (default: whoever has the code)");
  add_invitation_options(*sub, options);
  sub->add_flag("--list", options->list, "list the invitations that were made");
  sub->footer("Example:\n  th invite --tenant lab --role member --expires 3d");
  sub->callback(
      [&verb, options] { verb = [options](Context& context) { return invite(context, *options); }; });
  auto* join = app.add_subcommand("join", "Come in by an invitation: prints your key");
  join->add_option("CODE", options->what, "the invitation's code")->required();
  join->add_option("NAME", options->name, "the name that you want")->required();
  join->footer("Example:\n  th --url https://desk:7070 join 8c1f… ada");
  join->callback([&verb, options] {
    verb = [options](Context& context) { return join_by(context, options->what, options->name); };
  });
}

void add_applications(CLI::App& app, Verb& verb) {
  auto options = std::make_shared<AccessOptions>();
  auto* sub = app.add_subcommand("apply", "Ask to be invited");
  sub->add_option("--name", options->name, "the name that you want")->required();
  sub->add_option("--contact", options->contact, "where an answer reaches you")->required();
  sub->add_option("--why", options->why, "what for")->required();
  sub->add_option("--tenant", options->tenant, "the tenant that you belong to");
  sub->footer("Example:\n  th apply --name ada --contact ada@lab.example --why \"a thesis\" --tenant lab");
  sub->callback(
      [&verb, options] { verb = [options](Context& context) { return apply(context, *options); }; });
  auto* group = app.add_subcommand("application", "Review who asks to be invited");
  group->require_subcommand(1);
  group->footer("Example:\n  th application accept application-1 --role member --tenant lab");
  group->add_subcommand("list", "List applications")->callback([&verb] { verb = list_applications; });
  for (const bool accept : {true, false}) {
    auto given = std::make_shared<AccessOptions>();
    auto id = std::make_shared<std::string>();
    auto* one = accept ? group->add_subcommand("accept", "Accept: makes an invitation")
                       : group->add_subcommand("decline", "Decline");
    one->add_option("ID", *id, "application, see: th application list")->required();
    one->add_option("--reason", given->reason, "kept with the application");
    if (accept) add_invitation_options(*one, given);
    one->callback([&verb, id, accept, given] {
      verb = [id, accept, given](Context& context) { return review(context, *id, accept, *given); };
    });
  }
}

void add_users(CLI::App& app, Verb& verb) {
  auto options = std::make_shared<AccessOptions>();
  auto* group = app.add_subcommand("user", "List and remove users, change their roles and passwords");
  group->require_subcommand(1);
  group->footer("Example:\n  th user role ada operator --tenant lab");
  group->add_subcommand("list", "List users")->callback([&verb] { verb = list_users; });
  auto* remove = group->add_subcommand("remove", "Remove a user; the keys end at once");
  remove->add_option("USER", options->name, "name or id")->required();
  remove->callback([&verb, options] {
    verb = [options](Context& context) { return remove_one(context, "/users/", options->name, "user"); };
  });
  auto* role = group->add_subcommand("role", "Give a user a role in a tenant");
  role->add_option("USER", options->name, "name or id")->required();
  role->add_option("ROLE", options->role, "viewer, member, operator, admin, or none")->required();
  role->add_option("--tenant", options->tenant, "tenant (default: yours)");
  role->callback(
      [&verb, options] { verb = [options](Context& context) { return set_role(context, *options); }; });
  auto* reset = group->add_subcommand("reset", "A way in for who forgot the password: printed once");
  reset->add_option("USER", options->name, "name or id")->required();
  reset->add_option("--expires", options->expires, "good for so long, at most 7d (default: 1d)");
  reset->footer("Example:\n  th user reset ada");
  reset->callback(
      [&verb, options] { verb = [options](Context& context) { return reset_user(context, *options); }; });
}

}  // namespace

void add_access(CLI::App& app, Verb& verb) {
  add_tenants(app, verb);
  add_invitations(app, verb);
  add_applications(app, verb);
  add_users(app, verb);
  auto options = std::make_shared<AccessOptions>();
  auto* audit = app.add_subcommand("audit", "Show who changed what, newest first");
  audit->add_option("--who", options->who, "a name, or a key's id");
  audit->add_option("--what", options->what, "a method, or part of a path or of the summary");
  audit->add_option("--since", options->since, "not older than this, such as 1h");
  audit->add_option("--limit", options->limit, "at most so many")->capture_default_str();
  audit->footer("Example:\n  th audit --who ada --since 1d");
  audit->callback(
      [&verb, options] { verb = [options](Context& context) { return show_audit(context, *options); }; });
}

}  // namespace th::cli
