#!/usr/bin/env bash
# What a change of CUDA code has to show, in one call on a machine with a GPU: tests, golden cases, speed, precision. About four minutes on an
# H200; the longest part is the making of full-size checkpoints.
#
#   tests/gpu/show.sh RUN [GOLDENS] [BARS]     RUN: .gpu/run of tools/gpu-pack, or env on a machine that has everything and bin in its PATH;
#                                              GOLDENS: a folder of golden cases (default: tests/fixtures/golden); BARS: a folder of CSV bars
#
# Every part goes on after a failure of the one before; the exit code counts what failed.
set -uo pipefail
run=$(command -v "${1:?usage: tests/gpu/show.sh RUN [GOLDENS] [BARS]}") && run=$(realpath "$run")
root=$(cd "$(dirname "$0")/../.." && pwd)
goldens=$(realpath "${2:-$root/tests/fixtures/golden}")
bars=${3:+$(realpath "$3")}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

part() { printf '\n== %s (%d s)\n' "$*" "$SECONDS"; }
fail() { failed=$((failed + 1)); }

part "full-size random checkpoints"
"$run" true
for model in toto1:base toto2:22m chronos2:120m chronos_bolt:base sundial:base kronos:small kronos:base; do
    "$run" barcast models create --family "${model%:*}" --size "${model#*:}" --out "$work/$model" &
done
wait

cd "$work" || exit
bench() { # MODEL OPTION...
    printf '%s\n' "$1"
    timeout 90 "$run" barcast bench engine --model "$1" --device cuda --precision bf16 --seconds 0.4 "${@:2}" | tail -n +7 || fail
}
part "speed, bf16"
bench toto1:base --batch 1,64 --horizon 64,336
bench toto1:base --batch 512 --horizon 64 --samples 0,256
bench toto2:22m --batch 1,512 --context 512 --horizon 96
bench chronos2:120m --batch 1,512 --context 2048 --horizon 64
bench chronos_bolt:base --batch 1,512 --context 512 --horizon 64
bench sundial:base --batch 1 --context 2880 --horizon 96 --samples 20
bench kronos:base --batch 1 --context 256 --horizon 24 --samples 1
bench kronos:small --batch 1 --context 400 --horizon 120 --samples 10
bench kronos:base --batch 16 --context 400 --horizon 120 --samples 1
bench default --batch 1,512 --horizon 24 --samples 0

part "tests"
if [ "$(basename "$run")" = run ]; then
    "$run" || fail
fi

part "golden cases"
"$run" barcast verify --device cuda --precision fp32 "$goldens" | tail -n 1 || fail
"$run" barcast verify --device cuda --precision bf16 "$goldens" | tail -n 1 # its bound is wide, and random models are unkind: to be read, not counted

if [ -n "$bars" ]; then
    part "what bf16 costs"
    "$run" barcast backtest "$bars"/*.csv --device cuda --compare fp32,bf16 --stride 5 || fail
fi
part "end: $failed failed"
exit "$failed"
