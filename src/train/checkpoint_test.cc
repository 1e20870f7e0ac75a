#include "train/checkpoint.h"

#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/resource.h>

#include <csignal>
#include <fstream>
#include <numeric>
#include <thread>

#include "train/test_gang.h"

namespace th::train {
namespace {

namespace fs = std::filesystem;

/// What one rank would hold after `step`: every number tells its place and the step.
struct Numbers {
  Numbers(size_t size, collective::Group& group, float step)
      : shard(collective::shard_of(size, group.rank(), group.world_size())),
        params(size),
        m(shard.size()),
        v(shard.size()) {
    std::iota(params.begin(), params.end(), 1000 * step);
    std::iota(m.begin(), m.end(), 1000 * step + static_cast<float>(shard.begin) + 0.25f);
    std::iota(v.begin(), v.end(), 1000 * step + static_cast<float>(shard.begin) + 0.5f);
  }
  TrainState state() { return {.params = params, .m = m, .v = v}; }
  bool operator==(const Numbers& other) const {
    return params == other.params && m == other.m && v == other.v;
  }

  collective::Shard shard;
  std::vector<float> params, m, v;
};

constexpr size_t kSize = 101;

bool save_steps(const fs::path& folder, collective::Group& group, std::initializer_list<int64_t> steps) {
  Checkpoints checkpoints(folder, 2, group);
  for (int64_t step : steps) {
    if (!checkpoints.save({step, 4 * step, 9.f, 5.f, "print"},
                          Numbers(kSize, group, static_cast<float>(step)).state()))
      return false;
  }
  return true;
}

/// The step that is loaded, checked number by number; -1: none, -2: wrong numbers or an error.
int64_t loaded_step(const fs::path& folder, collective::Group& group,
                    const std::string& fingerprint = "print") {
  Numbers numbers(kSize, group, 0);
  auto meta = Checkpoints(folder, 2, group).load_newest(fingerprint, numbers.state());
  if (!meta) return -2;
  if (!*meta) return -1;
  const CheckpointMeta want = {(*meta)->step, 4 * (*meta)->step, 9.f, 5.f, "print"};
  return **meta == want && numbers == Numbers(kSize, group, static_cast<float>(want.step)) ? want.step : -2;
}

TEST(Checkpoint, KeepsTheNewestAndLoadsThemAtAnyWorldSize) {
  TemporaryFolder folder;
  EXPECT_TRUE(run_gang(3, [&](auto& group) { return save_steps(folder.path(), group, {10, 20, 30}); }));
  EXPECT_EQ(list_checkpoints(folder.path()), (std::vector<int64_t>{30, 20}));
  for (int world : {1, 2, 3, 4}) {
    EXPECT_TRUE(run_gang(world, [&](auto& group) { return loaded_step(folder.path(), group) == 30; }))
        << world;
  }
  collective::Group alone;
  EXPECT_EQ(loaded_step(folder.path(), alone, "another model"), -1);
  EXPECT_EQ(loaded_step(folder.path() / "none", alone), -1);
}

TEST(Checkpoint, ADamagedOneIsPassedOver) {
  collective::Group alone;
  auto flip = [](const fs::path& file) {
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekp(100);
    stream.put('!');
  };
  const std::vector<std::function<void(const fs::path&)>> damages = {
      [&](const fs::path& step) { flip(step / "shard-00000.bin"); },
      [](const fs::path& step) { fs::resize_file(step / "shard-00000.bin", 100); },
      [](const fs::path& step) { fs::remove(step / "shard-00000.bin"); },
      [](const fs::path& step) { fs::remove(step / "manifest.json"); },
      [](const fs::path& step) { std::ofstream(step / "manifest.json") << "{"; },
      [](const fs::path& step) { std::ofstream(step / "manifest.json") << "{\"version\":2}"; },
      [](const fs::path& step) { fs::rename(step, step.string() + ".tmp"); },
  };
  for (size_t i = 0; i < damages.size(); ++i) {
    TemporaryFolder folder;
    ASSERT_TRUE(save_steps(folder.path(), alone, {10, 20}));
    damages[i](folder.path() / "step-000020");
    EXPECT_EQ(loaded_step(folder.path(), alone), 10) << i;
    ASSERT_TRUE(save_steps(folder.path(), alone, {20}));  // training comes by again
    EXPECT_EQ(loaded_step(folder.path(), alone), 20) << i;
  }
}

TEST(Checkpoint, AWriteThatFailsOnOneRankFailsOnAllAndLeavesTheOldOne) {
  TemporaryFolder folder;
  EXPECT_TRUE(run_gang(2, [&](auto& group) {
    if (!save_steps(folder.path(), group, {10})) return false;
    if (group.rank() == 1) {  // as on a full disk: no file may grow over 64 bytes
      std::signal(SIGXFSZ, SIG_IGN);
      const rlimit small = {64, RLIM_INFINITY}, large = {RLIM_INFINITY, RLIM_INFINITY};
      setrlimit(RLIMIT_FSIZE, &small);
      const bool failed = !save_steps(folder.path(), group, {20});
      setrlimit(RLIMIT_FSIZE, &large);
      return failed && loaded_step(folder.path(), group) == 10 && save_steps(folder.path(), group, {30});
    }
    return !save_steps(folder.path(), group, {20}) && !fs::exists(folder.path() / "step-000020.tmp") &&
           loaded_step(folder.path(), group) == 10 && save_steps(folder.path(), group, {30});
  }));
  EXPECT_EQ(list_checkpoints(folder.path()), (std::vector<int64_t>{30, 10}));
}

TEST(Checkpoint, AFullDiskLeavesTheOldOne) {
  TemporaryFolder folder;
  if (mount("tmpfs", folder.path().c_str(), "tmpfs", 0, "size=64k") != 0)
    GTEST_SKIP() << "mounting a tmpfs wants root";
  collective::Group alone;
  const size_t size = 3000;  // 36 KB a checkpoint: the second has no room beside the first
  Checkpoints checkpoints(folder.path(), 2, alone);
  Numbers numbers(size, alone, 1);
  EXPECT_TRUE(checkpoints.save({1, 4 * 1, 9.f, 5.f, "print"}, numbers.state()).has_value());
  const Status full = checkpoints.save({2, 4 * 2, 9.f, 5.f, "print"}, numbers.state());
  EXPECT_EQ(full.error().code, Code::kNoSpace);
  Numbers loaded(size, alone, 0);
  auto meta = checkpoints.load_newest("print", loaded.state());
  EXPECT_EQ(meta.value().value().step, 1);
  EXPECT_TRUE(loaded == numbers);
  umount(folder.path().c_str());
}

TEST(Checkpoint, KilledInTheMiddleAnOlderOneIsIntact) {
  TemporaryFolder folder;
  int64_t before = 1;
  for (int round = 0; round < 8; ++round) {
    const auto pids = start_gang(2, [&](auto& group) {
      int64_t step = std::max<int64_t>(loaded_step(folder.path(), group), 0);
      while (++step) {
        if (!save_steps(folder.path(), group, {step})) return false;
      }
      return true;
    });
    while (list_checkpoints(folder.path()).empty()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    std::this_thread::sleep_for(std::chrono::milliseconds(40 + 7 * round));
    for (pid_t pid : pids) kill(pid, SIGKILL);
    wait_gang(pids);
    collective::Group alone;
    const int64_t after = loaded_step(folder.path(), alone);
    EXPECT_GE(after, before);
    before = after;
  }
}

}  // namespace
}  // namespace th::train
