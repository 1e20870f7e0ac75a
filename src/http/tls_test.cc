#include "http/tls.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/env.h"
#include "base/files.h"
#include "http/client.h"
#include "http/server.h"

namespace th::http {
namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

class TlsTest : public testing::Test {
 protected:
  TlsTest() {
    char name[] = "/tmp/th-tls-XXXXXX";
    dir_ = ::mkdtemp(name);
  }
  ~TlsTest() override { fs::remove_all(dir_); }

  TlsFiles certificate(const std::string& folder, std::vector<std::string> names = {"127.0.0.1"},
                       int64_t now_ns = Env::real().unix_ns()) {
    auto files = local_certificate({dir_ / folder, "srv", std::move(names), now_ns});
    EXPECT_TRUE(files) << files.error().message;
    return *files;
  }
  std::string pem(const std::string& folder) { return read_file(authority_file(dir_ / folder)).value(); }

  std::unique_ptr<Server> serve(const TlsFiles& files, ServerOptions options = {}) {
    Router router;
    router.add("GET", "/hello", [](Request q, Responder r) {
      r.send(Json{{"hello", "world"}, {"tls", q.tls}});
    });
    router.add("POST", "/echo", [](Request q, Responder r) { r.send(Response{200, {}, std::move(q.body)}); });
    router.add("GET", "/stream", [](Request, Responder r) {
      std::thread([stream = r.event_stream()]() mutable {
        for (int i = 0; i < 3; ++i) stream.event(std::to_string(i));
        stream.close();
      }).detach();
    });
    options.tls = ServerTls{.files = files, .check_ns = 10 * kMillisecond};
    options.max_body_bytes = size_t{8} << 20;
    auto server = Server::start(std::move(options), std::move(router));
    EXPECT_TRUE(server) << server.error().message;
    return *std::move(server);
  }
  static std::string url(const Server& server, const std::string& path,
                         const std::string& host = "127.0.0.1") {
    return "https://" + host + ":" + std::to_string(server.port()) + path;
  }
  Result<Response> get(const Server& server, const std::string& path, const std::string& folder = "a") {
    return fetch({.url = url(server, path), .authority_pem = pem(folder)});
  }

  fs::path dir_;
};

/// A TCP connection, with or without TLS over it, for what the client of this room does not do.
class Wire {
 public:
  explicit Wire(uint16_t port, int max_version = 0) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    timeval timeout{5, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    context_ = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_security_level(context_, 0);
    if (max_version != 0) SSL_CTX_set_max_proto_version(context_, max_version);
    ssl_ = SSL_new(context_);
    SSL_set_fd(ssl_, fd_);
  }
  ~Wire() {
    SSL_free(ssl_);
    SSL_CTX_free(context_);
    ::close(fd_);
  }
  bool shake() { return SSL_connect(ssl_) == 1; }
  std::string version() const { return SSL_get_version(ssl_); }
  void send(const std::string& text) {
    EXPECT_EQ(SSL_write(ssl_, text.data(), int(text.size())), int(text.size()));
  }
  void send_clear(const std::string& text) {
    EXPECT_EQ(::send(fd_, text.data(), text.size(), MSG_NOSIGNAL), ssize_t(text.size()));
  }
  std::string read_until(const std::string& end) {
    std::string all;
    char piece[4096];
    while (all.find(end) == all.npos) {
      const int n = SSL_read(ssl_, piece, sizeof piece);
      if (n <= 0) break;
      all.append(piece, size_t(n));
    }
    return all;
  }
  /// True: the server said that it ends, not only its TCP.
  bool ended_cleanly() {
    char piece[64];
    return SSL_get_error(ssl_, SSL_read(ssl_, piece, sizeof piece)) == SSL_ERROR_ZERO_RETURN;
  }
  std::string read_clear_to_end() {
    std::string all;
    char piece[4096];
    for (ssize_t n = 0; (n = ::recv(fd_, piece, sizeof piece, 0)) > 0;) all.append(piece, size_t(n));
    return all;
  }

