// Stacks: the software that the nodes of a slice hold.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "base/text.h"
#include "context.h"
#include "http/url.h"
#include "terminal.h"

namespace th::cli {
namespace {

constexpr size_t kMaxStackBytes = 256 << 10;

std::string names_line(const Json& names) {
  std::vector<std::string> out;
  for (const Json& name : names) out.push_back(name.get<std::string>());
  return out.empty() ? "-" : join(out, ", ");
}

std::string pairs_line(const Json& stack, const char* field) {
  const Json map = object_of(stack, field);
  std::vector<std::string> out;
  for (const auto& [name, value] : map.items()) out.push_back(name + "=" + value.get<std::string>());
  return out.empty() ? "-" : join(out, ", ");
}

Result<Json> list_stacks(Context& context) {
  TH_TRY(Json stacks, context.get("/stacks"));
  std::vector<std::vector<std::string>> rows = {{"STACK", "PACKAGES", "PROGRAMS", "ABOUT"}};
  for (const Json& stack : list_of(stacks)) {
    rows.push_back({text_of(stack, "name") + "@" + text_of(stack, "version"),
                    names_line(list_of(stack, "packages")), names_line(list_of(stack, "programs")),
                    text_of(stack, "about")});
  }
  context.put(table(rows));
  return stacks;
}

Result<Json> show_stack(Context& context, const std::string& name) {
  TH_TRY(Json stack, context.get("/stacks/" + http::percent_encode(name)));
  context.say(fmt::format("stack        {}@{}", text_of(stack, "name"), text_of(stack, "version")));
  context.say(fmt::format("about        {}", text_of(stack, "about")));
  context.say(fmt::format("images       {}", pairs_line(stack, "images")));
  context.say(fmt::format("packages     {}", names_line(list_of(stack, "packages"))));
  context.say(fmt::format("programs     {}", names_line(list_of(stack, "programs"))));
  context.say(fmt::format("environment  {}", pairs_line(stack, "environment")));
  context.say(
      fmt::format("validate     {}", text_of(stack, "validate").empty() ? "-" : text_of(stack, "validate")));
  return stack;
}

Result<Json> add_stack_file(Context& context, const std::string& file) {
  TH_TRY(const std::string yaml, read_file(file, kMaxStackBytes));
  TH_TRY(Json stack, context.post("/stacks", {{"yaml", yaml}}));
  context.say(fmt::format("stack {}@{} is added; a slice takes it with --stack {}", text_of(stack, "name"),
                          text_of(stack, "version"), text_of(stack, "name")));
  return stack;
}

}  // namespace

void add_stack(CLI::App& app, Verb& verb) {
  auto text = std::make_shared<std::string>();
  auto* stack = app.add_subcommand("stack", "Software suites that the nodes of a slice hold");
  stack->require_subcommand(1);
  stack->footer("Example:\n  th slice create demo --gpus 4 --series LOCAL --for 1h --stack train");

  auto* list = stack->add_subcommand("list", "List stacks, every version");
  list->footer("Example:\n  th stack list");
  list->callback([&verb] { verb = list_stacks; });

  auto* show = stack->add_subcommand("show", "Show one stack");
  show->add_option("NAME", *text, "NAME for its newest version, or NAME@VERSION")->required();
  show->footer("Example:\n  th stack show hpc");
  show->callback([&verb, text] { verb = [text](Context& context) { return show_stack(context, *text); }; });

  auto* add = stack->add_subcommand("add", "Add a stack, or another version of one");
  add->add_option("FILE", *text, "stack.yaml, see docs/stacks.md")->required();
  add->footer("Example:\n  th stack add cuda-12.yaml");
  add->callback(
      [&verb, text] { verb = [text](Context& context) { return add_stack_file(context, *text); }; });
}

}  // namespace th::cli
