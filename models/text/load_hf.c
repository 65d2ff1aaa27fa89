/* load_hf.c - a tokenizer from a Hugging Face tokenizer.json and the small files beside it
 * (spec/llm.md 4.1, 4.6).
 *
 * In: JSON. Out: a cx_vocab_desc that points into it, then a tokenizer. An id has one text: an
 * added token may repeat an entry of the vocabulary, anything else that claims an id twice is
 * refused. */
#include "models/text/hf_impl.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum {
	MAX_HOLES = 1 << 16
}; /* ids that no entry claims; a file's ids may not make us allocate without bound */

typedef struct docs {
	json_t *tokenizer, *tokenizer_config, *generation_config, *config;
} docs;

/* ---- tokens ---- */

static cx_status claim(cx__hf *h, cx_span *tokens, int64_t id, cx_span text, const char *what)
{
	if (id < 0 || id >= (int64_t)h->d.n_tokens)
		return CX_FAIL(h->err, CX_ERR_FORMAT, "%s: %s: '%.40s' has id %lld, which is out of range",
			h->label, what, text.ptr, (long long)id);
	if (tokens[id].ptr &&
		(tokens[id].len != text.len || memcmp(tokens[id].ptr, text.ptr, text.len) != 0))
		return CX_FAIL(h->err, CX_ERR_FORMAT,
			"%s: %s: '%.40s' has id %lld, which is that of '%.40s'", h->label, what, text.ptr,
			(long long)id, tokens[id].ptr);
	tokens[id] = text;
	return CX_OK;
}

static cx_status not_an_id(cx__hf *h, const char *what, const char *text)
{
	return CX_FAIL(
		h->err, CX_ERR_FORMAT, "%s: %s: the id of '%.40s' is not an integer", h->label, what, text);
}

/* The token count: one more than the highest id. */
static cx_status count_tokens(cx__hf *h, json_t *vocab, const json_t *added)
{
	int64_t top = -1, id,
			limit = 2 * (int64_t)(json_object_size(vocab) + json_array_size(added)) + MAX_HOLES;
	const char *text;
	json_t *v;
	json_object_foreach(vocab, text, v)
	{
		if (!cx_json_is_i64(v, &id)) return not_an_id(h, "model.vocab", text);
		if (id > top) top = id;
	}
	for (size_t i = 0; i < json_array_size(added); i++) {
		const json_t *a = json_array_get(added, i);
		text = json_string_value(json_object_get(a, "content"));
		if (!text)
			return CX_FAIL(h->err, CX_ERR_FORMAT,
				"%s: added_tokens[%zu].content is missing or no text", h->label, i);
		if (!cx_json_is_i64(json_object_get(a, "id"), &id))
			return not_an_id(h, "added_tokens", text);
		if (id > top) top = id;
	}
	if (top >= limit)
		return CX_FAIL(h->err, CX_ERR_FORMAT,
			"%s: the highest token id is %lld, with only %zu tokens", h->label, (long long)top,
			json_object_size(vocab) + json_array_size(added));
	h->d.n_tokens = (uint32_t)(top + 1);
	return CX_OK;
}

static cx_status read_added(cx__hf *h, const json_t *added, cx_span *tokens, int32_t *types)
{
	static const struct {
		const char *field;
		unsigned flag;
	} flags[] = {
		{"special", CX_ADDED_SPECIAL},
		{"normalized", CX_ADDED_NORMALIZED},
		{"lstrip", CX_ADDED_LSTRIP},
		{"rstrip", CX_ADDED_RSTRIP},
		{"single_word", CX_ADDED_SINGLE_WORD},
	};
	size_t n = json_array_size(added);
	cx_added *v = cx_arena_array(&h->arena, n, sizeof *v);
	if (!v) return cx__no_memory(h->err);
	for (size_t i = 0; i < n; i++) {
		cx_json_at at = {.file = h->label, .obj = json_array_get(added, i)};
		const json_t *content = json_object_get(at.obj, "content");
		cx_span text = {json_string_value(content), json_string_length(content)};
		int64_t id = -1;
		cx_status st;
		snprintf(at.where, sizeof at.where, "added_tokens[%zu].", i);
		cx_json_is_i64(json_object_get(at.obj, "id"), &id);
		if ((st = claim(h, tokens, id, text, "added_tokens")) != CX_OK) return st;
		v[i].id = (int32_t)id;
		for (size_t k = 0; k < sizeof flags / sizeof flags[0]; k++) {
			bool on = flags[k].flag == CX_ADDED_NORMALIZED &&
					  !(v[i].flags & CX_ADDED_SPECIAL); /* its default */
			if ((st = cx_json_bool(&at, flags[k].field, CX_OPTIONAL, &on, h->err)) != CX_OK)
				return st;
			if (on) v[i].flags |= flags[k].flag;
		}
		types[id] = v[i].flags & CX_ADDED_SPECIAL ? CX_TOKEN_CONTROL : CX_TOKEN_USER;
	}
	h->d.added = v;
	h->d.n_added = (uint32_t)n;
	return CX_OK;
}

