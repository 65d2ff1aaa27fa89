/* test_mat5.c - MATLAB 5 files: every storage type, small elements, compression, what is passed
 * over, what is refused, and the recording of the fixtures against its NPY form. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>
#include <zlib.h>

#include "models/decoder/session.h"
#include "models/files/mat5.h"
#include "tests/file_make.h"
#include "tests/rng.h"

#define OK(call)                                                                                   \
	do {                                                                                           \
		cx_err err_ = {0}, *err = &err_;                                                           \
		cx_status st_ = (call);                                                                    \
		if (st_ != CX_OK) fail_msg("%s: %s", #call, err_.msg);                                     \
	} while (0)

static void head(bytes *b)
{
	bytes_text(b, "MATLAB 5.0 MAT-file, made by a test");
	while (b->n < 124) bytes_u8(b, ' ');
	bytes_u16(b, 0x0100);
	bytes_text(b, "IM");
}

static void element(bytes *b, uint32_t type, const void *p, uint32_t n)
{
	bytes_u32(b, type);
	bytes_u32(b, n);
	bytes_put(b, p, n);
	bytes_align(b, 8);
}

/* The inside of an array. small: name and dimensions-free parts in the four-byte form where they
 * fit. */
static bytes inside(uint32_t class, const char *name, int32_t rows, int32_t cols, uint32_t type,
	const void *data, uint32_t n)
{
	bytes b = {0};
	uint32_t flags[2] = {class, 0};
	int32_t dims[2] = {rows, cols};
	element(&b, 6, flags, 8);
	element(&b, 5, dims, 8);
	if (strlen(name) <= 4) {
		bytes_u32(&b, 1 | (uint32_t)strlen(name) << 16);
		bytes_text(&b, name);
		bytes_align(&b, 8);
	} else {
		element(&b, 1, name, (uint32_t)strlen(name));
	}
	element(&b, type, data, n);
	return b;
}

static void array(bytes *b, uint32_t class, const char *name, int32_t rows, int32_t cols,
	uint32_t type, const void *data, uint32_t n, bool packed)
{
	bytes in = inside(class, name, rows, cols, type, data, n);
	bytes whole = {0};
	bytes_u32(&whole, 14);
	bytes_u32(&whole, (uint32_t)in.n);
	bytes_put(&whole, in.p, in.n);
	if (packed) {
		uLongf size = compressBound(whole.n);
		unsigned char *z = malloc(size);
		assert_int_equal(compress(z, &size, whole.p, whole.n), Z_OK);
		bytes_u32(b, 15);
		bytes_u32(b, (uint32_t)size);
		bytes_put(b, z, size);
		free(z);
	} else {
		bytes_put(b, whole.p, whole.n);
	}
	bytes_free(&in);
	bytes_free(&whole);
}

static cx_status parse(const bytes *b, cx_mat5 *m, cx_file_map **map, cx_err *err)
{
	OK(cx_file_map_copy(NULL, "test.mat", b->p, b->n, map, err));
	return cx_mat5_parse(NULL, *map, m, err);
}

static bytes good_file(void)
{
	static const double d[6] = {1, 2, 3, 4, 5, 6.5};
	static const uint8_t u8[6] = {0, 1, 2, 3, 254, 255};
	static const int8_t i8[2] = {-1, 7};
	static const int16_t i16[2] = {-300, 7};
	static const uint16_t u16[2] = {65535, 7};
	static const int32_t i32[2] = {-70000, 7};
	static const uint32_t u32[2] = {4000000000u, 7};
	static const float f[2] = {0.5f, -2};
	static const int64_t i64[2] = {-(1ll << 40), 7};
	static const uint64_t u64[2] = {1ull << 60, 7};
	bytes b = {0};
	head(&b);
	array(&b, 6, "dbl", 2, 3, 9, d, sizeof d, false);
	array(&b, 6, "small_ints", 2, 3, 2, u8, sizeof u8, true); /* class double, stored as bytes */
	array(&b, 8, "i8", 1, 2, 1, i8, sizeof i8, false);
	array(&b, 10, "i16", 1, 2, 3, i16, sizeof i16, true);
	array(&b, 11, "u16", 1, 2, 4, u16, sizeof u16, false);
	array(&b, 12, "i32", 1, 2, 5, i32, sizeof i32, true);
	array(&b, 13, "u32", 1, 2, 6, u32, sizeof u32, false);
	array(&b, 7, "sgl", 1, 2, 7, f, sizeof f, true);
	array(&b, 14, "i64", 1, 2, 12, i64, sizeof i64, false);
	array(&b, 15, "u64", 1, 2, 13, u64, sizeof u64, true);
	array(&b, 4, "text", 1, 2, 4, u16, sizeof u16, false); /* char */
	array(&b, 6 | 0x800, "complex", 1, 2, 9, d, 16, true); /* real part of a complex one */
	array(&b, 6, "none", 0, 0, 9, d, 0, false);            /* empty */
	return b;
}

