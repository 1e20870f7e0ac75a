#include "control/clouds.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/files.h"

namespace th::control {
namespace {

namespace fs = std::filesystem;

class CloudsTest : public testing::Test {
 protected:
  CloudsTest() {
    std::string pattern = fs::path(testing::TempDir()) / "clouds-XXXXXX";
    dir = mkdtemp(pattern.data());
    std::ofstream(dir / "secret") << "the-client-secret\n";
  }
  ~CloudsTest() override { fs::remove_all(dir); }

  std::string azure(const std::string& more = "") const {
    return "cloud:\n  kind: azure\n  subscription: sub-1\n  resource_group: rg-1\n  region: eastus\n  "
           "tenant: t\n"
           "  client_id: c\n  client_secret_file: " +
           (dir / "secret").string() +
           "\n  subnet: /subscriptions/sub-1/s\n  image: a:b:c:latest\n  ssh_public_key: ssh-ed25519 A\n"
           "  controller_url: https://controller.invalid\n" +
           more;
  }
  Result<std::unique_ptr<cloud::Provider>> open(const std::string& text) const {
    return open_cloud(text, "cloud.yaml", {dir, "http://127.0.0.1:7070"});
  }
  std::string problem(const std::string& text) const {
    const auto opened = open(text);
    return opened ? "" : opened.error().message;
  }

  fs::path dir;
};

TEST_F(CloudsTest, MakesTheCloudThatTheSectionNames) {
  auto opened = open(azure());
  ASSERT_TRUE(opened) << opened.error().message;
  EXPECT_TRUE((*opened)->check_series("ND_H100_v5"));
  EXPECT_FALSE((*opened)->check_series("LOCAL"));
  const std::string key = read_file(dir / "azure-nodes.key").value();
  EXPECT_EQ(key.size(), 65u);
  EXPECT_EQ(fs::status(dir / "azure-nodes.key").permissions() & fs::perms::mask, fs::perms(0600));
  EXPECT_TRUE(open(azure()));
  EXPECT_EQ(read_file(dir / "azure-nodes.key").value(), key) << "nodes that run know it";
}

TEST_F(CloudsTest, SaysWhichKeyIsWrong) {
  EXPECT_NE(problem("cloud: {kind: azur}").find("want local, libvirt or azure"), std::string::npos);
  EXPECT_NE(problem("cloud: {kind: azure}").find("cloud.subscription"), std::string::npos);
  EXPECT_NE(problem(azure("  client_secret: x\n")).find("client_secret"), std::string::npos)
      << "a secret does not stand in the file";
  EXPECT_NE(problem(azure("  arm_url: http://far.invalid\n")).find("cloud.arm_url"), std::string::npos);
  fs::remove(dir / "secret");
  EXPECT_NE(problem(azure()).find("client_secret_file"), std::string::npos);
  EXPECT_EQ(problem(azure()).find("the-client-secret"), std::string::npos);
}

}  // namespace
}  // namespace th::control
