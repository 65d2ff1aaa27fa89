/* test_text_bad.c - tokenizers and bad input: broken files of each kind give one sentence that
 * names the fault, any bytes may be encoded, every failing allocation is survived without a leak.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "models/text/text_impl.h"
#include "tests/text_make.h"

/* ---- tokenizer.json ---- */

#define VOCAB "\"vocab\":{\"a\":0,\"b\":1,\"ab\":2}"
#define MODEL "\"model\":{\"type\":\"BPE\"," VOCAB ",\"merges\":[\"a b\"]}"
#define WITH(what) "{" what "," MODEL "}"
#define MODEL_WITH(what) "{\"model\":{\"type\":\"BPE\"," VOCAB ",\"merges\":[\"a b\"]," what "}}"
#define PRE(what) WITH("\"pre_tokenizer\":" what)

static const struct {
	const char *json;
	cx_status st;
	const char *part; /* of the sentence */
} bad_json[] = {
	{"", CX_ERR_FORMAT, "bad.json"},
	{"[]", CX_ERR_FORMAT, "bad.json"},
	{"{", CX_ERR_FORMAT, "bad.json"},
	{"{}", CX_ERR_FORMAT, "model"},
	{"{\"model\":5}", CX_ERR_FORMAT, "model"},
	{"{\"model\":{}}", CX_ERR_FORMAT, "model.type"},
	{"{\"model\":{\"type\":\"Unigram\"}}", CX_ERR_UNSUPPORTED, "'Unigram'"},
	{"{\"model\":{\"type\":\"BPE\"}}", CX_ERR_FORMAT, "model.vocab"},
	{"{\"model\":{\"type\":\"BPE\",\"vocab\":{}}}", CX_ERR_FORMAT, "merges"},
	{"{\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}", CX_ERR_FORMAT, "empty"},
	{"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0}}}", CX_ERR_FORMAT, "merges"},
	{"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"a\":1},\"merges\":[]}}", CX_ERR_FORMAT,
		"duplicate"},
	{"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}", CX_ERR_FORMAT,
		"id 0"},
	{"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}", CX_ERR_FORMAT,
		"out of range"},
	{"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":2147483647},\"merges\":[]}}", CX_ERR_FORMAT,
		"2147483647"},
	{"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":\"0\"},\"merges\":[]}}", CX_ERR_FORMAT,
		"not an integer"},
	{"{\"model\":{\"type\":\"BPE\"," VOCAB ",\"merges\":[\"a c\"]}}", CX_ERR_FORMAT,
		"the right side is not a token"},
	{"{\"model\":{\"type\":\"BPE\"," VOCAB ",\"merges\":[\"c a\"]}}", CX_ERR_FORMAT,
		"the left side is not a token"},
	{"{\"model\":{\"type\":\"BPE\"," VOCAB ",\"merges\":[\"b a\"]}}", CX_ERR_FORMAT,
		"the result is not a token"},
	{"{\"model\":{\"type\":\"BPE\"," VOCAB ",\"merges\":[\"ab\"]}}", CX_ERR_FORMAT, "merges[0]"},
	{"{\"model\":{\"type\":\"BPE\"," VOCAB ",\"merges\":[[\"a\"]]}}", CX_ERR_FORMAT, "merges[0]"},
	{"{\"model\":{\"type\":\"BPE\"," VOCAB ",\"merges\":[7]}}", CX_ERR_FORMAT, "merges[0]"},
	{"{\"model\":{\"type\":\"BPE\"," VOCAB ",\"merges\":{}}}", CX_ERR_FORMAT, "merges"},
	{MODEL_WITH("\"unk_token\":\"<unk>\""), CX_ERR_FORMAT, "'<unk>'"},
	{MODEL_WITH("\"dropout\":0.1"), CX_ERR_UNSUPPORTED, "dropout"},
	{MODEL_WITH("\"end_of_word_suffix\":\"</w>\""), CX_ERR_UNSUPPORTED, "end_of_word_suffix"},
	{MODEL_WITH("\"byte_fallback\":1"), CX_ERR_FORMAT, "byte_fallback"},
	{"{\"model\":{\"type\":\"WordPiece\"," VOCAB "}}", CX_ERR_FORMAT, "unk_token"},
	{"{\"model\":{\"type\":\"WordPiece\"," VOCAB ",\"unk_token\":\"x\"}}", CX_ERR_FORMAT, "'x'"},
	{WITH("\"added_tokens\":[{\"content\":\"x\"}]"), CX_ERR_FORMAT, "added_tokens"},
	{WITH("\"added_tokens\":[{\"id\":3}]"), CX_ERR_FORMAT, "added_tokens[0].content"},
	{WITH("\"added_tokens\":[3]"), CX_ERR_FORMAT, "added_tokens[0]"},
	{WITH("\"added_tokens\":[{\"id\":-5,\"content\":\"x\"}]"), CX_ERR_FORMAT, "id -5"},
	{WITH("\"added_tokens\":[{\"id\":0,\"content\":\"x\"}]"), CX_ERR_FORMAT, "id 0"},
	{WITH("\"added_tokens\":[{\"id\":4,\"content\":\"a\"}]"), CX_ERR_FORMAT, "tokens 0 and 4"},
	{WITH("\"added_tokens\":[{\"id\":9000000,\"content\":\"x\"}]"), CX_ERR_FORMAT, "9000000"},
	{WITH("\"added_tokens\":[{\"id\":3,\"content\":\"x\",\"special\":\"yes\"}]"), CX_ERR_FORMAT,
		"added_tokens[0].special"},
	{WITH("\"normalizer\":{\"type\":\"Nmt\"}"), CX_ERR_UNSUPPORTED, "normalizer.type 'Nmt'"},
	{WITH("\"normalizer\":{}"), CX_ERR_FORMAT, "normalizer.type"},
	{WITH("\"normalizer\":{\"type\":\"Sequence\"}"), CX_ERR_FORMAT, "normalizers"},
	{WITH("\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[1]}"), CX_ERR_FORMAT,
		"normalizers[0]"},
	{WITH("\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"a\"},\"content\":\"\"}"),
		CX_ERR_UNSUPPORTED, "Regex"},
	{PRE("{\"type\":\"UnicodeScripts\"}"), CX_ERR_UNSUPPORTED,
		"pre_tokenizer.type 'UnicodeScripts'"},
	{PRE("{\"type\":\"Split\",\"behavior\":\"Isolated\"}"), CX_ERR_FORMAT, "pattern"},
	{PRE("{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"},\"behavior\":\"Isolated\"}"),
		CX_ERR_UNSUPPORTED, "parenthesis"},
	{PRE("{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[a&&b]\"},\"behavior\":\"Isolated\"}"),
		CX_ERR_UNSUPPORTED, "&&"},
	{PRE("{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[a[b]]\"},\"behavior\":\"Isolated\"}"),
		CX_ERR_UNSUPPORTED, "class inside"},
	{PRE("{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\"},\"behavior\":\"Isolated\"}"),
		CX_ERR_UNSUPPORTED, "empty"},
	{PRE("{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":\"Sideways\"}"),
		CX_ERR_UNSUPPORTED, "'Sideways'"},
	{PRE("{\"type\":\"Metaspace\",\"replacement\":\"\"}"), CX_ERR_FORMAT, "replacement"},
	{PRE("{\"type\":\"Metaspace\",\"prepend_scheme\":\"last\"}"), CX_ERR_UNSUPPORTED, "'last'"},
	{PRE("{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Odd\"}]}"), CX_ERR_UNSUPPORTED,
		"pretokenizers[0].type 'Odd'"},
	{WITH("\"decoder\":{\"type\":\"CTC\"}"), CX_ERR_UNSUPPORTED, "decoder.type 'CTC'"},
	{WITH("\"decoder\":{\"type\":\"ByteLevel\"}"), CX_ERR_UNSUPPORTED, "ByteLevel"},
	{WITH("\"decoder\":{\"type\":\"Strip\",\"content\":\"x\",\"start\":1}"), CX_ERR_UNSUPPORTED,
		"Strip"},
	{WITH("\"post_processor\":{\"type\":\"Odd\"}"), CX_ERR_UNSUPPORTED,
		"post_processor.type 'Odd'"},
	{WITH("\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"a\"],\"sep\":[\"b\",1]}"),
		CX_ERR_FORMAT, "cls"},
	{WITH("\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"a\",99],\"sep\":[\"b\",1]}"),
		CX_ERR_FORMAT, "99"},
	{WITH("\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{"
		  "\"id\":\"x\"}}],"
		  "\"special_tokens\":{}}"),
		CX_ERR_FORMAT, "special_tokens.x"},
	{WITH("\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[3],\"special_tokens\":{}"
		  "}"),
		CX_ERR_UNSUPPORTED, "single[0]"},
};

