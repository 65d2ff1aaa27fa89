/* test_text_rules.c - the rules of tokenizing on vocabularies that the test makes: split patterns
 * against a hand scanner, merging against a quadratic oracle, normal forms, GGUF keys. Needs no
 * fixtures. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <utf8proc.h>

#include "models/text/text_impl.h"
#include "tests/text_make.h"

/* ---- the pieces of a text, joined by "|" ---- */

static cx_tokenizer *byte_tokenizer(const cx_split_step *split, uint32_t n_split)
{
	static char bytes256[256];
	static cx_span tokens[256];
	cx_vocab_desc d = {.model = CX_VOCAB_MERGES,
		.alphabet = CX_ALPHABET_RAW,
		.n_tokens = 256,
		.tokens = tokens,
		.n_split = n_split,
		.split = split,
		.special = CX_SPECIAL_IDS_NONE};
	cx_tokenizer *tok = NULL;
	for (int b = 0; b < 256; b++) {
		bytes256[b] = (char)b;
		tokens[b] = (cx_span){&bytes256[b], 1};
	}
	assert_int_equal(cx_tokenizer_create(&d, NULL, &tok, NULL), CX_OK);
	return tok;
}

static cx_tokenizer *splitter(const char *pre_name)
{
	cx_split_step steps[4];
	cx_pre pre;
	assert_true(cx_pre_find(pre_name, strlen(pre_name), &pre));
	return byte_tokenizer(steps, cx__pre_steps(&pre, steps));
}

static void check_cut(const cx_tokenizer *tok, const char *text, const char *want)
{
	cx_text got = {0};
	cut(tok, text, strlen(text), '|', &got);
	assert_string_equal(got.v, want);
	cx_text_deinit(&got);
}

#define NAMASTE "\xE0\xA4\xA8\xE0\xA4\xAE\xE0\xA4\xB8\xE0\xA5\x8D\xE0\xA4\xA4\xE0\xA5\x87"

/* spec/llm.md 4.3, the worked splits. */
static void test_split_vectors(void **state)
{
	static const struct {
		const char *pre, *text, *want;
	} cases[] = {
		{"llama-bpe", "I'LL pay $1234.50\n\n  now", "I|'LL| pay| $|123|4|.|50|\n\n| | now"},
		{"qwen2", "I'LL pay $1234.50\n\n  now", "I|'LL| pay| $|1|2|3|4|.|5|0|\n\n| | now"},
		{"gpt-2", "I'LL pay $1234.50\n\n  now", "I|'|LL| pay| $|1234|.|50|\n\n | now"},
		{"llama-bpe", "foo_bar\r\n\r\n", "foo|_bar|\r\n\r\n"},
		{"qwen2", "foo_bar\r\n\r\n", "foo|_bar|\r\n\r\n"},
		{"gpt-2", "foo_bar\r\n\r\n", "foo|_|bar|\r\n\r\n"}, {"gpt-2", "x  y   ", "x| | y|   "},
		{"llama-bpe", "x  y   ", "x| | y|   "}, {"qwen2", "x  y   ", "x| | y|   "},
		{"qwen35", "x  y   ", "x| | y|   "}, {"qwen35", "a " NAMASTE, "a| " NAMASTE},
		{"qwen2", "a " NAMASTE,
			"a| \xE0\xA4\xA8\xE0\xA4\xAE\xE0\xA4\xB8|\xE0\xA5\x8D\xE0\xA4\xA4|\xE0\xA5\x87"},
		{"smaug-bpe", "12345", "123|45"}, {"starcoder", "a 12b", "a| |1|2|b"},
		{"falcon", "a$$b 12345", "a|$$|b| |123|45"}, {"default", "it's 12345", "it|'|s| |123|45"},
		{"gpt-2", "", ""}, {"llama-bpe", "\xC5\xBF 'ſ", "\xC5\xBF| '|ſ"},
		{"llama-bpe", "he'\xC5\xBF", "he|'\xC5\xBF"}, /* U+017F folds to s */
		{"gpt-2",
			"a\xE1\xA0\x8E"
			"b",
			"a|\xE1\xA0\x8E|b"}, /* U+180E is no whitespace */
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		cx_tokenizer *tok = splitter(cases[i].pre);
		check_cut(tok, cases[i].text, cases[i].want);
		cx_tokenizer_free(tok);
	}
}

