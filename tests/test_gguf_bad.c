/* test_gguf_bad.c - the GGUF reader on broken files: every known way, cut at every byte, changed at
 * every byte; and every allocation failing in turn. The files are made here and become seeds of the
 * fuzzer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "models/files/gguf.h"
#include "tests/file_make.h"

enum { F32 = 0, Q4_0 = 2, Q8_0 = 8 };

static const uint64_t ne_4[] = {4}, ne_4_3[] = {4, 3};

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

/* One tensor "w" with the given shape, type and offset, and 64 bytes of data. */
static void one_tensor(bytes *b, uint32_t n_dims, const uint64_t *ne, uint32_t type, uint64_t off)
{
	gguf_head(b, 3, 1, 0);
	gguf_tensor(b, "w", n_dims, ne, type, off);
	bytes_align(b, 32);
	bytes_fill(b, 64);
}

static void two_tensors(bytes *b, const char *first, const char *second, uint64_t second_off)
{
	gguf_head(b, 3, 2, 0);
	gguf_tensor(b, first, 2, ne_4_3, F32, 0);
	gguf_tensor(b, second, 1, ne_4, F32, second_off);
	bytes_align(b, 32);
	bytes_fill(b, 128);
}

static void aligned_by(bytes *b, uint32_t align)
{
	gguf_head(b, 3, 1, 1);
	gguf_key_u32(b, "general.alignment", align);
	gguf_tensor(b, "w", 1, ne_4, F32, 0);
	bytes_fill(b, 512);
}

static void nest(bytes *b, int depth)
{
	gguf_head(b, 3, 0, 1);
	gguf_key(b, "deep", 9);
	for (int i = 1; i < depth; i++) bytes_u32(b, 9), bytes_u64(b, 1);
	bytes_u32(b, 0), bytes_u64(b, 1), bytes_u8(b, 1);
}

static void broken_header(bytes *b, int k)
{
	switch (k) {
	case 0:
		bytes_text(b, "GGML\3   ");
		break;
	case 1:
		bytes_text(b, "GG");
		break;
	case 2:
		gguf_head(b, 1, 0, 0);
		break;
	case 3:
		gguf_head(b, 4, 0, 0);
		break;
	case 4:
		gguf_head(b, 0x03000000, 0, 0);
		break;
	case 5:
		gguf_head(b, 3, UINT64_MAX, 0);
		break;
	case 6:
		gguf_head(b, 3, (UINT64_MAX / 96) + 1, 0);
		break; /* x sizeof(info) wraps to little */
	case 7:
		gguf_head(b, 3, 0, UINT64_MAX);
		break;
	case 8:
		gguf_head(b, 3, 0, UINT64_MAX / 64 + 2);
		break;
	case 9:
		gguf_head(b, 3, 0, 0x100000000);
		break;
	case 10:
		gguf_head(b, 0, 0, 0);
		break;
	}
}

static void broken_metadata(bytes *b, int k)
{
	gguf_head(b, 3, 0, k == 7 ? 2 : 1);
	switch (k) {
	case 0:
		bytes_u64(b, UINT64_MAX), bytes_text(b, "key of a string that is too long");
		break;
	case 1:
		bytes_u64(b, UINT64_MAX - 8), bytes_text(b, "position plus length wraps");
		break;
	case 2:
		gguf_key(b, "s", 8), bytes_u64(b, 0x7fffffffffffffff), bytes_text(b, "x");
		break;
	case 3:
		gguf_key(b, "t", 13), bytes_u64(b, 0);
		break;
	case 4:
		gguf_key_array(b, "a", 13, 0);
		break;
	case 5:
		gguf_key_array(b, "a", 10, UINT64_MAX / 8 + 2), bytes_u64(b, 0);
		break;
	case 6:
		gguf_key_array(b, "a", 8, UINT64_MAX / 16 + 2), bytes_u64(b, 0);
		break;
	case 7:
		gguf_key_u32(b, "twice", 1), gguf_key_u32(b, "twice", 2);
		break;
	case 8:
		gguf_key(b, "flag", 7), bytes_u8(b, 2);
		break;
	case 9:
		gguf_key(b, "", 0), bytes_fill(b, 8);
		break;
	case 10:
		bytes_u64(b, 3), bytes_put(b, "a\0b", 3), bytes_u32(b, 4), bytes_u32(b, 0);
		break;
	case 11:
		gguf_key_array(b, "a", 9, UINT64_MAX / 12 + 2), bytes_fill(b, 64);
		break;
	case 12:
		gguf_key_array(b, "flags", 7, 2), bytes_u8(b, 1), bytes_u8(b, 9);
		break;
	case 13:
		gguf_key_array(b, "a", 0, UINT64_MAX), bytes_fill(b, 16);
		break;
	case 14:
		b->n = 0, nest(b, 5);
		break;
	case 15:
		b->n = 0, nest(b, 200);
		break;
	case 16:
		gguf_key_text(b, "general.alignment", "32");
		break;
	}
}

