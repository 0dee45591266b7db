#!/usr/bin/env bash
# The whole pipeline with a CUDA worker, and the golden cases on the GPU; skipped (77) where there is none.
#
#   tests/gpu/pipeline.sh BIN     BIN: the folder of barcast and its processes
set -euo pipefail
bin=$1
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if ! "$bin/barcast" verify "$root/tests/fixtures/golden" --device cuda --precision fp32 >"$work/verify" 2>&1; then
    if grep -q "does not exist\|built without" "$work/verify"; then
        echo "skipped: no CUDA device"
        exit 77
    fi
    cat "$work/verify"
    exit 1
fi
"$bin/barcast" verify "$root/tests/fixtures/golden" --device cuda --precision bf16

"$bin/barcast-demo-data" 40 400 >"$work/bars.csv"
"$bin/barcast" models create --family toto1 --size tiny --seed 1 --out "$work/tiny" >/dev/null
cat >"$work/gpu.ini" <<INI
[instance]
name = test-gpu-$$
runtime_dir = $work/run

[feed.bars]
type = csv
path = bars.csv
history_bars = 300
bars_per_second = 50

[worker]
count = 2
device = cuda

[model.toto]
path = tiny
context = 128
horizon = 24
samples = 16

[model.naive]
path = naive
context = 128
INI
"$bin/barcast" run "$work/gpu.ini" | tee "$work/summary"
grep -q "bars in: 16000 (12000 of them history), 40 symbols" "$work/summary"
forecasts=$(sed -n 's/forecasts out: \([0-9]*\) (0 failed)/\1/p' "$work/summary")
# Both models forecast every symbol's newest state at the start, and its last bar at the end.
if [ "${forecasts:-0}" -lt 160 ]; then
    echo "only ${forecasts:-0} forecasts"
    exit 1
fi
echo "passed"
