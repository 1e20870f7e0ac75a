// The emulator of Azure as a program, for a daemon to be pointed at. Usage: azure-emulator [--port N]
// [--speed N]. Prints its address and a cloud section (docs/azure.md) that names it, then serves until it is
// ended.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>

#include "serve.h"

int main(int argc, char** argv) {
  using namespace th::azure_emulator;
  ServeOptions options{0, 1};
  uint64_t seed = 1;
  CLI::App app("Not Azure: an emulator of what Thunderhead asks of it");
  app.add_option("--port", options.port, "on 127.0.0.1; 0: any free one");
  app.add_option("--speed", options.speed, "how much faster its clock runs")->check(CLI::Range(1, 1000));
  app.add_option("--seed", seed, "of how long operations take");
  CLI11_PARSE(app, argc, argv);
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM), sigaddset(&ends, SIGINT);
  sigprocmask(SIG_BLOCK, &ends, nullptr);
  Emulator emulator(seed);
  auto service = Service::start(emulator, options);
  if (!service) {
    fmt::print(stderr, "{}\n", service.error().message);
    return 1;
  }
  const std::string& url = (*service)->url();
  const Emulator::Account& account = emulator.account();
  fmt::print("# {}: not Azure, an emulator; its client secret is '{}'\n", url, account.client_secret);
  fmt::print(
      "cloud:\n  kind: azure\n  subscription: {}\n  resource_group: {}\n  region: {}\n  tenant: {}\n  "
      "client_id: {}\n",
      account.subscription, account.resource_group, account.region, account.tenant, account.client_id);
  for (const char* service_name : {"arm", "login", "prices", "metadata"})
    fmt::print("  {}_url: {}\n", service_name, url);
  std::fflush(stdout);
  int signal = 0;
  sigwait(&ends, &signal);
  return 0;
}
