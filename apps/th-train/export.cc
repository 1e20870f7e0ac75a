#include "export.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string_view>

#include "bar.h"
#include "base/files.h"
#include "base/json.h"
#include "model/gguf.h"
#include "report.h"

namespace th {
namespace {

namespace fs = std::filesystem;
constexpr size_t kMaxConfigBytes = size_t{4} << 20;

struct ExportRequest {
  std::string folder, file, type = "f16", name;
};

/// What the tokenizer's configuration says, where there is one.
Status read_tokenizer_config(const fs::path& path, model::GgufOptions& options) {
  Result<std::string> text = read_file(path, kMaxConfigBytes);
  if (!text && text.error().code == Code::kNotFound) return {};
  if (!text) return fail(std::move(text).error());
  TH_TRY(const Json json, parse_json(*text, path.string()));
  if (!json.is_object()) return fail(Code::kInvalidArgument, path.string() + ": want a JSON object");
  TH_TRY(options.add_bos, get_bool(json, "add_bos_token", false));
  const auto found = json.find("chat_template");
  if (found != json.end() && found->is_string()) options.chat_template = found->get<std::string>();
  return {};
}

Result<Json> export_gguf(const ExportRequest& request) {
  const fs::path folder = request.folder, file = request.file;
  std::error_code ignored;
  if (!fs::is_directory(folder, ignored))
    return fail(Code::kNotFound, request.folder +
                                     ": not a folder; want one with config.json, the weights as "
                                     "safetensors and a tokenizer, as a training leaves it in model/");
  if (fs::is_directory(file, ignored))
    return fail(Code::kInvalidArgument, request.file + ": a folder; --gguf wants the name of a file");
  model::GgufOptions options;
  TH_TRY(options.type, model::parse_gguf_type(request.type));
  options.name = request.name.empty() ? fs::canonical(folder, ignored).filename().string() : request.name;
  const fs::path config_path = folder / "config.json";
  TH_TRY(const std::string text, read_file(config_path, kMaxConfigBytes));
  TH_TRY(const model::ModelConfig config, model::parse_model_config(text, config_path.string()));
  TH_TRY(const model::Tokenizer tokenizer, model::Tokenizer::load(folder));
  TH_RETURN_IF_ERROR(read_tokenizer_config(folder / "tokenizer_config.json", options));
  const model::ParameterLayout layout(config);
  TH_TRY(const model::WeightFolder weights, model::WeightFolder::open(folder, layout));
  Bar bar;
  options.progress = [&bar](int64_t done, int64_t of) { bar.show("writing", done, of); };
  Result<model::GgufFile> made = model::write_gguf(file, config, layout, weights, tokenizer, options);
  const bool is_of_model =
      !made && (made.error().code == Code::kInvalidArgument || made.error().code == Code::kDataLoss);
  if (is_of_model && made.error().message.find(request.folder) == std::string::npos)
    return fail(made.error().code, fmt::format("{}: {}", request.folder, made.error().message));
  if (!made) return fail(std::move(made).error());
  return Json{{"file", request.file},           {"type", request.type}, {"parameters", layout.size},
              {"tensors", made->tensors},       {"bytes", made->bytes}, {"name", options.name},
              {"vocab_size", config.vocab_size}};
}

}  // namespace

int export_command(int argc, char** argv) {
  CLI::App app("Writes a model's folder (Hugging Face's files) as one GGUF file, which llama.cpp loads");
  app.footer("Example: th-train export model --gguf llama-small.gguf --type q8_0");
  ExportRequest request;
  bool json = std::find(argv, argv + argc, std::string_view("--json")) != argv + argc;  // for errors of usage
  app.add_option("MODEL_FOLDER", request.folder, "config.json, safetensors, tokenizer")->required();
  app.add_option("--gguf", request.file, "the file to write; one that is there is replaced")->required();
  app.add_option("--type", request.type, "how matrices are stored: f32, f16, bf16 or q8_0 (default: f16)");
  app.add_option("--name", request.name, "the model's name in the file (default: the folder's)");
  app.add_flag("--json", json, "print what was made, on one line");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (json && error.get_exit_code() != 0) return report({Code::kInvalidArgument, error.what()}, json);
    return app.exit(error) == 0 ? 0 : kBadInput;
  }
  Result<Json> made = export_gguf(request);
  if (!made) return report(made.error(), json);
  fmt::print("{}\n",
             json ? dump_json(*made)
                  : fmt::format("{}: {} tensors, {} parameters as {}, {}", request.file,
                                (*made)["tensors"].get<int64_t>(), (*made)["parameters"].get<int64_t>(),
                                request.type, format_bytes((*made)["bytes"].get<int64_t>())));
  return 0;
}

}  // namespace th
