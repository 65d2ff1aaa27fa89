/* seq.cl.h - ops that carry a state along a sequence. Meaning: backends/ref/scan.c.
 *
 * Ragged batches: off i32 [B+1] and slot i32 [B] as in ops.def, either absent; i[0] sequences, i[1]
 * rows, i[2] rows of state. */
#ifndef CX_SEQ_CL_H
#define CX_SEQ_CL_H

#include "kernels/quant.cl.h"
#include "kernels/span.h"

/* ---- conv1d: i[3] taps, i[4] silu, i[5] channels. t: y, state, x, w, bias, off, slot ---- */

/* Outputs; the state is only read. An item per row and channel. */
CX_KERNEL cx_conv1d_item(CX_BUF(y), CX_BUF(state), CX_BUF(x), CX_BUF(w), CX_BUF(bias), CX_BUF(off),
	CX_BUF(slot), CX_PARAMS)
{
	cx_u32 i = CX_GLOBAL_ID(0), ch = i % (cx_u32)P.i[5], dy = CX_DT_0, ds = CX_DT_1, dx = CX_DT_2,
		   dw = CX_DT_3, to;
	cx_i32 row = (cx_i32)(i / (cx_u32)P.i[5]), taps = P.i[3], b;
	struct cx_span s;
	cx_acc sum = 0;
	float v;
	if (i >= P.n) return;
	to = P.t[0].off + (cx_u32)row * P.t[0].stride[4] + ch * P.t[0].stride[5];
	s.first = s.end = s.slot = 0;
	for (b = P.i[0] - 1; b >= 0; b--) {
		s = cx_span_of(off, &P.t[5], slot, &P.t[6], &P, b);
		if (row >= s.first && row < s.end) break;
	}
	if (b < 0) { /* of no sequence */
		cx_store_f(y, dy, to, 0.0f);
		return;
	}
	for (cx_i32 j = 0; j < taps; j++) {
		cx_i32 t = row - s.first - taps + 1 + j;
		float u = 0.0f;
		if (t >= 0)
			u = cx_load_f(x, dx,
				P.t[2].off + (cx_u32)(s.first + t) * P.t[2].stride[4] + ch * P.t[2].stride[5]);
		else if (s.slot >= 0)
			u = cx_load_f(state, ds, cx_state_at(&P.t[1], s.slot, taps - 1 + t, ch));
		sum += (cx_acc)cx_load_f(
				   w, dw, P.t[3].off + ch * P.t[3].stride[4] + (cx_u32)j * P.t[3].stride[5]) *
			   u;
	}
	if (P.t[4].dtype != CX_K_NONE)
		sum += cx_load_f(bias, P.t[4].dtype, P.t[4].off + ch * P.t[4].stride[5]);
	v = (float)sum;
	if (P.i[4]) v = cx_f_silu(cx_round_to(dy, v));
	cx_store_f(y, dy, to, v);
}

/* The state after all rows, once the outputs are done. An item per channel: older entries are read
 * before they are written. */
CX_KERNEL cx_conv1d_state(CX_BUF(state), CX_BUF(x), CX_BUF(off), CX_BUF(slot), CX_PARAMS)
{
	cx_u32 ch = CX_GLOBAL_ID(0), ds = P.t[1].dtype, dx = P.t[2].dtype;
	cx_i32 window = P.i[3] - 1;
	if (ch >= P.n) return;
	for (cx_i32 b = 0; b < P.i[0]; b++) {
		struct cx_span s = cx_span_of(off, &P.t[5], slot, &P.t[6], &P, b);
		cx_i32 n = s.end - s.first;
		if (n <= 0 || s.slot < 0) continue;
		for (cx_i32 i = 0; i < window; i++) {
			cx_i32 t = n - window + i;
			cx_u32 to = cx_state_at(&P.t[1], s.slot, i, ch);
			if (t >= 0)
				cx_move(state, ds, to, x, dx,
					P.t[2].off + (cx_u32)(s.first + t) * P.t[2].stride[4] + ch * P.t[2].stride[5]);
			else cx_move(state, ds, to, state, ds, cx_state_at(&P.t[1], s.slot, window + t, ch));
		}
	}
}

/* ---- gated delta rule, spec/llm.md 2.4, token by token. i[3] heads of v, i[4] of k, i[5] tiled,
 * i[6] dk, i[7] dv; f[0] scale. t: y, state (dense), q, k, v, g, beta, off, slot, scratch. An item
 * per sequence, head and sixteen columns of its state ---- */

