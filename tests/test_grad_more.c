/* test_grad_more.c - what finite differences do not show: ties and edges, recomputation and what it
 * saves, gradients of inner tensors and of gradients, empty tensors, a whole model, and the
 * sentences of what is refused. */
#include "tests/grad_check.h"
#include "tests/ref_run.h"

#include "graph/optim.h"
#include "graph/plan.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- ties and edges -------------------------------------------------------------------------- */

/* Gradients of sum(w * y) for w = 1, 2, 3 ... */
static void grads_of(ref_run *r, cx_tensor y, const cx_tensor *wrt, uint32_t n, cx_tensor *grads)
{
	cx_shape s = cx_tensor_shape(r->g, y);
	float w[64];
	for (int i = 0; i < 64; i++) w[i] = (float)(i + 1);
	y = cx_mul(r->g, y, cx_const(r->g, CX_F32, s.rank, s.dim, w));
	cx_graph_grad(r->g, cx_sum(r->g, y, NULL), wrt, n, NULL, grads);
	for (uint32_t i = 0; i < n; i++) {
		char name[8];
		snprintf(name, sizeof name, "g%u", i);
		cx_output(r->g, name, grads[i]);
	}
	ref_run_eval(r);
}

static void test_ties(void **state)
{
	ref_run r;
	cx_tensor in[3], g[3], idx;
	cx_attr_reduce last = {.axes = cx_list_of(1, 1)};
	cx_attr_clamp unit = {.lo = -1, .hi = 1};
	(void)state;
	ref_run_start(&r); /* three equal maxima share 1; the second row has one maximum */
	in[0] = ref_run_in(&r, CX_F32, DIMS_(2, 4), NUMS(3, 3, 1, 3, 0, 5, 2, 1));
	grads_of(&r, cx_amax(r.g, in[0], &last), in, 1, g);
	EXPECT(&r, g[0], 1e-6, 1.0 / 3, 1.0 / 3, 0, 1.0 / 3, 0, 2, 0, 0);
	ref_run_end(&r);
	ref_run_start(&r);
	in[0] = ref_run_in(&r, CX_F32, DIMS_(1, 3), NUMS(-2, 1, -2));
	grads_of(&r, cx_amin(r.g, in[0], &last), in, 1, g);
	EXPECT(&r, g[0], 1e-6, 0.5, 0, 0.5);
	ref_run_end(&r);
	ref_run_start(&r);
	in[0] = ref_run_in(&r, CX_F32, DIMS_(3), NUMS(1, 2, 5));
	in[1] = ref_run_in(&r, CX_F32, DIMS_(3), NUMS(1, 3, 4));
	grads_of(&r, cx_max(r.g, in[0], in[1]), in, 2, g);
	EXPECT(&r, g[0], 0, 0.5, 0, 3);
	EXPECT(&r, g[1], 0, 0.5, 2, 0);
	ref_run_end(&r);
	ref_run_start(&r);
	in[0] = ref_run_in(&r, CX_F32, DIMS_(6), NUMS(-2, -1, 0, 1, 2, NAN));
	grads_of(&r, cx_clamp(r.g, in[0], &unit), in, 1, g);
	EXPECT(&r, g[0], 0, 0, 2, 3, 4, 0, 0);
	ref_run_end(&r);
	ref_run_start(&r); /* an infinite gradient from above is not spoilt by the closed side */
	in[0] = ref_run_in(&r, CX_F32, DIMS_(3), NUMS(-1, 0, 4));
	grads_of(&r, cx_sqrt(r.g, cx_relu(r.g, in[0])), in, 1, g);
	EXPECT(&r, g[0], 0, 0, 0, 0.75);
	ref_run_end(&r);
	ref_run_start(&r);
	in[0] = ref_run_in(&r, CX_F32, DIMS_(3), NUMS(-1, 0, 4));
	grads_of(&r, cx_abs(r.g, in[0]), in, 1, g);
	EXPECT(&r, g[0], 0, -1, 0, 3);
	ref_run_end(&r);
	ref_run_start(&r); /* row 1 is written twice: the last writer has it */
	in[0] = ref_run_in(&r, CX_F32, DIMS_(3), NUMS(0, 0, 0));
	in[1] = ref_run_in(&r, CX_F32, DIMS_(4), NUMS(5, 6, 7, 8));
	idx = ref_run_in(&r, CX_I32, DIMS_(4), NUMS(1, 2, 1, -1));
	grads_of(&r, cx_scatter(r.g, in[0], idx, in[1], NULL), in, 2, g);
	EXPECT(&r, g[0], 0, 1, 0, 0);
	EXPECT(&r, g[1], 0, 0, 3, 2, 0);
	ref_run_end(&r);
}

