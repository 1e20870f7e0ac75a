#include "http/websocket.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <filesystem>
#include <mutex>
#include <thread>

#include "base/env.h"
#include "base/files.h"
#include "http/server.h"
#include "http/tls.h"
#include "http/tunnel.h"

namespace th::http {
namespace {

// RFC 6455, 1.3 and 5.7.
TEST(WebSocket, SpeaksAsTheRfcsExamples) {
  EXPECT_EQ(socket_accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
  EXPECT_EQ(socket_frame(Opcode::kText, "Hello"), std::string("\x81\x05Hello"));
  const std::string masked("\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", 11);
  EXPECT_EQ(socket_frame(Opcode::kText, "Hello", 0x37fa213d), masked);
  SocketReader server(true);
  auto messages = server.feed(masked);
  ASSERT_TRUE(messages && messages->size() == 1);
  EXPECT_EQ(messages->front().data, "Hello");
  EXPECT_EQ(socket_frame(Opcode::kBinary, std::string(256, 'x')).substr(0, 4),
            std::string("\x82\x7e\x01\x00", 4));
  EXPECT_EQ(socket_frame(Opcode::kBinary, std::string(65536, 'x')).substr(0, 10),
            std::string("\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00", 10));
}

TEST(WebSocket, JoinsFragmentsAroundAPing) {
  SocketReader client(false);
  auto messages = client.feed(std::string("\x01\x03Hel\x89\x05Hello\x80\x02lo", 16));
  ASSERT_TRUE(messages && messages->size() == 2);
  EXPECT_EQ(messages->at(0).opcode, Opcode::kPing);
  EXPECT_EQ(messages->at(1).opcode, Opcode::kText);
  EXPECT_EQ(messages->at(1).data, "Hello");
}

TEST(WebSocket, RefusesWhatTheRfcForbids) {
  using namespace std::string_literals;
  for (const std::string& bad : {"\x81\x85\x01\x02\x03\x04Hello"s,  // a server masks nothing
                                 "\xc1\x05Hello"s,                  // a reserved bit
                                 "\x83\x00"s,                       // an unknown opcode
                                 "\x09\x00"s,                       // a ping in pieces
                                 "\x89\x7e\x00\x80"s,               // a long ping
                                 "\x80\x01x"s,                      // goes on with nothing
                                 "\x01\x01x\x01\x01y"s}) {          // begins anew within a message
    SocketReader client(false);
    EXPECT_FALSE(client.feed(bad)) << bad;
    EXPECT_FALSE(client.feed("")) << "it stays broken";
  }
  SocketReader small(false, 4);
  EXPECT_EQ(small.feed("\x82\x05Hello").error().code, Code::kResourceExhausted);
}

/// Everything that `fd` gives until its end.
std::string read_to_end(int fd) {
  std::string out;
  char piece[4096];
  pollfd item{fd, POLLIN, 0};
  while (poll(&item, 1, 20'000) > 0) {
    const ssize_t n = ::read(fd, piece, sizeof piece);
    if (n <= 0) break;
    out.append(piece, static_cast<size_t>(n));
  }
  return out;
}

void write_all(int fd, std::string_view bytes) {
  pollfd item{fd, POLLOUT, 0};
  while (!bytes.empty() && poll(&item, 1, 20'000) > 0) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n > 0) bytes.remove_prefix(static_cast<size_t>(n));
  }
}

class TunnelTest : public ::testing::TestWithParam<bool> {};  // by TLS

TEST_P(TunnelTest, JoinsTwoClientsAndNeitherRunsAhead) {
  std::mutex mutex;
  std::vector<Responder> waiting;
  Router router;
  router.add("GET", "/end", [&](Request, Responder responder) {
    std::scoped_lock lock(mutex);
    waiting.push_back(std::move(responder));
    if (waiting.size() < 2) return;
    Tunnel::join(waiting[0].tunnel({{"Upgrade", "test"}}), waiting[1].tunnel({{"Upgrade", "test"}}));
    waiting.clear();
  });
  router.add("GET", "/refused", [](Request, Responder responder) {
    responder.fail({Code::kFailedPrecondition, "not now"});
  });
  ServerOptions options{.threads = 2};
  Call call;
  std::string pattern = (std::filesystem::temp_directory_path() / "th-tunnel-XXXXXX").string();
  const std::filesystem::path dir = ::mkdtemp(pattern.data());
  if (GetParam()) {
    auto files = local_certificate({dir, "server", {"127.0.0.1"}, Env::real().unix_ns()});
    ASSERT_TRUE(files) << files.error().message;
    options.tls = ServerTls{*files};
    call.authority_pem = read_file(authority_file(dir)).value();
  }
  auto server = Server::start(options, std::move(router));
  std::filesystem::remove_all(dir);
  ASSERT_TRUE(server) << server.error().message;
  call.url = (GetParam() ? "https://127.0.0.1:" : "http://127.0.0.1:") + std::to_string((*server)->port());
  Call refused = call, end = call;
  refused.url += "/refused", end.url += "/end";
  const auto no = open_tunnel(refused);
  ASSERT_FALSE(no);
  EXPECT_EQ(no.error(), (Error{Code::kFailedPrecondition, "not now"}));
  if (GetParam()) {
    Call stranger = end;
    stranger.authority_pem.clear();
    const auto unknown = open_tunnel(stranger);
    ASSERT_FALSE(unknown) << "the system does not trust this authority";
    EXPECT_NE(unknown.error().message.find("certificate"), std::string::npos) << unknown.error().message;
  }

  Result<ClientTunnel> a = fail(Code::kInternal, "");
  std::thread first([&] { a = open_tunnel(end); });
  Result<ClientTunnel> b = open_tunnel(end);
  first.join();
  ASSERT_TRUE(a && b);
  // Far more than what a connection may hold back: it only gets through if one waits for the other.
  std::string much;
  for (int i = 0; much.size() < 32u << 20; ++i) much += std::to_string(i) + " ";
  std::thread writer([&] {
    write_all(a->fd.get(), much);
    char back[4];  // what is unread at a close would cut off what was written
    pollfd item{a->fd.get(), POLLIN, 0};
    EXPECT_EQ(poll(&item, 1, 20'000), 1);
    EXPECT_EQ(::read(a->fd.get(), back, sizeof back), 4);
    a->fd = UniqueFd();
  });
  write_all(b->fd.get(), "back");
  std::this_thread::sleep_for(std::chrono::milliseconds(200));  // b reads nothing meanwhile
  EXPECT_TRUE(b->early + read_to_end(b->fd.get()) == much);
  writer.join();
}

INSTANTIATE_TEST_SUITE_P(Wires, TunnelTest, ::testing::Bool());

}  // namespace
}  // namespace th::http
