#pragma once
// Documents of a text, of JSON lines, or of a folder of source code and text.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace th::train {

inline constexpr size_t kDocumentBytes = 64 << 10;  // longer ones are cut at ends of lines

struct SourceOptions {
  std::filesystem::path path = {};  // a file or a folder
  std::string field = "text";       // of each line of a .jsonl or .ndjson file
  std::vector<std::string> extensions =
      {};                            // of a folder's files, without the dot; none: source code and text
  int64_t max_file_bytes = 4 << 20;  // of one file of a folder, JSON lines aside
};

/// What is read, and how much was passed over, by reason ("binary", "too large", "extension", …).
struct Source {
  SourceOptions options;
  std::vector<std::filesystem::path> files;  // sorted
  int64_t bytes = 0;                         // of all of them
  std::map<std::string, int64_t> skipped;
};

/// Looks at what there is, and opens no file. Hidden files and links of a folder are passed over. Errors:
/// kNotFound, kPermissionDenied, kInvalidArgument (neither a file nor a folder).
Result<Source> find_source(const SourceOptions& options);

/// A document, and how many bytes of the source were read up to its end.
using Visit = std::function<Status(std::string_view document, int64_t bytes_read)>;

/// Calls `visit` with each document, in the order of the files; what cannot be used is counted in
/// `source.skipped`. Memory: a few MiB, with JSON lines up to 64 MiB. Errors: those of `visit`, of reading.
Status read_documents(Source& source, const Visit& visit);

/// Says which part of a document is learned from and which is measured on: of those of 32 KiB and more the
/// last `validation_share`, from the next line on; of smaller ones so many of them whole.
class DocumentSplit {
 public:
  explicit DocumentSplit(double validation_share) : share_(validation_share) {}
  struct Parts {
    std::string_view train, validation;  // one of them may be empty
  };
  Parts split(std::string_view document);

 private:
  double share_;
  double owed_bytes_ = 0;  // to the validation part
};

}  // namespace th::train
