#pragma once
// The gateway's two errands with the controller: its configuration comes, its usage records go.

#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>

#include "base/result.h"
#include "gateway/config.h"
#include "gateway/journal.h"
#include "http/client.h"

namespace th::gateway {

struct ControllerLinkOptions {
  std::string url;
  std::string authority_pem = {};  // as in http::Call
  std::filesystem::path token_file;
  std::filesystem::path config_file;  // the last configuration is kept here
  int64_t poll_ns = 10 * kSecond;     // how long the controller may hold a poll
};

/// Thread-safe.
class ControllerLink {
 public:
  /// Reads the kept configuration; contact begins with start(). Errors: kFailedPrecondition: there is none,
  /// and no readable token file to get one with.
  static Result<std::unique_ptr<ControllerLink>> open(ControllerLinkOptions options, UsageJournal& journal);
  ~ControllerLink();
  void start();

  /// Never null; without deployments and keys until the controller was heard for the first time.
  ConfigSnapshot config() const;
  bool controller_up() const { return controller_up_; }
  /// Waits until the journal is handed over, the controller is away, or `timeout_ns` passed.
  void flush(int64_t timeout_ns);

 private:
  ControllerLink(ControllerLinkOptions options, UsageJournal& journal, ConfigSnapshot config);
  void poll_loop(std::stop_token stop);
  void usage_loop(std::stop_token stop);
  Status poll_once(std::stop_token stop);
  Status hand_over(std::stop_token stop);
  Result<http::Response> exchange(http::Call call, std::stop_token stop);
  Result<http::Call> controller_call(std::string method, const std::string& path) const;
  void pause(std::stop_token stop, int64_t ns);

  const ControllerLinkOptions options_;
  const std::string id_;  // of this run: by it the controller knows which configuration is in use
  UsageJournal& journal_;
  http::Client client_;
  mutable std::mutex mutex_;
  std::condition_variable_any stopped_;
  ConfigSnapshot config_;  // by mutex_
  int64_t have_ = 0;       // generation that this run of the gateway heard; poll thread only
  bool heard_ = false;     // the same
  std::atomic<bool> controller_up_ = false;
  std::jthread poller_;
  std::jthread sender_;
};

}  // namespace th::gateway
