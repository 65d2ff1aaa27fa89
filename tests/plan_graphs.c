/* plan_graphs.c - see plan_graphs.h. */
#include "tests/plan_graphs.h"
#include "graph/quant.h"
#include "tests/rng.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define SHAPE(...)                                                                                 \
	(int32_t)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[])               \
	{                                                                                              \
		__VA_ARGS__                                                                                \
	}

static const cx_attr_matmul by_rows = {.trans_b = true};

static cx_tensor in(cx_graph *g, const char *name, int32_t rank, const int64_t *dim)
{
	return cx_input(g, name, CX_F32, rank, dim);
}

static cx_tensor w(cx_graph *g, const char *name, int64_t n, int64_t k)
{
	return cx_weight(g, name, CX_F32, SHAPE(n, k));
}

/* ---- patterns ---- */

static void norm_linear(cx_graph *g, int variant)
{
	cx_tensor x = in(g, "x", SHAPE(3, 8)), h, y;
	h = cx_rmsnorm(g, x, cx_weight(g, "nw", CX_F32, SHAPE(8)), NULL);
	y = cx_matmul(g, h, w(g, "w", 4, 8), &by_rows);
	if (variant == 1) cx_output(g, "h", h);            /* the norm is wanted itself */
	if (variant == 2) cx_output(g, "z", cx_neg(g, h)); /* another reader */
	if (variant == 3)
		y = cx_add(g, y,
			cx_matmul(g, h,
				cx_permute(g, w(g, "w2", 8, 4), &(cx_attr_perm){cx_list_of(2, 1, 0), 0}),
				&by_rows));
	cx_output(g, "y", y);
}

static void linear_tail(cx_graph *g, int variant)
{
	cx_tensor x = in(g, "x", SHAPE(3, 8)), r = in(g, "r", SHAPE(3, 4)), y;
	y = cx_matmul(g, x, w(g, "w", 4, 8), &by_rows);
	if (variant == 1) cx_output(g, "mm", y);
	y = cx_add(
		g, y, variant == 2 ? in(g, "col", SHAPE(3, 1)) : cx_weight(g, "b", CX_F32, SHAPE(4)));
	y = cx_gelu(g, y);
	if (variant == 3)
		r = cx_neg(g, cx_softmax(g, y, NULL)); /* the residual comes from the product itself */
	cx_output(g, "y", cx_add(g, r, y));
}

static void gate_up(cx_graph *g, int variant)
{
	cx_tensor x = in(g, "x", SHAPE(3, 8)), h = cx_rmsnorm(g, x, CX_NONE, NULL), a, b;
	a = cx_matmul(g, h, w(g, "wg", 6, 8), &by_rows);
	b = cx_matmul(g, variant == 2 ? x : h, w(g, "wu", 6, 8), &by_rows);
	if (variant == 1) cx_output(g, "gate", a);
	a = cx_mul(g, cx_silu(g, a), b);
	cx_output(g, "y", cx_add(g, x, cx_matmul(g, a, w(g, "wd", 8, 6), &by_rows)));
}

static void qkv(cx_graph *g, int variant)
{
	cx_tensor x = in(g, "x", SHAPE(3, 8)), h = cx_layernorm(g, x, CX_NONE, CX_NONE, NULL), q, k, v;
	q = cx_matmul(g, h, w(g, "wq", 8, 8), &by_rows);
	if (variant == 1) h = cx_add(g, h, q); /* k and v read what q made */
	k = cx_matmul(g, h, w(g, "wk", 4, 8), &by_rows);
	v = cx_matmul(g, variant == 2 ? x : h, w(g, "wv", 4, 8), &by_rows);
	cx_output(g, "q", q);
	cx_output(g, "k", cx_add(g, k, cx_weight(g, "bk", CX_F32, SHAPE(4))));
	cx_output(g, "v", v);
}

static void rope_kv(cx_graph *g, int variant)
{
	cx_tensor k = in(g, "k", SHAPE(3, 2, 4)), v = in(g, "v", SHAPE(3, 2, 4));
	cx_tensor pos = cx_input(g, "pos", CX_I32, SHAPE(3)),
			  slot = cx_input(g, "slot", CX_I32, SHAPE(3));
	cx_tensor other = variant == 2 ? cx_input(g, "slot2", CX_I32, SHAPE(3)) : slot;
	cx_tensor kc = cx_state(g, "kc", CX_F32, SHAPE(9, 2, 4)),
			  vc = cx_state(g, "vc", CX_F32, SHAPE(9, 2, 4));
	k = cx_rope(g, k, pos, CX_NONE, CX_NONE, CX_NONE, NULL);
	if (variant == 1) cx_output(g, "rotated", k);
	kc = cx_scatter(g, kc, slot, k, NULL);
	if (variant == 3)
		v = cx_mul(g, v,
			cx_slice(
				g, kc, &(cx_attr_slice){cx_list_of(3, 0, 0, 0), cx_list_of(3, 3, 2, 4), {0}, 0}));
	vc = cx_scatter(g, vc, other, v, NULL);
	cx_output(g, "y", cx_sum(g, cx_add(g, kc, vc), NULL));
}

