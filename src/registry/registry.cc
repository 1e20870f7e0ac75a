#include "registry/registry.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "base/json.h"
#include "base/text.h"

namespace th::registry {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxFiles = 1000;
constexpr size_t kMaxJsonBytes = size_t{256} << 20;
constexpr uint64_t kMaxHeaderBytes = uint64_t{100} << 20;
constexpr size_t kCopyBytes = size_t{1} << 20;
constexpr std::string_view kTokenMagic = "THTOKENS";  // docs/formats.md
constexpr const char* kManifest = ".manifest.json";
constexpr const char* kPartial = ".partial-";

tl::unexpected<Error> bad(const fs::path& file, const std::string& what) {
  return fail(Code::kInvalidArgument, "file " + file.string() + ": " + what);
}

Status check_json_object(const fs::path& file) {
  auto text = read_file(file, kMaxJsonBytes);
  if (!text) return bad(file, text.error().message);
  auto json = parse_json(*text, file.filename().string());
  if (!json) return bad(file, json.error().message);
  if (!json->is_object()) return bad(file, "want a JSON object");
  return {};
}

Result<UniqueFd> open_plain(const fs::path& file) {
  UniqueFd fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  struct stat info {};
  if (!fd || ::fstat(fd.get(), &info) != 0) return fail(errno_error(file.string(), errno));
  if (!S_ISREG(info.st_mode)) return bad(file, "is not a plain file");
  return fd;
}

/// Each tensor's bytes lie in the file, and all of them cover it without a gap.
Status check_tensors(const fs::path& file, const Json& header, uint64_t data_bytes) {
  std::vector<std::pair<uint64_t, uint64_t>> spans;
  for (const auto& [name, tensor] : header.items()) {
    if (name == "__metadata__") continue;
    const bool has_span = tensor.is_object() && tensor.contains("data_offsets") &&
                          tensor["data_offsets"].is_array() && tensor["data_offsets"].size() == 2 &&
                          tensor["data_offsets"][0].is_number_unsigned() &&
                          tensor["data_offsets"][1].is_number_unsigned();
    if (!has_span) return bad(file, "tensor '" + name + "' has no data_offsets");
    spans.emplace_back(tensor["data_offsets"][0].get<uint64_t>(), tensor["data_offsets"][1].get<uint64_t>());
    if (spans.back().first > spans.back().second || spans.back().second > data_bytes) {
      return bad(file, "tensor '" + name + "' lies outside of the file: it is truncated or forged");
    }
  }
  std::sort(spans.begin(), spans.end());
  uint64_t end = 0;
  for (const auto& [from, to] : spans) {
    if (from != end) return bad(file, "tensors overlap or leave a gap: it is forged");
    end = to;
  }
  if (spans.empty() || end != data_bytes)
    return bad(file, "its tensors do not cover it: it is truncated or forged");
  return {};
}

Status check_safetensors(const fs::path& file) {
  TH_TRY(UniqueFd fd, open_plain(file));
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return fail(errno_error(file.string(), errno));
  const auto size = static_cast<uint64_t>(info.st_size);
  uint8_t prefix[8];
  if (::pread(fd.get(), prefix, 8, 0) != 8) return bad(file, "is shorter than its header's length");
  uint64_t header_bytes = 0;
  for (int i = 7; i >= 0; --i) header_bytes = header_bytes << 8 | prefix[i];
  if (header_bytes > kMaxHeaderBytes || header_bytes + 8 > size)
    return bad(file, "its header is longer than the file");
  std::string text(header_bytes, '\0');
  if (::pread(fd.get(), text.data(), text.size(), 8) != static_cast<ssize_t>(text.size())) {
    return bad(file, "its header cannot be read");
  }
  auto header = parse_json(text, "safetensors header");
  if (!header) return bad(file, header.error().message);
  if (!header->is_object()) return bad(file, "its header is not a JSON object");
  return check_tensors(file, *header, size - 8 - header_bytes);
}

struct HashFree {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};

/// SHA-256 of a file, copied to `to_fd` on the way unless that is -1.
Result<File> hash_file(const fs::path& file, int to_fd) {
  TH_TRY(UniqueFd from, open_plain(file));
  std::unique_ptr<EVP_MD_CTX, HashFree> context(EVP_MD_CTX_new());
  TH_CHECK(context && EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) == 1);
  File out{file.filename().string(), 0, {}};
  std::vector<char> buffer(kCopyBytes);
  while (true) {
    const ssize_t got = ::read(from.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(errno_error(file.string(), errno));
    if (got == 0) break;
    EVP_DigestUpdate(context.get(), buffer.data(), static_cast<size_t>(got));
    out.bytes += got;
    for (ssize_t done = 0; to_fd >= 0 && done < got;) {
      const ssize_t written = ::write(to_fd, buffer.data() + done, static_cast<size_t>(got - done));
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) return fail(errno_error("copy of " + file.string(), errno));
      done += written;
    }
  }
  unsigned char digest[32];
  EVP_DigestFinal_ex(context.get(), digest, nullptr);
  for (unsigned char byte : digest) out.sha256 += fmt::format("{:02x}", byte);
  return out;
}

