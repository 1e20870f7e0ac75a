#pragma once
// th-train check-gradients [--seed N] [--json]: every backward pass against central finite differences.

namespace th {

/// argv[0] is the command's name. Prints a table, or with --json one line
/// {"operations":[{"name","worst_relative_error"}],"worst"}. Returns the exit status: 0 when every error is
/// below 1e-3.
int check_gradients_command(int argc, char** argv);

}  // namespace th
