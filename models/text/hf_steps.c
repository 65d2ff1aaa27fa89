/* hf_steps.c - the normalizer, pre_tokenizer, post_processor and decoder sections of a
 * tokenizer.json.
 *
 * Every kind is an object with a "type"; Sequence holds others. What is not in one of the tables
 * here is refused by its name and place. Room for steps is fixed (48): the longest known file
 * has 5. */
#include "models/text/hf_impl.h"

#include <stdio.h>
#include <string.h>

typedef cx_status (*hf_step)(cx__hf *h, const cx_json_at *at, int depth);
struct hf_row {
	const char *type;
	hf_step read;
};

/* Reads "type" and calls its row. section names the four kinds in messages: "normalizer". */
static cx_status dispatch(
	cx__hf *h, const cx_json_at *at, const struct hf_row *rows, size_t n, int depth)
{
	const char *type = NULL;
	cx_status st = cx_json_string(at, "type", CX_REQUIRED, &type, h->err);
	if (st != CX_OK) return st;
	if (depth > CX__HF_DEPTH)
		return CX_FAIL(
			h->err, CX_ERR_FORMAT, "%s: %sSequence is nested too deeply", h->label, at->where);
	for (size_t i = 0; i < n; i++)
		if (strcmp(rows[i].type, type) == 0) return rows[i].read(h, at, depth);
	return CX_FAIL(h->err, CX_ERR_UNSUPPORTED, "%s: %stype '%.40s' is not supported", h->label,
		at->where, type);
}

/* The items of an array field of objects, each through dispatch. */
static cx_status sequence(cx__hf *h, const cx_json_at *at, const char *field,
	const struct hf_row *rows, size_t n, int depth)
{
	const json_t *items = NULL;
	cx_status st = cx_json_array(at, field, CX_REQUIRED, &items, h->err);
	for (size_t i = 0; st == CX_OK && i < json_array_size(items); i++) {
		cx_json_at item = {.file = at->file, .obj = json_array_get(items, i)};
		snprintf(item.where, sizeof item.where, "%.60s%s[%zu].", at->where, field, i);
		if (!json_is_object(item.obj))
			return CX_FAIL(h->err, CX_ERR_FORMAT, "%s: %.60s%s[%zu] is not an object", h->label,
				at->where, field, i);
		st = dispatch(h, &item, rows, n, depth + 1);
	}
	return st;
}

static cx_status section(
	cx__hf *h, const cx_json_at *root, const char *name, const struct hf_row *rows, size_t n)
{
	cx_json_at at;
	cx_status st = cx_json_object(root, name, CX_OPTIONAL, &at, h->err);
	if (st != CX_OK || !at.obj) return st;
	return dispatch(h, &at, rows, n, 0);
}

static cx_span string_span(const char *s)
{
	return (cx_span){s, strlen(s)};
} /* the reader refuses "\u0000" */

static cx_status ignore(cx__hf *h, const cx_json_at *at, int depth)
{
	(void)h;
	(void)at;
	(void)depth;
	return CX_OK;
}

/* {"String": s} or {"Regex": s}. */
static cx_status read_pattern(cx__hf *h, const cx_json_at *at, cx_span *out, bool *regex)
{
	const char *s = NULL;
	cx_json_at p;
	cx_status st = cx_json_object(at, "pattern", CX_REQUIRED, &p, h->err);
	if (st != CX_OK) return st;
	*regex = json_object_get(p.obj, "Regex") != NULL;
	st = cx_json_string(&p, *regex ? "Regex" : "String", CX_REQUIRED, &s, h->err);
	if (st == CX_OK) *out = string_span(s);
	return st;
}

/* ---- normalizer ---- */

static cx_status add_norm(cx__hf *h, cx_norm_step step)
{
	if (h->d.n_norm == CX__HF_STEPS)
		return CX_FAIL(h->err, CX_ERR_UNSUPPORTED, "%s: too many normalizer steps", h->label);
	h->norm[h->d.n_norm++] = step;
	return CX_OK;
}

