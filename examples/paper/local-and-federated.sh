#!/usr/bin/env bash
# Local models against the federated one, on every site and pooled (paper, Fig. 4): intervals, p-values, a report.
#
# Usage: examples/paper/local-and-federated.sh [SITES]   (see federation.sh beside it)
. "$(dirname "$0")/federation.sh"

train_models
predictions=()
for site in "${sites[@]}"; do
  [ -e "$data/test-$site.h5" ] && predictions+=(models/predictions/*/"test-$site.predictions")
done
ucadi evaluate "${predictions[@]}" --compare --report local-and-federated --force
ucadi evaluate "${predictions[@]}" --json >local-and-federated/table.json
python "$tables" areas local-and-federated/table.json local-and-federated/areas.png \
  "AUC of COVID-19 on each site's test set and pooled"
say "the report: $out/local-and-federated/report.html, the plot: areas.png"
