#!/bin/sh
# build.sh OUT: puts WebSocket clients for Node and Python into the folder OUT. Needs the network
# (npm and pip) the first time; quick and silent when everything is there.
# Needs: npm, python3 with pip.
set -eu

WEBSOCKETS=15.0.1
HERE=$(cd "$(dirname "$0")" && pwd)
OUT=${1:?usage: build.sh OUT}

mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
exec 9> "$OUT/.lock"
flock 9
if ! cmp -s "$HERE/package-lock.json" "$OUT/package-lock.json"; then
	echo "clients: fetching ws for Node" >&2
	cp "$HERE/package.json" "$OUT/package.json"
	cp "$HERE/package-lock.json" "$OUT/package-lock.json"
	if ! (cd "$OUT" && npm ci --silent --no-audit --no-fund >&2); then
		rm -f "$OUT/package-lock.json"
		echo "clients: npm failed" >&2
		exit 1
	fi
fi
if [ ! -d "$OUT/python/websockets-$WEBSOCKETS.dist-info" ]; then
	echo "clients: fetching websockets for Python" >&2
	rm -rf "$OUT/python"
	python3 -m pip install --quiet --disable-pip-version-check --no-compile --no-deps \
		--target "$OUT/python" "websockets==$WEBSOCKETS" >&2
fi
