/* kernels.c - the rows of kernels.def: what each kernel takes; find().
 *
 * Every kernel reads operands of any strides and writes dense results. What is refused:
 * dtypes, and sizes that neither
 * one descriptor nor pieces of it can reach. Shapes were checked by the shape rules. */
#include "backends/vulkan/emit.h"

#include <string.h>

static bool present(const cx_kernel_key *k, uint32_t i)
{
	return i < k->n_in && k->in[i].dtype != CX_DTYPE_COUNT;
}
static bool plain(cx_dtype t)
{
	return t < CX_DTYPE_COUNT && !cx__vk_block(t);
}
static bool is_register(cx_dtype t)
{
	return t <= CX_BF16 || t == CX_BOOL;
}

/* Plain dtypes, dense results, everything within one descriptor. */
static bool accept_plain(const cx_vk_device *d, const cx_kernel_key *k)
{
	for (uint32_t i = 0; i < k->n_in; i++)
		if (present(k, i) && (!plain(k->in[i].dtype) || !cx__vk_fits(d, &k->in[i]))) return false;
	for (uint32_t i = 0; i < k->n_out; i++)
		if (!plain(k->out[i].dtype) || !cx__desc_is_dense(&k->out[i]) ||
			!cx__vk_fits(d, &k->out[i]))
			return false;
	return true;
}
static bool accept_float(const cx_vk_device *d, const cx_kernel_key *k)
{
	return cx__vk_float(k->in[0].dtype) && accept_plain(d, k);
}
static bool accept_int(const cx_vk_device *d, const cx_kernel_key *k)
{
	return d->has_int64 && cx__vk_int(k->in[0].dtype) && accept_plain(d, k);
}

/* ---- what can be cut along the first axis of its index space ---- */

static bool in_pieces(
	const cx_vk_device *d, const cx_kernel_key *k, int32_t rank, const int64_t *dim)
{
	cx_desc s[CX_PROG_MAX_IN + CX_MAX_OUT];
	const cx_desc *p[CX_PROG_MAX_IN + CX_MAX_OUT];
	uint32_t n = 0;
	int32_t axis = 0;
	for (uint32_t i = 0; i < k->n_out + k->n_in; i++) {
		const cx_desc *x = i < k->n_out ? &k->out[i] : &k->in[i - k->n_out];
		if (!plain(x->dtype) || (i < k->n_out && !cx__desc_is_dense(x))) return false;
		s[n] = *x;
		cx__vk_in_space(&s[n], rank, dim);
		p[n] = &s[n];
		n++;
	}
	if (rank == 0) return true;
	while (axis + 1 < rank && dim[axis] == 1) axis++;
	return dim[axis] == 0 || cx__vk_piece(d, p, n, axis) > 0;
}

static bool accept_space(const cx_vk_device *d, const cx_kernel_key *k)
{
	return in_pieces(d, k, k->out[0].rank, k->out[0].dim);
}

static bool accept_mapf(const cx_vk_device *d, const cx_kernel_key *k)
{
	for (uint32_t i = 0; i < k->n_in; i++)
		if (!is_register(k->in[i].dtype)) return false;
	return accept_space(d, k);
}
static bool accept_mapi(const cx_vk_device *d, const cx_kernel_key *k)
{
	for (uint32_t i = 0; i < k->n_in; i++)
		if (!cx__vk_int(k->in[i].dtype)) return false;
	return d->has_int64 && accept_space(d, k);
}
static bool accept_prog(const cx_vk_device *d, const cx_kernel_key *k)
{
	for (uint32_t i = 0; i < k->n_out; i++)
		if (!is_register(k->out[i].dtype)) return false;
	for (uint32_t i = 0; i < k->n_in; i++)
		if (!is_register(k->in[i].dtype)) return false;
	for (uint32_t i = 0; i < k->prog->n_instr; i++)
		if (k->prog->instr[i].op == CX_OP_cast && !is_register((cx_dtype)k->prog->instr[i].p))
			return false;
	return ((const cx_attr_map *)k->attr)->reduce ? accept_plain(d, k) : accept_space(d, k);
}
static bool accept_cast(const cx_vk_device *d, const cx_kernel_key *k)
{
	return d->has_int64 && accept_space(d, k);
}
static bool accept_iota(const cx_vk_device *d, const cx_kernel_key *k)
{
	const cx_attr_iota *at = k->attr;
	return accept_plain(d, k) &&
		   (k->out[0].rank == 0 || k->out[0].dim[at->axis] < 1 << 24); /* its row is a table */
}

