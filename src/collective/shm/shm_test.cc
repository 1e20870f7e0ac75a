// Real processes: each rank is a fork that reports through its exit code.

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <functional>
#include <numeric>
#include <thread>
#include <vector>

#include "base/env.h"
#include "collective/shm/connect.h"
#include "collective/test_ranks.h"

namespace th::collective {
namespace {

using Clock = std::chrono::steady_clock;
using Body = std::function<bool(Group&)>;

Rendezvous meeting(int rank, int world_size) {
  static std::atomic<int> next = 0;
  static int current = 0;
  if (rank == 0) current = next++;
  return {.rank = rank,
          .world_size = world_size,
          .master_port = 1,
          .job_id = std::to_string(getppid()) + "t",
          .attempt = current};
}

std::vector<pid_t> spawn_gang(int world_size, const Body& body, ShmOptions options = {}) {
  std::vector<pid_t> pids;
  for (int rank = 0; rank < world_size; ++rank) {
    const Rendezvous rendezvous = meeting(rank, world_size);
    pids.push_back(spawn([=] {
      auto group = connect_shm(rendezvous, options);
      if (!group) std::fprintf(stderr, "%s\n", group.error().message.c_str());
      return group && body(*group);
    }));
  }
  return pids;
}

void expect_all(int world_size, const Body& body, ShmOptions options = {}) {
  for (pid_t pid : spawn_gang(world_size, body, options)) EXPECT_EQ(exit_code(pid), 0);
}

// Slots of 1 KiB make every operation take several rounds; sizes around multiples of world and slot.
TEST(Shm, OperationsGiveTheSums) {
  for (int world : {2, 3, 4, 5}) {
    expect_all(world,
               [](Group& group) {
                 for (size_t size : {0, 1, 3, 4, 255, 256, 257, 1024, 5000, 5003}) {
                   if (!operations_work<float>(group, size) || !operations_work<Bf16>(group, size))
                     return false;
                 }
                 return true;
               },
               {.slot_bytes = 1024});
  }
}

// The same sizes on all ranks, of no particular kind; the default slots.
TEST(Shm, OperationsGiveTheSumsOfAnySize) {
  expect_all(3, [](Group& group) {
    Prng random(17);
    for (int i = 0; i < 30; ++i) {
      const size_t size = random.below(i % 5 == 0 ? 600'000 : 3000);
      if (!(i % 2 == 0 ? operations_work<float>(group, size) : operations_work<Bf16>(group, size)))
        return false;
    }
    return true;
  });
}

// 256 + 1 is no bfloat16: rounded at each step the sum would stay 256.
TEST(Shm, SumsOfBfloat16AreRoundedOnce) {
  expect_all(4, [](Group& group) {
    std::vector<Bf16> data(100, to_bf16(group.rank() == 0 ? 256.f : 1.f));
    return group.all_reduce(data) && same(data, std::vector<Bf16>(100, to_bf16(259.f)), 0, 100) &&
           to_float(data[0]) == 260.f;  // bfloat16 has 8 bits: 258 and 260 are the neighbours of 259
  });
}

// Two of four talk to each other while the others have left.
TEST(Shm, MessagesBetweenTwoNeedNobodyElse) {
  expect_all(4, [](Group& group) {
    if (group.rank() > 1) return true;
    for (size_t size : {1, 100'000, 7}) {
      std::vector<float> data = values_of<float>(group.rank(), size);
      if (group.rank() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(150));
      if (!(group.rank() == 0 ? group.send(data, 1) : group.receive(data, 0))) return false;
      if (data != values_of<float>(0, size)) return false;
    }
    return true;
  });
}

TEST(Shm, AMessageOfAnotherSizeIsRefused) {
  expect_all(2, [](Group& group) {
    std::vector<float> data(group.rank() == 0 ? 10 : 12);
    const Status status = group.rank() == 0 ? group.send(data, 1) : group.receive(data, 0);
    return status.error().code == Code::kInternal;
  });
}

// 1e8 + 1 - 1e8 in float32 is 0 from left to right and 1 in the order of (0,2,1).
TEST(Shm, SumsInTheOrderOfTheRanks) {
  expect_all(3, [](Group& group) {
    const float mine[] = {1e8f, 1.f, -1e8f};
    bool ok = true;
    for (int round = 0; round < 50; ++round) {
      if (group.rank() == round % 3) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      std::vector<float> data(6, mine[group.rank()]);
      ok = ok && group.all_reduce(data).has_value() && data == std::vector<float>(6, 0.f);
    }
    return ok;
  });
}

TEST(Shm, AKilledPeerIsNamedInTime) {
  const auto pids = spawn_gang(3, [](Group& group) {
    std::vector<float> data(1000);
    for (;;) {
      if (group.rank() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(5));
      if (Status status = group.all_reduce(data); !status) {
        return status.error().code == Code::kUnavailable &&
               status.error().message.find("rank 1 (pid ") != std::string::npos && !group.barrier();
      }
    }
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  const auto killed = Clock::now();
  kill(pids[1], SIGKILL);  // and not waited for: a zombie is dead, too
  EXPECT_EQ(exit_code(pids[0]), 0);
  EXPECT_EQ(exit_code(pids[2]), 0);
  EXPECT_LT(Clock::now() - killed, std::chrono::seconds(5));
  EXPECT_EQ(exit_code(pids[1]), 128 + SIGKILL);
}

TEST(Shm, AStoppedPeerIsNamedInTime) {
  const auto pids = spawn_gang(2,
                               [](Group& group) {
                                 Status status;
                                 while (status) status = group.barrier();
                                 return status.error().message.find("rank 1 (pid ") != std::string::npos &&
                                        status.error().message.find("no sign of life") != std::string::npos;
                               },
                               {.silence_ns = kSecond});
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  kill(pids[1], SIGSTOP);
  const auto stopped = Clock::now();
  EXPECT_EQ(exit_code(pids[0]), 0);
  EXPECT_LT(Clock::now() - stopped, std::chrono::seconds(3));
  kill(pids[1], SIGKILL);
  exit_code(pids[1]);
}

TEST(Shm, APeerThatLeavesIsNamed) {
  expect_all(3, [](Group& group) {
    if (group.rank() == 2) return true;
    Status status;
    while (status) status = group.barrier();
    return status.error().message.find("rank 2 (pid ") != std::string::npos;
  });
}

TEST(Shm, RanksThatDisagreeAboutTheKindFindOut) {
  expect_all(2, [](Group& group) {
    std::vector<float> wide(8);
    std::vector<Bf16> narrow(8);
    return (group.rank() == 0 ? group.all_reduce(wide) : group.all_reduce(narrow)).error().code ==
           Code::kInternal;
  });
}

TEST(Shm, RanksThatDisagreeFindOut) {
  expect_all(2, [](Group& group) {
    std::vector<float> data(group.rank() == 0 ? 10 : 12);
    return group.all_gather(data).error().code == Code::kInternal;
  });
}

TEST(Shm, ARankThatDoesNotComeIsNamed) {
  const Rendezvous first = meeting(0, 3), second = meeting(1, 3);
  const ShmOptions options = {.connect_timeout_ns = 300 * kMillisecond};
  auto misses = [options](const Rendezvous& r) {
    return spawn([=] {
      auto group = connect_shm(r, options);
      return !group && (group.error().message.find("for rank(s) 2") != std::string::npos ||
                        group.error().message.find("left the group before") != std::string::npos);
    });
  };
  const pid_t a = misses(first), b = misses(second);
  EXPECT_EQ(exit_code(a), 0);
  EXPECT_EQ(exit_code(b), 0);
}

TEST(Shm, AfterAGangThatDiedBeforeItMetTheNextOneMeets) {
  const Rendezvous first = meeting(0, 2), second = meeting(1, 2);
  const pid_t dead = spawn([=] { return connect_shm(first, {}).has_value(); });
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  kill(dead, SIGKILL);
  EXPECT_EQ(exit_code(dead), 128 + SIGKILL);
  auto meet = [](const Rendezvous& r) {
    return spawn([=] {
      auto group = connect_shm(r, {});
      return group && group->barrier().has_value();
    });
  };
  const pid_t late = meet(second);
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  const pid_t again = meet(first);
  EXPECT_EQ(exit_code(late), 0);
  EXPECT_EQ(exit_code(again), 0);
}

TEST(Shm, TwoGangsDoNotMeetInOnePlace) {
  const Rendezvous first = meeting(0, 2);
  const pid_t waits = spawn([=] { return connect_shm(first, {}).has_value(); });
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_EQ(exit_code(spawn([=] { return connect_shm(first, {}).error().code == Code::kAlreadyExists; })), 0);
  kill(waits, SIGKILL);
  exit_code(waits);
}

TEST(Shm, AnotherHostIsRefused) {
  Rendezvous elsewhere = meeting(0, 2);
  elsewhere.master_addr = "192.0.2.1";
  auto group = connect_shm(elsewhere, {});  // TEST-NET-1
  EXPECT_EQ(group.error().code, Code::kInvalidArgument);
}

}  // namespace
}  // namespace th::collective
