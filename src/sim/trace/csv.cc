#include "sim/trace/csv.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/files.h"
#include "base/text.h"

namespace th::sim {
namespace {

constexpr size_t kMaxTraceBytes = size_t{1} << 30;
constexpr size_t kMaxNamed = 10;

std::string_view without_spaces(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t' || text.back() == '\r'))
    text.remove_suffix(1);
  return text;
}

std::string_view next_line(std::string_view& rest) {
  size_t end = std::min(rest.find('\n'), rest.size());
  std::string_view line = rest.substr(0, end);
  rest.remove_prefix(std::min(end + 1, rest.size()));
  return line;
}

void split_cells(std::string_view line, std::vector<std::string_view>& cells) {
  cells.clear();
  for (;;) {
    size_t comma = std::min(line.find(','), line.size());
    cells.push_back(without_spaces(line.substr(0, comma)));
    if (comma == line.size()) return;
    line.remove_prefix(comma + 1);
  }
}

Result<std::string> gunzip(const std::string& packed, const std::string& path) {
  z_stream stream{};
  TH_CHECK(inflateInit2(&stream, 16 + MAX_WBITS) == Z_OK);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
  stream.avail_in = static_cast<uInt>(packed.size());
  std::string out;
  std::string block(1 << 20, '\0');
  int code = Z_OK;
  while (code == Z_OK && out.size() <= kMaxTraceBytes) {
    stream.next_out = reinterpret_cast<Bytef*>(block.data());
    stream.avail_out = static_cast<uInt>(block.size());
    code = inflate(&stream, Z_NO_FLUSH);
    out.append(block, 0, block.size() - stream.avail_out);
  }
  inflateEnd(&stream);
  if (out.size() > kMaxTraceBytes) return fail(Code::kInvalidArgument, path + ": more than 1 GiB unpacked");
  if (code != Z_STREAM_END)
    return fail(Code::kInvalidArgument, path + ": the gzip data are damaged or cut off");
  return out;
}

}  // namespace

Result<std::string> read_trace_file(const std::string& path) {
  auto text = read_file(path, kMaxTraceBytes);
  if (text && std::string_view(*text).starts_with("\x1f\x8b")) return gunzip(*text, path);
  return text;
}

Result<int64_t> Row::integer(size_t column, int64_t least, int64_t most) const {
  std::string_view cell = cells_[column];
  int64_t value = 0;
  auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
  if (error != std::errc() || end != cell.data() + cell.size() || value < least || value > most) {
    return fail(Code::kInvalidArgument, fmt::format("{}: want an integer from {} to {}, got '{}'",
                                                    columns_[column], least, most, cell.substr(0, 40)));
  }
  return value;
}

Result<double> Row::real(size_t column, double least, double most) const {
  std::string_view cell = cells_[column];
  double value = 0;
  auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
  if (error != std::errc() || end != cell.data() + cell.size() || !(value >= least && value <= most)) {
    return fail(Code::kInvalidArgument, fmt::format("{}: want a number from {} to {}, got '{}'",
                                                    columns_[column], least, most, cell.substr(0, 40)));
  }
  return value;
}

Status refuse_or_skip(const CsvOptions& options, int64_t number, std::string_view message, Skipped& skipped) {
  std::string named = fmt::format("{}:{}: {}", options.file, number, message);
  if (options.on_bad == OnBadLine::kRefuse) return fail(Code::kInvalidArgument, std::move(named));
  ++skipped.lines;
  if (skipped.first.size() < kMaxNamed) skipped.first.push_back(std::move(named));
  return {};
}

Status read_csv(std::string_view text, const CsvOptions& options, std::span<const std::string_view> columns,
                Skipped& skipped, const std::function<Status(const Row&)>& take) {
  std::vector<std::string_view> cells;
  std::string_view rest = text;
  split_cells(next_line(rest), cells);
  const std::vector<std::string> header(cells.begin(), cells.end());
  std::vector<size_t> where;
  for (std::string_view column : columns) {
    auto found = std::ranges::find(header, column);
    if (found == header.end()) {
      return fail(Code::kInvalidArgument,
                  fmt::format("{}: there is no column '{}'{}; it has {}", options.file, column,
                              did_you_mean(column, header), join(header, ", ").substr(0, 300)));
    }
    where.push_back(static_cast<size_t>(found - header.begin()));
  }
  std::vector<std::string_view> wanted(columns.size());
  for (int64_t number = 2; !rest.empty(); ++number) {
    std::string_view line = next_line(rest);
    if (without_spaces(line).empty()) continue;
    split_cells(line, cells);
    Status status;
    if (cells.size() != header.size()) {
      status = fail(Code::kInvalidArgument,
                    fmt::format("has {} cells, and the header {}", cells.size(), header.size()));
    } else {
      for (size_t i = 0; i < where.size(); ++i) wanted[i] = cells[where[i]];
      status = take(Row(columns, wanted));
    }
    if (!status) TH_RETURN_IF_ERROR(refuse_or_skip(options, number, status.error().message, skipped));
  }
  return {};
}

}  // namespace th::sim
