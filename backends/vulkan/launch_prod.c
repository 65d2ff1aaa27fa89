/* launch_prod.c - matmul and linear. */
#include "backends/vulkan/emit.h"

#include <string.h>

enum { LOCAL = 64, ABSENT = 99, FEW_ROWS = 8 };

/* One product: y [.., m, n] = x [.., m, k] w [.., n, k]', all of rank 2 or of one common rank
 * with the batch in front. */
typedef struct product {
	cx_operand y, x, w;
	cx_operand bias, residual, factor, digits; /* dtype CX_DTYPE_COUNT: absent */
	float act_scale;                           /* > 0: digits are x as words of int8 */
	cx_op act;
	bool after;
} product;

static bool there(const cx_operand *o)
{
	return o->desc.dtype != CX_DTYPE_COUNT;
}
static uint32_t dtype_or_absent(const cx_operand *o)
{
	return there(o) ? (uint32_t)o->desc.dtype : ABSENT;
}

/* How one piece is done: which shader, the tile of an invocation, lanes. */
typedef struct shape_of_work {
	uint32_t shader;
	bool texels, nn;
	uint32_t rows, cols, lanes;
} shape_of_work;

static uint64_t padded(uint64_t n)
{
	return (n + 255) & ~(uint64_t)255;
}

/* The digits of x [rows, k], shaders/digits.comp: 25 words per block of 32. */
static uint64_t digit_bytes(int64_t rows, int64_t k)
{
	return padded((uint64_t)(rows * (k / 32)) * 100);
}

/* Q8_0 and I8C weights by integer dot products: K in whole blocks, the digits in one descriptor. */
bool cx__vk_idot_ok(const cx_vk_device *d, const cx_desc *x, const cx_desc *w)
{
	int64_t k = w->rank == 2 ? w->dim[1] : 0;
	return d->use_idot && (w->dtype == CX_Q8_0 || w->dtype == CX_I8C) && k > 0 && k % 32 == 0 &&
		   cx__vk_float(x->dtype) && cx__vk_fits(d, x) &&
		   digit_bytes(cx__desc_elems(x) / k, k) <= cx__vk_room(d);
}

/* f16 by f16 on cooperative matrices: always where the device has them, so that a row does not
 * depend on how many there are. */
bool cx__vk_coop_ok(const cx_vk_device *d, const cx_desc *x, const cx_desc *w)
{
	return d->has_coopmat && x->dtype == CX_F16 && w->dtype == CX_F16;
}

/* x [rows, k] as int8, shaders/quant8.comp: four to a word. */
static uint64_t int8_bytes(int64_t rows, int64_t k)
{
	return padded((uint64_t)(rows * ((k + 3) / 4)) * 4);
}

bool cx__vk_int8_ok(const cx_vk_device *d, const cx_desc *x)
{
	int64_t rows = cx__desc_elems(x) ? cx__desc_elems(x) / x->dim[x->rank - 1] : 0, most = rows;
	for (int32_t i = 0; i < x->rank; i++) /* rows may be k, of a transposed x */
		if (x->dim[i] > most) most = x->dim[i];
	return cx__vk_fits(d, x) &&
		   (rows == 0 || (uint64_t)cx__desc_elems(x) + 4 * (uint64_t)most + 256 <= cx__vk_room(d));
}

/* Nothing to do where k is 0: the sums are. */
static cx_operand emit_int8(
	cx_vk_emit *e, const cx_operand *x, uint64_t at, float act_scale, bool after)
{
	int64_t rows = x->desc.dim[0], words = (x->desc.dim[1] + 3) / 4;
	cx_operand q = cx__vk_scratch(e->step, at, CX_I32, rows, words);
	cx_vk_dispatch *d = cx__vk_begin(e, CX_SHADER_quant8, LOCAL);
	d->after = after;
	cx__vk_spec(d, (uint32_t)x->desc.dtype);
	cx__vk_bind(e, d, 0, &q, CX_VK_WRITE, 0);
	cx__vk_bind(e, d, 1, x, CX_VK_READ, 0);
	d->p.i[0] = (cx_i32)words;
	d->p.i[1] = (cx_i32)x->desc.dim[1];
	d->p.f[0] = 1.0f / act_scale;
	cx__vk_items(d, (uint64_t)(rows * words));
	return q;
}

