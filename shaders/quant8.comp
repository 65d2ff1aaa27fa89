/* quant8.comp - rows of floats as int8 for products with act_scale (graph/ops.def, matmul):
 * x * P_F(0), from -127 to 127, halves to even; a NaN is -128, which nothing else gives. Four to a
 * word, zeros behind the end of a row.
 * Tensors: d, x [m,k]. P_U: 0 words of a row, 1 k. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "shaders/common.glsl"

layout(constant_id = 1) const uint X = 0;

CX_VIEWS(0, writeonly)
CX_IN(1)

void main()
{
	uint i = cx_item(), word = 0u;
	if (i >= P_N) return;
	uint row = i / P_U(0), k = i % P_U(0) * 4u, from = T_OFF(1) + row * T_STRIDE(1, 4);
	for (uint b = 0; b < 4u && k + b < P_U(1); b++) {
		float x = cx_ld1(X, from + (k + b) * T_STRIDE(1, 5));
		precise float v = x * P_F(0);
		int q = cx_isnan(v) ? -128 : int(roundEven(clamp(v, -127.0, 127.0)));
		word |= (uint(q) & 255u) << (8u * b);
	}
	cx_b32_0.v[T_OFF(0) + i] = word;
}
