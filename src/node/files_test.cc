// The files that a node follows: output and metrics.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "node/log_file.h"
#include "node/metrics_tail.h"
#include "node/validate.h"

namespace th::node {
namespace {

class Folder : public testing::Test {
 protected:
  Folder() {
    std::string pattern = std::filesystem::path(testing::TempDir()) / "files-XXXXXX";
    path_ = mkdtemp(pattern.data());
  }
  ~Folder() override { std::filesystem::remove_all(path_); }
  UniqueFd open_metrics() {
    return UniqueFd(open((path_ / "metrics").c_str(), O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0600));
  }
  void append(const std::string& text) {
    UniqueFd fd = open_metrics();
    ASSERT_EQ(write(fd.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  std::filesystem::path path_;
};

std::vector<std::pair<int64_t, std::string>> lines_of(const MetricsTail& tail) {
  std::vector<std::pair<int64_t, std::string>> lines;
  for (const MetricsLine& line : tail.waiting()) lines.emplace_back(line.line_no, line.line);
  return lines;
}
using Lines = std::vector<std::pair<int64_t, std::string>>;

TEST_F(Folder, MetricsLinesAreTakenWholeAndNumberedEvenIfLeftOut) {
  append("{\"old\":1}\n");
  MetricsTail tail(open_metrics(), {"job-1", 2, 0});
  append("{\"a\":1}\n{\"b\"");
  tail.read_more();
  EXPECT_EQ(lines_of(tail), (Lines{{1, "{\"a\":1}"}}));
  append(":2}\nnonsense\n[1]\n\n" + std::string(kMaxMetricsLineBytes + 1, 'x') + "\n{\"c\":3}\n");
  tail.read_more();
  EXPECT_EQ(lines_of(tail), (Lines{{1, "{\"a\":1}"}, {2, "{\"b\":2}"}, {7, "{\"c\":3}"}}));
  tail.ack(2);
  EXPECT_EQ(lines_of(tail), (Lines{{7, "{\"c\":3}"}}));
  EXPECT_TRUE(tail.at_end());
}

TEST_F(Folder, NoMoreMetricsAreHeldThanAReportTakes) {
  MetricsTail tail(open_metrics(), {"job-1", 1, 0});
  std::string text;
  for (size_t i = 0; i < 3 * kMaxMetricsLines; ++i) text += "{}\n";
  append(text);
  tail.read_more();
  EXPECT_EQ(tail.waiting().size(), kMaxMetricsLines);
  EXPECT_FALSE(tail.at_end()) << "so its task is not told as exited yet";
  for (int turn = 0; turn < 2; ++turn) {
    tail.ack(tail.waiting().back().line_no);
    tail.read_more();
  }
  EXPECT_EQ(tail.waiting().back().line_no, static_cast<int64_t>(3 * kMaxMetricsLines));
  tail.ack(tail.waiting().back().line_no);
  tail.read_more();
  EXPECT_TRUE(tail.at_end());
}

TEST_F(Folder, LogPiecesFollowWhatTheControllerHas) {
  LogFile log = LogFile::make(path_ / "log").value();
  log.note("hello ");
  EXPECT_EQ(log.next_piece(), "hello ");
  log.sent_to(6);
  EXPECT_TRUE(log.all_sent());
  log.note("world");
  EXPECT_EQ(log.next_piece(), "world");
  log.sent_to(3);  // the controller lost some of it
  EXPECT_EQ(log.next_piece(), "lo world");
  log.give_up();
  EXPECT_TRUE(log.all_sent());
}

TEST_F(Folder, OutputOverTheLimitIsDroppedWithANote) {
  LogFile log = LogFile::make(path_ / "log").value();
  ASSERT_EQ(ftruncate(log.fd(), kMaxLogBytes), 0);  // a hole: it takes no room on the disk
  log.sent_to(kMaxLogBytes);
  EXPECT_TRUE(log.all_sent());
  log.note(std::string(1 << 20, 'x'));
  std::string note = log.next_piece();
  EXPECT_EQ(note, "\n[th-node: more than 256.0 MiB of output; the rest is dropped]\n");
  log.sent_to(kMaxLogBytes + static_cast<int64_t>(note.size()));
  EXPECT_TRUE(log.all_sent());
  log.trim();
  struct stat info {};
  ASSERT_EQ(fstat(log.fd(), &info), 0);
  EXPECT_LT(info.st_blocks * 512, 64 << 10) << "what is dropped is given back to the disk";
}

// The date is the example of RFC 9110, section 5.6.7; 784111777 is `date -d … +%s`.
TEST(HttpDate, ReadsTheFormThatServersSend) {
  EXPECT_EQ(parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT"), 784'111'777);
  EXPECT_EQ(parse_http_date("Sunday, 06-Nov-94 08:49:37 GMT"), std::nullopt);
  EXPECT_EQ(parse_http_date(""), std::nullopt);
}

}  // namespace
}  // namespace th::node
