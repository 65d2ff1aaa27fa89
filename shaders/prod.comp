/* prod.comp - products of every kind: c[m,n] = sum over k of x[m,k] w[n,k], then what follows it: bias, activation, a
 * factor (gating), a residual. x and w are floats of any strides, or w is a block format read as it is.
 *
 * One order of sums for all shapes of work, so that a row has the same bits whatever it was batched with: K is cut into
 * segments of 32; segments s, s+8, s+16 ... are lane s of 8; a lane adds its products in ascending order; the lanes
 * are added 0..7. With LANES == 8 eight invocations share a column (few rows: the weight is read once, eight streams of
 * it at a time); with LANES == 1 one invocation walks them all, for a tile of ROWS x COLS.
 *
 * Tensors: y, x, w, scale (I8C), bias, residual, factor. In all: axis 5 the innermost; y and residual and factor [.., m, n],
 * x [.., m, k], w [.., n, k] (the host swaps strides for transposes). P_U: 0 M, 1 N, 2 K, 3 tiles along n, 4 tiles along m. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "shaders/common.glsl"
#include "shaders/math.glsl"
#include "shaders/quant.glsl"

layout(constant_id = 1) const uint Y = 0;
layout(constant_id = 2) const uint X = 0;
layout(constant_id = 3) const uint W = 0;
layout(constant_id = 4) const uint BIAS = 99; /* dtypes; 99: absent */
layout(constant_id = 5) const uint RESID = 99;
layout(constant_id = 6) const uint FACTOR = 99;
layout(constant_id = 7) const uint ACT = 0;
layout(constant_id = 8) const uint ROWS = 1;
layout(constant_id = 9) const uint COLS = 1;
layout(constant_id = 10) const uint LANES = 8;
layout(constant_id = 11) const bool BATCH = false;
layout(constant_id = 12) const bool TAIL = false; /* K is no multiple of 8 */

CX_OUT(0)
CX_IN(1)
CX_IN(2) CX_BLOCKS(2)
CX_IN(3) CX_IN(4) CX_IN(5) CX_IN(6)

#define CX_K(v) float(v)
#define CX_EXP cx_exp
#define CX_LOG cx_log
#define CX_LOG1P cx_log1p
#define CX_SQRT sqrt
#define CX_SIN cx_sin
#define CX_COS cx_cos
#define CX_TANH cx_tanh
#define CX_ERF cx_erf
#define CX_ERFC cx_erfc
#define CX_FLOOR floor
#define CX_CEIL ceil
#define CX_ROUND roundEven
#define CX_FABS abs
#define CX_NOINT 0

float cx_act(float x)
{
	precise float r = x;
	switch (ACT) {
#define CX_MAP1(name, fexpr, iexpr) case CX_OP_##name: r = fexpr; break;
#define CX_MAP1P(name, fexpr, iexpr)
#define CX_MAP2(name, fexpr, iexpr)
#include "graph/scalar.def"
	}
	return r;
}

uint cx_base[7]; /* of this batch */

float cx_x(uint m, uint k) { return cx_ld1(X, cx_base[1] + m * T_STRIDE(1, 4) + k * T_STRIDE(1, 5)); }

/* Eight elements of column n of w; past the end zeros. */
void cx_w8(uint n, uint k, out float w[8])
{
	if (W == CX_I8C) {
		uint at = T_OFF(2) + n * T_STRIDE(2, 4) + k;
		[[unroll]] for (uint j = 0; j < 8; j++) {
			w[j] = 0.0;
			if (!TAIL || k + j < P_U(2)) w[j] = cx_i82(at + j);
		}
	} else if (W > CX_BF16) {
		cx_deq2(W, T_OFF(2) + (cx_base[2] + n * T_STRIDE(2, 4)) * cx_block_bytes(W), k, w);
	} else {
		uint at = T_OFF(2) + cx_base[2] + n * T_STRIDE(2, 4) + k * T_STRIDE(2, 5);
		[[unroll]] for (uint j = 0; j < 8; j++) {
			w[j] = 0.0;
			if (!TAIL || k + j < P_U(2)) w[j] = cx_ld2(W, at + j * T_STRIDE(2, 5));
		}
	}
}

