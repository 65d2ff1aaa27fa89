/* map.glsl - map programs: a chain of elementwise ops on floats and bools in one pass, unrolled. The program is
 * specialization constants: each instruction is a switch on a constant, which the driver folds to one case. A
 * single op is a program of one instruction (map1.comp), so that small pipelines stay small.
 *
 * Defined by the including shader: CX_MAP_OUT, CX_MAP_IN, CX_MAP_MAX (tensors and instructions at most), and
 * CX_MAP_REDUCE where the last axis is reduced. Tensors: outputs from 0, operands from CX_MAP_OUT; all described in
 * the space of the program (outputs of a reduction: its rows). Registers are f32; bools are 1 and 0 in them. */
#include "shaders/common.glsl"
#include "shaders/math.glsl"

layout(constant_id = 1) const uint N_IN = 1;
layout(constant_id = 2) const uint N_INSTR = 1;
layout(constant_id = 3) const uint N_OUT = 1;
layout(constant_id = 4) const uint RANK =
	1; /* axes to walk; 0: all tensors are dense over the space */
layout(constant_id = 5) const uint X0 = 0; /* dtypes of operands */
layout(constant_id = 6) const uint X1 = 0;
layout(constant_id = 7) const uint X2 = 0;
layout(constant_id = 8) const uint X3 = 0;
layout(constant_id = 9) const uint X4 = 0;
layout(constant_id = 10) const uint X5 = 0;
layout(constant_id = 11) const uint X6 = 0;
layout(constant_id = 12) const uint X7 = 0;
layout(constant_id = 13) const uint Y0 = 0; /* of outputs: dtype | register << 8 */
layout(constant_id = 14) const uint Y1 = 0;
layout(constant_id = 15) const uint Y2 = 0;
layout(constant_id = 16) const uint Y3 = 0;
layout(constant_id = 17) const uint REDUCE = 0; /* 1 sum, 2 mean, 3 max, 4 min */
layout(constant_id = 18) const bool SOFT_DIV = false;
/* Instruction k: op | a << 8 | b << 16 | c << 24, then the bits of p and q. */
#define CX_INSTR(k)                                                                                \
	layout(constant_id = 19 + 3 * k) const uint I##k = 0;                                          \
	layout(constant_id = 20 + 3 * k) const uint P##k = 0;                                          \
	layout(constant_id = 21 + 3 * k) const uint Q##k = 0;
CX_INSTR(0)
#if CX_MAP_MAX > 1
CX_INSTR(1)
CX_INSTR(2) CX_INSTR(3)
#endif
#if CX_MAP_MAX > 4
	CX_INSTR(4) CX_INSTR(5) CX_INSTR(6) CX_INSTR(7) CX_INSTR(8) CX_INSTR(9) CX_INSTR(10)
		CX_INSTR(11) CX_INSTR(12) CX_INSTR(13) CX_INSTR(14) CX_INSTR(15) CX_INSTR(16) CX_INSTR(17)
			CX_INSTR(18) CX_INSTR(19) CX_INSTR(20) CX_INSTR(21) CX_INSTR(22) CX_INSTR(23)
#endif

	/* ---- the arithmetic ---- */

	/* Correctly rounded division for drivers whose own is not: long division of the mantissas in integers. */
	float cx_soft_div(float a, float b)
{
	uint ua = floatBitsToUint(a), ub = floatBitsToUint(b), s = (ua ^ ub) & 0x80000000u;
	uint ma = ua & 0x7fffffffu, mb = ub & 0x7fffffffu;
	if (ma >= CX_INF_BITS || mb >= CX_INF_BITS || ma == 0u || mb == 0u) return a / b;
	int ea = int(ma >> 23), eb = int(mb >> 23);
	ma &= 0x7fffffu;
	mb &= 0x7fffffu;
	if (ea == 0) {
		ea = 1 - (23 - findMSB(ma));
		ma <<= uint(1 - ea);
	} else ma |= 0x800000u;
	if (eb == 0) {
		eb = 1 - (23 - findMSB(mb));
		mb <<= uint(1 - eb);
	} else mb |= 0x800000u;
	int e = ea - eb + 127;
	if (ma < mb) {
		ma <<= 1;
		e--;
	}
	uint q = 0u; /* 26 bits of the quotient in [1, 2), then whether there is a rest */
	for (int i = 0; i < 26; i++) {
		q <<= 1;
		if (ma >= mb) {
			ma -= mb;
			q |= 1u;
		}
		ma <<= 1;
	}
	q = q << 1 | (ma != 0u ? 1u : 0u);
	if (e >= 255) return uintBitsToFloat(s | CX_INF_BITS);
	int drop = e > 0 ? 3 : 3 + 1 - e;
	if (drop > 30) return uintBitsToFloat(s);
	uint rest = q & ((1u << uint(drop)) - 1u), half_ = 1u << uint(drop - 1), m = q >> uint(drop);
	if (rest > half_ || (rest == half_ && (m & 1u) != 0u)) m++;
	m += e > 0 ? uint(e - 1) << 23 : 0u; /* the leading bit, and a carry, count the exponent up */
	return uintBitsToFloat(s | m);
}
float cx_div(float a, float b)
{
	return SOFT_DIV ? cx_soft_div(a, b) : a / b;
}

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
#define CX_POW cx_pow
#define CX_NOINT 0

