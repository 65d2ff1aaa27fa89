/* plan_grad.c - launches of the backward ops: kernels/grad.cl.h. */
#include "backends/dialect/launch.h"

#include <math.h>

static const cx_operand *maybe(const cx_step *s, uint32_t j)
{
	return cx__dk_has(s, j) ? &s->in[j] : NULL;
}

/* n f32 in the step's scratch, from float `at` on. */
static cx_operand floats(const cx_dk_builder *b, uint64_t at, int64_t n)
{
	cx_desc d = {CX_F32, 1, {n}, {1}};
	return cx__dk_scratch(b, at * 4, &d);
}

/* ---- norms ---- */

/* Tensor t as the index space of its rows. */
static void rows_of(cx_dk_builder *b, cx_dk_draft *d, int t, int arg, const cx_operand *o)
{
	cx_desc outer = cx__dk_without(&o->desc, 1u << (o->desc.rank - 1));
	cx__dk_tensor(b, d, t, arg, o);
	cx__dk_merge(&outer, 1);
	cx__dk_desc(&d->p.t[t], &outer, d->p.t[t].off);
}

static void put_norm(cx_dk_builder *b, cx_dk_draft *d, const cx_step *s, const int arg[7])
{
	const cx_attr_norm_grad *at = s->attr;
	const cx_desc *x = &s->in[0].desc;
	int64_t cols = x->dim[x->rank - 1], rows = cols ? cx__desc_elems(x) / cols : 0;
	cx_operand stat = floats(b, 0, rows * 3);
	rows_of(b, d, 0, arg[0], &s->out[0]);
	rows_of(b, d, 1, arg[1], &s->in[0]);
	rows_of(b, d, 2, arg[2], &s->in[1]);
	cx__dk_tensor(b, d, 3, arg[3], maybe(s, 2));
	cx__dk_tensor(b, d, 4, arg[4], &stat);
	cx__dk_tensor(b, d, 5, arg[5], &s->out[1]);
	cx__dk_tensor(b, d, 6, arg[6], at->layer ? &s->out[2] : NULL);
	d->p.i[0] = at->layer;
	d->p.i[1] = at->plus_one;
	d->p.i[2] = (cx_i32)cols;
	d->p.i[3] = (cx_i32)s->out[0].desc.stride[x->rank - 1];
	d->p.i[4] = (cx_i32)x->stride[x->rank - 1];
	d->p.i[5] = (cx_i32)s->in[1].desc.stride[x->rank - 1];
	d->p.i[6] = (cx_i32)rows;
	d->p.f[0] = at->eps;
}

void cx__dk_plan_norm_grad(cx_dk_builder *b, const cx_step *s)
{
	static const int row[7] = {0, 1, 2, 3, 4, -1, -1}, column[7] = {-1, 2, 3, -1, 4, 0, 1};
	const cx_desc *x = &s->in[0].desc;
	cx_dk_draft *d = cx__dk_draft(b, "grad", "cx_norm_grad_group", 5);
	put_norm(b, d, s, row);
	cx__dk_groups(d, (uint64_t)d->p.i[6], 1);
	cx__dk_specialise(b, d, 2, cx__dk_elems(x));
	d = cx__dk_draft(b, "grad", "cx_norm_grad_column", 5);
	put_norm(b, d, s, column);
	cx__dk_items(d, (uint64_t)x->dim[x->rank - 1]);
}

/* ---- attention ---- */

/* Tensor t of [rows, heads, width], with a batch in front or not: kernels read single strides, so
 * those of axes of size 1 are kept. */
static void put_heads(cx_dk_builder *b, cx_dk_draft *d, int t, int arg, const cx_operand *o)
{
	cx__dk_tensor(b, d, t, arg, o);
	for (int i = 3; i < CX_K_RANK; i++)
		d->p.t[t].stride[i] = (uint32_t)o->desc.stride[i - (CX_K_RANK - o->desc.rank)];
}

