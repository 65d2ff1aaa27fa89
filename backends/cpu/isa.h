/* isa.h - the table of kernels that each instruction set exports, and the order of sums that they
 * all keep.
 *
 * THE CONTRACT. y[m,n] = sum over k of a[m,k] * w[n,k] has the same bits whatever the number of
 * rows, the tiling and the number of threads. So a batch, a prompt cut in pieces and a single token
 * agree exactly. It also has the same bits with every instruction set, except bf16 times bf16
 * (below).
 *
 * Float weights (f32, f16, bf16; widened exactly). 16 lanes of f32, all +0 at first. For k = 0, 16,
 * 32 ...: lane j = fma(a[k+j], w[k+j], lane j), elements past the end being +0. At the end the tree
 * of v16_sum(): s[j] = l[j] + l[j+8], then +4, +2, +1.
 *
 * bf16 times bf16 where the processor multiplies pairs of them (bf16_dot): one f32 lane per output,
 * +0 at first; for k = 0, 2, 4 ...: lane += a[k+1] * w[k+1], then lane += a[k] * w[k], each rounded
 * to nearest even, subnormals taken and given as 0. A sum below CX__BF16_LOW,
 * of which that may have taken something that counts, is done again in double. Elsewhere the sum of
 * float weights above.
 *
 * int8 activations (act_scale s, I8C weights): q = clamp(rint(a * (1/s)), -127, 127); the sum of q
 * * w is exact; y = (float)sum * (s * scale[n]), three roundings to f32. A NaN in a row of a makes
 * s NaN for that row.
 *
 * Quantised weights. The row of activations is cut in blocks of 32, each with a scale da = max|a| /
 * 32639 and integers q = rint(a * (32639 / max|a|)), so |q| <= 32639 = 127*256 + 127 and q = 256*hi
 * + lo with two signed bytes. (A block with max|a| < 2^-111 counts as zeros; one with NaN or
 * infinity has da = NaN, which reaches the sum.) Four blocks make a chunk of 128. Lane 4i+j of a
 * chunk belongs to block i and to its elements {4j..4j+3} and {16+4j..16+4j+3}. Per chunk and lane,
 * in this order: I = sum of w*q over the lane's eight elements, exact in int32, where w is the
 * integer weight, zero point taken off, and, for formats whose scales hold for 16 weights (Q2_K,
 * Q3_K, Q6_K), times that integer scale lane = fma((float)I, d * da, lane)          d: the f32
 * scale of block i (Q4_K: d*sc; MXFP4: half of 2^(e-127)) Q4_1, Q5_1, Q4_K, Q5_K:  lane = fma(m, da
 * * (float)S, lane)    S: sum of the lane's q; m: the min, -dmin*mn for K Q2_K:  lane =
 * fma(-(float)J, dmin * da, lane)                  J: sum of q times the integer min of its 16 and
 * v16_sum() at the end. Blocks past the end of a row are zeros with scale zero.
 *
 * No int32 overflow: |I| <= 8 * 32639 * |w| with |w| <= 255 before the zero point is taken off
 * (66.6e6), and
 * <= 128 * 32 for Q6_K with its scale (1.07e9 < 2^31); J <= 8 * 32639 * 15; S <= 8 * 32639, exact
 * in f32. With bytes: 256 * (8 * 255 * 128) + 8 * 255 * 128 = 67.1e6, and the zero point takes off
 * at most 128 * S. */
#ifndef CX_CPU_ISA_H
#define CX_CPU_ISA_H

#include "graph/quant.h"

/* 128 quantised activations: 512 bytes. */
typedef struct cx__qact {
	union {
		int8_t b8[4][64];   /* hi bytes of elements 0..15 and 16..31 of each block, then lo bytes;
							   block i at 16i */
		int16_t w16[4][32]; /* pairs per lane: elements (4j, 4j+2), (4j+1, 4j+3), and the same from
							   16 on */
	} q;
	float d[16];        /* da of the lane's block */
	int32_t sum_lo[16]; /* sum of q over elements 4j..4j+3 */
	int32_t sum_hi[16]; /* ... 16+4j..16+4j+3 */
	float dsum[16];     /* da * (float)(sum_lo + sum_hi) */
} cx__qact;
enum { CX__QCHUNK = 128 };

