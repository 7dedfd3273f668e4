#!/bin/sh
# Makes a small Debian with systemd, on which the tests install the package: build.sh FOLDER [SUITE]
#
# Does nothing if it is there. Needs mmdebstrap and a mirror; takes a minute.
set -eu

folder=$1
suite=${2:-bookworm}
PATH=$PATH:/usr/sbin:/sbin

[ ! -e "$folder/$suite.made" ] || exit 0
mirror=$(awk '/^URIs/ { print $2; exit } /^deb / { print $2; exit }' \
	/etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2> /dev/null)
mkdir -p "$folder"
rm -rf "${folder:?}/$suite"
# It ends its process group when its output goes away, hence a session of its own. What belongs to
# packages that are installed later is not left out.
setsid mmdebstrap --quiet --mode=root --variant=minbase --include=systemd,systemd-sysv \
	--aptopt='Acquire::Languages "none"' --dpkgopt='path-exclude=/usr/share/doc/*' \
	--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
	--customize-hook='rm "$1"/etc/dpkg/dpkg.cfg.d/99mmdebstrap' \
	--customize-hook='rm -r "$1"/var/lib/apt/lists "$1"/var/cache/apt' \
	"$suite" "$folder/$suite" "deb $mirror $suite main"
touch "$folder/$suite.made"