static void good(void **state)
{
	static const struct {
		const char *name;
		double first, last;
	} want[] = {{"dbl", 1, 6.5}, {"small_ints", 0, 255}, {"i8", -1, 7}, {"i16", -300, 7},
		{"u16", 65535, 7}, {"i32", -70000, 7}, {"u32", 4e9, 7}, {"sgl", 0.5, -2},
		{"i64", -1099511627776.0, 7}, {"u64", 1152921504606846976.0, 7}};
	bytes b = good_file();
	const cx_mat5_array *a = NULL;
	cx_file_map *map;
	cx_mat5 m;
	cx_err err = {0};
	double x[6];
	(void)state;
	OK(parse(&b, &m, &map, err));
	assert_int_equal(m.n_arrays, 13);
	for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
		OK(cx_mat5_get(&m, want[i].name, CX_REQUIRED, &a, err));
		cx_mat5_to_f64(a, x);
		assert_true(x[0] == want[i].first && x[a->n - 1] == want[i].last);
	}
	OK(cx_mat5_get(&m, "dbl", CX_REQUIRED, &a, err));
	assert_true(a->rank == 2 && a->dims[0] == 2 && a->dims[1] == 3);
	OK(cx_mat5_get(&m, "none", CX_REQUIRED, &a, err));
	assert_int_equal(a->n, 0);
	assert_int_equal(cx_mat5_get(&m, "text", CX_OPTIONAL, &a, &err), CX_ERR_FORMAT);
	assert_non_null(strstr(err.msg, "'text'"));
	assert_int_equal(cx_mat5_get(&m, "complex", CX_OPTIONAL, &a, NULL), CX_ERR_FORMAT);
	a = NULL;
	OK(cx_mat5_get(&m, "absent", CX_OPTIONAL, &a, err));
	assert_null(a);
	err = (cx_err){0};
	assert_int_equal(cx_mat5_get(&m, "absent", CX_REQUIRED, &a, &err), CX_ERR_FORMAT);
	assert_non_null(strstr(err.msg, "test.mat: there is no array 'absent'"));
	cx_mat5_close(&m);
	cx_file_map_close(map);
	fuzz_seed("fuzz_mat5", "good", &b);
	bytes_free(&b);
}

static void refused(const bytes *b, const char *want)
{
	cx_file_map *map;
	cx_mat5 m;
	cx_err err = {0};
	assert_int_equal(parse(b, &m, &map, &err), CX_ERR_FORMAT);
	if (!strstr(err.msg, want)) fail_msg("'%s' does not say '%s'", err.msg, want);
	assert_null(m.arrays);
	cx_file_map_close(map);
}

static void bad(void **state)
{
	static const double d[6] = {1, 2, 3, 4, 5, 6};
	bytes b = {0};
	(void)state;
	bytes_text(&b, "nothing");
	refused(&b, "no MATLAB 5 file");
	b.n = 0;
	head(&b);
	memcpy(b.p + 126, "MI", 2);
	refused(&b, "big-endian");
	b.n = 0;
	head(&b);
	memcpy(b.p, "MATLAB 7.3", 10);
	refused(&b, "HDF5");
	b.n = 0;
	head(&b);
	array(&b, 6, "a", 2, 3, 9, d, 40, false);
	refused(&b, "'a' has 6 elements, but 40 bytes");
	b.n = 0;
	head(&b);
	array(&b, 6, "a", -2, 3, 9, d, 48, false);
	refused(&b, "dimensions");
	b.n = 0;
	head(&b);
	array(&b, 6, "a", 2, 3, 10, d, 48, false);
	refused(&b, "its data is damaged");
	b.n = 0;
	head(&b);
	array(&b, 6, "a", 2, 3, 9, d, 48, true);
	b.p[b.n - 3] ^= 1; /* of the checksum */
	refused(&b, "compressed data is damaged");
	b.n = 0;
	head(&b);
	bytes_u32(&b, 14);
	bytes_u32(&b, 4000000000u);
	refused(&b, "cut short");
	b.n = 0;
	head(&b);
	element(&b, 9, d, 16);
	refused(&b, "neither an array");
	bytes_free(&b);
}

