/* launch_grad.c - backward ops: shaders/gradn.comp (norms), grada.comp (attention), gradc.comp
 * (conv1d), gradd.comp (gated delta rule). */
#include "backends/vulkan/emit.h"

#include <math.h>

enum { LOCAL = 64, ABSENT = 99, EVERY = 16 /* of shaders/gradd.comp */ };

static uint64_t padded(uint64_t n)
{
	return (n + 255) & ~(uint64_t)255;
}

static uint32_t dtype_or(const cx_step *s, uint32_t i)
{
	return cx__vk_has(s, i) ? (uint32_t)s->in[i].desc.dtype : ABSENT;
}

static void bind_maybe(cx_vk_emit *e, cx_vk_dispatch *d, uint32_t t, uint32_t i)
{
	if (cx__vk_has(e->step, i)) cx__vk_bind(e, d, t, &e->step->in[i], CX_VK_READ, 0);
}

static void zero(cx_vk_emit *e, const cx_operand *y)
{
	cx_vk_dispatch *d;
	if (cx__desc_elems(&y->desc) == 0) return;
	d = cx__vk_begin(e, CX_SHADER_fill, LOCAL);
	cx__vk_spec(d, cx__vk_size(y->desc.dtype));
	cx__vk_bind(e, d, 0, y, CX_VK_WRITE, 0);
	cx__vk_items(d, (uint64_t)cx__desc_elems(&y->desc));
}

/* ---- norms ---- */

static int64_t norm_rows(const cx_desc *x)
{
	int64_t cols = x->dim[x->rank - 1];
	return cols ? cx__desc_elems(x) / cols : 0;
}

uint64_t cx__vk_norm_grad_scratch(const cx_device *dev, const cx_kernel_key *key)
{
	(void)dev;
	return padded((uint64_t)norm_rows(&key->in[0]) * 8);
}

void cx__vk_launch_norm_grad(cx_vk_emit *e)
{
	const cx_step *s = e->step;
	const cx_attr_norm_grad *at = s->attr;
	const cx_desc *x = &s->in[0].desc;
	int64_t rows = norm_rows(x), cols = x->dim[x->rank - 1];
	cx_operand stat = cx__vk_scratch(s, 0, CX_F32, rows, 2);
	for (uint32_t columns = 0; columns < 2; columns++) {
		cx_vk_dispatch *d;
		if (rows == 0 && !columns) continue;
		d = cx__vk_begin(e, CX_SHADER_gradn, LOCAL);
		d->after = columns;
		cx__vk_spec(d, columns);
		cx__vk_spec(d, at->layer);
		cx__vk_spec(d, (uint32_t)x->dtype);
		cx__vk_spec(d, dtype_or(s, 2));
		cx__vk_spec(d, at->plus_one);
		cx__vk_spec(d, (uint32_t)x->rank);
		if (!columns) cx__vk_bind(e, d, 0, &s->out[0], CX_VK_WRITE, 0);
		if (columns) cx__vk_bind(e, d, 1, &s->out[1], CX_VK_WRITE, 0);
		if (columns && at->layer) cx__vk_bind(e, d, 2, &s->out[2], CX_VK_WRITE, 0);
		cx__vk_bind(e, d, 3, &stat, columns ? CX_VK_READ : CX_VK_WRITE, 0);
		cx__vk_bind(e, d, 4, &s->in[0], CX_VK_READ, 0);
		cx__vk_bind(e, d, 5, &s->in[1], CX_VK_READ, 0);
		if (!columns) bind_maybe(e, d, 6, 2);
		d->p.i[0] = (cx_i32)cols;
		d->p.i[1] = (cx_i32)rows;
		d->p.f[0] = at->eps;
		if (columns) cx__vk_items(d, (uint64_t)cols);
		else cx__vk_groups(d, (uint64_t)rows);
	}
}

/* ---- attention ---- */

/* [b, row, head, element]; or, aligned at the last axis, [b, head, row, key]. */
static cx_operand in_four(const cx_operand *o)
{
	cx_operand a = *o;
	a.desc.rank = 4;
	for (int32_t i = 0; i < 4; i++) {
		int32_t from = i - (4 - o->desc.rank);
		a.desc.dim[i] = from < 0 ? 1 : o->desc.dim[from];
		a.desc.stride[i] = from < 0 || o->desc.dim[from] == 1 ? 0 : o->desc.stride[from];
	}
	return a;
}

