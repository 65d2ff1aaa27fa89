/* test_gguf.c - the GGUF reader: files made here (good, broken in every known way, cut at every
 * byte, changed at every byte), split files, every allocation failing in turn, and the real files
 * of the fixtures. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "models/files/gguf.h"
#include "models/files/json.h"
#include "tests/file_make.h"

enum { F32 = 0 };

static const uint64_t ne_4[] = {4};

static cx_status open_bytes(const cx_alloc *a, const bytes *b, cx_gguf **out, cx_err *err)
{
	cx_file_map *map;
	cx_status st;
	*out = NULL;
	if ((st = cx_file_map_copy(a, "made.gguf", b->p, b->n, &map, err)) != CX_OK) return st;
	return cx_gguf_open_map(a, map, out, err);
}

static void check_sentence(const cx_err *err)
{
	assert_true(err->code != CX_OK);
	assert_non_null(strstr(err->msg, "made.gguf"));
	assert_true(strlen(err->msg) > 20);
}

/* ---- a good file ---- */

static void test_values(void **state)
{
	bytes b = gguf_good();
	cx_err err = {0};
	int64_t i = 0, heads[2] = {0}, blocks[3] = {0};
	double d = 0;
	bool flag = false;
	const char *s = NULL;
	const cx_gguf_kv *kv;
	cx_gguf *g;
	(void)state;
	assert_int_equal(open_bytes(NULL, &b, &g, &err), CX_OK);
	assert_int_equal(cx_gguf_version(g), 3);
	assert_int_equal(cx_gguf_i64(g, "{a}.block_count", CX_REQUIRED, 1, 10, &i, &err), CX_OK);
	assert_int_equal(i, 5);
	assert_int_equal(cx_gguf_i64(g, "small", CX_REQUIRED, 0, 255, &i, &err), CX_OK);
	assert_int_equal(i, 200);
	assert_int_equal(cx_gguf_i64(g, "minus", CX_OPTIONAL, -10, 0, &i, &err), CX_OK);
	assert_int_equal(i, -7);
	assert_int_equal(cx_gguf_i64(g, "absent", CX_OPTIONAL, -10, 0, &i, &err), CX_OK);
	assert_int_equal(i, -7);
	assert_int_equal(cx_gguf_f64(g, "eps", CX_REQUIRED, 0, 1, &d, &err), CX_OK);
	assert_true(d == 0.5);
	assert_int_equal(cx_gguf_f64(g, "double", CX_REQUIRED, -3, 0, &d, &err), CX_OK);
	assert_true(d == -2.25);
	assert_int_equal(cx_gguf_f64(g, "small", CX_REQUIRED, 0, 1000, &d, &err), CX_OK);
	assert_true(d == 200);
	assert_int_equal(cx_gguf_bool(g, "flag", CX_REQUIRED, &flag, &err), CX_OK);
	assert_true(flag);
	assert_int_equal(cx_gguf_string(g, "general.architecture", CX_REQUIRED, &s, &err), CX_OK);
	assert_string_equal(s, "llama");
	assert_int_equal(cx_gguf_i64s(g, "heads", CX_REQUIRED, 1, 9, 2, heads, &err), CX_OK);
	assert_true(heads[0] == 4 && heads[1] == 2);
	assert_int_equal(cx_gguf_i64s(g, "{a}.block_count", CX_REQUIRED, 1, 9, 3, blocks, &err), CX_OK);
	assert_true(blocks[0] == 5 && blocks[1] == 5 && blocks[2] == 5);
	assert_int_equal(cx_gguf_array(g, "tokens", CX_REQUIRED, CX_GGUF_STRINGS, &kv, &err), CX_OK);
	assert_true(kv->n == 3 && kv->strs[1].len == 0 && kv->strs[2].len == 3);
	assert_memory_equal(kv->strs[2].ptr, "bcd", 3);
	assert_int_equal(cx_gguf_array(g, "scores", CX_REQUIRED, CX_GGUF_FLOATS, &kv, &err), CX_OK);
	assert_true(kv->n == 2 && cx_gguf_kv_f64(kv, 0) == 1.5 && cx_gguf_kv_i64(kv, 1) == -1);
	kv = cx_gguf_find(g, "nested");
	assert_true(kv && kv->n == 2 && kv->elem == CX_GGUF_ARRAY && kv->raw_bytes == 12 + 10 + 12 + 2);
	assert_int_equal(err.code, CX_OK);
	cx_gguf_close(g);
	bytes_free(&b);
}

