/* text_make.c - see text_make.h. */
#include "tests/text_make.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/text/text_impl.h"

static void *must(void *p)
{
	if (p) return p;
	fprintf(stderr, "text_make: out of memory\n");
	exit(2);
}

static cx_tokenizer *checked(cx_tokenizer *tok, const cx_err *err)
{
	if (!tok) printf("  # %s\n", err->msg);
	return tok;
}

cx_tokenizer *tok_from_gguf(const char *path)
{
	cx_err err = {0};
	cx_gguf *g = NULL;
	cx_tokenizer *tok = NULL;
	if (cx_gguf_open(NULL, path, &g, &err) == CX_OK) cx_tokenizer_from_gguf(g, NULL, &tok, &err);
	cx_gguf_close(g);
	return checked(tok, &err);
}

cx_tokenizer *tok_from_tiktoken(const char *path, const char *pre)
{
	cx_err err = {0};
	bytes b = bytes_load(path);
	cx_tokenizer *tok = NULL;
	cx_tokenizer_from_tiktoken(b.p, b.n, pre, path, NULL, &tok, &err);
	bytes_free(&b);
	return checked(tok, &err);
}

static cx_span span_of(const char *s)
{
	return (cx_span){s, s ? strlen(s) : 0};
}

cx_tokenizer *tok_from_text_with(const char *json, const char *tokenizer_config,
	const char *generation_config, const char *config)
{
	cx_err err = {0};
	cx_hf_files f = {"made.json", span_of(json), span_of(tokenizer_config),
		span_of(generation_config), span_of(config)};
	cx_tokenizer *tok = NULL;
	cx_tokenizer_from_json(&f, NULL, &tok, &err);
	return checked(tok, &err);
}

cx_tokenizer *tok_from_text(const char *json)
{
	return tok_from_text_with(json, NULL, NULL, NULL);
}

cx_tokenizer *tok_from_json(const json_t *root)
{
	char *text = must(json_dumps(root, JSON_COMPACT));
	cx_tokenizer *tok = tok_from_text(text);
	free(text);
	return tok;
}

char *ids_of(const cx_tokenizer *tok, const char *text, size_t n, unsigned flags)
{
	cx_ids ids = {0};
	cx_err err = {0};
	char *s, *p;
	if (cx_tokenizer_encode(tok, text, n, flags, &ids, &err) != CX_OK) {
		cx_ids_deinit(&ids);
		return must(strdup(err.msg));
	}
	p = s = must(malloc(ids.n * 12 + 1));
	*p = 0;
	for (size_t i = 0; i < ids.n; i++) p += sprintf(p, " %d", ids.v[i]);
	cx_ids_deinit(&ids);
	return s;
}

char *ids_of_text(const cx_tokenizer *tok, const char *text, unsigned flags)
{
	return ids_of(tok, text, strlen(text), flags);
}

char *pieces_of(const cx_tokenizer *tok, const char *text, unsigned flags)
{
	cx_ids ids = {0};
	cx_text out = {0};
	cx_err err = {0};
	cx_status st = cx_tokenizer_encode(tok, text, strlen(text), flags, &ids, &err);
	for (size_t i = 0; st == CX_OK && i < ids.n; i++) {
		cx_span b = cx_tokenizer_token_bytes(tok, ids.v[i]);
		if (i) st = cx_text_append(&out, "|", 1, &err);
		if (st == CX_OK) st = cx_text_append(&out, b.ptr, b.len, &err);
	}
	if (st == CX_OK) st = cx_text_append(&out, "", 0, &err);
	cx_ids_deinit(&ids);
	if (st == CX_OK) return out.v; /* from malloc: the default allocator's */
	cx_text_deinit(&out);
	return must(strdup(err.msg));
}

bool decodes_to(
	const cx_tokenizer *tok, const cx_ids *ids, unsigned flags, const char *text, size_t n)
{
	cx_text out = {0};
	cx_status st = cx_tokenizer_decode(tok, ids->v, ids->n, flags, &out, NULL);
	bool same = st == CX_OK && out.n == n && (n == 0 || memcmp(out.v, text, n) == 0);
	cx_text_deinit(&out);
	return same;
}

