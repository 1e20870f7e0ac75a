#pragma once
// How other threads hand work to the node's loop.

#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "base/files.h"
#include "http/client.h"

namespace th::node {

/// Thread: post() and fetch_async() from any thread; the rest on the loop's.
class Mailbox {
 public:
  Mailbox();
  /// Runs `work` on the loop, soon.
  void post(std::function<void()> work);
  /// Readable when work waits.
  int fd() const { return event_.get(); }
  void run_posted();

 private:
  UniqueFd event_;
  std::mutex mutex_;
  std::vector<std::function<void()>> posted_;  // by mutex_
};

/// fetch() without waiting: `done` runs on the loop. A response over `max_body_bytes` of the call is an
/// error. Cancel by http::Client::cancel(handle); `done` then gets kCancelled. `mailbox` outlives `client`.
http::Client::Handle fetch_async(http::Client& client, Mailbox& mailbox, http::Call call,
                                 std::function<void(Result<http::Response>)> done);

}  // namespace th::node
