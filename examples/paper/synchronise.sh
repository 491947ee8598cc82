#!/usr/bin/env bash
# How often to synchronise: accuracy and time against local epochs per round (paper, Fig. 5a and 5b).
#
# Usage: examples/paper/synchronise.sh [SITES]   (see federation.sh beside it)
#   EVERY="1 3 9 36"  local epochs per round, divisors of EPOCHS; the last averages once, at the end
. "$(dirname "$0")/federation.sh"

every=${EVERY-1 3 9 $EPOCHS}
rm -rf synchronise
mkdir synchronise
initial -o synchronise/first.weights
runs=()
for epochs in $every; do
  rounds=$((EPOCHS / epochs))
  say "$rounds rounds of $epochs epochs"
  federate "synchronise/$epochs" synchronise/first.weights "$rounds" "$epochs"
  mv "synchronise/$epochs/federated.weights" "synchronise/every-$epochs.weights"
  ucadi round times "synchronise/$epochs/exchange" --json >"synchronise/$epochs.times"
  runs+=("synchronise/every-$epochs")
done
predict_all synchronise/predictions "${runs[@]}"
ucadi evaluate synchronise/predictions/*/*.predictions --json >synchronise/table.json
python "$tables" synchronise synchronise/table.json synchronise/synchronise.png $every
say "the plot: $out/synchronise/synchronise.png"