CX_KERNEL cx_delta_item(CX_BUF(y), CX_BUF(state), CX_BUF(q), CX_BUF(k), CX_BUF(v), CX_BUF(g),
	CX_BUF(beta), CX_BUF(off), CX_BUF(slot), CX_BUF(scratch), CX_PARAMS)
{
	cx_u32 nv = (cx_u32)P.i[3], nk = (cx_u32)P.i[4], n_i = (cx_u32)P.i[6], dv = (cx_u32)P.i[7],
		   per = (dv + 15) / 16;
	cx_u32 item = CX_GLOBAL_ID(0), j = item % per * 16, h = item / per % nv, b = item / per / nv,
		   hk, st, dx = CX_DT_2, dg = CX_DT_5;
	cx_u32 db = P.t[6].dtype;
	struct cx_span s;
	CX_GLOBAL cx_u8 *mem;
	float scale = P.f[0];
	if (item >= P.n) return;
	hk = P.i[5] ? h % nk : h / (nv / nk);
	s = cx_span_of(off, &P.t[7], slot, &P.t[8], &P, (cx_i32)b);
	if (s.end <= s.first) return;
	mem = s.slot < 0 ? scratch : state;
	st = s.slot < 0 ? P.t[9].off + (b * nv + h) * n_i * dv
					: P.t[1].off + ((cx_u32)s.slot * nv + h) * n_i * dv;
	for (cx_u32 i = 0; i < n_i && s.slot < 0; i++)
		cx_store16(mem, CX_F32, st + i * dv, j, dv, cx_v16_all(0.0f));
	for (cx_u32 row = (cx_u32)s.first; row < (cx_u32)s.end; row++) {
		cx_u32 qa = cx_head_at(&P.t[2], row, hk), ka = cx_head_at(&P.t[3], row, hk);
		cx_u32 qs = P.t[2].stride[5], ks = P.t[3].stride[5];
		float decay =
			CX_EXP(cx_load_f(g, dg, P.t[5].off + row * P.t[5].stride[4] + h * P.t[5].stride[5]));
		float bt = cx_load_f(beta, db, P.t[6].off + row * P.t[6].stride[4] + h * P.t[6].stride[5]);
		cx_v16 m = cx_v16_all(0.0f), d;
		for (cx_u32 i = 0; i < n_i; i++) {
			cx_v16 c = cx_load16(mem, CX_F32, st + i * dv, j, dv) * decay;
			cx_store16(mem, CX_F32, st + i * dv, j, dv, c);
			m = cx_v16_fma(c, cx_v16_all(cx_load_f(k, dx, ka + i * ks)), m);
		}
		d = (cx_load16_by(v, dx, cx_head_at(&P.t[4], row, h), P.t[4].stride[5], j, dv) - m) * bt;
		m = cx_v16_all(0.0f);
		for (cx_u32 i = 0; i < n_i; i++) {
			cx_v16 c = cx_v16_fma(d, cx_v16_all(cx_load_f(k, dx, ka + i * ks)),
				cx_load16(mem, CX_F32, st + i * dv, j, dv));
			cx_store16(mem, CX_F32, st + i * dv, j, dv, c);
			m = cx_v16_fma(c, cx_v16_all(cx_load_f(q, dx, qa + i * qs) * scale), m);
		}
		cx_store16(y, CX_DT_0, cx_head_at(&P.t[0], row, h), j, dv, m);
	}
}

/* The same in chunks of i[8] tokens, spec/llm.md 2.5, for the same arguments: two launches. t[10]:
 * sums of g from the start of the chunk on [T,nv], t[11]: the corrections D [T,nv,dv], both f32 in
 * scratch. */
CX_KERNEL cx_delta_gates(CX_BUF(g), CX_BUF(off), CX_BUF(slot), CX_BUF(scratch), CX_PARAMS)
{
	cx_u32 nv = (cx_u32)P.i[3], item = CX_GLOBAL_ID(0), h = item % nv;
	CX_GLOBAL float *sums = (CX_GLOBAL float *)scratch + P.t[10].off;
	struct cx_span s;
	float sum = 0.0f;
	if (item >= P.n) return;
	s = cx_span_of(off, &P.t[7], slot, &P.t[8], &P, (cx_i32)(item / nv));
	for (cx_i32 row = s.first; row < s.end; row++) {
		float v = cx_load_f(
			g, P.t[5].dtype, P.t[5].off + (cx_u32)row * P.t[5].stride[4] + h * P.t[5].stride[5]);
		sum = (row - s.first) % P.i[8] == 0 ? v : sum + v;
		sums[(cx_u32)row * nv + h] = sum;
	}
}

/* x . y of n elements. */
CX_FN float cx_delta_dot(
	CX_BUF(a), cx_u32 dt, cx_u32 ao, cx_u32 as, CX_BUF(b), cx_u32 bo, cx_u32 bs, cx_u32 n)
{
	cx_v16 sum = cx_v16_all(0.0f);
	for (cx_u32 i = 0; i < n; i += 16)
		sum = cx_v16_fma(cx_load16_by(a, dt, ao, as, i, n), cx_load16_by(b, dt, bo, bs, i, n), sum);
	return cx_v16_sum(sum);
}

