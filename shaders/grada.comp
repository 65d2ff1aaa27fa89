/* grada.comp - gradient of attention. First a work group of 64 per query row and head: dq, the
 * row's largest score, 1 / sum of weights and dy.y; then (KEYS) one per key row and head of keys:
 * dk and dv, over the rows that may see it in their order. Keys, or rows, go by in blocks of 64:
 * an invocation per one, then the invocations share the elements.
 *
 * Tensors: dq or dk, gradient of the scores (f32) or dv, statistics (f32 [rows, heads, 3]), q, k,
 * v, y, dy, q_off, kv_off, mask, bias. All as [b, row, head, element] in axes 2..5; mask, bias
 * and scores as [b, head, row, key]. P_U: 0 sequences, 1 rows of q, 2 rows of k, 3 heads, 4 heads
 * per key head, 5 head width, 6 value width, 7 causal, 8 window, 9 heads of keys. P_F(0): scale. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "shaders/common.glsl"
#include "shaders/math.glsl"
#include "shaders/row.glsl"

layout(constant_id = 1) const bool KEYS = false;
layout(constant_id = 2) const uint Q = 0; /* dtype of q, y, dy, dq */
layout(constant_id = 3) const uint K = 0;
layout(constant_id = 4) const uint V = 0;
layout(constant_id = 5) const bool RAGGED = false; /* with offsets */
layout(constant_id = 6) const bool MASK = false;
layout(constant_id = 7) const bool BIAS = false;
layout(constant_id = 8) const bool SCORES = false; /* their gradient is wanted */
layout(constant_id = 9) const uint PARTS = 1;      /* of 64 elements of k or v */

CX_OUT(0)
CX_OUT(1)
CX_INOUT(2)
CX_IN(3)
CX_IN(4)
CX_IN(5)
CX_IN(6) CX_IN(7) CX_VIEWS(8, readonly) CX_LOAD_I32(8) CX_VIEWS(9, readonly) CX_LOAD_I32(9)
	CX_IN(10) CX_IN(11)

		shared float cx_a[64],
	cx_b[64];
shared uint cx_of[64], cx_of2[64];

/* A sequence: batch index, first and number of rows of q and k. */
int cx_batch, cx_q0, cx_nq, cx_k0, cx_nk;

uint cx_place(const uint t, uint batch, uint row, uint h)
{
	return T_OFF(t) + batch * T_STRIDE(t, 2) + row * T_STRIDE(t, 3) + h * T_STRIDE(t, 4);
}
uint cx_pair_at(const uint t, uint h, uint row, uint key)
{
	return T_OFF(t) + uint(cx_batch) * T_STRIDE(t, 2) + h * T_STRIDE(t, 3) + row * T_STRIDE(t, 4) +
		   key * T_STRIDE(t, 5);
}
int cx_off_q(uint i, int lo)
{
	return clamp(cx_li8(T_OFF(8) + i * T_STRIDE(8, 5)), lo, P_I(1));
}
int cx_off_k(uint i, int lo)
{
	return clamp(cx_li9(T_OFF(9) + i * T_STRIDE(9, 5)), lo, P_I(2));
}

/* The last sequence that has row `row` of q (or of k). False: none. */
bool cx_find(int row, const bool of_k)
{
	bool found = false;
	cx_batch = cx_q0 = cx_nq = cx_k0 = cx_nk = 0;
	for (uint i = 0; i < P_U(0); i++) {
		int q0 = cx_off_q(i, 0), q1 = cx_off_q(i + 1u, q0), k0 = cx_off_k(i, 0),
			k1 = cx_off_k(i + 1u, k0);
		if (row >= (of_k ? k0 : q0) && row < (of_k ? k1 : q1)) {
			found = true;
			cx_batch = int(i);
			cx_q0 = q0;
			cx_nq = q1 - q0;
			cx_k0 = k0;
			cx_nk = k1 - k0;
		}
	}
	return found;
}