/* Rows n0.. of a weight matrix, as stored. */
typedef struct cx__wrows {
	cx_dtype dtype;
	const uint8_t *base;   /* row 0 */
	size_t row_bytes;      /* from one row to the next */
	const uint8_t *scales; /* I8C: of row 0, one f32 each */
} cx__wrows;

/* A matrix whose element (n, k) is at base + n * n_stride + k * k_stride elements. */
typedef struct cx__wmat {
	cx_dtype dtype; /* F32, F16, BF16; I8C: k_stride 1 */
	const void *base;
	size_t n_stride, k_stride;
} cx__wmat;

/* Panels: columns of w in vectors of 16, lane by lane next to each other; p_vecs vectors make a
 * tile of columns, the last tile has those that are left. A tile is [steps][vectors][16 columns]
 * words of 32 bits, for f32 [16 chains][steps][vectors][16] with cx__p_w_chain() from chain to
 * chain. A word is an f32, a pair of bf16, or four (p_i8_step 2: two 16-bit) weights of I8C. */
typedef enum cx__panel_kind { CX__PANEL_F32, CX__PANEL_BF16, CX__PANEL_I8 } cx__panel_kind;

/* 2^-126 is taken for 0: up to 2^17 of those are 2^-13 of this. */
#define CX__BF16_LOW 0x1p-96f

/* m rows of a times the n columns of a panel. */
typedef struct cx__panel {
	const void
		*a; /* f32: as packed by pack_a, first row a multiple of 8; else row 0 at its step 0 */
	size_t a_stride; /* bytes from row to row; not for f32 */
	size_t m, n;
	const void *panel;
	size_t steps; /* words of k per column and, for f32, chain */
	int c0, n_c;  /* f32: chains run in this call, in order of running; multiples of 4, 16 in all */
	bool first, last; /* others: of the calls that make up k */
	/* what is carried from call to call, per row and 16 columns: f32 256 bytes unless n_c is 16,
	 * others 64 bytes unless first and last */
	float *part;
	const int32_t *a_start; /* int8, [m]: as quant_i8 gave */
	const float *a_scale;   /* int8, [m]: s of the row, or NaN */
	const float *w_scale;   /* int8, [n] */
	bool *tiny;             /* bf16: set if a sum is below CX__BF16_LOW in magnitude */
	float *y;               /* f32 [m, n], written in the last call */
	size_t y_stride;
} cx__panel;

/* One panel of a blocked product: rows of a against packed rows of w, over part of k. Partial sums
 * stay in lanes, in `part`, between the parts, so that blocking does not change the order. */
typedef struct cx__gemm {
	const void *a;     /* cx__qact of row 0 at the start of the part */
	size_t a_stride;   /* cx__qact from row to row */
	size_t m, n;       /* rows of a; rows of w */
	const void *panel; /* as packed by pack_*: n rounded up to the tile width */
	size_t steps;      /* chunks */
	float *part;       /* [tiles][rows * columns][16] */
	bool first, last;
	float *y; /* f32 [m, n], written when last */
	size_t y_stride;
} cx__gemm;

/* Elementwise functions of one f32 row. */
#define CX_CPU_ROW1(X)                                                                             \
	X(exp)                                                                                         \
	X(log)                                                                                         \
	X(log1p) X(expm1) X(tanh) X(sigmoid) X(erf) X(sin) X(cos) X(silu) X(gelu) X(gelu_tanh) X(relu)

