#pragma once
// th-train all-reduce: how fast the ranks of a gang add numbers up.

namespace th {

/// Every rank of the gang runs it. Rank 0 prints the speed and, as one line of JSON, appends it to the file
/// in TH_METRICS. Returns the exit status.
int all_reduce_command(int argc, char** argv);

}  // namespace th
