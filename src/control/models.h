#pragma once
// Folders that become versions of models, one of a name at a time. Thread: the loop only.

#include <filesystem>
#include <functional>
#include <set>
#include <string>

#include "control/core.h"

namespace th::control {

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