static void test_tensors(void **state)
{
	bytes b = gguf_good();
	const int64_t any[] = {-1, 64}, wrong[] = {-1, 65};
	const cx_file_tensor *t;
	cx_err err = {0};
	cx_gguf *g;
	(void)state;
	assert_int_equal(open_bytes(NULL, &b, &g, &err), CX_OK);
	assert_int_equal(cx_gguf_tensors(g)->n, 3);
	t = cx_tensor_list_find(cx_gguf_tensors(g), "w");
	assert_true(t && t->rank == 2 && t->dims[0] == 3 && t->dims[1] == 4); /* ne turned round */
	assert_true(t->dtype == CX_F32 && t->usable && t->bytes == 48);
	assert_int_equal(t->data[0] + t->data[47], 0 + 47);
	assert_int_equal(cx_tensor_list_get(cx_gguf_tensors(g), "q", 2, any, &t, &err), CX_OK);
	assert_true(t->dtype == CX_Q8_0 && t->dims[0] == 2 && t->dims[1] == 64 && t->bytes == 4 * 34);
	assert_int_equal(t->data[0], 64);
	assert_null(cx_tensor_list_find(cx_gguf_tensors(g), "none"));
	assert_int_equal(
		cx_tensor_list_get(cx_gguf_tensors(g), "q", 2, wrong, &t, &err), CX_ERR_FORMAT);
	assert_string_equal(err.msg, "made.gguf: tensor 'q' is [2,64], must be [*,65]");
	memset(&err, 0, sizeof err);
	assert_int_equal(
		cx_tensor_list_get(cx_gguf_tensors(g), "none", 2, any, &t, &err), CX_ERR_FORMAT);
	assert_string_equal(err.msg, "made.gguf: there is no tensor 'none'");
	assert_null(t);
	assert_true(gguf_walk(g) > 0);
	cx_gguf_close(g);
	bytes_free(&b);
}

/* Getters refuse the wrong type and range with a sentence and leave the output alone. */
static void test_refusals(void **state)
{
	static const char *const want[] = {
		"made.gguf: metadata key 'llama.block_count' is 5, must be from 6 to 9",
		"made.gguf: metadata key 'huge' is 18446744073709551615, too large",
		"made.gguf: metadata key 'eps' has type f32, must be an integer",
		"made.gguf: metadata key 'tokens' is an array of 3 string, must be an integer",
		"made.gguf: metadata key 'llama.nothing' is missing",
		"made.gguf: metadata key 'eps' is 0.5, must be from 1 to 2",
		"made.gguf: metadata key 'flag' has type bool, must be a number",
		"made.gguf: metadata key 'small' is 200, must be from 0 to 1",
		"made.gguf: metadata key 'eps' has type f32, must be a string",
		"made.gguf: metadata key 'heads' has 2 elements, must have 3",
		"made.gguf: metadata key 'heads' is 2, must be from 3 to 9",
		"made.gguf: metadata key 'heads' is an array of 2 i32, must be an array of strings",
		"made.gguf: metadata key 'eps' has type f32, must be an array of floats",
	};
	bytes b = gguf_good();
	cx_gguf *g;
	(void)state;
	assert_int_equal(open_bytes(NULL, &b, &g, NULL), CX_OK);
	for (size_t k = 0; k < sizeof want / sizeof *want; k++) {
		int64_t i[3] = {77, 77, 77};
		double d = 77;
		bool flag = true;
		const char *s = "77";
		const cx_gguf_kv *kv = NULL;
		cx_err err = {0};
		switch (k) {
		case 0:
			cx_gguf_i64(g, "{a}.block_count", CX_OPTIONAL, 6, 9, i, &err);
			break;
		case 1:
			cx_gguf_i64(g, "huge", CX_OPTIONAL, 0, INT64_MAX, i, &err);
			break;
		case 2:
			cx_gguf_i64(g, "eps", CX_OPTIONAL, 0, 9, i, &err);
			break;
		case 3:
			cx_gguf_i64(g, "tokens", CX_OPTIONAL, 0, 9, i, &err);
			break;
		case 4:
			cx_gguf_i64(g, "{a}.nothing", CX_REQUIRED, 0, 9, i, &err);
			break;
		case 5:
			cx_gguf_f64(g, "eps", CX_REQUIRED, 1, 2, &d, &err);
			break;
		case 6:
			cx_gguf_f64(g, "flag", CX_REQUIRED, 1, 2, &d, &err);
			break;
		case 7:
			cx_gguf_bool(g, "small", CX_REQUIRED, &flag, &err);
			break;
		case 8:
			cx_gguf_string(g, "eps", CX_REQUIRED, &s, &err);
			break;
		case 9:
			cx_gguf_i64s(g, "heads", CX_REQUIRED, 0, 9, 3, i, &err);
			break;
		case 10:
			cx_gguf_i64s(g, "heads", CX_REQUIRED, 3, 9, 2, i, &err);
			break;
		case 11:
			cx_gguf_array(g, "heads", CX_REQUIRED, CX_GGUF_STRINGS, &kv, &err);
			break;
		case 12:
			cx_gguf_array(g, "eps", CX_REQUIRED, CX_GGUF_FLOATS, &kv, &err);
			break;
		}
		assert_string_equal(err.msg, want[k]);
		assert_true(i[0] == 77 && i[1] == 77 && d == 77 && flag && s[0] == '7' && !kv);
	}
	cx_gguf_close(g);
	bytes_free(&b);
}

