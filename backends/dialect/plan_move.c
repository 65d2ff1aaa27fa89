/* plan_move.c - launches of what moves data, and of rotary embedding: kernels/move.cl.h. */
#include "backends/dialect/launch.h"

#include "graph/quant.h"

#include <math.h>
#include <string.h>

/* Indices up to which a scatter looks for later equal ones instead of going through them in order.
 */
enum { SCATTER_LOOK = 256 };

static cx_operand viewed(const cx_operand *o, const cx_desc *desc, int64_t off)
{
	const cx_dtype_info *info = cx_dtype_get(o->desc.dtype);
	cx_operand r = *o;
	r.desc = *desc;
	r.off += (uint64_t)(off / info->block_elems * info->block_bytes);
	return r;
}

/* to = from in row-major order, converted; the axes need not be the same. */
static void plan_move(cx_dk_builder *b, const cx_operand *to, const cx_operand *from)
{
	uint32_t n = cx__dk_elems(&to->desc);
	uint64_t bytes = 0;
	cx_desc y = to->desc, x = from->desc;
	cx_dk_draft *d;
	if (y.dtype == x.dtype && y.dtype != CX_BOOL && cx__desc_is_dense(&y) &&
		cx__desc_is_dense(&x)) {
		cx_dtype_bytes(y.dtype, y.rank, y.dim, &bytes);
		cx__dk_copy_bytes(b, to, from, bytes);
		return;
	}
	d = cx__dk_draft(b, "move", "cx_copy_item", 2);
	cx__dk_merge(&y, 1);
	cx__dk_merge(&x, 1);
	cx__dk_tensor(b, d, 0, 0, to);
	cx__dk_tensor(b, d, 1, 1, from);
	cx__dk_desc(&d->p.t[0], &y, d->p.t[0].off);
	cx__dk_desc(&d->p.t[1], &x, d->p.t[1].off);
	cx__dk_items(d, n);
	cx__dk_specialise(b, d, 2, n);
}

/* Views that had to become steps: the operand's axes rearranged. */
void cx__dk_plan_view(cx_dk_builder *b, const cx_step *s)
{
	cx_operand x = s->in[0];
	cx_desc d = x.desc;
	int64_t first = 0;
	if (s->op == CX_OP_permute) {
		const cx_attr_perm *at = s->attr;
		for (int32_t i = 0; i < d.rank; i++) {
			d.dim[i] = x.desc.dim[at->perm.v[i]];
			d.stride[i] = x.desc.stride[at->perm.v[i]];
		}
	} else if (s->op == CX_OP_slice) {
		const cx_attr_slice *at = s->attr;
		for (int32_t i = 0; i < d.rank; i++) {
			first += at->begin.v[i] * d.stride[i];
			d.dim[i] = at->size.v[i];
			if (at->step.n) d.stride[i] *= at->step.v[i];
		}
	} else if (s->op == CX_OP_broadcast) {
		d = cx__dk_broadcast(&x.desc, &s->out[0].desc);
	}
	x = viewed(&x, &d, first);
	plan_move(b, &s->out[0], &x);
}

void cx__dk_plan_copy(cx_dk_builder *b, const cx_step *s)
{
	plan_move(b, &s->out[0], &s->in[0]);
}

void cx__dk_plan_assign(cx_dk_builder *b, const cx_step *s)
{
	plan_move(b, &s->out[0], &s->in[1]);
}

void cx__dk_plan_concat(cx_dk_builder *b, const cx_step *s)
{
	const cx_attr_axis *at = s->attr;
	const cx_desc *y = &s->out[0].desc;
	int32_t axis = (int32_t)(at->axis < 0 ? at->axis + y->rank : at->axis);
	int64_t done = 0;
	for (uint32_t j = 0; j < s->n_in; j++) {
		cx_desc part = *y;
		cx_operand to;
		part.dim[axis] = s->in[j].desc.dim[axis];
		to = viewed(&s->out[0], &part, done * y->stride[axis]);
		plan_move(b, &to, &s->in[j]);
		done += part.dim[axis];
	}
}

void cx__dk_plan_pad(cx_dk_builder *b, const cx_step *s)
{
	const cx_attr_pad *at = s->attr;
	cx_dk_draft *d = cx__dk_draft(b, "move", "cx_pad_item", 2);
	int32_t rank = s->out[0].desc.rank;
	cx__dk_tensor(b, d, 0, 0, &s->out[0]);
	cx__dk_tensor(b, d, 1, 1, &s->in[0]);
	for (int32_t i = 0; i < rank; i++) d->p.i[CX_K_RANK - rank + i] = (cx_i32)at->before.v[i];
	d->p.f[0] = at->value;
	cx__dk_items(d, cx__dk_elems(&s->out[0].desc));
}

