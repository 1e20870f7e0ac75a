// The authority of a state folder, for those who have no certificate.

#include <arpa/inet.h>
#include <fmt/format.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#include <chrono>
#include <memory>
#include <thread>

#include "base/files.h"
#include "base/free_by.h"
#include "http/tls.h"
#include "http/tls_session.h"

namespace th::http {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kAuthorityNs = 3650 * kDay, kServerNs = 90 * kDay, kRenewNs = 30 * kDay;
constexpr int64_t kBackdateNs = kHour;  // clocks of the fleet may lag behind ours
constexpr size_t kMaxPemBytes = size_t{256} << 10;

using Key = std::unique_ptr<EVP_PKEY, FreeBy<EVP_PKEY_free>>;
using Certificate = std::unique_ptr<X509, FreeBy<X509_free>>;
using Bio = std::unique_ptr<BIO, FreeBy<BIO_free>>;
using Extension = std::unique_ptr<X509_EXTENSION, FreeBy<X509_EXTENSION_free>>;

struct Pair {
  Key key;
  Certificate certificate;
};

Bio bio_of(std::string_view text) { return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size()))); }

std::string text_of(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  return std::string(data, static_cast<size_t>(size));
}

bool is_address(const std::string& name) {
  unsigned char bytes[16];
  return ::inet_pton(AF_INET, name.c_str(), bytes) == 1 || ::inet_pton(AF_INET6, name.c_str(), bytes) == 1;
}

bool is_for(X509* certificate, const std::string& name) {
  if (is_address(name)) return X509_check_ip_asc(certificate, name.c_str(), 0) == 1;
  return X509_check_host(certificate, name.c_str(), name.size(), 0, nullptr) == 1;
}

/// How long it is still good.
int64_t rest_ns(X509* certificate, int64_t now_ns) {
  time_t now = static_cast<time_t>(now_ns / kSecond);
  std::unique_ptr<ASN1_TIME, FreeBy<ASN1_TIME_free>> at(ASN1_TIME_set(nullptr, now));
  int days = 0, seconds = 0;
  if (!at || ASN1_TIME_diff(&days, &seconds, at.get(), X509_get0_notAfter(certificate)) != 1) return 0;
  return days * kDay + seconds * kSecond;
}

Result<Certificate> read_certificate(const fs::path& path) {
  TH_TRY(const std::string text, read_file(path, kMaxPemBytes));
  Certificate certificate(PEM_read_bio_X509(bio_of(text).get(), nullptr, nullptr, nullptr));
  if (certificate) return certificate;
  return fail(Code::kDataLoss,
              fmt::format("{}: not a certificate in PEM: {}", path.string(), openssl_problem()));
}

Result<Key> read_key(const fs::path& path) {
  TH_TRY(const std::string text, read_file(path, kMaxPemBytes));
  Key key(PEM_read_bio_PrivateKey(bio_of(text).get(), nullptr, nullptr, nullptr));
  if (key) return key;
  return fail(Code::kDataLoss, fmt::format("{}: not a key in PEM: {}", path.string(), openssl_problem()));
}

/// The key of the file, or a new one in it.
Result<Key> keep_key(const fs::path& path) {
  auto kept = read_key(path);
  if (kept || kept.error().code != Code::kNotFound) return kept;
  Key key(EVP_EC_gen("P-256"));
  Bio out(BIO_new(BIO_s_mem()));
  TH_CHECK(key && out &&
           PEM_write_bio_PKCS8PrivateKey(out.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr) == 1);
  TH_RETURN_IF_ERROR(write_file_durable(path, text_of(out.get()), 0600));
  return key;
}

void extend(X509* certificate, X509* issuer, int kind, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  Extension extension(X509V3_EXT_conf_nid(nullptr, &context, kind, value.c_str()));
  TH_CHECK(extension && X509_add_ext(certificate, extension.get(), -1) == 1);
}

/// Without extensions and signature.
Certificate blank_certificate(const std::string& subject, EVP_PKEY* key, int64_t now_ns, int64_t good_ns) {
  Certificate certificate(X509_new());
  X509* x = certificate.get();
  unsigned char serial[16];  // random, as the CA/Browser Forum asks of its members
  TH_CHECK(x != nullptr && RAND_bytes(serial, sizeof serial) == 1);
  serial[0] &= 0x7f;
  std::unique_ptr<BIGNUM, FreeBy<BN_free>> number(BN_bin2bn(serial, sizeof serial, nullptr));
  X509_set_version(x, X509_VERSION_3);
  BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(x));
  ASN1_TIME_set(X509_getm_notBefore(x), static_cast<time_t>((now_ns - kBackdateNs) / kSecond));
  ASN1_TIME_set(X509_getm_notAfter(x), static_cast<time_t>((now_ns + good_ns) / kSecond));
  X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_UTF8,
                             reinterpret_cast<const unsigned char*>(subject.data()),
                             static_cast<int>(subject.size()), -1, 0);
  X509_set_pubkey(x, key);
  return certificate;
}

