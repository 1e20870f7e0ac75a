#pragma once
// One completion on its way from the engine to its HTTP client: the whole answer at the end, or an event a
// delta.

#include <optional>
#include <string>

#include "http/server.h"
#include "serve/generation.h"
#include "serve/openai.h"

namespace th::serve {

/// Thread: one owner, the engine's.
class Reply {
 public:
  Reply(http::Responder responder, AnswerWriter writer, Endpoint endpoint, const ApiRequest& request);

  /// False when the client is gone.
  bool take(const Delta& delta);

 private:
  bool stream(const Delta& delta);
  void collect(const Delta& delta);

  const http::Responder responder_;
  const AnswerWriter writer_;
  const bool chat_, streams_, include_usage_;
  std::optional<http::Stream>
      stream_;        // from the first delta on, so that a refusal can still have its status
  std::string text_;  // of an answer that is not streamed
};

}  // namespace th::serve
