/* mapi.comp - one elementwise op on integers or bools, in int64: the third column of
 * graph/scalar.def. Also where
 * with such values. Tensors: y, a, b, c. P_I: 0,1 and 2,3 the words of clamp's bounds, 4 zero. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "shaders/common.glsl"
#include "shaders/int64.glsl"

layout(constant_id = 1) const uint OP = 0;
layout(constant_id = 2) const uint RANK = 1; /* 0: dense */
layout(constant_id = 3) const uint Y = 0;
layout(constant_id = 4) const uint A = 0;
layout(constant_id = 5) const uint B = 0;
layout(constant_id = 6) const uint C = 0;
layout(constant_id = 7) const uint N_IN = 1;

CX_VIEWS(0, writeonly)
CX_STORE_L(0) CX_VIEWS(1, readonly) CX_LOAD_L(1) CX_VIEWS(2, readonly) CX_LOAD_L(2)
	CX_VIEWS(3, readonly) CX_LOAD_L(3)

	/* By 0: 0. The divisor -1 is taken out, since the least integer divided by it traps on some
	 * processors. */
	int64_t cx_idiv(int64_t a, int64_t b)
{
	bool odd = b == int64_t(0) || b == int64_t(-1);
	int64_t q = a / (odd ? int64_t(1) : b);
	return b == int64_t(0) ? int64_t(0) : b == int64_t(-1) ? -a : q;
}
#define CX_IDIV cx_idiv
#define CX_NOINT 0

uint cx_off(uint t, uint i)
{
	return RANK == 0 ? T_OFF(t) + i : cx_at(t, i, RANK);
}

void main()
{
	uint i = cx_item();
	if (i >= P_N) return;
	/* P_I(4) is 0, which the compiler cannot know: Mesa 22.3 makes max(x, 0) of a widened
	 * 32-bit x to x */
	int64_t zero = int64_t(P_I(4)), a = cx_ll1(A, cx_off(1, i)) + zero, b = zero, c = zero,
			r = zero;
	if (N_IN > 1) b = cx_ll2(B, cx_off(2, i)) + zero;
	if (N_IN > 2) c = cx_ll3(C, cx_off(3, i)) + zero;
	int64_t x = a, p = packInt2x32(ivec2(P_I(0), P_I(1))), q = packInt2x32(ivec2(P_I(2), P_I(3)));
	switch (OP) {
#define CX_MAP1(name, fexpr, iexpr)                                                                \
	case CX_OP_##name:                                                                             \
		r = int64_t(iexpr);                                                                        \
		break;
#define CX_MAP1P(name, fexpr, iexpr)                                                               \
	case CX_OP_##name:                                                                             \
		r = int64_t(iexpr);                                                                        \
		break;
#define CX_MAP2(name, fexpr, iexpr)                                                                \
	case CX_OP_##name:                                                                             \
		r = int64_t(iexpr);                                                                        \
		break;
#include "graph/scalar.def"
	case CX_OP_where:
		r = a != int64_t(0) ? b : c;
		break;
	}
	cx_sl0(Y, cx_off(0, i), r);
}