static void check_refused(
	cx_status got, cx_status want, const cx_err *err, const cx_tokenizer *tok, const char *part)
{
	if (got != want || !strstr(err->msg, part))
		fail_msg("status %d, want %d; '%s' lacks '%s'", got, want, err->msg, part);
	assert_null(tok);
	assert_true(err->msg[0] && strlen(err->msg) < sizeof err->msg && !strchr(err->msg, '\n'));
}

static void test_bad_json(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof bad_json / sizeof bad_json[0]; i++) {
		cx_hf_files f = {
			.origin = "bad.json", .tokenizer = {bad_json[i].json, strlen(bad_json[i].json)}};
		cx_err err = {0};
		cx_tokenizer *tok = NULL;
		cx_status st = cx_tokenizer_from_json(&f, NULL, &tok, &err);
		check_refused(st, bad_json[i].st, &err, tok, bad_json[i].part);
	}
}

static void test_bad_files(void **state)
{
	const char *path = temp_path("tokenizer.json");
	bytes b = {0};
	cx_err err = {0};
	cx_tokenizer *tok = NULL;
	cx_status st;
	char dir[512];
	(void)state;
	snprintf(dir, sizeof dir, "%s", path);
	*strrchr(dir, '/') = 0;
	st = cx_tokenizer_from_hf(dir, NULL, &tok, &err);
	check_refused(st, CX_ERR_IO, &err, tok, "no tokenizer.json");
	err = (cx_err){0};
	st = cx_tokenizer_from_hf(path, NULL, &tok, &err);
	check_refused(st, CX_ERR_IO, &err, tok, "tokenizer.json");
	bytes_text(
		&b, WITH("\"added_tokens\":[{\"id\":3,\"content\":\"<|im_end|>\",\"special\":true}]"));
	bytes_save(&b, path);
	b.n = 0;
	bytes_text(&b, "{\"eos_token_id\":\"x\"}");
	bytes_save(&b, temp_path("generation_config.json"));
	err = (cx_err){0};
	st = cx_tokenizer_from_hf(dir, NULL, &tok, &err);
	check_refused(st, CX_ERR_FORMAT, &err, tok, "eos_token_id");
	b.n = 0;
	bytes_text(&b, "{\"eos_token_id\":2}");
	bytes_save(&b, temp_path("generation_config.json"));
	bytes_free(&b);
	for (int i = 0; i < 2; i++) { /* the folder, or the file in it: the same tokenizer */
		char *s;
		assert_int_equal(cx_tokenizer_from_hf(i ? path : dir, NULL, &tok, NULL), CX_OK);
		s = ids_of_text(tok, "abba<|im_end|>", CX_ENCODE_PARSE_SPECIAL);
		assert_string_equal(s, " 2 1 0 3");
		assert_true(cx_tokenizer_is_stop(tok, 2) && cx_tokenizer_is_stop(tok, 3) &&
					!cx_tokenizer_is_stop(tok, 1));
		free(s);
		cx_tokenizer_free(tok);
	}
}

