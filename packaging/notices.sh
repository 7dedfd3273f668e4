#!/bin/sh
# Prints who else has written what is linked into wsnic's programs, and on which terms: every crate
# with its licence, then the texts of these licences, each once; where there is a choice that of MIT.
# notices.sh TARGET
set -eu
cd "$(dirname "$0")/.."

registry=${CARGO_HOME:-$HOME/.cargo}/registry/src
# What is generated at build time, such as derived code, is part of the programs too.
crates=$("${CARGO:-cargo}" tree --locked --quiet --package wsnic --package wsnic-priv \
	--package wsnic-front --edges normal --target "$1" --prefix none --format '{p}|{l}' |
	grep -v -e "($PWD" -e '^$' | sed 's/ (proc-macro)//; s/ (\*)//' | sort -u)

echo "wsnic is made with Rust's standard library (MIT OR Apache-2.0), as a static program with the C"
echo "library musl (MIT), and with these crates:"
echo
echo "$crates" | sed 's/^\([^ ]*\) v\([^|]*\)|\(.*\)$/  \1 \2: \3/'

seen=
echo "$crates" | while IFS='|' read -r crate _; do
	folder=$(echo "$crate" | sed 's/ v/-/')
	for file in "$registry"/*/"$folder"/LICEN[CS]E* "$registry"/*/"$folder"/COPYING* \
		"$registry"/*/"$folder"/NOTICE*; do
		[ -f "$file" ] || continue
		case $file in
		*APACHE* | *Apache* | *UNLICENSE*) ! ls "$registry"/*/"$folder"/LICENSE-MIT > /dev/null 2>&1 || continue ;;
		esac
		sum=$(cksum < "$file" | cut -d ' ' -f 1,2 | tr ' ' -)
		case " $seen " in *" $sum "*) continue ;; esac
		seen="$seen $sum"
		printf '\n==== %s, %s ====\n\n' "$folder" "${file##*/}"
		cat "$file"
	done
done
