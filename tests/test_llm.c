/* test_llm.c - language models end to end: tiny random Llama, Qwen2 and Qwen3 models against an
 * independent forward pass in double; the trained stories260K of the fixtures in every format;
 * chunking bit for bit; samplers; bad models. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <jansson.h>
#include <math.h>
#include <sys/stat.h>

#include "models/files/npy.h"
#include "models/llm/llm.h"
#include "models/llm/sampler.h"
#include "tests/file_make.h"
#include "tests/llm_ref.h"

static cx_runtime *rt;
static cx_device *dev[2]; /* ref, cpu */
static const char *const dev_name[2] = {"ref", "cpu"};

static int open_devices(void **state)
{
	cx_config config = {.n_threads = 2};
	cx_err err = {0};
	(void)state;
	if (cx_runtime_create(&config, &rt, &err) != CX_OK) return -1;
	for (int i = 0; i < 2; i++)
		if (cx_device_open(rt, dev_name[i], 0, &dev[i], &err) != CX_OK) {
			print_error("%s\n", err.msg);
			return -1;
		}
	return 0;
}

static int close_devices(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++) cx_device_close(dev[i]);
	cx_runtime_free(rt);
	return 0;
}

#define OK(call)                                                                                   \
	do {                                                                                           \
		cx_err err_ = {0}, *err = &err_;                                                           \
		cx_status st_ = (call);                                                                    \
		if (st_ != CX_OK) fail_msg("%s: %s", #call, err_.msg);                                     \
	} while (0)

/* All logits of ids, run in pieces of `step` tokens (0: whole). The caller frees. */
static float *run(const cx_llm *m, cx_device *d, const int32_t *ids, size_t n, size_t step)
{
	cx_llm_session_opts opts = {.n_ctx = 512, .chunk = 256};
	size_t vocab = (size_t)cx_llm_get_config(m)->vocab;
	float *logits = malloc(n * vocab * sizeof *logits);
	cx_llm_session *s;
	OK(cx_llm_session_create(m, rt, d, &opts, &s, err));
	for (size_t i = 0; i < n;) {
		size_t part = step == 0 || n - i < step ? n - i : step;
		OK(cx_llm_session_eval(s, ids + i, part, true, logits + i * vocab, err));
		i += part;
	}
	cx_llm_session_free(s);
	return logits;
}

/* Greedy from `start`, n tokens in all into out. */
static void greedy(const cx_llm *m, cx_device *d, int32_t start, size_t n, int32_t *out)
{
	cx_llm_session_opts opts = {.n_ctx = 512};
	size_t vocab = (size_t)cx_llm_get_config(m)->vocab;
	float *logits = malloc(vocab * sizeof *logits);
	cx_llm_session *s;
	OK(cx_llm_session_create(m, rt, d, &opts, &s, err));
	out[0] = start;
	for (size_t i = 1; i < n; i++) {
		size_t best = 0;
		OK(cx_llm_session_eval(s, &out[i - 1], 1, false, logits, err));
		for (size_t v = 1; v < vocab; v++)
			if (logits[v] > logits[best]) best = v;
		out[i] = (int32_t)best;
	}
	cx_llm_session_free(s);
	free(logits);
}

/* Largest |a - b|; NaN if there is one. */
static double worst(const float *a, const double *b, size_t n)
{
	double w = 0;
	for (size_t i = 0; i < n; i++) {
		double d = fabs((double)a[i] - b[i]);
		if (!(d <= w)) w = d;
	}
	return w;
}

/* ---- tiny models ---- */

static void tiny_models(void **state)
{
	static const struct {
		const char *arch;
		bool tied, llama3;
		int shards;
	} cases[] = {{"llama", false, false, 1}, {"llama", true, true, 3}, {"qwen2", true, false, 1},
		{"qwen3", false, false, 2}};
	int32_t ids[70];
	(void)state;
	for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
		llm_ref ref;
		cx_llm *m;
		char name[32];
		const char *dir;
		double *want;
		snprintf(name, sizeof name, "hf%zu", c);
		dir = temp_path(name);
		mkdir(dir, 0777);
		llm_ref_random(&ref, cases[c].arch, cases[c].tied, cases[c].llama3, 100 + c);
		llm_ref_write_hf(&ref, cases[c].arch, cases[c].llama3, cases[c].shards, dir);
		for (int i = 0; i < 70; i++) ids[i] = (i * 37 + 11) % ref.vocab;
		want = malloc(70 * (size_t)ref.vocab * sizeof *want);
		llm_ref_forward(&ref, ids, 70, want);
		OK(cx_llm_open(dir, NULL, &m, err));
		assert_true(cx_llm_get_config(m)->tied == cases[c].tied);
		for (int d = 0; d < 2; d++) {
			float *got = run(m, dev[d], ids, 70, 0);
			double w = worst(got, want, 70 * (size_t)ref.vocab);
			print_message("# %s%s on %s: largest difference of a logit %.1e\n", cases[c].arch,
				cases[c].llama3 ? " (llama3 scaling)" : "", dev_name[d], w);
			assert_true(w <= 1e-4);
			free(got);
		}
		cx_llm_close(m);
		free(want);
		llm_ref_free(&ref);
	}
}

