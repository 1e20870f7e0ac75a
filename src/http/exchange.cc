#include "http/exchange.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>

#include "http/server.h"
#include "http/tunnel.h"
#include "http/wire.h"

namespace th::http {

void Exchange::wake(std::unique_lock<std::mutex> lock) {
  if (std::exchange(woken_, true)) return;
  lock.unlock();
  if (auto sink = sink_.lock()) sink->wake();
}

Headers Exchange::with_common(Headers headers) const {
  if (!options_.common) return headers;
  for (const auto& header : *options_.common) {
    if (!find_header(headers, header.first)) headers.push_back(header);
  }
  return headers;
}

bool Exchange::answer(Response response) {
  std::vector<std::function<void()>> dropped;  // destroyed after the lock: they may hold the last Responder
  std::unique_lock lock(mutex_);
  if (state_ != State::kPending) return false;
  response.headers = with_common(std::move(response.headers));
  whole_ = std::move(response);
  state_ = State::kFinished;
  dropped.swap(gone_callbacks_);
  wake(std::move(lock));
  return true;
}

std::string Exchange::render(Response response) const {
  response = encode(std::move(response), options_.accepts);
  const bool no_body = response.status == 204 || response.status == 304;
  HeadOptions head{.content_length = response.body.size(), .keep_alive = options_.keep_alive};
  if (no_body) head.content_length.reset();
  std::string out = render_head(response.status, response.headers, head);
  if (!options_.head_only && !no_body) out += response.body;
  return out;
}

bool Exchange::begin_stream(int status, const Headers& headers) {
  std::unique_lock lock(mutex_);
  if (state_ != State::kPending) return false;
  chunked_ = !options_.http_1_0;
  if (!chunked_) options_.keep_alive = false;
  pending_ =
      render_head(status, with_common(headers), {.chunked = chunked_, .keep_alive = options_.keep_alive});
  queued_bytes_ = pending_.size();
  state_ = State::kStreaming;
  wake(std::move(lock));
  return true;
}

bool Exchange::begin_tunnel(const Headers& headers) {
  std::unique_lock lock(mutex_);
  if (state_ != State::kPending) return false;
  tunnel_ = true;
  options_.keep_alive = false;
  pending_ = render_upgrade(headers);
  queued_bytes_ = pending_.size();
  state_ = State::kStreaming;
  wake(std::move(lock));
  return true;
}

bool Exchange::append(std::string_view bytes) {
  std::unique_lock lock(mutex_);
  if (state_ != State::kStreaming) return false;
  if (bytes.empty() || options_.head_only) return true;
  if (queued_bytes_ + bytes.size() > options_.max_queued_bytes) {
    lock.unlock();
    abort();
    return false;
  }
  size_t before = pending_.size();
  if (chunked_) pending_ += fmt::format("{:x}\r\n", bytes.size());
  pending_ += bytes;
  if (chunked_) pending_ += "\r\n";
  queued_bytes_ += pending_.size() - before;
  wake(std::move(lock));
  return true;
}

void Exchange::close() {
  std::vector<std::function<void()>> dropped;
  std::unique_lock lock(mutex_);
  drop_callbacks(dropped);
  if (state_ != State::kStreaming) return;
  if (chunked_ && !options_.head_only) {
    pending_ += "0\r\n\r\n";
    queued_bytes_ += 5;
  }
  state_ = State::kFinished;
  dropped.swap(gone_callbacks_);
  wake(std::move(lock));
}

void Exchange::abort() {
  {
    std::scoped_lock lock(mutex_);
    if (state_ != State::kStreaming) return;
    state_ = State::kGone;
    pending_.clear();
  }
  if (auto sink = sink_.lock()) sink->abort();
}

bool Exchange::alive() const {
  std::scoped_lock lock(mutex_);
  return state_ == State::kPending || state_ == State::kStreaming;
}

bool Exchange::answered() const {
  std::scoped_lock lock(mutex_);
  return state_ != State::kPending;
}

bool Exchange::finished() const {
  std::scoped_lock lock(mutex_);
  return state_ == State::kFinished;
}

void Exchange::on_gone(std::function<void()> callback) {
  {
    std::scoped_lock lock(mutex_);
    if (state_ == State::kFinished) return;
    if (state_ != State::kGone) {
      gone_callbacks_.push_back(std::move(callback));
      return;
    }
  }
  callback();
}

Exchange::Batch Exchange::take() {
  std::unique_lock lock(mutex_);
  woken_ = false;
  if (whole_) {
    Response whole = *std::exchange(whole_, std::nullopt);
    lock.unlock();  // others ask whether it is answered
    return Batch{render(std::move(whole)), true};
  }
  return Batch{std::exchange(pending_, {}), state_ == State::kFinished};
}

void Exchange::written(size_t bytes) {
  std::unique_lock lock(mutex_);
  queued_bytes_ -= std::min(bytes, queued_bytes_);
  if (queued_bytes_ > 0 || !drained_callback_) return;
  const auto callback = drained_callback_;
  lock.unlock();
  callback();
}

bool Exchange::is_tunnel() const {
  std::scoped_lock lock(mutex_);
  return tunnel_ && state_ == State::kStreaming;
}

void Exchange::deliver(std::string_view piece) {
  std::unique_lock lock(mutex_);
  const auto callback = data_callback_;
  if (!callback) {
    undelivered_ += piece;
    return;
  }
  lock.unlock();
  callback(piece);
}

void Exchange::on_data(std::function<void(std::string_view piece)> callback) {
  std::unique_lock lock(mutex_);
  if (state_ != State::kStreaming) return;
  data_callback_ = callback;
  const std::string first = std::exchange(undelivered_, {});
  lock.unlock();
  if (!first.empty()) callback(first);
}

void Exchange::on_drained(std::function<void()> callback) {
  std::scoped_lock lock(mutex_);
  if (state_ == State::kStreaming) drained_callback_ = std::move(callback);
}

void Exchange::resume() {
  if (auto sink = sink_.lock()) sink->resume();
}

/// The callbacks of a joined tunnel hold the other one.
void Exchange::drop_callbacks(std::vector<std::function<void()>>& dropped) {
  dropped.push_back(std::exchange(drained_callback_, {}));
  dropped.push_back([data = std::exchange(data_callback_, {})] {});
}

void Exchange::lose() {
  std::vector<std::function<void()>> callbacks, dropped;
  {
    std::scoped_lock lock(mutex_);
    drop_callbacks(dropped);
    if (state_ == State::kFinished) return;
    state_ = State::kGone;
    pending_.clear();
    callbacks.swap(gone_callbacks_);
  }
  for (auto& callback : callbacks) callback();
}

// ---- The handles that handlers get.

class Responder::Impl {
 public:
  explicit Impl(std::shared_ptr<Exchange> exchange) : exchange(std::move(exchange)) {}
  ~Impl() {
    if (exchange->answered()) return;
    exchange->answer(exchange->refusal({Code::kInternal, "the request was dropped without an answer"}, 0));
  }
  const std::shared_ptr<Exchange> exchange;
};

class Stream::Impl {
 public:
  explicit Impl(std::shared_ptr<Exchange> exchange) : exchange(std::move(exchange)) {}
  /// A body whose writer vanished must not look complete: the connection is cut.
  ~Impl() { exchange->abort(); }
  const std::shared_ptr<Exchange> exchange;
};

Responder make_responder(std::shared_ptr<Exchange> exchange) {
  return Responder(std::make_shared<Responder::Impl>(std::move(exchange)));
}

void Responder::send(Response response) const { impl_->exchange->answer(std::move(response)); }
void Responder::send(const Json& body, int status) const { send(json_response(body, status)); }
void Responder::fail(const Error& error, int status, Headers headers) const {
  Response response = impl_->exchange->refusal(error, status);
  std::ranges::move(headers, std::back_inserter(response.headers));
  send(std::move(response));
}

Stream Responder::stream(int status, Headers headers) const {
  impl_->exchange->begin_stream(status, headers);
  return Stream(std::make_shared<Stream::Impl>(impl_->exchange));
}

Tunnel Responder::tunnel(Headers headers) const {
  impl_->exchange->begin_tunnel(headers);
  return Tunnel(impl_->exchange);
}

Stream Responder::event_stream() const {
  return stream(200, {{"Content-Type", "text/event-stream"}, {"Cache-Control", "no-cache"}});
}

void Responder::on_gone(std::function<void()> callback) const {
  impl_->exchange->on_gone(std::move(callback));
}

bool Stream::write(std::string_view bytes) { return impl_->exchange->append(bytes); }

bool Stream::event(std::string_view data, std::string_view event, std::string_view id) {
  std::string text;
  if (!id.empty()) text += fmt::format("id: {}\n", id);
  if (!event.empty()) text += fmt::format("event: {}\n", event);
  return write(text += fmt::format("data: {}\n\n", data));
}

void Stream::close() { impl_->exchange->close(); }
bool Stream::alive() const { return impl_->exchange->alive(); }
void Stream::on_gone(std::function<void()> callback) { impl_->exchange->on_gone(std::move(callback)); }

}  // namespace th::http
