#include "control/daemon.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "base/files.h"
#include "base/json.h"
#include "base/log.h"
#include "base/text.h"
#include "base/units.h"
#include "control/api.h"
#include "control/clouds.h"
#include "launch/slurm/options.h"

namespace th::control {
namespace {

namespace fs = std::filesystem;

constexpr int kPeriodMs = 100;
constexpr int kWorkers = 4, kRemoteWorkers = 16;  // the latter wait for a cloud most of their time
constexpr int64_t kReleaseTimeoutNs = 60 * kSecond;
constexpr size_t kMaxCloudBytes = size_t{64} << 10;
constexpr size_t kMaxPolicyBytes = size_t{1} << 20;
constexpr size_t kMaxFleetBytes = size_t{16} << 20;

/// The secret of a file of its own. Nothing is written.
Result<std::string> read_secret(const fs::path& path) {
  auto text = read_file(path, 1024);
  if (text) {
    while (!text->empty() && std::isspace(static_cast<unsigned char>(text->back()))) text->pop_back();
    if (text->size() == 64) return text;
    return fail(Code::kDataLoss, path.string() + ": want 64 hex digits; delete it to have a new one made");
  }
  return fail(text.error());
}

/// The same, or a new one, which is not written either.
Result<std::string> read_or_make_secret(const fs::path& path) {
  auto secret = read_secret(path);
  if (!secret && secret.error().code == Code::kNotFound) return random_token();
  return secret;
}

/// Of every answer; the console's pages have a Content-Security-Policy of their own.
std::shared_ptr<const http::Headers> security_headers(const http::TlsOptions& tls) {
  http::Headers headers = {{"Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"},
                           {"X-Content-Type-Options", "nosniff"},
                           {"X-Frame-Options", "DENY"},
                           {"Referrer-Policy", "no-referrer"},
                           {"Cache-Control", "no-store"}};
  // Not by an authority of our own: it would also bind what else speaks HTTP at "localhost".
  if (!tls.certificate.empty()) headers.emplace_back("Strict-Transport-Security", "max-age=31536000");
  return std::make_shared<const http::Headers>(std::move(headers));
}

/// Hosts that slices hold have to exist in the fleet, with as many GPUs.
Status check_fits(const fleet::Fleet& fleet, const ledger::State& state) {
  for (const auto& [id, slice] : state.slices) {
    if (!slice.live()) continue;
    for (const ledger::Share& share : slice.terms.hosts) {
      const auto host = fleet.find_host(share.host);
      const bool fits =
          host && fleet.host(*host).gpus >= share.gpus && fleet.series_of(*host).name == slice.terms.series;
      if (!fits) {
        return fail(
            Code::kFailedPrecondition,
            fmt::format(
                "fleet '{}' has no host '{}' with {} GPUs of {}, which slice '{}' holds; release it first",
                fleet.name(), share.host, share.gpus, slice.terms.series, slice.terms.name));
      }
    }
  }
  return {};
}

}  // namespace

class Daemon::Impl {
 public:
  Status open(const DaemonOptions& options);
  void run();
  void stop() { loop_.stop(); }
  const std::string& url() const { return url_; }
  ~Impl();

 private:
  Status open_state(const DaemonOptions& options);
  Status open_fleet(const DaemonOptions& options);
  Status open_policy(const DaemonOptions& options);
  Status open_cloud_file(const DaemonOptions& options);
  Status open_launcher(const DaemonOptions& options);
  Status write_state();
  Status write_keys();
  Status open_server(const DaemonOptions& options);
  Status open_sign_in(const DaemonOptions& options);
  Status check_scheme(const http::TlsSetup& tls) const;
  Status open_controller();
  uint16_t last_port() const;
  bool has_nodes() const;
  void after_batch();
  void shut_down(bool nodes);