/* ---- the hand scanner of spec/llm.md 4.3, on code points ---- */

typedef struct scan {
	const uint32_t *s;
	size_t n;
	bool gpt2, marks; /* marks count as letters */
	size_t max_digits;
} scan;

static int class_of(uint32_t cp) /* 'L' 'M' 'N' 'S'pace or 'P' for the rest */
{
	utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
	if (cx__utf8_white(cp)) return 'S';
	if (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO) return 'L';
	if (c >= UTF8PROC_CATEGORY_MN && c <= UTF8PROC_CATEGORY_ME) return 'M';
	if (c >= UTF8PROC_CATEGORY_ND && c <= UTF8PROC_CATEGORY_NO) return 'N';
	return 'P';
}

static bool is_w(const scan *z, size_t i)
{
	int c = i < z->n ? class_of(z->s[i]) : 0;
	return c == 'L' || (c == 'M' && z->marks);
}
static bool is_n(const scan *z, size_t i)
{
	return i < z->n && class_of(z->s[i]) == 'N';
}
static bool is_space(const scan *z, size_t i)
{
	return i < z->n && class_of(z->s[i]) == 'S';
}
static bool is_line(const scan *z, size_t i)
{
	return i < z->n && (z->s[i] == '\r' || z->s[i] == '\n');
}
static bool is_p(const scan *z, size_t i)
{
	return i < z->n && !is_w(z, i) && !is_n(z, i) && !is_space(z, i);
}

static uint32_t fold(const scan *z, size_t i)
{
	uint32_t c = i < z->n ? z->s[i] : 0;
	if (z->gpt2) return c;
	return c >= 'A' && c <= 'Z' ? c + 32 : c == 0x17F ? 's' : c;
}

static size_t contraction(const scan *z, size_t i)
{
	uint32_t a, b;
	if (z->s[i] != '\'') return 0;
	a = fold(z, i + 1);
	b = fold(z, i + 2);
	if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
	if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return 3;
	return 0;
}

static size_t white_run(const scan *z, size_t i)
{
	size_t e = i, last = 0;
	while (is_space(z, e)) {
		if (is_line(z, e)) last = e + 1;
		e++;
	}
	if (!z->gpt2 && last) return last - i;
	return e == z->n || e - i == 1 ? e - i : e - i - 1;
}

static size_t next_piece(const scan *z, size_t i)
{
	size_t e = i, k = contraction(z, i);
	if (k) return k;
	if (z->gpt2) {
		if (z->s[i] == ' ' && is_w(z, i + 1)) e++;
	} else if (!is_line(z, i) && class_of(z->s[i]) != 'L' && !is_n(z, i) && is_w(z, i + 1)) {
		e++;
	}
	if (is_w(z, e)) {
		while (is_w(z, e)) e++;
		return e - i;
	}
	e = i + (z->gpt2 && z->s[i] == ' ' && is_n(z, i + 1));
	if (is_n(z, e)) {
		size_t from = e;
		while (is_n(z, e) && e - from < z->max_digits) e++;
		return e - i;
	}
	e = i + (z->s[i] == ' ' && is_p(z, i + 1));
	if (is_p(z, e)) {
		while (is_p(z, e)) e++;
		while (!z->gpt2 && is_line(z, e)) e++;
		return e - i;
	}
	return white_run(z, i);
}

