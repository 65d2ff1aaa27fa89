/* cortex.c - builds the graph of a Cortex decoder. See cortex.h.
 *
 * Nothing here is fused and nothing padded: the planner makes norm + product, product + gelu and
 * product + residual one step each, and reads heads through strides. */
#include "models/decoder/cortex.h"

#include <stdio.h>

#include "models/layers.h"

enum { MAX_PARAMS = 32 + 8 * CX_CORTEX_MAX_LAYERS };
#define EPS 1e-5f /* of every norm, spec/decoder.md 1.6 */

typedef struct builder {
	const cx_cortex_config *c;
	const cx_cortex_source *src;
	cx_cortex_bucket b;
	cx_graph *g;
	cx_tensor param[MAX_PARAMS]; /* CX_NONE: not asked for yet */
	int64_t block;               /* of self-attention, -1 outside */
	cx_tensor key;
	int32_t n_drops;   /* places of dropout so far */
	cx_tensor lat_off; /* const i32 [B+1]: 0, L, 2L ... */
} builder;

/* ---- small pieces ---- */

static cx_tensor param(builder *b, const char *name)
{
	size_t i = cx__cortex_param_index(b->c, b->block, name);
	cx_cortex_param p;
	if (!cx_is_none(b->param[i])) return b->param[i];
	cx_cortex_param_get(b->c, i, &p);
	return b->param[i] = b->src->get(b->src->ctx, b->g, &p, i);
}

static cx_tensor norm(builder *b, cx_tensor x, const char *at)
{
	char name[64];
	cx_attr_norm a = cx_attr_norm_default();
	cx_tensor w;
	a.eps = EPS;
	snprintf(name, sizeof name, "%s.weight", at);
	w = param(b, name);
	if (b->c->norm == CX_CORTEX_RMSNORM) return cx_rmsnorm(cx_at(b->g), x, w, &a);
	snprintf(name, sizeof name, "%s.bias", at);
	return cx_layernorm(cx_at(b->g), x, w, param(b, name), &a);
}

static cx_tensor plain_linear(builder *b, cx_tensor x, const char *at)
{
	char name[64];
	snprintf(name, sizeof name, "%s.weight", at);
	return cx_named(b->g, cx_layer_linear(cx_at(b->g), x, param(b, name), CX_NONE), at);
}

/* As the source has it. */
static cx_tensor linear(builder *b, cx_tensor x, const char *at)
{
	char name[64];
	cx_cortex_param p;
	size_t i;
	cx_tensor w;
	if (!b->src->product) return plain_linear(b, x, at);
	snprintf(name, sizeof name, "%s.weight", at);
	i = cx__cortex_param_index(b->c, b->block, name);
	cx_cortex_param_get(b->c, i, &p);
	w = param(b, name);
	return cx_named(b->g, b->src->product(b->src->ctx, cx_at(b->g), &p, i, x, w), at);
}

static cx_tensor shaped(builder *b, cx_tensor x, int32_t rank, const int64_t *dims)
{
	cx_attr_dims a = {.dims = cx_list_from(rank, dims)};
	return cx_reshape(b->g, x, &a);
}

/* Columns which*D .. of x [rows, n*D], as heads: a view. `windows` splits the rows into
 * [B, rows/B, ..]. */
static cx_tensor heads(builder *b, cx_tensor x, int64_t which, int64_t n_heads, bool windows)
{
	int64_t rows = cx_tensor_shape(b->g, x).dim[0], d = b->c->latent_dim, n = b->b.n_windows;
	int64_t dims[4] = {n, rows / n, n_heads, d / n_heads};
	cx_attr_slice a = cx_attr_slice_default();
	a.begin = cx_list_from(2, (int64_t[]){0, which * d});
	a.size = cx_list_from(2, (int64_t[]){rows, d});
	x = cx_slice(b->g, x, &a);
	if (windows) return shaped(b, x, 4, dims);
	dims[1] = rows;
	return shaped(b, x, 3, dims + 1);
}

/* x [r,..] n times, one after another: [n*r,..]. No copy when n is 1. */
static cx_tensor repeat(builder *b, cx_tensor x, int64_t n)
{
	cx_shape s = cx_tensor_shape(b->g, x);
	int64_t dims[CX_MAX_RANK] = {n}, flat[CX_MAX_RANK];
	for (int32_t i = 0; i < s.rank; i++) dims[i + 1] = flat[i] = s.dim[i];
	flat[0] *= n;
	x = cx_broadcast(b->g, x, &(cx_attr_dims){.dims = cx_list_from(s.rank + 1, dims)});
	return shaped(b, x, s.rank, flat);
}

