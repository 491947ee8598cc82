#!/usr/bin/env bash
# Runs the tests of networks as on processors that have less than this one: torch's kernels differ between them, and so do
# their faults. What this processor has nothing above is not run again.
set -euo pipefail
cd "$(dirname "$0")/.."

extras=learn,test . examples/environment.sh

has() { grep -qE "^flags.*\b($1)\b" /proc/cpuinfo; }

mapfile -t tests < <(grep -rlE --include='test_*.py' 'ucadi\.(learn|translation)' tests)

while read -r isa above; do
  if has "$above"; then
    echo "as a processor with $isa:"
    ONEDNN_MAX_CPU_ISA=$isa python -m pytest -n auto --dist worksteal -q -m "not slow" "${tests[@]}"
  else
    echo "as a processor with $isa: this one has no more"
  fi
done <<'ISAS'
AVX2 avx512f
AVX512_CORE avx512_vnni|avx512_bf16
AVX512_CORE_BF16 avx512_fp16|amx_bf16
ISAS
