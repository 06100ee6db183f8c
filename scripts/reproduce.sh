#!/usr/bin/env bash
# Set up and run everything that the data in this repository allow, up to the comparison with the paper.
#
#   bash scripts/reproduce.sh          in minutes
#   bash scripts/reproduce.sh --full   the paper's scale on the paper's data
#
# Whatever is there already is not done again; a run that was stopped goes on.
set -euo pipefail

full=
for argument in "$@"; do
    case $argument in
    --full) full=1 ;;
    *) echo "error: unknown argument $argument: give --full or nothing" >&2 && exit 2 ;;
    esac
done

if [ "$full" ]; then
    cat <<'TEXT'
--full: XGBoost on German Credit is at the paper's scale in either case (10 runs, 3,010 trainings). This adds the study
of what its curves depend on (16 protocols of 10 runs). Needs: 2 cores, 3 GB of memory, no download but the packages.
Takes: about 4 minutes on 2 cores, after the set-up.
TEXT
fi

source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
python=.venv/bin/python
base=models/Xgboost/saved_models/base
step() { printf '\n== %s (%d s)\n' "$*" "$SECONDS"; }

step "XGBoost on German Credit: train"
[ -e $base/model/saved_outputs.npz ] || $python models/Xgboost/train.py

step "XGBoost: weights"
$python explainer/calculate_ours_weights.py --model Xgboost
$python explainer/calculate_ours_weights.py --model Xgboost --lr 1e-4
$python explainer/calculate_influence.py --model Xgboost
$python explainer/calculate_representer_weights.py --model Xgboost

step "XGBoost: label flips, 10 runs"
$python dataset_debugging/experiment_dataset_debugging_Xgboost.py --num_of_run 10 --flip_portion 0.3

if [ "$full" ]; then
    step "XGBoost: what the curves depend on"
    $python scripts/xgboost_sensitivity.py
fi

step "notebooks"
for notebook in dataset_debugging/plot_res_xgboost.ipynb models/Xgboost/experiments/*.ipynb; do
    .venv/bin/jupyter nbconvert --to notebook --execute --inplace --log-level ERROR \
        --ExecutePreprocessor.record_timing=False "$notebook" 2>&1 | { grep -v 'Kernel is running over TCP' || true; }
    echo "executed: $notebook"
done

step "comparison with the paper"
$python scripts/compare_with_paper.py
step "done: dataset_debugging/figs/xgboost.png, dataset_debugging/REPRODUCTION.md and the notebooks are new"
