#!/usr/bin/env bash
# Fuzzes every target with libFuzzer under address and undefined-behaviour sanitizers. Usage: tools/fuzz.sh [SECONDS_EACH]
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
tools/install.sh clang libclang-rt-14-dev
cmake --preset fuzz >/dev/null
mapfile -t targets < <(ninja -C build/fuzz -t targets all | sed -n 's/^\(th_[a-z_]*_fuzz\): phony$/\1/p' | sort -u)
cmake --build build/fuzz -j "$(nproc)" --target "${targets[@]}"
for target in "${targets[@]}"; do
  source=$(ls src/*/*_fuzz.cc src/*/*/*_fuzz.cc 2>/dev/null | while read -r f; do
    room=$(dirname "${f#src/}"); [ "th_${room//\//_}_$(basename "$f" .cc)" = "$target" ] && echo "$f"; done)
  seeds=$(dirname "$source")/fuzz_seeds/$(basename "$source" .cc)
  corpus=build/fuzz/corpus/$target
  mkdir -p "$corpus"
  echo "== $target, $seconds s"
  build/fuzz/fuzz/"$target" -max_total_time="$seconds" -max_len=65536 -print_final_stats=0 -verbosity=0 "$corpus" $([ -d "$seeds" ] && echo "$seeds")
done
echo "${#targets[@]} passed, 0 failed"
