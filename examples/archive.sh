#!/usr/bin/env bash
# The Snakemake workflow beside this script on a small archive of phantoms; then a new batch comes, and only that is read.
#
# Everything is written below examples/out/archive; Snakemake gets an environment of its own there.
set -euo pipefail
cd "$(dirname "$0")/.."
extras=learn . examples/environment.sh
workflow="$PWD/examples/archive.smk"
out=examples/out/archive
mkdir -p "$out"
cd "$out"
rm -rf archive work

if [ ! -x snakemake/bin/snakemake ]; then
  echo "an environment for Snakemake (once)" >&2
  python -m venv snakemake
  snakemake/bin/pip install --quiet --quiet --disable-pip-version-check snakemake
fi

deliver() { ucadi phantom "archive/$1" --site "delivery-$1" --patients 12 --matrix 64 --slices 40 &>>log.txt; }
build() {
  mkdir -p work
  echo "no secret here, so that two runs agree" >work/ucadi.salt
  chmod 600 work/ucadi.salt
  snakemake/bin/snakemake --snakefile "$workflow" --directory work --cores 2 --quiet progress \
    --config archive="$PWD/archive" salt=ucadi.salt size=16 folds=2 2>>log.txt || { tail -n 20 log.txt work/logs/* >&2; exit 1; }
}

mkdir archive
deliver 2023
deliver 2024
build
before=$(stat -c %Y%s work/parts/2023.h5)
deliver 2025
build
[ "$(stat -c %Y%s work/parts/2023.h5)" = "$before" ] || { echo "a batch was read again" >&2; exit 1; }
ucadi inspect work/dataset.h5
cat work/logs/split.log
