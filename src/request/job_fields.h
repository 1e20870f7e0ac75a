#pragma once
// The options that JobSpec shares with sbatch: one table of their names, kinds and limits, which the readers,
// the writer and the check all go through.

#include <optional>

#include "request/fields.h"
#include "request/job_spec.h"

namespace th::request {

/// Every field of the table, for check_fields.
const std::vector<const char*>& option_names();

/// Errors: kInvalidArgument for a value of the wrong type, naming the field.
Status options_from_json(const Json& body, JobSpec& spec);
void options_to_json(const JobSpec& spec, Json& body);
/// The keys of a recipe are the fields' names, with times as texts ("1h", "now+1hour" is for the command
/// line) and lists as host lists.
Status options_from_config(const Config& config, JobSpec& spec);

/// What is wrong with an option, or with two of them together.
std::optional<Problem> option_problem(const JobSpec& spec);

}  // namespace th::request
