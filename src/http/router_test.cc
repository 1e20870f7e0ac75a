#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "http/client.h"
#include "http/server.h"
#include "http/url.h"

namespace th::http {
namespace {

Handler named(std::string name) {
  return [name](Request request, Responder responder) {
    Json params = Json::object();
    for (const auto& [key, value] : request.params) params[key] = value;
    Json query = Json::object();
    for (const auto& [key, value] : request.query) query[key] = value;
    responder.send(Json{{"route", name}, {"params", params}, {"query", query}});
  };
}

class RouterTest : public testing::Test {
 protected:
  RouterTest() {
    Router router;
    router.add("GET", "/jobs/{id}", named("job"));
    router.add("GET", "/jobs/all", named("all"));
    router.add("DELETE", "/jobs/{id}", named("cancel"));
    router.add("GET", "/jobs/{id}/logs", named("logs"));
    router.add("GET", "/files/{path...}", named("files"));
    router.add("GET", "/files/index", named("index"));
    router.add("GET", "/", named("root"));
    router.before([](const Request& request) -> Status {
      if (request.query.contains("locked")) return fail(Code::kPermissionDenied, "locked");
      return {};
    });
    server_ = *Server::start({}, std::move(router));
  }

  Response get(std::string path, std::string method = "GET") {
    auto response =
        fetch({.method = method, .url = "http://127.0.0.1:" + std::to_string(server_->port()) + path});
    EXPECT_TRUE(response) << response.error().message;
    return response.value_or(Response{});
  }

  std::unique_ptr<Server> server_;
};

TEST_F(RouterTest, LiteralWinsOverNameWhateverTheOrder) {
  EXPECT_EQ(get("/jobs/all").body, R"({"route":"all","params":{},"query":{}})");
  EXPECT_EQ(get("/jobs/job-1").body, R"({"route":"job","params":{"id":"job-1"},"query":{}})");
  EXPECT_EQ(get("/jobs/job-1/logs").body, R"({"route":"logs","params":{"id":"job-1"},"query":{}})");
  EXPECT_EQ(get("/").body, R"({"route":"root","params":{},"query":{}})");
}

TEST_F(RouterTest, TheRestMayBeLongOrEmpty) {
  EXPECT_EQ(get("/files/a/b%20c").body, R"({"route":"files","params":{"path":"a/b c"},"query":{}})");
  EXPECT_EQ(get("/files").body, R"({"route":"files","params":{"path":""},"query":{}})");
  EXPECT_EQ(get("/files/index").body, R"({"route":"index","params":{},"query":{}})");
}

TEST_F(RouterTest, DecodesTheQuery) {
  EXPECT_EQ(get("/jobs/all?a=1&b=x%26y+z&c&a=2").body,
            R"({"route":"all","params":{},"query":{"a":"1","b":"x&y z","c":""}})");
}

TEST_F(RouterTest, UnknownPathsAndMethods) {
  Response missing = get("/nothing");
  EXPECT_EQ(missing.status, 404);
  EXPECT_EQ(error_of(missing).code, Code::kNotFound);
  EXPECT_EQ(missing.header("content-type"), "application/problem+json");
  EXPECT_EQ(missing.body, R"({"type":"/api/v1/problems/not_found","title":"Not found","status":404,)"
                          R"("detail":"no such route: GET /nothing","code":"not_found"})");
  EXPECT_EQ(get("/jobs/").status, 404);
  Response wrong = get("/jobs/x", "PUT");
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ(wrong.header("allow"), "GET, DELETE");
}

TEST_F(RouterTest, HeadIsAGetWithoutBody) {
  Response head = get("/jobs/all", "HEAD");
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.body, "");
  EXPECT_EQ(head.header("content-length"), "38");
}

TEST_F(RouterTest, ACheckAnswersInPlaceOfTheHandler) {
  Response refused = get("/jobs/all?locked=1");
  EXPECT_EQ(refused.status, 403);
  EXPECT_EQ(error_of(refused), (Error{Code::kPermissionDenied, "locked"}));
}

TEST(Errors, NameTheFieldAndAreReadBack) {
  const Error about{Code::kInvalidArgument, "field 'gpus': want 1 to 32, got 33"};
  Response response = error_response(about, 413);
  EXPECT_EQ(response.status, 413);
  EXPECT_NE(response.body.find(R"("status":413,)"), std::string::npos);
  EXPECT_NE(response.body.find(R"("field":"gpus"})"), std::string::npos) << response.body;
  EXPECT_EQ(error_of(response), about);
  const std::string in_the_text = error_response({Code::kNotFound, "no such thing: field 'x'"}).body;
  EXPECT_EQ(in_the_text.find(R"("field":)"), std::string::npos) << in_the_text;
  EXPECT_EQ(error_of({409, {}, R"({"error":{"code":"already_exists","message":"m"}})"}),
            (Error{Code::kAlreadyExists, "m"}));
  EXPECT_EQ(error_of({429, {}, R"({"error":{"code":"their_own","message":"m"}})"}),
            (Error{Code::kResourceExhausted, "m"}));
  EXPECT_EQ(error_of({404, {}, "<html>"}), (Error{Code::kNotFound, "HTTP status 404"}));
}

TEST(Percent, RoundTripsAndRefuses) {
  EXPECT_EQ(percent_encode("a b/c?é~"), "a%20b%2Fc%3F%C3%A9~");
  EXPECT_EQ(*percent_decode("a%20b%2fc%3F%C3%A9~+"), "a b/c?é~+");
  for (auto bad : {"%", "%4", "%4g", "a%00b", "%-1"}) EXPECT_FALSE(percent_decode(bad)) << bad;
}

TEST(Urls, AreSplitAndChecked) {
  auto url = parse_url("https://[::1]:8443/a?b=c#d");
  ASSERT_TRUE(url) << url.error().message;
  EXPECT_TRUE(url->tls);
  EXPECT_EQ(url->host, "::1");
  EXPECT_EQ(url->port, 8443);
  EXPECT_EQ(url->target, "/a?b=c");
  EXPECT_EQ(url->host_header, "[::1]:8443");
  EXPECT_EQ(parse_url("http://h?x=1")->target, "/?x=1");
  EXPECT_EQ(parse_url("https://h")->port, 443);
  for (auto bad : {"h", "ftp://h", "http://", "http://h:0/", "http://h:65536/", "http://h:x/",
                   "http://u:p@h/", "http://h/a b", "http://h/\r\nX: y", "http://[::1/"}) {
    EXPECT_FALSE(parse_url(bad)) << bad;
  }
}

}  // namespace
}  // namespace th::http
