#!/usr/bin/env bash
# Makes the small model that `ucadi demo` uses: ucadi/demo/model.weights. Sixty-four synthetic patients of each of four
# scanners to train on, 64 others to choose the epoch by, 200 others to test. Hours on two cores, minutes with a GPU; another
# machine gives other bits and about the same figures.
#
# The model that ships was made on an NVIDIA H200 with torch 2.11 in five minutes, and has the SHA-256
# 1ff06436441f7e94164a20b2aeb2a285b146220fbf331c7269258049751b7b33. On the 200 test patients: AUC of COVID-19 1.000, accuracy
# of four diagnoses 0.980 [0.950, 0.992]. Synthetic lungs are easier than real ones.
#
#   examples/demo-model.sh [FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(realpath -m "${1:-demo-model}")
[ -n "${UCADI_READY:-}" ] || extras=learn . examples/environment.sh
mkdir "$out"
cd "$out"

common=(--matrix 128 --slices 40 --burden 0.1)
make() { # NAME SCANNER PATIENTS
  ucadi phantom "$1" --site "demo-model-$1" --scanner "$2" --patients "$3" "${common[@]}" >&2
  ucadi preprocess "$1" --labels "$1/labels.csv" --size 64 -o "$1.h5" >&2
}
for scanner in ge siemens toshiba philips; do make "train-$scanner" "$scanner" 64; done
make validation ge 64
make test ge 200
ucadi merge train-*.h5 -o train.h5 >&2

cat >recipe.toml <<'TOML'
local_epochs = 60
total_epochs = 60
warmup_epochs = 3
learning_rate = 0.02
weight_decay = 0.0005
augment = true
TOML
ucadi init --seed 1 --width 8 --size 64 -o first.weights >&2
ucadi train train.h5 --base first.weights --recipe recipe.toml --validation validation.h5 --keep-best -o model.weights
ucadi predict test.h5 --model model.weights -o test.predictions >&2
ucadi evaluate test.predictions
sha256sum model.weights
