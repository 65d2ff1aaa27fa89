#!/bin/sh
# embed.sh FOLDER TOOLKIT IMAGE... - C source of the plug-in: FOLDER/IMAGE.fatbin as constants, and their table.
# For an assembler that has .incbin; the source needs no library.
folder=$1 toolkit=$2
shift 2
echo '/* made by backends/cuda/embed.sh */'
echo '#include "backends/cuda/plugin.h"'
echo '#include "kernels/params.h"'
n=0
for image in "$@"; do
	printf '__asm__(".section .rodata\\n.balign 64\\nimage_%d: .incbin \\"%s/%s.fatbin\\"\\n.previous\\n");\n' \
		$n "$folder" "$image"
	echo "extern const unsigned char image_$n[] __attribute__((visibility(\"hidden\")));"
	n=$((n + 1))
done
echo 'static const cx_cuda_image images[] = {'
n=0
for image in "$@"; do
	echo "	{\"$image\", image_$n, $(wc -c <"$folder/$image.fatbin")},"
	n=$((n + 1))
done
echo '	{NULL, NULL, 0}};'
echo '__attribute__((visibility("default"))) const cx_cuda_plugin cx_cuda_device_code = {'
echo "	CX_CUDA_VERSION, sizeof(struct cx_kparams), \"$toolkit\", images};"
