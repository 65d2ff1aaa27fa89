/* attn.comp - attention of one query row and head per work group of 64, over dense, ragged or
 * paged keys.
 *
 * Keys go by in blocks of 64 from the first of the sequence: invocation i scores key i of the
 * block, then the invocations
 * share the elements of the value sum, with the running maximum and total of an online
 * softmax. Blocks start at
 * multiples of 64 of the key's position, so a row does not depend on how many rows or
 * sequences there are.
 *
 * Tensors: y, q, k, v, a, b, mask, bias. a, b: q_off and kv_off [B+1], or (PAGED) q_off and
 * kv_len; table is tensor 8. All as
 * [b, row, head, element] in axes 2..5; mask and bias as [b, head, row, key]. P_U: 0 B, 1 rows
 * of q, 2 rows of k, 3 heads, 4 heads
 * per key head, 5 head width, 6 value width, 7 causal, 8 window, 9 page, 10 blocks of the
 * table. P_F(0): scale. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "shaders/common.glsl"
#include "shaders/math.glsl"
#include "shaders/row.glsl"

layout(constant_id = 1) const uint Y = 0;
layout(constant_id = 2) const uint Q = 0;
layout(constant_id = 3) const uint K = 0;
layout(constant_id = 4) const uint V = 0;
layout(constant_id = 5) const uint KIND = 0; /* 0 dense, 1 ragged with offsets, 2 paged */
layout(constant_id = 6) const bool MASK = false;
layout(constant_id = 7) const bool BIAS = false;
layout(constant_id = 8) const uint PARTS = 1; /* of 64 value elements */

CX_OUT(0)
CX_IN(1)
CX_IN(2) CX_IN(3) CX_VIEWS(4, readonly) CX_LOAD_I32(4) CX_VIEWS(5, readonly) CX_LOAD_I32(5) CX_IN(6)
	CX_IN(7) CX_VIEWS(8, readonly) CX_LOAD_I32(8)

		shared float cx_score[64];
shared uint cx_row_of[64];

int cx_off_a(uint i, int lo, int n)
{
	return clamp(cx_li4(T_OFF(4) + i * T_STRIDE(4, 5)), lo, n);
}
int cx_off_b(uint i, int lo, int n)
{
	return clamp(cx_li5(T_OFF(5) + i * T_STRIDE(5, 5)), lo, n);
}

/* The sequence that row t belongs to (the last one that claims it): first row and rows of q,
 * first and number of keys. */
bool cx_sequence(int t, out uint b, out int q0, out int nq, out int k0, out int nk)
{
	bool found = false;
	int n = P_I(1);
	b = 0u;
	q0 = nq = k0 = nk = 0;
	for (uint i = 0; i < P_U(0); i++) {
		int lo = cx_off_a(i, 0, n), hi = cx_off_a(i + 1u, lo, n);
		if (t >= lo && t < hi) {
			found = true;
			b = i;
			q0 = lo;
			nq = hi - lo;
			if (KIND == 1) {
				k0 = cx_off_b(i, 0, P_I(2));
				nk = cx_off_b(i + 1u, k0, P_I(2)) - k0;
			} else {
				nk = cx_li5(T_OFF(5) + i * T_STRIDE(5, 5));
			}
		}
	}
	return found;
}

