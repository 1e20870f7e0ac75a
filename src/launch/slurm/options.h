#pragma once
// The file that says which Slurm runs the gangs (docs/slurm-cluster.md).

#include <filesystem>
#include <memory>
#include <string_view>

#include "base/result.h"
#include "launch/slurm/launcher.h"

namespace th::launch {

/// Reads the file's `slurm` section and the token file that it names, which nobody else may read. `file`
/// names it in messages; a token file that is relative is taken from its folder. Errors: kInvalidArgument
/// ("slurm.yaml:3: …"), kNotFound, kPermissionDenied, naming the token file.
Result<SlurmOptions> read_slurm_options(std::string_view text, const std::filesystem::path& file,
                                        const std::filesystem::path& jobs_folder);

}  // namespace th::launch
