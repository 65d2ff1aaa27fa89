/* grid_models.c - whole graphs for the grid: every pattern of tests/plan_graphs.h, transformers as
 * models/llm builds them, and layers of recurrent models; see grid.h. */
#include "tests/grid.h"

#include "graph/quant.h"
#include "models/layers.h"
#include "models/llm/llm.h"
#include "tests/llm_ref.h"
#include "tests/plan_graphs.h"
#include "tests/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SHAPE(...)                                                                                 \
	(int32_t)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[])               \
	{                                                                                              \
		__VA_ARGS__                                                                                \
	}

/* ---- transformers ---- */

/* A tiny random model of this family, through a folder as Hugging Face has them. */
static void build_llm(cx_graph *g, const char *arch, cx_dtype kv, int64_t tokens)
{
	cx_llm_bucket b = {.n_tokens = tokens,
		.n_logits = 2,
		.n_slots = 32,
		.n_seqs = 1,
		.n_blocks = 2,
		.page = 16,
		.kv = kv};
	char dir[] = "/tmp/cortex-grid-XXXXXX", path[64];
	static const char *const files[] = {"config.json", "model.safetensors"};
	cx_err err = {0};
	llm_ref ref;
	cx_llm *m = NULL;
	if (!mkdtemp(dir)) return; /* an empty graph fails to finish, and that is reported */
	llm_ref_random(&ref, arch, false, false, 3);
	llm_ref_write_hf(&ref, arch, false, 1, dir);
	if (cx_llm_open(dir, NULL, &m, &err) == CX_OK) cx_llm_build(m, &b, g);
	else printf("%s: %s\n", arch, err.msg);
	cx_llm_close(m);
	llm_ref_free(&ref);
	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof path, "%s/%s", dir, files[i]);
		unlink(path);
	}
	rmdir(dir);
}

static void build_llama(cx_graph *g)
{
	build_llm(g, "llama", CX_F32, 7);
}
static void build_llama_one(cx_graph *g)
{
	build_llm(g, "llama", CX_F16, 1);
}
static void build_qwen2(cx_graph *g)
{
	build_llm(g, "qwen2", CX_BF16, 4);
}
static void build_qwen3(cx_graph *g)
{
	build_llm(g, "qwen3", CX_F16, 8);
}
static void build_small(cx_graph *g)
{
	plan_build_model(g, &(plan_model){.layers = 3,
							.tokens = 8,
							.width = 64,
							.heads = 4,
							.kv_heads = 2,
							.hidden = 96,
							.slots = 32});
}
static void build_mixed(cx_graph *g)
{
	plan_build_mixed(g, 120);
}

/* ---- layers of other models ---- */

static cx_tensor dims3(cx_graph *g, cx_tensor x, int64_t a, int64_t b, int64_t c)
{
	return cx_reshape(g, x, &(cx_attr_dims){.dims = cx_list_from(3, (const int64_t[]){a, b, c})});
}

static cx_tensor project(
	cx_graph *g, cx_tensor x, const char *name, cx_dtype t, int64_t n, int64_t k)
{
	return cx_layer_linear(g, x, cx_weight(g, name, t, SHAPE(n, k)), CX_NONE);
}

/* Gated delta rule as the hybrids have it: convolution, normalised queries and keys, decay and
 * write strength from the input, a gated norm, then a full attention layer over it. */
