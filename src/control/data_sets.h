#pragma once
// Folders of tokens that become versions of data sets, and the jobs that name one (docs/data.md). Thread: the
// loop only.

#include <filesystem>
#include <functional>
#include <optional>
#include <set>
#include <string>

#include "control/core.h"
#include "request/job_spec.h"

namespace th::control {

/// "code@2", or the newest of "code". Errors: kNotFound, naming those there are and how one is made.
Result<const ledger::DataSetAdded*> find_data_set(const ledger::State& state, const std::string& name);

/// The job with its data set staged to data/NAME, and its version written down; a job without one stays as it
/// is. Errors: as find_data_set; kInvalidArgument (it stages something else there).
Result<request::JobSpec> with_data_set(const ledger::State& state, request::JobSpec spec);

class DataSets {
 public:
  using Done = std::function<void(const Result<ledger::DataSetAdded>&)>;
  explicit DataSets(Core& core) : core_(core) {}

  /// Copies `folder` to STATE/data as the next version of `name`, on a worker, makes it known, and calls
  /// `done` on the loop. One that is already there with the same content is the answer itself. Errors: those
  /// of Registry::import_folder, kFailedPrecondition (another import of this name is under way).
  Status import(const std::string& name, const std::filesystem::path& folder, Done done);

 private:
  void finish(const std::string& name, const Result<registry::Model>& copied, const Done& done);

  Core& core_;
  std::optional<registry::Registry> registry_;  // opened with the first import
  std::set<std::string> importing_;
};

}  // namespace th::control
