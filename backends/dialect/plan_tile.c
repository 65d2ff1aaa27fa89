/* plan_tile.c - launches of products and attention: kernels/matmul.cl.h and attn.cl.h. */
#include "backends/dialect/launch.h"

#include "graph/quant.h"

#include <math.h>
#include <string.h>

/* Rows from which an item takes several; either way a row's bits are the same. */
enum { TILE_FROM = 2, NT_ROWS = 4, NT_COLS = 4, NN_ROWS = 8, NN_COLS = 32 };

/* A product y [.., m, n] = a [.., m, k] b' with b as [.., n, k] (nt) or [.., k, n]. */
typedef struct product {
	cx_operand y, a, b;
	const cx_operand *bias, *mul, *residual; /* NULL: none; of nt alone */
	int64_t act;
	float act_scale; /* > 0: a is rounded to int8 in these steps */
} product;

static void swap_last(cx_desc *d)
{
	int64_t dim = d->dim[d->rank - 1], stride = d->stride[d->rank - 1];
	d->dim[d->rank - 1] = d->dim[d->rank - 2];
	d->stride[d->rank - 1] = d->stride[d->rank - 2];
	d->dim[d->rank - 2] = dim;
	d->stride[d->rank - 2] = stride;
}

static bool runs_along_last(const cx_desc *d)
{
	return d->stride[d->rank - 1] == 1 || d->dim[d->rank - 1] <= 1;
}

/* b as [.., n, k] with stride 1 along k, if it can be seen so; else as [.., k, n] with stride 1
 * along n. False: neither. */
bool cx__dk_product_layout(const cx_desc *b, bool trans_b, cx_desc *out, bool *nt)
{
	*out = *b;
	if (!trans_b) swap_last(out);
	*nt = true;
	if (runs_along_last(out) && (trans_b || !runs_along_last(b))) return true;
	swap_last(out);
	*nt = false;
	return runs_along_last(out);
}

/* Leading axes of y and a become rows where b has none of its own. */
static void fold_batch(product *p)
{
	cx_desc y = p->y.desc, a = p->a.desc;
	cx_desc both[2];
	int64_t n_lead = 1;
	for (int32_t i = 0; i + 2 < p->b.desc.rank; i++) n_lead *= p->b.desc.dim[i];
	if (n_lead != 1 || y.rank != a.rank || y.rank < 3) return;
	for (int32_t i = 0; i + 2 < y.rank; i++)
		if (y.dim[i] != a.dim[i]) return;
	both[0] = cx__dk_without(&y, 1u << (y.rank - 1));
	both[1] = cx__dk_without(&a, 1u << (a.rank - 1));
	cx__dk_merge(both, 2);
	if (both[0].rank != 1) return;
	for (int i = 0; i < 2; i++) {
		const cx_desc *full = i ? &a : &y;
		both[i].rank = 2;
		both[i].dim[1] = full->dim[full->rank - 1];
		both[i].stride[1] = full->stride[full->rank - 1];
	}
	p->y.desc = both[0];
	p->a.desc = both[1];
	p->b.desc = cx__dk_without(&p->b.desc, (1u << (p->b.desc.rank - 2)) - 1);
}

/* Tensor t as matrices with the leading dims of y; axes of size 1 are broadcast. */
static void put_matrix(
	cx_dk_builder *b, cx_dk_draft *d, int t, int arg, const cx_operand *o, const cx_desc *y)
{
	cx_operand full = *o;
	int32_t pad = y->rank - o->desc.rank;
	full.desc.rank = y->rank;
	for (int32_t i = y->rank - 1; i >= 0; i--) {
		bool lead = i < y->rank - 2;
		int64_t dim = i >= pad ? o->desc.dim[i - pad] : 1;
		full.desc.stride[i] = i >= pad && !(lead && dim == 1) ? o->desc.stride[i - pad] : 0;
		full.desc.dim[i] = lead ? y->dim[i] : dim;
	}
	cx__dk_tensor(b, d, t, arg, &full);
}

/* Where a group of items is a piece of a tile, they should be near each other. */
static void tile_grid(cx_dk_builder *b, cx_dk_draft *d, uint64_t nx, uint64_t ny, uint64_t nz)
{
	size_t gx = b->dev->is_host ? 1 : 8, gy = b->dev->is_host || ny < 8 ? 1 : 8;
	d->n_dims = 3;
	d->group[0] = gx;
	d->group[1] = gy;
	d->group[2] = 1;
	d->grid[0] = (size_t)((nx + gx - 1) / gx * gx);
	d->grid[1] = (size_t)((ny + gy - 1) / gy * gy);
	d->grid[2] = (size_t)nz;
}

