/* fuzz_seq.c - generators of products, attention, sequences, losses, updates and fused ops; see
 * fuzz_ops.c. */
#include "tests/fuzz_ops.h"

#include <math.h>

/* ---- products -------------------------------------------------------------------------------- */

/* Columns of a weight: whole blocks mostly, other numbers among the edges. */
static int64_t inner(cx_rgen *r, int64_t most)
{
	if (r->rg->opts.edges && chance(r, 3)) return cx__rg_size(r);
	if (r->rg->opts.edges && chance(r, 3)) return 512;
	return chance(r, 2) ? 256 : 32 * pick_int(r, 1, most);
}

/* A leaf and steps that round it to int8: other operands may differ by a rounding from backend to
 * backend, which a step would make large. */
static cx_tensor int8_rows(cx_rgen *r, int64_t t, int64_t k, float *scale)
{
	static const float steps[] = {0.007f, 0.009f, 0.0131f}; /* the first does not reach 1 */
	int64_t dim[] = {t, k};
	*scale = steps[pick_int(r, 0, 2)];
	return cx__rg_leaf(
		r, CX_OP_input, cx__rg_dtype(r, CX_WANT_FLOAT), 2, dim, (cx_fill){.lo = -1, .hi = 1});
}
static cx_tensor int8_weight(cx_rgen *r, int64_t n, int64_t k)
{
	int64_t dim[] = {n, k};
	return cx__rg_leaf(r, CX_OP_weight, CX_I8C, 2, dim, (cx_fill){.lo = -0.5f, .hi = 0.5f});
}

cx_tensor cx__fuzz_matmul(cx_rgen *r, cx_op op)
{
	cx_attr_matmul t = {.trans_a = chance(r, 4), .trans_b = chance(r, 2)};
	cx_want w = cx__want(CX_WANT_FLOAT, -2, 2);
	cx_tensor a, b;
	cx_desc d;
	int64_t n = cx__rg_size(r), k, dim[CX_MAX_RANK];
	int lead;
	w.lo_rank = 2;
	if (chance(r, 4)) { /* a weight, read in its own format */
		k = inner(r, 3);
		t.trans_b = true;
		t.trans_a = false;
		if (!r->rg->opts.f32_only && chance(r, 3)) {
			a = int8_rows(r, cx__rg_len(r, 1, 5, 65), k, &t.act_scale);
			b = int8_weight(r, n, k);
		} else {
			a = sized(r, CX_WANT_FLOAT, -1, 1, DIMS(cx__rg_len(r, 1, 5, 65), k));
			b = cx__rg_weight(r, n, k);
		}
		return cx__rg_range(r, cx_node_add(r->g, op, (cx_tensor[]){a, b}, 2, &t), -0.6f * (float)k,
			0.6f * (float)k);
	}
	a = cx__rg_get(r, &w);
	d = *cx__rg_desc(r, a);
	k = d.dim[d.rank - (t.trans_a ? 2 : 1)];
	lead = chance(r, 2) ? 0 : d.rank - 2;
	for (int i = 0; i < lead; i++) dim[i] = chance(r, 3) ? 1 : d.dim[d.rank - 2 - lead + i];
	dim[lead] = t.trans_b ? n : k;
	dim[lead + 1] = t.trans_b ? k : n;
	b = sized(r, chance(r, 3) ? CX_WANT_FLOAT : (int)d.dtype, -2, 2, lead + 2, dim);
	return cx__rg_range(
		r, cx_node_add(r->g, op, (cx_tensor[]){a, b}, 2, &t), -4 * (float)k, 4 * (float)k);
}