static void chunks_give_the_same_bits(const cx_llm *m, const int32_t *ids, size_t n)
{
	static const size_t steps[] = {1, 3, 64};
	size_t bytes = n * (size_t)cx_llm_get_config(m)->vocab * sizeof(float);
	for (int d = 0; d < 2; d++) {
		float *whole = run(m, dev[d], ids, n, 0);
		for (size_t i = 0; i < 3; i++) {
			float *parts = run(m, dev[d], ids, n, steps[i]);
			if (memcmp(whole, parts, bytes) != 0)
				fail_msg("%s: chunks of %zu give other bits than the whole", dev_name[d], steps[i]);
			free(parts);
		}
		free(whole);
	}
}

static void tiny_chunks(void **state)
{
	llm_ref ref;
	cx_llm *m;
	int32_t ids[100];
	const char *dir = temp_path("chunks");
	(void)state;
	mkdir(dir, 0777);
	llm_ref_random(&ref, "qwen3", true, false, 5);
	llm_ref_write_hf(&ref, "qwen3", false, 1, dir);
	for (int i = 0; i < 100; i++) ids[i] = (i * 13 + 5) % ref.vocab;
	OK(cx_llm_open(dir, NULL, &m, err));
	chunks_give_the_same_bits(m, ids, 100);
	cx_llm_close(m);
	llm_ref_free(&ref);
}

static void session_limits(void **state)
{
	llm_ref ref;
	cx_llm *m;
	cx_llm_session *s;
	cx_llm_session_opts opts = {.n_ctx = 4};
	const char *dir = temp_path("limits");
	int32_t good[5] = {1, 2, 3, 4, 5}, bad = 61;
	float logits[61];
	cx_err err = {0};
	(void)state;
	mkdir(dir, 0777);
	llm_ref_random(&ref, "llama", true, false, 6);
	llm_ref_write_hf(&ref, "llama", false, 1, dir);
	OK(cx_llm_open(dir, NULL, &m, err));
	OK(cx_llm_session_create(m, rt, dev[1], &opts, &s, err));
	assert_int_equal(cx_llm_session_eval(s, good, 5, false, logits, &err), CX_ERR_ARGUMENT);
	assert_non_null(strstr(err.msg, "do not fit"));
	err.code = CX_OK;
	assert_int_equal(cx_llm_session_eval(s, &bad, 1, false, logits, &err), CX_ERR_ARGUMENT);
	assert_non_null(strstr(err.msg, "vocabulary"));
	assert_int_equal(cx_llm_session_length(s), 0);
	OK(cx_llm_session_eval(s, good, 4, false, logits, err));
	cx_llm_session_reset(s);
	OK(cx_llm_session_eval(s, good, 4, false, logits, err));
	cx_llm_session_free(s);
	opts.chunk = 48;
	err.code = CX_OK;
	assert_int_equal(cx_llm_session_create(m, rt, dev[1], &opts, &s, &err), CX_ERR_ARGUMENT);
	cx_llm_close(m);
	llm_ref_free(&ref);
}

