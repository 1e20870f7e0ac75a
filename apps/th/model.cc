// th model push|pull|list: models between the registry and Azure Blob.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "base/units.h"
#include "context.h"
#include "storage/folder.h"
#include "terminal.h"

namespace th::cli {
namespace {

struct ModelOptions {
  std::string model;   // NAME or NAME@VERSION
  std::string place;   // az://CONTAINER/PREFIX
  std::string folder;  // where a pull keeps what it has so far
};

struct ModelName {
  std::string name, version;  // version empty: the newest
};

constexpr const char* kRegistryManifest = ".manifest.json";
constexpr int kBarWidth = 30;

Result<ModelName> parse_model_name(const std::string& text) {
  const size_t at = text.find('@');
  ModelName out{text.substr(0, at), at == text.npos ? "" : text.substr(at + 1)};
  TH_RETURN_IF_ERROR(check_name(out.name, "model"));
  if (at != text.npos) TH_RETURN_IF_ERROR(check_name(out.version, "version"));
  return out;
}

/// "9" before "10".
bool is_older(const std::string& a, const std::string& b) {
  const auto is_number = [](const std::string& text) {
    return text.find_first_not_of("0123456789") == text.npos;
  };
  if (is_number(a) && is_number(b) && a.size() != b.size()) return a.size() < b.size();
  return a < b;
}

/// A bar on the terminal while bytes of files come or go.
class Transfer {
 public:
  explicit Transfer(std::string what) : what_(std::move(what)), begin_ns_(monotonic_now_ns()) {}

  storage::BlobsOptions options() {
    return {.stop = interrupted, .moved = [this](int64_t bytes) { show(bytes); }};
  }
  void expect(int64_t bytes) { total_ = bytes; }
  void end() { live_.clear(); }
  double seconds() const { return static_cast<double>(monotonic_now_ns() - begin_ns_) / kSecond; }

 private:
  void show(int64_t bytes) {
    done_ += bytes;
    const double part = static_cast<double>(done_), whole = static_cast<double>(total_);
    live_.show(fmt::format("{} {} {} of {}, {}/s", what_, bar(part, whole, kBarWidth), format_bytes(done_),
                           format_bytes(total_),
                           format_bytes(static_cast<int64_t>(part / std::max(seconds(), 1e-3)))),
               what_);
  }

