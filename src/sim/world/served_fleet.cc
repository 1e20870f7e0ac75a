#include "sim/world/served_fleet.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <optional>

#include "base/log.h"
#include "base/text.h"
#include "base/units.h"
#include "control/api.h"
#include "fleet/presets.h"
#include "ledger/store.h"
#include "sim/world/fleet_load.h"
#include "sim/world/fleet_nodes.h"

namespace th::sim {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kBeginNs = 1'700'000'000 * kSecond;
constexpr int kPeriodMs = 20;
constexpr int64_t kEventsBudgetNs = 40 * kMillisecond;  // of simulated events between two looks at requests
constexpr int64_t kMinStepNs = 100 * kMillisecond;      // between two steps of the controller
constexpr int64_t kPausePerStep = 2;                    // a third of the thread at most goes into steps
constexpr size_t kMaxQueuedBytes = size_t{64} << 20;    // of one event stream: a large gang comes up at once

int64_t wall_ns() { return Env::real().monotonic_ns(); }

cloud::Patience patience() {
  cloud::Patience out;
  out.boot_ns = 10 * kMinute, out.first_word_ns = 5 * kMinute, out.list_every_ns = kMinute;
  return out;
}

Result<fs::path> make_scratch() {
  std::string name = (fs::temp_directory_path() / "th-sim-serve.XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) return fail(errno_error("temporary folder " + name, errno));
  return fs::path(name);
}

}  // namespace

/// Virtual time, and secrets that are secret.
class ServedEnv final : public Env {
 public:
  explicit ServedEnv(const Clock& clock) : clock_(clock) {}
  int64_t unix_ns() const override { return clock_.unix_ns(); }
  int64_t monotonic_ns() const override { return clock_.monotonic_ns(); }
  std::string token() override { return random_token(); }

 private:
  const Clock& clock_;
};

class ServedFleet::Impl {
 public:
  Impl(const ServeOptions& options, fleet::Fleet fleet)
      : options_(options),
        prng_(options.seed),
        clock_(prng_.next(), kBeginNs),
        env_(clock_),
        fleet_(std::make_shared<const fleet::Fleet>(std::move(fleet))),
        cloud_(clock_, prng_.next(), fleet_),
        nodes_(clock_, prng_.next(), cloud_),
        load_(clock_, prng_.next(), cloud_, nodes_, options.load_percent) {
    cloud_.waits = patience();
  }
  ~Impl() {
    loop_.stop();
    server_.reset();
    std::error_code ignored;
    if (!scratch_.empty()) fs::remove_all(scratch_, ignored);
  }

  Status open();
  void run();
  void after_batch();
  void offload(control::Work work);
  void step();

