#!/usr/bin/env bash
# Fuzzes every target (or those named), as many at once as there are cores, with libFuzzer under address and undefined-behaviour
# sanitizers. Usage: tools/fuzz.sh [SECONDS_EACH [TARGET...]]   Example: tools/fuzz.sh 10 th_http_wire_fuzz
set -euo pipefail
cd "$(dirname "$0")/.."
export seconds=${1:-60}
targets=("${@:2}")
tools/install.sh clang-16 libclang-rt-16-dev libomp-16-dev  # older ones do not take std::ranges of this library
cmake --preset fuzz >/dev/null
if [ ${#targets[@]} = 0 ]; then
  mapfile -t targets < <(ninja -C build/fuzz -t targets all | sed -n 's/^\(th_[a-z_]*_fuzz\): phony$/\1/p' | sort -u)
fi
cmake --build build/fuzz -j "$(nproc)" --target "${targets[@]}"

fuzz() {
  local target=$1 source seeds corpus=build/fuzz/corpus/$1
  source=$(ls src/*/*_fuzz.cc src/*/*/*_fuzz.cc | while read -r f; do
    room=$(dirname "${f#src/}"); if [ "th_${room//\//_}_$(basename "$f" .cc)" = "$target" ]; then echo "$f"; fi; done)
  seeds=$(dirname "$source")/fuzz_seeds/$(basename "$source" .cc)
  mkdir -p "$corpus"
  build/fuzz/fuzz/"$target" -max_total_time="$seconds" -max_len=65536 -print_final_stats=0 -verbosity=0 "$corpus" $([ -d "$seeds" ] && echo "$seeds")
  echo "$target: $seconds s, no fault"
}
export -f fuzz
printf '%s\n' "${targets[@]}" | xargs -P "$(nproc)" -I{} bash -euo pipefail -c 'fuzz {}'
echo "${#targets[@]} passed, 0 failed"
