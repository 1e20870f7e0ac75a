// Connections' bytes through the server's parser, target, router and answer, without sockets: as many
// requests as the bytes hold, with handlers that look at all of a request. A route of each form is there.
// Every answer has to be well-formed and to be what the route says. (sim/world/http_fuzz.cc goes on into the
// controller.)
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "http/exchange.h"
#include "http/server.h"
#include "http/url.h"
#include "http/wire.h"

namespace {

using namespace th;

constexpr size_t kMaxHeaderBytes = 1024, kMaxBodyBytes = 512;

class NoSink final : public http::ExchangeSink {
 public:
  void wake() override {}
  void abort() override {}
  void resume() override {}
};

/// Tells what it was given, long enough to be compressed and tagged now and then.
void tell(const char* route, const http::Request& request, const http::Responder& responder) {
  Json out = {{"route", route},
              {"params", request.params},
              {"query", request.query},
              {"bearer", request.bearer().value_or("")}};
  const auto body = parse_json(request.body, "body");
  if (!request.body.empty() && !body) return responder.fail(body.error());
  if (body) out["body"] = *body;
  if (request.query.count("long") > 0) out["long"] = std::string(2000, 'x');
  responder.send(out);
}

http::Router make_router() {
  http::Router router;
  for (const auto& [method, pattern] :
       std::initializer_list<std::pair<const char*, const char*>>{{"GET", "/health"},
                                                                  {"GET", "/api/v1/jobs"},
                                                                  {"POST", "/api/v1/jobs"},
                                                                  {"GET", "/api/v1/jobs/{id}"},
                                                                  {"DELETE", "/api/v1/jobs/{id}"},
                                                                  {"GET", "/api/v1/jobs/{id}/logs"},
                                                                  {"POST", "/api/v1/jobs/estimate"},
                                                                  {"POST", "/api/v1/hosts/{host}/drain"},
                                                                  {"GET", "/files/{path...}"},
                                                                  {"GET", "/"}})
    router.add(method, pattern, [pattern = pattern](const http::Request& request, const http::Responder& responder) {
      tell(pattern, request, responder);
    });
  router.add("GET", "/dropped", [](const http::Request&, const http::Responder&) {});
  router.add("GET", "/events", [](const http::Request& request, const http::Responder& responder) {
    http::Stream stream = responder.event_stream();
    stream.event(request.path, "path", request.header("Last-Event-ID").value_or(""));
    if (request.query.count("end") > 0) stream.close();
  });
  router.before([](const http::Request& request) -> Status {
    if (request.header("X-Refuse")) return fail(Code::kPermissionDenied, "refused");
    return {};
  });
  return router;
}

void check(const http::Exchange::Batch& batch, bool head_only, const http::Exchange& exchange) {
  http::ResponseReader reader(head_only);
  const http::Fed fed = reader.feed(batch.bytes);
  const bool cut = !exchange.alive() && !batch.last;  // a stream that its handler let go
  const bool whole =
      head_only || fed.done || cut || (batch.last && reader.feed_end());  // HTTP/1.0 ends by a close
  if (fed.bad_status == 0 && (cut || reader.has_head()) && whole) return;
  std::fprintf(stderr, "the answer is\n%s\n", batch.bytes.c_str());
  std::abort();
}

struct Count {
  long requests = 0, routed = 0;
  ~Count() { std::printf("%ld requests, %ld of them routed\n", requests, routed); }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const http::Router router = make_router();
  static Count count;
  std::string input(reinterpret_cast<const char*>(data), size);
  while (!input.empty()) {
    http::RequestReader reader(kMaxHeaderBytes, kMaxBodyBytes);
    const http::Fed fed = reader.feed(input);
    if (fed.consumed > input.size()) std::abort();
    input.erase(0, fed.consumed);
    ++count.requests;
    if (!fed.done) return 0;
    http::Request request = reader.take();
    if (request.body.size() > kMaxBodyBytes) std::abort();
    auto target = http::parse_target(request.path);
    if (!target) return 0;
    request.path = std::move(target->path), request.query = std::move(target->query);
    const bool head_only = request.method == "HEAD", keep_alive = reader.keep_alive();
    auto sink = std::make_shared<NoSink>();
    const auto exchange =
        std::make_shared<http::Exchange>(sink, http::Exchange::Options{.max_queued_bytes = 4096,
                                                                       .head_only = head_only,
                                                                       .http_1_0 = reader.http_1_0(),
                                                                       .keep_alive = keep_alive,
                                                                       .accepts = http::accepts_of(request)});
    ++count.routed;
    router.route(std::move(request), http::make_responder(exchange));
    check(exchange->take(), head_only, *exchange);
    if (!keep_alive) return 0;
  }
  return 0;
}
