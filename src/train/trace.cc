#include "train/trace.h"

#include <fmt/format.h>

#include <cerrno>
#include <nlohmann/json.hpp>

#include "base/env.h"
#include "base/files.h"
#include "base/json.h"
#include "base/units.h"

namespace th::train {
namespace {

constexpr int64_t kMaxSpans = 500'000;
constexpr int64_t kShortestWaitNs = kMicrosecond;
constexpr std::string_view kBegin = "[\n", kNext = ",\n", kEnd = "\n]\n";

std::filesystem::path rank_file(const std::filesystem::path& file, int rank) {
  return file.parent_path() /
         fmt::format("{}-rank{}{}", file.stem().string(), rank, file.extension().string());
}

}  // namespace

int64_t Trace::now_ns() { return Env::real().monotonic_ns(); }

Trace::Trace(const std::filesystem::path& file, int rank, const std::string& node, int64_t second)
    : path_(rank_file(file, rank)), rank_(rank), out_(path_) {
  constexpr int64_t kHourS = 3600, kDayS = 24 * kHourS;  // an hour: clocks differ, and times are positive
  const int64_t midnight_ns = (second - kHourS) / kDayS * kDayS * kSecond;
  offset_ns_ = Env::real().unix_ns() - midnight_ns - now_ns();
  out_ << kBegin;
  name_track("process_name", 0, fmt::format("rank {} on {}", rank, node));
  name_track("thread_name", static_cast<int>(Track::kCompute), "compute");
  name_track("thread_name", static_cast<int>(Track::kCollectives), "collectives");
  name_track("thread_name", static_cast<int>(Track::kCheckpoints), "checkpoints");
}

Trace::~Trace() = default;

void Trace::name_track(std::string_view kind, int track, std::string_view name) {
  const Json event = {
      {"ph", "M"}, {"pid", rank_}, {"tid", track}, {"name", kind}, {"args", {{"name", name}}}};
  out_ << (track == 0 ? "" : kNext) << dump_json(event);
}

void Trace::span(Track track, std::string_view name, int64_t begin_ns, int64_t end_ns) {
  const std::scoped_lock lock(mutex_);
  if (++spans_ > kMaxSpans) return;
  const int64_t at = begin_ns + offset_ns_, took = end_ns - begin_ns;
  out_ << fmt::format(R"({}{{"ph":"X","pid":{},"tid":{},"name":"{}","ts":{}.{:03},"dur":{}.{:03}}})", kNext,
                      rank_, static_cast<int>(track), name, at / 1000, at % 1000, took / 1000, took % 1000);
}

Status Trace::close() {
  const std::scoped_lock lock(mutex_);
  errno = 0;
  out_ << kEnd;
  out_.close();
  if (out_) return {};
  return fail(errno_error(path_.string(), errno == 0 ? ENOSPC : errno));
}

namespace {

Status write_merged(const std::filesystem::path& file, int world_size) {
  std::ofstream out(file);
  out << kBegin;
  for (int rank = 0; rank < world_size; ++rank) {
    const auto read = read_file(rank_file(file, rank));
    if (!read) return fail(read.error());
    const std::string_view text = *read;
    if (!text.starts_with(kBegin) || !text.ends_with(kEnd))
      return fail(Code::kDataLoss, fmt::format("{}: has no end", rank_file(file, rank).string()));
    const std::string_view events = text.substr(kBegin.size());
    out << (rank == 0 ? "" : kNext) << events.substr(0, events.size() - kEnd.size());
  }
  out << kEnd;
  out.close();
  if (!out) return fail(errno_error(file.string(), errno == 0 ? ENOSPC : errno));
  return {};
}

}  // namespace

Status merge_traces(const std::filesystem::path& file, int world_size) {
  const Status written = write_merged(file, world_size);
  std::error_code ignored;
  if (!written) std::filesystem::remove(file, ignored);
  TH_RETURN_IF_ERROR(written);
  for (int rank = 0; rank < world_size; ++rank) std::filesystem::remove(rank_file(file, rank), ignored);
  return {};
}

std::string PassSpans::layer(int unit) {
  return unit == 0 ? "embedding and head" : fmt::format("layer {}", unit - 1);
}

void PassSpans::waited(int64_t begin_ns) {
  const int64_t end_ns = Trace::now_ns();
  if (end_ns - begin_ns > kShortestWaitNs) trace_->span(Trace::Track::kCompute, "wait", begin_ns, end_ns);
}

void PassSpans::told(const char* name, int unit, int64_t begin_ns) const {
  trace_->span(Trace::Track::kCompute, unit < 0 ? std::string(name) : fmt::format("{} {}", name, layer(unit)),
               begin_ns);
}

void PassSpans::acquiring(int unit) {
  if (trace_ == nullptr) return;
  wait_ns_ = Trace::now_ns();
  // What was computed since the last unit ended belongs to unit 0.
  if (unit == 1 && last_ == 0) trace_->span(Trace::Track::kCompute, "embedding", ended_ns_, wait_ns_);
  if (unit > 0 && unit == last_ && is_backward_)
    trace_->span(Trace::Track::kCompute, "head and loss", ended_ns_, wait_ns_);
}

void PassSpans::acquired(int unit) {
  if (trace_ == nullptr) return;
  waited(wait_ns_);
  unit_ns_ = Trace::now_ns();
  if (unit > 0) return;
  pass_ns_ = ended_ns_ = unit_ns_;
  last_ = 0;
  is_backward_ = false;
}

void PassSpans::gradients_wanted() {
  if (trace_ == nullptr) return;
  is_backward_ = true;
  wait_ns_ = Trace::now_ns();
}

void PassSpans::gradients_ready() {
  if (trace_ != nullptr) waited(wait_ns_);
}

void PassSpans::released(int unit) {
  if (trace_ == nullptr) return;
  const int64_t now_ns = Trace::now_ns();
  constexpr auto kCompute = Trace::Track::kCompute;
  if (unit > 0) {
    trace_->span(kCompute, fmt::format("{} {}", is_backward_ ? "backward" : "forward", layer(unit)), unit_ns_,
                 now_ns);
  } else {
    trace_->span(kCompute, is_backward_ ? "embedding backward" : "head and loss", ended_ns_, now_ns);
    trace_->span(kCompute, is_backward_ ? "forward and backward" : "forward", pass_ns_, now_ns);
  }
  ended_ns_ = now_ns;
  last_ = unit;
}

}  // namespace th::train
