#include "control/data_sets.h"

#include <fmt/format.h>

#include <cstdlib>

#include "base/files.h"
#include "base/text.h"
#include "control/models.h"

namespace th::control {
namespace {

constexpr const char* kDescription = "dataset.json";
constexpr size_t kMaxDescriptionBytes = 64 << 10;

std::vector<ledger::ModelFile> ledger_files(const registry::Model& folder) {
  std::vector<ledger::ModelFile> out;
  for (const auto& file : folder.files) out.push_back({file.name, file.bytes, file.sha256});
  return out;
}

bool same_files(const ledger::DataSetAdded& set, const registry::Model& folder) {
  return set.files.size() == folder.files.size() &&
         std::ranges::equal(set.files, folder.files, [](const auto& a, const auto& b) {
           return a.name == b.name && a.bytes == b.bytes && a.sha256 == b.sha256;
         });
}

}  // namespace

Result<const ledger::DataSetAdded*> find_data_set(const ledger::State& state, const std::string& name) {
  const size_t at = name.find('@');
  const auto found = state.data_sets.find(name.substr(0, at));
  std::vector<std::string> ids;
  for (const auto& [other, versions] : state.data_sets) {
    for (const auto& version : versions) ids.push_back(other + "@" + version.version);
  }
  if (found != state.data_sets.end()) {
    if (at == name.npos) return &found->second.back();
    for (const auto& version : found->second) {
      if (version.version == name.substr(at + 1)) return &version;
    }
  }
  return fail(
      Code::kNotFound,
      fmt::format("data set '{}' does not exist; {}; th data add {} PATH makes one", name,
                  ids.empty() ? "there is none" : "there are " + join(ids, ", "), name.substr(0, at)));
}

Result<request::JobSpec> with_data_set(const ledger::State& state, request::JobSpec spec) {
  if (spec.data.empty()) return spec;
  TH_TRY(const ledger::DataSetAdded* set, find_data_set(state, spec.data));
  const std::string place = "data/" + set->name;
  const auto [at, is_new] = spec.stage.emplace(place, set->path);
  if (!is_new && at->second != set->path)
    return fail(Code::kInvalidArgument,
                fmt::format("job '{}' stages {} to {}, where its data set '{}' goes; name another place",
                            spec.name, at->second, place, set->name));
  spec.data = set->name + "@" + set->version;
  return spec;
}

Status DataSets::import(const std::string& name, const std::filesystem::path& folder, Done done) {
  if (importing_.count(name) > 0)
    return fail(Code::kFailedPrecondition, "a data set '" + name + "' is being added; try again");
  if (!registry_) {
    TH_TRY(registry_, registry::Registry::open(core_.state_dir() / "data", registry::Kind::kDataSet));
  }
  importing_.insert(name);
  const auto known = core_.state().data_sets.find(name);
  const int64_t next = known == core_.state().data_sets.end()
                           ? 1
                           : std::strtoll(known->second.back().version.c_str(), nullptr, 10) + 1;
  core_.offload([this, name, folder, done, next]() -> std::function<void()> {
    auto copied = import_as_next(*registry_, folder, name, next);
    return [this, name, done, copied] { finish(name, copied, done); };
  });
  return {};
}

void DataSets::finish(const std::string& name, const Result<registry::Model>& copied, const Done& done) {
  importing_.erase(name);
  auto added = [&]() -> Result<ledger::DataSetAdded> {
    if (!copied) return fail(copied.error());
    const auto known = core_.state().data_sets.find(name);
    if (known != core_.state().data_sets.end() && same_files(known->second.back(), *copied)) {
      std::error_code ignored;
      std::filesystem::remove_all(copied->path, ignored);
      return known->second.back();
    }
    TH_TRY(std::string about, read_file(copied->path / kDescription, kMaxDescriptionBytes));
    ledger::DataSetAdded event{name,  copied->version, copied->path.string(),
                               about, copied->bytes,   ledger_files(*copied)};
    core_.stage(event);
    return event;
  }();
  done(added);
}

}  // namespace th::control