cx_tensor cx__fuzz_rope(cx_rgen *r, cx_op op)
{
	int64_t t = cx__rg_dim(r), heads = pick_int(r, 1, 3), hd = 2 * cx__rg_len(r, 1, 5, 65),
			n_pos = 20, dim[4] = {pick_int(r, 1, 2), t, heads, hd};
	int lead = chance(r, 3) ? 0 : 1;
	cx_attr_rope a = cx_attr_rope_default();
	cx_tensor in[5] = {CX_NONE, CX_NONE, CX_NONE, CX_NONE, CX_NONE};
	if (chance(r, 3)) a.n_rot = 2 * pick_int(r, 1, hd / 2);
	if (chance(r, 3)) a.theta = 500;
	if (chance(r, 4)) a.amplitude = 1.25f;
	a.pairs = chance(r, 2);
	in[0] = sized(r, CX_WANT_FLOAT, -4, 4, 4 - lead, dim + lead);
	in[1] = cx__rg_leaf(
		r, CX_OP_input, CX_I32, 2 - lead, dim + lead, (cx_fill){.lo = 0, .hi = (float)n_pos - 1});
	hd = a.n_rot ? a.n_rot : hd;
	if (chance(r, 4)) {
		in[2] = sized(r, CX_F32, 0.01f, 1, DIMS(hd / 2));
	} else if (chance(r, 3)) {
		in[3] = sized(r, CX_F32, -1, 1, DIMS(n_pos, hd / 2));
		in[4] = sized(r, CX_F32, -1, 1, DIMS(n_pos, hd / 2));
	}
	return cx__rg_range(r, cx_node_add(r->g, op, in, 5, &a), -12, 12);
}

cx_tensor cx__fuzz_attention(cx_rgen *r, cx_op op)
{
	int64_t b = pick_int(r, 1, 3), t = cx__rg_len(r, 1, 7, 65), s = cx__rg_len(r, 1, 8, 129),
			hk = pick_int(r, 1, 2);
	int64_t h = hk * pick_int(r, 1, 2), d = cx__rg_len(r, 1, 8, 129),
			dv = chance(r, 2) ? d : cx__rg_len(r, 1, 8, 129);
	bool dense = chance(r, 2);
	int f = (int)cx__rg_dtype(r, CX_WANT_FLOAT);
	cx_attr_attention a = cx_attr_attention_default();
	cx_tensor in[7] = {CX_NONE, CX_NONE, CX_NONE, CX_NONE, CX_NONE, CX_NONE, CX_NONE};
	int64_t q_dim[] = {b, t, h, d}, k_dim[] = {b, s, hk, d}, v_dim[] = {b, s, hk, dv},
			full[] = {b, h, t, s};
	int skip = dense ? 0 : 1, rank = 4 - skip;
	a.causal = chance(r, 2);
	if (chance(r, 3)) a.window = cx__rg_len(r, 1, 5, 33);
	if (chance(r, 2)) a.scale = cx__rng_float(&r->rng, 0.1f, 1);
	in[0] = sized(r, f, -2, 2, rank, q_dim + skip);
	in[1] = sized(r, chance(r, 3) ? CX_WANT_FLOAT : f, -2, 2, rank, k_dim + skip);
	in[2] = sized(r, chance(r, 3) ? CX_WANT_FLOAT : f, -2, 2, rank, v_dim + skip);
	if (!dense && chance(r, 2)) {
		in[3] = cx__rg_index(r, CX_FILL_OFFSETS, b + 1, t);
		in[4] = cx__rg_index(r, CX_FILL_OFFSETS, b + 1, s);
	}
	for (int i = 0; i < 3; i++)
		if (chance(r, 3)) full[i] = 1;
	if (chance(r, 4)) in[5] = sized(r, CX_BOOL, 0, 1, rank, full + skip);
	if (chance(r, 4)) in[6] = sized(r, CX_F32, -2, 2, rank, full + skip);
	return cx__rg_range(r, cx_node_add(r->g, op, in, 7, &a), -2.1f, 2.1f);
}

