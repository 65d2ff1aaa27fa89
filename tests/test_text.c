/* test_text.c - tokenizers on real vocabularies: the expected ids of every fixture, the same
 * vocabularies through tokenizer.json, round trips, streaming, and time on long pieces.
 * (test_text_rules.c needs no fixtures; test_text_bad.c is about broken input.) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "models/text/text_impl.h"
#include "tests/text_make.h"

#define QWEN_SPLIT                                                                                 \
	"{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":"        \
	"\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}|"             \
	" ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},"      \
	"\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_space\":"    \
	"false,\"trim_offsets\":false,\"use_regex\":false}]}"
#define GPT2_SPLIT "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true}"

static const char *const names[] = {"bert-bge", "gpt-2", "llama-spm", "stories260K", "qwen2"};
enum { N_NAMES = sizeof names / sizeof names[0] };

/* The file of a vocabulary, and the 46 and the 53 strings with their ids; NULL: no such fixture. */
static const char *vocab_path(const char *name)
{
	char path[128];
	if (strcmp(name, "qwen2") == 0) return fixture("tokenizer/qwen2/qwen.tiktoken");
	if (strcmp(name, "stories260K") == 0) return fixture("llm/stories260K/stories260K.gguf");
	snprintf(path, sizeof path, "tokenizer/ggml-vocab-%s.gguf", name);
	return fixture(path);
}

static cx_tokenizer *open_vocab(const char *name)
{
	const char *path = vocab_path(name);
	if (!path) return NULL;
	return strcmp(name, "qwen2") == 0 ? tok_from_tiktoken(path, name) : tok_from_gguf(path);
}

/* Both sets of strings that there are for a vocabulary: false if one does not match. */
static bool matches(const cx_tokenizer *tok, const char *name, const char *how)
{
	bool qwen = strcmp(name, "qwen2") == 0, good = true;
	char path[2][128], *folder = qwen ? "tokenizer/qwen2/" : "tokenizer/";
	size_t total, n;
	printf("  # %s %s:", name, how);
	if (strcmp(name, "stories260K") != 0) { /* which has no .inp of its own */
		snprintf(path[0], sizeof path[0], "%sggml-vocab-%s.gguf.inp", folder, name);
		snprintf(path[1], sizeof path[1], "%sggml-vocab-%s.gguf.out", folder, name);
		n = count_matches(tok, fixture(path[0]), fixture(path[1]), &total);
		printf(" %zu of %zu upstream strings,", n, total);
		good &= n == total && total == 46;
	}
	snprintf(path[0], sizeof path[0], "%sstrings_a.%s.out", folder, name);
	n = count_matches(tok, fixture("tokenizer/strings_a.inp"), fixture(path[0]), &total);
	printf(" %zu of %zu strings_a\n", n, total);
	return good && n == total && total == 53;
}

static void test_fixture_ids(void **state)
{
	(void)state;
	for (int i = 0; i < N_NAMES; i++) {
		cx_tokenizer *tok;
		if (!vocab_path(names[i])) skip();
		tok = open_vocab(names[i]);
		assert_non_null(tok);
		assert_true(matches(tok, names[i], "as supplied"));
		cx_tokenizer_free(tok);
	}
}

/* ---- the same through tokenizer.json ---- */

static void check_json(json_t *root, const char *name)
{
	cx_tokenizer *tok = tok_from_json(root);
	json_decref(root);
	assert_non_null(tok);
	assert_true(matches(tok, name, "as tokenizer.json"));
	cx_tokenizer_free(tok);
}

static void test_json_gpt2(void **state)
{
	(void)state;
	if (!vocab_path("gpt-2")) skip();
	check_json(json_of_gpt2(vocab_path("gpt-2"), NULL, GPT2_SPLIT), "gpt-2");
}

