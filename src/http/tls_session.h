#pragma once
// The server's side of TLS without sockets: bytes of the wire in, bytes of the peer out. Internal.

#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "http/tls.h"

struct ssl_ctx_st;
struct ssl_st;

namespace th::http {

/// The queue of OpenSSL's errors as text; it is empty afterwards.
std::string openssl_problem();

/// Certificate, key and rules: TLS 1.2 and later, ciphers with forward secrecy. Thread: safe, const.
class TlsContext {
 public:
  /// Errors: kInvalidArgument naming the file, those of files.
  static Result<std::shared_ptr<const TlsContext>> load(const TlsFiles& files);
  ~TlsContext();

 private:
  friend class TlsSession;
  explicit TlsContext(ssl_ctx_st* context) : context_(context) {}
  ssl_ctx_st* context_;
};

/// One connection. Not thread-safe.
class TlsSession {
 public:
  explicit TlsSession(const TlsContext& context);
  ~TlsSession();
  TlsSession(const TlsSession&) = delete;
  TlsSession& operator=(const TlsSession&) = delete;

  enum class Feed { kGoesOn, kClosed, kBroken };
  /// Takes bytes of the wire and appends what they said to `plain`. kBroken: the peer does not speak TLS that
  /// we take; output() may still hold the alert. Cost: the first bytes of a connection take about 1 ms.
  Feed feed(std::string_view wire, std::string& plain);
  /// The handshake is over.
  bool ready() const;
  /// Encrypts. Only after the peer's first plain byte.
  void seal(std::string_view plain);
  /// Says that nothing follows.
  void finish();
  /// What is to be sent: handshake, alerts and what was sealed, in their order. It is empty afterwards.
  std::string output();
  bool has_output() const;

 private:
  void drain();

  ssl_st* ssl_;
  std::string output_;
};

}  // namespace th::http
