#!/usr/bin/env bash
# All that is measured on a GPU, the most telling first, each stage within its own time:
#
#     benchmarks/on_gpu.sh OUTPUT [FILE.npz SPLITS.json]
#
# 1. three steps of each method against the CPU's values
# 2. step times beside PyTorch's
# 3. with a data set that benchmarks/pack.py made: rows trained side by side on the one device,
#    as long as the time lasts; their validation scores
# 4. steps whose slices come from the host, and three seeds as one program
#
# Needs Python with JAX for the GPU, Flax, Optax, Orbax, PyTorch, and of the rest of mijax's
# packages ml_collections, nibabel, tensorboardX and surface-distance, and for what streams Grain;
# neither TFDS nor SimpleITK.
# By environment, with what it is by default:
#   STAGES="agree speed train rest"
#   SECONDS_AGREE=110  SECONDS_SPEED=240  SECONDS_TRAIN=300  SECONDS_REST=70
#   METHODS="…"  to agree on
#   SPEED_FLAGS="…"  of benchmarks.speed, such as "--size 28 --widths 4 8 --steps-per-dispatch 1" to rehearse
#   TORCH=…  a Python that has PyTorch; $PYTHON
#   ROWS="…"  one a word, METHOD or METHOD,--flag,--flag  FLAGS="…"  for all rows
set -uo pipefail
output=$(realpath -m "$1") data=${2:+$(realpath "$2")} splits=${3:+$(realpath "$3")}
cd "$(dirname "$0")/.."
mkdir -p "$output"
export PYTHONPATH=$PWD:${PYTHONPATH:-} PYTHONUNBUFFERED=1 PYTHON=${PYTHON:-python3}
: "${STAGES=agree speed train rest}"
: "${ROWS=supervised local_mi mean_teacher unimatch mixed_mi strong_mi}"
: "${FLAGS=--config.precision=bfloat16 --config.label_loss=cross_entropy+dice}"

agree() {
    nvidia-smi -L
    # shellcheck disable=SC2086
    timeout "${SECONDS_AGREE:-110}" "$PYTHON" -m benchmarks.agree ${METHODS:-}
}

speed() {
    measure speed "${SECONDS_SPEED:-240}" --runs 5 --case step --case "step, supervised" \
        --case "mutual information" --case "KL consistency" --case "warp of probabilities"
}

rest() {
    measure rest "${SECONDS_REST:-70}" --runs 3 --case "step, streamed" --case "step, three seeds"
}

measure() {
    local name=$1 seconds=$2
    shift 2
    # shellcheck disable=SC2086
    timeout "$seconds" "$PYTHON" -m benchmarks.speed --torch "${TORCH:-$PYTHON}" --gpu \
        --output "$output/$name.json" "$@" ${SPEED_FLAGS:-}
}

train() {
    [ -n "$data" ] || { echo "no data set to train on"; return; }
    export XLA_PYTHON_CLIENT_MEM_FRACTION=0.12
    local row
    for row in $ROWS; do
        # A row is METHOD,--flag,--flag; the folder is named for it.
        IFS=, read -ra parts <<< "$row"
        local folder=$output/runs/${row//[^a-z0-9_.=]/-}
        timeout --signal=TERM "${SECONDS_TRAIN:-300}" "$PYTHON" -m mijax.main \
            --config "configs/acdc.py:${parts[0]}" --workdir "$folder" --noreport \
            --config.cache="$output/cache" --config.data.source.name=arrays \
            --config.data.source.dir="$data" --config.data.splits.file="$splits" \
            $FLAGS "${parts[@]:1}" > "$output/${folder##*/}.log" 2>&1 &
    done
    wait
    for folder in "$output"/runs/*/; do
        echo "== ${folder%/}"
        tail -n 14 "$output/$(basename "$folder").log"
        grep -h validation_dsc "$folder/metrics.jsonl" | tail -n 12
    done
    tar -czf "$output/runs.tar.gz" --exclude checkpoints -C "$output" runs
}

for stage in $STAGES; do
    echo "### $stage, after $SECONDS s"
    "$stage" 2>&1 | tee "$output/$stage.txt"
done
echo "### done after $SECONDS s"