Result<File> copy_in(const fs::path& from, const fs::path& to) {
  UniqueFd fd(::open(to.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!fd) return fail(errno_error(to.string(), errno));
  TH_TRY(File file, hash_file(from, fd.get()));
  // The process's umask may have taken bits away; ranks of another user read it.
  if (::fchmod(fd.get(), 0644) != 0 || ::fsync(fd.get()) != 0) return fail(errno_error(to.string(), errno));
  return file;
}

Json manifest_of(const Model& model) {
  Json files = Json::array();
  for (const File& file : model.files) {
    files.push_back({{"name", file.name}, {"bytes", file.bytes}, {"sha256", file.sha256}});
  }
  return {
      {"name", model.name}, {"version", model.version}, {"bytes", model.bytes}, {"files", std::move(files)}};
}

/// The plain files of a folder, sorted; anything else in it is an error.
Result<std::vector<fs::path>> plain_files(const fs::path& folder) {
  std::error_code problem;
  if (!fs::is_directory(fs::symlink_status(folder, problem))) return bad(folder, "is not a folder");
  std::vector<fs::path> out;
  for (fs::directory_iterator it(folder, problem), end; !problem && it != end; it.increment(problem)) {
    if (!fs::is_regular_file(it->symlink_status(problem))) return bad(it->path(), "is not a plain file");
    out.push_back(it->path());
    if (out.size() > kMaxFiles) return bad(folder, fmt::format("has more than {} files", kMaxFiles));
  }
  if (problem) return fail(errno_error(folder.string(), problem.value()));
  std::sort(out.begin(), out.end());
  return out;
}

/// A folder that goes away unless it was kept.
class Partial {
 public:
  explicit Partial(fs::path path) : path_(std::move(path)) {}
  ~Partial() {
    std::error_code ignored;
    if (!path_.empty()) fs::remove_all(path_, ignored);
  }
  const fs::path& path() const { return path_; }
  void keep() { path_.clear(); }

 private:
  fs::path path_;
};

}  // namespace

Status check_model_folder(const fs::path& folder) {
  TH_TRY(const auto files, plain_files(folder));
  const auto has = [&](const char* name) {
    return std::ranges::any_of(files, [&](const fs::path& file) { return file.filename() == name; });
  };
  const bool is_sentencepiece = has("tokenizer.model") && !has("tokenizer.json");
  for (const char* needed : {"config.json", "model.safetensors", "tokenizer.json"}) {
    if (!has(needed) && !(is_sentencepiece && needed == std::string_view("tokenizer.json")))
      return bad(folder / needed, "is missing");
  }
  TH_RETURN_IF_ERROR(check_json_object(folder / "config.json"));
  if (!is_sentencepiece) TH_RETURN_IF_ERROR(check_json_object(folder / "tokenizer.json"));
  return check_safetensors(folder / "model.safetensors");
}

Status check_data_folder(const fs::path& folder) {
  TH_TRY(const auto files, plain_files(folder));
  const auto has = [&](const char* name) {
    return std::ranges::any_of(files, [&](const fs::path& file) { return file.filename() == name; });
  };
  for (const char* needed : {"dataset.json", "train.tokens", "validation.tokens"}) {
    if (!has(needed)) return bad(folder / needed, "is missing");
  }
  if (!has("tokenizer.json") && !has("tokenizer.model")) return bad(folder / "tokenizer.json", "is missing");
  for (const char* name : {"train.tokens", "validation.tokens"}) {
    TH_TRY(UniqueFd fd, open_plain(folder / name));
    char magic[kTokenMagic.size()];
    if (::pread(fd.get(), magic, sizeof magic, 0) != sizeof magic ||
        std::string_view(magic, sizeof magic) != kTokenMagic)
      return bad(folder / name, "is not a token file");
  }
  return check_json_object(folder / "dataset.json");
}

Status Registry::check(const fs::path& folder) const {
  return kind_ == Kind::kModel ? check_model_folder(folder) : check_data_folder(folder);
}

