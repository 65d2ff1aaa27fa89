/* gradd.comp - gradient of the gated delta rule: a work group of 64 per sequence and head of keys
 * goes backwards through the tokens; an invocation owns columns of the state, and in between rows
 * of it. The state before a token is kept at every 16th and made again between those. ITEMS: an
 * invocation per element of dq and dk brings them to their dtype. Formulas: backends/ref/grad.c.
 *
 * Tensors: dv (or, ITEMS, dq and dk), dgates, dstate (dense: the gradient of the state after the
 * sequences, worked on in place), scratch, q, k, v, g, beta, state, dy, off, slot. Scratch,
 * floats: dq and dk [2,T,nk,dk], then states [.., nk, dk, dv]: those before tokens 0, 16, 32 ..
 * of every sequence (P_U(7) of them), 16 per sequence of the tokens after one, and a gradient for
 * a sequence without a slot. P_U: 0 sequences, 1 rows, 2 rows of state, 3 heads of v, 4 of k, 5
 * dk, 6 dv, 8 tiled. P_F(0): scale. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "shaders/common.glsl"
#include "shaders/math.glsl"
#include "shaders/row.glsl"
#include "shaders/seq.glsl"

layout(constant_id = 1) const bool ITEMS = false;
layout(constant_id = 2) const uint DT = 0; /* of q, k, v, dy and their gradients */
layout(constant_id = 3) const uint G = 0;
layout(constant_id = 4) const uint B = 0;
layout(constant_id = 5) const bool HAS_OFF = false;
layout(constant_id = 6) const bool HAS_SLOT = false;

CX_OUT(0)
CX_OUT(1)
CX_VIEWS(2, coherent)
CX_LOAD_F(2)
CX_STORE_F(2)
CX_VIEWS(3, coherent) CX_LOAD_F(3) CX_STORE_F(3) CX_IN(4) CX_IN(5) CX_IN(6) CX_IN(7) CX_IN(8)
	CX_IN(9) CX_IN(10) CX_SEQUENCES(11, 12)

		const uint EVERY = 16u;
shared float cx_rest[1024], cx_dd[1024];

int cx_slot;
uint cx_h, cx_hk, cx_grad; /* offset of the gradient of the state: in dstate, or in scratch */

float cx_s(uint at)
{
	return cx_ld3(CX_F32, at);
}
float cx_gr(uint at)
{
	return cx_slot >= 0 ? cx_ld2(CX_F32, cx_grad + at) : cx_ld3(CX_F32, cx_grad + at);
}
void cx_gr_put(uint at, float v)
{
	if (cx_slot >= 0) cx_st2(CX_F32, cx_grad + at, v);
	else cx_st3(CX_F32, cx_grad + at, v);
}
void cx_sync()
{
	memoryBarrierBuffer();
	barrier();
}

float cx_decay(uint row)
{
	return cx_exp(cx_ld7(G, T_OFF(7) + row * T_STRIDE(7, 4) + cx_h * T_STRIDE(7, 5)));
}
float cx_beta(uint row)
{
	return cx_ld8(B, T_OFF(8) + row * T_STRIDE(8, 4) + cx_h * T_STRIDE(8, 5));
}
float cx_k(uint row, uint i)
{
	return cx_ld5(
		DT, T_OFF(5) + row * T_STRIDE(5, 3) + cx_hk * T_STRIDE(5, 4) + i * T_STRIDE(5, 5));
}
float cx_q(uint row, uint i)
{
	return P_F(0) * cx_ld4(DT, T_OFF(4) + row * T_STRIDE(4, 3) + cx_hk * T_STRIDE(4, 4) +
								   i * T_STRIDE(4, 5));
}
float cx_dy(uint row, uint j)
{
	return cx_ld10(
		DT, T_OFF(10) + row * T_STRIDE(10, 3) + cx_h * T_STRIDE(10, 4) + j * T_STRIDE(10, 5));
}

/* v - (e^g S)'k of column j; S at `from`. */
float cx_left(uint from, uint row, uint j, float decay)
{
	float m = 0.0;
	for (uint i = 0; i < P_U(5); i++) m = fma(cx_s(from + i * P_U(6) + j), cx_k(row, i), m);
	return cx_ld6(
			   DT, T_OFF(6) + row * T_STRIDE(6, 3) + cx_h * T_STRIDE(6, 4) + j * T_STRIDE(6, 5)) -
		   decay * m;
}

/* Own columns of the state after token `row`. */
void cx_next(uint to, uint from, uint row)
{
	float decay = cx_decay(row), bt = cx_beta(row);
	for (uint j = gl_LocalInvocationIndex; j < P_U(6); j += 64u) {
		float d = bt * cx_left(from, row, j, decay);
		for (uint i = 0; i < P_U(5); i++)
			cx_st3(CX_F32, to + i * P_U(6) + j,
				fma(cx_k(row, i), d, decay * cx_s(from + i * P_U(6) + j)));
	}
}

