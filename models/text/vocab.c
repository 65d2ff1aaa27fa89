/* vocab.c - builds a cx_tokenizer from a plain description, and checks it.
 *
 * In: cx_vocab_desc. Out: token table, maps, merges, added tokens, steps; everything copied into
 * one arena.
 *
 * What encoding may find is decided here: normal and user tokens. Control, unknown and byte tokens
 * are reached only by being parsed as special, by being unknown, or by byte fallback, so that a
 * user's text cannot spell them by merges. */
#include "models/text/text_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TOKENS = 1 << 24 };
static const char space_mark[] = "\xE2\x96\x81"; /* U+2581 */

static int shown(cx_span s)
{
	return s.len < 40 ? (int)s.len : 40;
}

static cx_status copy_span(cx_tokenizer *tok, cx_span in, cx_span *out, cx_err *err)
{
	char *p = cx_arena_memdup(&tok->arena, in.ptr ? in.ptr : "", in.ptr ? in.len : 0);
	if (!p) return cx__no_memory(err);
	*out = (cx_span){p, in.ptr ? in.len : 0};
	return CX_OK;
}

/* "<0x0A>" gives 10; anything else -1. */
static int parse_byte_token(cx_span s)
{
	int v = 0;
	if (s.len != 6 || memcmp(s.ptr, "<0x", 3) != 0 || s.ptr[5] != '>') return -1;
	for (int i = 3; i < 5; i++) {
		char c = s.ptr[i];
		int d = c >= '0' && c <= '9'   ? c - '0'
				: c >= 'A' && c <= 'F' ? c - 'A' + 10
				: c >= 'a' && c <= 'f' ? c - 'a' + 10
									   : -1;
		if (d < 0) return -1;
		v = v * 16 + d;
	}
	return v;
}

/* ---- token table ---- */

static cx_status copy_tokens(cx_tokenizer *tok, const cx_vocab_desc *d, cx_err *err)
{
	uint64_t total = 0;
	char *text;
	tok->tokens = cx_arena_array(&tok->arena, d->n_tokens, sizeof *tok->tokens);
	if (!tok->tokens) return cx__no_memory(err);
	for (uint32_t i = 0; i < d->n_tokens; i++) {
		int32_t type = d->types ? d->types[i] : CX_TOKEN_NORMAL;
		if (type < CX_TOKEN_NORMAL || type > CX_TOKEN_BYTE)
			return CX_FAIL(err, CX_ERR_FORMAT, "%s: token %u has type %d, not one of 1 to 6",
				tok->origin, i, type);
		if (d->tokens[i].len > UINT32_MAX / 2 || !cx_add_u64(total, d->tokens[i].len, &total))
			return CX_FAIL(err, CX_ERR_FORMAT, "%s: token %u is %zu bytes long", tok->origin, i,
				d->tokens[i].len);
		tok->tokens[i].type = (uint8_t)type;
	}
	text = cx_arena_alloc(&tok->arena, (size_t)total);
	if (!text) return cx__no_memory(err);
	for (uint32_t i = 0; i < d->n_tokens; i++) {
		size_t n = d->tokens[i].len;
		if (n) memcpy(text, d->tokens[i].ptr, n);
		tok->tokens[i].text = tok->tokens[i].bytes = (cx_span){text, n};
		text += n;
	}
	return CX_OK;
}

static bool is_literal(const cx__token *t)
{
	return t->type != CX_TOKEN_NORMAL && t->type != CX_TOKEN_UNUSED;
}

/* What decoding shows for a normal token whose text holds marks or is a continuation: never longer
 * than text + 1. */
static size_t plain_bytes(const cx_tokenizer *tok, const cx_vocab_desc *d, cx_span s, char *dst)
{
	size_t m = 0, i = 0, mark = sizeof space_mark - 1;
	if (tok->model == CX_VOCAB_WORDPIECE && d->continuation.len) {
		size_t n = d->continuation.len;
		bool inner = s.len > n && memcmp(s.ptr, d->continuation.ptr, n) == 0;
		if (!inner) dst[m++] = ' ';
		else i = n;
		memcpy(dst + m, s.ptr + i, s.len - i);
		return m + s.len - i;
	}
	while (i < s.len) {
		if (s.len - i >= mark && memcmp(s.ptr + i, space_mark, mark) == 0) {
			dst[m++] = ' ';
			i += mark;
		} else {
			dst[m++] = s.ptr[i++];
		}
	}
	return m;
}

