#pragma once
// How each option of sbatch is written; the table that also says what it means is in sbatch.cc.

#include <span>
#include <string_view>

#include "base/result.h"

namespace th::request {

enum class Value { kNone, kWanted, kOptional };  // optional ones only after '='

struct OptionForm {
  const char* name;  // without "--"
  char letter;       // 0: none
  Value value;
};

std::span<const OptionForm> option_forms();

/// kInvalidArgument naming `word` and the nearest option.
tl::unexpected<Error> unknown_option(std::string_view where, std::string_view word);

}  // namespace th::request
