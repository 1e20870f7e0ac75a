#include "serve/reply.h"

#include <nlohmann/json.hpp>
#include <utility>

namespace th::serve {
namespace {

ApiError engine_ended(const Error& error) {
  return {.status = http::status_of(error.code),
          .message = error.message,
          .type = "server_error",
          .code = "unavailable"};
}

}  // namespace

Reply::Reply(http::Responder responder, AnswerWriter writer, Endpoint endpoint, const ApiRequest& request)
    : responder_(std::move(responder)),
      writer_(std::move(writer)),
      chat_(endpoint == Endpoint::kChat),
      streams_(request.stream),
      include_usage_(request.include_usage) {}

bool Reply::take(const Delta& delta) {
  if (streams_ && (stream_ || !delta.error)) return stream(delta);
  collect(delta);
  return true;
}

bool Reply::stream(const Delta& delta) {
  bool alive = true;
  if (!stream_) {
    stream_ = responder_.event_stream();
    if (chat_) alive = stream_->event(writer_.role_chunk());
  }
  if (alive && !delta.text.empty()) alive = stream_->event(writer_.text_chunk(delta.text));
  if (!delta.last()) return alive && stream_->alive();
  if (delta.error) {
    stream_->event(api_error_response(engine_ended(*delta.error)).body);
  } else {
    stream_->event(writer_.finish_chunk(*delta.finish));
    if (include_usage_) stream_->event(writer_.usage_chunk(delta.usage));
    stream_->event("[DONE]");
  }
  stream_->close();
  return true;
}

void Reply::collect(const Delta& delta) {
  text_ += delta.text;
  if (delta.error) responder_.send(api_error_response(engine_ended(*delta.error)));
  if (delta.finish) responder_.send(writer_.answer(text_, *delta.finish, delta.usage));
}

}  // namespace th::serve