static void test_extremes(void **state)
{
	bytes b = {0};
	cx_err err = {0};
	const cx_gguf_kv *kv;
	double d = 1;
	cx_gguf *g;
	(void)state;
	gguf_head(&b, 2, 0, 3); /* version 2, no tensors, nothing after the metadata */
	gguf_key(&b, "nan", 6), bytes_f32(&b, NAN);
	gguf_key(&b, "inf", 12), bytes_f64(&b, INFINITY);
	gguf_key_array(&b, "empty", 8, 0);
	assert_int_equal(open_bytes(NULL, &b, &g, &err), CX_OK);
	assert_int_equal(cx_gguf_version(g), 2);
	assert_int_equal(cx_gguf_tensors(g)->n, 0);
	assert_null(cx_tensor_list_find(cx_gguf_tensors(g), "w"));
	assert_int_equal(
		cx_gguf_f64(g, "nan", CX_REQUIRED, -INFINITY, INFINITY, &d, &err), CX_ERR_FORMAT);
	assert_int_equal(
		cx_gguf_f64(g, "inf", CX_REQUIRED, -INFINITY, INFINITY, &d, NULL), CX_ERR_FORMAT);
	assert_true(d == 1);
	assert_int_equal(cx_gguf_kv_i64(cx_gguf_find(g, "nan"), 0), 0);
	assert_int_equal(cx_gguf_kv_i64(cx_gguf_find(g, "inf"), 0), INT64_MAX);
	assert_int_equal(cx_gguf_array(g, "empty", CX_REQUIRED, CX_GGUF_STRINGS, &kv, NULL), CX_OK);
	assert_int_equal(kv->n, 0);
	assert_null(cx_gguf_find(g, "{a}.x")); /* there is no general.architecture */
	cx_gguf_close(g);
	bytes_free(&b);
}

static void test_repeated_key(void **state)
{
	bytes b = {0};
	const char *s = NULL;
	cx_gguf *g;
	(void)state;
	gguf_head(&b, 3, 0, 2);
	gguf_key_text(&b, "general.architecture", "generic");
	gguf_key_text(&b, "general.architecture", "generic"); /* as one known converter does */
	assert_int_equal(open_bytes(NULL, &b, &g, NULL), CX_OK);
	assert_int_equal(cx_gguf_string(g, "general.architecture", CX_REQUIRED, &s, NULL), CX_OK);
	assert_string_equal(s, "generic");
	cx_gguf_close(g);
	bytes_free(&b);
}

