/* test_llm_faults.c - every allocation of opening a tiny language model, making a session and
 * running it is made to fail in turn: an out-of-memory error, and nothing left behind. */
#include "models/llm/llm.h"
#include "models/llm/sampler.h"
#include "tests/file_make.h"
#include "tests/llm_ref.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

typedef struct parts {
	cx_runtime *rt;
	cx_device *dev;
	cx_llm *m;
	cx_llm_session *s;
	cx_sampler sampler;
} parts;

/* All that `cortex run` does with a model. logits: [vocab]. */
static cx_status use(
	parts *p, const char *dir, const char *backend, cx_fault *fault, float *logits, cx_err *err)
{
	static const int32_t ids[3] = {1, 5, 9};
	cx_alloc alloc = cx_alloc_fault(fault);
	cx_config config = {.alloc = alloc, .n_threads = 1};
	cx_llm_session_opts opts = {.n_ctx = 16, .chunk = 4};
	cx_sampler_opts sample = {.temperature = 1, .top_k = 5, .top_p = 0.9f, .seed = 1};
	int32_t id;
	cx_status st = cx_runtime_create(&config, &p->rt, err);
	if (st == CX_OK) st = cx_device_open(p->rt, backend, 0, &p->dev, err);
	if (st == CX_OK) st = cx_llm_open(dir, &alloc, &p->m, err);
	if (st == CX_OK) st = cx_llm_session_create(p->m, p->rt, p->dev, &opts, &p->s, err);
	if (st == CX_OK)
		st = cx_sampler_init(
			&p->sampler, &sample, (uint32_t)cx_llm_get_config(p->m)->vocab, &alloc, err);
	if (st == CX_OK) st = cx_llm_session_eval(p->s, ids, 3, false, logits, err);
	if (st == CX_OK)
		st = cx_sampler_next(
			&p->sampler, logits, (uint32_t)cx_llm_get_config(p->m)->vocab, 0, &id, err);
	return st == CX_OK ? cx_llm_session_eval(p->s, &id, 1, false, logits, err) : st;
}

static void put_away(parts *p)
{
	cx_llm_session_free(p->s);
	cx_sampler_deinit(&p->sampler);
	cx_llm_close(p->m);
	cx_device_close(p->dev);
	cx_runtime_free(p->rt);
}

static void every_allocation(void **state)
{
	const char *dir = temp_path("hf");
	float logits[1024], want[1024];
	llm_ref ref;
	(void)state;
	mkdir(dir, 0777);
	llm_ref_random(&ref, "qwen3", false, true, 7);
	assert_true(ref.vocab <= 1024);
	llm_ref_write_hf(&ref, "qwen3", true, 2, dir);
	for (int b = 0; b < 2; b++) {
		const char *backend = b ? "cpu" : "ref";
		cx_fault fault = {.countdown = -1};
		parts p = {0};
		cx_err err = {0};
		long n = 0, total;
		if (use(&p, dir, backend, &fault, want, &err) != CX_OK) fail_msg("%s", err.msg);
		total = fault.n_calls;
		put_away(&p);
		assert_int_equal(fault.n_live, 0);
		for (;; n++) {
			cx_status st;
			fault = (cx_fault){.countdown = n};
			memset(&p, 0, sizeof p);
			memset(&err, 0, sizeof err);
			st = use(&p, dir, backend, &fault, logits, &err);
			put_away(&p);
			if (fault.n_live != 0)
				fail_msg("%s: allocation %ld fails: %ld blocks leak", backend, n, fault.n_live);
			if (!fault.fired) break;
			if (st != CX_ERR_MEMORY || err.code != CX_ERR_MEMORY || !err.msg[0])
				fail_msg(
					"%s: allocation %ld fails: %s, '%s'", backend, n, cx_status_name(st), err.msg);
		}
		assert_memory_equal(logits, want, (size_t)ref.vocab * sizeof *want);
		print_message("%s: %ld allocations\n", backend, total);
	}
	llm_ref_free(&ref);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(every_allocation)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
