/* params.h - what a launch gives a device kernel: one struct for every kernel of every device
 * language.
 *
 * Read by C, CUDA, OpenCL C and (as an array of 32-bit words in the same order) GLSL, so 32-bit
 * members only. CUDA and OpenCL take it by value; Vulkan keeps one per step in a storage buffer
 * that a push constant points into. 1024 bytes, the smallest argument space OpenCL promises, is the
 * limit.
 *
 * Tensors: t[0 .. n_out-1] are the outputs, then the operands in op order (absent: dtype
 * CX_K_NONE). Offsets and strides count elements (of a block format: whole blocks, and stride[] of
 * the innermost axis is unused); the buffer bound at binding i is t[i]'s. dim and stride are padded
 * in front with 1 and 0 to rank 6: axis 5 is innermost. */
#ifndef CX_KERNEL_PARAMS_H
#define CX_KERNEL_PARAMS_H

#ifndef CX_K_TYPES
typedef unsigned int cx_u32;
typedef int cx_i32;
typedef float cx_f32;
#endif

enum { CX_K_RANK = 6, CX_K_TENSORS = 13, CX_K_INTS = 16, CX_K_FLOATS = 8 };
#define CX_K_NONE 0xffffffffu

struct cx_ktensor {
	cx_u32 off;   /* first element */
	cx_u32 dtype; /* cx_dtype, or CX_K_NONE */
	cx_u32 dim[CX_K_RANK];
	cx_u32 stride[CX_K_RANK]; /* 0 where broadcast */
};

struct cx_kparams {
	cx_u32 op; /* cx_op */
	cx_u32 n_out, n_in;
	cx_u32 n;            /* work items, rows or tiles, as the kernel says */
	cx_i32 i[CX_K_INTS]; /* attributes, in the order the kernel says */
	cx_f32 f[CX_K_FLOATS];
	struct cx_ktensor t[CX_K_TENSORS];
};

#endif
