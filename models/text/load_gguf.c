/* load_gguf.c - a tokenizer from the tokenizer.ggml.* keys of a GGUF file (spec/llm.md 4.5).
 *
 * GGUF says nothing of normalisation: NFC follows from the pre-tokenizer's name, BERT's
 * lower-casing from the model. */
#include "models/files/gguf.h"
#include "models/text/text_impl.h"

#include <string.h>

#define KEY(x) "tokenizer.ggml." x

typedef struct loader {
	const cx_gguf *file;
	const char *label;
	cx_arena arena; /* what the description points to */
	cx_vocab_desc d;
	cx_norm_step norm[5];
	cx_split_step split[4];
	int32_t around[2]; /* prefix, suffix */
	bool add_bos, add_eos, space_prefix;
	cx_err *err;
} loader;

static cx_status load_tokens(loader *l)
{
	const cx_gguf_kv *tokens, *types;
	cx_span *spans;
	int32_t *t;
	cx_status st =
		cx_gguf_array(l->file, KEY("tokens"), CX_REQUIRED, CX_GGUF_STRINGS, &tokens, l->err);
	if (st != CX_OK) return st;
	st = cx_gguf_array(l->file, KEY("token_type"), CX_OPTIONAL, CX_GGUF_INTS, &types, l->err);
	if (st != CX_OK) return st;
	if (tokens->n > UINT32_MAX)
		return CX_FAIL(
			l->err, CX_ERR_FORMAT, "%s: %s has too many elements", l->label, KEY("tokens"));
	l->d.n_tokens = (uint32_t)tokens->n;
	spans = cx_arena_array(&l->arena, tokens->n, sizeof *spans);
	if (!spans) return cx__no_memory(l->err);
	for (uint64_t i = 0; i < tokens->n; i++)
		spans[i] = (cx_span){tokens->strs[i].ptr, tokens->strs[i].len};
	l->d.tokens = spans;
	if (!types) return CX_OK;
	if (types->n != tokens->n)
		return CX_FAIL(l->err, CX_ERR_FORMAT, "%s: %s has %llu elements, but there are %u tokens",
			l->label, KEY("token_type"), (unsigned long long)types->n, l->d.n_tokens);
	t = cx_arena_array(&l->arena, types->n, sizeof *t);
	if (!t) return cx__no_memory(l->err);
	for (uint64_t i = 0; i < types->n; i++) {
		int64_t v = cx_gguf_kv_i64(types, i);
		if (v < CX_TOKEN_NORMAL || v > CX_TOKEN_BYTE)
			return CX_FAIL(l->err, CX_ERR_FORMAT,
				"%s: %s: token %llu has type %lld, not one of 1 to 6", l->label, KEY("token_type"),
				(unsigned long long)i, (long long)v);
		t[i] = (int32_t)v;
	}
	l->d.types = t;
	return CX_OK;
}

/* Control, user and unknown tokens are found as whole strings; all but user tokens only on request.
 */
static cx_status load_added(loader *l)
{
	uint32_t n = 0;
	cx_added *v;
	if (!l->d.types) return CX_OK;
	for (uint32_t i = 0; i < l->d.n_tokens; i++)
		n += l->d.types[i] == CX_TOKEN_CONTROL || l->d.types[i] == CX_TOKEN_USER ||
			 l->d.types[i] == CX_TOKEN_UNKNOWN;
	v = cx_arena_array(&l->arena, n, sizeof *v);
	if (!v) return cx__no_memory(l->err);
	for (uint32_t i = 0; i < l->d.n_tokens; i++) {
		int32_t t = l->d.types[i];
		if (t != CX_TOKEN_CONTROL && t != CX_TOKEN_USER && t != CX_TOKEN_UNKNOWN) continue;
		v[l->d.n_added++] = (cx_added){(int32_t)i, t == CX_TOKEN_USER ? 0 : CX_ADDED_SPECIAL};
	}
	l->d.added = v;
	return CX_OK;
}

static cx_status load_scores(loader *l)
{
	const cx_gguf_kv *kv;
	float *v;
	cx_status st = cx_gguf_array(l->file, KEY("scores"), CX_REQUIRED, CX_GGUF_FLOATS, &kv, l->err);
	if (st != CX_OK) return st;
	if (kv->n != l->d.n_tokens)
		return CX_FAIL(l->err, CX_ERR_FORMAT, "%s: %s has %llu elements, but there are %u tokens",
			l->label, KEY("scores"), (unsigned long long)kv->n, l->d.n_tokens);
	v = cx_arena_array(&l->arena, kv->n, sizeof *v);
	if (!v) return cx__no_memory(l->err);
	for (uint64_t i = 0; i < kv->n; i++) v[i] = (float)cx_gguf_kv_f64(kv, i);
	l->d.scores = v;
	return CX_OK;
}