/* ---- bad models: a sentence that names the file and the field ---- */

static void write_text(const char *dir, const char *file, const char *text)
{
	bytes b = {0};
	char path[1200];
	snprintf(path, sizeof path, "%s/%s", dir, file);
	bytes_text(&b, text);
	bytes_save(&b, path);
	bytes_free(&b);
}

static void bad_models(void **state)
{
	static const struct {
		const char *config, *want;
	} cases[] = {{"{}", "architectures"},
		{"{\"architectures\": [\"MambaForCausalLM\"]}", "MambaForCausalLM"},
		{"{\"architectures\": [\"LlamaForCausalLM\"], \"hidden_size\": \"x\"}", "hidden_size"},
		{"{\"architectures\": [\"LlamaForCausalLM\"], \"hidden_size\": 24, \"intermediate_size\": "
		 "41, "
		 "\"num_hidden_layers\": 2, \"num_attention_heads\": 4, \"num_key_value_heads\": 2, "
		 "\"max_position_embeddings\": 128}",
			"mlp.gate_proj.weight"},
		{"{\"architectures\": [\"LlamaForCausalLM\"], \"hidden_size\": 24, \"intermediate_size\": "
		 "40, "
		 "\"num_hidden_layers\": 3, \"num_attention_heads\": 4, \"num_key_value_heads\": 2, "
		 "\"max_position_embeddings\": 128}",
			"model.layers.2"},
		{"{\"architectures\": [\"LlamaForCausalLM\"], \"hidden_size\": 24, \"intermediate_size\": "
		 "40, "
		 "\"num_hidden_layers\": 2, \"num_attention_heads\": 4, \"num_key_value_heads\": 3, "
		 "\"max_position_embeddings\": 128}",
			"key heads"},
		{"{\"architectures\": [\"LlamaForCausalLM\"], \"hidden_size\": 24, \"intermediate_size\": "
		 "40, "
		 "\"num_hidden_layers\": 2, \"num_attention_heads\": 4, \"max_position_embeddings\": 128, "
		 "\"rope_scaling\": {\"rope_type\": \"mystery\"}}",
			"mystery"},
		{"{\"architectures\": [\"LlamaForCausalLM\"], \"quantization_config\": {\"quant_method\": "
		 "\"fp8\"}}",
			"fp8"}};
	llm_ref ref;
	const char *dir = temp_path("bad");
	cx_llm *m;
	cx_err err = {0};
	(void)state;
	mkdir(dir, 0777);
	llm_ref_random(&ref, "llama", true, false, 6);
	llm_ref_write_hf(&ref, "llama", false, 1, dir);
	OK(cx_llm_open(dir, NULL, &m, err));
	cx_llm_close(m);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		memset(&err, 0, sizeof err);
		write_text(dir, "config.json", cases[i].config);
		assert_int_not_equal(cx_llm_open(dir, NULL, &m, &err), CX_OK);
		assert_null(m);
		if (!strstr(err.msg, cases[i].want))
			fail_msg("'%s' does not name '%s'", err.msg, cases[i].want);
	}
	memset(&err, 0, sizeof err);
	assert_int_equal(cx_llm_open("no-such-file.gguf", NULL, &m, &err), CX_ERR_IO);
	llm_ref_free(&ref);
}

/* ---- sampler ---- */

