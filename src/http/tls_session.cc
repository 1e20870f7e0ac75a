#include "http/tls_session.h"

#include <fmt/format.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include <utility>

namespace th::http {
namespace {

constexpr size_t kSealBytes = size_t{64} << 10;  // at a time, so that OpenSSL's buffer stays small

// What Mozilla calls "intermediate": https://wiki.mozilla.org/Security/Server_Side_TLS
constexpr const char* kCiphers = "ECDHE+AESGCM:ECDHE+CHACHA20";

}  // namespace

std::string openssl_problem() {
  std::string text;
  while (const unsigned long code = ERR_get_error()) {
    char line[256];
    ERR_error_string_n(code, line, sizeof line);
    text += (text.empty() ? "" : "; ") + std::string(line);
  }
  return text.empty() ? "unknown to OpenSSL" : text;
}

TlsContext::~TlsContext() { SSL_CTX_free(context_); }

Result<std::shared_ptr<const TlsContext>> TlsContext::load(const TlsFiles& files) {
  ERR_clear_error();
  SSL_CTX* context = SSL_CTX_new(TLS_server_method());
  TH_CHECK(context != nullptr);
  std::shared_ptr<const TlsContext> owned(new TlsContext(context));
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_num_tickets(context, 1);
  TH_CHECK(SSL_CTX_set_cipher_list(context, kCiphers) == 1);
  const auto bad = [](const std::filesystem::path& file, const char* what) {
    return fail(Code::kInvalidArgument, fmt::format("{}: {}: {}", file.string(), what, openssl_problem()));
  };
  if (SSL_CTX_use_certificate_chain_file(context, files.certificate.c_str()) != 1)
    return bad(files.certificate, "want a certificate in PEM");
  if (SSL_CTX_use_PrivateKey_file(context, files.key.c_str(), SSL_FILETYPE_PEM) != 1)
    return bad(files.key, "want the key of the certificate in PEM");
  return owned;
}

TlsSession::TlsSession(const TlsContext& context) : ssl_(SSL_new(context.context_)) {
  TH_CHECK(ssl_ != nullptr);
  BIO* in = BIO_new(BIO_s_mem());
  BIO* out = BIO_new(BIO_s_mem());
  TH_CHECK(in != nullptr && out != nullptr);
  SSL_set_bio(ssl_, in, out);
  SSL_set_accept_state(ssl_);
}

TlsSession::~TlsSession() { SSL_free(ssl_); }

TlsSession::Feed TlsSession::feed(std::string_view wire, std::string& plain) {
  ERR_clear_error();
  TH_CHECK(BIO_write(SSL_get_rbio(ssl_), wire.data(), static_cast<int>(wire.size())) ==
           static_cast<int>(wire.size()));
  char piece[16 << 10];
  int taken = 0;
  while ((taken = SSL_read(ssl_, piece, sizeof piece)) > 0) plain.append(piece, static_cast<size_t>(taken));
  const int error = SSL_get_error(ssl_, taken);
  drain();
  if (error == SSL_ERROR_WANT_READ) return Feed::kGoesOn;
  return error == SSL_ERROR_ZERO_RETURN ? Feed::kClosed : Feed::kBroken;
}

bool TlsSession::ready() const { return SSL_is_init_finished(ssl_) == 1; }

void TlsSession::seal(std::string_view plain) {
  while (!plain.empty()) {
    const std::string_view piece = plain.substr(0, kSealBytes);
    ERR_clear_error();
    // A memory BIO takes everything; only a session that is broken does not, and its connection ends.
    if (SSL_write(ssl_, piece.data(), static_cast<int>(piece.size())) <= 0) return;
    drain();
    plain.remove_prefix(piece.size());
  }
}

void TlsSession::finish() {
  ERR_clear_error();
  SSL_shutdown(ssl_);
  drain();
}

void TlsSession::drain() {
  BIO* out = SSL_get_wbio(ssl_);
  const size_t waiting = BIO_ctrl_pending(out);
  if (waiting == 0) return;
  const size_t before = output_.size();
  output_.resize(before + waiting);
  TH_CHECK(BIO_read(out, output_.data() + before, static_cast<int>(waiting)) == static_cast<int>(waiting));
}

std::string TlsSession::output() { return std::exchange(output_, {}); }
bool TlsSession::has_output() const { return !output_.empty(); }

}  // namespace th::http