/* What both launches read; out: dq, or dk; other: y, or dv. */
static void put_attention(cx_dk_builder *b, cx_dk_draft *d, const cx_step *s, const cx_operand *out,
	const cx_operand *other)
{
	const cx_attr_attention_grad *at = s->attr;
	const cx_desc *q = &s->in[0].desc, *k = &s->in[1].desc, *v = &s->in[2].desc;
	int32_t r = q->rank;
	int64_t rows = q->dim[r - 3] * (r == 4 ? q->dim[0] : 1);
	cx_operand stat = floats(b, 0, rows * q->dim[r - 2] * 3);
	put_heads(b, d, 0, 0, out);
	for (int i = 0; i < 3; i++) put_heads(b, d, 1 + i, 1 + i, &s->in[i]);
	for (int i = 0; i < 4; i++) cx__dk_tensor(b, d, 4 + i, 4 + i, maybe(s, 5 + (uint32_t)i));
	put_heads(b, d, 8, 8, other);
	put_heads(b, d, 9, 9, &s->in[4]);
	cx__dk_tensor(b, d, 10, 10, &stat);
	d->p.i[0] = r == 4 ? 0 : 1;
	d->p.i[1] = at->causal;
	d->p.i[2] = at->window < INT32_MAX ? (cx_i32)at->window : 0;
	d->p.i[4] = k->dim[r - 2] ? (cx_i32)(q->dim[r - 2] / k->dim[r - 2]) : 1;
	d->p.i[5] = (cx_i32)q->dim[r - 2];
	d->p.i[6] = (cx_i32)q->dim[r - 1];
	d->p.i[7] = (cx_i32)v->dim[r - 1];
	d->p.i[8] = cx__dk_has(s, 5) ? (cx_i32)s->in[5].desc.dim[0] - 1 : 1;
	d->p.i[9] = (cx_i32)q->dim[r - 3];
	d->p.i[10] = (cx_i32)k->dim[r - 3];
	d->p.f[0] = at->scale != 0 ? at->scale : (float)(1 / sqrt((double)q->dim[r - 1]));
}

void cx__dk_plan_attention_grad(cx_dk_builder *b, const cx_step *s)
{
	const cx_desc *q = &s->in[0].desc, *k = &s->in[1].desc;
	int32_t r = q->rank;
	double work = (double)cx__dk_elems(q) * (double)k->dim[r - 3];
	uint64_t n_seq = r == 4 ? (uint64_t)q->dim[0] : 1;
	cx_dk_draft *d;
	if (s->n_out > 3) cx__dk_zero(b, &s->out[3]);
	d = cx__dk_draft(b, "grad", "cx_attention_grad_row", 12);
	put_attention(b, d, s, &s->out[0], &s->in[3]);
	cx__dk_tensor(b, d, 11, 11, s->n_out > 3 ? &s->out[3] : NULL);
	cx__dk_groups(d, n_seq * (uint64_t)q->dim[r - 3], (uint64_t)q->dim[r - 2]);
	d->n_dims = 2;
	cx__dk_specialise(b, d, 4, work);
	d = cx__dk_draft(b, "grad", "cx_attention_grad_key", 11);
	put_attention(b, d, s, &s->out[1], &s->out[2]);
	cx__dk_groups(d, n_seq * (uint64_t)k->dim[r - 3], (uint64_t)k->dim[r - 2]);
	d->n_dims = 2;
	cx__dk_specialise(b, d, 4, work);
}

/* ---- sequences ---- */

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