static void sampler_rules(void **state)
{
	cx_sampler_opts o = {.temperature = 0, .top_p = 1};
	float logits[8] = {0, 3, 1, 3, 2, -1, 9, 9};
	int counts[8] = {0};
	cx_sampler s;
	int32_t id;
	cx_err err = {0};
	(void)state;
	OK(cx_sampler_init(&s, &o, 8, NULL, err));
	OK(cx_sampler_next(&s, logits, 6, 0, &id, err));
	assert_int_equal(id, 1); /* ties to the lowest id; 6 and 7 are not allowed */
	cx_sampler_deinit(&s);
	o = (cx_sampler_opts){.temperature = 1, .top_p = 1, .top_k = 2, .seed = 3};
	OK(cx_sampler_init(&s, &o, 8, NULL, err));
	for (uint64_t i = 0; i < 2000; i++) {
		int32_t again;
		OK(cx_sampler_next(&s, logits, 6, i, &id, err));
		OK(cx_sampler_next(&s, logits, 6, i, &again, err));
		assert_int_equal(id, again);
		counts[id]++;
	}
	assert_int_equal(counts[1] + counts[3], 2000);
	assert_true(counts[1] > 850 && counts[1] < 1150);
	cx_sampler_deinit(&s);
	/* p = e^3, e^3, e^2, e, 1, e^-1 over their sum: 0.38, 0.38, 0.14, ...: 0.7 needs both, 0.8 the
	 * third too */
	for (int third = 0; third < 2; third++) {
		memset(counts, 0, sizeof counts);
		o = (cx_sampler_opts){.temperature = 1, .top_p = third ? 0.8f : 0.7f, .seed = 4};
		OK(cx_sampler_init(&s, &o, 8, NULL, err));
		for (uint64_t i = 0; i < 1000; i++) {
			OK(cx_sampler_next(&s, logits, 6, i, &id, err));
			counts[id]++;
		}
		assert_true((counts[4] > 0) == (third == 1));
		assert_int_equal(counts[2] + counts[0] + counts[5], 0);
		cx_sampler_deinit(&s);
	}
	/* min-p 0.3: e^-1 = 0.37 stays, e^-2 = 0.14 goes */
	memset(counts, 0, sizeof counts);
	o = (cx_sampler_opts){.temperature = 1, .top_p = 1, .min_p = 0.3f, .seed = 5};
	OK(cx_sampler_init(&s, &o, 8, NULL, err));
	for (uint64_t i = 0; i < 1000; i++) {
		OK(cx_sampler_next(&s, logits, 6, i, &id, err));
		counts[id]++;
	}
	assert_true(counts[4] > 0);
	assert_int_equal(counts[2] + counts[0] + counts[5], 0);
	logits[2] = NAN;
	assert_int_equal(cx_sampler_next(&s, logits, 6, 0, &id, &err), CX_ERR_DEVICE);
	cx_sampler_deinit(&s);
	o.top_p = 0;
	assert_int_equal(cx_sampler_init(&s, &o, 8, NULL, &err), CX_ERR_ARGUMENT);
}

/* ---- the trained model of the fixtures ---- */

static json_t *load_json(const char *path)
{
	json_t *j = json_load_file(path, 0, NULL);
	assert_non_null(j);
	return j;
}

static void check_ids(const json_t *want, const int32_t *got, const char *what)
{
	for (size_t i = 0; i < json_array_size(want); i++)
		if (json_integer_value(json_array_get(want, i)) != got[i])
			fail_msg("%s: token %zu is %d, not %lld", what, i, (int)got[i],
				(long long)json_integer_value(json_array_get(want, i)));
}

static void stories(void **state)
{
	const char *path = fixture("llm/stories260K/stories260K.gguf");
	json_t *json, *want;
	cx_npy npy = {0};
	double *logits;
	cx_llm *m;
	int32_t ids[257];
	(void)state;
	if (!path) skip();
	json = load_json(fixture("llm/stories260K/greedy_tokens.json"));
	want = json_object_get(json, "tokens");
	assert_int_equal(json_array_size(want), 257);
	OK(cx_npy_open(NULL, fixture("llm/stories260K/logits_f64_first64.npy"), &npy, err));
	logits = malloc((size_t)npy.n * sizeof *logits);
	cx_npy_to_f64(&npy, logits);
	OK(cx_llm_open(path, NULL, &m, err));
	for (int d = 0; d < 2; d++) {
		float *got;
		double w;
		greedy(m, dev[d], 1, 257, ids);
		check_ids(want, ids, dev_name[d]);
		got = run(m, dev[d], ids, 64, 0);
		w = worst(got, logits, 64 * 512);
		print_message("# stories260K on %s: 257 of 257 ids, largest difference of a logit %.1e\n",
			dev_name[d], w);
		assert_true(w <= 1e-4);
		free(got);
	}
	chunks_give_the_same_bits(m, ids, 200);
	cx_llm_close(m);
	cx_npy_close(&npy);
	free(logits);
	json_decref(json);
}

