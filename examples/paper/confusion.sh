#!/usr/bin/env bash
# Four-class and two-class confusion matrices of each model on all test sets (paper, Supplementary Table 9).
#
# Usage: examples/paper/confusion.sh [SITES]   (see federation.sh beside it)
. "$(dirname "$0")/federation.sh"

train_models
mkdir -p confusion
ucadi evaluate models/predictions/*/*.predictions --json >confusion/table.json
python "$tables" confusion confusion/table.json confusion/matrices.png
say "the plot: $out/confusion/matrices.png"
