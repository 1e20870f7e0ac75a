#pragma once
// YAML into structs, with errors that name file, line, key, what is wrong and the nearest known key.
//
//   TH_TRY(Config root, Config::parse(text, "desk.yaml", {"sites", "power"}));
//   TH_TRY(auto section, root.map("power", {"budget_w", "cap_w"}));   // any other key below is an error
//   TH_TRY(int64_t budget, section.integer("budget_w", {.min = 1}));

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace th {

struct IntRange {
  int64_t min = std::numeric_limits<int64_t>::min();
  int64_t max = std::numeric_limits<int64_t>::max();
};

/// One mapping of a YAML document. Cheap to copy. Errors of all members: kInvalidArgument,
/// "desk.yaml:12: racks[1].power_budget_w: want an integer >= 1, got -5". Thread: one owner.
class Config {
 public:
  /// The top mapping; `known` lists the keys that may stand in it. Over 16 MiB, anchors that expand, or
  /// nesting deeper than 32 are refused.
  static Result<Config> parse(std::string_view text, std::string_view file,
                              const std::vector<const char*>& known);

  bool has(const char* key) const;
  Result<std::string> string(const char* key) const;
  Result<std::string> string(const char* key, std::string fallback) const;
  Result<int64_t> integer(const char* key, IntRange range = {}) const;
  Result<int64_t> integer_or(const char* key, int64_t fallback, IntRange range = {}) const;
  Result<double> number(const char* key) const;
  Result<double> number_or(const char* key, double fallback) const;
  Result<bool> boolean_or(const char* key, bool fallback) const;
  /// "1h", "90s": see parse_duration_ns. Also bytes ("3GiB") and money ("1.25").
  Result<int64_t> duration_ns_or(const char* key, int64_t fallback) const;
  Result<int64_t> bytes_or(const char* key, int64_t fallback) const;
  Result<int64_t> money_or(const char* key, int64_t fallback_microusd) const;
  Result<std::vector<std::string>> strings(const char* key) const;  // empty when missing
  /// key → text of a mapping of scalars, in file order; empty when missing.
  Result<std::vector<std::pair<std::string, std::string>>> string_map(const char* key) const;

  /// A mapping below; an error when missing or when it has keys that are not `known`.
  Result<Config> map(const char* key, std::initializer_list<const char*> known) const;
  /// The same, with any keys: another reader checks them.
  Result<Config> open_map(const char* key) const;
  /// A list of mappings below; empty when missing.
  Result<std::vector<Config>> maps(const char* key, std::initializer_list<const char*> known) const;

  /// An error about `key` of this mapping in the form above, for checks that the reader makes itself.
  tl::unexpected<Error> bad(const char* key, std::string_view problem) const;

 private:
  struct Node;
  explicit Config(std::shared_ptr<const Node> node) : node_(std::move(node)) {}
  Status check_keys(const std::vector<const char*>& known) const;
  std::shared_ptr<const Node> node_;
};

}  // namespace th
