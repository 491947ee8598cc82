# Functions for the set-ups of pages: see shellblocks.py. They run in the page's own shell and folder.

# Makes names lead to this machine, and brings the loopback up.
names() {
  local hosts
  hosts=$(mktemp)
  printf '%s' "$1" >"$hosts"
  mount --bind "$hosts" /etc/hosts
  rm "$hosts"
  ip link set lo up
}

# Takes the programs of an environment from here on: that of another role.
at() {
  local programs=PROGRAMS_$1
  PATH=${!programs}:$PATH
}

# In the environment that has everything, whatever the page's own is.
everything() { PATH=$PROGRAMS_everything:$PATH "$@"; }

# A small scan for each NAME=DIAGNOSIS, below a folder.
scans() {
  local folder=$1 one counts
  shift
  for one in "$@"; do
    case ${one#*=} in healthy) counts=1,0,0,0 ;; covid) counts=0,1,0,0 ;; other_viral) counts=0,0,1,0 ;; *) counts=0,0,0,1 ;; esac
    everything ucadi phantom made --site "${one%%[=/]*}-$((++scanned))" --patients 1 --prevalence "$counts" \
      --matrix 64 --slices 40 --workers 1
    mkdir -p "$(dirname "$folder/${one%%=*}")"
    mv made/*/ "$folder/${one%%=*}"
    rm -r made
  done
}

# Turns a folder's scan into a NIfTI file.
nifti() {
  everything python - "$1" <<'PYTHON'
import shutil, sys
from pathlib import Path
from ucadi.ct.reading import nifti
from ucadi.ct.reading.scan import read_scan

folder = Path(sys.argv[1])
volume = read_scan(folder).volume
nifti.write(folder.with_suffix(".nii.gz"), volume.hu, volume.affine)
shutil.rmtree(folder)
PYTHON
}

# A file of weights of a small network.
weights() { everything ucadi init "${@:2}" -o "$1"; }

# A dataset of made-up cases.
dataset() { everything python "$ROOT/tests/helpers/small_dataset.py" "$@"; }

# Tables of readers and groups for a dataset's cases.
readers() { ids "$1" | sed '1icase,reader,decision' | sed '2~2s/$/,a,1/; 3~2s/$/,a,0/'; }
groups() { ids "$1" | sed 's/$/,under 60/; 1icase,group'; }
ids() { everything python -c 'import sys, h5py; print(*h5py.File(sys.argv[1])["cases"], sep="\n")' "$1"; }

# A federation of these sites: keys and federation.json.
federation() {
  others coordinator "$@"
  everything ucadi roster create *.card --federation test --key coordinator.key -o federation.json
  others_accept "$@"
}

# These sites accept federation.json.
others_accept() {
  local site
  for site in "$@"; do
    everything ucadi roster accept federation.json --key "$site.key" --size-band 1000 --yes "$(sha256sum <federation.json)"
  done
}

# The other sites' partial decryptions of the page's sum.
others_help() {
  local site
  for site in "$@"; do
    everything ucadi partial-decrypt *.sum --plan plan.json --roster federation.json --key "$site.key" -o "$site.partial"
  done
}

# A certificate for a name, which signs itself: NAME.pem and NAME.key.
certificate() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj "/CN=$2" \
    -addext "subjectAltName=DNS:$2" -keyout "$1.key" -out "$1.pem"
}

# Other sites of the federation, with their keys here.
others() {
  local site
  for site in "$@"; do everything ucadi keygen "$site"; done
}

# The other sites' uploads for plan.json, of the page's smallest dataset.
others_send() {
  local site round="--plan plan.json --roster federation.json"
  for site in "$@"; do
    everything ucadi train test.h5 --base global-0.weights $round --site "$site" -o "$site.update"
    everything ucadi encrypt "$site.update" $round --key "$site.key" -o "$site.enc"
    rm "$site.update"
  done
}

# The other sites' loops, each in a folder of its own.
others_run() {
  local site
  for site in "$@"; do
    mkdir "$site"
    (
      cd "$site"
      cp -r ../test.h5 "../$site".* ../relay.card .
      everything ucadi site run exchange --dataset test.h5 --key "$site.key" \
        --relay tcp://relay.example.org:7400 --relay-card relay.card
    ) &
  done
}

# Goes to another party's machine: a folder with the files that it has.
machine() {
  local folder=$1
  mkdir "$folder"
  shift
  cp -r "$@" "$folder"
  cd "$folder"
}

# Waits until a file is there.
wait_for() {
  until ls $1 >/dev/null 2>&1; do
    still_running || return
    sleep 0.2
  done
}

# Waits until somebody listens at a port here.
listens() {
  until (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; do
    still_running || return
    sleep 0.2
  done
}

# Stops all that goes on, as its reader would.
stop_all() {
  pkill -INT ucadi # in the page's own namespace of processes there are no others
  wait "${went_on[@]}"
  went_on=() told=()
}

went_on=()
told=()

running() {
  told+=("$1")
  went_on+=("$2")
}

# Whether everything that goes on still does, or ended well.
still_running() {
  local index status
  for index in "${!went_on[@]}"; do
    kill -0 "${went_on[index]}" 2>/dev/null && continue
    status=0
    wait "${went_on[index]}" || status=$?
    if [ "$status" != 0 ]; then
      cat "${told[index]}" >&2
      return 1
    fi
  done
}