/* scale q.k + bias of query row (q at qa, its row in masks) and key s (k at ka); -inf: not seen. */
float cx_pair_score(uint h, uint row, int s, uint qa, uint ka)
{
	bool see = true;
	float d = 0.0;
	if (MASK) see = cx_ld10(CX_BOOL, cx_pair_at(10, h, row, uint(s))) != 0.0;
	if (see)
		for (uint j = 0; j < P_U(5); j++) {
			precise float e =
				fma(cx_ld3(Q, qa + j * T_STRIDE(3, 5)), cx_ld4(K, ka + j * T_STRIDE(4, 5)), d);
			d = e;
		}
	precise float x = P_F(0) * d;
	if (BIAS && see) x = x + cx_ld11(CX_F32, cx_pair_at(11, h, row, uint(s)));
	return see ? x : -cx_inf();
}

float cx_value_dot(uint ga, uint va)
{
	float d = 0.0;
	for (uint j = 0; j < P_U(6); j++) {
		precise float e =
			fma(cx_ld7(Q, ga + j * T_STRIDE(7, 5)), cx_ld5(V, va + j * T_STRIDE(5, 5)), d);
		d = e;
	}
	return d;
}

void cx_query_row()
{
	uint g = cx_group(), me = gl_LocalInvocationIndex, h = g % P_U(3), row = g / P_U(3), batch = 0u;
	bool some = g < P_N;
	cx_batch = cx_q0 = cx_k0 = 0;
	cx_nq = P_I(1);
	cx_nk = P_I(2);
	if (RAGGED) {
		some = some && cx_find(int(row), false);
	} else {
		batch = row / P_U(1);
		cx_batch = int(batch);
		row = row % P_U(1);
	}
	int pos = int(row) - cx_q0 + cx_nk - cx_nq, first = 0, end = cx_nk;
	if (P_U(7) != 0u) end = min(end, pos + 1);
	if (P_U(8) != 0u) first = max(first, pos - P_I(8) + 1);
	if (!some) end = first;
	if (g >= P_N) row = batch = 0u;
	uint hk = h / max(P_U(4), 1u), qa = cx_place(3, batch, row, h), ga = cx_place(7, batch, row, h),
		 ya = cx_place(6, batch, row, h);
	float part = 0.0, c = 0.0, m = -cx_inf(), total = 0.0, acc[PARTS];
	for (uint j = me; j < P_U(6); j += 64u) {
		precise float e = cx_ld7(Q, ga + j * T_STRIDE(7, 5)) * cx_ld6(Q, ya + j * T_STRIDE(6, 5));
		cx_sum_add(part, c, e);
	}
	float delta = cx_group_sum(part, c);
	[[unroll]] for (uint p = 0; p < PARTS; p++) acc[p] = 0.0;
	for (int s0 = first & ~63; s0 < end; s0 += 64) {
		int s = s0 + int(me);
		float x = -cx_inf();
		if (s >= first && s < end)
			x = cx_pair_score(h, row, s, qa, cx_place(4, batch, uint(cx_k0 + s), hk));
		float next = cx_max(m, cx_group_max(x)), p = cx_exp(x - next), keep = cx_exp(m - next);
		if (next == -cx_inf()) p = 0.0, keep = 1.0;
		m = next;
		total = total * keep + cx_group_sum(x == -cx_inf() ? 0.0 : p, 0.0);
	}
	float inv = m == -cx_inf() ? 0.0 : 1.0 / total;
	for (int s0 = first & ~63; s0 < end; s0 += 64) {
		int s = s0 + int(me);
		uint ka = 0xffffffffu;
		float ds = 0.0;
		if (s >= first && s < end) {
			uint at = cx_place(4, batch, uint(cx_k0 + s), hk);
			float x = cx_pair_score(h, row, s, qa, at);
			if (x != -cx_inf()) {
				ka = at;
				ds = cx_exp(x - m) * inv *
					 (cx_value_dot(ga, cx_place(5, batch, uint(cx_k0 + s), hk)) - delta);
				if (SCORES) cx_st1(CX_F32, cx_pair_at(1, h, row, uint(s)), ds);
			}
		}
		barrier();
		cx_a[me] = ds;
		cx_of[me] = ka;
		barrier();
		[[unroll]] for (uint p = 0; p < PARTS; p++)
		{
			uint j = p * 64u + me;
			if (j < P_U(5))
				for (uint i = 0; i < 64u; i++)
					if (cx_of[i] != 0xffffffffu)
						acc[p] = fma(cx_a[i], cx_ld4(K, cx_of[i] + j * T_STRIDE(4, 5)), acc[p]);
		}
	}
	if (g >= P_N) return;
	[[unroll]] for (uint p = 0; p < PARTS; p++)
	{
		uint j = p * 64u + me;
		if (j < P_U(5)) cx_st0(Q, cx_place(0, batch, row, h) + j * T_STRIDE(0, 5), P_F(0) * acc[p]);
	}
	if (me == 0u) {
		cx_st2(CX_F32, T_OFF(2) + 3u * g, m);
		cx_st2(CX_F32, T_OFF(2) + 3u * g + 1u, inv);
		cx_st2(CX_F32, T_OFF(2) + 3u * g + 2u, delta);
	}
}