cx_tensor cx__fuzz_paged(cx_rgen *r, cx_op op)
{
	int64_t b = pick_int(r, 1, 3), t = cx__rg_len(r, 1, 6, 33), hk = pick_int(r, 1, 2),
			h = hk * pick_int(r, 1, 2), d = cx__rg_len(r, 1, 8, 129);
	cx_attr_paged a = cx_attr_paged_default();
	int64_t n_pages = pick_int(r, 2, 5), blocks, slots, table[2];
	int f = (int)cx__rg_dtype(r, CX_WANT_FLOAT);
	cx_tensor in[6];
	a.page = cx__rg_len(r, 1, 4, 17);
	if (chance(r, 3)) a.window = cx__rg_len(r, 1, 6, 33);
	blocks = (t + a.page - 1) / a.page + pick_int(r, 0, 2);
	slots = n_pages * a.page;
	table[0] = b;
	table[1] = blocks;
	in[0] = sized(r, CX_WANT_FLOAT, -2, 2, DIMS(t, h, d));
	in[1] = sized(r, f, -2, 2, DIMS(slots, hk, d));
	in[2] = sized(r, f, -2, 2, DIMS(slots, hk, d));
	in[3] = cx__rg_leaf(
		r, CX_OP_input, CX_I32, 2, table, (cx_fill){.rule = CX_FILL_TABLE, .n = n_pages});
	in[4] = cx__rg_leaf(r, CX_OP_input, CX_I32, 1, (int64_t[]){b + 1},
		(cx_fill){.rule = CX_FILL_OFFSETS, .lo = chance(r, 3), .n = t});
	in[5] = cx__rg_leaf(
		r, CX_OP_input, CX_I32, 1, &b, (cx_fill){.lo = (float)t, .hi = (float)(blocks * a.page)});
	return cx__rg_range(r, cx_node_add(r->g, op, in, 6, &a), -2.1f, 2.1f);
}

/* ---- sequences ------------------------------------------------------------------------------- */

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

cx_tensor cx__fuzz_conv1d(cx_rgen *r, cx_op op)
{
	int64_t t = cx__rg_len(r, 1, 9, 129), c = cx__rg_size(r), k = pick_int(r, 1, 5), n;
	cx_dtype f = cx__rg_dtype(r, CX_WANT_FLOAT);
	cx_attr_conv1d a = {chance(r, 2), 0};
	cx_tensor in[6], y;
	in[0] = sized(r, (int)f, -2, 2, DIMS(t, c));
	in[1] = sized(r, side_dtype(r, f), -1, 1, DIMS(c, k));
	in[2] = chance(r, 2) ? CX_NONE : sized(r, side_dtype(r, f), -1, 1, DIMS(c));
	n = sequences(r, t, in + 4);
	in[3] = cx__rg_state(r, (cx_dtype)side_dtype(r, f), DIMS(n, k - 1, c), -2, 2);
	y = cx_node_add(r->g, op, in, 6, &a);
	cx__rg_range(r, cx_out(r->g, y, 1), -2, 2);
	return cx__rg_range(r, y, -11, 11);
}

cx_tensor cx__fuzz_delta(cx_rgen *r, cx_op op)
{
	int64_t t = cx__rg_len(r, 1, 8, 67), nk = pick_int(r, 1, 2), nv = nk * pick_int(r, 1, 2),
			dk = cx__rg_len(r, 1, 6, 65), dv = cx__rg_len(r, 1, 6, 65), n;
	int f = (int)cx__rg_dtype(r, CX_WANT_FLOAT);
	cx_attr_delta a = cx_attr_delta_default();
	cx_tensor in[8], y;
	if (chance(r, 2)) a.chunk = cx__rg_len(r, 1, 5, 64);
	a.tiled = chance(r, 2);
	in[0] = sized(r, f, -0.4f, 0.4f, DIMS(t, nk, dk));
	in[1] = sized(r, f, -0.4f, 0.4f, DIMS(t, nk, dk));
	in[2] = sized(r, f, -2, 2, DIMS(t, nv, dv));
	in[3] = sized(r, side_dtype(r, (cx_dtype)f), -1, 0, DIMS(t, nv));
	in[4] = sized(r, side_dtype(r, (cx_dtype)f), 0, 1, DIMS(t, nv));
	n = sequences(r, t, in + 6);
	in[5] = cx__rg_state(r, CX_F32, DIMS(n, nv, dk, dv), -1, 1);
	y = cx_node_add(r->g, op, in, 8, &a);
	cx__rg_range(r, cx_out(r->g, y, 1), -8, 8);
	return cx__rg_range(r, y, -12, 12);
}

