#include "registry/stack.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/config.h"
#include "base/text.h"

namespace th::registry {
namespace {

constexpr std::string_view kBase = R"(name: base
version: "1"
about: a node as its cloud makes it
)";

constexpr std::string_view kTrain = R"(name: train
version: "1"
about: the training engine
programs: [th-train]
environment: {OMP_PROC_BIND: "false"}
validate: th-train --help
)";

constexpr std::string_view kServe = R"(name: serve
version: "1"
about: the inference engine
programs: [th-serve]
validate: th-serve --help
)";

constexpr std::string_view kHpc = R"(name: hpc
version: "1"
about: Open MPI, OpenBLAS and High-Performance Linpack
packages: [openmpi-bin, libopenblas0-pthread, hpcc]
programs: [mpirun, hpcc]
environment: {OMPI_MCA_btl: "self,tcp"}
validate: mpirun --version
)";

constexpr std::array kShipped = {kBase, kTrain, kServe, kHpc};

constexpr size_t kMaxEntries = 1000;
constexpr size_t kMaxCommandBytes = 16 << 10;

/// They stand in a shell command.
bool is_plain(std::string_view name) {
  return !name.empty() && name.size() <= 128 && name.front() != '-' &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-._:") ==
             std::string_view::npos;
}

Result<std::vector<std::string>> plain_names(const Config& config, const char* key) {
  TH_TRY(auto names, config.strings(key));
  if (names.size() > kMaxEntries) return config.bad(key, fmt::format("want at most {}", kMaxEntries));
  for (const std::string& name : names) {
    if (!is_plain(name))
      return config.bad(key,
                        fmt::format("'{}': want letters, digits and any of + - . _ :", name.substr(0, 80)));
  }
  return names;
}

Result<std::map<std::string, std::string>> text_map(const Config& config, const char* key) {
  TH_TRY(auto entries, config.string_map(key));
  if (entries.size() > kMaxEntries) return config.bad(key, fmt::format("want at most {}", kMaxEntries));
  for (const auto& [name, value] : entries) {
    const bool good = !name.empty() && name.find_first_of(std::string_view("=\0", 2)) == name.npos &&
                      value.find('\0') == value.npos;
    if (!good) return config.bad(key, fmt::format("'{}' is no name for this", name.substr(0, 80)));
  }
  return std::map<std::string, std::string>(entries.begin(), entries.end());
}

Result<std::string> name_at(const Config& config, const char* key) {
  TH_TRY(const std::string name, config.string(key));
  if (Status good = check_name(name, key); !good) return config.bad(key, good.error().message);
  return name;
}

}  // namespace

Result<Stack> parse_stack(std::string_view yaml, std::string_view file) {
  TH_TRY(const Config config, Config::parse(yaml, file,
                                            {"name", "version", "about", "images", "packages", "programs",
                                             "environment", "validate"}));
  Stack stack;
  TH_TRY(stack.name, name_at(config, "name"));
  TH_TRY(stack.version, name_at(config, "version"));
  TH_TRY(stack.about, config.string("about", ""));
  TH_TRY(stack.images, text_map(config, "images"));
  TH_TRY(stack.packages, plain_names(config, "packages"));
  TH_TRY(stack.programs, plain_names(config, "programs"));
  TH_TRY(stack.environment, text_map(config, "environment"));
  TH_TRY(stack.validate, config.string("validate", ""));
  if (stack.validate.size() > kMaxCommandBytes || stack.validate.find('\0') != std::string::npos)
    return config.bad("validate", "want a command of at most 16 KiB");
  return stack;
}

std::span<const std::string_view> shipped_stacks() { return kShipped; }

}  // namespace th::registry
