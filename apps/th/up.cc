#include <fmt/format.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "base/text.h"
#include "base/units.h"
#include "cluster.h"
#include "context.h"
#include "http/client.h"
#include "process.h"
#include "terminal.h"

namespace th::cli {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kStartTimeoutNs = 30 * kSecond;
constexpr int64_t kStopTimeoutNs = 40 * kSecond;  // the gateway finishes what is under way for 30 s
constexpr size_t kTailBytes = 2000;

bool is_healthy(const Context& context, const std::string& url) {
  auto response = http::fetch(
      {.url = url + "/health", .timeout_ns = 2 * kSecond, .authority_pem = context.authority_pem()});
  return response && response->status == 200;
}

/// What the daemon wrote to its log since `from`, at most the last 2,000 bytes.
std::string log_since(const fs::path& log, size_t from) {
  std::string text = read_file(log).value_or("");
  text.erase(0, std::min(text.size(), from));
  if (text.size() > kTailBytes) text.erase(0, text.size() - kTailBytes);
  while (text.ends_with('\n')) text.pop_back();
  return text;
}

/// Starts `argv` and waits until `place` tells of it and its URL is healthy.
Result<Daemon> start_daemon(const Context& context, const std::vector<std::string>& argv,
                            const fs::path& place, const fs::path& log) {
  std::string name = fs::path(argv[0]).filename();
  std::error_code ec;
  size_t log_start = fs::exists(log, ec) ? fs::file_size(log, ec) : 0;
  TH_TRY(pid_t pid, spawn_detached(argv, log));
  int64_t end = monotonic_now_ns() + kStartTimeoutNs;
  while (monotonic_now_ns() < end && !interrupted()) {
    if (auto status = ended_child(pid)) {
      return fail(Code::kFailedPrecondition, fmt::format("{} ended with status {} as it started:\n{}", name,
                                                         *status, log_since(log, log_start)));
    }
    auto daemon = read_daemon(place);
    if (daemon && daemon->pid == pid && is_healthy(context, daemon->url)) return *daemon;
    pause_ms(20);
  }
  ::kill(pid, SIGTERM);
  wait_gone(pid, kStopTimeoutNs);
  if (interrupted()) return fail(Code::kCancelled, "interrupted");
  return fail(Code::kDeadlineExceeded,
              fmt::format("{} was not healthy within {}; see {}:\n{}", name, format_duration(kStartTimeoutNs),
                          log.string(), log_since(log, log_start)));
}

/// The daemon that runs already. Errors: kFailedPrecondition when it runs but does not answer.
Result<std::optional<Daemon>> running_daemon(const Context& context, const char* file, const char* program) {
  const fs::path place = context.state / file;
  auto daemon = read_daemon(place);
  if (!daemon || !is_running(daemon->pid, program)) return std::optional<Daemon>();
  for (int i = 0; i < 20; ++i) {
    if (is_healthy(context, daemon->url)) return daemon;
    pause_ms(100);
  }
  return fail(Code::kFailedPrecondition,
              fmt::format("{} runs as process {} but {} does not answer; stop it with: kill {}", program,
                          daemon->pid, daemon->url, daemon->pid));
}

Status make_state(const fs::path& state) {
  std::error_code ec;
  if (fs::is_directory(state, ec)) return {};
  fs::create_directories(state, ec);
  if (ec) return fail(errno_error("make the state folder " + state.string(), ec.value()));
  // Ranks run as an unprivileged user and must be able to pass through to their job's folder.
  if (::chmod(state.c_str(), 0711) != 0) return fail(errno_error("chmod " + state.string(), errno));
  return {};
}

/// Both daemons listen alike.
void add_listening(std::vector<std::string>& argv, const UpOptions& options) {
  for (const auto& [option, value] :
       {std::pair("--address", &options.address), {"--tls", &options.tls}, {"--name", &options.name}}) {
    if (!value->empty()) argv.insert(argv.end(), {option, *value});
  }
  for (const auto& [option, file] : {std::pair("--tls-cert", &options.tls_cert),
                                     {"--tls-key", &options.tls_key},
                                     {"--tls-ca", &options.tls_ca}}) {
    if (!file->empty()) argv.insert(argv.end(), {option, fs::absolute(*file)});
  }
}

Result<Daemon> start_controller(const Context& context, const UpOptions& options) {
  TH_TRY(fs::path program, program_beside("th-controld"));
  std::vector<std::string> argv = {program, "--state", context.state, "--port", std::to_string(options.port)};
  std::error_code ec;
  if (!options.fleet.empty()) {
    if (!fs::is_regular_file(options.fleet, ec)) {
      return fail(Code::kNotFound, fmt::format("fleet file {} is not there", options.fleet));
    }
    argv.insert(argv.end(), {"--fleet", fs::absolute(options.fleet)});
  } else if (!fs::exists(context.state / "fleet.yaml", ec)) {
    return fail(Code::kInvalidArgument, fmt::format("{} has no fleet yet; name one with --fleet, for example "
                                                    "recipes/fleet/desk.yaml",
                                                    context.state.string()));
  }
  if (!options.policy.empty()) {
    if (!fs::is_regular_file(options.policy, ec))
      return fail(Code::kNotFound, fmt::format("policy file {} is not there", options.policy));
    argv.insert(argv.end(), {"--policy", fs::absolute(options.policy)});
  }
  if (!options.cloud.empty()) {
    if (!fs::is_regular_file(options.cloud, ec))
      return fail(Code::kNotFound, fmt::format("cloud file {} is not there", options.cloud));
    argv.insert(argv.end(), {"--cloud", fs::absolute(options.cloud)});
  }
  if (!options.launcher.empty()) {
    if (!fs::is_regular_file(options.launcher, ec))
      return fail(Code::kNotFound, fmt::format("launcher file {} is not there", options.launcher));
    argv.insert(argv.end(), {"--launcher", fs::absolute(options.launcher)});
  }
  TH_RETURN_IF_ERROR(make_state(context.state));
  if (!options.oidc.empty()) {
    if (!fs::is_regular_file(options.oidc, ec))
      return fail(Code::kNotFound, fmt::format("OpenID Connect file {} is not there", options.oidc));
    argv.insert(argv.end(), {"--oidc", fs::absolute(options.oidc)});
  }
  add_listening(argv, options);
  return start_daemon(context, argv, context.state / "controld.json", context.state / "controld.log");
}

Result<Daemon> start_gateway(const Context& context, const UpOptions& options,
                             const std::string& controller) {
  TH_TRY(fs::path program, program_beside("th-gateway"));
  std::vector<std::string> argv = {program,
                                   "--controller",
                                   controller,
                                   "--token-file",
                                   context.state / "gateway.token",
                                   "--state",
                                   context.state,
                                   "--port",
                                   std::to_string(options.gateway_port)};
  add_listening(argv, options);
  return start_daemon(context, argv, context.state / "gateway.json", context.state / "gateway.log");
}

/// Ends a daemon that has no REST route for it. Returns whether it is gone.
bool terminate(pid_t pid) {
  ::kill(pid, SIGTERM);
  if (wait_gone(pid, kStopTimeoutNs)) return true;
  ::kill(pid, SIGKILL);
  return wait_gone(pid, 5 * kSecond);
}

Status stop_controller(Context& context, const Daemon& daemon) {
  context.url_option = daemon.url;
  auto asked = context.post("/shutdown", {{"nodes", true}});
  if (!asked) {
    // It may have ended before its answer was read.
    if (wait_gone(daemon.pid, 2 * kSecond)) return {};
    return fail_with("the controller did not take the shutdown", asked.error());
  }
  if (wait_gone(daemon.pid, 60 * kSecond)) return {};
  return fail(Code::kFailedPrecondition,
              fmt::format("the controller, process {}, did not end within a minute; see {}", daemon.pid,
                          (context.state / "controld.log").string()));
}

}  // namespace

