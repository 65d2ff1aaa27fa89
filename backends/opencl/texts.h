/* texts.h - the device sources of kernels/, embedded at build time by kernels/embed.awk. */
#ifndef CX_OPENCL_TEXTS_H
#define CX_OPENCL_TEXTS_H

typedef struct cx__kernel_text {
	const char *name; /* "matmul" for kernels/matmul.cl.h; NULL ends the list */
	const char *text;
} cx__kernel_text;
extern const cx__kernel_text cx__kernel_texts[];

#endif