/* Nested deeper than any stack should follow. */
static void test_deep_json(void **state)
{
	bytes b = {0};
	cx_err err = {0};
	cx_tokenizer *tok = NULL;
	cx_hf_files f = {.origin = "bad.json"};
	cx_status st;
	(void)state;
	bytes_text(&b, "{" MODEL ",\"normalizer\":");
	for (int i = 0; i < 20; i++) bytes_text(&b, "{\"type\":\"Sequence\",\"normalizers\":[");
	bytes_text(&b, "{\"type\":\"NFC\"}");
	for (int i = 0; i < 20; i++) bytes_text(&b, "]}");
	bytes_text(&b, "}");
	f.tokenizer = (cx_span){(char *)b.p, b.n};
	st = cx_tokenizer_from_json(&f, NULL, &tok, &err);
	check_refused(st, CX_ERR_FORMAT, &err, tok, "nested too deeply");
	b.n = 0;
	for (int i = 0; i < 50000; i++) bytes_text(&b, "[");
	f.tokenizer = (cx_span){(char *)b.p, b.n};
	err = (cx_err){0};
	st = cx_tokenizer_from_json(&f, NULL, &tok, &err);
	check_refused(st, CX_ERR_FORMAT, &err, tok, "bad.json");
	bytes_free(&b);
}