/* clang-format off */
static const struct { uint32_t n_dims; uint64_t ne[5]; uint32_t type; uint64_t off; } shapes[] = {
	{2, {4, 0}, F32, 0},
	{2, {(uint64_t)-4, 2}, F32, 0},
	{5, {1, 1, 1, 1, 1}, F32, 0},
	{2, {1ull << 32, 1ull << 32}, F32, 0},
	{4, {1u << 31, 1u << 31, 1u << 31, 2}, F32, 0},
	{1, {1ull << 62}, F32, 0},
	{1, {33}, Q4_0, 0},
	{2, {16, 2}, Q8_0, 0},          /* 32 elements, but not in one row */
	{1, {17}, F32, 0},
	{1, {4}, F32, 64},
	{1, {4}, F32, UINT64_MAX - 31}, /* offset + size wraps */
	{1, {4}, F32, 4},
	{1, {4}, 19, 0},
	{1, {4}, 12345, 0},
};
/* clang-format on */

static void broken_shape(bytes *b, int k)
{
	one_tensor(b, shapes[k].n_dims, shapes[k].ne, shapes[k].type, shapes[k].off);
}

static void broken_tensor(bytes *b, int k)
{
	switch (k) {
	case 14:
		gguf_head(b, 3, 1, 0), gguf_text(b, "w"), bytes_u32(b, 0x80000000), bytes_fill(b, 64);
		break;
	case 15:
		two_tensors(b, "same", "same", 64);
		break;
	case 16:
		two_tensors(b, "x", "y", 32);
		break;
	case 17:
		two_tensors(b, "x", "y", 0);
		break;
	case 18:
		aligned_by(b, 0);
		break;
	case 19:
		aligned_by(b, 48);
		break;
	case 20:
		aligned_by(b, 1);
		break;
	case 21:
		aligned_by(b, 0x80000000);
		break;
	case 22:
		gguf_head(b, 3, 1, 0), gguf_tensor(b, "w", 1, ne_4, F32, 0);
		break;
	case 23:
		one_tensor(b, 0, NULL, Q8_0, 0);
		break;
	case 24:
		gguf_head(b, 3, 1, 0), bytes_u64(b, 0), bytes_fill(b, 64);
		break;
	}
}

static const struct {
	void (*make)(bytes *b, int k);
	int k;
	const char *says;
} broken[] = {
	{broken_header, 0, "is not a GGUF file"},
	{broken_header, 1, "is not a GGUF file"},
	{broken_header, 2, "is GGUF version 1; versions 2 and 3 can be read"},
	{broken_header, 3, "is GGUF version 4"},
	{broken_header, 4, "is a big-endian GGUF"},
	{broken_header, 5, "18446744073709551615 tensors, which 0 bytes cannot hold"},
	{broken_header, 6, "tensors, which 0 bytes cannot hold"},
	{broken_header, 7, "18446744073709551615 metadata entries, which 0 bytes cannot hold"},
	{broken_header, 8, "metadata entries, which 0 bytes cannot hold"},
	{broken_header, 9, "4294967296 metadata entries"},
	{broken_header, 10, "is GGUF version 0"},
	{broken_metadata, 0, "ends inside metadata entry 0: it needs 18446744073709551615 bytes more"},
	{broken_metadata, 1, "ends inside metadata entry 0"},
	{broken_metadata, 2, "ends inside metadata entry 's': it needs 9223372036854775807 bytes more"},
	{broken_metadata, 3, "metadata key 't' has unknown type 13"},
	{broken_metadata, 4, "'a' has an array of an unknown type"},
	{broken_metadata, 5, "'a' has an array whose size wraps"},
	{broken_metadata, 6, "ends inside metadata entry 'a'"},
	{broken_metadata, 7, "metadata key 'twice' is there twice, with different values"},
	{broken_metadata, 8, "'flag' holds a bool that is neither 0 nor 1"},
	{broken_metadata, 9, "metadata entry 0 has an empty name"},
	{broken_metadata, 10, "metadata entry 0 has a NUL byte in its name"},
	{broken_metadata, 11, "'a' has an array whose size wraps"},
	{broken_metadata, 12, "'flags' holds a bool that is neither 0 nor 1"},
	{broken_metadata, 13, "ends inside metadata entry 'a'"},
	{broken_metadata, 14, "'deep' nests arrays deeper than 4"},
	{broken_metadata, 15, "'deep' nests arrays deeper than 4"},
	{broken_metadata, 16, "'general.alignment' has type string, must be an integer"},
	{broken_shape, 0, "tensor 'w' has dim 1 = 0, must be positive"},
	{broken_shape, 1, "tensor 'w' has dim 0 = -4, must be positive"},
	{broken_shape, 2, "tensor 'w' says it has 5 dims, more than 4"},
	{broken_shape, 3, "tensor 'w' has a shape whose product wraps"},
	{broken_shape, 4, "tensor 'w' has a shape whose product wraps"},
	{broken_shape, 5, "tensor 'w' has a size in bytes that wraps"},
	{broken_shape, 6,
		"tensor 'w' has rows of 33 elements, not a multiple of the 32 in a block of q4_0"},
	{broken_shape, 7, "tensor 'w' has rows of 16 elements"},
	{broken_shape, 8, "tensor 'w' has 68 bytes at offset 0, but the data area has 64"},
	{broken_shape, 9, "tensor 'w' has 16 bytes at offset 64, but the data area has 64"},
	{broken_shape, 10, "at offset 18446744073709551584, but the data area has 64"},
	{broken_shape, 11, "tensor 'w' begins at offset 4, not a multiple of 32"},
	{broken_shape, 12, "tensor 'w' has type 19 (IQ1_S), which is not supported"},
	{broken_shape, 13, "tensor 'w' has type 12345 (an unknown type), which is not supported"},
	{broken_tensor, 14, "tensor 'w' says it has 2147483648 dims"},
	{broken_tensor, 15, "tensor 'same' is there twice"},
	{broken_tensor, 16, "tensors 'x' and 'y' overlap"},
	{broken_tensor, 17, "overlap"},
	{broken_tensor, 18, "general.alignment is 0, must be a power of two"},
	{broken_tensor, 19, "general.alignment is 48, must be a power of two"},
	{broken_tensor, 20, "general.alignment is 1, must be a power of two from 8 up"},
	{broken_tensor, 21, "before its tensor data"},
	{broken_tensor, 22, "before its tensor data"},
	{broken_tensor, 23, "tensor 'w' has rows of 1 elements"},
	{broken_tensor, 24, "tensor 0 has an empty name"},
};

