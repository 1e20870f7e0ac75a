// The routes over real HTTP, on a ledger in memory and a cloud that makes nothing.

#include "control/api.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <thread>

#include "base/text.h"
#include "control/test_world.h"
#include "http/client.h"

namespace th::control {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class ApiTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "api-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
    world_.emplace(dir_);
    world_->c->core.stage(ledger::KeyAdded{"key-1", "admin", sha256_hex("admin-key"), "admin"});
    world_->c->core.stage(ledger::KeyAdded{"key-2", "ann", sha256_hex("user-key"), "user"});
    world_->c->core.stage(ledger::KeyAdded{"key-3", "bob", sha256_hex("old-key"), "user"});
    world_->c->core.stage(ledger::KeyRevoked{"key-3"});
    api_.attach(*world_->c);
    auto server = http::Server::start({}, api_.router());
    ASSERT_TRUE(server) << server.error().message;
    server_ = *std::move(server);
    thread_ = std::thread([this] { loop_.run([this] { TH_CHECK(world_->step().has_value()); }, 20); });
  }
  void TearDown() override {
    loop_.stop();
    thread_.join();
    api_.close_streams();
    server_.reset();
    world_.reset();
    fs::remove_all(dir_);
  }
  http::Response call(const std::string& method, const std::string& path, const std::string& body = "",
                      const std::string& key = "admin-key", const std::string& idempotency = "") {
    http::Call call;
    call.method = method, call.body = body;
    call.url = "http://127.0.0.1:" + std::to_string(server_->port()) + path;
    call.headers = {{"Authorization", "Bearer " + key}};
    if (!idempotency.empty()) call.headers.push_back({"Idempotency-Key", idempotency});
    auto response = http::fetch(call);
    EXPECT_TRUE(response) << response.error().message;
    return response.value_or(http::Response{0, {}, ""});
  }
  static constexpr const char* kSlice =
      R"({"name":"demo","gpus":4,"series":"LOCAL","duration_ns":3600000000000})";

  fs::path dir_;
  std::optional<World> world_;
  Loop loop_;
  Api api_{loop_, sha256_hex("gateway-token")};
  std::unique_ptr<http::Server> server_;
  std::thread thread_;
};

TEST_F(ApiTest, KeysOpenWhatTheyShould) {
  EXPECT_EQ(call("GET", "/health", "", "nothing").status, 200);
  EXPECT_EQ(call("GET", "/metrics", "", "nothing").status, 200);
  EXPECT_EQ(call("GET", "/api/v1/fleet", "", "nothing").status, 401);
  EXPECT_EQ(call("GET", "/api/v1/fleet", "", "old-key").status, 401) << "revoked";
  EXPECT_EQ(call("GET", "/api/v1/fleet", "", "user-key").status, 200);
  EXPECT_EQ(call("POST", "/api/v1/keys", R"({"name":"eve"})", "user-key").status, 403);
  EXPECT_EQ(call("POST", "/api/v1/hosts/l0r0h0/drain", "{}", "user-key").status, 403);
  EXPECT_EQ(call("POST", "/api/v1/shutdown", "{}", "user-key").status, 403);
  EXPECT_EQ(call("GET", "/api/v1/gateway/config", "", "admin-key").status, 401);
  EXPECT_EQ(call("GET", "/api/v1/gateway/config", "", "gateway-token").status, 200);
  EXPECT_EQ(call("POST", "/api/v1/node/stray-0/sync", "{}", "admin-key").status, 503)
      << "it may be another controller's";
}

TEST_F(ApiTest, ARepeatWithTheSameKeyDoesNothingNew) {
  const auto first = call("POST", "/api/v1/slices", kSlice, "admin-key", "once");
  ASSERT_EQ(first.status, 200) << first.body;
  const auto again = call("POST", "/api/v1/slices", kSlice, "admin-key", "once");
  EXPECT_EQ(again.status, 200);
  EXPECT_EQ(again.body, first.body);
  EXPECT_EQ(call("DELETE", "/api/v1/slices/demo", "", "admin-key", "once").status, 400);
  EXPECT_EQ(call("POST", "/api/v1/slices", kSlice).status, 409) << "the name is taken";
}

