#!/usr/bin/env bash
# The gate: format, lint, strict types, protos fresh, linted and compatible, import rules. With --release it makes the
# contract as it is now the one that the later ones have to be compatible with.
set -euo pipefail
cd "$(dirname "$0")/.."
BIN=.venv/bin

install_buf() {
  [ -x .tools/node_modules/.bin/buf ] && return
  if ! command -v npm >/dev/null; then
    [ "$(id -u)" = 0 ] || { echo "check: npm is needed to lint the protos: sudo apt-get install npm" >&2; exit 1; }
    apt-get update -q >/dev/null && apt-get install -q -y --no-install-recommends npm >/dev/null
  fi
  npm install --silent --no-fund --no-audit --prefix .tools '@bufbuild/buf@^1.50' >/dev/null
}

if [ "${1:-}" = --release ]; then
  install_buf
  exec .tools/node_modules/.bin/buf build protos --exclude-source-info -o protos/released.binpb
fi

step() { echo "check: $1"; shift; "$@"; }
step format "$BIN/ruff" format --check -q .
step lint "$BIN/ruff" check -q .
step types "$BIN/mypy"
step "protos fresh" "$BIN/python" tools/protos.py --check
install_buf
step "protos lint" .tools/node_modules/.bin/buf lint protos
step "protos compatible" .tools/node_modules/.bin/buf breaking protos --against protos/released.binpb
step imports "$BIN/lint-imports" --no-logo 2>/dev/null || "$BIN/lint-imports"
step "sizes" "$BIN/python" tools/sizes.py
echo "check: all is well"
