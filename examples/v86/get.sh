#!/bin/sh
# get.sh [FOLDER]: puts v86 and a small Linux for it into FOLDER, by default files beside the page.
# Takes v86 from npm, kernel, busybox and BIOS from Debian (80 MB once). Needs Debian, nodejs and npm.
set -eu

HERE=$(cd "$(dirname "$0")" && pwd)
OUT=${1:-$HERE/files}
BUILT=${CARGO_TARGET_DIR:-$HERE/../../target}/v86

"$HERE/../../tests/v86/build.sh" "$BUILT"
mkdir -p "$OUT"
cp "$BUILT/npm/node_modules/v86/build/libv86.js" "$BUILT/npm/node_modules/v86/build/v86.wasm" \
	"$BUILT/vmlinuz" "$BUILT/initrd.cpio" "$BUILT/kernel/root/usr/share/seabios/bios.bin" "$OUT"
cp "$BUILT/kernel/root/usr/share/seabios/vgabios-stdvga.bin" "$OUT/vgabios.bin"