  CatchInterrupt catch_interrupt_;
  LiveLine live_;
  std::string what_;
  int64_t begin_ns_, total_ = 0, done_ = 0;
};

/// As the controller knows them, oldest first.
Result<std::vector<Json>> versions_of(Context& context, const std::string& name) {
  TH_TRY(const Json models, context.get("/models"));
  std::vector<Json> out;
  for (const Json& model : list_of(models)) {
    if (text_of(model, "name") == name) out.push_back(model);
  }
  return out;
}

std::vector<storage::FileEntry> files_of(const Json& model) {
  std::vector<storage::FileEntry> files;
  for (const Json& file : list_of(model, "files"))
    files.push_back({text_of(file, "name"), int_of(file, "bytes"), text_of(file, "sha256")});
  std::sort(files.begin(), files.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return files;
}

Result<Json> find_version(Context& context, const ModelName& wanted) {
  TH_TRY(const std::vector<Json> versions, versions_of(context, wanted.name));
  for (auto model = versions.rbegin(); model != versions.rend(); ++model) {
    if (wanted.version.empty() || text_of(*model, "version") == wanted.version) return *model;
  }
  return fail(Code::kNotFound,
              fmt::format("model '{}{}{}' is not in the registry; th models lists those that are",
                          wanted.name, wanted.version.empty() ? "" : "@", wanted.version));
}

Json summary(const Json& model, const storage::Place& place, const std::vector<storage::FileEntry>& files,
             double seconds) {
  return {{"model", text_of(model, "name")}, {"version", text_of(model, "version")}, {"store", place.text()},
          {"files", files.size()},           {"bytes", storage::total_bytes(files)}, {"seconds", seconds}};
}

Result<Json> push_model(Context& context, const ModelOptions& options) {
  TH_TRY(const ModelName wanted, parse_model_name(options.model));
  TH_TRY(const storage::Place root, storage::parse_place(options.place));
  TH_TRY(const Json model, find_version(context, wanted));
  TH_TRY(storage::Account account, storage::account_from_env());
  const std::string path = text_of(model, "path");
  TH_TRY(const auto files, storage::scan_folder(path, kRegistryManifest));
  if (files != files_of(model))
    return fail(
        Code::kDataLoss,
        fmt::format("{}: its files are not those that were registered; it is damaged, nothing was sent",
                    path));
  const storage::Place place = root.below(wanted.name).below(text_of(model, "version"));
  Transfer transfer("pushing " + wanted.name);
  transfer.expect(storage::total_bytes(files));
  storage::Blobs blobs(std::move(account), place.container, transfer.options());
  const Status pushed = storage::push_folder(blobs, place.prefix, path, files, storage::IfOther::kRefuse);
  transfer.end();
  if (!pushed) return fail(pushed.error());
  context.say(fmt::format("model {}@{} is in {}: {} files, {} in {:.1f} s", wanted.name,
                          text_of(model, "version"), place.text(), files.size(),
                          format_bytes(storage::total_bytes(files)), transfer.seconds()));
  return summary(model, place, files, transfer.seconds());
}

/// Version → bytes, by model; only what is whole.
using Stored = std::map<std::string, std::map<std::string, int64_t>>;

Result<Stored> stored_models(storage::Blobs& blobs, const storage::Place& root) {
  const std::string prefix = root.prefix.empty() ? "" : root.prefix + "/";
  TH_TRY(const auto all, blobs.list(prefix));
  Stored whole, bytes;
  for (const storage::Blob& blob : all) {
    const auto parts = split(blob.name.substr(prefix.size()), '/');
    if (parts.size() == 3 && parts[2] == storage::kManifestName) whole[parts[0]][parts[1]] = 0;
    if (parts.size() == 4) bytes[parts[0]][parts[1]] += blob.bytes;
  }
  for (auto& [name, versions] : whole) {
    for (auto& [version, size] : versions) size = bytes[name][version];
  }
  return whole;
}

Result<Json> list_stored(Context& context, const ModelOptions& options) {
  TH_TRY(const storage::Place root, storage::parse_place(options.place));
  TH_TRY(storage::Account account, storage::account_from_env());
  storage::Blobs blobs(std::move(account), root.container);
  TH_TRY(const Stored stored, stored_models(blobs, root));
  std::vector<std::vector<std::string>> rows = {{"MODEL", "VERSION", "SIZE"}};
  Json items = Json::array();
  for (const auto& [name, versions] : stored) {
    for (const auto& [version, bytes] : versions) {
      rows.push_back({name, version, format_bytes(bytes)});
      items.push_back({{"name", name}, {"version", version}, {"bytes", bytes}});
    }
  }
  context.put(rows.size() == 1 ? "no models in " + root.text() + "\n" : table(rows));
  return Json{{"items", std::move(items)}};
}

Result<std::string> choose_version(const Stored& stored, const ModelName& wanted,
                                   const storage::Place& root) {
  const auto found = stored.find(wanted.name);
  std::string newest;
  std::vector<std::string> there;
  for (const auto& [name, versions] : stored) {
    for (const auto& [version, bytes] : versions) there.push_back(name + "@" + version);
  }
  if (found != stored.end()) {
    if (found->second.count(wanted.version) > 0) return wanted.version;
    for (const auto& [version, bytes] : found->second) {
      if (newest.empty() || is_older(newest, version)) newest = version;
    }
  }
  if (wanted.version.empty() && !newest.empty()) return newest;
  return fail(Code::kNotFound,
              fmt::format("no model '{}{}{}' in {}; {}", wanted.name, wanted.version.empty() ? "" : "@",
                          wanted.version, root.text(),
                          there.empty() ? "there is none" : "there are: " + join(there, ", ")));
}

/// Where a pull keeps what it has so far; the controller reads it from there.
std::filesystem::path pull_folder_of(const Context& context, const ModelOptions& options,
                                     const std::string& name) {
  if (!options.folder.empty()) return std::filesystem::absolute(options.folder) / name;
  return context.state / "pull" / name;
}

/// A large one takes longer than a call may: it goes on without us, and is asked for until it is there.
Result<Json> register_folder(Context& context, const std::string& name, const std::filesystem::path& folder,
                             const std::vector<storage::FileEntry>& files) {
  const CatchInterrupt catch_interrupt;
  while (true) {
    auto model = context.post("/models", {{"name", name}, {"path", folder.string()}});
    const bool goes_on = !model && (model.error().code == Code::kDeadlineExceeded ||
                                    model.error().code == Code::kFailedPrecondition);
    if (!goes_on || !pause_ms(1000)) return model;
    TH_TRY(const std::vector<Json> versions, versions_of(context, name));
    for (const Json& version : versions) {
      if (files_of(version) == files) return version;
    }
  }
}

Result<Json> pull_model(Context& context, const ModelOptions& options) {
  TH_TRY(ModelName wanted, parse_model_name(options.model));
  TH_TRY(const storage::Place root, storage::parse_place(options.place));
  TH_TRY(const std::vector<Json> known, versions_of(context, wanted.name));
  TH_TRY(storage::Account account, storage::account_from_env());
  Transfer transfer("pulling " + wanted.name);
  storage::Blobs blobs(std::move(account), root.container, transfer.options());
  TH_TRY(const Stored stored, stored_models(blobs, root));
  TH_TRY(wanted.version, choose_version(stored, wanted, root));
  const storage::Place place = root.below(wanted.name).below(wanted.version);
  TH_TRY(const auto files, storage::find_folder(blobs, place.prefix));
  if (!files) return fail(Code::kNotFound, place.text() + ": is gone");
  for (const Json& model : known) {
    if (files_of(model) != *files) continue;
    context.say(
        fmt::format("model {}@{} is in the registry already", wanted.name, text_of(model, "version")));
    return summary(model, place, *files, transfer.seconds());
  }
  const auto folder = pull_folder_of(context, options, wanted.name + "@" + wanted.version);
  transfer.expect(storage::total_bytes(*files));
  const Status pulled = storage::pull_folder(blobs, place.prefix, *files, folder);
  transfer.end();
  if (!pulled) return fail(pulled.error());
  TH_TRY(const Json model, register_folder(context, wanted.name, folder, *files));
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
  context.say(fmt::format("model {}@{} came from {}: {} files, {} in {:.1f} s", wanted.name,
                          text_of(model, "version"), place.text(), files->size(),
                          format_bytes(storage::total_bytes(*files)), transfer.seconds()));
  return summary(model, place, *files, transfer.seconds());
}

}  // namespace

void add_model(CLI::App& app, Verb& verb) {
  auto options = std::make_shared<ModelOptions>();
  auto* model = app.add_subcommand("model", "Copy models to and from Azure Blob");
  model->require_subcommand(1);
  model->footer(
      "The account: AZURE_STORAGE_CONNECTION_STRING, TH_STORAGE_FILE, or AZURE_STORAGE_ACCOUNT with\n"
      "AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN or a managed identity (docs/storage.md).");
  const auto add = [&](const char* name, const char* help, const char* example,
                       Result<Json> (*run)(Context&, const ModelOptions&), bool names_model) {
    auto* command = model->add_subcommand(name, help);
    if (names_model)
      command->add_option("MODEL", options->model, "NAME or NAME@VERSION; default: newest")->required();
    command->add_option("STORE", options->place, "az://CONTAINER/PREFIX")->required();
    command->footer(example);
    command->callback([&verb, options, run] {
      verb = [options, run](Context& context) { return run(context, *options); };
    });
    return command;
  };
  add("push", "Copy a model of the registry to a store",
      "Example:\n  th model push llama-small az://models/desk", push_model, true);
  add("list", "List the models of a store", "Example:\n  th model list az://models/desk", list_stored, false);
  add("pull", "Bring a model of a store into the registry",
      "Example:\n  th model pull llama-small@3 az://models/desk", pull_model, true)
      ->add_option("--folder", options->folder,
                   "keep what came so far here; the controller reads it (default: STATE/pull)");
}

}  // namespace th::cli