/* One merge per token, recovered from the ranks; then with NFC, as Qwen2 has it. */
static void test_json_qwen(void **state)
{
	static const char plain[] = "caf\xC3\xA9 \xEA\xB0\x80",
					  apart[] = "cafe\xCC\x81 \xE1\x84\x80\xE1\x85\xA1";
	cx_tokenizer *ranked, *tok;
	json_t *root;
	char *a, *b;
	(void)state;
	if (!vocab_path("qwen2")) skip();
	ranked = open_vocab("qwen2");
	assert_non_null(ranked);
	root = json_of_ranks(ranked, NULL, QWEN_SPLIT);
	a = ids_of_text(ranked, apart, 0);
	b = ids_of_text(ranked, plain, 0);
	assert_string_not_equal(a, b); /* a ranked table normalises nothing */
	free(a);
	json_object_set_new(root, "normalizer", json_pack("{s:s}", "type", "NFC"));
	tok = tok_from_json(root);
	assert_non_null(tok);
	a = ids_of_text(tok, apart, 0);
	assert_string_equal(a, b);
	free(a);
	a = ids_of_text(tok, plain, 0);
	assert_string_equal(a, b);
	free(a);
	free(b);
	a = ids_of_text(tok, "Hello, world!", 0); /* spec/llm.md 4.9 */
	assert_string_equal(a, " 9707 11 1879 0");
	free(a);
	cx_tokenizer_free(tok);
	json_object_set_new(root, "normalizer", json_null());
	check_json(root, "qwen2");
	cx_tokenizer_free(ranked);
}

static void test_json_spm(void **state)
{
	(void)state;
	if (!vocab_path("llama-spm") || !vocab_path("stories260K")) skip();
	check_json(json_of_spm(vocab_path("stories260K")), "stories260K");
	check_json(json_of_spm(vocab_path("llama-spm")), "llama-spm");
}

/* The 46 come from the original implementation, so tokenizer.json must give them. In strings_a,
 * from llama.cpp, three differ: Hangul, Devanagari and stacked accents, which llama.cpp folds in
 * its own way; our GGUF loader follows it there. */
static void test_json_bert(void **state)
{
	const char *inp = fixture("tokenizer/ggml-vocab-bert-bge.gguf.inp"),
			   *path = vocab_path("bert-bge");
	json_t *root;
	cx_tokenizer *tok, *folded;
	size_t total;
	char *a, *b;
	(void)state;
	if (!path || !inp) skip();
	root = json_of_bert(path);
	tok = tok_from_json(root);
	json_decref(root);
	folded = tok_from_gguf(path);
	assert_non_null(tok);
	assert_non_null(folded);
	assert_int_equal(
		count_matches(tok, inp, fixture("tokenizer/ggml-vocab-bert-bge.gguf.out"), &total), 46);
	printf("  # bert-bge as tokenizer.json: 46 of %zu upstream strings\n", total);
	/* a mark of its own is dropped by BERT, and makes the word unknown in llama.cpp */
	a = ids_of_text(tok, "a\xCC\xA4lgo", 0);
	b = ids_of_text(tok, "algo", 0);
	assert_string_equal(a, b);
	free(b);
	b = ids_of_text(folded, "a\xCC\xA4lgo", 0);
	assert_string_not_equal(a, b);
	free(a);
	free(b);
	cx_tokenizer_free(tok);
	cx_tokenizer_free(folded);
}

/* ---- round trips and streams ---- */

static void round_trip(void *ctx, size_t i, const char *s, size_t n)
{
	const cx_tokenizer *tok = ctx;
	cx_ids ids = {0};
	(void)i;
	assert_int_equal(cx_tokenizer_encode(tok, s, n, 0, &ids, NULL), CX_OK);
	assert_true(decodes_to(tok, &ids, 0, s, n));
	cx_ids_deinit(&ids);
}

