/* matmul.cl.h - products of two matrices, batched, every float and block format; the epilogue of
 * `linear`.
 *
 * nt: both operands run along k; sixteen sums per output, lane l takes k = l mod 16, added up in a
 * fixed tree. nn: b runs along n; one sum per output, in order of k. The number of rows that an
 * item takes changes neither order, so a row's result does not depend on how many rows there are. A
 * weight is read in its own format by the item that uses it. */
#ifndef CX_MATMUL_CL_H
#define CX_MATMUL_CL_H

#include "kernels/quant.cl.h"

#define CX_NT_COLS 4
/* Rows whose sums an item keeps at once. CUDA gives an item 255 registers: there it takes the rows
 * of its tile in parts. */
#ifdef __CUDACC__
#define CX_NT_ROWS 2
#define CX_NN_ROWS 4
#else
#define CX_NT_ROWS 4
#define CX_NN_ROWS 8
#endif

/* Start of matrix z of a batch: axes 0..3 of t. */
CX_FN cx_u32 cx_batch_at(CX_PQ const struct cx_ktensor *t, cx_u32 z)
{
	cx_u32 o = t->off;
	for (int d = 3; d >= 0 && z > 0; d--) {
		o += z % t->dim[d] * t->stride[d];
		z /= t->dim[d];
	}
	return o;
}

/* A unary row of scalar.def by its op; others: x. */
CX_FN_BIG float cx_act(int op, float x)
{
	switch (op) {
#define CX_MAP1(name, ...)                                                                         \
	case CX_OP_##name:                                                                             \
		return cx_f_##name(x);
#define CX_MAP1P(name, ...)
#define CX_MAP2(name, ...)
#include "graph/scalar.def"
#undef CX_MAP1
#undef CX_MAP1P
#undef CX_MAP2
	default:
		return x;
	}
}

/* y = act(v + bias) * mul + residual at (m, n) of matrix z, rounded where the ops it stands for
 * would round. */
CX_FN void cx_nt_store(CX_BUF(y), CX_BUF(bias), CX_BUF(mul), CX_BUF(res),
	CX_PQ const struct cx_kparams *p, cx_u32 dy, cx_u32 z, cx_u32 m, cx_u32 n, float v)
{
	CX_PQ const struct cx_ktensor *t = p->t;
	v = cx_round_to(dy, v);
	if (t[3].dtype != CX_K_NONE)
		v = cx_round_to(dy, v + cx_load_f(bias, t[3].dtype, t[3].off + n * t[3].stride[5]));
	if (p->i[1]) v = cx_round_to(dy, cx_act(p->i[1], v));
	if (t[4].dtype != CX_K_NONE)
		v = cx_round_to(
			dy, v * cx_load_f(mul, dy, t[4].off + m * t[4].stride[4] + n * t[4].stride[5]));
	if (t[5].dtype != CX_K_NONE)
		v = cx_round_to(
			dy, v + cx_load_f(res, dy, t[5].off + m * t[5].stride[4] + n * t[5].stride[5]));
	cx_store_f(y, dy, cx_batch_at(&t[0], z) + m * t[0].stride[4] + n * t[0].stride[5], v);
}

/* Sixteen k of rows x CX_NT_COLS sums. */
CX_FN void cx_nt_add(const int rows, cx_v16 *acc, const cx_v16 *x, cx_v16 b, const int j)
{
#pragma unroll
	for (int i = 0; i < rows; i++)
		acc[i * CX_NT_COLS + j] = cx_v16_fma(x[i], b, acc[i * CX_NT_COLS + j]);
}

/* rows x CX_NT_COLS outputs from row m0 on; rows and columns past the end repeat the last one and
 * are not stored. */
