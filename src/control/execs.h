#pragma once
// Processes that people run beside ranks: `th exec` and `th attach` (docs/exec.md). One is asked for, its
// node dials back, and the two connections are joined byte by byte. In memory only: it ends with this
// process.

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "control/core.h"
#include "http/server.h"
#include "http/tunnel.h"
#include "node/protocol.h"

namespace th::control {

/// Thread: the loop only.
class Execs {
 public:
  explicit Execs(Core& core) : core_(core) {}

  struct Asked {
    int64_t rank = 0;
    std::vector<std::string> argv;  // empty: a shell
    bool terminal = false;
    int64_t rows = 24, columns = 80;
  };
  /// Returns: its id, a secret of who asked. Errors: kFailedPrecondition (the rank does not run; gangs are
  /// started by Slurm), kNotFound (no such rank), kResourceExhausted (64 on one node).
  Result<std::string> open(const ledger::Job& job, const Asked& asked);
  /// The job that it is beside; empty: there is no such session.
  std::string job_of(const std::string& id) const;

  /// There is something for this node to dial that it was not told in the last seconds.
  bool has_news(const std::string& vm) const;
  /// What it has to dial, told now.
  std::vector<node::SessionSpec> tell(const std::string& vm);
  /// The two ends; each may be first and waits for the other. Errors: kNotFound, kAlreadyExists (taken).
  Status join_client(const std::string& id, http::Responder responder, http::Headers upgrade);
  Status join_node(const std::string& vm, const std::string& id, http::Responder responder);
  /// Refuses those whose other end does not come.
  void step();

 private:
  struct End {
    http::Responder responder;
    http::Headers upgrade;
  };
  struct Exec {
    std::string vm;
    node::SessionSpec spec;
    int64_t opened_ns = 0, told_ns = 0;  // monotonic
    std::optional<End> client, node;
    std::optional<http::Tunnel> tunnel;  // joined
  };
  static bool is_for(const Exec& exec, const std::string& vm) {
    return exec.vm == vm && !exec.node && !exec.tunnel;
  }
  Status join(const std::string& id, std::optional<End> Exec::*end, End with);

  Core& core_;
  std::map<std::string, Exec> execs_;
};

}  // namespace th::control
