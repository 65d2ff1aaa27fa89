/* test_graph_text.c - the text form: byte for byte round trips, errors with their place, hostile
 * text. */
#include "graph/graph.h"
#include "tests/random_graph.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static char *print(const cx_graph *g, size_t *n)
{
	char *text;
	cx_err e = {0};
	if (cx_graph_print(g, NULL, &text, n, &e) != CX_OK) fail_msg("print: %s", e.msg);
	assert_int_equal(strlen(text), *n);
	return text;
}

static cx_graph *parse(const char *text, size_t n)
{
	cx_graph *g;
	cx_err e = {0};
	if (cx_graph_parse(text, n, NULL, &g, &e) != CX_OK) fail_msg("parse: %s\n%s", e.msg, text);
	return g;
}

/* Same nodes in everything that a backend sees. */
static void expect_same_graph(const cx_graph *a, const cx_graph *b)
{
	assert_int_equal(a->n_nodes, b->n_nodes);
	assert_int_equal(a->n_outputs, b->n_outputs);
	for (uint32_t i = 0; i < a->n_nodes; i++) {
		const cx_node *x = &a->nodes[i], *y = &b->nodes[i];
		assert_int_equal(x->op, y->op);
		assert_int_equal(x->flags, y->flags);
		assert_int_equal(x->n_in, y->n_in);
		if (x->n_in) assert_memory_equal(x->in, y->in, x->n_in * sizeof x->in[0]);
		assert_true(cx__attr_equal(cx__ops[x->op].attr, x->attr, y->attr));
		assert_memory_equal(&x->desc, &y->desc, sizeof x->desc);
		assert_true(x->root == y->root && x->view_off == y->view_off && x->state == y->state);
		assert_int_equal(x->data_bytes, y->data_bytes);
		if (x->data_bytes) assert_memory_equal(x->data, y->data, x->data_bytes);
		assert_int_equal(!x->prog, !y->prog);
	}
}

static void ten_thousand_random_graphs(void **state)
{
	uint64_t n_nodes = 0, n_bytes = 0;
	clock_t start = clock();
	(void)state;
	for (uint64_t seed = 0; seed < 10000; seed++) {
		cx_random_opts o = {.seed = seed,
			.n_nodes = 4 + (uint32_t)(seed % 24),
			.fused = seed % 2,
			.zeros = seed % 3 == 0,
			.specials = seed % 5 == 0,
			.no_states = seed % 7 == 0,
			.f32_only = seed % 4 == 0};
		cx_random_graph *rg;
		cx_graph *back;
		cx_err e = {0};
		char *text, *again;
		size_t n, m;
		if (cx__random_graph(&o, NULL, &rg, &e) != CX_OK) fail_msg("%s", e.msg);
		text = print(rg->g, &n);
		back = parse(text, n);
		again = print(back, &m);
		if (n != m || memcmp(text, again, n) != 0)
			fail_msg("seed %d prints differently\n%s\n%s", (int)seed, text, again);
		if (seed % 10 == 0) expect_same_graph(rg->g, back);
		n_nodes += rg->g->n_nodes;
		n_bytes += n;
		cx_free(NULL, text, n + 1);
		cx_free(NULL, again, m + 1);
		cx_graph_free(back);
		cx__random_graph_free(rg);
	}
	print_message("# 10,000 graphs, %llu nodes, %llu bytes of text there and back in %.2f s\n",
		(unsigned long long)n_nodes, (unsigned long long)n_bytes,
		(double)(clock() - start) / CLOCKS_PER_SEC);
}

static const char example[] = "cortex-graph 1\n"
							  "%0 = input \"x\" : f32[4,64]\n"
							  "%1 = weight \"w\" : q8_0[128,64]\n"
							  "%2 = const x\"0000803f\" : f32[] @\"one\"\n"
							  "%3 = matmul(%0, %1) {trans_b=true} : f32[4,128] @\"blk.3.q\"\n"
							  "%4 = topk(%3) {k=4, axis=1} : f32[4,4], i32[4,4] @\"best\"\n"
							  "%6 = state \"s\" : f32[2,2,64]\n"
							  "%7 = weight \"c\" : f32[64,3]\n"
							  "%8 = conv1d(%0, %7, _, %6) {silu=true} : f32[4,64], f32[2,2,64]\n"
							  "%10 = linear(%0, %1) {act=gelu_tanh} : f32[4,128]\n"
							  "%11 = map(%3, %2) {prog=\"r2=clamp r0 -inf 1.5;r3=where r2 r0 "
							  "r1;r4=cast r3 bf16;out r4:bf16 r2:f32\", reduce=1} : "
							  "bf16[4], f32[4]\n"
							  "%13 = softmax(%3) {axis=1, scale=0.100000001} : f32[4,128]\n"
							  "output \"y\" %13\n";