TEST_F(ApiTest, ASecretIsShownOnce) {
  const auto first = call("POST", "/api/v1/keys", R"({"name":"eve"})", "admin-key", "k");
  const auto again = call("POST", "/api/v1/keys", R"({"name":"eve"})", "admin-key", "k");
  EXPECT_THAT(first.body, HasSubstr(R"("id":"key-4")"));
  EXPECT_THAT(again.body, HasSubstr(R"("id":"key-4","name":"eve","key":null)"));
}

TEST_F(ApiTest, BadInputIsRefusedAndLeavesNothing) {
  auto refused = [&](const char* path, const std::string& body) {
    const auto response = call("POST", path, body);
    return std::to_string(response.status) + " " + response.body;
  };
  EXPECT_THAT(refused("/api/v1/slices", "{"), HasSubstr("400"));
  EXPECT_THAT(refused("/api/v1/slices", R"({"name":"demo","gpu":4})"), HasSubstr("did you mean 'gpus'?"));
  EXPECT_THAT(
      refused("/api/v1/slices", R"({"name":"demo","gpus":400,"series":"LOCAL","duration_ns":1000000000})"),
      HasSubstr("422"));
  EXPECT_THAT(
      refused("/api/v1/slices", R"({"name":"job-1","gpus":2,"series":"LOCAL","duration_ns":1000000000})"),
      HasSubstr("looks like an id"));
  EXPECT_THAT(refused("/api/v1/jobs", R"({"name":"t","slice":"none","gpus":1,"command":["true"]})"),
              HasSubstr("404"));
  EXPECT_THAT(refused("/api/v1/deployments", R"({"name":"d","modell":"none"})"), HasSubstr("did you mean"));
  EXPECT_THAT(refused("/api/v1/hosts/l0r0h9/drain", "{}"), HasSubstr("404"));
  EXPECT_THAT(refused("/api/v1/slices", std::string((1 << 20) + 1, ' ')), HasSubstr("413"));
  EXPECT_THAT(refused("/api/v1/offers", std::string((1 << 20) + 1, ' ')), HasSubstr("413"));
  EXPECT_THAT(call("GET", "/api/v1/slices").body, HasSubstr(R"({"items":[]})"));
  EXPECT_THAT(call("GET", "/api/v1/jobs").body, HasSubstr(R"({"items":[]})"));
}