CX_FN void cx_nt_tile(const int rows, CX_BUF(y), CX_BUF(a), CX_BUF(w), CX_BUF(bias), CX_BUF(mul),
	CX_BUF(res), CX_PQ const struct cx_kparams *p, const cx_u32 dy, const cx_u32 da,
	const cx_u32 dw, const cx_u32 m0)
{
	cx_u32 n0 = CX_GLOBAL_ID(0) * CX_NT_COLS, z = CX_GLOBAL_ID(2), k = 0;
	cx_u32 n_m = p->t[0].dim[4], n_n = p->t[0].dim[5], n_k = (cx_u32)p->i[0],
		   ks = p->t[1].stride[5];
	cx_u32 ar[4], wr[CX_NT_COLS];
	cx_v16 acc[4 * CX_NT_COLS], x[4];
	float sums[4 * CX_NT_COLS];
	if (n0 >= n_n || m0 >= n_m) return;
	if (dw > CX_BOOL) w += (cx_u32)p->i[15];
#pragma unroll
	for (int i = 0; i < rows; i++) {
		cx_u32 m = m0 + (cx_u32)i < n_m ? m0 + (cx_u32)i : n_m - 1;
		ar[i] = cx_batch_at(&p->t[1], z) + m * p->t[1].stride[4];
	}
#pragma unroll
	for (int j = 0; j < CX_NT_COLS; j++) {
		cx_u32 n = n0 + (cx_u32)j < n_n ? n0 + (cx_u32)j : n_n - 1;
		wr[j] = cx_batch_at(&p->t[2], z) + n * p->t[2].stride[4];
	}
#pragma unroll
	for (int i = 0; i < rows * CX_NT_COLS; i++) acc[i] = cx_v16_all(0.0f);
	for (; ks == 1 && k + 16 <= n_k; k += 16) {
#pragma unroll
		for (int i = 0; i < rows; i++) x[i] = cx_load16_full(a, da, ar[i], k);
#pragma unroll
		for (int j = 0; j < CX_NT_COLS; j++)
			cx_nt_add(rows, acc, x, cx_load16_full(w, dw, wr[j], k), j);
	}
	for (; k < n_k; k += 16) { /* any stride, and the end of a row */
#pragma unroll
		for (int i = 0; i < rows; i++) x[i] = cx_load16_by(a, da, ar[i], ks, k, n_k);
#pragma unroll
		for (int j = 0; j < CX_NT_COLS; j++)
			cx_nt_add(rows, acc, x, cx_load16(w, dw, wr[j], k, n_k), j);
	}
#pragma unroll
	for (int i = 0; i < rows * CX_NT_COLS; i++) sums[i] = cx_v16_sum(acc[i]);
#pragma unroll 1 /* one copy of the epilogue */
	for (int i = 0; i < rows * CX_NT_COLS; i++) {
		cx_u32 m = m0 + (cx_u32)i / CX_NT_COLS, n = n0 + (cx_u32)i % CX_NT_COLS;
		float v = sums[i];
		if (m >= n_m || n >= n_n) continue;
		if (dw == CX_I8C) v *= cx_i8c_scale(w, (cx_u32)p->i[2], wr[i % CX_NT_COLS] / n_k);
		cx_nt_store(y, bias, mul, res, p, dy, z, m, n, v);
	}
}

/* i[0] k, i[1] activation (op of a unary row; 0: none), i[2] byte offset of I8C scales, i[15]
 * of a block-format w. t: y [m,n], a [m,k] with any strides,
 * w [n,k] with stride 1 along k, then bias [n], factor and addend [m,n], which may be absent. A 3D
 * grid: columns / 4, rows / 4, batch. */
CX_KERNEL cx_matmul_nt4(
	CX_BUF(y), CX_BUF(a), CX_BUF(w), CX_BUF(bias), CX_BUF(mul), CX_BUF(res), CX_PARAMS)
{
#pragma unroll 1
	for (cx_u32 m = CX_GLOBAL_ID(1) * 4, end = m + 4; m < end; m += CX_NT_ROWS)
		cx_nt_tile(CX_NT_ROWS, y, a, w, bias, mul, res, &P, CX_DT_0, CX_DT_1, CX_DT_2, m);
}

/* The same with a row per item. */
CX_KERNEL cx_matmul_nt1(
	CX_BUF(y), CX_BUF(a), CX_BUF(w), CX_BUF(bias), CX_BUF(mul), CX_BUF(res), CX_PARAMS)
{
	cx_nt_tile(1, y, a, w, bias, mul, res, &P, CX_DT_0, CX_DT_1, CX_DT_2, CX_GLOBAL_ID(1));
}

