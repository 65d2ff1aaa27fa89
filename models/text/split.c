/* split.c - the pre-tokenizer: cuts a text into the pieces that the model sees one by one
 * (spec/llm.md 4.1, 4.3).
 *
 * In: normalised UTF-8. Out: pieces (offset, length) of it, or of a copy where a step rewrites the
 * text.
 *
 * Patterns are PCRE2's, with JIT where the system allows it. They are written for other engines
 * (Onigmo, Rust's), so they are translated first: \s and \w are spelled out, because PCRE2's \s
 * also takes U+180E and its \w takes no marks; class intersections and nested classes, which PCRE2
 * reads as plain characters, are refused. */
#include "models/text/text_impl.h"

#include <string.h>

#define WHITE "\\p{Z}\\x{9}-\\x{d}\\x{85}"
#define WORD "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}"

/* ---- PCRE2's memory ---- */

enum { PCRE_HEAD = 16 }; /* holds the size, which our allocator wants back; keeps the alignment */

static void *pcre_malloc(size_t n, void *data)
{
	cx__pcre_mem *m = data;
	unsigned char *p = n < SIZE_MAX - PCRE_HEAD ? cx_malloc(&m->alloc, n + PCRE_HEAD) : NULL;
	if (!p) {
		m->failed = true;
		return NULL;
	}
	memcpy(p, &n, sizeof n);
	return p + PCRE_HEAD;
}

static void pcre_free(void *ptr, void *data)
{
	cx__pcre_mem *m = data;
	unsigned char *p = ptr;
	size_t n;
	if (!p) return;
	memcpy(&n, p - PCRE_HEAD, sizeof n);
	cx_free(&m->alloc, p - PCRE_HEAD, n + PCRE_HEAD);
}

bool cx__pcre_mem_init(cx__pcre_mem *m, const cx_alloc *alloc)
{
	m->alloc = *alloc;
	m->failed = false;
	m->ctx = pcre2_general_context_create(pcre_malloc, pcre_free, m);
	return m->ctx != NULL;
}

void cx__pcre_mem_deinit(cx__pcre_mem *m)
{
	if (m->ctx) pcre2_general_context_free(m->ctx);
	m->ctx = NULL;
}

/* ---- patterns ---- */

static cx_status refuse_pattern(const char *origin, cx_span p, const char *why, cx_err *err)
{
	return CX_FAIL(err, CX_ERR_UNSUPPORTED, "%s: split pattern '%.*s': %s", origin,
		p.len < 60 ? (int)p.len : 60, p.ptr, why);
}

/* The escape at p[i] = '\\'; gives what replaces its two bytes, or NULL to copy them. */
static const char *translate_escape(char c, bool in_class)
{
	switch (c) {
	case 's':
		return in_class ? WHITE : "[" WHITE "]";
	case 'w':
		return in_class ? WORD : "[" WORD "]";
	case 'S':
		return in_class ? NULL : "[^" WHITE "]";
	case 'W':
		return in_class ? NULL : "[^" WORD "]";
	default:
		return NULL;
	}
}

/* The beginning of a class at p[i] = '[': copies "[", "[^" and a first literal "]". Gives the bytes
 * copied. */
static size_t class_head(cx_span p, size_t i)
{
	size_t k = 1;
	if (i + k < p.len && p.ptr[i + k] == '^') k++;
	if (i + k < p.len && p.ptr[i + k] == ']') k++;
	return k;
}

static cx_status translate(const char *origin, cx_span p, cx_text *out, cx_err *err)
{
	bool in_class = false;
	cx_status st = CX_OK;
	for (size_t i = 0, k; i < p.len && st == CX_OK; i += k) {
		char c = p.ptr[i], d = i + 1 < p.len ? p.ptr[i + 1] : 0;
		const char *to = NULL;
		k = 1;
		if (c == '\\' && i + 1 < p.len) {
			k = 2;
			to = translate_escape(d, in_class);
		} else if (c == '[' && !in_class) {
			in_class = true;
			k = class_head(p, i);
		} else if (c == '[' && d == ':') {
			const char *end = memmem(p.ptr + i, p.len - i, ":]", 2);
			if (end) k = (size_t)(end + 2 - (p.ptr + i));
		} else if (c == '[') {
			return refuse_pattern(origin, p, "a class inside a class is not supported", err);
		} else if (in_class && c == '&' && d == '&') {
			return refuse_pattern(
				origin, p, "intersections of classes (&&) are not supported", err);
		} else if (c == ']') {
			in_class = false;
		}
		st = to ? cx_text_append(out, to, strlen(to), err) : cx_text_append(out, p.ptr + i, k, err);
	}
	return st;
}