static void the_example_is_canonical(void **state)
{
	cx_graph *g = parse(example, sizeof example - 1);
	size_t n;
	char *text = print(g, &n);
	(void)state;
	assert_string_equal(text, example);
	cx_free(NULL, text, n + 1);
	cx_graph_free(g);
}

static void blanks_comments_and_returns(void **state)
{
	static const char loose[] =
		"cortex-graph 1 \r\n\n  # a note\n\t%0=input\"x\":f32[ 2 , 3 ]\r\n%1  =  reshape ( %0 ) "
		"{ dims=[-1] } : f32[6]\noutput\"y\"%1";
	cx_graph *g = parse(loose, sizeof loose - 1);
	size_t n;
	char *text = print(g, &n);
	(void)state;
	assert_string_equal(text,
		"cortex-graph 1\n%0 = input \"x\" : f32[2,3]\n%1 = reshape(%0) {dims=[6]} : f32[6]\n"
		"output \"y\" %1\n");
	cx_free(NULL, text, n + 1);
	cx_graph_free(g);
}

static void constants_of_every_length(void **state)
{
	uint8_t bytes[200];
	(void)state;
	for (int i = 0; i < 200; i++) bytes[i] = (uint8_t)(i * 37 + 11);
	for (int64_t n = 0; n < 200; n++) {
		cx_graph *g, *back;
		size_t len;
		char *text;
		assert_int_equal(cx_graph_create(NULL, &g, NULL), CX_OK);
		cx_output(g, "y", cx_const(g, CX_U8, 1, &n, bytes));
		text = print(g, &len);
		back = parse(text, len);
		expect_same_graph(g, back);
		cx_free(NULL, text, len + 1);
		cx_graph_free(g);
		cx_graph_free(back);
	}
}

/* ---- what is wrong, and where -----------------------------------------------------------------
 */

