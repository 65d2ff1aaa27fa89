/* kernels.c - find(): which kernel runs a key, from the rows of kernels.def. */
#include "backends/dialect/launch.h"

#include <string.h>

enum { HEAD_WIDTH = 1024 /* CX_ATTN_WIDTH of kernels/attn.cl.h */ };

/* ---- what kernels take ---- */

/* Offsets are 32 bits of elements, counts 31. */
static bool fits(const cx_desc *d)
{
	uint64_t last = 0;
	if (d->dtype == CX_DTYPE_COUNT) return true;
	for (int32_t i = 0; i < d->rank; i++) {
		if (d->dim[i] == 0) return true;
		last += (uint64_t)(d->dim[i] - 1) * (uint64_t)d->stride[i];
	}
	return last < UINT32_MAX && cx__desc_elems(d) <= INT32_MAX;
}

static bool is_plain(const cx_desc *d)
{
	return d->dtype == CX_DTYPE_COUNT || cx_dtype_get(d->dtype)->cls != CX_CLASS_BLOCK;
}

static bool accept_plain(const cx_dk_device *dev, const cx_kernel_key *key)
{
	(void)dev;
	for (uint32_t j = 0; j < key->n_in; j++)
		if (!is_plain(&key->in[j])) return false;
	return true;
}

static bool accept_map(const cx_dk_device *dev, const cx_kernel_key *key)
{
	if (key->n_in > CX_PROG_MAX_IN || !accept_plain(dev, key)) return false;
	return key->op != CX_OP_map || ((const cx_attr_map *)key->attr)->reduce == 0;
}

static bool accept_map_row(const cx_dk_device *dev, const cx_kernel_key *key)
{
	return key->n_in <= CX_PROG_MAX_IN && accept_plain(dev, key);
}

static bool accept_f64(const cx_dk_device *dev, const cx_kernel_key *key)
{
	return dev->has_f64 && accept_plain(dev, key);
}

/* Bytes as they are, or any plain layout. */
static bool accept_copy(const cx_dk_device *dev, const cx_kernel_key *key)
{
	(void)dev;
	return is_plain(&key->in[0]) ||
		   (cx__desc_is_dense(&key->in[0]) && cx__desc_is_dense(&key->out[0]));
}

static bool accept_cast_block(const cx_dk_device *dev, const cx_kernel_key *key)
{
	(void)dev;
	return !is_plain(&key->in[0]) && key->in[0].rank >= 1 && cx__desc_is_dense(&key->in[0]) &&
		   cx__desc_is_dense(&key->out[0]);
}

static bool accept_gather_block(const cx_dk_device *dev, const cx_kernel_key *key)
{
	const cx_attr_axis *at = key->attr;
	return accept_cast_block(dev, key) && (at->axis == 0 || at->axis == -key->in[0].rank);
}

/* A weight that is read along k: whole rows of blocks, or stride 1. */
static bool is_weight(const cx_desc *w)
{
	if (w->dtype == CX_I8C) return cx__desc_is_dense(w);
	return w->stride[w->rank - 1] == 1 || w->dim[w->rank - 1] <= 1;
}

static bool accept_matmul(const cx_dk_device *dev, const cx_kernel_key *key)
{
	const cx_attr_matmul *at = key->attr;
	cx_desc b;
	bool nt;
	(void)dev;
	if (!is_plain(&key->in[1])) return at->trans_b && is_weight(&key->in[1]);
	return cx__dk_product_layout(&key->in[1], at->trans_b, &b, &nt) &&
		   cx__desc_is_dense(&key->out[0]);
}

static bool accept_linear(const cx_dk_device *dev, const cx_kernel_key *key)
{
	const cx_attr_linear *at = key->attr;
	const cx_desc *w = key->in + 1 + at->norm_in;
	(void)dev;
	for (int64_t i = 0; i < at->n_w; i++)
		if (!is_weight(&w[i])) return false;
	if (at->residual && !cx__dk_is_rows(&key->in[key->n_in - 1])) return false;
	for (uint32_t o = 0; o < key->n_out; o++)
		if (!cx__desc_is_dense(&key->out[o])) return false;
	return at->norm != 0 || cx__dk_is_rows(&key->in[0]);
}

static bool accept_attention(const cx_dk_device *dev, const cx_kernel_key *key)
{
	const cx_desc *q = &key->in[0], *v = &key->in[2];
	(void)dev;
	return q->dim[q->rank - 1] <= HEAD_WIDTH && v->dim[v->rank - 1] <= HEAD_WIDTH;
}

static bool accept_delta(const cx_dk_device *dev, const cx_kernel_key *key)
{
	const cx_desc *y = &key->out[0];
	(void)dev;
	return cx__desc_is_dense(&key->out[1]) && cx__desc_is_dense(y);
}

/* ---- scratch ---- */

static uint64_t padded(uint64_t n)
{
	return (n + 63) & ~(uint64_t)63;
}

static uint64_t bytes_of(const cx_desc *d)
{
	uint64_t n = 0;
	cx_dtype_bytes(d->dtype, d->rank, d->dim, &n);
	return padded(n);
}