cx_tensor cx__fuzz_scan(cx_rgen *r, cx_op op)
{
	int64_t b = pick_int(r, 1, 3), t = cx__rg_size(r), d = cx__rg_len(r, 1, 12, 8192 / t);
	int f = (int)cx__rg_dtype(r, CX_WANT_FLOAT);
	cx_attr_reset a = {chance(r, 2), 0};
	cx_tensor y, in[4] = {sized(r, f, -1, 1, DIMS(b, t, d)), sized(r, f, -1, 1, DIMS(b, t, d)),
					 sized(r, f, -2, 2, DIMS(b, d)),
					 chance(r, 2) ? CX_NONE : sized(r, CX_BOOL, 0, 1, DIMS(b, t))};
	y = cx_node_add(r->g, op, in, 4, &a);
	cx__rg_range(r, cx_out(r->g, y, 1), -14, 14);
	return cx__rg_range(r, y, -14, 14);
}

cx_tensor cx__fuzz_cscan(cx_rgen *r, cx_op op)
{
	int64_t b = pick_int(r, 1, 3), t = cx__rg_size(r), d = cx__rg_len(r, 1, 12, 8192 / t);
	int f = (int)cx__rg_dtype(r, CX_WANT_FLOAT);
	cx_attr_reset a = {chance(r, 2), 0};
	cx_tensor y, in[7];
	for (int i = 0; i < 6; i++) {
		float big = i < 2 ? 0.7f : 1;
		in[i] = i < 4 ? sized(r, f, -big, big, DIMS(b, t, d)) : sized(r, f, -big, big, DIMS(b, d));
	}
	in[6] = chance(r, 2) ? CX_NONE : sized(r, CX_BOOL, 0, 1, DIMS(b, t));
	y = cx_node_add(r->g, op, in, 7, &a);
	for (int o = 1; o < 4; o++) cx__rg_range(r, cx_out(r->g, y, o), -30, 30);
	return cx__rg_range(r, y, -30, 30);
}

/* ---- losses, updates, generators ------------------------------------------------------------- */

cx_tensor cx__fuzz_xent(cx_rgen *r, cx_op op)
{
	int64_t n = cx__rg_size(r), c = cx__rg_size(r);
	cx_attr_loss a = {pick_int(r, 0, 2), chance(r, 2) ? -100 : 0, 0};
	cx_tensor x = sized(r, CX_WANT_FLOAT, -4, 4, DIMS(n, c));
	cx_tensor t =
		cx__rg_leaf(r, CX_OP_input, CX_I32, 1, &n, (cx_fill){.lo = 0, .hi = (float)c - 1});
	return cx__rg_range(r, cx_node_add(r->g, op, (cx_tensor[]){x, t}, 2, &a), 0, 11 * (float)n);
}

cx_tensor cx__fuzz_mse(cx_rgen *r, cx_op op)
{
	cx_tensor x = rows(r, CX_WANT_FLOAT, 0, -4, 4), y;
	cx_desc d = *cx__rg_desc(r, x);
	cx_attr_loss a = {pick_int(r, 0, 2), -100, 0};
	y = sized(r, (int)d.dtype, -4, 4, d.rank, d.dim);
	return cx__rg_range(
		r, cx_node_add(r->g, op, (cx_tensor[]){x, y}, 2, &a), 0, 64 * (float)cx__desc_elems(&d));
}

cx_tensor cx__fuzz_poisson(cx_rgen *r, cx_op op)
{
	cx_attr_poisson a = {pick_int(r, 0, 2), chance(r, 2), 1e-3f, 0};
	cx_tensor x = rows(r, CX_WANT_FLOAT, 0, a.rate ? 0.1f : -3, 3), y;
	cx_desc d = *cx__rg_desc(r, x);
	y = sized(r, (int)d.dtype, 0, 4, d.rank, d.dim);
	return cx__rg_range(r, cx_node_add(r->g, op, (cx_tensor[]){x, y}, 2, &a),
		-40 * (float)cx__desc_elems(&d), 40 * (float)cx__desc_elems(&d));
}

