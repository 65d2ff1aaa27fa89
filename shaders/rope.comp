/* rope.comp - rotary embedding of one pair of elements per invocation, or a copy of what is not
 * rotated. Tensors: 0 y,
 * 2 x, 3 pos, 4 freqs (f32 [r/2], from the caller or a table of the host), 5 and 6 cos, sin
 * (f32 [n_pos, r/2]). Rows are
 * (token, head). P_U: 0 heads, 1 head width, 2 rotated width, 3 positions in the tables.
 * P_F(0): amplitude.
 *
 * With KV the rotated k goes to row slot[token] of a cache, and v beside it: tensors 0 kcache,
 * 1 vcache,
 * 2 k, 7 v, 8 slot; slots differ from each other. P_U(4): rows of the caches. The angle is the
 * f32 product of position and frequency. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "shaders/common.glsl"
#include "shaders/math.glsl"

layout(constant_id = 1) const uint Y = 0;
layout(constant_id = 2) const uint X = 0;
layout(constant_id = 3) const bool TABLES = false;
layout(constant_id = 4) const bool PAIRS = false;
layout(constant_id = 5) const bool KV = false;
layout(constant_id = 6) const uint RANK = 3;

CX_OUT(0)
CX_OUT(1) CX_IN(2) CX_VIEWS(3, readonly) CX_LOAD_I32(3) CX_IN(4) CX_IN(5) CX_IN(6) CX_IN(7)
	CX_VIEWS(8, readonly) CX_LOAD_I32(8)

		void main()
{
	uint i = cx_item(), half_ = P_U(2) / 2u, per_head = half_ + (P_U(1) - P_U(2));
	if (i >= P_N) return;
	uint j = i % per_head, row = i / per_head, head = row % P_U(0), token = row / P_U(0),
		 rest = row;
	uint x = T_OFF(2), y = T_OFF(0), v = T_OFF(7), yv = T_OFF(1), pos_at = token;
	if (KV) {
		int slot = cx_li8(T_OFF(8) + token * T_STRIDE(8, 5));
		if (slot < 0 || slot >= P_I(4)) return;
		y += (uint(slot) * P_U(0) + head) * P_U(1);
		yv += (uint(slot) * P_U(0) + head) * P_U(1);
		v += token * T_STRIDE(7, 3) + head * T_STRIDE(7, 4);
	} else {
		y += row * P_U(1);
	}
	for (uint k = 5; k > 6 - RANK; k--) {
		uint d = T_DIM(2, k - 1), q = rest / d;
		x += (rest - q * d) * T_STRIDE(2, k - 1);
		rest = q;
	}
	uint lo = j < half_ ? (PAIRS ? 2u * j : j) : P_U(2) + (j - half_);
	uint hi = j < half_ ? (PAIRS ? 2u * j + 1u : j + half_) : lo;
	float a = cx_ld2(X, x + lo * T_STRIDE(2, 5)), b = cx_ld2(X, x + hi * T_STRIDE(2, 5)), c = 1.0,
		  s = 0.0;
	if (j < half_) {
		int pos = cx_li3(cx_at(3, pos_at, 6));
		if (TABLES) {
			bool inside = pos >= 0 && pos < P_I(3);
			c = s = 0.0;
			if (inside) {
				c = cx_ld5(CX_F32, T_OFF(5) + uint(pos) * T_STRIDE(5, 4) + j * T_STRIDE(5, 5));
				s = cx_ld6(CX_F32, T_OFF(6) + uint(pos) * T_STRIDE(6, 4) + j * T_STRIDE(6, 5));
			}
		} else {
			precise float angle = float(pos) * cx_ld4(CX_F32, T_OFF(4) + j * T_STRIDE(4, 5));
			c = cx_cos(angle);
			s = cx_sin(angle);
		}
		c *= P_F(0);
		s *= P_F(0);
	}
	cx_st0(Y, y + lo, j < half_ ? a * c - b * s : a);
	if (j < half_) cx_st0(Y, y + hi, b * c + a * s);
	if (KV) {
		cx_st1(Y, yv + lo, cx_ld7(X, v + lo * T_STRIDE(7, 5)));
		if (j < half_) cx_st1(Y, yv + hi, cx_ld7(X, v + hi * T_STRIDE(7, 5)));
	}
}
