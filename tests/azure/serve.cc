#include "serve.h"

#include <fmt/format.h>

#include "base/env.h"

namespace th::azure_emulator {

Result<std::unique_ptr<Service>> Service::start(Emulator& emulator, ServeOptions options) {
  auto service = std::make_unique<Service>();
  service->emulator_ = &emulator, service->options_ = options;
  service->last_ns_ = Env::real().monotonic_ns();
  http::Router router;
  for (const char* method : {"GET", "PUT", "PATCH", "POST", "DELETE"}) {
    router.add(method, "/{way...}",
               [self = service.get()](http::Request request, const http::Responder& responder) {
                 self->answer(std::move(request), responder);
               });
  }
  http::ServerOptions server;
  server.port = options.port, server.threads = 2;
  TH_TRY(service->server_, http::Server::start(server, std::move(router)));
  service->url_ = fmt::format("http://127.0.0.1:{}", service->server_->port());
  emulator.base_url = service->url_;
  return service;
}

void Service::answer(http::Request request, const http::Responder& responder) {
  std::scoped_lock lock(mutex);
  if (options_.speed > 0) {
    const int64_t passed_ns = (Env::real().monotonic_ns() - last_ns_) / kMillisecond * kMillisecond;
    emulator_->advance(passed_ns * options_.speed);
    last_ns_ += passed_ns;
  }
  responder.send(emulator_->answer(request));
}

}  // namespace th::azure_emulator
