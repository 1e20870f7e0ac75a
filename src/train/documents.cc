#include "train/documents.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "base/files.h"

namespace th::train {
namespace {

namespace fs = std::filesystem;

constexpr size_t kReadBytes = size_t{1} << 20;
constexpr size_t kMaxLineBytes = size_t{64} << 20;
constexpr size_t kLooksBinaryBytes = 8 << 10;
constexpr size_t kCutBytes = 32 << 10;

constexpr std::array kExtensions = std::to_array<std::string_view>(
    {"c",  "cc",  "cpp",  "cxx", "h",     "hh",    "hpp", "hxx", "cu",  "cuh", "py", "pyi",
     "rs", "go",  "java", "kt",  "scala", "js",    "jsx", "mjs", "ts",  "tsx", "rb", "php",
     "pl", "lua", "r",    "jl",  "swift", "m",     "mm",  "cs",  "fs",  "hs",  "ml", "clj",
     "ex", "erl", "sh",   "sql", "proto", "cmake", "mk",  "md",  "rst", "txt", "tex"});

bool is_json_lines(const fs::path& file) {
  return file.extension() == ".jsonl" || file.extension() == ".ndjson";
}

bool is_wanted(const fs::path& file, const SourceOptions& options) {
  const std::string dotted = file.extension().string();
  const std::string extension = dotted.empty() ? dotted : dotted.substr(1);
  if (!options.extensions.empty())
    return std::ranges::find(options.extensions, extension) != options.extensions.end();
  return is_json_lines(file) || std::ranges::find(kExtensions, extension) != kExtensions.end() ||
         file.filename() == "Makefile" || file.filename() == "Dockerfile";
}

void take_file(Source& source, const fs::directory_entry& entry) {
  std::error_code error;
  const auto bytes = static_cast<int64_t>(entry.file_size(error));
  const char* why = nullptr;
  if (error)
    why = "unreadable";
  else if (!is_wanted(entry.path(), source.options))
    why = "extension";
  else if (bytes == 0)
    why = "empty";
  else if (bytes > source.options.max_file_bytes && !is_json_lines(entry.path()))
    why = "too large";
  if (why != nullptr) {
    ++source.skipped[why];
    return;
  }
  source.files.push_back(entry.path());
  source.bytes += bytes;
}

Status walk(Source& source) {
  std::error_code error;
  fs::recursive_directory_iterator it(source.options.path, fs::directory_options::skip_permission_denied,
                                      error);
  for (; !error && it != fs::recursive_directory_iterator(); it.increment(error)) {
    const bool is_hidden = it->path().filename().string().starts_with('.');
    const fs::file_status status = it->symlink_status(error);
    if (error) break;
    if (is_hidden) {
      ++source.skipped["hidden"];
      if (fs::is_directory(status)) it.disable_recursion_pending();
    } else if (fs::is_regular_file(status)) {
      take_file(source, *it);
    } else if (!fs::is_directory(status)) {
      ++source.skipped["link or device"];
    }
  }
  if (error) return fail(errno_error(source.options.path.string(), error.value()));
  std::ranges::sort(source.files);
  return {};
}

/// Reads one file, piece by piece.
class FileReader {
 public:
  static Result<FileReader> open(const fs::path& path) {
    FileReader reader;
    reader.path_ = path;
    reader.fd_ = UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!reader.fd_) return fail(errno_error(path.string(), errno));
    return reader;
  }
  /// Appends up to 1 MiB to `buffer`; how much, 0 at the end.
  Result<size_t> read(std::string& buffer) {
    const size_t old = buffer.size();
    buffer.resize(old + kReadBytes);
    ssize_t n;
    do n = ::read(fd_.get(), buffer.data() + old, kReadBytes);
    while (n < 0 && errno == EINTR);
    buffer.resize(old + std::max<ssize_t>(n, 0));
    if (n < 0) return fail(errno_error(path_.string(), errno));
    return static_cast<size_t>(n);
  }

 private:
  fs::path path_;
  UniqueFd fd_;
};

/// Hands out what the files hold, and counts.
class DocumentReader {
 public:
  DocumentReader(Source& source, const Visit& visit) : source_(source), visit_(visit) {}

  Status read(const fs::path& path) {
    auto file = FileReader::open(path);
    if (!file && source_.files.size() > 1) {
      ++source_.skipped["unreadable"];
      return {};
    }
    if (!file) return fail(file.error());
    return is_json_lines(path) ? read_lines(*file) : read_text(*file);
  }