/* Token `row` backwards; S before it at `st`. */
void cx_back(uint st, uint row, bool fresh)
{
	uint me = gl_LocalInvocationIndex, n_i = P_U(5), dv = P_U(6);
	float decay = cx_decay(row), bt = cx_beta(row), part = 0.0, dbeta = 0.0, dg = 0.0, dot_;
	for (uint j = me; j < dv; j += 64u) { /* columns: G += q dy', dd = G'k */
		float y = cx_dy(row, j), sum = 0.0, left = cx_left(st, row, j, decay);
		for (uint i = 0; i < n_i; i++) {
			float x = fma(cx_q(row, i), y, cx_gr(i * dv + j));
			cx_gr_put(i * dv + j, x);
			sum = fma(x, cx_k(row, i), sum);
		}
		cx_rest[j] = left;
		cx_dd[j] = sum;
		part = fma(left, y, part);
		dbeta = fma(left, sum, dbeta);
	}
	dot_ = bt * cx_group_sum(part, 0.0);
	dbeta = cx_group_sum(dbeta, 0.0);
	cx_sync();
	for (uint i = me; i < n_i; i += 64u) { /* rows: dq, dk */
		uint to = T_OFF(3) + (row * P_U(4) + cx_hk) * n_i + i, to2 = to + P_U(1) * P_U(4) * n_i;
		float a = 0.0, b = 0.0, c = 0.0;
		for (uint j = 0; j < dv; j++) {
			float x = cx_s(st + i * dv + j);
			a = fma(x, cx_dy(row, j), a);
			b = fma(cx_gr(i * dv + j), cx_rest[j], b);
			c = fma(x, cx_dd[j], c);
		}
		a = P_F(0) * (decay * a + cx_k(row, i) * dot_);
		b = bt * (b - decay * c);
		cx_st3(CX_F32, to, fresh ? a : cx_s(to) + a);
		cx_st3(CX_F32, to2, fresh ? b : cx_s(to2) + b);
	}
	cx_sync();
	for (uint j = me; j < dv; j += 64u) { /* columns: G = e^g (G - k dv') */
		float x = bt * cx_dd[j];
		cx_st0(DT, T_OFF(0) + (row * P_U(3) + cx_h) * dv + j, x);
		for (uint i = 0; i < n_i; i++) {
			float y = decay * fma(-cx_k(row, i), x, cx_gr(i * dv + j));
			cx_gr_put(i * dv + j, y);
			dg = fma(y, cx_s(st + i * dv + j), dg);
		}
	}
	dg = cx_group_sum(dg, 0.0);
	if (me == 0u) {
		cx_st1(CX_F32, T_OFF(1) + row * P_U(3) + cx_h, dg);
		cx_st1(CX_F32, T_OFF(1) + (P_U(1) + row) * P_U(3) + cx_h, dbeta);
	}
}

/* One head of values: from the state in `marks` on. */
void cx_head(uint marks, uint states, uint step_, uint first, uint n, bool fresh)
{
	uint last = (n - 1u) / EVERY * EVERY;
	for (uint t = 0; t < last; t++) {
		uint in_ = t % EVERY, mark = marks + t / EVERY * step_;
		cx_next(in_ + 1u == EVERY ? mark + step_ : states + in_ * step_,
			in_ == 0u ? mark : states + (in_ - 1u) * step_, first + t);
	}
	for (uint t1 = last + EVERY; t1 > 0u; t1 -= EVERY) {
		uint t0 = t1 - EVERY, mark = marks + t0 / EVERY * step_, end = min(t1, n);
		for (uint t = t0; t + 1u < end; t++)
			cx_next(states + (t - t0) * step_, t == t0 ? mark : states + (t - t0 - 1u) * step_,
				first + t);
		for (uint t = end; t > t0; t--)
			cx_back(t - 1u == t0 ? mark : states + (t - t0 - 2u) * step_, first + t - 1u, fresh);
		cx_sync(); /* rows of the states have been read */
	}
}

void cx_sequence_of(uint b)
{
	uint nk = P_U(4), nv = P_U(3), size = P_U(5) * P_U(6), step_ = nk * size, base, none;
	int first, end;
	bool fresh = true;
	cx_sequence(b, HAS_OFF, HAS_SLOT, P_I(1), P_I(2), first, end, cx_slot);
	if (end <= first) return;
	base = T_OFF(3) + 2u * P_U(1) * nk * P_U(5) + cx_hk * size;
	none = base + (P_U(7) + P_U(0) * EVERY + b) * step_;
	for (cx_h = 0; cx_h < nv; cx_h++) {
		uint marks = base + (uint(first) / EVERY + b) * step_;
		if ((P_U(8) != 0u ? cx_h % nk : cx_h / (nv / nk)) != cx_hk) continue;
		cx_grad = cx_slot >= 0 ? T_OFF(2) + (uint(cx_slot) * nv + cx_h) * size : none;
		for (uint j = gl_LocalInvocationIndex; j < P_U(6); j += 64u)
			for (uint i = 0; i < P_U(5); i++) {
				float x = 0.0;
				if (cx_slot >= 0)
					x = cx_ld9(CX_F32, T_OFF(9) + uint(cx_slot) * T_STRIDE(9, 2) +
										   cx_h * T_STRIDE(9, 3) + i * T_STRIDE(9, 4) +
										   j * T_STRIDE(9, 5));
				else cx_gr_put(i * P_U(6) + j, 0.0);
				cx_st3(CX_F32, marks + i * P_U(6) + j, x);
			}
		cx_head(marks, base + (P_U(7) + b * EVERY) * step_, step_, uint(first), uint(end - first),
			fresh);
		fresh = false;
	}
}

void main()
{
	if (ITEMS) {
		uint i = cx_item();
		if (i < P_N) cx_st0(DT, T_OFF(0) + i, cx_s(T_OFF(3) + i));
		return;
	}
	uint g = cx_group();
	if (g >= P_N) return;
	cx_hk = g % P_U(4);
	cx_sequence_of(g / P_U(4));
}