/* Cut at every byte, and damaged at random ones: a sentence or arrays, all inside the file. */
static void damage(void **state)
{
	bytes b = good_file();
	cx_rng g = cx__rng_make(3, 3);
	unsigned n_ok = 0;
	(void)state;
	for (size_t i = 1; i < b.n + 3000; i++) {
		bytes c = {0};
		cx_file_map *map;
		cx_mat5 m;
		cx_err err = {0};
		bytes_put(&c, b.p, i < b.n ? i : b.n);
		if (i >= b.n)
			for (int k = 0; k < 4; k++)
				c.p[cx__rng_int(&g, 128, (int64_t)c.n - 1)] =
					(unsigned char)cx__rng_int(&g, 0, 255);
		if (parse(&c, &m, &map, &err) == CX_OK) {
			n_ok++;
			for (size_t k = 0; k < m.n_arrays; k++) {
				double *x =
					malloc(sizeof *x * (size_t)(m.arrays[k].numeric ? m.arrays[k].n : 0) + 1);
				if (m.arrays[k].numeric) cx_mat5_to_f64(&m.arrays[k], x);
				free(x);
			}
			cx_mat5_close(&m);
		} else {
			assert_true(err.msg[0] != 0);
		}
		cx_file_map_close(map);
		bytes_free(&c);
	}
	print_message("# %zu damaged files, %u of them still readable\n", b.n + 2999, n_ok);
	bytes_free(&b);
}

static void every_allocation_fails_once(void **state)
{
	bytes b = good_file();
	cx_file_map *map;
	(void)state;
	OK(cx_file_map_copy(NULL, "test.mat", b.p, b.n, &map, err));
	for (long n = 0;; n++) {
		cx_fault fault = {.countdown = n};
		cx_alloc alloc = cx_alloc_fault(&fault);
		cx_mat5 m;
		cx_status st = cx_mat5_parse(&alloc, map, &m, NULL);
		cx_mat5_close(&m);
		assert_int_equal(fault.n_live, 0);
		assert_int_equal(st, fault.fired ? CX_ERR_MEMORY : CX_OK);
		if (!fault.fired) break;
	}
	cx_file_map_close(map);
	bytes_free(&b);
}

static void recording(void **state)
{
	const char *mat = fixture("neural/m1_stevenson_2011/m1_stevenson_2011.mat");
	const char *spikes = fixture("neural/m1_stevenson_2011/spikes.u8.npy");
	const char *kin = fixture("neural/m1_stevenson_2011/kinematics.f64.npy");
	cx_session a, b;
	(void)state;
	if (!mat || !spikes || !kin) skip();
	OK(cx_session_load_mat(mat, NULL, &a, err));
	OK(cx_session_load(spikes, kin, NULL, &b, err));
	assert_true(a.n_bins == b.n_bins && a.n_units == b.n_units && a.n_kin == b.n_kin);
	assert_memory_equal(a.spikes, b.spikes, a.n_bins * a.n_units);
	assert_memory_equal(a.kin, b.kin, a.n_bins * a.n_kin * sizeof *a.kin);
	assert_true(fabs(a.bin_seconds - 0.05) < 1e-3);
	print_message("# the MATLAB recording is the NPY one: %zu bins of %.5f s, %zu units\n",
		a.n_bins, a.bin_seconds, a.n_units);
	cx_session_deinit(&a);
	cx_session_deinit(&b);
}

static void bad_recordings(void **state)
{
	static const double d[6] = {1, 2, 3, 4, 5.5, 6}, v[6] = {1, 2, NAN, 4, 5, 6};
	static const struct {
		const char *spikes, *vel;
		const double *s, *k;
		int32_t rows;
		const char *want;
	} cases[] = {{"spikes", "handVel", d, d, 3, "5.5 is no spike count"},
		{"spikes", "handVel", v, v, 3, "nan is no spike count"},
		{"spikes", "speed", d, d, 3, "no array 'handVel'"},
		{"sparks", "handVel", d, d, 3, "no array 'spikes'"},
		{"spikes", "handVel", d, d, 6, "has 6 bins, but"}};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		bytes b = {0};
		cx_session s;
		cx_err err = {0};
		head(&b);
		array(&b, 6, cases[i].spikes, cases[i].rows, 6 / cases[i].rows, 9, cases[i].s, 48, true);
		array(&b, 6, cases[i].vel, 3, 2, 9, cases[i].k, 48, true);
		bytes_save(&b, temp_path("bad.mat"));
		assert_int_not_equal(cx_session_load_mat(temp_path("bad.mat"), NULL, &s, &err), CX_OK);
		if (!strstr(err.msg, cases[i].want) || !strstr(err.msg, "bad.mat"))
			fail_msg("'%s' does not say '%s'", err.msg, cases[i].want);
		assert_null(s.spikes);
		bytes_free(&b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(good), cmocka_unit_test(bad),
		cmocka_unit_test(damage), cmocka_unit_test(every_allocation_fails_once),
		cmocka_unit_test(recording), cmocka_unit_test(bad_recordings)};
	return cmocka_run_group_tests_name("mat5", tests, NULL, NULL);
}
