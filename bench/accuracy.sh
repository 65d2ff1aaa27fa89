#!/usr/bin/env bash
# accuracy.sh CORTEX [FIXTURES] [NETWORKS] >docs/ACCURACY.md - writes the page of decoder scores, every number from a run
# of the binary CORTEX on the recordings under FIXTURES (../shared/fixtures) and on a simulated session.
set -eu -o pipefail
cortex=$1 fixtures=${2:-../shared/fixtures} networks=${3:-}
temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT

cat <<'PAGE'
# How well the decoders decode

This page is written by one command: `bench/accuracy.sh build/cortex ../shared/fixtures NETWORKS
>docs/ACCURACY.md`.

R2 is 1 - SSE/SST per column, SST around the mean of the test part (`models/decoder/metrics.h`). Every decoder is
causal: it sees the bins up to the decoded one and no later one. Settings are chosen on the training part alone,
by cross-validation over blocks of time.

## Motor cortex, reaching (Stevenson et al. 2011)

171 units in bins of 50 ms; the first 80 % of the bins to fit, the last 20 % to test, in order. The Wiener and
Kalman rows follow the recipe of an independent implementation, whose scores the tests reproduce
(`tests/test_decoder.c`). "ridge, tuned" is the Wiener decoder with an intercept, and for every column the
history and the penalty that did best in four held-out blocks.

The rows of networks, where there are some, are from `bench/networks.sh build/cortex NETWORKS` (`bench/m1_*.conf`): they
decode velocity alone, learn from the first 70 % of the bins, and the next 10 % choose the step that is scored, so they
see less than the linear ones; the mean and standard deviation are over seeds, where there are several. Cortex has had
6000 steps here, a GRU 700.

PAGE
rows=()
for net in cortex gru; do
	list=
	for dir in "${networks:-/nowhere}"/m1_${net}_*; do
		if [ -e "$dir/best.safetensors" ]; then list=$list${list:+,}$dir; fi
	done
	if [ -n "$list" ]; then rows+=(--checkpoint "$list"); fi
done
"$cortex" decoder eval --data "$fixtures/neural/m1_stevenson_2011" --bin 0.05 --markdown "${rows[@]}" 2>/dev/null

cat <<'PAGE'

## A simulated session, against the best that is possible

64 units, 30 minutes in bins of 50 ms. The simulation is a hidden Markov chain, so the exact Bayes-optimal causal
decoding is known (`models/decoder/simulate.h`); here for a decoder that sees the last 20 bins, as windowed decoders do.
The Kalman filter carries all the past along, so that bound is not its own: in position, which the units say little
about, it passes it.

PAGE
"$cortex" decoder simulate --out "$temp/sim" --seconds 1800 --window 20 >/dev/null 2>&1
"$cortex" decoder eval --data "$temp/sim" --bin 0.05 --markdown 2>/dev/null
