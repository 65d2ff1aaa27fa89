/* test_json_csv.c - the JSON and CSV readers: values, every refusal with its sentence, every
 * allocation failing in turn, and the real files of the fixtures. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "models/files/csv.h"
#include "models/files/json.h"
#include "tests/file_make.h"

static void check_says(const cx_err *err, const char *says)
{
	assert_true(err->code != CX_OK);
	if (!strstr(err->msg, says)) fail_msg("'%s' does not say '%s'", err->msg, says);
}

/* ---- JSON ---- */

static const char config[] =
	"{\"hidden_size\": 64, \"eps\": 1e-5, \"tie\": true, \"name\": \"llama\", \"none\": null,\n"
	" \"eos\": [1, 2, 3], \"bos\": 7, \"big\": 9223372036854775807,\n"
	" \"rope\": {\"factor\": 8, \"type\": \"llama3\"}}";

static json_t *parse(const char *text)
{
	json_t *v = NULL;
	assert_int_equal(cx_json_parse("made.json", text, strlen(text), &v, NULL), CX_OK);
	return v;
}

static void test_json_values(void **state)
{
	json_t *root = parse(config);
	cx_json_at at, rope, none;
	int64_t i = -1, ids[4] = {0};
	size_t n = 9;
	double d = -1;
	bool tie = false;
	const char *s = NULL;
	cx_err err = {0};
	(void)state;
	assert_int_equal(cx_json_root("made.json", root, &at, &err), CX_OK);
	assert_int_equal(cx_json_i64(&at, "hidden_size", CX_REQUIRED, 1, 64, &i, &err), CX_OK);
	assert_int_equal(i, 64);
	assert_int_equal(cx_json_i64(&at, "big", CX_REQUIRED, 0, INT64_MAX, &i, &err), CX_OK);
	assert_true(i == INT64_MAX);
	assert_int_equal(cx_json_i64(&at, "none", CX_OPTIONAL, 0, 1, &i, &err), CX_OK);
	assert_int_equal(cx_json_i64(&at, "absent", CX_OPTIONAL, 0, 1, &i, &err), CX_OK);
	assert_true(i == INT64_MAX);
	assert_int_equal(cx_json_f64(&at, "eps", CX_REQUIRED, 0, 1, &d, &err), CX_OK);
	assert_true(d == 1e-5);
	assert_int_equal(cx_json_f64(&at, "bos", CX_REQUIRED, 0, 9, &d, &err), CX_OK);
	assert_true(d == 7);
	assert_int_equal(cx_json_bool(&at, "tie", CX_REQUIRED, &tie, &err), CX_OK);
	assert_true(tie);
	assert_int_equal(cx_json_string(&at, "name", CX_REQUIRED, &s, &err), CX_OK);
	assert_string_equal(s, "llama");
	assert_int_equal(cx_json_i64s(&at, "eos", CX_REQUIRED, 0, 9, 4, ids, &n, &err), CX_OK);
	assert_true(n == 3 && ids[0] == 1 && ids[2] == 3);
	assert_int_equal(cx_json_i64s(&at, "bos", CX_REQUIRED, 0, 9, 4, ids, &n, &err), CX_OK);
	assert_true(n == 1 && ids[0] == 7);
	assert_int_equal(cx_json_object(&at, "rope", CX_REQUIRED, &rope, &err), CX_OK);
	assert_int_equal(cx_json_f64(&rope, "factor", CX_REQUIRED, 1, 64, &d, &err), CX_OK);
	assert_true(d == 8);
	assert_int_equal(cx_json_object(&at, "none", CX_OPTIONAL, &none, &err), CX_OK);
	assert_null(none.obj);
	assert_int_equal(cx_json_f64(&none, "x", CX_OPTIONAL, 1, 64, &d, &err), CX_OK);
	assert_int_equal(err.code, CX_OK);
	json_decref(root);
}

