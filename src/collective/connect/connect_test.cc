// Real processes and real connections over loopback: which ranks share memory is told to them, so that one
// host stands for several nodes. tests/cluster/gloo_test.py has ranks in network namespaces.

#include "collective/connect/connect.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <functional>
#include <thread>
#include <vector>

#include "collective/test_ranks.h"

namespace th::collective {
namespace {

using Clock = std::chrono::steady_clock;
using Body = std::function<bool(Group&)>;

int free_port() {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  TH_CHECK(bind(fd, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
           getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0);
  close(fd);
  return ntohs(address.sin_port);
}

/// One rank a letter; the letter is its node.
Rendezvous meeting(int rank, const std::string& nodes, int port) {
  return {.rank = rank,
          .world_size = static_cast<int>(nodes.size()),
          .node = std::string(1, nodes[rank]),
          .master_port = port,
          .job_id = "test-" + std::to_string(port),
          .attempt = 1};
}

std::vector<pid_t> spawn_gang(const std::string& nodes, const Body& body, ConnectOptions options = {}) {
  std::vector<pid_t> pids;
  const int port = free_port();
  for (size_t rank = 0; rank < nodes.size(); ++rank) {
    const Rendezvous rendezvous = meeting(static_cast<int>(rank), nodes, port);
    options.memory = std::to_string(getpid()) + rendezvous.node;
    pids.push_back(spawn([=] {
      auto group = connect(rendezvous, options);
      if (!group) std::fprintf(stderr, "%s\n", group.error().message.c_str());
      return group && body(*group);
    }));
  }
  return pids;
}

void expect_all(const std::string& nodes, const Body& body, ConnectOptions options = {}) {
  for (pid_t pid : spawn_gang(nodes, body, options)) EXPECT_EQ(exit_code(pid), 0) << nodes;
}

// One rank a node, two, not the same number, not neighbours, all in one.
TEST(Connect, OperationsGiveTheSumsWhereverTheRanksAre) {
  for (const char* nodes : {"ab", "abcd", "aabb", "abab", "aab", "abb", "aaabb", "abcab", "aaa"}) {
    expect_all(nodes, [](Group& group) {
      for (size_t size : {0, 1, 3, 7, 1000, 100'003}) {
        if (!operations_work<float>(group, size) || !operations_work<Bf16>(group, size)) return false;
      }
      return true;
    });
  }
}

// In float32 (1e8 + 1) + (-1e8 + 1) is 0, ((1e8 + 1) - 1e8) + 1 is 1.
TEST(Connect, SumsAreTakenInsideOfTheNodesAndThenInTheirOrder) {
  for (const auto& [nodes, sum] : {std::pair("aabb", 0.f), std::pair("abcd", 1.f)}) {
    expect_all(nodes, [sum = sum](Group& group) {
      const float mine[] = {1e8f, 1.f, -1e8f, 1.f};
      for (int round = 0; round < 20; ++round) {
        if (group.rank() == round % 4) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        std::vector<float> data(9, mine[group.rank()]);
        if (!group.all_reduce(data) || data != std::vector<float>(9, sum)) return false;
      }
      return true;
    });
  }
}

TEST(Connect, SumsOfBfloat16AreRoundedOnce) {
  for (const char* nodes : {"abcd", "aabb", "aaab"}) {
    expect_all(nodes, [](Group& group) {
      std::vector<Bf16> data(101, to_bf16(group.rank() == 0 ? 256.f : 1.f));
      return group.all_reduce(data) && same(data, std::vector<Bf16>(101, to_bf16(259.f)), 0, 101);
    });
  }
}

TEST(Connect, AMessageOfAnotherSizeIsRefused) {
  expect_all("ab", [](Group& group) {
    std::vector<float> data(group.rank() == 0 ? 10 : 12);
    if (group.rank() == 0) return group.send(data, 1).has_value() || !group.barrier();
    return group.receive(data, 0).error().message.find("40 bytes to rank 1, which wants 48") !=
           std::string::npos;
  });
}

/// Runs until an operation fails; whether its message has both parts and comes again.
bool fails_with(Group& group, std::string_view who, std::string_view what) {
  std::vector<float> data(5000);
  Status status;
  while (status) status = group.all_reduce(data);
  const std::string& message = status.error().message;
  const bool named = message.find(who) != std::string::npos && message.find(what) != std::string::npos;
  if (!named) std::fprintf(stderr, "rank %d: %s\n", group.rank(), message.c_str());
  return named && status.error().code == Code::kUnavailable && group.barrier().error().message == message;
}

void expect_named(const std::string& nodes, size_t victim, int signal, const std::string& who,
                  const std::string& what) {
  const auto pids = spawn_gang(nodes, [=](Group& group) { return fails_with(group, who, what); });
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  const auto start = Clock::now();
  kill(pids[victim], signal);
  for (size_t rank = 0; rank < pids.size(); ++rank) {
    if (rank == victim) continue;
    EXPECT_EQ(exit_code(pids[rank]), 0) << nodes << " rank " << rank;
  }
  EXPECT_LT(Clock::now() - start, std::chrono::seconds(5)) << nodes;
  kill(pids[victim], SIGKILL);
  EXPECT_EQ(exit_code(pids[victim]), 128 + SIGKILL);
}

TEST(Connect, AKilledPeerIsNamedByAll) {
  expect_named("abc", 2, SIGKILL, "rank 2 on node c", "died");
  expect_named("aabb", 1, SIGKILL, "rank 1 on node a", "died");
  expect_named("ab", 0, SIGKILL, "rank 0 on node a", "died");  // where the others meet
}

TEST(Connect, AStoppedPeerIsNamedByAll) {
  expect_named("aabb", 3, SIGSTOP, "rank 3 on node b", "no sign of life");
  expect_named("abc", 0, SIGSTOP, "rank 0 on node a", "no sign of life");
}

// Who computes for longer than a heartbeat's patience is not gone.
TEST(Connect, ASlowPeerIsWaitedFor) {
  expect_all("aab",
             [](Group& group) {
               if (group.rank() == 2) std::this_thread::sleep_for(std::chrono::milliseconds(2500));
               return group.barrier().has_value();
             },
             {.silence_ns = kSecond});
}

TEST(Connect, APeerThatLeavesIsNamed) {
  expect_all("abb",
             [](Group& group) { return group.rank() == 1 || fails_with(group, "rank 1 on node b", "left"); });
}

TEST(Connect, RanksThatDisagreeFindOut) {
  for (const char* nodes : {"ab", "aabb"}) {
    expect_all(nodes, [](Group& group) {
      std::vector<float> data(group.rank() == group.world_size() - 1 ? 10 : 12);
      Status status = group.all_gather(data);
      return !status && (status.error().code == Code::kInternal ||
                         status.error().message.find("disagree") != std::string::npos);
    });
  }
}

TEST(Connect, ARankThatDoesNotComeIsNamed) {
  const int port = free_port();
  const ConnectOptions options = {.connect_timeout_ns = kSecond / 2, .memory = "a"};
  std::vector<pid_t> pids;
  for (int rank : {0, 1}) {
    pids.push_back(spawn([=] {
      auto group = connect(meeting(rank, "aab", port), options);
      return !group && group.error().code == Code::kDeadlineExceeded &&
             group.error().message.find("for rank(s) 2") != std::string::npos;
    }));
  }
  for (pid_t pid : pids) EXPECT_EQ(exit_code(pid), 0);
  auto alone = connect(meeting(1, "ab", port), options);
  EXPECT_NE(alone.error().message.find("nobody answers"), std::string::npos) << alone.error().message;
}

TEST(Connect, NamesWhatIsWrongWithTheMeetingPlace) {
  Rendezvous rendezvous = meeting(0, "ab", 0);
  EXPECT_NE(connect(rendezvous, {.memory = "a"}).error().message.find("MASTER_PORT is missing"),
            std::string::npos);
  rendezvous = meeting(1, "ab", 1);
  rendezvous.master_addr = "no.such.host.invalid";
  EXPECT_EQ(connect(rendezvous, {.memory = "a"}).error().code, Code::kInvalidArgument);
}

TEST(Connect, AnotherGangAtThePortIsToldApart) {
  const int port = free_port();
  const pid_t first = spawn(
      [=] { return !connect(meeting(0, "ab", port), {.connect_timeout_ns = 2 * kSecond, .memory = "a"}); });
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  auto second = connect(meeting(0, "ab", port), {.memory = "a"});
  EXPECT_EQ(second.error().code, Code::kAlreadyExists);
  Rendezvous stranger = meeting(1, "ab", port);
  stranger.job_id = "another";
  auto lost = connect(stranger, {.memory = "b"});
  EXPECT_EQ(lost.error().code, Code::kInvalidArgument);
  EXPECT_NE(lost.error().message.find("another gang meets"), std::string::npos) << lost.error().message;
  EXPECT_EQ(exit_code(first), 0);  // and waited on for its own
}

}  // namespace
}  // namespace th::collective
