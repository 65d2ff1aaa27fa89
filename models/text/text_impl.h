/* text_impl.h - shared inside models/text: the tokenizer's insides, scratch of one encode, small
 * tools. Not API. */
#ifndef CX_TEXT_IMPL_H
#define CX_TEXT_IMPL_H

#include "models/text/tokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

/* ---- UTF-8 (utf8.c) ---- */

/* Reads one character of s[n], n > 0. > 0: its length, *cp is set. < 0: minus the length of an
 * ill-formed part that can never become valid. 0: a valid beginning that s[n] cuts off. */
int cx__utf8_step(const unsigned char *s, size_t n, uint32_t *cp);
size_t cx__utf8_put(char *dst, uint32_t cp); /* writes 1 to 4 bytes */
bool cx__utf8_valid(const char *s, size_t n);
bool cx__utf8_white(uint32_t cp); /* Unicode White_Space */
/* Appends s[n] to out with U+FFFD for each maximal ill-formed part. */
cx_status cx__utf8_repair(const char *s, size_t n, cx_text *out, cx_err *err);

/* ---- growing (utf8.c) ---- */

/* Makes room for `need` elements of `size` bytes in (*v)[*cap]; doubles. */
bool cx__grow(const cx_alloc *a, void **v, size_t *cap, size_t need, size_t size);
cx_status cx__no_memory(cx_err *err);

/* ---- maps (token_map.c) ---- */

typedef struct cx__token_slot {
	const char *key;
	uint32_t len, hash;
	int32_t id; /* -1: empty */
} cx__token_slot;
typedef struct cx__token_map { /* byte string to id; keys are not copied; slots live in an arena */
	cx__token_slot *slots;
	uint32_t mask, max_len;
} cx__token_map;
cx_status cx__token_map_init(cx__token_map *m, cx_arena *arena, uint32_t n, cx_err *err);
/* -1, or the id already there. */
int32_t cx__token_map_add(cx__token_map *m, const char *key, size_t len, int32_t id);
int32_t cx__token_map_find(const cx__token_map *m, const char *key, size_t len); /* -1: none */

typedef struct cx__pair_slot {
	uint64_t pair; /* left << 32 | right; UINT64_MAX: empty */
	uint32_t rank;
	int32_t id;
} cx__pair_slot;
typedef struct cx__pair_map {
	cx__pair_slot *slots;
	uint32_t mask;
} cx__pair_map;
cx_status cx__pair_map_init(cx__pair_map *m, cx_arena *arena, uint32_t n, cx_err *err);
/* The first one stays. */
void cx__pair_map_add(cx__pair_map *m, int32_t left, int32_t right, uint32_t rank, int32_t id);
const cx__pair_slot *cx__pair_map_find(const cx__pair_map *m, int32_t left, int32_t right);

/* ---- the byte alphabet of byte-level BPE (alphabet.c, spec/llm.md 4.2) ---- */

uint32_t cx__byte_to_cp(unsigned char b);
int cx__cp_to_byte(uint32_t cp); /* -1: not in the alphabet */
/* dst[n]; SIZE_MAX when s leaves the alphabet. */
size_t cx__alphabet_decode(const char *s, size_t n, char *dst);
cx_status cx__alphabet_encode(const char *s, size_t n, cx_text *out, cx_err *err);

/* ---- PCRE2 with our allocator (split.c) ---- */

typedef struct cx__pcre_mem {
	cx_alloc alloc;
	bool failed; /* tells "no memory" from "JIT is not allowed here" */
	pcre2_general_context *ctx;
} cx__pcre_mem;

typedef struct cx__split {
	cx_split_kind kind;
	cx_split_how how;
	bool invert, prefix, first_only;
	cx_span mark;     /* metaspace: what stands for a space */
	pcre2_code *code; /* regex and literal */
} cx__split;

/* ---- the tokenizer ---- */

typedef struct cx__token {
	cx_span text, bytes; /* bytes may be text */
	uint8_t type;
} cx__token;

typedef struct cx__added {
	cx_span text;
	int32_t id;
	unsigned flags;
} cx__added;
typedef struct cx__added_set { /* sorted by text: a common prefix is a contiguous range */
	uint32_t n;
	cx__added *v;
	uint32_t first[257]; /* v[first[b] .. first[b+1]) begin with byte b */
} cx__added_set;

