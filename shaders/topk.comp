/* topk.comp - the k first elements of a row in descending (or ascending) order, ties to the
 * lowest index, NaN as the
 * largest; argmax is the first index alone. Every element becomes a pair of words whose order
 * is that of the op. A work
 * group per row picks k times the first of those after the last one. Tensors: idx, y, x, each
 * with the axis last. P_U: 0 k. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "shaders/common.glsl"

layout(constant_id = 1) const uint DT = 0;
layout(constant_id = 2) const uint SIZE = 4;
layout(constant_id = 3) const bool VALUES = true;
layout(constant_id = 4) const bool SMALLEST = false;
layout(constant_id = 5) const uint RANK = 6;

CX_VIEWS(0, writeonly)
CX_VIEWS(1, writeonly)
CX_STORE_RAW(1) CX_IN(2) CX_LOAD_RAW(2)

	shared uvec2 cx_keys[64];
shared uint cx_at_[64];

/* Larger comes first. x is the more significant word. */
uvec2 cx_key(uint o)
{
	uvec2 k = uvec2(0u);
	if (DT <= CX_BF16) {
		uint u = floatBitsToUint(cx_ld2(DT, o));
		if (u == 0x80000000u) u = 0u;
		k.x = (u & 0x7fffffffu) > CX_INF_BITS ? 0xffffffffu
			  : (u >> 31) != 0u               ? ~u
											  : u | 0x80000000u;
	} else {
		uvec2 w = cx_lr2(SIZE, o);
		k.x = w.x;
		if (DT == CX_I32) k.x = w.x ^ 0x80000000u;
		if (DT == CX_I8) k.x = (w.x & 255u) ^ 128u;
		if (DT == CX_I64) k = uvec2(w.y ^ 0x80000000u, w.x);
	}
	return SMALLEST ? ~k : k;
}

/* Element a, at index i, before element b, at index j. */
bool cx_before(uvec2 a, uint i, uvec2 b, uint j)
{
	if (a.x != b.x) return a.x > b.x;
	if (a.y != b.y) return a.y > b.y;
	return i < j;
}

void main()
{
	uint row = cx_group(), n = T_DIM(2, 5), me = gl_LocalInvocationIndex, rest = row;
	uint x = T_OFF(2), y = T_OFF(1), to = T_OFF(0);
	uvec2 last = uvec2(0u);
	uint last_at = 0xffffffffu;
	for (uint k = 5; k > 6 - RANK; k--) {
		uint d = T_DIM(2, k - 1), q = rest / d, j = rest - q * d;
		x += j * T_STRIDE(2, k - 1);
		y += j * T_STRIDE(1, k - 1);
		to += j * T_STRIDE(0, k - 1);
		rest = q;
	}
	if (row >= P_N) n = 0u;
	for (uint k = 0; k < P_U(0); k++) {
		uvec2 best = uvec2(0u);
		uint best_at = 0xffffffffu;
		for (uint i = me; i < n; i += 64u) {
			uvec2 v = cx_key(x + i * T_STRIDE(2, 5));
			bool taken = last_at != 0xffffffffu && !cx_before(last, last_at, v, i);
			if (!taken && (best_at == 0xffffffffu || cx_before(v, i, best, best_at))) {
				best = v;
				best_at = i;
			}
		}
		barrier();
		cx_keys[me] = best;
		cx_at_[me] = best_at;
		barrier();
		last_at = 0xffffffffu;
		for (uint t = 0; t < 64; t++) {
			bool some = cx_at_[t] != 0xffffffffu;
			if (some &&
				(last_at == 0xffffffffu || cx_before(cx_keys[t], cx_at_[t], last, last_at))) {
				last = cx_keys[t];
				last_at = cx_at_[t];
			}
		}
		if (me == 0u && n > 0u) {
			cx_b32_0.v[to + k * T_STRIDE(0, 5)] = last_at;
			if (VALUES)
				cx_sr1(SIZE, y + k * T_STRIDE(1, 5), cx_lr2(SIZE, x + last_at * T_STRIDE(2, 5)));
		}
	}
}
