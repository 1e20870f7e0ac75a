// Keys: made, listed, revoked.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/env.h"
#include "base/text.h"
#include "base/units.h"
#include "completion.h"
#include "context.h"
#include "http/url.h"
#include "terminal.h"

namespace th::cli {
namespace {

struct KeyOptions {
  std::string name, tenant, role, expires;
  std::vector<std::string> scopes;
  int64_t tokens_per_minute = 0;
};

Result<Json> make_key(Context& context, const KeyOptions& options) {
  Json body{{"name", options.name}};
  if (!options.tenant.empty()) body["account"] = options.tenant;
  if (!options.role.empty()) body["role"] = options.role;
  if (!options.scopes.empty()) body["scopes"] = options.scopes;
  if (options.tokens_per_minute > 0) body["tokens_per_minute"] = options.tokens_per_minute;
  if (!options.expires.empty()) {
    TH_TRY(const int64_t in_ns, parse_duration_ns(options.expires));
    body["expires_ns"] = Env::real().unix_ns() + in_ns;
  }
  TH_TRY(Json key, create_key(context, body));
  context.say(
      fmt::format("{}  {}\n{} of tenant {}, for {}; it is shown this once, the controller keeps a hash only",
                  text_of(key, "id"), context.json ? "(in the JSON)" : text_of(key, "key"),
                  text_of(key, "role"), text_of(key, "tenant"), join(strings_of(key, "scopes"), ", ")));
  return key;
}

std::string time_or_dash(const Json& object, const char* field) {
  const int64_t time_ns = int_of(object, field);
  return time_ns > 0 ? format_time(time_ns) : "-";
}

Result<Json> list_keys(Context& context) {
  TH_TRY(Json keys, context.get("/keys"));
  std::vector<std::vector<std::string>> rows = {
      {"KEY", "NAME", "TENANT", "ROLE", "SCOPES", "CREATED", "LAST USED", "EXPIRES", "STATE"}};
  for (const Json& key : list_of(keys)) {
    const bool revoked = get_bool(key, "revoked", false).value_or(false);
    const int64_t expires_ns = int_of(key, "expires_ns");
    const bool expired = expires_ns > 0 && expires_ns <= Env::real().unix_ns();
    rows.push_back({text_of(key, "id"), text_of(key, "name"),
                    text_of(key, "tenant").empty() ? "(platform)" : text_of(key, "tenant"),
                    text_of(key, "role"), join(strings_of(key, "scopes"), ","),
                    time_or_dash(key, "created_ns"), time_or_dash(key, "last_used_ns"),
                    time_or_dash(key, "expires_ns"),
                    revoked   ? "revoked"
                    : expired ? "expired"
                              : "valid"});
  }
  context.put(rows.size() == 1 ? "no keys\n" : table(rows));
  return keys;
}

Result<Json> revoke_key(Context& context, const std::string& id) {
  TH_TRY(Json key, context.del("/keys/" + http::percent_encode(id)));
  context.say(fmt::format("key {} is revoked", id));
  if (!get_bool(key, "gateways_told", true).value_or(true))
    context.say("a gateway has not answered yet: it refuses the key as soon as it hears of it");
  return key;
}

}  // namespace

std::vector<std::string> strings_of(const Json& object, const char* field) {
  std::vector<std::string> out;
  for (const Json& item : list_of(object, field)) {
    if (item.is_string()) out.push_back(item.get<std::string>());
  }
  return out;
}

void add_key(CLI::App& app, Verb& verb) {
  auto options = std::make_shared<KeyOptions>();
  auto* key = app.add_subcommand("key", "Create, list and revoke keys");
  key->require_subcommand(1);
  key->footer("Example:\n  th key create ada\n  th key create ci --role viewer --scope api --expires 30d");
  auto* create = key->add_subcommand("create", "Create a key; it is printed once");
  create->add_option("NAME", options->name, "whose it is")->required();
  create->add_option("--tenant,--account", options->tenant,
                     "whose slices and jobs come of it, see: th tenant list (default: yours)");
  create->add_option("--role", options->role, "viewer, member (default), operator or admin");
  create->add_option("--scope", options->scopes, "api, inference (default: both)")->delimiter(',');
  create->add_option("--expires", options->expires, "good for so long, such as 30d (default: for ever)");
  create->add_option("--tokens-per-minute", options->tokens_per_minute, "at the gateway (default: no limit)");
  create->footer("Example:\n  th key create bot --scope inference --tokens-per-minute 6000 --expires 7d");
  create->callback(
      [&verb, options] { verb = [options](Context& context) { return make_key(context, *options); }; });
  key->add_subcommand("list", "List keys")->callback([&verb] { verb = list_keys; });
  auto* revoke = key->add_subcommand("revoke", "Revoke a key, for its next request on");
  revoke->add_option("ID", options->name, "key, see: th key list")->required();
  revoke->callback([&verb, options] {
    verb = [options](Context& context) { return revoke_key(context, options->name); };
  });
}

}  // namespace th::cli
