// Reads sbatch's options as words of a command line and as lines of a script.

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/text.h"
#include "request/sbatch.h"
#include "request/sbatch_forms.h"

namespace th::request {
namespace {

tl::unexpected<Error> bad(std::string text) { return fail(Code::kInvalidArgument, std::move(text)); }

/// Reads words one after the other.
class Words {
 public:
  Words(std::span<const std::string> words, std::string_view where) : words_(words), where_(where) {}

  Result<SbatchWords> read() {
    while (at_ < words_.size()) {
      const std::string& word = words_[at_];
      if (word == "--") {
        ++at_;
        break;
      }
      if (word.size() < 2 || word[0] != '-') break;
      ++at_;
      TH_RETURN_IF_ERROR(word[1] == '-' ? read_long(word) : read_short(word));
    }
    out_.rest.assign(words_.begin() + static_cast<std::ptrdiff_t>(at_), words_.end());
    return std::move(out_);
  }

 private:
  Status read_long(const std::string& word) {
    const size_t equals = word.find('=');
    const std::string name = word.substr(2, equals == std::string::npos ? equals : equals - 2);
    const auto forms = option_forms();
    const auto option =
        std::ranges::find(forms, name, [](const OptionForm& f) { return std::string(f.name); });
    if (option == forms.end()) return unknown_option(where_, "--" + name);
    if (equals == std::string::npos) return add(*option, "--" + name, std::nullopt);
    if (option->value == Value::kNone) return bad(fmt::format("{}--{}: takes no value", where_, name));
    return add(*option, "--" + name, word.substr(equals + 1));
  }

  /// "-N2", "-N 2", "-QW".
  Status read_short(const std::string& word) {
    for (size_t i = 1; i < word.size(); ++i) {
      const std::string shown{'-', word[i]};
      const auto forms = option_forms();
      const auto option = std::ranges::find_if(
          forms, [&](const OptionForm& f) { return f.letter != 0 && f.letter == word[i]; });
      if (option == forms.end()) return unknown_option(where_, shown);
      if (option->value == Value::kNone) {
        TH_RETURN_IF_ERROR(add(*option, shown, std::nullopt));
        continue;
      }
      return add(*option, shown, i + 1 < word.size() ? std::optional(word.substr(i + 1)) : std::nullopt);
    }
    return {};
  }

  Status add(const OptionForm& option, const std::string& shown, std::optional<std::string> value) {
    if (!value && option.value == Value::kWanted) {
      if (at_ == words_.size()) return bad(fmt::format("{}{}: its value is missing", where_, shown));
      value = words_[at_++];
    }
    out_.options.push_back({option.name, value.value_or(""), std::string(where_)});
    return {};
  }

  std::span<const std::string> words_;
  std::string_view where_;
  size_t at_ = 0;
  SbatchWords out_;
};

/// The words of one #SBATCH line.
Result<std::vector<std::string>> words_of_line(std::string_view line, std::string_view where) {
  std::vector<std::string> out;
  std::string word;
  bool in_word = false;
  char quote = '\0';
  for (size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    const bool blank = c == ' ' || c == '\t' || c == '\r';
    if (c == '\\' && i + 1 < line.size()) {
      word += line[++i], in_word = true;
    } else if (quote != '\0') {
      if (c == quote) {
        quote = '\0';
      } else {
        word += c;
      }
    } else if (c == '"' || c == '\'') {
      quote = c, in_word = true;
    } else if (c == '#') {
      break;
    } else if (!blank) {
      word += c, in_word = true;
    } else if (in_word) {
      out.push_back(std::exchange(word, {})), in_word = false;
    }
  }
  if (quote != '\0') return bad(fmt::format("{}a {} has no end", where, quote));
  if (in_word) out.push_back(std::move(word));
  return out;
}

}  // namespace

tl::unexpected<Error> unknown_option(std::string_view where, std::string_view word) {
  std::vector<std::string> names;
  for (const OptionForm& form : option_forms()) names.push_back(fmt::format("--{}", form.name));
  return bad(fmt::format("{}{}: unknown option{}", where, word.substr(0, 80), did_you_mean(word, names)));
}

Result<SbatchWords> read_sbatch_words(std::span<const std::string> words, std::string_view where) {
  return Words(words, where).read();
}

Result<std::vector<SbatchOption>> read_sbatch_script(std::string_view text, std::string_view file) {
  if (!text.starts_with("#!")) {
    return bad(
        fmt::format("{}:1: this is no batch script: its first line has to be '#!' and an interpreter", file));
  }
  std::vector<SbatchOption> out;
  size_t begin = 0;
  for (int number = 1; begin < text.size(); ++number) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = text.substr(begin, end - begin);
    begin = end + 1;
    const size_t first = line.find_first_not_of(" \t\r");
    if (first == std::string_view::npos) continue;
    if (line[first] != '#') break;
    if (!line.starts_with("#SBATCH") ||
        (line.size() > 7 && line[7] != ' ' && line[7] != '\t' && line[7] != '\r'))
      continue;
    const std::string where = fmt::format("{}:{}: ", file, number);
    TH_TRY(auto words, words_of_line(line.substr(7), where));
    TH_TRY(SbatchWords read, read_sbatch_words(words, where));
    if (!read.rest.empty()) {
      return bad(
          fmt::format("{}'{}' is no option: options begin with '-'", where, read.rest[0].substr(0, 80)));
    }
    out.insert(out.end(), read.options.begin(), read.options.end());
  }
  return out;
}

}  // namespace th::request