static void test_pow_edges(void **state)
{
	ref_run r;
	cx_tensor in[2], g[2];
	(void)state;
	ref_run_start(&r); /* 0^0, 0^1, 0^2, 2^0, (-2)^2 */
	in[0] = ref_run_in(&r, CX_F32, DIMS_(5), NUMS(0, 0, 0, 2, -2));
	in[1] = ref_run_in(&r, CX_F32, DIMS_(5), NUMS(0, 1, 2, 0, 2));
	grads_of(&r, cx_pow(r.g, in[0], in[1]), in, 2, g);
	EXPECT(&r, g[0], 1e-6, 0, 2, 0, 0, -20);
	EXPECT(&r, g[1], 1e-6, 0, 0, 0, 4 * log(2), NAN);
	ref_run_end(&r);
}

/* ---- paths ----------------------------------------------------------------------------------- */

static void test_paths(void **state)
{
	ref_run r;
	cx_tensor x, y, z, loss, wrt[3], g[3], twice;
	(void)state;
	ref_run_start(
		&r); /* an inner tensor and the leaf behind it; fan-out; a zero; d/dx of a gradient */
	x = ref_run_in(&r, CX_F32, DIMS_(2), NUMS(0.5, 2));
	y = cx_mul(r.g, x, x);
	z = cx_add(r.g, cx_mul(r.g, y, x), cx_floor(r.g, y));
	loss = cx_sum(r.g, z, NULL);
	wrt[0] = x;
	wrt[1] = y;
	wrt[2] = loss;
	cx_graph_grad(r.g, loss, wrt, 3, NULL, g);
	cx_graph_grad(r.g, cx_sum(r.g, cx_mul(r.g, g[0], g[0]), NULL), &x, 1, NULL, &twice);
	cx_output(r.g, "twice", twice);
	for (uint32_t i = 0; i < 3; i++) cx_output(r.g, (const char *[]){"a", "b", "c"}[i], g[i]);
	ref_run_eval(&r);
	EXPECT(&r, g[0], 1e-6, 0.75, 12);
	EXPECT(&r, g[1], 1e-6, 0.5, 2);
	EXPECT(&r, g[2], 0, 1);
	EXPECT(&r, twice, 1e-6, 36 * 0.125, 36 * 8); /* d (9 x^4) / dx */
	ref_run_end(&r);
	ref_run_start(&r); /* floor alone: the path is there, the gradient 0 */
	x = ref_run_in(&r, CX_F32, DIMS_(3), NUMS(0.5, 2.5, -1.5));
	cx_graph_grad(r.g, cx_sum(r.g, cx_floor(r.g, x), NULL), &x, 1, NULL, g);
	cx_output(r.g, "a", g[0]);
	ref_run_eval(&r);
	EXPECT(&r, g[0], 0, 0, 0, 0);
	ref_run_end(&r);
}

