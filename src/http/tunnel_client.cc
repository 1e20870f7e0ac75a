// The client's side of a tunnel: one blocking dial, then a descriptor.

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netdb.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cstring>

#include "base/env.h"
#include "base/free_by.h"
#include "base/units.h"
#include "http/tunnel.h"
#include "http/url.h"
#include "http/wire.h"

namespace th::http {
namespace {

constexpr size_t kPieceBytes = size_t{16} << 10;
constexpr size_t kMaxRefusalBytes = size_t{1} << 20;

/// A socket that does not block, in clear or by TLS. One owner.
class Wire {
 public:
  explicit Wire(const Call& call)
      : what_("GET " + call.url.substr(0, call.url.find('?'))),
        deadline_ns_(Env::real().monotonic_ns() + call.timeout_ns) {}

  Status connect(const Url& url, const std::string& authority_pem);
  Status write_all(std::string_view bytes);
  /// At least a byte, or none at the end.
  Result<std::string> read_some();

  int fd() const { return fd_.get(); }
  UniqueFd take_fd() { return std::move(fd_); }
  SSL* ssl() const { return ssl_.get(); }

 private:
  Status dial(const Url& url);
  Status handshake(const Url& url, const std::string& authority_pem);
  Status wait(short events);
  /// What to wait for after a TLS call that did not succeed. Errors: it failed.
  Status wait_for_tls(int outcome);
  tl::unexpected<Error> unavailable(std::string_view why) const {
    return fail(Code::kUnavailable, fmt::format("{}: {}", what_, why));
  }