static cx_status compile_pattern(
	cx_tokenizer *tok, const cx_split_step *s, cx__split *to, cx_err *err)
{
	cx_text text = {.alloc = tok->pcre.alloc};
	pcre2_compile_context *cc = NULL;
	uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C;
	PCRE2_UCHAR why[120];
	int code;
	size_t at;
	cx_status st;
	if (s->kind == CX_SPLIT_LITERAL) {
		options = PCRE2_UTF | PCRE2_LITERAL;
		st = cx_text_append(&text, s->pattern.ptr, s->pattern.len, err);
	} else {
		st = translate(tok->origin, s->pattern, &text, err);
	}
	if (st == CX_OK && text.n == 0)
		st = refuse_pattern(tok->origin, s->pattern, "it is empty", err);
	if (st != CX_OK) goto done;
	tok->pcre.failed = false;
	cc = pcre2_compile_context_create(tok->pcre.ctx);
	if (cc) to->code = pcre2_compile((PCRE2_SPTR)text.v, text.n, options, &code, &at, cc);
	if (!to->code && (tok->pcre.failed || !cc)) st = cx__no_memory(err);
	if (!to->code && st == CX_OK) {
		if (pcre2_get_error_message(code, why, sizeof why) < 0) why[0] = 0;
		st = refuse_pattern(tok->origin, s->pattern, (const char *)why, err);
	}
	/* Without JIT (another processor, or a system that forbids writable code) the interpreter does
	 * the same, slower. */
	if (to->code) pcre2_jit_compile(to->code, PCRE2_JIT_COMPLETE);
	if (to->code && tok->pcre.failed) st = cx__no_memory(err);
done:
	pcre2_compile_context_free(cc);
	cx_text_deinit(&text);
	return st;
}

cx_status cx__split_compile(cx_tokenizer *tok, const cx_split_step *steps, uint32_t n, cx_err *err)
{
	cx_status st;
	if (n == 0) return CX_OK;
	tok->split = cx_arena_array(&tok->arena, n, sizeof *tok->split);
	if (!tok->split) return cx__no_memory(err);
	for (uint32_t i = 0; i < n; i++) {
		const cx_split_step *s = &steps[i];
		cx__split *to = &tok->split[tok->n_split++];
		*to = (cx__split){s->kind, s->how, s->invert, s->prefix, s->first_only, {NULL, 0}, NULL};
		if (s->kind == CX_SPLIT_BYTES && tok->alphabet != CX_ALPHABET_BYTES)
			return CX_FAIL(err, CX_ERR_ARGUMENT,
				"%s: a byte-level step needs a byte-level vocabulary", tok->origin);
		if (s->kind == CX_SPLIT_METASPACE) {
			to->mark = (cx_span){
				cx_arena_memdup(&tok->arena, s->pattern.ptr, s->pattern.len), s->pattern.len};
			if (!to->mark.ptr) return cx__no_memory(err);
		}
		if (s->kind != CX_SPLIT_REGEX && s->kind != CX_SPLIT_LITERAL) continue;
		if ((st = compile_pattern(tok, s, to, err)) != CX_OK) return st;
	}
	return CX_OK;
}

void cx__split_free(cx_tokenizer *tok)
{
	for (uint32_t i = 0; i < tok->n_split; i++) pcre2_code_free(tok->split[i].code);
	tok->n_split = 0;
}

/* ---- running ---- */

typedef struct cut { /* turns the sequence of matches and gaps of one piece into pieces */
	cx__encoder *e;
	cx__pieces *to;
	const cx__split *s;
	size_t first;    /* to->n when the piece began */
	bool last_match; /* of the segment before */
} cut;

