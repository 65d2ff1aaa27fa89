/* test_files.c - file maps, atomic output, NPY: good files, broken files, cut at every byte, every
 * allocation failing in turn, and the real files of the fixtures. */
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "models/files/json.h"
#include "models/files/npy.h"
#include "models/files/out.h"
#include "tests/file_make.h"

static bytes from_text(const char *s)
{
	bytes b = {0};
	bytes_text(&b, s);
	return b;
}

static void check_says(const cx_err *err, const char *says)
{
	assert_true(err->code != CX_OK);
	if (!strstr(err->msg, says)) fail_msg("'%s' does not say '%s'", err->msg, says);
}

/* ---- maps ---- */

static void test_map(void **state)
{
	const struct {
		const char *path, *says;
		cx_status st;
	} bad[] = {
		{"/no/such/file", "/no/such/file: there is no such file", CX_ERR_IO},
		{"/", "/: is a folder, not a file", CX_ERR_IO},
		{"/dev/null", "/dev/null: is not a regular file", CX_ERR_IO},
		{"", "no file name given", CX_ERR_ARGUMENT},
		{NULL, "no file name given", CX_ERR_ARGUMENT},
	};
	bytes b = from_text("hello");
	char longer[600];
	cx_file_map *m;
	cx_err err = {0};
	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		memset(&err, 0, sizeof err);
		assert_int_equal(cx_file_map_open(NULL, bad[i].path, &m, &err), bad[i].st);
		assert_null(m);
		check_says(&err, bad[i].says);
	}
	bytes_save(&b, temp_path("hello"));
	assert_int_equal(cx_file_map_open(NULL, temp_path("hello"), &m, NULL), CX_OK);
	assert_true(m->size == 5 && memcmp(m->data, "hello", 5) == 0);
	assert_string_equal(m->path, temp_path("hello"));
	cx_file_map_close(m);
	b.n = 0;
	bytes_save(&b, temp_path("empty"));
	memset(&err, 0, sizeof err);
	assert_int_equal(cx_file_map_open(NULL, temp_path("empty"), &m, &err), CX_ERR_FORMAT);
	check_says(&err, "empty: the file is empty");
	assert_int_equal(cx_file_map_copy(NULL, "x", "", 0, &m, NULL), CX_ERR_FORMAT);
	memset(longer, 'p', sizeof longer - 1);
	longer[sizeof longer - 1] = '\0';
	assert_int_equal(cx_file_map_copy(NULL, longer, "x", 1, &m, NULL), CX_OK);
	assert_true(strlen(m->label) == 83 && strncmp(m->label, "...p", 4) == 0);
	cx_file_map_close(m);
	cx_file_map_close(NULL);
	bytes_free(&b);
}

static void test_map_allocations(void **state)
{
	bytes b = from_text("hello");
	(void)state;
	bytes_save(&b, temp_path("hello"));
	for (long n = 0;; n++) {
		cx_fault fault = {.countdown = n};
		cx_alloc a = cx_alloc_fault(&fault);
		cx_file_map *m = NULL, *c = NULL;
		cx_status st = cx_file_map_open(&a, temp_path("hello"), &m, NULL);
		if (st == CX_OK) st = cx_file_map_copy(&a, "copy", "abc", 3, &c, NULL);
		assert_int_equal(st, fault.fired ? CX_ERR_MEMORY : CX_OK);
		cx_file_map_close(m);
		cx_file_map_close(c);
		assert_int_equal(fault.n_live, 0);
		if (!fault.fired) break;
	}
	bytes_free(&b);
}

static void test_paths(void **state)
{
	const struct {
		const char *path, *name, *want;
		bool join;
	} cases[] = {{"/a/b.json", "c", "/a/c", false}, {"b.json", "c", "c", false},
		{"/a/", "c", "/a/c", true}, {"/a", "c", "/a/c", true}, {"/", "c", "/c", true}};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char *p = cases[i].join ? cx_path_join(NULL, cases[i].path, cases[i].name)
								: cx_path_sibling(NULL, cases[i].path, cases[i].name);
		assert_string_equal(p, cases[i].want);
		cx_free(NULL, p, strlen(p) + 1);
	}
}

/* ---- atomic output ---- */