/* ---- split files ---- */

static void save_part(
	const char *name, uint16_t no, uint16_t count, uint64_t total, const char *tensor)
{
	bytes b = {0};
	gguf_head(&b, 3, 1, no == 0 ? 4 : 2);
	if (no == 0) {
		gguf_key_text(&b, "general.architecture", "llama");
		gguf_key(&b, "split.tensors.count", 5), bytes_u32(&b, (uint32_t)total);
	}
	gguf_key(&b, "split.no", 2), bytes_u16(&b, no);
	gguf_key(&b, "split.count", 2), bytes_u16(&b, count);
	gguf_tensor(&b, tensor, 1, ne_4, F32, 0);
	bytes_align(&b, 32);
	for (int i = 0; i < 4; i++) bytes_f32(&b, (float)no);
	bytes_save(&b, temp_path(name));
	bytes_free(&b);
}

static void refuse_split(const char *name, const char *says)
{
	cx_err err = {0};
	cx_gguf *g;
	assert_int_not_equal(cx_gguf_open(NULL, temp_path(name), &g, &err), CX_OK);
	assert_null(g);
	if (!strstr(err.msg, says)) fail_msg("'%s' does not say '%s'", err.msg, says);
}

static void test_split(void **state)
{
	cx_err err = {0};
	cx_gguf *g;
	float v;
	(void)state;
	save_part("m-00001-of-00003.gguf", 0, 3, 3, "a");
	save_part("m-00002-of-00003.gguf", 1, 3, 0, "b");
	refuse_split("m-00001-of-00003.gguf", "m-00003-of-00003.gguf: there is no such file");
	save_part("m-00003-of-00003.gguf", 2, 3, 0, "c");
	assert_int_equal(cx_gguf_open(NULL, temp_path("m-00001-of-00003.gguf"), &g, &err), CX_OK);
	assert_int_equal(cx_gguf_tensors(g)->n, 3);
	for (int i = 0; i < 3; i++) {
		const char name[] = {(char)('a' + i), 0};
		const cx_file_tensor *t = cx_tensor_list_find(cx_gguf_tensors(g), name);
		assert_true(t && t->bytes == 16);
		memcpy(&v, t->data, 4);
		assert_true(v == (float)i);
	}
	assert_non_null(
		strstr(cx_tensor_list_find(cx_gguf_tensors(g), "c")->file, "m-00003-of-00003.gguf"));
	for (long n = 0;; n++) { /* and every allocation failing in turn */
		cx_fault fault = {.countdown = n};
		cx_alloc a = cx_alloc_fault(&fault);
		cx_gguf *h;
		cx_status st = cx_gguf_open(&a, temp_path("m-00001-of-00003.gguf"), &h, NULL);
		assert_int_equal(st, fault.fired ? CX_ERR_MEMORY : CX_OK);
		cx_gguf_close(h);
		assert_int_equal(fault.n_live, 0);
		if (!fault.fired) break;
	}
	cx_gguf_close(g);
	refuse_split("m-00002-of-00003.gguf", "is part 2 of 3 of a split model; give the first part");
	save_part("m-00002-of-00003.gguf", 2, 3, 0, "b");
	refuse_split("m-00001-of-00003.gguf", "split.no is 2, but the file's name says 1");
	save_part("m-00002-of-00003.gguf", 1, 3, 0, "c");
	refuse_split("m-00001-of-00003.gguf", "tensor 'c' is there twice");
	save_part("m-00001-of-00003.gguf", 0, 3, 4, "a");
	refuse_split("m-00001-of-00003.gguf", "split.tensors.count is 4, but the 3 parts hold 3");
	save_part("m.gguf", 0, 3, 3, "a");
	refuse_split(
		"m.gguf", "is split in 3 parts, but its name does not end in -00001-of-00003.gguf");
}

/* ---- the fixtures ---- */

