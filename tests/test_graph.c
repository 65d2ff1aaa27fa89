/* test_graph.c - building graphs: sticky errors, names, states, views, checks, dtypes, cost.
 * Shape rules are in test_shapes.c, the text form in test_graph_text.c. */
#include "graph/attr.h"
#include "graph/graph.h"
#include "tests/random_graph.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define D(...)                                                                                     \
	(int32_t)(sizeof((int64_t[]){__VA_ARGS__}) / 8), (const int64_t[])                             \
	{                                                                                              \
		__VA_ARGS__                                                                                \
	}

static cx_graph *new_graph(void)
{
	cx_graph *g;
	assert_int_equal(cx_graph_create(NULL, &g, NULL), CX_OK);
	return g;
}

/* The graph failed, and its message holds every one of the words. */
static void expect_failed(cx_graph *g, ...)
{
	cx_err e = {0};
	const char *word;
	va_list ap;
	assert_int_not_equal(cx_graph_finish(g, &e), CX_OK);
	assert_int_equal(e.code, g->first_error.code);
	va_start(ap, g);
	while ((word = va_arg(ap, const char *)) != NULL)
		if (!strstr(e.msg, word)) fail_msg("'%s' is not in: %s", word, e.msg);
	va_end(ap);
	cx_graph_free(g);
}

/* ---- errors -----------------------------------------------------------------------------------
 */

static void first_error_stays(void **state)
{
	cx_graph *g = new_graph();
	cx_attr_matmul m = {.trans_b = true};
	cx_tensor x = cx_input(g, "x", CX_F32, D(4, 64)), w = cx_weight(g, "w", CX_F32, D(128, 65)), y;
	uint32_t n = cx_graph_n_nodes(g);
	(void)state;
	cx_scope_push(g, "blk.%d", 3);
	y = cx_matmul(cx_graph_at(g, "models/some/model.c", 77), x, w, &m);
	y = cx_softmax(g, y, NULL); /* goes on with what the failed call gave */
	y = cx_add(g, y, cx_out(g, y, 1));
	cx_output(g, "y", y);
	cx_scope_pop(g);
	assert_int_equal(cx_graph_n_nodes(g), n);
	assert_int_equal(cx_tensor_shape(g, y).rank, 0);
	expect_failed(
		g, "matmul", "'blk.3.'", "model.c:77", "[4,64]", "k=64", "[128,65]", "k=65", NULL);
}

static void operands_are_checked(void **state)
{
	cx_graph *g = new_graph();
	cx_tensor x = cx_input(g, "x", CX_F32, D(2));
	(void)state;
	cx_add(g, x, CX_NONE);
	expect_failed(g, "add", "operand 1", "(b)", "missing", NULL);
	g = new_graph();
	x = cx_input(g, "x", CX_F32, D(2));
	cx_add(g, (cx_tensor){5}, x);
	expect_failed(g, "add", "operand 0", "not a tensor of this graph", NULL);
	g = new_graph();
	cx_node_add(g, (cx_op)999, NULL, 0, NULL);
	expect_failed(g, "999", NULL);
	g = new_graph();
	cx_concat(g, NULL, 0, NULL);
	expect_failed(g, "concat", "0 operands", NULL);
	g = new_graph();
	x = cx_input(g, "x", CX_F32, D(2));
	cx_out(g, cx_neg(g, x), 1);
	expect_failed(g, "neg", "1 outputs", "index is 1", NULL);
	g = new_graph();
	x = cx_input(g, "x", CX_F32, D(2));
	cx_node_add(g, CX_OP_proj, &x, 1, NULL);
	expect_failed(g, "proj", "cx_out", NULL);
	g = new_graph();
	cx_node_add(g, CX_OP_input, NULL, 0, NULL);
	expect_failed(g, "input", "cx_input", NULL);
	g = new_graph();
	x = cx_input(g, "x", CX_F32, D(2));
	cx_permute(g, x, &(cx_attr_perm){.perm = {.n = 7}});
	expect_failed(g, "permute", "perm", "7", NULL);
	g = new_graph();
	x = cx_input(g, "x", CX_F32, D(2));
	cx_cast(g, x, &(cx_attr_cast){.dtype = (cx_dtype)77});
	expect_failed(g, "cast", "dtype", "77", NULL);
}

