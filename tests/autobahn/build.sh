#!/bin/sh
# build.sh OUT: puts the Autobahn testsuite, with the Python 2 that it needs, into the folder OUT.
# Nothing is installed on the system. Needs the network (apt and pip) the first time; quick and
# silent when everything is there. Needs: apt-get, dpkg-deb, python3 with pip.
set -eu

# The last release of Debian with Python 2.7.
SUITE=bullseye
ARCHIVE=http://archive.debian.org/debian
HERE=$(cd "$(dirname "$0")" && pwd)
OUT=${1:?usage: build.sh OUT}

main() {
	mkdir -p "$OUT"
	OUT=$(cd "$OUT" && pwd)
	exec 9> "$OUT/.lock"
	flock 9
	if ! cmp -s "$HERE/build.sh" "$OUT/done"; then
		echo "autobahn: fetching Python 2.7 and the testsuite" >&2
		rm -rf "$OUT/python" "$OUT/debs" "$OUT/boot" "$OUT/lib" "$OUT/apt" "$OUT/apt.conf"
		python
		modules
		rm -rf "$OUT/debs" "$OUT/boot" "$OUT/apt" "$OUT/apt.conf"
		cp "$HERE/build.sh" "$OUT/done"
	fi
}

# Packages of an old release come through an apt configuration of their own, so that the machine's
# is untouched.
python() {
	mkdir -p "$OUT/debs" "$OUT/python" "$OUT/apt/etc/apt.conf.d" "$OUT/apt/etc/sources.list.d" \
		"$OUT/apt/etc/preferences.d" "$OUT/apt/state/lists/partial" "$OUT/apt/cache/archives/partial"
	: > "$OUT/apt/state/status"
	cat > "$OUT/apt.conf" <<-EOT
		APT::Architecture "amd64";
		APT::Architectures { "amd64"; };
		APT::Sandbox::User "root";
		Acquire::Languages "none";
		Acquire::GzipIndexes "true";
		Acquire::Check-Valid-Until "false";
		Acquire::Retries "3";
		Dir::Etc "$OUT/apt/etc";
		Dir::Etc::TrustedParts "/etc/apt/trusted.gpg.d";
		Dir::State "$OUT/apt/state";
		Dir::State::status "$OUT/apt/state/status";
		Dir::Cache "$OUT/apt/cache";
	EOT
	packages "$(mirror)" || packages "$ARCHIVE"
	for package in "$OUT"/debs/*.deb; do
		dpkg-deb -x "$package" "$OUT/python"
	done
	# The modules find it by this; everything else of the environment stays out.
	cat > "$OUT/py" <<-EOT
		#!/bin/sh
		here=\$(cd "\$(dirname "\$0")" && pwd)
		export LD_LIBRARY_PATH="\$here/python/usr/lib/x86_64-linux-gnu" PYTHONHOME="\$here/python/usr"
		export PYTHONPATH="\$here/lib\${BOOT:+:\$BOOT}" PYTHONDONTWRITEBYTECODE=1
		exec "\$here/python/usr/bin/python2.7" -W ignore "\$@"
	EOT
	chmod +x "$OUT/py"
}

packages() {
	printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\n' "$1" "$SUITE" \
		> "$OUT/apt/etc/sources.list.d/debian.sources"
	printf 'Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n' \
		>> "$OUT/apt/etc/sources.list.d/debian.sources"
	(
		export APT_CONFIG="$OUT/apt.conf"
		apt-get -qq update || exit 1
		cd "$OUT/debs" && apt-get -qq download python2.7-minimal python2.7 \
			libpython2.7-minimal libpython2.7-stdlib libssl1.1 libffi7
	)
}

# The machine's own Debian mirror, whichever of apt's two formats names it.
mirror() {
	uri=$(sed -n 's/^URIs: *\([^ ]*\).*/\1/p' /etc/apt/sources.list.d/debian.sources 2> /dev/null | head -n 1)
	[ -n "$uri" ] || uri=$(sed -n 's/^deb \(\[[^]]*\] \)\?\(http[^ ]*debian\/\?\) .*/\2/p' /etc/apt/sources.list | head -n 1)
	printf '%s' "${uri:-$ARCHIVE}"
}

modules() {
	# The last versions for Python 2.
	python3 -m pip download --quiet --no-deps --dest "$OUT/boot" --ignore-requires-python \
		--python-version 27 --only-binary=:all: pip==20.3.4 setuptools==44.1.1 wheel==0.37.1
	pip="$OUT/boot/pip-20.3.4-py2.py3-none-any.whl/pip"
	BOOT=$(printf '%s:' "$OUT"/boot/*.whl)
	BOOT=$BOOT "$OUT/py" "$pip" install --quiet --target "$OUT/lib" --no-warn-script-location \
		setuptools==44.1.1 wheel==0.37.1
	"$OUT/py" "$OUT/boot/pip-20.3.4-py2.py3-none-any.whl/pip" install --quiet --target "$OUT/lib" \
		--no-build-isolation --upgrade Twisted==20.3.0 pyOpenSSL==21.0.0 cryptography==3.3.2 \
		service_identity==18.1.0 klein==20.6.0 Jinja2==2.11.3 MarkupSafe==1.1.1 Werkzeug==1.0.1 \
		txaio==2.1.0 six==1.16.0 attrs==21.4.0 pyasn1-modules==0.2.8 pyasn1==0.4.8 unittest2==1.1.0
	# They come with a piece of Twisted of their own, which would hide it.
	"$OUT/py" "$OUT/boot/pip-20.3.4-py2.py3-none-any.whl/pip" install --quiet --target "$OUT/lib2" \
		--no-build-isolation --no-deps autobahn==0.10.9 autobahntestsuite==0.8.2
	mv "$OUT/lib2/autobahn" "$OUT/lib2/autobahntestsuite" "$OUT"/lib2/*.dist-info "$OUT/lib/"
	rm -rf "$OUT/lib2"
	touch "$OUT/lib/zope/__init__.py"
}

main