#define NORM_ROW(name, k)                                                                          \
	static cx_status norm_##name(cx__hf *h, const cx_json_at *at, int depth)                       \
	{                                                                                              \
		(void)at;                                                                                  \
		(void)depth;                                                                               \
		return add_norm(h, (cx_norm_step){.kind = k});                                             \
	}
NORM_ROW(nfc, CX_NORM_NFC)
NORM_ROW(nfd, CX_NORM_NFD)
NORM_ROW(nfkc, CX_NORM_NFKC)
NORM_ROW(nfkd, CX_NORM_NFKD)
NORM_ROW(lower, CX_NORM_LOWER)
NORM_ROW(marks, CX_NORM_STRIP_MARKS)
#undef NORM_ROW

static cx_status norm_strip(cx__hf *h, const cx_json_at *at, int depth)
{
	bool left = true, right = true;
	cx_status st;
	(void)depth;
	if ((st = cx_json_bool(at, "strip_left", CX_OPTIONAL, &left, h->err)) != CX_OK) return st;
	if ((st = cx_json_bool(at, "strip_right", CX_OPTIONAL, &right, h->err)) != CX_OK) return st;
	return add_norm(h, (cx_norm_step){.kind = CX_NORM_STRIP, .a = {"l", left}, .b = {"r", right}});
}

static cx_status norm_prepend(cx__hf *h, const cx_json_at *at, int depth)
{
	const char *s = NULL;
	cx_status st = cx_json_string(at, "prepend", CX_REQUIRED, &s, h->err);
	(void)depth;
	return st == CX_OK ? add_norm(h, (cx_norm_step){.kind = CX_NORM_PREPEND, .a = string_span(s)})
					   : st;
}

static cx_status norm_replace(cx__hf *h, const cx_json_at *at, int depth)
{
	const char *to = NULL;
	cx_span from = {NULL, 0};
	bool regex = false;
	cx_status st = cx_json_string(at, "content", CX_REQUIRED, &to, h->err);
	(void)depth;
	if (st == CX_OK) st = read_pattern(h, at, &from, &regex);
	if (st != CX_OK) return st;
	if (regex)
		return CX_FAIL(h->err, CX_ERR_UNSUPPORTED, "%s: %sReplace with a Regex is not supported",
			h->label, at->where);
	return add_norm(h, (cx_norm_step){.kind = CX_NORM_REPLACE, .a = from, .b = string_span(to)});
}

static cx_status norm_bert(cx__hf *h, const cx_json_at *at, int depth)
{
	bool clean = true, cjk = true, lower = true, accents;
	cx_norm_step steps[5];
	uint32_t n;
	cx_status st;
	(void)depth;
	if ((st = cx_json_bool(at, "clean_text", CX_OPTIONAL, &clean, h->err)) != CX_OK) return st;
	if ((st = cx_json_bool(at, "handle_chinese_chars", CX_OPTIONAL, &cjk, h->err)) != CX_OK)
		return st;
	if ((st = cx_json_bool(at, "lowercase", CX_OPTIONAL, &lower, h->err)) != CX_OK) return st;
	accents = lower; /* null follows lowercase */
	if ((st = cx_json_bool(at, "strip_accents", CX_OPTIONAL, &accents, h->err)) != CX_OK) return st;
	n = cx__bert_norm(steps, clean, cjk, accents, lower);
	for (uint32_t i = 0; i < n && st == CX_OK; i++) st = add_norm(h, steps[i]);
	return st;
}

static cx_status norm_sequence(cx__hf *h, const cx_json_at *at, int depth);
static const struct hf_row norms[] = {
	{"Sequence", norm_sequence},
	{"NFC", norm_nfc},
	{"NFD", norm_nfd},
	{"NFKC", norm_nfkc},
	{"NFKD", norm_nfkd},
	{"Lowercase", norm_lower},
	{"StripAccents", norm_marks},
	{"Strip", norm_strip},
	{"Prepend", norm_prepend},
	{"Replace", norm_replace},
	{"BertNormalizer", norm_bert},
};
enum { N_NORMS = sizeof norms / sizeof norms[0] };

