/* gemm.h - matrix products on the cpu: y = act(a w' + bias) ..., weights read in the format they
 * are stored in.
 *
 * All threads of a team call cx__cpu_linear_run() with the same arguments and their rank; each
 * computes its share of rows of w (and of a, where w has few rows). The bits of y[m,n] depend on
 * row m of a and row n of w alone: not on how many rows there are, on the tiling or the threads,
 * and but for bf16 times bf16 not on the instruction set (isa.h says which sum it is). */
#ifndef CX_CPU_GEMM_H
#define CX_CPU_GEMM_H

#include "backends/cpu/isa.h"
#include "backends/cpu/pool.h"

/* A matrix of weights [n, k] and where its product goes. */
typedef struct cx_cpu_weight {
	cx_dtype dtype;             /* F32, F16, BF16 or a block format */
	const void *w;              /* row 0, element 0; any alignment that the dtype has */
	int64_t n;                  /* rows: columns of y */
	int64_t row_bytes;          /* from row to row of a block format (I8C: k) */
	int64_t n_stride, k_stride; /* float dtypes: in elements, from row to row and along k; any,
								   k_stride 1 is fastest */
	const void *scales;         /* I8C: f32 of row 0 (any alignment) */
	const void *bias;           /* [n] or NULL */
	cx_dtype bias_dtype;        /* F32, F16 or BF16 */
	void *y;                    /* [m, n] */
	cx_dtype y_dtype;           /* F32, F16 or BF16 */
	int64_t y_stride;           /* elements, from row to row */
} cx_cpu_weight;

typedef struct cx_cpu_linear {
	int64_t m, k;
	/* Rows of activations: either strided elements ... */
	cx_dtype a_dtype; /* F32, F16, BF16 */
	const void *a;
	int64_t a_stride, a_k_stride; /* elements, from row to row and along k */
	/* ... or, if set, a function that writes row m as k f32 (a norm); called once per row, from any
	 * thread. */
	void (*row)(const void *ctx, int64_t m, float *out);
	const void *row_ctx;
	float act_scale; /* > 0: rows are rounded to int8 in these steps; every w is I8C */

	int n_w; /* 1..3 products of the same rows; with glu 2, of equal n */
	cx_cpu_weight w[3];
	bool glu; /* w[0].y = act(a w0' + bias0) * (a w1' + bias1); w[1].y is not used */
	void (*act)(
		float *x, size_t n); /* in place, elementwise; NULL: none. E.g. isa->silu. After the bias */
	const void *residual; /* [m, n of w[0]], added to w[0].y last, or NULL; may be w[0].y itself */
	cx_dtype residual_dtype; /* F32, F16 or BF16 */
	int64_t residual_stride; /* elements */
} cx_cpu_linear;

/* Bytes of scratch for one call, any alignment; shared by the threads. */
size_t cx__cpu_linear_scratch(const cx_cpu_isa *isa, const cx_cpu_linear *l, uint32_t n_threads);
/* Every thread of the pool's run calls it; n_threads 1 and pool NULL for a single one. m, n or k
 * may be 0 (k 0: sums are 0). May be called again at once with other scratch; with the same scratch
 * only after a barrier. Sizes, dtypes and strides are the caller's to check. */
void cx__cpu_linear_run(const cx_cpu_isa *isa, const cx_cpu_linear *l, void *scratch,
	uint32_t thread, uint32_t n_threads, cx_pool *pool);
/* Bytes that must move and multiply-adds of one call: for floors and for choosing a number of
 * threads. */
void cx__cpu_linear_cost(const cx_cpu_linear *l, double *bytes, double *macs);

#endif
