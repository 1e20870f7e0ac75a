#include "gateway/journal.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/crc.hpp>
#include <cerrno>
#include <chrono>
#include <nlohmann/json.hpp>
#include <system_error>

#include "base/json.h"
#include "base/log.h"
#include "base/text.h"

namespace th::gateway {

namespace {

constexpr size_t kCrcDigits = 8;
constexpr uint64_t kCompactBytes = uint64_t{1} << 20;  // acknowledged bytes before the file is written anew
constexpr size_t kReadBytes = size_t{256} << 10;
constexpr size_t kMaxJournalBytes = size_t{4} << 30;

std::string crc_hex(std::string_view text) {
  boost::crc_32_type crc;
  crc.process_bytes(text.data(), text.size());
  return fmt::format("{:08x}", crc.checksum());
}

std::string encode_line(const Json& value) {
  std::string json = dump_json(value);
  return crc_hex(json) + " " + json + "\n";
}

/// The JSON of a line without its newline, if the checksum is right.
Result<Json> decode_line(std::string_view line) {
  if (line.size() <= kCrcDigits || line[kCrcDigits] != ' ' ||
      crc_hex(line.substr(kCrcDigits + 1)) != line.substr(0, kCrcDigits)) {
    return fail(Code::kDataLoss, "damaged line");
  }
  return parse_json(line.substr(kCrcDigits + 1), "usage journal");
}

Result<UsageRecord> decode_record(const Json& json) {
  UsageRecord record;
  TH_TRY(record.seq, get_int(json, "seq"));
  TH_TRY(record.time_ns, get_int(json, "time_ns"));
  TH_TRY(record.key_id, get_string(json, "key_id"));
  TH_TRY(record.deployment, get_string(json, "deployment"));
  TH_TRY(record.prompt_tokens, get_int(json, "prompt_tokens"));
  TH_TRY(record.completion_tokens, get_int(json, "completion_tokens"));
  TH_TRY(record.latency_ns, get_int(json, "latency_ns"));
  TH_TRY(int64_t status, get_int(json, "status"));
  record.status = static_cast<int>(status);
  return record;
}

Status write_all(int fd, std::string_view bytes, uint64_t offset, const std::filesystem::path& path) {
  while (!bytes.empty()) {
    ssize_t count = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail(errno_error(path.string(), errno));
    bytes.remove_prefix(static_cast<size_t>(count));
    offset += static_cast<uint64_t>(count);
  }
  return {};
}

Result<std::string> read_at(int fd, uint64_t offset, size_t size, const std::filesystem::path& path) {
  std::string bytes(size, '\0');
  size_t have = 0;
  while (have < size) {
    ssize_t count = ::pread(fd, bytes.data() + have, size - have, static_cast<off_t>(offset + have));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail(errno_error(path.string(), errno));
    if (count == 0) break;
    have += static_cast<size_t>(count);
  }
  bytes.resize(have);
  return bytes;
}

/// Calls `line(text without newline, offset after it)` for each whole line until it returns false.
template <class F>
void for_each_line(std::string_view bytes, F line) {
  for (size_t at = 0; at < bytes.size();) {
    size_t end = bytes.find('\n', at);
    if (end == std::string_view::npos) return;
    if (!line(bytes.substr(at, end - at), end + 1)) return;
    at = end + 1;
  }
}

Status set_aside(const std::filesystem::path& path) {
  std::filesystem::path aside = path;
  aside += ".damaged";
  std::error_code error;
  std::filesystem::rename(path, aside, error);
  if (error) return fail(errno_error(path.string(), error.value()));
  log_error("usage journal {}: its header is damaged; it is kept as {}, and its records are not counted",
            path.string(), aside.string());
  return {};
}

/// Whether `path` still names the open file.
bool is_file(int fd, const std::filesystem::path& path) {
  struct stat open {
  }, named{};
  return ::fstat(fd, &open) == 0 && ::stat(path.c_str(), &named) == 0 && open.st_dev == named.st_dev &&
         open.st_ino == named.st_ino;
}

}  // namespace

Json to_json(const UsageRecord& record) {
  return {{"seq", record.seq},
          {"time_ns", record.time_ns},
          {"key_id", record.key_id},
          {"deployment", record.deployment},
          {"prompt_tokens", record.prompt_tokens},
          {"completion_tokens", record.completion_tokens},
          {"latency_ns", record.latency_ns},
          {"status", record.status}};
}

std::string encode_record(const UsageRecord& record) { return encode_line(to_json(record)); }

std::string encode_journal_header(std::string_view id, int64_t first_seq) {
  return encode_line({{"journal", std::string(id)}, {"first_seq", first_seq}});
}

JournalScan scan_journal(std::string_view bytes) {
  JournalScan scan;
  bool is_first = true;
  size_t whole = 0;
  for_each_line(bytes, [&](std::string_view line, size_t next) {
    whole = next;
    Result<Json> json = decode_line(line);
    if (std::exchange(is_first, false)) {
      if (!json) return true;
      Result<std::string> id = get_string(*json, "journal");
      Result<int64_t> first_seq = get_int(*json, "first_seq");
      if (id && first_seq && *first_seq > 0) {
        scan.id = *id;
        scan.next_seq = *first_seq;
      }
      return true;
    }
    Result<UsageRecord> record = json ? decode_record(*json) : fail(json.error());
    if (record && record->seq >= scan.next_seq && record->seq < INT64_MAX) {
      scan.next_seq = record->seq + 1;
      scan.records.push_back(*std::move(record));
    } else {
      ++scan.damaged_lines;
    }
    return true;
  });
  if (whole < bytes.size()) ++scan.damaged_lines;
  return scan;
}

Result<std::unique_ptr<UsageJournal>> UsageJournal::open(std::filesystem::path path) {
  std::string content;
  if (auto bytes = read_file(path, kMaxJournalBytes)) {
    content = *std::move(bytes);
  } else if (bytes.error().code != Code::kNotFound) {
    return fail(bytes.error());
  }
  JournalScan scan = scan_journal(content);
  if (scan.id.empty()) {
    if (!content.empty()) TH_RETURN_IF_ERROR(set_aside(path));
    scan = {.id = random_token().substr(0, 32), .next_seq = 1, .records = {}, .damaged_lines = 0};
    content = encode_journal_header(scan.id, 1);
    TH_RETURN_IF_ERROR(write_file_durable(path, content, 0600));
  } else if (scan.damaged_lines > 0) {
    log_warn("usage journal {}: dropped {} damaged line(s), kept {} record(s)", path.string(),
             scan.damaged_lines, scan.records.size());
    content = encode_journal_header(scan.id, scan.records.empty() ? scan.next_seq : scan.records.front().seq);
    for (const UsageRecord& record : scan.records) content += encode_record(record);
    TH_RETURN_IF_ERROR(write_file_durable(path, content, 0600));
  }
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!fd) return fail(errno_error(path.string(), errno));
  uint64_t start = content.find('\n') + 1;
  return std::unique_ptr<UsageJournal>(
      new UsageJournal(std::move(path), scan.id, scan.next_seq, std::move(fd), content.size(), start));
}

