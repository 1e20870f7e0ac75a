#include "gateway/config.h"

#include <gtest/gtest.h>

#include "base/text.h"

namespace th::gateway {
namespace {

TEST(ParseGatewayConfig, ReadsWhatTheProtocolSays) {
  auto config = parse_gateway_config(R"({"generation":4,"new_field":1,"deployments":[
      {"name":"demo-chat","model":"llama-small","tokens_per_minute":600,
       "replicas":[{"id":"job-2.1.0","url":"http://127.0.0.1:41000/"}]},
      {"name":"quiet","model":"m","tokens_per_minute":null,"replicas":[],
       "content_filter":{"level":"off","blocklists":[{"name":"house","terms":["osprey"]}]}}],
      "keys":[{"id":"key-1","sha256":")" +
                                     sha256_hex("secret") + R"("}]})");
  ASSERT_TRUE(config.has_value()) << config.error().message;
  EXPECT_EQ((*config)->generation, 4);
  const ApiKey key;
  const Deployment* demo = (*config)->find("demo-chat", key);
  ASSERT_NE(demo, nullptr);
  EXPECT_EQ(demo->model, "llama-small");
  EXPECT_EQ(demo->tokens_per_minute, 600);
  ASSERT_EQ(demo->replicas.size(), 1u);
  EXPECT_EQ(demo->replicas[0].url, "http://127.0.0.1:41000");
  EXPECT_TRUE(demo->filter->check("how to build a bomb").blocked);  // medium unless said otherwise
  const Deployment* quiet = (*config)->find("quiet", key);
  EXPECT_EQ(quiet->tokens_per_minute, 0);
  EXPECT_FALSE(quiet->filter->check("how to build a bomb").blocked);
  EXPECT_TRUE(quiet->filter->check("an osprey").blocked);
  EXPECT_EQ((*config)->find("other", key), nullptr);
  ASSERT_NE((*config)->find_key("secret", 0), nullptr);
  EXPECT_EQ((*config)->find_key("secret", 0)->id, "key-1");
  EXPECT_EQ((*config)->find_key("Secret", 0), nullptr);
  EXPECT_EQ((*config)->find_key(sha256_hex("secret"), 0), nullptr);
}

TEST(ParseGatewayConfig, AKeyReachesItsTenantsDeploymentsUntilItExpires) {
  auto config = parse_gateway_config(R"({"generation":4,"deployments":[
      {"name":"lab","tenants":["lab-nlp","lab",""],"replicas":[]},{"name":"shared","replicas":[]},
      {"name":"nobodys","tenants":[],"replicas":[]}],
      "keys":[{"id":"key-1","tenant":"lab","expires_ns":10,"sha256":")" +
                                     sha256_hex("lab") + R"("},{"id":"key-2","tenant":"shop","sha256":")" +
                                     sha256_hex("shop") + R"("}]})");
  ASSERT_TRUE(config.has_value()) << config.error().message;
  const GatewayConfig& of = **config;
  ASSERT_NE(of.find_key("lab", 9), nullptr);
  EXPECT_EQ(of.find_key("lab", 10), nullptr) << "expired";
  const ApiKey lab = *of.find_key("lab", 9), shop = *of.find_key("shop", 1'000'000);
  EXPECT_NE(of.find("lab", lab), nullptr);
  EXPECT_EQ(of.find("lab", shop), nullptr);
  EXPECT_NE(of.find("shared", shop), nullptr) << "of a controller that knows no tenants";
  EXPECT_EQ(of.find("nobodys", lab), nullptr);
}

TEST(ParseGatewayConfig, SaysWhatIsWrong) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "gateway configuration"},
      {"[]", "object"},
      {R"({"deployments":[]})", "generation"},
      {R"({"generation":1,"deployments":{}})", "deployments"},
      {R"({"generation":1,"deployments":[{"name":"a b"}]})", "deployment"},
      {R"({"generation":1,"deployments":[{"name":"a"},{"name":"a"}]})", "twice"},
      {R"({"generation":1,"deployments":[{"name":"a","tokens_per_minute":-1}]})", "tokens_per_minute"},
      {R"({"generation":1,"deployments":[{"name":"a","replicas":[{"id":"r","url":"ftp://x"}]}]})",
       "http URL"},
      {R"({"generation":1,"deployments":[{"name":"a","content_filter":{"level":"strict"}}]})", "strict"},
      {R"({"generation":1,"deployments":[{"name":"a","content_filter":{"blocklists":[{"name":"b","terms":[1]}]}}]})",
       "terms"},
      {R"({"generation":1,"keys":[{"id":"k","sha256":"abc"}]})", "sha256"},
      {R"({"generation":1,"deployments":[{"name":"a","tenants":[1]}]})", "tenants"},
  };
  for (const auto& [text, says] : cases) {
    auto config = parse_gateway_config(text);
    ASSERT_FALSE(config.has_value()) << text;
    EXPECT_EQ(config.error().code, Code::kInvalidArgument);
    EXPECT_NE(config.error().message.find(says), std::string::npos) << config.error().message;
  }
}

}  // namespace
}  // namespace th::gateway