  const ServeOptions options_;
  Prng prng_;
  Clock clock_;
  ServedEnv env_;
  std::shared_ptr<const fleet::Fleet> fleet_;
  SimCloud cloud_;
  FleetNodes nodes_;
  FleetLoad load_;
  fs::path scratch_;
  std::string url_, admin_key_ = random_token();
  control::Loop loop_;
  std::unique_ptr<ledger::Ledger> ledger_;
  std::optional<registry::Registry> registry_;
  std::optional<launch::LocalLauncher> launcher_;
  std::unique_ptr<control::Api> api_;
  std::unique_ptr<control::Controller> controller_;
  std::unique_ptr<http::Server> server_;
  int64_t wall_start_ns_ = 0, next_step_ns_ = 0;
  ServeResult result_;
};

Status ServedFleet::Impl::open() {
  TH_TRY(scratch_, make_scratch());
  TH_TRY(registry_, registry::Registry::open(scratch_ / "models"));
  TH_TRY(ledger_, ledger::Ledger::open(ledger::open_memory_store(), env_));
  launcher_.emplace(clock_.unix_ns());
  const std::string policy =
      fleet_load_policy(std::max<int64_t>(60, static_cast<int64_t>(options_.speed * 240)));
  TH_TRY(auto parsed, reserve::parse_policy(policy, "the simulated fleet's policy"));
  ledger_->stage(ledger::PolicyLoaded{sha256_hex(policy), parsed.half_life_ns});
  ledger_->stage(ledger::FleetLoaded{fleet_->name(), ""});
  ledger_->stage(ledger::KeyAdded{"key-1", "admin", sha256_hex(admin_key_), "admin"});
  TH_RETURN_IF_ERROR(ledger_->commit());
  control::CoreParts parts{
      env_,       *ledger_,   fleet_,   cloud_,
      *launcher_, *registry_, scratch_, [this](control::Work work) { offload(std::move(work)); },
      {},         parsed};
  TH_TRY(controller_, control::Controller::start(std::move(parts)));
  api_ = std::make_unique<control::Api>(loop_, sha256_hex(random_token()));
  http::ServerOptions server;
  server.address = options_.address, server.port = options_.port, server.threads = 2;
  server.max_queued_bytes = kMaxQueuedBytes;
  TH_TRY(server_, http::Server::start(server, api_->router()));
  url_ = fmt::format("http://{}:{}", options_.address, server_->port());
  api_->attach(*controller_);
  api_->on_shutdown = [this](bool) { loop_.stop(); };
  return {};
}

/// The cloud takes its (virtual) time, and nobody waits for it.
void ServedFleet::Impl::offload(control::Work work) {
  clock_.after(kMillisecond, [this, work = std::move(work)] {
    std::function<void()> result = work();
    clock_.after(cloud_.latency_ns(), std::move(result));
  });
}

void ServedFleet::Impl::step() {
  const int64_t begin_ns = wall_ns();
  if (Status done = controller_->step(); !done) log_error("{}", done.error().message);
  const int64_t took_ns = wall_ns() - begin_ns;
  ++result_.steps;
  result_.longest_step_ns = std::max(result_.longest_step_ns, took_ns);
  next_step_ns_ = wall_ns() + std::max(kMinStepNs, kPausePerStep * took_ns);
}

/// Commands are answered first; then time goes on, as far as it should have by now and the thread can follow.
void ServedFleet::Impl::after_batch() {
  if (Status done = controller_->core.commit(); !done) log_error("{}", done.error().message);
  const int64_t now_ns = wall_ns();
  const auto passed = static_cast<double>(now_ns - wall_start_ns_) * options_.speed;
  const int64_t until_ns = kBeginNs + static_cast<int64_t>(passed);
  while (clock_.run_due(until_ns) && wall_ns() - now_ns < kEventsBudgetNs) {
  }
  if (now_ns >= next_step_ns_) step();
}

void ServedFleet::Impl::run() {
  wall_start_ns_ = wall_ns();
  nodes_.start(*controller_);
  load_.start(*controller_);
  loop_.run([this] { after_batch(); }, kPeriodMs);
  api_->close_streams();
  const ledger::State& state = controller_->core.state();
  result_.virtual_ns = clock_.unix_ns() - kBeginNs;
  result_.events = state.seq, result_.faults = load_.faults();
  result_.slices = static_cast<int64_t>(state.slices.size());
  result_.jobs = static_cast<int64_t>(state.jobs.size());
}

Result<std::unique_ptr<ServedFleet>> ServedFleet::open(const ServeOptions& options) {
  if (!(options.speed > 0 && options.speed <= 3600))
    return fail(Code::kInvalidArgument,
                fmt::format("speed {}: want more than 0 and at most 3600", options.speed));
  if (options.load_percent < 0 || options.load_percent > 100)
    return fail(Code::kInvalidArgument, fmt::format("load {}: want 0 to 100 percent", options.load_percent));
  TH_TRY(fleet::Fleet fleet, fleet::preset_fleet(options.preset));
  auto impl = std::make_unique<Impl>(options, std::move(fleet));
  TH_RETURN_IF_ERROR(impl->open());
  return std::unique_ptr<ServedFleet>(new ServedFleet(std::move(impl)));
}

ServedFleet::ServedFleet(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ServedFleet::~ServedFleet() = default;
const std::string& ServedFleet::url() const { return impl_->url_; }
const std::string& ServedFleet::admin_key() const { return impl_->admin_key_; }
int64_t ServedFleet::hosts() const { return static_cast<int64_t>(impl_->fleet_->hosts().size()); }
int64_t ServedFleet::gpus() const {
  int64_t out = 0;
  for (const fleet::Host& host : impl_->fleet_->hosts()) out += host.gpus;
  return out;
}
void ServedFleet::run() { impl_->run(); }
void ServedFleet::stop() { impl_->loop_.stop(); }
ServeResult ServedFleet::result() const { return impl_->result_; }

}  // namespace th::sim
