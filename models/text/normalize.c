/* normalize.c - the steps that change a text before it is cut: Unicode normal forms, case, accents,
 * replacements.
 *
 * In: UTF-8 (well-formed). Out: a span of the encoder's scratch, or the input itself where a step
 * cannot change it (NFC of text below U+0300: nearly everything).
 *
 * Decomposition and composition are utf8proc's; the reordering in between is ours, because
 * utf8proc's swaps neighbours, which is quadratic on a long run of combining marks, and the text
 * comes from strangers. */
#include "models/text/text_impl.h"

#include <string.h>

#include <utf8proc.h>

enum { SHORT_RUN = 32 }; /* marks; a run this short is insertion-sorted */

static bool cps_room(cx__encoder *e, int which, size_t need)
{
	void *v = e->cps[which];
	if (!cx__grow(&e->alloc, &v, &e->cps_cap[which], need, sizeof **e->cps)) return false;
	e->cps[which] = v;
	return true;
}

static unsigned mark_class(int32_t cp)
{
	unsigned c = (unsigned)utf8proc_get_property(cp)->combining_class;
	return c < 255 ? c : 255;
}

/* Sorts v[n], all of class > 0, by class; equal ones keep their order. tmp[n] is scratch. */
static void sort_marks(int32_t *v, size_t n, int32_t *tmp)
{
	size_t start[257] = {0};
	if (n <= SHORT_RUN) {
		for (size_t i = 1; i < n; i++) {
			int32_t cp = v[i];
			unsigned c = mark_class(cp);
			size_t k = i;
			for (; k > 0 && mark_class(v[k - 1]) > c; k--) v[k] = v[k - 1];
			v[k] = cp;
		}
		return;
	}
	for (size_t i = 0; i < n; i++) start[mark_class(v[i]) + 1]++;
	for (size_t c = 1; c < 257; c++) start[c] += start[c - 1];
	for (size_t i = 0; i < n; i++) tmp[start[mark_class(v[i])]++] = v[i];
	memcpy(v, tmp, n * sizeof *v);
}

/* cps[0][0 .. n) sorted; cps[1] is scratch. */
static bool reorder(cx__encoder *e, size_t n)
{
	for (size_t i = 0; i < n;) {
		size_t from = i;
		while (i < n && mark_class(e->cps[0][i]) > 0) i++;
		if (i - from > SHORT_RUN && !cps_room(e, 1, i - from)) return false;
		if (i - from > 1) sort_marks(e->cps[0] + from, i - from, e->cps[1]);
		if (i == from) i++;
	}
	return true;
}

static cx_status put_cps(const int32_t *cps, size_t n, cx_text *out, cx_err *err)
{
	char buf[4];
	cx_status st = CX_OK;
	for (size_t i = 0; i < n && st == CX_OK; i++)
		st = cx_text_append(out, buf, cx__utf8_put(buf, (uint32_t)cps[i]), err);
	return st;
}

static bool below(cx_span s, unsigned char lead)
{
	for (size_t i = 0; i < s.len; i++)
		if ((unsigned char)s.ptr[i] >= lead) return false;
	return true;
}

/* NFC, NFD, NFKC, NFKD. Leaves *out alone and says so through *same when the text is already in
 * that form. */