/* Views: the operand's own strides decide what is read, so all of it must be reachable. */
static bool accept_move(const cx_vk_device *d, const cx_kernel_key *k)
{
	return accept_plain(d, k);
}
static bool accept_copy(const cx_vk_device *d, const cx_kernel_key *k)
{
	if (accept_plain(d, k)) return true;
	return k->in[0].rank == k->out[0].rank &&
		   memcmp(k->in[0].dim, k->out[0].dim, (size_t)k->in[0].rank * sizeof k->in[0].dim[0]) ==
			   0 &&
		   accept_space(d, k);
}
static bool accept_assign(const cx_vk_device *d, const cx_kernel_key *k)
{
	return accept_space(d, k);
}
static bool accept_concat(const cx_vk_device *d, const cx_kernel_key *k)
{
	return accept_plain(d, k);
}

/* ---- block formats ---- */

/* Rows along the last axis are whole; I8C keeps its scales behind the whole matrix, so it has
 * no strides. */
static bool rows_ok(const cx_vk_device *d, const cx_desc *x)
{
	const cx_desc *p = x;
	if (x->rank < 1 || (x->dtype == CX_I8C && !cx__desc_is_dense(x))) return false;
	if (x->dim[x->rank - 1] > 1 && x->stride[x->rank - 1] != 1) return false;
	return x->rank == 1 ? cx__vk_fits(d, x) : x->dim[0] == 0 || cx__vk_piece(d, &p, 1, 0) > 0;
}
static bool accept_block(const cx_vk_device *d, const cx_kernel_key *k)
{
	return cx__vk_block(k->in[0].dtype) && cx__vk_float(k->out[0].dtype) && rows_ok(d, &k->in[0]) &&
		   cx__desc_is_dense(&k->out[0]) && cx__vk_fits(d, &k->out[0]);
}
static bool accept_gatherq(const cx_vk_device *d, const cx_kernel_key *k)
{
	return accept_block(d, k) && k->in[0].rank >= 2 && cx__vk_fits(d, &k->in[1]);
}
static bool accept_gather(const cx_vk_device *d, const cx_kernel_key *k)
{
	const cx_attr_axis *at = k->attr;
	const cx_desc *x = &k->in[0];
	if (!plain(x->dtype) || !cx__desc_is_dense(&k->out[0])) return false;
	return cx__vk_fits(d, &k->out[0]) && cx__vk_fits(d, &k->in[1]) &&
		   (x->dim[at->axis] == 0 || cx__vk_piece(d, &x, 1, (int32_t)at->axis) > 0);
}

/* ---- products ---- */