static cx_operand emit_digits(cx_vk_emit *e, const cx_operand *x, uint64_t at, bool after)
{
	int64_t rows = x->desc.dim[0], blocks = x->desc.dim[1] / 32;
	cx_operand digits = cx__vk_scratch(e->step, at, CX_I32, rows, blocks * 25);
	cx_vk_dispatch *d = cx__vk_begin(e, CX_SHADER_digits, LOCAL);
	d->after = after;
	cx__vk_spec(d, (uint32_t)x->desc.dtype);
	cx__vk_bind(e, d, 0, &digits, CX_VK_WRITE, 0);
	cx__vk_bind(e, d, 1, x, CX_VK_READ, 0);
	d->p.i[0] = (cx_i32)blocks;
	cx__vk_items(d, (uint64_t)(rows * blocks));
	return digits;
}

static shape_of_work choose(const cx_vk_device *d, const product *p)
{
	int32_t r = p->y.desc.rank;
	int64_t m = p->y.desc.dim[r - 2], k = p->x.desc.dim[r - 1], n = p->y.desc.dim[r - 1];
	shape_of_work s = {.nn = p->w.desc.stride[r - 1] != 1};
	s.texels = k > 0 && k % 4 == 0 && p->x.desc.stride[r - 1] == 1 && cx__vk_texel_ok(d, &p->x) &&
			   cx__vk_texel_ok(d, &p->w);
	if (s.nn && (n % 4 || p->w.desc.stride[r - 2] != 1)) s.texels = false;
	s.lanes = m <= FEW_ROWS && !(s.texels && s.nn) ? 8 : 1;
	s.rows = m > 4 ? 8 : m > 2 ? 4 : m > 1 ? 2 : 1;
	s.cols = s.lanes == 8 ? 1 : s.texels ? 8 : 4;
	if (s.lanes == 1 && !s.texels) s.rows = 4;
	if (p->act_scale > 0.0f && there(&p->digits)) {
		s.shader = d->use_idot ? CX_SHADER_prod8i : CX_SHADER_prod8;
		s.texels = s.nn = false;
		s.lanes = m <= FEW_ROWS ? 8 : 1;
		s.rows = s.rows > 4 && s.lanes == 1 ? 4 : s.rows;
		s.cols = s.lanes == 8 ? 1 : 4;
		return s;
	}
	if (there(&p->digits)) { /* three sums for each */
		s.rows = s.rows > 4 ? 4 : s.rows;
		s.cols = s.lanes == 8 ? 1 : 2;
	}
	s.shader = s.texels ? CX_SHADER_prodt : there(&p->digits) ? CX_SHADER_prodi : CX_SHADER_prod;
	if (cx__vk_coop_ok(d, &p->x.desc, &p->w.desc)) {
		s.shader = CX_SHADER_prodc;
		s.texels = false;
	}
	return s;
}

static bool is_int8(const shape_of_work *w)
{
	return w->shader == CX_SHADER_prod8 || w->shader == CX_SHADER_prod8i;
}

static void spec_piece(
	cx_vk_dispatch *d, const product *p, const shape_of_work *w, bool batch, bool tail)
{
	cx__vk_spec(d, (uint32_t)p->y.desc.dtype);
	cx__vk_spec(d, (uint32_t)p->x.desc.dtype);
	cx__vk_spec(d, is_int8(w) ? CX_I8 : (uint32_t)p->w.desc.dtype);
	cx__vk_spec(d, dtype_or_absent(&p->bias));
	cx__vk_spec(d, dtype_or_absent(&p->residual));
	cx__vk_spec(d, dtype_or_absent(&p->factor));
	cx__vk_spec(d, (uint32_t)p->act);
	cx__vk_spec(d, w->rows);
	cx__vk_spec(d, w->cols);
	cx__vk_spec(d, w->lanes);
	cx__vk_spec(d, batch);
	cx__vk_spec(d, tail);
	cx__vk_spec(d, w->nn);
}