/* S' x: columns j.. of the state times a row of q or k. */
CX_FN cx_v16 cx_delta_read(CX_BUF(mem), cx_u32 st, cx_u32 n_i, cx_u32 j, cx_u32 dv, CX_BUF(x),
	cx_u32 dt, cx_u32 xo, cx_u32 xs)
{
	cx_v16 m = cx_v16_all(0.0f);
	for (cx_u32 i = 0; i < n_i; i++)
		m = cx_v16_fma(cx_load16(mem, CX_F32, st + i * dv, j, dv),
			cx_v16_all(cx_load_f(x, dt, xo + i * xs)), m);
	return m;
}

CX_KERNEL cx_delta_chunk(CX_BUF(y), CX_BUF(state), CX_BUF(q), CX_BUF(k), CX_BUF(v), CX_BUF(g),
	CX_BUF(beta), CX_BUF(off), CX_BUF(slot), CX_BUF(scratch), CX_PARAMS)
{
	cx_u32 nv = (cx_u32)P.i[3], nk = (cx_u32)P.i[4], n_i = (cx_u32)P.i[6], dv = (cx_u32)P.i[7],
		   per = (dv + 15) / 16;
	cx_u32 item = CX_GLOBAL_ID(0), j = item % per * 16, h = item / per % nv, b = item / per / nv,
		   hk, st, dx = CX_DT_2;
	cx_u32 qs = P.t[2].stride[5], ks = P.t[3].stride[5], ds = P.t[11].off;
	CX_GLOBAL const float *sums = (CX_GLOBAL const float *)scratch + P.t[10].off;
	CX_GLOBAL cx_u8 *mem;
	struct cx_span s;
	if (item >= P.n) return;
	hk = P.i[5] ? h % nk : h / (nv / nk);
	s = cx_span_of(off, &P.t[7], slot, &P.t[8], &P, (cx_i32)b);
	if (s.end <= s.first) return;
	mem = s.slot < 0 ? scratch : state;
	st = s.slot < 0 ? P.t[9].off + (b * nv + h) * n_i * dv
					: P.t[1].off + ((cx_u32)s.slot * nv + h) * n_i * dv;
	for (cx_u32 i = 0; i < n_i && s.slot < 0; i++)
		cx_store16(mem, CX_F32, st + i * dv, j, dv, cx_v16_all(0.0f));
	for (cx_u32 t0 = (cx_u32)s.first; t0 < (cx_u32)s.end; t0 += (cx_u32)P.i[8]) {
		cx_u32 end = t0 + (cx_u32)P.i[8] < (cx_u32)s.end ? t0 + (cx_u32)P.i[8] : (cx_u32)s.end;
		float last = sums[(end - 1) * nv + h];
		for (cx_u32 r = t0; r < end; r++) { /* forward substitution */
			cx_u32 ka = cx_head_at(&P.t[3], r, hk);
			float gr = sums[r * nv + h];
			float bt = cx_load_f(
				beta, P.t[6].dtype, P.t[6].off + r * P.t[6].stride[4] + h * P.t[6].stride[5]);
			cx_v16 d = cx_load16_by(v, dx, cx_head_at(&P.t[4], r, h), P.t[4].stride[5], j, dv);
			d = (d - cx_delta_read(mem, st, n_i, j, dv, k, dx, ka, ks) * CX_EXP(gr)) * bt;
			for (cx_u32 p = t0; p < r; p++) {
				float w = bt * CX_EXP(gr - sums[p * nv + h]) *
						  cx_delta_dot(k, dx, ka, ks, k, cx_head_at(&P.t[3], p, hk), ks, n_i);
				d = d - cx_load16(scratch, CX_F32, ds + (p * nv + h) * dv, j, dv) * w;
			}
			cx_store16(scratch, CX_F32, ds + (r * nv + h) * dv, j, dv, d);
		}
		for (cx_u32 r = t0; r < end; r++) {
			cx_u32 qa = cx_head_at(&P.t[2], r, hk);
			float gr = sums[r * nv + h];
			cx_v16 o = cx_delta_read(mem, st, n_i, j, dv, q, dx, qa, qs) * (P.f[0] * CX_EXP(gr));
			for (cx_u32 p = t0; p <= r; p++) {
				float w = P.f[0] * CX_EXP(gr - sums[p * nv + h]) *
						  cx_delta_dot(q, dx, qa, qs, k, cx_head_at(&P.t[3], p, hk), ks, n_i);
				o = o + cx_load16(scratch, CX_F32, ds + (p * nv + h) * dv, j, dv) * w;
			}
			cx_store16(y, CX_DT_0, cx_head_at(&P.t[0], r, h), j, dv, o);
		}
		for (cx_u32 i = 0; i < n_i; i++) {
			cx_v16 c = cx_load16(mem, CX_F32, st + i * dv, j, dv) * CX_EXP(last);
			for (cx_u32 p = t0; p < end; p++)
				c = c + cx_load16(scratch, CX_F32, ds + (p * nv + h) * dv, j, dv) *
							(CX_EXP(last - sums[p * nv + h]) *
								cx_load_f(k, dx, cx_head_at(&P.t[3], p, hk) + i * ks));
			cx_store16(mem, CX_F32, st + i * dv, j, dv, c);
		}
	}
}

