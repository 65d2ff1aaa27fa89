/* gradc.comp - gradient of conv1d, an invocation per result. MODE 0: dz, the gradient of the sums
 * before the activation; then 1: dx, 2: dstate, 3: taps and bias, summed in the order of rows.
 * Slots of sequences differ.
 *
 * Tensors: dx, dw, db, dstate before, dz (f32 [T,C]), x, w, state, dy, bias, dstate after (f32),
 * off, slot. P_U: 0 channels, 1 taps, 2 rows, 3 rows of state, 4 sequences. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "shaders/common.glsl"
#include "shaders/math.glsl"
#include "shaders/row.glsl"
#include "shaders/seq.glsl"

layout(constant_id = 1) const uint MODE = 0;
layout(constant_id = 2) const uint DT = 0; /* of x, dy and dx */
layout(constant_id = 3) const uint S = 0;
layout(constant_id = 4) const uint W = 0;
layout(constant_id = 5) const uint B = 99;
layout(constant_id = 6) const bool AFTER = false; /* a gradient of the state after */
layout(constant_id = 7) const bool HAS_OFF = false;
layout(constant_id = 8) const bool HAS_SLOT = false;
layout(constant_id = 9) const bool SILU = false;

CX_OUT(0)
CX_OUT(1)
CX_OUT(2)
CX_OUT(3)
CX_INOUT(4)
CX_IN(5)
CX_IN(6)
CX_IN(7)
CX_IN(8) CX_IN(9) CX_IN(10) CX_SEQUENCES(11, 12)

	int cx_first,
	cx_end, cx_slot;
uint cx_ch;

void cx_take(uint b)
{
	cx_sequence(b, HAS_OFF, HAS_SLOT, P_I(2), P_I(3), cx_first, cx_end, cx_slot);
}

/* The last sequence that has a row. */
bool cx_find(int row)
{
	for (uint b = P_U(4); b > 0u; b--) {
		cx_take(b - 1u);
		if (row >= cx_first && row < cx_end) return true;
	}
	return false;
}

float cx_tap(int j)
{
	return cx_ld6(W, T_OFF(6) + cx_ch * T_STRIDE(6, 4) + uint(j) * T_STRIDE(6, 5));
}
float cx_dz(int row)
{
	return cx_ld4(CX_F32, T_OFF(4) + uint(row) * P_U(0) + cx_ch);
}
float cx_after(int slot, int i)
{
	return cx_ld10(CX_F32, T_OFF(10) + uint(slot) * T_STRIDE(10, 3) + uint(i) * T_STRIDE(10, 4) +
							   cx_ch * T_STRIDE(10, 5));
}

/* Input at time t of the sequence; before it, the window in the state. */
float cx_input(int t)
{
	float v = 0.0;
	if (t >= 0)
		v = cx_ld5(DT, T_OFF(5) + uint(cx_first + t) * T_STRIDE(5, 4) + cx_ch * T_STRIDE(5, 5));
	else if (cx_slot >= 0)
		v = cx_ld7(S, T_OFF(7) + uint(cx_slot) * T_STRIDE(7, 3) +
						  uint(P_I(1) - 1 + t) * T_STRIDE(7, 4) + cx_ch * T_STRIDE(7, 5));
	return v;
}

/* Gradient of the input at time t: of the outputs that it reaches, and of the state after. */
float cx_into(int t)
{
	int n = cx_end - cx_first, taps = P_I(1), i = t - (n - (taps - 1));
	float s = 0.0;
	if (AFTER && cx_slot >= 0 && i >= 0) s = cx_after(cx_slot, i);
	for (int j = 0; j < taps; j++) {
		int at = t + taps - 1 - j;
		if (at >= 0 && at < n) s = fma(cx_tap(j), cx_dz(cx_first + at), s);
	}
	return s;
}

void cx_sums(int row, uint i)
{
	float d = 0.0;
	if (cx_find(row)) {
		d = cx_ld8(DT, T_OFF(8) + uint(row) * T_STRIDE(8, 4) + cx_ch * T_STRIDE(8, 5));
		if (SILU) {
			float z = 0.0;
			for (int j = 0; j < P_I(1); j++)
				z = fma(cx_tap(j), cx_input(row - cx_first - P_I(1) + 1 + j), z);
			if (B != 99) z += cx_ld9(B, T_OFF(9) + cx_ch * T_STRIDE(9, 5));
			precise float g = 1.0 / (1.0 + cx_exp(-z)), f = g * (1.0 + z * (1.0 - g));
			d *= f;
		}
	}
	cx_st4(CX_F32, T_OFF(4) + i, d);
}

void cx_taps(uint i)
{
	int j = int(i % (P_U(1) + 1u));
	float s = 0.0, c = 0.0;
	cx_ch = i / (P_U(1) + 1u);
	for (uint b = 0; b < P_U(4); b++) {
		cx_take(b);
		for (int t = 0; t < cx_end - cx_first; t++) {
			float d = cx_dz(cx_first + t);
			if (j < P_I(1)) {
				precise float e = d * cx_input(t - P_I(1) + 1 + j);
				d = e;
			}
			cx_sum_add(s, c, d);
		}
	}
	if (j == P_I(1)) cx_st2(CX_F32, T_OFF(2) + cx_ch, cx_sum_get(s, c));
	else cx_st1(CX_F32, T_OFF(1) + cx_ch * P_U(1) + uint(j), cx_sum_get(s, c));
}

void cx_state(uint item)
{
	int window = P_I(1) - 1, i = int(item / P_U(0)) % window, row = int(item / P_U(0)) / window;
	bool found = false;
	float d = 0.0;
	for (uint b = P_U(4); b > 0u && !found; b--) {
		cx_take(b - 1u);
		found = cx_slot == row && cx_end > cx_first;
	}
	if (found) d = cx_into(i - window);
	else if (AFTER) d = cx_after(row, i);
	cx_st3(CX_F32, T_OFF(3) + item, d);
}

void main()
{
	uint i = cx_item();
	if (i >= P_N) return;
	cx_ch = i % P_U(0);
	if (MODE == 0) cx_sums(int(i / P_U(0)), i);
	else if (MODE == 1) {
		int row = int(i / P_U(0));
		float d = 0.0;
		if (cx_find(row)) d = cx_into(row - cx_first);
		cx_st0(DT, T_OFF(0) + i, d);
	} else if (MODE == 2) cx_state(i);
	else cx_taps(i);
}
