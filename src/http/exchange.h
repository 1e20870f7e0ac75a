#pragma once
// One request's answer on its way from a handler (any thread) to its connection (its strand). Internal to the
// server.

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "http/encode.h"

namespace th::http {

/// What an exchange asks of its connection. Thread: safe from any thread.
class ExchangeSink {
 public:
  virtual ~ExchangeSink() = default;
  virtual void wake() = 0;    // there is something to take()
  virtual void abort() = 0;   // cut the connection
  virtual void resume() = 0;  // of a tunnel: read on
};

class Exchange {
 public:
  struct Options {
    size_t max_queued_bytes = 0;
    bool head_only = false;  // the request was a HEAD
    bool http_1_0 = false;
    bool keep_alive = true;
    ErrorForm error_form = error_response;
    Accepts accepts = {};
    std::shared_ptr<const std::vector<std::pair<std::string, std::string>>> common = {};  // of ServerOptions
  };
  Exchange(std::weak_ptr<ExchangeSink> sink, Options options) : options_(options), sink_(std::move(sink)) {}

  // From handlers.
  bool answer(Response response);
  /// 101: from here bytes go both ways as they are.
  bool begin_tunnel(const Headers& headers);
  bool begin_stream(int status, const std::vector<std::pair<std::string, std::string>>& headers);
  bool append(std::string_view bytes);
  void close();
  void abort();
  bool alive() const;
  bool answered() const;
  void on_gone(std::function<void()> callback);
  // Of a tunnel. Callbacks come one after another, and are dropped at its end.
  void on_data(std::function<void(std::string_view piece)> callback);  // resume() asks for the next piece
  void on_drained(std::function<void()> callback);                     // all that was appended is written
  void resume();

  // From the connection.
  struct Batch {
    std::string bytes;
    bool last = false;  // nothing comes after `bytes`
  };
  Batch take();
  void written(size_t bytes);
  bool is_tunnel() const;  // and it is open
  void deliver(std::string_view piece);
  bool finished() const;
  bool keep_alive() const { return options_.keep_alive; }
  Response refusal(const Error& error, int status) const { return options_.error_form(error, status); }
  /// The client is gone: runs the callbacks.
  void lose();

 private:
  enum class State { kPending, kStreaming, kFinished, kGone };
  void wake(std::unique_lock<std::mutex> lock);
  void drop_callbacks(
      std::vector<std::function<void()>>& dropped);  // by mutex_; the caller destroys them after
  std::string render(Response response) const;
  std::vector<std::pair<std::string, std::string>> with_common(
      std::vector<std::pair<std::string, std::string>> headers) const;

  Options options_;  // keep_alive is settled at construction and by begin_stream, before anything is taken
  const std::weak_ptr<ExchangeSink> sink_;
  mutable std::mutex mutex_;
  State state_ = State::kPending;
  bool chunked_ = false;
  bool tunnel_ = false;
  std::string undelivered_;  // came before on_data()
  std::function<void(std::string_view)> data_callback_;
  std::function<void()> drained_callback_;
  bool woken_ = false;
  std::string pending_;
  std::optional<Response> whole_;  // in place of `pending_`: rendered by who takes it
  size_t queued_bytes_ = 0;        // pending_ and what is being written
  std::vector<std::function<void()>> gone_callbacks_;
};

class Responder;
/// A responder whose answer goes into `exchange`.
Responder make_responder(std::shared_ptr<Exchange> exchange);

}  // namespace th::http
