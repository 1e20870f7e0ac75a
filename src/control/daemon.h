#pragma once
// The daemon: one state folder, one loop, one port (docs/protocols.md has the folder).

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "http/tls.h"

namespace th::control {

struct DaemonOptions {
  std::filesystem::path state_dir;
  std::optional<std::filesystem::path> fleet_file;   // needed at the first start; kept as STATE/fleet.yaml
  std::optional<std::filesystem::path> policy_file;  // docs/queue.md; kept as STATE/policy.yaml
  std::optional<std::filesystem::path> cloud_file;   // docs/azure.md; kept as STATE/cloud.yaml
  std::optional<std::filesystem::path>
      launcher_file;                               // docs/slurm-cluster.md: gangs run under Slurm; not kept
  std::optional<std::filesystem::path> oidc_file;  // docs/sign-in.md; not kept
  std::string address = "127.0.0.1";
  uint16_t port = 7070;  // 0: the one of the last time, else any free one
  http::TlsOptions tls;  // its authority, if any, is kept in STATE/tls
};

class Daemon {
 public:
  /// Takes the state folder and replays its ledger. Errors: kAlreadyExists (another daemon has the state; the
  /// port is taken), kInvalidArgument (fleet file), kFailedPrecondition (a fleet without hosts that are in
  /// use; another port or scheme than the one that living nodes dial; an address that is not loopback without
  /// TLS), kDataLoss.
  static Result<std::unique_ptr<Daemon>> open(const DaemonOptions& options);
  ~Daemon();

  /// Where it listens: "http://127.0.0.1:7070", with TLS "https://…".
  const std::string& url() const;
  /// Runs until stop() or POST /api/v1/shutdown. Nodes go on without it.
  void run();
  /// Safe from any thread.
  void stop();

 private:
  class Impl;
  explicit Daemon(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace th::control