 private:
  int fd_;
  SSL_CTX* context_;
  SSL* ssl_;
};

const std::string kHello = "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n";

TEST_F(TlsTest, AnswersWhoTrustsItsAuthority) {
  auto server = serve(certificate("a"));
  auto answer = get(*server, "/hello");
  ASSERT_TRUE(answer) << answer.error().message;
  EXPECT_EQ(answer->body, R"({"hello":"world","tls":true})");
  auto stream = get(*server, "/stream");
  ASSERT_TRUE(stream) << stream.error().message;
  EXPECT_EQ(stream->body, "data: 0\n\ndata: 1\n\ndata: 2\n\n");
}

TEST_F(TlsTest, CarriesLargeBodies) {
  auto server = serve(certificate("a"));
  std::string body(5 << 20, ' ');
  for (size_t i = 0; i < body.size(); ++i) body[i] = char('a' + i * 7 % 26);
  auto echo =
      fetch({.method = "POST", .url = url(*server, "/echo"), .body = body, .authority_pem = pem("a")});
  ASSERT_TRUE(echo) << echo.error().message;
  EXPECT_TRUE(echo->body == body);
}

TEST_F(TlsTest, ClientRefusesAnotherAuthorityAndAnotherName) {
  auto server = serve(certificate("a"));
  certificate("b");
  auto other = get(*server, "/hello", "b");
  ASSERT_FALSE(other);
  EXPECT_EQ(other.error().code, Code::kUnavailable);
  EXPECT_NE(other.error().message.find("the certificate of 127.0.0.1 is refused"), std::string::npos)
      << other.error().message;
  auto of_system = fetch({.url = url(*server, "/hello")});
  ASSERT_FALSE(of_system);
  auto name = fetch({.url = url(*server, "/hello", "127.0.0.2"), .authority_pem = pem("a")});
  ASSERT_FALSE(name);  // the server only listens on 127.0.0.1
  auto local = fetch({.url = url(*server, "/hello", "localhost"), .authority_pem = pem("a")});
  ASSERT_FALSE(local);  // the certificate only has the address
  EXPECT_NE(local.error().message.find("the certificate of localhost is refused"), std::string::npos)
      << local.error().message;
}

TEST_F(TlsTest, KeepsTheConnectionAndEndsItCleanly) {
  auto server = serve(certificate("a"));
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    Wire wire(server->port(), version);
    ASSERT_TRUE(wire.shake());
    EXPECT_EQ(wire.version(), version == TLS1_2_VERSION ? "TLSv1.2" : "TLSv1.3");
    for (int i = 0; i < 3; ++i) {
      wire.send(kHello);
      EXPECT_TRUE(wire.read_until("true}").starts_with("HTTP/1.1 200 OK\r\n"));
    }
    wire.send(kHello + "GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    EXPECT_NE(wire.read_until("true}").find("200 OK"), std::string::npos);
    wire.read_until("nothing more");
    EXPECT_TRUE(wire.ended_cleanly());
  }
}

TEST_F(TlsTest, RefusesOldVersions) {
  auto server = serve(certificate("a"));
  EXPECT_FALSE(Wire(server->port(), TLS1_1_VERSION).shake());
  EXPECT_TRUE(Wire(server->port(), TLS1_2_VERSION).shake());
}

TEST_F(TlsTest, TellsWhoSpeaksPlainHttp) {
  auto server = serve(certificate("a"));
  Wire wire(server->port());
  wire.send_clear(kHello);
  const std::string answer = wire.read_clear_to_end();
  EXPECT_TRUE(answer.starts_with("HTTP/1.1 400 ")) << answer;
  EXPECT_NE(answer.find("use https://"), std::string::npos) << answer;
}

