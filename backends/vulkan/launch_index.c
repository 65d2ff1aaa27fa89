/* launch_index.c - ops that go by an index: gather, scatter, sums of table rows; pad. */
#include "backends/vulkan/emit.h"

#include <string.h>

enum { LOCAL = 64 };

static int64_t product(const cx_desc *d, int32_t from, int32_t end)
{
	int64_t n = 1;
	for (int32_t k = from; k < end; k++) n *= d->dim[k];
	return n;
}

/* ---- gather ---- */

/* The scales of an I8C matrix, f32 from row `first` on. */
cx_operand cx__vk_i8c_scales(const cx_operand *w, int64_t first)
{
	const cx_desc *d = &w->desc;
	int64_t k = d->dim[d->rank - 1], rows = product(d, 0, d->rank - 1);
	uint64_t at = ((uint64_t)rows * (uint64_t)k + 3) & ~(uint64_t)3;
	return (cx_operand){.desc = {.dtype = CX_F32, .rank = 1, .dim = {rows - first}, .stride = {1}},
		.buf = w->buf,
		.off = w->off + at + 4 * (uint64_t)first};
}

/* Rows of a block format as floats: x cut where it is larger than a descriptor; idx NULL: all
 * rows. */
static void blocks(
	cx_vk_emit *e, const cx_operand *y, const cx_operand *x, const cx_operand *idx, int64_t n_idx)
{
	int64_t cols = x->desc.dim[x->desc.rank - 1], rows = x->desc.rank > 1 ? x->desc.dim[0] : 1,
			piece = rows;
	int64_t behind = x->desc.rank > 1 ? product(&x->desc, 1, x->desc.rank - 1) : 1;
	const cx_desc *xd = &x->desc;
	if (cx__desc_elems(&y->desc) == 0) return;
	if (x->desc.rank > 1 && rows) piece = cx__vk_piece(e->dev, &xd, 1, 0);
	for (int64_t lo = 0; lo < rows || lo == 0; lo += piece ? piece : 1) {
		int64_t hi = lo + piece < rows ? lo + piece : rows;
		cx_operand part = x->desc.rank > 1 && rows ? cx__vk_rows(x, 0, lo, hi - lo) : *x;
		cx_vk_dispatch *d = cx__vk_begin(e, CX_SHADER_gatherq, LOCAL);
		cx__vk_spec(d, (uint32_t)y->desc.dtype);
		cx__vk_spec(d, (uint32_t)x->desc.dtype);
		cx__vk_spec(d, idx != NULL);
		cx__vk_spec(d, (uint32_t)x->desc.rank);
		cx__vk_bind(e, d, 0, y, CX_VK_WRITE, 0);
		cx__vk_bind(e, d, 1, &part, CX_VK_READ, 0);
		if (idx) cx__vk_bind(e, d, 2, idx, CX_VK_READ, 0);
		if (x->desc.dtype == CX_I8C) {
			cx_operand scales = cx__vk_i8c_scales(x, lo * behind);
			cx__vk_bind(e, d, 3, &scales, CX_VK_READ, 0);
		}
		d->p.i[0] = (cx_i32)cols;
		d->p.i[1] = (cx_i32)behind;
		d->p.i[2] = (cx_i32)lo;
		d->p.i[3] = (cx_i32)hi;
		d->p.i[4] = (cx_i32)rows;
		cx__vk_items(d, (uint64_t)(n_idx * behind * ((cols + 7) / 8)));
		if (rows == 0) break;
	}
}

void cx__vk_launch_cast_block(cx_vk_emit *e)
{
	const cx_desc *x = &e->step->in[0].desc;
	blocks(e, &e->step->out[0], &e->step->in[0], NULL, x->rank > 1 ? x->dim[0] : 1);
}

void cx__vk_launch_gather_block(cx_vk_emit *e)
{
	blocks(e, &e->step->out[0], &e->step->in[0], &e->step->in[1],
		cx__desc_elems(&e->step->in[1].desc));
}