static void leaves_are_checked(void **state)
{
	static const struct {
		const char *name;
		cx_dtype dtype;
		int64_t dim;
		int op;
		const char *word;
	} bad[] = {
		{"", CX_F32, 1, CX_OP_input, "1 to 127"},
		{NULL, CX_F32, 1, CX_OP_input, "1 to 127"},
		{"a\"b", CX_F32, 1, CX_OP_input, "quotes"},
		{"a\n", CX_F32, 1, CX_OP_weight, "printable"},
		{"\xc3\xa4", CX_F32, 1, CX_OP_weight, "ASCII"},
		{"x", CX_Q4_0, 32, CX_OP_input, "weights only"},
		{"x", CX_Q4_0, 32, CX_OP_state, "weights only"},
		{"x", CX_Q4_0, 33, CX_OP_weight, "[33]"},
		{"x", CX_I8C, 32, CX_OP_weight, "i8c"},
		{"x", CX_F32, -1, CX_OP_weight, "[-1]"},
		{"x", CX_F32, 1ll << 31, CX_OP_state, "[2147483648]"},
		{"x", (cx_dtype)99, 1, CX_OP_input, "99"},
	};
	int64_t huge[] = {CX_MAX_DIM, CX_MAX_DIM, CX_MAX_DIM, 0};
	cx_graph *g;
	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		g = new_graph();
		if (bad[i].op == CX_OP_input) cx_input(g, bad[i].name, bad[i].dtype, 1, &bad[i].dim);
		else if (bad[i].op == CX_OP_weight) cx_weight(g, bad[i].name, bad[i].dtype, 1, &bad[i].dim);
		else cx_state(g, bad[i].name, bad[i].dtype, 1, &bad[i].dim);
		expect_failed(g, cx__ops[bad[i].op].name, bad[i].word, NULL);
	}
	g = new_graph();
	cx_input(g, "x", CX_F32, 4, huge); /* empty, but its strides would overflow */
	expect_failed(g, "too large", NULL);
	g = new_graph();
	cx_input(g, "x", CX_F32, 7, huge);
	expect_failed(g, "rank 7", NULL);
	g = new_graph();
	cx_const(g, CX_F32, D(3), NULL);
	expect_failed(g, "const", "no data", NULL);
}

static void names_are_unique_per_kind(void **state)
{
	cx_graph *g = new_graph();
	char name[160];
	cx_tensor x = cx_input(g, "x", CX_F32, D(2));
	(void)state;
	cx_weight(g, "x", CX_F32, D(2));
	cx_state(g, "x", CX_F32, D(2));
	cx_output(g, "x", x);
	for (int i = 0; i < 3000; i++) { /* the set grows */
		snprintf(name, sizeof name, "n%d", i);
		cx_input(g, name, CX_F32, D(2));
	}
	assert_int_equal(g->first_error.code, CX_OK);
	cx_input(g, "n1234", CX_F32, D(2));
	expect_failed(g, "input", "'n1234'", "taken", NULL);
	g = new_graph();
	x = cx_input(g, "x", CX_F32, D(2));
	cx_output(g, "y", x);
	cx_output(g, "y", x);
	expect_failed(g, "output", "'y'", "taken", NULL);
	g = new_graph();
	memset(name, 'a', 128);
	name[128] = 0;
	cx_input(g, name, CX_F32, D(2));
	expect_failed(g, "127", NULL);
	g = new_graph();
	cx_output(g, "y", cx_weight(g, "w", CX_Q8_0, D(32)));
	expect_failed(g, "output", "q8_0", NULL);
}

