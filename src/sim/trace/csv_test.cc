#include "sim/trace/csv.h"

#include <gtest/gtest.h>

#include <array>

namespace th::sim {
namespace {

constexpr std::array<std::string_view, 2> kColumns = {"gpus", "seconds"};

struct Read {
  Status status;
  Skipped skipped;
  std::vector<std::pair<int64_t, double>> rows;
};

Read read(std::string_view text, OnBadLine on_bad) {
  Read out;
  out.status = read_csv(text, {.file = "t.csv", .on_bad = on_bad}, kColumns, out.skipped,
                        [&](const Row& row) -> Status {
                          TH_TRY(int64_t gpus, row.integer(0, 1, 8));
                          TH_TRY(double seconds, row.real(1, 0, 1e9));
                          out.rows.emplace_back(gpus, seconds);
                          return {};
                        });
  return out;
}

TEST(Csv, TakesColumnsByNameInAnyOrder) {
  Read out = read("seconds,name,gpus\r\n1.5,a,2\n\n3,b,8", OnBadLine::kRefuse);
  ASSERT_TRUE(out.status);
  EXPECT_EQ(out.rows, (std::vector<std::pair<int64_t, double>>{{2, 1.5}, {8, 3}}));
}

TEST(Csv, NamesFileLineColumnAndRange) {
  EXPECT_EQ(read("gpus,seconds\n1,2\n9,2\n", OnBadLine::kRefuse).status.error().message,
            "t.csv:3: gpus: want an integer from 1 to 8, got '9'");
  EXPECT_EQ(read("gpus,seconds\n1,nan\n", OnBadLine::kRefuse).status.error().message,
            "t.csv:2: seconds: want a number from 0 to 1000000000, got 'nan'");
  EXPECT_EQ(read("gpus,seconds\n1\n", OnBadLine::kRefuse).status.error().message,
            "t.csv:2: has 1 cells, and the header 2");
}

TEST(Csv, SkipsBadLinesWhenAskedAndCountsThem) {
  Read out = read("gpus,seconds\n1,-2\n4,2\nx,2\n", OnBadLine::kSkip);
  ASSERT_TRUE(out.status);
  EXPECT_EQ(out.rows.size(), 1u);
  EXPECT_EQ(out.skipped.lines, 2);
  EXPECT_EQ(out.skipped.first[0], "t.csv:2: seconds: want a number from 0 to 1000000000, got '-2'");
}

TEST(Csv, AMissingColumnIsNeverSkipped) {
  EXPECT_EQ(read("gpu,seconds\n1,2\n", OnBadLine::kSkip).status.error().message,
            "t.csv: there is no column 'gpus', did you mean 'gpu'?; it has gpu, seconds");
}

}  // namespace
}  // namespace th::sim
