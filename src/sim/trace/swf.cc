#include "sim/trace/swf.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>

namespace th::sim {
namespace {

constexpr size_t kFields = 18;
constexpr double kMaxSeconds = 1e10;
constexpr std::string_view kSpace = " \t\r";
// Where the format puts what is read here, counted from 0.
enum Field : size_t { kSubmit = 1, kRun = 3, kProcs = 4, kAskedProcs = 7, kAskedTime = 8 };

/// The next word, taken off `rest`; empty at the end.
std::string_view next_word(std::string_view& rest) {
  rest.remove_prefix(std::min(rest.find_first_not_of(kSpace), rest.size()));
  const std::string_view word = rest.substr(0, rest.find_first_of(kSpace));
  rest.remove_prefix(word.size());
  return word;
}

/// "; MaxNodes: 128"
void read_comment(std::string_view line, SwfTrace& trace) {
  line.remove_prefix(1);
  const std::string_view key = next_word(line), value = next_word(line);
  int64_t number = 0;
  std::from_chars(value.data(), value.data() + value.size(), number);
  if (number < 1 || number > INT32_MAX) return;
  if (key == "MaxNodes:") trace.max_nodes = number;
  if (key == "MaxProcs:") trace.max_procs = number;
}

Result<std::array<double, kFields>> read_fields(std::string_view line) {
  std::array<double, kFields> out{};
  for (size_t i = 0; i < kFields; ++i) {
    const std::string_view word = next_word(line);
    if (word.empty()) return fail(Code::kInvalidArgument, fmt::format("has {} of the 18 fields", i));
    auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), out[i]);
    if (error != std::errc() || end != word.data() + word.size() || !(out[i] >= -1 && out[i] <= 1e18)) {
      return fail(Code::kInvalidArgument,
                  fmt::format("field {}: want a number from -1, got '{}'", i + 1, word.substr(0, 40)));
    }
  }
  if (!next_word(line).empty()) return fail(Code::kInvalidArgument, "has more than 18 fields");
  return out;
}

Status read_job(std::string_view line, const QueueTraceOptions& options, SwfTrace& trace) {
  TH_TRY(auto field, read_fields(line));
  if (!(field[kSubmit] >= 0 && field[kSubmit] <= kMaxSeconds)) {
    return fail(Code::kInvalidArgument,
                fmt::format("submit time: want 0 to {} s, got {}", kMaxSeconds, field[kSubmit]));
  }
  const double procs = field[kProcs] > 0 ? field[kProcs] : field[kAskedProcs];
  if (field[kRun] < 0 || procs <= 0) {
    ++trace.never_ran;
    return {};
  }
  if (field[kRun] > kMaxSeconds || procs > INT32_MAX ||
      procs != static_cast<double>(static_cast<int64_t>(procs))) {
    return fail(Code::kInvalidArgument,
                fmt::format("want a run time up to {} s and a whole number of processors, got {} and {}",
                            kMaxSeconds, field[kRun], procs));
  }
  const auto gpus = static_cast<int32_t>(procs);
  TH_RETURN_IF_ERROR(check_gpus("processors", gpus, options.most_gpus));
  trace.jobs.push_back(
      {field[kSubmit], field[kRun], std::clamp(field[kAskedTime], field[kRun], kMaxSeconds), gpus});
  return {};
}

}  // namespace

Result<SwfTrace> read_swf(std::string_view text, const QueueTraceOptions& options, Skipped& skipped) {
  SwfTrace trace;
  for (int64_t number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    line.remove_prefix(std::min(line.find_first_not_of(kSpace), line.size()));
    if (line.empty()) continue;
    if (line.front() == ';') {
      read_comment(line, trace);
      continue;
    }
    Status status = read_job(line, options, trace);
    if (!status) TH_RETURN_IF_ERROR(refuse_or_skip(options.csv, number, status.error().message, skipped));
  }
  from_first_submission(trace.jobs);
  return trace;
}

}  // namespace th::sim