static cx_status make_bytes(cx_tokenizer *tok, const cx_vocab_desc *d, cx_err *err)
{
	for (uint32_t i = 0; i < tok->n_tokens; i++) {
		cx__token *t = &tok->tokens[i];
		size_t n;
		char *p;
		if (t->type == CX_TOKEN_BYTE) {
			int b = parse_byte_token(t->text);
			if (b < 0)
				return CX_FAIL(err, CX_ERR_FORMAT,
					"%s: byte token %u is spelled '%.*s', not '<0xHH>'", tok->origin, i,
					shown(t->text), t->text.ptr);
			if (!(p = cx_arena_alloc(&tok->arena, 1))) return cx__no_memory(err);
			p[0] = (char)b;
			t->bytes = (cx_span){p, 1};
			if (tok->byte_id[b] < 0) tok->byte_id[b] = (int32_t)i;
			continue;
		}
		if (is_literal(t) || t->text.len == 0 || tok->alphabet == CX_ALPHABET_RAW) continue;
		if (!(p = cx_arena_alloc(&tok->arena, t->text.len + 1))) return cx__no_memory(err);
		n = tok->alphabet == CX_ALPHABET_BYTES ? cx__alphabet_decode(t->text.ptr, t->text.len, p)
											   : plain_bytes(tok, d, t->text, p);
		if (n != SIZE_MAX)
			t->bytes = (cx_span){p, n}; /* else: not in the alphabet, hence literal */
	}
	return CX_OK;
}

/* ---- maps ---- */

static cx_status duplicate(const cx_tokenizer *tok, uint32_t a, uint32_t b, cx_err *err)
{
	cx_span s = tok->tokens[b].text;
	return CX_FAIL(err, CX_ERR_FORMAT, "%s: tokens %u and %u are both '%.*s'", tok->origin, a, b,
		shown(s), s.ptr);
}

/* Which map a normal token is found through while encoding, and by which key. */
static cx__token_map *encode_key(
	cx_tokenizer *tok, const cx_vocab_desc *d, const cx__token *t, cx_span *key)
{
	size_t mark = sizeof space_mark - 1, n = d->continuation.len;
	*key = tok->alphabet == CX_ALPHABET_CHARS ? t->text : t->bytes;
	if (tok->model != CX_VOCAB_WORDPIECE) return &tok->map;
	*key = t->text;
	if (n) { /* "##x" continues, "x" starts */
		if (key->len <= n || memcmp(key->ptr, d->continuation.ptr, n) != 0) return &tok->map;
		*key = (cx_span){key->ptr + n, key->len - n};
		return &tok->inner;
	}
	if (key->len <= mark || memcmp(key->ptr, space_mark, mark) != 0) return &tok->inner;
	*key = (cx_span){key->ptr + mark, key->len - mark};
	return &tok->map;
}

static cx_status make_maps(cx_tokenizer *tok, const cx_vocab_desc *d, cx_err *err)
{
	cx_status st;
	if ((st = cx__token_map_init(&tok->by_text, &tok->arena, tok->n_tokens, err)) != CX_OK)
		return st;
	if ((st = cx__token_map_init(&tok->map, &tok->arena, tok->n_tokens, err)) != CX_OK) return st;
	if (tok->model == CX_VOCAB_WORDPIECE &&
		(st = cx__token_map_init(&tok->inner, &tok->arena, tok->n_tokens, err)) != CX_OK)
		return st;
	for (uint32_t i = 0; i < tok->n_tokens; i++) {
		cx__token *t = &tok->tokens[i];
		cx__token_map *map;
		cx_span key;
		int32_t old;
		if (t->text.len == 0 || t->type == CX_TOKEN_UNUSED) continue;
		if ((old = cx__token_map_add(&tok->by_text, t->text.ptr, t->text.len, (int32_t)i)) >= 0)
			return duplicate(tok, (uint32_t)old, i, err);
		if (t->type != CX_TOKEN_NORMAL && t->type != CX_TOKEN_USER) continue;
		if (t->type == CX_TOKEN_USER && tok->alphabet != CX_ALPHABET_CHARS)
			continue; /* literal: not in the byte alphabet */
		map = encode_key(tok, d, t, &key);
		if (cx__token_map_add(map, key.ptr, key.len, (int32_t)i) < 0 && key.len == 1 &&
			tok->alphabet != CX_ALPHABET_CHARS)
			tok->byte_id[(unsigned char)key.ptr[0]] = (int32_t)i;
	}
	return CX_OK;
}