void cut(const cx_tokenizer *tok, const char *text, size_t n, char sep, cx_text *out)
{
	cx__encoder e;
	cx_span s = {text, n};
	cx_err err = {0};
	bool mapped;
	int which;
	cx_status st = CX_OK;
	cx__encoder_init(&e, tok, 0, NULL, &err);
	if (!cx__pcre_mem_init(&e.pcre, &e.alloc)) exit(2);
	e.match = must(pcre2_match_data_create(1, e.pcre.ctx));
	st = cx__split_run(&e, &s, true, &which, &mapped);
	for (size_t i = 0; st == CX_OK && i < e.pieces[which].n; i++) {
		cx__piece p = e.pieces[which].v[i];
		if (i) st = cx_text_append(out, &sep, 1, &err);
		if (st == CX_OK) st = cx_text_append(out, s.ptr + p.off, p.len, &err);
	}
	if (st == CX_OK) st = cx_text_append(out, "", 0, &err);
	cx__encoder_deinit(&e);
	if (st == CX_OK) return;
	fprintf(stderr, "text_make: cut: %s\n", err.msg);
	exit(2);
}

/* ---- .inp and .out ---- */

size_t each_string(const char *inp_path, string_fn f, void *ctx)
{
	static const char mark[] = "\n__ggml_vocab_test__\n";
	bytes b = bytes_load(inp_path);
	const char *p = (const char *)b.p, *end = p + b.n;
	size_t n = 0;
	while (p < end) {
		const char *stop = memmem(p, (size_t)(end - p), mark, sizeof mark - 1);
		if (!stop) stop = end;
		f(ctx, n++, p, (size_t)(stop - p));
		p = stop == end ? end : stop + sizeof mark - 1;
	}
	bytes_free(&b);
	return n;
}

struct match {
	const cx_tokenizer *tok;
	const char *p, *end; /* the rest of the .out file */
	size_t good;
};

static void match_one(void *ctx, size_t i, const char *s, size_t n)
{
	struct match *m = ctx;
	const char *nl = m->p < m->end ? memchr(m->p, '\n', (size_t)(m->end - m->p)) : NULL;
	size_t len = (size_t)((nl ? nl : m->end) - m->p);
	char *got = ids_of(m->tok, s, n, 0);
	/* A .out file that ends too early matches nothing, not even the empty string. */
	if (m->p < m->end && strlen(got) == len && memcmp(got, m->p, len) == 0) m->good++;
	else
		printf("  # string %zu '%.*s'\n  #   got %s\n  #   want%.*s\n", i, (int)n, s, got, (int)len,
			m->p);
	free(got);
	m->p = nl ? nl + 1 : m->end;
}

size_t count_matches(
	const cx_tokenizer *tok, const char *inp_path, const char *out_path, size_t *total)
{
	bytes b = bytes_load(out_path);
	struct match m = {tok, (const char *)b.p, (const char *)b.p + b.n, 0};
	*total = each_string(inp_path, match_one, &m);
	bytes_free(&b);
	return m.good;
}

/* ---- vocabularies as tokenizer.json ---- */

static json_t *part(const char *text)
{
	json_error_t e;
	json_t *v = text ? json_loads(text, JSON_DECODE_ANY, &e) : json_null();
	if (!v) fprintf(stderr, "text_make: %s: %s\n", text, e.text);
	return must(v);
}

static json_t *text_value(cx_span s)
{
	return must(json_stringn(s.ptr, s.len));
}

static json_t *file_of(json_t *vocab, json_t *merges, json_t *added, const char *normalizer,
	const char *pre_tokenizer, const char *decoder)
{
	json_t *model = must(json_object()), *root = must(json_object());
	json_object_set_new(model, "type", json_string("BPE"));
	json_object_set_new(model, "vocab", vocab);
	json_object_set_new(model, "merges", merges);
	json_object_set_new(root, "version", json_string("1.0"));
	json_object_set_new(root, "added_tokens", added);
	json_object_set_new(root, "normalizer", part(normalizer));
	json_object_set_new(root, "pre_tokenizer", part(pre_tokenizer));
	json_object_set_new(root, "post_processor", json_null());
	json_object_set_new(root, "decoder", part(decoder));
	json_object_set_new(root, "model", model);
	return root;
}

static json_t *added_token(cx_span text, int32_t id, bool special)
{
	json_t *a = must(json_object());
	json_object_set_new(a, "id", json_integer(id));
	json_object_set_new(a, "content", text_value(text));
	json_object_set_new(a, "special", json_boolean(special));
	json_object_set_new(a, "normalized", json_false());
	json_object_set_new(a, "single_word", json_false());
	json_object_set_new(a, "lstrip", json_false());
	json_object_set_new(a, "rstrip", json_false());
	return a;
}

