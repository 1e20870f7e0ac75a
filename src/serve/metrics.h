#pragma once
// The engine's counters in Prometheus' text format.

#include <string>

#include "serve/engine.h"

namespace th::serve {

/// Names start with th_serve_ (docs/serving.md). Thread: pure.
std::string metrics_text(const EngineStats& stats, bool ready);

}  // namespace th::serve
