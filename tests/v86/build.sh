#!/bin/sh
# build.sh OUT: puts a v86 emulator and a small i386 Linux for it into the folder OUT. Needs the
# network (apt and npm) the first time; quick and silent when everything is there.
# Needs: apt-get, dpkg-deb, node, npm.
set -eu

SUITE=bookworm
HERE=$(cd "$(dirname "$0")" && pwd)
OUT=${1:?usage: build.sh OUT}

main() {
	mkdir -p "$OUT"
	OUT=$(cd "$OUT" && pwd)
	exec 9> "$OUT/.lock"
	flock 9
	[ -e "$OUT/kernel/done" ] || kernel
	cmp -s "$HERE/package-lock.json" "$OUT/npm/package-lock.json" || emulator
	node "$HERE/initramfs.mjs" "$OUT/kernel/root" "$OUT/initrd.cpio"
}

# i386 packages come through an apt configuration of their own, so that the machine's is untouched.
kernel() {
	echo "v86: fetching the guest's kernel, busybox and BIOS" >&2
	K=$OUT/kernel
	rm -rf "$K"
	mkdir -p "$K/root" "$K/debs" "$K/apt/etc/apt.conf.d" "$K/apt/etc/sources.list.d" \
		"$K/apt/etc/preferences.d" "$K/apt/state/lists/partial" "$K/apt/cache/archives/partial"
	: > "$K/apt/state/status"
	mirror > "$K/apt/etc/sources.list.d/debian.sources"
	cat > "$K/apt.conf" <<-EOF
		APT::Architecture "i386";
		APT::Architectures { "i386"; };
		APT::Sandbox::User "root";
		Acquire::Languages "none";
		Acquire::GzipIndexes "true";
		Dir::Etc "$K/apt/etc";
		Dir::Etc::TrustedParts "/etc/apt/trusted.gpg.d";
		Dir::State "$K/apt/state";
		Dir::State::status "$K/apt/state/status";
		Dir::Cache "$K/apt/cache";
	EOF
	export APT_CONFIG="$K/apt.conf"
	apt-get -qq update
	# The newest kernel that the meta-package for machines without PAE names.
	image=$(apt-cache depends linux-image-686 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
	(cd "$K/debs" && apt-get -qq download "$image" busybox-static seabios)
	dpkg-deb --fsys-tarfile "$K"/debs/linux-image-*.deb | tar -x -C "$K/root" --wildcards \
		'./boot/vmlinuz-*' '*/drivers/virtio/*' '*/drivers/net/*failover*' '*/net/core/failover*' \
		'*/drivers/net/virtio_net*' '*/ethernet/8390/*'
	dpkg-deb -x "$K"/debs/busybox-static_*.deb "$K/root"
	dpkg-deb -x "$K"/debs/seabios_*.deb "$K/root"
	unset APT_CONFIG
	cp "$K"/root/boot/vmlinuz-* "$OUT/vmlinuz"
	rm -rf "$K/debs" "$K/apt" "$K/apt.conf"
	touch "$K/done"
}

# The machine's own Debian mirror, whichever of apt's two formats names it.
mirror() {
	uri=$(sed -n 's/^URIs: *\([^ ]*\).*/\1/p' /etc/apt/sources.list.d/debian.sources 2> /dev/null | head -n 1)
	[ -n "$uri" ] || uri=$(sed -n 's/^deb \(\[[^]]*\] \)\?\(http[^ ]*debian\/\?\) .*/\2/p' /etc/apt/sources.list | head -n 1)
	printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\n' "${uri:?no Debian mirror in the sources of apt}" "$SUITE"
	printf 'Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n'
}

emulator() {
	echo "v86: fetching the emulator" >&2
	mkdir -p "$OUT/npm"
	cp "$HERE/package.json" "$OUT/npm/"
	cp "$HERE/package-lock.json" "$OUT/npm/package-lock.json.new"
	mv "$OUT/npm/package-lock.json.new" "$OUT/npm/package-lock.json"
	if ! (cd "$OUT/npm" && npm ci --silent --no-audit --no-fund >&2); then
		rm -f "$OUT/npm/package-lock.json"
		echo "v86: npm failed" >&2
		exit 1
	fi
}

main
