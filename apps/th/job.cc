#include "job.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/env.h"
#include "base/units.h"
#include "http/url.h"
#include "terminal.h"

namespace th::cli {
namespace {

Result<Json> list_jobs(Context& context) {
  TH_TRY(Json jobs, context.get("/jobs"));
  std::vector<std::vector<std::string>> rows = {
      {"JOB", "NAME", "SLICE", "KIND", "GPUS", "STATE", "ATTEMPT", "STEP", "COST", "REASON"}};
  for (const Json& job : list_of(jobs)) {
    const Json& progress = object_of(job, "progress");
    std::string step =
        progress.empty() ? "" : fmt::format("{}/{}", int_of(progress, "step"), int_of(progress, "steps"));
    rows.push_back({text_of(job, "id"), text_of(job, "name"), text_of(job, "slice"), text_of(job, "kind"),
                    std::to_string(int_of(job, "gpus")), text_of(job, "state"),
                    std::to_string(int_of(job, "attempt")), step, format_money(int_of(job, "cost_microusd")),
                    text_of(job, "reason")});
  }
  context.put(rows.size() == 1 ? "no jobs\n" : table(rows));
  return jobs;
}

Result<Json> cancel_job(Context& context, const std::string& id) {
  TH_TRY(Json job, context.del("/jobs/" + http::percent_encode(id)));
  context.say(fmt::format("{} is {}", id, has_ended(job) ? text_of(job, "state") : "being cancelled"));
  return job;
}

}  // namespace

Result<Json> show_why(Context& context, const std::string& subject) {
  TH_TRY(Json why, context.get("/why/" + http::percent_encode(subject)));
  const Json& timeline = list_of(why, "timeline");
  int64_t begin_ns = timeline.empty() ? 0 : int_of(timeline.front(), "time_ns");
  std::vector<std::vector<std::string>> rows = {{"TIME", "AFTER", "WHAT", "WHY"}};
  for (const Json& entry : timeline) {
    int64_t time_ns = int_of(entry, "time_ns");
    std::string what = text_of(entry, "what"), reason = text_of(entry, "why");
    if (what.find(reason) != std::string::npos) reason.clear();  // it says so already
    rows.push_back(
        {clock_time(time_ns), fmt::format("+{:.3f}s", double(time_ns - begin_ns) / kSecond), what, reason});
  }
  const Json& reason = object_of(why, "reason");
  context.say(fmt::format("{} is {}{}{}", text_of(why, "subject"), text_of(why, "state"),
                          text_of(reason, "text").empty() ? "" : ": ", text_of(reason, "text")));
  if (int64_t start_ns = int_of(why, "estimated_start_ns"); start_ns > Env::real().unix_ns()) {
    context.say(fmt::format("estimated start  {}", format_time(start_ns)));
  }
  if (auto change = text_of(why, "smallest_change"); !change.empty()) {
    context.say(fmt::format("to start now     {}", change));
  }
  context.put(table(rows));
  context.say(fmt::format("cost so far {}", format_money(int_of(why, "cost_microusd"))));
  return why;
}

void add_job(CLI::App& app, Verb& verb) {
  struct Options {
    std::string subject;
    int rank = -1;
    int attempt = 0;
    bool follow = false;
  };
  auto options = std::make_shared<Options>();

  auto* jobs = app.add_subcommand("jobs", "List jobs");
  jobs->footer("Example:\n  th jobs");
  jobs->callback([&verb] { verb = list_jobs; });

  auto* logs = app.add_subcommand("logs", "Show what a job's ranks print");
  logs->add_option("JOB", options->subject, "job, such as job-1")->required();
  logs->add_flag("-f,--follow", options->follow, "go on until the job has ended");
  logs->add_option("--rank", options->rank, "only this rank (default: all, the first 16)")
      ->check(CLI::NonNegativeNumber);
  logs->add_option("--attempt", options->attempt, "this attempt (default: the last)")
      ->check(CLI::PositiveNumber);
  logs->footer("Example:\n  th logs -f job-1 --rank 0");
  logs->callback([&verb, options] {
    verb = [options](Context& context) {
      return show_logs(context, options->subject, options->rank, options->attempt, options->follow);
    };
  });

  auto* cancel = app.add_subcommand("cancel", "Cancel a job");
  cancel->add_option("JOB", options->subject, "job, such as job-1")->required();
  cancel->footer("Example:\n  th cancel job-1");
  cancel->callback([&verb, options] {
    verb = [options](Context& context) { return cancel_job(context, options->subject); };
  });

  auto* why =
      app.add_subcommand("why", "Tell what happened to a job or slice: when, what, why, and the cost so far");
  why->add_option("SUBJECT", options->subject, "job or slice")->required();
  why->footer("Example:\n  th why job-1");
  why->callback([&verb, options] {
    verb = [options](Context& context) { return show_why(context, options->subject); };
  });
}

}  // namespace th::cli
