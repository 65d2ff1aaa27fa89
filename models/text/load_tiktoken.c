/* load_tiktoken.c - a tokenizer from a tiktoken table: lines of "base64(bytes) rank". */
#include "models/text/text_impl.h"

#include <string.h>

/* Decodes base64 of s[n], padding required as RFC 4648 has it. SIZE_MAX when it is not. dst has
 * room for n bytes. */
static size_t base64_decode(const char *s, size_t n, char *dst)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	size_t m = 0, pad = 0;
	if (n == 0 || n % 4) return SIZE_MAX;
	if (s[n - 1] == '=') pad = s[n - 2] == '=' ? 2 : 1;
	for (size_t i = 0; i < n; i += 4) {
		size_t keep = i + 4 == n ? 4 - pad : 4; /* digits in this group */
		uint32_t v = 0;
		for (size_t k = 0; k < 4; k++) {
			const char *d = k < keep ? memchr(digits, s[i + k], 64) : digits;
			if (!d) return SIZE_MAX;
			v = v << 6 | (uint32_t)(d - digits);
		}
		if (v & (keep == 2 ? 0xFFFFu : keep == 3 ? 0xFFu : 0))
			return SIZE_MAX; /* bits that nobody would see */
		for (size_t k = 0; k + 1 < keep; k++) dst[m++] = (char)(v >> (16 - 8 * k));
	}
	return m;
}

/* The line at *pos: its two fields. */
static bool read_line(cx_span in, size_t *pos, cx_span *word, uint64_t *rank)
{
	const char *s = in.ptr + *pos, *end = memchr(s, '\n', in.len - *pos), *blank;
	size_t n = end ? (size_t)(end - s) : in.len - *pos;
	*pos += n + (end != NULL);
	if (n && s[n - 1] == '\r') n--;
	blank = memchr(s, ' ', n);
	if (!blank || blank == s || blank + 1 == s + n || s + n - blank > 11) return false;
	*word = (cx_span){s, (size_t)(blank - s)};
	*rank = 0;
	for (const char *p = blank + 1; p < s + n; p++) {
		if (*p < '0' || *p > '9') return false;
		*rank = *rank * 10 + (uint64_t)(*p - '0');
	}
	return true;
}

static cx_status load(
	cx_span in, const char *origin, cx_arena *arena, cx_vocab_desc *d, cx_err *err)
{
	uint32_t n_lines = 0, line = 0;
	cx_span *tokens, word = {NULL, 0};
	char *bytes;
	size_t pos = 0, used = 0;
	for (size_t i = 0; i < in.len; i++) n_lines += in.ptr[i] == '\n';
	if (in.len && in.ptr[in.len - 1] != '\n') n_lines++;
	tokens = cx_arena_array(arena, n_lines, sizeof *tokens);
	bytes = cx_arena_alloc(arena, in.len);
	if (!tokens || !bytes) return cx__no_memory(err);
	while (pos < in.len) {
		uint64_t rank = 0;
		size_t n = SIZE_MAX;
		line++;
		if (read_line(in, &pos, &word, &rank)) n = base64_decode(word.ptr, word.len, bytes + used);
		if (n == SIZE_MAX)
			return CX_FAIL(err, CX_ERR_FORMAT, "%s: line %u is not 'base64 rank'", origin, line);
		if (rank >= n_lines || tokens[rank].ptr)
			return CX_FAIL(err, CX_ERR_FORMAT, "%s: line %u: rank %llu %s", origin, line,
				(unsigned long long)rank,
				rank >= n_lines ? "is not below the number of lines" : "comes twice");
		tokens[rank] = (cx_span){bytes + used, n};
		used += n;
	}
	d->tokens = tokens;
	d->n_tokens = n_lines;
	return CX_OK;
}

cx_status cx_tokenizer_from_tiktoken(const void *bytes, size_t n_bytes, const char *pre_name,
	const char *origin, const cx_alloc *alloc, cx_tokenizer **out, cx_err *err)
{
	cx_vocab_desc d = {.origin = origin ? origin : "tiktoken table",
		.model = CX_VOCAB_IDS,
		.alphabet = CX_ALPHABET_RAW,
		.special = CX_SPECIAL_IDS_NONE};
	cx_split_step split[4];
	cx_arena arena;
	cx_pre pre;
	cx_status st;
	*out = NULL;
	if (!cx_pre_find(pre_name, strlen(pre_name), &pre))
		return CX_FAIL(err, CX_ERR_UNSUPPORTED, "%s: '%.40s' is not a pre-tokenizer that we know",
			d.origin, pre_name);
	if (n_bytes > UINT32_MAX)
		return CX_FAIL(err, CX_ERR_FORMAT, "%s: %zu bytes are too many for a tiktoken table",
			d.origin, n_bytes);
	d.n_split = cx__pre_steps(&pre, split);
	d.split = split;
	cx_arena_init(&arena, alloc);
	st = load((cx_span){n_bytes ? bytes : "", n_bytes}, d.origin, &arena, &d, err);
	if (st == CX_OK) st = cx_tokenizer_create(&d, alloc, out, err);
	cx_arena_deinit(&arena);
	return st;
}