/* ---- ranks ---- */

bool cx__merge_cut(cx_span m, cx_span out[2])
{
	const char *blank = m.len > 2 ? memchr(m.ptr + 1, ' ', m.len - 2) : NULL;
	if (!blank) return false;
	out[0] = (cx_span){m.ptr, (size_t)(blank - m.ptr)};
	out[1] = (cx_span){blank + 1, (size_t)(m.ptr + m.len - blank - 1)};
	return true;
}

static cx_status bad_merge(
	const cx_tokenizer *tok, uint32_t i, const cx_span *m, const char *what, cx_err *err)
{
	return CX_FAIL(err, CX_ERR_FORMAT, "%s: merge %u ('%.*s' + '%.*s'): %s is not a token",
		tok->origin, i, shown(m[0]), m[0].ptr, shown(m[1]), m[1].ptr, what);
}

static cx_status make_merges(cx_tokenizer *tok, const cx_vocab_desc *d, cx_err *err)
{
	cx_text both = {.alloc = tok->pcre.alloc};
	cx_status st = cx__pair_map_init(&tok->merges, &tok->arena, d->n_merges, err);
	for (uint32_t i = 0; i < d->n_merges && st == CX_OK; i++) {
		const cx_span *m = &d->merges[2 * i];
		int32_t left = cx__token_map_find(&tok->by_text, m[0].ptr, m[0].len);
		int32_t right = cx__token_map_find(&tok->by_text, m[1].ptr, m[1].len), id;
		if (left < 0) st = bad_merge(tok, i, m, "the left side", err);
		else if (right < 0) st = bad_merge(tok, i, m, "the right side", err);
		if (st != CX_OK) break;
		both.n = 0;
		if ((st = cx_text_append(&both, m[0].ptr, m[0].len, err)) != CX_OK) break;
		if ((st = cx_text_append(&both, m[1].ptr, m[1].len, err)) != CX_OK) break;
		id = cx__token_map_find(&tok->by_text, both.v, both.n);
		if (id < 0) st = bad_merge(tok, i, m, "the result", err);
		else cx__pair_map_add(&tok->merges, left, right, i, id);
	}
	cx_text_deinit(&both);
	return st;
}

struct scored {
	float score;
	uint32_t id;
};

static int by_score(const void *a, const void *b)
{
	const struct scored *x = a, *y = b;
	return x->score > y->score ? -1 : x->score < y->score;
}

/* Equal scores get equal ranks: then the leftmost pair wins, as the rule says. */
static cx_status make_order(cx_tokenizer *tok, const cx_vocab_desc *d, cx_err *err)
{
	struct scored *v;
	if (!d->scores)
		return CX_FAIL(err, CX_ERR_FORMAT, "%s: the vocabulary has no scores", tok->origin);
	v = cx_arena_array(&tok->arena, tok->n_tokens, sizeof *v);
	tok->order = cx_arena_array(&tok->arena, tok->n_tokens, sizeof *tok->order);
	if (!v || !tok->order) return cx__no_memory(err);
	for (uint32_t i = 0; i < tok->n_tokens; i++) {
		if (!isfinite(d->scores[i]))
			return CX_FAIL(err, CX_ERR_FORMAT, "%s: the score of token %u is not a finite number",
				tok->origin, i);
		v[i] = (struct scored){d->scores[i], i};
	}
	qsort(v, tok->n_tokens, sizeof *v, by_score);
	for (uint32_t i = 0, rank = 0; i < tok->n_tokens; i++) {
		if (i && v[i].score < v[i - 1].score) rank = i;
		tok->order[v[i].id] = rank;
	}
	return CX_OK;
}

/* ---- ids, steps ---- */

