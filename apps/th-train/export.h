#pragma once
// th-train export: a model's folder as one GGUF file.

namespace th {

/// Returns the exit status.
int export_command(int argc, char** argv);

}  // namespace th