/* A pattern that backtracks without end is an error of that text, not a hang. */
static void test_bad_backtracking(void **state)
{
	static const char json[] = PRE("{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(a+)+$|(?:x|(a|b|"
								   "ab)*)*c\"},\"behavior\":\"Isolated\"}");
	char text[400];
	cx_tokenizer *tok = tok_from_text(json);
	cx_ids ids = {0};
	cx_err err = {0};
	(void)state;
	assert_non_null(tok);
	memset(text, 'a', sizeof text);
	text[sizeof text - 1] = '!';
	assert_int_equal(
		cx_tokenizer_encode(tok, text, sizeof text, 0, &ids, &err), CX_ERR_UNSUPPORTED);
	assert_non_null(strstr(err.msg, "limit"));
	assert_int_equal(ids.n, 0);
	cx_ids_deinit(&ids);
	cx_tokenizer_free(tok);
}

/* ---- GGUF ---- */

struct gguf_parts {
	const char *model, *pre;
	int n_tokens, n_types, n_scores, n_merges; /* -1: the key is absent */
	const char *merge;
	int32_t type0;
	uint32_t eos;
	float score0;
	const char *token1;
	cx_status st;
	const char *part;
};

static const struct gguf_parts good_spm = {
	"llama", NULL, 3, 3, 3, -1, NULL, 1, 1, 0.0f, "b", CX_OK, ""};
static const struct gguf_parts good_bpe = {
	"gpt2", "gpt-2", 3, 3, -1, 1, "a b", 1, 1, 0.0f, "b", CX_OK, ""};

static cx_status open_parts(
	const struct gguf_parts *p, const cx_alloc *a, cx_tokenizer **out, cx_err *err)
{
	bytes b = {0};
	cx_file_map *map = NULL;
	cx_gguf *g = NULL;
	cx_status st;
	gguf_head(&b, 3, 0,
		2u + !!p->model + !!p->pre + (p->n_tokens >= 0) + (p->n_types >= 0) + (p->n_scores >= 0) +
			(p->n_merges >= 0));
	gguf_key_text(&b, "general.architecture", "llama");
	gguf_key_u32(&b, "tokenizer.ggml.eos_token_id", p->eos);
	if (p->model) gguf_key_text(&b, "tokenizer.ggml.model", p->model);
	if (p->pre) gguf_key_text(&b, "tokenizer.ggml.pre", p->pre);
	if (p->n_tokens >= 0)
		gguf_key_array(&b, "tokenizer.ggml.tokens", CX_GGUF_STRING, (uint64_t)p->n_tokens);
	for (int i = 0; i < p->n_tokens; i++) gguf_text(&b, i == 0 ? "a" : i == 1 ? p->token1 : "ab");
	if (p->n_types >= 0)
		gguf_key_array(&b, "tokenizer.ggml.token_type", CX_GGUF_I32, (uint64_t)p->n_types);
	for (int i = 0; i < p->n_types; i++) bytes_u32(&b, i == 0 ? (uint32_t)p->type0 : 1);
	if (p->n_scores >= 0)
		gguf_key_array(&b, "tokenizer.ggml.scores", CX_GGUF_F32, (uint64_t)p->n_scores);
	for (int i = 0; i < p->n_scores; i++) bytes_f32(&b, i == 0 ? p->score0 : -1.0f);
	if (p->n_merges >= 0)
		gguf_key_array(&b, "tokenizer.ggml.merges", CX_GGUF_STRING, (uint64_t)p->n_merges);
	for (int i = 0; i < p->n_merges; i++) gguf_text(&b, p->merge);
	if (cx_file_map_copy(NULL, "bad.gguf", b.p, b.n, &map, NULL) != CX_OK) exit(2);
	if (cx_gguf_open_map(NULL, map, &g, NULL) != CX_OK) exit(2);
	st = cx_tokenizer_from_gguf(g, a, out, err);
	cx_gguf_close(g);
	bytes_free(&b);
	return st;
}

