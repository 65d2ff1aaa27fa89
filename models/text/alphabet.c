/* alphabet.c - the byte alphabet of byte-level BPE: every byte is one printable character
 * (spec/llm.md 4.2).
 *
 * Bytes 21-7E, A1-AC and AE-FF are the code points of the same value; the other 68, in increasing
 * order, are U+0100 .. U+0143. */
#include "models/text/text_impl.h"

static bool is_itself(unsigned b)
{
	return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
}

uint32_t cx__byte_to_cp(unsigned char b)
{
	if (is_itself(b)) return b;
	if (b <= 0x20) return 0x100u + b;
	if (b <= 0xA0) return 0x121u + (b - 0x7Fu); /* 33 before it */
	return 0x143;                               /* AD, the last */
}

int cx__cp_to_byte(uint32_t cp)
{
	if (cp < 0x100) return is_itself(cp) ? (int)cp : -1;
	if (cp <= 0x120) return (int)(cp - 0x100);
	if (cp <= 0x142) return (int)(cp - 0x121 + 0x7F);
	return cp == 0x143 ? 0xAD : -1;
}

size_t cx__alphabet_decode(const char *s, size_t n, char *dst)
{
	size_t i = 0, m = 0;
	while (i < n) {
		uint32_t cp;
		int k = cx__utf8_step((const unsigned char *)s + i, n - i, &cp), b;
		if (k <= 0 || (b = cx__cp_to_byte(cp)) < 0) return SIZE_MAX;
		dst[m++] = (char)b;
		i += (size_t)k;
	}
	return m;
}

cx_status cx__alphabet_encode(const char *s, size_t n, cx_text *out, cx_err *err)
{
	char buf[2];
	for (size_t i = 0; i < n; i++) {
		size_t k = cx__utf8_put(buf, cx__byte_to_cp((unsigned char)s[i]));
		cx_status st = cx_text_append(out, buf, k, err);
		if (st != CX_OK) return st;
	}
	return CX_OK;
}