static void bind_four(cx_vk_emit *e, cx_vk_dispatch *d, uint32_t t, const cx_operand *o, int access)
{
	cx_operand a = in_four(o);
	cx__vk_bind(e, d, t, &a, access, 0);
}

uint64_t cx__vk_attention_grad_scratch(const cx_device *dev, const cx_kernel_key *key)
{
	const cx_desc *q = &key->in[0];
	uint64_t n = 12;
	(void)dev;
	for (int32_t i = 0; i < q->rank - 1; i++) n *= (uint64_t)q->dim[i];
	return padded(n);
}

static void attention_params(cx_vk_dispatch *d, const cx_step *s)
{
	const cx_attr_attention_grad *at = s->attr;
	cx_operand q = in_four(&s->in[0]), k = in_four(&s->in[1]), v = in_four(&s->in[2]);
	d->p.i[0] = cx__vk_has(s, 5) ? (cx_i32)s->in[5].desc.dim[0] - 1 : 1;
	d->p.i[1] = (cx_i32)q.desc.dim[1];
	d->p.i[2] = (cx_i32)k.desc.dim[1];
	d->p.i[3] = (cx_i32)q.desc.dim[2];
	d->p.i[4] = k.desc.dim[2] ? (cx_i32)(q.desc.dim[2] / k.desc.dim[2]) : 1;
	d->p.i[5] = (cx_i32)q.desc.dim[3];
	d->p.i[6] = (cx_i32)v.desc.dim[3];
	d->p.i[7] = at->causal;
	d->p.i[8] = (cx_i32)(at->window < INT32_MAX ? at->window : 0);
	d->p.i[9] = (cx_i32)k.desc.dim[2];
	d->p.f[0] = at->scale != 0 ? at->scale : (float)(1 / sqrt((double)q.desc.dim[3]));
}

static void attention_pass(cx_vk_emit *e, bool keys, bool after)
{
	const cx_step *s = e->step;
	const cx_desc *q = &s->in[0].desc, *v = &s->in[2].desc;
	int32_t r = q->rank;
	int64_t rows = cx__desc_elems(q) ? 1 : 0, wide = q->dim[r - 1];
	cx_operand stat;
	cx_vk_dispatch *d;
	if (v->dim[r - 1] > wide) wide = v->dim[r - 1];
	rows = q->dim[r - 3] * (r == 4 ? q->dim[0] : 1);
	stat = cx__vk_scratch(s, 0, CX_F32, rows * q->dim[r - 2], 3);
	d = cx__vk_begin(e, CX_SHADER_grada, LOCAL);
	d->after = after;
	cx__vk_spec(d, keys);
	for (int i = 0; i < 3; i++) cx__vk_spec(d, (uint32_t)s->in[i].desc.dtype);
	for (uint32_t i = 5; i < 9; i++)
		if (i != 6) cx__vk_spec(d, cx__vk_has(s, i));
	cx__vk_spec(d, !keys && s->n_out > 3);
	cx__vk_spec(d, wide ? (uint32_t)((wide + LOCAL - 1) / LOCAL) : 1);
	bind_four(e, d, 0, &s->out[keys ? 1 : 0], CX_VK_WRITE);
	if (keys) bind_four(e, d, 1, &s->out[2], CX_VK_WRITE);
	else if (s->n_out > 3) bind_four(e, d, 1, &s->out[3], CX_VK_WRITE);
	cx__vk_bind(e, d, 2, &stat, keys ? CX_VK_READ : CX_VK_WRITE, 0);
	for (uint32_t i = 0; i < 5; i++)
		if (!keys || i != 3) bind_four(e, d, 3 + i, &s->in[i], CX_VK_READ);
	bind_maybe(e, d, 8, 5);
	bind_maybe(e, d, 9, 6);
	for (uint32_t i = 7; i < 9; i++)
		if (cx__vk_has(s, i)) bind_four(e, d, 3 + i, &s->in[i], CX_VK_READ);
	attention_params(d, s);
	if (keys)
		cx__vk_groups(d, (uint64_t)(s->in[1].desc.dim[r - 3] * s->in[1].desc.dim[r - 2] *
									(r == 4 ? q->dim[0] : 1)));
	else cx__vk_groups(d, (uint64_t)(rows * q->dim[r - 2]));
}

