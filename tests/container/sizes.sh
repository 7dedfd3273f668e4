#!/bin/sh
# How large images and the programs in them may be, see docs/performance.md:
#
#   sizes.sh FOLDER [amd64|arm64]...
#
# reads FOLDER/wsnic-amd64.tar and so on, as build.sh leaves them, and fails if something is larger. Of a
# debug build it would say nothing, so "make test" does not run it.
set -eu

folder=$1
shift
[ $# -gt 0 ] || set -- amd64 arm64
bad=0

at_most() {
	echo "$1: $2 bytes of at most $3"
	[ "$2" -le "$3" ] || { echo "sizes.sh: $1 is too large" >&2 && bad=1; }
}

for architecture; do
	image=$folder/wsnic-$architecture.tar
	at_most "image for $architecture" "$(stat -c %s "$image")" 25000000
	# The archive has a tar for each layer; its list says where they are.
	layers=$(tar -xOf "$image" manifest.json | sed 's/.*"Layers":\[\([^]]*\)\].*/\1/; s/[",]/ /g')
	listed=$(for layer in $layers; do tar -xOf "$image" "$layer" | tar -tv; done)
	size_of() {
		echo "$listed" | awk -v path="/$1\$" '$6 ~ path && $3 > 0 { size = $3 } END { print size }'
	}
	helper=$(size_of wsnic-priv)
	front_end=$(size_of wsnic-front)
	if [ -z "$helper" ] || [ -z "$front_end" ]; then
		echo "sizes.sh: the programs are not in $image" >&2
		exit 1
	fi
	at_most "wsnic-priv for $architecture" "$helper" 2500000
	at_most "wsnic-priv and wsnic-front for $architecture" $((helper + front_end)) 8000000
done
exit $bad
