#pragma once

#include "context.h"

namespace th::cli {

/// GPU-seconds, money and tokens as tables. Returns the controller's answer.
Result<Json> show_usage(Context& context);

}  // namespace th::cli
