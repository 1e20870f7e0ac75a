#include "control/console.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <nlohmann/json.hpp>

#include "base/units.h"
#include "control/serving_load.h"

namespace th::control {
namespace {

http::Request asks(const std::string& path, const std::string& encoding = "") {
  http::Request request;
  request.params["path"] = path;
  if (!encoding.empty()) request.headers = {{"Accept-Encoding", encoding}};
  return request;
}

std::string unpacked(const std::string& gzip) {
  std::string out(1 << 20, '\0');
  z_stream stream = {};
  inflateInit2(&stream, 16 + MAX_WBITS);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(gzip.data()));
  stream.avail_in = static_cast<uInt>(gzip.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  const int end = inflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  inflateEnd(&stream);
  return end == Z_STREAM_END ? out : "";
}

TEST(Console, FilesComeAsTheyAreOrPacked) {
  const std::string version(console_version());
  for (const ConsoleAsset& asset : console_assets()) {
    const http::Response plain = console_file(asks(version + "/" + std::string(asset.name)));
    const http::Response packed = console_file(asks(version + "/" + std::string(asset.name), "br, gzip"));
    EXPECT_EQ(plain.status, 200) << asset.name;
    EXPECT_EQ(plain.body, unpacked(packed.body)) << asset.name;
    EXPECT_EQ(packed.header("Content-Encoding"), "gzip");
    EXPECT_FALSE(plain.header("Content-Encoding"));
    EXPECT_EQ(plain.header("Cache-Control"), "public, max-age=31536000, immutable");
  }
}

TEST(Console, AnOldPageGetsTheFilesOfToday) {
  const http::Response file = console_file(asks("0123456789ab/app.js"));
  EXPECT_EQ(file.status, 200);
  EXPECT_EQ(file.header("Cache-Control"), "no-cache");
  for (const char* path : {"app.js", "x/none.js", "", "x/", "x/../app.js"})
    EXPECT_EQ(console_file(asks(path)).status, 404);
}

TEST(Console, ThePageNamesFilesThatExistAndTalksToTheGatewayOnly) {
  const http::Response page = console_page({}, "http://127.0.0.1:7080");
  EXPECT_EQ(page.body.find("@VERSION@"), std::string::npos);
  const std::string prefix = "/console/" + std::string(console_version()) + "/";
  size_t files = 0;
  for (size_t at = page.body.find(prefix); at != std::string::npos;
       at = page.body.find(prefix, at + 1), ++files) {
    const size_t end = page.body.find('"', at);
    EXPECT_EQ(console_file(asks(page.body.substr(at + 9, end - at - 9))).status, 200)
        << page.body.substr(at, end - at);
  }
  EXPECT_GT(files, 3u);
  EXPECT_NE(page.header("Content-Security-Policy")->find("connect-src 'self' http://127.0.0.1:7080;"),
            std::string::npos);
  const http::Response odd = console_page({}, "http://x; script-src *");
  EXPECT_NE(odd.header("Content-Security-Policy")->find("connect-src 'self';"), std::string::npos);
}

TEST(ServingLoad, TellsTheLastFiveMinutes) {
  ServingLoad load;
  const auto record = [](int64_t latency_ms, int64_t tokens, int64_t status) {
    ledger::UsageRecord out;
    out.deployment = "chat", out.latency_ns = latency_ms * kMillisecond;
    out.completion_tokens = tokens, out.status = status;
    return out;
  };
  const int64_t start_ns = kHour;
  load.record(record(9000, 1000, 200), start_ns);  // too old in the end
  for (int i = 1; i <= 10; ++i) load.record(record(100 * i, 10, i == 10 ? 502 : 200), start_ns + 6 * kMinute);
  const Json now = load.recent("chat", start_ns + 6 * kMinute + 9 * kSecond);
  EXPECT_EQ(now["requests"], 10);
  EXPECT_EQ(now["failed"], 1);
  EXPECT_DOUBLE_EQ(now["latency_s"]["p50"], 0.6);  // the value at 0.5 × 9 rounded up: the sixth of ten
  EXPECT_DOUBLE_EQ(now["latency_s"]["p95"], 1.0);
  EXPECT_DOUBLE_EQ(now["tokens_per_s"], 10.0);  // 100 tokens since the slowest began, 1 s before: 10 s
  EXPECT_TRUE(load.recent("other", start_ns)["latency_s"].is_null());
}

TEST(ServingLoad, ReadsWhatAReplicaSays) {
  const Json load = replica_load(
      "# TYPE th_serve_sequences_running gauge\nth_serve_sequences_running 3\nth_serve_sequences_waiting 2\n"
      "th_serve_first_token_seconds_count 4\nth_serve_first_token_seconds_sum 0.5\n");
  EXPECT_EQ(load["running"], 3);
  EXPECT_EQ(load["waiting"], 2);
  EXPECT_DOUBLE_EQ(load["first_token_s"], 0.125);
  EXPECT_TRUE(replica_load("")["first_token_s"].is_null());
}

}  // namespace
}  // namespace th::control
