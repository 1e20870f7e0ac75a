// Requests through the server's parser, the router and every route of the API, with the real controller on a
// ledger in memory and a simulated cloud: in one process, without sockets. The input's bytes choose route,
// key, ids, fields and where the text is damaged; the rest of it goes in as it is. Every answer has to be
// well-formed HTTP and none may be a 500. TH_FUZZ_RUNS counts inputs, of which each is one request or more.
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/text.h"
#include "base/units.h"
#include "control/api.h"
#include "http/exchange.h"
#include "http/url.h"
#include "http/wire.h"
#include "ledger/store.h"
#include "sim/world/fleet_nodes.h"

namespace {

using namespace th;

constexpr int64_t kRequestsOfAWorld = 3000;  // then all of it is made anew, so that it stays small
constexpr int kRequestsOfAStep = 8;
constexpr size_t kMaxRequests = 4;  // of one input
constexpr const char *kAdminKey = "the-admin-key", *kGatewayToken = "the-gateway-token";

/// The input as a row of choices; 0 when it is used up.
class Choices {
 public:
  Choices(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  bool empty() const { return at_ >= size_; }
  uint8_t byte() { return at_ < size_ ? data_[at_++] : uint8_t{0}; }
  size_t below(size_t bound) { return (static_cast<size_t>(byte()) << 8 | byte()) % bound; }
  bool one_in(size_t n) { return below(n) == n - 1; }
  std::string rest() {
    std::string out(reinterpret_cast<const char*>(data_) + std::min(at_, size_),
                    size_ - std::min(at_, size_));
    at_ = size_;
    return out;
  }
  template <class List>
  const auto& of(const List& list) {
    return list[below(list.size())];
  }

 private:
  const uint8_t* data_;
  size_t size_, at_ = 0;
};

class NoSink final : public http::ExchangeSink {
 public:
  void wake() override {}
  void abort() override {}
  void resume() override {}
};

std::shared_ptr<const fleet::Fleet> small_fleet() {
  fleet::GenerateOptions options;
  options.num_leaves = 2, options.racks_per_leaf = 2, options.hosts_per_rack = 3;
  return std::make_shared<const fleet::Fleet>(*fleet::generate_fleet(options));
}

/// The control plane, as small as it can be.
class World {
 public:
  explicit World(const std::filesystem::path& folder)
      : clock_(1, 1'700'000'000 * kSecond),
        cloud_(clock_, 2, fleet_),
        nodes_(clock_, 3, cloud_),
        registry_(*registry::Registry::open(folder / "models")),
        launcher_(clock_.unix_ns()) {
    ledger_ = *ledger::Ledger::open(ledger::open_memory_store(), clock_);
    ledger_->stage(ledger::KeyAdded{"key-1", "admin", sha256_hex(kAdminKey), "admin"});
    const auto policy = *reserve::parse_policy(
        "validation: {min_all_reduce: 0}\naccounts: [{name: lab, max_gpus: 8}, {name: vision, parent: "
        "lab}]\n",
        "p");
    ledger_->stage(ledger::PolicyLoaded{"", policy.half_life_ns});
    TH_CHECK(ledger_->commit().has_value());
    control::CoreParts parts{
        clock_,    *ledger_,  fleet_, cloud_,
        launcher_, registry_, folder, [this](control::Work work) { offload(std::move(work)); },
        {},        policy};
    controller_ = *control::Controller::start(std::move(parts));
    api_.emplace(loop_, sha256_hex(kGatewayToken));
    router_ = api_->router();
    api_->attach(*controller_);
    api_->on_shutdown = [](bool) {};
    nodes_.start(*controller_);
  }
  ~World() {
    api_->close_streams();
    loop_.stop();
  }

  /// Everything that is under way goes on for a while of virtual time.
  void step(int64_t passed_ns) {
    loop_.run_posted();
    TH_CHECK(controller_->core.commit().has_value());
    const int64_t until_ns = clock_.unix_ns() + passed_ns;
    while (clock_.run_due(until_ns)) {
    }
    loop_.run_posted();
    TH_CHECK(controller_->step().has_value());
  }

  void send(const std::string& bytes);
  const http::Router& router() const { return *router_; }
  const ledger::State& state() const { return controller_->core.state(); }
  int64_t requests() const { return requests_; }
  std::string node_token() const {
    const auto& machines = cloud_.machines();
    return machines.empty() ? "no-token" : machines.begin()->second.node_token;
  }

 private:
  struct Call {
    std::shared_ptr<NoSink> sink = std::make_shared<NoSink>();
    std::shared_ptr<http::Exchange> exchange;
    std::string request;
    std::unique_ptr<http::ResponseReader> answer;  // a stream's comes in pieces
    std::string unread;
  };
  void offload(control::Work work) {
    clock_.after(kMillisecond, [this, work = std::move(work)] {
      std::function<void()> result = work();
      clock_.after(cloud_.latency_ns(), std::move(result));
    });
  }
  void check_answers();

  std::shared_ptr<const fleet::Fleet> fleet_ = small_fleet();
  sim::Clock clock_;
  sim::SimCloud cloud_;
  sim::FleetNodes nodes_;
  registry::Registry registry_;
  launch::LocalLauncher launcher_;
  control::Loop loop_;
  std::unique_ptr<ledger::Ledger> ledger_;
  std::optional<control::Api> api_;
  std::unique_ptr<control::Controller> controller_;
  std::optional<http::Router> router_;
  std::vector<Call> calls_;
  int64_t requests_ = 0, since_step_ = 0;
};

/// A command that would copy a folder of this machine.
bool reads_files(const http::Request& request) {
  if (request.method != "POST" || (request.path != "/api/v1/models" && request.path != "/api/v1/data"))
    return false;
  const auto body = parse_json(request.body, "body");
  if (!body || !body->is_object()) return false;
  const auto path = get_string(*body, "path", std::string());
  return path && path->starts_with('/') && !path->starts_with("/nonexistent");
}

void World::send(const std::string& bytes) {
  std::string input = bytes;
  for (size_t i = 0; i < kMaxRequests && !input.empty(); ++i) {
    http::RequestReader reader(16 << 10, 1 << 20);
    const http::Fed fed = reader.feed(input);
    TH_CHECK(fed.consumed <= input.size());
    input.erase(0, fed.consumed);
    ++requests_;
    if (!fed.done) return;
    http::Request request = reader.take();
    auto target = http::parse_target(request.path);
    if (!target) return;
    request.path = std::move(target->path), request.query = std::move(target->query);
    request.peer = "127.0.0.1:4711";
    if (reads_files(request)) continue;
    Call call;
    call.request = request.method + " " + request.path + "\n" + request.body;
    call.exchange = std::make_shared<http::Exchange>(
        call.sink, http::Exchange::Options{.max_queued_bytes = 1 << 20,
                                           .head_only = request.method == "HEAD",
                                           .http_1_0 = reader.http_1_0(),
                                           .keep_alive = reader.keep_alive(),
                                           .accepts = http::accepts_of(request)});
    call.answer = std::make_unique<http::ResponseReader>(request.method == "HEAD");
    const auto exchange = call.exchange;
    calls_.push_back(std::move(call));
    router_->route(std::move(request), http::make_responder(exchange));
  }
  if (++since_step_ < kRequestsOfAStep) return;
  since_step_ = 0;
  step(3 * kSecond);
  check_answers();
}

void World::check_answers() {
  std::erase_if(calls_, [](Call& call) {
    const bool head_only = call.request.starts_with("HEAD ");
    const http::Exchange::Batch batch = call.exchange->take();
    if (batch.bytes.empty()) return !call.exchange->alive();
    http::ResponseReader& reader = *call.answer;
    call.unread += batch.bytes;
    const http::Fed fed = reader.feed(call.unread);
    call.unread.erase(0, fed.consumed);
    const bool bad = fed.bad_status != 0 || !reader.has_head() || (batch.last && !head_only && !fed.done) ||
                     reader.status() == 500;
    if (bad) {
      std::fprintf(stderr, "to the request\n%s\nthe answer is\n%s\n", call.request.c_str(),
                   batch.bytes.c_str());
      std::abort();
    }
    call.exchange->written(batch.bytes.size());
    return batch.last || !call.exchange->alive();
  });
  if (calls_.size() > 200) {  // those that follow and wait: their clients go away
    for (Call& call : calls_) call.exchange->lose();
    calls_.clear();
  }
}

// ---- Requests by choice.

const std::vector<std::string> kBodies = {
    R"({})",
    R"({"name":"a","gpus":2,"series":"LOCAL","duration_ns":600000000000})",
    R"({"name":"b","gpus":1,"series":"LOCAL","duration_ns":60000000000,"spot":true,"min_gpus":1,"spares":0,"spread":true})",
    R"({"gpus":3})",
    R"({"name":"j","gpus":1,"command":["run","1000"],"retries":1,"duration_ns":60000000000})",
    R"({"name":"k","gpus":2,"command":["sh","-c","true"],"slice":"a","env":{"A":"1"},"files":{"x/y":"z"},"ntasks":2})",
    R"({"name":"l","gpus":1,"command":["x"],"batch":true,"array":"0-3%2","dependency":"afterok:1","time":"1h"})",
    R"({"name":"d","model":"m","gpus":1,"tokens_per_minute":100})",
    R"({"name":"m","path":"/nonexistent/m"})",
    R"({"name":"r","gpus":1,"series":"LOCAL","duration_ns":3600000000000,"accounts":["lab"]})",
    R"({"name":"r2","hosts":["l0r0h0"],"duration_ns":3600000000000,"maintenance":true,"reason":"x"})",
    R"({"name":"cap","watts":500,"duration_ns":3600000000000})",
    R"({"name":"someone","account":"lab"})",
    R"({"yaml":"name: s\nversion: 1\nabout: a\n"})",
    R"({"reason":"because"})",
    R"({"nodes":true})",
    R"({"journal":"g","records":[{"seq":1,"time_ns":1,"key_id":"key-1","deployment":"d","prompt_tokens":1,"completion_tokens":2}]})",
    R"({"boot_id":"b","have_generation":0,"validation":{"ok":true,"checks":[]},"address":"127.0.0.1","tasks":[],"metrics":[]})",
    R"({"name":"t","parent":"lab","kind":"tenant","max_gpus":4,"budget_microusd":1000000,"shares":2})",
    R"({"tenant":"lab","role":"member","name":"ada","expires_ns":0,"max_gpus":2})",
    R"({"name":"grace","contact":"g@example.org","tenant":"lab","why":"to train"})",
    R"({"accept":true,"role":"member","tenant":"lab"})",
    R"({"key":"the-admin-key"})",
    R"({"code":"0123456789abcdef","name":"ada"})",
    R"({"name":"kk","tenant":"lab","role":"viewer","scopes":["api","inference"],"expires_ns":1800000000000000000})",
};
const std::vector<std::string> kValues = {"null",
                                          "true",
                                          "-1",
                                          "0",
                                          "1",
                                          "1e308",
                                          "-1e999",
                                          "9223372036854775807",
                                          "9223372036854775808",
                                          "1.5",
                                          "\"\"",
                                          "\"a\"",
                                          "\"/nonexistent/x\"",
                                          "\"\\u0000\"",
                                          "\"../../x\"",
                                          "[]",
                                          "{}",
                                          "[[[[[[]]]]]]",
                                          "[1,\"a\",null]",
                                          R"({"a":{"b":{}}})",
                                          "\"\\ud800\"",
                                          "\"LOCAL\"",
                                          "\"job-1\"",
                                          "\"slice-1\"",
                                          "1000000000000000000"};
const std::vector<std::string> kIds = {"a",
                                       "b",
                                       "job-1",
                                       "slice-1",
                                       "key-1",
                                       "key-2",
                                       "l0r0h0",
                                       "base",
                                       "a-0",
                                       "j",
                                       "user-1",
                                       "lab",
                                       "..",
                                       "%2e%2e",
                                       "x%20y",
                                       "%00",
                                       "job-9999999999999999999",
                                       "root",
                                       "d"};
const std::vector<std::string> kQueries = {"",
                                           "?limit=1",
                                           "?limit=0&after=x",
                                           "?follow=1",
                                           "?offset=-1",
                                           "?rank=0&attempt=1",
                                           "?wait_ms=10&have=0",
                                           "?task=job-1.1.0&offset=0",
                                           "?after=job-1&limit=2",
                                           "?a=%zz",
                                           "?limit=99999999999999999999",
                                           "?since=1&brief=1"};
const std::vector<std::string> kHeaders = {"Idempotency-Key: k1\r\n",
                                           "Last-Event-ID: 0\r\n",
                                           "Last-Event-ID: x\r\n",
                                           "If-None-Match: *\r\n",
                                           "Accept-Encoding: gzip\r\n",
                                           "X-Th-Csrf: 1\r\n",
                                           "Cookie: th_session=the-admin-key\r\n",
                                           "Origin: http://evil\r\n",
                                           "Content-Type: application/json\r\n",
                                           "Expect: 100-continue\r\n"};

/// A template with one field's value or more exchanged.
std::string body_of(Choices& choices) {
  std::string body = choices.of(kBodies);
  for (size_t edits = choices.below(3); edits > 0; --edits) {
    auto json = parse_json(body, "body");
    if (!json || json->empty()) break;
    auto at = json->begin();
    std::advance(at, static_cast<int64_t>(choices.below(json->size())));
    if (auto value = parse_json(choices.of(kValues), "value")) *at = *std::move(value);
    body = dump_json(*json);
  }
  return body;
}

void damage(std::string& text, Choices& choices) {
  for (size_t edits = 1 + choices.below(3); edits > 0 && !text.empty(); --edits) {
    const size_t at = choices.below(text.size());
    switch (choices.below(4)) {
      case 0:
        text.insert(at, 1, static_cast<char>(choices.byte()));
        break;
      case 1:
        text.erase(at, 1 + choices.below(8));
        break;
      case 2:
        text[at] = static_cast<char>(choices.byte());
        break;
      default:
        text.insert(at, text.substr(choices.below(text.size()), choices.below(32)));
    }
  }
}

std::string request_of(World& world, Choices& choices) {
  static const auto routes = world.router().routes();  // the same in all worlds
  const auto& [method, pattern] = choices.of(routes);
  std::string path;
  for (const std::string& segment : split(pattern.substr(1), '/'))
    path += "/" + (segment.starts_with('{') ? choices.of(kIds) : segment);
  if (choices.one_in(4)) path += choices.of(kQueries);
  std::string text =
      (choices.one_in(16) ? std::string("PUT") : method) + " " + path + " HTTP/1.1\r\nHost: h\r\n";
  const std::array<std::string, 6> keys = {kAdminKey,     kAdminKey,          kAdminKey,
                                           kGatewayToken, world.node_token(), "wrong"};
  std::string key = choices.of(keys);
  if (pattern.find("/gateway/") != std::string::npos && !choices.one_in(8)) key = kGatewayToken;
  if (pattern.find("/node/") != std::string::npos && !choices.one_in(8)) key = world.node_token();
  if (!choices.one_in(16)) text += "Authorization: Bearer " + key + "\r\n";
  if (choices.one_in(4)) text += choices.of(kHeaders);
  const std::string body = method == "GET" ? "" : body_of(choices);
  text += "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
  if (choices.one_in(8)) damage(text, choices);
  return text;
}

struct Fuzz {
  std::filesystem::path folder;
  std::unique_ptr<World> world;
  int64_t requests = 0;

  Fuzz() {
    std::string name = (std::filesystem::temp_directory_path() / "th-http-fuzz.XXXXXX").string();
    TH_CHECK(::mkdtemp(name.data()) != nullptr);
    folder = name;
    ::setenv("TH_LOG", "off", 1);
  }
  ~Fuzz() {
    finish();
    std::printf("%ld requests\n", static_cast<long>(requests));
    std::error_code ignored;
    std::filesystem::remove_all(folder, ignored);
  }
  void finish() {
    if (world) requests += world->requests();
    world.reset();
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Fuzz fuzz;
  if (!fuzz.world || fuzz.world->requests() >= kRequestsOfAWorld) {
    fuzz.finish();
    fuzz.world = std::make_unique<World>(fuzz.folder);
  }
  Choices choices(data, size);
  if (choices.one_in(8)) {  // as it is
    fuzz.world->send(choices.rest());
    return 0;
  }
  std::string text;
  for (size_t i = 0; i < kMaxRequests && !choices.empty(); ++i) text += request_of(*fuzz.world, choices);
  fuzz.world->send(text);
  return 0;
}