static void test_out(void **state)
{
	const char *path = temp_path("out");
	bytes old = from_text("old"), now;
	cx_file_out *o;
	struct stat sb;
	(void)state;
	bytes_save(&old, path);
	assert_int_equal(cx_file_out_open(NULL, path, &o, NULL), CX_OK);
	assert_int_equal(cx_file_out_write(o, "new and longer", 14, NULL), CX_OK);
	now = bytes_load(path); /* nothing is seen before the end */
	assert_true(now.n == 3 && memcmp(now.p, "old", 3) == 0);
	bytes_free(&now);
	cx_file_out_discard(o);
	now = bytes_load(path);
	assert_true(now.n == 3);
	bytes_free(&now);
	assert_int_equal(cx_file_out_open(NULL, path, &o, NULL), CX_OK);
	assert_int_equal(cx_file_out_write(o, "new and ", 8, NULL), CX_OK);
	assert_int_equal(cx_file_out_write(o, "longer", 6, NULL), CX_OK);
	assert_int_equal(cx_file_out_commit(o, NULL), CX_OK);
	now = bytes_load(path);
	assert_true(now.n == 14 && memcmp(now.p, "new and longer", 14) == 0);
	bytes_free(&now);
	bytes_free(&old);
	cx_file_out_discard(NULL);
	/* a folder that comes in the way: the rename fails, and what was written goes away */
	assert_int_equal(cx_file_out_open(NULL, temp_path("dir"), &o, NULL), CX_OK);
	assert_int_equal(mkdir(temp_path("dir"), 0777), 0);
	assert_int_equal(cx_file_out_commit(o, NULL), CX_ERR_IO);
	assert_int_equal(stat(temp_path("dir"), &sb), 0);
	assert_true(S_ISDIR(sb.st_mode));
	for (int i = 0; i < 3; i++) {
		char name[64];
		snprintf(name, sizeof name, "dir.%ld.%d.tmp", (long)getpid(), i);
		assert_int_not_equal(access(temp_path(name), F_OK), 0);
	}
	assert_int_equal(rmdir(temp_path("dir")), 0);
}

/* What a rename would replace for good is refused; a link stays one. */
static void test_out_odd(void **state)
{
	cx_err err = {0};
	cx_file_out *o;
	struct stat sb;
	bytes now;
	(void)state;
	assert_int_equal(mkdir(temp_path("dir"), 0777), 0);
	assert_int_equal(cx_file_out_open(NULL, temp_path("dir"), &o, &err), CX_ERR_IO);
	check_says(&err, "dir: cannot be written: it is a folder");
	assert_int_equal(rmdir(temp_path("dir")), 0);
	assert_int_equal(mkfifo(temp_path("pipe"), 0666), 0);
	err = (cx_err){0};
	assert_int_equal(cx_file_out_open(NULL, temp_path("pipe"), &o, &err), CX_ERR_IO);
	check_says(&err, "pipe: cannot be written: it is not a regular file");
	assert_int_equal(unlink(temp_path("pipe")), 0);
	assert_int_equal(symlink("out", temp_path("link")), 0);
	assert_int_equal(cx_file_out_open(NULL, temp_path("link"), &o, NULL), CX_OK);
	assert_int_equal(cx_file_out_write(o, "through", 7, NULL), CX_OK);
	assert_int_equal(cx_file_out_commit(o, NULL), CX_OK);
	assert_int_equal(lstat(temp_path("link"), &sb), 0);
	assert_true(S_ISLNK(sb.st_mode));
	now = bytes_load(temp_path("out"));
	assert_true(now.n == 7 && memcmp(now.p, "through", 7) == 0);
	bytes_free(&now);
	assert_int_equal(unlink(temp_path("link")), 0);
	assert_int_equal(symlink("nowhere", temp_path("link")), 0);
	assert_int_equal(cx_file_out_open(NULL, temp_path("link"), &o, NULL), CX_ERR_IO);
	assert_int_equal(unlink(temp_path("link")), 0);
}

