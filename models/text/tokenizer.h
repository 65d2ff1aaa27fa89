/* tokenizer.h - text to token ids and back.
 *
 * One cx_tokenizer serves three families (spec/llm.md 4):
 *   byte-level BPE     GPT-2, Llama-3, Qwen, StarCoder, Falcon ...; by merge list or by ranked byte
 * strings (tiktoken) SentencePiece BPE  Llama-2; by scores (GGUF) or by merge list
 * (tokenizer.json), with byte fallback WordPiece          BERT and comes from a GGUF file, from a
 * Hugging Face tokenizer.json, from a tiktoken table, or from a plain description (cx_vocab_desc)
 * that a program or a test fills in. A kind of normalizer, pre-tokenizer, model, post-processor or
 * decoder that is not listed here is refused by name: a wrong guess would give plausible text and
 * wrong answers.
 *
 * Threads: a tokenizer is constant after it is made; any number of threads may encode and decode
 * with it at once. Memory: everything comes from the allocator that was given when the tokenizer
 * was made (jansson's parse tree excepted).
 *
 * Unicode: classes in split patterns are PCRE2's (Unicode 14 in Debian 12), normalisation and case
 * are utf8proc's (Unicode 15): letters that were added in between split as symbols. Neither matters
 * for text written before 2022. */
#ifndef CX_TEXT_TOKENIZER_H
#define CX_TEXT_TOKENIZER_H

#include "graph/base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- growable outputs ----------------------------------------------------------------------- */

/* Caller's storage. Zero-initialised is valid, empty, and uses the default allocator. */

typedef struct cx_ids {
	int32_t *v;
	size_t n, cap;
	cx_alloc alloc;
} cx_ids;

typedef struct cx_text {
	char *v; /* n bytes, then one 0 byte that is not counted; NULL while empty and never grown */
	size_t n, cap;
	cx_alloc alloc;
} cx_text;

CX_API cx_status cx_ids_push(cx_ids *ids, int32_t id, cx_err *err);
CX_API void cx_ids_deinit(cx_ids *ids); /* frees; the struct is empty and usable again */
CX_API cx_status cx_text_append(cx_text *text, const void *bytes, size_t n, cx_err *err);
CX_API void cx_text_deinit(cx_text *text);

/* ---- the plain description of a vocabulary -------------------------------------------------- */

/* Bytes that belong to someone else; not terminated. */
typedef struct cx_span {
	const char *ptr;
	size_t len;
} cx_span;

typedef enum cx_token_type { /* the numbers are GGUF's (spec/llm.md 4.5) */
	CX_TOKEN_NORMAL = 1,
	CX_TOKEN_UNKNOWN = 2,
	CX_TOKEN_CONTROL = 3, /* found in text only with CX_ENCODE_PARSE_SPECIAL; not shown */
	CX_TOKEN_USER = 4,    /* always found in text, as a whole; shown by decoding */
	CX_TOKEN_UNUSED = 5,
	CX_TOKEN_BYTE = 6, /* "<0x0A>": one byte */
} cx_token_type;

typedef enum cx_vocab_model {
	CX_VOCAB_MERGES,    /* BPE: the pair with the lowest index in `merges` first */
	CX_VOCAB_SCORES,    /* BPE: the pair that makes the token with the highest score first */
	CX_VOCAB_IDS,       /* BPE: the pair that makes the token with the lowest id first (tiktoken) */
	CX_VOCAB_WORDPIECE, /* longest match from the left; continuations are marked */
} cx_vocab_model;

typedef enum cx_alphabet {
	CX_ALPHABET_CHARS, /* symbols are UTF-8 characters; U+2581 stands for a space */
	CX_ALPHABET_BYTES, /* symbols are bytes; token texts use the byte alphabet (spec/llm.md 4.2) */
	CX_ALPHABET_RAW,   /* symbols are bytes; token texts are those bytes */
} cx_alphabet;