/* Drops elements of x with the configured probability, at a place of its own in the generator. */
static cx_tensor dropped(builder *b, cx_tensor x)
{
	cx_shape s = cx_tensor_shape(b->g, x);
	float p = (float)b->c->dropout;
	int32_t place[4] = {0, 0, 0, b->n_drops++};
	int64_t four = 4;
	cx_attr_random a = cx_attr_random_default();
	cx_tensor key, keep;
	if (!b->b.train || !(p > 0)) return x;
	a.dims = cx_list_from(s.rank, s.dim);
	key = cx_add(b->g, b->key, cx_const(b->g, CX_I32, 1, &four, place));
	keep = cx_ge(b->g, cx_random(cx_at(b->g), key, &a), cx_const_f32(b->g, p));
	x = cx_mul(b->g, x, cx_const_f32(b->g, 1 / (1 - p)));
	return cx_where(cx_at(b->g), keep, x, cx_const_f32(b->g, 0));
}

static cx_tensor cast(builder *b, cx_tensor x, cx_dtype t)
{
	if (cx_tensor_dtype(b->g, x) == t) return x;
	return cx_cast(cx_at(b->g), x, &(cx_attr_cast){.dtype = t});
}

/* In the type of activations. */
static cx_tensor act(builder *b, cx_tensor x)
{
	return cast(b, x, b->src->act);
}

/* ---- constants of a set of parameters ---- */

static cx_tensor cross_query(builder *b)
{
	return linear(b, norm(b, param(b, "encoder.latents"), "encoder.cross_attn.norm_q"),
		"encoder.cross_attn.q_proj");
}

static cx_tensor behavior_query(builder *b)
{
	return linear(b, param(b, "behavior_head.query"), "behavior_head.q_proj");
}

static cx_tensor folded(builder *b, const char *name, int64_t rows)
{
	int64_t dims[2] = {rows, b->c->latent_dim};
	return cx_weight(b->g, name, CX_F32, 2, dims);
}

/* ---- encoder ---- */

static cx_tensor tokens(builder *b, const cx_cortex_graph *m)
{
	cx_tensor in[6] = {param(b, "tokenizer.neuron_emb.weight"), m->neuron,
		param(b, "tokenizer.time_emb.weight"), m->time, param(b, "tokenizer.value_emb.weight"),
		m->value};
	return cx_named(b->g, act(b, cx_embed_sum(cx_at(b->g), in, 6)), "tokens");
}

static cx_tensor cross_attention(builder *b, const cx_cortex_graph *m)
{
	int64_t n = b->b.n_windows, d = b->c->latent_dim, rows = n * b->c->num_latents;
	cx_tensor x, q, kv, o;
	q = b->src->folded ? folded(b, "folded.cross_q", b->c->num_latents) : cross_query(b);
	q = heads(b, repeat(b, act(b, q), n), 0, b->c->cross_attn_heads, false);
	x = norm(b, tokens(b, m), "encoder.cross_attn.norm_kv");
	kv = linear(b, x, "encoder.cross_attn.kv_proj");
	o = cx_attention(cx_at(b->g), q, heads(b, kv, 0, b->c->cross_attn_heads, false),
		heads(b, kv, 1, b->c->cross_attn_heads, false), b->lat_off, m->off, CX_NONE, CX_NONE, NULL);
	o = shaped(b, cx_named(b->g, o, "encoder.cross_attn"), 2, (int64_t[]){rows, d});
	o = dropped(b, linear(b, o, "encoder.cross_attn.out_proj"));
	o = cx_add(cx_at(b->g), o, repeat(b, act(b, param(b, "encoder.latents")), n));
	return cx_named(b->g, o, "encoder.cross_attn.sum");
}

static cx_tensor self_attention(builder *b, cx_tensor z)
{
	int64_t d = b->c->latent_dim, rows = b->b.n_windows * b->c->num_latents, h = b->c->num_heads;
	cx_tensor qkv = linear(b, norm(b, z, "norm_attn"), "qkv_proj"), o;
	o = cx_attention(cx_at(b->g), heads(b, qkv, 0, h, true), heads(b, qkv, 1, h, true),
		heads(b, qkv, 2, h, true), CX_NONE, CX_NONE, CX_NONE, CX_NONE, NULL);
	o = shaped(b, cx_named(b->g, o, "attention"), 2, (int64_t[]){rows, d});
	o = cx_add(cx_at(b->g), dropped(b, linear(b, o, "out_proj")), z);
	return cx_named(b->g, o, "attention.sum");
}

static cx_tensor mlp(builder *b, cx_tensor z)
{
	cx_tensor h = cx_gelu(cx_at(b->g), linear(b, norm(b, z, "norm_mlp"), "mlp.0"));
	h = linear(b, cx_named(b->g, h, "mlp.1"), "mlp.2");
	return cx_named(b->g, cx_add(cx_at(b->g), dropped(b, h), z), "mlp.sum");
}

