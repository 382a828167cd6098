#!/usr/bin/env bash
# Reads our vectors, and a run captured from the product, with other people's libraries (python-cwt, cbor2, cryptography).
# Usage: interop/python/run.sh [CAPTURE...]
# Without arguments: every vector, the capture among them; key sharing as Rust made it, as this reader made it once for
# Rust to read (sharing.json), and as it makes it now; and, where KEYFALL (or target/release/keyfall) is built and can
# capture, a demo of its own. Exit code 77: the Python packages cannot be had; the last line says why.
set -eu
cd "$(dirname "$0")/../.."

target="${CARGO_TARGET_DIR:-target}"
if [ -z "${PYTHON:-}" ]; then
  bash scripts/python-env
  PYTHON="$target/venv/bin/python3"
fi
export PYTHONDONTWRITEBYTECODE=1

if [ $# -gt 0 ]; then
  for capture in "$@"; do
    "$PYTHON" interop/python/verify_capture.py "$capture"
  done
  exit 0
fi

"$PYTHON" interop/python/verify_vectors.py
for vectors in interop/vectors/sharing.json interop/python/sharing.json; do
  if [ -f "$vectors" ]; then
    "$PYTHON" interop/python/verify_sharing.py "$vectors"
  else
    echo "python: no $vectors"
  fi
done
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
"$PYTHON" interop/python/make_sharing.py "$work/sharing.json"
"$PYTHON" interop/python/verify_sharing.py "$work/sharing.json"
"$PYTHON" interop/python/live_sharing.py loopback
"$PYTHON" interop/python/verify_capture.py interop/vectors/capture.json

keyfall="${KEYFALL:-$target/release/keyfall}"
if [ ! -x "$keyfall" ]; then
  echo "python: no $keyfall, so no run of its own was captured"
elif ! "$keyfall" demo --help 2>/dev/null | grep -q -e --capture; then
  echo "python: $keyfall demo captures nothing, so no run of its own was read"
else
  capture="$work/capture.json"
  "$keyfall" demo --json --capture "$capture" >/dev/null
  said="$("$PYTHON" interop/python/verify_capture.py "$capture")" || { echo "$said"; exit 1; }
  echo "$said"
  # What the demo's thefts must have left in it.
  for wanted in " DELETE" " EXCLUDE" "bob: opens .* DELETE" "bob: excluded from 1 groups" " NOTIFY" " STOP" " START"; do
    grep -q -e "$wanted" <<<"$said" || { echo "python: the demo's capture does not say \"$wanted\""; exit 1; }
  done
fi