void cx__vk_launch_gather(cx_vk_emit *e)
{
	const cx_step *s = e->step;
	const cx_desc *x = &s->in[0].desc;
	int32_t axis = (int32_t)((const cx_attr_axis *)s->attr)->axis;
	int64_t rows = x->dim[axis], piece = rows ? cx__vk_piece(e->dev, &x, 1, axis) : 1;
	if (cx__desc_elems(&s->out[0].desc) == 0) return;
	for (int64_t lo = 0; lo < rows || lo == 0; lo += piece) {
		int64_t hi = lo + piece < rows ? lo + piece : rows;
		cx_operand part = cx__vk_rows(&s->in[0], axis, lo, hi - lo);
		cx_vk_dispatch *d = cx__vk_begin(e, CX_SHADER_gather, LOCAL);
		cx__vk_spec(d, cx__vk_size(x->dtype));
		cx__vk_spec(d, (uint32_t)(CX_K_RANK - x->rank + axis));
		cx__vk_spec(d, (uint32_t)x->rank);
		cx__vk_bind(e, d, 0, &s->out[0], CX_VK_WRITE, 0);
		cx__vk_bind(e, d, 1, &part, CX_VK_READ, 0);
		cx__vk_bind(e, d, 2, &s->in[1], CX_VK_READ, 0);
		d->p.i[0] = (cx_i32)product(x, axis + 1, x->rank);
		d->p.i[1] = (cx_i32)cx__desc_elems(&s->in[1].desc);
		d->p.i[2] = (cx_i32)lo;
		d->p.i[3] = (cx_i32)hi;
		d->p.i[4] = (cx_i32)rows;
		cx__vk_items(d, (uint64_t)cx__desc_elems(&s->out[0].desc));
	}
}

/* ---- scatter ---- */

void cx__vk_launch_scatter(cx_vk_emit *e)
{
	const cx_step *s = e->step;
	const cx_attr_scatter *at = s->attr;
	const cx_desc *y = &s->out[0].desc;
	int64_t cols = product(y, 1, y->rank), rows = y->dim[0],
			shares = cols > 0 && cols < 1024 ? 1024 / cols : 1, per;
	cx_vk_dispatch *d = cx__vk_begin(e, CX_SHADER_scatter, LOCAL);
	if (shares > rows) shares = rows ? rows : 1;
	per = (rows + shares - 1) / shares;
	cx__vk_spec(d, (uint32_t)y->dtype);
	cx__vk_spec(d, cx__vk_size(y->dtype));
	cx__vk_spec(d, at->add);
	cx__vk_spec(d, (uint32_t)y->rank);
	cx__vk_bind(e, d, 0, &s->out[0], CX_VK_READ | CX_VK_WRITE, 0);
	cx__vk_bind(e, d, 1, &s->in[1], CX_VK_READ, 0);
	cx__vk_bind(e, d, 2, &s->in[2], CX_VK_READ, 0);
	d->p.i[0] = (cx_i32)cols;
	d->p.i[1] = (cx_i32)s->in[1].desc.dim[0];
	d->p.i[2] = (cx_i32)rows;
	d->p.i[3] = (cx_i32)per;
	cx__vk_items(d, rows && s->in[1].desc.dim[0] ? (uint64_t)(cols * ((rows + per - 1) / per)) : 0);
}

/* ---- sums of table rows: one dispatch per table, each rounding as an addition of its own
 * would ---- */

void cx__vk_launch_embed(cx_vk_emit *e)
{
	const cx_step *s = e->step;
	const cx_desc *y = &s->out[0].desc;
	for (uint32_t i = 0; i + 1 < s->n_in; i += 2) {
		cx_vk_dispatch *d = cx__vk_begin(e, CX_SHADER_embed, LOCAL);
		d->after = i > 0;
		cx__vk_spec(d, (uint32_t)y->dtype);
		cx__vk_spec(d, i == 0);
		cx__vk_bind(e, d, 0, &s->out[0], CX_VK_READ | CX_VK_WRITE, 0);
		cx__vk_bind(e, d, 1, &s->in[i], CX_VK_READ, 0);
		cx__vk_bind(e, d, 2, &s->in[i + 1], CX_VK_READ, 0);
		d->p.i[0] = (cx_i32)y->dim[1];
		d->p.i[1] = (cx_i32)s->in[i].desc.dim[0];
		cx__vk_items(d, (uint64_t)cx__desc_elems(y));
	}
}

/* ---- pad ---- */

void cx__vk_launch_pad(cx_vk_emit *e)
{
	const cx_step *s = e->step;
	const cx_attr_pad *at = s->attr;
	const cx_desc *y = &s->out[0].desc;
	unsigned char value[8] = {0};
	cx_vk_dispatch *d = cx__vk_begin(e, CX_SHADER_pad, LOCAL);
	cx__vk_spec(d, cx__vk_size(y->dtype));
	cx__vk_bind(e, d, 0, &s->out[0], CX_VK_WRITE, 0);
	cx__vk_bind(e, d, 1, &s->in[0], CX_VK_READ, 0);
	for (int32_t k = 0; k < y->rank; k++) d->p.i[CX_K_RANK - y->rank + k] = (cx_i32)at->before.v[k];
	cx__vk_put(y->dtype, value, 0, at->value);
	memcpy(&d->p.i[6], value, sizeof value);
	cx__vk_items(d, (uint64_t)cx__desc_elems(y));
}
