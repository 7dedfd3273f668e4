#!/bin/sh
# Builds wsnic's programs as static ones, which need no library of the machine that they run on:
#
#   static.sh amd64|arm64 FOLDER [PROFILE]
#
# leaves them in FOLDER. PROFILE is that of cargo, release if not given. Needs rustup's target for
# musl, which is installed if it is not there, and Debian's gcc for the processor (gcc, or for
# another than this machine's gcc-aarch64-linux-gnu and libc6-dev-arm64-cross, or gcc-x86-64-linux-gnu
# and libc6-dev-amd64-cross): it compiles the C of one crate, ring. Nothing of it is linked.
set -eu

case ${1-} in
amd64) processor=x86_64 ;;
arm64) processor=aarch64 ;;
*)
	echo "usage: static.sh amd64|arm64 FOLDER [PROFILE]" >&2
	exit 2
	;;
esac
folder=$2
profile=${3:-release}
target=$processor-unknown-linux-musl
cd "$(dirname "$0")/.."

[ -d "$(rustc --print sysroot)/lib/rustlib/$target" ] || rustup target add "$target"
compiler=$processor-linux-gnu-gcc
command -v "$compiler" > /dev/null || {
	echo "static.sh: there is no $compiler, which Debian has in gcc-$(echo $processor | tr _ -)-linux-gnu" >&2
	exit 1
}

name=$(echo "$target" | tr - _)
upper=$(echo "$name" | tr '[:lower:]' '[:upper:]')
# The linker comes with Rust, and so does the C library.
env "CC_$name=$compiler" "CARGO_TARGET_${upper}_LINKER=rust-lld" \
	CARGO_PROFILE_RELEASE_STRIP=symbols CARGO_PROFILE_DEV_STRIP=symbols \
	"${CARGO:-cargo}" build --locked --profile "$profile" --target "$target" \
	--package wsnic --package wsnic-priv --package wsnic-front

# The profile of tests has a folder of another name.
built=${CARGO_TARGET_DIR:-target}/$target/$(echo "$profile" | sed 's/^dev$/debug/')
mkdir -p "$folder"
install -m 0755 -t "$folder" "$built/wsnic" "$built/wsnic-priv" "$built/wsnic-front"
