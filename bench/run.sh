#!/usr/bin/env bash
# run.sh BUILD [NAME-PART] - runs every benchmark and keeps its rows in bench/results/<name>.tsv, headed by what they
# were measured on. Rows are printed as they come. bench_backend runs once per backend and gives its name to the file;
# bench_decoder is followed by its peer in PyTorch, if there is one.
set -u -o pipefail
build=$1 part=${2:-}
results=bench/results
mkdir -p "$results"
head_lines() {
	printf '# device: %s, %s CPUs\n' "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)" "$(nproc)"
	printf '# compiler: %s\n' "$(${CC:-gcc} --version | head -n 1)"
	printf '# commit: %s%s\n' "$(git rev-parse --short HEAD 2>/dev/null)" \
		"$(git diff --quiet HEAD 2>/dev/null || echo ' with changes')"
	printf '# load when begun: %s\n' "$(cut -d' ' -f1-3 /proc/loadavg 2>/dev/null)"
	printf '# command: make bench (%s)\n' "$*"
}
status=0
# one NAME PROGRAM [ARGUMENTS]: the file of a machine that has no such device stays as it is.
one() {
	local file="$results/$1.tsv"
	shift
	echo "== ${*##*/}"
	head_lines "${@##*/}" >"$file.part"
	if "$@" | tee -a "$file.part"; then
		if grep -qv '^#' "$file.part"; then mv "$file.part" "$file"; else rm -f "$file.part"; fi
	else
		rm -f "$file.part"
		echo "== ${*##*/} failed"
		status=1
	fi
}
# peer NAME SCRIPT [ARGUMENTS]: rows of the same table from another program, where $PYTHON (python3) has what it needs.
peer() {
	local file="$results/$1.tsv"
	shift
	"${PYTHON:-python3}" -c 'import torch' 2>/dev/null || return 0
	echo "== ${*##*/}"
	printf '# command: %s\n' "$*" >>"$file"
	"${PYTHON:-python3}" "$@" 2>/dev/null | tail -n +2 | tee -a "$file"
}
for bin in "$build"/bench/bench_*; do
	name=$(basename "$bin")
	case $name in *.o | *.d) continue ;; esac
	[ -x "$bin" ] && [ -f "bench/$name.c" ] || continue
	if [ "$name" = bench_backend ]; then
		for backend in opencl vulkan cuda; do
			case $name-$backend in *"$part"*) one "$backend" "$bin" -b "$backend" ;; esac
		done
		continue
	fi
	case $name in *"$part"*) one "${name#bench_}" "$bin" ;; *) continue ;; esac
	if [ "$name" = bench_decoder ]; then peer decoder bench/peers/cortex_torch.py --train; fi
done
exit $status