UsageJournal::UsageJournal(std::filesystem::path path, std::string id, int64_t next_seq, UniqueFd fd,
                           uint64_t bytes, uint64_t start)
    : path_(std::move(path)),
      id_(std::move(id)),
      fd_(std::move(fd)),
      next_seq_(next_seq),
      durable_bytes_(bytes),
      acked_bytes_(start),
      writer_([this] { write_loop(); }) {}

UsageJournal::~UsageJournal() {
  {
    std::lock_guard lock(queue_mutex_);
    stopping_ = true;
  }
  queue_changed_.notify_all();
  writer_.join();
}

void UsageJournal::append(UsageRecord record, std::function<void(Status)> done) {
  {
    std::lock_guard lock(queue_mutex_);
    queue_.push_back({std::move(record), std::move(done)});
  }
  queue_changed_.notify_all();
}

bool UsageJournal::healthy() const {
  std::lock_guard lock(queue_mutex_);
  return healthy_;
}

void UsageJournal::write_loop() {
  std::deque<Pending> batch;
  std::unique_lock lock(queue_mutex_);
  while (true) {
    if (!healthy_) {
      queue_changed_.wait_for(lock, std::chrono::seconds(1), [&] { return stopping_; });
    } else {
      queue_changed_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
    }
    bool last_try = stopping_;
    std::move(queue_.begin(), queue_.end(), std::back_inserter(batch));
    queue_.clear();
    lock.unlock();
    Status status = batch.empty() ? Status() : write_batch(batch);
    for (Pending& pending : batch) {
      if (pending.done) std::exchange(pending.done, nullptr)(status);
    }
    if (status) batch.clear();
    if (!status)
      log_error("usage journal: {}; {} record(s) wait in memory", status.error().message, batch.size());
    lock.lock();
    healthy_ = status.has_value();
    if (last_try && queue_.empty()) return;
  }
}

