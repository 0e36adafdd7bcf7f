#!/usr/bin/env bash
# Remakes the shipped weights and the baselines of the README's tables, in eval/weights/NAME:
#   DATA=../shared/data models/train.sh cardiac|hippocampus|brain, or one of them followed by _voxelmorph or _published
# The same command goes on with a training that was interrupted. One CPU thread each, as measured.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
name=$1 data=${DATA:-../shared/data}
train() { # name, overlays, data set and options
    local files="'configs/train.yaml'" overlay
    for overlay in $2; do files+=",'configs/$overlay.yaml'"; done
    "${PYTHON:-python}" -W ignore -m monai.bundle run --config_file "[$files]" --dataset_dir "$3" \
        --output_dir "eval/weights/$1" --resume true "${@:4}"
}
first="eval/weights/${name}_first/model.pt" # a second training starts from the weights of a first one
cardiac=("$data/sunnybrook" --spatial_size "[128,128,-1]")
hippocampus=("$data/hippocampus" --test 40 --val_pairs 16 --val_interval 4)
brain=(eval/brains --synthesis true --test 2 --validation 2 --val_pairs 2 --val_interval 13)
# the paper's network with the loss and schedule of the others: its own 500 epochs would take days here
published=(--loss_similarity lncc --learning_rate 0.001 --final_learning_rate 0 --gradient_norm 1.0
    --augmentation true --swap_prob 0.5)
if [[ $name == brain* && ! -d eval/brains ]]; then # `pip install nilearn` for the template
    "${PYTHON:-python}" -m scripts.prepare --dataset_dir "$data/synthseg_labelmaps" --output_dir eval/brains
fi
case $name in
cardiac)
    train cardiac_first "" "${cardiac[@]}" --regularization_weight 0.03 --folding_weight 0 --max_epochs 80
    train cardiac "" "${cardiac[@]}" --initial_weights "$first" --learning_rate 0.001 --max_epochs 24 \
        --val_pairs 6 --val_interval 4
    ;;
cardiac_voxelmorph)
    train "$name" voxelmorph "${cardiac[@]}" --regularization_weight 0.03 --folding_weight 0 --max_epochs 80
    ;;
cardiac_published)
    train "$name" published "${cardiac[@]}" "${published[@]}" --regularization_weight 0.03 --batch_size 8 --max_epochs 20
    ;;
hippocampus)
    train hippocampus_first hippocampus "${hippocampus[@]}" --network_def#num_repeats "[4,0]" --max_epochs 24
    train hippocampus hippocampus "${hippocampus[@]}" --initial_weights "$first" --max_epochs 16 \
        --learning_rate 0.002 --regularization_weight 0.08 --folding_weight 50
    ;;
hippocampus_voxelmorph) # without labels
    train "$name" "hippocampus voxelmorph" "${hippocampus[@]}" --label_weight 0 --regularization_weight 0.1 \
        --folding_weight 0 --max_epochs 20
    ;;
hippocampus_published)
    train "$name" "hippocampus published" "${hippocampus[@]}" "${published[@]}" --batch_size 2 --max_epochs 8
    ;;
brain) train brain brain "${brain[@]}" --max_epochs 13 ;;
brain_voxelmorph) train "$name" "brain voxelmorph" "${brain[@]}" --max_epochs 13 ;;
brain_published) train "$name" "brain published" "${brain[@]}" "${published[@]}" --batch_size 2 --max_epochs 4 ;;
*) echo "unknown name '$name'" >&2 && exit 1 ;;
esac
