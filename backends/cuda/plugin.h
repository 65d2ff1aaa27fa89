/* plugin.h - what cortex-cuda.so holds: device code alone, one module per family of kernels. The
 * plug-in has no code for the host and needs no library; what runs it is linked into the program
 * and reaches the driver by dlopen. */
#ifndef CX_CUDA_PLUGIN_H
#define CX_CUDA_PLUGIN_H

#include <stddef.h>

#define CX_CUDA_VERSION 1 /* of this struct, and of what a launch gives a kernel */

typedef struct cx_cuda_image {
	const char *name; /* "matmul" for kernels/matmul.cl.h; "matmul-1.1.1": tensors 0..2 are f16 */
	const void *data; /* what cuModuleLoadData takes: a fat binary */
	size_t bytes;
} cx_cuda_image;

typedef struct cx_cuda_plugin {
	unsigned version, params_bytes; /* CX_CUDA_VERSION, sizeof(struct cx_kparams) */
	const char *toolkit;            /* "13.0"; what it was built with */
	const cx_cuda_image *images;    /* a row without a name ends them */
} cx_cuda_plugin;

/* The one symbol that the plug-in has. */
#define CX_CUDA_SYMBOL "cx_cuda_device_code"

#endif