static void scopes_and_labels(void **state)
{
	cx_graph *g = new_graph();
	cx_tensor x = cx_input(g, "x", CX_F32, D(2)), y;
	char text[160];
	(void)state;
	cx_scope_push(g, "blk.%d", 7);
	cx_scope_push(g, "attn");
	y = cx_named(g, cx_neg(cx_graph_at(g, "dir/layers.c", 9), x), "q");
	assert_string_equal(
		cx__node_text(g, y.id, text, sizeof text), "%1 neg 'blk.7.attn.q' (layers.c:9)");
	cx_scope_pop(g);
	y = cx_abs(g, y);
	assert_string_equal(cx__node_text(g, y.id, text, sizeof text), "%2 abs 'blk.7.' (layers.c:9)");
	assert_string_equal(cx__node_text(g, y.id, text, 8), "%2 abs ");
	cx_scope_pop(g);
	cx_scope_pop(g);         /* one too many is harmless */
	y = cx_named(g, x, "z"); /* leaves keep theirs */
	assert_string_equal(cx_tensor_name(g, x), "x");
	assert_null(cx_tensor_name(g, CX_NONE));
	for (int i = 0; i < 9; i++) cx_scope_push(g, "a_rather_long_scope");
	expect_failed(g, "scope", "127", NULL);
	g = new_graph();
	cx_scope_push(g, "a\"b");
	expect_failed(g, "scope", NULL);
	g = new_graph();
	cx_named(g, cx_input(g, "x", CX_F32, D(2)), "");
	expect_failed(g, "cx_named", NULL);
}

static void finish_needs_a_result(void **state)
{
	cx_graph *g = new_graph();
	cx_tensor x = cx_input(g, "x", CX_F32, D(2)), s;
	cx_err e = {0};
	(void)state;
	cx_neg(g, x);
	assert_int_equal(cx_graph_finish(g, &e), CX_ERR_ARGUMENT);
	s = cx_state(g, "s", CX_F32, D(2));
	cx_assign(g, s, x);
	assert_int_equal(cx_graph_finish(g, NULL), CX_OK);
	assert_int_equal(cx_graph_finish(g, NULL), CX_OK);
	assert_true(cx_is_none(cx_neg(g, x))); /* nothing is added any more */
	expect_failed(g, "neg", "finished", NULL);
}

/* ---- states -----------------------------------------------------------------------------------
 */

static void states_have_versions(void **state)
{
	cx_graph *g = new_graph();
	cx_tensor s0 = cx_state(g, "kv", CX_F32, D(8, 2)), src = cx_input(g, "src", CX_F32, D(3, 2));
	cx_tensor idx = cx_input(g, "idx", CX_I32, D(3)), s1, s2, old, y;
	cx_attr_conv1d c = {0};
	(void)state;
	s1 = cx_scatter(g, s0, idx, src, NULL);
	old = cx_neg(g, s0); /* the old version can be read */
	s2 = cx_assign(g, s1, old);
	assert_int_equal(g->nodes[s1.id].state, s0.id);
	assert_int_equal(g->nodes[s2.id].state, s0.id);
	assert_int_equal(g->nodes[old.id].state, UINT32_MAX);
	assert_true(g->nodes[s0.id].flags & CX_NODE_STATE_UPDATED);
	assert_false(g->nodes[s2.id].flags & CX_NODE_STATE_UPDATED);
	/* a state as a second output */
	s0 = cx_state(g, "conv", CX_F32, D(1, 2, 2));
	y = cx_conv1d(g, src, cx_weight(g, "w", CX_F32, D(2, 3)), CX_NONE, s0, CX_NONE, CX_NONE, &c);
	assert_int_equal(g->nodes[y.id].state, UINT32_MAX);
	assert_int_equal(g->nodes[cx_out(g, y, 1).id].state, s0.id);
	assert_int_equal(g->first_error.code, CX_OK);
	assert_int_equal(cx__graph_check(g, NULL), CX_OK);
	cx_scatter(g, s1, idx, src, NULL);
	expect_failed(g, "scatter", "'kv'", "at most once", NULL);
}

