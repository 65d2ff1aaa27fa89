/* launch_seq.c - attention, rotary embedding, and ops with a carried state. */
#include "backends/vulkan/emit.h"

#include <math.h>

enum { LOCAL = 64, ABSENT = 99 };

/* An operand whose axes become the given ones, out of [d0, d1, d2, d3]: perm[i] is the axis of
 * o that goes to place i,
 * -1: none (stride 0, dim 1). */
static cx_operand arranged(const cx_operand *o, const int perm[4])
{
	cx_operand a = *o;
	a.desc.rank = 4;
	for (int i = 0; i < 4; i++) {
		a.desc.dim[i] = perm[i] < 0 ? 1 : o->desc.dim[perm[i]];
		a.desc.stride[i] = perm[i] < 0 || o->desc.dim[perm[i]] == 1 ? 0 : o->desc.stride[perm[i]];
	}
	return a;
}

/* ---- attention ---- */

typedef struct attention {
	uint32_t kind; /* 0 dense, 1 ragged, 2 paged */
	int64_t n_seq, causal, window, page, blocks;
	float scale;
	const cx_operand *a, *b, *table, *mask, *bias; /* NULL: absent */
} attention;

static const cx_operand *operand(const cx_step *s, uint32_t i)
{
	return cx__vk_has(s, i) ? &s->in[i] : NULL;
}

static void emit_attention(cx_vk_emit *e, const attention *t)
{
	static const int perm4[4] = {0, 1, 2, 3}, perm3[4] = {-1, 0, 1, 2};
	const cx_step *s = e->step;
	int32_t r = s->in[0].desc.rank;
	const int *perm = r == 4 ? perm4 : perm3;
	cx_operand y = arranged(&s->out[0], perm), q = arranged(&s->in[0], perm),
			   k = arranged(&s->in[1], perm);
	cx_operand v = arranged(&s->in[2], perm);
	int64_t heads = q.desc.dim[2], dv = v.desc.dim[3];
	cx_vk_dispatch *d = cx__vk_begin(e, CX_SHADER_attn, LOCAL);
	cx__vk_spec(d, (uint32_t)y.desc.dtype);
	cx__vk_spec(d, (uint32_t)q.desc.dtype);
	cx__vk_spec(d, (uint32_t)k.desc.dtype);
	cx__vk_spec(d, (uint32_t)v.desc.dtype);
	cx__vk_spec(d, t->kind);
	cx__vk_spec(d, t->mask != NULL);
	cx__vk_spec(d, t->bias != NULL);
	cx__vk_spec(d, dv ? (uint32_t)((dv + LOCAL - 1) / LOCAL) : 1);
	cx__vk_bind(e, d, 0, &y, CX_VK_WRITE, 0);
	cx__vk_bind(e, d, 1, &q, CX_VK_READ, 0);
	cx__vk_bind(e, d, 2, &k, CX_VK_READ, 0);
	cx__vk_bind(e, d, 3, &v, CX_VK_READ, 0);
	if (t->a) cx__vk_bind(e, d, 4, t->a, CX_VK_READ, 0);
	if (t->b) cx__vk_bind(e, d, 5, t->b, CX_VK_READ, 0);
	for (int i = 0; i < 2; i++) { /* the last axes of [B,H,T,S] */
		const cx_operand *m = i ? t->bias : t->mask;
		int at[4];
		cx_operand full;
		if (!m) continue;
		for (int k4 = 0; k4 < 4; k4++) at[k4] = k4 - (4 - m->desc.rank);
		full = arranged(m, at);
		cx__vk_bind(e, d, 6 + (uint32_t)i, &full, CX_VK_READ, 0);
	}
	if (t->table) cx__vk_bind(e, d, 8, t->table, CX_VK_READ, 0);
	d->p.i[0] = (cx_i32)t->n_seq;
	d->p.i[1] = (cx_i32)q.desc.dim[1];
	d->p.i[2] = (cx_i32)k.desc.dim[1];
	d->p.i[3] = (cx_i32)heads;
	d->p.i[4] = k.desc.dim[2] ? (cx_i32)(heads / k.desc.dim[2]) : 1;
	d->p.i[5] = (cx_i32)q.desc.dim[3];
	d->p.i[6] = (cx_i32)dv;
	d->p.i[7] = (cx_i32)t->causal;
	d->p.i[8] = (cx_i32)(t->window < INT32_MAX ? t->window : 0);
	d->p.i[9] = (cx_i32)t->page;
	d->p.i[10] = (cx_i32)t->blocks;
	d->p.f[0] = t->scale != 0 ? t->scale : (float)(1 / sqrt((double)q.desc.dim[3]));
	cx__vk_groups(d, dv ? (uint64_t)(q.desc.dim[0] * q.desc.dim[1] * heads) : 0);
}

