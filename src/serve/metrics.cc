#include "serve/metrics.h"

#include <fmt/format.h>

#include "base/units.h"

namespace th::serve {
namespace {

void add(std::string& out, const char* type, const char* name, const char* help, double value) {
  out += fmt::format("# HELP th_serve_{0} {1}\n# TYPE th_serve_{0} {2}\nth_serve_{0} {3}\n", name, help, type,
                     value);
}

double seconds(int64_t ns) { return static_cast<double>(ns) / static_cast<double>(kSecond); }

}  // namespace

std::string metrics_text(const EngineStats& stats, bool ready) {
  std::string out;
  const auto gauge = [&](const char* name, const char* help, int64_t value) {
    add(out, "gauge", name, help, static_cast<double>(value));
  };
  const auto counter = [&](const char* name, const char* help, int64_t value) {
    add(out, "counter", name, help, static_cast<double>(value));
  };
  gauge("ready", "1 while requests are taken.", ready ? 1 : 0);
  gauge("sequences_running", "Sequences in the batch.", stats.running);
  gauge("sequences_waiting", "Requests that wait for a place or for KV blocks.", stats.waiting);
  gauge("kv_blocks_used", "Blocks of the KV cache in use.", stats.blocks_used);
  gauge("kv_blocks", "Blocks of the KV cache.", stats.blocks_total);
  counter("prompt_tokens_total", "Prompt tokens of sequences that reached their first token.",
          stats.prompt_tokens);
  counter("completion_tokens_total", "Tokens sampled.", stats.completion_tokens);
  counter("finished_total", "Completions that ended by themselves.", stats.finished);
  counter("cancelled_total", "Completions whose client went away.", stats.cancelled);
  counter("refused_total", "Requests refused since too many waited.", stats.refused);
  counter("preemptions_total", "Sequences that gave their KV blocks back for a while.", stats.preempted);
  counter("steps_total", "Forward passes.", stats.steps);
  add(out, "counter", "step_seconds_total", "Time in steps.", seconds(stats.step_ns));
  counter("first_token_seconds_count", "Sequences that reached their first token.", stats.first_tokens);
  add(out, "counter", "first_token_seconds_sum", "Time from request to first token.",
      seconds(stats.first_token_ns));
  return out;
}

}  // namespace th::serve
