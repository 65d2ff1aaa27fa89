#!/usr/bin/env bash
# run.sh BUILD [NAME-PART] [FUZZ_SECONDS] - runs every test program, then every fuzz target, one line each.
# Ends with "N passed, N failed" (", N skipped"); the output of what failed is printed whole.
set -u
build=$1 part=${2:-} fuzz=${3:-0}
: "${CORTEX_FIXTURES:=$(cd "$(dirname "$0")/../.." && pwd)/shared/fixtures}"
export CORTEX_FIXTURES
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:allocator_may_return_null=1}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
[ -d "$CORTEX_FIXTURES" ] || echo "fixtures: none at $CORTEX_FIXTURES; tests that need them are skipped"
passed=0 failed=0 skipped=0
logs=$build/logs
mkdir -p "$logs"

count() { grep -c -E "$1" "$2" 2>/dev/null || true; }

for bin in "$build"/tests/test_*; do
	name=$(basename "$bin")
	case $name in *.o | *.d) continue ;; esac
	[ -x "$bin" ] && [ -f "tests/$name.c" ] || continue
	case $name in *"$part"*) ;; *) continue ;; esac
	log=$logs/$name.log
	# Drivers keep memory of their own to the end; what a test itself leaks is counted by its allocator.
	leaks=
	grep -qE 'vulkan|opencl|cx_backend_names' "tests/$name.c" && leaks=:detect_leaks=0
	start=$(date +%s.%N)
	ASAN_OPTIONS=$ASAN_OPTIONS$leaks timeout 900 "$bin" >"$log" 2>&1
	rc=$?
	ok=$(count '^\[       OK \]' "$log")
	bad=$(count '^\[  FAILED  \] [A-Za-z_0-9]+$' "$log")
	skip=$(count '^\[  SKIPPED \] [A-Za-z_0-9]+$' "$log")
	# cmocka lists failed and skipped tests twice: where they ran, and at the end.
	bad=$(((bad + 1) / 2)) skip=$(((skip + 1) / 2))
	# A crash, a leak or a time-out is a failure even where no test said so; so is a program with no test.
	[ $rc -ne 0 ] && [ "$bad" -eq 0 ] && bad=1
	[ "$((ok + bad + skip))" -eq 0 ] && bad=1
	passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + skip))
	printf '%-24s %4d passed, %d failed, %d skipped  %6.1f s\n' "$name" "$ok" "$bad" "$skip" \
		"$(echo "$(date +%s.%N) - $start" | bc 2>/dev/null || awk "BEGIN{print $(date +%s.%N)-$start}")"
	grep -E '^(#|  #)' "$log" | sed 's/^ */    /'
	[ "$bad" -eq 0 ] || { echo "---- $name, exit $rc"; tail -n 60 "$log"; echo "----"; }
done

if [ "$fuzz" != 0 ]; then
	ran=0
	for bin in "$build"/tests/fuzz/fuzz_*; do
		[ -x "$bin" ] || continue
		name=$(basename "$bin")
		case $name in *"$part"*) ;; *) continue ;; esac
		ran=1 corpus=$build/corpus/$name
		mkdir -p "$corpus"
		seeds=tests/fuzz/corpus/$name # committed, read only; found inputs go to $corpus
		[ -d "$seeds" ] || seeds=
		if "$bin" -max_total_time="$fuzz" -timeout=10 -rss_limit_mb=4096 -artifact_prefix="$logs/" \
			"$corpus" $seeds >"$logs/$name.log" 2>&1; then
			passed=$((passed + 1)) res=ok
		else
			failed=$((failed + 1)) res=FAILED
		fi
		printf '%-24s %s, %s runs in %s s\n' "$name" $res \
			"$(grep -oE '^#[0-9]+' "$logs/$name.log" | tail -n 1 | tr -d '#')" "$fuzz"
		[ $res = ok ] || tail -n 40 "$logs/$name.log"
	done
	[ $ran = 1 ] || echo "fuzz: no clang with libFuzzer here; targets not run"
fi

if [ "$skipped" -gt 0 ]; then echo "$passed passed, $failed failed, $skipped skipped"
else echo "$passed passed, $failed failed"; fi
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