TEST_F(TlsTest, AnswersARefusalThatComesWithTheHandshake) {
  auto server = serve(certificate("a"));
  Wire wire(server->port());
  ASSERT_TRUE(wire.shake());
  wire.send("this is not HTTP\r\n\r\n");
  EXPECT_TRUE(wire.read_until("}").starts_with("HTTP/1.1 400 "));
}

TEST_F(TlsTest, SlowHandshakesHoldNobodyUpAndAreCut) {
  ServerOptions options;
  options.idle_timeout_ns = 300 * kMillisecond;
  auto server = serve(certificate("a"), options);
  std::vector<std::unique_ptr<Wire>> slow;
  for (int i = 0; i < 20; ++i) {
    slow.push_back(std::make_unique<Wire>(server->port()));
    slow.back()->send_clear("\x16\x03\x01\x02");  // the begin of a record, and no more
  }
  for (int i = 0; i < 5; ++i) {
    auto answer = get(*server, "/hello");
    ASSERT_TRUE(answer) << answer.error().message;
  }
  for (auto& wire : slow) EXPECT_EQ(wire->read_clear_to_end(), "");
}

TEST_F(TlsTest, TakesANewCertificateWithoutARestart) {
  const TlsFiles files = certificate("a");
  ServerOptions options;
  options.idle_timeout_ns = 100 * kMillisecond;  // looks every 25 ms
  auto server = serve(files, options);
  ASSERT_TRUE(get(*server, "/hello"));
  ASSERT_TRUE(write_file_durable(files.certificate, "nonsense"));
  std::this_thread::sleep_for(200ms);
  EXPECT_TRUE(get(*server, "/hello")) << "goes on with the one it has";
  const TlsFiles other = certificate("b");
  ASSERT_TRUE(write_file_durable(files.key, read_file(other.key).value(), 0600));
  ASSERT_TRUE(write_file_durable(files.certificate, read_file(other.certificate).value()));
  bool taken = false;
  for (int i = 0; i < 200 && !taken; ++i) {
    taken = get(*server, "/hello", "b").has_value();
    if (!taken) std::this_thread::sleep_for(20ms);
  }
  EXPECT_TRUE(taken);
}

TEST_F(TlsTest, ServerNeedsFilesThatFit) {
  const TlsFiles a = certificate("a"), b = certificate("b");
  ServerOptions options;
  for (const TlsFiles& files :
       {TlsFiles{a.certificate, b.key}, TlsFiles{a.key, a.key}, TlsFiles{dir_ / "none.crt", a.key}}) {
    options.tls = ServerTls{.files = files};
    auto server = Server::start(options, {});
    ASSERT_FALSE(server);
    EXPECT_EQ(server.error().code, Code::kInvalidArgument) << server.error().message;
  }
}