static const char *const json_refusals[] = {
	"made.json: absent is missing",
	"made.json: none is missing",
	"made.json: hidden_size is 64, must be from 65 to 99",
	"made.json: eps is 1e-05, must be an integer",
	"made.json: name is \"llama\", must be an integer",
	"made.json: tie is a bool, must be a number",
	"made.json: eps is 1e-05, must be from 1 to 2",
	"made.json: hidden_size is a number, must be true or false",
	"made.json: rope is an object, must be a string",
	"made.json: rope is an object, must be an array",
	"made.json: eos is an array, must be an object",
	"made.json: rope.factor is 8, must be from 9 to 10",
	"made.json: rope.absent is missing",
	"made.json: eos has 3 elements, at most 2 are possible",
	"made.json: eos is 3, must be from 0 to 2",
};

static void test_json_refusals(void **state)
{
	json_t *root = parse(config);
	cx_json_at at, sub;
	(void)state;
	assert_int_equal(cx_json_root("made.json", root, &at, NULL), CX_OK);
	for (size_t k = 0; k < sizeof json_refusals / sizeof *json_refusals; k++) {
		int64_t i[3] = {77, 77, 77};
		double d = 77;
		bool b = true;
		size_t n = 77;
		const char *s = "77";
		const json_t *v = NULL;
		cx_err err = {0};
		switch (k) {
		case 0:
			cx_json_i64(&at, "absent", CX_REQUIRED, 0, 9, i, &err);
			break;
		case 1:
			cx_json_string(&at, "none", CX_REQUIRED, &s, &err);
			break;
		case 2:
			cx_json_i64(&at, "hidden_size", CX_OPTIONAL, 65, 99, i, &err);
			break;
		case 3:
			cx_json_i64(&at, "eps", CX_OPTIONAL, 65, 99, i, &err);
			break;
		case 4:
			cx_json_i64(&at, "name", CX_OPTIONAL, 65, 99, i, &err);
			break;
		case 5:
			cx_json_f64(&at, "tie", CX_OPTIONAL, 0, 1, &d, &err);
			break;
		case 6:
			cx_json_f64(&at, "eps", CX_OPTIONAL, 1, 2, &d, &err);
			break;
		case 7:
			cx_json_bool(&at, "hidden_size", CX_OPTIONAL, &b, &err);
			break;
		case 8:
			cx_json_string(&at, "rope", CX_OPTIONAL, &s, &err);
			break;
		case 9:
			cx_json_array(&at, "rope", CX_OPTIONAL, &v, &err);
			break;
		case 10:
			cx_json_object(&at, "eos", CX_OPTIONAL, &sub, &err);
			break;
		case 11:
			assert_int_equal(cx_json_object(&at, "rope", CX_REQUIRED, &sub, NULL), CX_OK);
			cx_json_f64(&sub, "factor", CX_OPTIONAL, 9, 10, &d, &err);
			break;
		case 12:
			assert_int_equal(cx_json_object(&at, "rope", CX_REQUIRED, &sub, NULL), CX_OK);
			cx_json_f64(&sub, "absent", CX_REQUIRED, 9, 10, &d, &err);
			break;
		case 13:
			cx_json_i64s(&at, "eos", CX_REQUIRED, 0, 9, 2, i, &n, &err);
			break;
		case 14:
			cx_json_i64s(&at, "eos", CX_REQUIRED, 0, 2, 3, i, &n, &err);
			break;
		}
		assert_string_equal(err.msg, json_refusals[k]);
		assert_true(i[0] == 77 && i[2] == 77 && d == 77 && b && n == 77 && s[0] == '7' && !v);
	}
	json_decref(root);
}

