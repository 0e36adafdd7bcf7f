#!/usr/bin/env bash
# Remakes the shipped weights and the baselines of the README's tables, in eval/weights/NAME:
#   DATA=../shared/data models/train.sh cardiac|hippocampus|brain|cardiac_voxelmorph|hippocampus_voxelmorph
# The same command goes on with a training that was interrupted. One CPU thread each, as measured.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
name=$1 data=${DATA:-../shared/data}
train() { # overlays, data set, options
    local files="'configs/train.yaml'" overlay
    for overlay in $1; do files+=",'configs/$overlay.yaml'"; done
    "${PYTHON:-python}" -W ignore -m monai.bundle run --config_file "[$files]" --dataset_dir "$2" \
        --output_dir "eval/weights/$name" --resume true "${@:3}"
}
cardiac=(--spatial_size "[128,128,-1]" --max_epochs 80)
hippocampus=(--test 40 --max_epochs 20)
case $name in
brain) # the label maps are aligned to MNI152 first, which needs `pip install nilearn`; the last two are shipped samples
    "${PYTHON:-python}" -m scripts.prepare --dataset_dir "$data/synthseg_labelmaps" --output_dir eval/brains
    train brain eval/brains --synthesis true --test 2 --validation 2 --max_epochs 14
    ;;
cardiac) train "" "$data/sunnybrook" "${cardiac[@]}" ;;
cardiac_voxelmorph) train voxelmorph "$data/sunnybrook" "${cardiac[@]}" ;;
hippocampus) train hippocampus "$data/hippocampus" "${hippocampus[@]}" ;;
hippocampus_voxelmorph) train "hippocampus voxelmorph" "$data/hippocampus" "${hippocampus[@]}" ;;
*) echo "unknown name '$name'" >&2 && exit 1 ;;
esac