void cx__vk_launch_attention(cx_vk_emit *e)
{
	const cx_step *s = e->step;
	const cx_attr_attention *at = s->attr;
	attention t = {.causal = at->causal,
		.window = at->window,
		.scale = at->scale,
		.page = 1,
		.a = operand(s, 3),
		.b = operand(s, 4),
		.mask = operand(s, 5),
		.bias = operand(s, 6)};
	t.kind = t.a ? 1 : 0;
	t.n_seq = t.a ? t.a->desc.dim[0] - 1 : 1;
	emit_attention(e, &t);
}

void cx__vk_launch_paged(cx_vk_emit *e)
{
	const cx_step *s = e->step;
	const cx_attr_paged *at = s->attr;
	attention t = {.kind = 2,
		.window = at->window,
		.scale = at->scale,
		.page = at->page,
		.a = operand(s, 4),
		.b = operand(s, 5),
		.table = operand(s, 3)};
	t.n_seq = t.b->desc.dim[0];
	t.blocks = t.table->desc.dim[1];
	emit_attention(e, &t);
}

/* ---- rotary embedding ---- */

/* Frequencies theta^(-2j/r), computed in double and rounded once, as the reference does. */
static bool make_freqs(cx_vk_emit *e, const cx_attr_rope *at, int64_t r, cx_operand *out)
{
	float *f = cx__vk_table(e, CX_F32, r / 2 ? r / 2 : 1, out);
	for (int64_t j = 0; f && j < r / 2; j++)
		f[j] = (float)pow(at->theta, -2.0 * (double)j / (double)r);
	return f != NULL;
}

static cx_vk_dispatch *begin_rope(
	cx_vk_emit *e, const cx_attr_rope *at, const cx_operand *x, cx_dtype y, bool kv)
{
	int64_t hd = x->desc.dim[x->desc.rank - 1], heads = x->desc.dim[x->desc.rank - 2],
			r = at->n_rot ? at->n_rot : hd;
	const cx_operand *freqs = operand(e->step, kv ? 6 : 2),
					 *cosine = kv ? NULL : operand(e->step, 3);
	cx_operand table;
	cx_vk_dispatch *d;
	if (!freqs && !cosine && make_freqs(e, at, r, &table)) freqs = &table;
	d = cx__vk_begin(e, CX_SHADER_rope, LOCAL);
	cx__vk_spec(d, (uint32_t)y);
	cx__vk_spec(d, (uint32_t)x->desc.dtype);
	cx__vk_spec(d, cosine != NULL);
	cx__vk_spec(d, at->pairs);
	cx__vk_spec(d, kv);
	cx__vk_spec(d, (uint32_t)x->desc.rank);
	cx__vk_bind(e, d, 2, x, CX_VK_READ, 0);
	cx__vk_bind(e, d, 3, &e->step->in[kv ? 2 : 1], CX_VK_READ, 0);
	if (freqs) cx__vk_bind(e, d, 4, freqs, CX_VK_READ, 0);
	if (cosine) {
		cx__vk_bind(e, d, 5, cosine, CX_VK_READ, 0);
		cx__vk_bind(e, d, 6, &e->step->in[4], CX_VK_READ, 0);
		d->p.i[3] = (cx_i32)cosine->desc.dim[0];
	}
	d->p.i[0] = (cx_i32)heads;
	d->p.i[1] = (cx_i32)hd;
	d->p.i[2] = (cx_i32)r;
	d->p.f[0] = at->amplitude;
	cx__vk_items(d, hd ? (uint64_t)(cx__desc_elems(&x->desc) / hd * (hd - r / 2)) : 0);
	return d;
}

