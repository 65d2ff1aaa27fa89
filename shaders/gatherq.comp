/* gatherq.comp - rows of a block format as floats: gather (by index) and cast (all of them). An
 * invocation makes eight
 * elements. Tensors: y (dense), x, idx, scale (I8C: f32 per row). P_U: 0 columns, 1 rows
 * behind an index, 2,3 first and
 * end row that x is bound for, 4 rows in all, 5 first of the scales; see gather.comp. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "shaders/common.glsl"
#include "shaders/quant.glsl"

layout(constant_id = 1) const uint Y = 0;
layout(constant_id = 2) const uint X = 8;
layout(constant_id = 3) const bool INDEXED = true;
layout(constant_id = 4) const uint RANK = 2;

CX_OUT(0)
CX_VIEWS(1, readonly)
CX_BLOCKS(1) CX_VIEWS(2, readonly) CX_LOAD_I32(2) CX_IN(3)

	void main()
{
	uint i = cx_item();
	if (i >= P_N) return;
	uint n8 = (P_U(0) + 7u) / 8u, k = i % n8 * 8u, r = i / n8, sub = r % P_U(1), at = r / P_U(1),
		 rest = sub, from = 0u;
	int row = INDEXED ? cx_li2(cx_at(2, at, 6)) : int(at);
	bool outside = row < 0 || row >= P_I(4);
	if (outside ? P_U(2) != 0u : (row < P_I(2) || row >= P_I(3))) return;
	for (uint a = 5; a > 7 - RANK; a--) {
		uint d = T_DIM(1, a - 1), q = rest / d;
		from += (rest - q * d) * T_STRIDE(1, a - 1);
		rest = q;
	}
	if (RANK > 1) from += uint(row - P_I(2)) * T_STRIDE(1, 6 - RANK);
	float w[8];
	[[unroll]] for (uint j = 0; j < 8; j++) w[j] = 0.0;
	if (X == CX_I8C) {
		[[unroll]] for (uint j = 0; j < 8; j++) if (!outside && k + j < P_U(0)) w[j] =
			cx_i81(T_OFF(1) + from + k + j);
	} else if (!outside) {
		cx_deq1(X, T_OFF(1) + from * cx_block_bytes(X), k, w);
	}
	float scale = 1.0;
	if (X == CX_I8C && !outside)
		scale = cx_ld3(CX_F32, T_OFF(3) + uint(row - P_I(2)) * P_U(1) + sub);
	[[unroll]] for (uint j = 0; j < 8; j++) if (k + j < P_U(0))
		cx_st0(Y, T_OFF(0) + r * P_U(0) + k + j, w[j] * scale);
}
