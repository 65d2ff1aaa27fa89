/* utf8.c - UTF-8 step by step, and the growable outputs of models/text.
 *
 * Well-formed is Unicode's table 3-7: no overlong forms, no surrogates, nothing above U+10FFFF. An
 * ill-formed part is "maximal": it ends before the first byte that cannot continue it, so that one
 * lost byte costs one character. */
#include "models/text/text_impl.h"

#include <string.h>

int cx__utf8_step(const unsigned char *s, size_t n, uint32_t *cp)
{
	unsigned char b = s[0], lo = 0x80, hi = 0xBF;
	int k, need;
	uint32_t c;
	if (b < 0x80) {
		*cp = b;
		return 1;
	}
	if (b < 0xC2 || b > 0xF4) return -1;
	need = b < 0xE0 ? 1 : b < 0xF0 ? 2 : 3;
	if (b == 0xE0) lo = 0xA0;
	if (b == 0xED) hi = 0x9F;
	if (b == 0xF0) lo = 0x90;
	if (b == 0xF4) hi = 0x8F;
	c = b & (0x3Fu >> need);
	for (k = 1; k <= need; k++) {
		if ((size_t)k >= n) return 0;
		if (s[k] < lo || s[k] > hi) return -k;
		c = c << 6 | (s[k] & 0x3Fu);
		lo = 0x80;
		hi = 0xBF;
	}
	*cp = c;
	return need + 1;
}

size_t cx__utf8_put(char *dst, uint32_t cp)
{
	unsigned char *d = (unsigned char *)dst;
	if (cp < 0x80) {
		d[0] = (unsigned char)cp;
		return 1;
	}
	if (cp < 0x800) {
		d[0] = (unsigned char)(0xC0 | cp >> 6);
		d[1] = (unsigned char)(0x80 | (cp & 0x3F));
		return 2;
	}
	if (cp < 0x10000) {
		d[0] = (unsigned char)(0xE0 | cp >> 12);
		d[1] = (unsigned char)(0x80 | (cp >> 6 & 0x3F));
		d[2] = (unsigned char)(0x80 | (cp & 0x3F));
		return 3;
	}
	d[0] = (unsigned char)(0xF0 | cp >> 18);
	d[1] = (unsigned char)(0x80 | (cp >> 12 & 0x3F));
	d[2] = (unsigned char)(0x80 | (cp >> 6 & 0x3F));
	d[3] = (unsigned char)(0x80 | (cp & 0x3F));
	return 4;
}

bool cx__utf8_valid(const char *s, size_t n)
{
	const unsigned char *p = (const unsigned char *)s;
	size_t i = 0;
	uint32_t cp;
	while (i < n) {
		int k;
		if (p[i] < 0x80) { /* the common case by far */
			i++;
			continue;
		}
		k = cx__utf8_step(p + i, n - i, &cp);
		if (k <= 0) return false;
		i += (size_t)k;
	}
	return true;
}

bool cx__utf8_white(uint32_t cp)
{
	return (cp >= 0x09 && cp <= 0x0D) || cp == 0x20 || cp == 0x85 || cp == 0xA0 || cp == 0x1680 ||
		   (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 || cp == 0x2029 || cp == 0x202F ||
		   cp == 0x205F || cp == 0x3000;
}

cx_status cx__utf8_repair(const char *s, size_t n, cx_text *out, cx_err *err)
{
	const unsigned char *p = (const unsigned char *)s;
	size_t i = 0, from = 0;
	uint32_t cp;
	cx_status st;
	while (i < n) {
		int k = cx__utf8_step(p + i, n - i, &cp);
		if (k > 0) {
			i += (size_t)k;
			continue;
		}
		if ((st = cx_text_append(out, s + from, i - from, err)) != CX_OK) return st;
		if ((st = cx_text_append(out, "\xEF\xBF\xBD", 3, err)) != CX_OK) return st;
		i = k ? i + (size_t)-k : n; /* a cut-off beginning at the end is one part */
		from = i;
	}
	return cx_text_append(out, s + from, n - from, err);
}

/* ---- growing ---- */

cx_status cx__no_memory(cx_err *err)
{
	return CX_FAIL(err, CX_ERR_MEMORY, "out of memory in the tokenizer");
}

bool cx__grow(const cx_alloc *a, void **v, size_t *cap, size_t need, size_t size)
{
	size_t cap2 = *cap ? *cap : 16, bytes;
	void *p;
	if (need <= *cap) return true;
	while (cap2 < need)
		if (__builtin_mul_overflow(cap2, (size_t)2, &cap2)) return false;
	if (__builtin_mul_overflow(cap2, size, &bytes)) return false;
	p = cx_realloc(a, *v, *cap * size, bytes);
	if (!p) return false;
	*v = p;
	*cap = cap2;
	return true;
}

cx_status cx_ids_push(cx_ids *ids, int32_t id, cx_err *err)
{
	void *v = ids->v;
	if (!cx__grow(&ids->alloc, &v, &ids->cap, ids->n + 1, sizeof *ids->v))
		return cx__no_memory(err);
	ids->v = v;
	ids->v[ids->n++] = id;
	return CX_OK;
}

void cx_ids_deinit(cx_ids *ids)
{
	cx_free(&ids->alloc, ids->v, ids->cap * sizeof *ids->v);
	ids->v = NULL;
	ids->n = ids->cap = 0;
}

cx_status cx_text_append(cx_text *text, const void *bytes, size_t n, cx_err *err)
{
	void *v = text->v;
	size_t need;
	if (__builtin_add_overflow(text->n, n, &need) || __builtin_add_overflow(need, (size_t)1, &need))
		return cx__no_memory(err);
	if (!cx__grow(&text->alloc, &v, &text->cap, need, 1)) return cx__no_memory(err);
	text->v = v;
	if (n) memcpy(text->v + text->n, bytes, n);
	text->n += n;
	text->v[text->n] = 0;
	return CX_OK;
}

void cx_text_deinit(cx_text *text)
{
	cx_free(&text->alloc, text->v, text->cap);
	text->v = NULL;
	text->n = text->cap = 0;
}
