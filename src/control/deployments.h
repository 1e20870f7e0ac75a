#pragma once
// Deployments (a model served under a name), and what the gateway is told and tells. Thread: the loop only.

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/json.h"
#include "control/core.h"
#include "control/jobs.h"
#include "http/server.h"

namespace th::control {

struct DeploySpec {
  std::string name, model;
  std::optional<std::string> slice;
  int64_t gpus = 1, tokens_per_minute = 0;
};

class Deployments {
 public:
  Deployments(Core& core, Jobs& jobs);

  /// Without a slice: the one that the model's job ran in, if it is still there with as many free GPUs on one
  /// node, else one of its own. Errors: kInvalidArgument (name), kNotFound (model, slice), kAlreadyExists,
  /// kUnsatisfiable (no host has as many GPUs), those of Jobs::submit.
  Status create(const DeploySpec& spec);
  Status stop(const std::string& name, const std::string& reason);
  /// Follows the serving jobs.
  void step();

  /// A request was served for it.
  std::function<void(const std::string& key, int64_t time_ns)> on_key_used = [](const std::string&, int64_t) {
  };
  /// {"generation","deployments","keys"}.
  Json gateway_config() const;
  /// gateway: a name that it made for itself; empty: it does not tell.
  void wait_for_config(const std::string& gateway, int64_t have_generation, int64_t wait_ns,
                       http::Responder responder);
  /// Calls `then` when every gateway that is in contact goes by what it is told now: with false when one does
  /// not within 2 s.
  void when_gateways_know(std::function<void(bool)> then);
  /// Only when everything staged is durable.
  void answer_waiting();
  /// Takes each record once. Returns the last seq that is taken. Errors: kInvalidArgument.
  Result<int64_t> take_usage(const std::string& journal, std::vector<ledger::UsageRecord> records);

  /// The job of what had the name when the event was staged; empty: nothing had it.
  std::string job_at(const std::string& name, int64_t seq) const;
  /// Seq of the last event that changed what the gateway is told. Called for each committed event.
  void committed(const ledger::Entry& entry);

 private:
  struct Waiting {
    http::Responder responder;
    int64_t have_generation = 0, deadline_ns = 0;
  };
  void ready(const std::string& job, const std::string& url);
  Status check_one_host(const DeploySpec& spec) const;
  std::optional<std::string> slice_of_model(const std::string& job, int64_t gpus) const;

  Core& core_;
  Jobs& jobs_;
  int64_t generation_ = 0;
  std::map<std::string, std::map<int64_t, std::string>> jobs_of_name_;  // by seq of their creation
  std::vector<Waiting> waiting_;
  struct Gateway {
    int64_t have_generation = 0, heard_ns = 0;
  };
  struct Telling {
    std::function<void(bool)> then;
    int64_t generation = 0, deadline_ns = 0;
  };
  std::map<std::string, Gateway> gateways_;
  std::vector<Telling> telling_;
};

}  // namespace th::control
