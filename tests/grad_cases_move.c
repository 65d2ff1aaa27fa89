/* grad_cases_move.c - views, moves, products, scans; see grad_cases.h. */
#include "tests/grad_cases.h"

#define COUNT(a) (uint32_t)(sizeof(a) / sizeof((a)[0]))

static void case_views(grad_case *k)
{
	cx_attr_dims flat = {.dims = cx_list_of(2, 4, -1)}, big = {.dims = cx_list_of(4, 2, 3, 4, 2)};
	cx_attr_perm perm = {.perm = cx_list_of(3, 2, 0, 1)};
	cx_tensor x = grad_leaf(k, -2, 2, GD(2, 3, 4)), y = cx_permute(k->g, x, &perm);
	grad_mix(k, cx_reshape(k->g, cx_sin(k->g, x), &flat));
	grad_mix(k, cx_reshape(k->g, y, &flat));
	grad_mix(k, cx_broadcast(k->g, grad_leaf(k, -2, 2, GD(3, 1, 2)), &big));
	grad_mix(k, cx_broadcast(k->g, grad_leaf(k, -2, 2, GD(1)), &big));
	grad_mix(k, cx_copy(k->g, y));
}

static void case_slice(grad_case *k)
{
	cx_attr_slice plain = {.begin = cx_list_of(2, 1, 2), .size = cx_list_of(2, 2, 3)};
	cx_attr_slice step = {.begin = cx_list_of(3, 0, 1, 1),
		.size = cx_list_of(3, 2, 2, 3),
		.step = cx_list_of(3, 1, 3, 2)};
	cx_attr_slice one = {.begin = cx_list_of(2, 2, 0), .size = cx_list_of(2, 1, 5)};
	cx_tensor x = grad_leaf(k, -2, 2, GD(4, 5));
	grad_mix(k, cx_slice(k->g, x, &plain));
	grad_mix(k, cx_slice(k->g, x, &one));
	grad_mix(k, cx_slice(k->g, grad_leaf(k, -2, 2, GD(2, 5, 7)), &step));
}

static void case_split(grad_case *k) /* all of a tensor in pieces, as q, k and v are cut */
{
	cx_tensor x = cx_sin(k->g, grad_leaf(k, -2, 2, GD(3, 6)));
	for (int i = 0; i < 3; i++) {
		cx_attr_slice a = {.begin = cx_list_of(2, 0, 2 * i), .size = cx_list_of(2, 3, 2)};
		cx_tensor t = cx_slice(k->g, x, &a);
		grad_mix(k, i == 1 ? cx_exp(k->g, t) : t);
	}
}

static void case_windows(grad_case *k) /* overlapping, with gaps, along two axes, alone, empty */
{
	static const int64_t begin[6] = {1, 0, 4, 2, 8, 3}, size[6] = {2, 2, 3, 4, 1, 0};
	cx_tensor x = cx_sin(k->g, grad_leaf(k, -2, 2, GD(10, 3))), y = cx_exp(k->g, x);
	cx_attr_slice a = {.begin = cx_list_of(2, 0, 1), .size = cx_list_of(2, 10, 1)};
	grad_mix(k, cx_slice(k->g, x, &a));
	grad_mix(k, cx_slice(k->g, x, &a));
	for (int i = 0; i < 6; i++) {
		a = (cx_attr_slice){.begin = cx_list_of(2, 0, 0), .size = cx_list_of(2, 0, 3)};
		a.begin.v[0] = begin[i];
		a.size.v[0] = size[i];
		grad_mix(k, cx_slice(k->g, x, &a));
		grad_mix(k, cx_slice(k->g, y, &a));
	}
}

static void case_concat_pad(grad_case *k)
{
	cx_attr_axis mid = {.axis = 1};
	cx_attr_pad pad = {.before = cx_list_of(2, 1, 0), .after = cx_list_of(2, 0, 2), .value = 3};
	cx_tensor in[3] = {grad_leaf(k, -2, 2, GD(2, 1, 3)), grad_leaf(k, -2, 2, GD(2, 2, 3)), CX_NONE};
	in[2] = in[0];
	grad_mix(k, cx_concat(k->g, in, 3, &mid));
	grad_mix(k, cx_pad(k->g, grad_leaf(k, -2, 2, GD(3, 2)), &pad));
}

static void case_gather(grad_case *k)
{
	cx_attr_axis first = {.axis = 0}, mid = {.axis = 1}, last = {.axis = 2};
	cx_tensor x = grad_leaf(k, -2, 2, GD(3, 4, 2));
	cx_tensor idx = grad_ints(k, GD(2, 3), GRAD_VALUES(0, 2, 2, -1, 1, 7));
	grad_mix(k, cx_gather(k->g, x, idx, &first));
	grad_mix(k, cx_gather(k->g, x, idx, &mid));
	grad_mix(k, cx_gather(k->g, x, grad_ints(k, GD(2), GRAD_VALUES(1, 0)), &last));
}

