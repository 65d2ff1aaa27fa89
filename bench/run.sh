#!/usr/bin/env bash
# run.sh BUILD [NAME-PART] - runs every benchmark and keeps its rows in bench/results/<name>.tsv, headed by what they
# were measured on. Rows are printed as they come.
set -u -o pipefail
build=$1 part=${2:-}
results=bench/results
mkdir -p "$results"
head_lines() {
	printf '# device: %s, %s CPUs\n' "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)" "$(nproc)"
	printf '# compiler: %s\n' "$(${CC:-gcc} --version | head -n 1)"
	printf '# commit: %s%s\n' "$(git rev-parse --short HEAD 2>/dev/null)" \
		"$(git diff --quiet HEAD 2>/dev/null || echo ' with changes')"
	printf '# command: make bench\n'
}
status=0
for bin in "$build"/bench/bench_*; do
	name=$(basename "$bin")
	case $name in *.o | *.d) continue ;; esac
	[ -x "$bin" ] && [ -f "bench/$name.c" ] || continue
	case $name in *"$part"*) ;; *) continue ;; esac
	echo "== $name"
	head_lines >"$results/${name#bench_}.tsv.part"
	if "$bin" | tee -a "$results/${name#bench_}.tsv.part"; then
		mv "$results/${name#bench_}.tsv.part" "$results/${name#bench_}.tsv"
	else
		rm -f "$results/${name#bench_}.tsv.part"
		echo "== $name failed"
		status=1
	fi
done
exit $status