/* ---- heads ---- */

/* K and V of the read-out, [B*L, 2D]. */
static cx_tensor read_out(builder *b, cx_tensor z)
{
	return linear(b, norm(b, z, "behavior_head.norm"), "behavior_head.kv_proj");
}

static cx_tensor behavior_head(builder *b, cx_tensor kv)
{
	int64_t n = b->b.n_windows, d = b->c->latent_dim, h = b->c->num_heads;
	int64_t rows = n * b->c->behavior_dim;
	int64_t dims[4] = {n, b->c->behavior_dim, h, d / h};
	cx_tensor q = b->src->folded ? folded(b, "folded.behavior_q", b->c->behavior_dim)
								 : behavior_query(b),
			  o;
	q = shaped(b, act(b, q), 3, dims + 1);
	q = cx_broadcast(b->g, q, &(cx_attr_dims){.dims = cx_list_from(4, dims)});
	o = cx_attention(cx_at(b->g), q, heads(b, kv, 0, h, true), heads(b, kv, 1, h, true), CX_NONE,
		CX_NONE, CX_NONE, CX_NONE, NULL);
	o = shaped(b, cx_named(b->g, o, "behavior_head"), 2, (int64_t[]){rows, d});
	return shaped(b, cast(b, linear(b, o, "behavior_head.out_proj"), CX_F32), 2, dims);
}

static cx_tensor spike_logits(builder *b, cx_tensor x)
{
	return cx_layer_linear(cx_at(b->g), x, param(b, "masked_spike_head.proj.weight"),
		param(b, "masked_spike_head.proj.bias"));
}

static cx_tensor masked_head(builder *b, const cx_cortex_graph *m, cx_tensor kv)
{
	int64_t h = b->c->num_heads, flat[2] = {b->b.n_queries, b->c->latent_dim};
	cx_tensor in[4] = {param(b, "tokenizer.neuron_emb.weight"), m->query_neuron,
		param(b, "tokenizer.time_emb.weight"), m->query_time};
	cx_tensor x = act(b, cx_embed_sum(cx_at(b->g), in, 4)), q, o;
	/* activations of another kind than those that an act_scale was calibrated on */
	q = heads(b, plain_linear(b, x, "behavior_head.q_proj"), 0, h, false);
	o = cx_attention(cx_at(b->g), q, heads(b, kv, 0, h, false), heads(b, kv, 1, h, false),
		m->query_off, b->lat_off, CX_NONE, CX_NONE, NULL);
	o = shaped(b, cx_named(b->g, o, "masked_spike_head"), 2, flat);
	return spike_logits(b, cast(b, cx_add(cx_at(b->g), o, x), CX_F32));
}

static cx_tensor mean_head(builder *b, cx_tensor z)
{
	int64_t dims[3] = {b->b.n_windows, b->c->num_latents, b->c->latent_dim};
	cx_attr_reduce a = cx_attr_reduce_default();
	a.axes = cx_list_of(1, 1);
	return spike_logits(b, cx_mean(cx_at(b->g), shaped(b, z, 3, dims), &a));
}

/* ---- the whole ---- */

static cx_tensor index_input(cx_graph *g, const char *name, int64_t n)
{
	return cx_input(g, name, CX_I32, 1, &n);
}

static cx_tensor latent_offsets(builder *b)
{
	int64_t n = b->b.n_windows + 1;
	cx_attr_iota a = cx_attr_iota_default();
	a.dims = cx_list_from(1, &n);
	a.step = (float)b->c->num_latents; /* whole numbers below 2^24: exact */
	return cx_iota(b->g, &a);
}

static void begin(builder *b, const cx_cortex_config *c, const cx_cortex_source *src, cx_graph *g)
{
	b->c = c;
	b->src = src;
	b->g = g;
	b->block = -1;
	for (size_t i = 0; i < MAX_PARAMS; i++) b->param[i] = CX_NONE;
}

static void make_inputs(builder *b, cx_cortex_graph *m)
{
	const cx_cortex_bucket *k = &b->b;
	*m = (cx_cortex_graph){CX_NONE, CX_NONE, CX_NONE, CX_NONE, CX_NONE, CX_NONE, CX_NONE, CX_NONE,
		CX_NONE, CX_NONE, CX_NONE, CX_NONE};
	m->neuron = index_input(b->g, "neuron", k->n_events);
	m->time = index_input(b->g, "time", k->n_events);
	m->value = index_input(b->g, "value", k->n_events);
	m->off = index_input(b->g, "off", k->n_windows + 1);
	if (k->n_queries > 0) {
		m->query_neuron = index_input(b->g, "query_neuron", k->n_queries);
		m->query_time = index_input(b->g, "query_time", k->n_queries);
		m->query_off = index_input(b->g, "query_off", k->n_windows + 1);
	}
	if (k->train && b->c->dropout > 0) m->key = index_input(b->g, "key", 4);
	b->key = m->key;
}

