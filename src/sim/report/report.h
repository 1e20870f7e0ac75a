#pragma once
// What a rehearsal looked like, as one HTML page that needs nothing beside it: figures, charts over time, a
// map of racks. No scripts: drawings are SVG, with their values as tooltips and in a table for screen
// readers.

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"

namespace th::sim {

/// A value over time, kept in at most 512 buckets however long the run is: each holds the time-weighted mean
/// of its stretch. Cost: O(1) a change, amortised.
class Track {
 public:
  explicit Track(std::string name) : name_(std::move(name)) {}
  /// From `time_s` on it has this value; times never fall.
  void set(double time_s, double value);
  const std::string& name() const { return name_; }
  /// (start of the bucket in seconds, mean), up to `end_s`.
  std::vector<std::pair<double, double>> points(double end_s) const;

 private:
  void add_stretch(double from_s, double to_s, double value);
  void halve();

  std::string name_;
  double bucket_s_ = 1, time_s_ = 0, value_ = 0;
  bool started_ = false;
  double origin_s_ = 0;
  std::vector<double> sums_;  // value × seconds in each bucket
};

struct Chart {
  std::string title;  // "GPUs in use"
  std::string unit;   // "%", "jobs", "MW"
  std::vector<Track> tracks;
};

struct RackCell {
  std::string id;    // "r17"
  std::string row;   // racks of one row are drawn side by side
  double used = 0;   // 0..1: part of its GPUs in use; below 0: out of use
  std::string note;  // tooltip: "r17: 24 of 32 GPUs, 31.2 of 40.8 kW"
};

struct Report {
  std::string title;
  std::string command;  // that makes it again
  std::vector<std::pair<std::string, std::string>> figures;
  double end_s = 0;  // of the tracks
  std::vector<Chart> charts;
  std::vector<RackCell> racks;  // may be empty
};

/// The page says that it is simulated. Thread: pure.
std::string to_html(const Report& report);
/// Errors: those of the file.
Status write_report(const Report& report, const std::string& path);

}  // namespace th::sim