static void views_and_twins_of_states_are_not_updated(void **state)
{
	cx_graph *g = new_graph();
	cx_tensor s = cx_state(g, "kv", CX_F32, D(8, 2)), m, one;
	cx_attr_dims d = {.dims = cx_list_of(2, 2, 8)};
	(void)state;
	cx_assign(g, cx_reshape(g, s, &d), cx_input(g, "x", CX_F32, D(2, 8)));
	expect_failed(g, "assign", "view", "'kv'", NULL);
	g = new_graph();
	s = cx_state(g, "p", CX_F32, D(3));
	m = cx_state(g, "m", CX_F32, D(3));
	one = cx_input(g, "lr", CX_F32, D(1));
	cx_adamw(g, s, s, m, m, one, one, NULL);
	expect_failed(g, "adamw", "'m'", "same version", NULL);
	g = new_graph(); /* what is no state is updated as a copy, as often as one likes */
	s = cx_input(g, "x", CX_F32, D(4));
	one = cx_input(g, "y", CX_F32, D(4));
	cx_assign(g, s, one);
	cx_output(g, "z", cx_assign(g, s, one));
	assert_int_equal(cx_graph_finish(g, NULL), CX_OK);
	cx_graph_free(g);
}

/* ---- views ------------------------------------------------------------------------------------
 */

/* Logical content of node id if its root held 0, 1, 2 ... by storage order. */
static void read_view(const cx_graph *g, uint32_t id, int64_t *out)
{
	const cx_desc *d = &g->nodes[id].desc;
	int64_t n = cx__desc_elems(d);
	for (int64_t i = 0; i < n; i++) {
		int64_t rest = i, off = g->nodes[id].view_off;
		for (int a = d->rank - 1; a >= 0; a--) {
			off += rest % d->dim[a] * d->stride[a];
			rest /= d->dim[a];
		}
		out[i] = off;
	}
}

/* The same by the meaning of the ops: element i of a view is element from(i) of its operand. */
static int64_t source_index(const cx_node *n, const cx_desc *x, int64_t i)
{
	int64_t at[CX_MAX_RANK] = {0}, to[CX_MAX_RANK] = {0}, off = 0;
	const cx_desc *y = &n->desc;
	if (n->op == CX_OP_reshape) return i;
	for (int a = y->rank - 1; a >= 0; a--) {
		at[a] = i % y->dim[a];
		i /= y->dim[a];
	}
	for (int a = 0; a < x->rank; a++) {
		const cx_attr_slice *s = n->attr;
		if (n->op == CX_OP_slice) to[a] = s->begin.v[a] + at[a] * s->step.v[a];
		if (n->op == CX_OP_broadcast) to[a] = x->dim[a] == 1 ? 0 : at[a + y->rank - x->rank];
	}
	if (n->op == CX_OP_permute)
		for (int a = 0; a < y->rank; a++) to[((const cx_attr_perm *)n->attr)->perm.v[a]] = at[a];
	for (int a = 0; a < x->rank; a++) off = off * x->dim[a] + to[a];
	return off;
}

