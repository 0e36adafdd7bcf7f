#!/usr/bin/env bash
# What to do with a GPU that can be had for minutes, on a machine that fetches nothing:
#   scripts/tools/gpu.sh PACKS OUT TASK=SECONDS ...
# PACKS holds TASK.npz of scripts.tools.gpu.pack, and may hold the last checkpoints, TASK.pt. In OUT come the log of the
# tests marked gpu, the tables of speed and memory (unless TABLES=0), and for each task the weights, the checkpoint that the
# next call goes on from, and the log. All tasks train at the same time, each for its seconds.
set -uo pipefail
cd "$(dirname "$0")/../.."
packs=$1 out=$2
export PYTHONUNBUFFERED=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-2}
python=${PYTHON:-python3}
mkdir -p "$out"
if [ "${TABLES:-1}" = 1 ]; then
    "$python" -m pytest -q -m gpu -p no:cacheprovider ${GPU_TESTS:-tests} >"$out/tests.txt" 2>&1
    tail -n 3 "$out/tests.txt"
    device=$("$python" -c "import torch; print('cuda' if torch.cuda.is_available() else 'cpu')")
    for table in "speed --runs ${RUNS:-9}" "memory --size ${SIZE:-64}"; do
        "$python" -W ignore -m scripts.tools.benchmark $table --device "$device" 2>&1 | tee "$out/${table%% *}.txt"
    done
fi
for argument in "${@:3}"; do
    task=${argument%=*} seconds=${argument#*=}
    mkdir -p "$out/$task"
    if [ -f "$packs/$task.pt" ]; then cp "$packs/$task.pt" "$out/$task/checkpoint.pt"; fi
    "$python" -W ignore -m scripts.tools.gpu.train "$task" --pack "$packs/$task.npz" --seconds "$seconds" \
        --output_dir "$out/$task" >"$out/$task/log.txt" 2>&1 &
done
wait
for argument in "${@:3}"; do tail -n 4 "$out/${argument%=*}/log.txt"; done
