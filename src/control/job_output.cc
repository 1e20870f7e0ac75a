#include "control/job_output.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/files.h"
#include "base/json.h"
#include "base/log.h"
#include "launch/slurm/api.h"

namespace th::control {
namespace {

constexpr size_t kFollowBytes = 32 << 10;
constexpr size_t kMaxLinesInMemory = 200'000;  // of a job
constexpr size_t kMaxJobsInMemory = 100;  // more, and those that have ended are read again when asked for
constexpr size_t kMaxFollowers = 1'000;

Result<UniqueFd> open_for_append(const std::filesystem::path& path) {
  std::error_code ignored;
  std::filesystem::create_directories(path.parent_path(), ignored);
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (!fd) return fail(errno_error(path.string(), errno));
  return fd;
}

/// All of `bytes` at the end of the file, or nothing: a torn line would spoil the next one.
Status append_all(int fd, std::string_view bytes, const std::filesystem::path& path) {
  struct stat before {};
  if (::fstat(fd, &before) != 0) return fail(errno_error(path.string(), errno));
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      const Error problem = errno_error(path.string(), errno);
      if (::ftruncate(fd, before.st_size) != 0) log_error("{}: its end is torn", path.string());
      return fail(problem);
    }
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return {};
}

/// How much of `text` ends with a whole UTF-8 character; what is not UTF-8 counts as whole.
size_t whole_characters(std::string_view text) {
  for (size_t back = 1; back <= 4 && back <= text.size(); ++back) {
    const auto byte = static_cast<unsigned char>(text[text.size() - back]);
    if (byte < 0x80) break;
    if (byte < 0xC0) continue;
    const size_t length = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : 2;
    return length > back ? text.size() - back : text.size();
  }
  return text.size();
}

StoredLine stored_line(int64_t attempt, int64_t line_no, const Json& line) {
  StoredLine out;
  out.attempt = attempt, out.line_no = line_no, out.line = dump_json(line);
  out.event = get_string(line, "event", std::string()).value_or("");
  out.step = get_int(line, "step", -1).value_or(-1);
  return out;
}

}  // namespace

Status JobOutput::restore(const std::string& job) {
  const std::filesystem::path path = dir_ / job / "metrics.jsonl";
  auto& lines = metrics_[job];
  lines.clear();
  auto text = read_file(path);
  if (!text && text.error().code == Code::kNotFound) return {};
  if (!text) return fail(text.error());
  size_t good = 0;
  for (size_t end; (end = text->find('\n', good)) != std::string::npos; good = end + 1) {
    auto row = parse_json(std::string_view(*text).substr(good, end - good), path.string());
    if (!row || !row->is_object() || !row->contains("line")) break;
    const auto attempt = get_int(*row, "attempt"), line_no = get_int(*row, "line_no");
    if (!attempt || !line_no) break;
    lines.push_back(stored_line(*attempt, *line_no, (*row)["line"]));
    if (lines.size() > kMaxLinesInMemory) lines.erase(lines.begin(), lines.begin() + kMaxLinesInMemory / 4);
  }
  if (good < text->size() && ::truncate(path.c_str(), static_cast<off_t>(good)) != 0) {
    return fail(errno_error(path.string(), errno));
  }
  return {};
}

Result<std::optional<StoredLine>> JobOutput::add_metrics(const node::MetricsLine& line) {
  if (line.line_no <= last_line_no(line.id.job, line.id.attempt)) return std::optional<StoredLine>{};
  TH_TRY(Json parsed, parse_json(line.line, "metrics line"));
  const std::filesystem::path path = dir_ / line.id.job / "metrics.jsonl";
  TH_TRY(UniqueFd fd, open_for_append(path));
  const Json row = {{"attempt", line.id.attempt}, {"line_no", line.line_no}, {"line", parsed}};
  TH_RETURN_IF_ERROR(append_all(fd.get(), dump_json(row) + "\n", path));
  auto& lines = metrics_[line.id.job];
  lines.push_back(stored_line(line.id.attempt, line.line_no, parsed));
  if (lines.size() > kMaxLinesInMemory) lines.erase(lines.begin(), lines.begin() + kMaxLinesInMemory / 4);
  return std::optional<StoredLine>(lines.back());
}