static void test_empty(void **state)
{
	ref_run r;
	cx_attr_axis first = {.axis = 0};
	cx_attr_slice cut = {.begin = cx_list_of(2, 0, 1), .size = cx_list_of(2, 0, 2)};
	cx_attr_matmul t = {.trans_b = true};
	cx_tensor x[3], g[3], y, none;
	(void)state;
	ref_run_start(&r);
	x[0] = ref_run_in(&r, CX_F32, DIMS_(0, 3), NULL);
	x[1] = ref_run_in(&r, CX_F32, DIMS_(2, 3), NUMS(1, 2, 3, 4, 5, 6));
	x[2] = ref_run_in(&r, CX_F32, DIMS_(4, 3), NULL);
	none = ref_run_in(&r, CX_I32, DIMS_(0), NULL);
	y = cx_sum(r.g, cx_matmul(r.g, cx_exp(r.g, x[0]), x[2], &t), NULL);
	y = cx_add(r.g, y, cx_sum(r.g, cx_gather(r.g, x[2], none, &first), NULL));
	y = cx_add(r.g, y, cx_sum(r.g, cx_slice(r.g, x[1], &cut), NULL));
	y = cx_add(r.g, y, cx_sum(r.g, cx_scatter(r.g, x[1], none, x[0], NULL), NULL));
	cx_graph_grad(r.g, y, x, 3, NULL, g);
	for (uint32_t i = 0; i < 3; i++) cx_output(r.g, (const char *[]){"a", "b", "c"}[i], g[i]);
	ref_run_eval(&r);
	EXPECT(&r, g[1], 0, 1, 1, 1, 1, 1, 1);
	EXPECT(&r, g[2], 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
	ref_run_end(&r);
}

/* A tensor cut into pieces gets their gradients by one concat, not by a padded sum. */
static void test_join(void **state)
{
	ref_run r;
	cx_tensor x, y, loss = CX_NONE, g;
	uint32_t n[CX_OP_COUNT] = {0};
	(void)state;
	ref_run_start(&r);
	x = ref_run_in(&r, CX_F32, DIMS_(2, 4), NUMS(1, 2, 3, 4, 5, 6, 7, 8));
	y = cx_mul(r.g, x, x);
	for (int i = 0; i < 4; i++) {
		cx_attr_slice a = {.begin = cx_list_of(2, 0, i), .size = cx_list_of(2, 2, 1)};
		cx_tensor t =
			cx_sum(r.g, cx_mul(r.g, cx_slice(r.g, y, &a), cx_const_f32(r.g, 1.0f + i)), NULL);
		loss = i == 0 ? t : cx_add(r.g, loss, t);
	}
	cx_graph_grad(r.g, loss, &x, 1, NULL, &g);
	for (uint32_t i = 0; i < r.g->n_nodes; i++) n[r.g->nodes[i].op]++;
	assert_int_equal(n[CX_OP_concat], 1);
	assert_int_equal(n[CX_OP_pad], 0);
	cx_output(r.g, "g", g);
	ref_run_eval(&r);
	EXPECT(&r, g, 1e-6, 2, 8, 18, 32, 10, 24, 42, 64);
	ref_run_end(&r);
}

/* Block formats: a's gradient through the dequantised weight. */
static void test_block_weight(void **state)
{
	ref_run r;
	unsigned char blocks[2][34]; /* q8_0: an f16 scale, 32 int8 */
	cx_attr_matmul t = {.trans_b = true};
	cx_tensor a, w, g;
	double want[32];
	(void)state;
	for (int i = 0; i < 2; i++) {
		blocks[i][0] = 0, blocks[i][1] = 0x28; /* 2^-5 */
		for (int j = 0; j < 32; j++) blocks[i][2 + j] = (unsigned char)(91 * i + 29 * j);
	}
	for (int j = 0; j < 32; j++)
		want[j] = ((signed char)blocks[0][2 + j] + 2 * (signed char)blocks[1][2 + j]) / 32.0;
	ref_run_start(&r);
	a = ref_run_in(&r, CX_F32, DIMS_(1, 32), NULL);
	w = ref_run_bytes(&r, true, CX_Q8_0, DIMS_(2, 32), blocks);
	grads_of(&r, cx_matmul(r.g, a, w, &t), &a, 1, &g);
	ref_run_expect(&r, g, want, 32, 1e-6, 1e-6);
	ref_run_end(&r);
}

/* ---- recomputation --------------------------------------------------------------------------- */

enum { DEPTH = 12, ROWS = 24, WIDTH = 16 };
typedef struct stack {
	cx_graph *g;
	cx_tensor wrt[2 * DEPTH + 1], grads[2 * DEPTH + 1], check[DEPTH];
	uint32_t n;
} stack;

/* Residual blocks: h + w2 dropout(silu(w1 rmsnorm(h))). */
static void make_stack(stack *s, cx_dtype dtype, const cx_grad_opts *opts, bool check)
{
	const int64_t wide[2] = {4 * WIDTH, WIDTH}, back[2] = {WIDTH, 4 * WIDTH}, in[2] = {ROWS, WIDTH};
	cx_attr_matmul t = {.trans_b = true};
	cx_attr_cast to = {.dtype = CX_F32};
	cx_grad_opts mine = {s->check, DEPTH};
	cx_tensor h, key, none = CX_NONE, x;
	cx_err err = {0};
	s->n = 0;
	assert_int_equal(cx_graph_create(NULL, &s->g, NULL), CX_OK);
	key = cx_input(s->g, "key", CX_I32, 1, (const int64_t[]){4});
	h = s->wrt[s->n++] = cx_input(s->g, "x", dtype, 2, in);
	for (int i = 0; i < DEPTH; i++) {
		char name[16];
		cx_scope_push(s->g, "blk.%d", i);
		snprintf(name, sizeof name, "w1.%d", i);
		s->wrt[s->n++] = cx_weight(s->g, name, dtype, 2, wide);
		snprintf(name, sizeof name, "w2.%d", i);
		s->wrt[s->n++] = cx_weight(s->g, name, dtype, 2, back);
		x = cx_matmul(s->g, cx_rmsnorm(s->g, h, none, NULL), s->wrt[s->n - 2], &t);
		x = cx_dropout(s->g, cx_silu(s->g, x), 0.2f, cx_random_site(s->g, key, i));
		h = cx_add(s->g, h, cx_named(s->g, cx_matmul(s->g, x, s->wrt[s->n - 1], &t), "mlp"));
		s->check[i] = h;
		cx_scope_pop(s->g);
	}
	h = cx_cast(s->g, h, &to);
	x = cx_mean(s->g, cx_mul(s->g, h, h), NULL);
	cx_graph_grad(s->g, x, s->wrt, s->n, check ? &mine : opts, s->grads);
	for (uint32_t i = 0; i < s->n; i++) {
		char name[16];
		snprintf(name, sizeof name, "g%u", i);
		cx_output(s->g, name, s->grads[i]);
	}
	if (cx_graph_finish(s->g, &err) != CX_OK) fail_msg("%s", err.msg);
}

static void fill(const cx_graph *g, uint32_t id, void *to)
{
	const cx_desc *d = &g->nodes[id].desc;
	cx_rng rng = cx__rng_make(3, id);
	for (int64_t i = 0; i < cx__desc_elems(d); i++)
		number_put(
			d->dtype, to, i, d->dtype == CX_I32 ? (double)i : cx__rng_float(&rng, -0.4f, 0.4f));
}

static const void *on_leaf(void *ctx, const cx_graph *g, uint32_t id)
{
	unsigned char **at = ctx;
	free(at[id]);
	at[id] = malloc(cx__desc_bytes(&g->nodes[id].desc) + 1);
	fill(g, id, at[id]);
	return at[id];
}

/* The plan's gradients on a device, one after the other, as floats; returns how many bytes. */
static size_t run_stack(
	const stack *s, cx_runtime *rt, cx_device *dev, unsigned char *out, cx_plan_stats *stats)
{
	cx_plan_opts opts = {.devices = &dev, .n_devices = 1, .verify = true};
	cx_plan *plan;
	cx_store *store;
	cx_exec *x;
	cx_err err = {0};
	unsigned char **at = calloc(s->g->n_nodes, sizeof *at);
	size_t n = 0;
	if (cx_plan_build(s->g, &opts, &plan, &err) != CX_OK) fail_msg("%s", err.msg);
	assert_int_equal(cx_store_create(rt, &store, &err), CX_OK);
	for (uint32_t i = 0; i < s->g->n_nodes; i++) {
		const cx_node *w = &s->g->nodes[i];
		if (w->op != CX_OP_weight) continue;
		assert_int_equal(cx_store_weight(store, w->name, w->desc.dtype, w->desc.rank, w->desc.dim,
							 on_leaf(at, s->g, i), cx__desc_bytes(&w->desc), &err),
			CX_OK);
	}
	if (cx_exec_create(plan, store, &x, &err) != CX_OK) fail_msg("%s", err.msg);
	for (uint32_t i = 0; i < s->g->n_nodes; i++) {
		const cx_node *w = &s->g->nodes[i];
		if (w->op != CX_OP_input) continue;
		assert_int_equal(cx_exec_set_input(x, cx_exec_input(x, w->name), on_leaf(at, s->g, i),
							 cx__desc_bytes(&w->desc), &err),
			CX_OK);
	}
	if (cx_exec_run(x, &err) != CX_OK) fail_msg("%s", err.msg);
	for (uint32_t i = 0; i < s->g->n_outputs; i++) {
		uint64_t bytes = cx__desc_bytes(&s->g->nodes[s->g->outputs[i].id].desc);
		assert_int_equal(cx_exec_get_output(x, (int)i, out + n, bytes, &err), CX_OK);
		n += bytes;
	}
	cx_plan_get_stats(plan, stats);
	cx_exec_free(x);
	cx_store_free(store);
	cx_plan_free(plan);
	for (uint32_t i = 0; i < s->g->n_nodes; i++) free(at[i]);
	free(at);
	return n;
}

static void recompute_on(const char *backend, cx_dtype dtype, bool same_bits)
{
	static unsigned char keep[1 << 18], again[1 << 18];
	stack a, b;
	cx_runtime *rt;
	cx_device *dev;
	cx_plan_stats sa, sb;
	size_t n;
	assert_int_equal(cx_runtime_create(NULL, &rt, NULL), CX_OK);
	assert_int_equal(cx_device_open(rt, backend, 0, &dev, NULL), CX_OK);
	make_stack(&a, dtype, NULL, false);
	make_stack(&b, dtype, NULL, true);
	n = run_stack(&a, rt, dev, keep, &sa);
	assert_int_equal(run_stack(&b, rt, dev, again, &sb), n);
	printf("# %s, %s, %d blocks: slab %llu kB, with checkpoints %llu kB (%u and %u steps)\n",
		backend, cx_dtype_get(dtype)->name, DEPTH, (unsigned long long)sa.slab_bytes / 1024,
		(unsigned long long)sb.slab_bytes / 1024, sa.n_steps, sb.n_steps);
	if (same_bits) assert_memory_equal(keep, again, n);
	for (size_t i = 0; dtype == CX_F32 && i < n / 4; i++) {
		float p, q;
		memcpy(&p, keep + 4 * i, 4);
		memcpy(&q, again + 4 * i, 4);
		assert_true(fabsf(p - q) <= 1e-5f * fabsf(p) + 1e-7f);
	}
	if (same_bits) assert_true(sb.slab_bytes * 5 < sa.slab_bytes * 2); /* below 40 % */
	else assert_true(sb.slab_bytes < sa.slab_bytes); /* most of it scratch of the products */
	cx_graph_free(a.g);
	cx_graph_free(b.g);
	cx_device_close(dev);
	cx_runtime_free(rt);
}

static void test_recompute(void **state)
{
	(void)state;
	recompute_on("ref", CX_F32, true);
	recompute_on("ref", CX_BF16, true);
	recompute_on("cpu", CX_F32, false);
}

/* From the leaves alone; and text and back, whose plan is the same. */
static void test_recompute_all(void **state)
{
	static unsigned char keep[1 << 18], again[1 << 18];
	const cx_tensor nothing[1] = {{0}};
	cx_grad_opts opts = {nothing, 0};
	stack a, b, c;
	cx_runtime *rt;
	cx_device *dev;
	cx_plan_stats stats, parsed;
	char *text;
	size_t n, bytes;
	(void)state;
	assert_int_equal(cx_runtime_create(NULL, &rt, NULL), CX_OK);
	assert_int_equal(cx_device_open(rt, "ref", 0, &dev, NULL), CX_OK);
	make_stack(&a, CX_F32, NULL, false);
	make_stack(&b, CX_F32, &opts, false);
	n = run_stack(&a, rt, dev, keep, &stats);
	assert_int_equal(run_stack(&b, rt, dev, again, &stats), n);
	assert_memory_equal(keep, again, n);
	assert_int_equal(cx_graph_print(b.g, NULL, &text, &bytes, NULL), CX_OK);
	assert_non_null(strstr(text, "grad.blk.3.mlp"));
	assert_int_equal(cx_graph_parse(text, bytes, NULL, &c.g, NULL), CX_OK);
	assert_int_equal(run_stack(&c, rt, dev, again, &parsed), n);
	assert_memory_equal(keep, again, n);
	assert_int_equal(parsed.slab_bytes, stats.slab_bytes);
	assert_int_equal(parsed.n_steps, stats.n_steps);
	cx_free(NULL, text, bytes + 1);
	cx_graph_free(a.g);
	cx_graph_free(b.g);
	cx_graph_free(c.g);
	cx_device_close(dev);
	cx_runtime_free(rt);
}

/* ---- what is refused ------------------------------------------------------------------------- */

typedef cx_tensor make_loss(cx_graph *g, cx_tensor x, cx_tensor *wrt);

static cx_tensor vector_loss(cx_graph *g, cx_tensor x, cx_tensor *wrt)
{
	(void)wrt;
	return cx_exp(g, x);
}
static cx_tensor int_loss(cx_graph *g, cx_tensor x, cx_tensor *wrt)
{
	cx_attr_arg a = {.axis = 0};
	(void)wrt;
	return cx_argmax(g, x, &a);
}
static cx_tensor apart(cx_graph *g, cx_tensor x, cx_tensor *wrt)
{
	*wrt = cx_input(g, "other", CX_F32, 0, NULL);
	return cx_sum(g, x, NULL);
}
static cx_tensor discrete(cx_graph *g, cx_tensor x, cx_tensor *wrt)
{
	cx_attr_cast f32 = {.dtype = CX_F32};
	(void)wrt;
	return cx_sum(g, cx_cast(g, cx_gt(g, x, cx_const_f32(g, 0)), &f32), NULL);
}
static cx_tensor int_wrt(cx_graph *g, cx_tensor x, cx_tensor *wrt)
{
	cx_attr_axis first = {.axis = 0};
	*wrt = cx_input(g, "rows", CX_I32, 1, (const int64_t[]){2});
	return cx_sum(g, cx_gather(g, x, *wrt, &first), NULL);
}
static cx_tensor block_wrt(cx_graph *g, cx_tensor x, cx_tensor *wrt)
{
	cx_attr_matmul t = {.trans_b = true};
	cx_attr_dims row = {.dims = cx_list_of(2, 1, 32)};
	*wrt = cx_weight(g, "w", CX_Q4_0, 2, (const int64_t[]){3, 32});
	return cx_sum(g, cx_matmul(g, cx_reshape(g, x, &row), *wrt, &t), NULL);
}
static cx_tensor through_adamw(cx_graph *g, cx_tensor x, cx_tensor *wrt)
{
	const int64_t n = 32, one = 1;
	cx_tensor lr = cx_input(g, "lr", CX_F32, 1, &one), m = cx_state(g, "m", CX_F32, 1, &n);
	cx_tensor p = cx_state(g, "p", CX_F32, 1, &n), v = cx_state(g, "v", CX_F32, 1, &n);
	(void)wrt;
	return cx_sum(g, cx_adamw(g, p, x, m, v, lr, lr, NULL), NULL);
}
static cx_tensor foreign(cx_graph *g, cx_tensor x, cx_tensor *wrt)
{
	wrt->id = 1000;
	return cx_sum(g, x, NULL);
}

static void test_refused(void **state)
{
	static const struct {
		make_loss *make;
		const char *sentence;
	} bad[] = {
		{vector_loss, "gradient: %1 exp is the loss, but not one float"},
		{int_loss, "gradient: %1 argmax is the loss, but not one float"},
		{apart, "gradient: %1 input 'other' does not enter the loss"},
		{discrete, "gradient: %0 input 'x' enters the loss through discrete values only: there is "
				   "no gradient"},
		{int_wrt, "gradient: %1 input 'rows' is i32: only floats have a gradient"},
		{block_wrt, "gradient: %1 weight 'w' is in a block format: such weights have no gradient; "
					"train a float copy"},
		{through_adamw,
			"gradient: %5 adamw is an op without a gradient, and one would have to pass it"},
		{foreign, "gradient: wrt[0] is not a tensor of this graph"},
	};
	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		const int64_t n = 32;
		cx_graph *g;
		cx_tensor x, wrt, loss, grad = {5};
		cx_err err = {0};
		assert_int_equal(cx_graph_create(NULL, &g, NULL), CX_OK);
		wrt = x = cx_input(g, "x", CX_F32, 1, &n);
		loss = bad[i].make(g, x, &wrt);
		cx_graph_grad(g, loss, &wrt, 1, NULL, &grad);
		assert_true(cx_is_none(grad));
		cx_output(g, "loss", loss);
		assert_int_not_equal(cx_graph_finish(g, &err), CX_OK);
		assert_string_equal(err.msg, bad[i].sentence);
		cx_graph_free(g);
	}
}

