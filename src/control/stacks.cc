#include "control/stacks.h"

#include <fmt/format.h>
#include <string.h>

#include <algorithm>

#include "base/text.h"
#include "control/batch.h"

namespace th::control {
namespace {

constexpr const char* kFile = "stack.yaml";

/// `fail WHY`: one line of JSON for the controller, in plain letters.
constexpr std::string_view kPrologue = R"(
fail() {
  why=$(printf %s "$*" | tr -c 'A-Za-z0-9 .,:;@/_()+=-' ' ' | tail -c 500)
  printf '{"event":"check","reason":"%s"}\n' "$why" >> "$TH_METRICS"
  exit 1
}
)";

/// What an image says that it holds; one that says nothing is taken at its packages.
constexpr std::string_view kImage = R"(
file=/etc/thunderhead/stack.json
if [ -e $file ]; then
  field() { sed -n "s/.*\"$1\" *: *\"\([^\"]*\)\".*/\1/p" $file | head -n 1; }
  have=$(field name)@$(field version)
  [ "$have" = "$want" ] || fail "its image holds $have"
fi
)";

constexpr std::string_view kPackages = R"(
if command -v dpkg-query > /dev/null; then
  for package in $packages; do
    dpkg-query -W -f '${db:Status-Status}\n' $package 2> /dev/null | grep -qx installed || missing="$missing $package"
  done
  [ -z "$missing" ] || fail "packages are missing:$missing; apt-get install them in its image"
fi
for program in $programs; do
  command -v $program > /dev/null || fail "program $program is missing"
done
)";

/// Fields of nvidia-smi --help-query-gpu; Xid errors after which NVIDIA's catalogue wants the GPU reset or
/// replaced (docs.nvidia.com/deploy/xid-errors).
constexpr std::string_view kNvidia = R"(
if command -v nvidia-smi > /dev/null; then
  query() { nvidia-smi --query-gpu="$1" --format=csv,noheader; }
  count=$(query index | wc -l)
  [ "$count" -eq "$gpus" ] || fail "nvidia-smi shows $count GPUs, want $gpus"
  ecc=$(query index,ecc.errors.uncorrected.volatile.total | awk -F', *' '$2 ~ /^[0-9]+$/ && $2 > 0 { printf " GPU %s: %s", $1, $2 }')
  [ -z "$ecc" ] || fail "uncorrected ECC errors:$ecc"
  xid=$(dmesg 2> /dev/null | grep -oE 'NVRM: Xid \([^)]*\): (48|63|64|74|79|94|95|119|120),.*' | tail -n 1)
  [ -z "$xid" ] || fail "the kernel logged $xid"
  down=$(nvidia-smi nvlink --status 2> /dev/null | grep -ci inactive)
  [ "$down" -eq 0 ] || fail "$down NVLinks are inactive"
fi
)";

constexpr std::string_view kValidate = R"(
out=$(sh -c "$validate" 2>&1) || fail "its validation command failed: $out"
)";

/// It was checked when it came in.
registry::Stack sound(std::string_view yaml) {
  auto stack = registry::parse_stack(yaml, kFile);
  TH_CHECK(stack.has_value());
  return *std::move(stack);
}

}  // namespace

std::vector<registry::Stack> all_stacks(const ledger::State& state) {
  static const std::vector<registry::Stack> shipped = [] {
    std::vector<registry::Stack> out;
    for (const std::string_view yaml : registry::shipped_stacks()) out.push_back(sound(yaml));
    return out;
  }();
  std::vector<registry::Stack> out = shipped;
  for (const auto& [id, yaml] : state.stacks) out.push_back(sound(yaml));
  std::ranges::sort(out, [](const registry::Stack& a, const registry::Stack& b) {
    return a.name != b.name ? a.name < b.name : strverscmp(a.version.c_str(), b.version.c_str()) < 0;
  });
  return out;
}

Result<registry::Stack> find_stack(const ledger::State& state, const std::string& name) {
  const std::string wanted = name.empty() ? registry::kBaseStack : name;
  auto all = all_stacks(state);
  const auto found = std::find_if(all.rbegin(), all.rend(), [&](const registry::Stack& stack) {
    return stack.name == wanted || stack.id() == wanted;
  });
  if (found != all.rend()) return std::move(*found);
  std::vector<std::string> ids;
  for (const registry::Stack& stack : all) ids.push_back(stack.id());
  return fail(Code::kNotFound,
              fmt::format("stack '{}' does not exist; there are {}; th stack add FILE adds one", wanted,
                          join(ids, ", ")));
}

Result<registry::Stack> add_stack(Core& core, const std::string& yaml) {
  TH_TRY(registry::Stack stack, registry::parse_stack(yaml, kFile));
  const auto added = core.state().stacks.find(stack.id());
  if (added != core.state().stacks.end() && added->second == yaml) return stack;
  for (const registry::Stack& other : all_stacks(core.state())) {
    if (other.id() == stack.id())
      return fail(Code::kAlreadyExists,
                  fmt::format("stack '{}' exists with another content; give the new one another version",
                              stack.id()));
  }
  core.stage(ledger::StackAdded{stack.name, stack.version, yaml});
  return stack;
}

std::string check_script(const registry::Stack& stack, int64_t nvidia_gpus) {
  std::string out;
  if (stack.name != registry::kBaseStack) out += fmt::format("want={}{}", quoted(stack.id()), kImage);
  if (!stack.packages.empty() || !stack.programs.empty()) {
    out += fmt::format("missing=\npackages={}\nprograms={}{}", quoted(join(stack.packages, " ")),
                       quoted(join(stack.programs, " ")), kPackages);
  }
  if (nvidia_gpus > 0) out += fmt::format("gpus={}{}", nvidia_gpus, kNvidia);
  if (!stack.validate.empty()) out += fmt::format("validate={}{}", quoted(stack.validate), kValidate);
  return out.empty() ? out : std::string(kPrologue) + out;
}

}  // namespace th::control
