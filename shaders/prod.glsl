/* prod.glsl - what the kernels for products share: the order of sums, what follows a product, and the shape of the work.
 *
 * c[m,n] = sum over k of x[m,k] w[n,k], then bias, activation, a factor (gating), a residual. One order of sums for all
 * shapes of work, so that a row has the same bits whatever it was batched with: K is cut into segments of 32; segments s,
 * s+8, s+16 ... are lane s of 8; a lane adds its products in ascending order; the lanes are added 0..7. With LANES == 8
 * eight invocations share a column (few rows: the weight is read once, eight streams of it at a time); with LANES == 1
 * one invocation walks them all, for a tile of ROWS x COLS.
 *
 * The including shader reads x and w: it defines void cx_lane(l, m0, n0, inout acc), which adds the
 * products of lane l for the tile at (m0, n0); rows and columns past the end may read the last one.
 *
 * Tensors: y, x, w, scale (I8C), bias, residual, factor. In all: axis 5 the innermost; y and residual and factor [.., m, n],
 * x [.., m, k], w [.., n, k] (the host swaps strides for transposes). P_U: 0 M, 1 N, 2 K, 3 tiles along n, 4 tiles along m. */
#include "shaders/common.glsl"
#include "shaders/math.glsl"

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
CX_IN(3)
CX_IN(4) CX_IN(5) CX_IN(6)

#define CX_K(v) float(v)
#define CX_EXP cx_exp
#define CX_LOG cx_log
#define CX_LOG1P cx_log1p
#define CX_SQRT sqrt
#define CX_SIN cx_sin
#define CX_COS cx_cos
#define CX_TANH cx_tanh
#define CX_ERF cx_erf
#define CX_ERFCN cx_erfcn
#define CX_FLOOR floor
#define CX_CEIL ceil
#define CX_ROUND roundEven
#define CX_FABS abs
#define CX_NOINT 0

float cx_act(float x)
{
	precise float r = x;
	switch (ACT) {
#define CX_MAP1(name, fexpr, iexpr)                                                                \
	case CX_OP_##name:                                                                             \
		r = fexpr;                                                                                 \
		break;
#define CX_MAP1P(name, fexpr, iexpr)
#define CX_MAP2(name, fexpr, iexpr)
#include "graph/scalar.def"
	}
	return r;
}

/* Read once: a parameter is a load, which drivers do not move out of loops. */
uint cx_m, cx_n, cx_k;     /* dims of the product */
uint cx_ms[7], cx_ns[7];   /* strides of axes 4 and 5, of w its [n,k] */
uint cx_base[7];           /* offset of this batch; of w behind cx_w0 */
uint cx_w0;

void cx_setup()
{
	cx_m = P_U(0);
	cx_n = P_U(1);
	cx_k = P_U(2);
	cx_w0 = T_OFF(2);
	[[unroll]] for (uint t = 0; t < 7; t++)
	{
		cx_ms[t] = T_STRIDE(t, 4);
		cx_ns[t] = T_STRIDE(t, 5);
	}
}