static void stories_quantised(void **state)
{
	static const char *const names[] = {"Q4_K_M", "Q5_K_M", "Q6_K"};
	char file[96];
	(void)state;
	if (!fixture("llm/stories260K/stories260K.gguf")) skip();
	for (size_t i = 0; i < 3; i++)
		for (int d = 0; d < 2; d++) {
			json_t *json, *tokens, *rows;
			cx_llm *m;
			int32_t ids[257];
			double want[4 * 512], w;
			float *got;
			snprintf(file, sizeof file, "llm/stories260K/stories260K-%s.expected.json", names[i]);
			json = load_json(fixture(file));
			tokens = json_object_get(json, "tokens");
			rows = json_object_get(json, "logits_first4");
			snprintf(file, sizeof file, "llm/stories260K/stories260K-%s.gguf", names[i]);
			OK(cx_llm_open(fixture(file), NULL, &m, err));
			greedy(m, dev[d], 1, json_array_size(tokens), ids);
			check_ids(tokens, ids, names[i]);
			got = run(m, dev[d], ids, 4, 0);
			for (size_t k = 0; k < 4 * 512; k++)
				want[k] = json_number_value(json_array_get(json_array_get(rows, k / 512), k % 512));
			w = worst(got, want, 4 * 512);
			print_message("# stories260K-%s on %s: %zu ids, largest difference of a logit %.1e\n",
				names[i], dev_name[d], json_array_size(tokens), w);
			/* The expected values are of float activations. The cpu multiplies block formats
			 * with activations of 16 bits (backends/cpu/isa.h); with 8 bits it would be 0.1. */
			assert_true(w <= (d == 0 ? 1e-4 : 2e-3));
			free(got);
			cx_llm_close(m);
			json_decref(json);
		}
}

static void stories_f16_and_safetensors(void **state)
{
	const char *dir = temp_path("stories");
	json_t *json, *want;
	llm_ref ref;
	cx_llm *m;
	int32_t ids[257];
	(void)state;
	if (!fixture("llm/stories260K/stories260K.gguf")) skip();
	json = load_json(fixture("llm/stories260K/greedy_tokens.json"));
	want = json_object_get(json, "tokens");
	assert_true(llm_ref_load_bin(&ref, fixture("llm/stories260K/stories260K.bin")));
	mkdir(dir, 0777);
	llm_ref_write_hf(&ref, "llama", false, 2, dir);
	OK(cx_llm_open(dir, NULL, &m, err));
	for (int d = 0; d < 2; d++) {
		greedy(m, dev[d], 1, 257, ids);
		check_ids(want, ids, "safetensors");
	}
	cx_llm_close(m);
	OK(cx_llm_open(fixture("llm/stories260K/stories260K-F16.gguf"), NULL, &m, err));
	for (int d = 0; d < 2; d++) {
		float *got = run(m, dev[d], ids, 64, 0);
		double *exact = malloc(64 * 512 * sizeof *exact), w;
		llm_ref_forward(&ref, ids, 64, exact);
		w = worst(got, exact, 64 * 512);
		print_message(
			"# stories260K-F16 on %s: largest difference to f32 weights %.1e\n", dev_name[d], w);
		assert_true(w <= 0.05);
		free(exact);
		free(got);
	}
	cx_llm_close(m);
	llm_ref_free(&ref);
	json_decref(json);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(tiny_models), cmocka_unit_test(tiny_chunks),
		cmocka_unit_test(session_limits), cmocka_unit_test(bad_models),
		cmocka_unit_test(sampler_rules), cmocka_unit_test(stories),
		cmocka_unit_test(stories_quantised), cmocka_unit_test(stories_f16_and_safetensors)};
	return cmocka_run_group_tests_name("llm", tests, open_devices, close_devices);
}