static void emit_piece(cx_vk_emit *e, const product *p)
{
	int32_t r = p->y.desc.rank;
	int64_t m = p->y.desc.dim[r - 2], n = p->y.desc.dim[r - 1], k = p->x.desc.dim[r - 1], batch = 1;
	shape_of_work w = choose(e->dev, p);
	int64_t per_n = w.lanes == 8 ? 8 : 8 * w.cols, per_m = w.lanes == 8 ? w.rows : 8 * w.rows;
	cx_vk_dispatch *d = cx__vk_begin(e, w.shader, w.shader == CX_SHADER_prodc ? 32 : LOCAL);
	if (w.shader == CX_SHADER_prodc) per_n = per_m = 32;
	for (int32_t i = 0; i + 2 < r; i++) batch *= p->y.desc.dim[i];
	d->after = p->after;
	spec_piece(d, p, &w, batch != 1, k % 8 != 0);
	cx__vk_bind(e, d, 0, &p->y, CX_VK_WRITE, 0);
	cx__vk_bind(e, d, 1, &p->x, CX_VK_READ, 0);
	cx__vk_bind(e, d, 2, &p->w, CX_VK_READ, 0);
	if (there(&p->bias)) cx__vk_bind(e, d, 4, &p->bias, CX_VK_READ, 0);
	if (there(&p->residual)) cx__vk_bind(e, d, 5, &p->residual, CX_VK_READ, 0);
	if (there(&p->factor)) cx__vk_bind(e, d, 6, &p->factor, CX_VK_READ, 0);
	if (w.shader == CX_SHADER_prodi || is_int8(&w)) cx__vk_bind(e, d, 7, &p->digits, CX_VK_READ, 0);
	if (w.texels) {
		cx__vk_texel(e, d, 0, 1);
		cx__vk_texel(e, d, 1, 2);
	}
	d->p.i[0] = (cx_i32)m;
	d->p.i[1] = (cx_i32)n;
	d->p.i[2] = (cx_i32)k;
	d->p.i[3] = (cx_i32)((n + per_n - 1) / per_n);
	d->p.i[4] = (cx_i32)((m + per_m - 1) / per_m);
	d->p.f[0] = p->act_scale;
	cx__vk_groups(d, (uint64_t)(batch * d->p.i[3] * d->p.i[4]));
}

static cx_operand rows_if(const cx_operand *o, int32_t axis, int64_t first, int64_t n)
{
	return there(o) ? cx__vk_rows(o, axis, first, n) : *o;
}

/* In pieces: rows of w (columns of y) and rows of x, where a tensor is larger than a descriptor. */
static void emit_product(cx_vk_emit *e, const product *p)
{
	int32_t r = p->y.desc.rank;
	const cx_desc *w = &p->w.desc, *y = &p->y.desc, *x = &p->x.desc;
	int64_t m = y->dim[r - 2], n = y->dim[r - 1], pm, pn, t;
	if (cx__desc_elems(y) == 0) return;
	pn = cx__vk_piece(e->dev, &w, 1, r - 2);
	pm = cx__vk_piece(e->dev, &y, 1, r - 2);
	t = cx__vk_piece(e->dev, &x, 1, r - 2);
	if (t < pm) pm = t;
	CX_ASSERT(pm > 0 && pn > 0);
	for (int64_t m0 = 0; m0 < m; m0 += pm)
		for (int64_t n0 = 0; n0 < n; n0 += pn) {
			product part = *p;
			int64_t mm = m - m0 < pm ? m - m0 : pm, nn = n - n0 < pn ? n - n0 : pn;
			part.y = cx__vk_rows(&p->y, r - 2, m0, mm);
			part.y = cx__vk_rows(&part.y, r - 1, n0, nn);
			part.x = cx__vk_rows(&p->x, r - 2, m0, mm);
			part.w = cx__vk_rows(&p->w, r - 2, n0, nn);
			if (there(&p->bias)) part.bias = cx__vk_rows(&p->bias, 0, n0, nn);
			part.residual = rows_if(&p->residual, r - 2, m0, mm);
			part.residual = rows_if(&part.residual, r - 1, n0, nn);
			part.factor = rows_if(&p->factor, r - 2, m0, mm);
			part.factor = rows_if(&part.factor, r - 1, n0, nn);
			part.digits = rows_if(&p->digits, 0, m0, mm);
			emit_piece(e, &part);
			if (p->w.desc.dtype == CX_I8C) {
				cx_operand scales = cx__vk_i8c_scales(&p->w, n0);
				cx__vk_bind(e, &e->d[e->n ? e->n - 1 : 0], 3, &scales, CX_VK_READ, 0);
			}
		}
}

