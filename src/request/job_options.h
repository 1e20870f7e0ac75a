#pragma once
// The texts in which sbatch's options are given, read into values (docs/slurm.md). Pure. Errors of all:
// kInvalidArgument, saying what is wrong with the text and what is accepted.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace th::request {

inline constexpr size_t kMaxArrayTasks = 1001;  // as many as Slurm's MaxArraySize allows by default
inline constexpr int64_t kMaxArrayIndex = 4'000'000;
inline constexpr size_t kMaxHosts = 20'000;  // of one host list
inline constexpr size_t kMaxDependencies = 1000;

/// "0-15:2%4": the indices 0, 2, …, 14, at most four of them at the same time.
struct ArraySpec {
  std::vector<int64_t> indices;  // ascending, each once, never empty
  int64_t limit = 0;             // 0: all at once
};
Result<ArraySpec> parse_array(std::string_view text);

enum class DependencyKind { kAfter, kAfterOk, kAfterNotOk, kAfterAny, kSingleton };

struct Dependency {
  DependencyKind kind = DependencyKind::kAfterAny;
  std::string job;       // "job-12" or "12_3"; empty for kSingleton
  int64_t delay_ns = 0;  // kAfter: so long after the other has started
};
/// "afterok:12:13,after:14+5,singleton": all of them, or with '?' in place of ',' any one.
struct Dependencies {
  std::vector<Dependency> items;
  bool any = false;
};
Result<Dependencies> parse_dependencies(std::string_view text);
std::string_view name_of(DependencyKind kind);

/// "node[1-3,7],gpu5" → node1 node2 node3 node7 gpu5, in that order. Leading zeros stay: "n[08-10]" → n08 n09
/// n10.
Result<std::vector<std::string>> parse_hostlist(std::string_view text);

/// "[B:]SIG[@seconds]": sent so long before the time limit; 60 s without a number.
struct EndSignal {
  int number = 0;
  int64_t before_ns = 0;
  bool batch_only = false;  // B: to the batch script and not to its steps
};
Result<EndSignal> parse_end_signal(std::string_view text);

/// "2" or "2-4".
struct CountRange {
  int64_t min = 0, max = 0;
};
Result<CountRange> parse_count_range(std::string_view text, int64_t limit);

/// What a node has to be: of each group one name has to fit. "ND_H100_v5&(leaf1|leaf2)" → {{ND_H100_v5},
/// {leaf1, leaf2}}; '&' and '|' side by side want the parentheses.
struct Constraint {
  std::vector<std::vector<std::string>> all_of_any;
};
Result<Constraint> parse_constraint(std::string_view text);

/// A moment: "now", "now+1hour", "16:00", "tomorrow", "noon", "2027-01-31", "2027-01-31T08:00:00" in local
/// time. What has no day and is over today is tomorrow's. Returns nanoseconds since 1970.
Result<int64_t> parse_moment(std::string_view text, int64_t now_ns);

/// "job-12" of "12" and of "job-12"; "12_3" of an array stays as it is.
Result<std::string> parse_job_ref(std::string_view text);

}  // namespace th::request
