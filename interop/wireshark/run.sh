#!/usr/bin/env bash
# Every message of the vectors through Wireshark's tshark with keyfall.lua: all fields named, all values right.
# Usage: interop/wireshark/run.sh
# Exit code 77: skipped, because tshark or the Python packages are missing; the last line says which.
set -eu
cd "$(dirname "$0")/../.."

if ! command -v tshark >/dev/null; then
  echo "interop wireshark: skipped, tshark is missing (Debian: tshark)"
  exit 77
fi
if [ -z "${PYTHON:-}" ]; then
  bash scripts/python-env
  PYTHON="${CARGO_TARGET_DIR:-target}/venv/bin/python3"
fi
export PYTHONDONTWRITEBYTECODE=1
"$PYTHON" interop/wireshark/check.py
