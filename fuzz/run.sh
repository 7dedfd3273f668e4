#!/usr/bin/env bash
# Fuzzes the targets that are named, or all: FUZZ_SECONDS each (60), stopping at the first finding.
#   fuzz/run.sh [TARGET...]
#   fuzz/run.sh replay TARGET FILE...    runs files through a target, with a backtrace
#   fuzz/run.sh minimize [TARGET...]     adds to the corpora what of the finds takes a new branch
# Needs a Rust toolchain and a C++ compiler (g++, for libFuzzer), nothing else.
set -euo pipefail
cd "$(dirname "$0")"

main() {
	local target=${CARGO_TARGET_DIR:-$PWD/target} host
	host=$(rustc -vV | sed -n 's/^host: //p')
	programs=$target/$host/release
	finds=$target/finds
	build "$target" "$host"
	case ${1:-} in
	replay) shift; replay "$@" ;;
	minimize) shift; each minimize "$@" ;;
	*) each fuzz "$@" ;;
	esac
}

# The flags are those of "cargo fuzz --sanitizer none": all stable, all safe code, so no sanitizer
# is needed. With --target they do not reach build scripts.
build() {
	local coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
		-Cllvm-args=-sanitizer-coverage-inline-8bit-counters
		-Cllvm-args=-sanitizer-coverage-pc-table
		-Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing"
	echo "== building the fuzzers"
	command -v c++ > /dev/null || {
		echo "a C++ compiler is missing: apt install g++" >&2
		exit 1
	}
	CARGO_TARGET_DIR=$1 RUSTFLAGS=$(echo $coverage) \
		"${CARGO:-cargo}" build --quiet --release --target "$2"
}

each() {
	local what=$1 name
	shift
	[ $# -gt 0 ] || set -- $(ls corpus)
	for name; do "$what" "$name"; done
}

fuzz() {
	local seconds=${FUZZ_SECONDS:-60}
	echo "== fuzzing $1 for $seconds s"
	mkdir -p "$finds/$1" "artifacts/$1"
	# What is new goes to the first directory.
	"$programs/$1" -max_total_time="$seconds" -max_len="$(longest "$1")" -timeout=10 \
		-rss_limit_mb=1024 -artifact_prefix="artifacts/$1/" -verbosity=0 -print_final_stats=1 \
		"$finds/$1" "corpus/$1" > "$finds/$1.log" 2>&1 || {
		grep -aE 'panicked|assert|left:|right:|ERROR|Test unit written' -A1 "$finds/$1.log" >&2 ||
			tail -n 20 "$finds/$1.log" >&2
		local input
		input=$(sed -n 's/.*Test unit written to \(artifacts[^ ]*\).*/\1/p' "$finds/$1.log" | tail -n 1)
		cat >&2 <<-END

			FINDING in $1. The input is fuzz/${input:-?}, the whole output $finds/$1.log.
			See it again: fuzz/run.sh replay $1 fuzz/${input:-?}
			What to do with it: docs/fuzzing.md
		END
		exit 1
	}
	sed -n 's/^stat::\(number_of_executed_units\|average_exec_per_sec\): */   \1 /p' "$finds/$1.log"
}

# Bytes of the longest input that makes sense.
longest() {
	case $1 in
	codec) echo 300 ;;
	http_head) echo 9000 ;;
	*) echo 2048 ;;
	esac
}

replay() {
	local name=$1 file
	shift
	for file; do
		[ -e "$file" ] || file=../$file
		echo "== $name on $file"
		RUST_BACKTRACE=1 "$programs/$name" "$file"
	done
}

# Branches count, not how often each is taken. Of what was found the 24 longest files stay, which
# take most branches: a corpus is for the suite too.
minimize() {
	mkdir -p "$finds/$1"
	"$programs/$1" -set_cover_merge=1 -use_counters=0 -max_len="$(longest "$1")" -verbosity=0 \
		"corpus/$1" "$finds/$1" > "$finds/$1.log" 2>&1
	find "corpus/$1" -regextype posix-extended -regex '.*/[0-9a-f]{40}' -printf '%s %p\n' |
		sort -k1,1nr -k2 | tail -n +25 | cut -d' ' -f2 | xargs -r rm
	echo "$1: $(ls "corpus/$1" | wc -l) files, $(cat "corpus/$1"/* | wc -c) bytes"
}

main "$@"
