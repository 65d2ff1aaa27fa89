/* kernels.h - what the files of this folder give each other; one set of symbols per instruction
 * set. */
#ifndef CX_CPU_KERNELS_H
#define CX_CPU_KERNELS_H

#include "backends/cpu/isa.h"
#include "backends/cpu/isa/vec.h"

/* Tiles: what fits the registers. */
#if defined(CX_ISA_avx512)
#define CX__HAVE_BIG_TILES 1
enum { CX__F_ROWS = 4, CX__P_ROWS = 8, CX__P_VECS = 3 };
#else
#define CX__HAVE_BIG_TILES 0
enum { CX__F_ROWS = 2, CX__P_ROWS = 4, CX__P_VECS = 1 };
#endif
enum { CX__Q_ROWS = 4, CX__Q_COLS = 2 };

void CX_ISA_NAME(cx__dot_f)(const float *a, size_t a_stride, int m, const cx__wrows *w, size_t n0,
	size_t n, size_t k, float *y, size_t y_stride);
void CX_ISA_NAME(cx__pack_a)(const float *const rows[8], size_t k, float *out);
void CX_ISA_NAME(cx__pack_at)(
	cx_dtype dtype, const void *base, size_t k_stride, size_t m, size_t k, float *out);
void CX_ISA_NAME(cx__pack_w)(
	cx__panel_kind kind, const cx__wmat *w, size_t n0, size_t n, size_t k0, size_t k, void *panel);
void CX_ISA_NAME(cx__gemm_p)(cx__panel_kind kind, const cx__panel *g);
bool CX_ISA_NAME(cx__quant_i8)(const float *x, size_t k, float inverse, void *out, int32_t *start);

void CX_ISA_NAME(cx__quant_act)(const float *x, size_t k, cx__qact *out, bool bytes);

/* Row functions (rows.c). */
void CX_ISA_NAME(cx__to_f32)(cx_dtype dtype, const void *src, float *dst, size_t n);
void CX_ISA_NAME(cx__from_f32)(cx_dtype dtype, const float *src, void *dst, size_t n);
void CX_ISA_NAME(cx__row_add)(float *x, const float *y, size_t n);
void CX_ISA_NAME(cx__row_mul)(float *x, const float *y, size_t n);
#define CX_ROW1_DECLARE(f) void CX_ISA_NAME(cx__row_##f)(float *x, size_t n);
CX_CPU_ROW1(CX_ROW1_DECLARE)
#undef CX_ROW1_DECLARE

/* Block formats and the kind of their mins: dot, pack and gemm of each (dotq.c). The one place that
 * lists them. */
#define CX_Q_FORMATS(X)                                                                            \
	X(Q8_0, none)                                                                                  \
	X(Q4_0, none)                                                                                  \
	X(Q4_1, f)                                                                                     \
	X(Q5_0, none) X(Q5_1, f) X(Q2_K, i) X(Q3_K, none) X(Q4_K, f) X(Q5_K, f) X(Q6_K, none)          \
		X(IQ4_NL, none) X(IQ4_XS, none) X(MXFP4, none) X(I8C, none)
#define CX_Q_DECLARE(id, kind)                                                                     \
	void CX_ISA_NAME(cx__dot_##id)(                                                                \
		const cx__qact *a, const cx__wrows *w, size_t n0, size_t n, size_t k, float *y);           \
	void CX_ISA_NAME(cx__pack_##id)(const cx__wrows *w, size_t n0, size_t n, size_t c0,            \
		size_t n_chunks, size_t k, uint8_t *panel);
CX_Q_FORMATS(CX_Q_DECLARE)
#undef CX_Q_DECLARE
void CX_ISA_NAME(cx__gemm_q_none)(const cx__gemm *g);
void CX_ISA_NAME(cx__gemm_q_f)(const cx__gemm *g);
void CX_ISA_NAME(cx__gemm_q_i)(const cx__gemm *g);
#endif
