// Whatever a store, or somebody in its place, answers: every reader ends with values or an error.
#include <cstdint>
#include <cstdlib>

#include "storage/answers.h"

using namespace th::storage;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  const auto error = error_of_fault(static_cast<int>(size % 600), read_fault(body), "fuzzing", "nowhere");
  if (error.message.size() > 2000) std::abort();
  (void)read_uncommitted(body);
  if (const auto page = read_list(body)) {
    for (const Blob& blob : page->blobs) {
      if (blob.bytes < 0) std::abort();
    }
  }
  if (const auto files = read_manifest(body)) {
    for (const FileEntry& file : *files) {
      if (file.name.find('/') != file.name.npos || file.name.starts_with("..") || file.bytes < 0)
        std::abort();
    }
    // What is written of it reads as the same.
    if (read_manifest(write_manifest(*files)) != files) std::abort();
  }
  return 0;
}