static void check_parts(struct gguf_parts p, cx_status want, const char *part)
{
	cx_err err = {0};
	cx_tokenizer *tok = NULL;
	cx_status st = open_parts(&p, NULL, &tok, &err);
	if (want == CX_OK) {
		assert_int_equal(st, CX_OK);
		cx_tokenizer_free(tok);
	} else {
		check_refused(st, want, &err, tok, part);
	}
}

#define BAD(base, field, value, st, part)                                                          \
	do {                                                                                           \
		struct gguf_parts p = base;                                                                \
		p.field = value;                                                                           \
		check_parts(p, st, part);                                                                  \
	} while (0)

static void test_bad_gguf(void **state)
{
	(void)state;
	check_parts(good_spm, CX_OK, "");
	check_parts(good_bpe, CX_OK, "");
	BAD(good_spm, model, NULL, CX_ERR_FORMAT, "tokenizer.ggml.model");
	BAD(good_spm, model, "t5", CX_ERR_UNSUPPORTED, "'t5'");
	BAD(good_spm, n_tokens, -1, CX_ERR_FORMAT, "tokenizer.ggml.tokens");
	BAD(good_spm, n_tokens, 2, CX_ERR_FORMAT, "token_type has 3 elements");
	BAD(good_spm, n_types, 1, CX_ERR_FORMAT, "token_type");
	BAD(good_spm, n_types, -1, CX_OK, "");
	BAD(good_spm, n_scores, -1, CX_ERR_FORMAT, "tokenizer.ggml.scores");
	BAD(good_spm, n_scores, 1, CX_ERR_FORMAT, "tokenizer.ggml.scores has 1");
	BAD(good_spm, score0, (float)NAN, CX_ERR_FORMAT, "score of token 0");
	BAD(good_spm, score0, (float)INFINITY, CX_ERR_FORMAT, "score of token 0");
	BAD(good_spm, type0, 0, CX_ERR_FORMAT, "type 0");
	BAD(good_spm, type0, 7, CX_ERR_FORMAT, "type 7");
	BAD(good_spm, type0, 6, CX_ERR_FORMAT, "'<0xHH>'");
	BAD(good_spm, eos, 3, CX_ERR_FORMAT, "eos_token_id is 3");
	BAD(good_spm, eos, UINT32_MAX, CX_OK, "");
	BAD(good_spm, token1, "a", CX_ERR_FORMAT, "tokens 0 and 1 are both 'a'");
	BAD(good_spm, token1, "", CX_OK, ""); /* an empty token is never found */
	BAD(good_bpe, pre, NULL, CX_ERR_FORMAT, "tokenizer.ggml.pre");
	BAD(good_bpe, pre, "brand-new", CX_ERR_UNSUPPORTED, "'brand-new'");
	BAD(good_bpe, n_merges, -1, CX_ERR_FORMAT, "tokenizer.ggml.merges");
	BAD(good_bpe, merge, "ab", CX_ERR_FORMAT, "merges: entry 0");
	BAD(good_bpe, merge, "a x", CX_ERR_FORMAT, "'x'");
	BAD(good_bpe, merge, "b a", CX_ERR_FORMAT, "the result");
	struct gguf_parts none = good_spm;
	none.n_tokens = none.n_types = none.n_scores = 0;
	none.eos = UINT32_MAX;
	check_parts(none, CX_ERR_FORMAT, "empty");
}

/* ---- tiktoken ---- */

