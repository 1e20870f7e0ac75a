#pragma once
// Reads tables of traces: a header line and rows of comma-separated cells, plain or gzipped. What is wrong is
// named by file and line, and either refused or skipped and counted.

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace th::sim {

enum class OnBadLine { kRefuse, kSkip };

/// Lines that were left out, when asked to go on.
struct Skipped {
  int64_t lines = 0;
  std::vector<std::string> first;  // what was wrong with the first ten
};

/// The text of a file, decompressed when it is gzipped (by its first bytes, not its name). At most 1 GiB.
/// Errors: kNotFound, kInvalidArgument (damaged gzip, too long).
Result<std::string> read_trace_file(const std::string& path);

/// Cells of one line, in the order of the columns that were asked for.
class Row {
 public:
  Row(std::span<const std::string_view> columns, std::span<const std::string_view> cells)
      : columns_(columns), cells_(cells) {}
  std::string_view text(size_t column) const { return cells_[column]; }
  /// Errors: kInvalidArgument naming the column, what it holds and the range that is wanted.
  Result<int64_t> integer(size_t column, int64_t least, int64_t most) const;
  /// A decimal number; never NaN or infinite.
  Result<double> real(size_t column, double least, double most) const;

 private:
  std::span<const std::string_view> columns_, cells_;
};

struct CsvOptions {
  std::string_view file;  // its name in messages
  OnBadLine on_bad = OnBadLine::kRefuse;
};

/// A bad line: counted in `skipped` when it may be, else the error "file:number: message".
Status refuse_or_skip(const CsvOptions& options, int64_t number, std::string_view message, Skipped& skipped);

/// Calls `take` for each data line; the file may have more columns, in any order. An error of `take` counts
/// as a bad line. Errors: kInvalidArgument, "trace.csv: there is no column 'duration'; it has ..." (never
/// skipped), "trace.csv:12: num_gpu: ..." unless skipping. Cost: O(text).
Status read_csv(std::string_view text, const CsvOptions& options, std::span<const std::string_view> columns,
                Skipped& skipped, const std::function<Status(const Row&)>& take);

}  // namespace th::sim