/* cx_added.flags */
enum {
	CX_ADDED_SPECIAL = 1,    /* needs CX_ENCODE_PARSE_SPECIAL to be matched */
	CX_ADDED_NORMALIZED = 2, /* looked for after normalisation, itself normalised; else before */
	CX_ADDED_LSTRIP = 4,     /* swallows the whitespace before it */
	CX_ADDED_RSTRIP = 8,
	CX_ADDED_SINGLE_WORD = 16 /* only where no word character touches it */
};
typedef struct cx_added {
	int32_t id; /* its text is tokens[id], literally */
	unsigned flags;
} cx_added;

typedef enum cx_norm_kind {
	CX_NORM_NFC,
	CX_NORM_NFD,
	CX_NORM_NFKC,
	CX_NORM_NFKD,
	CX_NORM_LOWER,         /* per character, full mapping */
	CX_NORM_STRIP_ACCENTS, /* drops class Mn */
	CX_NORM_STRIP_MARKS,   /* drops class M */
	CX_NORM_FIRST_OF_NFD,  /* each character becomes the first of its canonical decomposition */
	CX_NORM_PREPEND,       /* a, if the text is not empty */
	CX_NORM_REPLACE,       /* every a by b */
	CX_NORM_STRIP,         /* whitespace; a non-empty: at the left, b non-empty: at the right */
	CX_NORM_BERT_CLEAN,    /* drops NUL, U+FFFD and class C; whitespace becomes U+0020 */
	CX_NORM_BERT_CJK,      /* a space on each side of every CJK ideograph */
} cx_norm_kind;
typedef struct cx_norm_step {
	cx_norm_kind kind;
	cx_span a, b;
} cx_norm_step;

typedef enum cx_split_kind {
	CX_SPLIT_REGEX,     /* pattern, how, invert */
	CX_SPLIT_LITERAL,   /* the same; the pattern is plain text */
	CX_SPLIT_SPACE,     /* every piece that does not begin with a space gets one */
	CX_SPLIT_BYTES,     /* later steps see the byte alphabet: only with CX_ALPHABET_BYTES */
	CX_SPLIT_METASPACE, /* see below */
} cx_split_kind;
typedef enum cx_split_how {
	CX_SPLIT_ISOLATED,
	CX_SPLIT_REMOVED,
	CX_SPLIT_CONTIGUOUS,
	CX_SPLIT_PREVIOUS,
	CX_SPLIT_NEXT,
	CX_SPLIT_WHOLE,
} cx_split_how;
/* Metaspace: every U+0020 becomes `pattern` (U+2581). prefix: a piece that does not begin with it
 * gets one; first_only: just the piece at the start of the text. how: CX_SPLIT_NEXT cuts before
 * each, CX_SPLIT_WHOLE does not cut. */
typedef struct cx_split_step {
	cx_split_kind kind;
	cx_span pattern; /* PCRE2 syntax; \s means exactly Unicode White_Space */
	cx_split_how how;
	bool invert, prefix, first_only;
} cx_split_step;

/* -1: there is none. */
typedef struct cx_special_ids {
	int32_t bos, eos, eot, eom, unk, sep, cls, pad, mask;
	int32_t fim_pre, fim_suf, fim_mid, fim_pad, fim_rep, fim_sep;
} cx_special_ids;
#define CX_SPECIAL_IDS_NONE                                                                        \
	((cx_special_ids){-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1})

/* Arrays belong to the caller and are copied. Zero-initialised is a legal start, but set special to
 * CX_SPECIAL_IDS_NONE. */