/* acc += the products of lane l for the tile at (m0, n0). Rows and columns past the end read the last one. */
void cx_lane(uint l, uint m0, uint n0, inout float acc[ROWS][COLS])
{
	for (uint s = l * 32u; s < P_U(2); s += 256u)
		for (uint k = s; k < min(s + 32u, P_U(2)); k += 8u) {
			float w[COLS][8];
			[[unroll]] for (uint c = 0; c < COLS; c++) cx_w8(min(n0 + c, P_U(1) - 1u), k, w[c]);
			[[unroll]] for (uint r = 0; r < ROWS; r++) {
				uint m = min(m0 + r, P_U(0) - 1u);
				[[unroll]] for (uint j = 0; j < 8; j++) {
					float x = 0.0;
					if (!TAIL || k + j < P_U(2)) x = cx_x(m, k + j);
					[[unroll]] for (uint c = 0; c < COLS; c++) {
						precise float a = fma(x, w[c][j], acc[r][c]);
						acc[r][c] = a;
					}
				}
			}
		}
}

void cx_finish(uint m, uint n, float v)
{
	precise float z = v;
	if (m >= P_U(0) || n >= P_U(1)) return;
	if (W == CX_I8C) z = z * cx_ld3(CX_F32, T_OFF(3) + n);
	z = cx_round_to(Y, z); /* 16-bit results: where the op that this one took in would have stored it */
	if (BIAS != 99) z = cx_round_to(Y, z + cx_ld4(BIAS, T_OFF(4) + n * T_STRIDE(4, 5)));
	if (ACT != 0) z = cx_round_to(Y, cx_act(z));
	if (FACTOR != 99) z = cx_round_to(Y, z * cx_ld6(FACTOR, cx_base[6] + m * T_STRIDE(6, 4) + n * T_STRIDE(6, 5)));
	if (RESID != 99) z = z + cx_ld5(RESID, cx_base[5] + m * T_STRIDE(5, 4) + n * T_STRIDE(5, 5));
	cx_st0(Y, cx_base[0] + m * T_STRIDE(0, 4) + n * T_STRIDE(0, 5), z);
}

shared float cx_part[LANES == 8 ? ROWS : 1][64];

void main()
{
	uint g = cx_group(), me = gl_LocalInvocationIndex, per_n = LANES == 8 ? 8u : 8u * COLS, per_m = LANES == 8 ? ROWS : 8u * ROWS;
	uint tn = g % P_U(3), tm = g / P_U(3) % P_U(4), b = g / P_U(3) / P_U(4), rest = b;
	uint n0 = tn * per_n + (LANES == 8 ? me / 8u : me % 8u * COLS), m0 = tm * per_m + (LANES == 8 ? 0u : me / 8u * ROWS);
	float acc[ROWS][COLS], total[ROWS][COLS];
	[[unroll]] for (uint t = 0; t < 7; t++) cx_base[t] = t == 2u ? 0u : T_OFF(t);
	if (BATCH)
		for (uint k = 4; k > 0; k--) {
			uint d = T_DIM(0, k - 1), q = rest / d, j = rest - q * d;
			[[unroll]] for (uint t = 0; t < 7; t++) cx_base[t] += j * T_STRIDE(t, k - 1);
			rest = q;
		}
	[[unroll]] for (uint r = 0; r < ROWS; r++)
		[[unroll]] for (uint c = 0; c < COLS; c++) total[r][c] = acc[r][c] = 0.0;
	if (LANES == 8) {
		if (g < P_N && n0 < P_U(1)) cx_lane(me % 8u, m0, n0, acc);
		[[unroll]] for (uint r = 0; r < ROWS; r++) cx_part[r][me] = acc[r][0];
		barrier();
		if (me % 8u != 0u || g >= P_N) return;
		[[unroll]] for (uint r = 0; r < ROWS; r++) {
			precise float s = cx_part[r][me];
			[[unroll]] for (uint l = 1; l < 8; l++) s = s + cx_part[r][me + l];
			cx_finish(m0 + r, n0, s);
		}
		return;
	}
	if (g >= P_N || m0 >= P_U(0) || n0 >= P_U(1)) return;
	for (uint l = 0; l < 8; l++) {
		[[unroll]] for (uint r = 0; r < ROWS; r++)
			[[unroll]] for (uint c = 0; c < COLS; c++) acc[r][c] = 0.0;
		cx_lane(l, m0, n0, acc);
		[[unroll]] for (uint r = 0; r < ROWS; r++)
			[[unroll]] for (uint c = 0; c < COLS; c++) {
				precise float t = l == 0u ? acc[r][c] : total[r][c] + acc[r][c];
				total[r][c] = t;
			}
	}
	[[unroll]] for (uint r = 0; r < ROWS; r++)
		[[unroll]] for (uint c = 0; c < COLS; c++) cx_finish(m0 + r, n0 + c, total[r][c]);
}