static void plan_product(cx_dk_builder *b, product p, bool nt)
{
	static const char *const names[3][2] = {{"cx_matmul_nn1", "cx_matmul_nn8"},
		{"cx_matmul_nt1", "cx_matmul_nt4"}, {"cx_matmul_ni1", "cx_matmul_ni4"}};
	const cx_desc *y = &p.y.desc;
	int64_t m, n, k, batch = 1;
	int rows, cols = nt ? NT_COLS : NN_COLS;
	cx_dk_draft *d;
	if (!p.mul && !p.residual) fold_batch(&p);
	m = y->dim[y->rank - 2];
	n = y->dim[y->rank - 1];
	k = p.a.desc.dim[p.a.desc.rank - 1];
	rows = m < TILE_FROM ? 1 : nt ? NT_ROWS : NN_ROWS;
	for (int32_t i = 0; i + 2 < y->rank; i++) batch *= y->dim[i];
	d = cx__dk_draft(b, "matmul", names[p.act_scale > 0.0f ? 2 : nt][rows > 1], nt ? 6 : 3);
	put_matrix(b, d, 0, 0, &p.y, y);
	put_matrix(b, d, 1, 1, &p.a, y);
	put_matrix(b, d, 2, 2, &p.b, y);
	cx__dk_tensor(b, d, 3, p.bias ? 3 : -1, p.bias);
	cx__dk_tensor(b, d, 4, p.mul ? 4 : -1, p.mul);
	cx__dk_tensor(b, d, 5, p.residual ? 5 : -1, p.residual);
	d->p.i[0] = (cx_i32)k;
	d->p.i[1] = (cx_i32)p.act;
	if (p.act_scale > 0.0f) {
		d->p.f[0] = 1.0f / p.act_scale;
		d->p.f[1] = p.act_scale;
	}
	if (p.b.desc.dtype == CX_I8C) {
		int64_t wk = p.b.desc.dim[p.b.desc.rank - 1];
		d->p.i[2] = (cx_i32)cx_i8c_scale_off(wk ? cx__desc_elems(&p.b.desc) / wk : 0, wk);
	}
	tile_grid(b, d, (uint64_t)(n + cols - 1) / (uint64_t)cols,
		(uint64_t)(m + rows - 1) / (uint64_t)rows, (uint64_t)batch);
	cx__dk_specialise(b, d, 3, (double)n * (double)k * (double)batch * (double)m);
}

void cx__dk_plan_matmul(cx_dk_builder *b, const cx_step *s)
{
	const cx_attr_matmul *at = s->attr;
	product p = {.y = s->out[0], .a = s->in[0], .b = s->in[1], .act_scale = at->act_scale};
	bool nt;
	if (at->trans_a) swap_last(&p.a.desc);
	cx__dk_product_layout(&s->in[1].desc, at->trans_b, &p.b.desc, &nt);
	plan_product(b, p, nt);
}

/* x with its leading axes merged to rows. */
static cx_operand as_rows(const cx_operand *o)
{
	cx_operand r = *o;
	cx_desc lead = cx__dk_without(&o->desc, 1u << (o->desc.rank - 1));
	cx__dk_merge(&lead, 1);
	r.desc.rank = 2;
	memset(r.desc.dim, 0, sizeof r.desc.dim);
	memset(r.desc.stride, 0, sizeof r.desc.stride);
	r.desc.dim[0] = lead.rank ? lead.dim[0] : 1;
	r.desc.stride[0] = lead.rank ? lead.stride[0] : 0;
	r.desc.dim[1] = o->desc.dim[o->desc.rank - 1];
	r.desc.stride[1] = o->desc.stride[o->desc.rank - 1];
	return r;
}

/* Whether as_rows() can be: the leading axes are one. */
bool cx__dk_is_rows(const cx_desc *d)
{
	cx_desc lead = cx__dk_without(d, 1u << (d->rank - 1));
	cx__dk_merge(&lead, 1);
	return lead.rank <= 1;
}

