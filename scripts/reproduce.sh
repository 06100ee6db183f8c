#!/usr/bin/env bash
# Set up and run everything that the data in this repository allow, up to the comparison with the paper.
#
#   bash scripts/reproduce.sh          in minutes
#   bash scripts/reproduce.sh --full   the paper's scale on the paper's data
#
# Whatever is trained already is not trained again; a run that was stopped goes on.
set -euo pipefail

full=
for argument in "$@"; do
    case $argument in
    --full) full=1 ;;
    --help | -h) sed -n '2,7s/^# \{0,1\}//p' "$0" && exit ;;
    *) echo "error: unknown argument $argument: give --full or nothing" >&2 && exit 2 ;;
    esac
done

source "$(dirname "${BASH_SOURCE[0]}")/supervised.sh"
if [ "$full" ]; then
    cat <<'TEXT'
--full: XGBoost on German Credit is at the paper's scale in either case (10 runs, 3,010 trainings). This adds
- the study of what its curves depend on (16 protocols of 10 runs): 4 minutes on 2 cores, 3 GB of memory;
- ResNet-20 on CIFAR-10, both experiments, 10 runs each: 660 trainings of 300,000 images. Needs CIFAR-10 below
  RPS_LJE_DATA (or data/), else it is downloaded: 170 MB. Two cores train about 500 images per second: 4 to 5 days.
- the LSTM on IMDB: one training of 10 epochs, and the identified shares of 5 runs, 5 trainings of 20 epochs of 17,500
  reviews. Needs IMDB and GloVe there, else they are downloaded: 84 and 862 MB. Two cores train about 45 reviews per
  second: 12 hours. The refits are left to a GPU (480 more trainings): the README's command without --until.
  It goes on where it was stopped.
TEXT
fi

source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
python=.venv/bin/python
root=${RPS_LJE_ROOT:-.} # where results go
trained() { [ -e "$root/models/$1/model/saved_outputs.npz" ]; }
step() { printf '\n== %s (%d s)\n' "$*" "$SECONDS"; }

step "XGBoost on German Credit: train"
trained Xgboost/saved_models/base || $python models/Xgboost/train.py

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

digits="--dataset digits --weights carried"
step "ResNet-20 on handwritten digits, two classes: train"
trained CNN/saved_models/digits ||
    $python models/CNN/train.py $digits --epochs 5 --batch_size 32 --saved_path saved_models/digits

step "ResNet-20: weights"
for command in calculate_ours_weights calculate_influence calculate_representer_weights; do
    $python explainer/$command.py --model CNN --saved_path ../models/CNN/saved_models/digits
done

step "ResNet-20 on digits: label flips at a small scale"
$python dataset_debugging/experiment_dataset_debugging_cnn.py $digits --num_of_run 2 --epochs 10 --batch_size 32 \
    --retrain_epochs 4 --retrain_lr 0.01 --path ../models/CNN/saved_models/experiment_dataset_debugging_digits
$python dataset_debugging/memorization.py --path ../models/CNN/saved_models/experiment_dataset_debugging_digits

snippets="--dataset snippets --use_pretrained False"
step "LSTM on snippets of film reviews: train"
trained RNN/saved_models/snippets ||
    $python models/RNN/train.py $snippets --hidden_dim 64 --lr 3e-3 --epochs 6 --saved_path saved_models/snippets

step "LSTM: weights, and a sentence"
for command in calculate_ours_weights calculate_influence calculate_representer_weights; do
    $python explainer/$command.py --model RNN --saved_path ../models/RNN/saved_models/snippets
done
$python models/RNN/predict.py "A brilliant, moving film with superb acting." --saved_path saved_models/snippets

step "LSTM on snippets: label flips at a small scale"
$python dataset_debugging/experiment_dataset_debugging_rnn.py $snippets --num_of_run 2 --num_of_samples 1200 \
    --hidden_dim 32 --epochs 8 --retrain_epochs 6 --average_over_runs 1 \
    --path ../models/RNN/saved_models/experiment_dataset_debugging_snippets

if [ "$full" ]; then
    step "ResNet-20 on CIFAR-10: train and label flips at the paper's scale"
    trained CNN/saved_models/base ||
        $python models/CNN/train.py --lr 0.01 --epochs 10 --saved_path saved_models/base
    for seed in "" "--seed 11"; do
        $python dataset_debugging/experiment_dataset_debugging_cnn.py --num_of_run 10 --flip_portion 0.2 \
            --path ../models/CNN/saved_models/experiment_dataset_debugging --lr 1e-5 $seed
    done
    $python dataset_debugging/memorization.py

    step "LSTM on IMDB: train, weights and identified shares at the paper's scale"
    trained RNN/saved_models/base ||
        $python models/RNN/train.py --lr 1e-3 --epochs 10 --saved_path saved_models/base --use_pretrained True
    for command in calculate_ours_weights calculate_influence calculate_representer_weights; do
        $python explainer/$command.py --model RNN
    done
    $python dataset_debugging/experiment_dataset_debugging_rnn.py --num_of_run 5 --flip_portion 0.2 \
        --path ../models/RNN/saved_models/experiment_dataset_debugging --lr 1e-5 --until orders
    $python dataset_debugging/memorization.py --experiment rnn
fi

step "notebooks"
notebooks="explainer/*.ipynb dataset_debugging/*.ipynb models/Xgboost/experiments/*.ipynb"
data=${RPS_LJE_DATA:-data}
if trained RNN/saved_models/base; then
    notebooks="$notebooks models/RNN/experiments/*.ipynb"
else
    echo "left as committed: models/RNN/experiments/*.ipynb, which need the LSTM of IMDB (models/RNN/train.py)"
fi
if [ -d "$data/train" ] || [ -d "$data/cifar10_images" ] || [ -d "$data/cifar-10-batches-py" ]; then
    notebooks="$notebooks models/CNN/experiments/*.ipynb"
else
    echo "left as committed: models/CNN/experiments/*.ipynb, which show images of CIFAR-10 (none in $data)"
fi
for notebook in $notebooks; do
    [ -e "$notebook" ] || continue
    run=${notebook%/experiments/label_errors.ipynb}/saved_models/moments
    if [[ $notebook == models/*/label_errors.ipynb ]] && ! trained "${run#models/}"; then
        echo "left as committed: $notebook, which needs the training that its first lines name"
        continue
    fi
    [ "$root" = . ] && where=(--inplace) || where=(--output-dir "$root/$(dirname "$notebook")")
    .venv/bin/jupyter nbconvert --to notebook --execute "${where[@]}" --log-level ERROR \
        --ExecutePreprocessor.record_timing=False "$notebook" 2>&1 | { grep -v 'Kernel is running over TCP' || true; }
    echo "executed: $notebook"
done

step "comparison with the paper"
$python scripts/compare_with_paper.py
step "done: the figures in dataset_debugging/figs, dataset_debugging/REPRODUCTION.md and the notebooks are new;
   the digits' figure is models/CNN/saved_models/experiment_dataset_debugging_digits/label_flips.png,
   the snippets' models/RNN/saved_models/experiment_dataset_debugging_snippets/label_flips.png"