float cx_apply(const uint w, const float p, const float q, float a, float b, float c)
{
	precise float x = a, r = a;
	switch (w & 255u) {
#define CX_MAP1(name, fexpr, iexpr)                                                                \
	case CX_OP_##name:                                                                             \
		r = fexpr;                                                                                 \
		break;
#define CX_MAP1P(name, fexpr, iexpr)                                                               \
	case CX_OP_##name:                                                                             \
		r = fexpr;                                                                                 \
		break;
#define CX_MAP2(name, fexpr, iexpr)                                                                \
	case CX_OP_##name:                                                                             \
		r = fexpr;                                                                                 \
		break;
#include "graph/scalar.def"
	case CX_OP_cast:
		r = uint(p) == CX_BOOL ? (a != 0.0 ? 1.0 : 0.0) : cx_round_to(uint(p), a);
		break;
	case CX_OP_where:
		r = a != 0.0 ? b : c;
		break;
	}
	if ((w & 255u) == CX_OP_div) r = cx_div(a, b);
	return r;
}

/* ---- tensors ---- */

#if CX_MAP_OUT == 1
CX_OUT(0)
CX_IN(1)
CX_IN(2) CX_IN(3)
#define CX_STORE_ALL cx_st0(Y0 & 255u, off[0], CX_RESULT(0));
#define CX_LOAD_ALL                                                                                \
	r[0] = cx_ld1(X0, off[1]);                                                                     \
	if (N_IN > 1) r[1] = cx_ld2(X1, off[2]);                                                       \
	if (N_IN > 2) r[2] = cx_ld3(X2, off[3]);
#define CX_MAP_SLOTS 4
#else
CX_OUT(0)
CX_OUT(1) CX_OUT(2) CX_OUT(3) CX_IN(4) CX_IN(5) CX_IN(6) CX_IN(7) CX_IN(8) CX_IN(9) CX_IN(10)
	CX_IN(11)
#define CX_STORE_ALL                                                                               \
	cx_st0(Y0 & 255u, off[0], CX_RESULT(0));                                                       \
	if (N_OUT > 1) cx_st1(Y1 & 255u, off[1], CX_RESULT(1));                                        \
	if (N_OUT > 2) cx_st2(Y2 & 255u, off[2], CX_RESULT(2));                                        \
	if (N_OUT > 3) cx_st3(Y3 & 255u, off[3], CX_RESULT(3));
#define CX_LOAD_ALL                                                                                \
	r[0] = cx_ld4(X0, off[4]);                                                                     \
	if (N_IN > 1) r[1] = cx_ld5(X1, off[5]);                                                       \
	if (N_IN > 2) r[2] = cx_ld6(X2, off[6]);                                                       \
	if (N_IN > 3) r[3] = cx_ld7(X3, off[7]);                                                       \
	if (N_IN > 4) r[4] = cx_ld8(X4, off[8]);                                                       \
	if (N_IN > 5) r[5] = cx_ld9(X5, off[9]);                                                       \
	if (N_IN > 6) r[6] = cx_ld10(X6, off[10]);                                                     \
	if (N_IN > 7) r[7] = cx_ld11(X7, off[11]);
#define CX_MAP_SLOTS 12
#endif

