#include "request/job_options.h"

#include <fmt/format.h>
#include <string.h>
#include <sys/types.h>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <optional>
#include <set>

#include "base/text.h"
#include "base/units.h"

namespace th::request {
namespace {

tl::unexpected<Error> bad(std::string text) { return fail(Code::kInvalidArgument, std::move(text)); }

std::string shown(std::string_view text) { return fmt::format("'{}'", text.substr(0, 80)); }

bool is_digits(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
}

/// Digits only: no sign, no blanks.
std::optional<int64_t> number_in(std::string_view text) {
  int64_t value = 0;
  if (!is_digits(text)) return std::nullopt;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// What stands before and after the first `separator`; the second is nullopt when there is none.
std::pair<std::string_view, std::optional<std::string_view>> cut(std::string_view text, char separator) {
  size_t at = text.find(separator);
  if (at == std::string_view::npos) return {text, std::nullopt};
  return {text.substr(0, at), text.substr(at + 1)};
}

/// "3", "0-7" or "0-15:4" added to `indices`.
bool add_indices(std::string_view part, std::set<int64_t>& indices) {
  auto [range, step_text] = cut(part, ':');
  auto [first_text, last_text] = cut(range, '-');
  auto first = number_in(first_text);
  auto last = last_text ? number_in(*last_text) : first;
  auto step = step_text ? number_in(*step_text) : std::optional<int64_t>(1);
  if (!first || !last || !step || *step < 1 || *last < *first || *last > kMaxArrayIndex) return false;
  if (step_text && !last_text) return false;
  if ((*last - *first) / *step >= static_cast<int64_t>(kMaxArrayTasks)) return false;
  for (int64_t i = *first; i <= *last; i += *step) indices.insert(i);
  return indices.size() <= kMaxArrayTasks;
}

struct KindName {
  const char* name;
  DependencyKind kind;
};
constexpr KindName kKinds[] = {{"after", DependencyKind::kAfter},
                               {"afterok", DependencyKind::kAfterOk},
                               {"afternotok", DependencyKind::kAfterNotOk},
                               {"afterany", DependencyKind::kAfterAny},
                               {"singleton", DependencyKind::kSingleton}};

/// "afterok:12:13", "singleton", "13" (afterany in old scripts).
Status add_dependency(std::string_view clause, Dependencies& out) {
  std::vector<std::string> words = split(clause, ':');
  if (words.size() == 1 && parse_job_ref(words[0])) words.insert(words.begin(), "afterany");
  const auto* kind = std::ranges::find(kKinds, words[0], &KindName::name);
  if (kind == std::end(kKinds)) {
    std::vector<std::string> names;
    for (const KindName& known : kKinds) names.push_back(known.name);
    std::string hint = did_you_mean(words[0], names);
    if (hint.empty()) hint = "; known: " + join(names, ", ");
    return bad(fmt::format("dependency {} is unknown{}", shown(words[0]), hint));
  }
  if (kind->kind == DependencyKind::kSingleton) {
    if (words.size() > 1) return bad("dependency 'singleton' takes no job");
    out.items.push_back({kind->kind, "", 0});
    return {};
  }
  if (words.size() < 2) return bad(fmt::format("dependency '{}' wants a job: {}:12", kind->name, kind->name));
  for (size_t i = 1; i < words.size(); ++i) {
    auto [job, delay] = cut(words[i], '+');
    Dependency item{kind->kind, "", 0};
    TH_TRY(item.job, parse_job_ref(job));
    if (delay) {
      auto minutes = number_in(*delay);
      if (kind->kind != DependencyKind::kAfter || !minutes || *minutes > 366 * 24 * 60) {
        return bad(fmt::format("dependency {}: only after:JOB+MINUTES takes a time", shown(words[i])));
      }
      item.delay_ns = *minutes * kMinute;
    }
    out.items.push_back(std::move(item));
  }
  return {};
}

/// The names of "1-3,7" between brackets, each put between `prefix` and what follows the bracket.
Status expand_ranges(std::string_view prefix, std::string_view inside, std::string_view suffix,
                     std::vector<std::string>& out) {
  for (const std::string& part : split(inside, ',')) {
    auto [first_text, last_text] = cut(part, '-');
    auto first = number_in(first_text);
    auto last = last_text ? number_in(*last_text) : first;
    if (!first || !last || *last < *first) {
      return bad(fmt::format("host list: {} in brackets is no number and no range such as 1-3", shown(part)));
    }
    if (static_cast<size_t>(*last - *first) >= kMaxHosts - std::min(out.size(), kMaxHosts)) {
      return bad(fmt::format("host list: names over {} hosts", kMaxHosts));
    }
    for (int64_t i = *first; i <= *last; ++i) {
      out.push_back(fmt::format("{}{:0{}}{}", prefix, i, first_text.size(), suffix));
    }
  }
  return {};
}

/// One name with at most one pair of brackets.
Status expand_host(std::string_view item, std::vector<std::string>& out) {
  size_t open = item.find('['), close = item.find(']');
  size_t before = out.size();
  if (open == std::string_view::npos && close == std::string_view::npos) {
    out.emplace_back(item);
  } else {
    if (open == std::string_view::npos || close == std::string_view::npos || close < open ||
        item.find_first_of("[]", close + 1) != std::string_view::npos) {
      return bad(fmt::format("host list: {}: want one pair of brackets, as in node[1-3,7]", shown(item)));
    }
    TH_RETURN_IF_ERROR(expand_ranges(item.substr(0, open), item.substr(open + 1, close - open - 1),
                                     item.substr(close + 1), out));
  }
  if (out.size() > kMaxHosts) return bad(fmt::format("host list: names over {} hosts", kMaxHosts));
  for (size_t i = before; i < out.size(); ++i) TH_RETURN_IF_ERROR(check_name(out[i], "host list: name"));
  return {};
}

}  // namespace

std::string_view name_of(DependencyKind kind) {
  return std::ranges::find(kKinds, kind, &KindName::kind)->name;
}

Result<ArraySpec> parse_array(std::string_view text) {
  auto [list, limit_text] = cut(text, '%');
  ArraySpec spec;
  std::set<int64_t> indices;
  bool good = list.size() < (64u << 10);
  for (const std::string& part : good ? split(list, ',') : std::vector<std::string>()) {
    good = good && add_indices(part, indices);
  }
  if (limit_text) {
    auto limit = number_in(*limit_text);
    good = good && limit && *limit > 0;
    spec.limit = limit.value_or(0);
  }
  if (!good || indices.empty()) {
    return bad(
        fmt::format("array {}: want indices such as 0-7, 1,3,5 or 0-15:4%2, of 0 to {}, at most {} of them",
                    shown(text), kMaxArrayIndex, kMaxArrayTasks));
  }
  spec.indices.assign(indices.begin(), indices.end());
  return spec;
}

Result<Dependencies> parse_dependencies(std::string_view text) {
  Dependencies out;
  out.any = text.find('?') != std::string_view::npos;
  if (out.any && text.find(',') != std::string_view::npos) {
    return bad(fmt::format("dependency {}: ',' (all) and '?' (any) do not go together", shown(text)));
  }
  for (const std::string& clause : split(text, out.any ? '?' : ',')) {
    TH_RETURN_IF_ERROR(add_dependency(clause, out));
    if (out.items.size() > kMaxDependencies) {
      return bad(fmt::format("dependency: names over {} jobs", kMaxDependencies));
    }
  }
  return out;
}

Result<std::vector<std::string>> parse_hostlist(std::string_view text) {
  std::vector<std::string> out;
  size_t begin = 0, depth = 0;
  for (size_t i = 0; i <= text.size(); ++i) {
    if (i < text.size() && text[i] == '[') ++depth;
    if (i < text.size() && text[i] == ']' && depth > 0) --depth;
    if (i < text.size() && (text[i] != ',' || depth > 0)) continue;
    TH_RETURN_IF_ERROR(expand_host(text.substr(begin, i - begin), out));
    begin = i + 1;
  }
  return out;
}

Result<EndSignal> parse_end_signal(std::string_view text) {
  EndSignal out;
  std::string_view rest = text;
  if (rest.starts_with("B:")) out.batch_only = true, rest.remove_prefix(2);
  auto [name, seconds_text] = cut(rest, '@');
  auto seconds = seconds_text ? number_in(*seconds_text) : std::optional<int64_t>(60);
  if (auto number = number_in(name)) {
    out.number = *number < SIGRTMIN ? static_cast<int>(*number) : 0;
  } else {
    std::string_view bare = name.starts_with("SIG") ? name.substr(3) : name;
    for (int i = 1; i < 32 && out.number == 0; ++i) {
      const char* abbreviation = ::sigabbrev_np(i);
      if (abbreviation != nullptr && bare == abbreviation) out.number = i;
    }
  }
  if (out.number == 0 || !seconds || *seconds > 65'535) {
    return bad(fmt::format("signal {}: want [B:]SIGNAL[@SECONDS], such as USR1@120, with 0 to 65535 seconds",
                           shown(text)));
  }
  out.before_ns = *seconds * kSecond;
  return out;
}

Result<CountRange> parse_count_range(std::string_view text, int64_t limit) {
  auto [min_text, max_text] = cut(text, '-');
  auto min = number_in(min_text);
  auto max = max_text ? number_in(*max_text) : min;
  if (!min || !max || *min < 1 || *max < *min || *max > limit) {
    return bad(
        fmt::format("want a count or a range of 1 to {}, such as 2 or 2-4, got {}", limit, shown(text)));
  }
  return CountRange{*min, *max};
}

Result<Constraint> parse_constraint(std::string_view text) {
  Constraint out;
  for (std::string group : split(text, '&')) {
    const bool closed = group.size() > 2 && group.front() == '(' && group.back() == ')';
    if (closed) group = group.substr(1, group.size() - 2);
    std::vector<std::string> names = split(group, '|');
    if (names.size() > 1 && !closed && text.find('&') != std::string_view::npos) {
      return bad(
          fmt::format("constraint {}: '&' and '|' side by side want parentheses: a&(b|c)", shown(text)));
    }
    for (const std::string& name : names) TH_RETURN_IF_ERROR(check_name(name, "constraint"));
    out.all_of_any.push_back(std::move(names));
  }
  return out;
}

Result<std::string> parse_job_ref(std::string_view text) {
  std::string_view bare = text.starts_with("job-") ? text.substr(4) : text;
  auto [number, index] = cut(bare, '_');
  const bool plain = bare.size() == text.size();
  if (is_digits(number) && number.size() < 19 &&
      (!index || (plain && is_digits(*index) && index->size() < 9))) {
    return index ? std::string(text) : fmt::format("job-{}", number);
  }
  return bad(fmt::format("{} is no job: want 12, job-12, or 12_3 for a task of an array", shown(text)));
}

}  // namespace th::request
