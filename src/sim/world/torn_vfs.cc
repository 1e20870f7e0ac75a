#include "sim/world/torn_vfs.h"

#include <fmt/format.h>
#include <sqlite3.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include "base/result.h"

namespace th::sim {

struct TornDisk::Shared {
  TornDisk* disk = nullptr;
  int64_t life = 1;  // connections of an earlier one reach nothing
  std::map<std::string, std::shared_ptr<File>> files;
  using Memory = std::map<std::string, std::vector<std::unique_ptr<std::string>>>;
  Memory memory, dead_memory;  // of WAL, by file and region; the dead one may still be looked at
};

struct TornDisk::Vfs {
  sqlite3_vfs vfs{};
};

namespace {

struct OpenFile {
  sqlite3_file base;
  TornDisk::Shared* shared;
  TornDisk::File* file;
  std::string* path;
  int64_t life;
  bool delete_on_close;
};

OpenFile* self(sqlite3_file* file) { return reinterpret_cast<OpenFile*>(file); }
bool gone(const OpenFile* open) { return open->life != open->shared->life; }

void touch(TornDisk::File& file, int64_t from, int64_t to) {
  for (int64_t s = from / TornDisk::kSectorBytes; s * TornDisk::kSectorBytes < to; ++s)
    file.unsynced_sectors[s] = true;
}

int close_file(sqlite3_file* f) {
  OpenFile* open = self(f);
  if (open->delete_on_close && !gone(open)) open->shared->files.erase(*open->path);
  delete open->path;
  return SQLITE_OK;
}

int read_file(sqlite3_file* f, void* out, int amount, sqlite3_int64 offset) {
  const OpenFile* open = self(f);
  if (gone(open)) return SQLITE_IOERR_READ;
  const std::string& bytes = open->file->bytes;
  const int64_t there = std::clamp<int64_t>(static_cast<int64_t>(bytes.size()) - offset, 0, amount);
  if (there > 0) std::memcpy(out, bytes.data() + offset, static_cast<size_t>(there));
  if (there == amount) return SQLITE_OK;
  std::memset(static_cast<char*>(out) + there, 0, static_cast<size_t>(amount - there));
  return SQLITE_IOERR_SHORT_READ;
}

int write_file(sqlite3_file* f, const void* in, int amount, sqlite3_int64 offset) {
  const OpenFile* open = self(f);
  if (gone(open) || !open->shared->disk->count_write()) return SQLITE_IOERR_WRITE;
  std::string& bytes = open->file->bytes;
  const size_t end = static_cast<size_t>(offset + amount);
  if (bytes.size() < end) bytes.resize(end);
  std::memcpy(bytes.data() + offset, in, static_cast<size_t>(amount));
  touch(*open->file, offset, offset + amount);
  return SQLITE_OK;
}

int truncate_file(sqlite3_file* f, sqlite3_int64 size) {
  const OpenFile* open = self(f);
  if (gone(open)) return SQLITE_IOERR_TRUNCATE;
  const auto before = static_cast<int64_t>(open->file->bytes.size());
  open->file->bytes.resize(static_cast<size_t>(size));
  touch(*open->file, std::min<int64_t>(size, before), std::max<int64_t>(size, before));
  return SQLITE_OK;
}

int sync_file(sqlite3_file* f, int) {
  const OpenFile* open = self(f);
  if (gone(open) || !open->shared->disk->count_write()) return SQLITE_IOERR_FSYNC;
  ++open->shared->disk->syncs;
  if (open->shared->disk->ignores_sync) return SQLITE_OK;
  TornDisk::File& file = *open->file;
  file.durable.resize(file.bytes.size());
  for (const auto& [sector, touched] : file.unsynced_sectors) {
    const int64_t from = sector * TornDisk::kSectorBytes;
    const int64_t there =
        std::min<int64_t>(TornDisk::kSectorBytes, static_cast<int64_t>(file.bytes.size()) - from);
    if (there > 0)
      std::memcpy(file.durable.data() + from, file.bytes.data() + from, static_cast<size_t>(there));
  }
  file.unsynced_sectors.clear();
  return SQLITE_OK;
}

int file_size(sqlite3_file* f, sqlite3_int64* out) {
  if (gone(self(f))) return SQLITE_IOERR_FSTAT;
  *out = static_cast<sqlite3_int64>(self(f)->file->bytes.size());
  return SQLITE_OK;
}

// One connection a life: nobody to lock out.
int lock_file(sqlite3_file*, int) { return SQLITE_OK; }
int check_lock(sqlite3_file*, int* out) { return *out = 0, SQLITE_OK; }
int control(sqlite3_file*, int, void*) { return SQLITE_NOTFOUND; }
int sector_size(sqlite3_file*) { return TornDisk::kSectorBytes; }
int characteristics(sqlite3_file*) { return 0; }

int shm_map(sqlite3_file* f, int region, int bytes, int extend, void volatile** out) {
  const OpenFile* open = self(f);
  if (gone(open)) return SQLITE_IOERR_SHMMAP;
  auto& regions = open->shared->memory[*open->path];
  *out = nullptr;
  if (static_cast<size_t>(region) >= regions.size()) {
    if (!extend) return SQLITE_OK;
    while (regions.size() <= static_cast<size_t>(region)) {
      regions.push_back(std::make_unique<std::string>(static_cast<size_t>(bytes), '\0'));
    }
  }
  *out = regions[static_cast<size_t>(region)]->data();
  return SQLITE_OK;
}
int shm_lock(sqlite3_file*, int, int, int) { return SQLITE_OK; }
void shm_barrier(sqlite3_file*) { std::atomic_thread_fence(std::memory_order_seq_cst); }
int shm_unmap(sqlite3_file* f, int remove) {
  if (remove && !gone(self(f))) self(f)->shared->memory.erase(*self(f)->path);
  return SQLITE_OK;
}

constexpr sqlite3_io_methods kMethods = {2,           close_file,  read_file,       write_file, truncate_file,
                                         sync_file,   file_size,   lock_file,       lock_file,  check_lock,
                                         control,     sector_size, characteristics, shm_map,    shm_lock,
                                         shm_barrier, shm_unmap,   nullptr,         nullptr};

TornDisk::Shared& shared_of(sqlite3_vfs* vfs) { return *static_cast<TornDisk::Shared*>(vfs->pAppData); }

int open_file(sqlite3_vfs* vfs, const char* name, sqlite3_file* out, int flags, int* out_flags) {
  static std::atomic<int64_t> next_temporary{0};
  TornDisk::Shared& shared = shared_of(vfs);
  const std::string path = name ? name : fmt::format("temporary-{}", next_temporary++);
  OpenFile* open = self(out);
  open->base.pMethods = nullptr;
  auto found = shared.files.find(path);
  if (found == shared.files.end()) {
    if (!(flags & SQLITE_OPEN_CREATE)) return SQLITE_CANTOPEN;
    found = shared.files.emplace(path, std::make_shared<TornDisk::File>()).first;
  }
  open->shared = &shared, open->file = found->second.get(), open->life = shared.life;
  open->path = new std::string(path);
  open->delete_on_close = (flags & SQLITE_OPEN_DELETEONCLOSE) != 0;
  open->base.pMethods = &kMethods;
  if (flags & SQLITE_OPEN_MAIN_DB) shared.disk->begin_process();
  if (out_flags) *out_flags = flags;
  return SQLITE_OK;
}

int delete_file(sqlite3_vfs* vfs, const char* name, int) {
  return shared_of(vfs).files.erase(name), SQLITE_OK;
}
int access_file(sqlite3_vfs* vfs, const char* name, int, int* out) {
  return *out = shared_of(vfs).files.count(name) > 0, SQLITE_OK;
}
int full_path(sqlite3_vfs*, const char* name, int size, char* out) {
  return sqlite3_snprintf(size, out, "%s", name), SQLITE_OK;
}
int randomness(sqlite3_vfs*, int size, char* out) {
  return std::memset(out, 7, static_cast<size_t>(size)), size;
}
int sleep_not(sqlite3_vfs*, int microseconds) { return microseconds; }
int time_of_day(sqlite3_vfs*, double* out) { return *out = 2460000.5, SQLITE_OK; }
int last_error(sqlite3_vfs*, int, char*) { return 0; }

}  // namespace

TornDisk::TornDisk(uint64_t seed)
    : prng_(seed), shared_(std::make_shared<Shared>()), vfs_(std::make_unique<Vfs>()) {
  static std::atomic<int64_t> next_name{0};
  name_ = fmt::format("torn-{}", next_name++);
  shared_->disk = this;
  sqlite3_vfs& vfs = vfs_->vfs;
  vfs.iVersion = 1, vfs.szOsFile = sizeof(OpenFile), vfs.mxPathname = 512, vfs.zName = name_.c_str();
  vfs.pAppData = shared_.get();
  vfs.xOpen = open_file, vfs.xDelete = delete_file, vfs.xAccess = access_file, vfs.xFullPathname = full_path;
  vfs.xRandomness = randomness, vfs.xSleep = sleep_not, vfs.xCurrentTime = time_of_day;
  vfs.xGetLastError = last_error;
  TH_CHECK(sqlite3_vfs_register(&vfs, 0) == SQLITE_OK);
}

TornDisk::~TornDisk() { sqlite3_vfs_unregister(&vfs_->vfs); }

void TornDisk::end_process() {
  ++shared_->life;
  gone_ = true, writes_left_ = 0;
  shared_->dead_memory = std::exchange(shared_->memory, {});
}

bool TornDisk::count_write() {
  if (writes_left_ == 0 || --writes_left_ > 0) return true;
  end_process();
  return false;
}

void TornDisk::cut_power() {
  if (!gone_) end_process();
  for (auto& [path, file] : shared_->files) {
    // The length is kept with the data of its last sync, or is what the process made of it.
    const bool new_length = prng_.below(2) == 0;
    std::string bytes = file->durable;
    if (new_length) bytes.resize(file->bytes.size());
    for (const auto& [sector, touched] : file->unsynced_sectors) {
      const int64_t from = sector * kSectorBytes;
      const int64_t there = std::min<int64_t>({kSectorBytes, static_cast<int64_t>(bytes.size()) - from,
                                               static_cast<int64_t>(file->bytes.size()) - from});
      if (there <= 0 || prng_.below(2) == 0) {
        ++torn_sectors;
        continue;
      }
      std::memcpy(bytes.data() + from, file->bytes.data() + from, static_cast<size_t>(there));
    }
    file->bytes = file->durable = std::move(bytes);
    file->unsynced_sectors.clear();
  }
}

}  // namespace th::sim
