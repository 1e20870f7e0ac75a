// Any bytes as a text and as JSON lines: documents that are not empty, never more of a text than there was.

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>

#include "train/documents.h"

namespace {

namespace fs = std::filesystem;

/// A file in memory under two names, since the name says how it is read.
struct Files {
  Files() {
    fs::create_directories(folder);
    for (const char* name : {"t.txt", "t.jsonl"})
      fs::create_symlink("/proc/self/fd/" + std::to_string(fd), folder / name);
  }
  ~Files() { fs::remove_all(folder); }
  const int fd = memfd_create("documents", 0);
  const fs::path folder = fs::temp_directory_path() / ("th_documents_fuzz_" + std::to_string(getpid()));
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace th::train;
  static const Files files;
  TH_CHECK(ftruncate(files.fd, 0) == 0 && pwrite(files.fd, data, size, 0) == static_cast<ssize_t>(size));
  for (const char* name : {"t.txt", "t.jsonl"}) {
    SourceOptions options;
    options.path = files.folder / name;
    Source source = find_source(options).value();
    DocumentSplit split(0.1);
    size_t bytes = 0;
    TH_CHECK(read_documents(source, [&](std::string_view document, int64_t) -> th::Status {
               const auto parts = split.split(document);
               TH_CHECK(!document.empty() && parts.train.size() + parts.validation.size() == document.size());
               bytes += document.size();
               return {};
             }).has_value());
    TH_CHECK(options.path.extension() != ".txt" || bytes == size || source.skipped.size() == 1);
  }
  return 0;
}
