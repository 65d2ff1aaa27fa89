/* plan_seq.c - launches of ops with carried state, losses, updates, generators: kernels/seq.cl.h
 * and gen.cl.h. */
#include "backends/dialect/launch.h"

#include <math.h>

static const cx_operand *maybe(const cx_step *s, uint32_t j)
{
	return cx__dk_has(s, j) ? &s->in[j] : NULL;
}

/* i[0] sequences, i[1] rows, i[2] rows of state. */
static int64_t put_sequences(
	cx_dk_draft *d, const cx_step *s, uint32_t off, int64_t n_rows, int64_t n_slots)
{
	int64_t n = 1;
	if (cx__dk_has(s, off)) n = s->in[off].desc.dim[0] - 1;
	else if (cx__dk_has(s, off + 1)) n = s->in[off + 1].desc.dim[0];
	d->p.i[0] = (cx_i32)n;
	d->p.i[1] = (cx_i32)n_rows;
	d->p.i[2] = (cx_i32)n_slots;
	return n;
}

static void put_conv(cx_dk_builder *b, cx_dk_draft *d, const cx_step *s, const int arg[7])
{
	const cx_attr_conv1d *at = s->attr;
	const cx_operand *o[7] = {
		&s->out[0], &s->out[1], &s->in[0], &s->in[1], maybe(s, 2), maybe(s, 4), maybe(s, 5)};
	for (int t = 0; t < 7; t++) cx__dk_tensor(b, d, t, arg[t], o[t]);
	put_sequences(d, s, 4, s->in[0].desc.dim[0], s->out[1].desc.dim[0]);
	d->p.i[3] = (cx_i32)s->in[1].desc.dim[1];
	d->p.i[4] = at->silu;
	d->p.i[5] = (cx_i32)s->in[0].desc.dim[1];
}

void cx__dk_plan_conv1d(cx_dk_builder *b, const cx_step *s)
{
	static const int all[7] = {0, 1, 2, 3, 4, 5, 6}, some[7] = {-1, 0, 1, -1, -1, 2, 3};
	const cx_desc *x = &s->in[0].desc;
	cx_dk_draft *d = cx__dk_draft(b, "seq", "cx_conv1d_item", 7);
	put_conv(b, d, s, all);
	cx__dk_items(d, cx__dk_elems(x));
	cx__dk_specialise(b, d, 4, cx__dk_elems(x));
	d = cx__dk_draft(b, "seq", "cx_conv1d_state", 4);
	put_conv(b, d, s, some);
	cx__dk_items(d, (uint64_t)x->dim[1]);
}

static int64_t put_delta(cx_dk_builder *b, cx_dk_draft *d, const cx_step *s, const int arg[10])
{
	const cx_attr_delta *at = s->attr;
	const cx_desc *q = &s->in[0].desc, *v = &s->in[2].desc;
	int64_t n_seq, rows = v->dim[0] * v->dim[1], chunked;
	const cx_operand *o[9] = {&s->out[0], &s->out[1], &s->in[0], &s->in[1], &s->in[2], &s->in[3],
		&s->in[4], maybe(s, 6), maybe(s, 7)};
	cx_desc words = {CX_F32, 1, {(int64_t)(s->scratch_bytes / 4)}, {1}};
	cx_operand scratch = cx__dk_scratch(b, 0, &words);
	for (int t = 0; t < 9; t++) cx__dk_tensor(b, d, t, arg[t], o[t]);
	cx__dk_tensor(b, d, 9, arg[9], s->scratch_bytes ? &scratch : NULL);
	n_seq = put_sequences(d, s, 6, q->dim[0], s->out[1].desc.dim[0]);
	d->p.i[3] = (cx_i32)v->dim[1];
	d->p.i[4] = (cx_i32)q->dim[1];
	d->p.i[5] = at->tiled;
	d->p.i[6] = (cx_i32)q->dim[2];
	d->p.i[7] = (cx_i32)v->dim[2];
	d->p.i[8] = (cx_i32)(at->chunk < v->dim[0] ? at->chunk : v->dim[0]);
	d->p.f[0] = at->scale != 0 ? at->scale : (float)(1 / sqrt((double)q->dim[2]));
	chunked = ((rows + 15) & ~(int64_t)15) + ((rows * v->dim[2] + 15) & ~(int64_t)15);
	d->p.t[11].off =
		d->p.t[9].off + (uint32_t)(words.dim[0] - ((rows * v->dim[2] + 15) & ~(int64_t)15));
	d->p.t[10].off = d->p.t[9].off + (uint32_t)(words.dim[0] - chunked);
	return n_seq;
}

