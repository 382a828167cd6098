#!/usr/bin/env bash
# The Linux kernel's own ESP in UDP, in a virtual machine without KVM or root: it opens ours, sent to its address and to
# a group, in three suites; it refuses replays; it sends to us as a stock sender on a pinned SA, and we refuse replays.
# Usage: interop/kernel/run.sh
# Exit code 77: skipped, because a program, Debian's kernel or the Python packages cannot be had; the last line says which.
set -eu
cd "$(dirname "$0")/../.."
target="${CARGO_TARGET_DIR:-target}"

skip() {
  echo "interop kernel: skipped, $1"
  exit 77
}

for program in qemu-system-x86_64 busybox cpio gcc depmod ip dpkg apt-cache; do
  PATH="$PATH:/usr/sbin:/sbin" command -v "$program" >/dev/null || skip "$program is missing (scripts/packages names the Debian packages)"
done
busybox=$(command -v busybox)
file=$(ldd "$busybox" 2>&1 || true)
case "$file" in *"not a dynamic executable"*) ;; *) skip "busybox is not a static one (Debian: busybox-static)" ;; esac
if [ -z "${PYTHON:-}" ]; then
  bash scripts/python-env
  PYTHON="$target/venv/bin/python3"
fi

# The kernel of Debian's cloud images: small, and all modules that ESP needs are in its package.
kernel="$target/kernel-guest"
if [ ! -f "$kernel/boot/vmlinuz" ]; then
  package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
  [ -n "$package" ] || skip "apt knows no linux-image-cloud-amd64"
  rm -rf "$kernel"
  mkdir -p "$kernel"
  (cd "$kernel" && apt-get download "$package" >/dev/null 2>&1) || skip "apt-get cannot download $package"
  dpkg -x "$kernel"/*.deb "$kernel"
  rm -f "$kernel"/*.deb
  mv "$kernel"/boot/vmlinuz-* "$kernel/boot/vmlinuz"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo 'int main(void) { return 0; }' | gcc -static -x c -o "$work/static" - 2>/dev/null || skip "no static C library (Debian: libc6-dev)"
gcc -static -std=gnu11 -Wall -Wextra -Werror -O1 -o "$work/listen" interop/kernel/listen.c
cargo build --quiet --locked -p keyfall-plane --example interop_esp
export PYTHONDONTWRITEBYTECODE=1
PATH="$PATH:/usr/sbin:/sbin" PYTHONPATH=interop/esp "$PYTHON" interop/kernel/guest.py "$target/debug/examples/interop_esp" "$kernel" "$work"
