// th-node --config node.json | --azure azure.json: one a node (docs/node.md).
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>

#include "base/log.h"
#include "node/azure.h"
#include "node/config.h"
#include "node/node.h"

int main(int argc, char** argv) {
  CLI::App app{"Runs the ranks that the controller wants on this node"};
  std::string config_file;
  th::node::AzureNodeOptions azure;
  auto* ways = app.add_option_group("who it is");
  ways->add_option("--config", config_file, "node.json, as the cloud provider wrote it");
  auto* on_azure = ways->add_option("--azure", azure.boot_file,
                                    "on a VM of Azure: what cloud-init wrote, /etc/thunderhead/azure.json");
  ways->require_option(1);
  app.add_option("--metadata", azure.metadata_url, "with --azure: address of the metadata service")
      ->needs(on_azure);
  app.add_option("--dir", azure.dir, "with --azure: folder of logs (default: /var/lib/thunderhead/node)")
      ->needs(on_azure);
  app.add_option("--jobs", azure.jobs_dir,
                 "with --azure: folder of jobs (default: /var/lib/thunderhead/jobs)")
      ->needs(on_azure);
  app.set_version_flag("--version", "0.1.0");
  CLI11_PARSE(app, argc, argv);

  // A descriptor 0–2 that is closed would be given to a file of ours, and then to the ranks as their output.
  int fd = 0;
  while ((fd = open("/dev/null", O_RDWR)) >= 0 && fd <= 2) continue;
  close(fd);
  setsid();  // fails where we lead a session already, which is as good
  umask(022);
  th::init_log("th-node");
  auto config = *on_azure ? th::node::azure_node_config(azure) : th::node::load_node_config(config_file);
  th::Status ended = config ? th::node::run_node(*config) : th::fail(config.error());
  if (ended) return 0;
  th::log_error("{}", ended.error().message);
  return 1;
}
