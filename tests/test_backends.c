/* test_backends.c - what every backend in backends/list.def owes the runtime, whatever it computes:
 * devices, buffers, ranges, programs, and failing allocations. A new backend is under test as soon
 * as it has its row. The null backend runs plans without computing; the others must agree on one.
 */
#include "graph/backend.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct session {
	cx_runtime *rt;
	cx_device *dev;
	const cx_backend *b;
} session;

/* Not every backend finds its hardware; then open says why and there is nothing to test. */
static bool open_session(session *s, const cx_backend *b, const cx_config *config)
{
	cx_err err = {0};
	*s = (session){.b = b};
	assert_int_equal(cx_runtime_create(config, &s->rt, NULL), CX_OK);
	if (cx_device_open(s->rt, b->name, 0, &s->dev, &err) == CX_OK) return true;
	assert_true(err.msg[0] != 0);
	assert_null(s->dev);
	cx_runtime_free(s->rt);
	return false;
}

static void close_session(session *s)
{
	cx_device_close(s->dev);
	cx_runtime_free(s->rt);
}

static void test_names(void **state)
{
	const char *const *names = cx_backend_names();
	cx_runtime *rt = NULL;
	cx_device *dev = NULL;
	cx_err err = {0};
	int n = 0;
	(void)state;
	for (; names[n]; n++) assert_string_equal(names[n], cx__backends[n]->name);
	assert_null(cx__backends[n]);
	assert_int_equal(cx_runtime_create(NULL, &rt, NULL), CX_OK);
	assert_int_equal(cx_device_open(rt, "abacus", 0, &dev, &err), CX_ERR_ARGUMENT);
	assert_non_null(strstr(err.msg, "abacus"));
	for (int i = 0; i < n; i++) {
		err = (cx_err){0};
		assert_true(cx_device_open(rt, names[i], 1000, &dev, &err) != CX_OK);
		assert_true(err.msg[0] && !dev);
	}
	cx_runtime_free(rt);
}

static void check_buffers(session *s)
{
	unsigned char in[100], out[100], mine[64];
	cx_buffer *b = NULL, *none = NULL, *wrap = NULL;
	cx_limits limits;
	cx_err err = {0};
	for (int i = 0; i < 100; i++) in[i] = (unsigned char)(i * 7 + 1);
	s->b->limits(s->dev, &limits);
	assert_true(limits.alignment >= 16 && (limits.alignment & (limits.alignment - 1)) == 0);
	assert_true(limits.max_buffer >= 1u << 20 && limits.n_threads >= 1);
	assert_int_equal(s->b->alloc(s->dev, 200, NULL, &b, NULL), CX_OK);
	assert_true(b->bytes == 200 && b->dev == s->dev);
	assert_int_equal(s->b->read(b, 100, out, 100, NULL), CX_OK);
	for (int i = 0; i < 100; i++) assert_int_equal(out[i], 0);
	assert_int_equal(s->b->write(b, 3, in, 100, NULL), CX_OK);
	assert_int_equal(s->b->read(b, 3, out, 100, NULL), CX_OK);
	assert_memory_equal(in, out, 100);
	assert_int_equal(s->b->write(b, 101, in, 100, &err), CX_ERR_ARGUMENT); /* one byte too far */
	assert_true(err.msg[0] != 0);
	assert_int_equal(s->b->read(b, UINT64_MAX, out, 2, NULL), CX_ERR_ARGUMENT); /* no overflow */
	assert_int_equal(s->b->write(b, 200, in, 0, NULL), CX_OK);
	assert_int_equal(s->b->alloc(s->dev, 0, NULL, &none, NULL), CX_OK);
	if (limits.maps_host) {
		memset(mine, 5, sizeof mine);
		assert_int_equal(s->b->alloc(s->dev, sizeof mine, mine, &wrap, NULL), CX_OK);
		mine[9] = 77;
		assert_int_equal(s->b->read(wrap, 9, out, 1, NULL), CX_OK);
		assert_int_equal(out[0], 77);
	}
	s->b->free(wrap);
	s->b->free(none);
	s->b->free(b);
	s->b->free(NULL);
}

/* x [3,4] -> softmax(2 x + w) summed into a state; gives the output, and the state after `runs`
 * runs. */
