#pragma once
// A client of Azure Blob Storage: the blobs of one container. Tested against Azurite, never against Azure.
//
// Put Blob, Put Block, Put Block List, Get Block List, Get Blob, Get Blob Properties, Delete Blob and List
// Blobs of the Blob service REST API, version 2021-12-02; shared key, shared access signature, service
// principal, managed identity (learn.microsoft.com: "Authorize with Shared Key", "Authorize with Microsoft
// Entra ID"; shapes: answers.h).

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "http/client.h"
#include "storage/account.h"
#include "storage/answers.h"

namespace th::storage {

struct BlobsOptions {
  int64_t retry_ns = 2 * kMinute;  // how long one request is tried again
  int64_t call_ns = kMinute;       // one try
  size_t block_bytes = size_t{8} << 20;
  int connections = 4;              // blocks under way at once; each is held in memory
  std::function<bool()> stop = {};  // true: what is under way ends with kCancelled; asked on any thread
  std::function<void(int64_t bytes)> moved = {};  // bytes of files that came or went, also those found there
};

/// Names are below the container: "prefix/file". Every request is tried again until retry_ns is over when the
/// connection is lost or the service is busy, after Retry-After where it says so. Errors: those of
/// error_of_fault, kUnavailable, kDeadlineExceeded, kCancelled; none holds a secret. Thread: one owner
/// (`moved` is called on its thread), blocking.
class Blobs {
 public:
  Blobs(Account account, std::string container, BlobsOptions options = {});

  /// Put whole. `only_new`: kAlreadyExists when it is there.
  Status put(const std::string& name, std::string_view bytes, bool only_new = false);
  /// Put in blocks, and listed once all are there: no reader sees half of it. Blocks that an attempt before
  /// left are not sent again. A blob that is there with this length and digest is left alone. Errors:
  /// kFailedPrecondition when the file is not `entry` any more, those of reading it.
  Status put_file(const std::string& name, const std::filesystem::path& file, const FileEntry& entry);

  /// Errors: kNotFound, kDataLoss (over `max_bytes`).
  Result<std::string> get(const std::string& name, size_t max_bytes);
  /// Into `file` once it is whole and its digest is that of `entry`; FILE.part meanwhile, from which the next
  /// attempt goes on. Errors: kNotFound, kDataLoss (other bytes), kNoSpace.
  Status get_file(const std::string& name, const std::filesystem::path& file, const FileEntry& entry);

  /// None: it is not there.
  Result<std::optional<Blob>> find(const std::string& name);
  /// All whose names begin with `prefix`, by name. Cost: a request for each 5,000.
  Result<std::vector<Blob>> list(const std::string& prefix);
  /// One that is not there is a success.
  Status remove(const std::string& name);

  const std::string& container() const { return container_; }

 private:
  struct Ask {
    std::string what;
    std::string method = "GET";
    std::string name = {};  // empty: the container
    std::map<std::string, std::string> query = {};
    http::Headers headers = {};
    std::string body = {};
    size_t max_body_bytes = size_t{64} << 20;
  };
  Result<http::Response> send(const Ask& ask);
  Result<http::Call> call_of(const Ask& ask);
  http::Call call_for_token() const;
  Result<std::string> token();
  Error without_secrets(Error error);
  bool wait(int64_t ns, int64_t deadline_ns) const;
  bool stopped() const { return options_.stop && options_.stop(); }
  void note_moved(int64_t bytes) const;
  std::string place_of(const std::string& name) const;
  Result<std::set<std::string>> uncommitted(const std::string& name);
  Status put_blocks(const std::string& name, int fd, const std::filesystem::path& file,
                    const FileEntry& entry);
  Result<bool> get_ranges(const std::string& name, int fd, const std::filesystem::path& file,
                          const FileEntry& entry, int64_t* resumed);

  const Account account_;
  const std::string container_;
  const BlobsOptions options_;
  std::mutex mutex_;
  std::string token_;             // by mutex
  int64_t token_expires_ns_ = 0;  // by mutex; monotonic
};

/// What is signed with the account's key: learn.microsoft.com, "Authorize with Shared Key". `path`: of the
/// URL, as it goes on the wire; `query`: decoded.
std::string string_to_sign(const std::string& method, const http::Headers& headers, size_t body_bytes,
                           const std::string& account, const std::string& path,
                           const std::map<std::string, std::string>& query);

}  // namespace th::storage
