#pragma once
// Folders that become versions of models, one of a name at a time. Thread: the loop only.

#include <filesystem>
#include <functional>
#include <set>
#include <string>

#include "control/core.h"

namespace th::control {

/// Copies `folder` into the registry as version `version`, or as the first one after it that is free: one
/// that the ledger does not know may be on the disk, left by a job that was cancelled meanwhile. Blocking.
Result<registry::Model> import_as_next(const registry::Registry& registry,
                                       const std::filesystem::path& folder, const std::string& name,
                                       int64_t version);

class Models {
 public:
  explicit Models(Core& core) : core_(core) {}

  bool is_importing(const std::string& name) const { return importing_.count(name) > 0; }
  /// Copies `folder` into the registry as the next version of `name`, on a worker once what is staged is
  /// durable; then calls `done` on the loop. Only while nothing of this name is imported. Errors: those of
  /// Registry::import_folder.
  void import(const std::string& name, const std::filesystem::path& folder,
              std::function<void(const Result<registry::Model>&)> done);
  /// Makes an imported one known. `job`: whose work it is; empty: brought from elsewhere.
  void stage(const registry::Model& model, const std::string& job);

 private:
  Core& core_;
  std::set<std::string> importing_;
};

}  // namespace th::control