json_t *json_of_gpt2(const char *path, const char *normalizer, const char *pre_tokenizer)
{
	json_t *vocab = must(json_object()), *merges = must(json_array()), *added = must(json_array());
	cx_gguf *g = NULL;
	const cx_gguf_kv *kv;
	cx_tokenizer *tok = must(tok_from_gguf(path));
	if (cx_gguf_open(NULL, path, &g, NULL) != CX_OK) exit(2);
	for (uint32_t i = 0; i < cx_tokenizer_n_tokens(tok); i++) {
		cx_span s = cx_tokenizer_token_text(tok, (int32_t)i);
		if (cx_tokenizer_token_type(tok, (int32_t)i) == CX_TOKEN_CONTROL)
			json_array_append_new(added, added_token(s, (int32_t)i, true));
		json_object_setn_new(vocab, s.ptr, s.len, json_integer(i));
	}
	kv = cx_gguf_find(g, "tokenizer.ggml.merges");
	for (uint64_t i = 0; i < kv->n; i++)
		json_array_append_new(merges, text_value((cx_span){kv->strs[i].ptr, kv->strs[i].len}));
	cx_gguf_close(g);
	cx_tokenizer_free(tok);
	return file_of(vocab, merges, added, normalizer, pre_tokenizer, "{\"type\":\"ByteLevel\"}");
}

/* The last merge that makes token `id` out of smaller ones: plain BPE on its bytes, with only the
 * ranks below its own. Gives the length of the left part, or 0 for a single byte. */
static size_t last_merge(const cx_tokenizer *tok, cx_span s, int32_t id)
{
	uint32_t end[256], n = (uint32_t)s.len; /* part i ends at end[i] */
	if (n < 2 || n > 256) return 0;
	for (uint32_t i = 0; i < n; i++) end[i] = i + 1;
	while (n > 2) {
		int32_t best = INT32_MAX;
		uint32_t at = 0;
		for (uint32_t i = 0; i + 1 < n; i++) {
			uint32_t from = i ? end[i - 1] : 0;
			int32_t r = cx_tokenizer_find(tok, s.ptr + from, end[i + 1] - from);
			if (r >= 0 && r < best) {
				best = r;
				at = i;
			}
		}
		if (best >= id) return 0; /* not reachable: no merge */
		memmove(&end[at], &end[at + 1], (n - at - 1) * sizeof *end);
		n--;
	}
	return end[0];
}

static json_t *spelled(cx_span s)
{
	cx_text t = {0};
	json_t *v;
	if (cx__alphabet_encode(s.ptr, s.len, &t, NULL) != CX_OK) exit(2);
	v = text_value((cx_span){t.v, t.n});
	cx_text_deinit(&t);
	return v;
}

json_t *json_of_ranks(const cx_tokenizer *tok, const char *normalizer, const char *pre_tokenizer)
{
	json_t *vocab = must(json_object()), *merges = must(json_array());
	for (int32_t i = 0; i < (int32_t)cx_tokenizer_n_tokens(tok); i++) {
		cx_span s = cx_tokenizer_token_text(tok, i);
		size_t left = last_merge(tok, s, i);
		json_t *name = spelled(s);
		json_object_set_new(vocab, json_string_value(name), json_integer(i));
		json_decref(name);
		if (!left) continue;
		json_t *pair = must(json_array());
		json_array_append_new(pair, spelled((cx_span){s.ptr, left}));
		json_array_append_new(pair, spelled((cx_span){s.ptr + left, s.len - left}));
		json_array_append_new(merges, pair);
	}
	return file_of(
		vocab, merges, json_array(), normalizer, pre_tokenizer, "{\"type\":\"ByteLevel\"}");
}

/* ---- SentencePiece: every way to make a token out of two, the best score first ---- */

struct spm_merge {
	double score;
	size_t order;
	cx_span left, right;
};

static int by_score(const void *a, const void *b)
{
	const struct spm_merge *x = a, *y = b;
	if (x->score != y->score) return x->score > y->score ? -1 : 1;
	return x->order < y->order ? -1 : x->order > y->order;
}