/* A disk that takes no more: here the largest size of a file. Nothing stays behind. */
static void test_out_full(void **state)
{
	static const int64_t dims[] = {100000};
	static const char zeros[100000];
	struct rlimit was, tight;
	cx_err err = {0};
	cx_file_out *o;
	char name[64];
	cx_status st;
	(void)state;
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
	tight = was;
	tight.rlim_cur = 4096;
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
	st = cx_npy_write(NULL, temp_path("full.npy"), CX_NPY_U1, 1, dims, zeros, &err);
	setrlimit(RLIMIT_FSIZE, &was);
	signal(SIGXFSZ, SIG_DFL);
	assert_int_equal(st, CX_ERR_IO);
	check_says(&err, "full.npy: write failed: File too large");
	assert_int_not_equal(access(temp_path("full.npy"), F_OK), 0);
	snprintf(name, sizeof name, "full.npy.%ld.0.tmp", (long)getpid());
	assert_int_not_equal(access(temp_path(name), F_OK), 0);
	memset(&err, 0, sizeof err);
	assert_int_equal(cx_file_out_open(NULL, "/no/such/folder/x", &o, &err), CX_ERR_IO);
	assert_null(o);
	check_says(&err, "/no/such/folder/x: cannot be written: No such file or directory");
}

/* ---- NPY ---- */

static bytes npy_bytes(int version, const char *header, size_t n_data)
{
	bytes b = {0};
	bytes_put(&b, "\x93NUMPY", 6);
	bytes_u8(&b, (uint8_t)version);
	bytes_u8(&b, 0);
	if (version == 1) bytes_u16(&b, (uint16_t)strlen(header));
	else bytes_u32(&b, (uint32_t)strlen(header));
	bytes_text(&b, header);
	bytes_fill(&b, n_data);
	return b;
}

static cx_status parse_npy(const bytes *b, size_t *off, cx_npy *npy, cx_file_map **map, cx_err *err)
{
	cx_status st = cx_file_map_copy(NULL, "made.npy", b->p, b->n, map, err);
	return st == CX_OK ? cx_npy_parse(*map, off, npy, err) : st;
}

static const char plain[] = "{'descr': '<i2', 'fortran_order': False, 'shape': (2, 3), }\n";

static void test_npy_good(void **state)
{
	static const struct {
		const char *header;
		int version;
		int32_t rank;
		int64_t n;
	} good[] = {
		{plain, 1, 2, 6},
		{plain, 2, 2, 6},
		{plain, 3, 2, 6},
		{"{\"shape\":(),\"descr\":\"<i2\",\"fortran_order\":False}", 1, 0, 1},
		{"{ 'descr' : '<i2' , 'fortran_order' : True , 'shape' : ( 1 , 6 , ) } ", 1, 2, 6},
		{"{'descr': '<i2', 'fortran_order': False, 'shape': (0,), }", 1, 1, 0},
		{"{'descr': '=i2', 'fortran_order': False, 'shape': (5,), }", 1, 1, 5},
	};
	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
		bytes b = npy_bytes(good[i].version, good[i].header, (size_t)good[i].n * 2);
		cx_file_map *map;
		cx_err err = {0};
		cx_npy npy;
		size_t off = 0;
		double d[6];
		if (parse_npy(&b, &off, &npy, &map, &err) != CX_OK) fail_msg("case %zu: %s", i, err.msg);
		assert_true(npy.rank == good[i].rank && npy.n == good[i].n && npy.type == CX_NPY_I2);
		assert_int_equal(off, b.n);
		cx_npy_to_f64(&npy, d);
		for (int64_t k = 0; k < npy.n; k++) assert_true(d[k] == 2 * k + (2 * k + 1) * 256);
		cx_file_map_close(map);
		fuzz_seed("fuzz_npy", i ? "good" : "first", &b);
		bytes_free(&b);
	}
}

