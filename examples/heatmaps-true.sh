#!/usr/bin/env bash
# Do heatmaps show the disease? A small network learns phantoms; its heatmaps are compared with their true lesions.
#
# Everything is written below examples/out/heatmaps-true; earlier results there are replaced.
set -euo pipefail
cd "$(dirname "$0")/.."
extras=learn . examples/environment.sh

out=examples/out/heatmaps-true
rm -rf "$out"
mkdir -p "$out"
cd "$out"
export OMP_NUM_THREADS=1
schedule=(--set local_epochs=40 --set total_epochs=40 --set warmup_epochs=1 --set learning_rate=0.1 --set batch_size=8 --set drop_rate=0)
# twice as fast on processors that multiply such numbers in hardware
if grep -qs amx_bf16 /proc/cpuinfo; then schedule+=(--set precision=bfloat16); fi

common=(--burden 0.1 --matrix 128 --slices 40)
ucadi phantom train --site train --patients 64 "${common[@]}" >&2
ucadi phantom test --site test --patients 128 "${common[@]}" --lesion-masks masks >&2
echo "no secret here, phantoms: heatmaps-true" >ucadi.salt
chmod 600 ucadi.salt
ucadi preprocess train --labels train/labels.csv --size 32 -o train.h5 >&2
ucadi preprocess test --labels test/labels.csv --size 32 --linkage linkage.csv -o test.h5 >&2

ucadi init --seed 1 --width 4 --size 32 -o base.weights >&2
ucadi train train.h5 --base base.weights "${schedule[@]}" -o trained.weights >&2
ucadi predict test.h5 --model trained.weights -o test.predictions >&2
ucadi evaluate test.predictions >&2

python ../../heatmaps_true.py test.h5 trained.weights masks linkage.csv