cx_tensor cx__fuzz_adamw(cx_rgen *r, cx_op op)
{
	int64_t dim[2] = {cx__rg_size(r), cx__rg_size(r)}, one = 1;
	cx_attr_adamw a = cx_attr_adamw_default();
	cx_dtype f = cx__rg_dtype(r, CX_WANT_FLOAT);
	cx_fill m = {.lo = -1, .hi = 1}, v = {.lo = 0.1f, .hi = 1};
	cx_op kind = r->rg->opts.no_states ? CX_OP_input : CX_OP_state;
	cx_tensor y, in[6];
	in[0] = cx__rg_state(r, f, 2, dim, -2, 2);
	in[1] = sized(r, chance(r, 2) ? (int)f : CX_F32, -1, 1, 2, dim);
	in[2] = cx__rg_leaf(r, kind, CX_F32, 2, dim, m); /* three different states */
	in[3] = cx__rg_leaf(r, kind, CX_F32, 2, dim, v);
	in[4] = cx__rg_leaf(r, CX_OP_input, CX_F32, 1, &one, (cx_fill){.lo = 0.001f, .hi = 0.1f});
	in[5] = cx__rg_leaf(r, CX_OP_input, CX_F32, 1, &one, (cx_fill){.lo = 1, .hi = 9});
	y = cx_node_add(r->g, op, in, 6, &a);
	cx__rg_range(r, cx_out(r->g, y, 1), -1, 1);
	cx__rg_range(r, cx_out(r->g, y, 2), 0, 1);
	return cx__rg_range(r, y, -4, 4);
}

cx_tensor cx__fuzz_random(cx_rgen *r, cx_op op)
{
	int64_t four = 4;
	cx_attr_random a = cx_attr_random_default();
	cx_tensor key = cx__rg_leaf(r, CX_OP_input, CX_I32, 1, &four, (cx_fill){.lo = 0, .hi = 1e6f});
	a.kind = pick_int(r, 0, 2);
	a.dims = cx_list_of(2, (int)cx__rg_dim(r), (int)cx__rg_size(r));
	key = cx_node_add(r->g, op, &key, 1, &a);
	return a.kind == 2 ? key : cx__rg_range(r, key, a.kind ? -7 : 0, a.kind ? 7 : 1);
}

cx_tensor cx__fuzz_iota(cx_rgen *r, cx_op op)
{
	cx_attr_iota a = cx_attr_iota_default();
	int rank = (int)pick_int(r, 0, 3);
	for (a.dims.n = 0; a.dims.n < rank; a.dims.n++) a.dims.v[a.dims.n] = cx__rg_dim(r);
	if (rank) a.axis = axis_of(r, rank);
	a.dtype = cx__rg_dtype(r, chance(r, 2) ? CX_I32 : CX_WANT_FLOAT);
	if (chance(r, 2)) a.start = (float)pick_int(r, -3, 3);
	if (chance(r, 2)) a.step = a.dtype == CX_I32 ? (float)pick_int(r, -2, 2) : 0.25f;
	return cx__rg_range(r, cx_node_add(r->g, op, NULL, 0, &a), -30, 30);
}

/* ---- what the planner fuses to --------------------------------------------------------------- */

