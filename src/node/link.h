#pragma once
// The node's side of the wire: one sync and one log push under way at most, with retries.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "http/client.h"
#include "node/config.h"
#include "node/mailbox.h"
#include "node/protocol.h"

namespace th::node {

/// Thread: the loop's. Times are monotonic nanoseconds.
class Link {
 public:
  struct Handlers {
    std::function<void(const SyncReply&)> on_reply;
    std::function<void()> on_unknown;  // the controller does not know this VM; nothing more is said to it
    std::function<void()> on_away;     // it could not be reached, or did not make sense
    /// What became of a log push: the offset that the controller has, or an error that a retry does not mend.
    std::function<void(const std::string& task, Result<int64_t> next_offset)> on_log;
  };
  Link(const NodeConfig& config, Mailbox& mailbox, Handlers handlers);

  /// Asks for the time: `done` gets this clock minus the controller's, in seconds (none: it tells no time),
  /// once the controller answers.
  void ask_time(std::function<void(std::optional<int64_t> skew_s)> done);

  /// Sends `request` as soon as it may. What is news (other tasks, validation or any metrics than the last
  /// that was taken) goes at once and interrupts a long poll; without news this is one long poll after the
  /// other.
  void sync(SyncRequest request, int64_t now_ns);
  /// When sync() should be called again at the latest; none: the answer under way will say.
  std::optional<int64_t> next_sync_ns(int64_t now_ns) const;

  bool log_idle(int64_t now_ns) const { return !log_under_way_ && now_ns >= log_retry_ns_; }
  std::optional<int64_t> log_retry_ns(int64_t now_ns) const;
  /// How this node calls `path` of the controller's.
  http::Call call(std::string method, const std::string& path) const;
  void push_log(const std::string& task, int64_t offset, std::string bytes);

  /// All that was said last has been taken.
  bool quiet() const { return !short_under_way_ && last_taken_; }

 private:
  bool is_news(const SyncRequest& request, int64_t now_ns) const;
  void on_sync_done(const Result<http::Response>& response, bool was_news);
  void on_log_done(const std::string& task, const Result<http::Response>& response);
  void back_off(std::string_view problem);

  const NodeConfig& config_;
  Mailbox& mailbox_;
  Handlers handlers_;
  std::optional<SyncRequest> told_;     // the last that was taken
  std::optional<SyncRequest> telling_;  // under way
  http::Client::Handle sync_call_;
  bool short_under_way_ = false;
  bool last_taken_ = false;
  bool away_ = false;
  bool dismissed_ = false;
  int64_t backoff_ns_ = 0;
  int64_t sync_retry_ns_ = 0;
  int64_t metrics_after_ns_ = 0;
  bool log_under_way_ = false;
  int64_t log_retry_ns_ = 0;
  http::Client client_{1};  // last: its end needs the rest
};

}  // namespace th::node
