/* diff_fill.c - seeded content for a leaf that nobody gave: what its readers can take. */
#include "graph/diff.h"
#include "graph/plan.h"
#include "graph/quant.h"

#include <math.h>
#include <string.h>

typedef enum rule { FREE, INDEX, DISTINCT, OFFSETS, LENGTH, POSITIVE, NEGATIVE, UNIT } rule;
typedef struct need {
	rule rule;
	int64_t n; /* indices are 0..n-1, offsets end at n, lengths are n */
} need;

static int64_t dim_of(const cx_graph *g, const cx_node *n, uint32_t j, int64_t axis)
{
	const cx_desc *d;
	if (j >= n->n_in || n->in[j] == CX_NO) return 0;
	d = &g->nodes[n->in[j]].desc;
	return axis >= 0 && axis < d->rank ? d->dim[axis] : 0;
}

static need of_paged(const cx_graph *g, const cx_node *n, uint32_t j)
{
	const cx_attr_paged *a = n->attr;
	int64_t page = a->page > 0 ? a->page : 1;
	if (j == 3) return (need){DISTINCT, dim_of(g, n, 1, 0) / page};
	if (j == 4) return (need){OFFSETS, dim_of(g, n, 0, 0)};
	if (j == 5) return (need){LENGTH, dim_of(g, n, 3, 1) * page};
	return (need){FREE, 0};
}

/* What operand j of a node must be. */
static need of_operand(const cx_graph *g, const cx_node *n, uint32_t j)
{
	switch ((cx_op)n->op) {
	case CX_OP_gather:
		if (j == 1) return (need){INDEX, dim_of(g, n, 0, ((const cx_attr_axis *)n->attr)->axis)};
		break;
	case CX_OP_scatter:
		if (j == 1) return (need){DISTINCT, dim_of(g, n, 0, 0)};
		break;
	case CX_OP_embed_sum:
		if (j % 2) return (need){INDEX, dim_of(g, n, j - 1, 0)};
		break;
	case CX_OP_rope:
		if (j == 1) return (need){INDEX, n->n_in > 3 ? dim_of(g, n, 3, 0) : 64};
		break;
	case CX_OP_rope_kv:
		if (j == 2) return (need){INDEX, 64};
		if (j == 3) return (need){DISTINCT, dim_of(g, n, 4, 0)};
		break;
	case CX_OP_attention:
		if (j == 3) return (need){OFFSETS, dim_of(g, n, 0, 0)};
		if (j == 4) return (need){OFFSETS, dim_of(g, n, 1, 0)};
		break;
	case CX_OP_paged_attention:
		return of_paged(g, n, j);
	case CX_OP_conv1d:
		if (j == 4) return (need){OFFSETS, dim_of(g, n, 0, 0)};
		if (j == 5) return (need){DISTINCT, dim_of(g, n, 3, 0)};
		break;
	case CX_OP_delta_rule:
		if (j == 3) return (need){NEGATIVE, 0};
		if (j == 4) return (need){UNIT, 0};
		if (j == 6) return (need){OFFSETS, dim_of(g, n, 0, 0)};
		if (j == 7) return (need){DISTINCT, dim_of(g, n, 5, 0)};
		break;
	case CX_OP_attention_grad:
		if (j == 5) return (need){OFFSETS, dim_of(g, n, 0, 0)};
		if (j == 6) return (need){OFFSETS, dim_of(g, n, 1, 0)};
		break;
	case CX_OP_conv1d_grad:
		if (j == 6) return (need){OFFSETS, dim_of(g, n, 0, 0)};
		if (j == 7) return (need){DISTINCT, dim_of(g, n, 2, 0)};
		break;
	case CX_OP_delta_grad:
		if (j == 3) return (need){NEGATIVE, 0};
		if (j == 4) return (need){UNIT, 0};
		if (j == 8) return (need){OFFSETS, dim_of(g, n, 0, 0)};
		if (j == 9) return (need){DISTINCT, dim_of(g, n, 5, 0)};
		break;
	case CX_OP_cross_entropy:
		if (j == 1) return (need){INDEX, dim_of(g, n, 0, 1)};
		break;
	case CX_OP_adamw:
		if (j == 3) return (need){UNIT, 0};
		if (j == 4 || j == 5) return (need){POSITIVE, 0};
		break;
	case CX_OP_log:
	case CX_OP_sqrt:
	case CX_OP_rsqrt:
		return (need){POSITIVE, 0};
	case CX_OP_pow:
		if (j == 0) return (need){POSITIVE, 0};
		break;
	case CX_OP_div:
		if (j == 1) return (need){POSITIVE, 0};
		break;
	default:
		break;
	}
	return (need){FREE, 0};
}

