/* product.h - matmul and linear steps as calls of gemm.h: shapes and strides first (at plan time),
 * addresses later. */
#ifndef CX_CPU_PRODUCT_H
#define CX_CPU_PRODUCT_H

#include "backends/cpu/cpu.h"
#include "backends/cpu/gemm.h"

/* Rows of d (all axes but the last) as one axis: false if no single stride visits them in order. */
bool cx__cpu_rows(const cx_desc *d, int64_t *n_rows, int64_t *stride);

/* All of *l but addresses, act and row; false: strides that gemm.h does not take. Both descs arrays
 * as in the key. */
bool cx__cpu_linear_shape(const cx_attr_linear *at, const cx_desc *in, uint32_t n_in,
	const cx_desc *out, cx_cpu_linear *l);

/* A batch of products of one shape: batch i is at the offsets (in elements) that these strides
 * give. */
typedef struct cx_cpu_batch {
	int64_t n; /* number of products */
	int32_t rank;
	int64_t dim[CX_MAX_RANK], a[CX_MAX_RANK], b[CX_MAX_RANK];
} cx_cpu_batch;
bool cx__cpu_matmul_shape(const cx_attr_matmul *at, const cx_desc *in, const cx_desc *out,
	cx_cpu_linear *l, cx_cpu_batch *batch);

/* Scratch of one product by one thread, a multiple of 64; of a step of a device with n threads. */
uint64_t cx__cpu_product_scratch1(const cx_cpu_isa *isa, const cx_cpu_linear *l);
uint64_t cx__cpu_product_scratch(
	const cx_cpu_isa *isa, const cx_cpu_linear *l, int64_t n_batch, uint32_t n_threads);

#endif
