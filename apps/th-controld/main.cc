// th-controld: the control plane of one state folder.

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <thread>

#include "base/log.h"
#include "control/daemon.h"

namespace {

int wake_pipe[2];

/// Signals are not blocked, since nodes would inherit that: the handler wakes a thread that waits.
void on_signal(int) { static_cast<void>(!::write(wake_pipe[1], "x", 1)); }

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"The control plane of Thunderhead: decides, makes VMs, starts gangs, answers REST."};
  th::control::DaemonOptions options;
  std::string state, fleet, policy, cloud, launcher, oidc;
  app.add_option("--state", state, "folder of the ledger, keys, logs and models")->required();
  app.add_option("--fleet", fleet,
                 "what exists, YAML; needed at the first start, then kept in the state folder");
  app.add_option("--policy", policy,
                 "accounts, QOS and priorities, YAML (docs/queue.md); kept in the state folder");
  app.add_option("--cloud", cloud,
                 "where VMs come from, YAML (docs/libvirt.md, docs/azure.md); kept in the state folder; "
                 "default: this machine");
  app.add_option("--launcher", launcher,
                 "who starts gangs, YAML (docs/slurm-cluster.md): a Slurm; default: th-node");
  app.add_option("--oidc", oidc,
                 "who may vouch for people, YAML (docs/sign-in.md): a provider of OpenID Connect");
  app.add_option("--address", options.address, "address to listen on")->capture_default_str();
  app.add_option("--port", options.port, "port to listen on; 0: that of the last time, else any free one")
      ->capture_default_str();
  app.add_option("--tls", options.tls.mode,
                 "auto: TLS with a certificate of the state folder's own authority (docs/tls.md); off: HTTP, "
                 "on loopback "
                 "only; default: auto where the state folder has an authority");
  app.add_option("--tls-cert", options.tls.certificate, "certificate to speak TLS with, PEM")
      ->check(CLI::ExistingFile);
  app.add_option("--tls-key", options.tls.key, "its key, PEM")->check(CLI::ExistingFile);
  app.add_option("--tls-ca", options.tls.authority,
                 "authority of --tls-cert that clients are told to trust, PEM; default: the system's")
      ->check(CLI::ExistingFile);
  app.add_option("--name", options.tls.name, "host name that clients use; default: the address");
  CLI11_PARSE(app, argc, argv);
  options.state_dir = state;
  if (!fleet.empty()) options.fleet_file = fleet;
  if (!policy.empty()) options.policy_file = policy;
  if (!cloud.empty()) options.cloud_file = cloud;
  if (!oidc.empty()) options.oidc_file = oidc;
  if (!launcher.empty()) options.launcher_file = launcher;

  th::init_log("th-controld");
  signal(SIGPIPE, SIG_IGN);
  // Whoever started us may have blocked them.
  sigset_t ours;
  sigemptyset(&ours);
  sigaddset(&ours, SIGTERM), sigaddset(&ours, SIGINT);
  sigprocmask(SIG_UNBLOCK, &ours, nullptr);
  if (::pipe2(wake_pipe, O_CLOEXEC) != 0) return 1;
  signal(SIGTERM, on_signal);
  signal(SIGINT, on_signal);
  auto daemon = th::control::Daemon::open(options);
  if (!daemon) {
    th::log_error("{}", daemon.error().message);
    return 1;
  }
  std::thread waiter([&] {
    char byte;
    while (::read(wake_pipe[0], &byte, 1) < 0 && errno == EINTR) {
    }
    (*daemon)->stop();
  });
  (*daemon)->run();
  on_signal(0);
  waiter.join();
  return 0;
}