/* Bytes k..k+15 of a row of n; zeros past its end. */
CX_FN cx_b16 cx_load_b16(CX_GLOBAL const cx_u8 *w, cx_u32 row, cx_u32 k, cx_u32 n)
{
	cx_i8 v[16];
	if (k + 16 <= n) return cx_b16_load(w + row + k);
	for (cx_u32 l = 0; l < 16; l++)
		v[l] = k + l < n ? ((CX_GLOBAL const cx_i8 *)w)[row + k + l] : 0;
	return cx_b16_take(v);
}

/* As cx_nt_tile with w I8C and a rounded to int8: exact sums, then one factor (ops.def, matmul). */
CX_FN void cx_ni_tile(const int rows, CX_BUF(y), CX_BUF(a), CX_BUF(w), CX_BUF(bias), CX_BUF(mul),
	CX_BUF(res), CX_PQ const struct cx_kparams *p, const cx_u32 dy, const cx_u32 da)
{
	cx_u32 n0 = CX_GLOBAL_ID(0) * CX_NT_COLS, m0 = CX_GLOBAL_ID(1) * (cx_u32)rows,
		   z = CX_GLOBAL_ID(2);
	cx_u32 n_m = p->t[0].dim[4], n_n = p->t[0].dim[5], n_k = (cx_u32)p->i[0];
	cx_u32 ar[4], wr[CX_NT_COLS];
	int sums[4 * CX_NT_COLS], bad[4];
	cx_b16 q[4];
	if (n0 >= n_n || m0 >= n_m) return;
	w += (cx_u32)p->i[15];
#pragma unroll
	for (int i = 0; i < rows; i++) {
		cx_u32 m = m0 + (cx_u32)i < n_m ? m0 + (cx_u32)i : n_m - 1;
		ar[i] = cx_batch_at(&p->t[1], z) + m * p->t[1].stride[4];
		bad[i] = 0;
	}
#pragma unroll
	for (int j = 0; j < CX_NT_COLS; j++) {
		cx_u32 n = n0 + (cx_u32)j < n_n ? n0 + (cx_u32)j : n_n - 1;
		wr[j] = cx_batch_at(&p->t[2], z) + n * p->t[2].stride[4];
	}
#pragma unroll
	for (int i = 0; i < rows * CX_NT_COLS; i++) sums[i] = 0;
	for (cx_u32 k = 0; k < n_k; k += 16) {
#pragma unroll
		for (int i = 0; i < rows; i++)
			q[i] = cx_b16_quant(
				cx_load16_by(a, da, ar[i], p->t[1].stride[5], k, n_k), p->f[0], &bad[i]);
#pragma unroll
		for (int j = 0; j < CX_NT_COLS; j++) {
			cx_b16 b = cx_load_b16(w, wr[j], k, n_k);
#pragma unroll
			for (int i = 0; i < rows; i++)
				sums[i * CX_NT_COLS + j] = cx_b16_dot(q[i], b, sums[i * CX_NT_COLS + j]);
		}
	}
#pragma unroll 1 /* one copy of the epilogue */
	for (int i = 0; i < rows * CX_NT_COLS; i++) {
		cx_u32 m = m0 + (cx_u32)i / CX_NT_COLS, n = n0 + (cx_u32)i % CX_NT_COLS;
		float v;
		if (m >= n_m || n >= n_n) continue;
		v = (float)sums[i] *
			(p->f[1] * (n_k ? cx_i8c_scale(w, (cx_u32)p->i[2], wr[i % CX_NT_COLS] / n_k) : 0.0f));
		if (bad[i / CX_NT_COLS]) v = CX_NAN;
		cx_nt_store(y, bias, mul, res, p, dy, z, m, n, v);
	}
}

/* Parameters of cx_matmul_nt4; f[0] is 1 / act_scale, f[1] act_scale. */
CX_KERNEL cx_matmul_ni4(
	CX_BUF(y), CX_BUF(a), CX_BUF(w), CX_BUF(bias), CX_BUF(mul), CX_BUF(res), CX_PARAMS)
{
	cx_ni_tile(4, y, a, w, bias, mul, res, &P, CX_DT_0, CX_DT_1);
}

/* The same with a row per item. */
CX_KERNEL cx_matmul_ni1(
	CX_BUF(y), CX_BUF(a), CX_BUF(w), CX_BUF(bias), CX_BUF(mul), CX_BUF(res), CX_PARAMS)
{
	cx_ni_tile(1, y, a, w, bias, mul, res, &P, CX_DT_0, CX_DT_1);
}