static void test_fixture_formats(void **state)
{
	const char *single = fixture("formats/single.gguf"), *empty = fixture("formats/empty.gguf");
	const char *pair = fixture("formats/parameter_weight_bias_1.gguf");
	const int64_t w[] = {30, 20}, bias[] = {30};
	const cx_file_tensor *t;
	const cx_gguf_kv *kv;
	cx_err err = {0};
	int64_t i = 0;
	cx_gguf *g;
	float v;
	(void)state;
	if (!single || !empty || !pair) skip();
	assert_int_equal(cx_gguf_open(NULL, empty, &g, &err), CX_OK);
	assert_int_equal(cx_gguf_tensors(g)->n, 0);
	assert_int_equal(
		cx_gguf_array(g, "metadata_strs", CX_REQUIRED, CX_GGUF_STRINGS, &kv, &err), CX_OK);
	assert_true(kv->n == 3 && kv->strs[2].ptr[0] == 'c');
	assert_int_equal(cx_gguf_i64(g, "metadata_uint32", CX_REQUIRED, 0, 99, &i, &err), CX_OK);
	assert_int_equal(i, 42);
	cx_gguf_close(g);
	assert_int_equal(cx_gguf_open(NULL, single, &g, &err), CX_OK);
	t = cx_tensor_list_find(cx_gguf_tensors(g), "tensor0");
	assert_true(t && t->rank == 2 && t->dims[0] == 2 && t->dims[1] == 2);
	memcpy(&v, t->data + 12, 4);
	assert_true(v == 1.0f);
	cx_gguf_close(g);
	assert_int_equal(cx_gguf_open(NULL, pair, &g, &err), CX_OK);
	assert_int_equal(cx_tensor_list_get(cx_gguf_tensors(g), "weight", 2, w, &t, &err), CX_OK);
	memcpy(&v, t->data + t->bytes - 4, 4);
	assert_true(v == 2.0f);
	assert_int_equal(cx_tensor_list_get(cx_gguf_tensors(g), "bias", 1, bias, &t, &err), CX_OK);
	memcpy(&v, t->data + t->bytes - 4, 4);
	assert_true(v == 1.0f);
	cx_gguf_close(g);
}

/* File, then how many tensors it has of each type, as the manifest of the fixtures says. */
static const struct {
	const char *name;
	struct {
		cx_dtype dtype;
		int n;
	} has[4];
} stories[] = {
	{"stories260K", {{CX_F32, 48}}},
	{"stories260K-Q4_K_M", {{CX_F16, 5}, {CX_F32, 11}, {CX_Q5_0, 29}, {CX_Q8_0, 3}}},
	{"stories260K-Q5_K_M", {{CX_F16, 5}, {CX_F32, 11}, {CX_Q5_1, 29}, {CX_Q8_0, 3}}},
	{"stories260K-Q6_K", {{CX_F16, 5}, {CX_F32, 11}, {CX_Q8_0, 32}}},
	{"stories260K-Q4_K_M.dequant_f32", {{CX_F32, 48}}},
};

static void check_story(const char *path, size_t k)
{
	int n[CX_DTYPE_COUNT] = {0}, total = 0;
	const int64_t embd[] = {512, 64}, down[] = {64, 172};
	const cx_tensor_list *l;
	const cx_file_tensor *t;
	const cx_gguf_kv *kv;
	cx_err err = {0};
	int64_t v = 0;
	double eps = 0;
	cx_gguf *g;
	assert_int_equal(cx_gguf_open(NULL, path, &g, &err), CX_OK);
	l = cx_gguf_tensors(g);
	for (size_t i = 0; i < l->n; i++) n[l->at[i].dtype]++;
	for (size_t i = 0; i < 4; i++) {
		total += stories[k].has[i].n;
		if (stories[k].has[i].n) assert_int_equal(n[stories[k].has[i].dtype], stories[k].has[i].n);
	}
	assert_int_equal(l->n, total);
	assert_int_equal(cx_tensor_list_get(l, "token_embd.weight", 2, embd, &t, &err), CX_OK);
	assert_int_equal(cx_tensor_list_get(l, "blk.4.ffn_down.weight", 2, down, &t, &err), CX_OK);
	assert_int_equal(cx_gguf_i64(g, "{a}.block_count", CX_REQUIRED, 1, 100, &v, &err), CX_OK);
	assert_int_equal(v, 5);
	assert_int_equal(
		cx_gguf_i64(g, "{a}.attention.head_count_kv", CX_REQUIRED, 1, 8, &v, &err), CX_OK);
	assert_int_equal(v, 4);
	assert_int_equal(
		cx_gguf_f64(g, "{a}.attention.layer_norm_rms_epsilon", CX_REQUIRED, 0, 1, &eps, &err),
		CX_OK);
	assert_true(fabs(eps - 1e-5) <= 1e-10);
	assert_int_equal(
		cx_gguf_array(g, "tokenizer.ggml.tokens", CX_REQUIRED, CX_GGUF_STRINGS, &kv, &err), CX_OK);
	assert_int_equal(kv->n, 512);
	assert_int_equal(
		cx_gguf_array(g, "tokenizer.ggml.scores", CX_REQUIRED, CX_GGUF_FLOATS, &kv, &err), CX_OK);
	assert_int_equal(kv->n, 512);
	(void)gguf_walk(g);
	cx_gguf_close(g);
}

