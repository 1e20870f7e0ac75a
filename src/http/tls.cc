#include "http/tls.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <unistd.h>

#include <algorithm>

#include "base/env.h"
#include "base/files.h"

namespace th::http {
namespace {

constexpr size_t kMaxAuthorityBytes = size_t{1} << 20;

bool is_everywhere(std::string_view address) { return address == "0.0.0.0" || address == "::"; }

/// Of all network cards that are up.
std::vector<std::string> own_addresses() {
  std::vector<std::string> out;
  ifaddrs* first = nullptr;
  if (::getifaddrs(&first) != 0) return out;
  for (const ifaddrs* at = first; at != nullptr; at = at->ifa_next) {
    if (at->ifa_addr == nullptr) continue;
    char text[INET6_ADDRSTRLEN];
    const void* bytes = nullptr;
    if (at->ifa_addr->sa_family == AF_INET)
      bytes = &reinterpret_cast<const sockaddr_in*>(at->ifa_addr)->sin_addr;
    if (at->ifa_addr->sa_family == AF_INET6)
      bytes = &reinterpret_cast<const sockaddr_in6*>(at->ifa_addr)->sin6_addr;
    if (bytes != nullptr && ::inet_ntop(at->ifa_addr->sa_family, bytes, text, sizeof text) != nullptr)
      out.emplace_back(text);
  }
  ::freeifaddrs(first);
  return out;
}

std::vector<std::string> names_of(const std::string& address, const std::string& host) {
  std::vector<std::string> names = {"localhost", "127.0.0.1", "::1", host};
  char machine[256] = "";
  if (::gethostname(machine, sizeof machine - 1) == 0 && *machine != '\0') names.emplace_back(machine);
  if (!is_everywhere(address)) {
    names.push_back(address);
  } else {
    const auto own = own_addresses();
    names.insert(names.end(), own.begin(), own.end());
  }
  // Such a name would change what the list of names says.
  std::erase_if(names, [](const std::string& name) {
    return name.empty() || name.find_first_not_of(
                               "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                               "0123456789.:-") != name.npos;
  });
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

Status check_choice(const TlsOptions& options, const std::string& address) {
  const bool brought = !options.certificate.empty() || !options.key.empty();
  if (!options.mode.empty() && options.mode != "auto" && options.mode != "off")
    return fail(Code::kInvalidArgument, fmt::format("--tls: want auto or off, got '{}'", options.mode));
  if (brought && (options.certificate.empty() || options.key.empty()))
    return fail(Code::kInvalidArgument, "--tls-cert and --tls-key: want both");
  if (brought && !options.mode.empty())
    return fail(Code::kInvalidArgument, "--tls and --tls-cert: want one of them");
  if (!options.authority.empty() && !brought)
    return fail(Code::kInvalidArgument, "--tls-ca: it is the authority of --tls-cert, which is missing");
  if (options.mode == "off" && !is_loopback(address))
    return fail(Code::kFailedPrecondition,
                fmt::format("address {} without TLS: others could read keys and prompts; use --tls auto, or "
                            "bring a certificate with --tls-cert and --tls-key (docs/tls.md)",
                            address));
  return {};
}

Result<TlsSetup> set_up_brought(const TlsOptions& options, TlsSetup setup, const std::string& host) {
  TH_RETURN_IF_ERROR(check_certificate(options.certificate, host, Env::real().unix_ns()));
  if (!options.authority.empty()) {
    TH_TRY(setup.authority_pem, read_file(options.authority, kMaxAuthorityBytes));
  }
  setup.server = ServerTls{.files = {options.certificate, options.key}};
  return setup;
}

}  // namespace

bool is_loopback(std::string_view address) { return address.starts_with("127.") || address == "::1"; }

std::string TlsSetup::url(uint16_t port) const {
  return fmt::format("{}://{}:{}", server ? "https" : "http", host, port);
}

Result<TlsSetup> set_up_tls(const TlsOptions& asked, const std::filesystem::path& dir,
                            const std::string& program, const std::string& address) {
  TlsOptions options = asked;
  std::error_code ignored;
  const bool brought = !options.certificate.empty() || !options.key.empty();
  if (options.mode.empty() && !brought)
    options.mode = std::filesystem::exists(authority_file(dir), ignored) ? "auto" : "off";
  TH_RETURN_IF_ERROR(check_choice(options, address));
  std::string host = options.name;
  if (host.empty()) host = address == "0.0.0.0" ? "127.0.0.1" : address == "::" ? "::1" : address;
  TlsSetup setup;
  setup.host = host.find(':') == host.npos ? host : "[" + host + "]";
  if (brought) return set_up_brought(options, std::move(setup), host);
  if (options.mode == "off") return setup;
  const auto renew = [=]() -> Status {
    auto files = local_certificate({dir, program, names_of(address, host), Env::real().unix_ns()});
    return files ? Status() : fail(files.error());
  };
  TH_RETURN_IF_ERROR(renew());
  TH_TRY(setup.authority_pem, read_file(authority_file(dir), kMaxAuthorityBytes));
  setup.server = ServerTls{.files = {dir / (program + ".crt"), dir / (program + ".key")}, .renew = renew};
  return setup;
}

}  // namespace th::http