typedef struct cx_vocab_desc {
	const char *origin; /* named in messages: a path, or NULL */
	cx_vocab_model model;
	cx_alphabet alphabet;
	uint32_t n_tokens;
	const cx_span *tokens; /* [n_tokens], as the file spells them */
	const float *scores;   /* [n_tokens], CX_VOCAB_SCORES only; finite */
	const int32_t *types;  /* [n_tokens] of cx_token_type; NULL: all normal */
	uint32_t n_merges;
	const cx_span *merges; /* [2 * n_merges]: left, right; CX_VOCAB_MERGES only */
	uint32_t n_added;
	const cx_added *added;
	uint32_t n_norm;
	const cx_norm_step *norm;
	uint32_t n_split;
	const cx_split_step *split;
	uint32_t n_prefix, n_suffix; /* ids put around the text by CX_ENCODE_ADD_SPECIAL */
	const int32_t *prefix, *suffix;
	uint32_t n_stop;
	const int32_t *stop; /* joined to the stop set */
	cx_special_ids special;
	bool ignore_merges;      /* a piece that is itself a token is emitted whole */
	bool byte_fallback;      /* an unknown character becomes byte tokens */
	bool fuse_unk;           /* neighbouring unknowns become one */
	bool drop_space;         /* decoding drops one space at the very start of a text */
	cx_span continuation;    /* WordPiece: marks continuations ("##"); empty: U+2581 marks starts */
	uint32_t max_word_chars; /* WordPiece: a longer word is unknown; 0: no limit */
} cx_vocab_desc;

/* ---- making one ----------------------------------------------------------------------------- */

typedef struct cx_tokenizer cx_tokenizer;
struct cx_gguf;

/* In all four: alloc NULL is the default; on failure *out is NULL and err says which field of which
 * file is wrong: CX_ERR_FORMAT (damaged), CX_ERR_UNSUPPORTED (a kind or pre-tokenizer we do not
 * know, by name), CX_ERR_MEMORY, CX_ERR_IO. */
CX_API cx_status cx_tokenizer_create(
	const cx_vocab_desc *desc, const cx_alloc *alloc, cx_tokenizer **out, cx_err *err);
/* From the tokenizer.ggml.* keys (spec/llm.md 4.5). The file may be closed afterwards. */
CX_API cx_status cx_tokenizer_from_gguf(
	const struct cx_gguf *file, const cx_alloc *alloc, cx_tokenizer **out, cx_err *err);
/* path is a tokenizer.json, or a folder with one. Beside it, where present: tokenizer_config.json
 * (named special tokens, add_bos_token, add_eos_token), generation_config.json and config.json
 * (eos_token_id, for the stop set). */
CX_API cx_status cx_tokenizer_from_hf(
	const char *path, const cx_alloc *alloc, cx_tokenizer **out, cx_err *err);
/* The same from memory; an absent file is {NULL, 0}. origin names the first in messages. */
typedef struct cx_hf_files {
	const char *origin;
	cx_span tokenizer, tokenizer_config, generation_config, config;
} cx_hf_files;
CX_API cx_status cx_tokenizer_from_json(
	const cx_hf_files *files, const cx_alloc *alloc, cx_tokenizer **out, cx_err *err);
/* Lines of "base64(bytes) rank"; ranks are 0 .. n-1 in any order. pre is a pre-tokenizer name of
 * spec/llm.md 4.5 ("qwen2"): its patterns are used. Such a file has neither special tokens nor a
 * normal form, and hence the tokenizer has none: normalise text for Qwen to NFC first, or use its
 * tokenizer.json. */
CX_API cx_status cx_tokenizer_from_tiktoken(const void *bytes, size_t n_bytes, const char *pre,
	const char *origin, const cx_alloc *alloc, cx_tokenizer **out, cx_err *err);
CX_API void cx_tokenizer_free(cx_tokenizer *tok); /* NULL is fine */

/* What a name of tokenizer.ggml.pre stands for. false: unknown name. Static storage. */
typedef struct cx_pre {
	const char *name;
	uint32_t n_split;
	const char *split[4]; /* each Isolated, each inside the pieces of the one before */
	bool nfc, ignore_merges, add_bos;
} cx_pre;
CX_API bool cx_pre_find(const char *name, size_t len, cx_pre *out);

/* ---- encoding ------------------------------------------------------------------------------- */

/* Text that spells a control token becomes that token with PARSE_SPECIAL: for rendered chat
 * templates (spec/llm.md 4.7), not for untrusted text. */