static void test_json_bad(void **state)
{
	static const struct {
		const char *text, *says;
	} bad[] = {
		{"{\"a\": 1,\n \"b\" 2}", "made.json: line 2, column 6"},
		{"{\"a\": 1, \"a\": 2}", "duplicate"},
		{"{\"a\": 1} x", "line 1, column 10: end of file expected"},
		{"{\"a\": 01}", "line 1, column 7"},
		{"{\"a\": 1,}", "line 1, column 9"},
		{"{\"a\": nan}", "line 1, column 9"},
		{"{\"a\": \"\xff\"}", "unable to decode byte 0xff"},
		{"{\"a\": \"\\u0000\"}", "\\u0000"},
		{"{\"a\": \"\\ud800\"}", "invalid Unicode"},
		{"{\"a\": 1e999}", "real number overflow"},
		{"{\"a\": \"open}", "line 1"},
		{"[", "line 1"},
		{" ", "line 1"},
		{"{\"a\": \"x\ny\"}", "unexpected newline"},
		{"{\"\\q\": 1}", "invalid escape"},
	};
	char deep[2 * CX_JSON_MAX_DEPTH + 4];
	json_t *v;
	cx_err err = {0};
	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		memset(&err, 0, sizeof err);
		assert_int_equal(
			cx_json_parse("made.json", bad[i].text, strlen(bad[i].text), &v, &err), CX_ERR_FORMAT);
		assert_null(v);
		check_says(&err, bad[i].says);
		check_says(&err, "made.json");
	}
	for (int n = CX_JSON_MAX_DEPTH; n <= CX_JSON_MAX_DEPTH + 1;
		 n++) { /* the limit, and one past it */
		memset(deep, '[', (size_t)n);
		memset(deep + n, ']', (size_t)n);
		memset(&err, 0, sizeof err);
		if (n == CX_JSON_MAX_DEPTH) {
			assert_int_equal(cx_json_parse("made.json", deep, 2 * (size_t)n, &v, &err), CX_OK);
			json_decref(v);
		} else {
			assert_int_equal(
				cx_json_parse("made.json", deep, 2 * (size_t)n, &v, &err), CX_ERR_FORMAT);
			check_says(&err, "JSON is nested deeper than 128 levels");
		}
	}
	memset(&err, 0, sizeof err);
	assert_int_equal(cx_json_load(NULL, "/no/such/config.json", &v, &err), CX_ERR_IO);
	check_says(&err, "/no/such/config.json: there is no such file");
}

/* "[" inside strings is no nesting; an integer without room turns the file into reals. */
static void test_json_corners(void **state)
{
	char text[1024] = "{\"s\": \"\\\"";
	cx_json_at at;
	int64_t i = 0;
	json_t *v;
	(void)state;
	memset(text + strlen(text), '[', 500);
	strcat(text, "\"}");
	json_decref(parse(text));
	v = parse("{\"max\": 1000000000000000019884624838656, \"n\": 12, \"x\": 1.5, \"far\": 1e300}");
	assert_int_equal(cx_json_root("made.json", v, &at, NULL), CX_OK);
	assert_int_equal(cx_json_i64(&at, "n", CX_REQUIRED, 0, 99, &i, NULL), CX_OK);
	assert_int_equal(i, 12);
	assert_int_equal(cx_json_i64(&at, "x", CX_REQUIRED, 0, 99, &i, NULL), CX_ERR_FORMAT);
	assert_int_equal(cx_json_i64(&at, "far", CX_REQUIRED, 0, INT64_MAX, &i, NULL), CX_ERR_FORMAT);
	assert_int_equal(cx_json_i64(&at, "max", CX_REQUIRED, 0, INT64_MAX, &i, NULL), CX_ERR_FORMAT);
	json_decref(v);
	v = parse("[1]");
	assert_int_equal(cx_json_root("made.json", v, &at, NULL), CX_ERR_FORMAT);
	json_decref(v);
}

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