/* ---- matmul ---- */

static void swap_last(cx_desc *d)
{
	int64_t dim = d->dim[d->rank - 1], stride = d->stride[d->rank - 1];
	d->dim[d->rank - 1] = d->dim[d->rank - 2];
	d->stride[d->rank - 1] = d->stride[d->rank - 2];
	d->dim[d->rank - 2] = dim;
	d->stride[d->rank - 2] = stride;
}

/* Puts the leading axes of d under those of y, 0 strides where it is broadcast; the last two
 * stay. */
static void lead_like(cx_desc *d, const cx_desc *y)
{
	int64_t dim[CX_MAX_RANK];
	memcpy(dim, y->dim, sizeof dim);
	dim[y->rank - 2] = d->dim[d->rank - 2];
	dim[y->rank - 1] = d->dim[d->rank - 1];
	cx_desc was = *d;
	cx__vk_in_space(d, y->rank, dim);
	for (int32_t i = 1; i <= 2; i++) d->stride[y->rank - i] = was.stride[was.rank - i];
}

static product product_of_matmul(
	const cx_attr_matmul *at, const cx_operand *in, const cx_operand *out)
{
	product p = {.y = out[0], .x = in[0], .w = in[1]};
	p.bias.desc.dtype = p.residual.desc.dtype = p.factor.desc.dtype = CX_DTYPE_COUNT;
	p.digits.desc.dtype = CX_DTYPE_COUNT;
	if (at->trans_a) swap_last(&p.x.desc);
	if (!at->trans_b) swap_last(&p.w.desc);
	lead_like(&p.x.desc, &p.y.desc);
	lead_like(&p.w.desc, &p.y.desc);
	return p;
}

void cx__vk_launch_matmul(cx_vk_emit *e)
{
	product p = product_of_matmul(e->step->attr, e->step->in, e->step->out);
	emit_product(e, &p);
}

/* Scratch: the digits of x, as [rows, k]. */
uint64_t cx__vk_matmul_scratch(const cx_device *dev, const cx_kernel_key *key)
{
	(void)dev;
	return digit_bytes(key->in[0].dim[0], key->in[0].dim[1]);
}

void cx__vk_launch_matmul_idot(cx_vk_emit *e)
{
	product p = product_of_matmul(e->step->attr, e->step->in, e->step->out);
	if (cx__desc_elems(&p.y.desc) == 0) return;
	p.digits = emit_digits(e, &p.x, 0, false);
	p.after = true;
	emit_product(e, &p);
}

/* [.., cols] as [rows, cols]; the operand is dense. */
static cx_operand as_rows(const cx_operand *o)
{
	cx_operand m = *o;
	int64_t cols = o->desc.dim[o->desc.rank - 1], rows = 1;
	for (int32_t i = 0; i + 1 < o->desc.rank; i++) rows *= o->desc.dim[i];
	m.desc = (cx_desc){o->desc.dtype, 2, {rows, cols}, {cols, 1}};
	return m;
}

/* Scratch: x as int8. */
uint64_t cx__vk_matmul_int8_scratch(const cx_device *dev, const cx_kernel_key *key)
{
	const cx_desc *x = &key->in[0];
	const bool across = ((const cx_attr_matmul *)key->attr)->trans_a;
	int64_t k = x->dim[x->rank - (across ? 2 : 1)];
	(void)dev;
	return int8_bytes(k ? cx__desc_elems(x) / k : 0, k);
}

void cx__vk_launch_matmul_int8(cx_vk_emit *e)
{
	const cx_attr_matmul *at = e->step->attr;
	cx_operand in[2] = {e->step->in[0], e->step->in[1]}, out = as_rows(&e->step->out[0]);
	product p;
	if (cx__desc_elems(&out.desc) == 0) return;
	if (in[0].desc.rank > 2) in[0] = as_rows(&in[0]);
	p = product_of_matmul(at, in, &out);
	p.act_scale = at->act_scale;
	if (p.x.desc.dim[1] > 0) p.digits = emit_int8(e, &p.x, 0, at->act_scale, false);
	p.after = there(&p.digits);
	emit_product(e, &p);
}

