#!/bin/sh
# Builds the whole image as packaging/docker/Dockerfile says, where there is no Docker and no registry
# of images: its base image is made of Debian's packages and this machine's Rust. Run as root:
#
#   build.sh FOLDER [amd64|arm64]...
#
# leaves FOLDER/wsnic-amd64.tar and so on, and says how large they are. Needs buildah and
# mmdebstrap, and a quarter of an hour the first time. What it does not show: that the image
# rust:1.95-slim-bookworm of the registry has what this one has, which is gcc, rustc, cargo, rustup.
set -eu

sources=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$1"
folder=$(cd "$1" && pwd)
shift
[ $# -gt 0 ] || set -- amd64 arm64
PATH=$PATH:/usr/sbin:/sbin

mkdir -p "$folder/run"
cat > "$folder/storage.conf" << END
[storage]
driver = "overlay"
graphroot = "$folder/store"
runroot = "$folder/run/storage"
END
: > "$folder/registries.conf"
echo '{"default":[{"type":"insecureAcceptAnything"}]}' > "$folder/policy.json"
export CONTAINERS_STORAGE_CONF="$folder/storage.conf"
export CONTAINERS_REGISTRIES_CONF="$folder/registries.conf"
export XDG_RUNTIME_DIR="$folder/run" BUILDAH_ISOLATION=chroot

base=docker.io/library/rust:1.95-slim-bookworm
if ! buildah inspect --type image $base > /dev/null 2>&1; then
	echo "== the base image"
	mirror=$(awk '/^URIs/ { print $2; exit } /^deb / { print $2; exit }' \
		/etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2> /dev/null)
	# It ends its process group when its output goes away, hence a session of its own and a file.
	setsid mmdebstrap --quiet --variant=minbase --include=ca-certificates,gcc,libc6-dev \
		--aptopt='Acquire::Languages "none"' --dpkgopt='path-exclude=/usr/share/doc/*' \
		--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
		bookworm "$folder/base.tar" "deb $mirror bookworm main"
	container=$(buildah from scratch)
	buildah add -q "$container" "$folder/base.tar" / > /dev/null
	buildah config --env PATH=/usr/local/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
	buildah commit -q "$container" $base > /dev/null
	buildah rm "$container" > /dev/null
	rm "$folder/base.tar"
fi

# This machine's Rust, the crates that it has, and whom it trusts: where that is not the world, the
# base image does not know.
cargo fetch --locked --quiet --manifest-path "$sources/Cargo.toml"
registry=${CARGO_HOME:-$HOME/.cargo}/registry
options="--volume $(rustc --print sysroot):/usr/local/rust:ro --volume $registry:/root/.cargo/registry"
for path in /etc/ssl/certs /usr/share/ca-certificates /usr/local/share/ca-certificates; do
	[ ! -d $path ] || options="$options --volume $path:$path:ro"
done

# The buildah of Debian 12 does not know it by itself.
options="$options --build-arg BUILDPLATFORM=linux/$(dpkg --print-architecture)"
for architecture; do
	echo "== the image for $architecture"
	tag=localhost/wsnic:$architecture
	# shellcheck disable=SC2086 # a list of words
	buildah bud $options --format docker --pull-never --signature-policy "$folder/policy.json" \
		--platform "linux/$architecture" --tag "$tag" --layers=false "$sources"
	rm -f "$folder/wsnic-$architecture.tar"
	buildah push -q --signature-policy "$folder/policy.json" "$tag" \
		"docker-archive:$folder/wsnic-$architecture.tar:wsnic:local"
	echo "$folder/wsnic-$architecture.tar has $(stat -c %s "$folder/wsnic-$architecture.tar") bytes"
done
