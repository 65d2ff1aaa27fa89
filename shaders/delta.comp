/* delta.comp - the gated delta rule, token by token: an invocation per sequence, v-head and column of the state, which it
 * keeps in place. Columns do not talk to each other: each reads the whole k and q. The chunked form of the op is the
 * same function; this order of sums is within its tolerance. Tensors: y, state (updated), q, k, v, g, beta, off, slot.
 * P_U: 0 dk, 1 dv, 2 nk, 3 nv, 4 rows, 5 rows of state, 6 tiled, 7 sequences.
 * P_F(0): scale of q. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "shaders/common.glsl"
#include "shaders/math.glsl"
#include "shaders/seq.glsl"

layout(constant_id = 1) const uint DT = 0;
layout(constant_id = 2) const uint G = 0;
layout(constant_id = 3) const uint B = 0;
layout(constant_id = 4) const bool HAS_OFF = false;
layout(constant_id = 5) const bool HAS_SLOT = false;
layout(constant_id = 6) const uint DK = 128; /* rows of the state */

CX_OUT(0)
CX_INOUT(1)
CX_IN(2) CX_IN(3) CX_IN(4) CX_IN(5) CX_IN(6)
CX_SEQUENCES(7, 8)

void main()
{
	uint i = cx_item();
	int first, end, slot;
	float s[DK];
	if (i >= P_N) return;
	uint j = i % P_U(1), h = i / P_U(1) % P_U(3), b = i / P_U(1) / P_U(3);
	uint hk = P_U(6) != 0u ? h % P_U(2) : h / (P_U(3) / P_U(2));
	cx_sequence(b, HAS_OFF, HAS_SLOT, P_I(4), P_I(5), first, end, slot);
	if (end <= first) return;
	uint at = T_OFF(1) + (uint(max(slot, 0)) * P_U(3) + h) * P_U(0) * P_U(1) + j;
	for (uint r = 0; r < P_U(0); r++) {
		s[r] = 0.0;
		if (slot >= 0) s[r] = cx_ld1(CX_F32, at + r * P_U(1));
	}
	for (uint t = uint(first); t < uint(end); t++) {
		float decay = cx_exp(cx_ld5(G, T_OFF(5) + t * T_STRIDE(5, 4) + h * T_STRIDE(5, 5)));
		float beta = cx_ld6(B, T_OFF(6) + t * T_STRIDE(6, 4) + h * T_STRIDE(6, 5)), m = 0.0, o = 0.0;
		uint q = T_OFF(2) + t * T_STRIDE(2, 3) + hk * T_STRIDE(2, 4), k = T_OFF(3) + t * T_STRIDE(3, 3) + hk * T_STRIDE(3, 4);
		for (uint r = 0; r < P_U(0); r++) {
			s[r] *= decay;
			m = fma(s[r], cx_ld3(DT, k + r * T_STRIDE(3, 5)), m);
		}
		float d = beta * (cx_ld4(DT, T_OFF(4) + t * T_STRIDE(4, 3) + h * T_STRIDE(4, 4) + j * T_STRIDE(4, 5)) - m);
		for (uint r = 0; r < P_U(0); r++) {
			s[r] = fma(cx_ld3(DT, k + r * T_STRIDE(3, 5)), d, s[r]);
			o = fma(s[r], P_F(0) * cx_ld2(DT, q + r * T_STRIDE(2, 5)), o);
		}
		cx_st0(DT, T_OFF(0) + (t * P_U(3) + h) * P_U(1) + j, o);
	}
	if (slot >= 0)
		for (uint r = 0; r < P_U(0); r++) cx_st1(CX_F32, at + r * P_U(1), s[r]);
}
