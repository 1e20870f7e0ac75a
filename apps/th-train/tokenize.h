#pragma once
// th-train tokenize: a data set's folder of texts.

namespace th {

/// Returns the exit status.
int tokenize_command(int argc, char** argv);

}  // namespace th
