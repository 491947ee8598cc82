#!/usr/bin/env bash
# Local models against the federated one, on every site and pooled (paper, Fig. 4): intervals, p-values, a report.
#
# Usage: examples/compare-models.sh PREDICTIONS [REPORT]
#   PREDICTIONS  a folder of MODEL/DATASET.predictions, as three-sites.sh leaves in seed-N/predictions
#   REPORT       the folder to write (default: comparison, beside PREDICTIONS)
set -euo pipefail

predictions=${1:?a folder of MODEL/DATASET.predictions}
report=${2:-$(dirname "$predictions")/comparison}

ucadi evaluate "$predictions"/*/*.predictions --compare --report "$report"
echo "the report: $report/report.html"
