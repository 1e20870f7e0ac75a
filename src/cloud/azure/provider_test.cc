#include "cloud/azure/provider.h"

#include <gtest/gtest.h>

#include <deque>

#include "base/units.h"

namespace th::cloud {
namespace {

/// Answers by hand, in order; what the emulator in tests/azure cannot be made to say.
class AzureProviderTest : public testing::Test {
 protected:
  AzureProviderTest() {
    options.subscription = "sub-1", options.resource_group = "rg-1", options.region = "eastus";
    options.tenant = "tenant-1", options.client_id = "client-1", options.client_secret = "very-secret";
    options.subnet = "/subscriptions/sub-1/subnet", options.image = "a:b:c:latest";
    options.ssh_public_key = "ssh-ed25519 AAAA", options.controller_url = "https://controller.invalid";
    options.node_secret = std::string(64, 'n');
  }

  std::unique_ptr<Provider> provider() {
    AzureWorld world;
    world.fetch = [this](const http::Call& call) -> Result<http::Response> {
      calls.push_back(call);
      if (answers.empty()) return fail(Code::kUnavailable, "connection refused");
      auto answer = answers.front();
      answers.pop_front();
      return answer;
    };
    world.unix_ns = [this] { return now_ns; };
    world.wait = [this](int64_t ns) { now_ns += ns, waited_ns += ns; };
    return make_azure_provider(options, world).value();
  }

  static http::Response token() {
    return {200, {}, R"({"access_token":"a-bearer-token","expires_in":3599})"};
  }

  AzureProviderOptions options;
  std::deque<Result<http::Response>> answers;
  std::vector<http::Call> calls;
  int64_t waited_ns = 0;
  int64_t now_ns = 1'795'000'000 * kSecond;
};

TEST_F(AzureProviderTest, WaitsAsLongAsItIsToldAndGivesUpInTime) {
  answers = {token(), http::Response{429, {{"Retry-After", "17"}}, ""},
             http::Response{200, {}, R"({"value":[]})"}};
  EXPECT_TRUE(provider()->list(kMinute).value().empty());
  EXPECT_EQ(waited_ns, 17 * kSecond);

  answers = {token(), http::Response{429, {{"Retry-After", "600"}}, ""}};
  const auto late = provider()->list(kMinute);
  EXPECT_EQ(late.error().code, Code::kUnavailable);
  EXPECT_NE(late.error().message.find("after 10m"), std::string::npos) << late.error().message;
  const int64_t before_ns = now_ns;
  EXPECT_FALSE(provider()->list(kMinute)) << "nobody answers";
  EXPECT_LE(now_ns - before_ns, kMinute);
}

TEST_F(AzureProviderTest, AnInterruptEndsTheWaiting) {
  auto azure = provider();
  azure->interrupt();
  answers = {token(), http::Response{503, {}, ""}};
  EXPECT_EQ(azure->list(kHour).error().code, Code::kUnavailable);
  EXPECT_EQ(waited_ns, 0);
}

TEST_F(AzureProviderTest, AnEventOfTwoVmsStartsWhenBothAreReady) {
  const http::Response events{
      200, {}, R"({"Events":[{"EventId":"e1","EventType":"Redeploy","Resources":["s_0","s_1"]}]})"};
  const http::Response sets{
      200, {}, R"({"value":[{"name":"s","tags":{"th-cluster":"thunderhead","th-token":"t",
      "th-vms-00":"a@ b@","th-ids-00":"0 1"}}]})"};
  auto azure = provider();
  answers = {events, token(), sets, events, sets, events, sets, http::Response{200, {}, ""}};
  const auto notices = azure->events(kMinute).value();
  ASSERT_EQ(notices.size(), 2u);
  EXPECT_TRUE(azure->acknowledge(notices[1].id, kMinute));
  EXPECT_EQ(answers.size(), 3u) << "nothing is started while a is not ready";
  EXPECT_TRUE(azure->acknowledge(notices[0].id, kMinute));
  EXPECT_EQ(calls.back().method, "POST");
  EXPECT_NE(calls.back().body.find(R"("EventId":"e1")"), std::string::npos) << calls.back().body;
}

