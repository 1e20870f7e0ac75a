#pragma once
// TLS for the daemons: certificates that somebody brought, or an authority of the state folder's own
// (docs/tls.md).

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/units.h"

namespace th::http {

struct TlsFiles {
  std::filesystem::path certificate;  // PEM, the server's first, then those between it and its authority
  std::filesystem::path key;          // PEM
};

/// What a server speaks TLS with. It looks every `check_ns` whether the files changed, and takes the new
/// ones for new connections; `renew` runs before that, on a thread of the server.
struct ServerTls {
  TlsFiles files;
  std::function<Status()> renew = {};
  int64_t check_ns = kMinute;
};

/// 127.0.0.0/8 and ::1.
bool is_loopback(std::string_view address);

/// The command line of a daemon.
struct TlsOptions {
  std::string mode = {};  // auto, off; empty: auto where `dir` has an
                          // authority already, else off
  std::filesystem::path certificate = {}, key = {}, authority = {};  // brought; then `mode` is empty
  std::string name = {};  // host name that clients use; empty: the address
};

struct TlsSetup {
  std::optional<ServerTls> server;  // none: HTTP
  std::string authority_pem;        // whom its clients have to trust; empty: the system's authorities
  std::string host;                 // as in a URL, with brackets where needed

  /// "https://host:port".
  std::string url(uint16_t port) const;
};

/// Makes what is missing: for "auto" the authority in `dir` (ca.crt, ca.key) and a certificate of it for
/// `program` (PROGRAM.crt, PROGRAM.key). Errors: kFailedPrecondition (an address that is not loopback without
/// TLS; a certificate that is not for the name that clients use, or has ended), kInvalidArgument, those of
/// files. Each says what to do.
Result<TlsSetup> set_up_tls(const TlsOptions& options, const std::filesystem::path& dir,
                            const std::string& program, const std::string& address);

/// The file of the authority that set_up_tls keeps in `dir`.
std::filesystem::path authority_file(const std::filesystem::path& dir);

struct CertificateRequest {
  std::filesystem::path dir;
  std::string program;             // names the files
  std::vector<std::string> names;  // IP addresses and host names, at least one
  int64_t now_ns = 0;              // Unix
};
/// A certificate of the authority in `dir`, both made where they are missing: ECDSA P-256, the certificate
/// for 90 days, made anew when fewer than 30 are left, a name is missing or its authority is another; the
/// authority for 10 years. Keys are 0600. Processes that ask at once take turns.
/// Errors: kFailedPrecondition (the authority has ended), kDataLoss (a file that is no key or certificate),
/// those of files.
Result<TlsFiles> local_certificate(const CertificateRequest& request);

/// The certificate's names hold `host` and it has not ended. Errors: kFailedPrecondition, kDataLoss, those of
/// files.
Status check_certificate(const std::filesystem::path& certificate, const std::string& host, int64_t now_ns);

}  // namespace th::http
