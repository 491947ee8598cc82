#!/usr/bin/env bash
# The networks compared, each trained by the federation (paper, Supplementary Tables 6 and 7): performance, size, work.
#
# Usage: examples/paper/networks.sh [SITES]   (see federation.sh beside it)
#   WIDTHS="4 8 8 8"  of DenseNet, ResNet-50, ResNet-101 and Xception; empty for the published ones
LEARNING_RATE=${LEARNING_RATE-0.02} # residual networks of this size leave the road at 0.1
. "$(dirname "$0")/federation.sh"

networks=(densenet3d resnet50 resnet101 xception)
read -ra widths <<<"${WIDTHS-4 8 8 8}"
HEADROOM=12 # what adds up in a residual network varies far more after its first epoch than before
rm -rf networks
mkdir networks
models=()
for i in "${!networks[@]}"; do
  network=${networks[$i]}
  WIDTH=${widths[$i]-}
  say "$network${WIDTH:+ of width $WIDTH}"
  initial --architecture "$network" -o "networks/first-$network.weights"
  federate "networks/$network.rounds" "networks/first-$network.weights" $((EPOCHS / LOCAL_EPOCHS)) "$LOCAL_EPOCHS"
  mv "networks/$network.rounds/federated.weights" "networks/$network.weights"
  ucadi round times "networks/$network.rounds/exchange" --json >"networks/$network.times"
  models+=("networks/$network")
done
predict_all networks/predictions "${models[@]}"
ucadi evaluate networks/predictions/*/*.predictions --json >networks/table.json
python "$tables" networks networks/table.json networks/networks.png "${networks[@]}"
say "the plot: $out/networks/networks.png"
