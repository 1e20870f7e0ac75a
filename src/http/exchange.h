#pragma once
// One request's answer on its way from a handler (any thread) to its connection (its strand). Internal to the
// server.

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace th::http {

/// What an exchange asks of its connection. Thread: safe from any thread.
class ExchangeSink {
 public:
  virtual ~ExchangeSink() = default;
  virtual void wake() = 0;   // there is something to take()
  virtual void abort() = 0;  // cut the connection
};

class Exchange {
 public:
  struct Options {
    size_t max_queued_bytes = 0;
    bool head_only = false;  // the request was a HEAD
    bool http_1_0 = false;
    bool keep_alive = true;
  };
  Exchange(std::weak_ptr<ExchangeSink> sink, Options options) : options_(options), sink_(std::move(sink)) {}

  // From handlers.
  bool answer(int status, const std::vector<std::pair<std::string, std::string>>& headers,
              std::string_view body);
  bool begin_stream(int status, const std::vector<std::pair<std::string, std::string>>& headers);
  bool append(std::string_view bytes);
  void close();
  void abort();
  bool alive() const;
  bool answered() const;
  void on_gone(std::function<void()> callback);

  // From the connection.
  struct Batch {
    std::string bytes;
    bool last = false;  // nothing comes after `bytes`
  };
  Batch take();
  void written(size_t bytes);
  bool finished() const;
  bool keep_alive() const { return options_.keep_alive; }
  /// The client is gone: runs the callbacks.
  void lose();

 private:
  enum class State { kPending, kStreaming, kFinished, kGone };
  void wake(std::unique_lock<std::mutex> lock);

  Options options_;  // keep_alive is settled at construction and by begin_stream, before anything is taken
  const std::weak_ptr<ExchangeSink> sink_;
  mutable std::mutex mutex_;
  State state_ = State::kPending;
  bool chunked_ = false;
  bool woken_ = false;
  std::string pending_;
  size_t queued_bytes_ = 0;  // pending_ and what is being written
  std::vector<std::function<void()>> gone_callbacks_;
};

class Responder;
/// A responder whose answer goes into `exchange`.
Responder make_responder(std::shared_ptr<Exchange> exchange);

}  // namespace th::http