static bool weight_ok(const cx_vk_device *d, const cx_desc *w, int32_t axis)
{
	if (cx__vk_block(w->dtype) && (w->dim[w->rank - 1] > 1 && w->stride[w->rank - 1] != 1))
		return false;
	if (w->dtype == CX_I8C && (w->rank != 2 || !cx__desc_is_dense(w))) return false;
	return w->dim[axis] == 0 || cx__vk_piece(d, &w, 1, axis) > 0;
}
static bool accept_matmul(const cx_vk_device *d, const cx_kernel_key *k)
{
	const cx_attr_matmul *at = k->attr;
	const cx_desc *a = &k->in[0], *b = &k->in[1], *y = &k->out[0];
	int32_t m = a->rank - (at->trans_a ? 1 : 2), n = b->rank - (at->trans_b ? 2 : 1);
	if (at->act_scale > 0.0f) return false;
	if (!cx__vk_float(a->dtype) || !cx__desc_is_dense(y) || !weight_ok(d, b, n)) return false;
	return (a->dim[m] == 0 || cx__vk_piece(d, &a, 1, m) > 0) &&
		   (y->dim[y->rank - 2] == 0 || cx__vk_piece(d, &y, 1, y->rank - 2) > 0);
}
static bool accept_linear(const cx_vk_device *d, const cx_kernel_key *k)
{
	const cx_attr_linear *at = k->attr;
	uint32_t w = 1 + (uint32_t)at->norm_in;
	if (at->act_scale > 0.0f) return false;
	for (uint32_t i = 0; i < k->n_in; i++) {
		bool weight = i >= w && i < w + (uint32_t)at->n_w;
		if (!present(k, i)) continue;
		if (weight ? !weight_ok(d, &k->in[i], 0)
				   : !cx__desc_is_dense(&k->in[i]) || !cx__vk_fits(d, &k->in[i]))
			return false;
	}
	for (uint32_t i = 0; i < k->n_out; i++)
		if (!cx__desc_is_dense(&k->out[i]) || !cx__vk_fits(d, &k->out[i])) return false;
	return cx__vk_float(k->in[0].dtype);
}
static bool accept_matmul_idot(const cx_vk_device *d, const cx_kernel_key *k)
{
	return cx__vk_idot_ok(d, &k->in[0], &k->in[1]) && k->in[0].rank == 2 &&
		   !((const cx_attr_matmul *)k->attr)->trans_a && accept_matmul(d, k);
}
static bool accept_matmul_coop(const cx_vk_device *d, const cx_kernel_key *k)
{
	return cx__vk_coop_ok(d, &k->in[0], &k->in[1]) && accept_matmul(d, k);
}
/* With act_scale: as without, and x as int8 in one descriptor. */
static bool accept_matmul_int8(const cx_vk_device *d, const cx_kernel_key *k)
{
	cx_attr_matmul at = *(const cx_attr_matmul *)k->attr;
	cx_kernel_key plain_key = *k;
	if (!(at.act_scale > 0.0f) || !cx__vk_int8_ok(d, &k->in[0])) return false;
	if (k->in[0].rank != 2 && (at.trans_a || !cx__desc_is_dense(&k->in[0]))) return false;
	at.act_scale = 0.0f;
	plain_key.attr = &at;
	return accept_matmul(d, &plain_key);
}
static bool accept_linear_int8(const cx_vk_device *d, const cx_kernel_key *k)
{
	cx_attr_linear at = *(const cx_attr_linear *)k->attr;
	cx_kernel_key plain_key = *k;
	if (!(at.act_scale > 0.0f) || !cx__vk_int8_ok(d, &k->in[0])) return false;
	at.act_scale = 0.0f;
	plain_key.attr = &at;
	return accept_linear(d, &plain_key);
}
static const cx_desc *first_weight(const cx_kernel_key *k)
{
	return &k->in[1 + ((const cx_attr_linear *)k->attr)->norm_in];
}
static bool accept_linear_idot(const cx_vk_device *d, const cx_kernel_key *k)
{
	return cx__vk_idot_ok(d, &k->in[0], first_weight(k)) && accept_linear(d, k);
}
static bool accept_linear_coop(const cx_vk_device *d, const cx_kernel_key *k)
{
	return cx__vk_coop_ok(d, &k->in[0], first_weight(k)) && accept_linear(d, k);
}
static bool accept_attention(const cx_vk_device *d, const cx_kernel_key *k)
{
	const cx_desc *v = &k->in[2];
	return accept_float(d, k) &&
		   v->dim[v->rank - 1] <= 512; /* eight elements of the sum per invocation */
}
static bool accept_delta(const cx_vk_device *d, const cx_kernel_key *k)
{
	return accept_float(d, k) && k->in[0].dim[2] <= 256; /* a column of the state per invocation */
}

/* ---- backward ops ---- */

static bool accept_attention_grad(const cx_vk_device *d, const cx_kernel_key *k)
{
	const cx_desc *q = &k->in[0];
	return accept_attention(d, k) && q->dim[q->rank - 1] <= 512;
}
static bool accept_delta_grad(const cx_vk_device *d, const cx_kernel_key *k)
{
	uint64_t scratch = cx__vk_delta_grad_scratch(&d->base, k);
	return accept_float(d, k) && k->in[2].dim[2] <= 1024 && /* shared arrays of a row */
		   (!present(k, 7) || cx__desc_is_dense(&k->in[7])) && scratch <= cx__vk_room(d) &&
		   scratch / 4 <= INT32_MAX;
}

/* ---- the table ---- */

#define cx__vk_none_scratch NULL

const cx_vk_kernel cx__vk_kernels[] = {
#define CX_VK_KERNEL(op, name, accept, launch, scratch, inplace)                                   \
	{{#name, inplace, cx__vk_##scratch##_scratch}, CX_OP_##op, accept_##accept,                    \
		cx__vk_launch_##launch},
#include "backends/vulkan/kernels.def"
#undef CX_VK_KERNEL
};
const uint32_t cx__vk_n_kernels = sizeof cx__vk_kernels / sizeof cx__vk_kernels[0];

const cx_kernel *cx__vk_find(const cx_device *dev, const cx_kernel_key *key)
{
	const cx_vk_device *d = (const cx_vk_device *)dev;
	for (uint32_t i = 0; i < cx__vk_n_kernels; i++)
		if (cx__vk_kernels[i].op == key->op && cx__vk_kernels[i].accept(d, key))
			return &cx__vk_kernels[i].base;
	return NULL;
}
