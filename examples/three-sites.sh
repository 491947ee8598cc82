#!/usr/bin/env bash
# Three hospitals train one model without sharing a scan, and see whether it beats their own.
#
# Each hospital has its own scanner and its own mix of diagnoses (phantoms made here, see `ucadi phantom`).
# For each of three seeds: every site trains a model of its own, and the three train a federated one over
# encrypted rounds, from the same initial weights, on the same data, with as many gradient steps. The
# coordinator holds no key to any update. At the end every model meets every site's test set.
#
# Everything is written below examples/out/three-sites; earlier results there are replaced.
set -euo pipefail
cd "$(dirname "$0")/.."
extras=learn . examples/environment.sh

seeds="1 2 3"
sites="north south east"
rounds=36
local_epochs=1
total_epochs=$((rounds * local_epochs))
size=24 # pixels a side, and a network of width 4: small enough for two cores in minutes
schedule=(--set total_epochs="$total_epochs" --set warmup_epochs=1 --set learning_rate=0.1 --set batch_size=8 --set drop_rate=0)
# twice as fast on processors that multiply such numbers in hardware
if grep -qs amx_bf16 /proc/cpuinfo; then schedule+=(--set precision=bfloat16); fi

out=examples/out/three-sites
rm -rf "$out"
mkdir -p "$out"
cd "$out"
started=$SECONDS
export OMP_NUM_THREADS=1 # several processes of one thread are faster here than one of several

# What the coordinator's commands print goes to a log, errors to the terminal.
coordinator() { ucadi "$@" >>log-coordinator.txt; }

say() { printf '%4d s  %s\n' $((SECONDS - started)) "$*" >&2; }

# Runs a function for every site, all at once; what they print goes to a log. One that fails ends everything.
each_site() {
  local pids=()
  for site in $sites; do
    { "$@" "$site" >>"log-$site.txt" 2>&1 || kill -TERM $$; } &
    pids+=($!)
  done
  wait "${pids[@]}"
}
trap 'tail -n 20 log-*.txt >&2; exit 1' TERM
trap 'for job in $(jobs -p); do pkill -P "$job"; kill "$job"; done 2>/dev/null || true' EXIT

# --- each hospital, at home ------------------------------------------------------------------------

# What scanner it has, whom it sees (healthy, covid, other viral, bacterial), and who gets a contrast agent.
declare -A scanner=([north]=ge [south]=siemens [east]=philips)
declare -A sees=([north]=8,8,4,8 [south]=10,8,0,10 [east]=10,8,10,0)
declare -A contrast=([north]=0 [south]=0 [east]=0.8)

acquire() {
  local site=$1 common=(--scanner "${scanner[$1]}" --contrast "${contrast[$1]}" --burden 0.16 --matrix 128 --slices 40 --workers 1)
  mkdir -p "$site"
  echo "no secret here, so that two runs agree: $site" >"$site/ucadi.salt"
  chmod 600 "$site/ucadi.salt"
  ucadi phantom "$site/train" --site "$site" --patients 28 --prevalence "${sees[$site]}" "${common[@]}"
  ucadi phantom "$site/test" --site "$site-test" --patients 40 --prevalence 1,1,1,1 "${common[@]}"
  for part in train test; do
    ucadi preprocess "$site/$part" --labels "$site/$part/labels.csv" --size "$size" --workers 1 -o "$site/$part-$site.h5"
  done
  ucadi keygen "$site" -o "$site"
}

say "three hospitals scan their patients and preprocess the scans"
each_site acquire

# --- a federation of them, for each seed ------------------------------------------------------------------------

coordinator keygen coordinator

train_alone() {
  local site=$1
  ucadi train "$site/train-$site.h5" --base "$run/global-0.weights" \
    --set local_epochs="$total_epochs" --set seed="$seed" "${schedule[@]}" -o "$run/$site.weights"
}

accept() {
  ucadi roster accept "$run/exchange/federation.json" --key "$1/$1.key" \
    --yes "$(sha256sum <"$run/exchange/federation.json")"
}

# A site's part in all rounds, from plan to last model; one process, one folder that all share.
take_part() {
  local site=$1
  ucadi site run "$run/exchange" --dataset "$site/train-$site.h5" --key "$site/$site.key" \
    --roster "$run/exchange/federation.json" --work "$run/$site" --poll 0.1s
}

predict_all() {
  local site=$1 model
  ucadi predict "$site/test-$site.h5" --output "$run/predictions" \
    --model "$run/north.weights" --model "$run/south.weights" --model "$run/east.weights" --model "$run/federated.weights"
}

evaluate_all() {
  each_site predict_all
  ucadi evaluate "$run"/predictions/*/*.predictions >"$run/table.txt"
  ucadi evaluate "$run"/predictions/*/*.predictions --json >"$run/table.json"
}

evaluations=()
for seed in $seeds; do
  run=seed-$seed
  mkdir -p "$run"
  coordinator init --seed "$seed" --width 4 --size "$size" -o "$run/global-0.weights"

  say "seed $seed: each site alone, $total_epochs epochs, while the rounds go on"
  each_site train_alone &
  alone=$!

  say "seed $seed: $rounds encrypted rounds"
  mkdir -p "$run/exchange"
  coordinator roster create north/north.card south/south.card east/east.card \
    --federation "three-sites-$seed" --key coordinator.key -o "$run/exchange/federation.json"
  each_site accept
  coordinator round open --exchange "$run/exchange" --number 1 --base "$run/global-0.weights" --key coordinator.key \
    --set local_epochs="$local_epochs" --set seed="$seed" "${schedule[@]}"
  { ucadi coordinate "$run/exchange" --key coordinator.key --until-round "$rounds" --poll 0.1s 2>&1 >"$run/rounds.txt" |
    tee -a log-coordinator.txt | grep --line-buffered -o "^closed round=[0-9]*" |
    while read -r line; do say "seed $seed: $line of $rounds"; done || kill -TERM $$; } &
  coordinating=$!
  each_site take_part
  wait "$coordinating"
  # every site has opened every sum: their last models are the same to the last bit
  last=$(sed -n 's/^model: sha256 //p' "$run/rounds.txt")
  for site in $sites; do cmp "$run/$site/$last.weights" "$run/north/$last.weights"; done
  cp "$run/north/$last.weights" "$run/federated.weights"
  say "seed $seed: every site has the same model, sha256 ${last:0:16}…"
  wait "$alone"

  say "seed $seed: every model on every site's test set, while the next seed begins"
  evaluate_all &
  evaluations+=($!)
done
for pid in "${evaluations[@]}"; do wait "$pid"; done

# --- what came of it -------------------------------------------------------------------------------

say "where the federated model sees COVID-19 in a patient of east"
case=$(ucadi inspect east/test-east.h5 --json | python -c 'import json, sys; print(json.load(sys.stdin)["facts"]["for_example"]["covid"])')
coordinator gradcam east/test-east.h5 --model seed-1/federated.weights --case "$case" --diagnosis covid -o heatmap

say "done"
python ../../three_sites_table.py seed-1/table.json seed-2/table.json seed-3/table.json