static void test_fixture_stories(void **state)
{
	enum { BIN_HEADER = 7 * 4, EMBD_BYTES = 512 * 64 * 4 };
	const char *bin = fixture("llm/stories260K/stories260K.bin"), *path;
	const cx_file_tensor *t;
	bytes b;
	cx_gguf *g;
	(void)state;
	if (!bin) skip();
	b = bytes_load(bin);
	for (size_t k = 0; k < sizeof stories / sizeof *stories; k++) {
		char name[128];
		snprintf(name, sizeof name, "llm/stories260K/%s.gguf", stories[k].name);
		path = fixture(name);
		assert_non_null(path);
		check_story(path, k);
	}
	/* the same embedding table in the model's first format: a header of seven integers, then the
	 * table */
	assert_int_equal(
		cx_gguf_open(NULL, fixture("llm/stories260K/stories260K.gguf"), &g, NULL), CX_OK);
	t = cx_tensor_list_find(cx_gguf_tensors(g), "token_embd.weight");
	assert_true(t && t->bytes == EMBD_BYTES && b.n > BIN_HEADER + EMBD_BYTES);
	assert_memory_equal(t->data, b.p + BIN_HEADER, EMBD_BYTES);
	cx_gguf_close(g);
	bytes_free(&b);
}

static void test_fixture_vocabularies(void **state)
{
	static const struct {
		const char *name;
		uint64_t n;
	} vocab[] = {{"bert-bge", 30522}, {"gpt-2", 50257}, {"llama-spm", 32000}};
	(void)state;
	for (size_t k = 0; k < 3; k++) {
		const cx_gguf_kv *kv;
		cx_err err = {0};
		char name[128];
		const char *path;
		bytes b;
		cx_gguf *g;
		snprintf(name, sizeof name, "tokenizer/ggml-vocab-%s.gguf", vocab[k].name);
		if (!(path = fixture(name))) skip();
		assert_int_equal(cx_gguf_open(NULL, path, &g, &err), CX_OK);
		assert_int_equal(
			cx_gguf_array(g, "tokenizer.ggml.tokens", CX_REQUIRED, CX_GGUF_STRINGS, &kv, &err),
			CX_OK);
		assert_int_equal(kv->n, vocab[k].n);
		cx_gguf_close(g);
		b = bytes_load(path); /* cut at 16 places of the metadata */
		for (size_t i = 1; i <= 16; i++) {
			bytes cut = {b.p, b.n / 17 * i, b.n};
			assert_int_equal(open_bytes(NULL, &cut, &g, &err), CX_ERR_FORMAT);
			check_sentence(&err);
			memset(&err, 0, sizeof err);
		}
		bytes_free(&b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_tensors),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_extremes),
		cmocka_unit_test(test_repeated_key),
		cmocka_unit_test(test_split),
		cmocka_unit_test(test_fixture_formats),
		cmocka_unit_test(test_fixture_stories),
		cmocka_unit_test(test_fixture_vocabularies),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
