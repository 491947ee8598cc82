#!/usr/bin/env bash
# Does CycleGAN help a classifier? Supplementary Tables 3 and 4 of the paper, for both kinds of CT.
#
# Four models of COVID-19, each trained with as many gradient steps: on non-contrast scans; on these and contrast scans
# made non-contrast; and the reverse. All are tested on real scans of either kind, of other patients.
#
# Usage: examples/contrast.sh [CONTRAST.h5 NONCONTRAST.h5]
#   Datasets of one site, of the same size, from `ucadi preprocess`. Without them, phantoms are made, and all is small
#   enough for two cores in minutes; with them the paper's sizes are used, unless scale=small is set.
#   others="acl-gan council-gan" also trains on what these methods make, for Table 4.
#
# Everything is written below examples/out/contrast; earlier results there are replaced.
set -euo pipefail
here=$PWD
cd "$(dirname "$0")/.."
extras=learn . examples/environment.sh

if [ $# -eq 2 ]; then
  cd "$here"
  given=("$(realpath "$1")" "$(realpath "$2")")
  cd - >/dev/null
fi
scale=${scale:-$([ $# -eq 2 ] && echo full || echo small)}
seeds=${seeds:-1 2}
others=${others:-}
precision=float32
if grep -qs amx_bf16 /proc/cpuinfo; then precision=bfloat16; fi # twice as fast where the processor has it
if [ "$scale" = small ]; then
  network=(--width 4 --size 32)
  translator=(--size 32 --width 12 --blocks 2 --set total_epochs=16 --set batch_size=8 --set slices_per_case=6 --set learning_rate=1e-3)
  schedule=(--set warmup_epochs=1 --set learning_rate=0.1 --set batch_size=8 --set drop_rate=0)
  shown=2200 # scans shown to each model, over all epochs
else
  network=()
  translator=()
  schedule=()
  shown=100000
fi

out=examples/out/contrast
rm -rf "$out"
mkdir -p "$out"
cd "$out"
started=$SECONDS
export OMP_NUM_THREADS=1 # several processes of one thread are faster here than one of several
say() { printf '%4d s  %s\n' $((SECONDS - started)) "$*" >&2; }
trap 'tail -n 20 log-*.txt >&2; exit 1' TERM
trap 'for job in $(jobs -p); do pkill -P "$job"; kill "$job"; done 2>/dev/null || true' EXIT

# Runs a function with each of the words after it, two at a time; one that fails ends everything.
each() {
  local function=$1 word pids=()
  shift
  for word in "$@"; do
    { "$function" "$word" >>"log-$word.txt" 2>&1 || kill -TERM $$; } &
    pids+=($!)
    if [ ${#pids[@]} -eq 2 ]; then
      wait "${pids[@]}"
      pids=()
    fi
  done
  [ ${#pids[@]} -eq 0 ] || wait "${pids[@]}"
}

# --- scans -----------------------------------------------------------------------------------------

acquire() {
  local kind=$1 patients=80 injected=0
  if [ "$kind" = contrast ]; then patients=112 injected=1; fi
  ucadi phantom "$kind" --site "$kind" --patients "$patients" --contrast "$injected" --burden 0.16 \
    --matrix 128 --slices 40 --workers 1
  ucadi preprocess "$kind" --labels "$kind/labels.csv" --size 32 --workers 1 -o "$kind.h5"
}

if [ $# -eq 2 ]; then
  ln -s "${given[0]}" contrast.h5
  ln -s "${given[1]}" noncontrast.h5
else
  say "phantoms: 112 patients with contrast medium, 80 without"
  echo "no secret here, so that two runs agree" >ucadi.salt
  chmod 600 ucadi.salt
  each acquire contrast noncontrast
fi
ucadi merge contrast.h5 noncontrast.h5 -o all.h5 >log.txt
ucadi split all.h5 --test 0.6 --folds 2 -o site.split >>log.txt
trained="--split site.split --part trainval"
tested="--split site.split --part test"

# --- translation, on the training patients only ----------------------------------------------------

learn() {
  ucadi translate train contrast.h5 noncontrast.h5 $trained "${translator[@]}" --set precision="$precision" \
    --method "$1" --samples "samples-$1" -o "$1.translator"
}

# What another method makes of contrast scans, beside the non-contrast ones.
other() {
  learn "$1"
  ucadi translate apply contrast.h5 --model "$1.translator" --to non-contrast $trained -o "made-by-$1.h5"
  ucadi merge noncontrast.h5 "made-by-$1.h5" -o "noncontrast-and-$1.h5"
}

say "CycleGAN"
learn cyclegan >>log-cyclegan.txt 2>&1
translated() {
  local kind=$1 source=contrast to=non-contrast
  if [ "$kind" = contrast ]; then source=noncontrast to=contrast; fi
  ucadi translate apply "$source.h5" --model cyclegan.translator --to "$to" $trained -o "made-$kind.h5"
  ucadi merge "$kind.h5" "made-$kind.h5" -o "$kind-and-made.h5"
  ucadi translate apply "$source.h5" --model cyclegan.translator --to "$to" $tested -o "made-$kind-test.h5"
  ucadi translate evaluate "made-$kind-test.h5" "$source.h5" "$kind.h5" $tested --sheet "made-$kind.png" >"figures-$kind.txt"
}
each translated noncontrast contrast
if [ -n "$others" ]; then
  say "$others"
  each other $others
fi

# --- classifiers ------------------------------------------------------------------------------

classify() {
  local name=$1 cases epochs run
  cases=$(python -c "
import sys; from pathlib import Path; from ucadi.formats import dataset, split
with dataset.open(Path(sys.argv[1])) as data: print(len(split.select(data, Path('site.split'), 'trainval')))" "$name.h5")
  epochs=$((shown / cases))
  for seed in $seeds; do
    run=seed-$seed
    mkdir -p "$run"
    ucadi init --seed "$seed" "${network[@]}" -o "$run/$name-0.weights"
    ucadi train "$name.h5" $trained --base "$run/$name-0.weights" --set seed="$seed" --set precision="$precision" \
      --set local_epochs="$epochs" --set total_epochs="$epochs" "${schedule[@]}" -o "$run/$name.weights"
    for test in noncontrast contrast; do
      mkdir -p "$run/predictions/$name"
      ucadi predict "$test.h5" $tested --model "$run/$name.weights" -o "$run/predictions/$name/$test.predictions"
    done
  done
}

models="noncontrast noncontrast-and-made contrast contrast-and-made"
for method in $others; do models+=" noncontrast-and-$method"; done
say "classifiers, seeds $seeds"
each classify $models
tables=()
for seed in $seeds; do
  ucadi evaluate "seed-$seed"/predictions/*/*.predictions --json >"seed-$seed.json"
  tables+=("seed-$seed.json")
done

say "done"
cat figures-noncontrast.txt figures-contrast.txt
python ../../contrast_table.py table.png "${tables[@]}"
