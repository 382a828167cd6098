#!/usr/bin/env bash
# Runs the benchmarks; leaves libsrtp out, and says so, where it cannot be built.
# Usage: bench/run.sh [GROUP...] [--json]
set -eu
cd "$(dirname "$0")"

features=()
lacking=""
command -v make >/dev/null || lacking+=" make"
echo '#include <openssl/evp.h>' | cc -E - >/dev/null 2>&1 || lacking+=" libssl-dev"
# The bindings to libsrtp are made from its headers.
[ -n "${LIBCLANG_PATH:-}" ] || PATH="$PATH:/sbin:/usr/sbin" ldconfig -p | grep -qE 'libclang(-[0-9.]+)?[.]so' || lacking+=" libclang1"
if [ -n "$lacking" ]; then
  echo "bench: without libsrtp, because of missing packages:$lacking" >&2
  features=(--no-default-features)
fi
exec cargo run --release --locked "${features[@]}" -- "$@"
