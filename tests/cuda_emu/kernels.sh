#!/bin/sh
# kernels.sh FAMILY - C++ source: kernels/FAMILY.cl.h as CUDA, and a table of its kernels, see emu.h.
# kernels.sh --table FAMILY... - C source: the table of these tables.
if [ "$1" = --table ]; then
	shift
	echo '#include "tests/cuda_emu/emu.h"'
	for f in "$@"; do echo "extern const emu_kernel emu_of_$f[];"; done
	echo 'extern const emu_kernel *const emu_kernels[];'
	echo 'const emu_kernel *const emu_kernels[] = {'
	for f in "$@"; do echo "	emu_of_$f,"; done
	echo '	0};'
	exit
fi
echo '#include "tests/cuda_emu/emu.hh"'
echo "#include \"kernels/$1.cl.h\""
echo "extern \"C\" {"
echo "extern const emu_kernel emu_of_$1[];"
echo "const emu_kernel emu_of_$1[] = {"
sed -n 's/^CX_KERNEL \([a-z0-9_]*\).*/\1/p' "kernels/$1.cl.h" | while read -r k; do
	echo "	{\"$1\", \"$k\", [](void **a) { emu_call($k, a); }, emu_args($k)},"
done
echo '	{0, 0, 0, 0}};'
echo '}'
