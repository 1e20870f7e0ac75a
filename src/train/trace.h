#pragma once
// Where the time of a training went, for Perfetto (https://ui.perfetto.dev) or chrome://tracing: JSON of the
// "Trace Event Format", complete events ("ph":"X") in microseconds since a midnight in UTC, a process a rank.

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <string>
#include <string_view>

#include "base/result.h"

namespace th::train {

/// The spans of one rank, in a file beside `file` ("trace-rank3.json" for "trace.json") that can be read at
/// any time, also after a kill. The first 500,000; then it only counts. Nobody who has no trace pays for one.
/// Thread: any.
class Trace {
 public:
  enum class Track { kCompute = 1, kCollectives, kCheckpoints };
  /// `second`: since 1970, the same on all ranks. Errors: those of opening a file.
  Trace(const std::filesystem::path& file, int rank, const std::string& node, int64_t second);
  ~Trace();
  Trace(const Trace&) = delete;
  Trace& operator=(const Trace&) = delete;

  /// From begin_ns until now, or end_ns (monotonic). Spans of a track nest or follow each other.
  void span(Track track, std::string_view name, int64_t begin_ns) { span(track, name, begin_ns, now_ns()); }
  void span(Track track, std::string_view name, int64_t begin_ns, int64_t end_ns);
  static int64_t now_ns();

  /// Ends the file. Errors: kNoSpace and others of writing, naming it.
  Status close();

 private:
  void name_track(std::string_view kind, int track, std::string_view name);
  const std::filesystem::path path_;
  const int rank_;
  int64_t offset_ns_ = 0;  // of microsecond 0 from the monotonic clock's
  std::mutex mutex_;
  std::ofstream out_;
  int64_t spans_ = 0;
};

/// All ranks' files into `file`; they are removed. Errors: kNotFound, naming the one that is not there (ranks
/// on nodes that share no folder), those of writing.
Status merge_traces(const std::filesystem::path& file, int world_size);

/// Names what a model does with its units, from what it asks of them: forward and backward of each layer, and
/// between them embedding and head, which are unit 0. Does nothing without a trace. Thread: the model's.
class PassSpans {
 public:
  explicit PassSpans(Trace* trace) : trace_(trace) {}
  void acquiring(int unit);  // may wait now
  void acquired(int unit);
  void gradients_wanted();  // may wait now
  void gradients_ready();
  void released(int unit);
  /// Runs `work` as a span of its own, of a unit unless it is -1.
  template <class Work>
  auto in(const char* name, Work work) {
    return in(name, -1, work);
  }
  template <class Work>
  auto in(const char* name, int unit, Work work) {
    struct Span {  // ends with the work, whatever that returns
      ~Span() {
        if (spans.trace_ != nullptr) spans.told(name, unit, begin_ns);
      }
      const PassSpans& spans;
      const char* name;
      int unit;
      int64_t begin_ns;
    } const span{*this, name, unit, trace_ == nullptr ? 0 : Trace::now_ns()};
    return work();
  }
  static std::string layer(int unit);  // "layer 3"; "embedding and head"

 private:
  void waited(int64_t begin_ns);
  void told(const char* name, int unit, int64_t begin_ns) const;
  Trace* const trace_;
  int64_t pass_ns_ = 0, unit_ns_ = 0, ended_ns_ = 0, wait_ns_ = 0;
  int last_ = 0;
  bool is_backward_ = false;
};

}  // namespace th::train
