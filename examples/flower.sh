#!/usr/bin/env bash
# One federation three times: by Flower, over the relay, and by files alone. The opened sums are the same to the last bit.
#
# Flower runs as it would between machines: a SuperLink, and a SuperNode for each of three sites, all on loopback here.
# It gets an environment of its own below examples/out/flower, where everything is written; telemetry is off.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$PWD/examples/out/flower
app=$PWD/examples/flower
UCADI_VENV=$out/venv extras=learn,flower . examples/environment.sh
cd "$out"
rm -rf start sites ways home app log-*.txt
export OMP_NUM_THREADS=1 FLWR_TELEMETRY_ENABLED=0 FLWR_HOME="$out/home"

sites="north south east"
rounds=2
say() { printf '%4d s  %s\n' "$SECONDS" "$*" >&2; }
trap 'for job in $(jobs -p); do pkill -P "$job"; kill "$job"; done 2>/dev/null || true' EXIT

say "three sites with their data and keys, and one federation"
mkdir -p sites start ways home
for site in $sites; do
  ucadi phantom "sites/$site-ct" --site "$site" --patients 4 --matrix 64 --slices 40 2>>log-sites.txt >&2
  ucadi preprocess "sites/$site-ct" --labels "sites/$site-ct/labels.csv" --size 16 -o "sites/$site.h5" 2>>log-sites.txt >&2
  ucadi keygen "$site" -o sites >>log-sites.txt
done
for party in coordinator relay; do ucadi keygen "$party" -o sites >>log-sites.txt; done
ucadi roster create sites/{north,south,east}.card --federation by-flower --key sites/coordinator.key -o start/federation.json >>log-sites.txt
for site in $sites; do
  ucadi roster accept start/federation.json --key "sites/$site.key" --yes "$(sha256sum <start/federation.json)" >>log-sites.txt
done
ucadi init --seed 1 --width 2 --size 16 -o sites/first.weights >>log-sites.txt
ucadi round open --exchange start --number 1 --base sites/first.weights --key sites/coordinator.key \
  --set total_epochs="$rounds" --set warmup_epochs=0 --set batch_size=2 >>log-sites.txt

# The rounds are played three times, and a key's ledger lets nobody play a round twice: each time from a copy.
begin_way() {
  mkdir -p "ways/$1"
  cp -r start "ways/$1/exchange"
  cp -r sites "ways/$1/sites"
}

free_port() { python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# --- files alone: one shared folder --------------------------------------------------------------------

say "by files"
begin_way files
pids=()
for site in $sites; do
  ucadi site run ways/files/exchange --dataset "sites/$site.h5" --key "ways/files/sites/$site.key" \
    --work "ways/files/$site" --poll 0.2s >>log-files.txt 2>&1 &
  pids+=($!)
done
ucadi coordinate ways/files/exchange --key ways/files/sites/coordinator.key --until-round "$rounds" --poll 0.2s >>log-files.txt 2>&1
wait "${pids[@]}"

# --- over the relay -------------------------------------------------------------------------------------

say "over the relay"
begin_way relay
ucadi relay serve ways/relay/exchange --key sites/relay.key --bind 'tcp://127.0.0.1:0' 2>log-relay.txt >&2 &
relay=$!
until address=$(sed -n 's/.* listening address=\([^ ]*\).*/\1/p' log-relay.txt) && [ -n "$address" ]; do
  kill -0 "$relay" || { cat log-relay.txt >&2; exit 1; }
  sleep 0.1
done
pids=()
for site in $sites; do
  ucadi site run "ways/relay/$site-exchange" --dataset "sites/$site.h5" \
    --key "ways/relay/sites/$site.key" --work "ways/relay/$site" --relay "$address" --relay-card sites/relay.card --poll 0.2s \
    >>log-relay-sites.txt 2>&1 &
  pids+=($!)
done
ucadi coordinate ways/relay/exchange --key ways/relay/sites/coordinator.key --until-round "$rounds" --poll 0.2s >>log-relay-sites.txt 2>&1
wait "${pids[@]}"
kill "$relay"

# --- by Flower ------------------------------------------------------------------------------------------

say "by Flower"
begin_way flower
cp -r "$app" app
port=$(free_port)
flower-superlink --insecure --port "$port" --disable-runtime-dependency-installation >>log-flower.txt 2>&1 &
superlink=$!
until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
  kill -0 "$superlink" || { cat log-flower.txt >&2; exit 1; }
  sleep 0.2
done
for site in $sites; do
  flower-supernode --insecure --superlink "127.0.0.1:$port" --port "$(free_port)" --node-config \
    "exchange='$out/ways/flower/$site-exchange' dataset='$out/sites/$site.h5' roster='$out/start/federation.json' key='$out/ways/flower/sites/$site.key' work='$out/ways/flower/$site'" \
    >>log-flower.txt 2>&1 &
done
printf '[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "127.0.0.1:%s"\ninsecure = true\n' "$port" >home/config.toml
timeout 300 flwr run app here --stream --run-config \
  "exchange='$out/ways/flower/exchange' roster='$out/start/federation.json' key='$out/ways/flower/sites/coordinator.key' rounds=$rounds" \
  >>log-run.txt 2>&1 || { tail -n 30 log-run.txt log-flower.txt >&2; exit 1; }

# --- the same to the last bit ---------------------------------------------------------------------------

for way in files relay flower; do
  for site in $sites; do
    (cd "ways/$way/$site" && sha256sum $(find . -name '*.aggregate' | sort)) >"ways/$way-$site.sums"
    [ "$(wc -l <"ways/$way-$site.sums")" = "$rounds" ] || { echo "$way: $site has not opened $rounds sums" >&2; exit 1; }
    cmp "ways/files-north.sums" "ways/$way-$site.sums"
  done
done
say "the opened sums of $rounds rounds are the same at three sites in three ways:"
cat ways/files-north.sums
