#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/units.h"
#include "completion.h"
#include "context.h"
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
  TH_TRY(Completion completion, complete(context, context.gateway_url() + "/v1/chat/completions",
                                         {{"Authorization", "Bearer " + key}}, body,
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
}

}  // namespace th::cli
