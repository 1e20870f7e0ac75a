#pragma once
// What a node looks at before it is handed over.

#include <cstdint>
#include <optional>

#include "node/config.h"
#include "node/protocol.h"
#include "node/user.h"

namespace th::node {

/// Seconds since 1970 of an HTTP date ("Sun, 06 Nov 1994 08:49:37 GMT"); none if it is not one.
std::optional<int64_t> parse_http_date(std::string_view text);

/// Checks gpus, cpus, memory, disk, clock, user, programs and memory bandwidth against `config.expect`.
/// `clock_skew_s`: this clock minus the controller's; none: the controller gave no time, which fails.
/// `isolation`: what the machine allows (tenant.h), which is told and not judged. Each check is logged.
/// Cost: some 20 ms, most of it the bandwidth.
Validation validate(const NodeConfig& config, const std::optional<User>& user,
                    std::optional<int64_t> clock_skew_s, const std::string& isolation);

}  // namespace th::node
