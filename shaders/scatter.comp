/* scatter.comp - rows of src written, or added, to rows of y in index order, without atomics:
 * an invocation owns a column
 * and a share of y's rows, and goes through all indices. Tensors: y, idx, src. P_U: 0 columns,
 * 1 indices, 2 rows of y,
 * 3 rows of a share. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "shaders/common.glsl"

layout(constant_id = 1) const uint DT = 0;
layout(constant_id = 2) const uint SIZE = 4;
layout(constant_id = 3) const bool ADD = false;
layout(constant_id = 4) const uint RANK = 6;

CX_INOUT(0)
CX_LOAD_RAW(0) CX_STORE_RAW(0) CX_VIEWS(1, readonly) CX_LOAD_I32(1) CX_IN(2) CX_LOAD_RAW(2)

	uvec2 cx_add_words(uvec2 a, uvec2 b)
{
	uint carry, lo = uaddCarry(a.x, b.x, carry);
	return uvec2(lo, a.y + b.y + carry);
}

void main()
{
	uint i = cx_item(), n_cols = P_U(0);
	if (i >= P_N) return;
	uint col = i % n_cols, lo = i / n_cols * P_U(3), hi = min(lo + P_U(3), P_U(2)), rest = col,
		 from = T_OFF(2);
	for (uint k = 6; k > 7 - RANK; k--) { /* the column in src; y is dense */
		uint d = T_DIM(2, k - 1), q = rest / d;
		from += (rest - q * d) * T_STRIDE(2, k - 1);
		rest = q;
	}
	uint step_ = T_STRIDE(2, 6 - RANK);
	for (uint k = 0; k < P_U(1); k++) {
		int row = cx_li1(T_OFF(1) + k * T_STRIDE(1, 5));
		if (row >= int(lo) && row < int(hi)) {
			uint to = T_OFF(0) + uint(row) * n_cols + col, at = from + k * step_;
			if (!ADD) cx_sr0(SIZE, to, cx_lr2(SIZE, at));
			else if (DT <= CX_BF16) cx_st0(DT, to, cx_ld0(DT, to) + cx_ld2(DT, at));
			else cx_sr0(SIZE, to, cx_add_words(cx_lr0(SIZE, to), cx_lr2(SIZE, at)));
		}
	}
}
