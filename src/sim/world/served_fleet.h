#pragma once
// A simulated fleet behind the real REST API: the controller, the ledger (in memory) and the HTTP server are
// the daemon's; the cloud, the nodes, the ranks, other tenants' work and time are simulated. Thread: run()
// owns all of it.

#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"

namespace th::sim {

struct ServeOptions {
  std::string preset = "hyperscale-131k";  // fleet/presets.h
  uint64_t seed = 1;
  double speed = 60;  // virtual seconds in a second
  std::string address = "127.0.0.1";
  uint16_t port = 7070;       // 0: any free one
  int64_t load_percent = 75;  // of the GPUs: what other tenants' work takes; 0: nobody else is there
};

struct ServeResult {
  int64_t virtual_ns = 0, events = 0, faults = 0, slices = 0, jobs = 0, steps = 0;
  int64_t longest_step_ns = 0;  // of the machine's time: for so long no request was answered
};

class ServedFleet {
 public:
  /// Errors: kNotFound (preset), kInvalidArgument (speed, load), kAlreadyExists (the port is taken).
  static Result<std::unique_ptr<ServedFleet>> open(const ServeOptions& options);
  ~ServedFleet();

  /// "http://127.0.0.1:7070", and the key of the operator; new at each start.
  const std::string& url() const;
  const std::string& admin_key() const;
  int64_t gpus() const;
  int64_t hosts() const;
  /// Until stop() or POST /api/v1/shutdown.
  void run();
  /// Thread: any.
  void stop();
  ServeResult result() const;

 private:
  class Impl;
  explicit ServedFleet(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace th::sim