TEST_F(AzureProviderTest, TakesANewTokenOnce) {
  answers = {token(), http::Response{401, {}, ""}, token(), http::Response{200, {}, R"({"value":[]})"}};
  EXPECT_TRUE(provider()->list(kMinute));
  answers = {token(), http::Response{401, {}, ""}, token(), http::Response{401, {}, ""}};
  EXPECT_EQ(provider()->list(kMinute).error().code, Code::kUnauthenticated);
}

TEST_F(AzureProviderTest, SecretsStayOutOfErrors) {
  answers = {http::Response{
      401, {}, R"({"error":"invalid_client","error_description":"secret very-secret of app"})"}};
  const auto refused = provider()->list(kMinute);
  EXPECT_EQ(refused.error().code, Code::kUnauthenticated);
  EXPECT_EQ(refused.error().message.find("very-secret"), std::string::npos) << refused.error().message;
  EXPECT_NE(refused.error().message.find("client-1"), std::string::npos) << "says who";
  answers = {token(),
             http::Response{400, {}, R"({"error":{"code":"Bad","message":"Bearer a-bearer-token"}})"}};
  EXPECT_EQ(provider()->list(kMinute).error().message.find("a-bearer-token"), std::string::npos);
}

TEST_F(AzureProviderTest, TheTokenGoesToAzureOnly) {
  answers = {token(),
             http::Response{200, {}, R"({"value":[],"nextLink":"https://elsewhere.invalid/steal"})"}};
  EXPECT_EQ(provider()->list(kMinute).error().code, Code::kInternal);
  for (const auto& call : calls) EXPECT_EQ(call.url.find("elsewhere"), std::string::npos);
}

TEST_F(AzureProviderTest, SaysWhichOptionIsWrong) {
  auto problem = [&](auto change) {
    AzureProviderOptions wrong = options;
    change(wrong);
    const auto made = make_azure_provider(wrong);
    return made ? std::string() : made.error().message;
  };
  EXPECT_EQ(problem([](auto&) {}), "");
  EXPECT_NE(problem([](auto& o) { o.image = ""; }).find("cloud.image"), std::string::npos);
  EXPECT_NE(problem([](auto& o) { o.image = "ubuntu"; }).find("publisher:offer:sku:version"),
            std::string::npos);
  EXPECT_NE(problem([](auto& o) { o.tenant = ""; }).find("cloud.tenant"), std::string::npos);
  EXPECT_NE(problem([](auto& o) { o.arm_url = "http://far.invalid"; }).find("cloud.arm_url"),
            std::string::npos);
  EXPECT_EQ(problem([](auto& o) { o.arm_url = "http://127.0.0.1:99"; }), "") << "an emulator on this machine";
}

TEST_F(AzureProviderTest, RefusesWhatOnePlacementGroupCannotHold) {
  CreateVms request{"t", {}};
  for (int i = 0; i < 101; ++i) {
    VmSpec spec;
    spec.vm = "vm-" + std::to_string(i), spec.series = "ND_H100_v5";
    request.vms.push_back(spec);
  }
  request.one_fabric = true;
  const auto large = provider()->create(request, kMinute);
  EXPECT_EQ(large.error().code, Code::kUnsatisfiable);
  EXPECT_NE(large.error().message.find("100"), std::string::npos) << large.error().message;
  request.vms.resize(2);
  request.vms[1].series = "NC_A100_v4";
  EXPECT_EQ(provider()->create(request, kMinute).error().code, Code::kInvalidArgument) << "two series";
  request.vms[0].series = "NC_A100_v4";
  EXPECT_EQ(provider()->create(request, kMinute).error().code, Code::kUnsatisfiable)
      << "NC has no InfiniBand";
  request.vms[0].series = request.vms[1].series = "LOCAL";
  EXPECT_EQ(provider()->create(request, kMinute).error().code, Code::kUnsatisfiable);
  EXPECT_TRUE(calls.empty()) << "nothing was asked of Azure for that";
}

}  // namespace
}  // namespace th::cloud
