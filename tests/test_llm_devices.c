/* test_llm_devices.c - a trained language model on devices that are not on every machine
 * (opencl, vulkan, cuda): its greedy ids are those of the fixtures, and a prompt in pieces
 * gives the
 * bits of a prompt as a whole. Says which device is missing. */
#include "tests/vulkan_env.h"

#include "models/llm/llm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <jansson.h>

enum { N_IDS = 257, N_PROMPT = 64 };
static cx_runtime *rt;

/* Path of a file of stories260K; NULL: there are no fixtures. */
static const char *fixture(const char *name)
{
	static char path[1200];
	const char *dir = getenv("CORTEX_FIXTURES");
	snprintf(path, sizeof path, "%s/llm/stories260K/%s", dir ? dir : "../shared/fixtures", name);
	return access(path, R_OK) == 0 ? path : NULL;
}

#define OK(call)                                                                                   \
	do {                                                                                           \
		cx_err err_ = {0}, *err = &err_;                                                           \
		if ((call) != CX_OK) fail_msg("%s: %s", #call, err_.msg);                                  \
	} while (0)

/* Logits of ids, `step` at a time. The caller frees. */
static float *logits_of(const cx_llm *m, cx_device *d, const int32_t *ids, size_t n, size_t step)
{
	cx_llm_session_opts opts = {.n_ctx = 512, .chunk = 256};
	size_t vocab = (size_t)cx_llm_get_config(m)->vocab;
	float *logits = malloc(n * vocab * sizeof *logits);
	cx_llm_session *s;
	OK(cx_llm_session_create(m, rt, d, &opts, &s, err));
	for (size_t i = 0; i < n; i += step) {
		size_t now = n - i < step ? n - i : step;
		OK(cx_llm_session_eval(s, ids + i, now, true, logits + i * vocab, err));
	}
	cx_llm_session_free(s);
	return logits;
}

static void check_greedy(const cx_llm *m, cx_device *d, const json_t *want, int32_t *ids)
{
	cx_llm_session_opts opts = {.n_ctx = 512};
	size_t vocab = (size_t)cx_llm_get_config(m)->vocab, n = json_array_size(want);
	float *logits = malloc(vocab * sizeof *logits);
	cx_llm_session *s;
	assert_true(n > 1 && n <= N_IDS);
	OK(cx_llm_session_create(m, rt, d, &opts, &s, err));
	ids[0] = (int32_t)json_integer_value(json_array_get(want, 0));
	for (size_t i = 1; i < n; i++) {
		size_t best = 0;
		OK(cx_llm_session_eval(s, &ids[i - 1], 1, false, logits, err));
		for (size_t v = 1; v < vocab; v++)
			if (logits[v] > logits[best]) best = v;
		ids[i] = (int32_t)best;
		if (ids[i] != json_integer_value(json_array_get(want, i)))
			fail_msg("%s: token %zu is %d, not %lld", cx_device_name(d), i, (int)ids[i],
				(long long)json_integer_value(json_array_get(want, i)));
	}
	cx_llm_session_free(s);
	free(logits);
}

static void check_model(cx_device *d, const char *expected, const char *gguf)
{
	json_t *json = json_load_file(fixture(expected), 0, NULL),
		   *want = json_object_get(json, "tokens");
	int32_t ids[N_IDS];
	float *whole, *pieces;
	size_t vocab;
	cx_llm *m;
	assert_non_null(want);
	OK(cx_llm_open(fixture(gguf), NULL, &m, err));
	vocab = (size_t)cx_llm_get_config(m)->vocab;
	check_greedy(m, d, want, ids);
	whole = logits_of(m, d, ids, N_PROMPT, N_PROMPT);
	pieces = logits_of(m, d, ids, N_PROMPT, 7);
	assert_memory_equal(whole, pieces, N_PROMPT * vocab * sizeof *whole);
	print_message("# %s on %s: %zu ids; %d tokens whole and in pieces of 7 give the same bits\n",
		gguf, cx_device_name(d), json_array_size(want), N_PROMPT);
	free(whole);
	free(pieces);
	cx_llm_close(m);
	json_decref(json);
}

static void check_device(const char *backend)
{
	cx_device *d = NULL;
	cx_err err = {0};
	if (!fixture("stories260K.gguf")) skip();
	if (cx_device_open(rt, backend, 0, &d, &err) != CX_OK) {
		print_message("# %s\n", err.msg);
		skip();
	}
	check_model(d, "greedy_tokens.json", "stories260K.gguf");
	check_model(d, "stories260K-Q4_K_M.expected.json", "stories260K-Q4_K_M.gguf");
	check_model(d, "stories260K-Q6_K.expected.json", "stories260K-Q6_K.gguf");
	cx_device_close(d);
}

static void test_opencl(void **state)
{
	(void)state;
	check_device("opencl");
}

static void test_cuda(void **state)
{
	(void)state;
	check_device("cuda");
}

static void test_vulkan(void **state)
{
	(void)state;
	vulkan_env();
	check_device("vulkan");
}

static int make_runtime(void **state)
{
	(void)state;
	return cx_runtime_create(NULL, &rt, NULL) == CX_OK ? 0 : -1;
}

static int free_runtime(void **state)
{
	(void)state;
	cx_runtime_free(rt);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_opencl), cmocka_unit_test(test_vulkan), cmocka_unit_test(test_cuda)};
	return cmocka_run_group_tests(tests, make_runtime, free_runtime);
}