static void test_bad_tiktoken(void **state)
{
	static const struct {
		const char *text, *pre;
		cx_status st;
		const char *part;
	} cases[] = {
		{"YQ== 0\nYg== 1\nYWI= 2\n", "qwen2", CX_OK, ""},
		{"YQ== 0\r\nYg== 1\r\nYWI= 2", "qwen2", CX_OK, ""},
		{"YQ== 0\n", "no-such", CX_ERR_UNSUPPORTED, "'no-such'"},
		{"", "qwen2", CX_ERR_FORMAT, "empty"},
		{"\n", "qwen2", CX_ERR_FORMAT, "line 1"},
		{"YQ==\n", "qwen2", CX_ERR_FORMAT, "line 1"},
		{"YQ== \n", "qwen2", CX_ERR_FORMAT, "line 1"},
		{"YQ== x\n", "qwen2", CX_ERR_FORMAT, "line 1"},
		{"YQ== 99999999999999999999\n", "qwen2", CX_ERR_FORMAT, "line 1"},
		{"YQ== 0\nYQ= 1\n", "qwen2", CX_ERR_FORMAT, "line 2"},
		{"Y*== 0\n", "qwen2", CX_ERR_FORMAT, "line 1"},
		{"Y=== 0\n", "qwen2", CX_ERR_FORMAT, "line 1"},
		{"=Q== 0\n", "qwen2", CX_ERR_FORMAT, "line 1"},
		{"YR== 0\n", "qwen2", CX_ERR_FORMAT, "line 1"}, /* bits after the end */
		{"YQ==YQ== 0\n", "qwen2", CX_ERR_FORMAT, "line 1"},
		{"YQ== 0\nYg== 0\n", "qwen2", CX_ERR_FORMAT, "rank 0 comes twice"},
		{"YQ== 0\nYg== 2\n", "qwen2", CX_ERR_FORMAT, "rank 2"},
		{"YQ== 0\nYQ== 1\n", "qwen2", CX_ERR_FORMAT, "tokens 0 and 1"},
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		cx_err err = {0};
		cx_tokenizer *tok = NULL;
		cx_status st = cx_tokenizer_from_tiktoken(
			cases[i].text, strlen(cases[i].text), cases[i].pre, "bad.tiktoken", NULL, &tok, &err);
		if (cases[i].st != CX_OK) {
			check_refused(st, cases[i].st, &err, tok, cases[i].part);
			continue;
		}
		assert_int_equal(st, CX_OK);
		char *s = ids_of_text(tok, "abba", 0);
		assert_string_equal(s, " 2 1 0");
		free(s);
		cx_tokenizer_free(tok);
	}
}

/* ---- any bytes are a text; any number is an id or an error ---- */