static void test_split_scanner(void **state)
{
	static const uint32_t pool[] = {' ', ' ', ' ', '\n', '\r', '\t', '\'', '\'', 's', 'T', 'l', 'L',
		'r', 'e', 'v', 'M', 'd', 'a', 'Z', '1', '2', '9', '.', ',', '$', '_', '-', 0xA0, 0x85,
		0x3000, 0x2028, 0xE9, 0x17F, 0x301, 0x94D, 0x93F, 0x4E2D, 0x660, 0xBD, 0x2167, 0x1F600,
		0x180E, 0x200B, 0x200D, 0};
	static const struct {
		const char *pre;
		bool gpt2, marks;
		size_t digits;
	} kinds[] = {
		{"gpt-2", true, false, SIZE_MAX},
		{"llama-bpe", false, false, 3},
		{"qwen2", false, false, 1},
		{"qwen35", false, true, 1},
	};
	uint32_t seed = 3;
	(void)state;
	for (int k = 0; k < 4; k++) {
		cx_tokenizer *tok = splitter(kinds[k].pre);
		for (int round = 0; round < 6000; round++) {
			uint32_t cps[16];
			char text[64];
			scan z = {cps, 0, kinds[k].gpt2, kinds[k].marks, kinds[k].digits};
			cx_text got = {0}, want = {0};
			size_t n = 0;
			seed = seed * 1664525u + 1013904223u;
			for (size_t len = 1 + (seed >> 10) % 15; z.n < len; z.n++) {
				seed = seed * 1664525u + 1013904223u;
				cps[z.n] = pool[(seed >> 9) % (sizeof pool / sizeof pool[0])];
				n += cx__utf8_put(text + n, cps[z.n]);
			}
			cut(tok, text, n, '\x01', &got);
			for (size_t i = 0, len; i < z.n; i += len) {
				char buf[4];
				len = next_piece(&z, i);
				if (i) assert_int_equal(cx_text_append(&want, "\x01", 1, NULL), CX_OK);
				for (size_t j = i; j < i + len; j++)
					assert_int_equal(
						cx_text_append(&want, buf, cx__utf8_put(buf, cps[j]), NULL), CX_OK);
			}
			assert_int_equal(got.n, want.n);
			assert_memory_equal(got.v, want.v, want.n);
			cx_text_deinit(&got);
			cx_text_deinit(&want);
		}
		cx_tokenizer_free(tok);
	}
	printf("  # split patterns against the hand scanner: 4 x 6000 random strings\n");
}

/* ---- PCRE2's classes against utf8proc's ---- */

enum { N_CPS = 0x110000 };

/* A piece holds one character or more of the class, and no others. */
static void mark_class(const char *all, size_t n, const char *pattern, unsigned char *set, int bit)
{
	cx_split_step s = {.kind = CX_SPLIT_REGEX,
		.how = CX_SPLIT_REMOVED,
		.invert = true,
		.pattern = {pattern, strlen(pattern)}};
	cx_tokenizer *tok = byte_tokenizer(&s, 1);
	cx_text got = {0};
	cut(tok, all, n, '\x01', &got);
	for (size_t i = 0; i < got.n;) {
		uint32_t cp;
		int k = cx__utf8_step((unsigned char *)got.v + i, got.n - i, &cp);
		assert_true(k > 0);
		if (cp != 1) set[cp] |= (unsigned char)bit;
		i += (size_t)k;
	}
	cx_text_deinit(&got);
	cx_tokenizer_free(tok);
}

/* The two libraries are of different Unicode versions. They may differ only in what one of them
 * does not know yet: everything that both have assigned is of the same class. */
static void test_classes(void **state)
{
	static const struct {
		const char *pattern;
		int bit;
	} classes[] = {{"\\p{L}+", 1}, {"\\p{M}+", 2}, {"\\p{N}+", 4}, {"\\p{Cn}+", 8}, {"\\s+", 16}};
	unsigned char *set = calloc(N_CPS, 1);
	char *all = malloc(4 * (size_t)N_CPS);
	size_t n = 0, newer = 0;
	(void)state;
	assert_true(set && all);
	for (uint32_t cp = 2; cp < N_CPS; cp++)
		if (cp < 0xD800 || cp >= 0xE000) n += cx__utf8_put(all + n, cp);
	for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++)
		mark_class(all, n, classes[i].pattern, set, classes[i].bit);
	for (uint32_t cp = 2; cp < N_CPS; cp++) {
		int c = class_of(cp), want = c == 'L' ? 1 : c == 'M' ? 2 : c == 'N' ? 4 : c == 'S' ? 16 : 0;
		bool unknown = utf8proc_category((utf8proc_int32_t)cp) == UTF8PROC_CATEGORY_CN;
		if (cp >= 0xD800 && cp < 0xE000) continue;
		if ((set[cp] & 8) && !unknown) newer++;
		if ((set[cp] & 8) || unknown) continue;
		if (set[cp] != want) fail_msg("U+%04X: PCRE2 has class %d, utf8proc %d", cp, set[cp], want);
	}
	printf("  # classes agree on every code point; %zu are newer than PCRE2's Unicode\n", newer);
	free(set);
	free(all);
}

/* ---- merging against the definition ---- */