void cx__vk_launch_rope(cx_vk_emit *e)
{
	const cx_step *s = e->step;
	cx_vk_dispatch *d = begin_rope(e, s->attr, &s->in[0], s->out[0].desc.dtype, false);
	cx__vk_bind(e, d, 0, &s->out[0], CX_VK_WRITE, 0);
}

void cx__vk_launch_rope_kv(cx_vk_emit *e)
{
	const cx_step *s = e->step;
	cx_vk_dispatch *d = begin_rope(e, s->attr, &s->in[0], s->out[0].desc.dtype, true);
	cx__vk_bind(e, d, 0, &s->out[0], CX_VK_WRITE, 0);
	cx__vk_bind(e, d, 1, &s->out[1], CX_VK_WRITE, 0);
	cx__vk_bind(e, d, 7, &s->in[1], CX_VK_READ, 0);
	cx__vk_bind(e, d, 8, &s->in[3], CX_VK_READ, 0);
	d->p.i[4] = (cx_i32)s->out[0].desc.dim[0];
}

/* ---- ragged sequences ---- */

static int64_t n_sequences(const cx_step *s, uint32_t off)
{
	if (cx__vk_has(s, off)) return s->in[off].desc.dim[0] - 1;
	return cx__vk_has(s, off + 1) ? s->in[off + 1].desc.dim[0] : 1;
}

/* Zeros for rows that belong to no sequence, where there may be such. */
static bool zero_first(cx_vk_emit *e, const cx_operand *y)
{
	cx_vk_dispatch *d;
	if (cx__desc_elems(&y->desc) == 0) return false;
	d = cx__vk_begin(e, CX_SHADER_fill, LOCAL);
	cx__vk_spec(d, cx__vk_size(y->desc.dtype));
	cx__vk_bind(e, d, 0, y, CX_VK_WRITE, 0);
	cx__vk_items(d, (uint64_t)cx__desc_elems(&y->desc));
	return true;
}

static void bind_sequences(cx_vk_emit *e, cx_vk_dispatch *d, uint32_t off, uint32_t slot)
{
	const cx_step *s = e->step;
	if (cx__vk_has(s, off)) cx__vk_bind(e, d, slot, &s->in[off], CX_VK_READ, 0);
	if (cx__vk_has(s, off + 1)) cx__vk_bind(e, d, slot + 1, &s->in[off + 1], CX_VK_READ, 0);
}

void cx__vk_launch_conv1d(cx_vk_emit *e)
{
	const cx_step *s = e->step;
	const cx_attr_conv1d *at = s->attr;
	int64_t channels = s->in[0].desc.dim[1], taps = s->in[1].desc.dim[1], n_seq = n_sequences(s, 4);
	bool zeroed = (cx__vk_has(s, 4) || n_seq == 0) && zero_first(e, &s->out[0]);
	cx_vk_dispatch *d = cx__vk_begin(e, CX_SHADER_conv1d, LOCAL);
	d->after = zeroed;
	cx__vk_spec(d, (uint32_t)s->in[0].desc.dtype);
	cx__vk_spec(d, (uint32_t)s->in[3].desc.dtype);
	cx__vk_spec(d, (uint32_t)s->in[1].desc.dtype);
	cx__vk_spec(d, cx__vk_has(s, 2) ? (uint32_t)s->in[2].desc.dtype : ABSENT);
	cx__vk_spec(d, cx__vk_has(s, 4));
	cx__vk_spec(d, cx__vk_has(s, 5));
	cx__vk_spec(d, at->silu);
	cx__vk_bind(e, d, 0, &s->out[0], CX_VK_WRITE, 0);
	cx__vk_bind(e, d, 1, &s->out[1], CX_VK_READ | CX_VK_WRITE, 0);
	cx__vk_bind(e, d, 2, &s->in[0], CX_VK_READ, 0);
	cx__vk_bind(e, d, 3, &s->in[1], CX_VK_READ, 0);
	if (cx__vk_has(s, 2)) cx__vk_bind(e, d, 4, &s->in[2], CX_VK_READ, 0);
	bind_sequences(e, d, 4, 5);
	d->p.i[0] = (cx_i32)channels;
	d->p.i[1] = (cx_i32)taps;
	d->p.i[2] = (cx_i32)s->in[0].desc.dim[0];
	d->p.i[3] = (cx_i32)s->out[1].desc.dim[0];
	d->p.i[4] = (cx_i32)n_seq;
	cx__vk_items(d, (uint64_t)(channels * n_seq));
}