/* norm into scratch; then one product per weight, the second of a gated pair into scratch first. */
void cx__dk_plan_linear(cx_dk_builder *b, const cx_step *s)
{
	const cx_attr_linear *at = s->attr;
	const cx_operand *w = s->in + 1 + at->norm_in, *bias = w + at->n_w;
	cx_operand x = s->in[0], gate, res, y;
	uint64_t used = 0;
	if (at->norm) {
		cx_operand h = cx__dk_scratch(b, 0, &x.desc);
		cx_dtype_bytes(x.desc.dtype, x.desc.rank, x.desc.dim, &used);
		used = (used + 63) & ~(uint64_t)63;
		cx__dk_linear_norm(b, s, &h);
		x = h;
	}
	gate = cx__dk_scratch(b, used, &s->out[0].desc);
	gate = as_rows(&gate);
	for (int64_t i = at->n_w - 1; i >= 0; i--) {
		bool has_bias = at->bias && bias[i].buf != CX_BUF_NONE;
		product p = {.a = as_rows(&x),
			.b = w[i],
			.bias = has_bias ? &bias[i] : NULL,
			.act_scale = at->act_scale};
		if (at->glu && i == 1) {
			p.y = gate;
			plan_product(b, p, true);
			continue;
		}
		y = as_rows(&s->out[i]);
		p.y = y;
		p.act = at->act == CX_OP_input ? 0 : at->act;
		if (at->glu) p.mul = &gate;
		if (at->residual && i == 0) {
			res = as_rows(&s->in[s->n_in - 1]);
			p.residual = &res;
		}
		plan_product(b, p, true);
	}
}

/* ---- attention ---- */

/* Tensor t of [rows, heads, width], with a batch in front or not. */
static void put_heads(cx_dk_builder *b, cx_dk_draft *d, int t, const cx_operand *o)
{
	cx__dk_tensor(b, d, t, t, o);
	for (int i = 3; i < CX_K_RANK;
		 i++) { /* kernels read single strides: keep those of axes of size 1 */
		int32_t axis = i - (CX_K_RANK - o->desc.rank);
		if (axis >= 0) d->p.t[t].stride[i] = (uint32_t)o->desc.stride[axis];
	}
}

static cx_dk_draft *plan_heads(cx_dk_builder *b, const cx_step *s, float scale)
{
	const cx_desc *q = &s->in[0].desc, *k = &s->in[1].desc, *v = &s->in[2].desc;
	int32_t r = q->rank;
	cx_dk_draft *d = cx__dk_draft(b, "attn", "cx_attention_group", 8);
	uint64_t n = (uint64_t)q->dim[r - 3] * (r == 4 ? (uint64_t)q->dim[0] : 1),
			 keys = (uint64_t)k->dim[r - 3];
	put_heads(b, d, 0, &s->out[0]);
	for (int i = 0; i < 3; i++) put_heads(b, d, 1 + i, &s->in[i]);
	d->p.i[4] = k->dim[r - 2] ? (cx_i32)(q->dim[r - 2] / k->dim[r - 2]) : 1;
	d->p.i[6] = (cx_i32)q->dim[r - 1];
	d->p.i[7] = (cx_i32)v->dim[r - 1];
	d->p.i[9] = (cx_i32)q->dim[r - 3];
	d->p.i[10] = (cx_i32)keys;
	d->p.f[0] = scale != 0 ? scale : (float)(1 / sqrt((double)q->dim[r - 1]));
	cx__dk_groups(d, v->dim[r - 1] ? n : 0, (uint64_t)q->dim[r - 2]);
	d->n_dims = 2;
	cx__dk_specialise(
		b, d, 4, (double)n * (double)keys * (double)q->dim[r - 2] * (double)q->dim[r - 1]);
	return d;
}

void cx__dk_plan_attention(cx_dk_builder *b, const cx_step *s)
{
	const cx_attr_attention *at = s->attr;
	cx_dk_draft *d = plan_heads(b, s, at->scale);
	d->p.i[0] = s->in[0].desc.rank == 4 ? 0 : 1;
	d->p.i[1] = at->causal;
	d->p.i[2] = (cx_i32)at->window;
	for (uint32_t j = 3; j < 7; j++)
		cx__dk_tensor(b, d, (int)j + 1, (int)j + 1, cx__dk_has(s, j) ? &s->in[j] : NULL);
	d->p.i[8] = cx__dk_has(s, 3) ? (cx_i32)s->in[3].desc.dim[0] - 1 : 1;
}

void cx__dk_plan_paged(cx_dk_builder *b, const cx_step *s)
{
	const cx_attr_paged *at = s->attr;
	cx_dk_draft *d = plan_heads(b, s, at->scale);
	d->p.i[0] = 2;
	d->p.i[1] = 1;
	d->p.i[2] = (cx_i32)at->window;
	d->p.i[3] = (cx_i32)at->page;
	cx__dk_tensor(b, d, 4, 4, &s->in[4]);
	cx__dk_tensor(b, d, 5, 5, &s->in[5]);
	cx__dk_tensor(b, d, 6, 6, &s->in[3]);
	d->p.i[8] = (cx_i32)s->in[5].desc.dim[0];
	d->p.i[11] = (cx_i32)s->in[3].desc.dim[1];
}
