#include "sim/report/report.h"

#include <gtest/gtest.h>

namespace th::sim {
namespace {

TEST(Track, KeepsTheMeanOfEachStretchHoweverLongTheRun) {
  Track track("gpus");
  track.set(0, 10);
  track.set(1, 30);
  track.set(3, 0);
  // Seconds 0..4 hold 10, 30, 30, 0.
  auto points = track.points(4);
  ASSERT_EQ(points.size(), 4u);
  EXPECT_DOUBLE_EQ(points[0].second, 10);
  EXPECT_DOUBLE_EQ(points[2].second, 30);
  EXPECT_DOUBLE_EQ(points[3].second, 0);

  Track year("gpus");
  for (int day = 0; day <= 365; ++day) year.set(day * 86'400.0, day % 2 == 0 ? 100 : 50);
  points = year.points(366 * 86'400.0);
  EXPECT_LE(points.size(), 512u);
  // The area under the line stays what it was: 183 days of 100 and 183 of 50.
  double area = 0;
  for (size_t i = 0; i < points.size(); ++i) {
    double end_s = i + 1 < points.size() ? points[i + 1].first : 366 * 86'400.0;
    area += points[i].second * (end_s - points[i].first);
  }
  EXPECT_NEAR(area / 86'400, 183 * 150, 1e-6);
}

TEST(Report, IsOnePageThatAsksForNothingAndEscapesWhatItShows) {
  Report report{"A <run>", "th-sim x", {{"jobs", "3 & more"}}, 10, {}, {}};
  Track track("used");
  track.set(0, 5);
  report.charts.push_back({"GPUs", "%", {track}});
  report.racks.push_back({"r0", "row0", 0.5, "r0: 4 of 8 GPUs"});
  const std::string page = to_html(report);
  EXPECT_NE(page.find("<h1>A &lt;run&gt;</h1>"), std::string::npos);
  EXPECT_NE(page.find("3 &amp; more"), std::string::npos);
  EXPECT_NE(page.find("Simulated"), std::string::npos);
  EXPECT_NE(page.find("r0: 4 of 8 GPUs"), std::string::npos);
  for (const char* outside : {"http://", "https://", "<script", "src="}) {
    EXPECT_EQ(page.find(outside), std::string::npos) << outside;
  }
}

}  // namespace
}  // namespace th::sim