TEST_F(ApiTest, ListsComeByPagesThatChangesDoNotMove) {
  auto page = [&](const std::string& query, const char* list = "power-caps") {
    const Json body = *parse_json(call("GET", std::string("/api/v1/") + list + query).body, "page");
    std::string names;
    for (const Json& item : body["items"]) names += item["name"].get<std::string>() + " ";
    return names + (body.contains("next") ? dump_json(body["next"]) : "-");
  };
  for (const char* name : {"d", "b", "a", "c"}) {
    const Json cap = {{"name", name}, {"watts", 100'000}, {"duration_ns", 1'000'000'000'000}};
    ASSERT_EQ(call("POST", "/api/v1/power-caps", dump_json(cap)).status, 200);
  }
  EXPECT_EQ(page(""), "a b c d -");
  EXPECT_EQ(page("?limit=2"), R"(a b "b")");
  EXPECT_EQ(call("DELETE", "/api/v1/power-caps/b").status, 200) << "the cursor's own item goes";
  EXPECT_EQ(call("DELETE", "/api/v1/power-caps/a").status, 200);
  EXPECT_EQ(page("?limit=2&after=b"), "c d null");
  EXPECT_EQ(page("?limit=1&after=c"), "d null");
  EXPECT_EQ(page("?limit=1&after=zzz"), "null");
  EXPECT_EQ(page("?after=c"), "d -");
  EXPECT_EQ(page("?limit=2", "keys"), R"(admin ann "key-2")");
  EXPECT_EQ(page("?limit=2&after=key-2", "keys"), "bob null");
  for (const char* limit : {"0", "10001", "x", "-1"}) {
    const auto refused = call("GET", std::string("/api/v1/jobs?limit=") + limit);
    EXPECT_EQ(refused.status, 400);
    EXPECT_THAT(refused.body, HasSubstr(R"("field":"limit")"));
  }
}

TEST_F(ApiTest, AProblemsTypeCanBeLookedUp) {
  const auto refused = call("GET", "/api/v1/jobs/job-9");
  EXPECT_EQ(refused.header("Content-Type"), "application/problem+json");
  const Json problem = *parse_json(refused.body, "problem");
  const auto found = call("GET", problem["type"], "", "nothing");
  EXPECT_EQ(found.body,
            R"({"type":"/api/v1/problems/not_found","title":"Not found","status":404,"code":"not_found"})");
  EXPECT_EQ(call("GET", "/api/v1/problems/none").status, 404);
}

TEST_F(ApiTest, TheDocumentHasTheRoutesAndNoOthers) {
  const auto served = call("GET", "/api/v1/openapi.json", "", "nothing");
  ASSERT_EQ(served.status, 200);
  const Json document = *parse_json(served.body, "openapi.json");
  std::set<std::string> described, routed;
  for (const auto& [path, item] : document["paths"].items()) {
    for (const auto& [method, operation] : item.items()) {
      if (method != "parameters") described.insert(method + " " + path);
    }
  }
  for (const auto& [method, pattern] : api_.router().routes()) {
    const bool of_the_console =
        !pattern.starts_with("/api/") && pattern != "/health" && pattern != "/metrics";
    std::string lower = method;
    for (char& letter : lower) letter = static_cast<char>(std::tolower(letter));
    if (!of_the_console) routed.insert(lower + " " + pattern);
  }
  EXPECT_THAT(routed, ::testing::ContainerEq(described)) << "docs/api/openapi.yaml describes every route";
}

TEST_F(ApiTest, AGatewayPollIsAnsweredWhenItsAnswerChanges) {
  const auto before = call("GET", "/api/v1/gateway/config", "", "gateway-token");
  const auto generation = parse_json(before.body, "config")->at("generation").get<int64_t>();
  std::thread change([&] { call("DELETE", "/api/v1/keys/key-2"); });
  const auto after = call("GET", "/api/v1/gateway/config?wait_ms=10000&have=" + std::to_string(generation),
                          "", "gateway-token");
  change.join();
  EXPECT_THAT(before.body, HasSubstr("key-2"));
  EXPECT_THAT(after.body, HasSubstr(R"("keys":[])"));
}

TEST_F(ApiTest, EventsResumeOnlyFromAnId) {
  http::Call wrong;
  wrong.url = "http://127.0.0.1:" + std::to_string(server_->port()) + "/api/v1/events";
  wrong.headers = {{"Authorization", "Bearer admin-key"}, {"Last-Event-ID", "7x"}};
  auto refused = http::fetch(wrong);
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->status, 400);
  EXPECT_THAT(refused->body, HasSubstr("got '7x'"));
}

TEST_F(ApiTest, EventsResumeInOrderAndWithoutGaps) {
  ASSERT_EQ(call("POST", "/api/v1/slices", kSlice).status, 200);
  auto ids_after = [&](const std::string& last) {
    std::thread end([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
      loop_.post([&] { api_.close_streams(); });
    });
    http::Call resume;
    resume.url = "http://127.0.0.1:" + std::to_string(server_->port()) + "/api/v1/events";
    resume.headers = {{"Authorization", "Bearer admin-key"}, {"Last-Event-ID", last}};
    auto response = http::fetch(resume);
    end.join();
    std::vector<int64_t> ids;
    std::istringstream lines(response ? response->body : "");
    for (std::string line; std::getline(lines, line);) {
      if (line.starts_with("id: ")) ids.push_back(std::stoll(line.substr(4)));
    }
    return ids;
  };
  // Four events of keys, and three of the slice.
  EXPECT_THAT(ids_after("0"), ::testing::ElementsAre(1, 2, 3, 4, 5, 6, 7));
  EXPECT_THAT(ids_after("3"), ::testing::ElementsAre(4, 5, 6, 7));
  EXPECT_THAT(ids_after("7"), ::testing::IsEmpty());
}

TEST_F(ApiTest, UsageIsTakenOnce) {
  const std::string body =
      R"({"journal":"j","records":[{"seq":1,"time_ns":1,"key_id":"key-2","deployment":"chat","prompt_tokens":3,)"
      R"("completion_tokens":4,"latency_ns":5,"status":200}]})";
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(call("POST", "/api/v1/gateway/usage", body, "gateway-token").body, R"({"acked_seq":1})");
  }
  EXPECT_THAT(call("GET", "/api/v1/usage").body,
              HasSubstr(R"("requests":1,"prompt_tokens":3,"completion_tokens":4)"));
}

}  // namespace
}  // namespace th::control
