# Sourced by tests/run.sh and the examples: makes ./.venv, once, with what `extras` names, and activates it.
#
#   extras=learn . examples/environment.sh
#
# UCADI_VENV may name another place for it.
#
# torch is installed first and by itself, so that it can be refused where it would be a CUDA build: those
# draw gigabytes. UCADI_TORCH may name another requirement or a wheel file.

venv=$(realpath -m "${UCADI_VENV:-.venv}")
sum=$(cksum pyproject.toml | cut -d ' ' -f 1)
stamp="$venv/ready-${extras//,/-}-$sum"

# Whether the environment was made, for this pyproject.toml, with these extras or more.
ready() {
  local made extra
  for made in "$venv"/ready-*-"$sum"; do
    [ -e "$made" ] || continue
    for extra in ${extras//,/ }; do
      [[ ${made#"$venv"/ready} == *-"$extra"-* ]] || continue 2
    done
    return 0
  done
  return 1
}

if ! ready; then
  python="${PYTHON:-python3}"
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "ucadi needs Python 3.11 or later; set PYTHON to one" >&2
    exit 2
  }
  echo "setting up $venv (once)" >&2
  [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
  if ! "$venv/bin/python" -c 'import torch' 2>/dev/null; then
    torch="${UCADI_TORCH:-torch==2.13.0}"
    "$venv/bin/pip" install --quiet --quiet --disable-pip-version-check --dry-run --report "$venv/torch.json" "$torch" 2>/dev/null
    if grep -q '"name": "nvidia-' "$venv/torch.json"; then
      echo "$torch is a CUDA build here, several gigabytes; ucadi's examples and tests need the CPU build:" >&2
      echo "install it into $venv (see PyTorch's 'Get started', CPU), or set UCADI_TORCH, and run again" >&2
      exit 2
    fi
    "$venv/bin/pip" install --quiet --quiet --disable-pip-version-check "$torch"
  fi
  "$venv/bin/pip" install --quiet --quiet --disable-pip-version-check --editable ".[$extras]"
  touch "$stamp"
fi

. "$venv/bin/activate"