std::vector<int> live_nodes(const fs::path& state) {
  std::vector<int> pids;
  std::error_code ec;
  for (const auto& folder : fs::directory_iterator(state / "vms", ec)) {
    auto text = read_file(folder.path() / "node.pid", 64);
    pid_t pid = text ? static_cast<pid_t>(std::atoi(text->c_str())) : 0;
    if (is_running(pid, "th-node")) pids.push_back(pid);
  }
  return pids;
}

Result<Json> bring_up(Context& context, const UpOptions& options) {
  CatchInterrupt catch_interrupt;
  Json started = Json::array();
  TH_TRY(auto controller, running_daemon(context, "controld.json", "th-controld"));
  bool had_controller = controller.has_value();
  if (!had_controller) {
    TH_TRY(controller, start_controller(context, options));
    started.push_back("th-controld");
  }
  context.say(fmt::format("controller {} {} (process {})", had_controller ? "already up at" : "up at",
                          controller->url, controller->pid));
  TH_TRY(auto gateway, running_daemon(context, "gateway.json", "th-gateway"));
  bool had_gateway = gateway.has_value();
  if (!had_gateway) {
    auto fresh = start_gateway(context, options, controller->url);
    if (!fresh) {
      // All or nothing: a cluster without its gateway would look up and not be.
      if (!had_controller) static_cast<void>(stop_controller(context, *controller));
      return fail(std::move(fresh).error());
    }
    gateway = *fresh;
    started.push_back("th-gateway");
  }
  context.say(fmt::format("gateway    {} {} (process {})", had_gateway ? "already up at" : "up at",
                          gateway->url, gateway->pid));
  context.say(fmt::format("state      {}", context.state.string()));
  return Json{{"url", controller->url},
              {"gateway_url", gateway->url},
              {"state", context.state.string()},
              {"started", std::move(started)}};
}