  const std::string what_;
  const int64_t deadline_ns_;
  UniqueFd fd_;
  std::unique_ptr<SSL_CTX, FreeBy<SSL_CTX_free>> context_;
  std::unique_ptr<SSL, FreeBy<SSL_free>> ssl_;
};

Status Wire::wait(short events) {
  const int64_t left_ns = deadline_ns_ - Env::real().monotonic_ns();
  pollfd item{fd_.get(), events, 0};
  if (left_ns > 0 && poll(&item, 1, static_cast<int>(left_ns / kMillisecond + 1)) > 0) return {};
  return fail(Code::kDeadlineExceeded, what_ + ": no answer in time");
}

Status Wire::dial(const Url& url) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  const int problem = getaddrinfo(url.host.c_str(), std::to_string(url.port).c_str(), &hints, &found);
  if (problem != 0) return unavailable(std::string("host not found: ") + gai_strerror(problem));
  const std::unique_ptr<addrinfo, FreeBy<freeaddrinfo>> addresses(found);
  int error = 0;
  for (const addrinfo* at = found; at != nullptr; at = at->ai_next) {
    fd_ = UniqueFd(socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    error = ::connect(fd_.get(), at->ai_addr, at->ai_addrlen) == 0 ? 0 : errno;
    if (error == EINPROGRESS) {
      TH_RETURN_IF_ERROR(wait(POLLOUT));
      socklen_t size = sizeof error;
      getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &error, &size);
    }
    if (error == 0) return {};
  }
  return unavailable(std::strerror(error));
}

Status Wire::wait_for_tls(int outcome) {
  const int kind = SSL_get_error(ssl_.get(), outcome);
  if (kind == SSL_ERROR_WANT_READ) return wait(POLLIN);
  if (kind == SSL_ERROR_WANT_WRITE) return wait(POLLOUT);
  const long verified = SSL_get_verify_result(ssl_.get());
  if (verified != X509_V_OK)
    return unavailable(std::string("TLS: the certificate is refused: ") +
                       X509_verify_cert_error_string(verified));
  const unsigned long code = ERR_get_error();
  return unavailable(std::string("TLS: ") +
                     (code ? ERR_reason_error_string(code) : "the connection was cut"));
}

Status Wire::handshake(const Url& url, const std::string& authority_pem) {
  context_.reset(SSL_CTX_new(TLS_client_method()));
  SSL_CTX_set_min_proto_version(context_.get(), TLS1_2_VERSION);
  SSL_CTX_set_verify(context_.get(), SSL_VERIFY_PEER, nullptr);
  if (authority_pem.empty()) {
    SSL_CTX_set_default_verify_paths(context_.get());
  } else {
    const std::unique_ptr<BIO, FreeBy<BIO_free>> bio(
        BIO_new_mem_buf(authority_pem.data(), static_cast<int>(authority_pem.size())));
    const std::unique_ptr<X509, FreeBy<X509_free>> authority(
        PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
    if (!authority || X509_STORE_add_cert(SSL_CTX_get_cert_store(context_.get()), authority.get()) != 1)
      return fail(Code::kInvalidArgument, what_ + ": the authority is no certificate in PEM");
  }
  ssl_.reset(SSL_new(context_.get()));
  SSL_set_fd(ssl_.get(), fd_.get());
  SSL_set_tlsext_host_name(ssl_.get(), url.host.c_str());
  in6_addr ignored{};
  const bool is_address = inet_pton(AF_INET, url.host.c_str(), &ignored) == 1 ||
                          inet_pton(AF_INET6, url.host.c_str(), &ignored) == 1;
  X509_VERIFY_PARAM* rules = SSL_get0_param(ssl_.get());
  if (is_address) {
    X509_VERIFY_PARAM_set1_ip_asc(rules, url.host.c_str());
  } else {
    X509_VERIFY_PARAM_set1_host(rules, url.host.c_str(), 0);
  }
  for (int done; (done = SSL_connect(ssl_.get())) != 1;) TH_RETURN_IF_ERROR(wait_for_tls(done));
  return {};
}

Status Wire::connect(const Url& url, const std::string& authority_pem) {
  TH_RETURN_IF_ERROR(dial(url));
  return url.tls ? handshake(url, authority_pem) : Status();
}

Status Wire::write_all(std::string_view bytes) {
  while (!bytes.empty()) {
    const auto n = ssl_ ? SSL_write(ssl_.get(), bytes.data(), static_cast<int>(bytes.size()))
                        : send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n > 0) {
      bytes.remove_prefix(static_cast<size_t>(n));
    } else if (ssl_) {
      TH_RETURN_IF_ERROR(wait_for_tls(static_cast<int>(n)));
    } else if (errno == EAGAIN) {
      TH_RETURN_IF_ERROR(wait(POLLOUT));
    } else {
      return unavailable(std::strerror(errno));
    }
  }
  return {};
}

Result<std::string> Wire::read_some() {
  std::array<char, kPieceBytes> piece;
  while (true) {
    const auto n = ssl_ ? SSL_read(ssl_.get(), piece.data(), kPieceBytes)
                        : recv(fd_.get(), piece.data(), piece.size(), 0);
    if (n > 0) return std::string(piece.data(), static_cast<size_t>(n));
    if (ssl_ && SSL_get_error(ssl_.get(), static_cast<int>(n)) != SSL_ERROR_ZERO_RETURN) {
      TH_RETURN_IF_ERROR(wait_for_tls(static_cast<int>(n)));
    } else if (n == 0 || ssl_) {
      return std::string();
    } else if (errno == EAGAIN) {
      TH_RETURN_IF_ERROR(wait(POLLIN));
    } else {
      return unavailable(std::strerror(errno));
    }
  }
}

/// Carries bytes between the wire and `local` until one of them ends.
void carry(Wire& wire, int local, const std::stop_token& stop) {
  std::string to_wire, to_local;
  std::array<char, kPieceBytes> piece;
  bool local_open = true;
  while (!stop.stop_requested()) {
    // TLS reads may want to write and the other way round; both are tried whenever either side stirs.
    if (to_local.empty()) {
      const int n = SSL_read(wire.ssl(), piece.data(), kPieceBytes);
      const int kind = n > 0 ? SSL_ERROR_NONE : SSL_get_error(wire.ssl(), n);
      if (n > 0)
        to_local.assign(piece.data(), static_cast<size_t>(n));
      else if (kind != SSL_ERROR_WANT_READ && kind != SSL_ERROR_WANT_WRITE)
        return;
    }
    if (!to_local.empty()) {
      const ssize_t n = send(local, to_local.data(), to_local.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (n < 0 && errno != EAGAIN) return;
      if (n > 0) to_local.erase(0, static_cast<size_t>(n));
    }
    if (to_wire.empty() && local_open) {
      const ssize_t n = recv(local, piece.data(), piece.size(), MSG_DONTWAIT);
      if (n == 0 || (n < 0 && errno != EAGAIN)) local_open = false;
      if (n > 0) to_wire.assign(piece.data(), static_cast<size_t>(n));
    }
    if (!to_wire.empty()) {
      const int n = SSL_write(wire.ssl(), to_wire.data(), static_cast<int>(to_wire.size()));
      const int kind = n > 0 ? SSL_ERROR_NONE : SSL_get_error(wire.ssl(), n);
      if (n > 0)
        to_wire.erase(0, static_cast<size_t>(n));
      else if (kind != SSL_ERROR_WANT_READ && kind != SSL_ERROR_WANT_WRITE)
        return;
    }
    if (!local_open && to_wire.empty()) return;
    if (SSL_pending(wire.ssl()) > 0 && to_local.empty()) continue;
    pollfd items[] = {
        {wire.fd(), static_cast<short>((to_local.empty() ? POLLIN : 0) | (to_wire.empty() ? 0 : POLLOUT)), 0},
        {local, static_cast<short>((to_wire.empty() ? POLLIN : 0) | (to_local.empty() ? 0 : POLLOUT)), 0}};
    poll(items, 2, 1000);
  }
}

/// The rest of an answer that is not 101, as an error.
Error refusal(Wire& wire, std::string input) {
  ResponseReader reader(false);
  Response response;
  while (true) {
    const Fed fed = reader.feed(input);
    input.erase(0, fed.consumed);
    response.body += reader.take_body();
    if (fed.done || fed.bad_status || response.body.size() > kMaxRefusalBytes) break;
    auto more = wire.read_some();
    if (!more) return more.error();
    if (more->empty()) break;
    input += *more;
  }
  if (!reader.has_head()) return {Code::kUnavailable, "the answer is not HTTP"};
  response.status = reader.status();
  return error_of(response);
}

}  // namespace

Result<ClientTunnel> open_tunnel(const Call& call) {
  TH_TRY(const Url url, parse_url(call.url));
  TH_TRY(std::string head, render_request("GET", url.target, url.host_header, call.headers, 0));
  const std::string_view close = "Connection: close\r\n";
  head.replace(head.find(close), close.size(), "Connection: Upgrade\r\n");
  auto wire = std::make_shared<Wire>(call);
  TH_RETURN_IF_ERROR(wire->connect(url, call.authority_pem));
  TH_RETURN_IF_ERROR(wire->write_all(head));
  std::string input;
  size_t end = std::string::npos;
  while (end == std::string::npos) {
    TH_TRY(const std::string more, wire->read_some());
    if (more.empty() || input.size() > kPieceBytes)
      return fail(Code::kUnavailable, "the controller ended the connection instead of an answer");
    input += more;
    end = input.find("\r\n\r\n");
  }
  if (!input.starts_with("HTTP/1.1 101")) return fail(refusal(*wire, std::move(input)));
  ClientTunnel out;
  out.early = input.substr(end + 4);
  if (!wire->ssl()) {
    out.fd = wire->take_fd();
    return out;
  }
  std::array<int, 2> ends{};
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()) != 0)
    return fail(errno_error("making a socket pair", errno));
  out.fd = UniqueFd(ends[0]);
  out.carrier =
      std::jthread([wire, local = std::make_shared<UniqueFd>(ends[1])](const std::stop_token& stop) {
        carry(*wire, local->get(), stop);
        *local = UniqueFd();
      });
  return out;
}

}  // namespace th::http
