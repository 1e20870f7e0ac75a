#pragma once
// Starting and stopping the daemons of one state folder.

#include <filesystem>
#include <string>

#include "context.h"

namespace th::cli {

struct UpOptions {
  std::string fleet;          // empty: the fleet that the state folder has already
  std::string policy;         // empty: the one that the state folder has already, else none
  std::string cloud = {};     // the same
  std::string launcher = {};  // empty: th-node
  std::string oidc = {};      // empty: people sign in by password, passkey or key only
  std::string address = {};   // empty: 127.0.0.1
  std::string tls = {};       // auto, off; empty: as before
  std::string tls_cert = {}, tls_key = {}, tls_ca = {};  // files
  std::string name = {};                                 // host name that clients use
  int port = 7070;
  int gateway_port = 7080;
};
/// Starts what does not run yet and waits until it is healthy. Returns
/// {"url","gateway_url","state","started"}. Errors: kNotFound (fleet file, program), kFailedPrecondition with
/// the end of the daemon's log.
Result<Json> bring_up(Context& context, const UpOptions& options);

/// Releases all slices, deletes all VMs, ends both daemons and waits for that. Returns {"stopped":[pids]}.
/// Errors: kFailedPrecondition naming what is left.
Result<Json> take_down(Context& context);

/// Pids of the nodes that the state folder tells of and that still run.
std::vector<int> live_nodes(const std::filesystem::path& state);

}  // namespace th::cli