static void build_delta(cx_graph *g)
{
	enum { T = 19, W = 64, NK = 2, NV = 4, D = 16, QKV = (2 * NK + NV) * D };
	cx_tensor x = cx_input(g, "x", CX_F32, SHAPE(T, W)), h, q, k, v, z, decay, beta, y;
	cx_attr_norm l2 = {.eps = 1e-6f};
	h = cx_rmsnorm(g, x, cx_weight(g, "n0", CX_F32, SHAPE(W)), NULL);
	y = project(g, h, "qkv", CX_Q8_0, QKV, W);
	y = cx_conv1d(g, y, cx_weight(g, "conv", CX_F32, SHAPE(QKV, 4)), CX_NONE,
		cx_state(g, "conv.state", CX_F32, SHAPE(1, 3, QKV)), CX_NONE, CX_NONE, NULL);
	y = cx_silu(g, y);
	y = dims3(g, y, T, 2 * NK + NV, D);
	q = cx_slice(
		g, y, &(cx_attr_slice){.begin = cx_list_of(3, 0, 0, 0), .size = cx_list_of(3, T, NK, D)});
	k = cx_slice(
		g, y, &(cx_attr_slice){.begin = cx_list_of(3, 0, NK, 0), .size = cx_list_of(3, T, NK, D)});
	v = cx_slice(g, y,
		&(cx_attr_slice){.begin = cx_list_of(3, 0, 2 * NK, 0), .size = cx_list_of(3, T, NV, D)});
	decay = cx_neg(g, cx_softplus(g, project(g, h, "a", CX_F32, NV, W)));
	beta = cx_sigmoid(g, project(g, h, "b", CX_F32, NV, W));
	y = cx_delta_rule(g, cx_l2norm(g, q, &l2), cx_l2norm(g, k, &l2), v, decay, beta,
		cx_state(g, "delta.state", CX_F32, SHAPE(1, NV, D, D)), CX_NONE, CX_NONE, NULL);
	z = dims3(g, project(g, h, "z", CX_F16, NV * D, W), T, NV, D);
	y = cx_mul(g, cx_rmsnorm(g, y, cx_weight(g, "n1", CX_F32, SHAPE(D)), NULL), cx_silu(g, z));
	y = cx_reshape(g, y, &(cx_attr_dims){.dims = cx_list_of(2, T, NV * D)});
	x = cx_add(g, x, project(g, y, "o", CX_Q8_0, W, NV * D));
	h = cx_layernorm(g, x, cx_weight(g, "n2", CX_F32, SHAPE(W)), CX_NONE, NULL);
	q = dims3(g, project(g, h, "q", CX_BF16, W, W), T, 4, D);
	k = dims3(g, project(g, h, "k", CX_BF16, W / 2, W), T, 2, D);
	v = dims3(g, project(g, h, "v", CX_BF16, W / 2, W), T, 2, D);
	y = cx_attention(g, q, k, v, CX_NONE, CX_NONE, CX_NONE, CX_NONE,
		&(cx_attr_attention){.causal = true, .window = 11});
	y = cx_reshape(g, y, &(cx_attr_dims){.dims = cx_list_of(2, T, W)});
	cx_output(g, "y", cx_add(g, x, project(g, y, "out", CX_I8C, W, W)));
}

/* Recurrent trace units and a real scan, with resets and what both leave behind. */
static void build_scan(cx_graph *g)
{
	enum { B = 2, T = 13, D = 24 };
	cx_tensor x = cx_input(g, "x", CX_F32, SHAPE(B, T, D)), r, a, y, h0;
	r = cx_gt(g, cx_input(g, "reset", CX_F32, SHAPE(B, T)), cx_const_f32(g, 0.8f));
	a = cx_sigmoid(g, project(g, x, "a", CX_F32, D, D));
	h0 = cx_state(g, "h", CX_F32, SHAPE(B, D));
	y = cx_scan(g, a, cx_mul(g, cx_sub(g, cx_const_f32(g, 1), a), x), h0, r, NULL);
	cx_output(g, "h", cx_assign(g, h0, cx_out(g, y, 1)));
	a = cx_mul(g, a, cx_const_f32(g, 0.7f));
	y = cx_cscan(g, a, cx_tanh(g, cx_mul(g, a, x)), y, x, cx_input(g, "re", CX_F32, SHAPE(B, D)),
		cx_input(g, "im", CX_F32, SHAPE(B, D)), r, NULL);
	cx_output(g, "re", cx_out(g, y, 2));
	y = cx_concat(g, (cx_tensor[]){cx_relu(g, y), cx_relu(g, cx_out(g, y, 1))}, 2,
		&(cx_attr_axis){.axis = 2});
	cx_output(g, "y", project(g, y, "out", CX_F16, D, 2 * D));
}

/* A spike decoder: tables summed at events, a bidirectional encoder, a readout and its loss. */
static void build_events(cx_graph *g)
{
	enum { E = 40, N = 30, W = 32, H = 2 };
	cx_attr_axis rows = {.axis = 0};
	cx_tensor unit = cx_input(g, "unit", CX_I32, SHAPE(E)),
			  bin = cx_input(g, "bin", CX_I32, SHAPE(E));
	cx_tensor x, h, q, y;
	x = cx_add(g, cx_gather(g, cx_weight(g, "units", CX_F32, SHAPE(N, W)), unit, &rows),
		cx_gather(g, cx_weight(g, "bins", CX_F32, SHAPE(N, W)), bin, &rows));
	h = cx_layernorm(
		g, x, cx_weight(g, "nw", CX_F32, SHAPE(W)), cx_weight(g, "nb", CX_F32, SHAPE(W)), NULL);
	q = dims3(g, project(g, h, "qkv", CX_F32, 3 * W, W), E, 3 * H, W / H);
	y = cx_attention(g,
		cx_slice(g, q,
			&(cx_attr_slice){.begin = cx_list_of(3, 0, 0, 0), .size = cx_list_of(3, E, H, W / H)}),
		cx_slice(g, q,
			&(cx_attr_slice){.begin = cx_list_of(3, 0, H, 0), .size = cx_list_of(3, E, H, W / H)}),
		cx_slice(g, q,
			&(cx_attr_slice){
				.begin = cx_list_of(3, 0, 2 * H, 0), .size = cx_list_of(3, E, H, W / H)}),
		CX_NONE, CX_NONE, CX_NONE, CX_NONE, NULL);
	y = cx_reshape(g, y, &(cx_attr_dims){.dims = cx_list_of(2, E, W)});
	x = cx_add(g, x, project(g, y, "o", CX_F32, W, W));
	y = project(g, cx_gelu(g, project(g, x, "up", CX_F32, 4 * W, W)), "down", CX_F32, W, 4 * W);
	x = cx_add(g, x, y);
	y = project(g, cx_mean(g, x, &(cx_attr_reduce){.axes = cx_list_of(1, 0), .keep = true}), "read",
		CX_F32, 5, W);
	cx_output(g, "y", cx_log_softmax(g, y, NULL));
	cx_output(g, "loss",
		cx_poisson_nll(g, cx_clamp(g, y, &(cx_attr_clamp){.lo = -3, .hi = 3}),
			cx_input(g, "counts", CX_F32, SHAPE(1, 5)), NULL));
}