/// Signs and writes it.
Status seal_certificate(X509* certificate, X509* issuer, EVP_PKEY* issuer_key, const fs::path& path) {
  X509_set_issuer_name(certificate, X509_get_subject_name(issuer));
  Bio out(BIO_new(BIO_s_mem()));
  TH_CHECK(X509_sign(certificate, issuer_key, EVP_sha256()) > 0 && out &&
           PEM_write_bio_X509(out.get(), certificate) == 1);
  return write_file_durable(path, text_of(out.get()), 0644);
}

/// Another daemon of this state folder holds it for some ms only.
Result<FileLock> take_turn(const fs::path& path) {
  for (int i = 0; i < 250; ++i) {
    auto lock = FileLock::acquire(path);
    if (lock || lock.error().code != Code::kAlreadyExists) return lock;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return FileLock::acquire(path);
}

Result<Pair> keep_authority(const fs::path& dir, int64_t now_ns) {
  const fs::path path = authority_file(dir);
  Pair authority;
  TH_TRY(authority.key, keep_key(dir / "ca.key"));
  auto kept = read_certificate(path);
  if (!kept && kept.error().code != Code::kNotFound) return fail(kept.error());
  if (kept) {
    authority.certificate = *std::move(kept);
    X509* x = authority.certificate.get();
    if (X509_check_private_key(x, authority.key.get()) == 1 && rest_ns(x, now_ns) > 0) return authority;
    return fail(
        Code::kFailedPrecondition,
        fmt::format(
            "{}: it has ended, or ca.key is not its key; delete {} to have a new authority made, then "
            "hand its ca.crt to those who trusted the old one",
            path.string(), dir.string()));
  }
  authority.certificate =
      blank_certificate("Thunderhead local authority", authority.key.get(), now_ns, kAuthorityNs);
  X509* x = authority.certificate.get();
  extend(x, x, NID_basic_constraints, "critical,CA:TRUE,pathlen:0");
  extend(x, x, NID_key_usage, "critical,keyCertSign,cRLSign");
  extend(x, x, NID_subject_key_identifier, "hash");
  TH_RETURN_IF_ERROR(seal_certificate(x, x, authority.key.get(), path));
  return authority;
}

bool is_good(X509* certificate, const Pair& authority, EVP_PKEY* key, const CertificateRequest& request) {
  if (X509_verify(certificate, authority.key.get()) != 1) return false;
  if (X509_check_private_key(certificate, key) != 1) return false;
  for (const std::string& name : request.names) {
    if (!is_for(certificate, name)) return false;
  }
  return rest_ns(certificate, request.now_ns) >= kRenewNs;
}

}  // namespace

fs::path authority_file(const fs::path& dir) { return dir / "ca.crt"; }

Result<TlsFiles> local_certificate(const CertificateRequest& request) {
  std::error_code problem;
  fs::create_directories(request.dir, problem);
  if (problem) return fail(errno_error("making " + request.dir.string(), problem.value()));
  TH_TRY(const FileLock lock, take_turn(request.dir / "lock"));
  TH_TRY(const Pair authority, keep_authority(request.dir, request.now_ns));
  TlsFiles files{request.dir / (request.program + ".crt"), request.dir / (request.program + ".key")};
  TH_TRY(const Key key, keep_key(files.key));
  if (auto kept = read_certificate(files.certificate);
      kept && is_good(kept->get(), authority, key.get(), request))
    return files;
  const Certificate made = blank_certificate(request.program, key.get(), request.now_ns, kServerNs);
  std::string names;
  for (const std::string& name : request.names)
    names += (names.empty() ? "" : ",") + std::string(is_address(name) ? "IP:" : "DNS:") + name;
  X509* issuer = authority.certificate.get();
  extend(made.get(), issuer, NID_basic_constraints, "critical,CA:FALSE");
  extend(made.get(), issuer, NID_key_usage, "critical,digitalSignature");
  extend(made.get(), issuer, NID_ext_key_usage, "serverAuth");
  extend(made.get(), issuer, NID_subject_alt_name, names);
  extend(made.get(), issuer, NID_subject_key_identifier, "hash");
  extend(made.get(), issuer, NID_authority_key_identifier, "keyid");
  TH_RETURN_IF_ERROR(seal_certificate(made.get(), issuer, authority.key.get(), files.certificate));
  return files;
}

Status check_certificate(const fs::path& path, const std::string& host, int64_t now_ns) {
  TH_TRY(const Certificate certificate, read_certificate(path));
  if (rest_ns(certificate.get(), now_ns) <= 0)
    return fail(Code::kFailedPrecondition, fmt::format("{}: it has ended; bring a new one", path.string()));
  if (is_for(certificate.get(), host)) return {};
  return fail(
      Code::kFailedPrecondition,
      fmt::format("{}: it is not for '{}', where clients of this server look; name one that it is for "
                  "with --name",
                  path.string(), host));
}

}  // namespace th::http