/* No token of 16 bytes or more here: json.h says what jansson does with those. */
static void test_json_allocations(void **state)
{
	static const char text[] =
		"{\"a\": 64, \"b\": 1e-5, \"c\": true, \"d\": \"ll\\u0061ma\", \"e\": null,\n"
		"\"f\": [1, 2, [3, {}]], \"g\": {\"h\": {\"i\": [\"x\", 2.5]}}}";
	bytes b = {0};
	long n = 0;
	(void)state;
	bytes_text(&b, text);
	bytes_save(&b, temp_path("config.json"));
	for (bool done = false; !done; n++) {
		cx_fault fault = {.countdown = n};
		cx_alloc a = cx_alloc_fault(&fault);
		json_t *v;
		cx_status st;
		json_fault = &fault;
		json_set_alloc_funcs(fault_malloc, fault_free);
		st = cx_json_load(&a, temp_path("config.json"), &v, NULL);
		json_decref(v);
		json_set_alloc_funcs(malloc, free);
		if (st != (fault.fired ? CX_ERR_MEMORY : CX_OK))
			fail_msg("allocation %ld fails: %s", n, cx_status_name(st));
		assert_int_equal(fault.n_live, 0);
		done = !fault.fired;
	}
	assert_true(n > 20);
	bytes_free(&b);
}

/* ---- CSV ---- */

static cx_status parse_csv(const cx_alloc *a, const char *text, cx_csv_col *cols, size_t n_cols,
	size_t *n_rows, cx_err *err)
{
	cx_file_map *map;
	cx_status st = cx_file_map_copy(a, "made.csv", text, strlen(text), &map, err);
	if (st != CX_OK) return st;
	st = cx_csv_parse(a, map, cols, n_cols, n_rows, err);
	cx_file_map_close(map);
	return st;
}

static void test_csv_values(void **state)
{
	static const char *const same[] = {
		"id,weight,name\n1,2.5,a\n-9223372036854775808,-1e-3,b\n9223372036854775807,7,c\n",
		"\xef\xbb\xbfid,weight,name\r\n1,2.5,a\r\n-9223372036854775808,-1e-3,"
		"b\r\n9223372036854775807,7,c",
		" id ,\tweight, name\n 1 , 2.50 "
		",\n-9223372036854775808,-.001,\n9223372036854775807,+7.0,\n\n \n",
		"weight,x,y,id\n2.5,,,1\n-0.001,,,-9223372036854775808\n7,,,9223372036854775807",
	};
	(void)state;
	for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
		cx_csv_col cols[] = {{"id", CX_CSV_I64, NULL, NULL}, {"weight", CX_CSV_F64, NULL, NULL}};
		cx_err err = {0};
		size_t n;
		if (parse_csv(NULL, same[i], cols, 2, &n, &err) != CX_OK)
			fail_msg("case %zu: %s", i, err.msg);
		assert_int_equal(n, 3);
		assert_true(
			cols[0].i64[0] == 1 && cols[0].i64[1] == INT64_MIN && cols[0].i64[2] == INT64_MAX);
		assert_true(cols[1].f64[0] == 2.5 && cols[1].f64[1] == -0.001 && cols[1].f64[2] == 7);
		assert_true(!cols[0].f64 && !cols[1].i64);
		cx_csv_free(NULL, cols, 2, n);
		assert_null(cols[0].i64);
	}
}

