#!/usr/bin/env bash
# Sets up an environment, then checks and tests ucadi; with --all also what takes minutes.
# Other arguments go to pytest: ./tests/run.sh -k relay
set -euo pipefail
cd "$(dirname "$0")/.."

extras=learn,test . examples/environment.sh

select=(-m "not slow")
if [ "${1:-}" = "--all" ]; then
  select=()
  shift
fi

ruff check .
ruff format --check --quiet .
mypy
lint-imports --no-cache
exec python -m pytest -n auto --dist worksteal -q "${select[@]}" "$@"
