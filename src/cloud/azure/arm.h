#pragma once
// Calls of Azure Resource Manager: access token, retries, throttling, pages and asynchronous operations.

#include <atomic>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "cloud/azure/answers.h"
#include "cloud/azure/provider.h"

namespace th::cloud::azure {

/// One request. All that we send may be repeated: names are ours, and a resource is only made where there is
/// none (`only_new`).
struct Ask {
  std::string what;  // "creating scale set x": for errors
  std::string method = "GET";
  std::string url;        // whole, or a path below arm_url that begins with "/"
  std::string body = {};  // JSON
  bool only_new = false;  // If-None-Match: *; kFailedPrecondition when it exists
  bool spot = false;      // see error_of_fault
};

/// Thread: safe from any thread. Every call ends by `deadline_ns` (of AzureWorld::unix_ns) and tries again
/// until then what is worth it: lost connections, 429 and 5xx after Retry-After, 409 while another operation
/// runs, 401 once with a new token. Errors: those of error_of_fault, kUnavailable, kDeadlineExceeded; none
/// holds a secret.
class Arm {
 public:
  Arm(const AzureProviderOptions& options, const AzureWorld& world) : options_(options), world_(world) {}

  /// A 2xx answer.
  Result<http::Response> ask(const Ask& ask, int64_t deadline_ns);
  /// The same, then polls the operation that it began until it has succeeded.
  Status carry_out(const Ask& ask, int64_t deadline_ns);
  /// Without our token: prices and the metadata service.
  Result<http::Response> ask_openly(const Ask& ask, int64_t deadline_ns);

  /// `read` of each page of a list.
  template <class Read>
  auto list(Ask ask, Read read, int64_t deadline_ns, bool openly = false) {
    using Values = decltype(read(std::string_view())->values);
    constexpr int kMaxPages = 1000;
    Values all;
    for (int i = 0; i < kMaxPages; ++i) {
      const auto answer = openly ? ask_openly(ask, deadline_ns) : this->ask(ask, deadline_ns);
      if (!answer) return Result<Values>(tl::unexpect, answer.error());
      auto page = read(std::string_view(answer->body));
      if (!page) return Result<Values>(tl::unexpect, page.error());
      for (auto& value : page->values) all.push_back(std::move(value));
      if (page->next.empty()) return Result<Values>(std::move(all));
      ask.url = page->next;
    }
    return Result<Values>(tl::unexpect,
                          Error{Code::kUnavailable, "Azure, " + ask.what + ": a list without end"});
  }

  int64_t now_ns() const { return world_.unix_ns(); }
  /// Returns: whether there was time to.
  bool wait(int64_t ns, int64_t deadline_ns);
  /// No more waiting from now on.
  void interrupt() { interrupted_ = true; }

 private:
  enum class Key { kNone, kToken };
  Result<http::Response> send(const Ask& ask, Key key, const http::Headers& headers, int64_t deadline_ns);
  Result<std::string> token(int64_t deadline_ns);
  Result<http::Response> ask_for_token(int64_t deadline_ns);
  Status follow(const Ask& ask, const http::Response& first, int64_t deadline_ns);
  bool is_ours(const std::string& url) const;
  Error without_secrets(Error error);

  const AzureProviderOptions& options_;
  const AzureWorld& world_;
  std::atomic<bool> interrupted_ = false;
  std::mutex mutex_;
  Token token_;                   // by mutex
  int64_t token_expires_ns_ = 0;  // by mutex
};

}  // namespace th::cloud::azure
