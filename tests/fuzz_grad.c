/* fuzz_grad.c - generators of the backward ops; see fuzz_ops.c. Operands are drawn as the
 * forward ops' generators draw theirs; results of the forward op that a backward op reads
 * (attention's y) are drawn freely, which its definition allows. Where sums are taken apart,
 * NaN and infinities need not come out in the same places: those ops get none. */
#include "tests/fuzz_ops.h"

/* Ranges of all outputs: sums of n products of magnitude big. */
static cx_tensor ranges(cx_rgen *r, cx_tensor y, int n_out, float big)
{
	for (int o = n_out; o-- > 1;) cx__rg_range(r, cx_out(r->g, y, o), -big, big);
	return cx__rg_range(r, y, -big, big);
}

cx_tensor cx__fuzz_norm_grad(cx_rgen *r, cx_op op)
{
	/* Few columns leave little but what cancels, unless eps is large. */
	float eps = chance(r, 3) ? 0.1f : 1e-5f;
	int64_t cols = chance(r, 4) ? pick_int(r, 60, 200) : pick_int(r, eps > 0.01f ? 1 : 4, 40);
	int64_t dim[3] = {pick_int(r, 1, 3), cx__rg_dim(r), cols};
	int skip = (int)pick_int(r, 0, 2), layout = r->rg->opts.layout;
	cx_attr_norm_grad a = cx_attr_norm_grad_default();
	cx_tensor in[3];
	cx_dtype f = cx__rg_dtype(r, CX_WANT_FLOAT);
	if (chance(r, 8)) dim[1] = pick_int(r, 60, 150); /* more than one block of rows */
	a.layer = chance(r, 2);
	a.plus_one = chance(r, 3);
	a.eps = eps;
	in[0] = sized(r, (int)f, -2, 2, 3 - skip, dim + skip);
	if (layout != CX_LAYOUT_STRIDED) r->rg->opts.layout = CX_LAYOUT_DENSE;
	in[1] = sized(r, (int)f, -2, 2, 3 - skip, dim + skip); /* equal all along a row: dx cancels */
	r->rg->opts.layout = layout;
	in[2] = chance(r, 3) ? CX_NONE : sized(r, side_dtype(r, f), -1, 1, DIMS(cols));
	return ranges(r, cx_node_add(r->g, op, in, 3, &a), a.layer ? 3 : 2, 1e4f);
}

cx_tensor cx__fuzz_attention_grad(cx_rgen *r, cx_op op)
{
	bool dense = chance(r, 2), large = chance(r, 6); /* large: several blocks of rows and keys */
	int64_t b = pick_int(r, 1, 3), t = large ? pick_int(r, 60, 140) : pick_int(r, 1, 7),
			s = large ? pick_int(r, 60, 200) : pick_int(r, 1, 9), hk = pick_int(r, 1, 2),
			h = hk * pick_int(r, 1, 2), d = large ? pick_int(r, 15, 40) : pick_int(r, 1, 8),
			dv = chance(r, 2) ? d : pick_int(r, 1, 20);
	int f = (int)cx__rg_dtype(r, CX_WANT_FLOAT), skip = dense ? 0 : 1, rank = 4 - skip;
	cx_attr_attention_grad a = cx_attr_attention_grad_default();
	int64_t q_dim[] = {b, t, h, d}, k_dim[] = {b, s, hk, d}, v_dim[] = {b, s, hk, dv},
			y_dim[] = {b, t, h, dv}, full[] = {b, h, t, s};
	cx_tensor in[9] = {
		CX_NONE, CX_NONE, CX_NONE, CX_NONE, CX_NONE, CX_NONE, CX_NONE, CX_NONE, CX_NONE};
	r->rg->opts.specials = false;
	a.causal = chance(r, 2);
	a.dbias = chance(r, 3);
	if (chance(r, 3)) a.window = pick_int(r, 1, large ? 80 : 5);
	if (chance(r, 2)) a.scale = cx__rng_float(&r->rng, 0.1f, 1);
	in[0] = sized(r, f, -1, 1, rank, q_dim + skip);
	in[1] = sized(r, chance(r, 3) ? CX_WANT_FLOAT : f, -1, 1, rank, k_dim + skip);
	in[2] = sized(r, chance(r, 3) ? CX_WANT_FLOAT : f, -2, 2, rank, v_dim + skip);
	in[3] = sized(r, f, -2, 2, rank, y_dim + skip);
	in[4] = sized(r, f, -2, 2, rank, y_dim + skip);
	if (!dense && chance(r, 2)) {
		in[5] = cx__rg_index(r, CX_FILL_OFFSETS, b + 1, t);
		in[6] = cx__rg_index(r, CX_FILL_OFFSETS, b + 1, s);
	}
	for (int i = 0; i < 3; i++)
		if (chance(r, 3)) full[i] = 1;
	if (chance(r, 4)) in[7] = sized(r, CX_BOOL, 0, 1, rank, full + skip);
	if (chance(r, 4)) in[8] = sized(r, CX_F32, -2, 2, rank, full + skip);
	return ranges(r, cx_node_add(r->g, op, in, 9, &a), a.dbias ? 4 : 3, 1e4f);
}