static const struct {
	const char *header;
	int version;
	const char *says;
} npy_bad[] = {
	{"{'descr': '>i2', 'fortran_order': False, 'shape': (6,), }", 1, "holds big-endian data (>i2)"},
	{"{'descr': '<i2', 'fortran_order': True, 'shape': (2, 3), }", 1, "is in Fortran order"},
	{"{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }", 1, "elements of type '<c8'"},
	{"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", 1, "elements of type '|O'"},
	{"{'descr': '<U9', 'fortran_order': False, 'shape': (1,), }", 1, "elements of type '<U9'"},
	{"{'descr': '!i2', 'fortran_order': False, 'shape': (1,), }", 1, "elements of type '!i2'"},
	{"{'descr': [('a', '<i2')], 'fortran_order': False, 'shape': (1,), }", 1, "structured arrays"},
	{"{'descr': '<i2', 'fortran_order': 0, 'shape': (1,), }", 1, "neither True nor False"},
	{"{'descr': '<i2', 'fortran_order': False, 'shape': 6, }", 1, "shape is not a tuple"},
	{"{'descr': '<i2', 'fortran_order': False, 'shape': (-6,), }", 1, "not a number from 0 up"},
	{"{'descr': '<i2', 'fortran_order': False, 'shape': (6.0,), }", 1, "shape is not closed"},
	{"{'descr': '<i2', 'fortran_order': False, 'shape': (6", 1, "shape is not closed"},
	{"{'descr': '<i2', 'fortran_order': False, 'shape': (99999999999999999999,), }", 1, "64 bits"},
	{"{'descr': '<i2', 'fortran_order': False, 'shape': (4294967296, 4294967296), }", 1, "wraps"},
	{"{'descr': '<i8', 'fortran_order': False, 'shape': (4611686018427387905,), }", 1, "wraps"},
	{"{'descr': '<i2', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1), }", 1, "more than 8"},
	{"{'descr': '<i2', 'fortran_order': False, 'shape': (7,), }", 1,
		"has 14 bytes, but 12 are left"},
	{"{'descr': '<i2', 'fortran_order': False, }", 1, "lacks descr, fortran_order or shape"},
	{"{'descr': '<i2', 'descr': '<i2', 'shape': (6,), }", 1, "has a field twice"},
	{"{'descr': '<i2', 'more': False, 'shape': (6,), }", 1, "has a field other than"},
	{"{'descr': '<i2', 'fortran_order': False, 'shape': (6,), } x", 1, "text after the }"},
	{"{'descr': '<i2' 'fortran_order': False}", 1, "is damaged"},
	{"{'descr", 1, "is damaged"},
	{"", 1, "does not begin with {"},
	{plain, 4, "is NPY version 4.0"},
	{plain, 0, "is NPY version 0.0"},
};

static void test_npy_bad(void **state)
{
	cx_file_map *map;
	bytes b;
	(void)state;
	for (size_t i = 0; i < sizeof npy_bad / sizeof *npy_bad; i++) {
		cx_err err = {0};
		cx_npy npy;
		size_t off = 0;
		char name[32];
		b = npy_bytes(npy_bad[i].version, npy_bad[i].header, 12);
		assert_int_not_equal(parse_npy(&b, &off, &npy, &map, &err), CX_OK);
		check_says(&err, npy_bad[i].says);
		check_says(&err, "made.npy");
		assert_int_equal(off, 0);
		cx_file_map_close(map);
		snprintf(name, sizeof name, "broken-%02zu", i);
		fuzz_seed("fuzz_npy", name, &b);
		bytes_free(&b);
	}
	for (int version = 1; version <= 2; version++) { /* cut at every byte */
		b = npy_bytes(version, plain, 12);
		for (size_t n = 1; n < b.n; n++) {
			bytes cut = {b.p, n, n};
			cx_err err = {0};
			cx_npy npy;
			size_t off = 0;
			assert_int_equal(parse_npy(&cut, &off, &npy, &map, &err), CX_ERR_FORMAT);
			check_says(&err, "made.npy");
			cx_file_map_close(map);
		}
		bytes_free(&b);
	}
}

