// Files of any length to and from blobs: blocks and ranges, several at once.

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "base/base64.h"
#include "base/files.h"
#include "storage/blobs.h"
#include "storage/digest.h"

namespace th::storage {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxBlocks = 50'000;  // of a blob (learn.microsoft.com, scale targets of Blob storage)

/// `work` for each index below `count`, each on a thread of its own. Returns the first error by index.
template <class Work>
Status in_parallel(size_t count, Work work) {
  std::vector<Status> done(count);
  {
    std::vector<std::jthread> threads;
    for (size_t i = 1; i < count; ++i) threads.emplace_back([&, i] { done[i] = work(i); });
    if (count > 0) done[0] = work(0);
  }
  for (Status& status : done) {
    if (!status) return std::move(status);
  }
  return {};
}

Status read_exactly(int fd, const fs::path& file, int64_t offset, std::string& into) {
  for (size_t done = 0; done < into.size();) {
    const ssize_t got =
        ::pread(fd, into.data() + done, into.size() - done, offset + static_cast<int64_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(errno_error(file.string(), errno));
    if (got == 0)
      return fail(Code::kFailedPrecondition, file.string() + ": became shorter while it was read");
    done += static_cast<size_t>(got);
  }
  return {};
}

Status write_all(int fd, const fs::path& file, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return fail(errno_error(file.string(), errno));
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return {};
}

/// Of one length for all blocks of a blob, and of what is in it, so that a block that is there can be left
/// out.
std::string block_id(size_t index, std::string_view bytes) {
  return to_base64(fmt::format("{:05}-{}", index, to_hex(md5(bytes))));
}

}  // namespace

Result<std::set<std::string>> Blobs::uncommitted(const std::string& name) {
  Ask ask{.what = "reading the blocks of " + place_of(name), .name = name};
  ask.query = {{"comp", "blocklist"}, {"blocklisttype", "uncommitted"}};
  const auto response = send(ask);
  if (!response && response.error().code == Code::kNotFound) return std::set<std::string>();
  if (!response) return fail(response.error());
  return read_uncommitted(response->body);
}

Status Blobs::put_blocks(const std::string& name, int fd, const fs::path& file, const FileEntry& entry) {
  TH_TRY(const std::set<std::string> there, uncommitted(name));
  const int64_t least =
      (entry.bytes + static_cast<int64_t>(kMaxBlocks) - 1) / static_cast<int64_t>(kMaxBlocks);
  const int64_t block = std::max<int64_t>(static_cast<int64_t>(options_.block_bytes), least);
  const auto count = static_cast<size_t>((entry.bytes + block - 1) / block);
  Digest sha256(Digest::Kind::kSha256);
  std::string list = "<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>";
  for (size_t first = 0; first < count; first += static_cast<size_t>(options_.connections)) {
    const size_t size = std::min(count - first, static_cast<size_t>(options_.connections));
    std::vector<std::string> blocks(size), ids(size);
    for (size_t i = 0; i < size; ++i) {
      const int64_t offset = static_cast<int64_t>(first + i) * block;
      blocks[i].resize(static_cast<size_t>(std::min(block, entry.bytes - offset)));
      TH_RETURN_IF_ERROR(read_exactly(fd, file, offset, blocks[i]));
      sha256.add(blocks[i]);
      ids[i] = block_id(first + i, blocks[i]);
      list += "<Latest>" + ids[i] + "</Latest>";
    }
    TH_RETURN_IF_ERROR(in_parallel(size, [&](size_t i) -> Status {
      if (there.count(ids[i]) > 0) return {};
      Ask ask{.what = fmt::format("writing block {} of {}", first + i, place_of(name)),
              .method = "PUT",
              .name = name,
              .query = {{"comp", "block"}, {"blockid", ids[i]}}};
      ask.headers = {{"Content-Type", "application/octet-stream"},
                     {"Content-MD5", to_base64(md5(blocks[i]))}};
      ask.body = std::move(blocks[i]);
      const auto response = send(ask);
      return response ? Status() : fail(response.error());
    }));
    for (size_t i = 0; i < size; ++i)
      note_moved(std::min(block, entry.bytes - static_cast<int64_t>(first + i) * block));
  }
  if (to_hex(sha256.finish()) != entry.sha256)
    return fail(Code::kFailedPrecondition, file.string() + ": changed while it was sent; try again");
  Ask ask{
      .what = "finishing " + place_of(name), .method = "PUT", .name = name, .query = {{"comp", "blocklist"}}};
  ask.body = list + "</BlockList>";
  ask.headers = {{"Content-Type", "application/xml"},
                 {"Content-MD5", to_base64(md5(ask.body))},
                 {"x-ms-meta-sha256", entry.sha256}};
  const auto response = send(ask);
  return response ? Status() : fail(response.error());
}

Status Blobs::put_file(const std::string& name, const fs::path& file, const FileEntry& entry) {
  TH_TRY(const auto there, find(name));
  if (there && there->bytes == entry.bytes && there->sha256 == entry.sha256) {
    note_moved(entry.bytes);
    return {};
  }
  UniqueFd fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!fd) return fail(errno_error(file.string(), errno));
  if (entry.bytes > static_cast<int64_t>(options_.block_bytes)) {
    Status put = put_blocks(name, fd.get(), file, entry);
    // Blocks that were sent may be gone: another writer finished this blob, or the service lost them.
    if (!put && put.error().code == Code::kFailedPrecondition) put = put_blocks(name, fd.get(), file, entry);
    return put;
  }
  std::string bytes(static_cast<size_t>(entry.bytes), '\0');
  TH_RETURN_IF_ERROR(read_exactly(fd.get(), file, 0, bytes));
  Digest sha256(Digest::Kind::kSha256);
  sha256.add(bytes);
  if (to_hex(sha256.finish()) != entry.sha256)
    return fail(Code::kFailedPrecondition, file.string() + ": changed while it was sent; try again");
  TH_RETURN_IF_ERROR(put(name, bytes));
  note_moved(entry.bytes);
  return {};
}