static cx_status load_merges(loader *l)
{
	const cx_gguf_kv *kv;
	cx_span *v;
	cx_status st = cx_gguf_array(l->file, KEY("merges"), CX_REQUIRED, CX_GGUF_STRINGS, &kv, l->err);
	if (st != CX_OK) return st;
	if (kv->n > UINT32_MAX / 2)
		return CX_FAIL(
			l->err, CX_ERR_FORMAT, "%s: %s has too many elements", l->label, KEY("merges"));
	v = cx_arena_array(&l->arena, kv->n, 2 * sizeof *v);
	if (!v) return cx__no_memory(l->err);
	for (uint64_t i = 0; i < kv->n; i++)
		if (!cx__merge_cut((cx_span){kv->strs[i].ptr, kv->strs[i].len}, &v[2 * i]))
			return CX_FAIL(l->err, CX_ERR_FORMAT,
				"%s: %s: entry %llu is not two tokens and a blank", l->label, KEY("merges"),
				(unsigned long long)i);
	l->d.merges = v;
	l->d.n_merges = (uint32_t)kv->n;
	return CX_OK;
}

/* Absent, -1 and 2^32 - 1 (the same, written unsigned) all mean "none". */
static cx_status load_id(loader *l, const char *key, int32_t *io)
{
	int64_t v = *io;
	cx_status st = cx_gguf_i64(l->file, key, CX_OPTIONAL, -1, UINT32_MAX, &v, l->err);
	if (st != CX_OK) return st;
	if (v == UINT32_MAX) v = -1;
	if (v >= (int64_t)l->d.n_tokens)
		return CX_FAIL(l->err, CX_ERR_FORMAT, "%s: %s is %lld, but there are %u tokens", l->label,
			key, (long long)v, l->d.n_tokens);
	*io = (int32_t)v;
	return CX_OK;
}

static cx_status load_special(loader *l)
{
	cx_special_ids *s = &l->d.special;
	const struct {
		const char *key;
		int32_t *id;
	} ids[] = {
		{KEY("bos_token_id"), &s->bos},
		{KEY("eos_token_id"), &s->eos},
		{KEY("eot_token_id"), &s->eot},
		{KEY("eom_token_id"), &s->eom},
		{KEY("unknown_token_id"), &s->unk},
		{KEY("seperator_token_id"), &s->sep},
		{KEY("separator_token_id"), &s->sep},
		{KEY("cls_token_id"), &s->cls},
		{KEY("padding_token_id"), &s->pad},
		{KEY("mask_token_id"), &s->mask},
		{KEY("fim_pre_token_id"), &s->fim_pre},
		{KEY("fim_suf_token_id"), &s->fim_suf},
		{KEY("fim_mid_token_id"), &s->fim_mid},
		{KEY("fim_pad_token_id"), &s->fim_pad},
		{KEY("fim_rep_token_id"), &s->fim_rep},
		{KEY("fim_sep_token_id"), &s->fim_sep},
	};
	for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++) {
		cx_status st = load_id(l, ids[i].key, ids[i].id);
		if (st != CX_OK) return st;
	}
	return CX_OK;
}

/* ---- the three models ---- */

static cx_status load_spm(loader *l)
{
	cx_norm_step *n = l->norm;
	l->d.model = CX_VOCAB_SCORES;
	l->d.alphabet = CX_ALPHABET_CHARS;
	l->d.byte_fallback = true;
	if (l->d.special.unk < 0)
		for (uint32_t i = 0; l->d.types && i < l->d.n_tokens; i++)
			if (l->d.types[i] == CX_TOKEN_UNKNOWN) l->d.special.unk = (int32_t)i;
	l->add_bos = l->space_prefix = true;
	if (cx_gguf_bool(l->file, KEY("add_space_prefix"), CX_OPTIONAL, &l->space_prefix, l->err) !=
		CX_OK)
		return CX_ERR_FORMAT;
	if (l->space_prefix)
		n[l->d.n_norm++] = (cx_norm_step){.kind = CX_NORM_PREPEND, .a = {"\xE2\x96\x81", 3}};
	n[l->d.n_norm++] =
		(cx_norm_step){.kind = CX_NORM_REPLACE, .a = {" ", 1}, .b = {"\xE2\x96\x81", 3}};
	l->d.drop_space = l->space_prefix;
	return load_scores(l);
}

