// th-node --config node.json: one a node (docs/node.md).
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>

#include "base/log.h"
#include "node/config.h"
#include "node/node.h"

int main(int argc, char** argv) {
  CLI::App app{"Runs the ranks that the controller wants on this node"};
  std::string config_file;
  app.add_option("--config", config_file, "node.json, as the cloud provider wrote it")->required();
  app.set_version_flag("--version", "0.1.0");
  CLI11_PARSE(app, argc, argv);

  // A descriptor 0–2 that is closed would be given to a file of ours, and then to the ranks as their output.
  int fd = 0;
  while ((fd = open("/dev/null", O_RDWR)) >= 0 && fd <= 2) continue;
  close(fd);
  setsid();  // fails where we lead a session already, which is as good
  umask(022);
  th::init_log("th-node");
  auto config = th::node::load_node_config(config_file);
  th::Status ended = config ? th::node::run_node(*config) : th::fail(config.error());
  if (ended) return 0;
  th::log_error("{}", ended.error().message);
  return 1;
}
