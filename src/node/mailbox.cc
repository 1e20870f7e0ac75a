#include "node/mailbox.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdint>

namespace th::node {

Mailbox::Mailbox() : event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) { TH_CHECK(event_); }

void Mailbox::post(std::function<void()> work) {
  std::scoped_lock lock(mutex_);
  posted_.push_back(std::move(work));
  uint64_t one = 1;
  [[maybe_unused]] ssize_t n = write(event_.get(), &one, sizeof one);
}

void Mailbox::run_posted() {
  std::vector<std::function<void()>> work;
  {
    std::scoped_lock lock(mutex_);
    uint64_t count = 0;
    [[maybe_unused]] ssize_t n = read(event_.get(), &count, sizeof count);
    work.swap(posted_);
  }
  for (auto& one : work) one();
}

http::Client::Handle fetch_async(http::Client& client, Mailbox& mailbox, http::Call call,
                                 std::function<void(Result<http::Response>)> done) {
  struct State {
    http::Response response;
    bool too_large = false;
  };
  auto state = std::make_shared<State>();
  size_t max_body_bytes = call.max_body_bytes;
  http::Client::Callbacks callbacks;
  callbacks.on_head = [state](int status, const http::Headers& headers) {
    state->response.status = status;
    state->response.headers = headers;
  };
  callbacks.on_data = [state, max_body_bytes](std::string_view piece) {
    state->too_large = state->response.body.size() + piece.size() > max_body_bytes;
    if (!state->too_large) state->response.body += piece;
    return !state->too_large;
  };
  callbacks.on_end = [state, &mailbox, done = std::move(done)](Status end) {
    Result<http::Response> result = std::move(state->response);
    if (!end) result = fail(end.error());
    if (state->too_large) result = fail(Code::kResourceExhausted, "the answer is too large");
    mailbox.post([done, result = std::move(result)] { done(result); });
  };
  return client.start(std::move(call), std::move(callbacks));
}

}  // namespace th::node
