#!/usr/bin/env bash
# CycleGAN on real CT slices: a small one, trained in minutes on two cores, makes contrast slices of held-out
# patients non-contrast; how near they come, and what stays, is printed.
#
# Usage: examples/translate-slices.sh [SLICES]
#   SLICES  a folder of DICOM slices with labels.csv (file,contrast); default: slices-contrast-50x50 in UCADI_TEST_DATA,
#           or in ../shared/data
#
# The rule: `ucadi split` with seed 0 holds out 30 % of the patients, with all their slices of either kind.
# Everything is written below examples/out/translate-slices; earlier results there are replaced.
set -euo pipefail
cd "$(dirname "$0")/.."
extras=learn . examples/environment.sh

slices=$(realpath "${1:-${UCADI_TEST_DATA:-../shared/data}/slices-contrast-50x50}")
out=examples/out/translate-slices
rm -rf "$out"
mkdir -p "$out"
python examples/slices_to_datasets.py "$slices" "$out"
cd "$out"
export OMP_NUM_THREADS=1 # networks of this size gain nothing from a second thread

precision=float32
if grep -qs amx_bf16 /proc/cpuinfo; then precision=bfloat16; fi # twice as fast where the processor has it

ucadi merge contrast.h5 noncontrast.h5 -o all.h5
ucadi split all.h5 --test 0.3 --folds 2 -o patients.split
held_out="--split patients.split --part test"

ucadi translate train contrast.h5 noncontrast.h5 --split patients.split --part trainval -o slices.translator \
  --size 64 --width 16 --blocks 4 --depth 1 --set batch_size=4 --set total_epochs=120 --set learning_rate=1e-3 --set precision="$precision" \
  --samples samples --samples-every 20 --checkpoint slices.checkpoint

ucadi translate apply contrast.h5 --model slices.translator --to non-contrast $held_out -o made-noncontrast.h5
ucadi translate evaluate made-noncontrast.h5 contrast.h5 noncontrast.h5 $held_out --sheet made-noncontrast.png
ucadi translate apply noncontrast.h5 --model slices.translator --to contrast $held_out -o made-contrast.h5
ucadi translate evaluate made-contrast.h5 noncontrast.h5 contrast.h5 $held_out --sheet made-contrast.png