void cx__vk_launch_attention_grad(cx_vk_emit *e)
{
	const cx_step *s = e->step;
	bool scores = s->n_out > 3;
	if (scores) zero(e, &s->out[3]);
	attention_pass(e, false, scores);
	attention_pass(e, true, true);
}

/* ---- sequences ---- */

static int64_t n_sequences(const cx_step *s, uint32_t off)
{
	if (cx__vk_has(s, off)) return s->in[off].desc.dim[0] - 1;
	return cx__vk_has(s, off + 1) ? s->in[off + 1].desc.dim[0] : 1;
}

uint64_t cx__vk_conv1d_grad_scratch(const cx_device *dev, const cx_kernel_key *key)
{
	(void)dev;
	return padded((uint64_t)cx__desc_elems(&key->in[0]) * 4);
}

void cx__vk_launch_conv1d_grad(cx_vk_emit *e)
{
	const cx_step *s = e->step;
	const cx_desc *x = &s->in[0].desc, *w = &s->in[1].desc;
	static const int from[13] = {-1, -1, -1, -1, -1, 0, 1, 2, 3, 4, 5, 6, 7};
	/* by mode: the output, and whether dz is only read */
	static const uint32_t out[4] = {0, 0, 3, 1};
	cx_operand dz = cx__vk_scratch(s, 0, CX_F32, x->dim[0], x->dim[1]);
	uint64_t n[4] = {(uint64_t)cx__desc_elems(x), (uint64_t)cx__desc_elems(x),
		(uint64_t)cx__desc_elems(&s->out[3].desc), (uint64_t)(w->dim[0] * (w->dim[1] + 1))};
	for (uint32_t mode = 0; mode < 4; mode++) {
		cx_vk_dispatch *d;
		if (n[mode] == 0) continue;
		d = cx__vk_begin(e, CX_SHADER_gradc, LOCAL);
		d->after = mode == 1 || (mode > 1 && n[0] > 0);
		cx__vk_spec(d, mode);
		cx__vk_spec(d, (uint32_t)x->dtype);
		cx__vk_spec(d, (uint32_t)s->in[2].desc.dtype);
		cx__vk_spec(d, (uint32_t)w->dtype);
		cx__vk_spec(d, dtype_or(s, 4));
		for (uint32_t i = 5; i < 8; i++) cx__vk_spec(d, cx__vk_has(s, i));
		cx__vk_spec(d, ((const cx_attr_conv1d *)s->attr)->silu);
		if (mode > 0) cx__vk_bind(e, d, out[mode], &s->out[out[mode]], CX_VK_WRITE, 0);
		if (mode == 3) cx__vk_bind(e, d, 2, &s->out[2], CX_VK_WRITE, 0);
		cx__vk_bind(e, d, 4, &dz, mode ? CX_VK_READ : CX_VK_WRITE, 0);
		for (uint32_t t = 5; t < 13; t++) bind_maybe(e, d, t, (uint32_t)from[t]);
		d->p.i[0] = (cx_i32)x->dim[1];
		d->p.i[1] = (cx_i32)w->dim[1];
		d->p.i[2] = (cx_i32)x->dim[0];
		d->p.i[3] = (cx_i32)s->in[2].desc.dim[0];
		d->p.i[4] = (cx_i32)n_sequences(s, 6);
		cx__vk_items(d, n[mode]);
	}
}