/* off and slot for t rows into in[0], in[1]; gives the rows of state that are needed. */
static int64_t sequences(cx_rgen *r, int64_t t, cx_tensor *in)
{
	int64_t b = pick_int(r, 1, 3), n_states = b + pick_int(r, 0, 2);
	in[0] = in[1] = CX_NONE;
	if (chance(r, 2)) in[0] = cx__rg_index(r, CX_FILL_OFFSETS, b + 1, t);
	else b = 1;
	if (chance(r, 2)) in[1] = cx__rg_index(r, CX_FILL_SLOTS, b, n_states);
	return n_states;
}

cx_tensor cx__fuzz_conv1d_grad(cx_rgen *r, cx_op op)
{
	int64_t t = chance(r, 6) ? pick_int(r, 30, 90) : pick_int(r, 1, 9), c = cx__rg_size(r),
			k = pick_int(r, 1, 5), n;
	cx_dtype f = cx__rg_dtype(r, CX_WANT_FLOAT);
	cx_attr_conv1d a = {chance(r, 2), 0};
	cx_tensor in[8];
	in[0] = sized(r, (int)f, -2, 2, DIMS(t, c));
	in[1] = sized(r, side_dtype(r, f), -1, 1, DIMS(c, k));
	in[3] = sized(r, (int)f, -2, 2, DIMS(t, c));
	in[4] = chance(r, 2) ? CX_NONE : sized(r, side_dtype(r, f), -1, 1, DIMS(c));
	n = sequences(r, t, in + 6);
	in[2] = sized(r, side_dtype(r, f), -2, 2, DIMS(n, k - 1, c));
	in[5] = chance(r, 3) ? CX_NONE : sized(r, CX_F32, -2, 2, DIMS(n, k - 1, c));
	return ranges(r, cx_node_add(r->g, op, in, 8, &a), 4, 1e4f);
}

cx_tensor cx__fuzz_delta_grad(cx_rgen *r, cx_op op)
{
	int64_t t = chance(r, 6) ? pick_int(r, 20, 40) : pick_int(r, 1, 8), nk = pick_int(r, 1, 2),
			nv = nk * pick_int(r, 1, 2), dk = pick_int(r, 1, 6),
			dv = chance(r, 3) ? pick_int(r, 14, 36) : pick_int(r, 1, 6), n;
	int f = (int)cx__rg_dtype(r, CX_WANT_FLOAT);
	cx_attr_delta a = cx_attr_delta_default();
	cx_tensor in[10];
	r->rg->opts.specials = false;
	if (chance(r, 2)) a.scale = cx__rng_float(&r->rng, 0.1f, 1);
	if (chance(r, 3)) a.chunk = pick_int(r, 1, 5); /* how the forward op went about it: no matter */
	a.tiled = chance(r, 2);
	in[0] = sized(r, f, -0.4f, 0.4f, DIMS(t, nk, dk));
	in[1] = sized(r, f, -0.4f, 0.4f, DIMS(t, nk, dk));
	in[2] = sized(r, f, -2, 2, DIMS(t, nv, dv));
	in[3] = sized(r, side_dtype(r, (cx_dtype)f), -1, 0, DIMS(t, nv));
	in[4] = sized(r, side_dtype(r, (cx_dtype)f), 0, 1, DIMS(t, nv));
	n = sequences(r, t, in + 8);
	in[5] = sized(r, CX_F32, -1, 1, DIMS(n, nv, dk, dv));
	in[6] = sized(r, f, -2, 2, DIMS(t, nv, dv));
	in[7] = chance(r, 3) ? CX_NONE : sized(r, CX_F32, -1, 1, DIMS(n, nv, dk, dv));
	return ranges(r, cx_node_add(r->g, op, in, 10, &a), 4, 1e4f);
}