static cx_graph *small_graph(void)
{
	cx_graph *g = NULL;
	int64_t d[] = {3, 4};
	float w[4] = {1, -1, 0.5f, 0};
	cx_tensor x, y, s;
	assert_int_equal(cx_graph_create(NULL, &g, NULL), CX_OK);
	x = cx_input(g, "x", CX_F32, 2, d);
	y = cx_add(g, cx_mul(g, x, cx_const_f32(g, 2)), cx_const(g, CX_F32, 1, d + 1, w));
	y = cx_softmax(g, y, NULL);
	s = cx_state(g, "s", CX_F32, 2, d);
	s = cx_assign(g, s, cx_add(g, s, y));
	cx_output(g, "y", y);
	assert_int_equal(cx_graph_finish(g, NULL), CX_OK);
	return g;
}

static cx_status run_small(
	session *s, const cx_graph *g, int runs, float y[12], float st[12], cx_err *err)
{
	cx_plan_opts opts = {.devices = &s->dev, .n_devices = 1, .verify = true};
	cx_plan *plan = NULL;
	cx_store *store = NULL;
	cx_exec *x = NULL;
	float in[12];
	cx_status r;
	for (int i = 0; i < 12; i++) in[i] = (float)sin(i);
	if ((r = cx_plan_build(g, &opts, &plan, err)) != CX_OK) goto done;
	if ((r = cx_store_create(s->rt, &store, err)) != CX_OK) goto done;
	if ((r = cx_exec_create(plan, store, &x, err)) != CX_OK) goto done;
	if ((r = cx_exec_set_input(x, cx_exec_input(x, "x"), in, sizeof in, err)) != CX_OK) goto done;
	for (int i = 0; i < runs; i++)
		if ((r = cx_exec_run(x, err)) != CX_OK) goto done;
	if ((r = cx_exec_get_output(x, cx_exec_output(x, "y"), y, 48, err)) != CX_OK) goto done;
	r = cx_store_state_read(store, "s", st, 48, err);
done:
	cx_exec_free(x);
	cx_store_free(store);
	cx_plan_free(plan);
	return r;
}

static void check_small(const float y[12], const float st[12], int runs)
{
	static const double w[4] = {1, -1, 0.5, 0};
	for (int row = 0; row < 3; row++) {
		double e[4], total = 0;
		for (int j = 0; j < 4; j++) total += e[j] = exp(2 * (double)(float)sin(row * 4 + j) + w[j]);
		for (int j = 0; j < 4; j++) {
			assert_true(fabs(y[row * 4 + j] - e[j] / total) <= 1e-6);
			assert_true(fabs(st[row * 4 + j] - runs * e[j] / total) <= 1e-5);
		}
	}
}

static void test_every_backend(void **state)
{
	cx_graph *g = small_graph();
	(void)state;
	for (int i = 0; cx__backends[i]; i++) {
		session s;
		float y[12], st[12];
		cx_err err = {0};
		if (!open_session(&s, cx__backends[i], NULL)) continue;
		assert_true(cx_device_name(s.dev)[0] != 0);
		check_buffers(&s);
		if (run_small(&s, g, 3, y, st, &err) == CX_ERR_UNSUPPORTED) { /* a young backend */
			print_message("%s cannot run the plan yet: %s\n", s.b->name, err.msg);
			close_session(&s);
			continue;
		}
		if (err.code != CX_OK) fail_msg("%s: %s", s.b->name, err.msg);
		if (strcmp(s.b->name, "null") != 0) check_small(y, st, 3);
		else
			for (int j = 0; j < 12; j++)
				assert_true(y[j] == 0 && st[j] == 0); /* nothing was computed */
		close_session(&s);
	}
	cx_graph_free(g);
}

/* The n-th allocation fails, for every n: an error of kind MEMORY, nothing leaked, nothing half
 * open. */
static void test_failing_allocations(void **state)
{
	cx_graph *g = small_graph();
	(void)state;
	for (int i = 0; cx__backends[i]; i++)
		for (long n = 0;; n++) {
			cx_fault fault = {.countdown = n};
			cx_config config = {.alloc = cx_alloc_fault(&fault), .n_threads = 1};
			session s = {.b = cx__backends[i]};
			float y[12], st[12];
			cx_status r = cx_runtime_create(&config, &s.rt, NULL);
			if (r == CX_OK) r = cx_device_open(s.rt, s.b->name, 0, &s.dev, NULL);
			if (r == CX_OK) r = run_small(&s, g, 1, y, st, NULL);
			close_session(&s);
			if (fault.n_live != 0)
				fail_msg("%s: %ld blocks live after failure %ld", s.b->name, fault.n_live, n);
			if (r != CX_OK && !fault.fired) break; /* its hardware is not here */
			assert_int_equal(r, fault.fired ? CX_ERR_MEMORY : CX_OK);
			if (!fault.fired) break;
		}
	cx_graph_free(g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_names),
		cmocka_unit_test(test_every_backend), cmocka_unit_test(test_failing_allocations)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