static bool byte_token(cx_span s)
{
	return s.len == 6 && memcmp(s.ptr, "<0x", 3) == 0 && s.ptr[5] == '>' &&
		   strspn(s.ptr + 3, "0123456789ABCDEFabcdef") == 2;
}

static cx_status read_tokens(cx__hf *h, json_t *vocab, const json_t *added)
{
	cx_span *tokens;
	int32_t *types;
	const char *text;
	json_t *v;
	cx_status st = count_tokens(h, vocab, added);
	if (st != CX_OK) return st;
	tokens = cx_arena_array(&h->arena, h->d.n_tokens, sizeof *tokens);
	types = cx_arena_array(&h->arena, h->d.n_tokens, sizeof *types);
	if (!tokens || !types) return cx__no_memory(h->err);
	json_object_foreach(vocab, text, v)
	{
		int64_t id = -1;
		cx_json_is_i64(v, &id);
		if ((st = claim(h, tokens, id, (cx_span){text, strlen(text)}, "model.vocab")) != CX_OK)
			return st;
		types[id] = h->d.byte_fallback && byte_token(tokens[id]) ? CX_TOKEN_BYTE : CX_TOKEN_NORMAL;
	}
	if ((st = read_added(h, added, tokens, types)) != CX_OK) return st;
	st = cx__token_map_init(&h->by_text, &h->arena, h->d.n_tokens, h->err);
	if (st != CX_OK) return st;
	for (uint32_t i = 0; i < h->d.n_tokens; i++) {
		if (tokens[i].len) cx__token_map_add(&h->by_text, tokens[i].ptr, tokens[i].len, (int32_t)i);
		else types[i] = CX_TOKEN_UNUSED; /* a hole */
	}
	h->d.tokens = tokens;
	h->d.types = types;
	return CX_OK;
}

/* ---- model ---- */

static cx_status read_merges(cx__hf *h, const cx_json_at *model)
{
	const json_t *list = NULL;
	cx_span *v;
	size_t n;
	cx_status st = cx_json_array(model, "merges", CX_REQUIRED, &list, h->err);
	if (st != CX_OK) return st;
	n = json_array_size(list);
	v = cx_arena_array(&h->arena, n, 2 * sizeof *v);
	if (!v || n > UINT32_MAX / 2) return cx__no_memory(h->err);
	for (size_t i = 0; i < n; i++) {
		const json_t *m = json_array_get(list, i), *a = json_array_get(m, 0),
					 *b = json_array_get(m, 1);
		cx_span *out = &v[2 * i];
		if (json_is_string(m) &&
			cx__merge_cut((cx_span){json_string_value(m), json_string_length(m)}, out))
			continue;
		if (json_array_size(m) != 2 || !json_is_string(a) || !json_is_string(b))
			return CX_FAIL(h->err, CX_ERR_FORMAT,
				"%s: model.merges[%zu] is neither \"left right\" nor a pair", h->label, i);
		out[0] = (cx_span){json_string_value(a), json_string_length(a)};
		out[1] = (cx_span){json_string_value(b), json_string_length(b)};
	}
	h->d.merges = v;
	h->d.n_merges = (uint32_t)n;
	return CX_OK;
}

static cx_status refuse_field(cx__hf *h, const cx_json_at *model, const char *field)
{
	const json_t *v = json_object_get(model->obj, field);
	bool none = !v || json_is_null(v) || (json_is_string(v) && json_string_length(v) == 0) ||
				(json_is_number(v) && json_number_value(v) == 0.0);
	return none ? CX_OK
				: CX_FAIL(
					  h->err, CX_ERR_UNSUPPORTED, "%s: model.%s is not supported", h->label, field);
}

