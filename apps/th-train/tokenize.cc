#include "tokenize.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>

#include "bar.h"
#include "base/units.h"
#include "report.h"
#include "train/tokenize.h"

namespace th {
namespace {

std::string summary(const Json& made) {
  std::string skipped;
  for (const auto& [why, count] : made["skipped"].items())
    skipped += fmt::format("{} {} {}", skipped.empty() ? "; skipped:" : ",", count.get<int64_t>(), why);
  return fmt::format(
      "{} files, {} documents, {}; {} tokens to learn from, {} to measure on, vocabulary {}{}",
      made["files"].get<int64_t>(),
      made["train"]["documents"].get<int64_t>() + made["validation"]["documents"].get<int64_t>(),
      format_bytes(made["train"]["text_bytes"].get<int64_t>() +
                   made["validation"]["text_bytes"].get<int64_t>()),
      made["train"]["tokens"].get<int64_t>(), made["validation"]["tokens"].get<int64_t>(),
      made["vocab_size"].get<int64_t>(), skipped);
}

}  // namespace

int tokenize_command(int argc, char** argv) {
  CLI::App app("Makes a data set's folder of a text, of JSON lines, or of a folder of source code and text");
  train::TokenizeOptions options;
  bool json = std::find(argv, argv + argc, std::string_view("--json")) != argv + argc;  // for errors of usage
  std::string max_file;
  app.add_option("PATH", options.source.path, "a file or a folder")->required();
  app.add_option("--out", options.out, "the folder to make")->required();
  app.add_option("--tokenizer", options.tokenizer,
                 "tokenizer.json, SentencePiece's .model, GPT-2's vocab.json, or a folder with one of them "
                 "(default: a byte-level BPE is learned)");
  app.add_option("--vocab-size", options.vocab_size, "tokens of one that is learned (default: 8192)")
      ->check(CLI::Range(260, 1'000'000))
      ->excludes("--tokenizer");
  app.add_option("--validation-share", options.validation_share, "share to measure on (default: 0.02)")
      ->check(CLI::Range(0.0001, 0.5));
  app.add_option("--field", options.source.field, "of JSON lines, what holds the text (default: text)");
  app.add_option("--extensions", options.source.extensions,
                 "of a folder's files: cc,h,py (default: code, text)")
      ->delimiter(',');
  app.add_option("--max-file", max_file, "larger files of a folder are skipped (default: 4MiB)");
  app.add_flag("--json", json, "print the description of what was made, on one line");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (json && error.get_exit_code() != 0) return report({Code::kInvalidArgument, error.what()}, json);
    return app.exit(error) == 0 ? 0 : kBadInput;
  }
  auto made = [&]() -> Result<Json> {
    if (!max_file.empty()) {
      TH_TRY(options.source.max_file_bytes, parse_bytes(max_file));
    }
    Bar bar;
    options.progress = [&bar](std::string_view what, int64_t done, int64_t of) { bar.show(what, done, of); };
    return train::tokenize(options);
  }();
  if (!made) return report(made.error(), json);
  fmt::print("{}\n", json ? dump_json(*made) : summary(*made));
  return 0;
}

}  // namespace th
