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

const model::ParameterLayout& layout() {
  static const model::ParameterLayout layout({.vocab_size = 7,
                                              .hidden_size = 4,
                                              .intermediate_size = 3,
                                              .num_hidden_layers = 2,
                                              .num_attention_heads = 1,
                                              .num_key_value_heads = 1,
                                              .head_dim = 4});
  return layout;
}

/// What one rank would hold after `step`: every number tells its place and the step.
struct Numbers {
  Numbers(collective::Group& group, float step)
      : parts(owned_parts(layout(), group.rank(), group.world_size())),
        weights(parts.back().at + parts.back().size()),
        m(weights.size()),
        v(weights.size()) {
    for (const Owned& part : parts) {
      for (int64_t i = part.begin; i < part.end; ++i) {
        const auto at = part.at + static_cast<size_t>(i - part.begin);
        weights[at] = 1000 * step + static_cast<float>(i);
        m[at] = weights[at] + 0.25f, v[at] = weights[at] + 0.5f;
      }
    }
  }
  std::vector<StatePart> state() {
    std::vector<StatePart> state;
    const auto take = [](std::vector<float>& all, const Owned& part) {
      return std::span(all).subspan(part.at, part.size());
    };
    for (const Owned& part : parts)
      state.push_back({part.begin, take(weights, part), take(m, part), take(v, part)});
    return state;
  }
  bool operator==(const Numbers& other) const {
    return weights == other.weights && m == other.m && v == other.v;
  }

  std::vector<Owned> parts;
  std::vector<float> weights, m, v;
};

Status save(Checkpoints& checkpoints, const CheckpointMeta& meta, Numbers& numbers) {
  TH_RETURN_IF_ERROR(checkpoints.begin(meta, numbers.state()));
  checkpoints.wait_part(0);
  return checkpoints.finish();
}

bool save_steps(const fs::path& folder, collective::Group& group, std::initializer_list<int64_t> steps) {
  Checkpoints checkpoints(folder, 2, group, layout());
  for (int64_t step : steps) {
    Numbers numbers(group, static_cast<float>(step));
    if (!save(checkpoints, {step, 4 * step, 9.f, 5.f, "print"}, numbers)) return false;
  }
  return true;
}

/// The step that is loaded, checked number by number; -1: none, -2: wrong numbers or an error.
int64_t loaded_step(const fs::path& folder, collective::Group& group,
                    const std::string& fingerprint = "print") {
  Numbers numbers(group, 0);
  auto meta = Checkpoints(folder, 2, group, layout()).load_newest(fingerprint, numbers.state());
  if (!meta) return -2;
  if (!*meta) return -1;
  const CheckpointMeta want = {(*meta)->step, 4 * (*meta)->step, 9.f, 5.f, "print"};
  return **meta == want && numbers == Numbers(group, static_cast<float>(want.step)) ? want.step : -2;
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
      [](const fs::path& step) { std::ofstream(step / "manifest.json") << "{\"version\":1}"; },
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
  Checkpoints checkpoints(folder.path(), 2, alone, layout());
  Numbers numbers(alone, 1);
  EXPECT_TRUE(save(checkpoints, {1, 4 * 1, 9.f, 5.f, "print"}, numbers).has_value());
  std::ofstream(folder.path() / "filler") << std::string(64 << 10, 'x');  // no room for a second one
  const Status full = save(checkpoints, {2, 4 * 2, 9.f, 5.f, "print"}, numbers);
  EXPECT_EQ(full.error().code, Code::kNoSpace);
  Numbers loaded(alone, 0);
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