static void case_embed_sum(grad_case *k)
{
	cx_tensor in[4] = {grad_leaf(k, -2, 2, GD(3, 4)),
		grad_ints(k, GD(5), GRAD_VALUES(0, 2, 2, -1, 1)), grad_leaf(k, -2, 2, GD(2, 4)),
		grad_ints(k, GD(5), GRAD_VALUES(1, 1, 0, 1, 5))};
	grad_mix(k, cx_embed_sum(k->g, in, 4));
}

/* Rows written twice, out of range, added; into a tensor and into a state, whose old and new
 * content are both read. */
static void case_scatter(grad_case *k)
{
	cx_attr_scatter add = {.add = true}, over = {.add = false};
	cx_tensor idx = grad_ints(k, GD(5), GRAD_VALUES(3, 0, 3, -1, 1)), s, n;
	grad_mix(k,
		cx_scatter(k->g, grad_leaf(k, -2, 2, GD(4, 2)), idx, grad_leaf(k, -2, 2, GD(5, 2)), &over));
	grad_mix(k,
		cx_scatter(k->g, grad_leaf(k, -2, 2, GD(4, 2)), idx, grad_leaf(k, -2, 2, GD(5, 2)), &add));
	s = grad_state(k, k->dtype, -2, 2, GD(4));
	n = cx_scatter(k->g, s, idx, grad_leaf(k, -2, 2, GD(5)), &over);
	grad_mix(k, cx_mul(k->g, n, cx_sin(k->g, s)));
	n = cx_scatter(k->g, n, idx, grad_leaf(k, -2, 2, GD(5)), &add);
	grad_mix(k, cx_exp(k->g, n));
}

static void case_assign(grad_case *k)
{
	cx_tensor s = grad_state(k, k->dtype, -2, 2, GD(2, 3)), x = grad_leaf(k, -2, 2, GD(2, 3)), n;
	n = cx_assign(k->g, s, cx_add(k->g, cx_mul(k->g, s, x), x));
	grad_mix(k, cx_mul(k->g, n, n));
	n = cx_assign(k->g, n, cx_exp(k->g, x));
	grad_mix(k, n);
}

static void case_barrier(grad_case *k)
{
	cx_tensor x = grad_leaf(k, -2, 2, GD(2, 3)), y = cx_sin(k->g, x);
	grad_mix(k, cx_mul(k->g, y, cx_barrier(k->g, y, x)));
}

/* ---- products -------------------------------------------------------------------------------- */

static void matmul(grad_case *k, bool ta, bool tb, cx_list a, cx_list b)
{
	cx_attr_matmul at = cx_attr_matmul_default();
	at.trans_a = ta;
	at.trans_b = tb;
	grad_mix(k, cx_matmul(k->g, grad_leaf(k, -1, 1, a), grad_leaf(k, -1, 1, b), &at));
}

static void case_matmul(grad_case *k)
{
	matmul(k, false, false, GD(2, 3), GD(3, 4));
	matmul(k, false, true, GD(2, 3), GD(4, 3));
	matmul(k, true, false, GD(3, 2), GD(3, 4));
	matmul(k, true, true, GD(3, 2), GD(4, 3));
}

static void case_matmul_batch(grad_case *k) /* [B,T,k] by a weight; both batched; b batched */
{
	for (int i = 0; i < 2; i++) {
		bool t = i;
		matmul(k, false, t, GD(2, 2, 3), t ? GD(4, 3) : GD(3, 4));
		matmul(k, false, t, GD(2, 2, 3), t ? GD(1, 4, 3) : GD(1, 3, 4));
		matmul(k, false, t, GD(2, 1, 2, 3), t ? GD(3, 4, 3) : GD(3, 3, 4));
		matmul(k, t, true, GD(2, 3), GD(2, 4, 3 - t));
	}
}

static void case_matmul_batch_trans(grad_case *k)
{
	matmul(k, true, false, GD(2, 3, 2), GD(3, 4));
	matmul(k, true, true, GD(2, 3, 2), GD(4, 3));
	matmul(k, true, false, GD(2, 3, 2), GD(2, 3, 4));
	matmul(k, true, true, GD(1, 3, 2), GD(2, 4, 3));
}