static void test_broken(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
		bytes b = {0};
		cx_err err = {0};
		char name[32];
		cx_gguf *g;
		broken[i].make(&b, broken[i].k);
		assert_int_not_equal(open_bytes(NULL, &b, &g, &err), CX_OK);
		assert_null(g);
		check_sentence(&err);
		if (!strstr(err.msg, broken[i].says)) fail_msg("case %zu: '%s'", i, err.msg);
		snprintf(name, sizeof name, "broken-%02zu", i);
		fuzz_seed("fuzz_gguf", name, &b);
		bytes_free(&b);
	}
}

/* Cut anywhere, a file is refused; the message says so and nothing is touched that is not there. */
static void test_truncated(void **state)
{
	bytes b = gguf_good();
	(void)state;
	for (size_t n = 0; n < b.n; n++) {
		bytes cut = {b.p, n, n};
		cx_err err = {0};
		cx_gguf *g;
		assert_int_not_equal(open_bytes(NULL, &cut, &g, &err), CX_OK);
		assert_null(g);
		check_sentence(&err);
	}
	fuzz_seed("fuzz_gguf", "good", &b);
	bytes_free(&b);
}

/* Any one byte changed: refused, or read without leaving the file. */
static void test_changed(void **state)
{
	static const unsigned char with[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
	bytes b = gguf_good();
	int n_open = 0, n_refused = 0;
	(void)state;
	for (size_t i = 0; i < b.n; i++) {
		unsigned char was = b.p[i];
		for (size_t k = 0; k < sizeof with; k++) {
			cx_err err = {0};
			cx_gguf *g;
			b.p[i] = with[k];
			if (open_bytes(NULL, &b, &g, &err) == CX_OK) {
				(void)gguf_walk(g);
				n_open++;
			} else {
				check_sentence(&err);
				n_refused++;
			}
			cx_gguf_close(g);
		}
		b.p[i] = was;
	}
	assert_true(n_open > 1000 && n_refused > 1000); /* the data and most text may change freely */
	bytes_free(&b);
}

static void test_allocations(void **state)
{
	bytes b = gguf_good();
	long n;
	(void)state;
	for (n = 0;; n++) {
		cx_fault fault = {.countdown = n};
		cx_alloc a = cx_alloc_fault(&fault);
		cx_err err = {0};
		cx_gguf *g;
		cx_status st = open_bytes(&a, &b, &g, &err);
		assert_int_equal(st, fault.fired ? CX_ERR_MEMORY : CX_OK);
		assert_true((g != NULL) == (st == CX_OK));
		cx_gguf_close(g);
		assert_int_equal(fault.n_live, 0);
		if (!fault.fired) break;
	}
	assert_true(n >= 4);
	bytes_free(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_broken),
		cmocka_unit_test(test_truncated),
		cmocka_unit_test(test_changed),
		cmocka_unit_test(test_allocations),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
