#!/usr/bin/env bash
# gpu.sh check | run BUILD - what `make test-gpu` does before and after the build.
#
# check: is there what it needs (below), and a driver? It installs nothing.
# run: the op grid, the model tests, memcheck and racecheck of a part of the grid, the benchmarks, on cuda and vulkan where
# a device of these is a GPU. A line per step; BUILD/test-gpu.tsv keeps step, result and seconds, and BUILD/test-gpu/ what
# each said. Under eight minutes: every step has a limit of its own.
#
# Exit: 0 all passed; 1 something failed; 2 a tool is missing; 3 there is no GPU, so that nothing was tested (make test-gpu then exits 0).
set -u
cd "$(dirname "$0")/.." || exit 2
mode=$1 build=${2:-build}

check() {
	local missing= h
	for tool in nvcc make "${CC:-gcc}" ar awk sed; do command -v "$tool" >/dev/null 2>&1 || missing="$missing $tool"; done
	for h in jansson.h pcre2.h utf8proc.h zlib.h cmocka.h; do
		printf '#include <stdarg.h>\n#include <stddef.h>\n#include <stdint.h>\n#include <setjmp.h>\n#include <%s>\n' "$h" |
			"${CC:-gcc}" -DPCRE2_CODE_UNIT_WIDTH=8 -fsyntax-only -x c - 2>/dev/null || missing="$missing $h"
	done
	if [ -n "$missing" ]; then
		echo "test-gpu: missing here:$missing (it installs nothing itself; make deps says how)"
		exit 2
	fi
	if ! ls /dev/nvidia[0-9]* >/dev/null 2>&1 && ! ls /dev/dxg >/dev/null 2>&1; then
		echo "test-gpu: there is no NVIDIA GPU here (no /dev/nvidia0), so nothing is tested; without one, 'make test' runs" \
			"the same grid of the cuda backend on the host"
		exit 3
	fi
}

failed=0
# step NAME SECONDS COMMAND...: runs it, keeps what it says and how long it took.
step() {
	local name=$1 limit=$2 from rc result
	shift 2
	from=$(date +%s.%N)
	timeout "$limit" "$@" >"$build/test-gpu/$name.log" 2>&1
	rc=$?
	result=pass
	[ $rc -eq 0 ] || { result="FAIL ($rc)" && failed=$((failed + 1)); }
	[ $rc -ne 124 ] || result="FAIL (longer than $limit s)"
	from=$(awk "BEGIN {print $(date +%s.%N) - $from}")
	printf '%s\t%s\t%.1f\n' "$name" "$result" "$from" >>"$build/test-gpu.tsv"
	printf '%-22s %-8s %6.1f s\n' "$name" "$result" "$from"
	grep -E '^# .*(comparisons|Cannot)|^========= ERROR' "$build/test-gpu/$name.log" | head -n 4 | sed 's/^/    /'
	[ $rc -eq 0 ] || tail -n 15 "$build/test-gpu/$name.log" | sed 's/^/    | /'
}

run() {
	local tests=$build/tests backends= b
	rm -rf "$build/test-gpu"
	mkdir -p "$build/test-gpu"
	"$build/cortex" devices --quick >"$build/test-gpu/devices.log"
	cat "$build/test-gpu/devices.log"
	{
		sed 's/^/# /' "$build/test-gpu/devices.log"
		nvidia-smi --query-gpu=name,driver_version,clocks.max.sm --format=csv,noheader 2>/dev/null | sed 's/^/# /'
		nvcc --version | tail -n 1 | sed 's/^/# /'
		printf '# commit: %s\nstep\tresult\tseconds\n' "$(git rev-parse --short HEAD 2>/dev/null)"
	} >"$build/test-gpu.tsv"
	grep -q '^cuda .*units' "$build/test-gpu/devices.log" || {
		echo "test-gpu: the cuda backend does not open its device: $(grep '^cuda' "$build/test-gpu/devices.log")"
		exit 1
	}
	backends=cuda
	grep '^vulkan' "$build/test-gpu/devices.log" | grep -vq 'llvmpipe\|not usable' && backends="cuda vulkan"
	for b in $backends; do
		step "grid-$b" 150 env CX_GRID_BACKENDS="$b" CX_GRID_SECONDS=120 "$tests/test_grid"
	done
	step models 60 "$tests/test_llm_devices"
	step gradients 60 "$tests/test_grad_model"
	step driver 60 "$tests/test_cuda_driver"
	if command -v compute-sanitizer >/dev/null 2>&1; then
		for t in memcheck racecheck; do
			step "$t" 90 env CX_GRID_BACKENDS=cuda CX_GRID_CASES=0-3 CX_GRID_MODELS=0 CX_GRID_SECONDS=60 compute-sanitizer \
				--tool "$t" --target-processes all --error-exitcode 9 "$tests/test_grid"
		done
	else
		echo "memcheck, racecheck: no compute-sanitizer here, not run"
	fi
	for b in $backends; do step "bench-$b" 60 "$build/bench/bench_backend" -b "$b"; done
	for b in $backends; do grep -v '^#' "$build/test-gpu/bench-$b.log"; done
	echo "test-gpu: $failed failed; $build/test-gpu.tsv, and what each step said in $build/test-gpu/"
	[ "$failed" -eq 0 ]
}

case $mode in
check) check ;;
run) run ;;
*) echo "gpu.sh check | run BUILD" && exit 2 ;;
esac