static void put_merged(cx_dk_builder *b, cx_dk_draft *d, int t, const cx_operand *o)
{
	cx_desc desc = o->desc;
	cx__dk_tensor(b, d, t, t, o);
	cx__dk_merge(&desc, 1);
	cx__dk_desc(&d->p.t[t], &desc, d->p.t[t].off);
}

void cx__dk_plan_gather(cx_dk_builder *b, const cx_step *s)
{
	const cx_attr_axis *at = s->attr;
	const cx_desc *x = &s->in[0].desc;
	int32_t axis = (int32_t)(at->axis < 0 ? at->axis + x->rank : at->axis);
	cx_dk_draft *d = cx__dk_draft(b, "move", "cx_gather_item", 3);
	int64_t inner = 1;
	for (int32_t k = axis + 1; k < x->rank; k++) inner *= x->dim[k];
	put_merged(b, d, 0, &s->out[0]);
	put_merged(b, d, 1, &s->in[0]);
	put_merged(b, d, 2, &s->in[1]);
	d->p.i[0] = (cx_i32)inner;
	d->p.i[1] = (cx_i32)cx__desc_elems(&s->in[1].desc);
	d->p.i[2] = (cx_i32)x->dim[axis];
	cx__dk_items(d, cx__dk_elems(&s->out[0].desc));
	cx__dk_specialise(b, d, 2, cx__dk_elems(&s->out[0].desc));
}

/* Rows of `inner` elements of a dense block-format x; idx NULL: all of them in order. */
static void plan_blocks(cx_dk_builder *b, const cx_step *s, const cx_operand *idx)
{
	const cx_desc *x = &s->in[0].desc;
	int64_t n = cx__desc_elems(x), rows = x->dim[0], inner = rows ? n / rows : 0,
			last = x->dim[x->rank - 1];
	int64_t out_rows = idx ? cx__desc_elems(&idx->desc) : rows;
	cx_operand y = s->out[0];
	cx_dk_draft *d = cx__dk_draft(b, "move", "cx_gather_block", 3);
	y.desc = (cx_desc){y.desc.dtype, 2, {out_rows, inner}, {inner, 1}};
	cx__dk_tensor(b, d, 0, 0, &y);
	cx__dk_tensor(b, d, 1, 1, &s->in[0]);
	if (idx) put_merged(b, d, 2, idx);
	d->p.i[0] = (cx_i32)inner;
	d->p.i[1] = (cx_i32)rows;
	d->p.i[2] = (cx_i32)cx_i8c_scale_off(last ? n / last : 0, last);
	d->p.i[3] = (cx_i32)(last ? last : 1);
	cx__dk_items(d, (uint64_t)(out_rows * ((inner + 15) / 16)));
	cx__dk_specialise(b, d, 2, (double)(out_rows * inner));
}

void cx__dk_plan_gather_block(cx_dk_builder *b, const cx_step *s)
{
	plan_blocks(b, s, &s->in[1]);
}

void cx__dk_plan_cast_block(cx_dk_builder *b, const cx_step *s)
{
	plan_blocks(b, s, NULL);
}

void cx__dk_plan_scatter(cx_dk_builder *b, const cx_step *s)
{
	const cx_attr_scatter *at = s->attr;
	const cx_desc *y = &s->out[0].desc;
	int64_t n = s->in[1].desc.dim[0], inner = 1;
	bool look = !at->add && n <= SCATTER_LOOK;
	cx_dk_draft *d = cx__dk_draft(b, "move", look ? "cx_scatter_item" : "cx_scatter_column", 3);
	for (int32_t k = 1; k < y->rank; k++) inner *= y->dim[k];
	put_merged(b, d, 0, &s->out[0]);
	cx__dk_tensor(b, d, 1, 1, &s->in[1]);
	put_merged(b, d, 2, &s->in[2]);
	d->p.i[0] = (cx_i32)n;
	d->p.i[1] = (cx_i32)inner;
	d->p.i[2] = (cx_i32)y->dim[0];
	d->p.i[3] = at->add;
	cx__dk_items(d, (uint64_t)(look ? n * inner : inner));
}