static json_t *spm_merges(const cx_tokenizer *tok, const cx_gguf_kv *scores)
{
	json_t *merges = must(json_array());
	struct spm_merge *v = NULL;
	size_t n = 0, cap = 0;
	for (uint32_t i = 0; i < cx_tokenizer_n_tokens(tok); i++) {
		cx_span s = cx_tokenizer_token_text(tok, (int32_t)i);
		if (cx_tokenizer_token_type(tok, (int32_t)i) != CX_TOKEN_NORMAL) continue;
		for (size_t k = 1; k < s.len; k++) {
			int32_t l = cx_tokenizer_find(tok, s.ptr, k),
					r = cx_tokenizer_find(tok, s.ptr + k, s.len - k);
			if (l < 0 || r < 0) continue;
			if (n == cap) v = must(realloc(v, (cap = cap ? 2 * cap : 1024) * sizeof *v));
			v[n] = (struct spm_merge){
				cx_gguf_kv_f64(scores, i), n, {s.ptr, k}, {s.ptr + k, s.len - k}};
			n++;
		}
	}
	if (n) qsort(v, n, sizeof *v, by_score);
	for (size_t i = 0; i < n; i++) {
		json_t *pair = must(json_array());
		json_array_append_new(pair, text_value(v[i].left));
		json_array_append_new(pair, text_value(v[i].right));
		json_array_append_new(merges, pair);
	}
	free(v);
	return merges;
}

json_t *json_of_spm(const char *path)
{
	json_t *vocab = must(json_object()), *added = must(json_array()), *root;
	cx_gguf *g = NULL;
	cx_tokenizer *tok = must(tok_from_gguf(path));
	if (cx_gguf_open(NULL, path, &g, NULL) != CX_OK) exit(2);
	for (uint32_t i = 0; i < cx_tokenizer_n_tokens(tok); i++) {
		cx_span s = cx_tokenizer_token_text(tok, (int32_t)i);
		cx_token_type t = cx_tokenizer_token_type(tok, (int32_t)i);
		if (t == CX_TOKEN_CONTROL || t == CX_TOKEN_UNKNOWN)
			json_array_append_new(added, added_token(s, (int32_t)i, true));
		json_object_setn_new(vocab, s.ptr, s.len, json_integer(i));
	}
	root = file_of(vocab, spm_merges(tok, cx_gguf_find(g, "tokenizer.ggml.scores")), added,
		"{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":"
		"\"\xE2\x96\x81\"},"
		"{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\xE2\x96\x81\"}]}",
		NULL,
		"{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":"
		"\"\xE2\x96\x81\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},"
		"{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]}");
	json_object_set_new(json_object_get(root, "model"), "byte_fallback", json_true());
	json_object_set_new(json_object_get(root, "model"), "fuse_unk", json_true());
	json_object_set_new(json_object_get(root, "model"), "unk_token", json_string("<unk>"));
	cx_gguf_close(g);
	cx_tokenizer_free(tok);
	return root;
}

json_t *json_of_bert(const char *path)
{
	json_t *vocab = must(json_object()), *added = must(json_array()), *root;
	cx_tokenizer *tok = must(tok_from_gguf(path));
	for (uint32_t i = 0; i < cx_tokenizer_n_tokens(tok); i++) {
		cx_span s = cx_tokenizer_token_text(tok, (int32_t)i);
		char name[256];
		if (s.len > 250) exit(2);
		if (cx_tokenizer_token_type(tok, (int32_t)i) == CX_TOKEN_CONTROL) {
			json_array_append_new(added, added_token(s, (int32_t)i, true));
			sprintf(name, "%.*s", (int)s.len, s.ptr);
		} else if (s.len > 3 && memcmp(s.ptr, "\xE2\x96\x81", 3) == 0) {
			sprintf(name, "%.*s", (int)s.len - 3, s.ptr + 3);
		} else {
			sprintf(name, "##%.*s", (int)s.len, s.ptr);
		}
		json_object_set_new(vocab, name, json_integer(i));
	}
	root = file_of(vocab, json_array(), added, "{\"type\":\"BertNormalizer\",\"lowercase\":true}",
		"{\"type\":\"BertPreTokenizer\"}",
		"{\"type\":\"WordPiece\",\"prefix\":\"##\",\"cleanup\":false}");
	json_object_set_new(json_object_get(root, "model"), "type", json_string("WordPiece"));
	json_object_set_new(json_object_get(root, "model"), "unk_token", json_string("[UNK]"));
	cx_tokenizer_free(tok);
	return root;
}