TEST_F(TlsTest, AuthorityKeepsItsFilesAndRenewsCertificates) {
  const int64_t now = Env::real().unix_ns();
  const TlsFiles files = certificate("a", {"127.0.0.1", "localhost"}, now);
  for (const fs::path& key : {files.key, dir_ / "a/ca.key"}) {
    struct stat info {};
    ASSERT_EQ(::stat(key.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0600u) << key;
  }
  const std::string first = read_file(files.certificate).value(), authority = pem("a");
  EXPECT_TRUE(check_certificate(files.certificate, "localhost", now));
  EXPECT_EQ(check_certificate(files.certificate, "example.org", now).error().code, Code::kFailedPrecondition);
  certificate("a", {"127.0.0.1"}, now + 59 * kDay);
  EXPECT_EQ(read_file(files.certificate).value(), first) << "31 days are left";
  certificate("a", {"127.0.0.1"}, now + 61 * kDay);
  const std::string second = read_file(files.certificate).value();
  EXPECT_NE(second, first) << "29 days are left";
  EXPECT_TRUE(check_certificate(files.certificate, "127.0.0.1", now + 150 * kDay));
  EXPECT_FALSE(check_certificate(files.certificate, "127.0.0.1", now + 152 * kDay));
  certificate("a", {"127.0.0.1", "other.example"}, now + 61 * kDay);
  EXPECT_NE(read_file(files.certificate).value(), second) << "a name was missing";
  EXPECT_EQ(pem("a"), authority);
  auto late = local_certificate({dir_ / "a", "srv", {"127.0.0.1"}, now + 3651 * kDay});
  EXPECT_EQ(late.error().code, Code::kFailedPrecondition);
  ASSERT_TRUE(write_file_durable(dir_ / "a/ca.key", "nonsense", 0600));
  EXPECT_EQ(local_certificate({dir_ / "a", "srv", {"127.0.0.1"}, now}).error().code, Code::kDataLoss);
}

TEST_F(TlsTest, AnAddressThatOthersReachTakesTls) {
  for (const char* address : {"0.0.0.0", "::", "10.0.0.1", "192.168.1.1", "fd00::1"}) {
    auto setup = set_up_tls({}, dir_ / "tls", "srv", address);
    ASSERT_FALSE(setup) << address;
    EXPECT_EQ(setup.error().code, Code::kFailedPrecondition);
    EXPECT_NE(setup.error().message.find("--tls auto"), std::string::npos) << setup.error().message;
  }
  for (const char* address : {"127.0.0.1", "127.8.9.1", "::1"}) {
    auto setup = set_up_tls({}, dir_ / "tls", "srv", address);
    ASSERT_TRUE(setup) << address;
    EXPECT_FALSE(setup->server);
  }
  EXPECT_FALSE(fs::exists(dir_ / "tls"));
}

TEST_F(TlsTest, AutoMakesAnAuthorityAndStays) {
  auto setup = set_up_tls({.mode = "auto"}, dir_ / "tls", "srv", "0.0.0.0");
  ASSERT_TRUE(setup) << setup.error().message;
  EXPECT_EQ(setup->url(7070), "https://127.0.0.1:7070");
  EXPECT_TRUE(check_certificate(setup->server->files.certificate, "127.0.0.1", Env::real().unix_ns()));
  EXPECT_EQ(setup->authority_pem, pem("tls"));
  auto again = set_up_tls({}, dir_ / "tls", "srv", "127.0.0.1");
  ASSERT_TRUE(again);
  EXPECT_TRUE(again->server) << "the folder has an authority already";
  auto off = set_up_tls({.mode = "off"}, dir_ / "tls", "srv", "127.0.0.1");
  ASSERT_TRUE(off);
  EXPECT_FALSE(off->server);
  EXPECT_EQ(off->url(7070), "http://127.0.0.1:7070");
}

TEST_F(TlsTest, ABroughtCertificateHasToBeForTheNameThatClientsUse) {
  const TlsFiles files = certificate("brought", {"desk.example"});
  TlsOptions options{.certificate = files.certificate, .key = files.key};
  auto wrong = set_up_tls(options, dir_ / "tls", "srv", "0.0.0.0");
  ASSERT_FALSE(wrong);
  EXPECT_NE(wrong.error().message.find("--name"), std::string::npos) << wrong.error().message;
  options.name = "desk.example";
  options.authority = authority_file(dir_ / "brought");
  auto right = set_up_tls(options, dir_ / "tls", "srv", "0.0.0.0");
  ASSERT_TRUE(right) << right.error().message;
  EXPECT_EQ(right->url(443), "https://desk.example:443");
  EXPECT_EQ(right->authority_pem, pem("brought"));
  EXPECT_EQ(set_up_tls({.certificate = files.certificate}, dir_, "srv", "127.0.0.1").error().code,
            Code::kInvalidArgument);
  EXPECT_EQ(set_up_tls({.mode = "on"}, dir_, "srv", "127.0.0.1").error().code, Code::kInvalidArgument);
}

}  // namespace
}  // namespace th::http