static cx_status read_unk(cx__hf *h, const cx_json_at *model, cx_need need)
{
	const char *unk = NULL;
	cx_status st = cx_json_string(model, "unk_token", need, &unk, h->err);
	if (st != CX_OK || !unk || !*unk) return st;
	h->d.special.unk = cx__token_map_find(&h->by_text, unk, strlen(unk));
	if (h->d.special.unk < 0)
		return CX_FAIL(
			h->err, CX_ERR_FORMAT, "%s: model.unk_token '%.40s' is not a token", h->label, unk);
	return CX_OK;
}

static cx_status read_bpe(cx__hf *h, const cx_json_at *model, json_t *vocab, const json_t *added)
{
	static const char *const refused[] = {
		"dropout", "continuing_subword_prefix", "end_of_word_suffix"};
	cx_status st = CX_OK;
	h->d.model = CX_VOCAB_MERGES;
	for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
		if ((st = refuse_field(h, model, refused[i])) != CX_OK) return st;
	if ((st = cx_json_bool(model, "byte_fallback", CX_OPTIONAL, &h->d.byte_fallback, h->err)) !=
		CX_OK)
		return st;
	if ((st = cx_json_bool(model, "fuse_unk", CX_OPTIONAL, &h->d.fuse_unk, h->err)) != CX_OK)
		return st;
	if ((st = cx_json_bool(model, "ignore_merges", CX_OPTIONAL, &h->d.ignore_merges, h->err)) !=
		CX_OK)
		return st;
	if ((st = read_tokens(h, vocab, added)) != CX_OK) return st;
	if ((st = read_unk(h, model, CX_OPTIONAL)) != CX_OK) return st;
	return read_merges(h, model);
}

static cx_status read_wordpiece(
	cx__hf *h, const cx_json_at *model, json_t *vocab, const json_t *added)
{
	const char *mark = "##";
	int64_t chars = 100;
	cx_status st;
	h->d.model = CX_VOCAB_WORDPIECE;
	if ((st = cx_json_string(model, "continuing_subword_prefix", CX_OPTIONAL, &mark, h->err)) !=
		CX_OK)
		return st;
	if ((st = cx_json_i64(model, "max_input_chars_per_word", CX_OPTIONAL, 1, UINT32_MAX, &chars,
			 h->err)) != CX_OK)
		return st;
	if (!*mark)
		return CX_FAIL(
			h->err, CX_ERR_UNSUPPORTED, "%s: model.continuing_subword_prefix is empty", h->label);
	h->d.continuation = (cx_span){mark, strlen(mark)};
	h->d.max_word_chars = (uint32_t)chars;
	if ((st = read_tokens(h, vocab, added)) != CX_OK) return st;
	return read_unk(h, model, CX_REQUIRED);
}

static cx_status read_model(cx__hf *h, const cx_json_at *root)
{
	const char *type = NULL;
	const json_t *added = NULL;
	cx_json_at model, vocab;
	cx_status st;
	if ((st = cx_json_object(root, "model", CX_REQUIRED, &model, h->err)) != CX_OK) return st;
	if ((st = cx_json_string(&model, "type", CX_REQUIRED, &type, h->err)) != CX_OK) return st;
	if (strcmp(type, "BPE") != 0 && strcmp(type, "WordPiece") != 0)
		return CX_FAIL(h->err, CX_ERR_UNSUPPORTED,
			"%s: model.type '%.40s' is not supported (BPE, WordPiece)", h->label, type);
	if ((st = cx_json_object(&model, "vocab", CX_REQUIRED, &vocab, h->err)) != CX_OK) return st;
	if ((st = cx_json_array(root, "added_tokens", CX_OPTIONAL, &added, h->err)) != CX_OK) return st;
	return strcmp(type, "BPE") == 0 ? read_bpe(h, &model, (json_t *)vocab.obj, added)
									: read_wordpiece(h, &model, (json_t *)vocab.obj, added);
}

/* ---- the files beside it ---- */

/* A text, or {"content": text}; an unknown or absent one leaves *io alone. */
static void named_token(const cx__hf *h, const json_t *config, const char *field, int32_t *io)
{
	const json_t *v = json_object_get(config, field);
	const char *text = json_string_value(json_is_object(v) ? json_object_get(v, "content") : v);
	int32_t id = text && *text ? cx__token_map_find(&h->by_text, text, strlen(text)) : -1;
	if (id >= 0) *io = id;
}