/* ---- linear recurrences. i[0] batch, i[1] steps, i[2] channels, i[3] reverse. An item per batch
 * row and channel ---- */

CX_FN cx_u32 cx_step_at(CX_PQ const struct cx_ktensor *t, cx_u32 r, cx_u32 s, cx_u32 ch)
{
	return t->off + r * t->stride[3] + s * t->stride[4] + ch * t->stride[5];
}

CX_FN cx_u32 cx_last_at(CX_PQ const struct cx_ktensor *t, cx_u32 r, cx_u32 ch)
{
	return t->off + r * t->stride[4] + ch * t->stride[5];
}

/* t: y, last, a, b, h0, reset. */
CX_KERNEL cx_scan_item(
	CX_BUF(y), CX_BUF(last), CX_BUF(a), CX_BUF(b), CX_BUF(h0), CX_BUF(reset), CX_PARAMS)
{
	cx_u32 item = CX_GLOBAL_ID(0), n = (cx_u32)P.i[1], ch = item % (cx_u32)P.i[2],
		   r = item / (cx_u32)P.i[2], dt = CX_DT_0;
	cx_acc h;
	if (item >= P.n) return;
	h = cx_load_f(h0, dt, cx_last_at(&P.t[4], r, ch));
	for (cx_u32 i = 0; i < n; i++) {
		cx_u32 s = P.i[3] ? n - 1 - i : i;
		if (P.t[5].dtype != CX_K_NONE && reset[cx_last_at(&P.t[5], r, s)]) h = 0;
		h = cx_load_f(a, dt, cx_step_at(&P.t[2], r, s, ch)) * h +
			cx_load_f(b, dt, cx_step_at(&P.t[3], r, s, ch));
		cx_store_acc(y, dt, cx_step_at(&P.t[0], r, s, ch), h);
	}
	cx_store_acc(last, dt, cx_last_at(&P.t[1], r, ch), h);
}

/* t: y_re, y_im, last_re, last_im, a_re, a_im, b_re, b_im, h_re, h_im, reset. */
CX_KERNEL cx_cscan_item(CX_BUF(yr), CX_BUF(yi), CX_BUF(lr), CX_BUF(li), CX_BUF(ar), CX_BUF(ai),
	CX_BUF(br), CX_BUF(bi), CX_BUF(hr), CX_BUF(hi), CX_BUF(reset), CX_PARAMS)
{
	cx_u32 item = CX_GLOBAL_ID(0), n = (cx_u32)P.i[1], ch = item % (cx_u32)P.i[2],
		   r = item / (cx_u32)P.i[2], dt = CX_DT_0;
	cx_acc re, im;
	if (item >= P.n) return;
	re = cx_load_f(hr, dt, cx_last_at(&P.t[8], r, ch));
	im = cx_load_f(hi, dt, cx_last_at(&P.t[9], r, ch));
	for (cx_u32 i = 0; i < n; i++) {
		cx_u32 s = P.i[3] ? n - 1 - i : i;
		cx_acc xr = cx_load_f(ar, dt, cx_step_at(&P.t[4], r, s, ch)),
			   xi = cx_load_f(ai, dt, cx_step_at(&P.t[5], r, s, ch)), next;
		if (P.t[10].dtype != CX_K_NONE && reset[cx_last_at(&P.t[10], r, s)]) re = im = 0;
		next = xr * im + xi * re + cx_load_f(bi, dt, cx_step_at(&P.t[7], r, s, ch));
		re = xr * re - xi * im + cx_load_f(br, dt, cx_step_at(&P.t[6], r, s, ch));
		im = next;
		cx_store_acc(yr, dt, cx_step_at(&P.t[0], r, s, ch), re);
		cx_store_acc(yi, dt, cx_step_at(&P.t[1], r, s, ch), im);
	}
	cx_store_acc(lr, dt, cx_last_at(&P.t[2], r, ch), re);
	cx_store_acc(li, dt, cx_last_at(&P.t[3], r, ch), im);
}

#endif
