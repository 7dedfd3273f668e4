#!/bin/sh
# Lays out the file system of the image: rootfs.sh PROGRAMS FOLDER
#
# PROGRAMS is what programs.sh has made for musl. The image has nothing else but two users, and the folders
# in which sockets, configuration and leases can lie.
set -eu

programs=$1
root=$2
here=$(cd "$(dirname "$0")" && pwd)

install -D -m 0755 -t "$root/usr/bin" "$programs/wsnic"
install -D -m 0755 -t "$root/usr/libexec/wsnic" "$programs/wsnic-priv" "$programs/wsnic-front"
install -D -m 0644 -t "$root/usr/share/doc/wsnic" "$here/../../LICENSE" "$programs/NOTICES"
# cert.crt, cert.key and wsnic.conf are mounted below /opt/wsnic, leases can be kept in /var/lib/wsnic.
# The front-end's root becomes /var/empty.
mkdir -p "$root/run" "$root/etc" "$root/opt/wsnic/cert" "$root/var/lib/wsnic"
install -d -m 0555 "$root/var/empty"
cat > "$root/etc/passwd" << 'END'
root:x:0:0:root:/:/nonexistent
wsnic:x:65522:65522:wsnic front-end:/:/nonexistent
wsnic-priv:x:65523:65523:wsnic helper:/:/nonexistent
END
cat > "$root/etc/group" << 'END'
root:x:0:
wsnic:x:65522:
wsnic-priv:x:65523:
END
chmod 0644 "$root/etc/passwd" "$root/etc/group"
