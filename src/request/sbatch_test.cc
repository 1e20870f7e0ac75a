// What the options mean is from Slurm's manual, https://slurm.schedmd.com/sbatch.html.
#include "request/sbatch.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/units.h"
#include "request/job_options.h"

namespace th::request {
namespace {

constexpr int64_t kNowNs = int64_t{1'800'000'000} * kSecond;  // 2027-01-15T08:00:00Z, a Friday

class Sbatch : public ::testing::Test {
 protected:
  void SetUp() override {
    ::setenv("TZ", "UTC", 1);
    ::tzset();
  }
};

std::string message_of(const auto& result) {
  EXPECT_FALSE(result.has_value());
  if (result) return "";
  EXPECT_EQ(result.error().code, Code::kInvalidArgument);
  return result.error().message;
}

Result<SbatchRequest> of_words(std::vector<std::string> words) {
  TH_TRY(SbatchWords read, read_sbatch_words(words, ""));
  return sbatch_request(read.options, kNowNs);
}

Result<SbatchRequest> of_script(const std::string& lines) {
  TH_TRY(auto options, read_sbatch_script("#!/bin/sh\n" + lines, "job.sh"));
  return sbatch_request(options, kNowNs);
}

JobSpec spec_of(const std::string& lines) {
  auto request = of_script(lines);
  EXPECT_TRUE(request.has_value()) << lines << ": " << (request ? "" : request.error().message);
  return request ? request->spec : JobSpec();
}

TEST_F(Sbatch, EveryOptionOfAScript) {
  auto request = of_script(
      "#SBATCH --job-name=train -p demo   # where\n"
      "#SBATCH -N 2 --ntasks-per-node=4 --gpus-per-node 8\n"
      "##SBATCH --nonsense\n"
      "\n"
      "# a comment\n"
      "#SBATCH -t 1-12:30:00 -A \"team-a\" -q high\n"
      "#SBATCH -w 'node[1-3,07]',gpu5 -x r1h2 -C \"LOCAL&(leaf1|leaf2)\"\n"
      "#SBATCH -d afterok:12:13,after:job-14+5 -a 0-15:2%4\n"
      "#SBATCH -o out\\ %A_%a.txt -e err-%j.txt --switches=1@2:00 --segment=2\n"
      "#SBATCH --exclusive --no-requeue --signal=B:USR1@120 --reservation=res1 --test-only\n"
      "#SBATCH --begin=now+1hour --deadline 2027-12-31T08:00:00 --nice=7 --mem=4G\n"
      "srun hostname\n"
      "#SBATCH --too-late\n");
  ASSERT_TRUE(request.has_value()) << request.error().message;
  JobSpec want;
  want.batch = true, want.retries = 0, want.name = "train", want.slice = "demo";
  want.gpus = 16, want.min_nodes = want.max_nodes = 2, want.ntasks = 8, want.ntasks_per_node = 4;
  want.gpus_per_node = 8, want.duration_ns = 36 * kHour + 30 * kMinute, want.account = "team-a",
  want.qos = "high";
  want.nodelist = {"node1", "node2", "node3", "node07", "gpu5"}, want.exclude = {"r1h2"};
  want.constraint = "LOCAL&(leaf1|leaf2)", want.dependency = "afterok:12:13,after:job-14+5",
  want.array = "0-15:2%4";
  want.output = "out %A_%a.txt", want.error = "err-%j.txt", want.max_switches = 1,
  want.switches_wait_ns = 2 * kMinute;
  want.segment = 2, want.exclusive = true, want.requeue = false, want.signal = "B:USR1@120";
  want.reservation = "res1", want.begin_ns = kNowNs + kHour, want.nice = 7;
  want.deadline_ns = int64_t{1'830'240'000} * kSecond;  // date -u -d 2027-12-31T08:00:00 +%s
  EXPECT_EQ(to_json(request->spec).dump(), to_json(want).dump());
  EXPECT_EQ(request->spec, want);
  EXPECT_TRUE(request->test_only);
  EXPECT_EQ(request->notes, std::vector<std::string>{"job.sh:12: --mem changes nothing here"});
}

TEST_F(Sbatch, ShortAndLongFormsAreOne) {
  const std::vector<std::vector<std::string>> forms = {{"-N2", "-n", "8", "-pdemo"},
                                                       {"--nodes=2", "--ntasks", "8", "--partition=demo"},
                                                       {"-N", "2", "-n8", "-p", "demo"}};
  for (const auto& words : forms) EXPECT_EQ(of_words(words)->spec, of_words(forms[0])->spec);
  auto flags = of_words({"-QW", "--exclusive", "--parsable"});
  EXPECT_TRUE(flags->quiet && flags->wait && flags->parsable && flags->spec.exclusive);
  auto words = read_sbatch_words(std::vector<std::string>{"-N", "2", "job.sh", "-n", "4"}, "");
  EXPECT_EQ(words->rest, (std::vector<std::string>{"job.sh", "-n", "4"}))
      << "options after the script are its own";
  words = read_sbatch_words(std::vector<std::string>{"--", "-x.sh"}, "");
  EXPECT_EQ(words->rest, std::vector<std::string>{"-x.sh"});
}

TEST_F(Sbatch, TheCommandLineBeatsTheScript) {
  auto options = read_sbatch_script("#!/bin/sh\n#SBATCH -t 10 -J script\n", "job.sh").value();
  auto words = read_sbatch_words(std::vector<std::string>{"-t", "5"}, "").value();
  options.insert(options.end(), words.options.begin(), words.options.end());
  auto request = sbatch_request(options, kNowNs);
  EXPECT_EQ(request->spec.duration_ns, 5 * kMinute);
  EXPECT_EQ(request->spec.name, "script");
}

TEST_F(Sbatch, SizesFollowFromEachOther) {
  struct Case {
    const char* lines;
    int64_t gpus, min_gpus, min_nodes, max_nodes, ntasks;
  };
  const Case cases[] = {
      {"", 1, 0, 0, 0, 0},                           // one task
      {"#SBATCH -n 4", 4, 0, 0, 0, 4},               // a GPU a task
      {"#SBATCH -N 2", 2, 0, 2, 2, 2},               // a task a node
      {"#SBATCH -N 2-4", 4, 2, 2, 4, 4},             // as many as are free
      {"#SBATCH -N 2 --gres=gpu:4", 8, 0, 2, 2, 2},  // --gres counts each node
      {"#SBATCH --gres=gpu", 1, 0, 1, 1, 1},         // without a number: one
      {"#SBATCH -N 2-4 --gpus-per-node=8", 32, 16, 2, 4, 4},
      {"#SBATCH -G 16 --gpus-per-node=8", 16, 0, 2, 2, 2},
      {"#SBATCH -n 8 --ntasks-per-node=4", 8, 0, 2, 2, 8},
      {"#SBATCH -n 1 --gpus=4", 4, 0, 0, 0, 1},
      {"#SBATCH -N 1 -n 6 --gpus=2", 2, 0, 1, 1, 6},
  };
  for (const Case& c : cases) {
    const JobSpec spec = spec_of(c.lines);
    EXPECT_EQ(spec.gpus, c.gpus) << c.lines;
    EXPECT_EQ(spec.min_gpus, c.min_gpus) << c.lines;
    EXPECT_EQ(spec.min_nodes, c.min_nodes) << c.lines;
    EXPECT_EQ(spec.max_nodes, c.max_nodes) << c.lines;
    EXPECT_EQ(spec.ntasks, c.ntasks) << c.lines;
  }
  EXPECT_EQ(spec_of("#SBATCH --gpus 0.25").gpu_milli, 250);
  EXPECT_EQ(spec_of("#SBATCH -t 0").duration_ns, std::nullopt) << "0 is no limit";
  EXPECT_EQ(spec_of("#SBATCH --gres=gpu:h100:4 -C leaf1|leaf2").constraint, "(leaf1|leaf2)&h100");
}

TEST_F(Sbatch, WhatIsWrongIsNamedByItsLine) {
  const std::pair<const char*, const char*> cases[] = {
      {"#SBATCH --nodse=2", "job.sh:2: --nodse: unknown option, did you mean '--nodes'?"},
      {"\n#SBATCH -Z 2", "job.sh:3: -Z: unknown option"},
      {"#SBATCH -N two", "job.sh:2: --nodes: want a count or a range of 1 to"},
      {"#SBATCH -N 4-2", "job.sh:2: --nodes: want a count or a range"},
      {"#SBATCH -n", "job.sh:2: -n: its value is missing"},
      {"#SBATCH --requeue=yes", "job.sh:2: --requeue: takes no value"},
      {"#SBATCH -J 'a b", "job.sh:2: a ' has no end"},
      {"#SBATCH job2", "job.sh:2: 'job2' is no option"},
      {"#SBATCH --gres=fpga:1", "job.sh:2: --gres: want gpu"},
      {"#SBATCH -d afterok", "job.sh:2: --dependency: dependency 'afterok' wants a job"},
      {"#SBATCH -d aftrok:1",
       "job.sh:2: --dependency: dependency 'aftrok' is unknown, did you mean 'afterok'?"},
      {"#SBATCH -a 5-1", "job.sh:2: --array: array '5-1': want indices"},
      {"#SBATCH --begin=soon", "job.sh:2: --begin: time 'soon': want now+1hour"},
      {"#SBATCH -w node[1-", "job.sh:2: --nodelist: host list"},
      {"#SBATCH -p a,b", "job.sh:2: --partition: want one partition"},
      {"#SBATCH --gpus=0.25 -N 2", "--gpus: a part of a GPU is for one task"},
      {"#SBATCH --gpus=9 --gpus-per-node=4 -N 2", "--gpus 9 and 4 GPUs a node do not go together"},
  };
  for (const auto& [lines, says] : cases) {
    const std::string message = message_of(of_script(lines));
    EXPECT_TRUE(message.starts_with(says)) << message;
  }
  EXPECT_TRUE(
      message_of(read_sbatch_script("echo", "job.sh")).starts_with("job.sh:1: this is no batch script"));
  EXPECT_EQ(message_of(of_words({"--nodse", "2"})), "--nodse: unknown option, did you mean '--nodes'?");
}

TEST_F(Sbatch, TextsOfOptions) {
  EXPECT_EQ(parse_array("0-15:4,3,3")->indices, (std::vector<int64_t>{0, 3, 4, 8, 12}));
  EXPECT_EQ(parse_array("0-15:2%4")->limit, 4);
  EXPECT_FALSE(parse_array("0-1001"));
  EXPECT_TRUE(parse_array("0-1000"));
  for (const char* text : {"", "1-", "-1", "1:2", "0-3:0", "0-3%0", "4000001", "1,,2"})
    EXPECT_FALSE(parse_array(text)) << text;

  EXPECT_EQ(*parse_hostlist("n[08-10],x"), (std::vector<std::string>{"n08", "n09", "n10", "x"}));
  for (const char* text : {"", "n[", "n]1[", "n[1-2", "n[2-1]", "n[1][2]", "n[0-99999]", "a b"})
    EXPECT_FALSE(parse_hostlist(text)) << text;

  auto dependencies = parse_dependencies("afterok:12:13?afterany:4_7").value();
  EXPECT_TRUE(dependencies.any);
  ASSERT_EQ(dependencies.items.size(), 3u);
  EXPECT_EQ(dependencies.items[1].job, "job-13");
  EXPECT_EQ(dependencies.items[2].job, "4_7");
  EXPECT_EQ(parse_dependencies("after:14+5")->items[0].delay_ns, 5 * kMinute);
  EXPECT_EQ(parse_dependencies("singleton")->items[0].kind, DependencyKind::kSingleton);
  for (const char* text :
       {"", "afterok:", "afterok:1+5", "singleton:1", "a:1,", "afterok:1,afterany:2?after:3"}) {
    EXPECT_FALSE(parse_dependencies(text)) << text;
  }

  auto signal = parse_end_signal("B:SIGUSR1@120").value();
  EXPECT_EQ(signal.number, 10);
  EXPECT_EQ(signal.before_ns, 120 * kSecond);
  EXPECT_TRUE(signal.batch_only);
  EXPECT_EQ(parse_end_signal("12")->before_ns, 60 * kSecond) << "the manual's default";
  for (const char* text : {"", "USR9", "USR1@", "USR1@70000", "X:USR1", "0"})
    EXPECT_FALSE(parse_end_signal(text)) << text;

  EXPECT_EQ(parse_constraint("a|b")->all_of_any, (std::vector<std::vector<std::string>>{{"a", "b"}}));
  EXPECT_EQ(parse_constraint("a&(b|c)")->all_of_any,
            (std::vector<std::vector<std::string>>{{"a"}, {"b", "c"}}));
  for (const char* text : {"", "a&b|c", "a&", "(a", "()"}) EXPECT_FALSE(parse_constraint(text)) << text;
}

// 1,800,000,000 is 2027-01-15T08:00:00Z.
TEST_F(Sbatch, Moments) {
  const int64_t midnight_ns = kNowNs - 8 * kHour;
  const std::pair<const char*, int64_t> cases[] = {{"now", kNowNs},
                                                   {"now+90", kNowNs + 90 * kSecond},
                                                   {"now+2minutes", kNowNs + 2 * kMinute},
                                                   {"now-1 hour", kNowNs - kHour},
                                                   {"now+1week", kNowNs + 7 * kDay},
                                                   {"16:00", midnight_ns + 16 * kHour},
                                                   {"4:30PM", midnight_ns + 16 * kHour + 30 * kMinute},
                                                   {"07:00", midnight_ns + 31 * kHour},
                                                   {"midnight", midnight_ns + kDay},
                                                   {"noon", midnight_ns + 12 * kHour},
                                                   {"teatime", midnight_ns + 16 * kHour},
                                                   {"tomorrow", midnight_ns + kDay},
                                                   {"2027-01-16", midnight_ns + kDay},
                                                   {"2027-01-15T08:00:01", kNowNs + kSecond}};
  for (const auto& [text, want] : cases) EXPECT_EQ(parse_moment(text, kNowNs).value_or(-1), want) << text;
  for (const char* text :
       {"", "soon", "25:00", "13:00PM", "2027-02-30", "2027-1-1", "now+", "now+1year", "now+999999999999"}) {
    EXPECT_FALSE(parse_moment(text, kNowNs)) << text;
  }
}

TEST_F(Sbatch, AScriptBecomesACommand) {
  JobSpec spec;
  spec.name = "x";
  ASSERT_TRUE(set_script(spec, "#!/bin/bash -l\necho\n", std::vector<std::string>{"a b"}));
  EXPECT_EQ(spec.command, (std::vector<std::string>{"/bin/bash", "-l", "batch.sh", "a b"}));
  EXPECT_EQ(spec.files.at("batch.sh"), "#!/bin/bash -l\necho\n");
  EXPECT_FALSE(set_script(spec, "echo", {}));
  EXPECT_FALSE(set_script(spec, std::string("#!/bin/sh\n\0", 11), {}));
}

/// A valid option with its value.
rc::Gen<std::pair<std::string, std::string>> any_option() {
  using Pair = std::pair<std::string, std::string>;
  return rc::gen::element<Pair>(
      Pair{"nodes", "2-4"}, Pair{"nodes", "3"}, Pair{"ntasks", "6"}, Pair{"ntasks-per-node", "2"},
      Pair{"gpus", "12"}, Pair{"gres", "gpu:h100:4"}, Pair{"time", "90"}, Pair{"job-name", "a.b"},
      Pair{"partition", "demo"}, Pair{"nodelist", "n[1-2]"}, Pair{"exclude", "m"}, Pair{"constraint", "a|b"},
      Pair{"dependency", "singleton"}, Pair{"array", "1-3%2"}, Pair{"begin", "now+5minutes"},
      Pair{"switches", "2@60"}, Pair{"signal", "USR1@5"}, Pair{"nice", "5"}, Pair{"output", "a %j#'\"\\.txt"},
      Pair{"error", "e e"});
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (char c : text) out += c == '"' || c == '\\' ? std::string{'\\', c} : std::string(1, c);
  return out + "\"";
}

TEST_F(Sbatch, LinesAndWordsMeanTheSame) {
  EXPECT_TRUE(rc::check("script = command line = JSON and back", [] {
    const auto options = *rc::gen::container<std::vector<std::pair<std::string, std::string>>>(any_option());
    std::vector<std::string> words;
    std::string lines;
    for (const auto& [name, value] : options) {
      const bool equals =
          name == "nice" || *rc::gen::arbitrary<bool>();  // what may be left out stands after '='
      if (equals) {
        words.push_back("--" + name + "=" + value);
      } else {
        words.push_back("--" + name), words.push_back(value);
      }
      lines += "#SBATCH --" + name + (equals ? "=" : " ") + quoted(value) + "\n";
    }
    auto by_words = of_words(words);
    auto by_lines = of_script(lines);
    RC_ASSERT(by_words.has_value() == by_lines.has_value());
    if (!by_words) return;
    RC_ASSERT(by_words->spec == by_lines->spec);
    JobSpec spec = by_words->spec;
    if (spec.name.empty()) spec.name = "x";
    RC_ASSERT(set_script(spec, "#!/bin/sh\n", {}).has_value());
    RC_ASSERT(validate(spec).has_value());
    auto again = job_spec_from_json(to_json(spec));
    RC_ASSERT(again.has_value());
    RC_ASSERT(*again == spec);
  }));
}

}  // namespace
}  // namespace th::request