enum {
	CX_ENCODE_ADD_SPECIAL = 1, /* put the model's own BOS/EOS/CLS/SEP around the text */
	CX_ENCODE_PARSE_SPECIAL = 2,
};

/* Appends the ids of text[n_bytes] to out. The text may hold any bytes, NUL too. What is not UTF-8
 * is first replaced by U+FFFD, one per maximal ill-formed part, as the tokenizers that we follow
 * do; so a round trip is exact for UTF-8 only. A character that the vocabulary cannot spell becomes
 * the unknown token, or nothing where there is none. On failure (CX_ERR_MEMORY; CX_ERR_ARGUMENT for
 * a text over 1 GiB; CX_ERR_UNSUPPORTED when a pattern of the file needs more backtracking than
 * PCRE2's limit) out has the length that it had. */
CX_API cx_status cx_tokenizer_encode(const cx_tokenizer *tok, const char *text, size_t n_bytes,
	unsigned flags, cx_ids *out, cx_err *err);

/* ---- decoding ------------------------------------------------------------------------------- */

enum {
	CX_DECODE_SPECIAL = 1,      /* show control and unknown tokens; without it they give nothing */
	CX_DECODE_CONTINUATION = 2, /* the text goes on after a prompt: keep the leading space */
};

/* Appends valid UTF-8 to out. CX_ERR_ARGUMENT when an id is not a token. */
CX_API cx_status cx_tokenizer_decode(const cx_tokenizer *tok, const int32_t *ids, size_t n_ids,
	unsigned flags, cx_text *out, cx_err *err);

/* Streaming: pushes of any number of ids, then flush, append to out exactly what
 * cx_tokenizer_decode gives for all of them. A push may append nothing (half an emoji); what it
 * appends is always whole characters. */
typedef struct cx_detok {
	const cx_tokenizer *tok;
	unsigned flags;
	bool at_start;  /* nothing was shown yet */
	uint8_t n_tail; /* bytes of an unfinished character */
	unsigned char tail[4];
} cx_detok;
CX_API void cx_detok_init(cx_detok *d, const cx_tokenizer *tok, unsigned flags);
CX_API cx_status cx_detok_push(cx_detok *d, int32_t id, cx_text *out, cx_err *err);
/* An unfinished character becomes U+FFFD. */
CX_API cx_status cx_detok_flush(cx_detok *d, cx_text *out, cx_err *err);

/* ---- asking --------------------------------------------------------------------------------- */

CX_API uint32_t cx_tokenizer_n_tokens(const cx_tokenizer *tok);
/* As the file spells it; and what decoding shows (before UTF-8 is repaired). {NULL, 0} for an id
 * that is no token. */
CX_API cx_span cx_tokenizer_token_text(const cx_tokenizer *tok, int32_t id);
CX_API cx_span cx_tokenizer_token_bytes(const cx_tokenizer *tok, int32_t id);
/* CX_TOKEN_UNUSED for an id out of range. */
CX_API cx_token_type cx_tokenizer_token_type(const cx_tokenizer *tok, int32_t id);
/* By the file's spelling; -1: none. */
CX_API int32_t cx_tokenizer_find(const cx_tokenizer *tok, const char *text, size_t len);
CX_API const cx_special_ids *cx_tokenizer_special(const cx_tokenizer *tok);
/* Ids that end a generation (spec/llm.md 4.6), ascending: eos, eot, eom, those of the config files,
 * and the chat end tokens known by text. */
CX_API const int32_t *cx_tokenizer_stop_ids(const cx_tokenizer *tok, size_t *n);
CX_API bool cx_tokenizer_is_stop(const cx_tokenizer *tok, int32_t id);
/* Whether CX_ENCODE_ADD_SPECIAL begins with bos. */
CX_API bool cx_tokenizer_adds_bos(const cx_tokenizer *tok);

#ifdef __cplusplus
}
#endif
#endif