static void test_round_trip(void **state)
{
	static const char *const which[] = {"gpt-2", "qwen2", "llama-spm", "stories260K"};
	(void)state;
	for (int i = 0; i < 4; i++) {
		cx_tokenizer *tok;
		uint32_t seed = 7;
		if (!vocab_path(which[i])) skip();
		tok = open_vocab(which[i]);
		assert_non_null(tok);
		each_string(fixture("tokenizer/ggml-vocab-gpt-2.gguf.inp"), round_trip, tok);
		each_string(fixture("tokenizer/strings_a.inp"), round_trip, tok);
		for (int k = 0; k < 300; k++) { /* any code points at all, NUL and unassigned ones too */
			char text[160];
			size_t n = 0;
			while (n < 150) {
				uint32_t cp;
				seed = seed * 1664525u + 1013904223u;
				cp = (seed >> 8) % (seed & 64 ? 0x300 : seed & 128 ? 0x10000 : 0x110000);
				if (cp >= 0xD800 && cp < 0xE000) continue;
				if (n == 0 && i >= 2 && cp == ' ') continue; /* SPM drops the first space again */
				n += cx__utf8_put(text + n, cp);
				if (seed % 17 == 0) break;
			}
			round_trip(tok, 0, text, n);
		}
		cx_tokenizer_free(tok);
	}
}

/* What a stream shows is, at every moment, whole characters, and in the end what the bytes of the
 * tokens, put together, are as UTF-8 with U+FFFD for what is not. */
static void check_stream(const cx_tokenizer *tok, const int32_t *ids, size_t n)
{
	cx_text all = {0}, want = {0}, got = {0}, whole = {0};
	cx_detok d;
	cx_detok_init(&d, tok, CX_DECODE_CONTINUATION | CX_DECODE_SPECIAL);
	for (size_t i = 0; i < n; i++) {
		cx_span b = cx_tokenizer_token_bytes(tok, ids[i]);
		assert_int_equal(cx_text_append(&all, b.ptr, b.len, NULL), CX_OK);
		assert_int_equal(cx_detok_push(&d, ids[i], &got, NULL), CX_OK);
		assert_true(got.n == 0 || cx__utf8_valid(got.v, got.n));
		assert_true(d.n_tail <= 3);
	}
	assert_int_equal(cx_detok_flush(&d, &got, NULL), CX_OK);
	assert_int_equal(cx__utf8_repair(all.n ? all.v : "", all.n, &want, NULL), CX_OK);
	assert_int_equal(
		cx_tokenizer_decode(tok, ids, n, CX_DECODE_CONTINUATION | CX_DECODE_SPECIAL, &whole, NULL),
		CX_OK);
	assert_int_equal(got.n, want.n);
	assert_int_equal(whole.n, want.n);
	assert_true(want.n == 0 || memcmp(got.v, want.v, want.n) == 0);
	assert_true(want.n == 0 || memcmp(whole.v, want.v, want.n) == 0);
	cx_text_deinit(&all);
	cx_text_deinit(&want);
	cx_text_deinit(&got);
	cx_text_deinit(&whole);
}

static void stream_one(void *ctx, size_t i, const char *s, size_t n)
{
	const cx_tokenizer *tok = ctx;
	cx_ids ids = {0};
	(void)i;
	assert_int_equal(cx_tokenizer_encode(tok, s, n, 0, &ids, NULL), CX_OK);
	for (size_t from = 0; from <= ids.n; from++) check_stream(tok, ids.v + from, ids.n - from);
	cx_ids_deinit(&ids);
}

static void test_stream(void **state)
{
	(void)state;
	for (int i = 0; i < N_NAMES; i++) {
		cx_tokenizer *tok;
		uint32_t seed = 11;
		if (!vocab_path(names[i])) skip();
		tok = open_vocab(names[i]);
		assert_non_null(tok);
		each_string(fixture("tokenizer/strings_a.inp"), stream_one, tok);
		for (int k = 0; k < 500; k++) { /* random tokens: halves of characters everywhere */
			int32_t ids[24];
			size_t n = 0;
			while (n < 24) {
				seed = seed * 1664525u + 1013904223u;
				ids[n++] = (int32_t)((seed >> 7) % (seed & 1 ? 300 : cx_tokenizer_n_tokens(tok)));
			}
			check_stream(tok, ids, n);
		}
		cx_tokenizer_free(tok);
	}
}

/* ---- special tokens ---- */

