/* fused.c - the ops that the planner fuses to, by calling the ops that they replace, each of which
 * rounds to its own dtype; so a fused plan gives bit for bit what the unfused graph gives. `map` is
 * in map.c. */
#include "backends/ref/ref.h"

static cx__ref_arg dense_arg(const cx_desc *d, unsigned char *p)
{
	cx__ref_arg a = {*d, p};
	cx__desc_dense(&a.d);
	return a;
}

static void call(cx_op op, const void *attr, const cx__ref_arg *in, uint32_t n_in,
	const cx__ref_arg *out, void *scratch)
{
	cx__ref_call c = {
		.op = op, .attr = attr, .in = in, .n_in = n_in, .out = out, .n_out = 1, .scratch = scratch};
	cx__ref_fns[op](&c);
}

/* y = norm(x), kind and operands as in cx_attr_linear. */
static void norm(const cx_attr_linear *at, const cx__ref_arg *x, const cx__ref_arg *operands,
	const cx__ref_arg *y)
{
	cx_attr_norm attr = {.eps = at->eps, .plus_one = at->plus_one};
	cx__ref_arg in[3] = {*x};
	for (int64_t i = 0; i < at->norm_in; i++) in[1 + i] = operands[i];
	call(at->norm == 1 ? CX_OP_rmsnorm : CX_OP_layernorm, &attr, in, 1 + (uint32_t)at->norm_in, y,
		NULL);
}

void cx__ref_linear(const cx__ref_call *c)
{
	const cx_attr_linear *at = c->attr;
	const cx_attr_matmul trans_b = {.trans_b = true, .act_scale = at->act_scale};
	const cx__ref_arg *w = c->in + 1 + at->norm_in, *bias = w + at->n_w,
					  *residual = &c->in[c->n_in - 1];
	cx__ref_arg x = c->in[0], y[3] = {c->out[0]}, pair[2];
	void *free_at = c->scratch;
	if (at->norm) {
		cx__ref_arg h = dense_arg(&x.d, cx__ref_take(&free_at, cx__ref_bytes(&x.d)));
		norm(at, &x, c->in + 1, &h);
		x = h;
	}
	for (int64_t i = 0; i < at->n_w; i++) {
		y[i] = c->out[at->glu ? 0 : i];
		if (at->glu && i == 1)
			y[i] = dense_arg(&y[0].d, cx__ref_take(&free_at, cx__ref_bytes(&y[0].d)));
		pair[0] = x;
		pair[1] = w[i];
		if (x.d.rank == 1) { /* one row */
			cx__ref_arg row = y[i];
			pair[0].d = (cx_desc){x.d.dtype, 2, {1, x.d.dim[0]}, {0, x.d.stride[0]}};
			row.d = (cx_desc){row.d.dtype, 2, {1, row.d.dim[0]}, {0, row.d.stride[0]}};
			call(CX_OP_matmul, &trans_b, pair, 2, &row, free_at);
		} else {
			call(CX_OP_matmul, &trans_b, pair, 2, &y[i], free_at);
		}
		pair[0] = y[i];
		if (at->bias && bias[i].p) {
			pair[1] = bias[i];
			call(CX_OP_add, NULL, pair, 2, &y[i], NULL);
		}
		if (at->act != CX_OP_input && !(at->glu && i == 1))
			call((cx_op)at->act, NULL, pair, 1, &y[i], NULL);
	}
	pair[0] = y[0];
	pair[1] = y[1];
	if (at->glu) call(CX_OP_mul, NULL, pair, 2, &y[0], NULL);
	pair[1] = *residual;
	if (at->residual) call(CX_OP_add, NULL, pair, 2, &y[0], NULL);
}

void cx__ref_add_norm(const cx__ref_call *c)
{
	call(CX_OP_add, NULL, c->in, 2, &c->out[0], NULL);
	norm(c->attr, &c->out[0], c->in + 2, &c->out[1]);
}

/* k, v, pos, slot, kcache, vcache, freqs: both caches are updated in place. */
void cx__ref_rope_kv(const cx__ref_call *c)
{
	const cx_attr_scatter overwrite = {0};
	void *free_at = c->scratch;
	cx__ref_arg k = dense_arg(&c->in[0].d, cx__ref_take(&free_at, cx__ref_bytes(&c->in[0].d)));
	cx__ref_arg in[3] = {c->in[0], c->in[2]};
	if (cx__ref_has(c, 6)) in[2] = c->in[6];
	call(CX_OP_rope, c->attr, in, cx__ref_has(c, 6) ? 3 : 2, &k, NULL);
	for (int i = 0; i < 2; i++) {
		cx__ref_arg s[3] = {c->out[i], c->in[3], i == 0 ? k : c->in[1]};
		call(CX_OP_scatter, &overwrite, s, 3, &c->out[i], NULL);
	}
}