const grid_model grid_models[] = {
	{"llama, 7 tokens", build_llama},
	{"llama, 1 token", build_llama_one},
	{"qwen2, 4 tokens", build_qwen2},
	{"qwen3, 8 tokens", build_qwen3},
	{"transformer of 3 layers", build_small},
	{"mixed nodes", build_mixed},
	{"gated delta net", build_delta},
	{"scans", build_scan},
	{"spike events", build_events},
	{0},
};

/* ---- leaves ---- */

static bool fill(void *ctx, uint32_t id, void *buf, uint64_t bytes)
{
	const cx_node *n = &((const cx_graph *)ctx)->nodes[id];
	int64_t elems = cx__desc_elems(&n->desc),
			cols = n->desc.rank ? n->desc.dim[n->desc.rank - 1] : 1;
	cx_rng rng = cx__rng_make(11, id);
	cx_dtype_class cls = cx_dtype_get(n->desc.dtype)->cls;
	float *x;
	if (n->desc.dtype == CX_I32 &&
		(strcmp(n->name, "tokens") == 0 || strcmp(n->name, "unit") == 0 ||
			strcmp(n->name, "bin") == 0)) {
		for (int64_t i = 0; i < elems; i++) ((int32_t *)buf)[i] = (int32_t)cx__rng_int(&rng, 0, 29);
		return true;
	}
	if (n->desc.dtype == CX_I32 &&
		(strcmp(n->name, "q_off") == 0 || strcmp(n->name, "kv_len") == 0)) {
		const cx_graph *g = ctx;
		int32_t tokens = 8;
		for (uint32_t i = 0; i < g->n_nodes; i++)
			if (g->nodes[i].op == CX_OP_input && strcmp(g->nodes[i].name, "pos") == 0)
				tokens = (int32_t)g->nodes[i].desc.dim[0];
		for (int64_t i = 0; i < elems; i++)
			((int32_t *)buf)[i] = n->name[0] == 'q' && i == 0 ? 0 : tokens;
		return true;
	}
	if (cls != CX_CLASS_FLOAT && cls != CX_CLASS_BLOCK) return plan_fill_leaf(ctx, id, buf, bytes);
	x = malloc((size_t)elems * sizeof *x + 4);
	if (!x) return false;
	for (int64_t i = 0; i < elems; i++) x[i] = cx__rng_float(&rng, -0.5f, 0.5f);
	if (n->desc.dtype == CX_F32) memcpy(buf, x, (size_t)elems * sizeof *x);
	else if (n->desc.dtype == CX_I8C) cx_quant_i8c(x, elems / cols, cols, buf);
	else cx_quant_row(n->desc.dtype, x, buf, elems);
	free(x);
	return true;
}

/* ---- running ---- */

grid_verdict grid_model_run(
	grid_device *d, const grid_model *m, bool no_fuse, char *why, size_t why_size)
{
	plan_check check = {
		.opts = {.devices = &d->dev, .n_devices = 1, .no_fuse = no_fuse, .verify = true},
		.tol = 1e-7,
		.tol_narrow = 1e-4,
		.floor = 1e-3};
	cx_graph *g = NULL;
	plan_want want = {0};
	cx_err err = {0};
	cx_status st = cx_graph_create(NULL, &g, &err);
	why[0] = 0;
	if (st == CX_OK) {
		m->build(g);
		st = cx_graph_finish(g, &err);
	}
	if (st == CX_OK) st = plan_want_make(g, fill, g, &want, &err);
	if (st == CX_OK) st = plan_run_check(&want, d->rt, &check, NULL, &err);
	plan_want_free(&want);
	cx_graph_free(g);
	if (st == CX_OK) return GRID_PASS;
	snprintf(why, why_size, "%s", err.msg);
	return st == CX_ERR_UNSUPPORTED ? GRID_NONE : GRID_FAIL;
}
