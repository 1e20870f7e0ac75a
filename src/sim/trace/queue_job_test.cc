#include "sim/trace/queue_job.h"

#include <gtest/gtest.h>

#include "sim/trace/itp.h"
#include "sim/trace/muri.h"
#include "sim/trace/philly.h"
#include "sim/trace/swf.h"

namespace th::sim {
namespace {

QueueTraceOptions on_bad(OnBadLine bad, int64_t most_gpus = 64) {
  return {.csv = {.file = "t", .on_bad = bad}, .most_gpus = most_gpus};
}
const QueueTraceOptions kRefuse = on_bad(OnBadLine::kRefuse);

TEST(MuriTrace, ReadsMillisecondsAndTheStartOfEachModel) {
  Skipped skipped;
  auto jobs = read_muri(
      "job_id,num_gpu,submit_time,iterations,model_name,duration,iteration_time\n"
      "1,8,2000,10,a2c,9,200\n0,3,1000,20,vgg16,9,100\n",
      kRefuse, skipped);
  ASSERT_TRUE(jobs);
  ASSERT_EQ(jobs->size(), 2u);
  EXPECT_EQ(jobs->at(0).id, "0");      // by submission
  EXPECT_EQ(jobs->at(0).start_s, 10);  // 3 GPUs were not profiled
  EXPECT_EQ(jobs->at(1).submit_s, 2);
  EXPECT_DOUBLE_EQ(jobs->at(1).iteration_s, 0.203);
  EXPECT_EQ(jobs->at(1).start_s, 46);
}

TEST(MuriTrace, NamesWhatIsWrong) {
  Skipped skipped;
  const std::string head = "job_id,num_gpu,submit_time,iterations,model_name,iteration_time\n";
  EXPECT_EQ(read_muri(head + "0,128,0,1,bert,1\n", kRefuse, skipped).error().message,
            "t:2: num_gpu: 128 GPUs, and the cluster has 64: give more nodes or skip bad lines");
  EXPECT_EQ(read_muri(head + "0,1,0,1,bert,-5\n", kRefuse, skipped).error().message,
            "t:2: iteration_time: want a number from 1e-06 to 1000000000, got '-5'");
  EXPECT_FALSE(read_muri("job_id,num_gpu,submit_time,iterations,model_name\n", kRefuse, skipped));
  auto rest = read_muri(head + "0,1,-1,1,bert,1\n1,1,0,1,bert,1\n", on_bad(OnBadLine::kSkip), skipped);
  ASSERT_TRUE(rest);
  EXPECT_EQ(rest->size(), 1u);
  EXPECT_EQ(skipped.lines, 1);
}

TEST(ItpTrace, StartsAtTheFirstSubmission) {
  Skipped skipped;
  auto jobs = read_itp("job_id,submission_time,duration,num_gpu\nb,500,60,2\na,400,30,1\n", kRefuse, skipped);
  ASSERT_TRUE(jobs);
  EXPECT_EQ(jobs->at(0).submit_s, 0);
  EXPECT_EQ(jobs->at(0).duration_s, 30);
  EXPECT_EQ(jobs->at(1).submit_s, 100);
  EXPECT_EQ(jobs->at(1).gpus, 2);
  EXPECT_EQ(read_itp("submission_time,duration,num_gpu\n1,-60,2\n", kRefuse, skipped).error().message,
            "t:2: duration: want a number from 0 to 10000000000, got '-60'");
}

TEST(PhillyTrace, ReadsDatesAndChoosesAVirtualCluster) {
  Skipped skipped;
  const std::string text =
      "timestamp,duration,num_gpus,gpu_time,cluster\n2016-02-29 00:00:10,5.5,1,5.5,a\n"
      "2016-02-28 23:59:50,7.0,4,28.0,b\n2016-03-01 00:00:00,1.0,1,1.0,a\n";
  auto all = read_philly(text, kRefuse, "", skipped);
  ASSERT_TRUE(all);
  ASSERT_EQ(all->size(), 3u);
  EXPECT_EQ(all->at(0).gpus, 4);
  EXPECT_EQ(all->at(1).submit_s, 20);
  EXPECT_EQ(all->at(2).submit_s, 86410);
  auto a = read_philly(text, kRefuse, "a", skipped);
  ASSERT_TRUE(a);
  EXPECT_EQ(a->at(1).submit_s, 86390);
  EXPECT_EQ(read_philly(text, kRefuse, "c", skipped).error().message,
            "t: no job is of cluster 'c'; there are a, b");
  EXPECT_EQ(
      read_philly("timestamp,duration,num_gpus,cluster\n2017-02-29 00:00:00,1,1,a\n", kRefuse, "", skipped)
          .error()
          .message,
      "t:2: timestamp: want YYYY-MM-DD HH:MM:SS, got '2017-02-29 00:00:00'");
}

// Fields: number, submit, wait, run, processors, cpu, memory, asked processors, asked time, …
TEST(SwfTrace, ReadsTheHeaderAndLeavesOutJobsThatNeverRan) {
  Skipped skipped;
  auto trace = read_swf(
      "; Version: 2.2\n;  MaxNodes: 4\n; MaxProcs: 32\n\n"
      "1 100 5 60 8 -1 -1 8 120 -1 1 1 1 1 1 -1 -1 -1\n"
      "  2\t90 0 30 -1 -1 -1 4 -1 -1 1 1 1 1 1 -1 -1 -1\r\n"
      "3 95 9 -1 -1 -1 -1 4 50 -1 5 1 1 1 1 -1 -1 -1\n",
      kRefuse, skipped);
  ASSERT_TRUE(trace);
  EXPECT_EQ(trace->max_nodes, 4);
  EXPECT_EQ(trace->max_procs, 32);
  EXPECT_EQ(trace->never_ran, 1);
  ASSERT_EQ(trace->jobs.size(), 2u);
  EXPECT_EQ(trace->jobs[0].gpus, 4);
  EXPECT_EQ(trace->jobs[0].limit_s, 30);
  EXPECT_EQ(trace->jobs[1].submit_s, 10);
  EXPECT_EQ(trace->jobs[1].limit_s, 120);
}

TEST(SwfTrace, NamesWhatIsWrong) {
  Skipped skipped;
  const auto message = [&](std::string_view text) {
    return read_swf(text, kRefuse, skipped).error().message;
  };
  EXPECT_EQ(message("; x\n1 2 3\n"), "t:2: has 3 of the 18 fields");
  EXPECT_EQ(message("1 100 5 -60 8 -1 -1 8 120 -1 1 1 1 1 1 -1 -1 -1\n"),
            "t:1: field 4: want a number from -1, got '-60'");
  EXPECT_EQ(message("1 100 5 60 65 -1 -1 8 120 -1 1 1 1 1 1 -1 -1 -1\n"),
            "t:1: processors: 65 GPUs, and the cluster has 64: give more nodes or skip bad lines");
  EXPECT_EQ(message("1 -1 5 60 6 -1 -1 8 120 -1 1 1 1 1 1 -1 -1 -1\n"),
            "t:1: submit time: want 0 to 10000000000 s, got -1");
}

}  // namespace
}  // namespace th::sim
