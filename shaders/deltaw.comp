/* deltaw.comp - what the chunked delta rule (spec/llm.md 2.5) needs of pairs of tokens, once
 * for all columns of the state:
 * W[t,h,0,c] = e^(G_t - G_p) k_t.k_p and W[t,h,1,c] = e^(G_t - G_p) scale q_t.k_p for the
 * token p = c of t's chunk, p <= t, and
 * G[t,h], the sum of g from the chunk's start. Tensors: W, G, q, k, g, off. P_U: 0 dk, 1
 * chunk, 2 nk, 3 nv, 4 rows, 6 tiled,
 * 7 sequences. P_F(0): scale. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "shaders/common.glsl"
#include "shaders/math.glsl"

layout(constant_id = 1) const uint DT = 0;
layout(constant_id = 2) const uint G = 0;
layout(constant_id = 3) const bool HAS_OFF = false;

CX_OUT(0)
CX_OUT(1) CX_IN(2) CX_IN(3) CX_IN(4) CX_VIEWS(5, readonly) CX_LOAD_I32(5)

	void main()
{
	uint i = cx_item();
	if (i >= P_N) return;
	uint c = i % P_U(1), h = i / P_U(1) % P_U(3), t = i / P_U(1) / P_U(3);
	uint hk = P_U(6) != 0u ? h % P_U(2) : h / (P_U(3) / P_U(2));
	int first = HAS_OFF ? -1 : 0;
	if (HAS_OFF)
		for (uint b = 0; b < P_U(7); b++) {
			int lo = max(cx_li5(T_OFF(5) + b * T_STRIDE(5, 5)), 0),
				hi = cx_li5(T_OFF(5) + (b + 1u) * T_STRIDE(5, 5));
			if (int(t) >= lo && int(t) < hi) first = lo;
		}
	if (first < 0) return;
	uint t0 = uint(first) + (t - uint(first)) / P_U(1) * P_U(1), p = t0 + c;
	if (p > t) return;
	float gt = 0.0, gp = 0.0, kk = 0.0, qk = 0.0;
	for (uint u = t0; u <= t; u++) {
		gt += cx_ld4(G, T_OFF(4) + u * T_STRIDE(4, 4) + h * T_STRIDE(4, 5));
		if (u == p) gp = gt;
	}
	uint kt = T_OFF(3) + t * T_STRIDE(3, 3) + hk * T_STRIDE(3, 4),
		 kp = T_OFF(3) + p * T_STRIDE(3, 3) + hk * T_STRIDE(3, 4);
	uint qt = T_OFF(2) + t * T_STRIDE(2, 3) + hk * T_STRIDE(2, 4);
	for (uint r = 0; r < P_U(0); r++) {
		float x = cx_ld3(DT, kp + r * T_STRIDE(3, 5));
		kk = fma(cx_ld3(DT, kt + r * T_STRIDE(3, 5)), x, kk);
		qk = fma(P_F(0) * cx_ld2(DT, qt + r * T_STRIDE(2, 5)), x, qk);
	}
	float e = cx_exp(gt - gp);
	uint to = T_OFF(0) + (t * P_U(3) + h) * 2u * P_U(1) + c;
	cx_st0(CX_F32, to, e * kk);
	cx_st0(CX_F32, to + P_U(1), e * qk);
	if (c == 0u) cx_st1(CX_F32, T_OFF(1) + t * P_U(3) + h, gt);
}
