#include "train/shard_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string_view>
#include <utility>

#include "storage/digest.h"

namespace th::train {
namespace {

constexpr size_t kPiece = size_t{4} << 20;  // bytes written or checked at a time

std::string_view as_text(std::span<const float> values) {
  return {reinterpret_cast<const char*>(values.data()), values.size_bytes()};
}

tl::unexpected<Error> damaged(const std::filesystem::path& what, std::string_view problem) {
  return fail(Code::kDataLoss, fmt::format("{}: {}", what.string(), problem));
}

/// Feeds all pieces to `body`, which says whether to go on.
template <class Body>
bool in_pieces(std::string_view text, const Body& body) {
  for (size_t at = 0; at < text.size(); at += kPiece)
    if (!body(text.substr(at, kPiece))) return false;
  return true;
}

}  // namespace

ShardWriter::ShardWriter(std::filesystem::path file, std::vector<StatePart> parts, DoneWith done_with)
    : file_(std::move(file)),
      parts_(std::move(parts)),
      done_with_(std::move(done_with)),
      thread_([this] { run(); }) {}

ShardWriter::~ShardWriter() {
  stop_ = true;
  if (thread_.joinable()) thread_.join();
}

void ShardWriter::wait_part(size_t index) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return ended_ || written_ > index; });
}

Result<std::string> ShardWriter::finish() {
  if (thread_.joinable()) thread_.join();
  return result_;
}

void ShardWriter::run() {
  Result<std::string> result = write_all();
  {
    std::scoped_lock lock(mutex_);
    result_ = std::move(result);
    ended_ = true;
  }
  changed_.notify_all();
}

Result<std::string> ShardWriter::write_all() {
  const UniqueFd fd(open(file_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (!fd) return fail(errno_error(file_.string(), errno));
  storage::Digest digest(storage::Digest::Kind::kSha256);
  int problem = 0;
  const auto put = [&](std::string_view piece) {
    digest.add(piece);
    while (!piece.empty() && problem == 0 && !stop_) {
      const ssize_t done = write(fd.get(), piece.data(), piece.size());
      if (done < 0 && errno != EINTR) problem = errno;
      if (done > 0) piece.remove_prefix(static_cast<size_t>(done));
    }
    return problem == 0 && !stop_;
  };
  for (const StatePart& part : parts_) {
    for (const std::span<float> values : {part.weights, part.m, part.v}) {
      const bool is_put = in_pieces(as_text(values), put);
      if (done_with_) done_with_(values);
      if (is_put) continue;
      if (stop_) return fail(Code::kCancelled, file_.string() + ": given up");
      return fail(errno_error(file_.string(), problem));
    }
    {
      std::scoped_lock lock(mutex_);
      ++written_;
    }
    changed_.notify_all();
  }
  if (fsync(fd.get()) != 0) return fail(errno_error(file_.string(), errno));
  return storage::to_hex(digest.finish());
}

Result<ShardFile> ShardFile::open(const std::filesystem::path& file, std::vector<Owned> parts,
                                  const std::string& sha256) {
  const UniqueFd fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat status {};
  if (!fd || fstat(fd.get(), &status) != 0) return fail(errno_error(file.string(), errno));
  size_t want = 0;
  for (const Owned& part : parts) want += 3 * part.size() * sizeof(float);
  const auto size = static_cast<size_t>(status.st_size);
  if (size != want) return damaged(file, fmt::format("has {} bytes, want {}", size, want));
  if (size == 0) return ShardFile(nullptr, 0, std::move(parts));
  void* address = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (address == MAP_FAILED) return fail(errno_error(file.string(), errno));
  ShardFile shard(static_cast<const float*>(address), size, std::move(parts));
  storage::Digest digest(storage::Digest::Kind::kSha256);
  in_pieces({static_cast<const char*>(address), size}, [&](std::string_view piece) {
    digest.add(piece);
    return true;
  });
  madvise(address, size, MADV_DONTNEED);
  if (storage::to_hex(digest.finish()) != sha256) return damaged(file, "its sha256 is not the manifest's");
  return shard;
}

ShardFile::ShardFile(ShardFile&& other) noexcept
    : values_(std::exchange(other.values_, nullptr)), bytes_(other.bytes_), parts_(std::move(other.parts_)) {}

ShardFile::~ShardFile() {
  if (values_ != nullptr) munmap(const_cast<float*>(values_), bytes_);
}

void ShardFile::copy_into(std::span<const StatePart> state, const DoneWith& done_with) const {
  const float* at = values_;
  for (const Owned& part : parts_) {
    for (const StatePart& mine : state) {
      const int64_t begin = std::max(part.begin, mine.begin);
      const int64_t end = std::min(part.end, mine.begin + static_cast<int64_t>(mine.weights.size()));
      if (begin >= end) continue;
      const float* from = at + (begin - part.begin);
      for (const std::span<float> into : {mine.weights, mine.m, mine.v}) {
        std::copy_n(from, end - begin, into.begin() + (begin - mine.begin));
        if (done_with) done_with(into);
        from += part.size();
      }
    }
    at += 3 * part.size();
  }
}

}  // namespace th::train
