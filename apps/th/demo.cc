#include <fmt/format.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "base/units.h"
#include "cluster.h"
#include "completion.h"
#include "context.h"
#include "deploy.h"
#include "http/client.h"
#include "job.h"
#include "process.h"
#include "slice.h"
#include "terminal.h"
#include "usage.h"

namespace th::cli {
namespace {

namespace fs = std::filesystem;

constexpr unsigned kLimitS = 7 * 60;  // two cores take about three minutes; a machine that is busy gets more
constexpr const char* kPrompt = "And the LORD said unto";

struct DemoOptions {
  bool keep = false;
  int64_t seed = 1;
};

/// ./recipes, else the ones of the tree that th was built in.
Result<fs::path> find_recipes() {
  std::error_code ec;
  fs::path beside = program_folder() / "../../recipes";
  for (const fs::path& folder : {fs::path("recipes"), beside.lexically_normal()}) {
    if (fs::is_regular_file(folder / "fleet/desk.yaml", ec)) return folder;
  }
  return fail(Code::kNotFound,
              "no recipes/fleet/desk.yaml here or in the tree that th was built in; "
              "run th demo in a checkout");
}

/// Pids of processes, other than this one, that name `folder` in their command line, environment or working
/// folder.
std::vector<pid_t> processes_of(const fs::path& folder) {
  std::vector<pid_t> found;
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator("/proc", ec)) {
    pid_t pid = static_cast<pid_t>(std::atoi(entry.path().filename().c_str()));
    if (pid <= 0 || pid == ::getpid()) continue;
    std::error_code gone;
    std::string text = read_file(entry.path() / "cmdline").value_or("") +
                       read_file(entry.path() / "environ").value_or("") +
                       fs::read_symlink(entry.path() / "cwd", gone).string();
    if (text.find(folder.string()) != std::string::npos && is_alive(pid)) found.push_back(pid);
  }
  return found;
}

class Demo {
 public:
  Demo(Context& context, DemoOptions options) : context_(context), options_(options) {}

  Result<Json> run() {
    CatchInterrupt catch_interrupt;
    ::alarm(kLimitS);
    begin_ns_ = monotonic_now_ns();
    TH_TRY(recipes_, find_recipes());
    TH_RETURN_IF_ERROR(make_state());
    Result<Json> result = walk();
    if (!result && interrupted()) result = fail(Code::kCancelled, why_interrupted());
    if (!result) context_.say("\nit went wrong: " + result.error().message);
    if (options_.keep) {
      context_.say(fmt::format("\nkept: th --state {} fleet; take it down with: th --state {} down",
                               context_.state.string(), context_.state.string()));
    } else if (auto cleaned = clean_up(); !cleaned && result) {
      result = fail(std::move(cleaned).error());
    }
    if (!result) return result;
    (*result)["seconds"] = double((monotonic_now_ns() - begin_ns_) / kMillisecond) / 1000;
    context_.say(fmt::format("all of it took {:.1f} s", (*result)["seconds"].get<double>()));
    return result;
  }

 private:
  Status make_state() {
    const char* folder = std::getenv("TMPDIR");
    std::string path =
        fmt::format("{}/thunderhead-demo-XXXXXX", folder != nullptr && *folder ? folder : "/tmp");
    if (::mkdtemp(path.data()) == nullptr) return fail(errno_error("make a folder " + path, errno));
    context_.state = fs::absolute(path);
    // Its own controller and gateway, whatever the caller's environment names.
    context_.url_option.clear();
    context_.key_option.clear();
    for (const char* name : {"TH_URL", "TH_KEY", "TH_GATEWAY_URL"}) ::unsetenv(name);
    // Ranks run as an unprivileged user and must be able to pass through to their job's folder.
    if (::chmod(path.c_str(), 0711) != 0) return fail(errno_error("chmod " + path, errno));
    return {};
  }

  std::string why_interrupted() const {
    bool late = monotonic_now_ns() - begin_ns_ >= int64_t{kLimitS} * kSecond;
    return late ? fmt::format("the demo was not done within {}", format_duration(int64_t{kLimitS} * kSecond))
                : "interrupted";
  }

  Status step(int number, std::string_view what, std::string_view command) {
    if (interrupted()) return fail(Code::kCancelled, why_interrupted());
    context_.say(fmt::format("\n[{}/6] {}\n$ {}", number, what, command));
    return {};
  }

