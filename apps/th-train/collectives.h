#pragma once
// th-train collectives: how fast ranks of this host exchange data, beside memcpy and Open MPI.

namespace th {

/// Starts the ranks itself, and Open MPI's where it is installed. Prints a table, or with --json one line
/// {"ranks","bytes","operations":[{"name","gb_per_s","memcpy_gb_per_s","open_mpi_gb_per_s","checked"}],
/// "open_mpi"}. Returns the exit status: 0 when all results were right.
int collectives_command(int argc, char** argv);

}  // namespace th