Status UsageJournal::write_batch(std::deque<Pending>& batch) {
  std::lock_guard lock(file_mutex_);
  if (!fd_) TH_RETURN_IF_ERROR(reopen());
  std::string lines;
  int64_t seq = next_seq_;
  for (Pending& pending : batch) {
    pending.record.seq = seq++;
    lines += encode_record(pending.record);
  }
  Status status = write_all(fd_.get(), lines, durable_bytes_, path_);
  if (status && ::fdatasync(fd_.get()) != 0) status = fail(errno_error(path_.string(), errno));
  if (!status) {
    // Half a batch must not look like records; if this fails too, the next try writes over it.
    if (::ftruncate(fd_.get(), static_cast<off_t>(durable_bytes_)) != 0)
      log_warn("usage journal: cannot cut it back");
    return status;
  }
  durable_bytes_ += lines.size();
  next_seq_ = seq;
  file_changed_.notify_all();
  return {};
}

Result<std::vector<UsageRecord>> UsageJournal::unacked(size_t max) {
  std::lock_guard lock(file_mutex_);
  std::vector<UsageRecord> records;
  size_t size = static_cast<size_t>(std::min<uint64_t>(kReadBytes, durable_bytes_ - acked_bytes_));
  TH_TRY(std::string bytes, read_at(fd_.get(), acked_bytes_, size, path_));
  for_each_line(bytes, [&](std::string_view line, size_t) {
    Result<Json> json = decode_line(line);
    Result<UsageRecord> record = json ? decode_record(*json) : fail(json.error());
    if (record) {
      records.push_back(*std::move(record));
    } else {
      log_error("usage journal {}: a line has become unreadable on the disk; it is left out", path_.string());
    }
    return records.size() < max;
  });
  return records;
}

Status UsageJournal::ack(int64_t seq) {
  std::lock_guard lock(file_mutex_);
  bool more = true;
  while (more && acked_bytes_ < durable_bytes_) {
    size_t size = static_cast<size_t>(std::min<uint64_t>(kReadBytes, durable_bytes_ - acked_bytes_));
    TH_TRY(std::string bytes, read_at(fd_.get(), acked_bytes_, size, path_));
    uint64_t start = acked_bytes_;
    for_each_line(bytes, [&](std::string_view line, size_t next) {
      Result<Json> json = decode_line(line);
      Result<int64_t> line_seq = json ? get_int(*json, "seq") : fail(json.error());
      more = !line_seq || *line_seq <= seq;
      if (more) acked_bytes_ = start + next;
      return more;
    });
    if (acked_bytes_ == start) break;
  }
  return acked_bytes_ >= kCompactBytes ? compact() : Status();
}

Status UsageJournal::compact() {
  TH_TRY(std::string rest,
         read_at(fd_.get(), acked_bytes_, static_cast<size_t>(durable_bytes_ - acked_bytes_), path_));
  JournalScan scan = scan_journal(encode_journal_header(id_, 1) + rest);
  std::string header =
      encode_journal_header(id_, scan.records.empty() ? next_seq_ : scan.records.front().seq);
  const Status written = write_file_durable(path_, header + rest, 0600);
  // An error of its last step comes after the rename: the file is then the new one all the same.
  if (!written && is_file(fd_.get(), path_)) return written;
  acked_bytes_ = header.size();
  durable_bytes_ = header.size() + rest.size();
  return reopen();
}

Status UsageJournal::reopen() {
  fd_ = UniqueFd(::open(path_.c_str(), O_RDWR | O_CLOEXEC));
  return fd_ ? Status() : fail(errno_error(path_.string(), errno));
}

bool UsageJournal::wait_unacked(int64_t timeout_ns) {
  std::unique_lock lock(file_mutex_);
  return file_changed_.wait_for(lock, std::chrono::nanoseconds(timeout_ns),
                                [&] { return acked_bytes_ < durable_bytes_; });
}

}  // namespace th::gateway