static void views_read_what_they_mean(void **state)
{
	bool ops[CX_OP_COUNT] = {false};
	int64_t *x = malloc(sizeof *x << 20), *y = malloc(sizeof *y << 20);
	uint32_t n_views = 0, n_copies = 0;
	(void)state;
	ops[CX_OP_reshape] = ops[CX_OP_permute] = ops[CX_OP_slice] = ops[CX_OP_broadcast] = true;
	for (uint64_t seed = 0; seed < 400; seed++) {
		cx_random_opts o = {.seed = seed, .n_nodes = 20, .ops = ops, .zeros = seed % 2};
		cx_random_graph *rg;
		cx_err e = {0};
		if (cx__random_graph(&o, NULL, &rg, &e) != CX_OK) fail_msg("%s", e.msg);
		for (uint32_t id = 0; id < rg->g->n_nodes; id++) {
			const cx_node *n = &rg->g->nodes[id];
			if (cx__ops[n->op].kind != CX_KIND_VIEW) continue;
			n_copies += n->root == id;
			if (n->root == id) continue;
			n_views++;
			read_view(rg->g, n->in[0], x);
			read_view(rg->g, id, y);
			for (int64_t i = 0; i < cx__desc_elems(&n->desc); i++)
				assert_int_equal(y[i], x[source_index(n, &rg->g->nodes[n->in[0]].desc, i)]);
		}
		assert_int_equal(cx__graph_check(rg->g, NULL), CX_OK);
		cx__random_graph_free(rg);
	}
	free(x);
	free(y);
	print_message("# %u views, %u reshapes that had to copy\n", n_views, n_copies);
	assert_true(n_views > 3000 && n_copies > 10);
}

/* ---- the checker ------------------------------------------------------------------------------
 */

static void check_finds_damage(void **state)
{
	cx_graph *g = new_graph();
	cx_tensor x = cx_input(g, "x", CX_F32, D(4, 6)), s = cx_state(g, "s", CX_F32, D(4, 6)), t, v, k;
	cx_attr_perm p = {.perm = cx_list_of(2, 1, 0)};
	uint32_t was;
	int64_t off;
	(void)state;
	t = cx_assign(g, s, x);
	v = cx_permute(g, t, &p);
	k = cx_topk(g, cx_neg(g, v), NULL);
	cx_output(g, "k", k);
	assert_int_equal(cx_graph_finish(g, NULL), CX_OK);
	assert_int_equal(cx__graph_check(g, NULL), CX_OK);
#define BREAK(field, value, keep)                                                                  \
	keep = field;                                                                                  \
	field = value;                                                                                 \
	assert_int_not_equal(cx__graph_check(g, NULL), CX_OK);                                         \
	field = keep;                                                                                  \
	assert_int_equal(cx__graph_check(g, NULL), CX_OK)
	BREAK(g->nodes[t.id].in[0], k.id, was);        /* an operand from later */
	BREAK(g->nodes[v.id].root, x.id + 100, was);   /* no such root */
	BREAK(g->nodes[v.id].root, v.id, was);         /* strided, but with storage of its own */
	BREAK(g->nodes[k.id].root, x.id, was);         /* a root without being a view */
	BREAK(g->nodes[t.id].state, UINT32_MAX, was);  /* a version is lost */
	BREAK(g->nodes[v.id].state, s.id, was);        /* a view is a version */
	BREAK(g->nodes[s.id].flags, 0, was);           /* an update is forgotten */
	BREAK(g->nodes[k.id].n_out, 1, was);           /* an output is lost */
	BREAK(g->outputs[0].id, 1000, was);            /* an output that is no node */
	BREAK(g->nodes[v.id].view_off, 1, off);        /* reads past the end */
	BREAK(g->nodes[v.id].view_off, -1, off);       /* and before the start */
	BREAK(g->nodes[k.id].desc.dim[0], 5, off);     /* not what the shape rule says */
	BREAK(g->nodes[x.id].desc.stride[0], 12, off); /* not dense */
#undef BREAK
	cx_graph_free(g);
}

/* ---- dtypes and attributes --------------------------------------------------------------------
 */

