/* delta.comp - the gated delta rule, an invocation per sequence, v-head and column of the
 * state: columns do not talk to each
 * other, each reads the whole k and q. Token by token, or with CHUNK in chunks by forward
 * substitution with what deltaw.comp
 * found out about pairs of tokens: each form has NaN and infinities where the reference's has
 * them. Tensors: y, state (updated),
 * spare (f32 [rows, nv, dv]: the corrections D of a chunk), q, k, v, g, beta, off, slot, W, G.
 * P_U: 0 dk, 1 dv, 2 nk, 3 nv, 4 rows,
 * 5 rows of state, 6 tiled, 7 sequences, 8 chunk. P_F(0): scale of q. */
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
layout(constant_id = 7) const bool CHUNK = false;

CX_OUT(0)
CX_INOUT(1)
CX_INOUT(2)
CX_IN(3)
CX_IN(4) CX_IN(5) CX_IN(6) CX_IN(7) CX_SEQUENCES(8, 9) CX_IN(10) CX_IN(11)

	float s[DK];
uint j, h, hk;

uint cx_q(uint t)
{
	return T_OFF(3) + t * T_STRIDE(3, 3) + hk * T_STRIDE(3, 4);
}
uint cx_k(uint t)
{
	return T_OFF(4) + t * T_STRIDE(4, 3) + hk * T_STRIDE(4, 4);
}
float cx_v(uint t)
{
	return cx_ld5(DT, T_OFF(5) + t * T_STRIDE(5, 3) + h * T_STRIDE(5, 4) + j * T_STRIDE(5, 5));
}
float cx_beta(uint t)
{
	return cx_ld7(B, T_OFF(7) + t * T_STRIDE(7, 4) + h * T_STRIDE(7, 5));
}
uint cx_d(uint t)
{
	return T_OFF(2) + (t * P_U(3) + h) * P_U(1) + j;
}
uint cx_w(uint t)
{
	return T_OFF(10) + (t * P_U(3) + h) * 2u * P_U(8);
}
float cx_g(uint t)
{
	return cx_ld11(CX_F32, T_OFF(11) + t * P_U(3) + h);
}
void cx_put(uint t, float o)
{
	cx_st0(DT, T_OFF(0) + (t * P_U(3) + h) * P_U(1) + j, o);
}

float cx_read_k(uint t)
{
	float m = 0.0;
	for (uint r = 0; r < P_U(0); r++) m = fma(s[r], cx_ld4(DT, cx_k(t) + r * T_STRIDE(4, 5)), m);
	return m;
}
float cx_read_q(uint t)
{
	float m = 0.0;
	for (uint r = 0; r < P_U(0); r++)
		m = fma(s[r], P_F(0) * cx_ld3(DT, cx_q(t) + r * T_STRIDE(3, 5)), m);
	return m;
}

void cx_token(uint t)
{
	float decay = cx_exp(cx_ld6(G, T_OFF(6) + t * T_STRIDE(6, 4) + h * T_STRIDE(6, 5)));
	for (uint r = 0; r < P_U(0); r++) s[r] *= decay;
	float d = cx_beta(t) * (cx_v(t) - cx_read_k(t));
	for (uint r = 0; r < P_U(0); r++) s[r] = fma(cx_ld4(DT, cx_k(t) + r * T_STRIDE(4, 5)), d, s[r]);
	cx_put(t, cx_read_q(t));
}

void cx_chunk(uint t0, uint n)
{
	for (uint i = 0; i < n; i++) {
		float beta = cx_beta(t0 + i),
			  d = beta * (cx_v(t0 + i) - cx_exp(cx_g(t0 + i)) * cx_read_k(t0 + i));
		for (uint p = 0; p < i; p++)
			d -= beta * cx_ld10(CX_F32, cx_w(t0 + i) + p) * cx_ld2(CX_F32, cx_d(t0 + p));
		cx_st2(CX_F32, cx_d(t0 + i), d);
	}
	for (uint i = 0; i < n; i++) {
		float o = cx_read_q(t0 + i) * cx_exp(cx_g(t0 + i));
		for (uint p = 0; p <= i; p++)
			o = fma(cx_ld10(CX_F32, cx_w(t0 + i) + P_U(8) + p), cx_ld2(CX_F32, cx_d(t0 + p)), o);
		cx_put(t0 + i, o);
	}
	float last = cx_g(t0 + n - 1u), decay = cx_exp(last);
	for (uint r = 0; r < P_U(0); r++) s[r] *= decay;
	for (uint p = 0; p < n; p++) {
		float e = cx_exp(last - cx_g(t0 + p)) * cx_ld2(CX_F32, cx_d(t0 + p));
		for (uint r = 0; r < P_U(0); r++)
			s[r] = fma(cx_ld4(DT, cx_k(t0 + p) + r * T_STRIDE(4, 5)), e, s[r]);
	}
}

void main()
{
	uint i = cx_item();
	int first, end, slot;
	if (i >= P_N) return;
	j = i % P_U(1);
	h = i / P_U(1) % P_U(3);
	hk = P_U(6) != 0u ? h % P_U(2) : h / (P_U(3) / P_U(2));
	cx_sequence(i / P_U(1) / P_U(3), HAS_OFF, HAS_SLOT, P_I(4), P_I(5), first, end, slot);
	if (end <= first) return;
	uint at = T_OFF(1) + (uint(max(slot, 0)) * P_U(3) + h) * P_U(0) * P_U(1) + j;
	for (uint r = 0; r < P_U(0); r++) {
		s[r] = 0.0;
		if (slot >= 0) s[r] = cx_ld1(CX_F32, at + r * P_U(1));
	}
	if (CHUNK)
		for (uint t = uint(first); t < uint(end); t += P_U(8))
			cx_chunk(t, min(P_U(8), uint(end) - t));
	else
		for (uint t = uint(first); t < uint(end); t++) cx_token(t);
	if (slot >= 0)
		for (uint r = 0; r < P_U(0); r++) cx_st1(CX_F32, at + r * P_U(1), s[r]);
}