static cx_status normal_form(
	cx__encoder *e, cx_norm_kind kind, cx_span in, cx_text *out, bool *same)
{
	bool compose = kind == CX_NORM_NFC || kind == CX_NORM_NFKC;
	bool compat = kind == CX_NORM_NFKC || kind == CX_NORM_NFKD;
	utf8proc_option_t opt = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (compat ? UTF8PROC_COMPAT : 0);
	size_t n = 0;
	*same =
		below(in, kind == CX_NORM_NFC ? 0xCC : 0x80); /* CC 80 is U+0300; only NFC keeps Latin-1 */
	if (*same) return CX_OK;
	for (size_t i = 0; i < in.len;) {
		uint32_t cp = 0;
		int k = cx__utf8_step((const unsigned char *)in.ptr + i, in.len - i, &cp), bound = 0;
		utf8proc_ssize_t m;
		if (!cps_room(e, 0, n + 32))
			return cx__no_memory(e->err); /* the longest decomposition is 18 */
		m = utf8proc_decompose_char((utf8proc_int32_t)cp, e->cps[0] + n, 32, opt, &bound);
		if (m < 0 || m > 32) { /* not assigned in any Unicode: itself */
			e->cps[0][n] = (int32_t)cp;
			m = 1;
		}
		n += (size_t)m;
		i += (size_t)(k > 0 ? k : 1);
	}
	if (!reorder(e, n)) return cx__no_memory(e->err);
	if (compose) {
		utf8proc_ssize_t m = utf8proc_normalize_utf32(
			e->cps[0], (utf8proc_ssize_t)n, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
		if (m >= 0) n = (size_t)m;
	}
	return put_cps(e->cps[0], n, out, e->err);
}

static bool is_cjk(uint32_t c)
{
	/* 2B920 should be 2B820 by Unicode's blocks; the reference implementation has 2B920, and
	 * vocabularies follow it. */
	return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) ||
		   (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
		   (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
		   (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

/* BERT's "control": class C, unassigned code points too, but not tab and line ends. */
static bool is_other(uint32_t cp)
{
	if (cp == '\t' || cp == '\n' || cp == '\r') return false;
	switch (utf8proc_category((utf8proc_int32_t)cp)) {
	case UTF8PROC_CATEGORY_CC:
	case UTF8PROC_CATEGORY_CF:
	case UTF8PROC_CATEGORY_CN:
	case UTF8PROC_CATEGORY_CS:
	case UTF8PROC_CATEGORY_CO:
		return true;
	default:
		return false;
	}
}

static bool is_mark(uint32_t cp)
{
	utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
	return c == UTF8PROC_CATEGORY_MN || c == UTF8PROC_CATEGORY_MC || c == UTF8PROC_CATEGORY_ME;
}

static uint32_t first_of_nfd(uint32_t cp)
{
	utf8proc_int32_t buf[32];
	int bound = 0;
	utf8proc_ssize_t n = utf8proc_decompose_char(
		(utf8proc_int32_t)cp, buf, 32, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE, &bound);
	return n > 0 && n <= 32 ? (uint32_t)buf[0] : cp;
}

/* What one character becomes; writes at most 8 bytes. */
static size_t map_char(cx_norm_kind kind, uint32_t cp, char *dst)
{
	size_t n = 0;
	switch (kind) {
	case CX_NORM_LOWER:
		if (cp != 0x130) return cx__utf8_put(dst, (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp));
		n = cx__utf8_put(dst, 'i'); /* the one letter whose lower case is two characters */
		return n + cx__utf8_put(dst + n, 0x307);
	case CX_NORM_STRIP_ACCENTS:
		return utf8proc_category((utf8proc_int32_t)cp) == UTF8PROC_CATEGORY_MN
				   ? 0
				   : cx__utf8_put(dst, cp);
	case CX_NORM_STRIP_MARKS:
		return is_mark(cp) ? 0 : cx__utf8_put(dst, cp);
	case CX_NORM_FIRST_OF_NFD:
		return cx__utf8_put(dst, first_of_nfd(cp));
	case CX_NORM_BERT_CLEAN:
		if (cx__utf8_white(cp)) return cx__utf8_put(dst, ' ');
		return cp == 0 || cp == 0xFFFD || is_other(cp) ? 0 : cx__utf8_put(dst, cp);
	case CX_NORM_BERT_CJK:
		if (!is_cjk(cp)) return cx__utf8_put(dst, cp);
		dst[n++] = ' ';
		n += cx__utf8_put(dst + n, cp);
		dst[n++] = ' ';
		return n;
	default:
		return cx__utf8_put(dst, cp);
	}
}

static cx_status map_chars(cx__encoder *e, cx_norm_kind kind, cx_span in, cx_text *out)
{
	char buf[8];
	cx_status st = CX_OK;
	for (size_t i = 0; i < in.len && st == CX_OK;) {
		uint32_t cp = 0;
		int k = cx__utf8_step((const unsigned char *)in.ptr + i, in.len - i, &cp);
		st = cx_text_append(out, buf, map_char(kind, cp, buf), e->err);
		i += (size_t)(k > 0 ? k : 1);
	}
	return st;
}

static cx_status replace(
	cx__encoder *e, const cx_norm_step *s, cx_span in, cx_text *out, bool *same)
{
	size_t from = 0;
	cx_status st = CX_OK;
	*same = true;
	while (s->a.len && st == CX_OK) {
		const char *hit =
			from < in.len ? memmem(in.ptr + from, in.len - from, s->a.ptr, s->a.len) : NULL;
		if (!hit) break;
		if (out->n > CX__TEXT_MAX)
			return CX_FAIL(
				e->err, CX_ERR_ARGUMENT, "%s: the normalised text is over 1 GiB", e->tok->origin);
		*same = false;
		st = cx_text_append(out, in.ptr + from, (size_t)(hit - in.ptr) - from, e->err);
		if (st == CX_OK) st = cx_text_append(out, s->b.ptr, s->b.len, e->err);
		from = (size_t)(hit - in.ptr) + s->a.len;
	}
	if (*same || st != CX_OK) return st;
	return cx_text_append(out, in.ptr + from, in.len - from, e->err);
}

static cx_span strip(const cx_norm_step *s, cx_span in)
{
	uint32_t cp;
	while (s->a.len && in.len) {
		int k = cx__utf8_step((const unsigned char *)in.ptr, in.len, &cp);
		if (k <= 0 || !cx__utf8_white(cp)) break;
		in.ptr += k;
		in.len -= (size_t)k;
	}
	while (s->b.len && in.len) {
		size_t i = in.len - 1;
		while (i > 0 && in.len - i < 4 && ((unsigned char)in.ptr[i] & 0xC0) == 0x80) i--;
		if (cx__utf8_step((const unsigned char *)in.ptr + i, in.len - i, &cp) <= 0 ||
			!cx__utf8_white(cp))
			break;
		in.len = i;
	}
	return in;
}

/* *wrote: io is now in out. */
static cx_status run_step(
	cx__encoder *e, const cx_norm_step *s, cx_span *io, cx_text *out, bool *wrote)
{
	bool same = false;
	cx_status st = CX_OK;
	out->n = 0;
	*wrote = false;
	switch (s->kind) {
	case CX_NORM_NFC:
	case CX_NORM_NFD:
	case CX_NORM_NFKC:
	case CX_NORM_NFKD:
		st = normal_form(e, s->kind, *io, out, &same);
		break;
	case CX_NORM_PREPEND:
		if (io->len == 0) return CX_OK;
		st = cx_text_append(out, s->a.ptr, s->a.len, e->err);
		if (st == CX_OK) st = cx_text_append(out, io->ptr, io->len, e->err);
		break;
	case CX_NORM_REPLACE:
		st = replace(e, s, *io, out, &same);
		break;
	case CX_NORM_STRIP:
		*io = strip(s, *io);
		return CX_OK;
	case CX_NORM_LOWER:
	case CX_NORM_STRIP_ACCENTS:
	case CX_NORM_STRIP_MARKS:
	case CX_NORM_FIRST_OF_NFD:
	case CX_NORM_BERT_CLEAN:
	case CX_NORM_BERT_CJK:
		st = map_chars(e, s->kind, *io, out);
		break;
	}
	if (st != CX_OK || same) return st;
	*io = (cx_span){out->v, out->n};
	*wrote = true;
	return CX_OK;
}

cx_status cx__normalize(cx__encoder *e, const cx_norm_step *steps, uint32_t n, cx_span *io)
{
	int which = 0; /* never the buffer that holds *io */
	bool wrote;
	for (uint32_t i = 0; i < n; i++) {
		cx_status st = run_step(e, &steps[i], io, &e->norm[which], &wrote);
		if (st != CX_OK) return st;
		which ^= wrote;
	}
	return CX_OK;
}