static void dtype_table(void **state)
{
	static const struct {
		cx_dtype t;
		int32_t rank;
		int64_t dim[3];
		int64_t bytes;
	} cases[] = {
		{CX_F32, 0, {0}, 4},
		{CX_F16, 2, {3, 5}, 30},
		{CX_BOOL, 1, {0}, 0},
		{CX_I64, 3, {2, 3, 4}, 192},
		{CX_Q8_0, 2, {3, 64}, 204},
		{CX_Q4_K, 2, {2, 256}, 288},
		{CX_MXFP4, 1, {32}, 17},
		{CX_I8C, 2, {3, 5}, 16 + 12},
		{CX_I8C, 2, {0, 5}, 0},
		{CX_Q8_0, 2, {64, 3}, -1},
		{CX_Q8_0, 0, {0}, -1},
		{CX_I8C, 1, {4}, -1},
		{CX_F32, 1, {-1}, -1},
		{CX_F32, 1, {1ll << 31}, -1},
		{CX_F32, 7, {0}, -1},
		{CX_F32, 3, {CX_MAX_DIM, CX_MAX_DIM, 2}, -1},
		{CX_U8, 2, {CX_MAX_DIM, CX_MAX_DIM}, -1},
		{CX_DTYPE_COUNT, 0, {0}, -1},
		{CX_U8, 2, {CX_MAX_DIM, 1 << 20}, (int64_t)CX_MAX_DIM << 20},
	};
	cx_dtype t;
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		uint64_t bytes = 0;
		bool ok = cx_dtype_bytes(cases[i].t, cases[i].rank, cases[i].dim, &bytes);
		assert_int_equal(ok, cases[i].bytes >= 0);
		if (ok) assert_int_equal(bytes, cases[i].bytes);
	}
	for (int i = 0; i < CX_DTYPE_COUNT; i++) {
		const cx_dtype_info *d = cx_dtype_get((cx_dtype)i);
		assert_true(cx_dtype_parse(d->name, &t) && (int)t == i);
		if (d->gguf_id >= 0)
			assert_true(cx_dtype_from_gguf((uint32_t)d->gguf_id, &t) && (int)t == i);
	}
	assert_false(cx_dtype_parse("f33", &t));
	assert_false(cx_dtype_from_gguf(9999, &t));
	assert_string_equal(cx_dtype_get((cx_dtype)999)->name, "none");
}

static void defaults_are_the_rows(void **state)
{
	cx_attr_softmax s = cx_attr_softmax_default();
	cx_attr_adamw a = cx_attr_adamw_default();
	cx_attr_linear l = cx_attr_linear_default();
	(void)state;
	assert_true(s.axis == -1 && s.scale == 1.0f);
	assert_true(a.beta1 == 0.9f && a.beta2 == 0.999f && a.decay == 0.01f);
	assert_true(l.n_w == 1 && l.act == CX_OP_input && !l.glu);
	for (int i = 0; i < CX_ATTR_COUNT; i++) {
		const cx_attr_info *info = &cx__attrs[i];
		char copy[512];
		assert_true(info->size <= sizeof copy);
		memcpy(copy, info->defaults, info->size);
		assert_true(cx__attr_equal((cx_attr_id)i, copy, info->defaults));
		for (int f = 0; f < info->n_fields; f++) { /* each field counts */
			copy[info->fields[f].offset] ^= 1;
			assert_false(cx__attr_equal((cx_attr_id)i, copy, info->defaults));
			copy[info->fields[f].offset] ^= 1;
		}
	}
}

static void numbers_round_trip(void **state)
{
	cx_rng rng = cx__rng_make(1, 2);
	char buf[48];
	int64_t i;
	(void)state;
	for (int k = 0; k < 200000; k++) {
		uint32_t u = (uint32_t)cx__rng_u64(&rng), v;
		float x, y;
		memcpy(&x, &u, sizeof x);
		assert_true(cx__float_parse(buf, cx__float_print(x, buf, sizeof buf), &y));
		memcpy(&v, &y, sizeof v);
		if (x != x) assert_true(y != y);
		else assert_int_equal(u, v);
	}
	assert_true(cx__int_parse("-9223372036854775808", 20, &i) && i == INT64_MIN);
	assert_false(cx__int_parse("9223372036854775808", 19, &i));
	assert_false(
		cx__int_parse("-", 1, &i) || cx__int_parse("", 0, &i) || cx__int_parse("1x", 2, &i));
}

/* ---- every op, cost, memory -------------------------------------------------------------------
 */

