#!/usr/bin/env bash
# SRTP and SRTCP between Keyfall and libsrtp, both ways: three suites, a 14-octet MKI through several n and two
# generations, and static streams without MKI. Each packet also with one bit changed and replayed.
# Usage: interop/srtp/run.sh
# Exit code 77: skipped, because a compiler or libsrtp's headers are missing.
set -u
cd "$(dirname "$0")/../.."

if ! command -v gcc >/dev/null; then
  echo "interop srtp: skipped, gcc is missing"
  exit 77
fi
if ! echo '#include <srtp2/srtp.h>' | gcc -E - >/dev/null 2>&1; then
  echo "interop srtp: skipped, the headers of libsrtp are missing (Debian: libsrtp2-dev)"
  exit 77
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
  echo "interop srtp: FAILED, $1"
  exit 1
}

ours() { cargo run --quiet --locked -p keyfall-plane --example interop_srtp -- "$@"; }
peer="$work/libsrtp_peer"

gcc -std=c11 -Wall -Wextra -Werror -O1 -o "$peer" interop/srtp/libsrtp_peer.c -lsrtp2 || fail "libsrtp_peer.c does not build"
cargo build --quiet --locked -p keyfall-plane --example interop_srtp || fail "our example does not build"

ours seal >"$work/ours" || fail "we do not seal"
to_them=$("$peer" open <"$work/ours") || fail "libsrtp does not open what we seal"
ours plan >"$work/plan" || fail "we have no plan"
"$peer" seal <"$work/plan" >"$work/theirs" || fail "libsrtp does not seal"
to_us=$(ours open <"$work/theirs") || fail "we do not open what libsrtp seals"

# Same key, index and plain text: SRTP leaves no choice, so both sides must have sealed it to the same octets.
cmp -s <(grep '^rtp ' "$work/ours") <(grep '^rtp ' "$work/theirs") || fail "the sealed SRTP packets differ"

echo "interop srtp: ok, libsrtp opened $to_them of ours, we opened $to_us of libsrtp; sealed SRTP is equal octet by octet"