static cx_status norm_sequence(cx__hf *h, const cx_json_at *at, int depth)
{
	return sequence(h, at, "normalizers", norms, N_NORMS, depth);
}

cx_status cx__hf_normalizer(cx__hf *h, const cx_json_at *root)
{
	return section(h, root, "normalizer", norms, N_NORMS);
}

/* ---- pre_tokenizer ---- */

static cx_status add_split(cx__hf *h, cx_split_step step)
{
	if (h->d.n_split == CX__HF_STEPS)
		return CX_FAIL(h->err, CX_ERR_UNSUPPORTED, "%s: too many pre-tokenizer steps", h->label);
	h->split[h->d.n_split++] = step;
	return CX_OK;
}

static cx_status add_regex(cx__hf *h, const char *pattern, cx_split_how how, bool invert)
{
	return add_split(h,
		(cx_split_step){
			.kind = CX_SPLIT_REGEX, .pattern = string_span(pattern), .how = how, .invert = invert});
}

static cx_status read_behavior(cx__hf *h, const cx_json_at *at, cx_split_how *out)
{
	static const struct {
		const char *name;
		cx_split_how how;
	} names[] = {
		{"Isolated", CX_SPLIT_ISOLATED},
		{"Removed", CX_SPLIT_REMOVED},
		{"Contiguous", CX_SPLIT_CONTIGUOUS},
		{"MergedWithPrevious", CX_SPLIT_PREVIOUS},
		{"MergedWithNext", CX_SPLIT_NEXT},
	};
	const char *s = "Isolated";
	cx_status st = cx_json_string(at, "behavior", CX_OPTIONAL, &s, h->err);
	if (st != CX_OK) return st;
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
		if (strcmp(names[i].name, s) == 0) {
			*out = names[i].how;
			return CX_OK;
		}
	return CX_FAIL(h->err, CX_ERR_UNSUPPORTED, "%s: %sbehavior '%.40s' is not supported", h->label,
		at->where, s);
}

static cx_status pre_split(cx__hf *h, const cx_json_at *at, int depth)
{
	cx_split_step s = {.kind = CX_SPLIT_REGEX};
	bool regex = false;
	cx_status st;
	(void)depth;
	if ((st = read_pattern(h, at, &s.pattern, &regex)) != CX_OK) return st;
	if ((st = read_behavior(h, at, &s.how)) != CX_OK) return st;
	if ((st = cx_json_bool(at, "invert", CX_OPTIONAL, &s.invert, h->err)) != CX_OK) return st;
	if (!regex) s.kind = CX_SPLIT_LITERAL;
	return add_split(h, s);
}

static cx_status pre_bytes(cx__hf *h, const cx_json_at *at, int depth)
{
	bool space = true, regex = true;
	cx_status st;
	(void)depth;
	if ((st = cx_json_bool(at, "add_prefix_space", CX_OPTIONAL, &space, h->err)) != CX_OK)
		return st;
	if ((st = cx_json_bool(at, "use_regex", CX_OPTIONAL, &regex, h->err)) != CX_OK) return st;
	if (h->pre_bytes)
		return CX_FAIL(
			h->err, CX_ERR_UNSUPPORTED, "%s: %sByteLevel comes twice", h->label, at->where);
	h->pre_bytes = true;
	if (space && (st = add_split(h, (cx_split_step){.kind = CX_SPLIT_SPACE})) != CX_OK) return st;
	if (regex && (st = add_regex(h, cx__gpt2_pattern().ptr, CX_SPLIT_ISOLATED, false)) != CX_OK)
		return st;
	return add_split(h, (cx_split_step){.kind = CX_SPLIT_BYTES});
}

static cx_status pre_whitespace(cx__hf *h, const cx_json_at *at, int depth)
{
	(void)at;
	(void)depth;
	return add_regex(h, "\\w+|[^\\w\\s]+", CX_SPLIT_REMOVED, true);
}

