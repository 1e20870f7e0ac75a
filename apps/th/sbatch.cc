// th sbatch and th srun: Slurm's way to submit a script, and to start tasks inside of one.

#include "request/sbatch.h"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <iostream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/env.h"
#include "base/files.h"
#include "base/text.h"
#include "base/units.h"
#include "http/url.h"
#include "job.h"
#include "slurm.h"
#include "terminal.h"

extern char** environ;

namespace th::cli {
namespace {

namespace fs = std::filesystem;
using request::JobSpec;
using request::SbatchOption;

constexpr size_t kMaxScriptBytes = size_t{512} << 10;

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::string here() {
  std::error_code ignored;
  return fs::current_path(ignored);
}

/// Our own --json stands anywhere among the options.
Result<request::SbatchWords> read_words(Context& context, std::vector<std::string> words) {
  while (true) {
    auto read = request::read_sbatch_words(words, "");
    const auto json = std::find(words.begin(), words.end(), "--json");
    if (read || json == words.end() || !read.error().message.starts_with("--json: ")) return read;
    words.erase(json);
    context.json = true;
  }
}

struct Script {
  std::string text, name, file;  // file: in messages
};

Result<Script> script_of(const request::SbatchWords& words) {
  const auto wrap = std::find_if(words.options.rbegin(), words.options.rend(),
                                 [](const SbatchOption& option) { return option.name == "wrap"; });
  if (wrap != words.options.rend()) {
    if (!words.rest.empty()) return fail(Code::kInvalidArgument, "--wrap and a script: want one of them");
    return Script{"#!/bin/sh\n" + wrap->value + "\n", "wrap", "wrap"};
  }
  if (words.rest.empty()) {
    if (::isatty(STDIN_FILENO))
      return fail(Code::kInvalidArgument, "sbatch wants a script, or --wrap COMMAND");
    std::string text((std::istreambuf_iterator<char>(std::cin)), {});
    return Script{std::move(text), "sbatch", "standard input"};
  }
  auto text = read_file(words.rest[0], kMaxScriptBytes);
  if (!text) return fail_with("script " + words.rest[0], text.error());
  return Script{*std::move(text), fs::path(words.rest[0]).filename(), words.rest[0]};
}

/// --export: ALL, NONE, or a list of NAME and NAME=VALUE.
Status add_exports(const std::string& text, JobSpec& spec) {
  if (text == "NONE") return {};
  for (const std::string& word : split(text, ',')) {
    const size_t equals = word.find('=');
    if (word == "ALL") {
      for (char** entry = environ; *entry != nullptr; ++entry) {
        const std::string_view pair = *entry;
        const size_t at = pair.find('=');
        // Shells keep functions under names that are none.
        if (at == std::string_view::npos ||
            pair.substr(0, at).find_first_of("%.-:/()") != std::string_view::npos)
          continue;
        spec.env.emplace(pair.substr(0, at), pair.substr(at + 1));
      }
    } else if (equals != std::string::npos) {
      spec.env[word.substr(0, equals)] = word.substr(equals + 1);
    } else {
      spec.env[word] = variable(word.c_str());
    }
  }
  return {};
}

void print_estimate(const Context& context, const Json& estimate) {
  const int64_t start_ns = int_of(estimate, "start_ns");
  std::vector<std::string> hosts;
  for (const Json& host : list_of(estimate, "hosts")) hosts.push_back(text_of(host, "host"));
  if (start_ns > 0) {
    context.say(fmt::format("sbatch: Job to start at {} using {} GPUs on nodes {} in partition {}",
                            format_time(start_ns), int_of(estimate, "gpus"), join(hosts, ","),
                            text_of(estimate, "partition")));
    context.say(fmt::format("price   {}", format_money(int_of(estimate, "price_microusd"))));
  }
  const Json& reason = object_of(estimate, "reason");
  if (!text_of(reason, "text").empty()) context.say(fmt::format("why     {}", text_of(reason, "text")));
  if (auto change = text_of(estimate, "smallest_change"); !change.empty()) {
    context.say(fmt::format("sooner  {}", change));
  }
}

Result<request::SbatchRequest> request_of(Context& context, const std::vector<std::string>& words) {
  TH_TRY(request::SbatchWords read, read_words(context, words));
  TH_TRY(Script script, script_of(read));
  TH_TRY(std::vector<SbatchOption> options, request::read_sbatch_script(script.text, script.file));
  options.insert(options.end(), read.options.begin(), read.options.end());
  TH_TRY(request::SbatchRequest out, request::sbatch_request(options, Env::real().unix_ns()));
  JobSpec& spec = out.spec;
  if (spec.name.empty()) spec.name = script.name;
  spec.workdir = (fs::path(here()) / spec.workdir.value_or("")).lexically_normal();
  TH_RETURN_IF_ERROR(add_exports(out.exported.value_or("NONE"), spec));
  spec.env["SLURM_SUBMIT_DIR"] = here();
  if (const std::string user = variable("USER"); !user.empty()) spec.env["SLURM_JOB_USER"] = user;
  if (!read.rest.empty()) read.rest.erase(read.rest.begin());
  TH_RETURN_IF_ERROR(request::set_script(spec, script.text, read.rest));
  TH_RETURN_IF_ERROR(request::validate(spec));
  return out;
}

Result<Json> sbatch(Context& context, const std::vector<std::string>& words) {
  TH_TRY(request::SbatchRequest asked, request_of(context, words));
  if (!asked.quiet) {
    for (const std::string& note : asked.notes) fmt::print(stderr, "sbatch: {}\n", note);
  }
  if (asked.test_only) {
    TH_TRY(Json estimate, context.post("/jobs/estimate", request::to_json(asked.spec)));
    print_estimate(context, estimate);
    return estimate;
  }
  TH_TRY(Json job, context.post("/jobs", request::to_json(asked.spec)));
  const std::string number = plain_number(job);
  if (asked.parsable) {
    context.say(number);
  } else if (!asked.quiet) {
    context.say("Submitted batch job " + number);
  }
  return asked.wait ? watch_job(context, text_of(job, "id"), false) : job;
}

/// The options of srun are sbatch's; what it is not told it takes from the job that it stands in.
Result<JobSpec> step_of(Context& context, const std::vector<std::string>& words) {
  TH_TRY(request::SbatchWords read, read_words(context, words));
  if (read.rest.empty()) return fail(Code::kInvalidArgument, "srun wants a command to run");
  auto given = [&](const char* name) {
    return std::any_of(read.options.begin(), read.options.end(),
                       [&](const SbatchOption& option) { return option.name == name; });
  };
  const bool sized = given("gpus") || given("gpus-per-node") || given("gres");
  if (!given("ntasks") && !given("nodes") && !given("ntasks-per-node")) {
    read.options.push_back({"ntasks", variable("SLURM_NTASKS").empty() ? "1" : variable("SLURM_NTASKS"), ""});
  }
  if (!sized && !variable("SLURM_GPUS").empty()) read.options.push_back({"gpus", variable("SLURM_GPUS"), ""});
  TH_TRY(request::SbatchRequest asked, request::sbatch_request(read.options, Env::real().unix_ns()));
  JobSpec spec = std::move(asked.spec);
  spec.batch = false, spec.command = read.rest;
  if (spec.name.empty()) spec.name = fs::path(read.rest[0]).filename();
  if (!check_name(spec.name, "name")) spec.name = "step";
  if (!spec.workdir) spec.workdir = here();
  TH_RETURN_IF_ERROR(add_exports(asked.exported.value_or("ALL"), spec));
  for (const char* of_the_node :
       {"TH_JOB_DIR", "TH_VM_DIR", "TH_TASK", "TH_METRICS", "TH_OUTPUT", "TH_ERROR"}) {
    spec.env.erase(of_the_node);
  }
  return spec;
}

Result<Json> srun(Context& context, const std::vector<std::string>& words) {
  const std::string job = variable("SLURM_JOB_ID");
  if (job.empty() || variable("TH_JOB_ID").empty()) {
    return fail(
        Code::kFailedPrecondition,
        "srun starts tasks inside of a batch job; from outside, use: th sbatch, or th submit -- COMMAND");
  }
  TH_TRY(JobSpec spec, step_of(context, words));
  TH_TRY(Json step, context.post("/jobs/job-" + job + "/steps", request::to_json(spec)));
  return follow_step(context, text_of(step, "id"));
}

}  // namespace

void add_sbatch(CLI::App& app, Verb& verb) {
  struct Form {
    const char *name, *what, *footer;
    Result<Json> (*run)(Context&, const std::vector<std::string>&);
  };
  static constexpr Form kForms[] = {
      {"sbatch", "Submit a batch script, with Slurm's options",
       "Usage: th sbatch [OPTIONS] [SCRIPT [ARGUMENTS]]\nOptions are sbatch's, on the command line or in "
       "#SBATCH lines: "
       "docs/slurm.md lists them.\nExamples:\n  th sbatch -p demo --gpus 2 -t 1:00:00 train.sh\n"
       "  th sbatch --wrap 'hostname' --parsable\n  th sbatch --test-only train.sh",
       sbatch},
      {"srun", "Start the tasks of a step, inside of a batch job",
       "Usage: srun [OPTIONS] COMMAND [ARGUMENTS], in a batch script\nExample:\n  srun -n 4 python3 train.py",
       srun}};
  for (const Form& form : kForms) {
    auto* sub = app.add_subcommand(form.name, form.what);
    sub->fallthrough(false)->prefix_command();
    sub->footer(form.footer);
    sub->callback([&verb, sub, run = form.run] {
      verb = [run, words = sub->remaining()](Context& context) {
        std::vector<std::string> all = words;
        if (!context.command.empty()) {
          all.emplace_back("--");
          all.insert(all.end(), context.command.begin(), context.command.end());
        }
        return run(context, all);
      };
    });
  }
}

}  // namespace th::cli
