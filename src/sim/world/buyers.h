#pragma once
// Random buyers of slices and runs of jobs, over the REST routes, as clients that lose answers and ask again
// with the same idempotency key. They remember what was acknowledged. Thread: one owner.

#include <map>
#include <set>
#include <string>
#include <vector>

#include "ledger/state.h"
#include "sim/world/control_plane.h"
#include "sim/world/recount.h"

namespace th::sim {

struct BuyerOptions {
  /// Of each buyer; "": the operator, who may name any of `accounts` for a job.
  std::vector<std::string> buyers, accounts;
  int64_t max_gpus = 8;
  int64_t think_ms = 8'000;  // mean time between the answer and the next command
  int64_t repeats = 50;      // chance in 1,000 that an answered command is sent once more
  std::string series = "LOCAL";
};

class Buyers {
 public:
  Buyers(Clock& clock, uint64_t seed, ControlPlane& plane, const fleet::Fleet& fleet, BuyerOptions options,
         OnViolation on_violation);

  void start();
  /// From now on nothing new is asked for; what is there is given back.
  void wind_down() { winding_down_ = true; }
  /// Ends every job, slice and reservation that is left, also those that nobody remembers, but for what
  /// serves deployments.
  void give_back(const ledger::State& state);
  /// Ends every deployment.
  void undeploy(const ledger::State& state);
  /// Whether every command has its answer.
  bool settled() const { return waiting_ == 0; }
  int64_t commands() const { return commands_; }
  int64_t acknowledged() const { return acknowledged_; }
  /// Slices that a quota or a budget did not leave room for.
  int64_t refused() const { return refused_; }
  uint64_t hash() const { return hash_; }

  /// Whether the state has everything that was acknowledged.
  void check(const ledger::State& state);

 private:
  struct Command {
    int64_t number = 0, buyer = 0;
    std::string account, kind, method, path, body, key;
    std::string subject;  // of release, commit, cancel: the id; of drain and resume: the host
    int64_t tries = 0;
    bool answered = false;
    std::string first_answer;
  };
  /// What was acknowledged. A later promise about the same thing replaces an earlier one.
  struct SlicePromise {
    std::string name, state;  // held | committed | released
    int64_t start_ns = 0, end_ns = 0, price_microusd = 0;
    std::set<int64_t> sizes;  // GPUs: one, or several while it is being resized
    bool resized = false;
  };
  struct JobPromise {
    std::string name;
    int64_t gpus = 0;
    bool cancelled = false;
  };
  struct ReservationPromise {
    std::string state;  // made | being deleted | deleted
    int64_t start_ns = 0, end_ns = 0;
    std::vector<std::string> hosts;
    std::set<std::string> accounts;
  };
  struct DeploymentPromise {
    std::string state, job;  // made | changing | deleted
  };
  struct Buyer {
    std::vector<std::string> slices, jobs;  // ids
    std::string held;                       // id of a hold that waits for its commit
  };

  void next(int64_t buyer);
  void choose(int64_t buyer);
  void hold(int64_t buyer);
  void submit(int64_t buyer, const std::string& slice);
  void act(int64_t buyer, const std::string& kind, const std::string& method, const std::string& path,
           const std::string& subject, const std::string& body = "{}");
  void resize(int64_t buyer, const std::string& slice);
  void change_reservations();
  void change_deployments(int64_t buyer);
  void unreserve(const std::string& name);
  std::string some_reservation(const std::string& account);
  std::string some_account();
  void check_reservation(const ledger::State& state, const std::string& name,
                         const ReservationPromise& promise) const;
  void check_deployment(const ledger::State& state, const std::string& name,
                        const DeploymentPromise& promise) const;
  void deliver(const std::shared_ptr<Command>& command);
  void send(const std::shared_ptr<Command>& command);
  void answered(const std::shared_ptr<Command>& command, int status, const std::string& body);
  void learn(const Command& command, const std::string& body);
  void repeat(const std::shared_ptr<Command>& command);
  int64_t below(int64_t bound) { return static_cast<int64_t>(prng_.below(static_cast<uint64_t>(bound))); }

  Clock& clock_;
  Prng prng_;
  ControlPlane& plane_;
  const fleet::Fleet& fleet_;
  BuyerOptions options_;
  OnViolation violation_;
  std::vector<Buyer> buyers_;
  std::map<std::string, SlicePromise> slices_;
  std::map<std::string, JobPromise> jobs_;
  std::map<std::string, ReservationPromise> reservations_;
  std::map<std::string, DeploymentPromise> deployments_;
  std::map<std::string, bool> drained_;       // host → as the operator's last answered command left it
  std::set<std::string> draining_;            // hosts with a command under way
  std::map<std::string, std::string> names_;  // name that a command chose → id that answered
  int64_t commands_ = 0, acknowledged_ = 0, refused_ = 0, waiting_ = 0;
  uint64_t hash_ = 0;
  bool winding_down_ = false;
};

}  // namespace th::sim