static cx_status pre_whitespace_split(cx__hf *h, const cx_json_at *at, int depth)
{
	(void)at;
	(void)depth;
	return add_regex(h, "\\s+", CX_SPLIT_REMOVED, false);
}

static cx_status pre_bert(cx__hf *h, const cx_json_at *at, int depth)
{
	cx_split_step s[2];
	cx_status st = CX_OK;
	uint32_t n = cx__bert_split(s);
	(void)at;
	(void)depth;
	for (uint32_t i = 0; i < n && st == CX_OK; i++) st = add_split(h, s[i]);
	return st;
}

static cx_status pre_punctuation(cx__hf *h, const cx_json_at *at, int depth)
{
	cx_split_step s[2];
	cx_status st;
	(void)depth;
	cx__bert_split(s);
	st = read_behavior(h, at, &s[1].how);
	return st == CX_OK ? add_split(h, s[1]) : st;
}

static cx_status pre_digits(cx__hf *h, const cx_json_at *at, int depth)
{
	bool single = false;
	cx_status st = cx_json_bool(at, "individual_digits", CX_OPTIONAL, &single, h->err);
	(void)depth;
	return st == CX_OK
			   ? add_regex(h, "\\p{N}", single ? CX_SPLIT_ISOLATED : CX_SPLIT_CONTIGUOUS, false)
			   : st;
}

/* prepend_scheme, or the older add_prefix_space: "always", "first", "never". */
static cx_status read_scheme(cx__hf *h, const cx_json_at *at, bool *prefix, bool *first_only)
{
	const char *scheme = NULL;
	bool old = true;
	cx_status st;
	if ((st = cx_json_bool(at, "add_prefix_space", CX_OPTIONAL, &old, h->err)) != CX_OK) return st;
	if ((st = cx_json_string(at, "prepend_scheme", CX_OPTIONAL, &scheme, h->err)) != CX_OK)
		return st;
	if (!scheme) scheme = old ? "always" : "never";
	*first_only = strcmp(scheme, "first") == 0;
	*prefix = *first_only || strcmp(scheme, "always") == 0;
	if (!*prefix && strcmp(scheme, "never") != 0)
		return CX_FAIL(h->err, CX_ERR_UNSUPPORTED, "%s: %sprepend_scheme '%.40s' is not supported",
			h->label, at->where, scheme);
	return CX_OK;
}

static cx_status pre_metaspace(cx__hf *h, const cx_json_at *at, int depth)
{
	const char *mark = "\xE2\x96\x81";
	bool cut = true;
	cx_split_step s = {.kind = CX_SPLIT_METASPACE};
	cx_status st;
	(void)depth;
	if ((st = cx_json_string(at, "replacement", CX_OPTIONAL, &mark, h->err)) != CX_OK) return st;
	if ((st = cx_json_bool(at, "split", CX_OPTIONAL, &cut, h->err)) != CX_OK) return st;
	if ((st = read_scheme(h, at, &s.prefix, &s.first_only)) != CX_OK) return st;
	if (!*mark)
		return CX_FAIL(h->err, CX_ERR_FORMAT, "%s: %sreplacement is empty", h->label, at->where);
	s.pattern = string_span(mark);
	s.how = cut ? CX_SPLIT_NEXT : CX_SPLIT_WHOLE;
	return add_split(h, s);
}

static cx_status pre_sequence(cx__hf *h, const cx_json_at *at, int depth);
static const struct hf_row pres[] = {
	{"Sequence", pre_sequence},
	{"Split", pre_split},
	{"ByteLevel", pre_bytes},
	{"Whitespace", pre_whitespace},
	{"WhitespaceSplit", pre_whitespace_split},
	{"BertPreTokenizer", pre_bert},
	{"Punctuation", pre_punctuation},
	{"Digits", pre_digits},
	{"Metaspace", pre_metaspace},
};
enum { N_PRES = sizeof pres / sizeof pres[0] };