static cx_status push_piece(cx__encoder *e, cx__pieces *to, uint32_t off, uint32_t len)
{
	void *v = to->v;
	if (len == 0) return CX_OK;
	if (!cx__grow(&e->alloc, &v, &to->cap, to->n + 1, sizeof *to->v)) return cx__no_memory(e->err);
	to->v = v;
	to->v[to->n++] = (cx__piece){off, len};
	return CX_OK;
}

static cx_status cut_segment(cut *c, uint32_t off, uint32_t len, bool match)
{
	bool join = false, begun = c->to->n > c->first;
	if (len == 0) return CX_OK;
	match ^= c->s->invert;
	switch (c->s->how) {
	case CX_SPLIT_ISOLATED:
		break;
	case CX_SPLIT_REMOVED:
		if (match) return CX_OK;
		break;
	case CX_SPLIT_CONTIGUOUS:
		join = begun && match == c->last_match;
		break;
	case CX_SPLIT_PREVIOUS:
		join = begun && match && !c->last_match;
		break;
	case CX_SPLIT_NEXT:
		join = begun && !match && c->last_match;
		break;
	case CX_SPLIT_WHOLE:
		join = begun;
		break;
	}
	c->last_match = match;
	if (!join) return push_piece(c->e, c->to, off, len);
	c->to->v[c->to->n - 1].len += len;
	return CX_OK;
}

static cx_status match_failed(cx__encoder *e, int rc)
{
	PCRE2_UCHAR why[120];
	if (rc == PCRE2_ERROR_NOMEMORY) return cx__no_memory(e->err);
	if (pcre2_get_error_message(rc, why, sizeof why) < 0) why[0] = 0;
	return CX_FAIL(e->err, CX_ERR_UNSUPPORTED, "%s: a split pattern gives up on this text: %s",
		e->tok->origin, (char *)why);
}

/* One match at or after *pos; 1 found, 0 none, < 0 an error of PCRE2. */
static int next_match(
	cx__encoder *e, const pcre2_code *code, cx_span s, size_t pos, size_t *start, size_t *stop)
{
	int rc = pcre2_match(code, (PCRE2_SPTR)s.ptr, s.len, pos, PCRE2_NO_UTF_CHECK, e->match, NULL);
	size_t *o;
	if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
		rc = pcre2_match(
			code, (PCRE2_SPTR)s.ptr, s.len, pos, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, e->match, NULL);
	if (rc == PCRE2_ERROR_NOMATCH) return 0;
	if (rc < 0) return rc;
	o = pcre2_get_ovector_pointer(e->match);
	*start = o[0];
	*stop = o[1];
	return 1;
}

static cx_status cut_regex(
	cx__encoder *e, const cx__split *s, cx_span text, cx__piece p, cx__pieces *to)
{
	cx_span sub = {text.ptr + p.off, p.len};
	cut c = {e, to, s, to->n, false};
	size_t pos = 0, done = 0, start = 0, stop = 0;
	cx_status st = CX_OK;
	while (pos < sub.len && st == CX_OK) {
		int rc = next_match(e, s->code, sub, pos, &start, &stop);
		if (rc < 0) return match_failed(e, rc);
		if (rc == 0) break;
		if (stop <= start || start < pos) { /* empty (or bent by \K): go on at the next character */
			pos = (start < pos ? pos : start) + 1;
			while (pos < sub.len && ((unsigned char)sub.ptr[pos] & 0xC0) == 0x80) pos++;
			continue;
		}
		st = cut_segment(&c, p.off + (uint32_t)done, (uint32_t)(start - done), false);
		if (st == CX_OK)
			st = cut_segment(&c, p.off + (uint32_t)start, (uint32_t)(stop - start), true);
		done = pos = stop;
	}
	if (st != CX_OK) return st;
	return cut_segment(&c, p.off + (uint32_t)done, (uint32_t)(sub.len - done), false);
}

static bool begins_with(cx_span s, const char *p, size_t n)
{
	return s.len >= n && memcmp(s.ptr, p, n) == 0;
}

