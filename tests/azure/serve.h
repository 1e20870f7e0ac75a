#pragma once
// The emulator behind an HTTP server on this machine, for the real client.

#include <memory>
#include <mutex>

#include "emulator.h"
#include "http/server.h"

namespace th::azure_emulator {

struct ServeOptions {
  uint16_t port = 0;  // 0: any free one
  int speed = 0;      // its clock runs so much faster than the machine's; 0: whoever locks moves it
};

/// Thread: the emulator may be used by who holds `mutex`.
class Service {
 public:
  static Result<std::unique_ptr<Service>> start(Emulator& emulator, ServeOptions options);
  const std::string& url() const { return url_; }

  std::mutex mutex;

 private:
  void answer(http::Request request, const http::Responder& responder);

  Emulator* emulator_ = nullptr;
  ServeOptions options_;
  int64_t last_ns_ = 0;
  std::string url_;
  std::unique_ptr<http::Server> server_;  // last: it stops before the rest goes
};

}  // namespace th::azure_emulator