static cx_status pre_sequence(cx__hf *h, const cx_json_at *at, int depth)
{
	return sequence(h, at, "pretokenizers", pres, N_PRES, depth);
}

cx_status cx__hf_pre_tokenizer(cx__hf *h, const cx_json_at *root)
{
	return section(h, root, "pre_tokenizer", pres, N_PRES);
}

/* ---- post_processor ---- */

static cx_status add_around(cx__hf *h, bool after, int64_t id, const cx_json_at *at)
{
	uint32_t *n = after ? &h->d.n_suffix : &h->d.n_prefix;
	if (id < 0 || id >= (int64_t)h->d.n_tokens)
		return CX_FAIL(h->err, CX_ERR_FORMAT, "%s: %s: id %lld is not a token: there are %u",
			h->label, at->where, (long long)id, h->d.n_tokens);
	if (*n == CX__HF_AROUND)
		return CX_FAIL(
			h->err, CX_ERR_UNSUPPORTED, "%s: %s: too many special tokens", h->label, at->where);
	(after ? h->suffix : h->prefix)[(*n)++] = (int32_t)id;
	return CX_OK;
}

/* The ids of a special token named in "single": special_tokens.NAME.ids. */
static cx_status template_token(cx__hf *h, const cx_json_at *at, const char *name, bool after)
{
	cx_json_at all, one;
	int64_t ids[CX__HF_AROUND];
	size_t n = 0;
	cx_status st;
	if ((st = cx_json_object(at, "special_tokens", CX_REQUIRED, &all, h->err)) != CX_OK) return st;
	if ((st = cx_json_object(&all, name, CX_REQUIRED, &one, h->err)) != CX_OK) return st;
	if ((st = cx_json_i64s(
			 &one, "ids", CX_REQUIRED, 0, INT32_MAX, CX__HF_AROUND, ids, &n, h->err)) != CX_OK)
		return st;
	for (size_t i = 0; i < n && st == CX_OK; i++) st = add_around(h, after, ids[i], &one);
	return st;
}

static cx_status post_template(cx__hf *h, const cx_json_at *at, int depth)
{
	const json_t *single = NULL;
	bool after = false;
	cx_status st = cx_json_array(at, "single", CX_REQUIRED, &single, h->err);
	(void)depth;
	for (size_t i = 0; st == CX_OK && i < json_array_size(single); i++) {
		const json_t *item = json_array_get(single, i),
					 *special = json_object_get(item, "SpecialToken");
		const char *name = json_string_value(json_object_get(special, "id"));
		if (name) st = template_token(h, at, name, after);
		else if (json_is_object(json_object_get(item, "Sequence")) && !after) after = true;
		else
			st = CX_FAIL(h->err, CX_ERR_UNSUPPORTED,
				"%s: %ssingle[%zu] is neither a SpecialToken nor the one Sequence", h->label,
				at->where, i);
	}
	return st;
}

/* BertProcessing and RobertaProcessing: "cls": [text, id], "sep": [text, id]. */
static cx_status post_pair(cx__hf *h, const cx_json_at *at, int depth)
{
	cx_status st = CX_OK;
	(void)depth;
	for (int after = 0; after < 2 && st == CX_OK; after++) {
		const char *field = after ? "sep" : "cls";
		const json_t *pair = NULL;
		int64_t id = -1;
		if ((st = cx_json_array(at, field, CX_REQUIRED, &pair, h->err)) != CX_OK) return st;
		if (json_array_size(pair) != 2 || !cx_json_is_i64(json_array_get(pair, 1), &id))
			return CX_FAIL(
				h->err, CX_ERR_FORMAT, "%s: %s%s is not [text, id]", h->label, at->where, field);
		st = add_around(h, after, id, at);
	}
	return st;
}

