#!/usr/bin/env bash
# MISTY1 and the suite rsa-misty1 between Keyfall and other people's code, both ways: the block cipher by Debian's Botan
# (RFC 2994's appendix, our vectors, thousands of random keys), whole exchanges by Python's cryptography and Botan.
# Usage: interop/misty1/run.sh
# Exit code 77: skipped, because Debian's Botan (Botan 3 has no MISTY1 any more) or the Python packages are missing.
set -u
cd "$(dirname "$0")/../.."
export PYTHONDONTWRITEBYTECODE=1

debian=/usr/bin/python3
botan() { "$debian" interop/misty1/botan_misty1.py "$@"; }

if ! botan present >/dev/null 2>&1; then
  echo "interop misty1: skipped, Botan with MISTY1 is missing (Debian: python3-botan)"
  exit 77
fi
if [ -z "${PYTHON:-}" ]; then
  bash scripts/python-env || exit $?
  PYTHON="${CARGO_TARGET_DIR:-target}/venv/bin/python3"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
  echo "interop misty1: FAILED, $1"
  exit 1
}

ours() { cargo run --quiet --locked -p keyfall-protocol --example interop_misty1 -- "$@"; }
theirs() { "$PYTHON" interop/misty1/exchange.py "$@"; }

texts=$(botan vectors interop/vectors/misty1.json) || fail "Botan does not agree with interop/vectors/misty1.json"
cargo build --quiet --locked -p keyfall-protocol --example interop_misty1 || fail "our example does not build"
seed=${KEYFALL_SEED:-$RANDOM}
botan plan 4000 "$seed" >"$work/plan" || fail "there is no plan"
ours seal <"$work/plan" >"$work/sealed" || fail "we do not seal"
ours open <"$work/plan" >"$work/opened" || fail "we do not open"
sealed=$(botan check seal <"$work/sealed") || fail "Botan seals otherwise (KEYFALL_SEED=$seed)"
opened=$(botan check open <"$work/opened") || fail "Botan opens otherwise (KEYFALL_SEED=$seed)"

checks=$(theirs vectors interop/vectors/rsa_misty1.json) || fail "they do not agree with interop/vectors/rsa_misty1.json"
theirs plan "$work/expected" >"$work/exchanges" || fail "they make no exchanges"
ours answer <"$work/exchanges" >"$work/answers" || fail "we do not answer"
answers=$(theirs check "$work/expected" <"$work/answers") || fail "we answer otherwise"

echo "interop misty1: $texts texts as published; 4000 random keys (seed $seed), $sealed blocks sealed and $opened opened alike"
echo "interop misty1: ok, $checks checks of our exchanges by theirs, $answers of theirs answered by ours as they must be"