static cx_status load_bpe(loader *l)
{
	const char *name = NULL;
	cx_pre pre;
	cx_status st = cx_gguf_string(l->file, KEY("pre"), CX_REQUIRED, &name, l->err);
	if (st != CX_OK) return st;
	if (!cx_pre_find(name, strlen(name), &pre))
		return CX_FAIL(l->err, CX_ERR_UNSUPPORTED,
			"%s: %s '%.40s' is not a pre-tokenizer that we know", l->label, KEY("pre"), name);
	l->d.model = CX_VOCAB_MERGES;
	l->d.alphabet = CX_ALPHABET_BYTES;
	l->d.ignore_merges = pre.ignore_merges;
	l->add_bos = pre.add_bos;
	if (pre.nfc) l->norm[l->d.n_norm++] = (cx_norm_step){.kind = CX_NORM_NFC};
	l->d.n_split = cx__pre_steps(&pre, l->split);
	return load_merges(l);
}

static cx_status load_bert(loader *l)
{
	l->d.model = CX_VOCAB_WORDPIECE;
	l->d.alphabet = CX_ALPHABET_CHARS;
	l->d.max_word_chars = 100; /* BERT's own limit; the file has no key for it */
	l->d.drop_space = true;
	/* llama.cpp's accent folding, which whoever uses BERT as GGUF sees: a composed letter becomes
	 * its base letter, and a mark of its own stays (BERT itself drops it; tokenizer.json gives
	 * that). They differ on Hangul and on Indic signs. */
	l->d.n_norm = cx__bert_norm(l->norm, true, true, false, false);
	l->norm[l->d.n_norm++] = (cx_norm_step){.kind = CX_NORM_FIRST_OF_NFD};
	l->norm[l->d.n_norm++] = (cx_norm_step){.kind = CX_NORM_LOWER};
	l->d.n_split = cx__bert_split(l->split);
	l->add_bos = l->add_eos = true;
	return CX_OK;
}

static cx_status load_around(loader *l)
{
	bool bert = l->d.model == CX_VOCAB_WORDPIECE;
	int32_t first = bert && l->d.special.cls >= 0 ? l->d.special.cls : l->d.special.bos;
	int32_t last = bert && l->d.special.sep >= 0 ? l->d.special.sep : l->d.special.eos;
	cx_status st = cx_gguf_bool(l->file, KEY("add_bos_token"), CX_OPTIONAL, &l->add_bos, l->err);
	if (st != CX_OK) return st;
	st = cx_gguf_bool(l->file, bert ? KEY("add_sep_token") : KEY("add_eos_token"), CX_OPTIONAL,
		&l->add_eos, l->err);
	if (st != CX_OK) return st;
	l->around[0] = first;
	l->around[1] = last;
	l->d.prefix = &l->around[0];
	l->d.suffix = &l->around[1];
	l->d.n_prefix = l->add_bos && first >= 0;
	l->d.n_suffix = l->add_eos && last >= 0;
	return CX_OK;
}

static cx_status load(loader *l)
{
	const char *model = NULL;
	cx_status st = cx_gguf_string(l->file, KEY("model"), CX_REQUIRED, &model, l->err);
	if (st != CX_OK) return st;
	if ((st = load_tokens(l)) != CX_OK) return st;
	if ((st = load_special(l)) != CX_OK) return st;
	if ((st = load_added(l)) != CX_OK) return st;
	if (strcmp(model, "llama") == 0) st = load_spm(l);
	else if (strcmp(model, "gpt2") == 0) st = load_bpe(l);
	else if (strcmp(model, "bert") == 0) st = load_bert(l);
	else
		st = CX_FAIL(l->err, CX_ERR_UNSUPPORTED,
			"%s: %s '%.40s' is not a tokenizer that we know (llama, gpt2, bert)", l->label,
			KEY("model"), model);
	if (st != CX_OK) return st;
	l->d.norm = l->norm;
	l->d.split = l->split;
	return load_around(l);
}

cx_status cx_tokenizer_from_gguf(
	const cx_gguf *file, const cx_alloc *alloc, cx_tokenizer **out, cx_err *err)
{
	loader l = {.file = file, .label = cx_gguf_label(file), .err = err};
	cx_status st;
	*out = NULL;
	cx_arena_init(&l.arena, alloc);
	l.d.origin = l.label;
	l.d.special = CX_SPECIAL_IDS_NONE;
	st = load(&l);
	if (st == CX_OK) st = cx_tokenizer_create(&l.d, alloc, out, err);
	cx_arena_deinit(&l.arena);
	return st;
}
