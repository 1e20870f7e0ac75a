#include "control/models.h"

#include <cstdlib>

namespace th::control {
namespace {

int64_t version_number(const std::string& version) { return std::strtoll(version.c_str(), nullptr, 10); }

}  // namespace

Result<registry::Model> import_as_next(const registry::Registry& registry,
                                       const std::filesystem::path& folder, const std::string& name,
                                       int64_t version) {
  while (true) {
    auto model = registry.import_folder(folder, name, std::to_string(version));
    if (model || model.error().code != Code::kAlreadyExists) return model;
    ++version;
  }
}

void Models::import(const std::string& name, const std::filesystem::path& folder,
                    std::function<void(const Result<registry::Model>&)> done) {
  TH_CHECK(importing_.insert(name).second);
  const auto known = core_.state().models.find(name);
  const int64_t next =
      known == core_.state().models.end() ? 1 : version_number(known->second.back().version) + 1;
  core_.after_commit([this, name, next, folder, done = std::move(done)] {
    core_.offload([this, name, next, folder, done]() -> std::function<void()> {
      auto model = import_as_next(core_.registry(), folder, name, next);
      return [this, name, done, model] {
        importing_.erase(name);
        done(model);
      };
    });
  });
}

void Models::stage(const registry::Model& model, const std::string& job) {
  ledger::ModelRegistered registered{model.name, model.version, model.path.string(), job, model.bytes, {}};
  for (const auto& file : model.files) registered.files.push_back({file.name, file.bytes, file.sha256});
  core_.stage(std::move(registered));
}

}  // namespace th::control
