#pragma once
// A rank's output: the rank writes the file, the node hands it over piece by piece.

#include <cstdint>
#include <filesystem>
#include <string>

#include "base/files.h"
#include "base/result.h"

namespace th::node {

/// Bytes that were handed over are given back to the disk, but for the last few MiB. Output over kMaxLogBytes
/// is dropped, with a note. Thread: one owner. The destructor removes the file.
class LogFile {
 public:
  LogFile() = default;
  static Result<LogFile> make(std::filesystem::path path);
  LogFile(LogFile&& other) noexcept = default;
  LogFile& operator=(LogFile&& other) noexcept;
  ~LogFile();

  int fd() const { return fd_.get(); }
  /// The next bytes to hand over, at most kMaxLogChunkBytes; empty: nothing new.
  std::string next_piece() const;
  int64_t offset() const { return offset_; }
  bool all_sent() const { return next_piece().empty(); }
  /// The receiver has everything before `offset`. One that lost what was given back already goes without it.
  void sent_to(int64_t offset);
  /// Gives output over the limit back to the disk.
  void trim();
  /// Drops the rest: nobody wants it.
  void give_up();
  /// Appends to what the rank wrote.
  void note(std::string_view text);

 private:
  LogFile(UniqueFd fd, std::filesystem::path path) : fd_(std::move(fd)), path_(std::move(path)) {}
  int64_t size() const;
  void release(int64_t until);

  UniqueFd fd_;
  std::filesystem::path path_;
  int64_t offset_ = 0;
  int64_t released_ = 0;
  bool gave_up_ = false;
};

}  // namespace th::node
