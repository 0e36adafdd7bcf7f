#!/usr/bin/env bash
# Trains the shipped weights and the baselines of docs/results.md again, in eval/weights/NAME:
#   DATA=../shared/data models/train.sh cardiac|hippocampus|brain, or one of them followed by _voxelmorph or _published
# The same command continues a training that was interrupted. Each training takes one CPU thread, as measured.
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
brain=(eval/brains --synthesis true --test 2 --validation 2 --val_pairs 2 --val_interval 8)
# the paper's network with the loss and schedule of the others: its own 500 epochs would take days here
published=(--loss_similarity lncc --learning_rate 0.001 --final_learning_rate 0 --gradient_norm 1.0
    --augmentation true --swap_prob 0.5)
if [[ $name == brain* && ! -d eval/brains ]]; then # `pip install nilearn` for the template
    "${PYTHON:-python}" -m scripts.prepare --dataset_dir "$data/synthseg_labelmaps" --output_dir eval/brains
fi
case $name in
cardiac) # one block at half resolution, applied three times, then split into three
    one=(--network_def#num_blocks "[1,1,1,0]" --network_def#num_repeats "[3,3,3,0]" --network_def#ddf_smoothing 0)
    from() { printf -- '--initial_weights eval/weights/cardiac_%s/model.pt --val_pairs 6 --val_interval %s' "$1" "${2:-4}"; }
    train cardiac_1 "" "${cardiac[@]}" "${one[@]}" --max_epochs 80 \
        --regularization_weight 0.03 --folding_weight 0 --learning_rate 0.002
    train cardiac_2 "" "${cardiac[@]}" "${one[@]}" --max_epochs 24 $(from 1) \
        --regularization_weight 0.02 --folding_weight 10 --learning_rate 0.001
    mkdir -p eval/weights/cardiac_split
    "${PYTHON:-python}" -c "
import torch
weights = torch.load('eval/weights/cardiac_2/model.pt')
split = lambda key: [key.replace('levels.2.0', f'levels.2.{i}') for i in range(3 if 'levels.2.' in key else 1)]
weights = {new: value for key, value in weights.items() for new in split(key)}
weights['levels.3.0.step_size'] = torch.tensor(0.15) # of the refinement: a tenth of tau
torch.save(weights, 'eval/weights/cardiac_split/model.pt')"
    train cardiac_3 "" "${cardiac[@]}" --max_epochs 30 $(from split) --learning_rate 0.0015 --label_weight 0.5
    last=(--learning_rate 0.0015 --label_weight 1 --zoom 0.3 --gamma "[0.5,2.0]")
    train cardiac_4 "" "${cardiac[@]}" --max_epochs 32 $(from 3) "${last[@]}"
    train cardiac_5 "" "${cardiac[@]}" --max_epochs 20 $(from 4) "${last[@]}"
    last+=(--elastic 0.15)
    train cardiac_6 "" "${cardiac[@]}" --max_epochs 40 $(from 5 10) "${last[@]}"
    train cardiac_7 "" "${cardiac[@]}" --max_epochs 50 $(from 6 10) "${last[@]}" --motion 0.06
    mkdir -p eval/weights/cardiac # the mean of the last two
    "${PYTHON:-python}" -c "
import torch
first, second = (torch.load(f'eval/weights/cardiac_{n}/model.pt') for n in (6, 7))
torch.save({key: (first[key] + second[key]) / 2 for key in first}, 'eval/weights/cardiac/model.pt')"
    ;;
cardiac_gpu) # from the weights of `cardiac`, in both directions, 125 seconds on a GPU; the mean of both is shipped
    first=eval/weights/cardiac/model.pt
    "${PYTHON:-python}" -m scripts.tools.gpu.pack cardiac --dataset_dir "$data/sunnybrook" --output eval/packs/cardiac.npz
    mkdir -p eval/weights/cardiac_gpu
    echo "initial_weights: $first" >eval/weights/cardiac_gpu/start.yaml
    "${PYTHON:-python}" -W ignore -m scripts.tools.gpu.train cardiac --pack eval/packs/cardiac.npz --seconds 125 \
        --output_dir eval/weights/cardiac_gpu --override scripts/tools/gpu/cardiac.yaml eval/weights/cardiac_gpu/start.yaml
    "${PYTHON:-python}" -c "
import torch
first, second = (torch.load(path) for path in ('$first', 'eval/weights/cardiac_gpu/model.pt'))
torch.save({key: (first[key] + second[key]) / 2 for key in first}, 'eval/weights/cardiac_gpu/mean.pt')"
    ;;
cardiac_voxelmorph)
    train "$name" voxelmorph "${cardiac[@]}" --max_epochs 80 \
        --regularization_weight 0.03 --folding_weight 0
    ;;
cardiac_published)
    train "$name" published "${cardiac[@]}" "${published[@]}" --batch_size 8 --max_epochs 20
    ;;
hippocampus) # with smaller features; then features of their own, and all of it again
    small=(--taus 4.0 --network_def#features#channels "[16,32,32]" --network_def#features#residual_units 0
        --network_def#step#1#smoothing 1.5 --network_def#ddf_smoothing 0.5)
    train hippocampus_first hippocampus "${hippocampus[@]}" "${small[@]}" --max_epochs 24
    train hippocampus_second hippocampus "${hippocampus[@]}" "${small[@]}" --initial_weights "$first" --max_epochs 16 \
        --refine_steps 1 --learning_rate 0.002 --regularization_weight 0.08 --folding_weight 50
    recipe=scripts/tools/gpu/hippocampus_cpu.yaml out=eval/weights/hippocampus
    mkdir -p $out
    [[ -f $out/start.pt ]] || "${PYTHON:-python}" -c "
import torch
from pathlib import Path
from scripts.tools.gpu.tasks import read_config
weights = read_config('hippocampus', [Path('$recipe')]).get_parsed_content('network').state_dict()
trained = torch.load('eval/weights/hippocampus_second/model.pt')
weights |= {key: value for key, value in trained.items() if key.startswith('levels.0')}
torch.save(weights, '$out/start.pt')"
    echo "initial_weights: $out/start.pt" >$out/start.yaml
    "${PYTHON:-python}" -m scripts.tools.gpu.pack hippocampus --dataset_dir "$data/hippocampus" --output eval/packs/hippocampus.npz
    "${PYTHON:-python}" -W ignore -m scripts.tools.gpu.train hippocampus --pack eval/packs/hippocampus.npz --seconds 8000 \
        --output_dir $out --override $recipe $out/start.yaml
    "${PYTHON:-python}" -c "
import torch
weights = torch.load('$out/model.pt')
weights['levels.1.0.step_size'] = torch.tensor(0.15) # a tenth of tau
torch.save(weights, '$out/model.pt')"
    ;;
hippocampus_voxelmorph) # without labels
    train "$name" "hippocampus voxelmorph" "${hippocampus[@]}" --label_weight 0 --regularization_weight 0.1 \
        --folding_weight 0 --max_epochs 20
    ;;
hippocampus_published)
    train "$name" "hippocampus published" "${hippocampus[@]}" "${published[@]}" --batch_size 2 --max_epochs 8
    ;;
brain) train brain brain "${brain[@]}" --max_epochs 8 ;;
brain_voxelmorph) train "$name" "brain voxelmorph" "${brain[@]}" --max_epochs 8 ;;
brain_published) train "$name" "brain published" "${brain[@]}" "${published[@]}" --batch_size 2 --max_epochs 4 ;;
*) echo "unknown name '$name'" >&2 && exit 1 ;;
esac
