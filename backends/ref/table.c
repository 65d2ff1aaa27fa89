/* table.c - the kernel of each op, and how much scratch it takes. A row of ops.def without its
 * function does not link. */
#include "backends/ref/ref.h"

#define KERNEL_LEAF(name) NULL
#define KERNEL_META(name) NULL
#define KERNEL_VIEW(name) cx__ref_##name
#define KERNEL_MAP(name) cx__ref_##name
#define KERNEL_ROW(name) cx__ref_##name
#define KERNEL_TILE(name) cx__ref_##name
#define KERNEL_MOVE(name) cx__ref_##name
#define KERNEL_SCAN(name) cx__ref_##name
#define KERNEL_ATTN(name) cx__ref_##name
#define KERNEL_LOSS(name) cx__ref_##name
#define KERNEL_GEN(name) cx__ref_##name
#define KERNEL_FUSED(name) cx__ref_##name

cx__ref_fn *const cx__ref_fns[CX_OP_COUNT] = {
#define CX_OP(name, n_min, n_max, n_out, attr, shape, grad, kind, ...)                             \
	[CX_OP_##name] = KERNEL_##kind(name),
#include "graph/ops.def"
#undef CX_OP
};

uint64_t cx__ref_bytes(const cx_desc *d)
{
	uint64_t bytes = 0;
	bool fits = cx_dtype_bytes(d->dtype, d->rank, d->dim, &bytes);
	CX_ASSERT(fits); /* the graph checked it */
	return bytes;
}

/* What cx__ref_take() hands out for n bytes. */
static uint64_t padded(uint64_t n)
{
	return (n + 63) & ~(uint64_t)63;
}

static uint64_t matmul_scratch(int64_t k)
{
	return padded((1 + CX__REF_COLS) * (uint64_t)k * 8);
}

static uint64_t delta_scratch(const cx_kernel_key *key)
{
	const cx_attr_delta *at = key->attr;
	const cx_desc *q = &key->in[0], *v = &key->in[2];
	uint64_t dk = (uint64_t)q->dim[2], dv = (uint64_t)v->dim[2], n = 1;
	if (at->chunk) n = (uint64_t)(at->chunk < q->dim[0] ? at->chunk : q->dim[0]);
	return padded(dk * dv * 8) + 2 * padded(n * dk * 8) + padded(n * dv * 8) + padded(n * 8) +
		   padded((n + dv) * 8);
}

static uint64_t delta_grad_scratch(const cx_kernel_key *key)
{
	const cx_desc *q = &key->in[0], *v = &key->in[2];
	uint64_t dk = (uint64_t)q->dim[2] * 8, dv = (uint64_t)v->dim[2] * 8, size = dk * dv / 8;
	return padded(((uint64_t)q->dim[0] + 1) * size) + padded(size) + 2 * padded(dk) +
		   4 * padded(dv) + padded(2 * (uint64_t)cx__desc_elems(q) * 8);
}

static uint64_t linear_scratch(const cx_kernel_key *key)
{
	const cx_attr_linear *at = key->attr;
	const cx_desc *x = &key->in[0];
	uint64_t n = matmul_scratch(x->dim[x->rank - 1]);
	if (at->norm) n += padded(cx__ref_bytes(x));
	if (at->glu) n += padded(cx__ref_bytes(&key->out[0]));
	return n;
}

/* 0 if the op takes none; else more than 0 even where dims are 0, so that the pointer is one. */
uint64_t cx__ref_scratch(const cx_device *dev, const cx_kernel_key *key)
{
	const cx_desc *in = key->in;
	uint64_t n = 64;
	(void)dev;
	switch (key->op) {
	case CX_OP_matmul: {
		bool trans_a = ((const cx_attr_matmul *)key->attr)->trans_a;
		return n + matmul_scratch(in[0].dim[in[0].rank - (trans_a ? 2 : 1)]);
	}
	case CX_OP_attention: /* a score and an offset per key, a sum per element */
		n += 2 * padded((uint64_t)in[1].dim[in[1].rank - 3] * 8);
		return n + padded((uint64_t)in[2].dim[in[2].rank - 1] * 8);
	case CX_OP_paged_attention:
		n += 2 * padded((uint64_t)(in[3].dim[1] * ((const cx_attr_paged *)key->attr)->page) * 8);
		return n + padded((uint64_t)in[2].dim[2] * 8);
	case CX_OP_delta_rule:
		return n + delta_scratch(key);
	case CX_OP_norm_grad: /* a row, its gradient, two sums */
		return n + 4 * padded((uint64_t)in[0].dim[in[0].rank - 1] * 8);
	case CX_OP_attention_grad: /* a weight per key, sums for all keys and values */
		n += padded((uint64_t)in[1].dim[in[1].rank - 3] * 8);
		return n + padded((uint64_t)cx__desc_elems(&in[1]) * 8) +
			   padded((uint64_t)cx__desc_elems(&in[2]) * 8);
	case CX_OP_conv1d_grad: /* a gradient per row, a sum per tap */
		return n + padded((uint64_t)(in[0].dim[0] + in[1].dim[1]) * 8) +
			   padded((uint64_t)(in[1].dim[1] + 1) * 8);
	case CX_OP_delta_grad:
		return n + delta_grad_scratch(key);
	case CX_OP_linear:
		return n + linear_scratch(key);
	case CX_OP_rope_kv:
		return n + padded(cx__ref_bytes(&in[0]));
	default:
		return 0;
	}
}
