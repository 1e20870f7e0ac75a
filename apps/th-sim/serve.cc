// th-sim serve: the REST API and the console over a simulated fleet, in virtual time.

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/units.h"
#include "command.h"
#include "sim/world/served_fleet.h"

namespace th {
namespace {

int wake_pipe[2];
void on_signal(int) { static_cast<void>(!::write(wake_pipe[1], "x", 1)); }

class Serve final : public Command {
 public:
  const char* name() const override { return "serve"; }
  const char* help() const override {
    return "The REST API and the console over a simulated fleet, in virtual time";
  }
  const char* example() const override { return "th-sim serve --preset hyperscale-131k --speed 60"; }

  void add_flags(Flags& flags) override {
    flags.add("--preset", options_.preset, "the fleet: hyperscale-131k, eagle, openai-2020, voyager-eus2");
    flags.add("--speed", options_.speed, "virtual seconds in a second");
    flags.add("--port", port_, "port of 127.0.0.1 to listen on; 0: any free one");
    flags.add("--load", options_.load_percent, "percent of the GPUs that other tenants' work takes");
  }

  Result<Json> run(const Common& common, bool&) override {
    if (port_ < 0 || port_ > 65535) return fail(Code::kInvalidArgument, "--port: want 0 to 65535");
    options_.seed = static_cast<uint64_t>(common.seed);
    options_.port = static_cast<uint16_t>(port_);
    TH_TRY(auto fleet, sim::ServedFleet::open(options_));
    if (::pipe2(wake_pipe, O_CLOEXEC) != 0) return fail(errno_error("pipe", errno));
    signal(SIGPIPE, SIG_IGN);
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    const Json start = {{"url", fleet->url()},   {"key", fleet->admin_key()}, {"preset", options_.preset},
                        {"gpus", fleet->gpus()}, {"hosts", fleet->hosts()},   {"speed", options_.speed},
                        {"seed", options_.seed}, {"simulated", true}};
    fmt::print("{}\n", dump_json(start));
    fmt::print(stderr, "open {} and sign in with the key above; Ctrl-C ends it. All of it is simulated.\n",
               fleet->url());
    std::fflush(stdout);
    std::thread waiter([&] {
      char byte;
      while (::read(wake_pipe[0], &byte, 1) < 0 && errno == EINTR) {
      }
      fleet->stop();
    });
    fleet->run();
    on_signal(0);
    waiter.join();
    const sim::ServeResult result = fleet->result();
    return Json{{"virtual_hours", static_cast<double>(result.virtual_ns) / static_cast<double>(kHour)},
                {"seed", options_.seed},
                {"events", result.events},
                {"slices", result.slices},
                {"jobs", result.jobs},
                {"faults", result.faults},
                {"steps", result.steps},
                {"longest_step_ms", static_cast<double>(result.longest_step_ns) / 1e6}};
  }

 private:
  sim::ServeOptions options_;
  int64_t port_ = 7070;
};

}  // namespace

std::unique_ptr<Command> make_serve_command() { return std::make_unique<Serve>(); }

}  // namespace th