void cx_cortex_build(const cx_cortex_config *c, const cx_cortex_source *src,
	const cx_cortex_bucket *bucket, cx_graph *g, cx_cortex_graph *m, cx_tensor *params)
{
	builder b = {.b = *bucket};
	cx_tensor z, kv;
	begin(&b, c, src, g);
	make_inputs(&b, m);
	b.lat_off = latent_offsets(&b);
	z = cross_attention(&b, m);
	for (b.block = 0; b.block < c->num_layers; b.block++) {
		cx_scope_push(g, "encoder.self_attn_blocks.%lld", (long long)b.block);
		z = self_attention(&b, z);
		z = mlp(&b, z);
		cx_scope_pop(g);
	}
	b.block = -1;
	z = norm(&b, z, "encoder.final_norm");
	m->latents = cx_named(g, cast(&b, z, CX_F32), "latents");
	kv = read_out(&b, z);
	m->behavior = cx_named(g, behavior_head(&b, kv), "behavior");
	if (c->use_masked_spike_head && bucket->n_queries > 0)
		m->masked_logits = masked_head(&b, m, kv);
	if (c->use_masked_spike_head && bucket->mean_logits) m->mean_logits = mean_head(&b, m->latents);
	for (size_t i = 0; params && i < cx_cortex_n_params(c); i++) params[i] = b.param[i];
}

void cx_cortex_fold_build(const cx_cortex_config *c, const cx_cortex_source *src, cx_graph *g)
{
	builder b = {.b = {.n_windows = 1}};
	begin(&b, c, src, g);
	cx_output(g, "cross_q", cross_query(&b));
	cx_output(g, "behavior_q", behavior_query(&b));
}

/* ---- loss ---- */

static cx_tensor sum_all(cx_graph *g, cx_tensor x)
{
	return cx_sum(cx_at(g), x, NULL);
}

static cx_tensor scale_at(cx_graph *g, cx_tensor scale, int64_t i)
{
	cx_attr_slice a = cx_attr_slice_default();
	a.begin = cx_list_from(1, &i);
	a.size = cx_list_of(1, 1);
	return cx_reshape(g, cx_slice(g, scale, &a), &(cx_attr_dims){.dims = {0}});
}

cx_cortex_loss cx_cortex_loss_build(
	const cx_cortex_config *c, const cx_cortex_bucket *b, cx_graph *g, const cx_cortex_graph *m)
{
	cx_cortex_loss l = {CX_NONE, CX_NONE, CX_NONE};
	int64_t two = 2, dims[2] = {b->n_windows, c->behavior_dim}, column[2] = {b->n_windows, 1};
	cx_attr_loss a = cx_attr_loss_default();
	cx_tensor target = cx_input(g, "target", CX_F32, 2, dims);
	cx_tensor weight = cx_input(g, "window_weight", CX_F32, 1, dims);
	cx_tensor scale = cx_input(g, "loss_scale", CX_F32, 1, &two), d;
	weight = cx_reshape(g, weight, &(cx_attr_dims){.dims = cx_list_from(2, column)});
	d = cx_sub(cx_at(g), m->behavior, target);
	l.sse = sum_all(g, cx_mul(g, cx_mul(g, d, d), weight));
	l.loss = cx_mul(g, l.sse, scale_at(g, scale, 0));
	if (cx_is_none(m->masked_logits)) return l;
	a.reduction = 2;
	target = cx_input(g, "query_target", CX_I32, 1, &b->n_queries);
	l.xent = cx_cross_entropy(cx_at(g), m->masked_logits, target, &a);
	l.loss = cx_add(g, l.loss, cx_mul(g, l.xent, scale_at(g, scale, 1)));
	return l;
}

/* ---- sources ---- */

static cx_tensor weight_leaf(void *ctx, cx_graph *g, const cx_cortex_param *p, size_t index)
{
	(void)ctx;
	(void)index;
	return cx_weight(g, p->name, CX_F32, p->rank, p->dim);
}

static cx_tensor state_leaf(void *ctx, cx_graph *g, const cx_cortex_param *p, size_t index)
{
	(void)ctx;
	(void)index;
	return cx_state(g, p->name, CX_F32, p->rank, p->dim);
}

cx_cortex_source cx_cortex_weights(void)
{
	return (cx_cortex_source){.get = weight_leaf};
}

cx_cortex_source cx_cortex_states(void)
{
	return (cx_cortex_source){.get = state_leaf};
}