static cx_status check_id(const cx_tokenizer *tok, const char *what, int32_t id, cx_err *err)
{
	if (id >= -1 && (id < 0 || (uint32_t)id < tok->n_tokens)) return CX_OK;
	return CX_FAIL(err, CX_ERR_FORMAT, "%s: %s token id is %d, but there are %u tokens",
		tok->origin, what, id, tok->n_tokens);
}

static cx_status check_special(cx_tokenizer *tok, const cx_special_ids *s, cx_err *err)
{
	const struct {
		const char *what;
		int32_t id;
	} ids[] = {
		{"bos", s->bos},
		{"eos", s->eos},
		{"eot", s->eot},
		{"eom", s->eom},
		{"unknown", s->unk},
		{"separator", s->sep},
		{"cls", s->cls},
		{"padding", s->pad},
		{"mask", s->mask},
		{"fim_pre", s->fim_pre},
		{"fim_suf", s->fim_suf},
		{"fim_mid", s->fim_mid},
		{"fim_pad", s->fim_pad},
		{"fim_rep", s->fim_rep},
		{"fim_sep", s->fim_sep},
	};
	for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++) {
		cx_status st = check_id(tok, ids[i].what, ids[i].id, err);
		if (st != CX_OK) return st;
	}
	tok->special = *s;
	return CX_OK;
}

static cx_status copy_ids(cx_tokenizer *tok, const char *what, const int32_t *ids, uint32_t n,
	int32_t **out, uint32_t *n_out, cx_err *err)
{
	for (uint32_t i = 0; i < n; i++) {
		if (ids[i] < 0)
			return CX_FAIL(err, CX_ERR_FORMAT, "%s: %s token id is %d", tok->origin, what, ids[i]);
		cx_status st = check_id(tok, what, ids[i], err);
		if (st != CX_OK) return st;
	}
	*out = n ? cx_arena_memdup(&tok->arena, ids, n * sizeof *ids) : NULL;
	*n_out = n;
	return n && !*out ? cx__no_memory(err) : CX_OK;
}

static int by_id(const void *a, const void *b)
{
	const int32_t *x = a, *y = b;
	return *x < *y ? -1 : *x > *y;
}

/* spec/llm.md 4.6: one source alone is not enough (Qwen3.5 lists only <|endoftext|>, and no chat
 * turn ends with it). */
static cx_status make_stop(cx_tokenizer *tok, const cx_vocab_desc *d, cx_err *err)
{
	static const char *const texts[] = {
		"<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|endoftext|>"};
	enum { N_TEXTS = sizeof texts / sizeof texts[0] };
	int32_t own[N_TEXTS + 3], *v;
	uint32_t n = 0, m = 0;
	for (uint32_t i = 0; i < d->n_stop; i++)
		if (d->stop[i] >= 0 && (uint32_t)d->stop[i] < tok->n_tokens)
			m++; /* a config may count padding rows: no token */
	own[n++] = tok->special.eos;
	own[n++] = tok->special.eot;
	own[n++] = tok->special.eom;
	for (uint32_t i = 0; i < N_TEXTS; i++)
		own[n++] = cx_tokenizer_find(tok, texts[i], strlen(texts[i]));
	v = cx_arena_array(&tok->arena, (size_t)m + n, sizeof *v);
	if (!v) return cx__no_memory(err);
	m = 0;
	for (uint32_t i = 0; i < d->n_stop; i++)
		if (d->stop[i] >= 0 && (uint32_t)d->stop[i] < tok->n_tokens) v[m++] = d->stop[i];
	for (uint32_t i = 0; i < n; i++)
		if (own[i] >= 0) v[m++] = own[i];
	qsort(v, m, sizeof *v, by_id);
	for (uint32_t i = 0; i < m; i++)
		if (!tok->n_stop || v[i] != v[tok->n_stop - 1]) v[tok->n_stop++] = v[i];
	tok->stop = v;
	return CX_OK;
}