Result<Json> take_down(Context& context) {
  Json stopped = Json::array();
  // The gateway first: as it ends it hands its last usage to the controller.
  auto gateway = read_daemon(context.state / "gateway.json");
  if (gateway && is_running(gateway->pid, "th-gateway")) {
    if (!terminate(gateway->pid)) {
      return fail(Code::kFailedPrecondition,
                  fmt::format("the gateway, process {}, cannot be ended", gateway->pid));
    }
    stopped.push_back(gateway->pid);
    context.say(fmt::format("gateway down (process {})", gateway->pid));
  }
  auto controller = read_daemon(context.state / "controld.json");
  if (controller && is_running(controller->pid, "th-controld")) {
    TH_RETURN_IF_ERROR(stop_controller(context, *controller));
    stopped.push_back(controller->pid);
    context.say(fmt::format("controller down (process {}); slices released, nodes gone", controller->pid));
  }
  for (int64_t end = monotonic_now_ns() + 10 * kSecond; !live_nodes(context.state).empty();) {
    if (monotonic_now_ns() > end) {
      return fail(
          Code::kFailedPrecondition,
          fmt::format(
              "{} nodes still run; start the controller with th up, then th down ends them with their "
              "slices",
              live_nodes(context.state).size()));
    }
    ::usleep(50'000);
  }
  if (stopped.empty()) context.say(fmt::format("nothing was up in {}", context.state.string()));
  return Json{{"stopped", std::move(stopped)}};
}

void add_up(CLI::App& app, Verb& verb) {
  auto options = std::make_shared<UpOptions>();
  auto* up = app.add_subcommand("up", "Start the controller and the gateway");
  up->add_option("--fleet", options->fleet, "fleet file (default: the one that the state folder has)");
  up->add_option("--policy", options->policy,
                 "accounts, QOS and priorities (default: those of the state folder)");
  up->add_option("--launcher", options->launcher,
                 "who starts gangs, YAML (docs/slurm-cluster.md): a Slurm; default: th-node");
  up->add_option("--cloud", options->cloud,
                 "where VMs come from (docs/azure.md; default: that of the state folder, else this machine)");
  up->add_option("--port", options->port, "port of the controller, 0: any")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  up->add_option("--gateway-port", options->gateway_port, "port of the gateway, 0: any")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  up->add_option("--oidc", options->oidc,
                 "a provider of OpenID Connect that people sign in by (docs/sign-in.md)");
  up->add_option("--address", options->address, "address that both listen on (default: 127.0.0.1)");
  up->add_option(
        "--tls", options->tls,
        "auto: TLS by an authority of the state folder's own; off: HTTP, on loopback only (docs/tls.md)")
      ->check(CLI::IsMember({"auto", "off"}));
  up->add_option("--tls-cert", options->tls_cert, "certificate to speak TLS with, PEM")
      ->check(CLI::ExistingFile);
  up->add_option("--tls-key", options->tls_key, "its key, PEM")->check(CLI::ExistingFile);
  up->add_option("--tls-ca", options->tls_ca, "its authority, where the system does not trust it")
      ->check(CLI::ExistingFile);
  up->add_option("--name", options->name, "host name that clients use (default: the address)");
  up->footer("Example:\n  th up --fleet recipes/fleet/desk.yaml");
  up->callback(
      [&verb, options] { verb = [options](Context& context) { return bring_up(context, *options); }; });

  auto* down = app.add_subcommand("down", "Release all slices, delete all VMs, stop the daemons");
  down->footer("Example:\n  th down");
  down->callback([&verb] { verb = take_down; });
}

}  // namespace th::cli
