#pragma once
// One rank's file of a checkpoint: of each unit of the model the part that the rank owned, as float32: its
// weights, then m, then v. See docs/formats.md.

#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/files.h"
#include "train/zero.h"

namespace th::train {

/// Writes a file on a thread of its own, straight from the memory that is trained in: a part must not change
/// before wait_part() has returned for it. Thread: one owner.
class ShardWriter {
 public:
  ShardWriter(std::filesystem::path file, std::vector<StatePart> parts, DoneWith done_with = {});
  ~ShardWriter();
  ShardWriter(const ShardWriter&) = delete;
  ShardWriter& operator=(const ShardWriter&) = delete;

  /// Returns when part number `index` is written, or nothing is written any more.
  void wait_part(size_t index);
  /// Waits for all of it, synced; the sha256 in hex. Errors: kNoSpace, kPermissionDenied, kInternal.
  Result<std::string> finish();

 private:
  void run();
  Result<std::string> write_all();
  const std::filesystem::path file_;
  const std::vector<StatePart> parts_;
  const DoneWith done_with_;
  std::mutex mutex_;
  std::condition_variable changed_;
  size_t written_ = 0;
  bool ended_ = false;
  std::atomic<bool> stop_{false};
  Result<std::string> result_ = std::string();
  std::thread thread_;  // last
};

/// A shard file, mapped; what it holds was checked against its sha256. Errors: kNotFound; kDataLoss, naming
/// the file and what is wrong with it.
class ShardFile {
 public:
  static Result<ShardFile> open(const std::filesystem::path& file, std::vector<Owned> parts,
                                const std::string& sha256);
  ShardFile(ShardFile&& other) noexcept;
  ShardFile& operator=(ShardFile&&) = delete;
  ~ShardFile();
  /// Copies what both have.
  void copy_into(std::span<const StatePart> state, const DoneWith& done_with = {}) const;

 private:
  ShardFile(const float* values, size_t bytes, std::vector<Owned> parts)
      : values_(values), bytes_(bytes), parts_(std::move(parts)) {}
  const float* values_;
  size_t bytes_;
  std::vector<Owned> parts_;
};

}  // namespace th::train
