#!/usr/bin/env bash
# Cross-validation on trainval, the best model selected there, and one look at the test sets (paper, Methods).
#
# Each site's patients are divided into FOLDS folds. For each fold every site trains alone on the others, and all sites
# train together; the fold's patients, whom nobody trained on, say how good that was. Of each kind of model the one of the
# best fold is tested, once.
#
# Usage: examples/paper/cross-validation.sh [SITES]   (see federation.sh beside it)
. "$(dirname "$0")/federation.sh"

FOLDS=${FOLDS-5}
rm -rf folds
mkdir folds
for site in "${sites[@]}"; do
  ucadi split "$data/train-$site.h5" --test 0 --folds "$FOLDS" --seed "$SEED" -o "folds/$site.split" >>"$log"
done
initial -o folds/first.weights

# what the models of fold K say of the patients of fold K at one site
validate() {
  local k=$1 site=$2
  ucadi predict "$data/train-$site.h5" --split "folds/$site.split" --part "val-$k" -o "folds/$k/predictions" \
    "${models[@]}" --force
}

for k in $(seq "$FOLDS"); do
  say "fold $k of $FOLDS"
  each alone "folds/$k" folds/first.weights "train-$k" -- "${sites[@]}"
  federate "folds/$k" folds/first.weights $((EPOCHS / LOCAL_EPOCHS)) "$LOCAL_EPOCHS" "train-$k"
  models=()
  for model in "${sites[@]}" federated; do models+=(--model "folds/$k/$model.weights"); done
  each validate "$k" -- "${sites[@]}"
  ucadi evaluate "folds/$k/predictions"/*/*.predictions --json >"folds/$k/table.json"
done
# the chosen model of each kind is folds/best/MODEL.weights
python "$tables" select folds "$FOLDS"
say "the chosen models meet the test sets"
chosen=()
for model in "${sites[@]}" federated; do chosen+=("folds/best/$model"); done
predict_all folds/best/predictions "${chosen[@]}"
ucadi evaluate folds/best/predictions/*/*.predictions --compare --report folds/report --force
ucadi evaluate folds/best/predictions/*/*.predictions --json >folds/table.json
python "$tables" areas folds/table.json folds/areas.png "AUC of COVID-19, models selected by cross-validation"
say "the report: $out/folds/report/report.html, the plot: areas.png"