/* Every allocation fails in turn: an error, nothing leaks. */
static void test_memory(void **state)
{
	(void)state;
	for (long n = 0;; n++) {
		const int64_t dim[2] = {3, 4};
		cx_fault fault = {.countdown = n};
		cx_alloc alloc = cx_alloc_fault(&fault);
		cx_graph *g = NULL;
		cx_err err = {0};
		cx_status st = cx_graph_create(&alloc, &g, &err);
		if (st == CX_OK) {
			cx_tensor wrt[2], grads[2], y, check;
			cx_grad_opts opts = {&check, 1};
			wrt[0] = cx_input(g, "a", CX_F32, 2, dim);
			wrt[1] = cx_input(g, "b", CX_F32, 2, dim);
			check = cx_sin(g, cx_mul(g, wrt[0], wrt[1]));
			y = check;
			for (int i = 0; i < 8; i++) y = cx_tanh(g, cx_add(g, y, wrt[i % 2]));
			cx_graph_grad(g, cx_sum(g, y, NULL), wrt, 2, &opts, grads);
			cx_output(g, "x", cx_clip_global_norm(g, grads, 2, 1));
			st = cx_graph_finish(g, &err);
		}
		cx_graph_free(g);
		assert_int_equal(fault.n_live, 0);
		if (st != (fault.fired ? CX_ERR_MEMORY : CX_OK)) fail_msg("allocation %ld: %s", n, err.msg);
		if (!fault.fired) break;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_ties),
		cmocka_unit_test(test_pow_edges), cmocka_unit_test(test_paths),
		cmocka_unit_test(test_empty), cmocka_unit_test(test_block_weight),
		cmocka_unit_test(test_join), cmocka_unit_test(test_recompute),
		cmocka_unit_test(test_recompute_all), cmocka_unit_test(test_refused),
		cmocka_unit_test(test_memory)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
