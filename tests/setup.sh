#!/bin/sh
# Installs what the end-to-end tests need on a Debian 12 machine, or with "programs" what the
# benchmark needs of it. Run as root; quick when everything is there. Says what it does.
set -eu

# program:package
NEEDED="
	ip:iproute2
	bridge:iproute2
	nft:nftables
	iptables:iptables
	busybox:busybox-static
	capsh:libcap2-bin
	ping:iputils-ping
	tcpdump:tcpdump
	ps:procps
	nsenter:util-linux
	unshare:util-linux
	curl:curl
	openssl:openssl
	flock:util-linux
	systemctl:systemd
	systemd-analyze:systemd
	cc:gcc
	node:nodejs
	npm:npm
"
# What the tests alone need.
[ "${1:-}" = programs ] || NEEDED="$NEEDED
	nginx:nginx-light
	apache2:apache2
	htpasswd:apache2-utils
	dnsmasq:dnsmasq-base
	haproxy:haproxy
	caddy:caddy
	promtool:prometheus
	tshark:tshark
	chromium:chromium
	certutil:libnss3-tools
	python3:python3
	pip3:python3-pip
	man:man-db
	mandoc:mandoc
	zsh:zsh
	fish:fish
	lintian:lintian
	mmdebstrap:mmdebstrap
	buildah:buildah
	podman:podman
	podman-compose:podman-compose
	runc:runc
"

say() {
	echo "setup: $*"
}

# A mirror may be out of reach for a moment.
apt() {
	DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::Retries=3 "$@"
}

[ "$(id -u)" = 0 ] || { say "run this as root" >&2; exit 1; }
PATH=$PATH:/usr/sbin:/sbin

packages=
for pair in $NEEDED; do
	command -v "${pair%%:*}" > /dev/null || packages="$packages ${pair#*:}"
done
# The plain busybox package has no DHCP client.
if command -v busybox > /dev/null && ! busybox --list | grep -qx udhcpc; then
	packages="$packages busybox-static"
fi

if [ -n "$packages" ]; then
	say "installing$packages"
	apt update
	# Web servers are to be there, not to run: tests start their own.
	policy=/usr/sbin/policy-rc.d
	if [ ! -e $policy ]; then
		trap 'rm -f $policy' EXIT
		printf '#!/bin/sh\nexit 101\n' > $policy
		chmod 0755 $policy
	fi
	# shellcheck disable=SC2086 # a list of words
	apt install -y --no-install-recommends $packages > /dev/null
else
	say "all programs are there"
fi

if [ ! -c /dev/net/tun ]; then
	say "making /dev/net/tun"
	mkdir -p /dev/net
	mknod /dev/net/tun c 10 200
	chmod 0666 /dev/net/tun
fi

[ "${1:-}" != programs ] || exit 0

here=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../target}
mkdir -p "$target"
say "an emulated machine for the tests with v86: $target/v86"
"$here/v86/build.sh" "$target/v86"
say "WebSocket clients for Node and Python: $target/clients"
"$here/clients/build.sh" "$target/clients"
say "the Autobahn testsuite: $target/autobahn"
"$here/autobahn/build.sh" "$target/autobahn"
say "a Debian for the tests of the package: $target/debian"
"$here/debian/build.sh" "$target/debian"