static void add_norm(cx_graph *g, int variant)
{
	cx_tensor a = in(g, "a", SHAPE(3, 8)), b = in(g, "b", SHAPE(variant == 1 ? 1 : 3, 8)),
			  s = cx_add(g, a, b);
	cx_tensor y = cx_layernorm(
		g, s, cx_weight(g, "nw", CX_F32, SHAPE(8)), cx_weight(g, "nb", CX_F32, SHAPE(8)), NULL);
	cx_output(g, "y", y);
	cx_output(g, "s", cx_cumsum(g, s, NULL));
}

static void attention(cx_graph *g, int variant)
{
	static const float see[] = {0, -INFINITY, -INFINITY, 0, 0, -INFINITY, 0, 0, 0};
	cx_attr_perm heads = {cx_list_of(4, 0, 2, 1, 3), 0};
	cx_attr_dims flat = {cx_list_of(3, 2, 3, 8), 0};
	cx_tensor q = in(g, "q", SHAPE(2, 3, 2, 4)), k = in(g, "k", SHAPE(2, 3, 2, 4)),
			  v = in(g, "v", SHAPE(2, 3, 2, 4)), s;
	q = cx_permute(g, q, &heads);
	k = cx_permute(g, k, &heads);
	v = cx_permute(g, v, &heads);
	s = cx_mul(g, cx_matmul(g, q, k, &by_rows), cx_const_f32(g, 0.5f));
	if (variant == 1) cx_output(g, "scores", s);
	if (variant == 2)
		s = cx_add(g, s, in(g, "bias", SHAPE(3, 3))); /* not known to let every row see */
	if (variant == 4) s = cx_add(g, s, cx_const(g, CX_F32, SHAPE(3, 3), see));
	s = cx_matmul(g, cx_softmax(g, s, NULL), v, NULL);
	if (variant == 3) cx_output(g, "o", cx_neg(g, s)); /* wanted with heads outside */
	else cx_output(g, "o", cx_reshape(g, cx_permute(g, s, &heads), &flat));
}

static void conv_silu(cx_graph *g, int variant)
{
	cx_tensor y = cx_conv1d(g, in(g, "x", SHAPE(5, 4)), w(g, "w", 4, 3), CX_NONE,
		cx_state(g, "s", CX_F32, SHAPE(1, 2, 4)), CX_NONE, CX_NONE, NULL);
	if (variant == 1) cx_output(g, "conv", y);
	cx_output(g, "y", cx_silu(g, y));
}

static void embed_sum(cx_graph *g, int variant)
{
	cx_attr_axis a = {.axis = variant == 2 ? 1 : 0};
	cx_tensor i = cx_input(g, "i", CX_I32, SHAPE(4)), j = cx_input(g, "j", CX_I32, SHAPE(4));
	cx_tensor x = cx_gather(g, w(g, "t0", 4, 4), i, &a), y = cx_gather(g, w(g, "t1", 4, 4), j, &a);
	if (variant == 1) cx_output(g, "x", x);
	x = cx_add(g, cx_add(g, x, y), cx_gather(g, w(g, "t2", 4, 4), i, &a));
	cx_output(g, "y", x);
}

static void softmax_scale(cx_graph *g, int variant)
{
	cx_tensor x = in(g, "x", SHAPE(3, 5)),
			  s = variant == 2 ? in(g, "s", 0, NULL) : cx_const_f32(g, 0.25f);
	x = cx_mul(g, s, x);
	if (variant == 1) cx_output(g, "x4", x);
	cx_output(g, "y", cx_softmax(g, x, NULL));
}

static void map_chain(cx_graph *g, int variant)
{
	cx_attr_reduce last = {.axes = cx_list_of(1, 1), .keep = true};
	cx_tensor x = in(g, "x", SHAPE(4, 6)), b = in(g, "b", SHAPE(6)), a, c;
	a = cx_exp(g, cx_add(g, x, b));
	if (variant == 1) a = cx_cumsum(g, a, NULL);
	if (variant == 2) cx_output(g, "a", a); /* becomes a second output */
	if (variant == 3)
		a = cx_mul(
			g, a, cx_broadcast(g, cx_sum(g, a, &last), &(cx_attr_dims){cx_list_of(2, 4, 6), 0}));
	c = cx_sub(g, a, cx_tanh(g, x));
	if (variant == 4) c = cx_mean(g, c, &last);
	cx_output(g, "y", c);
}

