#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/config.h"
#include "base/env.h"
#include "base/files.h"
#include "base/json.h"
#include "base/text.h"
#include "base/units.h"

namespace th {
namespace {

using testing::HasSubstr;

TEST(Units, DurationsInBothForms) {
  EXPECT_EQ(parse_duration_ns("90s"), 90 * kSecond);
  EXPECT_EQ(parse_duration_ns("1h30m"), 90 * kMinute);
  EXPECT_EQ(parse_duration_ns("250ms"), 250 * kMillisecond);
  EXPECT_EQ(parse_duration_ns("10"), 10 * kMinute);  // Slurm: minutes
  EXPECT_EQ(parse_duration_ns("1:30"), 90 * kSecond);
  EXPECT_EQ(parse_duration_ns("02:00:05"), 2 * kHour + 5 * kSecond);
  EXPECT_EQ(parse_duration_ns("1-12"), 36 * kHour);
  EXPECT_EQ(parse_duration_ns("1-00:30"), kDay + 30 * kMinute);
  for (const char* bad : {"", "h", "1x", "-5s", "1:2:3:4", "200000d", "1h 5m", "nan s"}) {
    EXPECT_FALSE(parse_duration_ns(bad)) << bad;
  }
}

TEST(Units, BytesAndMoney) {
  EXPECT_EQ(parse_bytes("3GiB"), 3ll << 30);
  EXPECT_EQ(parse_bytes("1.5 MiB"), 1572864);
  EXPECT_EQ(parse_bytes("2GB"), 2'000'000'000);
  EXPECT_FALSE(parse_bytes("3 gigs"));
  EXPECT_EQ(parse_money_microusd("$1.25"), 1'250'000);
  EXPECT_EQ(parse_money_microusd("0.000001"), 1);
  EXPECT_FALSE(parse_money_microusd("0.0000001"));
  EXPECT_FALSE(parse_money_microusd("-1"));
  EXPECT_EQ(format_money(1'250'001), "$1.250001");
  EXPECT_EQ(format_money(-1), "-$0.000001");
}

TEST(Units, CostIsExactAndRoundsHalfUp) {
  EXPECT_EQ(cost_microusd(4, kHour, 500'000), 2'000'000);
  EXPECT_EQ(cost_microusd(1, kHour / 2, 1), 1);      // half a micro-dollar
  EXPECT_EQ(cost_microusd(1, kHour / 2 - 1, 1), 0);  // a nanosecond less
  EXPECT_EQ(cost_microusd(131'072, 365 * kDay, 12'290'000), 131'072ll * 365 * 24 * 12'290'000);
}

TEST(Units, FormatsForPeople) {
  EXPECT_EQ(format_duration(90 * kMinute), "1h30m");
  EXPECT_EQ(format_duration(2'500 * kMillisecond), "2.5s");
  EXPECT_EQ(format_duration(340 * kMillisecond), "340ms");
  EXPECT_EQ(format_bytes(1'610'612'736), "1.5 GiB");
  EXPECT_EQ(format_time(0), "1970-01-01T00:00:00.000Z");
}

TEST(Files, LieInAFolderByTheirNames) {
  EXPECT_TRUE(lies_in("/a/b", "/a/b"));
  EXPECT_TRUE(lies_in("/a/b/c", "/a/b"));
  EXPECT_FALSE(lies_in("/a/bc", "/a/b"));
  EXPECT_FALSE(lies_in("/a/b/../c", "/a/b"));
  EXPECT_FALSE(lies_in("/a", "/a/b"));
}

TEST(Text, NearestFindsTypos) {
  std::vector<std::string> keys = {"power_budget_w", "hosts", "leaf"};
  EXPECT_EQ(nearest("power_budgt_w", keys), "power_budget_w");
  EXPECT_EQ(nearest("hsots", keys), "hosts");
  EXPECT_EQ(nearest("zzz", keys), std::nullopt);
  EXPECT_EQ(did_you_mean("laef", keys), ", did you mean 'leaf'?");
}

TEST(Text, CountsInWords) {
  EXPECT_EQ(counted(1, "GPU"), "1 GPU");
  EXPECT_EQ(counted(0, "host"), "0 hosts");
}

TEST(Text, NamesAndSecrets) {
  EXPECT_TRUE(check_name("llama-small.v2", "model"));
  for (const char* bad : {"", "-x", "a b", "a/b", "../x"}) EXPECT_FALSE(check_name(bad, "model")) << bad;
  // FIPS 180-4 example: SHA-256("abc").
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(random_token().size(), 64u);
  EXPECT_NE(random_token(), random_token());
  EXPECT_TRUE(equal_secret("abc", "abc"));
  EXPECT_FALSE(equal_secret("abc", "abd"));
  EXPECT_FALSE(equal_secret("abc", "ab"));
}

TEST(Prng, SameSeedSameNumbers) {
  Prng a(7), b(7), c(8);
  bool differs = false;
  for (int i = 0; i < 1000; ++i) {
    uint64_t x = a.next();
    EXPECT_EQ(x, b.next());
    differs = differs || x != c.next();
    EXPECT_LT(a.below(10), 10u);
    b.below(10);
  }
  EXPECT_TRUE(differs);
}

TEST(Json, NamesFieldAndType) {
  Json object = *parse_json(R"({"gpus":"four","name":"x","big":18446744073709551615})", "body");
  EXPECT_EQ(get_int(object, "gpus").error().message, "field 'gpus': want an integer, got string");
  EXPECT_EQ(get_int(object, "none").error().message, "field 'none' is missing");
  EXPECT_EQ(get_int(object, "none", 3), 3);
  EXPECT_FALSE(get_int(object, "big"));
  EXPECT_EQ(get_string(object, "name"), "x");
  EXPECT_THAT(parse_json("{\"a\":", "body").error().message, HasSubstr("body: not JSON"));
  EXPECT_FALSE(parse_json(std::string(100, '[') + std::string(100, ']'), "body"));
  EXPECT_EQ(dump_json(Json{{"a", "\xff"}}), "{\"a\":\"\uFFFD\"}");
}

TEST(Config, NamesFileLineKeyAndNearest) {
  const char* text = "name: desk\nracks:\n  - id: r1\n    power_budgt_w: 5\n";
  Config root = *Config::parse(text, "desk.yaml", {"name", "racks"});
  EXPECT_EQ(root.maps("racks", {"id", "power_budget_w"}).error().message,
            "desk.yaml:4: racks[0].power_budgt_w: unknown key, did you mean 'power_budget_w'?");
  EXPECT_EQ(root.integer("name").error().message, "desk.yaml:1: name: want an integer, got 'desk'");
  EXPECT_THAT(Config::parse("a: [", "x.yaml", {"a"}).error().message, HasSubstr("x.yaml:1: not YAML"));
  EXPECT_THAT(Config::parse("a: 1\na: 2\n", "x.yaml", {"a"}).error().message,
              HasSubstr("x.yaml:2: a: stands here twice"));
  EXPECT_FALSE(Config::parse("- 1\n", "x.yaml", {}));
  EXPECT_FALSE(Config::parse(std::string(100'000, '['), "x.yaml", {}));
  EXPECT_FALSE(Config::parse("a: *a\n", "x.yaml", {"a"}));
}

TEST(Config, RangesAndUnits) {
  Config c =
      *Config::parse("n: -5\nt: 1h\nb: 1_000\ns: [x, y]\nm: {k: v}\n", "c.yaml", {"n", "t", "b", "s", "m"});
  EXPECT_EQ(c.integer("n", {.min = 1}).error().message, "c.yaml:1: n: want an integer >= 1, got '-5'");
  EXPECT_EQ(c.duration_ns_or("t", 0), kHour);
  EXPECT_EQ(c.integer("b"), 1000);
  EXPECT_EQ(c.strings("s"), (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ(c.string_map("m")->at(0), (std::pair<std::string, std::string>{"k", "v"}));
  EXPECT_EQ(c.integer_or("none", 7), 7);
}

class Folder : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "th-base-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    path = name;
  }
  void TearDown() override { std::filesystem::remove_all(path); }
  std::filesystem::path path;
};

TEST_F(Folder, DurableWriteReplacesWhole) {
  ASSERT_TRUE(write_file_durable(path / "key", "one", 0600));
  ASSERT_TRUE(write_file_durable(path / "key", "two", 0600));
  EXPECT_EQ(read_file(path / "key"), "two");
  struct stat info {};
  ASSERT_EQ(::stat((path / "key").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(path), {}), 1);
  EXPECT_EQ(read_file(path / "none").error().code, Code::kNotFound);
  EXPECT_EQ(read_file(path / "key", 2).error().code, Code::kInvalidArgument);
}

TEST_F(Folder, LockNamesItsHolder) {
  auto first = FileLock::acquire(path / "lock");
  ASSERT_TRUE(first);
  auto second = FileLock::acquire(path / "lock");
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, Code::kAlreadyExists);
  EXPECT_THAT(second.error().message, HasSubstr(std::to_string(::getpid())));
  { FileLock gone = *std::move(first); }
  EXPECT_TRUE(FileLock::acquire(path / "lock"));
}

}  // namespace
}  // namespace th
