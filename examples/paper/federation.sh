# Sourced by the experiments beside it: sites with their data, their models, and a federation of them.
#
#   examples/paper/EXPERIMENT.sh [SITES]
#
# SITES is a folder with train-SITE.h5 and test-SITE.h5 of each site, from `ucadi preprocess`, all of one size; a site
# without train-SITE.h5 never trains and is only tested on. Without SITES, four phantom hospitals are made, once.
#
# The settings are for two cores and minutes. With one's own data and the paper's settings:
#
#   EPOCHS=100 WIDTH= RECIPE=paper.toml examples/paper/EXPERIMENT.sh SITES
set -euo pipefail
sites_given=${1:+$(realpath "$1")}
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
tables="$PWD/examples/paper/tables.py"
extras=learn . examples/environment.sh

EPOCHS=${EPOCHS-36}            # of all rounds together
LOCAL_EPOCHS=${LOCAL_EPOCHS-1} # between two synchronisations
WIDTH=${WIDTH-4}               # of the network; empty for the paper's
LEARNING_RATE=${LEARNING_RATE-0.1}
HEADROOM=${HEADROOM-4}         # see `ucadi round open`
SEED=${SEED-1}
RECIPE=${RECIPE:+$(realpath "$RECIPE")}

schedule=(--set total_epochs="$EPOCHS" --set seed="$SEED")
if [ -n "$RECIPE" ]; then
  schedule+=(--recipe "$RECIPE")
else
  schedule+=(--set warmup_epochs=1 --set learning_rate="$LEARNING_RATE" --set batch_size=8 --set drop_rate=0)
  # twice as fast on processors that multiply such numbers in hardware
  if grep -qs amx_bf16 /proc/cpuinfo; then schedule+=(--set precision=bfloat16); fi
fi

started=$SECONDS
say() { printf '%4d s  %s\n' $((SECONDS - started)) "$*" >&2; }

out="$PWD/examples/out/paper/$(basename "${sites_given:-phantoms}")"
mkdir -p "$out"
cd "$out"
log="$out/log.txt"
: >"$log"
export OMP_NUM_THREADS=1 # several processes of one thread are faster here than one of several
trap 'tail -n 20 "$log" >&2; exit 1' TERM
trap 'for job in $(jobs -p); do pkill -P "$job"; kill "$job"; done 2>/dev/null || true' EXIT

# Runs a function with each of the names that follow `--`, all at once; one that fails ends everything.
each() {
  local words=() pids=() name
  while [ "$1" != -- ]; do
    words+=("$1")
    shift
  done
  shift
  for name in "$@"; do
    { "${words[@]}" "$name" >>"$log" 2>&1 || kill -TERM $$; } &
    pids+=($!)
  done
  wait "${pids[@]}"
}

# --- the sites -------------------------------------------------------------------------------------

# Hospitals of one scanner and one mix of diagnoses (healthy, covid, other viral, bacterial) each; west never trains.
declare -A scanner=([north]=ge [south]=siemens [east]=philips [west]=toshiba)
declare -A sees=([north]=8,8,4,8 [south]=10,8,0,10 [east]=10,8,10,0)
declare -A contrast=([north]=0 [south]=0 [east]=0.8 [west]=0.3)

acquire() {
  local site=$1 common=(--scanner "${scanner[$1]}" --contrast "${contrast[$1]}" --burden 0.16 --matrix 128 --slices 40 --workers 1)
  mkdir -p "ct/$site"
  echo "no secret here, so that two runs agree: $site" >"ct/$site/ucadi.salt"
  chmod 600 "ct/$site/ucadi.salt"
  if [ -n "${sees[$site]-}" ]; then
    ucadi phantom "ct/$site/train" --site "$site" --patients 56 --prevalence "${sees[$site]}" "${common[@]}"
  fi
  ucadi phantom "ct/$site/test" --site "$site-test" --patients 40 --prevalence 1,1,1,1 "${common[@]}"
  for part in train test; do
    [ -d "ct/$site/$part" ] || continue
    ucadi preprocess "ct/$site/$part" --labels "ct/$site/$part/labels.csv" --size 24 --workers 1 -o "data/$part-$site.h5"
  done
}

data=${sites_given:-$out/data}
if [ -z "$sites_given" ] && [ ! -e data/complete ]; then
  say "four hospitals scan their patients and preprocess the scans"
  rm -rf data ct
  mkdir data
  each acquire -- "${!scanner[@]}"
  rm -rf ct
  touch data/complete
fi

# names SITES/PART-*.h5
names() { find "$data" -name "$1-*.h5" -printf '%f\n' | sed "s/^$1-//; s/\.h5$//" | sort; }
mapfile -t sites < <(names train)
mapfile -t tested < <(names test)
[ "${#sites[@]}" -ge 2 ] && [ "${#tested[@]}" -ge 1 ] || {
  echo "$data: needs train-SITE.h5 of two sites, and test-SITE.h5" >&2
  exit 2
}
mapfile -t held_out < <(comm -13 <(names train) <(names test))
size=$(ucadi inspect "$data/train-${sites[0]}.h5" --json | python -c 'import json, sys; print(json.load(sys.stdin)["facts"]["size_pixels"])')

