#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/units.h"
#include "completion.h"
#include "context.h"
#include "http/url.h"
#include "terminal.h"

namespace th::cli {
namespace {

struct ChatOptions {
  std::string deployment, prompt;
  int64_t max_tokens = 200;
  double temperature = 0.8;
};

/// One turn: streams the answer and adds it to `messages`.
Result<Completion> say_turn(Context& context, const ChatOptions& options, const std::string& key,
                            Json& messages, const std::string& prompt) {
  messages.push_back({{"role", "user"}, {"content", prompt}});
  Json body{{"model", options.deployment},
            {"messages", messages},
            {"max_tokens", options.max_tokens},
            {"temperature", options.temperature},
            {"stream", true},
            {"stream_options", {{"include_usage", true}}}};
  TH_TRY(Completion completion,
         complete(context.gateway_url() + "/v1/chat/completions", {{"Authorization", "Bearer " + key}}, body,
                  [&](std::string_view piece) { context.put(piece); }));
  context.say("");
  messages.push_back({{"role", "assistant"}, {"content", completion.text}});
  return completion;
}

Result<Json> chat(Context& context, const ChatOptions& options) {
  CatchInterrupt catch_interrupt;
  TH_TRY(std::string key, gateway_key(context));
  Json messages = Json::array();
  if (options.prompt.empty() && ::isatty(STDIN_FILENO) == 0) {
    return fail(Code::kInvalidArgument, "chat wants --prompt TEXT where standard input is not a terminal");
  }
  std::string prompt = options.prompt;
  Completion last;
  while (true) {
    if (options.prompt.empty()) {
      context.put("> ");
      if (!std::getline(std::cin, prompt) || interrupted()) break;
      if (prompt.empty()) continue;
    }
    TH_TRY(last, say_turn(context, options, key, messages, prompt));
    if (!options.prompt.empty()) break;
  }
  return Json{{"text", last.text},
              {"prompt_tokens", last.prompt_tokens},
              {"completion_tokens", last.completion_tokens},
              {"seconds", last.seconds},
              {"messages", std::move(messages)}};
}

Result<Json> create_key(Context& context, const std::string& name, const std::string& account) {
  TH_TRY(Json key, create_user_key(context, name, account));
  context.say(fmt::format("{}  {}\nit is shown this once; the controller keeps a hash only",
                          text_of(key, "id"), context.json ? "(in the JSON)" : text_of(key, "key")));
  return key;
}

Result<Json> list_keys(Context& context) {
  TH_TRY(Json keys, context.get("/keys"));
  std::vector<std::vector<std::string>> rows = {{"KEY", "NAME", "ROLE", "CREATED", "STATE"}};
  for (const Json& key : list_of(keys)) {
    int64_t created_ns = int_of(key, "created_ns");
    bool revoked = get_bool(key, "revoked", false).value_or(false);
    rows.push_back({text_of(key, "id"), text_of(key, "name"), text_of(key, "role"),
                    created_ns > 0 ? format_time(created_ns) : "", revoked ? "revoked" : "valid"});
  }
  context.put(rows.size() == 1 ? "no keys\n" : table(rows));
  return keys;
}

Result<Json> revoke_key(Context& context, const std::string& id) {
  TH_TRY(Json key, context.del("/keys/" + http::percent_encode(id)));
  context.say(fmt::format("key {} is revoked", id));
  return key;
}

void add_key(CLI::App& app, Verb& verb) {
  auto name = std::make_shared<std::string>();
  auto* key = app.add_subcommand("key", "Create, list and revoke keys of users");
  key->require_subcommand(1);
  key->footer("Example:\n  th key create ada");
  auto* create = key->add_subcommand("create", "Create a key; it is printed once");
  create->add_option("NAME", *name, "whose it is")->required();
  auto account = std::make_shared<std::string>();
  create->add_option("--account", *account, "whose slices and jobs come of it, see: th accounts");
  create->callback([&verb, name, account] {
    verb = [name, account](Context& context) { return create_key(context, *name, *account); };
  });
  key->add_subcommand("list", "List keys")->callback([&verb] { verb = list_keys; });
  auto* revoke = key->add_subcommand("revoke", "Revoke a key");
  revoke->add_option("ID", *name, "key, see: th key list")->required();
  revoke->callback([&verb, name] { verb = [name](Context& context) { return revoke_key(context, *name); }; });
}

}  // namespace

void add_chat(CLI::App& app, Verb& verb) {
  auto options = std::make_shared<ChatOptions>();
  auto* sub = app.add_subcommand("chat", "Talk with a deployment through the gateway");
  sub->add_option("DEPLOYMENT", options->deployment, "deployment")->required();
  sub->add_option("--prompt", options->prompt, "ask once (default: a conversation)");
  sub->add_option("--max-tokens", options->max_tokens, "longest answer")->capture_default_str();
  sub->add_option("--temperature", options->temperature, "0: always the likeliest token")
      ->capture_default_str();
  sub->footer("Example:\n  th chat demo-chat --prompt \"In the beginning\"");
  sub->callback([&verb, options] { verb = [options](Context& context) { return chat(context, *options); }; });
  add_key(app, verb);
}

}  // namespace th::cli