static uint64_t padded(uint64_t n)
{
	return (n + 255) & ~(uint64_t)255;
}

/* Tokens of a chunk; 0: token by token. */
static int64_t chunk_of(const cx_attr_delta *at, const cx_desc *q)
{
	return at->chunk < q->dim[0] ? at->chunk : q->dim[0];
}

/* Chunked: pairs of tokens W [T,nv,2,chunk], sums G [T,nv], corrections D [T,nv,dv], f32. */
uint64_t cx__vk_delta_scratch(const cx_device *dev, const cx_kernel_key *key)
{
	const cx_desc *q = &key->in[0], *v = &key->in[2];
	uint64_t rows = (uint64_t)(v->dim[0] * v->dim[1]), n = (uint64_t)chunk_of(key->attr, q);
	(void)dev;
	if (((const cx_attr_delta *)key->attr)->chunk == 0) return 0;
	return padded(rows * 2 * n * 4) + padded(rows * 4) + padded(rows * (uint64_t)v->dim[2] * 4);
}

static void delta_params(cx_vk_dispatch *d, const cx_step *s, int64_t n_seq)
{
	const cx_attr_delta *at = s->attr;
	const cx_desc *q = &s->in[0].desc, *v = &s->in[2].desc;
	d->p.i[0] = (cx_i32)q->dim[2];
	d->p.i[1] = (cx_i32)v->dim[2];
	d->p.i[2] = (cx_i32)q->dim[1];
	d->p.i[3] = (cx_i32)v->dim[1];
	d->p.i[4] = (cx_i32)q->dim[0];
	d->p.i[5] = (cx_i32)s->out[1].desc.dim[0];
	d->p.i[6] = at->tiled;
	d->p.i[7] = (cx_i32)n_seq;
	d->p.i[8] = (cx_i32)chunk_of(at, q);
	d->p.f[0] = at->scale != 0 ? at->scale : (float)(1 / sqrt((double)q->dim[2]));
}

static void emit_pairs(cx_vk_emit *e, int64_t n_seq, const cx_operand *w, const cx_operand *g)
{
	const cx_step *s = e->step;
	cx_vk_dispatch *d = cx__vk_begin(e, CX_SHADER_deltaw, LOCAL);
	delta_params(d, s, n_seq);
	d->p.i[1] = d->p.i[8];
	cx__vk_spec(d, (uint32_t)s->in[0].desc.dtype);
	cx__vk_spec(d, (uint32_t)s->in[3].desc.dtype);
	cx__vk_spec(d, cx__vk_has(s, 6));
	cx__vk_bind(e, d, 0, w, CX_VK_WRITE, 0);
	cx__vk_bind(e, d, 1, g, CX_VK_WRITE, 0);
	cx__vk_bind(e, d, 2, &s->in[0], CX_VK_READ, 0);
	cx__vk_bind(e, d, 3, &s->in[1], CX_VK_READ, 0);
	cx__vk_bind(e, d, 4, &s->in[3], CX_VK_READ, 0);
	if (cx__vk_has(s, 6)) cx__vk_bind(e, d, 5, &s->in[6], CX_VK_READ, 0);
	cx__vk_items(d, (uint64_t)(s->in[0].desc.dim[0] * s->in[2].desc.dim[1] * d->p.i[8]));
}

