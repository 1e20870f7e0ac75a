#pragma once
// sbatch's options, from the #SBATCH lines of a script and from the command line, as a JobSpec
// (docs/slurm.md). What each means is what Slurm's own manual says: https://slurm.schedmd.com/sbatch.html.
// Pure, but for the environment variable TZ.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "request/job_spec.h"

namespace th::request {

/// The file of the job's folder that a batch script becomes; command: its interpreter, this, its arguments.
inline constexpr const char* kBatchFile = "batch.sh";

/// One option as it was given. `where` is put before what is said of it: "job.sh:3: ", or nothing on the
/// command line.
struct SbatchOption {
  std::string name;  // the long one, without "--"
  std::string value;
  std::string where;
  bool operator==(const SbatchOption&) const = default;
};

struct SbatchWords {
  std::vector<SbatchOption> options;
  std::vector<std::string> rest;  // from the first word on that is no option: the script and its arguments
};

/// The words of a command line: -N2, -N 2, --nodes=2, --nodes 2; "--" ends the options. Errors:
/// kInvalidArgument naming the option: unknown (with the nearest known one), its value missing, or one where
/// there is none.
Result<SbatchWords> read_sbatch_words(std::span<const std::string> words, std::string_view where);

/// The #SBATCH lines up to the first line that is neither blank nor a comment; "##SBATCH" is a comment. In a
/// line, quotes hold words together, a backslash takes the next letter as it is, and '#' begins a comment.
/// `file` names the script in messages. Errors: kInvalidArgument, "job.sh:3: --nodse: unknown option, did you
/// mean '--nodes'?"; a script that does not begin with "#!".
Result<std::vector<SbatchOption>> read_sbatch_script(std::string_view text, std::string_view file);

struct SbatchRequest {
  JobSpec spec;  // without name and command where none was given
  bool test_only = false, parsable = false, wait = false, quiet = false;
  std::optional<std::string> wrap;      // a command line to run in place of a script
  std::optional<std::string> exported;  // the value of --export
  std::vector<std::string> notes;  // of options that are taken and change nothing, for the submitter to see
};

/// What the options come to; of two the later one counts, so give the script's first. `now_ns`: what times
/// are read against. Errors: kInvalidArgument naming the option and its line; options that contradict each
/// other.
Result<SbatchRequest> sbatch_request(std::span<const SbatchOption> options, int64_t now_ns);

/// Puts the script into the spec: its text, its interpreter, its arguments. Errors: kInvalidArgument (no
/// "#!", a zero byte, over 512 KiB).
Status set_script(JobSpec& spec, std::string_view text, std::span<const std::string> arguments);

}  // namespace th::request
