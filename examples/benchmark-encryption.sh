#!/usr/bin/env bash
# What encrypted rounds cost, beside TenSEAL's CKKS and Flower's SecAgg+, on one core: a table on stdout.
# Up to 100 million weights; that takes some minutes and 6 GB of disk. --quick stays at the paper's network.
set -euo pipefail
cd "$(dirname "$0")/.."

extras=learn,benchmark . examples/environment.sh

export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
exec python examples/benchmark_encryption.py "$@"