const plan_case plan_cases[] = {
	{"norm+linear", norm_linear, CX_FUSION_linear,
		{{"alone", 1, -1}, {"the norm is an output", 0, -1}, {"the norm has another reader", 0, -1},
			{"two products on the norm", 1, -1}}},
	{"linear+bias+activation+residual", linear_tail, CX_FUSION_linear,
		{{"alone", 1, -1}, {"the product is an output", 0, -1},
			{"a bias along the wrong axis", 0, -1},
			{"the residual depends on the product", 1, -1}}},
	{"gate/up+SwiGLU", gate_up, CX_FUSION_gate_up,
		{{"alone", 1, -1}, {"the gate is an output", 0, -1}, {"different inputs", 0, -1}}},
	{"QKV merge", qkv, CX_FUSION_linear,
		{{"alone", 1, -1}, {"k and v need q", 1, -1}, {"v reads something else", 1, -1}}},
	{"rope+KV write", rope_kv, CX_FUSION_rope_kv,
		{{"alone", 1, -1}, {"the rotated key is an output", 0, -1}, {"other slots", 0, -1},
			{"the value reads the new keys", 0, CX_WHY_MISS_ORDER}}},
	{"residual+norm", add_norm, CX_FUSION_add_norm,
		{{"alone", 1, -1}, {"the sum broadcasts", 0, -1}}},
	{"attention", attention, CX_FUSION_attention,
		{{"alone", 1, -1}, {"the scores are an output", 0, -1},
			{"a bias that is not known", 0, CX_WHY_MISS_MASK},
			{"heads outside", 0, CX_WHY_MISS_SHAPE}, {"a constant bias", 1, -1}}},
	{"conv1d+silu", conv_silu, CX_FUSION_conv_silu,
		{{"alone", 1, -1}, {"the convolution is an output", 0, -1}}},
	{"gather and sum", embed_sum, CX_FUSION_embed_sum,
		{{"alone", 1, -1}, {"one row is an output", 0, -1}, {"columns", 0, -1}}},
	{"scale into softmax", softmax_scale, CX_FUSION_softmax_scale,
		{{"alone", 1, -1}, {"the product is an output", 0, CX_WHY_MISS_OUTPUT},
			{"a factor that is not known", 0, -1}}},
	{"map", map_chain, CX_FUSION_map,
		{{"chain", 1, -1}, {"split by a running sum", 2, -1}, {"two outputs", 1, -1},
			{"a reduction in the middle", 2, -1}, {"a mean at the end", 1, -1}}},
	{0},
};

/* ---- models ---- */

typedef struct leaf_name {
	char s[32];
} leaf_name;
static leaf_name of_layer(const char *what, int layer)
{
	leaf_name n;
	snprintf(n.s, sizeof n.s, "blk.%d.%s", layer, what);
	return n;
}

static cx_tensor heads_of(cx_graph *g, cx_tensor x, int t, int h, int d)
{
	return cx_reshape(g, x, &(cx_attr_dims){cx_list_of(3, t, h, d), 0});
}

static cx_tensor block(cx_graph *g, const plan_model *m, cx_tensor x, cx_tensor pos, cx_tensor slot,
	cx_tensor table, cx_tensor q_off, cx_tensor kv_len, int layer)
{
	int d = m->width / m->heads, kv = m->kv_heads * d;
	cx_attr_paged pa = cx_attr_paged_default();
	cx_tensor h, q, k, v, kc, vc, gate, up;
	h = cx_rmsnorm(
		g, x, cx_weight(g, of_layer("attn_norm", layer).s, CX_F32, SHAPE(m->width)), NULL);
	q = heads_of(g, cx_matmul(g, h, w(g, of_layer("q", layer).s, m->width, m->width), &by_rows),
		m->tokens, m->heads, d);
	k = heads_of(g, cx_matmul(g, h, w(g, of_layer("k", layer).s, kv, m->width), &by_rows),
		m->tokens, m->kv_heads, d);
	v = heads_of(g, cx_matmul(g, h, w(g, of_layer("v", layer).s, kv, m->width), &by_rows),
		m->tokens, m->kv_heads, d);
	q = cx_rope(g, q, pos, CX_NONE, CX_NONE, CX_NONE, NULL);
	k = cx_rope(g, k, pos, CX_NONE, CX_NONE, CX_NONE, NULL);
	kc =
		cx_scatter(g, cx_state(g, of_layer("kc", layer).s, CX_F32, SHAPE(m->slots, m->kv_heads, d)),
			slot, k, NULL);
	vc =
		cx_scatter(g, cx_state(g, of_layer("vc", layer).s, CX_F32, SHAPE(m->slots, m->kv_heads, d)),
			slot, v, NULL);
	q = cx_paged_attention(g, q, kc, vc, table, q_off, kv_len, &pa);
	q = cx_reshape(g, q, &(cx_attr_dims){cx_list_of(2, m->tokens, m->width), 0});
	x = cx_add(g, x, cx_matmul(g, q, w(g, of_layer("o", layer).s, m->width, m->width), &by_rows));
	h = cx_rmsnorm(
		g, x, cx_weight(g, of_layer("ffn_norm", layer).s, CX_F32, SHAPE(m->width)), NULL);
	gate = cx_matmul(g, h, w(g, of_layer("gate", layer).s, m->hidden, m->width), &by_rows);
	up = cx_matmul(g, h, w(g, of_layer("up", layer).s, m->hidden, m->width), &by_rows);
	h = cx_mul(g, cx_silu(g, gate), up);
	return cx_add(
		g, x, cx_matmul(g, h, w(g, of_layer("down", layer).s, m->width, m->hidden), &by_rows));
}

