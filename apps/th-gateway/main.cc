// The data plane: OpenAI and Azure OpenAI routes in front of the replicas.

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "base/json.h"
#include "base/log.h"
#include "gateway/gateway.h"

namespace {

constexpr int64_t kDrainNs = 30 * th::kSecond;

int run(th::gateway::GatewayOptions options) {
  // Before any thread starts, so that all inherit it and only this one takes the signals.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);

  auto gateway = th::gateway::Gateway::start(options);
  if (!gateway) {
    th::log_error("{}", gateway.error().message);
    return 1;
  }
  const std::string url = (*gateway)->url();
  std::filesystem::path place = options.state_dir / "gateway.json";
  if (auto written = th::write_file_durable(place, th::dump_json({{"url", url}, {"pid", getpid()}}) + "\n");
      !written) {
    th::log_error("{}", written.error().message);
    return 1;
  }
  th::log_info("listening on {}", url);

  int signal_number = 0;
  sigwait(&signals, &signal_number);
  th::log_info("{}: finishing what is under way", signal_number == SIGTERM ? "SIGTERM" : "SIGINT");
  // A second signal ends it at once; the journal is good at every moment.
  signal(SIGTERM, SIG_DFL);
  signal(SIGINT, SIG_DFL);
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
  if (!(*gateway)->drain(kDrainNs)) th::log_warn("some requests were still under way; they are cut off");
  gateway->reset();
  std::error_code ignored;
  std::filesystem::remove(place, ignored);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  th::init_log("th-gateway");
  th::gateway::GatewayOptions options;
  CLI::App app("th-gateway: serves deployments by the OpenAI and the Azure OpenAI API");
  app.add_option("--controller", options.controller_url, "URL of th-controld")->required();
  app.add_option("--token-file", options.token_file, "file with the gateway token")->required();
  app.add_option("--state", options.state_dir, "state folder")->required();
  app.add_option("--address", options.address, "address to listen on")->capture_default_str();
  app.add_option("--port", options.port, "port to listen on; 0: any free one")->capture_default_str();
  app.add_option(
         "--ca", options.authority_file,
         "authority that the controller's certificate is of, PEM; default: STATE/authority.pem where it is, "
         "else those that the system trusts")
      ->check(CLI::ExistingFile);
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
  return run(std::move(options));
}
