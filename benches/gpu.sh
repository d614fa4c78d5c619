#!/usr/bin/env bash
# Bits and times on a machine with a GPU, as JSON, in at most 10 minutes. Without a GPU it runs the CPU's part and says so.
#   NEURARCH_NVRTC=…/libnvrtc.so.13 benches/gpu.sh [FOLDER]
# NEURARCH_GPU_PROGRAM names the example `gpu` built elsewhere; without it cargo builds it.
# With compute-sanitizer in the path, memcheck and racecheck look at the comparison of bits.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-$(mktemp -d)}
mkdir -p "$out"
program=${NEURARCH_GPU_PROGRAM:-target/release/examples/gpu}
if [ ! -x "$program" ]; then
    cargo build --release -p neurarch_cuda --features driver --example gpu || exit 1
fi
command -v nvidia-smi >/dev/null && nvidia-smi >"$out/nvidia-smi.txt"
timeout 240 "$program" --json >"$out/gpu.json" 2>"$out/gpu.log"
result=$?
cat "$out/gpu.json" "$out/gpu.log"
if command -v compute-sanitizer >/dev/null && command -v nvidia-smi >/dev/null; then
    for tool in memcheck racecheck; do
        timeout 150 compute-sanitizer --tool "$tool" --error-exitcode 9 "$program" --bits --json >"$out/$tool.txt" 2>&1
        code=$?
        echo "compute-sanitizer $tool: exit status $code"
        [ $code -eq 0 ] || result=$code
    done
else
    echo "compute-sanitizer: not run"
fi
exit $result
