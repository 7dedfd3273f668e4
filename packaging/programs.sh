#!/bin/sh
# Builds wsnic's programs for one kind of machine:
#
#   programs.sh gnu|musl amd64|arm64 FOLDER [PROFILE]
#
# leaves them in FOLDER, with the licences of what is in them (NOTICES). Those for gnu need the C
# library of Debian 12 or later; those for musl are static and need nothing. PROFILE is that of
# cargo, release if not given.
#
# Needs rustup's target, which is installed if it is not there, and Debian's gcc for the processor:
# gcc, or for another than this machine's gcc-aarch64-linux-gnu and libc6-dev-arm64-cross, or
# gcc-x86-64-linux-gnu and libc6-dev-amd64-cross. One crate, ring, has code in C.
set -eu

case ${1-}/${2-} in
gnu/amd64 | musl/amd64) processor=x86_64 ;;
gnu/arm64 | musl/arm64) processor=aarch64 ;;
*)
	echo "usage: programs.sh gnu|musl amd64|arm64 FOLDER [PROFILE]" >&2
	exit 2
	;;
esac
library=$1
folder=$3
profile=${4:-release}
target=$processor-unknown-linux-$library
cd "$(dirname "$0")/.."

[ -d "$(rustc --print sysroot)/lib/rustlib/$target" ] || rustup target add "$target"
compiler=$processor-linux-gnu-gcc
command -v "$compiler" > /dev/null || {
	echo "programs.sh: there is no $compiler, which Debian has in gcc-$(echo $processor | tr _ -)-linux-gnu" >&2
	exit 1
}
# Rust brings the C library of static programs, and a linker that needs no other.
linker=$compiler
[ "$library" = gnu ] || linker=rust-lld

name=$(echo "$target" | tr - _)
upper=$(echo "$name" | tr '[:lower:]' '[:upper:]')
env "CC_$name=$compiler" "CARGO_TARGET_${upper}_LINKER=$linker" \
	"${CARGO:-cargo}" build --locked --profile "$profile" --target "$target" \
	--package wsnic --package wsnic-priv --package wsnic-front

# The profile of tests has a folder of another name.
built=${CARGO_TARGET_DIR:-target}/$target/$(echo "$profile" | sed 's/^dev$/debug/')
mkdir -p "$folder"
for program in wsnic wsnic-priv wsnic-front; do
	install -m 0755 -t "$folder" "$built/$program"
	"$processor-linux-gnu-strip" "$folder/$program"
done
packaging/notices.sh "$target" > "$folder/NOTICES"