static void test_bad_utf8(void **state)
{
	/* what is not UTF-8, and what takes its place; Unicode's own examples of maximal parts */
	static const struct {
		const char *in;
		size_t n;
		const char *out;
	} cases[] = {
		{"a\xFF"
		 "b",
			3,
			"a\xEF\xBF\xBD"
			"b"},
		{"\xE2\x82", 2, "\xEF\xBF\xBD"},
		{"\xE2\x82"
		 "a",
			3,
			"\xEF\xBF\xBD"
			"a"},
		{"\xC0\xAF", 2, "\xEF\xBF\xBD\xEF\xBF\xBD"},
		{"\xED\xA0\x80", 3, "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},
		{"\xF4\x90\x80\x80", 4, "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},
		{"\xF1\x80\x80\xE1\x80\xC2"
		 "b",
			7,
			"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"
			"b"},
		{"\x80", 1, "\xEF\xBF\xBD"},
	};
	static char all[256];
	static cx_span tokens[256];
	cx_split_step steps[4];
	cx_vocab_desc d = {.model = CX_VOCAB_IDS,
		.alphabet = CX_ALPHABET_RAW,
		.n_tokens = 256,
		.tokens = tokens,
		.split = steps,
		.special = CX_SPECIAL_IDS_NONE};
	cx_pre pre;
	cx_tokenizer *tok = NULL;
	uint32_t seed = 9;
	(void)state;
	for (int i = 0; i < 256; i++) {
		all[i] = (char)i;
		tokens[i] = (cx_span){&all[i], 1};
	}
	assert_true(cx_pre_find("llama-bpe", 9, &pre));
	d.n_split = cx__pre_steps(&pre, steps);
	assert_int_equal(cx_tokenizer_create(&d, NULL, &tok, NULL), CX_OK);
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		cx_ids ids = {0};
		assert_int_equal(cx_tokenizer_encode(tok, cases[i].in, cases[i].n, 0, &ids, NULL), CX_OK);
		assert_true(decodes_to(tok, &ids, 0, cases[i].out, strlen(cases[i].out)));
		cx_ids_deinit(&ids);
	}
	for (int round = 0; round < 5000;
		 round++) { /* random bytes: the repaired text, and nothing read outside */
		size_t n = (size_t)round % 40;
		char *text = malloc(n ? n : 1);
		cx_text want = {0};
		cx_ids ids = {0};
		assert_non_null(text);
		for (size_t i = 0; i < n; i++) {
			seed = seed * 1664525u + 1013904223u;
			text[i] = (char)(seed >> (seed & 1024 ? 13 : 22));
		}
		assert_int_equal(cx__utf8_repair(text, n, &want, NULL), CX_OK);
		assert_true(cx__utf8_valid(want.v, want.n));
		assert_int_equal(cx_tokenizer_encode(tok, text, n, 0, &ids, NULL), CX_OK);
		assert_int_equal(ids.n, want.n);
		assert_true(decodes_to(tok, &ids, 0, want.v, want.n));
		cx_ids_deinit(&ids);
		cx_text_deinit(&want);
		free(text);
	}
	cx_tokenizer_free(tok);
}

static void test_bad_ids(void **state)
{
	static const int32_t bad[] = {-1, 4, INT32_MAX, INT32_MIN};
	cx_tokenizer *tok = tok_from_text(WITH("\"added_tokens\":[{\"id\":3,\"content\":\"x\"}]"));
	(void)state;
	assert_non_null(tok);
	for (size_t i = 0; i < 4; i++) {
		int32_t ids[2] = {2, bad[i]};
		cx_text out = {0};
		cx_err err = {0};
		assert_int_equal(cx_text_append(&out, "kept", 4, NULL), CX_OK);
		assert_int_equal(cx_tokenizer_decode(tok, ids, 2, 0, &out, &err), CX_ERR_ARGUMENT);
		assert_string_equal(out.v + out.n - 4, "kept");
		assert_int_equal(out.n, 4);
		assert_non_null(strstr(err.msg, "is not a token id"));
		assert_int_equal(cx_tokenizer_token_text(tok, bad[i]).len, 0);
		assert_int_equal(cx_tokenizer_token_bytes(tok, bad[i]).len, 0);
		assert_int_equal(cx_tokenizer_token_type(tok, bad[i]), CX_TOKEN_UNUSED);
		assert_false(cx_tokenizer_is_stop(tok, bad[i]));
		cx_text_deinit(&out);
	}
	assert_int_equal(cx_tokenizer_find(tok, "", 0), -1);
	assert_int_equal(cx_tokenizer_find(tok, "nothing", 7), -1);
	cx_tokenizer_free(tok);
	cx_tokenizer_free(NULL);
}

/* ---- every allocation, failed in turn ---- */

static const char rich_json[] =
	"{\"added_tokens\":[{\"id\":5,\"content\":\"<s>\",\"special\":true},{\"id\":6,\"content\":"
	"\"Q\",\"normalized\":true}],"
	"\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":"
	"\"Lowercase\"},"
	"{\"type\":\"Replace\",\"pattern\":{\"String\":\"z\"},\"content\":\"ab\"}]},"
	"\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\",\"individual_"
	"digits\":true},"
	"{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"use_regex\":true},"
	"{\"type\":\"Split\",\"pattern\":{\"String\":\"c\"},\"behavior\":\"Isolated\"}]},"
	"\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"<s>\",5],\"sep\":[\"<s>\",5]},"
	"\"decoder\":{\"type\":\"ByteLevel\"},"
	"\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"\xC4\xA0\":3,\"c\":4,\"1\":"
	"7},\"merges\":[\"a b\"]}}";

typedef cx_status (*open_fn)(const cx_alloc *a, cx_tokenizer **out, cx_err *err);

static cx_status open_rich(const cx_alloc *a, cx_tokenizer **out, cx_err *err)
{
	cx_hf_files f = {.origin = "made.json", .tokenizer = {rich_json, sizeof rich_json - 1}};
	return cx_tokenizer_from_json(&f, a, out, err);
}

static cx_status open_spm(const cx_alloc *a, cx_tokenizer **out, cx_err *err)
{
	return open_parts(&good_spm, a, out, err);
}
static cx_status open_bpe(const cx_alloc *a, cx_tokenizer **out, cx_err *err)
{
	return open_parts(&good_bpe, a, out, err);
}

static cx_status open_ranks(const cx_alloc *a, cx_tokenizer **out, cx_err *err)
{
	static const char text[] = "YQ== 0\nYg== 1\nYWI= 2\n";
	return cx_tokenizer_from_tiktoken(text, sizeof text - 1, "qwen2", NULL, a, out, err);
}

static cx_status use(open_fn open, const cx_alloc *a, cx_err *err)
{
	static const char text[] = "abc 1Q e\xCC\x81\xFF zab<s>";
	cx_tokenizer *tok = NULL;
	cx_ids ids = {.alloc = *a};
	cx_text out = {.alloc = *a};
	cx_status st = open(a, &tok, err);
	if (st == CX_OK)
		st = cx_tokenizer_encode(
			tok, text, sizeof text - 1, CX_ENCODE_ADD_SPECIAL | CX_ENCODE_PARSE_SPECIAL, &ids, err);
	if (st == CX_OK) st = cx_tokenizer_decode(tok, ids.v, ids.n, CX_DECODE_SPECIAL, &out, err);
	cx_ids_deinit(&ids);
	cx_text_deinit(&out);
	cx_tokenizer_free(tok);
	return st;
}

static void test_every_allocation(void **state)
{
	static const open_fn opens[] = {open_rich, open_spm, open_bpe, open_ranks};
	(void)state;
	for (size_t k = 0; k < sizeof opens / sizeof opens[0]; k++) {
		long n = 0;
		for (;; n++) {
			cx_fault fault = {.countdown = n};
			cx_alloc a = cx_alloc_fault(&fault);
			cx_err err = {0};
			cx_status st = use(opens[k], &a, &err);
			assert_int_equal(fault.n_live, 0);
			assert_int_equal(st, fault.fired ? CX_ERR_MEMORY : CX_OK);
			assert_int_equal(err.code, st);
			if (!fault.fired) break;
		}
		assert_true(n > 10);
		printf("  # vocabulary %zu: %ld allocations failed in turn\n", k, n);
	}
}

/* Inputs for the fuzz target: a file, a zero byte, a text. */
static void make_seed(const char *name, const char *json, const char *text)
{
	bytes b = {0};
	bytes_text(&b, json);
	bytes_u8(&b, 0);
	bytes_text(&b, text);
	fuzz_seed("fuzz_tokenizer", name, &b);
	bytes_free(&b);
}

static void test_seeds(void **state)
{
	(void)state;
	make_seed("rich", rich_json, "abc 1Q e\xCC\x81\xFF zab<s>");
	for (size_t i = 0; i < sizeof bad_json / sizeof bad_json[0]; i++) {
		char name[32];
		snprintf(name, sizeof name, "bad%zu", i);
		make_seed(name, bad_json[i].json, "ab");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bad_json),
		cmocka_unit_test(test_bad_files),
		cmocka_unit_test(test_deep_json),
		cmocka_unit_test(test_bad_backtracking),
		cmocka_unit_test(test_bad_gguf),
		cmocka_unit_test(test_bad_tiktoken),
		cmocka_unit_test(test_bad_utf8),
		cmocka_unit_test(test_bad_ids),
		cmocka_unit_test(test_every_allocation),
		cmocka_unit_test(test_seeds),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