static cx_status too_long(cx__encoder *e)
{
	return CX_FAIL(
		e->err, CX_ERR_ARGUMENT, "%s: the text is over 1 GiB in the pre-tokenizer", e->tok->origin);
}

/* Space becomes the mark; cuts before each mark if asked. The piece starts at out->n. */
static cx_status metaspace(
	cx__encoder *e, const cx__split *s, cx_span in, bool first, cx_text *out, cx__pieces *to)
{
	size_t from = out->n;
	bool lead = in.len && (in.ptr[0] == ' ' || begins_with(in, s->mark.ptr, s->mark.len));
	cx_status st = CX_OK;
	if (s->prefix && (first || !s->first_only) && !lead)
		st = cx_text_append(out, s->mark.ptr, s->mark.len, e->err);
	for (size_t i = 0; i < in.len && st == CX_OK;) {
		size_t k = 1;
		if (out->n > CX__TEXT_MAX) return too_long(e);
		const char *src = in.ptr + i;
		bool mark =
			*src == ' ' || begins_with((cx_span){src, in.len - i}, s->mark.ptr, s->mark.len);
		if (mark) {
			k = *src == ' ' ? 1 : s->mark.len;
			if (s->how == CX_SPLIT_NEXT && out->n > from) {
				st = push_piece(e, to, (uint32_t)from, (uint32_t)(out->n - from));
				from = out->n;
			}
		}
		if (st == CX_OK)
			st = cx_text_append(out, mark ? s->mark.ptr : src, mark ? s->mark.len : 1, e->err);
		i += k;
	}
	if (st != CX_OK) return st;
	return push_piece(e, to, (uint32_t)from, (uint32_t)(out->n - from));
}

static cx_status rewrite(
	cx__encoder *e, const cx__split *s, cx_span in, bool first, cx_text *out, cx__pieces *to)
{
	size_t from = out->n;
	cx_status st = CX_OK;
	if (out->n > CX__TEXT_MAX) return too_long(e);
	if (s->kind == CX_SPLIT_METASPACE) return metaspace(e, s, in, first, out, to);
	if (s->kind == CX_SPLIT_SPACE) {
		if (!begins_with(in, " ", 1)) st = cx_text_append(out, " ", 1, e->err);
		if (st == CX_OK) st = cx_text_append(out, in.ptr, in.len, e->err);
	} else {
		st = cx__alphabet_encode(in.ptr, in.len, out, e->err);
	}
	if (st != CX_OK) return st;
	return push_piece(e, to, (uint32_t)from, (uint32_t)(out->n - from));
}

cx_status cx__split_run(cx__encoder *e, cx_span *text, bool first, int *which, bool *mapped)
{
	const cx_tokenizer *tok = e->tok;
	int buf = 0;
	cx_status st;
	*which = 0;
	*mapped = false;
	e->pieces[0].n = 0;
	if ((st = push_piece(e, &e->pieces[0], 0, (uint32_t)text->len)) != CX_OK) return st;
	for (uint32_t i = 0; i < tok->n_split; i++) {
		const cx__split *s = &tok->split[i];
		cx__pieces *from = &e->pieces[*which], *to = &e->pieces[*which ^ 1];
		bool regex = s->kind == CX_SPLIT_REGEX || s->kind == CX_SPLIT_LITERAL;
		if (s->kind == CX_SPLIT_BYTES) {
			if (i + 1 == tok->n_split || *mapped) continue; /* nobody would see the alphabet */
			*mapped = true;
		}
		to->n = 0;
		if (!regex) e->pre[buf].n = 0;
		for (size_t k = 0; k < from->n && st == CX_OK; k++) {
			cx_span in = {text->ptr + from->v[k].off, from->v[k].len};
			if (regex) st = cut_regex(e, s, *text, from->v[k], to);
			else st = rewrite(e, s, in, first && from->v[k].off == 0, &e->pre[buf], to);
		}
		if (st != CX_OK) return st;
		if (!regex) {
			*text = (cx_span){e->pre[buf].v, e->pre[buf].n};
			if (text->len > CX__TEXT_MAX) return too_long(e);
			buf ^= 1;
		}
		*which ^= 1;
	}
	return CX_OK;
}