static void test_npy_write(void **state)
{
	static const float f[] = {1.5f, -2, 3, INFINITY, 0, 1e-40f};
	static const int64_t dims[] = {3, 2}, i8[] = {-1, INT64_MAX}, two[] = {2}, none[] = {0, 9},
						 bad[] = {-1};
	static const uint64_t u8[] = {1, UINT64_MAX};
	static const uint16_t f2[] = {0x3c00, 0x8001}; /* 1, -2^-24 */
	float back[6];
	int64_t ints[2];
	double d[2];
	cx_err err = {0};
	cx_npy npy;
	bytes b;
	(void)state;
	assert_int_equal(cx_npy_write(NULL, temp_path("f.npy"), CX_NPY_F4, 2, dims, f, &err), CX_OK);
	b = bytes_load(temp_path("f.npy"));
	assert_true(b.n == 128 + sizeof f && b.p[127] == '\n');
	bytes_u8(&b, 0);
	bytes_save(&b, temp_path("more.npy"));
	bytes_free(&b);
	assert_int_equal(cx_npy_open(NULL, temp_path("f.npy"), &npy, &err), CX_OK);
	assert_true(npy.rank == 2 && npy.dims[0] == 3 && npy.dims[1] == 2 && npy.type == CX_NPY_F4);
	assert_true(cx_npy_type_dtype(npy.type) == CX_F32);
	cx_npy_to_f32(&npy, back);
	assert_memory_equal(back, f, sizeof f);
	cx_npy_close(&npy);
	assert_int_equal(cx_npy_open(NULL, temp_path("more.npy"), &npy, &err), CX_ERR_FORMAT);
	check_says(&err, "1 bytes follow the array");
	memset(&err, 0, sizeof err);
	assert_int_equal(cx_npy_write(NULL, temp_path("i.npy"), CX_NPY_I8, 1, two, i8, &err), CX_OK);
	assert_int_equal(cx_npy_open(NULL, temp_path("i.npy"), &npy, &err), CX_OK);
	assert_int_equal(cx_npy_to_i64(&npy, ints, &err), CX_OK);
	assert_true(ints[0] == -1 && ints[1] == INT64_MAX);
	cx_npy_close(&npy);
	assert_int_equal(cx_npy_write(NULL, temp_path("u.npy"), CX_NPY_U8, 1, two, u8, &err), CX_OK);
	assert_int_equal(cx_npy_open(NULL, temp_path("u.npy"), &npy, &err), CX_OK);
	assert_int_equal(cx_npy_to_i64(&npy, ints, &err), CX_ERR_FORMAT);
	check_says(&err, "element 1 is 18446744073709551615");
	cx_npy_close(&npy);
	memset(&err, 0, sizeof err);
	assert_int_equal(cx_npy_write(NULL, temp_path("h.npy"), CX_NPY_F2, 1, two, f2, &err), CX_OK);
	assert_int_equal(cx_npy_open(NULL, temp_path("h.npy"), &npy, &err), CX_OK);
	cx_npy_to_f64(&npy, d);
	assert_true(d[0] == 1 && d[1] == -0x1p-24);
	assert_int_equal(cx_npy_to_i64(&npy, ints, &err), CX_ERR_FORMAT);
	cx_npy_close(&npy);
	assert_int_equal(cx_npy_write(NULL, temp_path("n.npy"), CX_NPY_U1, 2, none, NULL, NULL), CX_OK);
	assert_int_equal(cx_npy_open(NULL, temp_path("n.npy"), &npy, NULL), CX_OK);
	assert_true(npy.n == 0 && npy.rank == 2 && npy.dims[1] == 9);
	cx_npy_close(&npy);
	assert_int_equal(
		cx_npy_write(NULL, temp_path("n.npy"), CX_NPY_U1, 1, bad, NULL, NULL), CX_ERR_ARGUMENT);
}

static void test_npy_allocations(void **state)
{
	static const int64_t dims[] = {2};
	static const float f[] = {1, 2};
	(void)state;
	for (long n = 0;; n++) {
		cx_fault fault = {.countdown = n};
		cx_alloc a = cx_alloc_fault(&fault);
		cx_npy npy = {0};
		cx_status st = cx_npy_write(&a, temp_path("a.npy"), CX_NPY_F4, 1, dims, f, NULL);
		if (st == CX_OK) st = cx_npy_open(&a, temp_path("a.npy"), &npy, NULL);
		assert_int_equal(st, fault.fired ? CX_ERR_MEMORY : CX_OK);
		cx_npy_close(&npy);
		assert_int_equal(fault.n_live, 0);
		if (!fault.fired) break;
	}
}

/* One array of every type, one after another; the two complex ones at the end are refused. */
static void test_npy_fixture(void **state)
{
	static const struct {
		cx_npy_type type;
		double a, b;
	} want[] = {{CX_NPY_B1, 1, 0}, {CX_NPY_I1, -1, 1}, {CX_NPY_I2, -20000, 20000},
		{CX_NPY_I4, -2000000, 2000000}, {CX_NPY_I8, -20000000000, 20000000000}, {CX_NPY_U1, 1, 255},
		{CX_NPY_U2, 1, 65535}, {CX_NPY_U4, 1, 4294967295}, {CX_NPY_U8, 1, 18446744073709551615.0},
		{CX_NPY_F2, -1.099609375, 1.099609375}, {CX_NPY_F4, -1.1f, 1.1f}, {CX_NPY_F8, -1.1, 1.1}};
	const char *path = fixture("formats/array_types.npy");
	cx_file_map *map;
	cx_err err = {0};
	size_t off = 0;
	cx_npy npy;
	double d[2];
	(void)state;
	if (!path) skip();
	assert_int_equal(cx_file_map_open(NULL, path, &map, &err), CX_OK);
	for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
		assert_int_equal(cx_npy_parse(map, &off, &npy, &err), CX_OK);
		assert_true(npy.rank == 1 && npy.n == 2 && npy.type == want[i].type);
		cx_npy_to_f64(&npy, d);
		assert_true(d[0] == want[i].a && d[1] == want[i].b);
	}
	assert_int_equal(cx_npy_parse(map, &off, &npy, &err), CX_ERR_UNSUPPORTED);
	check_says(&err, "array_types.npy: holds elements of type '<c8', which cannot be read");
	cx_file_map_close(map);
}