static uint64_t scratch_linear(const cx_device *dev, const cx_kernel_key *key)
{
	const cx_attr_linear *at = key->attr;
	(void)dev;
	return (at->norm ? bytes_of(&key->in[0]) : 0) + (at->glu ? bytes_of(&key->out[0]) : 0);
}

/* States of sequences that keep none; with chunks also the sums and corrections of all rows. */
static uint64_t scratch_delta(const cx_device *dev, const cx_kernel_key *key)
{
	const cx_attr_delta *at = key->attr;
	const cx_desc *v = &key->in[2], *state = &key->in[5];
	int64_t n = 1, rows = v->dim[0] * v->dim[1];
	uint64_t bytes;
	(void)dev;
	if (key->n_in > 6 && key->in[6].dtype != CX_DTYPE_COUNT) n = key->in[6].dim[0] - 1;
	else if (key->n_in > 7 && key->in[7].dtype != CX_DTYPE_COUNT) n = key->in[7].dim[0];
	bytes = padded((uint64_t)(n * state->dim[1] * state->dim[2] * state->dim[3]) * 4);
	if (at->chunk) bytes += padded((uint64_t)rows * 4) + padded((uint64_t)(rows * v->dim[2]) * 4);
	return bytes;
}

/* A partial sum of eight bytes per row. */
static uint64_t scratch_xent(const cx_device *dev, const cx_kernel_key *key)
{
	(void)dev;
	return ((const cx_attr_loss *)key->attr)->reduction ? padded((uint64_t)key->in[0].dim[0] * 8)
														: 0;
}

static uint64_t scratch_pair(const cx_device *dev, const cx_kernel_key *key)
{
	uint32_t n = cx__dk_elems(&key->in[0]), per = cx__dk_pair_part(n);
	(void)dev;
	return padded((uint64_t)((n + per - 1) / per) * 8);
}

static uint64_t scratch_norm_grad(const cx_device *dev, const cx_kernel_key *key)
{
	const cx_desc *x = &key->in[0];
	int64_t cols = x->dim[x->rank - 1];
	(void)dev;
	return cols ? padded((uint64_t)(cx__desc_elems(x) / cols) * 12) : 0;
}

static uint64_t scratch_attention_grad(const cx_device *dev, const cx_kernel_key *key)
{
	const cx_desc *q = &key->in[0];
	uint64_t n = 12;
	(void)dev;
	for (int32_t i = 0; i < q->rank - 1; i++) n *= (uint64_t)q->dim[i];
	return padded(n);
}

static uint64_t scratch_conv1d_grad(const cx_device *dev, const cx_kernel_key *key)
{
	(void)dev;
	return padded((uint64_t)cx__desc_elems(&key->in[0]) * 4);
}

/* dq and dk in f32, and the states that kernels/grad.cl.h says. */
static uint64_t scratch_delta_grad(const cx_device *dev, const cx_kernel_key *key)
{
	const cx_desc *q = &key->in[0], *v = &key->in[2];
	uint64_t n_seq = 1, rows = (uint64_t)q->dim[0],
			 state = (uint64_t)(q->dim[1] * q->dim[2] * v->dim[2]);
	(void)dev;
	if (key->n_in > 8 && key->in[8].dtype != CX_DTYPE_COUNT)
		n_seq = (uint64_t)key->in[8].dim[0] - 1;
	else if (key->n_in > 9 && key->in[9].dtype != CX_DTYPE_COUNT)
		n_seq = (uint64_t)key->in[9].dim[0];
	return padded(2 * (uint64_t)cx__desc_elems(q) * 4 +
				  (rows / CX_DK_DELTA_EVERY + n_seq * (CX_DK_DELTA_EVERY + 2)) * state * 4);
}

static bool accept_delta_grad(const cx_dk_device *dev, const cx_kernel_key *key)
{
	bool dense =
		key->n_in < 8 || key->in[7].dtype == CX_DTYPE_COUNT || cx__desc_is_dense(&key->in[7]);
	return dense && key->in[2].dim[2] <= HEAD_WIDTH &&
		   scratch_delta_grad(&dev->base, key) / 4 < INT32_MAX;
}

/* ---- rows ---- */

#define scratch_none NULL
static const cx_dk_kernel kernels[] = {
#define CX_DK_KERNEL(op, name, accept, plan, scratch, inplace)                                     \
	{{#name, inplace, scratch_##scratch}, CX_OP_##op, accept_##accept, cx__dk_plan_##plan},
#include "backends/dialect/kernels.def"
#undef CX_DK_KERNEL
};
enum { N_KERNELS = sizeof kernels / sizeof kernels[0] };

const cx_kernel *cx__dk_find(const cx_dk_device *dev, const cx_kernel_key *key)
{
	for (uint32_t j = 0; j < key->n_in; j++)
		if (!fits(&key->in[j])) return NULL;
	for (uint32_t o = 0; o < key->n_out; o++)
		if (!fits(&key->out[o])) return NULL;
	for (int i = 0; i < N_KERNELS; i++)
		if (kernels[i].op == key->op && kernels[i].accept(dev, key)) return &kernels[i].base;
	return NULL;
}