static void token_by_text(const cx__hf *h, const char *text, int32_t *io)
{
	int32_t id = cx__token_map_find(&h->by_text, text, strlen(text));
	if (*io < 0) *io = id;
}

static cx_status read_tokenizer_config(cx__hf *h, const json_t *config)
{
	cx_special_ids *s = &h->d.special;
	cx_json_at at;
	bool bos = false, eos = false;
	cx_status st;
	token_by_text(h, "<|eot_id|>", &s->eot);
	token_by_text(h, "<|eom_id|>", &s->eom);
	token_by_text(h, "<|fim_prefix|>", &s->fim_pre);
	token_by_text(h, "<|fim_suffix|>", &s->fim_suf);
	token_by_text(h, "<|fim_middle|>", &s->fim_mid);
	token_by_text(h, "<|fim_pad|>", &s->fim_pad);
	token_by_text(h, "<|repo_name|>", &s->fim_rep);
	token_by_text(h, "<|file_sep|>", &s->fim_sep);
	if (!config) return CX_OK;
	named_token(h, config, "bos_token", &s->bos);
	named_token(h, config, "eos_token", &s->eos);
	named_token(h, config, "sep_token", &s->sep);
	named_token(h, config, "cls_token", &s->cls);
	named_token(h, config, "pad_token", &s->pad);
	named_token(h, config, "mask_token", &s->mask);
	if ((st = cx_json_root("tokenizer_config.json", config, &at, h->err)) != CX_OK) return st;
	if ((st = cx_json_bool(&at, "add_bos_token", CX_OPTIONAL, &bos, h->err)) != CX_OK) return st;
	if ((st = cx_json_bool(&at, "add_eos_token", CX_OPTIONAL, &eos, h->err)) != CX_OK) return st;
	/* The post-processor has the first word; the flags speak where it says nothing. */
	if (bos && s->bos >= 0 && h->d.n_prefix == 0) h->prefix[h->d.n_prefix++] = s->bos;
	if (eos && s->eos >= 0 && h->d.n_suffix == 0) h->suffix[h->d.n_suffix++] = s->eos;
	return CX_OK;
}

static cx_status read_stop(cx__hf *h, const char *file, const json_t *config, const char *inner)
{
	cx_json_at at, in;
	int64_t ids[CX__HF_AROUND];
	size_t n = 0;
	cx_status st;
	if (!config) return CX_OK;
	if ((st = cx_json_root(file, config, &at, h->err)) != CX_OK) return st;
	if (inner) {
		if ((st = cx_json_object(&at, inner, CX_OPTIONAL, &in, h->err)) != CX_OK || !in.obj)
			return st;
		at = in;
	}
	st = cx_json_i64s(
		&at, "eos_token_id", CX_OPTIONAL, -1, INT32_MAX, CX__HF_AROUND, ids, &n, h->err);
	for (size_t i = 0; st == CX_OK && i < n && h->d.n_stop < CX__HF_STOP; i++)
		h->stop[h->d.n_stop++] = (int32_t)ids[i];
	return st;
}

static cx_status read_all(cx__hf *h, const docs *docs)
{
	cx_json_at root;
	cx_status st;
	if ((st = cx_json_root(h->label, docs->tokenizer, &root, h->err)) != CX_OK) return st;
	if ((st = read_model(h, &root)) != CX_OK) return st;
	if ((st = cx__hf_normalizer(h, &root)) != CX_OK) return st;
	if ((st = cx__hf_pre_tokenizer(h, &root)) != CX_OK) return st;
	if ((st = cx__hf_post_processor(h, &root)) != CX_OK) return st;
	if ((st = cx__hf_decoder(h, &root)) != CX_OK) return st;
	if (h->decoder_bytes && !h->pre_bytes)
		return CX_FAIL(h->err, CX_ERR_UNSUPPORTED,
			"%s: decoder ByteLevel without a ByteLevel pre-tokenizer", h->label);
	h->d.alphabet = h->pre_bytes ? CX_ALPHABET_BYTES : CX_ALPHABET_CHARS;
	if ((st = read_tokenizer_config(h, docs->tokenizer_config)) != CX_OK) return st;
	if ((st = read_stop(h, "generation_config.json", docs->generation_config, NULL)) != CX_OK)
		return st;
	if ((st = read_stop(h, "config.json", docs->config, NULL)) != CX_OK) return st;
	return read_stop(h, "config.json", docs->config, "text_config");
}

