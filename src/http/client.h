#pragma once
// An HTTP/1.1 client: one call that waits, and one that streams by callbacks.

#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "base/units.h"
#include "http/message.h"

namespace th::http {

struct Call {
  std::string method = "GET";
  std::string url;  // "http://127.0.0.1:7070/api/v1/slices?x=y"; also https://
  Headers headers = {};
  std::string body = {};
  int64_t timeout_ns = 30 * kSecond;  // from start to the end of the response; for streams: to its head
  int64_t idle_timeout_ns = 0;        // streams: gap between pieces; 0: none
  size_t max_body_bytes = size_t{64} << 20;  // fetch(): a larger answer is an error
  std::string authority_pem = {};  // https: whose certificates are taken; empty: those that the system trusts
};

/// Waits for the whole response, whatever its status. Errors: kUnavailable (refused, reset, name not found;
/// names the URL), kDeadlineExceeded, kInvalidArgument (URL). Thread-safe, blocking.
Result<Response> fetch(const Call& call);

/// fetch(), then: a status that is not 2xx becomes error_of(response), the body is parsed as JSON (null if
/// empty).
Result<Json> fetch_json(const Call& call);
/// The same with a JSON body sent; a GET becomes a POST.
Result<Json> fetch_json(Call call, const Json& body);

/// Streams without a thread a call. Thread: start() and cancel() are safe from any thread; callbacks come one
/// after another on a thread of the client and must not block.
class Client {
 public:
  struct Callbacks {
    std::function<void(int status, const Headers& headers)> on_head = {};
    std::function<bool(std::string_view piece)> on_data = {};  // false: cancel
    std::function<void(Status end)> on_end = {};  // last, exactly once; kCancelled after cancel()
  };
  class Running;
  using Handle = std::shared_ptr<Running>;

  explicit Client(int threads = 1);
  /// Cancels what is under way (on_end comes with kCancelled) and joins. Never call it from one of its
  /// callbacks.
  ~Client();
  Handle start(Call call, Callbacks callbacks);
  static void cancel(const Handle& handle);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

/// Splits a byte stream into the data of server-sent events. Pieces may break anywhere.
class EventReader {
 public:
  struct Event {
    std::string id, event, data;
  };
  /// Appends `piece`; returns the events it completes. Errors: kInvalidArgument when one event is over 1 MiB.
  Result<std::vector<Event>> feed(std::string_view piece);

 private:
  void end_line(std::vector<Event>& complete);

  std::string line_;  // the line under way
  Event event_;       // the event under way
  bool has_data_ = false;
  bool skip_line_feed_ = false;  // the last piece ended between \r and \n
};

}  // namespace th::http
