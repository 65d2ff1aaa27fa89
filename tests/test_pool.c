/* test_pool.c - the thread pool: every rank runs once, barriers hold everybody, more threads than
 * cores, sleeping. */
#include "backends/cpu/pool.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

enum { MAX = 16, ROUNDS = 50 };

typedef struct {
	cx_pool *pool;
	uint32_t n;
	int ran[MAX];          /* written by its rank alone */
	uint64_t cell[2][MAX]; /* rounds of a sum that is wrong if a barrier lets anyone through */
	bool wrong[MAX];
} job;

static void count(void *ctx, uint32_t thread, uint32_t n)
{
	job *j = ctx;
	j->ran[thread] += n == j->n ? 1 : 1000;
}
/* Each round every thread replaces its cell by the sum of all cells of the round before. */
static void sums(void *ctx, uint32_t thread, uint32_t n)
{
	job *j = ctx;
	uint64_t want = 1;
	j->cell[0][thread] = 1;
	cx__pool_barrier(j->pool);
	for (int r = 0; r < ROUNDS; r++) {
		uint64_t s = 0;
		for (uint32_t i = 0; i < n; i++) s += j->cell[r & 1][i];
		want *= n;
		if (s != want) j->wrong[thread] = true;
		j->cell[~r & 1][thread] = s;
		cx__pool_barrier(j->pool);
	}
}

static void test_runs(void **state)
{
	static const uint32_t sizes[] = {1, 2, 3, 8, MAX};
	(void)state;
	for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
		job j = {0};
		cx_err err = {0};
		assert_int_equal(cx__pool_create(NULL, sizes[s], s & 1, &j.pool, &err), CX_OK);
		assert_int_equal(cx__pool_size(j.pool), sizes[s]);
		for (int r = 0; r < 300; r++) {
			uint32_t n = 1 + (uint32_t)r % sizes[s];
			int before[MAX];
			for (int i = 0; i < MAX; i++) before[i] = j.ran[i];
			j.n = n;
			cx__pool_run(j.pool, n, count, &j);
			for (uint32_t i = 0; i < MAX; i++) assert_int_equal(j.ran[i] - before[i], i < n);
			if (r % 100 == 50) { /* long enough for the others to fall asleep */
				struct timespec t = {0, 3000000};
				nanosleep(&t, NULL);
			}
		}
		j.n = sizes[s];
		cx__pool_run(j.pool, 0, count, &j); /* 0 and too many: all */
		cx__pool_run(j.pool, 1000, count, &j);
		cx__pool_free(j.pool);
	}
}

static void test_barriers(void **state)
{
	(void)state;
	for (uint32_t n = 1; n <= 9; n += 2) {
		job j = {0};
		assert_int_equal(cx__pool_create(NULL, n, false, &j.pool, NULL), CX_OK);
		for (int r = 0; r < 8; r++) {
			uint32_t part = r & 1 ? n : (n + 1) / 2; /* teams of changing size share the barrier */
			cx__pool_run(j.pool, part, sums, &j);
			for (uint32_t i = 0; i < part; i++) assert_false(j.wrong[i]);
		}
		cx__pool_free(j.pool);
	}
	cx__pool_barrier(NULL);
}

static void test_failures(void **state)
{
	cx_pool *p = (cx_pool *)state;
	cx_err err = {0};
	assert_int_equal(cx__pool_create(NULL, CX_POOL_MAX + 1, false, &p, &err), CX_ERR_ARGUMENT);
	assert_null(p);
	for (long n = 0; n < 2; n++) {
		cx_fault fault = {.countdown = n};
		cx_alloc a = cx_alloc_fault(&fault);
		cx_status st = cx__pool_create(&a, 2, false, &p, NULL);
		assert_int_equal(st, fault.fired ? CX_ERR_MEMORY : CX_OK);
		cx__pool_free(p);
		assert_int_equal(fault.n_live, 0);
	}
	assert_int_equal(cx__pool_create(NULL, 0, false, &p, NULL), CX_OK);
	assert_int_equal(cx__pool_size(p), cx__pool_n_cpus());
	cx__pool_free(p);
	cx__pool_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_runs),
		cmocka_unit_test(test_barriers),
		cmocka_unit_test(test_failures),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