void cx_key_row()
{
	uint g = cx_group(), me = gl_LocalInvocationIndex, hk = g % P_U(9), row = g / P_U(9),
		 batch = 0u;
	bool some = g < P_N;
	cx_batch = cx_q0 = cx_k0 = 0;
	cx_nq = P_I(1);
	cx_nk = P_I(2);
	if (RAGGED) {
		some = some && cx_find(int(row), true);
	} else {
		batch = row / P_U(2);
		cx_batch = int(batch);
		row = row % P_U(2);
	}
	int s = int(row) - cx_k0, n = some ? cx_nq : 0;
	if (g >= P_N) row = batch = 0u;
	uint ka = cx_place(4, batch, row, hk), va = cx_place(5, batch, row, hk);
	float dk[PARTS], dv[PARTS];
	[[unroll]] for (uint p = 0; p < PARTS; p++) dk[p] = dv[p] = 0.0;
	for (uint h = hk * P_U(4); h < (hk + 1u) * P_U(4); h++)
		for (int t0 = 0; t0 < n; t0 += 64) {
			int t = t0 + int(me), pos = t + cx_nk - cx_nq;
			uint qa = 0xffffffffu, ga = 0xffffffffu, r = uint(cx_q0 + t);
			float w = 0.0, ds = 0.0;
			bool see = t < n && (P_U(7) == 0u || s <= pos) && (P_U(8) == 0u || s > pos - P_I(8));
			if (see) {
				uint st = T_OFF(2) + 3u * ((batch * P_U(1) + r) * P_U(3) + h),
					 at = cx_place(3, batch, r, h);
				float x = cx_pair_score(h, r, s, at, ka);
				if (x != -cx_inf()) {
					qa = at;
					ga = cx_place(7, batch, r, h);
					w = cx_exp(x - cx_ld2(CX_F32, st)) * cx_ld2(CX_F32, st + 1u);
					ds = w * (cx_value_dot(ga, va) - cx_ld2(CX_F32, st + 2u));
				}
			}
			barrier();
			cx_a[me] = ds;
			cx_b[me] = w;
			cx_of[me] = qa;
			cx_of2[me] = ga;
			barrier();
			[[unroll]] for (uint p = 0; p < PARTS; p++)
			{
				uint j = p * 64u + me;
				for (uint i = 0; i < 64u; i++) {
					if (cx_of[i] == 0xffffffffu) continue;
					if (j < P_U(5))
						dk[p] = fma(cx_a[i], cx_ld3(Q, cx_of[i] + j * T_STRIDE(3, 5)), dk[p]);
					if (j < P_U(6))
						dv[p] = fma(cx_b[i], cx_ld7(Q, cx_of2[i] + j * T_STRIDE(7, 5)), dv[p]);
				}
			}
		}
	if (g >= P_N) return;
	[[unroll]] for (uint p = 0; p < PARTS; p++)
	{
		uint j = p * 64u + me;
		if (j < P_U(5)) cx_st0(K, cx_place(0, batch, row, hk) + j * T_STRIDE(0, 5), P_F(0) * dk[p]);
		if (j < P_U(6)) cx_st1(V, cx_place(1, batch, row, hk) + j * T_STRIDE(1, 5), dv[p]);
	}
}

void main()
{
	if (KEYS) cx_key_row();
	else cx_query_row();
}