void cx__dk_plan_delta(cx_dk_builder *b, const cx_step *s)
{
	static const int all[10] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9},
					 gates[10] = {-1, -1, -1, -1, -1, 0, -1, 1, 2, 3};
	const cx_attr_delta *at = s->attr;
	const cx_desc *q = &s->in[0].desc, *v = &s->in[2].desc;
	int64_t n_seq, per = (v->dim[2] + 15) / 16;
	cx_dk_draft *d;
	cx__dk_zero(b, &s->out[0]); /* rows of no sequence */
	if (at->chunk && v->dim[0]) {
		d = cx__dk_draft(b, "seq", "cx_delta_gates", 4);
		n_seq = put_delta(b, d, s, gates);
		cx__dk_items(d, (uint64_t)(n_seq * v->dim[1]));
	}
	d = cx__dk_draft(b, "seq", at->chunk ? "cx_delta_chunk" : "cx_delta_item", 10);
	n_seq = put_delta(b, d, s, all);
	cx__dk_items(d, v->dim[0] ? (uint64_t)(n_seq * v->dim[1] * per) : 0);
	cx__dk_specialise(b, d, 6, (double)cx__dk_elems(v) * (double)q->dim[2]);
}

static void put_scan(cx_dk_builder *b, cx_dk_draft *d, const cx_step *s)
{
	const cx_attr_reset *at = s->attr;
	const cx_desc *y = &s->out[0].desc;
	uint32_t t = 0;
	for (uint32_t o = 0; o < s->n_out; o++, t++) cx__dk_tensor(b, d, (int)t, (int)t, &s->out[o]);
	for (uint32_t j = 0; t < d->n_args; j++, t++) cx__dk_tensor(b, d, (int)t, (int)t, maybe(s, j));
	for (int i = 0; i < 3; i++) d->p.i[i] = (cx_i32)y->dim[i];
	d->p.i[3] = at->reverse;
	cx__dk_items(d, (uint64_t)(y->dim[0] * y->dim[2]));
}

void cx__dk_plan_scan(cx_dk_builder *b, const cx_step *s)
{
	put_scan(b, cx__dk_draft(b, "seq", "cx_scan_item", 6), s);
}

void cx__dk_plan_cscan(cx_dk_builder *b, const cx_step *s)
{
	put_scan(b, cx__dk_draft(b, "seq", "cx_cscan_item", 11), s);
}

/* ---- losses ---- */

/* y = sum of n partial sums in scratch / count; count < 0: targets that are kept. */
static void put_total(cx_dk_builder *b, const cx_step *s, uint64_t n, int64_t count,
	const cx_operand *target, int64_t ignore)
{
	cx_desc part = {CX_I64, 1, {(int64_t)n}, {1}}; /* eight bytes each */
	cx_operand scratch = cx__dk_scratch(b, 0, &part);
	cx_dk_draft *d = cx__dk_draft(b, "gen", "cx_loss_group", 3);
	cx__dk_tensor(b, d, 0, 0, &s->out[0]);
	cx__dk_tensor(b, d, 1, 1, &scratch);
	cx__dk_tensor(b, d, 2, 2, target);
	d->p.i[1] = (cx_i32)ignore;
	d->p.i[5] = (cx_i32)n;
	d->p.i[6] = (cx_i32)count;
	d->p.i[7] = (cx_i32)(scratch.off / (b->dev->has_f64 ? 8 : 4));
	cx__dk_groups(d, 1, 1);
	d->p.n = target ? cx__dk_elems(&target->desc) : 0;
}

static cx_i32 put_part(cx_dk_builder *b, cx_dk_draft *d, int arg, uint64_t n)
{
	cx_desc part = {CX_I64, 1, {(int64_t)n}, {1}};
	cx_operand scratch = cx__dk_scratch(b, 0, &part);
	if (n) d->buf[arg] = b->binds->bufs[CX_BUF_SLAB];
	return (cx_i32)(scratch.off / (b->dev->has_f64 ? 8 : 4));
}