void cx__vk_launch_delta(cx_vk_emit *e)
{
	const cx_step *s = e->step;
	const cx_attr_delta *at = s->attr;
	const cx_desc *q = &s->in[0].desc, *v = &s->in[2].desc;
	int64_t n_seq = n_sequences(s, 6), dk = q->dim[2], rows = v->dim[0] * v->dim[1],
			chunk = chunk_of(at, q);
	bool zeroed = (cx__vk_has(s, 6) || n_seq == 0) && zero_first(e, &s->out[0]),
		 chunked = at->chunk > 0 && rows > 0;
	uint64_t g_off = padded((uint64_t)(rows * 2 * chunk) * 4);
	cx_operand w = cx__vk_scratch(s, 0, CX_F32, rows, 2 * chunk),
			   g = cx__vk_scratch(s, g_off, CX_F32, 1, rows);
	cx_operand corr =
		cx__vk_scratch(s, g_off + padded((uint64_t)rows * 4), CX_F32, rows, v->dim[2]);
	cx_vk_dispatch *d;
	if (chunked) emit_pairs(e, n_seq, &w, &g);
	d = cx__vk_begin(e, CX_SHADER_delta, LOCAL);
	d->after = zeroed || chunked;
	delta_params(d, s, n_seq);
	cx__vk_spec(d, (uint32_t)q->dtype);
	cx__vk_spec(d, (uint32_t)s->in[3].desc.dtype);
	cx__vk_spec(d, (uint32_t)s->in[4].desc.dtype);
	cx__vk_spec(d, cx__vk_has(s, 6));
	cx__vk_spec(d, cx__vk_has(s, 7));
	cx__vk_spec(d, dk ? (uint32_t)dk : 1);
	cx__vk_spec(d, chunked);
	cx__vk_bind(e, d, 0, &s->out[0], CX_VK_WRITE, 0);
	cx__vk_bind(e, d, 1, &s->out[1], CX_VK_READ | CX_VK_WRITE, 0);
	for (uint32_t i = 0; i < 5; i++) cx__vk_bind(e, d, 3 + i, &s->in[i], CX_VK_READ, 0);
	if (chunked) {
		cx__vk_bind(e, d, 2, &corr, CX_VK_READ | CX_VK_WRITE, 0);
		cx__vk_bind(e, d, 10, &w, CX_VK_READ, 0);
		cx__vk_bind(e, d, 11, &g, CX_VK_READ, 0);
	}
	bind_sequences(e, d, 6, 8);
	cx__vk_items(d, (uint64_t)(n_seq * v->dim[1] * v->dim[2]));
}

/* scan and cscan: operands come as re, im of each; the shader's places are the complex ones. */
void cx__vk_launch_scan(cx_vk_emit *e)
{
	const cx_step *s = e->step;
	const cx_attr_reset *at = s->attr;
	uint32_t n = s->op == CX_OP_cscan ? 2 : 1;
	const cx_desc *y = &s->out[0].desc;
	cx_vk_dispatch *d = cx__vk_begin(e, CX_SHADER_scan, LOCAL);
	cx__vk_spec(d, (uint32_t)y->dtype);
	cx__vk_spec(d, n == 2);
	for (uint32_t i = 0; i < n; i++) {
		cx__vk_bind(e, d, i, &s->out[i], CX_VK_WRITE, 0);
		cx__vk_bind(e, d, 2 + i, &s->out[n + i], CX_VK_WRITE, 0);
		for (uint32_t k = 0; k < 3; k++)
			cx__vk_bind(e, d, 4 + 2 * k + i, &s->in[k * n + i], CX_VK_READ, 0);
	}
	if (cx__vk_has(s, 3 * n)) cx__vk_bind(e, d, 10, &s->in[3 * n], CX_VK_READ, 0);
	d->p.i[0] = (cx_i32)y->dim[1];
	d->p.i[1] = (cx_i32)y->dim[2];
	d->p.i[2] = at->reverse;
	d->p.i[3] = cx__vk_has(s, 3 * n);
	cx__vk_items(d, (uint64_t)(y->dim[0] * y->dim[2]));
}