static cx_status from_docs(
	const char *label, const docs *docs, const cx_alloc *alloc, cx_tokenizer **out, cx_err *err)
{
	cx__hf *h = cx_calloc(alloc, 1, sizeof *h);
	cx_status st;
	if (!h) return cx__no_memory(err);
	cx_arena_init(&h->arena, alloc);
	h->label = label;
	h->err = err;
	h->d.origin = label;
	h->d.special = CX_SPECIAL_IDS_NONE;
	h->d.norm = h->norm;
	h->d.split = h->split;
	h->d.prefix = h->prefix;
	h->d.suffix = h->suffix;
	h->d.stop = h->stop;
	st = read_all(h, docs);
	if (st == CX_OK) st = cx_tokenizer_create(&h->d, alloc, out, err);
	cx_arena_deinit(&h->arena);
	cx_free(alloc, h, sizeof *h);
	return st;
}

static void close_docs(docs *d)
{
	json_decref(d->tokenizer);
	json_decref(d->tokenizer_config);
	json_decref(d->generation_config);
	json_decref(d->config);
}

cx_status cx_tokenizer_from_json(
	const cx_hf_files *f, const cx_alloc *alloc, cx_tokenizer **out, cx_err *err)
{
	docs d = {NULL, NULL, NULL, NULL};
	const char *label = f->origin ? cx_path_tail(f->origin) : "tokenizer.json";
	cx_status st;
	*out = NULL;
	st = cx_json_parse(label, f->tokenizer.ptr, f->tokenizer.len, &d.tokenizer, err);
	if (st == CX_OK && f->tokenizer_config.ptr)
		st = cx_json_parse("tokenizer_config.json", f->tokenizer_config.ptr,
			f->tokenizer_config.len, &d.tokenizer_config, err);
	if (st == CX_OK && f->generation_config.ptr)
		st = cx_json_parse("generation_config.json", f->generation_config.ptr,
			f->generation_config.len, &d.generation_config, err);
	if (st == CX_OK && f->config.ptr)
		st = cx_json_parse("config.json", f->config.ptr, f->config.len, &d.config, err);
	if (st == CX_OK) st = from_docs(label, &d, alloc, out, err);
	close_docs(&d);
	return st;
}

/* A file that may be absent: beside `path`, or in it. */
static cx_status load_beside(
	const cx_alloc *a, const char *path, bool is_dir, const char *name, json_t **out, cx_err *err)
{
	char *p = is_dir ? cx_path_join(a, path, name) : cx_path_sibling(a, path, name);
	struct stat sb;
	cx_status st = CX_OK;
	if (!p) return cx__no_memory(err);
	if (stat(p, &sb) == 0) st = cx_json_load(a, p, out, err);
	cx_free(a, p, strlen(p) + 1);
	return st;
}

cx_status cx_tokenizer_from_hf(
	const char *path, const cx_alloc *alloc, cx_tokenizer **out, cx_err *err)
{
	docs d = {NULL, NULL, NULL, NULL};
	const char *label = cx_path_tail(path);
	struct stat sb;
	bool is_dir = stat(path, &sb) == 0 && S_ISDIR(sb.st_mode);
	cx_status st;
	*out = NULL;
	if (is_dir) st = load_beside(alloc, path, true, "tokenizer.json", &d.tokenizer, err);
	else st = cx_json_load(alloc, path, &d.tokenizer, err);
	if (st == CX_OK && !d.tokenizer)
		st = CX_FAIL(err, CX_ERR_IO, "%s: the folder has no tokenizer.json", label);
	if (st == CX_OK)
		st = load_beside(alloc, path, is_dir, "tokenizer_config.json", &d.tokenizer_config, err);
	if (st == CX_OK)
		st = load_beside(alloc, path, is_dir, "generation_config.json", &d.generation_config, err);
	if (st == CX_OK) st = load_beside(alloc, path, is_dir, "config.json", &d.config, err);
	if (st == CX_OK) st = from_docs(label, &d, alloc, out, err);
	close_docs(&d);
	return st;
}
