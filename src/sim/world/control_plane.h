#pragma once
// The control plane as the daemon runs it (controller, ledger, REST routes), in virtual time: it can die at
// any point and start again on what its disk kept. Thread: one owner.

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "control/api.h"
#include "control/controller.h"
#include "control/loop.h"
#include "sim/world/cloud.h"
#include "sim/world/nodes.h"

namespace th::sim {

/// In the registry of each new ledger; it has no files.
inline constexpr const char* kSimulatedModel = "simulated";

/// Thrown where the machine loses its power; never leaves ControlPlane.
struct PowerCut {};

struct ControlPlaneHooks {
  std::function<Result<std::unique_ptr<ledger::Store>>()> open_store;
  std::function<bool()> dies_here;                     // asked wherever it may die
  std::function<bool()> disk_is_full;                  // asked before each transaction
  std::function<bool()> process_is_gone;               // it died inside a transaction
  std::function<void()> on_death;                      // what happens to the disk
  std::function<void(const ledger::Entry&)> on_entry;  // each event that is durable, once, in order
  std::function<void()> on_start;                      // it is up again
  /// What its disk holds cannot be read, or ends before an event that was durable: it stays down.
  std::function<void(const Error&)> on_refused_start;
};

class ControlPlane final : public ControlLink {
 public:
  using OnAnswer = std::function<void(int status, const std::string& body)>;

  /// `scratch_dir` holds the empty model registry; `policy_yaml` is what the operator set. Call start().
  ControlPlane(Clock& clock, uint64_t seed, std::shared_ptr<const fleet::Fleet> fleet, SimCloud& cloud,
               const std::filesystem::path& scratch_dir, const std::string& policy_yaml,
               ControlPlaneHooks hooks);
  ~ControlPlane() override;

  void start();
  /// Everything that is not on its disk is gone; it starts again some seconds later.
  void die();
  bool up() const { return controller_ != nullptr; }
  int64_t starts() const { return starts_; }
  int64_t deaths() const { return deaths_; }

  /// A request over the network by somebody of that account; "": the operator. `on_answer` is called once, or
  /// never: it was lost with the control plane.
  void request(http::Request request, const std::string& account, OnAnswer on_answer);
  /// The same with the gateway's token.
  void gateway_request(http::Request request, OnAnswer on_answer);
  void sync(const std::string& vm, const std::string& token, const node::SyncRequest& request,
            int64_t wait_ns, OnReply on_reply) override;

  /// Only while it is up.
  const ledger::State& state() const { return controller_->core.state(); }
  control::Controller& controller() { return *controller_; }

 private:
  class Sink;
  class Disk;
  Status open();
  Status found();
  void pump();
  void wake();
  void tick();
  void offload(control::Work work);
  void run_work();
  void maybe_die() const;
  http::Responder responder(OnAnswer on_answer);
  void answered(int64_t call);
  void route(http::Request request, const std::string& token, OnAnswer on_answer);
  int64_t between(int64_t low_ns, int64_t high_ns) {
    return low_ns + static_cast<int64_t>(prng_.below(static_cast<uint64_t>(high_ns - low_ns + 1)));
  }

  Clock& clock_;
  Prng prng_;
  std::shared_ptr<const fleet::Fleet> fleet_;
  SimCloud& cloud_;
  registry::Registry registry_;
  reserve::QueuePolicy policy_;
  std::string policy_sha256_;
  ControlPlaneHooks hooks_;

  // Of one life; gone with it.
  int64_t life_ = 0;
  std::unique_ptr<control::Loop> loop_;
  std::unique_ptr<ledger::Ledger> ledger_;
  std::optional<launch::LocalLauncher> launcher_;
  std::unique_ptr<control::Api> api_;
  std::unique_ptr<control::Controller> controller_;
  std::optional<http::Router> router_;
  std::map<int64_t, std::shared_ptr<Sink>> calls_;
  std::deque<control::Work> work_;
  int busy_workers_ = 0;
  bool pump_is_due_ = false, stuck_ = false;

  int64_t next_call_ = 1, last_seq_ = 0, starts_ = 0, deaths_ = 0;
};

}  // namespace th::sim
