#!/usr/bin/env bash
# One federation of three hospitals, three times: all online over a relay, all by courier, and mixed.
#
# The same keys, data and first model each time; only the way that files travel differs. At the end the last
# model of every site, each time, is the same file, and the time of a round is accounted for.
#
# Everything is written below examples/out/three-ways; earlier results there are replaced.
set -euo pipefail
cd "$(dirname "$0")/.."
extras=learn . examples/environment.sh

sites="north south east"
rounds=3

out=examples/out/three-ways
rm -rf "$out"
mkdir -p "$out"
cd "$out"
started=$SECONDS
export OMP_NUM_THREADS=1 # several processes of one thread are faster here than one of several

say() { printf '%4d s  %s\n' $((SECONDS - started)) "$*" >&2; }

# Runs a command in the background, its words in a log; if it fails, all ends.
begin() {
  local log=$1
  shift
  { "$@" >>"$log" 2>&1 || kill -TERM $$; } &
}
trap 'tail -n 5 */log-*.txt log-*.txt >&2; exit 1' TERM
trap 'for job in $(jobs -p); do pkill -P "$job"; kill "$job"; done 2>/dev/null || true' EXIT

# --- three hospitals and their federation ----------------------------------------------------------

acquire() {
  local site=$1
  mkdir -p "$site"
  ucadi phantom "$site/ct" --site "$site" --patients 8 --matrix 64 --slices 40 --workers 1
  ucadi preprocess "$site/ct" --labels "$site/ct/labels.csv" --size 16 --workers 1 -o "$site/data.h5"
  ucadi keygen "$site" -o "$site"
}

say "three hospitals scan their patients"
acquiring=()
for site in $sites; do
  begin "log-$site.txt" acquire "$site"
  acquiring+=($!)
done
wait "${acquiring[@]}"
for party in coordinator relay; do ucadi keygen "$party" >>log-coordinator.txt; done
mkdir start
ucadi roster create north/north.card south/south.card east/east.card \
  --federation three-ways --key coordinator.key -o start/federation.json >>log-coordinator.txt
for site in $sites; do
  ucadi roster accept start/federation.json --key "$site/$site.key" --yes "$(sha256sum <start/federation.json)" >>log-coordinator.txt
done
ucadi init --seed 1 --width 4 --size 16 -o first.weights >>log-coordinator.txt
ucadi round open --exchange start --number 1 --base first.weights --key coordinator.key \
  --set total_epochs="$rounds" --set warmup_epochs=0 --set batch_size=4 >>log-coordinator.txt

# --- the ways --------------------------------------------------------------------------------------

# A site's loop in its own exchange directory; what follows are its other options.
take_part() {
  local way=$1 site=$2
  shift 2
  ucadi site run "$way/$site" --dataset "$site/data.h5" --test "$site/data.h5" \
    --key "$way/home/$site.key" --work "$way/work-$site" --poll 0.2s "$@"
}

online() { take_part "$1" "$2" --relay "$address" --relay-card relay.card; }

# A stick goes to the site and comes back: unpacked there, worked on there, and unpacked here.
travel() {
  local way=$1 site=$2
  mkdir -p "$way/$site"
  ucadi courier pack "$way/exchange" --for "$site" -o "$way/stick" --force
  ucadi courier unpack "$way/stick" "$way/$site" --roster start/federation.json
  take_part "$way" "$site" --once
  ucadi courier pack "$way/$site" --for coordinator -o "$way/stick" --force
  ucadi courier unpack "$way/stick" "$way/exchange" --roster start/federation.json
}

# run WAY "sites that are online" "sites that a courier visits"
run() {
  local way=$1 connected=$2 visited=$3 parties=() site relay=""
  mkdir -p "$way/home"
  cp -r start "$way/exchange"
  # the rounds are played three times, and a key's ledger lets nobody play a round twice: each time from a copy
  cp -r coordinator.* "$way/home"
  for site in $sites; do cp -r "$site/$site".* "$way/home"; done
  if [ -n "$connected" ]; then
    ucadi relay serve "$way/exchange" --key relay.key --bind 'tcp://127.0.0.1:0' 2>"$way/log-relay.txt" >/dev/null &
    relay=$!
    until address=$(sed -n 's/.* listening address=\([^ ]*\).*/\1/p' "$way/log-relay.txt" 2>/dev/null) && [ -n "$address" ]; do
      sleep 0.1
    done
  fi
  begin "$way/result.txt" ucadi coordinate "$way/exchange" --key "$way/home/coordinator.key" --poll 0.2s
  parties+=($!)
  for site in $connected; do
    begin "$way/log-$site.txt" online "$way" "$site"
    parties+=($!)
  done
  # the courier goes round until every round is over, and once more, as the last to be visited may open the last sum
  local trips=0 over=""
  while [ -n "$visited" ] && [ -z "$over" ] && [ "$trips" -lt 20 ]; do
    trips=$((trips + 1))
    if grep -qs '^model:' "$way/result.txt"; then over=yes; fi
    for site in $visited; do travel "$way" "$site" >>"$way/log-courier.txt" 2>&1; done
  done
  wait "${parties[@]}"
  if [ -n "$relay" ]; then kill "$relay"; fi
  say "$way: $(sed -n 's/^model: //p' "$way/result.txt")"
}

say "all online"
run online "north south east" ""
say "all by courier"
run courier "" "north south east"
say "two online, one by courier"
run mixed "north south" "east"

# --- the same to the last bit ----------------------------------------------------------------------

last=$(sed -n 's/^model: sha256 //p' online/result.txt)
for way in online courier mixed; do
  for site in $sites; do cmp "online/work-north/$last.weights" "$way/work-$site/$last.weights"; done
done
say "every site has the same last model, each time"
ucadi round times online/exchange
