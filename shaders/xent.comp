/* xent.comp - cross entropy of a row per work group: -log_softmax(x)[target]. Tensors: y, kept,
 * x, target. With SUM y is f32 scratch,
 * and kept (f32) says whether the row counts. n rows, P_U(0) columns, P_I(1) the target that
 * is left out. A target that is no
 * class gives NaN. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "shaders/common.glsl"
#include "shaders/math.glsl"
#include "shaders/row.glsl"

layout(constant_id = 1) const uint Y = 0;
layout(constant_id = 2) const uint X = 0;
layout(constant_id = 3) const bool SUM = false;

CX_OUT(0)
CX_OUT(1) CX_IN(2) CX_VIEWS(3, readonly) CX_LOAD_I32(3)

	void main()
{
	uint row = cx_group(), me = gl_LocalInvocationIndex, n = row < P_N ? P_U(0) : 0u,
		 xs = T_STRIDE(2, 5);
	uint x = T_OFF(2) + row * T_STRIDE(2, 4);
	float m = -cx_inf(), s = 0.0, c = 0.0, loss = 0.0;
	for (uint i = me; i < n; i += 64u) m = cx_max(m, cx_ld2(X, x + i * xs));
	m = cx_group_max(m);
	for (uint i = me; i < n; i += 64u) cx_sum_add(s, c, cx_exp(cx_ld2(X, x + i * xs) - m));
	s = cx_group_sum(s, c);
	if (me != 0u || row >= P_N) return;
	int t = cx_li3(T_OFF(3) + row * T_STRIDE(3, 5));
	bool keep = t != P_I(1);
	if (keep) {
		loss = cx_nan();
		if (t >= 0 && uint(t) < P_U(0)) loss = (m - cx_ld2(X, x + uint(t) * xs)) + cx_log(s);
	}
	cx_st0(Y, T_OFF(0) + row * T_STRIDE(0, 5), loss);
	if (SUM) cx_st1(CX_F32, T_OFF(1) + row, keep ? 1.0 : 0.0);
}
