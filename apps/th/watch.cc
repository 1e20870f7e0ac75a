#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/units.h"
#include "http/client.h"
#include "http/url.h"
#include "job.h"
#include "terminal.h"

namespace th::cli {
namespace {

constexpr int64_t kPollMs = 250;
constexpr int64_t kControllerAwayNs = 2 * kMinute;  // jobs go on without it; so does watching, for a while
constexpr int kMaxRanksShown = 16;

std::string progress_line(const Json& job) {
  const Json& progress = object_of(job, "progress");
  if (progress.empty()) {
    std::string reason = text_of(job, "reason");
    return fmt::format("{} is {}{}{}", text_of(job, "id"), text_of(job, "state"), reason.empty() ? "" : ": ",
                       reason);
  }
  int64_t step = int_of(progress, "step"), steps = int_of(progress, "steps");
  std::string line =
      fmt::format("{}  step {}/{}  loss {:.3f}  {:.0f} tokens/s", bar(double(step), double(steps), 20), step,
                  steps, double_of(progress, "loss"), double_of(progress, "tokens_per_s"));
  if (double mfu = double_of(progress, "mfu"); mfu > 0) line += fmt::format("  MFU {:.0f} %", 100 * mfu);
  if (double eta_s = double_of(progress, "eta_s"); eta_s >= 1) {
    line += "  left " + format_duration(static_cast<int64_t>(eta_s) * kSecond);
  }
  if (text_of(job, "state") != "running") line += "  " + text_of(job, "state");
  return line;
}

/// The job's own exit status: 0, that of the first rank that failed, 128 + its signal, else 1.
int exit_status_of(const Json& job) {
  if (text_of(job, "state") == "succeeded") return kOk;
  for (const Json& rank : list_of(job, "ranks")) {
    if (int64_t code = int_of(rank, "exit_code"); code > 0 && code < 256) return static_cast<int>(code);
  }
  for (const Json& rank : list_of(job, "ranks")) {
    if (int64_t signal = int_of(rank, "signal"); signal > 0 && signal < 128)
      return static_cast<int>(128 + signal);
  }
  return kFailed;
}

void print_end(const Context& context, const Json& job) {
  std::string id = text_of(job, "id"), state = text_of(job, "state"), reason = text_of(job, "reason");
  int64_t start_ns = int_of(job, "started_ns"), end_ns = int_of(job, "ended_ns");
  std::string after = start_ns > 0 && end_ns > start_ns
                          ? " after " + format_duration((end_ns - start_ns) / kMillisecond * kMillisecond)
                          : "";
  context.say(fmt::format("{} {}{}, {}{}{}", id, state, after, format_money(int_of(job, "cost_microusd")),
                          reason.empty() ? "" : ": ", reason));
  const Json& result = object_of(job, "result");
  for (const auto& [key, value] : result.items()) {
    if (key == "event" || key == "model_dir" || !value.is_primitive()) continue;
    context.say(
        fmt::format("  {:<24}{}", key, value.is_string() ? value.get<std::string>() : dump_json(value)));
  }
  if (state == "failed") context.say(fmt::format("see: th logs {}, th why {}", id, id));
}

/// The job; while the controller is away, nothing, until it has been away too long.
Result<std::optional<Json>> ask(const Context& context, const std::string& path, int64_t& away_since_ns) {
  auto job = context.get(path);
  if (job) {
    away_since_ns = 0;
    return std::optional<Json>(*std::move(job));
  }
  if (job.error().code != Code::kUnavailable) return fail(std::move(job).error());
  int64_t now = monotonic_now_ns();
  if (away_since_ns == 0) away_since_ns = now;
  if (now - away_since_ns > kControllerAwayNs) return fail(std::move(job).error());
  return std::optional<Json>();
}

}  // namespace

bool has_ended(const Json& job) {
  std::string state = text_of(job, "state");
  return state == "succeeded" || state == "failed" || state == "cancelled";
}

Result<Json> watch_job(Context& context, const std::string& id, bool output) {
  CatchInterrupt catch_interrupt;
  LiveLine live;
  LogTail tail(context, id, -1, 0);
  int64_t away_since_ns = 0, attempt = 0;
  std::string state = "unknown";
  while (true) {
    TH_TRY(auto job, ask(context, "/jobs/" + http::percent_encode(id), away_since_ns));
    if (!job) {
      live.show("the controller is away; the job goes on", "away");
    } else {
      state = text_of(*job, "state");
      if (output) static_cast<void>(tail.poll(*job, [&] { live.clear(); }));
      if (has_ended(*job)) {
        live.clear();
        if (output) tail.finish();
        print_end(context, *job);
        context.exit_status = exit_status_of(*job);
        return *std::move(job);
      }
      if (int64_t now = int_of(*job, "attempt"); now > 1 && now != std::exchange(attempt, now)) {
        live.clear();
        context.say(fmt::format("{}: attempt {}: {}", id, now, text_of(*job, "reason")));
      }
      bool stage_only = object_of(*job, "progress").empty();
      if (!output || stage_only) live.show(progress_line(*job), state);
    }
    if (!pause_ms(kPollMs)) {
      live.clear();
      context.say(fmt::format(
          "\nno longer watching; the job goes on: th logs -f {} shows it, th cancel {} ends it", id, id));
      context.exit_status = kInterrupted;
      return Json{{"id", id}, {"state", state}, {"watching", false}};
    }
  }
}

Result<Json> follow_step(Context& context, const std::string& id) {
  CatchInterrupt catch_interrupt;
  LogTail tail(context, id, -1, 0);
  tail.unlabelled();
  const std::string path = "/jobs/" + http::percent_encode(id);
  int64_t away_since_ns = 0;
  bool cancelled = false;
  while (true) {
    TH_TRY(auto job, ask(context, path, away_since_ns));
    if (job) {
      static_cast<void>(tail.poll(*job, [] {}));
      if (has_ended(*job)) {
        tail.finish();
        context.exit_status = exit_status_of(*job);
        if (context.exit_status != kOk && !text_of(*job, "reason").empty()) {
          fmt::print(stderr, "srun: {}\n", text_of(*job, "reason"));
        }
        return *std::move(job);
      }
    }
    if (!pause_ms(kPollMs / 2) && !std::exchange(cancelled, true)) {
      TH_RETURN_IF_ERROR(context.del(path));
    }
  }
}

Status LogTail::poll(const Json& job, const std::function<void()>& before) {
  int64_t attempt = int_of(job, "attempt");
  if (!fixed_ && attempt != attempt_) {
    if (attempt_ > 0) TH_RETURN_IF_ERROR(read(before));  // what the one before wrote since the last look
    finish();
    attempt_ = attempt;
    offsets_.clear();
  }
  ranks_ = static_cast<int>(list_of(job, "ranks").size());
  prefixed_ = labels_ && rank_ < 0 && ranks_ > 1;
  return read(before);
}

Status LogTail::read(const std::function<void()>& before) {
  int shown = std::min(ranks_, kMaxRanksShown);
  TH_TRY(std::string key, context_.key());
  for (int rank = rank_ < 0 ? 0 : rank_; rank < (rank_ < 0 ? shown : rank_ + 1); ++rank) {
    int64_t& offset = offsets_[rank];
    while (true) {
      std::string url = fmt::format("{}/api/v1/jobs/{}/logs?rank={}&attempt={}&offset={}", context_.url(),
                                    http::percent_encode(job_), rank, attempt_, offset);
      TH_TRY(auto response, http::fetch({.url = url,
                                         .headers = {{"Authorization", "Bearer " + key}},
                                         .authority_pem = context_.authority_pem()}));
      if (response.status != 200) return fail(http::error_of(response));
      if (response.body.empty()) break;
      offset += static_cast<int64_t>(response.body.size());
      print(rank, response.body, before);
    }
  }
  return {};
}

void LogTail::print(int rank, std::string_view text, const std::function<void()>& before) {
  std::string& partial = partial_[rank];
  partial += text;
  size_t end = partial.rfind('\n');
  if (end == std::string::npos) return;
  before();
  std::string out;
  for (size_t at = 0; at <= end;) {
    size_t line_end = partial.find('\n', at);
    if (prefixed_) out += fmt::format("{}: ", rank);
    out.append(partial, at, line_end + 1 - at);
    at = line_end + 1;
  }
  partial.erase(0, end + 1);
  context_.put(out);
}

void LogTail::finish() {
  for (auto& [rank, partial] : partial_) {
    if (partial.empty()) continue;
    partial += '\n';
    print(rank, "", [] {});
  }
  partial_.clear();
}

Result<Json> show_logs(Context& context, const std::string& id, int rank, int attempt, bool follow) {
  CatchInterrupt catch_interrupt;
  LogTail tail(context, id, rank, attempt);
  int64_t away_since_ns = 0;
  while (true) {
    TH_TRY(auto job, ask(context, "/jobs/" + http::percent_encode(id), away_since_ns));
    if (job) {
      int64_t ranks = static_cast<int64_t>(list_of(*job, "ranks").size());
      if (rank >= 0 && ranks > 0 && rank >= ranks) {
        return fail(Code::kNotFound, fmt::format("{} has ranks 0 to {}, no rank {}", id, ranks - 1, rank));
      }
      auto status = tail.poll(*job, [] {});
      if (!status && !(follow && status.error().code == Code::kUnavailable)) return fail(status.error());
      if (!follow || has_ended(*job)) {
        tail.finish();
        return *std::move(job);
      }
    }
    if (!pause_ms(kPollMs)) {
      context.exit_status = kInterrupted;
      return Json{{"id", id}, {"watching", false}};
    }
  }
}

}  // namespace th::cli