cx_tensor cx__fuzz_linear(cx_rgen *r, cx_op op)
{
	static const cx_op acts[] = {
		CX_OP_input, CX_OP_silu, CX_OP_gelu, CX_OP_gelu_tanh, CX_OP_relu, CX_OP_tanh};
	int64_t k = inner(r, 2), t = cx__rg_len(r, 1, 5, 33), n0;
	cx_attr_linear a = cx_attr_linear_default();
	cx_tensor in[12], y;
	cx_dtype f;
	uint32_t n = 0;
	const bool int8 = !r->rg->opts.f32_only && chance(r, 5);
	in[n++] = int8 ? int8_rows(r, t, k, &a.act_scale) : sized(r, CX_WANT_FLOAT, -1, 1, DIMS(t, k));
	f = cx__rg_desc(r, in[0])->dtype;
	a.n_w = pick_int(r, 1, 3);
	a.glu = a.n_w == 2 && chance(r, 2);
	a.norm = int8 ? 0 : pick_int(r, 0, 2);
	a.norm_in = a.norm ? pick_int(r, 0, a.norm) : 0;
	a.plus_one = a.norm == 1 && a.norm_in && chance(r, 3);
	a.bias = chance(r, 3);
	a.act = acts[pick_int(r, 0, 5)];
	a.residual = chance(r, 3);
	for (int64_t i = 0; i < a.norm_in; i++) in[n++] = sized(r, side_dtype(r, f), -1, 1, DIMS(k));
	n0 = cx__rg_size(r);
	for (int64_t i = 0; i < a.n_w; i++) {
		int64_t rows_ = i == 0 || a.glu ? n0 : cx__rg_size(r);
		in[n++] = int8 ? int8_weight(r, rows_, k) : cx__rg_weight(r, rows_, k);
	}
	for (int64_t i = 0; i < a.n_w && a.bias; i++) {
		int64_t rows_ = cx__rg_desc(r, in[1 + a.norm_in + i])->dim[0];
		in[n++] = chance(r, 4) ? CX_NONE : sized(r, side_dtype(r, f), -1, 1, DIMS(rows_));
	}
	if (a.residual) in[n++] = sized(r, (int)f, -2, 2, DIMS(t, n0));
	y = cx_node_add(r->g, op, in, n, &a);
	for (int o = a.glu ? 1 : (int)a.n_w; o-- > 0;) cx__rg_range(r, cx_out(r->g, y, o), -1e4f, 1e4f);
	return y;
}

cx_tensor cx__fuzz_rope_kv(cx_rgen *r, cx_op op)
{
	int64_t t = cx__rg_size(r), hk = pick_int(r, 1, 2), d = 2 * cx__rg_len(r, 1, 4, 33),
			slots = t + pick_int(r, 0, 4);
	cx_dtype f = cx__rg_dtype(r, CX_WANT_FLOAT),
			 c = chance(r, 2) ? f : cx__rg_dtype(r, CX_WANT_FLOAT);
	cx_attr_rope a = cx_attr_rope_default();
	cx_tensor in[7], y;
	if (chance(r, 3)) a.n_rot = 2 * pick_int(r, 1, d / 2);
	a.pairs = chance(r, 2);
	in[0] = sized(r, (int)f, -2, 2, DIMS(t, hk, d));
	in[1] = sized(r, (int)f, -2, 2, DIMS(t, hk, d));
	in[2] = cx__rg_leaf(r, CX_OP_input, CX_I32, 1, &t, (cx_fill){.lo = 0, .hi = 40});
	in[3] = cx__rg_index(r, CX_FILL_SLOTS, t, slots);
	in[4] = cx__rg_state(r, c, DIMS(slots, hk, d), -2, 2);
	in[5] = cx__rg_leaf(r, r->rg->opts.no_states ? CX_OP_input : CX_OP_state, c, DIMS(slots, hk, d),
		(cx_fill){.lo = -2, .hi = 2});
	in[6] = chance(r, 3) ? sized(r, CX_F32, 0.01f, 1, DIMS((a.n_rot ? a.n_rot : d) / 2)) : CX_NONE;
	y = cx_node_add(r->g, op, in, 7, &a);
	cx__rg_range(r, cx_out(r->g, y, 1), -2, 2);
	return cx__rg_range(r, y, -4, 4);
}

cx_tensor cx__fuzz_add_norm(cx_rgen *r, cx_op op)
{
	cx_tensor in[4] = {rows(r, CX_WANT_FLOAT, 1, -2, 2), CX_NONE, CX_NONE, CX_NONE}, y;
	cx_desc d = *cx__rg_desc(r, in[0]);
	cx_attr_linear a = cx_attr_linear_default();
	a.norm = pick_int(r, 1, 2);
	a.norm_in = pick_int(r, 0, a.norm);
	in[1] = sized(r, (int)d.dtype, -2, 2, d.rank, d.dim);
	for (int64_t i = 0; i < a.norm_in; i++)
		in[2 + i] = sized(r, side_dtype(r, d.dtype), -1, 1, DIMS(d.dim[d.rank - 1]));
	y = cx_node_add(r->g, op, in, 2 + (uint32_t)a.norm_in, &a);
	cx__rg_range(r, cx_out(r->g, y, 1), -8, 8);
	return cx__rg_range(r, y, -4, 4);
}