static cx_status post_sequence(cx__hf *h, const cx_json_at *at, int depth);
static const struct hf_row posts[] = {
	{"Sequence", post_sequence},
	{"ByteLevel", ignore},
	{"TemplateProcessing", post_template},
	{"BertProcessing", post_pair},
	{"RobertaProcessing", post_pair},
};
enum { N_POSTS = sizeof posts / sizeof posts[0] };

static cx_status post_sequence(cx__hf *h, const cx_json_at *at, int depth)
{
	return sequence(h, at, "processors", posts, N_POSTS, depth);
}

cx_status cx__hf_post_processor(cx__hf *h, const cx_json_at *root)
{
	return section(h, root, "post_processor", posts, N_POSTS);
}

/* ---- decoder ---- */

static cx_status dec_bytes(cx__hf *h, const cx_json_at *at, int depth)
{
	(void)at;
	(void)depth;
	h->decoder_bytes = true;
	return CX_OK;
}

/* The one replacement that we make: the mark becomes a space. */
static cx_status dec_replace(cx__hf *h, const cx_json_at *at, int depth)
{
	const char *to = NULL;
	cx_span from = {NULL, 0};
	bool regex = false;
	cx_status st = cx_json_string(at, "content", CX_REQUIRED, &to, h->err);
	(void)depth;
	if (st == CX_OK) st = read_pattern(h, at, &from, &regex);
	if (st != CX_OK) return st;
	if (regex || strcmp(to, " ") != 0 || from.len != 3 || memcmp(from.ptr, "\xE2\x96\x81", 3) != 0)
		return CX_FAIL(h->err, CX_ERR_UNSUPPORTED,
			"%s: %sReplace other than U+2581 by a space is not supported", h->label, at->where);
	return CX_OK;
}

static cx_status dec_strip(cx__hf *h, const cx_json_at *at, int depth)
{
	const char *content = " ";
	int64_t start = 0, stop = 0;
	cx_status st;
	(void)depth;
	if ((st = cx_json_string(at, "content", CX_OPTIONAL, &content, h->err)) != CX_OK) return st;
	if ((st = cx_json_i64(at, "start", CX_OPTIONAL, 0, INT32_MAX, &start, h->err)) != CX_OK)
		return st;
	if ((st = cx_json_i64(at, "stop", CX_OPTIONAL, 0, INT32_MAX, &stop, h->err)) != CX_OK)
		return st;
	if (strcmp(content, " ") != 0 || start > 1 || stop != 0)
		return CX_FAIL(h->err, CX_ERR_UNSUPPORTED,
			"%s: %sStrip other than one leading space is not supported", h->label, at->where);
	if (start == 1) h->d.drop_space = true;
	return CX_OK;
}

static cx_status dec_metaspace(cx__hf *h, const cx_json_at *at, int depth)
{
	bool prefix = false, first_only = false;
	cx_status st = read_scheme(h, at, &prefix, &first_only);
	(void)depth;
	if (prefix) h->d.drop_space = true;
	return st;
}

/* "cleanup" (no blank before a comma ...) is not done: it loses text, and only BERT has it. */
static cx_status dec_wordpiece(cx__hf *h, const cx_json_at *at, int depth)
{
	(void)at;
	(void)depth;
	h->d.drop_space = true;
	return CX_OK;
}

static cx_status dec_sequence(cx__hf *h, const cx_json_at *at, int depth);
static const struct hf_row decs[] = {
	{"Sequence", dec_sequence},
	{"ByteLevel", dec_bytes},
	{"Replace", dec_replace},
	{"ByteFallback", ignore},
	{"Fuse", ignore},
	{"Strip", dec_strip},
	{"Metaspace", dec_metaspace},
	{"WordPiece", dec_wordpiece},
};
enum { N_DECS = sizeof decs / sizeof decs[0] };

static cx_status dec_sequence(cx__hf *h, const cx_json_at *at, int depth)
{
	return sequence(h, at, "decoders", decs, N_DECS, depth);
}

cx_status cx__hf_decoder(cx__hf *h, const cx_json_at *root)
{
	return section(h, root, "decoder", decs, N_DECS);
}