/* Merges the lowest rank, leftmost, until none is left; over an array that is moved each time. */
static size_t slow_merge(
	const cx_vocab_desc *d, const cx_tokenizer *tok, const char *s, size_t n, int32_t *ids)
{
	size_t off[64], m = n;
	for (size_t i = 0; i < n; i++) off[i] = i;
	off[n] = n;
	for (;;) {
		size_t at = SIZE_MAX;
		double best = 1e300;
		for (size_t i = 0; i + 1 < m; i++) {
			size_t a = off[i], b = off[i + 1], c = off[i + 2];
			double rank = 1e300;
			int32_t id = cx_tokenizer_find(tok, s + a, c - a);
			if (d->model == CX_VOCAB_SCORES && id >= 0) rank = -(double)d->scores[id];
			if (d->model == CX_VOCAB_IDS && id >= 0) rank = id;
			for (uint32_t k = 0; d->model == CX_VOCAB_MERGES && k < d->n_merges; k++)
				if (d->merges[2 * k].len == b - a &&
					memcmp(d->merges[2 * k].ptr, s + a, b - a) == 0 &&
					d->merges[2 * k + 1].len == c - b &&
					memcmp(d->merges[2 * k + 1].ptr, s + b, c - b) == 0 && rank > k)
					rank = k;
			if (rank < best) {
				best = rank;
				at = i;
			}
		}
		if (at == SIZE_MAX) break;
		memmove(&off[at + 1], &off[at + 2], (m - at - 1) * sizeof *off);
		m--;
	}
	for (size_t i = 0; i < m; i++) ids[i] = cx_tokenizer_find(tok, s + off[i], off[i + 1] - off[i]);
	return m;
}

static void check_merging(cx_vocab_model model, uint32_t seed)
{
	static const char letters[] = "abc";
	char text[40][8];
	cx_span tokens[40], merges[80];
	float scores[40];
	cx_vocab_desc d = {.model = model,
		.alphabet = CX_ALPHABET_RAW,
		.tokens = tokens,
		.scores = scores,
		.merges = merges,
		.special = CX_SPECIAL_IDS_NONE};
	cx_tokenizer *tok = NULL;
	for (; d.n_tokens < 3; d.n_tokens++) tokens[d.n_tokens] = (cx_span){&letters[d.n_tokens], 1};
	for (int tries = 0; tries < 200 && d.n_tokens < 30; tries++) { /* a token is two older ones */
		cx_span l, r, *t = &tokens[d.n_tokens];
		bool known = false;
		seed = seed * 1664525u + 1013904223u;
		l = tokens[(seed >> 8) % d.n_tokens];
		r = tokens[(seed >> 16) % d.n_tokens];
		if (l.len + r.len > 6) continue;
		memcpy(text[d.n_tokens], l.ptr, l.len);
		memcpy(text[d.n_tokens] + l.len, r.ptr, r.len);
		*t = (cx_span){text[d.n_tokens], l.len + r.len};
		for (uint32_t i = 0; i < d.n_tokens; i++)
			known |= tokens[i].len == t->len && memcmp(tokens[i].ptr, t->ptr, t->len) == 0;
		if (known) continue;
		merges[2 * d.n_merges] = l;
		merges[2 * d.n_merges++ + 1] = r;
		d.n_tokens++;
	}
	for (uint32_t i = 0; i < d.n_tokens; i++)
		scores[i] = (float)(int)((i * 7919 + seed) % 11); /* with ties */
	assert_int_equal(cx_tokenizer_create(&d, NULL, &tok, NULL), CX_OK);
	for (int round = 0; round < 200; round++) {
		char s[40];
		int32_t want[40];
		size_t n = 0, m;
		cx_ids got = {0};
		while (n < 40) {
			seed = seed * 1664525u + 1013904223u;
			s[n++] = letters[(seed >> 12) % 3];
			if (seed % 31 == 0) break;
		}
		m = slow_merge(&d, tok, s, n, want);
		assert_int_equal(cx_tokenizer_encode(tok, s, n, 0, &got, NULL), CX_OK);
		assert_int_equal(got.n, m);
		assert_memory_equal(got.v, want, m * sizeof *want);
		cx_ids_deinit(&got);
	}
	cx_tokenizer_free(tok);
}

