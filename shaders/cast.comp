/* cast.comp - elements of one plain dtype as another, as the op cast says. Tensors: y, x. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "shaders/common.glsl"
#include "shaders/int64.glsl"

layout(constant_id = 1) const uint RANK = 1; /* 0: dense */
layout(constant_id = 2) const uint Y = 0;
layout(constant_id = 3) const uint X = 0;

CX_OUT(0)
CX_STORE_L(0) CX_IN(1) CX_LOAD_L(1)

	/* Truncated, saturated, NaN to 0. The limits are powers of two, exact in f32; 2^n itself is
	 * outside. */
	int64_t cx_saturate(const uint dt, float v)
{
	float lo = -2147483648.0, hi = 2147483648.0;
	int64_t least = int64_t(-2147483647) - int64_t(1), most = int64_t(2147483647), r;
	if (dt == CX_I64) {
		lo = -9223372036854775808.0;
		hi = 9223372036854775808.0;
		least = packInt2x32(ivec2(0, 0x80000000));
		most = packInt2x32(ivec2(-1, 0x7fffffff));
	} else if (dt == CX_I8) {
		lo = -128.0, hi = 128.0, least = int64_t(-128), most = int64_t(127);
	} else if (dt == CX_U8) {
		lo = 0.0, hi = 256.0, least = int64_t(0), most = int64_t(255);
	}
	bool inside = v > lo && v < hi;
	r = int64_t(inside ? v : 0.0);
	if (v <= lo) r = least;
	if (v >= hi) r = most;
	return r;
}

void main()
{
	uint i = cx_item();
	if (i >= P_N) return;
	uint to = RANK == 0 ? T_OFF(0) + i : cx_at(0, i, RANK),
		 from = RANK == 0 ? T_OFF(1) + i : cx_at(1, i, RANK);
	if (X <= CX_BF16) {
		float v = cx_ld1(X, from);
		if (Y <= CX_BF16 || Y == CX_BOOL) cx_st0(Y, to, v);
		else cx_sl0(Y, to, cx_saturate(Y, v));
	} else {
		int64_t v = cx_ll1(X, from);
		if (Y <= CX_BF16) cx_st0(Y, to, float(v));
		else cx_sl0(Y, to, v);
	}
}