static void test_csv_bad(void **state)
{
	static const struct {
		const char *text, *says;
	} bad[] = {
		{"\n", "the file has no header row"},
		{"id,weight\n", "there are no rows after the header"},
		{"id\n1\n", "line 1: there is no column 'weight'"},
		{"id,weight,id\n1,2,3\n", "line 1: column 'id' is there twice"},
		{"id,weight\n1,2\n3\n", "line 3 has 1 cells, the header has 2"},
		{"id,weight\n1,2\n3,4,5\n", "line 3 has 3 cells, the header has 2"},
		{"id,weight\n1,2\n\n3,4\n", "line 3: column 'id' is empty"},
		{"id,weight\n,2\n", "line 2: column 'id' is empty"},
		{"id,weight\n1.5,2\n", "line 2: column 'id': '1.5' is not an integer"},
		{"id,weight\n0x10,2\n", "'0x10' is not an integer"},
		{"id,weight\n1 2,2\n", "'1 2' is not an integer"},
		{"id,weight\n-,2\n", "'-' is not an integer"},
		{"id,weight\n\"1\",2\n", "'\"1\"' is not an integer"},
		{"id,weight\n9223372036854775808,2\n", "9223372036854775808 does not fit 64 bits"},
		{"id,weight\n-9223372036854775809,2\n", "-9223372036854775809 does not fit 64 bits"},
		{"id,weight\n1,nan\n", "line 2: column 'weight': 'nan' is not a finite number"},
		{"id,weight\n1,inf\n", "'inf' is not a finite number"},
		{"id,weight\n1,1e999\n", "'1e999' is not a finite number"},
		{"id,weight\n1,1e\n", "'1e' is not a finite number"},
		{"id,weight\n1,0x1p3\n", "'0x1p3' is not a finite number"},
		{"id,weight\n1,2\xff\n", "is not a finite number"},
	};
	cx_csv_col cols[] = {{"id", CX_CSV_I64, NULL, NULL}, {"weight", CX_CSV_F64, NULL, NULL}};
	cx_err err;
	size_t n = 1;
	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		memset(&err, 0, sizeof err);
		assert_int_equal(parse_csv(NULL, bad[i].text, cols, 2, &n, &err), CX_ERR_FORMAT);
		check_says(&err, bad[i].says);
		check_says(&err, "made.csv");
		assert_true(n == 0 && !cols[0].i64 && !cols[1].f64);
	}
	memset(&err, 0, sizeof err);
	assert_int_equal(cx_csv_read(NULL, "/no/such.csv", cols, 2, &n, &err), CX_ERR_IO);
	check_says(&err, "/no/such.csv: there is no such file");
}

static void test_csv_allocations(void **state)
{
	(void)state;
	for (long n = 0;; n++) {
		cx_csv_col cols[] = {{"id", CX_CSV_I64, NULL, NULL}, {"weight", CX_CSV_F64, NULL, NULL}};
		cx_fault fault = {.countdown = n};
		cx_alloc a = cx_alloc_fault(&fault);
		size_t rows;
		cx_status st = parse_csv(&a, "id,weight\n1,2\n3,4\n", cols, 2, &rows, NULL);
		assert_int_equal(st, fault.fired ? CX_ERR_MEMORY : CX_OK);
		cx_csv_free(&a, cols, 2, rows);
		assert_int_equal(fault.n_live, 0);
		if (!fault.fired) break;
	}
}

/* The planner's files: as many rows as lines, each with lower < upper and a size. */
static void test_csv_fixtures(void **state)
{
	static const struct {
		char name;
		size_t n;
	} files[] = {{'A', 154}, {'C', 203}, {'E', 215}, {'G', 308}, {'I', 374}, {'K', 454}};
	(void)state;
	for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
		cx_csv_col c[] = {{"id", CX_CSV_I64, NULL, NULL}, {"lower", CX_CSV_I64, NULL, NULL},
			{"upper", CX_CSV_I64, NULL, NULL}, {"size", CX_CSV_I64, NULL, NULL}};
		char name[64];
		const char *path;
		cx_err err = {0};
		size_t n;
		snprintf(name, sizeof name, "planner/%c.1048576.csv", files[i].name);
		if (!(path = fixture(name))) skip();
		if (cx_csv_read(NULL, path, c, 4, &n, &err) != CX_OK) fail_msg("%s", err.msg);
		assert_int_equal(n, files[i].n);
		for (size_t r = 0; r < n; r++)
			assert_true(c[0].i64[r] >= 0 && c[1].i64[r] < c[2].i64[r] && c[3].i64[r] > 0);
		cx_csv_free(NULL, c, 4, n);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_json_values),
		cmocka_unit_test(test_json_refusals),
		cmocka_unit_test(test_json_bad),
		cmocka_unit_test(test_json_corners),
		cmocka_unit_test(test_json_allocations),
		cmocka_unit_test(test_csv_values),
		cmocka_unit_test(test_csv_bad),
		cmocka_unit_test(test_csv_allocations),
		cmocka_unit_test(test_csv_fixtures),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