static cx_dk_draft *put_conv(cx_dk_builder *b, const cx_step *s, const char *name)
{
	const cx_desc *x = &s->in[0].desc;
	cx_operand dz = floats(b, 0, cx__desc_elems(x));
	const cx_operand *o[13] = {&s->out[0], &s->out[1], &s->out[2], &s->out[3], &s->in[0], &s->in[1],
		&s->in[2], &s->in[3], maybe(s, 4), maybe(s, 5), maybe(s, 6), maybe(s, 7), &dz};
	cx_dk_draft *d = cx__dk_draft(b, "grad", name, 13);
	for (int t = 0; t < 13; t++) cx__dk_tensor(b, d, t, t, o[t]);
	put_sequences(d, s, 6, x->dim[0], s->in[2].desc.dim[0]);
	d->p.i[3] = (cx_i32)s->in[1].desc.dim[1];
	d->p.i[4] = ((const cx_attr_conv1d *)s->attr)->silu;
	d->p.i[5] = (cx_i32)x->dim[1];
	return d;
}

void cx__dk_plan_conv1d_grad(cx_dk_builder *b, const cx_step *s)
{
	uint64_t n = cx__dk_elems(&s->in[0].desc);
	const cx_desc *w = &s->in[1].desc;
	cx__dk_items(put_conv(b, s, "cx_conv1d_grad_sum"), n);
	cx__dk_items(put_conv(b, s, "cx_conv1d_grad_item"), n);
	cx__dk_items(put_conv(b, s, "cx_conv1d_grad_state"), cx__dk_elems(&s->out[3].desc));
	cx__dk_items(put_conv(b, s, "cx_conv1d_grad_tap"), (uint64_t)(w->dim[0] * (w->dim[1] + 1)));
}

void cx__dk_plan_delta_grad(cx_dk_builder *b, const cx_step *s)
{
	const cx_attr_delta *at = s->attr;
	const cx_desc *q = &s->in[0].desc, *v = &s->in[2].desc;
	const cx_operand *o[12] = {&s->out[1], &s->out[2], &s->out[3], &s->in[0], &s->in[1], &s->in[2],
		&s->in[3], &s->in[4], &s->in[5], &s->in[6], maybe(s, 8), maybe(s, 9)};
	int64_t n_qk = cx__desc_elems(&s->out[0].desc), n_seq;
	cx_operand scratch = floats(b, 0, (int64_t)(s->scratch_bytes / 4)), acc = floats(b, 0, n_qk);
	cx_dk_draft *d;
	cx__dk_zero(b, &s->out[1]); /* rows of no sequence */
	cx__dk_zero(b, &s->out[2]);
	cx__dk_zero(b, &acc);
	if (cx__dk_has(s, 7))
		cx__dk_copy_bytes(b, &s->out[3], &s->in[7], 4 * (uint64_t)cx__desc_elems(&s->out[3].desc));
	else cx__dk_zero(b, &s->out[3]);
	d = cx__dk_draft(b, "grad", "cx_delta_grad_group", 13);
	for (int t = 0; t < 12; t++) cx__dk_tensor(b, d, t, t, o[t]);
	cx__dk_tensor(b, d, 12, 12, &scratch);
	n_seq = put_sequences(d, s, 8, q->dim[0], s->in[5].desc.dim[0]);
	d->p.i[3] = (cx_i32)v->dim[1];
	d->p.i[4] = (cx_i32)q->dim[1];
	d->p.i[5] = at->tiled;
	d->p.i[6] = (cx_i32)q->dim[2];
	d->p.i[7] = (cx_i32)v->dim[2];
	d->p.i[8] = (cx_i32)(q->dim[0] / CX_DK_DELTA_EVERY + n_seq);
	d->p.f[0] = at->scale != 0 ? at->scale : (float)(1 / sqrt((double)q->dim[2]));
	cx__dk_groups(d, q->dim[0] ? (uint64_t)n_seq : 0, (uint64_t)q->dim[1]);
	d->n_dims = 2;
	d = cx__dk_draft(b, "grad", "cx_delta_grad_item", 2);
	cx__dk_tensor(b, d, 0, 0, &s->out[0]);
	cx__dk_tensor(b, d, 1, 1, &acc);
	cx__dk_items(d, (uint64_t)n_qk);
}