static void every_op_alone(void **state)
{
	(void)state;
	for (int op = 0; op < CX_OP_COUNT; op++) {
		for (uint64_t seed = 0; seed < 60 && cx__ops[op].kind != CX_KIND_META; seed++) {
			cx_random_opts o = {.seed = seed,
				.layout = (int)(seed % 4),
				.zeros = seed % 3 == 0,
				.float_dtype = (cx_dtype)(seed % 3)};
			cx_random_graph *rg;
			cx_err e = {0};
			if (cx__random_case((cx_op)op, &o, NULL, &rg, &e) != CX_OK)
				fail_msg("%s: %s", cx__ops[op].name, e.msg);
			if (cx__graph_check(rg->g, &e) != CX_OK) fail_msg("%s: %s", cx__ops[op].name, e.msg);
			assert_true(rg->g->n_outputs >= 1);
			cx__random_graph_free(rg);
		}
	}
}

/* 10,000 nodes as a model makes them; gives the seconds of CPU time. */
static double build_large(const cx_alloc *alloc, uint32_t layers, cx_err *err)
{
	clock_t start = clock();
	cx_attr_matmul m = {.trans_b = true};
	cx_graph *g;
	cx_tensor x;
	char name[32];
	if (cx_graph_create(alloc, &g, err) != CX_OK) return -1;
	x = cx_input(g, "x", CX_F32, D(4, 64));
	for (uint32_t i = 0; i < layers; i++) {
		cx_tensor w, y;
		snprintf(name, sizeof name, "blk.%u.w", i);
		cx_scope_push(g, "blk.%u", i);
		w = cx_weight(g, name, CX_F32, D(64, 64));
		y = cx_named(g, cx_silu(g, cx_matmul(cx_at(g), x, w, &m)), "h");
		x = cx_add(g, x, y);
		cx_scope_pop(g);
	}
	cx_output(g, "y", x);
	cx_graph_finish(g, err);
	cx_graph_free(g);
	return (double)(clock() - start) / CLOCKS_PER_SEC;
}

static void ten_thousand_nodes_are_cheap(void **state)
{
	double best = 1, t;
	cx_err e = {0};
	(void)state;
	for (int i = 0; i < 5; i++) {
		t = build_large(NULL, 2500, &e);
		assert_int_equal(e.code, CX_OK);
		if (t < best) best = t;
	}
	print_message("# 10,000 nodes built and finished in %.2f ms\n", best * 1e3);
	assert_true(
		best < 0.1); /* generous: sanitizers and busy machines; a quadratic step takes seconds */
}

/* test_graph_text.c does it with every kind of node. */
static void every_allocation_fails_in_turn(void **state)
{
	long n = 0;
	(void)state;
	for (;; n++) {
		cx_fault f = {.countdown = n};
		cx_alloc alloc = cx_alloc_fault(&f);
		cx_err e = {0};
		build_large(&alloc, 40, &e);
		assert_int_equal(f.n_live, 0);
		if (!f.fired) {
			assert_int_equal(e.code, CX_OK);
			break;
		}
		assert_int_equal(e.code, CX_ERR_MEMORY);
		assert_true(strlen(e.msg) > 0);
	}
	assert_true(n > 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(first_error_stays),
		cmocka_unit_test(operands_are_checked),
		cmocka_unit_test(leaves_are_checked),
		cmocka_unit_test(names_are_unique_per_kind),
		cmocka_unit_test(scopes_and_labels),
		cmocka_unit_test(finish_needs_a_result),
		cmocka_unit_test(states_have_versions),
		cmocka_unit_test(views_and_twins_of_states_are_not_updated),
		cmocka_unit_test(views_read_what_they_mean),
		cmocka_unit_test(check_finds_damage),
		cmocka_unit_test(dtype_table),
		cmocka_unit_test(defaults_are_the_rows),
		cmocka_unit_test(numbers_round_trip),
		cmocka_unit_test(every_op_alone),
		cmocka_unit_test(ten_thousand_nodes_are_cheap),
		cmocka_unit_test(every_allocation_fails_in_turn),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
