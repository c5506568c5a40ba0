#!/usr/bin/env bash
# Gets grpcurl into .tools/bin where Go is at hand. Without it all works but the tests that call it, which say so; so
# nothing ends because of it, and after a failure it is tried again a day later.
set -euo pipefail
cd "$(dirname "$0")/.."
BIN=.tools/bin FAILED=.tools/grpcurl-failed PACKAGE=github.com/fullstorydev/grpcurl/cmd/grpcurl@latest

[ ! -x "$BIN/grpcurl" ] && ! command -v grpcurl >/dev/null && command -v go >/dev/null || exit 0
[ -z "$(find "$FAILED" -mtime -1 2>/dev/null)" ] || exit 0
mkdir -p "$BIN"
echo "setup: getting grpcurl"
if output=$(GOBIN="$PWD/$BIN" timeout 300 go install "$PACKAGE" 2>&1); then
  rm -f "$FAILED"
else
  echo "$output" | tee "$FAILED" | tail -n 3
  echo "setup: grpcurl cannot be fetched now, and its tests are skipped; by hand: go install $PACKAGE"
fi