  Result<Json> walk() {
    fs::path fleet = recipes_ / "fleet/desk.yaml", recipe = recipes_ / "train/llama-small.yaml";
    TH_RETURN_IF_ERROR(step(
        1, "A controller and a gateway on a fleet of 2 racks, 4 hosts, 8 accelerators (shares of this CPU)",
        "th up --fleet " + fleet.string()));
    TH_TRY(up_, bring_up(context_, {.fleet = fleet, .policy = "", .port = 0, .gateway_port = 0}));
    TH_RETURN_IF_ERROR(step(2, "A slice: offered, held, leased, its nodes validated",
                            "th slice create demo --gpus 4 --series LOCAL --for 1h"));
    TH_TRY(Json slice,
           create_slice(context_, {.name = "demo", .gpus = "4", .series = "LOCAL", .duration = "1h"}));
    TH_RETURN_IF_ERROR(step(3, "A gang of 4 ranks trains a Llama-architecture model from random weights",
                            "th submit --slice demo " + recipe.string()));
    TH_TRY(Json train, train_model(recipe));
    TH_RETURN_IF_ERROR(
        step(4, "The model is served on the slice", "th deploy llama-small --name demo-chat --slice demo"));
    TH_TRY(Json deployment,
           deploy_model(context_, {.model = "llama-small", .name = "demo-chat", .slice = "demo"}));
    TH_RETURN_IF_ERROR(step(5, "Text from it through the gateway, by the OpenAI and the Azure OpenAI API",
                            fmt::format("th chat demo-chat --prompt \"{}\"", kPrompt)));
    TH_TRY(Json serve, generate());
    TH_RETURN_IF_ERROR(
        step(6, "What happened, why, and what it cost", fmt::format("th why {} && th usage", job_)));
    TH_TRY(Json why, show_why(context_, job_));
    TH_TRY(Json usage, settle_usage());
    return Json{{"offer", object_of(slice, "offer")}, {"train", train}, {"serve", serve}, {"usage", usage}};
  }

  Result<Json> train_model(const fs::path& recipe) {
    TH_TRY(Json job, submit_job(context_, {.recipe = recipe, .slice = "demo", .wait = true}));
    job_ = text_of(job, "id");
    int status = std::exchange(context_.exit_status, kOk);
    if (interrupted()) return fail(Code::kCancelled, why_interrupted());
    if (status != kOk) {
      static_cast<void>(show_logs(context_, job_, 0, 0, false));
      return fail(Code::kFailedPrecondition,
                  fmt::format("{} {}: {}", job_, text_of(job, "state"), text_of(job, "reason")));
    }
    const Json& result = object_of(job, "result");
    Json train = Json::object();
    for (const char* field :
         {"first_loss", "last_loss", "val_bits_per_byte", "bigram_bits_per_byte", "tokens_per_s", "steps"}) {
      if (!result.contains(field)) {
        return fail(Code::kInternal,
                    fmt::format("the result of {} has no {}: {}", job_, field, dump_json(result)));
      }
      train[field] = result[field];
    }
    context_.say(fmt::format("validation: {:.3f} bits per byte; a bigram model of the same text: {:.3f}",
                             double_of(train, "val_bits_per_byte"),
                             double_of(train, "bigram_bits_per_byte")));
    return train;
  }

  struct Route {
    const char* path;
    bool azure, chat, stream;
  };

  Result<Completion> ask(const Route& route, const std::string& key, int64_t max_tokens) {
    context_.say(fmt::format("\nPOST {} ({}{})", route.path, route.azure ? "api-key" : "bearer",
                             route.stream ? ", SSE" : ""));
    Json body{{"model", "demo-chat"},
              {"max_tokens", max_tokens},
              {"temperature", 0.8},
              {"top_p", 0.95},
              {"seed", options_.seed}};
    if (route.chat) {
      body["messages"] = {{{"role", "user"}, {"content", kPrompt}}};
    } else {
      body["prompt"] = kPrompt;
    }
    if (route.stream) {
      body["stream"] = true;
      body["stream_options"] = {{"include_usage", true}};
    }
    http::Headers headers = {route.azure
                                 ? std::pair<std::string, std::string>("api-key", key)
                                 : std::pair<std::string, std::string>("Authorization", "Bearer " + key)};
    context_.put(route.chat ? "  " : fmt::format("  {}", kPrompt));
    auto answer = complete(context_, text_of(up_, "gateway_url") + route.path, headers, body,
                           [&](std::string_view piece) {
                             for (char c : piece) context_.put(c == '\n' ? "\n  " : std::string_view(&c, 1));
                           });
    context_.say("");
    if (!answer) return fail_with(std::string("POST ") + route.path, answer.error());
    return answer;
  }