void main()
{
	uint g = cx_group(), me = gl_LocalInvocationIndex, h = g % P_U(3), row = g / P_U(3), b = 0u,
		 batch = 0u;
	int q0 = 0, nq = P_I(1), k0 = 0, nk = P_I(2);
	bool some = g < P_N;
	if (KIND == 0) {
		batch = b = row / P_U(1);
		row = row % P_U(1);
	} else if (some) {
		some = cx_sequence(int(row), b, q0, nq, k0, nk);
	}
	int t = int(row) - q0, pos = t + nk - nq, first = 0, end = nk;
	if (KIND == 2) end = min(min(nk, pos + 1), P_I(9) * P_I(10));
	if (KIND == 2 || P_U(7) != 0u) end = min(end, pos + 1);
	if (P_U(8) != 0u) first = max(first, pos - P_I(8) + 1);
	if (!some) end = first;
	uint q = T_OFF(1) + batch * T_STRIDE(1, 2) + row * T_STRIDE(1, 3) + h * T_STRIDE(1, 4),
		 hk = h / max(P_U(4), 1u);
	uint kb = T_OFF(2) + batch * T_STRIDE(2, 2) + hk * T_STRIDE(2, 4);
	uint vb = T_OFF(3) + batch * T_STRIDE(3, 2) + hk * T_STRIDE(3, 4);
	float m = -cx_inf(), total = 0.0, acc[PARTS];
	[[unroll]] for (uint p = 0; p < PARTS; p++) acc[p] = 0.0;
	for (int s0 = first & ~63; s0 < end; s0 += 64) {
		int s = s0 + int(me);
		uint kr = uint(k0 + s);
		bool see = s >= first && s < end;
		float x = -cx_inf();
		if (KIND == 2 && see) {
			int page = cx_li8(T_OFF(8) + b * T_STRIDE(8, 4) + uint(s / P_I(9)) * T_STRIDE(8, 5));
			int slot = page * P_I(9) + s % P_I(9);
			see = page >= 0 && slot < P_I(2);
			kr = uint(slot);
		}
		if (MASK && see)
			see = cx_ld6(CX_BOOL, T_OFF(6) + b * T_STRIDE(6, 2) + h * T_STRIDE(6, 3) +
									  row * T_STRIDE(6, 4) + uint(s) * T_STRIDE(6, 5)) != 0.0;
		if (see) {
			float d = 0.0, c = 0.0;
			uint at = kb + kr * T_STRIDE(2, 3);
			for (uint j = 0; j < P_U(5); j++) {
				precise float e =
					fma(cx_ld1(Q, q + j * T_STRIDE(1, 5)), cx_ld2(K, at + j * T_STRIDE(2, 5)), d);
				d = e;
			}
			precise float z = P_F(0) * d;
			if (BIAS)
				z = z + cx_ld7(CX_F32, T_OFF(7) + b * T_STRIDE(7, 2) + h * T_STRIDE(7, 3) +
										   row * T_STRIDE(7, 4) + uint(s) * T_STRIDE(7, 5));
			x = z;
		}
		float m_new = cx_max(m, cx_group_max(x)), p = cx_exp(x - m_new), keep = cx_exp(m - m_new);
		if (m_new == -cx_inf()) p = 0.0, keep = 1.0; /* nothing seen yet */
		cx_score[me] = x == -cx_inf() ? 0.0 : p;
		cx_row_of[me] = x == -cx_inf() ? 0xffffffffu : kr;
		m = m_new;
		total = total * keep + cx_group_sum(cx_score[me], 0.0);
		[[unroll]] for (uint r = 0; r < PARTS; r++)
		{
			uint j = r * 64u + me;
			float a = acc[r] * keep;
			if (j < P_U(6))
				for (uint k = 0; k < min(64u, uint(end - s0)); k++)
					if (cx_row_of[k] != 0xffffffffu) {
						precise float e = fma(cx_score[k],
							cx_ld3(V, vb + cx_row_of[k] * T_STRIDE(3, 3) + j * T_STRIDE(3, 5)), a);
						a = e;
					}
			acc[r] = a;
		}
	}
	if (g >= P_N) return;
	[[unroll]] for (uint r = 0; r < PARTS; r++)
	{
		uint j = r * 64u + me,
			 y = T_OFF(0) + batch * T_STRIDE(0, 2) + row * T_STRIDE(0, 3) + h * T_STRIDE(0, 4);
		if (j < P_U(6)) cx_st0(Y, y + j * T_STRIDE(0, 5), m == -cx_inf() ? 0.0 : acc[r] / total);
	}
}