const std::vector<StoredLine>& JobOutput::metrics(const std::string& job) {
  if (!metrics_.count(job)) {
    if (Status read = restore(job); !read) log_warn("{}", read.error().message);
  }
  return metrics_[job];
}

const StoredLine* JobOutput::last(const std::string& job, std::string_view event, int64_t attempt) {
  const auto& lines = metrics(job);
  const auto found = std::find_if(lines.rbegin(), lines.rend(), [&](const StoredLine& line) {
    return line.event == event && (attempt == 0 || line.attempt == attempt);
  });
  return found == lines.rend() ? nullptr : &*found;
}

int64_t JobOutput::last_line_no(const std::string& job, int64_t attempt) {
  int64_t last = 0;
  for (auto line = metrics(job).rbegin(); line != metrics(job).rend() && line->attempt >= attempt; ++line) {
    if (line->attempt == attempt) last = std::max(last, line->line_no);
  }
  return last;
}

std::filesystem::path JobOutput::log_path(const node::TaskId& task) const {
  std::filesystem::path path = dir_ / task.job / fmt::format("{}.{}.log", task.attempt, task.rank);
  std::error_code ec;
  if (std::filesystem::exists(path, ec)) return path;
  // Under Slurm a rank writes it where its job lies.
  const std::filesystem::path slurms =
      launch::AttemptFiles(dir_.parent_path() / "jobs" / task.job, task.attempt).log(task.rank);
  return std::filesystem::exists(slurms, ec) ? slurms : path;
}

Result<int64_t> JobOutput::append_log(const node::TaskId& task, int64_t offset, std::string_view bytes) {
  const std::filesystem::path path = log_path(task);
  TH_TRY(UniqueFd fd, open_for_append(path));
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return fail(errno_error(path.string(), errno));
  const int64_t size = info.st_size;
  const int64_t end = offset + static_cast<int64_t>(bytes.size());
  if (offset > size || end <= size) return size;
  TH_RETURN_IF_ERROR(append_all(fd.get(), bytes.substr(static_cast<size_t>(size - offset)), path));
  return end;
}

Result<std::string> JobOutput::read_log(const node::TaskId& task, int64_t offset, size_t max_bytes) const {
  const std::filesystem::path path = log_path(task);
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd && errno == ENOENT) return std::string();
  if (!fd) return fail(errno_error(path.string(), errno));
  std::string out(max_bytes, '\0');
  const ssize_t got = ::pread(fd.get(), out.data(), out.size(), offset);
  if (got < 0) return fail(errno_error(path.string(), errno));
  out.resize(static_cast<size_t>(got));
  return out;
}

void JobOutput::follow(http::Stream stream, std::string job, int attempt, int rank, int64_t offset) {
  if (followers_.size() >= kMaxFollowers) return stream.close();
  const bool fixed = attempt > 0;
  followers_.push_back({std::move(stream), {std::move(job), attempt, rank}, fixed, offset});
}

void JobOutput::pump(const ledger::State& state) {
  if (metrics_.size() > kMaxJobsInMemory) {
    std::erase_if(metrics_, [&](const auto& item) {
      const auto job = state.jobs.find(item.first);
      return job == state.jobs.end() || job->second.ended();
    });
  }
  std::erase_if(followers_, [&](Follower& follower) {
    if (pump_one(follower, state)) return false;
    follower.stream.close();
    return true;
  });
}

/// False when the follower is done or gone.
bool JobOutput::pump_one(Follower& follower, const ledger::State& state) const {
  const auto job = state.jobs.find(follower.at.job);
  if (job == state.jobs.end() || !follower.stream.alive()) return false;
  if (follower.at.attempt == 0) follower.at.attempt = static_cast<int>(job->second.attempt);
  auto text = read_log(follower.at, follower.offset, kFollowBytes);
  if (!text) return false;
  // A character that is cut waits for its rest, unless there is none to come.
  if (const size_t whole = whole_characters(*text); whole > 0) text->resize(whole);
  if (!text->empty()) {
    follower.offset += static_cast<int64_t>(text->size());
    return follower.stream.event(dump_json(Json{{"text", *text}, {"offset", follower.offset}}));
  }
  const bool newer = follower.at.attempt < job->second.attempt;
  if (!follower.fixed_attempt && newer) {
    ++follower.at.attempt;
    follower.offset = 0;
    return true;
  }
  return !job->second.ended() && !(follower.fixed_attempt && newer);
}

}  // namespace th::control