  fs::path dir_;
  std::optional<FileLock> lock_;
  Loop loop_;
  std::unique_ptr<ledger::Ledger> ledger_;
  std::shared_ptr<const fleet::Fleet> fleet_;
  std::optional<registry::Registry> registry_;
  std::unique_ptr<cloud::Provider> provider_;
  std::optional<launch::LocalLauncher> launcher_;
  std::unique_ptr<launch::SlurmLauncher> slurm_;
  std::unique_ptr<Api> api_;
  std::unique_ptr<Controller> controller_;
  std::unique_ptr<http::Server> server_;
  std::unique_ptr<Workers> workers_;
  reserve::QueuePolicy policy_;
  std::string url_, authority_pem_, gateway_token_, admin_key_, fleet_text_, policy_text_, cloud_text_;
  std::optional<int64_t> release_deadline_ns_;
  std::optional<Error> closing_;  // why commands are refused for good
  bool stuck_ = false;
};

Status Daemon::Impl::open(const DaemonOptions& options) {
  std::error_code problem;
  dir_ = fs::absolute(options.state_dir, problem).lexically_normal();
  TH_RETURN_IF_ERROR(open_fleet(options));
  TH_RETURN_IF_ERROR(open_policy(options));
  const bool made = fs::create_directories(dir_, problem);
  if (problem) return fail(errno_error("state folder " + dir_.string(), problem.value()));
  const Status opened = open_state(options);
  if (!opened && made) {
    // Nobody else can have taken it: the lock is still held.
    server_.reset(), workers_.reset(), controller_.reset(), ledger_.reset();
    fs::remove_all(dir_, problem);
  }
  return opened;
}

/// Everything that can be refused comes before the first thing that is written.
Status Daemon::Impl::open_state(const DaemonOptions& options) {
  TH_TRY(lock_, FileLock::acquire(dir_ / "controld.lock"));
  TH_TRY(auto store, ledger::open_sqlite_store(dir_ / "ledger.db"));
  TH_TRY(ledger_, ledger::Ledger::open(std::move(store), Env::real()));
  TH_RETURN_IF_ERROR(check_fits(*fleet_, ledger_->state()));
  TH_TRY(gateway_token_, read_or_make_secret(dir_ / "gateway.token"));
  TH_TRY(admin_key_, read_or_make_secret(dir_ / "admin.key"));
  TH_RETURN_IF_ERROR(open_cloud_file(options));
  TH_RETURN_IF_ERROR(open_launcher(options));
  TH_RETURN_IF_ERROR(open_server(options));
  TH_TRY(provider_, open_cloud(cloud_text_, options.cloud_file.value_or(dir_ / "cloud.yaml").string(),
                               {dir_, url_, authority_pem_}));
  if (::chmod(dir_.c_str(), 0711) != 0) return fail(errno_error("state folder " + dir_.string(), errno));
  TH_RETURN_IF_ERROR(write_state());
  TH_TRY(registry_, registry::Registry::open(dir_ / "models"));
  // Jobs of this machine reach no model by its path: nodes copy for them what is theirs.
  if (::chmod((dir_ / "models").c_str(), 0700) != 0)
    return fail(errno_error("models folder of " + dir_.string(), errno));
  return open_controller();
}

Status Daemon::Impl::open_fleet(const DaemonOptions& options) {
  const fs::path from = options.fleet_file.value_or(dir_ / "fleet.yaml");
  auto text = read_file(from, kMaxFleetBytes);
  if (!text && !options.fleet_file && text.error().code == Code::kNotFound) {
    return fail(Code::kInvalidArgument, "this state folder has no fleet yet; name one with --fleet FILE");
  }
  if (!text) return fail(text.error());
  TH_TRY(fleet::Fleet fleet, fleet::parse_fleet(*text, from.string()));
  fleet_ = std::make_shared<const fleet::Fleet>(std::move(fleet));
  fleet_text_ = *std::move(text);
  return {};
}

/// Without a file: one account, and first come, first served.
Status Daemon::Impl::open_policy(const DaemonOptions& options) {
  const fs::path from = options.policy_file.value_or(dir_ / "policy.yaml");
  auto text = read_file(from, kMaxPolicyBytes);
  if (!text && (options.policy_file || text.error().code != Code::kNotFound)) return fail(text.error());
  policy_text_ = text ? *std::move(text) : "{}";
  TH_TRY(policy_, reserve::parse_policy(policy_text_, from.string()));
  return {};
}

/// Without a file: VMs of this machine.
Status Daemon::Impl::open_cloud_file(const DaemonOptions& options) {
  const auto kept = read_file(dir_ / "cloud.yaml", kMaxCloudBytes);
  if (!kept && kept.error().code != Code::kNotFound) return fail(kept.error());
  cloud_text_ = kept ? *kept : "";
  if (!options.cloud_file) return {};
  TH_TRY(std::string text, read_file(*options.cloud_file, kMaxCloudBytes));
  if (text != cloud_text_ && has_nodes()) {
    return fail(
        Code::kFailedPrecondition,
        fmt::format("{}: differs from the cloud that VMs of this state come from; release the slices first",
                    options.cloud_file->string()));
  }
  cloud_text_ = std::move(text);
  return {};
}

/// Without a file th-node starts the ranks.
Status Daemon::Impl::open_launcher(const DaemonOptions& options) {
  if (!options.launcher_file) return {};
  TH_TRY(const std::string text, read_file(*options.launcher_file, kMaxCloudBytes));
  TH_TRY(launch::SlurmOptions slurm, launch::read_slurm_options(text, *options.launcher_file, dir_ / "jobs"));
  log_info("gangs run under Slurm at {}, for {}", slurm.url, slurm.user);
  slurm_ = std::make_unique<launch::SlurmLauncher>(std::move(slurm));
  return {};
}

Status Daemon::Impl::write_state() {
  std::error_code ignored;
  if (!cloud_text_.empty()) TH_RETURN_IF_ERROR(write_file_durable(dir_ / "cloud.yaml", cloud_text_));
  const std::string policy_sha256 = sha256_hex(policy_text_);
  if (ledger_->state().policy_sha256 != policy_sha256) {
    TH_RETURN_IF_ERROR(write_file_durable(dir_ / "policy.yaml", policy_text_));
    ledger_->stage(ledger::PolicyLoaded{policy_sha256, policy_.half_life_ns});
  }
  const std::string sha256 = sha256_hex(fleet_text_);
  if (ledger_->state().fleet.sha256 != sha256) {
    TH_RETURN_IF_ERROR(write_file_durable(dir_ / "fleet.yaml", fleet_text_));
    ledger_->stage(ledger::FleetLoaded{fleet_->name(), sha256});
  }
  TH_RETURN_IF_ERROR(write_keys());
  TH_RETURN_IF_ERROR(ledger_->commit());
  // For th, the gateway and whoever else is to trust this controller.
  if (!authority_pem_.empty())
    TH_RETURN_IF_ERROR(write_file_durable(dir_ / "authority.pem", authority_pem_, 0644));
  else
    fs::remove(dir_ / "authority.pem", ignored);
  TH_RETURN_IF_ERROR(write_file_durable(dir_ / "controld.url", url_ + "\n", 0644));
  return write_file_durable(dir_ / "controld.port", fmt::format("{}\n", server_->port()), 0644);
}

Status Daemon::Impl::write_keys() {
  for (const auto& [name, secret] :
       {std::pair("gateway.token", &gateway_token_), {"admin.key", &admin_key_}}) {
    if (!read_secret(dir_ / name)) TH_RETURN_IF_ERROR(write_file_durable(dir_ / name, *secret + "\n", 0600));
  }
  const std::string sha256 = sha256_hex(admin_key_);
  std::vector<std::string> old;
  for (const auto& [id, key] : ledger_->state().keys) {
    if (!key.of_operator || key.revoked) continue;
    if (key.sha256 == sha256) return {};
    old.push_back(id);
  }
  // The file was deleted to have a new key made: the one before is void.
  for (const std::string& id : old) ledger_->stage(ledger::KeyRevoked{id});
  ledger_->stage(
      ledger::KeyAdded{fmt::format("key-{}", ledger_->state().next_key), "admin", sha256, "admin"});
  return {};
}

uint16_t Daemon::Impl::last_port() const {
  const auto text = read_file(dir_ / "controld.port", 64);
  return text ? static_cast<uint16_t>(std::strtoul(text->c_str(), nullptr, 10)) : 0;
}

bool Daemon::Impl::has_nodes() const {
  for (const auto& [id, vm] : ledger_->state().vms) {
    if (vm.state != ledger::VmState::kDeleted) return true;
  }
  return false;
}

Status Daemon::Impl::open_server(const DaemonOptions& options) {
  api_ = std::make_unique<Api>(loop_, sha256_hex(gateway_token_));
  const uint16_t last = last_port();
  const uint16_t want = options.port == 0 ? last : options.port;
  if (has_nodes() && last != 0 && want != last) {
    return fail(Code::kFailedPrecondition,
                fmt::format("nodes of this state dial port {}; start with --port {}", last, last));
  }
  TH_TRY(http::TlsSetup tls, http::set_up_tls(options.tls, dir_ / "tls", "controld", options.address));
  TH_RETURN_IF_ERROR(check_scheme(tls));
  http::ServerOptions server;
  server.address = options.address, server.port = want, server.threads = 2;
  server.tls = tls.server;
  server.headers = security_headers(options.tls);
  server.max_body_bytes = node::kMaxSyncBytes;
  auto started = http::Server::start(server, api_->router());
  if (!started && options.port == 0 && want != 0 && !has_nodes()) {
    server.port = 0;
    started = http::Server::start(server, api_->router());
  }
  if (!started) return fail(started.error());
  server_ = *std::move(started);
  url_ = tls.url(server_->port());
  authority_pem_ = std::move(tls.authority_pem);
  return open_sign_in(options);
}

Status Daemon::Impl::open_sign_in(const DaemonOptions& options) {
  SignInOptions sign_in;
  sign_in.url = url_;
  char machine[256] = "";
  for (const std::string& host :
       {options.tls.name, std::string(::gethostname(machine, sizeof machine - 1) == 0 ? machine : "")}) {
    if (!host.empty()) sign_in.hosts.push_back(host);
  }
  if (options.oidc_file) {
    TH_TRY(const std::string text, read_file(*options.oidc_file, kMaxCloudBytes));
    TH_TRY(sign_in.oidc, access::read_oidc_options(text, options.oidc_file->string()));
  }
  api_->sign_in().set_options(std::move(sign_in));
  return {};
}

/// Nodes of this machine dial what they were told as they were made.
Status Daemon::Impl::check_scheme(const http::TlsSetup& tls) const {
  const auto last = read_file(dir_ / "controld.url", 512);
  if (!last || !cloud_text_.empty() || !has_nodes()) return {};
  if (last->starts_with("https:") == tls.server.has_value()) return {};
  return fail(Code::kFailedPrecondition,
              fmt::format("nodes of this state dial {}; start {} TLS as before, or release the slices first",
                          last->substr(0, last->find('\n')), tls.server ? "without" : "with"));
}

Status Daemon::Impl::open_controller() {
  launcher_.emplace(Env::real().unix_ns());
  workers_ = std::make_unique<Workers>(loop_, cloud_text_.empty() ? kWorkers : kRemoteWorkers);
  CoreParts parts{Env::real(),
                  *ledger_,
                  fleet_,
                  *provider_,
                  *launcher_,
                  *registry_,
                  dir_,
                  [this](Work work) { workers_->run(std::move(work)); },
                  sha256_hex("jobs\n" + gateway_token_),
                  policy_,
                  slurm_.get()};
  TH_TRY(controller_, Controller::start(std::move(parts)));
  api_->attach(*controller_);
  api_->on_shutdown = [this](bool nodes) { shut_down(nodes); };
  const Json where = {{"url", url_}, {"pid", ::getpid()}};
  return write_file_durable(dir_ / "controld.json", dump_json(where) + "\n", 0644);
}

void Daemon::Impl::run() {
  log_info("listening on {}, state {}, fleet '{}'", url_, dir_.string(), fleet_->name());
  loop_.run([this] { after_batch(); }, kPeriodMs);
  api_->close_streams();
  std::this_thread::sleep_for(std::chrono::milliseconds(100));  // the last answers are on their way
  std::error_code ignored;
  fs::remove(dir_ / "controld.json", ignored);
  log_info("stopped");
}

void Daemon::Impl::after_batch() {
  const Status done = controller_->step();
  if (!done && !stuck_) log_error("the ledger cannot be written: {}", done.error().message);
  if (done && stuck_) log_info("the ledger can be written again");
  if (!done || stuck_) api_->refuse_commands(done ? closing_ : std::optional<Error>(done.error()));
  stuck_ = !done;
  if (!release_deadline_ns_) return;
  const bool late = Env::real().monotonic_ns() > *release_deadline_ns_;
  if (late) log_error("some VMs could not be deleted in time; they will be after the next start");
  if (controller_->core.active_slices().empty() || late) loop_.stop();
}

/// The answer was sent before this is called.
void Daemon::Impl::shut_down(bool nodes) {
  closing_ = Error{Code::kUnavailable, "the controller is shutting down"};
  api_->refuse_commands(closing_);
  if (!nodes) return loop_.stop();
  controller_->jobs.close();
  controller_->slices.close();
  release_deadline_ns_ = Env::real().monotonic_ns() + kReleaseTimeoutNs;
  const auto active = controller_->core.active_slices();
  for (const std::string& id : active) {
    if (Status released = controller_->slices.release(id, "the controller is shut down"); !released) {
      log_warn("{}", released.error().message);
    }
  }
}

Daemon::Impl::~Impl() {
  loop_.stop();
  if (provider_) provider_->interrupt();
  workers_.reset();
  server_.reset();
}

Daemon::Daemon(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Daemon::~Daemon() = default;

Result<std::unique_ptr<Daemon>> Daemon::open(const DaemonOptions& options) {
  auto impl = std::make_unique<Impl>();
  TH_RETURN_IF_ERROR(impl->open(options));
  return std::unique_ptr<Daemon>(new Daemon(std::move(impl)));
}

const std::string& Daemon::url() const { return impl_->url(); }
void Daemon::run() { impl_->run(); }
void Daemon::stop() { impl_->stop(); }

}  // namespace th::control