static void errors_say_where(void **state)
{
	static const struct {
		const char *line, *what;
	} bad[] = {
		{"%1 = input \"y\" : f32[4,", "line 3, column 24: not a number"},
		{"%1 = input \"y\" : f33[4]", "column 18: no such dtype"},
		{"%1 = input \"y\" : f32[4] junk", "left over"},
		{"%1 = input \"y : f32[4]", "string does not end"},
		{"%1 = input \"y\" : f32[-4]", "dim out of range"},
		{"%1 = input \"y\" : f32[99999999999999999999]", "not a number"},
		{"%1 = input \"y\" : f32[1,1,1,1,1,1,1]", "more than 6"},
		{"%1 = input \"y\" f32[4]", "':' is missing"},
		{"%1 = input \"x\" : f32[4]", "taken"},
		{"%1 = input \"\" : f32[4]", "1 to 127"},
		{"%2 = neg(%0) : f32[4,6]", "column 1: the next id is %1"},
		{"%1 = nag(%0) : f32[4,6]", "column 6: no such op"},
		{"%1 = neg(%1) : f32[4,6]", "column 10: no such tensor"},
		{"%1 = neg(%4294967295) : f32[4,6]", "no such tensor"},
		{"%1 = neg(x) : f32[4,6]", "like %12"},
		{"%1 = neg(%0 : f32[4,6]", "')' is missing"},
		{"%1 = neg(%0) : f32[4,7]", "column 16: the op gives f32[4,6]"},
		{"%1 = neg(%0) : f16[4,6]", "the op gives f32[4,6]"},
		{"%1 = neg(%0) : f32[4,6], f32[4,6]", "more types"},
		{"%1 = topk(%0) : f32[4,1]", "fewer types"},
		{"%1 = neg(%0) {k=1} : f32[4,6]", "no such attribute"},
		{"%1 = topk(%0) {k=1, k=2} : f32[4,1], i32[4,1]", "given twice"},
		{"%1 = topk(%0) {k=x} : f32[4,1], i32[4,1]", "not a value"},
		{"%1 = topk(%0) {k=} : f32[4,1], i32[4,1]", "not a value"},
		{"%1 = topk(%0) {k=1 : f32[4,1], i32[4,1]", "'}' is missing"},
		{"%1 = topk(%0) {k} : f32[4,1], i32[4,1]", "'=' is missing"},
		{"%1 = permute(%0) {perm=[1,} : f32[6,4]", "not a value"},
		{"%1 = permute(%0) {perm=[1,0,0,0,0,0,0]} : f32[6,4]", "not a value"},
		{"%1 = softmax(%0) {scale=0x1p3} : f32[4,6]", "not a value"},
		{"%1 = softmax(%0) {scale=1e} : f32[4,6]", "not a value"},
		{"%1 = cast(%0) {dtype=f64} : f32[4,6]", "not a value"},
		{"%1 = cast(%0) {dtype=averyverylongdtypename} : f32[4,6]", "not a value"},
		{"%1 = matmul(%0, %0) : f32[4,4]", "line 3: matmul: a [4,6] has k=6"},
		{"%1 = softmax(%0) {axis=2} : f32[4,6]", "softmax: axis is 2"},
		{"%1 = proj(%0) : f32[4,6]", "cx_out"},
		{"%1 = const x\"00\" : f32[]", "does not fit the number of bytes"},
		{"%1 = const x\"0\" : u8[1]", "not hex"},
		{"%1 = const x\"0G\" : u8[1]", "not hex"},
		{"%1 = const b\"AA\" : u8[1]", "not base64"},
		{"%1 = const b\"AB==\" : u8[1]", "not base64"},
		{"%1 = const b\"A===\" : u8[1]", "not base64"},
		{"%1 = const \"00\" : u8[1]", "bytes are"},
		{"%1 = const x\"00\" : q8_0[32]", "does not fit"},
		{"%1 = map(%0) : f32[4,6]", "needs a program"},
		{"%1 = map(%0) {prog=\"\"} : f32[4,6]", "not a map program"},
		{"%1 = map(%0) {prog=\"r1=neg r1;out r1:f32\"} : f32[4,6]", "reads a register"},
		{"%1 = map(%0) {prog=\"r1=softmax r0;out r1:f32\"} : f32[4,6]", "not a map program"},
		{"%1 = map(%0) {prog=\"r2=neg r0;out r2:f32\"} : f32[4,6]", "not a map program"},
		{"%1 = map(%0) {prog=\"out r9:f32\"} : f32[4,6]", "register 9"},
		{"%1 = map(%0) {prog=\"out r0:q8_0\"} : f32[4,6]", "register 0"},
		{"%1 = map(%0) {prog=\"r1=cast r0 q4_0;out r1:f32\"} : f32[4,6]", "no plain dtype"},
		{"%1 = add(%0, _) : f32[4,6]", "operand 1 (b) is missing"},
		{"%1 = neg(%0) : f32[4,6] @\"it's\"", "not a label"},
		{"output \"y\" %3", "no such tensor"},
		{"outputs \"y\" %0", "a line is"},
		{"output \"z\" %0", "taken"},
	};
	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		char text[512];
		cx_graph *g;
		cx_err e = {0};
		int n = snprintf(text, sizeof text,
			"cortex-graph 1\n%%0 = input \"x\" : f32[4,6]\n%s\noutput \"z\" %%0\n", bad[i].line);
		if (cx_graph_parse(text, (size_t)n, NULL, &g, &e) == CX_OK)
			fail_msg("accepted: %s", bad[i].line);
		assert_null(g);
		if (!strstr(e.msg, bad[i].what))
			fail_msg("%s\n\tgives: %s\n\twanted: %s", bad[i].line, e.msg, bad[i].what);
		if (!strstr(e.msg, "line ")) fail_msg("no line in: %s", e.msg);
	}
}

static void heads_and_ends(void **state)
{
	static const char *const bad[] = {"", "cortex-graph", "cortex-graph 2\n", "cortex-graph 1x\n",
		"cortex-graph 1\n", "\357\273\277cortex-graph 1\n",
		"cortex-graph 1\n%0 = input \"x\" : f32[1]\n"};
	cx_graph *g;
	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_int_not_equal(cx_graph_parse(bad[i], strlen(bad[i]), NULL, &g, NULL), CX_OK);
	assert_int_not_equal(cx_graph_parse(NULL, 0, NULL, &g, NULL), CX_OK);
}

/* Every prefix and every single-byte change: an error or a graph, never a crash, never a read past
 * the end. */