  Result<Json> generate() {
    TH_TRY(Json key, create_key(context_, {{"name", "demo"}}));
    const std::string secret = text_of(key, "key");
    constexpr const char* kAzure = "/openai/deployments/demo-chat/completions?api-version=2024-10-21";
    Completion best;
    for (const Route& route :
         {Route{kAzure, true, false, true}, Route{kAzure, true, false, false},
          Route{"/v1/completions", false, false, true}, Route{"/v1/completions", false, false, false},
          Route{"/v1/chat/completions", false, true, true},
          Route{"/v1/chat/completions", false, true, false}}) {
      bool first = requests_++ == 0;
      TH_TRY(Completion answer, ask(route, secret, first ? 96 : 32));
      if (answer.completion_tokens <= 0)
        return fail(Code::kInternal, fmt::format("{} told no usage", route.path));
      if (first) best = std::move(answer);
    }
    double tokens_per_s = double(best.completion_tokens) / best.seconds;
    context_.say(fmt::format("\n{} tokens in {:.2f} s: {:.0f} tokens/s", best.completion_tokens, best.seconds,
                             tokens_per_s));
    return Json{{"completion", best.text}, {"tokens_per_s", tokens_per_s}};
  }

  /// The gateway hands its usage over in the background: shown when all of it has arrived.
  Result<Json> settle_usage() {
    for (int i = 0; i < 50; ++i) {
      TH_TRY(Json usage, context_.get("/usage"));
      int64_t requests = 0;
      for (const Json& item : list_of(usage, "tokens")) requests += int_of(item, "requests");
      if (requests >= requests_) break;
      pause_ms(100);
    }
    return show_usage(context_);
  }

  /// Takes everything down and looks whether it is gone. What must be killed is told as an error.
  Status clean_up() {
    context_.say("\n$ th down");
    auto controller = read_daemon(context_.state / "controld.json");
    auto gateway = read_daemon(context_.state / "gateway.json");
    auto down = take_down(context_);
    Status status;
    if (!down) status = fail(down.error());
    for (int i = 0; i < 20 && !processes_of(context_.state).empty(); ++i) ::usleep(100'000);
    if (auto left = processes_of(context_.state); !left.empty()) {
      for (pid_t pid : left) ::kill(pid, SIGKILL);
      status = fail(Code::kInternal, fmt::format("{} processes were left and had to be killed", left.size()));
    }
    for (const auto& daemon : {controller, gateway}) {
      if (!daemon) continue;
      auto answer = http::fetch(
          {.url = daemon->url + "/health", .timeout_ns = kSecond, .authority_pem = context_.authority_pem()});
      if (answer) status = fail(Code::kInternal, daemon->url + " still answers");
    }
    std::error_code ec;
    fs::remove_all(context_.state, ec);
    if (fs::exists(context_.state))
      status = fail(errno_error("remove " + context_.state.string(), ec.value()));
    context_.say(status ? "no process, port or file is left" : "not all is gone: " + status.error().message);
    return status;
  }

  Context& context_;
  const DemoOptions options_;
  int64_t begin_ns_ = 0;
  int64_t requests_ = 0;
  fs::path recipes_;
  Json up_;
  std::string job_;
};

}  // namespace

void add_demo(CLI::App& app, Verb& verb) {
  auto options = std::make_shared<DemoOptions>();
  auto* demo =
      app.add_subcommand("demo", "The whole way on this machine: slice, training, serving, reasons, money");
  demo->add_flag("--keep", options->keep, "leave everything up and say how to take it down");
  demo->add_option("--seed", options->seed, "seed of the sampled text")->capture_default_str();
  demo->footer("Example:\n  th demo --json");
  demo->callback(
      [&verb, options] { verb = [options](Context& context) { return Demo(context, *options).run(); }; });
}

}  // namespace th::cli
