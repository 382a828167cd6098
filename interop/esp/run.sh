#!/usr/bin/env bash
# ESP between Keyfall and scapy, both ways, in three suites; ours read by tshark, to one address and to a group.
# Usage: interop/esp/run.sh
# Exit code 77: skipped, because the Python packages cannot be had; the last line says why.
set -eu
cd "$(dirname "$0")/../.."

if [ -z "${PYTHON:-}" ]; then
  bash scripts/python-env
  PYTHON="${CARGO_TARGET_DIR:-target}/venv/bin/python3"
fi
export PYTHONDONTWRITEBYTECODE=1
cargo build --quiet --locked -p keyfall-plane --example interop_esp
"$PYTHON" interop/esp/check.py "${CARGO_TARGET_DIR:-target}/debug/examples/interop_esp"