/* dq and dk in f32, and the states that shaders/gradd.comp says. */
uint64_t cx__vk_delta_grad_scratch(const cx_device *dev, const cx_kernel_key *key)
{
	const cx_desc *q = &key->in[0], *v = &key->in[2];
	uint64_t n_seq = 1, rows = (uint64_t)q->dim[0],
			 state = (uint64_t)(q->dim[1] * q->dim[2] * v->dim[2]);
	(void)dev;
	if (key->n_in > 8 && key->in[8].dtype != CX_DTYPE_COUNT)
		n_seq = (uint64_t)key->in[8].dim[0] - 1;
	else if (key->n_in > 9 && key->in[9].dtype != CX_DTYPE_COUNT)
		n_seq = (uint64_t)key->in[9].dim[0];
	return padded(
		2 * (uint64_t)cx__desc_elems(q) * 4 + (rows / EVERY + n_seq * (EVERY + 2)) * state * 4);
}

static void delta_pass(cx_vk_emit *e, const cx_operand *scratch, bool items)
{
	static const int from[13] = {-1, -1, -1, -1, 0, 1, 2, 3, 4, 5, 6, 8, 9};
	const cx_step *s = e->step;
	const cx_attr_delta *at = s->attr;
	const cx_desc *q = &s->in[0].desc, *v = &s->in[2].desc;
	int64_t n_seq = n_sequences(s, 8);
	cx_vk_dispatch *d = cx__vk_begin(e, CX_SHADER_gradd, LOCAL);
	d->after = true;
	cx__vk_spec(d, items);
	cx__vk_spec(d, (uint32_t)q->dtype);
	cx__vk_spec(d, (uint32_t)s->in[3].desc.dtype);
	cx__vk_spec(d, (uint32_t)s->in[4].desc.dtype);
	cx__vk_spec(d, cx__vk_has(s, 8));
	cx__vk_spec(d, cx__vk_has(s, 9));
	cx__vk_bind(e, d, 0, &s->out[items ? 0 : 1], CX_VK_WRITE, 0);
	cx__vk_bind(e, d, 3, scratch, items ? CX_VK_READ : CX_VK_READ | CX_VK_WRITE, 0);
	if (items) {
		cx__vk_items(d, (uint64_t)cx__desc_elems(&s->out[0].desc));
		return;
	}
	cx__vk_bind(e, d, 1, &s->out[2], CX_VK_WRITE, 0);
	cx__vk_bind(e, d, 2, &s->out[3], CX_VK_READ | CX_VK_WRITE, 0);
	for (uint32_t t = 4; t < 13; t++) bind_maybe(e, d, t, (uint32_t)from[t]);
	d->p.i[0] = (cx_i32)n_seq;
	d->p.i[1] = (cx_i32)q->dim[0];
	d->p.i[2] = (cx_i32)s->in[5].desc.dim[0];
	d->p.i[3] = (cx_i32)v->dim[1];
	d->p.i[4] = (cx_i32)q->dim[1];
	d->p.i[5] = (cx_i32)q->dim[2];
	d->p.i[6] = (cx_i32)v->dim[2];
	d->p.i[7] = (cx_i32)(q->dim[0] / EVERY + n_seq);
	d->p.i[8] = at->tiled;
	d->p.f[0] = at->scale != 0 ? at->scale : (float)(1 / sqrt((double)q->dim[2]));
	cx__vk_groups(d, (uint64_t)(n_seq * q->dim[1]));
}

void cx__vk_launch_delta_grad(cx_vk_emit *e)
{
	const cx_step *s = e->step;
	const cx_desc *q = &s->in[0].desc;
	int64_t n_qk = cx__desc_elems(&s->out[0].desc), n_state = cx__desc_elems(&s->out[3].desc);
	cx_operand scratch = cx__vk_scratch(s, 0, CX_F32, 1, (int64_t)(s->scratch_bytes / 4)),
			   acc = cx__vk_scratch(s, 0, CX_F32, 1, n_qk);
	zero(e, &s->out[1]); /* rows of no sequence */
	zero(e, &s->out[2]);
	zero(e, &acc);
	if (n_state > 0 && cx__vk_has(s, 7))
		cx__vk_copy(e, &s->out[3], &s->in[7], 4 * (uint64_t)n_state);
	else zero(e, &s->out[3]);
	if (q->dim[0] > 0 && s->scratch_bytes > 0) delta_pass(e, &scratch, false);
	if (n_qk > 0) delta_pass(e, &scratch, true);
}