void cx__dk_plan_xent(cx_dk_builder *b, const cx_step *s)
{
	const cx_attr_loss *at = s->attr;
	const cx_desc *x = &s->in[0].desc;
	cx_dk_draft *d = cx__dk_draft(b, "gen", "cx_xent_group", 4);
	cx__dk_tensor(b, d, 0, 0, at->reduction == 0 ? &s->out[0] : NULL);
	cx__dk_tensor(b, d, 1, 1, &s->in[0]);
	cx__dk_tensor(b, d, 2, 2, &s->in[1]);
	d->p.i[0] = (cx_i32)x->dim[1];
	d->p.i[1] = (cx_i32)at->ignore;
	if (at->reduction) d->p.i[7] = put_part(b, d, 3, (uint64_t)x->dim[0]);
	cx__dk_groups(d, (uint64_t)x->dim[0], 1);
	if (at->reduction)
		put_total(b, s, (uint64_t)x->dim[0], at->reduction == 1 ? -1 : 1, &s->in[1], at->ignore);
}

void cx__dk_plan_pair(cx_dk_builder *b, const cx_step *s)
{
	bool poisson = s->op == CX_OP_poisson_nll;
	const cx_attr_poisson *at = poisson ? s->attr : NULL;
	int64_t reduction = poisson ? at->reduction : ((const cx_attr_loss *)s->attr)->reduction;
	uint32_t n = cx__dk_elems(&s->in[0].desc), per = cx__dk_pair_part(n),
			 n_parts = (n + per - 1) / per;
	cx_dk_draft *d = cx__dk_draft(b, "gen", reduction ? "cx_pair_group" : "cx_pair_item", 3);
	cx__dk_tensor(b, d, 0, reduction ? -1 : 0, reduction ? NULL : &s->out[0]);
	cx__dk_tensor(b, d, 1, reduction ? 0 : 1, &s->in[0]);
	cx__dk_tensor(b, d, 2, reduction ? 1 : 2, &s->in[1]);
	d->p.i[2] = poisson;
	d->p.i[3] = poisson && at->rate;
	d->p.i[4] = (cx_i32)per;
	d->p.f[0] = poisson ? at->eps : 0.0f;
	if (!reduction) {
		cx__dk_items(d, n);
		return;
	}
	d->p.i[7] = put_part(b, d, 2, n_parts);
	cx__dk_groups(d, n_parts, 1);
	d->p.n = n;
	put_total(b, s, n_parts, reduction == 1 ? (int64_t)n : 1, NULL, 0);
}

void cx__dk_plan_adamw(cx_dk_builder *b, const cx_step *s)
{
	const cx_attr_adamw *at = s->attr;
	const cx_operand *o[6] = {&s->out[0], &s->out[1], &s->out[2], &s->in[1], &s->in[4], &s->in[5]};
	const float f[6] = {at->beta1, at->beta2, at->eps, at->decay, (float)log((double)at->beta1),
		(float)log((double)at->beta2)};
	cx_dk_draft *d = cx__dk_draft(b, "gen", "cx_adamw_item", 6);
	for (int t = 0; t < 6; t++) cx__dk_tensor(b, d, t, t, o[t]);
	for (int t = 0; t < 4; t++) {
		cx_desc desc = o[t]->desc;
		cx__dk_merge(&desc, 1);
		cx__dk_desc(&d->p.t[t], &desc, d->p.t[t].off);
	}
	for (int i = 0; i < 6; i++) d->p.f[i] = f[i];
	cx__dk_items(d, cx__dk_elems(&s->out[0].desc));
}

void cx__dk_plan_random(cx_dk_builder *b, const cx_step *s)
{
	cx_dk_draft *d = cx__dk_draft(b, "gen", "cx_random_item", 2);
	cx__dk_tensor(b, d, 0, 0, &s->out[0]);
	cx__dk_tensor(b, d, 1, 1, &s->in[0]);
	d->p.i[0] = (cx_i32)((const cx_attr_random *)s->attr)->kind;
	cx__dk_items(d, cx__dk_elems(&s->out[0].desc));
}

void cx__dk_plan_iota(cx_dk_builder *b, const cx_step *s)
{
	const cx_attr_iota *at = s->attr;
	const cx_desc *y = &s->out[0].desc;
	int32_t axis = y->rank ? (int32_t)(at->axis < 0 ? at->axis + y->rank : at->axis) : 0;
	int64_t inner = 1;
	cx_dk_draft *d = cx__dk_draft(b, "gen", "cx_iota_item", 1);
	for (int32_t k = axis + 1; k < y->rank; k++) inner *= y->dim[k];
	cx__dk_tensor(b, d, 0, 0, &s->out[0]);
	d->p.i[0] = y->rank ? (cx_i32)y->dim[axis] : 1;
	d->p.i[1] = (cx_i32)inner;
	d->p.f[0] = at->start;
	d->p.f[1] = at->step;
	cx__dk_items(d, cx__dk_elems(y));
}