static void damaged_text(void **state)
{
	cx_rng rng = cx__rng_make(3, 4);
	size_t n = sizeof example - 1, ok = 0, total = 0;
	(void)state;
	for (size_t len = 0; len <= n; len++) {
		char *copy = malloc(len + 1); /* exact size, so that a sanitizer sees the end */
		cx_graph *g;
		memcpy(copy, example, len);
		cx_graph_parse(copy, len, NULL, &g, NULL);
		cx_graph_free(g);
		free(copy);
	}
	for (int i = 0; i < 20000; i++) {
		char copy[sizeof example];
		cx_graph *g;
		int edits = (int)cx__rng_int(&rng, 1, 3);
		memcpy(copy, example, n);
		for (int k = 0; k < edits; k++) {
			size_t at = (size_t)cx__rng_int(&rng, 0, (int64_t)n - 1);
			copy[at] = cx__rng_one_in(&rng, 2) ? (char)cx__rng_int(&rng, 0, 255)
											   : example[cx__rng_int(&rng, 0, (int64_t)n - 1)];
		}
		total++;
		if (cx_graph_parse(copy, n, NULL, &g, NULL) == CX_OK) {
			size_t m;
			char *text = print(g, &m);
			cx_graph *back = parse(text, m); /* what is accepted round-trips */
			cx_graph_free(back);
			cx_free(NULL, text, m + 1);
			ok++;
		}
		cx_graph_free(g);
	}
	assert_true(ok > 0 && ok < total);
}

/* Time must grow with the size, not with its square. */
static void large_texts_are_linear(void **state)
{
	size_t n = 4 << 20, at;
	char *text = malloc(n);
	cx_graph *g;
	clock_t start = clock();
	(void)state;
	memset(text, '[', n); /* one token */
	memcpy(text, "cortex-graph 1\n%0 = permute(", 28);
	assert_int_not_equal(cx_graph_parse(text, n, NULL, &g, NULL), CX_OK);
	at = (size_t)snprintf(text, n, "cortex-graph 1\n%%0 = input \"x\" : f32[1]\n%%1 = concat(%%0");
	while (at < n - 40) at += (size_t)sprintf(text + at, ", %%0");
	at += (size_t)sprintf(text + at, ") : f32[%d]\noutput \"y\" %%1\n", (int)((at - 56) / 4 + 1));
	if (cx_graph_parse(text, at, NULL, &g, NULL) == CX_OK) cx_graph_free(g);
	at = (size_t)snprintf(text, n, "cortex-graph 1\n%%0 = input \"x\" : f32[1]\n");
	for (int i = 1; at < n - 80; i++)
		at += (size_t)sprintf(text + at, "%%%d = input \"%d\" : f32[1]\n", i, i);
	assert_int_not_equal(cx_graph_parse(text, at, NULL, &g, NULL), CX_OK); /* no output */
	free(text);
	assert_true((double)(clock() - start) / CLOCKS_PER_SEC < 10);
}

static void every_allocation_fails_in_turn(void **state)
{
	cx_random_opts o = {.seed = 5, .n_nodes = 150, .fused = true};
	cx_random_graph *rg;
	char *text;
	size_t n;
	(void)state;
	assert_int_equal(cx__random_graph(&o, NULL, &rg, NULL), CX_OK);
	text = print(rg->g, &n);
	for (long i = 0;; i++) {
		cx_fault f = {.countdown = i};
		cx_alloc alloc = cx_alloc_fault(&f);
		cx_err e = {0};
		cx_graph *g;
		cx_status st = cx_graph_parse(text, n, &alloc, &g, &e);
		cx_graph_free(g);
		assert_int_equal(f.n_live, 0);
		if (!f.fired) {
			assert_int_equal(st, CX_OK);
			assert_true(i > 10);
			break;
		}
		assert_int_equal(st, CX_ERR_MEMORY);
		assert_int_equal(e.code, CX_ERR_MEMORY);
	}
	for (long i = 0;; i++) {
		cx_fault f = {.countdown = i};
		cx_alloc alloc = cx_alloc_fault(&f);
		char *copy;
		size_t m;
		cx_status st = cx_graph_print(rg->g, &alloc, &copy, &m, NULL);
		if (st == CX_OK) cx_free(&alloc, copy, m + 1);
		assert_int_equal(f.n_live, 0);
		assert_int_equal(st, f.fired ? CX_ERR_MEMORY : CX_OK);
		if (!f.fired) break;
	}
	cx_free(NULL, text, n + 1);
	cx__random_graph_free(rg);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ten_thousand_random_graphs),
		cmocka_unit_test(the_example_is_canonical),
		cmocka_unit_test(blanks_comments_and_returns),
		cmocka_unit_test(constants_of_every_length),
		cmocka_unit_test(errors_say_where),
		cmocka_unit_test(heads_and_ends),
		cmocka_unit_test(damaged_text),
		cmocka_unit_test(large_texts_are_linear),
		cmocka_unit_test(every_allocation_fails_in_turn),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