/* The row maxima of the reference logits are the reference tokens: both files were read right. */
static void test_npy_logits(void **state)
{
	const char *json = fixture("llm/stories260K/greedy_tokens.json");
	const char *npy_path = fixture("llm/stories260K/logits_f64_first64.npy");
	const json_t *tokens = NULL;
	cx_json_at at;
	json_t *root;
	cx_npy npy;
	double *v;
	(void)state;
	if (!json || !npy_path) skip();
	assert_int_equal(cx_json_load(NULL, json, &root, NULL), CX_OK);
	assert_int_equal(cx_json_root("greedy_tokens.json", root, &at, NULL), CX_OK);
	assert_int_equal(cx_json_array(&at, "tokens", CX_REQUIRED, &tokens, NULL), CX_OK);
	assert_int_equal(json_array_size(tokens), 257);
	assert_int_equal(cx_npy_open(NULL, npy_path, &npy, NULL), CX_OK);
	assert_true(npy.rank == 2 && npy.dims[0] == 64 && npy.dims[1] == 512);
	v = malloc((size_t)npy.n * sizeof *v);
	assert_non_null(v);
	cx_npy_to_f64(&npy, v);
	for (size_t r = 0; r < 64; r++) {
		const json_t *next = json_array_get(tokens, r + 1);
		json_int_t best = 0;
		for (json_int_t c = 1; c < 512; c++)
			if (v[r * 512 + (size_t)c] > v[r * 512 + (size_t)best]) best = c;
		assert_int_equal(best, json_integer_value(next));
	}
	free(v);
	cx_npy_close(&npy);
	json_decref(root);
}

static void test_npy_recording(void **state)
{
	const char *spikes = fixture("neural/m1_stevenson_2011/spikes.u8.npy");
	const char *hand = fixture("neural/m1_stevenson_2011/kinematics.f64.npy");
	cx_npy s, k;
	double *v;
	(void)state;
	if (!spikes || !hand) skip();
	assert_int_equal(cx_npy_open(NULL, spikes, &s, NULL), CX_OK);
	assert_int_equal(cx_npy_open(NULL, hand, &k, NULL), CX_OK);
	assert_true(s.type == CX_NPY_U1 && s.rank == 2 && s.dims[0] == 15536 && s.dims[1] == 171);
	assert_true(k.type == CX_NPY_F8 && k.rank == 2 && k.dims[0] == s.dims[0] && k.dims[1] == 4);
	v = malloc((size_t)s.n * sizeof *v);
	assert_non_null(v);
	cx_npy_to_f64(&s, v);
	for (int64_t i = 0; i < s.n; i++)
		if (v[i] != s.data[i]) fail_msg("element %lld", (long long)i);
	cx_npy_to_f64(&k, v);
	for (int64_t i = 0; i < k.n; i++)
		if (!isfinite(v[i])) fail_msg("element %lld", (long long)i);
	free(v);
	cx_npy_close(&s);
	cx_npy_close(&k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_map),
		cmocka_unit_test(test_map_allocations),
		cmocka_unit_test(test_paths),
		cmocka_unit_test(test_out),
		cmocka_unit_test(test_out_odd),
		cmocka_unit_test(test_out_full),
		cmocka_unit_test(test_npy_good),
		cmocka_unit_test(test_npy_bad),
		cmocka_unit_test(test_npy_write),
		cmocka_unit_test(test_npy_allocations),
		cmocka_unit_test(test_npy_fixture),
		cmocka_unit_test(test_npy_logits),
		cmocka_unit_test(test_npy_recording),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
