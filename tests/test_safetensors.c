/* test_safetensors.c - the safetensors reader and writer: files written and read back, broken
 * headers, cut at every byte, sharded sets, every allocation failing in turn (jansson's too), and
 * the real files of the fixtures. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <jansson.h>

#include "models/files/safetensors.h"
#include "tests/file_make.h"

/* The header as text, blanks up to a multiple of 8, n bytes of data. */
static bytes make(const char *header, size_t n)
{
	bytes b = {0};
	size_t len = strlen(header), pad = (8 - len % 8) % 8;
	bytes_u64(&b, len + pad);
	bytes_text(&b, header);
	bytes_put(&b, "        ", pad);
	bytes_fill(&b, n);
	return b;
}

static const char good_header[] =
	"{\"__metadata__\":{\"format\":\"pt\"},"
	"\"b\\u0061se\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[8,32]},"
	"\"none\":{\"dtype\":\"F16\",\"shape\":[0,4],\"data_offsets\":[8,8]},"
	"\"s\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]},"
	"\"d\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[32,40]}}";
enum { GOOD_DATA = 40 };

static cx_status open_bytes(const cx_alloc *a, const bytes *b, cx_safetensors **out, cx_err *err)
{
	cx_file_map *map;
	cx_status st;
	*out = NULL;
	if ((st = cx_file_map_copy(a, "made.safetensors", b->p, b->n, &map, err)) != CX_OK) return st;
	return cx_safetensors_open_map(a, map, out, err);
}

static void check_sentence(const cx_err *err)
{
	assert_true(err->code != CX_OK);
	assert_non_null(strstr(err->msg, "made.safetensors"));
	assert_true(strlen(err->msg) > 20);
}

static unsigned walk(const cx_safetensors *s)
{
	const cx_tensor_list *l = cx_safetensors_tensors(s);
	unsigned sum = 0;
	for (size_t i = 0; i < l->n; i++) {
		for (uint64_t k = 0; k < l->at[i].bytes; k++) sum += l->at[i].data[k];
		assert_ptr_equal(cx_tensor_list_find(l, l->at[i].name), &l->at[i]);
	}
	return sum;
}

static void test_good(void **state)
{
	bytes b = make(good_header, GOOD_DATA);
	const int64_t one[] = {1};
	const cx_tensor_list *l;
	const cx_file_tensor *t;
	cx_safetensors *s;
	cx_err err = {0};
	(void)state;
	assert_int_equal(open_bytes(NULL, &b, &s, &err), CX_OK);
	l = cx_safetensors_tensors(s);
	assert_int_equal(l->n, 4);
	t = cx_tensor_list_find(l, "base"); /* the name was written with an escape */
	assert_true(t && t->rank == 2 && t->dims[0] == 2 && t->dims[1] == 3 && t->bytes == 24);
	assert_true(t->usable && t->dtype == CX_F32 && t->data[0] == 8);
	t = cx_tensor_list_find(l, "s");
	assert_true(t && t->rank == 0 && t->bytes == 8 && t->dtype == CX_I64 && t->data[0] == 0);
	t = cx_tensor_list_find(l, "none");
	assert_true(t && t->bytes == 0 && t->dims[0] == 0);
	t = cx_tensor_list_find(l, "d");
	assert_true(t && !t->usable && strcmp(t->dtype_name, "F64") == 0);
	assert_int_equal(cx_tensor_list_get(l, "d", 1, one, &t, &err), CX_ERR_UNSUPPORTED);
	assert_string_equal(
		err.msg, "made.safetensors: tensor 'd' has type F64, which the graph does not have");
	assert_string_equal(cx_safetensors_meta(s, "format"), "pt");
	assert_null(cx_safetensors_meta(s, "absent"));
	cx_safetensors_close(s);
	fuzz_seed("fuzz_safetensors", "good", &b);
	bytes_free(&b);
}

/* ---- broken files ---- */

#define T(name, dtype, shape, offs)                                                                \
	"\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offs "}"

