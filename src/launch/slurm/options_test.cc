#include "launch/slurm/options.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <fstream>

namespace th::launch {
namespace {

namespace fs = std::filesystem;

class Options : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/th-slurm-options-XXXXXX";
    folder_ = ::mkdtemp(name);
    std::ofstream(folder_ / "token") << "SLURM_JWT=a.b.c\n";
    ::chmod((folder_ / "token").c_str(), 0600);
  }
  void TearDown() override { fs::remove_all(folder_); }
  Result<SlurmOptions> read(const std::string& text) {
    return read_slurm_options(text, folder_ / "slurm.yaml", "/jobs");
  }
  fs::path folder_;
};

constexpr const char* kGood =
    "slurm:\n  url: http://10.0.0.1:6820/\n  user: th\n  token_file: token\n  partition: batch\n  qos: "
    "high\n";

TEST_F(Options, AreRead) {
  auto options = read(kGood);
  ASSERT_TRUE(options) << options.error().message;
  EXPECT_EQ(options->url, "http://10.0.0.1:6820");
  EXPECT_EQ(options->token, "a.b.c");
  EXPECT_EQ(options->queue_of({}), (SlurmQueue{"batch", "", "high"}));
  EXPECT_EQ(options->folder, "/jobs");
}

TEST_F(Options, RefusalsNameWhatIsWrong) {
  EXPECT_NE(read("slurm:\n  url: 10.0.0.1\n  user: th\n  token_file: token\n")
                .error()
                .message.find("want that of slurmrestd"),
            std::string::npos);
  EXPECT_NE(read("slurm:\n  usr: th\n").error().message.find("did you mean 'user'"), std::string::npos);
  ::chmod((folder_ / "token").c_str(), 0644);
  EXPECT_EQ(read(kGood).error().code, Code::kPermissionDenied);
  fs::remove(folder_ / "token");
  EXPECT_NE(read(kGood).error().message.find((folder_ / "token").string()), std::string::npos);
}

}  // namespace
}  // namespace th::launch
