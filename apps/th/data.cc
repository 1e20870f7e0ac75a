// th data add|list|show: sets of tokens to train on.

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "base/units.h"
#include "context.h"
#include "http/url.h"
#include "process.h"
#include "terminal.h"

namespace th::cli {
namespace {

namespace fs = std::filesystem;

struct DataOptions {
  std::string name, path;
  std::vector<std::string> tokenize;  // options that th-train tokenize takes as they are
};

int64_t tokens_of(const Json& set, const char* part) {
  return int_of(object_of(object_of(set, "about"), part), "tokens");
}

std::string skipped_text(const Json& about) {
  std::vector<std::string> out;
  const Json skipped = object_of(about, "skipped");
  for (const auto& [why, count] : skipped.items()) out.push_back(fmt::format("{} {}", count.dump(), why));
  return out.empty() ? "none" : join(out, ", ");
}

std::string id_of(const Json& set) { return text_of(set, "name") + "@" + text_of(set, "version"); }

/// A folder that goes with its owner; the controller copies what is in it.
class WorkFolder {
 public:
  explicit WorkFolder(fs::path path) : path_(std::move(path)) {}
  ~WorkFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  WorkFolder(const WorkFolder&) = delete;
  WorkFolder& operator=(const WorkFolder&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

/// The newest version, when it is of these tokens; else null. Also asked when the answer to a large one did
/// not come in time.
Result<Json> find_same(Context& context, const std::string& name, const Json& made) {
  TH_TRY(const Json sets, context.get("/data"));
  Json newest;
  for (const Json& set : list_of(sets)) {
    if (text_of(set, "name") == name) newest = set;
  }
  return object_of(newest, "about") == made ? newest : Json();
}

Result<Json> register_folder(Context& context, const std::string& name, const fs::path& folder,
                             const Json& made) {
  while (true) {
    auto set = context.post("/data", {{"name", name}, {"path", folder.string()}});
    const bool goes_on = !set && (set.error().code == Code::kDeadlineExceeded ||
                                  set.error().code == Code::kFailedPrecondition);
    if (!goes_on || !pause_ms(1000)) return set;
    TH_TRY(Json same, find_same(context, name, made));
    if (!same.is_null()) return same;
  }
}

Result<Json> add_data_set(Context& context, const DataOptions& options) {
  TH_RETURN_IF_ERROR(check_name(options.name, "data set"));
  TH_RETURN_IF_ERROR(context.get("/data"));  // better out of reach now than after the work
  TH_TRY(const fs::path program, program_beside("th-train"));
  const CatchInterrupt catch_interrupt;
  const WorkFolder folder(context.state / "data-work" / fmt::format("{}-{}", options.name, ::getpid()));
  std::vector<std::string> command = {program, "tokenize",    fs::absolute(options.path),
                                      "--out", folder.path(), "--json"};
  command.insert(command.end(), options.tokenize.begin(), options.tokenize.end());
  TH_TRY(const Finished done, run_and_show(command));
  if (interrupted()) return fail(Code::kCancelled, "interrupted; nothing was added");
  TH_TRY(const Json made, parse_json(done.output, "what th-train tokenize wrote"));
  if (const Json error = object_of(made, "error"); done.exit_status != 0)
    return fail(code_from_name(text_of(error, "code")), text_of(error, "message"));
  TH_TRY(const Json known, find_same(context, options.name, made));
  TH_TRY(const Json set,
         known.is_null() ? register_folder(context, options.name, folder.path(), made) : Result<Json>(known));
  context.say(fmt::format(
      "data set {}{}: {} documents of {} files, {} tokens to learn from, {} to measure on, vocabulary {}",
      id_of(set), known.is_null() ? "" : " is there already",
      int_of(object_of(made, "train"), "documents") + int_of(object_of(made, "validation"), "documents"),
      int_of(made, "files"), tokens_of(set, "train"), tokens_of(set, "validation"),
      int_of(made, "vocab_size")));
  context.say("skipped: " + skipped_text(made));
  return set;
}

Result<Json> list_data_sets(Context& context) {
  TH_TRY(Json sets, context.get("/data"));
  std::vector<std::vector<std::string>> rows = {
      {"DATA SET", "TOKENS", "TO MEASURE ON", "VOCABULARY", "SIZE"}};
  for (const Json& set : list_of(sets)) {
    rows.push_back(
        {id_of(set), std::to_string(tokens_of(set, "train")), std::to_string(tokens_of(set, "validation")),
         std::to_string(int_of(object_of(set, "about"), "vocab_size")), format_bytes(int_of(set, "bytes"))});
  }
  context.put(rows.size() == 1 ? "no data sets; th data add NAME PATH makes one\n" : table(rows));
  return sets;
}

Result<Json> show_data_set(Context& context, const std::string& name) {
  TH_TRY(Json set, context.get("/data/" + http::percent_encode(name)));
  const Json about = object_of(set, "about");
  context.say(fmt::format("data set    {}", id_of(set)));
  context.say(fmt::format("files       {}", int_of(about, "files")));
  context.say(fmt::format("skipped     {}", skipped_text(about)));
  context.say(
      fmt::format("tokenizer   {}, vocabulary {}", text_of(about, "tokenizer"), int_of(about, "vocab_size")));
  for (const char* part : {"train", "validation"}) {
    const Json numbers = object_of(about, part);
    context.say(fmt::format("{:<11} {} documents, {}, {} tokens, sha256 {}", part,
                            int_of(numbers, "documents"), format_bytes(int_of(numbers, "text_bytes")),
                            int_of(numbers, "tokens"), text_of(numbers, "sha256")));
  }
  context.say(fmt::format("folder      {}", text_of(set, "path")));
  return set;
}

}  // namespace

void add_data(CLI::App& app, Verb& verb) {
  auto options = std::make_shared<DataOptions>();
  auto* data = app.add_subcommand("data", "Sets of tokens to train on");
  data->require_subcommand(1);
  data->footer("A recipe names one: train.data.set: NAME or NAME@VERSION (docs/data.md).");

  auto* add = data->add_subcommand("add", "Tokenise texts, JSON lines or code once, and keep them");
  add->add_option("NAME", options->name, "the next version of this set")->required();
  add->add_option("PATH", options->path, "a text, a .jsonl file, or a folder of code and text")->required();
  const auto pass = [&](const char* flag, const char* help) {
    add->add_option_function<std::string>(
        flag,
        [options, flag](const std::string& value) {
          options->tokenize.insert(options->tokenize.end(), {flag, value});
        },
        help);
  };
  pass("--tokenizer",
       "tokenizer.json, SentencePiece's .model, GPT-2's vocab.json, or a folder with one (default: one is "
       "learned)");
  pass("--vocab-size", "tokens of a tokenizer that is learned (default: 8192)");
  pass("--validation-share", "share to measure on (default: 0.02)");
  pass("--field", "of JSON lines, what holds the text (default: text)");
  pass("--extensions", "of a folder's files: cc,h,py (default: code and text)");
  pass("--max-file", "larger files of a folder are skipped (default: 4MiB)");
  add->footer("Example:\n  th data add code src --vocab-size 4096");
  add->callback(
      [&verb, options] { verb = [options](Context& context) { return add_data_set(context, *options); }; });

  auto* list = data->add_subcommand("list", "List data sets, every version");
  list->footer("Example:\n  th data list");
  list->callback([&verb] { verb = list_data_sets; });

  auto* show = data->add_subcommand("show", "Show one data set");
  show->add_option("NAME", options->name, "NAME for its newest version, or NAME@VERSION")->required();
  show->footer("Example:\n  th data show code");
  show->callback([&verb, options] {
    verb = [options](Context& context) { return show_data_set(context, options->name); };
  });
}

}  // namespace th::cli
