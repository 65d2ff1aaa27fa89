/* scan.comp - h_t = a_t h_{t-1} + b_t along axis 1, real or complex: an invocation per batch
 * row and channel. Tensors: y_re, y_im,
 * last_re, last_im, a_re, a_im, b_re, b_im, h_re, h_im, reset (the imaginary ones with
 * COMPLEX). P_U: 0 steps, 1 channels, 2 reverse,
 * 3 has reset. y [B,T,D] in axes 3..5; h and last [B,D], reset [B,T] in axes 4..5. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "shaders/common.glsl"

layout(constant_id = 1) const uint DT = 0;
layout(constant_id = 2) const bool COMPLEX = false;

CX_OUT(0)
CX_OUT(1) CX_OUT(2) CX_OUT(3) CX_IN(4) CX_IN(5) CX_IN(6) CX_IN(7) CX_IN(8) CX_IN(9) CX_IN(10)

#define CX_STEP(t) (T_OFF(t) + b * T_STRIDE(t, 3) + at * T_STRIDE(t, 4) + c * T_STRIDE(t, 5))
#define CX_ROW(t) (T_OFF(t) + b * T_STRIDE(t, 4) + c * T_STRIDE(t, 5))

	void main()
{
	uint i = cx_item();
	if (i >= P_N) return;
	uint b = i / P_U(1), c = i % P_U(1), n = P_U(0);
	float h = cx_ld8(DT, CX_ROW(8)), hi = 0.0;
	if (COMPLEX) hi = cx_ld9(DT, CX_ROW(9));
	for (uint t = 0; t < n; t++) {
		uint at = P_U(2) != 0u ? n - 1u - t : t;
		bool gone = false;
		if (P_U(3) != 0u)
			gone = cx_ld10(CX_BOOL, T_OFF(10) + b * T_STRIDE(10, 4) + at * T_STRIDE(10, 5)) != 0.0;
		if (gone) h = hi = 0.0;
		float a = cx_ld4(DT, CX_STEP(4)), u = cx_ld6(DT, CX_STEP(6));
		if (COMPLEX) {
			float ai = cx_ld5(DT, CX_STEP(5)), ui = cx_ld7(DT, CX_STEP(7));
			float re = a * h - ai * hi + u;
			hi = a * hi + ai * h + ui;
			h = re;
			cx_st1(DT, CX_STEP(1), hi);
		} else {
			h = a * h + u;
		}
		cx_st0(DT, CX_STEP(0), h);
	}
	cx_st2(DT, CX_ROW(2), h);
	if (COMPLEX) cx_st3(DT, CX_ROW(3), hi);
}
