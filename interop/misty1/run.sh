#!/usr/bin/env bash
# MISTY1 between Keyfall and Botan, both ways: RFC 2994's appendix, our vectors, and thousands of random keys.
# Usage: interop/misty1/run.sh
# Exit code 77: skipped, because Debian's Botan is missing. It is Debian's: Botan 3 has no MISTY1 any more.
set -u
cd "$(dirname "$0")/../.."
export PYTHONDONTWRITEBYTECODE=1

debian=/usr/bin/python3
botan() { "$debian" interop/misty1/botan_misty1.py "$@"; }

if ! botan present >/dev/null 2>&1; then
  echo "interop misty1: skipped, Botan with MISTY1 is missing (Debian: python3-botan)"
  exit 77
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
  echo "interop misty1: FAILED, $1"
  exit 1
}

ours() { cargo run --quiet --locked -p keyfall-protocol --example interop_misty1 -- "$@"; }

texts=$(botan vectors interop/vectors/misty1.json) || fail "Botan does not agree with interop/vectors/misty1.json"
cargo build --quiet --locked -p keyfall-protocol --example interop_misty1 || fail "our example does not build"
seed=${KEYFALL_SEED:-$RANDOM}
botan plan 4000 "$seed" >"$work/plan" || fail "there is no plan"
ours seal <"$work/plan" >"$work/sealed" || fail "we do not seal"
ours open <"$work/plan" >"$work/opened" || fail "we do not open"
sealed=$(botan check seal <"$work/sealed") || fail "Botan seals otherwise (KEYFALL_SEED=$seed): $sealed"
opened=$(botan check open <"$work/opened") || fail "Botan opens otherwise (KEYFALL_SEED=$seed): $opened"

echo "interop misty1: ok, $texts texts as published; 4000 random keys (seed $seed): Botan agrees on $sealed blocks sealed and $opened opened"
