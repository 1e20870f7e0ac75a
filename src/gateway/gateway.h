#pragma once
// The data plane: OpenAI and Azure OpenAI routes in front of the replicas of th-serve.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "base/result.h"
#include "base/units.h"
#include "http/tls.h"

namespace th::gateway {

struct GatewayOptions {
  std::string controller_url;  // "http://127.0.0.1:7070"
  std::filesystem::path authority_file =
      {};                            // PEM: whose certificate it takes there; empty: STATE/authority.pem
                                     // where that is, else those that the system trusts
  std::filesystem::path token_file;  // read again at every contact, so that it may be replaced
  std::filesystem::path state_dir;   // gateway-config.json and usage.journal; made when missing
  std::string address = "127.0.0.1";
  uint16_t port = 7080;  // 0: any free one
  http::TlsOptions tls;  // its authority, if any, is kept in STATE/tls
  size_t max_body_bytes = size_t{1} << 20;
  int64_t max_in_flight = 1024;  // of all deployments
  int64_t max_in_flight_per_deployment = 512;
  int64_t replica_wait_ns = 10 * kSecond;   // how long a request looks for a replica that answers
  int64_t replica_idle_ns = 120 * kSecond;  // a replica that is silent for so long in a stream is given up
};

class Gateway {
 public:
  /// Takes the state folder's lock, reads what is kept there, and answers at once.
  /// Errors: kAlreadyExists (another gateway on this state, or the port is taken), kPermissionDenied,
  /// kNoSpace, kFailedPrecondition (no readable token file and no configuration kept from before; an address
  /// that is not loopback without TLS).
  static Result<std::unique_ptr<Gateway>> start(GatewayOptions options);
  /// Cancels what is under way, writes the journal, stops.
  ~Gateway();

  uint16_t port() const;
  /// Where it listens.
  std::string url() const;
  /// Refuses new requests, waits for those under way, at most `timeout_ns`; hands the journal over if the
  /// controller is there. False: some were still under way.
  bool drain(int64_t timeout_ns);

 private:
  class Impl;
  explicit Gateway(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace th::gateway