#define CX_NN_COLS 32

/* One k of rows x CX_NN_COLS sums. */
CX_FN void cx_nn_add(const int rows, cx_v16 *acc, CX_BUF(a), const cx_u32 da, const cx_u32 *ar,
	cx_u32 k, cx_v16 b0, cx_v16 b1)
{
#pragma unroll
	for (int i = 0; i < rows; i++) {
		cx_v16 x = cx_v16_all(cx_load_f(a, da, ar[i] + k));
		acc[2 * i] = cx_v16_fma(x, b0, acc[2 * i]);
		acc[2 * i + 1] = cx_v16_fma(x, b1, acc[2 * i + 1]);
	}
}

CX_FN void cx_nn_tile(const int rows, CX_BUF(y), CX_BUF(a), CX_BUF(b),
	CX_PQ const struct cx_kparams *p, const cx_u32 dy, const cx_u32 da, const cx_u32 db,
	const cx_u32 m0)
{
	cx_u32 n0 = CX_GLOBAL_ID(0) * CX_NN_COLS, z = CX_GLOBAL_ID(2);
	cx_u32 n_m = p->t[0].dim[4], n_n = p->t[0].dim[5], n_k = (cx_u32)p->i[0],
		   ks = p->t[1].stride[5];
	cx_u32 bs = p->t[2].stride[4], br, ar[8];
	cx_v16 acc[16];
	if (n0 >= n_n || m0 >= n_m) return;
	br = cx_batch_at(&p->t[2], z);
#pragma unroll
	for (int i = 0; i < rows; i++) {
		cx_u32 m = m0 + (cx_u32)i < n_m ? m0 + (cx_u32)i : n_m - 1;
		ar[i] = cx_batch_at(&p->t[1], z) + m * p->t[1].stride[4];
	}
#pragma unroll
	for (int i = 0; i < 2 * rows; i++) acc[i] = cx_v16_all(0.0f);
	if (n0 + CX_NN_COLS <= n_n) {
		for (cx_u32 k = 0; k < n_k; k++) {
			cx_v16 b0 = cx_load16_full(b, db, br + k * bs, n0),
				   b1 = cx_load16_full(b, db, br + k * bs, n0 + 16);
			cx_nn_add(rows, acc, a, da, ar, k * ks, b0, b1);
		}
	} else {
		for (cx_u32 k = 0; k < n_k; k++) {
			cx_v16 b0 = cx_load16(b, db, br + k * bs, n0, n_n),
				   b1 = cx_load16(b, db, br + k * bs, n0 + 16, n_n);
			cx_nn_add(rows, acc, a, da, ar, k * ks, b0, b1);
		}
	}
#pragma unroll
	for (int i = 0; i < rows; i++) {
		cx_u32 to = cx_batch_at(&p->t[0], z) + (m0 + (cx_u32)i) * p->t[0].stride[4];
		if (m0 + (cx_u32)i >= n_m) continue;
		cx_store16(y, dy, to, n0, n_n, acc[2 * i]);
		cx_store16(y, dy, to, n0 + 16, n_n, acc[2 * i + 1]);
	}
}

/* i[0] k. t: y [m,n] with stride 1 along n, a [m,k] with any strides, b [k,n] with stride 1 along
 * n. A 3D grid: columns / 32, rows / 8, batch. */
CX_KERNEL cx_matmul_nn8(CX_BUF(y), CX_BUF(a), CX_BUF(b), CX_PARAMS)
{
#pragma unroll 1
	for (cx_u32 m = CX_GLOBAL_ID(1) * 8, end = m + 8; m < end; m += CX_NN_ROWS)
		cx_nn_tile(CX_NN_ROWS, y, a, b, &P, CX_DT_0, CX_DT_1, CX_DT_2, m);
}

CX_KERNEL cx_matmul_nn1(CX_BUF(y), CX_BUF(a), CX_BUF(b), CX_PARAMS)
{
	cx_nn_tile(1, y, a, b, &P, CX_DT_0, CX_DT_1, CX_DT_2, CX_GLOBAL_ID(1));
}

#endif