# --- training --------------------------------------------------------------------------------------

initial() { ucadi init --seed "$SEED" ${WIDTH:+--width "$WIDTH"} --size "$size" --force "$@" >>"$log"; }

member() { ucadi keygen "$2" -o "$1/keys"; }

accept() {
  local roster=$1/exchange/federation.json
  ucadi roster accept "$roster" --key "$1/keys/$2.key" --yes "$(sha256sum <"$roster")"
}

# found FOLDER: a federation with keys of its own, for one training; with two sites, any one of them opens a sum.
found() {
  local folder=$1 site mode=threshold cards=()
  if [ "${#sites[@]}" -lt 3 ]; then mode=members; fi
  mkdir -p "$folder/exchange" "$folder/keys"
  each member "$folder" -- coordinator "${sites[@]}"
  for site in "${sites[@]}"; do cards+=("$folder/keys/$site.card"); done
  ucadi roster create "${cards[@]}" --federation experiment --mode "$mode" \
    --key "$folder/keys/coordinator.key" -o "$folder/exchange/federation.json" >>"$log"
  each accept "$folder" -- "${sites[@]}"
}

# federate FOLDER FIRST ROUNDS LOCAL_EPOCHS [PART]: trains from the weights FIRST in encrypted rounds; the last model is
# FOLDER/federated.weights. PART is one of folds/SITE.split.
federate() {
  local folder=$1 first=$2 rounds=$3 epochs=$4 part=${5-} coordinating last
  found "$folder"
  ucadi round open --exchange "$folder/exchange" --number 1 --base "$first" --key "$folder/keys/coordinator.key" \
    --set local_epochs="$epochs" --headroom "$HEADROOM" "${schedule[@]}" >>"$log"
  { ucadi coordinate "$folder/exchange" --key "$folder/keys/coordinator.key" --until-round "$rounds" --poll 0.1s \
    >"$folder/rounds.txt" 2>>"$log" || kill -TERM $$; } &
  coordinating=$!
  each take_part "$folder" "$part" -- "${sites[@]}"
  wait "$coordinating"
  last=$(sed -n 's/^model: sha256 //p' "$folder/rounds.txt")
  cp "$folder/${sites[0]}/$last.weights" "$folder/federated.weights"
}

take_part() {
  local folder=$1 part=$2 site=$3
  ucadi site run "$folder/exchange" --dataset "$data/train-$site.h5" --key "$folder/keys/$site.key" \
    --work "$folder/$site" --poll 0.1s ${part:+--split "folds/$site.split" --part "$part"}
}

# alone FOLDER FIRST PART SITE: as many epochs on the site's own data; the model is FOLDER/SITE.weights.
alone() {
  local folder=$1 first=$2 part=$3 site=$4
  mkdir -p "$folder"
  ucadi train "$data/train-$site.h5" --base "$first" --set local_epochs="$EPOCHS" "${schedule[@]}" \
    ${part:+--split "folds/$site.split" --part "$part"} -o "$folder/$site.weights" --force
}

# Models of every site alone and of all together, from the same first weights, and what they say of every test set:
# models/predictions/MODEL/test-SITE.predictions. Made once for these data and settings.
train_models() {
  local settings
  settings="$(cat "$data"/*.h5 | sha256sum) ${schedule[*]} $LOCAL_EPOCHS $WIDTH ${RECIPE:+$(sha256sum <"$RECIPE")}"
  if [ -e models/settings ] && [ "$(cat models/settings)" = "$settings" ]; then return; fi
  rm -rf models
  mkdir -p models
  initial -o models/first.weights
  say "each site alone, $EPOCHS epochs"
  each alone models models/first.weights "" -- "${sites[@]}"
  say "all together, $((EPOCHS / LOCAL_EPOCHS)) encrypted rounds"
  federate models/rounds models/first.weights $((EPOCHS / LOCAL_EPOCHS)) "$LOCAL_EPOCHS"
  mv models/rounds/federated.weights models/federated.weights
  say "every model on every test set"
  predict_all models/predictions "${sites[@]/#/models/}" models/federated
  echo "$settings" >models/settings
}

# predict_all FOLDER MODEL...: of each MODEL.weights, FOLDER/MODEL/test-SITE.predictions of every site's test set
predict_all() {
  local folder=$1 options=() model
  shift
  for model in "$@"; do options+=(--model "$model.weights"); done
  each predict_site "$folder" "${options[@]}" -- "${tested[@]}"
}

predict_site() { ucadi predict "$data/test-${!#}.h5" -o "$1" "${@:2:$#-2}" --force; }
