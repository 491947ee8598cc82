#!/usr/bin/env bash
# Hospitals that never trained: do the models hold there (paper, Supplementary Table 8)?
#
# Usage: examples/paper/hold-out.sh [SITES]   (see federation.sh beside it; a site without train-SITE.h5 is held out)
. "$(dirname "$0")/federation.sh"

[ "${#held_out[@]}" -ge 1 ] || {
  echo "$data: no site is held out; one with test-SITE.h5 and no train-SITE.h5 would be" >&2
  exit 2
}
train_models
predictions=()
for site in "${held_out[@]}"; do predictions+=(models/predictions/*/"test-$site.predictions"); done
ucadi evaluate "${predictions[@]}" --compare --report hold-out --force
ucadi evaluate "${predictions[@]}" --json >hold-out/table.json
python "$tables" areas hold-out/table.json hold-out/areas.png "AUC of COVID-19 at sites that never trained"
say "the report: $out/hold-out/report.html, the plot: areas.png"