static void test_merging(void **state)
{
	(void)state;
	for (uint32_t seed = 1; seed <= 40; seed++) {
		check_merging(CX_VOCAB_MERGES, seed);
		check_merging(CX_VOCAB_SCORES, seed);
	}
}

/* ---- the byte alphabet ---- */

static void test_alphabet(void **state)
{
	bool seen[0x144] = {false};
	char all[256], back[512];
	cx_text t = {0};
	(void)state;
	for (int b = 0; b < 256; b++) {
		uint32_t cp = cx__byte_to_cp((unsigned char)b);
		assert_true(cp < 0x144 && !seen[cp]);
		seen[cp] = true;
		assert_int_equal(cx__cp_to_byte(cp), b);
		all[b] = (char)b;
	}
	assert_int_equal(cx__byte_to_cp(' '), 0x120);
	assert_int_equal(cx__byte_to_cp('\n'), 0x10A);
	assert_int_equal(cx__byte_to_cp('\t'), 0x109);
	assert_int_equal(cx__byte_to_cp(0x7F), 0x121);
	assert_int_equal(cx__byte_to_cp(0xA0), 0x142);
	assert_int_equal(cx__byte_to_cp(0xAD), 0x143);
	assert_int_equal(cx__byte_to_cp('A'), 'A');
	assert_int_equal(cx__cp_to_byte(0x144), -1);
	assert_int_equal(cx__cp_to_byte(' '), -1);
	assert_int_equal(cx__alphabet_encode(all, 256, &t, NULL), CX_OK);
	assert_int_equal(cx__alphabet_decode(t.v, t.n, back), 256);
	assert_memory_equal(all, back, 256);
	cx_text_deinit(&t);
}

/* ---- normal forms ---- */

static void normalize(cx_norm_kind kind, const char *in, size_t n, cx_text *out)
{
	cx_tokenizer *tok = byte_tokenizer(NULL, 0);
	cx_norm_step step = {.kind = kind};
	cx_span s = {in, n};
	cx__encoder e;
	cx__encoder_init(&e, tok, 0, NULL, NULL);
	assert_int_equal(cx__normalize(&e, &step, 1, &s), CX_OK);
	out->n = 0;
	assert_int_equal(cx_text_append(out, s.ptr, s.len, NULL), CX_OK);
	cx__encoder_deinit(&e);
	cx_tokenizer_free(tok);
}

/* utf8proc's own whole-string functions are the oracle: same data, another driver (ours reorders
 * marks and walks the text itself). */
static void test_normal_forms(void **state)
{
	static const uint32_t pool[] = {'a', 'e', 0xE9, 0x301, 0x323, 0x327, 0x345, 0x1E9B, 0x1100,
		0x1161, 0x11A8, 0xAC00, 0xAC01, 0x958, 0x2126, 0x212B, 0xFB01, 0x1D160, 0x0F73, 0x3099,
		0x304B, 0x1E0A, 0xFF21, 0x5D0, 0x5B7};
	static const struct {
		cx_norm_kind kind;
		utf8proc_option_t opt;
	} kinds[] = {
		{CX_NORM_NFC, UTF8PROC_STABLE | UTF8PROC_COMPOSE},
		{CX_NORM_NFD, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE},
		{CX_NORM_NFKC, UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT},
		{CX_NORM_NFKD, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT},
	};
	uint32_t seed = 5;
	cx_text got = {0};
	(void)state;
	for (int round = 0; round < 2000; round++) {
		char text[400];
		size_t n = 0, len;
		utf8proc_uint8_t *want = NULL;
		utf8proc_ssize_t m;
		seed = seed * 1664525u + 1013904223u;
		len = round % 10 ? 1 + (seed >> 9) % 12 : 90; /* long ones have long runs of marks */
		for (size_t i = 0; i < len; i++) {
			seed = seed * 1664525u + 1013904223u;
			n += cx__utf8_put(text + n, round % 10
											? pool[(seed >> 9) % (sizeof pool / sizeof pool[0])]
											: pool[3 + (seed >> 9) % 4]);
		}
		for (int k = 0; k < 4; k++) {
			m = utf8proc_map(
				(const utf8proc_uint8_t *)text, (utf8proc_ssize_t)n, &want, kinds[k].opt);
			assert_true(m >= 0);
			normalize(kinds[k].kind, text, n, &got);
			assert_int_equal(got.n, m);
			assert_memory_equal(got.v, want, (size_t)m);
			free(want);
		}
	}
	normalize(CX_NORM_LOWER, "\xC4\xB0\xC3\x89", 4, &got); /* I with dot is two characters */
	assert_string_equal(got.v, "i\xCC\x87\xC3\xA9");
	normalize(CX_NORM_BERT_CLEAN, "a\0b\tc\xEF\xBF\xBD\xE2\x80\x8B", 10 + 1, &got);
	assert_string_equal(got.v, "ab c");
	cx_text_deinit(&got);
}