/* A launch per table: the sum is rounded after each addition anyway. */
void cx__dk_plan_embed(cx_dk_builder *b, const cx_step *s)
{
	for (uint32_t j = 0; j + 1 < s->n_in; j += 2) {
		cx_dk_draft *d = cx__dk_draft(b, "move", "cx_embed_item", 3);
		cx__dk_tensor(b, d, 0, 0, &s->out[0]);
		cx__dk_tensor(b, d, 1, 1, &s->in[j]);
		cx__dk_tensor(b, d, 2, 2, &s->in[j + 1]);
		d->p.i[0] = (cx_i32)s->out[0].desc.dim[1];
		d->p.i[1] = j == 0;
		d->p.i[2] = (cx_i32)s->in[j].desc.dim[0];
		cx__dk_items(d, cx__dk_elems(&s->out[0].desc));
		cx__dk_specialise(b, d, 2, cx__dk_elems(&s->out[0].desc));
	}
}

/* ---- rotary embedding ---- */

/* Frequencies as tensor 3: the operand, or made here, as f32 numbers that were computed in double.
 */
static void put_freqs(
	cx_dk_builder *b, cx_dk_draft *d, const cx_attr_rope *at, int64_t r, const cx_operand *o)
{
	cx_desc desc = {CX_F32, 1, {r / 2}, {1}};
	float *freq;
	if (o) {
		cx__dk_tensor(b, d, 3, 3, o);
		return;
	}
	freq = cx_arena_array(b->arena, (size_t)(r / 2) + 1, sizeof *freq);
	if (!freq) {
		b->st = CX_FAIL(b->err, CX_ERR_MEMORY, "%s: no memory for frequencies", b->dev->base.name);
		return;
	}
	for (int64_t j = 0; j < r / 2; j++)
		freq[j] = (float)pow(at->theta, -2.0 * (double)j / (double)r);
	cx__dk_desc(&d->p.t[3], &desc, cx__dk_const(b, d, 3, freq, (size_t)(r / 2) * sizeof *freq));
}

static void put_rope(cx_dk_draft *d, const cx_attr_rope *at, int64_t r, const cx_desc *x)
{
	d->p.i[0] = (cx_i32)r;
	d->p.i[1] = at->pairs;
	d->p.i[2] = (cx_i32)x->dim[x->rank - 2];
	d->p.i[3] = (cx_i32)x->dim[x->rank - 1];
	d->p.f[0] = at->amplitude;
}

void cx__dk_plan_rope(cx_dk_builder *b, const cx_step *s)
{
	const cx_attr_rope *at = s->attr;
	const cx_desc *x = &s->in[0].desc;
	int64_t hd = x->dim[x->rank - 1], r = at->n_rot ? at->n_rot : hd;
	uint32_t n = cx__dk_elems(x);
	cx_dk_draft *d = cx__dk_draft(b, "move", "cx_rope_item", 6);
	put_merged(b, d, 0, &s->out[0]);
	put_merged(b, d, 1, &s->in[0]);
	put_merged(b, d, 2, &s->in[1]);
	if (cx__dk_has(s, 3)) {
		cx__dk_tensor(b, d, 4, 4, &s->in[3]);
		cx__dk_tensor(b, d, 5, 5, &s->in[4]);
		d->p.i[4] = (cx_i32)s->in[3].desc.dim[0];
	} else {
		put_freqs(b, d, at, r, cx__dk_has(s, 2) ? &s->in[2] : NULL);
	}
	put_rope(d, at, r, x);
	cx__dk_items(d, hd ? n / (uint64_t)hd * (uint64_t)(hd - r / 2) : 0);
	cx__dk_specialise(b, d, 2, n);
}

void cx__dk_plan_rope_kv(cx_dk_builder *b, const cx_step *s)
{
	const cx_attr_rope *at = s->attr;
	const cx_desc *k = &s->in[0].desc;
	int64_t hd = k->dim[2], r = at->n_rot ? at->n_rot : hd;
	cx_dk_draft *d = cx__dk_draft(b, "move", "cx_rope_kv_item", 7);
	cx__dk_tensor(b, d, 0, 0, &s->out[0]);
	cx__dk_tensor(b, d, 1, 1, &s->out[1]);
	cx__dk_tensor(b, d, 2, 2, &s->in[0]);
	put_freqs(b, d, at, r, cx__dk_has(s, 6) ? &s->in[6] : NULL);
	cx__dk_tensor(b, d, 6, 4, &s->in[1]);
	cx__dk_tensor(b, d, 7, 5, &s->in[2]);
	cx__dk_tensor(b, d, 8, 6, &s->in[3]);
	put_rope(d, at, r, k);
	d->p.i[5] = (cx_i32)s->in[4].desc.dim[0];
	cx__dk_items(d, hd ? cx__dk_elems(k) / (uint64_t)hd * (uint64_t)(hd - r / 2) : 0);
}
