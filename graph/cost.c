/* cost.c - what a node of a plan costs by its definition: bytes moved and arithmetic done. See
 * plan.h; explain, dump and profile print these. */
#include "graph/plan.h"

uint64_t cx__pnode_bytes(const cx_plan *p, const cx_pnode *n)
{
	uint64_t sum = 0, out = cx__desc_bytes(&p->t[n->out[0]].desc);
	bool rows = n->op == CX_OP_gather || n->op == CX_OP_embed_sum;
	bool writes_rows = n->op == CX_OP_scatter || n->op == CX_OP_rope_kv;
	for (uint32_t j = 0; j < n->n_in; j++) {
		const cx_ptensor *t;
		uint64_t bytes;
		if (n->in[j] == CX_NO) continue;
		t = &p->t[n->in[j]];
		bytes = cx__desc_bytes(&t->desc);
		if (rows && j % 2 == 0 && bytes > out) bytes = out;
		if (writes_rows) {
			bool cache = false;
			for (uint32_t o = 0; o < n->n_out; o++) cache |= cx__pnode_alias(n, o) == (int)j;
			if (cache) continue;
			if (j == (n->op == CX_OP_scatter ? 2u : 0u) || (n->op == CX_OP_rope_kv && j == 1))
				bytes *= 2;
		}
		sum += bytes;
	}
	if (writes_rows) return sum;
	for (uint32_t o = 0; o < n->n_out; o++) sum += cx__desc_bytes(&p->t[n->out[o]].desc);
	return sum;
}

static const cx_desc *operand(const cx_plan *p, const cx_pnode *n, uint32_t j)
{
	return j < n->n_in && n->in[j] != CX_NO ? &p->t[n->in[j]].desc : NULL;
}

static double elems(const cx_desc *d)
{
	return d ? (double)cx__desc_elems(d) : 0.0;
}

static double axis(const cx_desc *d, int32_t from_end)
{
	return d && d->rank >= from_end ? (double)d->dim[d->rank - from_end] : 1.0;
}

/* Norm, products, activation and residual; the weights follow the norm's operands. */
static double linear_flops(const cx_plan *p, const cx_pnode *n)
{
	const cx_attr_linear *a = n->attr;
	const cx_desc *x = operand(p, n, 0);
	double sum = a && a->norm ? 4 * elems(x) : 0.0, out = elems(&p->t[n->out[0]].desc);
	if (!a) return 0.0;
	for (int64_t i = 0; i < a->n_w; i++) {
		const cx_desc *w = operand(p, n, 1 + (uint32_t)(a->norm_in + i));
		double rows = w ? (double)w->dim[0] : 0.0, k = axis(x, 1);
		if (k > 0) sum += 2 * elems(x) * rows + (a->bias ? elems(x) / k * rows : 0.0);
	}
	if (a->act != CX_OP_input) sum += 4 * out;
	return sum + (a->glu ? out : 0.0) + (a->residual ? out : 0.0);
}

static double paged_flops(const cx_plan *p, const cx_pnode *n)
{
	const cx_attr_paged *a = n->attr;
	const cx_desc *q = operand(p, n, 0), *k = operand(p, n, 1);
	double keys = axis(operand(p, n, 3), 1) * (double)(a ? a->page : 16);
	if (k && k->rank && keys > (double)k->dim[0]) keys = (double)k->dim[0];
	return 2 * elems(q) * keys + 2 * elems(&p->t[n->out[0]].desc) * keys;
}

static double attention_flops(const cx_plan *p, const cx_pnode *n)
{
	const cx_desc *k = operand(p, n, 1);
	double keys = k && k->rank > 2 ? (double)k->dim[k->rank - 3] : 1.0;
	return 2 * elems(operand(p, n, 0)) * keys + 2 * elems(&p->t[n->out[0]].desc) * keys;
}

double cx__pnode_flops(const cx_plan *p, const cx_pnode *n)
{
	const cx_attr_matmul *mm = n->attr;
	const cx_desc *x = operand(p, n, 0);
	double out = elems(&p->t[n->out[0]].desc), in = elems(x);
	switch (n->op) {
	case CX_OP_matmul:
		return 2 * out * axis(x, mm && mm->trans_a ? 2 : 1);
	case CX_OP_linear:
		return linear_flops(p, n);
	case CX_OP_attention:
		return attention_flops(p, n);
	case CX_OP_paged_attention:
		return paged_flops(p, n);
	case CX_OP_map:
		return (n->prog ? n->prog->n_instr : 1) * (in > out ? in : out);
	case CX_OP_conv1d:
		return 2 * out * axis(operand(p, n, 1), 1);
	case CX_OP_attention_grad: /* five products for the forward op's two */
		return 2.5 * 2 * elems(x) * 2 * axis(operand(p, n, 1), 3);
	case CX_OP_conv1d_grad:
		return 6 * out * axis(operand(p, n, 1), 1);
	case CX_OP_delta_grad: /* the state again, and its gradient */
		return 22 * elems(operand(p, n, 2)) * axis(x, 1);
	case CX_OP_norm_grad:
		return 12 * out;
	case CX_OP_delta_rule: /* decay, read, update and query of a [d_k, d_v] matrix per token */
		return 7 * out * axis(x, 1);
	case CX_OP_rope:
		return 3 * out;
	case CX_OP_rope_kv:
		return 3 * in;
	case CX_OP_cscan:
		return 8 * out;
	case CX_OP_scan:
		return 2 * out;
	case CX_OP_adamw:
		return 12 * out;
	case CX_OP_embed_sum:
		return out * (n->n_in / 2 - 1);
	default:
		break;
	}
	switch (cx__ops[n->op].kind) {
	case CX_KIND_MAP:
		return n->op == CX_OP_cast ? 0.0 : out;
	case CX_KIND_ROW:
	case CX_KIND_LOSS:
	case CX_KIND_FUSED:
		return 4 * in;
	default:
		return 0.0; /* moves, generators */
	}
}
