#include "sim/report/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "base/files.h"

namespace th::sim {
namespace {

constexpr size_t kBuckets = 512;
constexpr double kWidth = 860, kHeight = 200, kLeft = 64, kBottom = 24, kTop = 8;
// Distinct in hue and in lightness, for eyes that tell hues apart badly.
constexpr const char* kColors[] = {"#1f77d0", "#e0711a", "#2a9d5c", "#b04fc4", "#888888"};

constexpr const char* kStyle =
    ":root{color-scheme:light dark;--line:#8884}body{font:15px/1.5 "
    "system-ui,sans-serif;max-width:960px;margin:2rem auto;"
    "padding:0 1rem}h1{font-size:1.5rem}h2{font-size:1.1rem;margin:2rem 0 .3rem}svg{width:100%;height:auto}"
    "svg text{fill:currentColor;font-size:12px}table{border-collapse:collapse}td,th{padding:.15rem 1rem "
    ".15rem 0;"
    "text-align:left;vertical-align:top}code{overflow-wrap:anywhere}.key{display:inline-block;width:.8em;"
    "height:.8em;"
    "border-radius:2px;margin:0 .35em 0 1em}.note{opacity:.75}";

std::string escape(std::string_view text) {
  std::string out;
  for (char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string number(double value) {
  if (std::abs(value) >= 1e6) return fmt::format("{:.3g}", value);
  return fmt::format("{:.{}f}", value, std::abs(value) >= 100 || value == std::floor(value) ? 0 : 2);
}

/// "3d 4h", "2h 10m", "45s".
std::string span(double seconds) {
  auto whole = static_cast<int64_t>(seconds);
  if (whole >= 86'400) return fmt::format("{}d {}h", whole / 86'400, whole % 86'400 / 3'600);
  if (whole >= 3'600) return fmt::format("{}h {}m", whole / 3'600, whole % 3'600 / 60);
  return fmt::format("{}s", whole);
}

/// The least of 1, 2, 2.5, 5 times a power of ten that is not below the value.
double round_up(double value) {
  if (value <= 0) return 1;
  const double power = std::pow(10, std::floor(std::log10(value)));
  for (double step : {1.0, 2.0, 2.5, 5.0}) {
    if (step * power >= value) return step * power;
  }
  return 10 * power;
}

struct Line {
  std::string name;
  std::vector<std::pair<double, double>> points;
};

void draw_axes(std::string& out, double top, double end_s) {
  for (int i = 0; i <= 4; ++i) {
    const double y = kTop + kHeight * (1 - i / 4.0);
    out += fmt::format(
        "<path d='M{} {:.1f}H{}' stroke='var(--line)'/><text x='{}' y='{:.1f}' text-anchor='end'>{}</text>",
        kLeft, y, kLeft + kWidth, kLeft - 6, y + 4, number(top * i / 4));
    const double x = kLeft + kWidth * i / 4.0;
    const char* anchor = i == 0 ? "start" : i == 4 ? "end" : "middle";
    out += fmt::format("<text x='{:.1f}' y='{}' text-anchor='{}'>{}</text>", x, kTop + kHeight + 18, anchor,
                       span(end_s * i / 4));
  }
}

void draw_line(std::string& out, const Line& line, const char* color, double top, double end_s) {
  std::string path;
  for (const auto& [time_s, value] : line.points) {
    path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? 'M' : 'L', kLeft + kWidth * time_s / end_s,
                        kTop + kHeight * (1 - value / top));
  }
  out += fmt::format("<path d='{}' fill='none' stroke='{}' stroke-width='1.5'><title>{}</title></path>", path,
                     color, escape(line.name));
}

void draw_chart(std::string& out, const Chart& chart, double end_s) {
  std::vector<Line> lines;
  double most = 0;
  for (const Track& track : chart.tracks) {
    lines.push_back({track.name(), track.points(end_s)});
    for (const auto& point : lines.back().points) most = std::max(most, point.second);
  }
  const double top = round_up(most);
  out += fmt::format("<h2>{} <span class='note'>({})</span></h2>", escape(chart.title), escape(chart.unit));
  out += fmt::format("<svg viewBox='0 0 {} {}' role='img' aria-label='{}'>", kLeft + kWidth + 4,
                     kTop + kHeight + kBottom, escape(chart.title));
  draw_axes(out, top, end_s);
  for (size_t i = 0; i < lines.size(); ++i)
    draw_line(out, lines[i], kColors[i % std::size(kColors)], top, end_s);
  out += "</svg><p>";
  for (size_t i = 0; i < lines.size(); ++i) {
    double sum = 0, peak = 0;
    for (const auto& point : lines[i].points) sum += point.second, peak = std::max(peak, point.second);
    const double mean = lines[i].points.empty() ? 0 : sum / static_cast<double>(lines[i].points.size());
    out += fmt::format("<span class='key' style='background:{}'></span>{}: mean {}, most {}",
                       kColors[i % std::size(kColors)], escape(lines[i].name), number(mean), number(peak));
  }
  out += "</p>";
}

/// Blue, the fuller the darker; grey: out of use.
std::string rack_color(double used) {
  if (used < 0) return "#999";
  return fmt::format("hsl(212 80% {:.0f}%)", 92 - 60 * std::min(1.0, used));
}

void draw_racks(std::string& out, const std::vector<RackCell>& racks) {
  std::map<std::string, std::vector<const RackCell*>> rows;
  std::vector<std::string> order;
  size_t widest = 1;
  for (const RackCell& rack : racks) {
    auto& row = rows[rack.row];
    if (row.empty()) order.push_back(rack.row);
    row.push_back(&rack);
    widest = std::max(widest, row.size());
  }
  const double cell = std::clamp(kWidth / static_cast<double>(widest), 3.0, 22.0);
  const double width = kLeft + cell * static_cast<double>(widest) + 4;
  out += fmt::format(
      "<h2>Racks at the end</h2><p class='note'>The darker, the more of its GPUs are in use; grey: out of "
      "use."
      "</p><svg viewBox='0 0 {:.0f} {:.0f}' role='img' aria-label='Map of racks'>",
      width, cell * static_cast<double>(order.size()) + 4);
  for (size_t y = 0; y < order.size(); ++y) {
    const auto& row = rows[order[y]];
    if (cell >= 9) {
      out += fmt::format("<text x='{}' y='{:.1f}' text-anchor='end'>{}</text>", kLeft - 6,
                         cell * (static_cast<double>(y) + 0.75), escape(order[y]));
    }
    for (size_t x = 0; x < row.size(); ++x) {
      out += fmt::format(
          "<rect x='{:.1f}' y='{:.1f}' width='{:.1f}' height='{:.1f}' fill='{}'><title>{}</title></rect>",
          kLeft + cell * static_cast<double>(x), cell * static_cast<double>(y), cell - 1, cell - 1,
          rack_color(row[x]->used), escape(row[x]->note.empty() ? row[x]->id : row[x]->note));
    }
  }
  out += "</svg>";
}

}  // namespace

void Track::set(double time_s, double value) {
  if (!started_) {
    started_ = true;
    origin_s_ = time_s_ = time_s;
  }
  add_stretch(time_s_, time_s, value_);
  time_s_ = std::max(time_s_, time_s);
  value_ = value;
}

void Track::add_stretch(double from_s, double to_s, double value) {
  while (to_s - origin_s_ > bucket_s_ * kBuckets) halve();
  while (from_s < to_s) {
    const auto bucket = static_cast<size_t>((from_s - origin_s_) / bucket_s_);
    if (bucket >= sums_.size()) sums_.resize(bucket + 1);
    double end_s = std::min(to_s, origin_s_ + static_cast<double>(bucket + 1) * bucket_s_);
    if (end_s <= from_s) end_s = to_s;  // at a bucket's edge, where rounding leaves no room
    sums_[bucket] += value * (end_s - from_s);
    from_s = end_s;
  }
}

void Track::halve() {
  for (size_t i = 0; i < sums_.size(); i += 2)
    sums_[i / 2] = sums_[i] + (i + 1 < sums_.size() ? sums_[i + 1] : 0);
  sums_.resize((sums_.size() + 1) / 2);
  bucket_s_ *= 2;
}

std::vector<std::pair<double, double>> Track::points(double end_s) const {
  Track whole = *this;
  whole.set(end_s, value_);
  std::vector<std::pair<double, double>> out;
  for (size_t i = 0; i < whole.sums_.size(); ++i) {
    const double start_s = whole.origin_s_ + static_cast<double>(i) * whole.bucket_s_;
    const double length_s = std::min(whole.bucket_s_, whole.time_s_ - start_s);
    if (length_s > 0) out.emplace_back(start_s, whole.sums_[i] / length_s);
  }
  return out;
}

std::string to_html(const Report& report) {
  std::string out = fmt::format(
      "<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' "
      "content='width=device-width'>"
      "<title>{0}</title><style>{1}</style><h1>{0}</h1><p class='note'>Simulated, in virtual "
      "time.{2}</p><table>",
      escape(report.title), kStyle,
      report.command.empty() ? "" : " Made by <code>" + escape(report.command) + "</code>");
  for (const auto& [name, value] : report.figures) {
    out += fmt::format("<tr><th scope='row'>{}</th><td>{}</td></tr>", escape(name), escape(value));
  }
  out += "</table>";
  for (const Chart& chart : report.charts) draw_chart(out, chart, std::max(report.end_s, 1e-9));
  if (!report.racks.empty()) draw_racks(out, report.racks);
  return out + "</html>\n";
}

Status write_report(const Report& report, const std::string& path) {
  return write_file_durable(path, to_html(report));
}

}  // namespace th::sim
