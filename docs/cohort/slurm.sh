#!/bin/bash
# sbatch --array=1-100 docs/cohort/slurm.sh PAIRS.json OUT [OPTIONS of inference.yaml]
# from the folder of the bundle. Again the same command: what is finished is skipped.
#SBATCH --job-name=gradirn
#SBATCH --cpus-per-task=1
#SBATCH --mem=4G
#SBATCH --time=04:00:00
set -euo pipefail
pairs=$1 out=$2
shift 2
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
exec "${PYTHON:-python}" -W ignore -m monai.bundle run --config_file "${CONFIG:-configs/inference.yaml}" \
    --datalist "$pairs" --output_dir "$out" --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" "$@"
