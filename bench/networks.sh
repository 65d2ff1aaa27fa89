#!/usr/bin/env bash
# networks.sh CORTEX OUT [FIXTURES] [SEEDS] - trains the networks of docs/ACCURACY.md on the real recording into
# OUT/m1_<network>_<seed>, for bench/accuracy.sh to score. What is there already goes on or is left as it is.
set -eu -o pipefail
cortex=$1 out=$2 fixtures=${3:-../shared/fixtures} seeds=${4:-1 2 3}
here=$(dirname "$0")
for net in cortex gru; do
	for seed in $seeds; do
		dir=$out/m1_${net}_$seed
		if [ -e "$dir/final.safetensors" ]; then continue; fi
		if [ -e "$dir/last.safetensors" ]; then
			"$cortex" decoder train --resume --out "$dir"
		else
			"$cortex" decoder train --config "$here/m1_$net.conf" --seed "$seed" \
				--data "$fixtures/neural/m1_stevenson_2011" --out "$dir"
		fi
	done
done