typedef struct cx_cpu_isa {
	const char *name;   /* "generic", "avx2", "avx512" */
	int f_rows;         /* most rows of dot_f */
	int q_rows, q_cols; /* tile of gemm_q */
	int p_vecs;         /* vectors of 16 columns per tile of a panel */
	int p_i8_step;      /* elements of k per word of an int8 panel: 4 bytes, or 2 of 16 bits */
	bool bf16_dot;      /* bf16 times bf16 by CX__PANEL_BF16 */
	bool act_bytes;     /* dot_q reads bytes (b8); otherwise pairs (w16), as gemm_q always does */

	/* rows of elements: any n; dst and src do not overlap unless equal and of one type */
	void (*to_f32)(
		cx_dtype dtype, const void *src, float *dst, size_t n); /* F32, F16, BF16, block formats */
	void (*from_f32)(cx_dtype dtype, const float *src, void *dst, size_t n); /* F32, F16, BF16 */
	void (*add)(float *x, const float *y, size_t n);                         /* x += y */
	void (*mul)(float *x, const float *y, size_t n);                         /* x *= y */
#define CX_FIELD(f) void (*f)(float *x, size_t n); /* in place; isa/vmath.h */
	CX_CPU_ROW1(CX_FIELD)
#undef CX_FIELD

	/* Floats: m <= f_rows rows of a against n rows of w as stored, all of k. */
	void (*dot_f)(const float *a, size_t a_stride, int m, const cx__wrows *w, size_t n0, size_t n,
		size_t k, float *y, size_t y_stride);
	/* Eight rows of k floats (NULL: zeros) for gemm_p: [16 chains][steps][8], cx__p_a_chain()
	 * from chain to chain. */
	void (*pack_a)(const float *const rows[8], size_t k, float *out);
	/* The same of m rows, any number, of a transposed matrix: element (m, k) at base + m + k *
	 * k_stride elements. */
	void (*pack_at)(
		cx_dtype dtype, const void *base, size_t k_stride, size_t m, size_t k, float *out);
	/* Packs rows n0..n0+n of w, elements k0..k0+k (f32: k0 is 0), for gemm_p; what is past the end
	 * is zeros. k0 is a multiple of 64. */
	void (*pack_w)(cx__panel_kind kind, const cx__wmat *w, size_t n0, size_t n, size_t k0, size_t k,
		void *panel);
	void (*gemm_p)(cx__panel_kind kind, const cx__panel *g);
	/* A row of k floats times `inverse` as int8 in bytes or 16 bits (p_i8_step), zeros up to a
	 * multiple of 16; *start for the sums. False: there was a NaN, taken as 0. */
	bool (*quant_i8)(const float *x, size_t k, float inverse, void *out, int32_t *start);

	/* Quantised: a row of k f32 into chunks (the last padded with zeros); bytes: b8, otherwise w16.
	 */
	void (*quant_act)(const float *x, size_t k, cx__qact *out, bool bytes);
	/* One row of a against n rows of w. */
	void (*dot_q[CX_DTYPE_COUNT])(
		const cx__qact *a, const cx__wrows *w, size_t n0, size_t n, size_t k, float *y);
	/* Packs rows n0..n0+n, chunks c0..c0+n_chunks of rows of k, for gemm_q: q_panel_bytes per row
	 * and chunk. */
	void (*pack_q[CX_DTYPE_COUNT])(const cx__wrows *w, size_t n0, size_t n, size_t c0,
		size_t n_chunks, size_t k, uint8_t *panel);
	void (*gemm_q[CX_DTYPE_COUNT])(const cx__gemm *g);
} cx_cpu_isa;

/* Bytes of a packed chunk: 128 int16, 16 scales; 16 mins; Q2_K also two times 16 integer mins. */
static inline size_t cx__q_panel_bytes(cx_dtype t)
{
	if (t == CX_Q2_K) return 256 + 64 + 64 + 128;
	return 256 + 64 + (t == CX_Q4_1 || t == CX_Q5_1 || t == CX_Q4_K || t == CX_Q5_K ? 64 : 0);
}

/* Floats from chain to chain of eight packed rows of a, and of a tile of `vecs` vectors of columns.
 * What is over keeps chains of 2^n steps from sharing the same lines of a cache. */
static inline size_t cx__p_a_chain(size_t steps)
{
	return steps * 8 + 16;
}
static inline size_t cx__p_w_chain(size_t steps, size_t vecs)
{
	return steps * vecs * 16 + 16;
}

/* The best that this processor and operating system run; never NULL. */
const cx_cpu_isa *cx__cpu_isa_best(void);
/* By name, for tests; NULL: unknown, not built, or not runnable here. */
const cx_cpu_isa *cx__cpu_isa_named(const char *name);

extern const cx_cpu_isa cx__cpu_isa_generic;
#if defined(__x86_64__)
extern const cx_cpu_isa cx__cpu_isa_avx2;
extern const cx_cpu_isa cx__cpu_isa_avx512;
#endif

#endif