/* ---- linear ---- */

/* Does any of the weights want x in digits? */
static bool uses_digits(const cx_vk_device *d, const cx_attr_linear *at, const cx_desc *in)
{
	for (int64_t i = 0; i < at->n_w; i++)
		if (cx__vk_idot_ok(d, &in[0], &in[1 + at->norm_in + i])) return true;
	return false;
}

/* Scratch: the normed x, the factor of a gated product, both in x's dtype, the digits of the
 * normed x. */
uint64_t cx__vk_linear_scratch(const cx_device *dev, const cx_kernel_key *key)
{
	const cx_attr_linear *at = key->attr;
	const cx_desc *x = &key->in[0];
	int64_t k = x->dim[x->rank - 1];
	uint64_t n = 0;
	if (at->act_scale > 0.0f) n += int8_bytes(k ? cx__desc_elems(x) / k : 0, k);
	else if (uses_digits((const cx_vk_device *)dev, at, key->in))
		n += digit_bytes(k ? cx__desc_elems(x) / k : 0, k);
	if (at->norm)
		n += padded((uint64_t)cx__desc_elems(&key->in[0]) * cx__vk_size(key->in[0].dtype));
	if (at->glu)
		n += padded((uint64_t)cx__desc_elems(&key->out[0]) * cx__vk_size(key->out[0].dtype));
	return n;
}

void cx__vk_launch_linear(cx_vk_emit *e)
{
	const cx_step *s = e->step;
	const cx_attr_linear *at = s->attr;
	const cx_operand *w = s->in + 1 + at->norm_in, *bias = w + at->n_w;
	cx_operand x = as_rows(&s->in[0]), h = x, factor, digits = {.desc.dtype = CX_DTYPE_COUNT};
	uint64_t used = 0, behind;
	if (at->norm) {
		h = cx__vk_scratch(s, 0, x.desc.dtype, x.desc.dim[0], x.desc.dim[1]);
		used = padded((uint64_t)cx__desc_elems(&x.desc) * cx__vk_size(x.desc.dtype));
		cx__vk_norm(e, at->norm == 1 ? 1 : 0, &h, NULL, &x, NULL,
			at->norm_in > 0 ? &s->in[1] : NULL, at->norm_in > 1 ? &s->in[2] : NULL, at->plus_one,
			at->eps);
	}
	behind = used;
	if (at->glu)
		behind += padded((uint64_t)cx__desc_elems(&s->out[0].desc) * cx__vk_size(x.desc.dtype));
	if (at->act_scale > 0.0f && cx__desc_elems(&x.desc))
		digits = emit_int8(e, &h, behind, at->act_scale, at->norm != 0);
	for (int64_t i = 0; i < at->n_w && cx__desc_elems(&x.desc); i++)
		if (!there(&digits) && cx__vk_idot_ok(e->dev, &x.desc, &w[i].desc))
			digits = emit_digits(e, &h, behind, at->norm != 0);
	for (int64_t j = 0; j < at->n_w; j++) {
		int64_t i = at->glu ? 1 - j : j; /* the factor first */
		product p = {.x = h, .w = w[i], .act = at->glu && i == 1 ? CX_OP_input : (cx_op)at->act};
		p.bias.desc.dtype = p.residual.desc.dtype = p.factor.desc.dtype = CX_DTYPE_COUNT;
		p.digits.desc.dtype = CX_DTYPE_COUNT;
		p.act_scale = at->act_scale;
		if (at->act_scale > 0.0f || cx__vk_idot_ok(e->dev, &x.desc, &w[i].desc)) p.digits = digits;
		p.y = as_rows(&s->out[at->glu ? 0 : i]);
		if (at->bias) p.bias = bias[i];
		if (at->glu && i == 1) {
			factor = cx__vk_scratch(s, used, p.y.desc.dtype, p.y.desc.dim[0], p.y.desc.dim[1]);
			p.y = factor;
		}
		if (at->glu && i == 0) p.factor = factor;
		if (at->residual && i == 0) p.residual = as_rows(&s->in[s->n_in - 1]);
		p.after = ((at->norm || there(&digits)) && j == 0) || (at->glu && j == 1);
		emit_product(e, &p);
	}
}
