#!/usr/bin/env bash
# Measures a model on a Jetson: each graph alone by trtexec, then the whole step by `sam2lite bench`.
#
#   scripts/bench_jetson.sh MODEL_FOLDER [OUT_FOLDER]
#
# MODEL_FOLDER is what `sam2lite export --format tensorrt` wrote. Nobody has run this on a board yet: what it prints is
# the first that is known of one.
set -euo pipefail

model=${1:?usage: scripts/bench_jetson.sh MODEL_FOLDER [OUT_FOLDER]}
out=${2:-bench_jetson}
objects=${OBJECTS:-1}
slots=${SLOTS:-256}    # the variant's memory budget: 256 tiny, 384 small, 512 base
most=${MOST:-16}       # objects that the graphs hold
trtexec=${TRTEXEC:-/usr/src/tensorrt/bin/trtexec}

[ -f "$model/step.onnx" ] || { echo "bench_jetson: $model holds no step.onnx" >&2; exit 2; }
[ -x "$trtexec" ] || { echo "bench_jetson: no trtexec at $trtexec; set TRTEXEC" >&2; exit 2; }
mkdir -p "$out"

{
  date -u
  cat /etc/nv_tegra_release 2>/dev/null || echo "no Jetson: /etc/nv_tegra_release is missing"
  nvpmodel -q 2>/dev/null || true
  jetson_clocks --show 2>/dev/null || true
} | tee "$out/machine.txt"

# Rows and columns of patches of a 480x854 camera at scales .5, .7 and 1; tokens are those of scale 1.
for size in "15 27" "21 38" "30 54"; do
  read -r rows columns <<<"$size"
  fine="${objects}x$((4 * rows))x$((4 * columns))"
  shapes="image:1x$((16 * rows))x$((16 * columns))x3,motion:1x1x${rows}x${columns},warped:1x${fine}"
  shapes+=",slots:1x${objects}x${most},token_rows:1x15x${rows},token_columns:1x27x${columns}"
  for name in key:256 value:256 "identity:$most" "known:$most" meta:9; do
    shapes+=",bank_${name%%:*}:1x${slots}x${name##*:}"
  done
  for graph in step prompt; do
    extra=
    if [ "$graph" = prompt ]; then
      extra=",prompts:1x${objects}x3x$((4 * rows))x$((4 * columns)),masks:1x${fine}"
      extra+=",mask_given:1x${objects},prompted:1x${objects}"
    fi
    "$trtexec" --onnx="$model/$graph.onnx" --stronglyTyped --shapes="$shapes$extra" \
      --useCudaGraph --useSpinWait --warmUp=500 --duration=10 --percentile=50,95,99 \
      --exportTimes="$out/$graph-${rows}x${columns}.json" | tee "$out/$graph-${rows}x${columns}.txt" |
      grep -E "Latency|GPU Compute|Throughput" || true
  done
done

sam2lite bench --backend tensorrt --model "$model" --variant "${VARIANT:-tiny}" --scales 0.5,0.7,1 \
  --objects 1,2,4,8,16 --frames 200 --json "$out/bench.json"
sam2lite bench --backend onnxruntime --model "$model" --variant "${VARIANT:-tiny}" --scales 0.5,1 \
  --objects 1 --frames 50 --json "$out/bench-cpu.json"
echo "written to $out; please send it along with the model's hash: sam2lite info --model $model"