struct cx_tokenizer {
	cx_arena arena; /* owns all but the PCRE2 codes */
	cx__pcre_mem pcre;
	const char *origin;
	cx_vocab_model model;
	cx_alphabet alphabet;
	uint32_t n_tokens;
	cx__token *tokens;
	cx__token_map by_text; /* file spelling, all but unused tokens */
	cx__token_map map;     /* what encoding may find; WordPiece: word starts */
	cx__token_map inner;   /* WordPiece: continuations */
	cx__pair_map merges;
	uint32_t *order;      /* [n_tokens], CX_VOCAB_SCORES: dense rank of the score, 0 the highest */
	int32_t byte_id[256]; /* single bytes (byte-level) or byte tokens (fallback); -1: none */
	cx__added_set raw, normalized; /* added tokens matched before and after normalisation */
	uint32_t n_norm, n_split;
	cx_norm_step *norm;
	cx__split *split;
	uint32_t n_prefix, n_suffix, n_stop;
	int32_t *prefix, *suffix, *stop;
	cx_special_ids special;
	bool ignore_merges, byte_fallback, fuse_unk, drop_space;
	uint32_t max_word_chars;
};

/* ---- scratch of one encode ---- */

/* No text, before or after any step, may be longer: offsets stay in uint32, symbol indices in
 * int32, and a file whose replacements multiply is an error and not the end of the memory. */
enum { CX__TEXT_MAX = 1 << 30 };

typedef struct cx__piece {
	uint32_t off, len;
} cx__piece;
typedef struct cx__pieces {
	cx__piece *v;
	size_t n, cap;
} cx__pieces;
typedef struct cx__symbol {
	uint32_t off, len; /* in the piece; len 0: merged away */
	int32_t prev, next, id;
} cx__symbol;
typedef struct cx__bigram {
	uint64_t key; /* priority << 32 | left symbol: the smallest is merged first, leftmost on ties */
	uint32_t len; /* of both together; differs from now: the entry is stale */
	int32_t id;   /* of the result */
} cx__bigram;

typedef struct cx__encoder {
	const cx_tokenizer *tok;
	cx_alloc alloc;
	unsigned flags;
	cx_ids *out;
	cx_err *err;
	cx_text clean, norm[2], pre[2];
	cx__pieces pieces[2];
	cx__symbol *symbols;
	size_t n_symbols, symbols_cap;
	cx__bigram *heap;
	size_t n_heap, heap_cap;
	int32_t *cps[2]; /* code points, for normalisation */
	size_t cps_cap[2];
	cx__pcre_mem pcre;
	pcre2_match_data *match;
} cx__encoder;

/* normalize.c: runs the steps; *io is replaced by a span of scratch, or stays where nothing
 * changes. */
cx_status cx__normalize(cx__encoder *e, const cx_norm_step *steps, uint32_t n, cx_span *io);
/* split.c */
cx_status cx__split_compile(cx_tokenizer *tok, const cx_split_step *steps, uint32_t n, cx_err *err);
void cx__split_free(cx_tokenizer *tok);
bool cx__pcre_mem_init(cx__pcre_mem *m, const cx_alloc *alloc);
void cx__pcre_mem_deinit(cx__pcre_mem *m);
/* Cuts *text (replaced when a step rewrites it) into e->pieces[*which], in the byte alphabet iff
 * *mapped. */
cx_status cx__split_run(cx__encoder *e, cx_span *text, bool first, int *which, bool *mapped);
/* bpe.c, wordpiece.c: append the ids of one piece */
cx_status cx__bpe_encode(cx__encoder *e, const char *piece, uint32_t len);
cx_status cx__wordpiece_encode(cx__encoder *e, const char *piece, uint32_t len);
/* added.c */
cx_status cx__added_build(cx_tokenizer *tok, const cx_added *added, uint32_t n, cx_err *err);
typedef struct cx__added_hit {
	size_t start, stop;
	int32_t id;
} cx__added_hit;
/* The next added token in text at or after pos; what it swallows counts to it. false: none. */
bool cx__added_next(const cx__added_set *set, const char *text, size_t n, size_t pos, bool special,
	cx__added_hit *hit);

/* pre.c: fill steps; give how many. Room for 4, 5 and 2. */
uint32_t cx__pre_steps(const cx_pre *pre, cx_split_step *steps);
uint32_t cx__bert_norm(cx_norm_step *steps, bool clean, bool cjk, bool accents, bool lower);
uint32_t cx__bert_split(cx_split_step *steps);
cx_span cx__gpt2_pattern(void);
/* vocab.c: cuts "left right" at the first blank that is not its first byte. */
bool cx__merge_cut(cx_span merge, cx_span out[2]);

void cx__encoder_init(
	cx__encoder *e, const cx_tokenizer *tok, unsigned flags, cx_ids *out, cx_err *err);
void cx__encoder_deinit(cx__encoder *e);

#endif