static const struct {
	const char *header;
	size_t n_data;
	const char *says;
} broken[] = {
	{"{" T("x", "F32", "[2]", "[0,8]") "}", 12, "the last 4 bytes belong to no tensor"},
	{"{}", 1, "the last 1 bytes belong to no tensor"},
	{"{" T("x", "F32", "[2]", "[4,12]") "}", 12, "4 bytes before tensor 'x' belong to no tensor"},
	{"{" T("x", "F32", "[2]", "[0,8]") "," T("y", "U8", "[2]", "[10,12]") "}", 12,
		"2 bytes before tensor 'y' belong to no tensor"},
	{"{" T("x", "F32", "[2]", "[0,8]") "," T("y", "F32", "[2]", "[4,12]") "}", 12,
		"tensors 'x' and 'y' overlap"},
	{"{" T("x", "F32", "[2]", "[0,8]") "," T("y", "F32", "[2]", "[0,8]") "}", 8, "overlap"},
	{"{" T("x", "F32", "[2]", "[0,8]") "," T("x", "F32", "[2]", "[8,16]") "}", 16, "duplicate"},
	{"{" T("x", "F32", "[3]", "[0,8]") "}", 8,
		"tensor 'x' has 8 bytes at its data_offsets, but its shape and dtype say 12"},
	{"{" T("x", "F32", "[3]", "[0,12]") "}", 8,
		"tensor 'x' ends at byte 12 of the data area, which has 8"},
	{"{" T("x", "F32", "[2]", "[8,0]") "}", 8, "tensor 'x' has no data_offsets of the form"},
	{"{" T("x", "F32", "[2]", "[-8,0]") "}", 8, "tensor 'x' has no data_offsets of the form"},
	{"{" T("x", "F32", "[2]", "[0,8,9]") "}", 8, "tensor 'x' has no data_offsets of the form"},
	{"{" T("x", "F32", "[2]", "[0.0,8.0]") "}", 8, "tensor 'x' has no data_offsets of the form"},
	{"{" T("x", "F32", "[2]", "7") "}", 8, "tensor 'x' has no data_offsets of the form"},
	{"{" T("x", "F32", "[-2]", "[0,8]") "}", 8, "tensor 'x' has a dim that is not an integer"},
	{"{" T("x", "F32", "[2.0]", "[0,8]") "}", 8, "tensor 'x' has a dim that is not an integer"},
	{"{" T("x", "F32", "2", "[0,8]") "}", 8, "tensor 'x' has no shape array"},
	{"{" T("x", "F32", "[1,1,1,1,1,1,1,1,2]", "[0,8]") "}", 8, "tensor 'x' has more than 8 dims"},
	{"{" T("x", "F32", "[4294967296,4294967296]", "[0,0]") "}", 0,
		"tensor 'x' has a shape whose product wraps"},
	{"{" T("x", "F32", "[4611686018427387905]", "[0,4]") "}", 4,
		"tensor 'x' has a shape whose product wraps"},
	{"{" T("x", "F32", "[99999999999999999999]", "[0,4]") "}", 4, "tensor 'x' has a dim"},
	{"{" T("x", "F4", "[2]", "[0,8]") "}", 8, "tensor 'x' has unknown dtype 'F4'"},
	{"{\"x\":{\"dtype\":7,\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "has no dtype string"},
	{"{\"x\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "tensor 'x' has no dtype string"},
	{"{\"x\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", 8, "tensor 'x' has no shape array"},
	{"{\"x\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, "tensor 'x' has no data_offsets"},
	{"{\"x\":[]}", 0, "tensor 'x' is not described by an object"},
	{"{\"__metadata__\":[]}", 0, "__metadata__ is not an object"},
	{"{\"__metadata__\":{\"a\":1}}", 0, "__metadata__ 'a' is not a string"},
	{"[]", 0, "does not begin with {"},
	{"", 16, "does not begin with {"},
	{"{\"x\":}", 0, "line 1, column 6"},
	{"{} {}", 0, "line 1, column 4"},
	{"{\"\xff\":{}}", 0, "line 1, column"},
};

static void refuse(const bytes *b, const char *says, const char *seed)
{
	cx_safetensors *s;
	cx_err err = {0};
	assert_int_not_equal(open_bytes(NULL, b, &s, &err), CX_OK);
	assert_null(s);
	check_sentence(&err);
	if (!strstr(err.msg, says)) fail_msg("'%s' does not say '%s'", err.msg, says);
	if (seed) fuzz_seed("fuzz_safetensors", seed, b);
}

static void test_broken(void **state)
{
	bytes b;
	(void)state;
	for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
		char name[32];
		snprintf(name, sizeof name, "broken-%02zu", i);
		b = make(broken[i].header, broken[i].n_data);
		refuse(&b, broken[i].says, name);
		bytes_free(&b);
	}
	b = make(
		"{}", 0); /* header sizes that pass the file, the limit, and 64 bits with the 8 added */
	memcpy(b.p, &(uint64_t){9}, 8);
	refuse(&b, "says its header has 9 bytes, but 8 are left", "size-9");
	memcpy(b.p, &(uint64_t){100000001}, 8);
	refuse(&b, "more than the format's 100 MB", "size-limit");
	memcpy(b.p, &(uint64_t){UINT64_MAX}, 8);
	refuse(&b, "says its header has 18446744073709551615 bytes", "size-wraps");
	b.n = 7;
	refuse(&b, "has 7 bytes, too few", "size-7");
	bytes_free(&b);
	for (int i = 0; i < 100000; i++) bytes_u8(&b, i < 8 ? 0 : '[');
	memcpy(b.p, &(uint64_t){100000 - 8}, 8);
	b.p[8] = '{';
	refuse(&b, "JSON is nested deeper than 128 levels", NULL);
	bytes_free(&b);
}

static void test_truncated(void **state)
{
	bytes b = make(good_header, GOOD_DATA);
	(void)state;
	for (size_t n = 0; n < b.n; n++) {
		bytes cut = {b.p, n, n};
		cx_safetensors *s;
		cx_err err = {0};
		assert_int_not_equal(open_bytes(NULL, &cut, &s, &err), CX_OK);
		assert_null(s);
		check_sentence(&err);
	}
	bytes_free(&b);
}

static void test_changed(void **state)
{
	static const unsigned char with[] = {0x00, '"', '9', '[', 0xff};
	bytes b = make(good_header, GOOD_DATA);
	int n_open = 0, n_refused = 0;
	(void)state;
	for (size_t i = 0; i < b.n; i++) {
		unsigned char was = b.p[i];
		for (size_t k = 0; k < sizeof with; k++) {
			cx_safetensors *s;
			cx_err err = {0};
			b.p[i] = with[k];
			if (open_bytes(NULL, &b, &s, &err) == CX_OK) {
				(void)walk(s);
				n_open++;
			} else {
				check_sentence(&err);
				n_refused++;
			}
			cx_safetensors_close(s);
		}
		b.p[i] = was;
	}
	assert_true(n_open >= GOOD_DATA * 5 && n_refused > 500);
	bytes_free(&b);
}

/* ---- writing ---- */

static const float w_data[] = {1, -2, 3.5f, 4, 5, 6};
static const int64_t i_data[] = {-1, INT64_MAX};
static const uint8_t u_data[] = {1, 2, 3};
static const cx_file_tensor to_write[] = {
	{.name = "layers.0.\"w\"\n",
		.dtype = CX_F32,
		.rank = 2,
		.dims = {3, 2},
		.data = (const void *)w_data},
	{.name = "ids", .dtype = CX_I64, .rank = 1, .dims = {2}, .data = (const void *)i_data},
	{.name = "scalar", .dtype = CX_F32, .rank = 0, .data = (const void *)(w_data + 2)},
	{.name = "nothing", .dtype = CX_BF16, .rank = 3, .dims = {2, 0, 5}},
	{.name = "odd", .dtype = CX_U8, .rank = 1, .dims = {3}, .data = u_data},
};
enum { N_WRITE = sizeof to_write / sizeof *to_write };
static const cx_safetensors_meta_pair meta[] = {{"format", "pt"}, {"made by", "\xc3\xa4 test"}};

static void test_write(void **state)
{
	const char *path = temp_path("w.safetensors");
	const cx_tensor_list *l;
	cx_safetensors *s;
	cx_err err = {0};
	(void)state;
	assert_int_equal(cx_safetensors_write(NULL, path, to_write, 1, NULL, 0, &err), CX_OK);
	assert_int_equal(cx_safetensors_write(NULL, path, to_write, N_WRITE, meta, 2, &err), CX_OK);
	assert_int_equal(cx_safetensors_open(NULL, path, &s, &err), CX_OK);
	l = cx_safetensors_tensors(s);
	assert_int_equal(l->n, N_WRITE);
	assert_true(
		((uintptr_t)l->at[0].data & 7) == 0); /* the map is page-aligned, the header padded */
	for (int i = 0; i < N_WRITE; i++) {
		const cx_file_tensor *t, *want = &to_write[i];
		assert_int_equal(
			cx_tensor_list_get(l, want->name, want->rank, want->dims, &t, &err), CX_OK);
		assert_true(t->dtype == want->dtype);
		if (t->bytes) assert_memory_equal(t->data, want->data, t->bytes);
	}
	assert_string_equal(cx_safetensors_meta(s, "made by"), "\xc3\xa4 test");
	cx_safetensors_close(s);
	assert_int_equal(
		cx_safetensors_write(NULL, temp_path("none.safetensors"), NULL, 0, NULL, 0, &err), CX_OK);
	assert_int_equal(cx_safetensors_open(NULL, temp_path("none.safetensors"), &s, &err), CX_OK);
	assert_int_equal(cx_safetensors_tensors(s)->n, 0);
	cx_safetensors_close(s);
}

/* What cannot be written leaves the file that was there, and nothing beside it. */
static void test_write_refusals(void **state)
{
	const char *path = temp_path("kept.safetensors");
	cx_file_tensor bad = to_write[0], two[2] = {to_write[1], to_write[1]};
	bytes before, after;
	cx_err err = {0};
	(void)state;
	assert_int_equal(cx_safetensors_write(NULL, path, to_write, 2, NULL, 0, &err), CX_OK);
	before = bytes_load(path);
	bad.name = "\xc3(";
	assert_int_equal(cx_safetensors_write(NULL, path, &bad, 1, NULL, 0, NULL), CX_ERR_ARGUMENT);
	bad.name = "w";
	bad.dtype = CX_Q4_K;
	assert_int_equal(cx_safetensors_write(NULL, path, &bad, 1, NULL, 0, NULL), CX_ERR_ARGUMENT);
	bad.dtype = CX_F32;
	bad.dims[0] = -3;
	assert_int_equal(cx_safetensors_write(NULL, path, &bad, 1, NULL, 0, NULL), CX_ERR_ARGUMENT);
	bad.dims[0] = INT64_MAX;
	assert_int_equal(cx_safetensors_write(NULL, path, &bad, 1, NULL, 0, NULL), CX_ERR_ARGUMENT);
	assert_int_equal(cx_safetensors_write(NULL, path, two, 2, NULL, 0, &err), CX_ERR_ARGUMENT);
	assert_non_null(strstr(err.msg, "tensor name 'ids' is taken"));
	memset(&err, 0, sizeof err);
	assert_int_equal(
		cx_safetensors_write(NULL, "/no/such/folder/x", to_write, 1, NULL, 0, &err), CX_ERR_IO);
	assert_non_null(strstr(err.msg, "/no/such/folder/x: cannot be written"));
	after = bytes_load(path);
	assert_true(after.n == before.n && memcmp(after.p, before.p, after.n) == 0);
	bytes_free(&before);
	bytes_free(&after);
}

/* ---- every allocation failing in turn, jansson's included ---- */

/* good_header has no token of 16 bytes or more: json.h says what jansson does with those. */
static cx_fault *json_fault;

static void *fault_malloc(size_t n)
{
	cx_alloc a = cx_alloc_fault(json_fault);
	return cx_malloc(&a, n);
}

static void fault_free(void *p)
{
	cx_alloc a = cx_alloc_fault(json_fault);
	cx_free(&a, p, 0);
}

static void test_allocations(void **state)
{
	bytes b = make(good_header, GOOD_DATA);
	const char *path = temp_path("fault.safetensors");
	long n_read = 0, n_write = 0;
	bool done = false;
	(void)state;
	for (; !done; n_read++) {
		cx_fault fault = {.countdown = n_read};
		cx_alloc a = cx_alloc_fault(&fault);
		cx_safetensors *s;
		cx_status st;
		json_fault = &fault;
		json_set_alloc_funcs(fault_malloc, fault_free);
		st = open_bytes(&a, &b, &s, NULL);
		cx_safetensors_close(s);
		json_set_alloc_funcs(malloc, free);
		if (st != (fault.fired ? CX_ERR_MEMORY : CX_OK))
			fail_msg("reading, allocation %ld of memory fails: %s", n_read, cx_status_name(st));
		assert_int_equal(fault.n_live, 0);
		done = !fault.fired;
	}
	for (done = false; !done; n_write++) {
		cx_fault fault = {.countdown = n_write};
		cx_alloc a = cx_alloc_fault(&fault);
		cx_status st;
		json_fault = &fault;
		json_set_alloc_funcs(fault_malloc, fault_free);
		st = cx_safetensors_write(&a, path, to_write, N_WRITE, meta, 2, NULL);
		json_set_alloc_funcs(malloc, free);
		if (st != (fault.fired ? CX_ERR_MEMORY : CX_OK))
			fail_msg("writing, allocation %ld of memory fails: %s", n_write, cx_status_name(st));
		assert_int_equal(fault.n_live, 0);
		done = !fault.fired;
	}
	assert_true(n_read > 20 && n_write > 20);
	bytes_free(&b);
}

/* ---- sharded sets and folders ---- */

static void save_text(const char *name, const char *text)
{
	bytes b = {0};
	bytes_text(&b, text);
	bytes_save(&b, temp_path(name));
	bytes_free(&b);
}

static void refuse_index(const char *index, const char *says)
{
	cx_safetensors *s;
	cx_err err = {0};
	save_text("bad.safetensors.index.json", index);
	assert_int_not_equal(
		cx_safetensors_open(NULL, temp_path("bad.safetensors.index.json"), &s, &err), CX_OK);
	assert_null(s);
	if (!strstr(err.msg, says)) fail_msg("'%s' does not say '%s'", err.msg, says);
}

static void test_shards(void **state)
{
	char dir[1024];
	cx_safetensors *s;
	cx_err err = {0};
	(void)state;
	snprintf(dir, sizeof dir, "%s", temp_path("x"));
	*strrchr(dir, '/') = '\0';
	assert_int_equal(cx_safetensors_open(NULL, dir, &s, &err), CX_ERR_IO);
	assert_non_null(strstr(err.msg, "holds neither model.safetensors nor"));
	cx_safetensors_write(NULL, temp_path("a.safetensors"), to_write, 2, NULL, 0, NULL);
	cx_safetensors_write(NULL, temp_path("b.safetensors"), to_write + 1, 2, NULL, 0, NULL);
	/* "ids" is in both: the index decides. "odd" is in neither. */
	save_text("model.safetensors.index.json",
		"{\"metadata\":{\"total_size\":1},\"weight_map\":{\"ids\":\"b.safetensors\","
		"\"layers.0.\\\"w\\\"\\n\":\"a.safetensors\",\"scalar\":\"b.safetensors\"}}");
	memset(&err, 0, sizeof err);
	assert_int_equal(cx_safetensors_open(NULL, dir, &s, &err), CX_OK);
	assert_int_equal(cx_safetensors_tensors(s)->n, 3);
	assert_non_null(
		strstr(cx_tensor_list_find(cx_safetensors_tensors(s), "ids")->file, "b.safetensors"));
	assert_true(walk(s) > 0);
	cx_safetensors_close(s);
	for (long n = 0;; n++) {
		cx_fault fault = {.countdown = n};
		cx_alloc a = cx_alloc_fault(&fault);
		cx_status st = cx_safetensors_open(&a, dir, &s, NULL);
		assert_int_equal(st, fault.fired ? CX_ERR_MEMORY : CX_OK);
		cx_safetensors_close(s);
		assert_int_equal(fault.n_live, 0);
		if (!fault.fired) break;
	}
	refuse_index("{\"weight_map\":{\"odd\":\"a.safetensors\"}}",
		"a.safetensors: tensor 'odd' is not in it, although the index says so");
	refuse_index(
		"{\"weight_map\":{\"odd\":\"c.safetensors\"}}", "c.safetensors: there is no such file");
	refuse_index(
		"{\"weight_map\":{\"odd\":\"../a.safetensors\"}}", "which is not a plain file name");
	refuse_index("{\"weight_map\":{\"odd\":\"..\"}}", "which is not a plain file name");
	refuse_index("{\"weight_map\":{\"odd\":3}}", "weight_map 'odd' is not a file name");
	refuse_index("{\"weight_map\":[]}", "weight_map is an array, must be an object");
	refuse_index("{}", "weight_map is missing");
	refuse_index("[]", "is an array, must be an object");
	refuse_index("{", "line 1, column");
}

/* ---- the fixtures ---- */

static float float_at(const cx_file_tensor *t, size_t i)
{
	float v;
	memcpy(&v, t->data + 4 * i, 4);
	return v;
}

static void test_fixtures(void **state)
{
	static const char *const small[] = {"formats/empty.safetensors", "formats/single.safetensors",
		"formats/parameters_a.safetensors", "formats/parameter_weight_bias_1.safetensors"};
	static const size_t n_tensors[] = {0, 1, 2, 2};
	const int64_t four[] = {4}, bias[] = {30}, weight[] = {30, 20}, stft[] = {258, 1, 256},
				  one[] = {1};
	const cx_file_tensor *t;
	cx_safetensors *s;
	cx_err err = {0};
	(void)state;
	if (!fixture(small[0])) skip();
	for (int k = 0; k < 4; k++) {
		const cx_tensor_list *l;
		assert_int_equal(cx_safetensors_open(NULL, fixture(small[k]), &s, &err), CX_OK);
		l = cx_safetensors_tensors(s);
		assert_int_equal(l->n, n_tensors[k]);
		if (k == 2) {
			assert_int_equal(cx_tensor_list_get(l, "a1", 1, four, &t, &err), CX_OK);
			assert_true(t->dtype == CX_I64 && t->data[0] == 4 && t->data[24] == 7);
		}
		if (k == 3) {
			assert_int_equal(cx_tensor_list_get(l, "bias", 1, bias, &t, &err), CX_OK);
			assert_true(float_at(t, 0) == 1.0f && float_at(t, 29) == 1.0f);
			assert_int_equal(cx_tensor_list_get(l, "weight", 2, weight, &t, &err), CX_OK);
			assert_true(float_at(t, 0) == 2.0f && float_at(t, 599) == 2.0f);
		}
		cx_safetensors_close(s);
	}
	assert_int_equal(
		cx_safetensors_open(NULL, fixture("rnn/silero_vad/silero_vad_16k.safetensors"), &s, &err),
		CX_OK);
	assert_int_equal(cx_safetensors_tensors(s)->n, 15);
	assert_int_equal(
		cx_tensor_list_get(cx_safetensors_tensors(s), "stft_conv.weight", 3, stft, &t, &err),
		CX_OK);
	assert_true(t->bytes == 264192);
	assert_int_equal(
		cx_tensor_list_get(cx_safetensors_tensors(s), "final_conv.bias", 1, one, &t, &err), CX_OK);
	assert_true(float_at(t, 0) >= -10 && float_at(t, 0) <= 10);
	cx_safetensors_close(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_broken),
		cmocka_unit_test(test_truncated),
		cmocka_unit_test(test_changed),
		cmocka_unit_test(test_write),
		cmocka_unit_test(test_write_refusals),
		cmocka_unit_test(test_allocations),
		cmocka_unit_test(test_shards),
		cmocka_unit_test(test_fixtures),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