Result<Registry> Registry::open(fs::path root, Kind kind) {
  std::error_code problem;
  fs::create_directories(root, problem);
  for (fs::directory_iterator model(root, problem), end; !problem && model != end; model.increment(problem)) {
    for (fs::directory_iterator it(model->path(), problem), last; !problem && it != last;
         it.increment(problem)) {
      if (it->path().filename().string().starts_with(kPartial)) fs::remove_all(it->path(), problem);
    }
  }
  if (problem) return fail(errno_error("registry " + root.string(), problem.value()));
  return Registry(std::move(root), kind);
}

Result<Model> Registry::import_folder(const fs::path& folder, const std::string& name,
                                      const std::string& version) const {
  TH_RETURN_IF_ERROR(check_name(name, word()));
  TH_RETURN_IF_ERROR(check_name(version, "version"));
  TH_RETURN_IF_ERROR(check(folder));
  TH_TRY(const auto files, plain_files(folder));
  const fs::path target = root_ / name / version;
  Partial partial(root_ / name / (kPartial + version));
  std::error_code problem;
  fs::remove_all(partial.path(), problem);
  fs::create_directories(partial.path(), problem);
  if (problem) return fail(errno_error(partial.path().string(), problem.value()));
  Model model{name, version, target, 0, {}};
  for (const fs::path& file : files) {
    if (file.filename() == kManifest) continue;
    TH_TRY(File copied, copy_in(file, partial.path() / file.filename()));
    model.bytes += copied.bytes;
    model.files.push_back(std::move(copied));
  }
  // Checked again as copied: the source may have changed meanwhile.
  TH_RETURN_IF_ERROR(check(partial.path()));
  const std::string manifest = dump_json(manifest_of(model)) + "\n";
  TH_RETURN_IF_ERROR(write_file_durable(partial.path() / kManifest, manifest));
  TH_RETURN_IF_ERROR(sync_folder(partial.path()));
  if (fs::exists(target, problem)) {
    auto there = read_file(target / kManifest, kMaxJsonBytes);
    if (there && *there == manifest) return model;
    return fail(Code::kAlreadyExists,
                std::string(word()) + " '" + name + "' has another version '" + version + "' already");
  }
  if (::rename(partial.path().c_str(), target.c_str()) != 0) return fail(errno_error(target.string(), errno));
  partial.keep();
  TH_RETURN_IF_ERROR(sync_folder(root_ / name));
  TH_RETURN_IF_ERROR(sync_folder(root_));
  return model;
}

Result<Model> Registry::find(const std::string& name, const std::string& version) const {
  TH_RETURN_IF_ERROR(check_name(name, word()));
  TH_RETURN_IF_ERROR(check_name(version, "version"));
  const fs::path path = root_ / name / version;
  auto text = read_file(path / kManifest, kMaxJsonBytes);
  if (!text && text.error().code == Code::kNotFound) {
    return fail(Code::kNotFound,
                std::string(word()) + " '" + name + "' version '" + version + "' is not in the registry");
  }
  if (!text) return fail(text.error());
  auto damaged = [&](const std::string& why) {
    return fail(Code::kDataLoss,
                std::string("manifest of ") + word() + " '" + name + "' version '" + version + "': " + why);
  };
  auto json = parse_json(*text, "manifest");
  if (!json || !json->is_object() || !json->contains("files") || !(*json)["files"].is_array())
    return damaged("is damaged");
  Model model{name, version, path, get_int(*json, "bytes", 0).value_or(0), {}};
  for (const Json& item : (*json)["files"]) {
    if (!item.is_object()) return damaged("is damaged");
    auto file = get_string(item, "name"), sha256 = get_string(item, "sha256");
    auto bytes = get_int(item, "bytes");
    if (!file || !sha256 || !bytes || file->find('/') != std::string::npos) return damaged("is damaged");
    model.files.push_back({*file, *bytes, *sha256});
  }
  return model;
}

std::vector<Model> Registry::list() const {
  std::vector<Model> out;
  std::error_code problem;
  for (fs::directory_iterator model(root_, problem), end; !problem && model != end;
       model.increment(problem)) {
    for (fs::directory_iterator it(model->path(), problem), last; !problem && it != last;
         it.increment(problem)) {
      auto found = find(model->path().filename().string(), it->path().filename().string());
      if (found) out.push_back(*std::move(found));
    }
  }
  std::sort(out.begin(), out.end(), [](const Model& a, const Model& b) {
    return std::tie(a.name, a.version) < std::tie(b.name, b.version);
  });
  return out;
}

Status Registry::verify(const Model& model) const {
  for (const File& file : model.files) {
    auto now = hash_file(model.path / file.name, -1);
    const bool same = now && now->bytes == file.bytes && now->sha256 == file.sha256;
    if (!same)
      return fail(Code::kDataLoss,
                  "file " + (model.path / file.name).string() + " differs from its manifest");
  }
  return {};
}

}  // namespace th::registry
