#pragma once
// Ranks of this program on this host, for commands that measure a gang without a launcher.

#include <string>
#include <vector>

#include "base/result.h"

namespace th {

/// Starts this program `ranks` times with `arguments` (without the program's name), each with RANK,
/// WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT, TH_JOB_ID and TH_ATTEMPT, and with
/// OMP_NUM_THREADS, where it is not set, so that all share the cores. Rank 0 writes to the descriptor
/// `output`, the others' standard output goes to standard error. Blocks until all have ended; when one fails
/// the others are killed, as they are when this process ends. Errors: kUnavailable, naming the rank and how
/// it ended; kInternal. Thread: one call at a time.
Status run_ranks(int ranks, const std::vector<std::string>& arguments, int output = 1);

}  // namespace th