#define CX_STEP(k)                                                                                 \
	if (k < N_INSTR)                                                                               \
		r[N_IN + k] = cx_apply(I##k, uintBitsToFloat(P##k), uintBitsToFloat(Q##k),                 \
			r[I##k >> 8 & 31u], r[I##k >> 16 & 31u], r[I##k >> 24 & 31u]);
#if CX_MAP_MAX == 1
#define CX_STEPS CX_STEP(0)
#elif CX_MAP_MAX == 4
#define CX_STEPS CX_STEP(0) CX_STEP(1) CX_STEP(2) CX_STEP(3)
#else
#define CX_STEPS                                                                                   \
	CX_STEP(0)                                                                                     \
	CX_STEP(1) CX_STEP(2) CX_STEP(3) CX_STEP(4) CX_STEP(5) CX_STEP(6) CX_STEP(7) CX_STEP(8)        \
		CX_STEP(9) CX_STEP(10) CX_STEP(11) CX_STEP(12) CX_STEP(13) CX_STEP(14) CX_STEP(15)         \
			CX_STEP(16) CX_STEP(17) CX_STEP(18) CX_STEP(19) CX_STEP(20) CX_STEP(21) CX_STEP(22)    \
				CX_STEP(23)
#endif

/* Adds index i along axis k (5: the last) to every tensor's offset. */
#define CX_MOVE(k, i)                                                                              \
	[[unroll]] for (uint t = 0; t < CX_MAP_SLOTS; t++) off[t] += (i)*T_STRIDE(t, k)

	void cx_walk(uint i, const uint rank, const uint last, inout uint off[CX_MAP_SLOTS])
{
	[[unroll]] for (uint t = 0; t < CX_MAP_SLOTS; t++) off[t] = T_OFF(t);
	if (rank == 0u && last == 5u) {
		[[unroll]] for (uint t = 0; t < CX_MAP_SLOTS; t++) off[t] += i;
	}
	[[unroll]] for (uint k = 0; k < 6; k++)
	{
		if (k >= rank) break;
		uint axis = last - k, d = T_DIM(0, axis), q = i / d;
		if (k + 1u == rank) q = 0u;
		uint j = i - q * d;
		CX_MOVE(axis, j);
		i = q;
	}
}

#ifndef CX_MAP_REDUCE

void main()
{
	uint i = cx_item();
	float r[CX_MAP_IN + CX_MAP_MAX];
	uint off[CX_MAP_SLOTS];
	if (i >= P_N) return;
	cx_walk(i, RANK, 5u, off);
	CX_LOAD_ALL
	CX_STEPS
#define CX_RESULT(o) r[Y##o >> 8 & 31u]
	CX_STORE_ALL
}

#else

/* One work group per row: the rows are axes 0..4 of tensor 0, P_U(0) columns along axis 5 of the operands. Each
 * invocation folds every 64th column, then the partial results are folded in a fixed order. */
shared float cx_part[4][64];

float cx_fold(float a, float b)
{
	float r = a + b;
	if (REDUCE == 3) r = a > b || cx_isnan(a) ? a : b;
	if (REDUCE == 4) r = a < b || cx_isnan(a) ? a : b;
	return r;
}

void main()
{
	uint row = cx_group(), me = gl_LocalInvocationIndex;
	float r[CX_MAP_IN + CX_MAP_MAX], acc[4];
	uint off[CX_MAP_SLOTS];
	float start = REDUCE == 3 ? -cx_inf() : REDUCE == 4 ? cx_inf() : 0.0;
	[[unroll]] for (uint o = 0; o < 4; o++) acc[o] = start;
	if (row < P_N) {
		cx_walk(row, RANK, 4u, off);
		CX_MOVE(5, me);
		for (uint c = me; c < P_U(0); c += 64u) {
			CX_LOAD_ALL
			CX_STEPS
			acc[0] = cx_fold(acc[0], r[Y0 >> 8 & 31u]);
			if (N_OUT > 1) acc[1] = cx_fold(acc[1], r[Y1 >> 8 & 31u]);
			if (N_OUT > 2) acc[2] = cx_fold(acc[2], r[Y2 >> 8 & 31u]);
			if (N_OUT > 3) acc[3] = cx_fold(acc[3], r[Y3 >> 8 & 31u]);
			CX_MOVE(5, 64u);
		}
	}
	[[unroll]] for (uint o = 0; o < 4; o++) if (o < N_OUT) cx_part[o][me] = acc[o];
	barrier();
	if (me != 0u || row >= P_N) return;
	[[unroll]] for (uint o = 0; o < 4; o++)
	{
		if (o >= N_OUT) break;
		for (uint k = 1; k < 64; k++) acc[o] = cx_fold(acc[o], cx_part[o][k]);
		if (REDUCE == 2) acc[o] /= float(P_U(0));
	}
	cx_walk(row, RANK, 4u, off);
#define CX_RESULT(o) acc[o]
	CX_STORE_ALL
}

#endif
