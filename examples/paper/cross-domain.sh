#!/usr/bin/env bash
# Train at one site, test at another: how far each model carries, and what training together changes.
#
# Usage: examples/paper/cross-domain.sh [SITES]   (see federation.sh beside it)
. "$(dirname "$0")/federation.sh"

train_models
mkdir -p cross-domain
ucadi evaluate models/predictions/*/*.predictions --json >cross-domain/table.json
python "$tables" domains cross-domain/table.json cross-domain/matrix.png
say "the plot: $out/cross-domain/matrix.png"