/* The narrowest that any reader asks for, directly or through views. */
static need of_leaf(const cx_graph *g, uint32_t leaf)
{
	need all = {FREE, 0};
	for (uint32_t i = 0; i < g->n_nodes; i++) {
		const cx_node *n = &g->nodes[i];
		for (uint32_t j = 0; n->root == i && j < n->n_in; j++) {
			need one;
			if (n->in[j] == CX_NO || g->nodes[n->in[j]].root != leaf) continue;
			one = of_operand(g, n, j);
			if (one.rule == FREE) continue;
			if (all.rule == FREE || (all.rule == INDEX && one.rule == DISTINCT)) {
				int64_t n_old = all.rule == FREE ? one.n : all.n;
				all = one;
				if (n_old < all.n) all.n = n_old;
			} else if (one.n < all.n) {
				all.n = one.n;
			}
		}
	}
	return all;
}

static uint64_t next(uint64_t *s)
{
	uint64_t z = *s += 0x9e3779b97f4a7c15u;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static int64_t int_value(const need *k, uint64_t *s, int64_t i, int64_t n)
{
	int64_t r = (int64_t)(next(s) >> 33);
	switch (k->rule) {
	case INDEX:
		return k->n > 0 ? r % k->n : 0;
	case DISTINCT:
		return i < k->n ? k->n - 1 - i : -1;
	case OFFSETS:
		return n > 1 ? i * k->n / (n - 1) : 0;
	case LENGTH:
		return k->n;
	case POSITIVE:
		return 1 + r % 4;
	default:
		return r % 8;
	}
}

static float float_value(const need *k, uint64_t *s, float scale)
{
	float u = (float)(next(s) >> 40) * 0x1p-24f;
	switch (k->rule) {
	case POSITIVE:
		return 0.25f + u;
	case NEGATIVE:
		return -u;
	case UNIT:
		return u;
	default:
		return scale * (2 * u - 1);
	}
}

static void fill_blocks(const cx_desc *d, uint64_t *s, void *buf, uint64_t bytes, float scale)
{
	need k = {FREE, 0};
	float row[256];
	uint64_t done = 0;
	int64_t cols = d->rank ? d->dim[d->rank - 1] : 1;
	uint64_t block = (uint64_t)cx_dtype_get(d->dtype)->block_bytes;
	int64_t elems = cx_dtype_get(d->dtype)->block_elems;
	if (d->dtype == CX_I8C) {
		float one = scale / 127;
		uint64_t n = (uint64_t)(d->dim[0] * cols), at = (n + 3) / 4 * 4;
		for (uint64_t i = 0; i < n; i++) ((int8_t *)buf)[i] = (int8_t)(next(s) % 255 - 127);
		for (; at + 4 <= bytes; at += 4) memcpy((char *)buf + at, &one, 4);
		return;
	}
	for (; done + block <= bytes; done += block) {
		for (int64_t i = 0; i < elems; i++) row[i] = float_value(&k, s, scale);
		cx_quant_row(d->dtype, row, (char *)buf + done, elems);
	}
}

void cx__diff_fill(const cx_graph *g, uint32_t leaf, uint64_t seed, void *buf, uint64_t bytes)
{
	const cx_desc *d = &g->nodes[leaf].desc;
	int64_t n = cx__desc_elems(d), cols = d->rank ? d->dim[d->rank - 1] : 1;
	uint64_t s = seed * 0x2545f4914f6cdd1du + leaf;
	float scale = g->nodes[leaf].op == CX_OP_weight && d->rank > 1 && cols > 0
					  ? 1.5f / sqrtf((float)cols)
					  : 1;
	need k = of_leaf(g, leaf);
	memset(buf, 0, bytes);
	if (cx_dtype_get(d->dtype)->cls == CX_CLASS_BLOCK) {
		fill_blocks(d, &s, buf, bytes, scale);
		return;
	}
	for (int64_t i = 0; i < n; i++) {
		float x;
		switch (d->dtype) {
		case CX_F32:
			((float *)buf)[i] = float_value(&k, &s, scale);
			break;
		case CX_F16:
		case CX_BF16:
			x = float_value(&k, &s, scale);
			((uint16_t *)buf)[i] = d->dtype == CX_F16 ? cx_f32_to_f16(x) : cx_f32_to_bf16(x);
			break;
		case CX_I64:
			((int64_t *)buf)[i] = int_value(&k, &s, i, n);
			break;
		case CX_I32:
			((int32_t *)buf)[i] = (int32_t)int_value(&k, &s, i, n);
			break;
		case CX_BOOL:
			((uint8_t *)buf)[i] = next(&s) & 1;
			break;
		default:
			((uint8_t *)buf)[i] = (uint8_t)int_value(&k, &s, i, n);
			break;
		}
	}
}
