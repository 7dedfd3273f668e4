#!/bin/sh
# Makes a Debian package of programs that are built:
#
#   package.sh amd64|arm64 PROGRAMS FOLDER [REVISION]
#
# leaves FOLDER/wsnic_VERSION-REVISION_ARCHITECTURE.deb; PROGRAMS is what programs.sh has made for gnu,
# REVISION is 1 if not given. MANUAL is the program that makes man pages and completions,
# SOURCE_DATE_EPOCH the time of the package. Needs dpkg-deb and binutils for the processor.
set -eu

architecture=$1
programs=$(cd "$2" && pwd)
mkdir -p "$3"
folder=$(cd "$3" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
number=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
version=$number-${4:-1}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(date +%s)}
export SOURCE_DATE_EPOCH
maintainer=${MAINTAINER:-wsnic maintainers <wsnic@packages.invalid>}

case $architecture in
amd64) tools=x86_64-linux-gnu ;;
arm64) tools=aarch64-linux-gnu ;;
esac

root=$(mktemp -d)
trap 'rm -r "$root"' EXIT
chmod 0755 "$root"
make --silent install-files RELEASE="$programs" DESTDIR="$root" MANUAL="$MANUAL" MAKEFLAGS=
for program in usr/bin/wsnic usr/libexec/wsnic/wsnic-priv usr/libexec/wsnic/wsnic-front; do
	"$tools-strip" --remove-section=.comment "$root/$program"
done

doc=$root/usr/share/doc/wsnic
install -m 0644 "$here/copyright" "$doc/copyright"
sed -n '/^Permission/,$p' LICENSE | sed 's/^$/./; s/^/ /' >> "$doc/copyright"
install -m 0644 "$programs/NOTICES" CHANGELOG.md "$doc"
mv "$doc/CHANGELOG.md" "$doc/changelog"
cat > "$doc/changelog.Debian" << END
wsnic ($version) unstable; urgency=medium

  * What is new stands in changelog.gz.

 -- $maintainer  $(date -u -R -d "@$SOURCE_DATE_EPOCH")
END
chmod 0644 "$doc/changelog.Debian"
gzip -9n "$doc/changelog" "$doc/changelog.Debian" "$doc/NOTICES" "$root"/usr/share/man/man*/*

# What the programs need of the C library, by the newest symbol that they ask for.
libc=$(readelf --wide --version-info "$root"/usr/bin/wsnic "$root"/usr/libexec/wsnic/* |
	sed -n 's/.*Name: GLIBC_\([0-9.]*\) .*/\1/p' | sort -V | tail -n 1)
needed=$(readelf --wide --dynamic "$root"/usr/bin/wsnic "$root"/usr/libexec/wsnic/* |
	sed -n 's/.*Shared library: \[\(.*\)\]/\1/p' | sort -u)
for library in $needed; do
	case $library in
	libc.so.6 | libm.so.6 | libgcc_s.so.1 | ld-linux*) ;;
	*)
		echo "package.sh: no package is known for $library" >&2
		exit 1
		;;
	esac
done

mkdir "$root/DEBIAN"
sed -e "s/@VERSION@/$version/" -e "s/@ARCHITECTURE@/$architecture/" -e "s/@LIBC@/$libc/" \
	-e "s/@MAINTAINER@/$maintainer/" -e "s/@SIZE@/$(du -sk --exclude=DEBIAN "$root" | cut -f 1)/" \
	"$here/control" > "$root/DEBIAN/control"
install -m 0755 -t "$root/DEBIAN" "$here/postinst" "$here/prerm" "$here/postrm"
echo /etc/wsnic/wsnic.conf > "$root/DEBIAN/conffiles"
(cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum > DEBIAN/md5sums)
chmod 0644 "$root"/DEBIAN/control "$root"/DEBIAN/conffiles "$root"/DEBIAN/md5sums
find "$root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

dpkg-deb --root-owner-group --build "$root" "$folder/wsnic_${version}_$architecture.deb"
