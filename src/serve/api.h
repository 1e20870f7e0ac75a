#pragma once
// The HTTP routes of one replica (docs/serving.md).

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "base/json.h"
#include "http/server.h"
#include "serve/engine.h"
#include "serve/model_folder.h"
#include "serve/openai.h"

namespace th::serve {

/// Outlives the server that its router was given to. Thread: safe from any thread.
class Api {
 public:
  /// `name`: the one model that is served.
  explicit Api(std::string name);

  /// POST /v1/completions, POST /v1/chat/completions, GET /v1/models, GET /health, GET /metrics. Until
  /// ready(), and after drain(), completions and /health are answered with 503.
  http::Router router();

  /// From now on requests go to `engine`.
  void ready(std::shared_ptr<const ModelFolder> model, std::shared_ptr<Engine> engine);

  /// Takes no new requests, waits at most `grace_ns` until those under way have ended, and lets go of the
  /// engine, which cuts the rest off with an error.
  void drain(int64_t grace_ns);

 private:
  enum class Phase { kLoading, kReady, kDraining };
  struct View {
    Phase phase;
    std::shared_ptr<const ModelFolder> model;
    std::shared_ptr<Engine> engine;
  };
  View view() const;
  std::optional<ApiError> complete(Endpoint endpoint, const http::Request& request,
                                   const http::Responder& responder) const;
  Json model_json() const;
  http::Response health() const;
  http::Response metrics() const;

  const std::string name_;
  const int64_t started_s_;
  mutable std::mutex mutex_;
  Phase phase_ = Phase::kLoading;             // mutex_
  std::shared_ptr<const ModelFolder> model_;  // mutex_
  std::shared_ptr<Engine> engine_;            // mutex_
};

}  // namespace th::serve