 private:
  Status give(std::string_view document) {
    if (document.empty()) return {};
    return visit_(document, bytes_);
  }

  Status read_text(FileReader& file) {
    std::string pending;
    bool is_first = true;
    while (true) {
      TH_TRY(const size_t got, file.read(pending));
      bytes_ += static_cast<int64_t>(got);
      if (is_first && pending.substr(0, kLooksBinaryBytes).find('\0') != pending.npos) {
        ++source_.skipped["binary"];
        return {};
      }
      is_first = false;
      std::string_view rest = pending;
      while (rest.size() > kReadBytes || (got == 0 && rest.size() > kDocumentBytes)) {
        const size_t newline = rest.find('\n', kDocumentBytes - 1);
        const size_t cut =
            std::min({newline == rest.npos ? rest.size() : newline + 1, rest.size(), kReadBytes});
        TH_RETURN_IF_ERROR(give(rest.substr(0, cut)));
        rest.remove_prefix(cut);
      }
      if (got == 0) return give(rest);
      pending.erase(0, pending.size() - rest.size());
    }
  }

  Status read_lines(FileReader& file) {
    std::string pending;
    bool is_too_long = false;
    while (true) {
      TH_TRY(const size_t got, file.read(pending));
      bytes_ += static_cast<int64_t>(got);
      if (got == 0 && !pending.empty()) pending += '\n';
      size_t begin = 0;
      for (size_t end; (end = pending.find('\n', begin)) != pending.npos; begin = end + 1) {
        if (is_too_long)
          ++source_.skipped["too large"];
        else
          TH_RETURN_IF_ERROR(give_line(std::string_view(pending).substr(begin, end - begin)));
        is_too_long = false;
      }
      pending.erase(0, begin);
      if (got == 0) return {};
      if (pending.size() > kMaxLineBytes) is_too_long = true, pending.clear();
    }
  }

  Status give_line(std::string_view line) {
    if (line.find_first_not_of(" \t\r") == line.npos) return {};
    const auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    const auto field = json.is_object() ? json.find(source_.options.field) : json.end();
    const char* why = nullptr;
    if (json.is_discarded() || !json.is_object())
      why = "not a JSON object";
    else if (field == json.end() || !field->is_string())
      why = "no such field";
    else if (field->get_ref<const std::string&>().empty())
      why = "empty";
    if (why != nullptr) {
      ++source_.skipped[why];
      return {};
    }
    std::string_view text = field->get_ref<const std::string&>();
    while (text.size() > kDocumentBytes) {
      const size_t newline = text.find('\n', kDocumentBytes - 1);
      const size_t cut = newline == text.npos ? text.size() : newline + 1;
      TH_RETURN_IF_ERROR(give(text.substr(0, cut)));
      text.remove_prefix(cut);
    }
    return give(text);
  }

  Source& source_;
  const Visit& visit_;
  int64_t bytes_ = 0;
};

}  // namespace

Result<Source> find_source(const SourceOptions& options) {
  Source source{options, {}, 0, {}};
  std::error_code error;
  const fs::file_status status = fs::status(options.path, error);
  if (error) return fail(errno_error(options.path.string(), error.value()));
  if (fs::is_directory(status)) {
    TH_RETURN_IF_ERROR(walk(source));
    return source;
  }
  if (!fs::is_regular_file(status))
    return fail(Code::kInvalidArgument, options.path.string() + ": want a file or a folder");
  source.files = {options.path};
  source.bytes = static_cast<int64_t>(fs::file_size(options.path, error));
  return source;
}

Status read_documents(Source& source, const Visit& visit) {
  DocumentReader reader(source, visit);
  for (const fs::path& file : source.files) TH_RETURN_IF_ERROR(reader.read(file));
  return {};
}

DocumentSplit::Parts DocumentSplit::split(std::string_view document) {
  const auto bytes = static_cast<double>(document.size());
  if (document.size() >= kCutBytes) {
    const size_t newline = document.find('\n', static_cast<size_t>(bytes * (1 - share_)));
    const size_t cut = newline == document.npos ? document.size() : newline + 1;
    return {document.substr(0, cut), document.substr(cut)};
  }
  owed_bytes_ += bytes * share_;
  if (owed_bytes_ < bytes / 2) return {document, {}};
  owed_bytes_ -= bytes;
  return {{}, document};
}

}  // namespace th::train
