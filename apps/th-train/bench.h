#pragma once
// th-train bench: how fast training steps are, beside the least that they could cost.

namespace th {

int bench_command(int argc, char** argv);

}  // namespace th
