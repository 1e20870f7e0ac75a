#pragma once
// A job or a node of the controller's JSON in Slurm's words.

#include <string>

#include "context.h"

namespace th::cli {

std::string plain_number(const Json& job);  // "12"
std::string array_number(const Json& job);  // "12" of its array; empty for others
/// "12", "12_3" for a task of an array, "12.0" for a step.
std::string shown_id(const Json& job);
std::string partition_of(const Json& job);
int64_t num_nodes(const Json& job);
std::string node_list(const Json& job);  // "demo-[0-1]"

std::string state_letters(const Json& job);  // PD R CG CD F CA TO NF PR DL
std::string state_word(const Json& job);     // PENDING …
/// Why it waits: Priority, Resources, Dependency, BeginTime, …
std::string reason_word(const Json& job);

/// "5:03", "1:02:03", "2-01:02:03".
std::string clock_text(int64_t ns);
std::string elapsed(const Json& job);

/// idle, mix, alloc, down, drain: `used` of its GPUs are jobs'.
std::string node_state(const Json& node, size_t used);

/// A column of sacct in its own spelling. Errors: kInvalidArgument, with the nearest.
Result<std::string> account_column(const std::string& name);
std::string account_value(const Json& job, const std::string& column);

}  // namespace th::cli
