/* conv1d.comp - causal depthwise convolution with a kept window: an invocation per sequence and
 * channel goes through the
 * sequence's rows, then shifts the window. Slots of different sequences differ. Tensors: y,
 * state (updated), x, w, bias, off,
 * slot. P_U: 0 channels, 1 taps, 2 rows, 3 rows of state, 4 sequences. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "shaders/common.glsl"
#include "shaders/math.glsl"
#include "shaders/seq.glsl"

layout(constant_id = 1) const uint DT = 0; /* of x and y */
layout(constant_id = 2) const uint S = 0;
layout(constant_id = 3) const uint W = 0;
layout(constant_id = 4) const uint B = 99;
layout(constant_id = 5) const bool HAS_OFF = false;
layout(constant_id = 6) const bool HAS_SLOT = false;
layout(constant_id = 7) const bool SILU = false;

CX_OUT(0)
CX_INOUT(1)
CX_IN(2)
CX_IN(3) CX_IN(4) CX_SEQUENCES(5, 6)

	int cx_first,
	cx_slot;
uint cx_ch;

/* Input at time t of the sequence; before it, the window in the state. */
float cx_input(int t)
{
	float v = 0.0;
	if (t >= 0)
		v = cx_ld2(DT, T_OFF(2) + uint(cx_first + t) * T_STRIDE(2, 4) + cx_ch * T_STRIDE(2, 5));
	else if (cx_slot >= 0)
		v = cx_ld1(
			S, T_OFF(1) + (uint(cx_slot) * (P_U(1) - 1u) + uint(P_I(1) - 1 + t)) * P_U(0) + cx_ch);
	return v;
}

void main()
{
	uint i = cx_item();
	int end;
	if (i >= P_N) return;
	cx_ch = i % P_U(0);
	cx_sequence(i / P_U(0), HAS_OFF, HAS_SLOT, P_I(2), P_I(3), cx_first, end, cx_slot);
	int n = end - cx_first, taps = P_I(1);
	for (int t = 0; t < n; t++) {
		float s = 0.0;
		for (int j = 0; j < taps; j++)
			s = fma(cx_ld3(W, T_OFF(3) + cx_ch * T_STRIDE(3, 4) + uint(j) * T_STRIDE(3, 5)),
				cx_input(t - taps + 1 + j), s);
		if (B != 99) s += cx_ld4(B, T_OFF(4) + cx_ch * T_STRIDE(4, 5));
		if (SILU) {
			s = cx_round_to(DT, s);
			s = s / (1.0 + cx_exp(-s));
		}
		cx_st0(DT, T_OFF(0) + uint(cx_first + t) * P_U(0) + cx_ch, s);
	}
	if (cx_slot < 0 || n <= 0) return;
	for (int k = 0; k < taps - 1;
		 k++) /* ascending: older entries are read before they are written */
		cx_st1(S, T_OFF(1) + (uint(cx_slot) * (P_U(1) - 1u) + uint(k)) * P_U(0) + cx_ch,
			cx_input(n - (taps - 1) + k));
}