cx_tensor cx__fuzz_map(cx_rgen *r, cx_op op)
{
	static const cx_op ops[] = {CX_OP_neg, CX_OP_abs, CX_OP_tanh, CX_OP_sigmoid, CX_OP_silu,
		CX_OP_relu, CX_OP_clamp, CX_OP_cast, CX_OP_add, CX_OP_sub, CX_OP_mul, CX_OP_min, CX_OP_max,
		CX_OP_where};
	bool most = r->rg->opts.edges;
	cx_prog p = {.n_in = (uint8_t)(most ? r->rg->opts.seed % CX_PROG_MAX_IN + 1
										: (uint64_t)pick_int(r, 1, 4)),
		.n_instr = (uint8_t)pick_int(r, 1, 8),
		.n_out = (uint8_t)pick_int(r, 1, 3)};
	float big[CX_PROG_MAX_IN + CX_PROG_MAX];
	cx_attr_map a = {chance(r, 3) ? pick_int(r, 1, 4) : 0, chance(r, 2), 0};
	cx_tensor in[CX_PROG_MAX_IN] = {rows(r, CX_WANT_FLOAT, 1, -2, 2)}, y;
	cx_desc d = *cx__rg_desc(r, in[0]);
	for (int i = 1; i < p.n_in; i++)
		in[i] = cx__fuzz_partner(r, in[0], CX_WANT_FLOAT, -2, 2, false);
	if (most && p.n_instr < p.n_in) p.n_instr = p.n_in;
	for (int i = 0; i < p.n_in; i++) big[i] = 2;
	for (int i = 0; i < p.n_instr; i++) {
		cx_instr *t = &p.instr[i];
		int n = p.n_in + i;
		t->op = (uint16_t)ops[pick_int(r, 0, 13)];
		t->a = (uint8_t)pick_int(r, 0, n - 1);
		t->b = (uint8_t)pick_int(r, 0, n - 1);
		t->c = (uint8_t)pick_int(r, 0, n - 1);
		if (most) t->a = (uint8_t)(i ? n - 1 : 0); /* a chain, through all operands first */
		if (most && i + 1 < p.n_in) t->op = CX_OP_add, t->b = (uint8_t)(i + 1);
		if (big[t->a] * big[t->b] > 100) t->op = CX_OP_tanh;
		big[n] = fmaxf(big[t->a], fmaxf(big[t->b], big[t->c])) * 2;
		if (most && t->op == CX_OP_add) big[n] = big[t->a] + big[t->b];
		if (t->op == CX_OP_mul) big[n] = big[t->a] * big[t->b];
		if (t->op == CX_OP_tanh || t->op == CX_OP_sigmoid) big[n] = 1;
		if (t->op == CX_OP_clamp) t->p = -1, t->q = 1.5f;
		if (t->op == CX_OP_cast)
			t->p = (float)(r->rg->opts.f32_only ? CX_F32 : chance(r, 2) ? CX_F16 : CX_BF16);
		if (t->op != CX_OP_where) t->c = 0;
		if (t->op < CX_OP_add && t->op != CX_OP_where) t->b = 0;
	}
	for (int o = 0; o < p.n_out; o++) {
		p.out[o] = (uint8_t)(o ? pick_int(r, 0, p.n_in + p.n_instr - 1) : p.n_in + p.n_instr - 1);
		p.out_dtype[o] = (uint8_t)cx__rg_dtype(r, CX_WANT_FLOAT);
	}
	y = cx__node_add(r->g, op, in, p.n_in, &a, &p);
	for (int o = 0; o < p.n_out; o++) { /* a narrowing cast inside leaves its mark */
		float n = a.reduce == 1 ? (float)d.dim[d.rank - 1] : 1;
		cx_tensor t = cx__rg_range(r, cx_out(r->g, y, o), -200 * n, 200 * n);
		if (!r->rg->opts.f32_only) cx__rg_value(r, t)->prec = 3;
	}
	return y;
}
