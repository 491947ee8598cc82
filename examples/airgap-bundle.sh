#!/usr/bin/env bash
# A folder from which ucadi is installed where there is no network: wheels, their hashes, a bill of materials (SBOM),
# manual pages, completions, and the script that installs it all.
#
# Usage: examples/airgap-bundle.sh [FOLDER] [EXTRAS]
#   FOLDER  to make (default: examples/out/airgap-bundle)
#   EXTRAS  what to bring, such as learn or learn,fast (default: learn; "" for a coordinator's machine)
#
# Make it on a machine with the same system, processor and Python as the one that it is for. At the end it is installed
# in a network namespace that has no network at all, and does a round there.
set -euo pipefail
folder=$(realpath -m "${1:-$(dirname "$0")/out/airgap-bundle}")
extras=${2-learn}
cd "$(dirname "$0")/.."
[ ! -e "$folder" ] || {
  echo "$folder: exists already; give another folder, or remove it" >&2
  exit 7
}
. examples/environment.sh # with the CPU build of torch
say() { echo "$*" >&2; }
pip=(python -m pip --quiet --quiet --disable-pip-version-check)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bundle=$work/bundle
mkdir -p "$bundle/wheels"

say "wheels of ucadi${extras:+[$extras]} and all that it needs"
"${pip[@]}" wheel --no-deps --wheel-dir "$bundle/wheels" .
# exactly what the environment here has, torch's CPU build among it, so that what was tested is what is installed
python -m pip freeze --exclude-editable | sed 's/ @ file:.*//' >"$work/constraints.txt"
torch=$(python -c 'import importlib.util as u; print("torch" if u.find_spec("torch") else "")')
if [[ ,$extras, == *,learn,* && -n $torch ]]; then
  version=$(python -c 'from importlib.metadata import version; print(version("torch"))')
  sed -i '/^torch[= ]/d' "$work/constraints.txt"
  echo "torch==$version" >>"$work/constraints.txt"
  "${pip[@]}" download --no-deps --dest "$bundle/wheels" "${UCADI_TORCH:-torch==${version%+*}}"
fi
"${pip[@]}" download --only-binary :all: --dest "$bundle/wheels" --find-links "$bundle/wheels" \
  --constraint "$work/constraints.txt" "ucadi${extras:+[$extras]} @ file://$(ls "$bundle"/wheels/ucadi-*.whl)"

# --require-hashes takes nothing that is not here to the byte
python - "$bundle/wheels" "$extras" >"$bundle/requirements.txt" <<'PYTHON'
import hashlib, sys
from pathlib import Path

for wheel in sorted(Path(sys.argv[1]).iterdir()):
    name, version = wheel.name.split("-")[:2]
    extras = f"[{sys.argv[2]}]" if name == "ucadi" and sys.argv[2] else ""
    with wheel.open("rb") as file:
        print(f"{name}{extras}=={version} --hash=sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}")
PYTHON

cat >"$bundle/install.sh" <<'INSTALL'
#!/usr/bin/env bash
# Installs ucadi into FOLDER from the files beside this script, without any network.
# Usage: install.sh FOLDER        (PYTHON=/path/to/python3 for another than python3)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=${1:?the folder to install into}
(cd "$here" && sha256sum --quiet --check SHA256SUMS)
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/python" -m pip --quiet --disable-pip-version-check install \
  --no-index --find-links "$here/wheels" --require-hashes --requirement "$here/requirements.txt"
mkdir -p "$folder/share/man" "$folder/share/bash-completion/completions"
cp -r "$here/man/man1" "$folder/share/man/"
cp "$here/completion/ucadi.bash" "$folder/share/bash-completion/completions/ucadi"
echo "$folder/bin/ucadi"
INSTALL
chmod +x "$bundle/install.sh"

say "manual pages and completions"
python docs/make_man.py "$bundle"

say "bill of materials"
python -m venv "$work/tools"
"$work/tools/bin/python" -m pip --quiet --quiet --disable-pip-version-check install cyclonedx-bom
"$work/tools/bin/cyclonedx-py" requirements --output-reproducible --output-format JSON \
  --output-file "$bundle/sbom.cdx.json" "$bundle/requirements.txt" 2>"$work/sbom.log" || { cat "$work/sbom.log" >&2; exit 1; }
(cd "$bundle" && find . -type f ! -name SHA256SUMS -printf '%P\0' | sort -z | xargs -0 sha256sum >SHA256SUMS)

say "an installation and a round where there is no network"
cat >"$work/check.sh" <<'CHECK'
set -euo pipefail
! timeout 5 bash -c 'exec 3<>/dev/tcp/1.1.1.1/443' 2>/dev/null || { echo "there is a network here" >&2; exit 1; }
"$1/install.sh" "$2/site" >/dev/null
export PATH="$2/site/bin:$PATH"
cd "$2"
ucadi --help >/dev/null
for name in coordinator north south east; do ucadi keygen "$name" >/dev/null; done
ucadi roster create north.card south.card east.card --federation check --key coordinator.key -o federation.json >/dev/null
for site in north south east; do
  ucadi roster accept federation.json --key "$site.key" --yes "$(sha256sum <federation.json)" >/dev/null
done
if python -c 'import torch' 2>/dev/null; then
  ucadi phantom ct --patients 4 --matrix 64 --slices 40 >/dev/null
  ucadi preprocess ct --labels ct/labels.csv --size 16 -o data.h5 >/dev/null
  ucadi init --width 2 --size 16 -o first.weights >/dev/null
  documents=(--plan plan.json --roster federation.json)
  ucadi round open --number 1 --base first.weights --key coordinator.key --roster federation.json --set batch_size=2 -o plan.json >/dev/null
  for site in north south east; do
    ucadi train data.h5 --base first.weights --site "$site" "${documents[@]}" -o "$site.update" >/dev/null
    ucadi encrypt "$site.update" "${documents[@]}" --key "$site.key" -o "$site.enc" >/dev/null
  done
  ucadi aggregate north.enc south.enc east.enc "${documents[@]}" --key coordinator.key -o sum.enc >/dev/null
  for site in north south east; do
    ucadi partial-decrypt sum.enc "${documents[@]}" --key "$site.key" -o "$site.partial" >/dev/null
  done
  ucadi decrypt sum.enc ./*.partial "${documents[@]}" --key north.key -o sum.aggregate >/dev/null
  ucadi apply first.weights sum.aggregate "${documents[@]}" -o second.weights
fi
CHECK
mkdir "$work/check"
unshare --user --map-root-user --net bash "$work/check.sh" "$bundle" "$work/check" 2>"$work/check.log" || {
  cat "$work/check.log" >&2
  exit 1
}
mkdir -p "$(dirname "$folder")"
mv "$bundle" "$folder"
echo "$folder: $(find "$folder/wheels" -name '*.whl' | wc -l) wheels, $(du -sh "$folder" | cut -f 1)"
