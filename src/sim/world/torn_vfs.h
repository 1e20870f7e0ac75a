#pragma once
// A SQLite VFS over memory whose disk behaves like a bad one: what was not synced may be lost or torn when
// the power goes. Thread: one owner.

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/env.h"

namespace th::sim {

/// A disk with files. A write is in the machine's memory until its file is synced; each sector of 512 bytes
/// of it reaches the disk whole, or not at all, when the power goes.
class TornDisk {
 public:
  static constexpr int64_t kSectorBytes = 512;

  /// Registers itself with SQLite under name(), for as long as it lives.
  explicit TornDisk(uint64_t seed);
  ~TornDisk();
  TornDisk(const TornDisk&) = delete;
  TornDisk& operator=(const TornDisk&) = delete;

  const std::string& name() const { return name_; }
  /// The process is gone: open connections reach nothing any more, and every write that it made stays.
  void end_process();
  /// The machine's power is gone, the process with it: of every file, sectors that were written since its
  /// last sync are there or not, each by chance; a file's length too.
  void cut_power();

  /// The process ends inside the n-th write or sync from now on, which fails like all after it.
  void end_process_at_write(int64_t n) { writes_left_ = n; }
  bool process_is_gone() const { return gone_; }

  // For the VFS: a database is opened; whether a write is still made.
  void begin_process() { gone_ = false; }
  bool count_write();

  bool ignores_sync = false;  // a disk that lies
  int64_t syncs = 0, torn_sectors = 0;

  struct File {
    std::string bytes;                         // as the process sees it
    std::string durable;                       // as the disk has it
    std::map<int64_t, bool> unsynced_sectors;  // by number
  };
  struct Shared;  // what outlives the connections: files, shared memory, which life it is
  Shared& shared() { return *shared_; }

 private:
  Prng prng_;
  int64_t writes_left_ = 0;  // 0: no end is set
  bool gone_ = false;
  std::string name_;
  std::shared_ptr<Shared> shared_;
  struct Vfs;
  std::unique_ptr<Vfs> vfs_;
};

}  // namespace th::sim
