/* gradn.comp - gradient of layernorm and rmsnorm. First a work group of 64 per row: dx, and the
 * row's mean and 1 / deviation; then an invocation per column: dw and db, in the order of rows.
 * Formulas: backends/ref/grad.c.
 *
 * Tensors: dx, dw, db, statistics (f32 [rows, 2]), x, dy, w. P_U: 0 columns, 1 rows. P_F(0):
 * eps. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "shaders/common.glsl"
#include "shaders/row.glsl"

layout(constant_id = 1) const bool COLUMNS = false;
layout(constant_id = 2) const bool LAYER = false;
layout(constant_id = 3) const uint DT = 0; /* of x, dy and dx */
layout(constant_id = 4) const uint W = 99; /* dtype of w, 99: none */
layout(constant_id = 5) const bool PLUS_ONE = false;
layout(constant_id = 6) const uint RANK = 6;

CX_OUT(0)
CX_OUT(1)
CX_OUT(2)
CX_INOUT(3)
CX_IN(4)
CX_IN(5)
CX_IN(6)

	/* Where row `row` of x and of dy begins. */
	uvec2 cx_row(uint row)
{
	uvec2 at = uvec2(T_OFF(4), T_OFF(5));
	for (uint k = 5; k > 6 - RANK; k--) {
		uint d = T_DIM(4, k - 1), q = row / d, j = row - q * d;
		at += j * uvec2(T_STRIDE(4, k - 1), T_STRIDE(5, k - 1));
		row = q;
	}
	return at;
}

float cx_x(uvec2 at, uint i)
{
	return cx_ld4(DT, at.x + i * T_STRIDE(4, 5));
}
float cx_g(uvec2 at, uint i)
{
	return cx_ld5(DT, at.y + i * T_STRIDE(5, 5));
}
float cx_w(uint i)
{
	float w = PLUS_ONE && W == 99 ? 0.0 : 1.0;
	if (W != 99) w = cx_ld6(W, T_OFF(6) + i * T_STRIDE(6, 5));
	return PLUS_ONE ? 1.0 + w : w;
}

void cx_columns()
{
	uint i = cx_item();
	float sw = 0.0, cw = 0.0, sb = 0.0, cb = 0.0;
	if (i >= P_N) return;
	for (uint row = 0; row < P_U(1); row++) {
		uvec2 at = cx_row(row);
		float g = cx_g(at, i);
		precise float d = cx_x(at, i) - cx_ld3(CX_F32, T_OFF(3) + 2u * row);
		precise float h = d * cx_ld3(CX_F32, T_OFF(3) + 2u * row + 1u), e = g * h;
		cx_sum_add(sw, cw, e);
		cx_sum_add(sb, cb, g);
	}
	cx_st1(CX_F32, T_OFF(1) + i, cx_sum_get(sw, cw));
	if (LAYER) cx_st2(CX_F32, T_OFF(2) + i, cx_sum_get(sb, cb));
}

void cx_rows()
{
	uint row = cx_group(), cols = P_U(0), n = row < P_N ? cols : 0u, me = gl_LocalInvocationIndex;
	uvec2 at = cx_row(row < P_N ? row : 0u);
	float s = 0.0, c = 0.0, mean = 0.0, a = 0.0, b;
	if (LAYER) {
		for (uint i = me; i < n; i += 64u) cx_sum_add(s, c, cx_x(at, i));
		mean = cx_pair_mean(cx_group_pair(s, c), float(cols));
		s = c = 0.0;
	}
	for (uint i = me; i < n; i += 64u) {
		precise float d = cx_x(at, i) - mean, e = d * d;
		cx_sum_add(s, c, e);
	}
	float r = 1.0 / sqrt(cx_group_sum(s, c) / float(cols) + P_F(0));
	if (LAYER) {
		s = c = 0.0;
		for (uint i = me; i < n; i += 64u) {
			precise float g = cx_g(at, i) * cx_w(i);
			cx_sum_add(s, c, g);
		}
		a = cx_pair_mean(cx_group_pair(s, c), float(cols));
	}
	s = c = 0.0;
	for (uint i = me; i < n; i += 64u) {
		precise float g = cx_g(at, i) * cx_w(i), h = (cx_x(at, i) - mean) * r, e = g * h;
		cx_sum_add(s, c, e);
	}
	b = cx_group_sum(s, c) / float(cols);
	for (uint i = me; i < n; i += 64u) {
		precise float g = cx_g(at, i) * cx_w(i), h = (cx_x(at, i) - mean) * r;
		precise float e = (g - a) - h * b, y = r * e;
		cx_st0(DT, T_OFF(0) + row * cols + i, y);
	}
	if (me == 0u && row < P_N) {
		cx_st3(CX_F32, T_OFF(3) + 2u * row, mean);
		cx_st3(CX_F32, T_OFF(3) + 2u * row + 1u, r);
	}
}

void main()
{
	if (COLUMNS) cx_columns();
	else cx_rows();
}