static cx_status copy_norm(cx_tokenizer *tok, const cx_vocab_desc *d, cx_err *err)
{
	cx_status st = CX_OK;
	if (d->n_norm == 0) return CX_OK;
	tok->norm = cx_arena_memdup(&tok->arena, d->norm, d->n_norm * sizeof *d->norm);
	if (!tok->norm) return cx__no_memory(err);
	tok->n_norm = d->n_norm;
	for (uint32_t i = 0; i < d->n_norm && st == CX_OK; i++) {
		st = copy_span(tok, d->norm[i].a, &tok->norm[i].a, err);
		if (st == CX_OK) st = copy_span(tok, d->norm[i].b, &tok->norm[i].b, err);
	}
	return st;
}

static cx_status build(cx_tokenizer *tok, const cx_vocab_desc *d, cx_err *err)
{
	cx_status st;
	for (int b = 0; b < 256; b++) tok->byte_id[b] = -1;
	if (d->n_tokens == 0 || !d->tokens)
		return CX_FAIL(err, CX_ERR_FORMAT, "%s: the vocabulary is empty", tok->origin);
	if (d->n_tokens > MAX_TOKENS)
		return CX_FAIL(err, CX_ERR_FORMAT, "%s: %u tokens are more than the %d allowed",
			tok->origin, d->n_tokens, MAX_TOKENS);
	tok->n_tokens = d->n_tokens;
	if ((st = check_special(tok, &d->special, err)) != CX_OK) return st;
	if (tok->model == CX_VOCAB_WORDPIECE && tok->special.unk < 0)
		return CX_FAIL(
			err, CX_ERR_FORMAT, "%s: a WordPiece vocabulary needs an unknown token", tok->origin);
	if ((st = copy_tokens(tok, d, err)) != CX_OK) return st;
	if ((st = make_bytes(tok, d, err)) != CX_OK) return st;
	if ((st = make_maps(tok, d, err)) != CX_OK) return st;
	if (tok->model == CX_VOCAB_MERGES && (st = make_merges(tok, d, err)) != CX_OK) return st;
	if (tok->model == CX_VOCAB_SCORES && (st = make_order(tok, d, err)) != CX_OK) return st;
	if ((st = copy_ids(tok, "prefix", d->prefix, d->n_prefix, &tok->prefix, &tok->n_prefix, err)) !=
		CX_OK)
		return st;
	if ((st = copy_ids(tok, "suffix", d->suffix, d->n_suffix, &tok->suffix, &tok->n_suffix, err)) !=
		CX_OK)
		return st;
	if ((st = make_stop(tok, d, err)) != CX_OK) return st;
	if ((st = copy_norm(tok, d, err)) != CX_OK) return st;
	if ((st = cx__split_compile(tok, d->split, d->n_split, err)) != CX_OK) return st;
	return cx__added_build(tok, d->added, d->n_added, err);
}

cx_status cx_tokenizer_create(
	const cx_vocab_desc *d, const cx_alloc *alloc, cx_tokenizer **out, cx_err *err)
{
	cx_alloc a = alloc && alloc->realloc ? *alloc : cx_alloc_default();
	cx_tokenizer *tok = cx_calloc(&a, 1, sizeof *tok);
	cx_status st;
	*out = NULL;
	if (!tok) return cx__no_memory(err);
	cx_arena_init(&tok->arena, &a);
	tok->pcre.alloc = a;
	tok->model = d->model;
	tok->alphabet = d->alphabet;
	tok->ignore_merges = d->ignore_merges;
	tok->byte_fallback = d->byte_fallback;
	tok->fuse_unk = d->fuse_unk;
	tok->drop_space = d->drop_space;
	tok->max_word_chars = d->max_word_chars;
	st = (tok->origin = cx_arena_strdup(&tok->arena, d->origin ? d->origin : "vocabulary"))
			 ? CX_OK
			 : cx__no_memory(err);
	if (st == CX_OK && !cx__pcre_mem_init(&tok->pcre, &a)) st = cx__no_memory(err);
	if (st == CX_OK) st = build(tok, d, err);
	if (st != CX_OK) {
		cx_tokenizer_free(tok);
		return st;
	}
	*out = tok;
	return CX_OK;
}

void cx_tokenizer_free(cx_tokenizer *tok)
{
	cx_alloc a;
	if (!tok) return;
	a = tok->arena.alloc;
	cx__split_free(tok);
	cx__pcre_mem_deinit(&tok->pcre);
	cx_arena_deinit(&tok->arena);
	cx_free(&a, tok, sizeof *tok);
}