/* Many marks in the worst order must not take quadratic time. */
static void test_many_marks(void **state)
{
	enum { N = 300000 };
	char *s = malloc(1 + 2 * N);
	cx_text got = {0};
	(void)state;
	assert_non_null(s);
	s[0] = 'a';
	for (int i = 0; i < N; i++) cx__utf8_put(s + 1 + 2 * i, i % 2 ? 0x323 : 0x301);
	normalize(CX_NORM_NFD, s, 1 + 2 * N, &got);
	assert_int_equal(got.n, 1 + 2 * N);
	assert_memory_equal(got.v + 1, "\xCC\xA3\xCC\xA3", 4); /* class 220 before 230 */
	assert_memory_equal(got.v + 2 * N - 1, "\xCC\x81", 2);
	cx_text_deinit(&got);
	free(s);
}

static void check_ids(const cx_tokenizer *tok, const char *text, unsigned flags, const char *want)
{
	char *got = ids_of_text(tok, text, flags);
	assert_string_equal(got, want);
	free(got);
}

/* ---- GGUF ---- */

static void test_gguf_llama3(void **state)
{
	static const char *const tokens[] = {"a", "b", "ab", "<|b|>", "<t>", "ba"};
	static const int32_t types[] = {1, 1, 1, 3, 4, 1};
	bytes b = {0};
	cx_file_map *map = NULL;
	cx_gguf *g = NULL;
	cx_tokenizer *tok = NULL;
	(void)state;
	gguf_head(&b, 3, 0, 7);
	gguf_key_text(&b, "general.architecture", "llama");
	gguf_key_text(&b, "tokenizer.ggml.model", "gpt2");
	gguf_key_text(&b, "tokenizer.ggml.pre", "llama-bpe");
	gguf_key_array(&b, "tokenizer.ggml.tokens", CX_GGUF_STRING, 6);
	for (int i = 0; i < 6; i++) gguf_text(&b, tokens[i]);
	gguf_key_array(&b, "tokenizer.ggml.token_type", CX_GGUF_I32, 6);
	for (int i = 0; i < 6; i++) bytes_u32(&b, (uint32_t)types[i]);
	gguf_key_array(&b, "tokenizer.ggml.merges", CX_GGUF_STRING, 1);
	gguf_text(&b, "a b");
	gguf_key_u32(&b, "tokenizer.ggml.bos_token_id", 3);
	assert_int_equal(cx_file_map_copy(NULL, "made.gguf", b.p, b.n, &map, NULL), CX_OK);
	assert_int_equal(cx_gguf_open_map(NULL, map, &g, NULL), CX_OK);
	assert_int_equal(cx_tokenizer_from_gguf(g, NULL, &tok, NULL), CX_OK);
	cx_gguf_close(g); /* the tokenizer keeps nothing of it */
	check_ids(tok, "ab", CX_ENCODE_ADD_SPECIAL, " 3 2");
	check_ids(tok, "ba", 0, " 5"); /* ignore_merges: no merge makes it, but it is a token */
	check_ids(tok, "bab", 0, " 1 2");
	check_ids(tok, "a<t>b<|b|>", CX_ENCODE_PARSE_SPECIAL, " 0 4 1 3");
	check_ids(tok, "a<t>b", 0, " 0 4 1");
	cx_tokenizer_free(tok);
	bytes_free(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_split_vectors),
		cmocka_unit_test(test_split_scanner),
		cmocka_unit_test(test_classes),
		cmocka_unit_test(test_merging),
		cmocka_unit_test(test_alphabet),
		cmocka_unit_test(test_normal_forms),
		cmocka_unit_test(test_many_marks),
		cmocka_unit_test(test_gguf_llama3),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
