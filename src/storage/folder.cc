#include "storage/folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <set>

#include "base/files.h"
#include "base/text.h"
#include "storage/digest.h"

namespace th::storage {
namespace {

namespace fs = std::filesystem;

constexpr size_t kReadBytes = size_t{1} << 20;
constexpr size_t kMaxManifestBytes = size_t{32} << 20;

Result<FileEntry> digest_file(const fs::path& file) {
  UniqueFd fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!fd) return fail(errno_error(file.string(), errno));
  FileEntry entry{file.filename().string(), 0, {}};
  Digest sha256(Digest::Kind::kSha256);
  std::vector<char> buffer(kReadBytes);
  while (true) {
    const ssize_t got = ::read(fd.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(errno_error(file.string(), errno));
    if (got == 0) break;
    sha256.add({buffer.data(), static_cast<size_t>(got)});
    entry.bytes += got;
  }
  entry.sha256 = to_hex(sha256.finish());
  return entry;
}

std::string manifest_of(const std::string& base) { return base + "/" + kManifestName; }

std::string data_of(const std::string& base, const std::vector<FileEntry>& files) {
  return base + "/" + sha256_hex(write_manifest(files)).substr(0, 16);
}

/// No manifest may tell of what is not there: a service that was restarted, or somebody who cleans up, may
/// have lost a file while others were sent.
Status put_files(Blobs& blobs, const std::string& data, const fs::path& folder,
                 const std::vector<FileEntry>& files) {
  constexpr int kTries = 2;
  std::string lost;
  for (int i = 0; i < kTries; ++i) {
    for (const FileEntry& file : files)
      TH_RETURN_IF_ERROR(blobs.put_file(data + "/" + file.name, folder / file.name, file));
    TH_TRY(const std::vector<Blob> list, blobs.list(data + "/"));
    std::set<std::pair<std::string, int64_t>> there;
    for (const Blob& blob : list) there.emplace(blob.name, blob.bytes);
    const auto missing = std::ranges::find_if(files, [&](const FileEntry& file) {
      return there.count({data + "/" + file.name, file.bytes}) == 0;
    });
    if (missing == files.end()) return {};
    lost = missing->name;
  }
  return fail(Code::kUnavailable,
              fmt::format("az://{}/{}/{}: was written and is not there; does somebody clean up?",
                          blobs.container(), data, lost));
}

/// Whether the file is there as the manifest says.
bool is_there(const fs::path& file, const FileEntry& entry) {
  struct stat info {};
  if (::lstat(file.c_str(), &info) != 0 || !S_ISREG(info.st_mode) || info.st_size != entry.bytes)
    return false;
  auto now = digest_file(file);
  return now && now->sha256 == entry.sha256;
}

}  // namespace

Result<std::vector<FileEntry>> scan_folder(const fs::path& folder, std::string_view without) {
  std::vector<FileEntry> files;
  std::error_code problem;
  for (fs::directory_iterator it(folder, problem), end; !problem && it != end; it.increment(problem)) {
    const std::string name = it->path().filename().string();
    if (name == without) continue;
    if (!fs::is_regular_file(it->symlink_status(problem)))
      return fail(Code::kInvalidArgument,
                  it->path().string() + ": is not a plain file, so it cannot be kept");
    if (!is_file_name(name))
      return fail(Code::kInvalidArgument, it->path().string() + ": rename it to letters, digits and '-_.'");
    TH_TRY(FileEntry entry, digest_file(it->path()));
    files.push_back(std::move(entry));
  }
  if (problem) return fail(errno_error(folder.string(), problem.value()));
  std::sort(files.begin(), files.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return files;
}

int64_t total_bytes(const std::vector<FileEntry>& files) {
  int64_t sum = 0;
  for (const FileEntry& file : files) sum += file.bytes;
  return sum;
}

Status push_folder(Blobs& blobs, const std::string& base, const fs::path& folder,
                   const std::vector<FileEntry>& files, IfOther if_other) {
  const auto other = [&] {
    return fail(Code::kAlreadyExists,
                fmt::format("az://{}/{}: is there with other content; choose another place",
                            blobs.container(), base));
  };
  auto there = find_folder(blobs, base);
  if (!there && there.error().code != Code::kDataLoss) return fail(there.error());
  // A manifest that cannot be read is other content.
  const bool same = there && *there && **there == files;
  const bool taken = !there || (*there && !same);
  if (taken && if_other == IfOther::kRefuse) return other();
  TH_RETURN_IF_ERROR(put_files(blobs, data_of(base, files), folder, files));
  if (same) return {};
  const Status put = blobs.put(manifest_of(base), write_manifest(files), if_other == IfOther::kRefuse);
  if (put || put.error().code != Code::kAlreadyExists) return put;
  // Somebody was faster, or the answer to our own first try was lost.
  TH_TRY(const auto now, find_folder(blobs, base));
  return now && *now == files ? Status() : other();
}

Result<std::optional<std::vector<FileEntry>>> find_folder(Blobs& blobs, const std::string& base) {
  auto text = blobs.get(manifest_of(base), kMaxManifestBytes);
  if (!text && text.error().code == Code::kNotFound &&
      text.error().message.find("ContainerNotFound") == std::string::npos)
    return std::optional<std::vector<FileEntry>>();
  if (!text) return fail(text.error());
  auto files = read_manifest(*text);
  if (!files)
    return fail(Code::kDataLoss,
                fmt::format("az://{}/{}: {}", blobs.container(), manifest_of(base), files.error().message));
  return *std::move(files);
}

Status pull_folder(Blobs& blobs, const std::string& base, const std::vector<FileEntry>& files,
                   const fs::path& folder) {
  std::error_code problem;
  fs::create_directories(folder, problem);
  if (problem) return fail(errno_error(folder.string(), problem.value()));
  const std::string data = data_of(base, files);
  for (const FileEntry& file : files) {
    if (is_there(folder / file.name, file)) continue;
    TH_RETURN_IF_ERROR(blobs.get_file(data + "/" + file.name, folder / file.name, file));
  }
  return sync_folder(folder);
}

Status remove_folder(Blobs& blobs, const std::string& base, const std::vector<Blob>& all) {
  TH_RETURN_IF_ERROR(blobs.remove(manifest_of(base)));
  for (const Blob& blob : all) {
    if (blob.name.starts_with(base + "/") && blob.name != manifest_of(base))
      TH_RETURN_IF_ERROR(blobs.remove(blob.name));
  }
  return {};
}

}  // namespace th::storage