static void test_special(void **state)
{
	cx_tokenizer *tok;
	size_t n;
	char *s;
	(void)state;
	if (!vocab_path("gpt-2") || !vocab_path("llama-spm") || !vocab_path("bert-bge")) skip();
	tok = open_vocab("gpt-2");
	s = ids_of_text(tok, "hi<|endoftext|>", CX_ENCODE_PARSE_SPECIAL);
	assert_string_equal(s, " 5303 50256");
	free(s);
	s = ids_of_text(tok, "hi<|endoftext|>", 0);
	assert_null(strstr(s, "50256"));
	free(s);
	assert_int_equal(cx_tokenizer_special(tok)->eos, 50256);
	assert_true(cx_tokenizer_is_stop(tok, 50256));
	assert_false(cx_tokenizer_is_stop(tok, 5303));
	assert_int_equal(*cx_tokenizer_stop_ids(tok, &n), 50256);
	assert_int_equal(n, 1);
	assert_false(cx_tokenizer_adds_bos(tok));
	cx_tokenizer_free(tok);
	tok = open_vocab("llama-spm");
	s = ids_of_text(tok, "Hello", CX_ENCODE_ADD_SPECIAL);
	assert_string_equal(s, " 1 15043");
	free(s);
	s = ids_of_text(tok, "Hello</s>Hello", CX_ENCODE_PARSE_SPECIAL);
	assert_string_equal(s, " 15043 2 15043"); /* the space comes back after a special token */
	free(s);
	assert_true(cx_tokenizer_adds_bos(tok));
	assert_int_equal(cx_tokenizer_find(tok, "\xE2\x96\x81Hello", 8), 15043);
	cx_tokenizer_free(tok);
	tok = open_vocab("bert-bge");
	s = ids_of_text(tok, "hello", CX_ENCODE_ADD_SPECIAL);
	assert_string_equal(s, " 101 7592 102");
	free(s);
	cx_tokenizer_free(tok);
}

/* ---- time ---- */

static double ms_to_encode(const cx_tokenizer *tok, const char *unit, size_t total)
{
	size_t k = strlen(unit), n = total / k * k;
	char *text = malloc(n);
	cx_ids ids = {0};
	struct timespec a, b;
	assert_non_null(text);
	for (size_t i = 0; i < n; i++) text[i] = unit[i % k];
	clock_gettime(CLOCK_MONOTONIC, &a);
	assert_int_equal(cx_tokenizer_encode(tok, text, n, 0, &ids, NULL), CX_OK);
	clock_gettime(CLOCK_MONOTONIC, &b);
	assert_true(decodes_to(tok, &ids, 0, text, n));
	cx_ids_deinit(&ids);
	free(text);
	return (double)(b.tv_sec - a.tv_sec) * 1e3 + (double)(b.tv_nsec - a.tv_nsec) / 1e6;
}

/* 100 kB that no pattern cuts. Quadratic merging would take minutes; the limit leaves room for a
 * sanitizer on a busy machine. */
static void test_long_pieces(void **state)
{
	static const char *const units[] = {"abcdefghijklmnopqrstuvwxyz", "a", "\xC3\xA9", "!?", "\n"};
	(void)state;
	for (int i = 1; i < N_NAMES; i++) {
		cx_tokenizer *tok;
		if (!vocab_path(names[i])) skip();
		tok = open_vocab(names[i]);
		assert_non_null(tok);
		printf("  # 100 kB in one piece, %s:", names[i]);
		for (size_t k = 0; k < sizeof units / sizeof units[0]; k++) {
			double ms = ms_to_encode(tok, units[k], 100000);
			printf(" %.1f", ms);
			assert_true(ms < 3000.0);
		}
		printf(" ms; 1 MB of words: %.0f ms\n",
			ms_to_encode(tok, "The quick brown fox, 42 times. ", 1000000));
		cx_tokenizer_free(tok);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fixture_ids),
		cmocka_unit_test(test_json_gpt2),
		cmocka_unit_test(test_json_qwen),
		cmocka_unit_test(test_json_spm),
		cmocka_unit_test(test_json_bert),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_stream),
		cmocka_unit_test(test_special),
		cmocka_unit_test(test_long_pieces),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