static void case_matmul_mixed(grad_case *k) /* weights stay in f32, or the activations do */
{
	cx_attr_matmul t = cx_attr_matmul_default();
	t.trans_b = true;
	grad_mix(k,
		cx_matmul(k->g, grad_leaf(k, -1, 1, GD(2, 2, 3)), grad_leaf_f32(k, -1, 1, GD(4, 3)), &t));
	grad_mix(
		k, cx_matmul(k->g, grad_leaf_f32(k, -1, 1, GD(2, 3)), grad_leaf(k, -1, 1, GD(4, 3)), &t));
	t.trans_a = true;
	grad_mix(
		k, cx_matmul(k->g, grad_leaf_f32(k, -1, 1, GD(3, 2)), grad_leaf(k, -1, 1, GD(4, 3)), &t));
}

static void case_rope(grad_case *k)
{
	cx_attr_rope half = cx_attr_rope_default(), pairs = half;
	cx_tensor pos = grad_ints(k, GD(3), GRAD_VALUES(0, 5, 2)), none = CX_NONE;
	cx_tensor pos2 = grad_ints(k, GD(2, 2), GRAD_VALUES(0, 2, 9, 1));
	half.theta = 50;
	half.amplitude = 1.2f;
	pairs.pairs = true;
	pairs.n_rot = 4;
	grad_mix(k, cx_rope(k->g, grad_leaf(k, -1, 1, GD(3, 2, 4)), pos, none, none, none, &half));
	grad_mix(k, cx_rope(k->g, grad_leaf(k, -1, 1, GD(3, 2, 6)), pos, none, none, none, &pairs));
	grad_mix(k, cx_rope(k->g, grad_leaf(k, -1, 1, GD(3, 2, 6)), pos,
					grad_leaf_f32(k, 0.1, 1, GD(2)), none, none, &pairs));
	half.n_rot = 4;
	grad_mix(k, cx_rope(k->g, grad_leaf(k, -1, 1, GD(2, 2, 2, 5)), pos2, none,
					grad_leaf_f32(k, -1, 1, GD(3, 2)), grad_leaf_f32(k, -1, 1, GD(3, 2)), &half));
}

/* ---- scans ----------------------------------------------------------------------------------- */

static void scan(grad_case *k, bool reverse, bool reset, int outs)
{
	cx_attr_reset a = {.reverse = reverse};
	cx_tensor r = CX_NONE, h;
	if (reset) r = grad_bools(k, GD(2, 4), GRAD_VALUES(1, 0, 0, 1, 0, 1, 0));
	h = cx_scan(k->g, grad_leaf(k, -1, 1, GD(2, 4, 2)), grad_leaf(k, -1, 1, GD(2, 4, 2)),
		grad_leaf(k, -1, 1, GD(2, 2)), r, &a);
	if (outs & 1) grad_mix(k, cx_sin(k->g, h));
	if (outs & 2) grad_mix(k, cx_out(k->g, h, 1));
}

static void case_scan(grad_case *k)
{
	scan(k, false, false, 3);
	scan(k, true, true, 3);
}

static void case_scan_parts(grad_case *k)
{
	scan(k, false, true, 1);
	scan(k, true, false, 2);
	scan(k, false, true, 2);
}

static void cscan(grad_case *k, bool reverse, bool reset, int outs)
{
	cx_attr_reset a = {.reverse = reverse};
	cx_tensor in[6], r = CX_NONE, h;
	for (int i = 0; i < 4; i++) in[i] = grad_leaf(k, -1, 1, GD(2, 3, 2));
	for (int i = 4; i < 6; i++) in[i] = grad_leaf(k, -1, 1, GD(2, 2));
	if (reset) r = grad_bools(k, GD(2, 3), GRAD_VALUES(0, 1, 0, 1, 0));
	h = cx_cscan(k->g, in[0], in[1], in[2], in[3], in[4], in[5], r, &a);
	for (int i = 0; i < 4; i++)
		if (outs >> i & 1) grad_mix(k, cx_sin(k->g, cx_out(k->g, h, i)));
}

static void case_cscan(grad_case *k)
{
	cscan(k, false, false, 15);
}

static void case_cscan_reset(grad_case *k)
{
	cscan(k, true, true, 9);
}

#define ROW(op)                                                                                    \
	{                                                                                              \
		.name = #op, .build = case_##op                                                            \
	}
const grad_row grad_move_rows[] = {ROW(views), ROW(slice), ROW(split), ROW(windows),
	ROW(concat_pad), ROW(gather), ROW(embed_sum), ROW(scatter), ROW(assign), ROW(barrier),
	ROW(matmul), ROW(matmul_batch), ROW(matmul_batch_trans), ROW(matmul_mixed), ROW(rope),
	ROW(scan), ROW(scan_parts), ROW(cscan), ROW(cscan_reset)};
const uint32_t grad_n_move_rows = COUNT(grad_move_rows);