/// Appends to what is there. Returns: whether the digest is right.
Result<bool> Blobs::get_ranges(const std::string& name, int fd, const fs::path& file, const FileEntry& entry,
                               int64_t* resumed) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) return fail(errno_error(file.string(), errno));
  int64_t offset = info.st_size <= entry.bytes ? info.st_size : 0;
  if (offset != info.st_size && ::ftruncate(fd, 0) != 0) return fail(errno_error(file.string(), errno));
  *resumed = offset;
  Digest sha256(Digest::Kind::kSha256);
  const auto block = static_cast<int64_t>(options_.block_bytes);
  for (int64_t at = 0; at < offset; at += block) {
    std::string bytes(static_cast<size_t>(std::min(block, offset - at)), '\0');
    TH_RETURN_IF_ERROR(read_exactly(fd, file, at, bytes));
    sha256.add(bytes);
  }
  note_moved(offset);
  ::lseek(fd, offset, SEEK_SET);
  while (offset < entry.bytes) {
    const auto left = static_cast<size_t>((entry.bytes - offset + block - 1) / block);
    std::vector<std::string> pieces(std::min(left, static_cast<size_t>(options_.connections)));
    TH_RETURN_IF_ERROR(in_parallel(pieces.size(), [&](size_t i) -> Status {
      const int64_t begin = offset + static_cast<int64_t>(i) * block,
                    end = std::min(begin + block, entry.bytes);
      Ask ask{.what = "reading " + place_of(name), .name = name};
      ask.max_body_bytes = static_cast<size_t>(block);
      ask.headers = {{"x-ms-range", fmt::format("bytes={}-{}", begin, end - 1)}};
      auto response = send(ask);
      if (!response) return fail(response.error());
      if (static_cast<int64_t>(response->body.size()) != end - begin)
        return fail(Code::kDataLoss, fmt::format("{}: has fewer bytes than its manifest says", ask.what));
      pieces[i] = std::move(response->body);
      return {};
    }));
    for (const std::string& piece : pieces) {
      TH_RETURN_IF_ERROR(write_all(fd, file, piece));
      sha256.add(piece);
      offset += static_cast<int64_t>(piece.size());
      note_moved(static_cast<int64_t>(piece.size()));
    }
  }
  return to_hex(sha256.finish()) == entry.sha256;
}

Status Blobs::get_file(const std::string& name, const fs::path& file, const FileEntry& entry) {
  const fs::path part = file.string() + ".part";
  for (bool again = false;; again = true) {
    UniqueFd fd(::open(part.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644));
    if (!fd) return fail(errno_error(part.string(), errno));
    int64_t resumed = 0;
    TH_TRY(const bool good, get_ranges(name, fd.get(), part, entry, &resumed));
    if (good) {
      if (::fsync(fd.get()) != 0) return fail(errno_error(part.string(), errno));
      if (::rename(part.c_str(), file.c_str()) != 0) return fail(errno_error(file.string(), errno));
      return {};
    }
    note_moved(-entry.bytes);
    ::unlink(part.c_str());
    // What an attempt before had left may be to blame.
    if (resumed == 0 || again)
      return fail(
          Code::kDataLoss,
          fmt::format("{}: its sha256 is not the manifest's; it was damaged or replaced", place_of(name)));
  }
}

}  // namespace th::storage