void plan_build_model(cx_graph *g, const plan_model *m)
{
	int64_t blocks = m->slots / 16;
	cx_attr_axis rows = {.axis = 0};
	cx_tensor ids = cx_input(g, "ids", CX_I32, SHAPE(m->tokens)), x;
	cx_tensor pos = cx_input(g, "pos", CX_I32, SHAPE(m->tokens)),
			  slot = cx_input(g, "slot", CX_I32, SHAPE(m->tokens));
	cx_tensor table = cx_input(g, "table", CX_I32, SHAPE(1, blocks)),
			  q_off = cx_input(g, "q_off", CX_I32, SHAPE(2));
	cx_tensor kv_len = cx_input(g, "kv_len", CX_I32, SHAPE(1));
	x = cx_gather(g, w(g, "embed", 32, m->width), ids, &rows);
	for (int i = 0; i < m->layers; i++) {
		cx_scope_push(g, "blk.%d", i);
		x = block(g, m, x, pos, slot, table, q_off, kv_len, i);
		cx_scope_pop(g);
	}
	x = cx_rmsnorm(g, x, cx_weight(g, "norm", CX_F32, SHAPE(m->width)), NULL);
	cx_output(g, "logits", cx_matmul(g, x, w(g, "head", 32, m->width), &by_rows));
}

void plan_build_mixed(cx_graph *g, uint32_t n)
{
	cx_attr_reduce last = {.axes = cx_list_of(1, 1), .keep = true};
	cx_tensor x = in(g, "x", SHAPE(8, 16)), skip = x, ww = w(g, "w", 16, 16),
			  b = cx_weight(g, "b", CX_F32, SHAPE(16));
	while (cx_graph_n_nodes(g) < n) {
		cx_tensor y = cx_tanh(g, cx_add(g, cx_matmul(g, x, ww, &by_rows), b)), z;
		z = cx_mul(g, cx_sigmoid(g, y), cx_sub(g, y, skip));
		z = cx_sub(g, z, cx_mean(g, cx_mul(g, z, z), &last));
		z = cx_softmax(g, cx_permute(g, z, &(cx_attr_perm){cx_list_of(2, 1, 0), 0}), NULL);
		z = cx_reshape(g, cx_permute(g, z, &(cx_attr_perm){cx_list_of(2, 1, 0), 0}),
			&(cx_attr_dims){cx_list_of(2, 8, 16), 0});
		skip = x;
		x = cx_max(g, cx_neg(g, z), cx_abs(g, x));
	}
	cx_output(g, "y", x);
}

/* ---- leaves ---- */

bool plan_fill_leaf(void *ctx, uint32_t id, void *buf, uint64_t bytes)
{
	const cx_node *n = &((const cx_graph *)ctx)->nodes[id];
	cx_rng rng = cx__rng_make(7, id);
	int64_t elems = cx__desc_elems(&n->desc);
	if (n->desc.dtype == CX_F32) {
		for (int64_t i = 0; i < elems; i++) ((float *)buf)[i] = cx__rng_float(&rng, -1, 1);
		return true;
	}
	if (n->desc.dtype != CX_I32) { /* finite as f16 and in blocks, 0 and 1 as bool */
		for (uint64_t i = 0; i < bytes; i++) ((unsigned char *)buf)[i] = i % 2;
		return true;
	}
	for (int64_t i = 0; i < elems; i++) {
		int32_t v = (int32_t)(i % 3);
		if (strcmp(n->name, "slot") == 0 || strcmp(n->name, "pos") == 0 ||
			strcmp(n->name, "table") == 0)
			v = (int32_t)i;
		if (strcmp(n->name, "q_off") == 0) v = i ? 8 : 0;
		if (strcmp(n->name, "kv_len") == 0) v = 8;
		memcpy((char *)buf + 4 * i, &v, 4);
	}
	return (uint64_t)elems * 4 == bytes;
}
