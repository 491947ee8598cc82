#!/usr/bin/env bash
# One training on several machines by torchrun; here two "machines" are two launchers on this one.
#
# On real machines, each runs the torchrun line with its own --node-rank and the first one's address; --nproc-per-node is
# its number of GPUs. All need the dataset and the base; the first writes the update.
#
# Everything is written below examples/out/several-machines; earlier results there are replaced.
set -euo pipefail
cd "$(dirname "$0")/.."
extras=learn . examples/environment.sh
out=examples/out/several-machines
rm -rf "$out"
mkdir -p "$out"
cd "$out"
export OMP_NUM_THREADS=1

ucadi phantom ct --patients 16 --matrix 64 --slices 40 2>log.txt
ucadi preprocess ct --labels ct/labels.csv --size 24 -o data.h5 2>>log.txt
ucadi init --seed 1 --width 4 --size 24 -o base.weights
# One epoch: what the order of sums rounds otherwise grows with every step, and would hide what is really wrong.
train=(ucadi train data.h5 --base base.weights --site north --set local_epochs=1 --set total_epochs=3 --set warmup_epochs=1
  --set batch_size=8 --device cpu)

port=$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
launch() {
  torchrun --nnodes 2 --node-rank "$1" --nproc-per-node 1 --master-addr 127.0.0.1 --master-port "$port" \
    --no-python "${train[@]}" -o together.update
}
trap 'for job in $(jobs -p); do pkill -P "$job"; kill "$job"; done 2>/dev/null || true' EXIT
launch 1 >>log.txt 2>&1 &
second=$!
launch 0 2>>log.txt || { tail -n 20 log.txt >&2; exit 1; }
wait "$second"

"${train[@]}" -o alone.update 2>>log.txt
python - <<'PYTHON'
import numpy as np
from pathlib import Path
from ucadi.formats.update import read_update

alone, together = (read_update(Path(f"{name}.update")).deltas for name in ("alone", "together"))
moved = max(float(np.abs(delta).max()) for delta in alone.values())
apart = max(float(np.abs(together[name] - delta).max()) for name, delta in alone.items())
print(f"two machines and one differ by {apart / moved:.1e} of the largest change of a weight")
assert apart <= 1e-3 * moved
PYTHON
