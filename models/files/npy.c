/* npy.c - NPY arrays. See npy.h. The format: "\x93NUMPY", major, minor, header length (u16,
 * from 2.0 on u32), then a Python dict as text - {'descr': '<f4', 'fortran_order': False, 'shape':
 * (3, 4), } - and the elements. */
#include "models/files/npy.h"

#include <stdio.h>
#include <string.h>

#include "models/files/out.h"

enum { MAGIC_BYTES = 6, HEADER_ALIGN = 64, HEADER_MAX = 1 << 20, HEADER_WRITE_MAX = 512 };

/* ORDER NPY */
static const struct {
	const char *descr;
	uint32_t bytes;
	cx_dtype dtype;
} types[CX_NPY_TYPE_COUNT] = {
#define X(id, descr, bytes, dtype) {descr, bytes, CX_##dtype},
	CX_NPY_TYPES(X)
#undef X
};

const char *cx_npy_type_name(cx_npy_type type)
{
	return types[type].descr;
}
uint32_t cx_npy_type_bytes(cx_npy_type type)
{
	return types[type].bytes;
}
cx_dtype cx_npy_type_dtype(cx_npy_type type)
{
	return types[type].dtype;
}

/* ---- the header's dict ---- */

typedef struct dict {
	const char *at, *end;
	const char *label;
	bool has_descr, has_order, has_shape, fortran;
} dict;

static cx_status bad_header(const dict *d, const char *what, cx_err *err)
{
	return CX_FAIL(err, CX_ERR_FORMAT, "%s: NPY header: %s", d->label, what);
}

static void blanks(dict *d)
{
	while (d->at < d->end && (*d->at == ' ' || *d->at == '\t' || *d->at == '\n' || *d->at == '\r'))
		d->at++;
}

static bool take(dict *d, char c)
{
	blanks(d);
	if (d->at >= d->end || *d->at != c) return false;
	d->at++;
	return true;
}

/* 'text' or "text", without escapes: numpy writes none into the keys and the types that we read. */
static bool take_text(dict *d, const char **text, size_t *n)
{
	const char *close;
	char quote;
	blanks(d);
	if (d->at >= d->end || (*d->at != '\'' && *d->at != '"')) return false;
	quote = *d->at++;
	close = memchr(d->at, quote, (size_t)(d->end - d->at));
	if (!close) return false;
	*text = d->at;
	*n = (size_t)(close - d->at);
	d->at = close + 1;
	return true;
}

static cx_status take_descr(dict *d, cx_npy *out, cx_err *err)
{
	const char *s;
	size_t n;
	if (!take_text(d, &s, &n))
		return CX_FAIL(err, CX_ERR_UNSUPPORTED,
			"%s: descr is not a plain type: structured arrays cannot be read", d->label);
	for (int i = 0; i < CX_NPY_TYPE_COUNT; i++) {
		if (n != 3 || memcmp(s + 1, types[i].descr, 2) != 0) continue;
		if (*s == '>' && types[i].bytes > 1)
			return CX_FAIL(err, CX_ERR_UNSUPPORTED,
				"%s: holds big-endian data (%.3s); only little-endian can be read", d->label, s);
		if (*s != '<' && *s != '|' && *s != '=' && *s != '>') break;
		out->type = (cx_npy_type)i;
		return CX_OK;
	}
	return CX_FAIL(err, CX_ERR_UNSUPPORTED,
		"%s: holds elements of type '%.*s', which cannot be read", d->label, n < 40 ? (int)n : 40,
		s);
}

static cx_status take_order(dict *d, cx_err *err)
{
	size_t n;
	blanks(d);
	n = (size_t)(d->end - d->at);
	if (n >= 4 && memcmp(d->at, "True", 4) == 0) d->fortran = true, d->at += 4;
	else if (n >= 5 && memcmp(d->at, "False", 5) == 0) d->fortran = false, d->at += 5;
	else return bad_header(d, "fortran_order is neither True nor False", err);
	return CX_OK;
}

static cx_status take_shape(dict *d, cx_npy *out, cx_err *err)
{
	out->rank = 0;
	if (!take(d, '(')) return bad_header(d, "shape is not a tuple", err);
	while (!take(d, ')')) {
		int64_t v = 0;
		int digits = 0;
		for (; d->at < d->end && *d->at >= '0' && *d->at <= '9'; d->at++, digits++)
			if (!cx_mul_i64(v, 10, &v) || !cx_add_i64(v, *d->at - '0', &v))
				return bad_header(d, "shape has a dim that does not fit 64 bits", err);
		if (!digits) return bad_header(d, "shape has a dim that is not a number from 0 up", err);
		if (out->rank == CX_FILE_MAX_RANK) return bad_header(d, "shape has more than 8 dims", err);
		out->dims[out->rank++] = v;
		if (!take(d, ',')) {
			if (!take(d, ')')) return bad_header(d, "shape is not closed", err);
			break;
		}
	}
	return CX_OK;
}

static cx_status take_dict(dict *d, cx_npy *out, cx_err *err)
{
	cx_status st = CX_OK;
	if (!take(d, '{')) return bad_header(d, "does not begin with {", err);
	while (!take(d, '}')) {
		const char *key;
		bool *seen;
		size_t n;
		if (!take_text(d, &key, &n) || !take(d, ':')) return bad_header(d, "is damaged", err);
		if (n == 5 && memcmp(key, "descr", 5) == 0) seen = &d->has_descr;
		else if (n == 13 && memcmp(key, "fortran_order", 13) == 0) seen = &d->has_order;
		else if (n == 5 && memcmp(key, "shape", 5) == 0) seen = &d->has_shape;
		else return bad_header(d, "has a field other than descr, fortran_order and shape", err);
		if (*seen) return bad_header(d, "has a field twice", err);
		*seen = true;
		if (seen == &d->has_descr) st = take_descr(d, out, err);
		else if (seen == &d->has_order) st = take_order(d, err);
		else st = take_shape(d, out, err);
		if (st != CX_OK) return st;
		if (!take(d, ',')) {
			if (!take(d, '}')) return bad_header(d, "is damaged", err);
			break;
		}
	}
	blanks(d);
	if (d->at != d->end) return bad_header(d, "has text after the }", err);
	if (!d->has_descr || !d->has_order || !d->has_shape)
		return bad_header(d, "lacks descr, fortran_order or shape", err);
	return CX_OK;
}

/* ---- reading ---- */

/* Finds the header's text; *off moves behind it. */
static cx_status find_header(const cx_file_map *map, size_t *off, dict *d, cx_err *err)
{
	const unsigned char *p = map->data + *off;
	size_t left = map->size - *off, fixed;
	uint32_t len;
	if (left < MAGIC_BYTES || memcmp(p, "\x93NUMPY", MAGIC_BYTES) != 0)
		return CX_FAIL(
			err, CX_ERR_FORMAT, "%s: there is no NPY array at byte %zu", map->label, *off);
	if (left < MAGIC_BYTES + 2)
		return CX_FAIL(err, CX_ERR_FORMAT, "%s: the file ends inside the NPY version", map->label);
	if (p[6] < 1 || p[6] > 3 || p[7] != 0)
		return CX_FAIL(err, CX_ERR_UNSUPPORTED,
			"%s: is NPY version %u.%u; 1.0, 2.0 and 3.0 can be read", map->label, p[6], p[7]);
	fixed = MAGIC_BYTES + 2 + (p[6] == 1 ? 2 : 4);
	if (left < fixed)
		return CX_FAIL(
			err, CX_ERR_FORMAT, "%s: the file ends inside the NPY header's length", map->label);
	len = p[8] | (uint32_t)p[9] << 8;
	if (p[6] > 1) len |= (uint32_t)p[10] << 16 | (uint32_t)p[11] << 24;
	if (len > HEADER_MAX)
		return CX_FAIL(
			err, CX_ERR_FORMAT, "%s: says its NPY header has %u bytes, too many", map->label, len);
	if (left - fixed < len)
		return CX_FAIL(err, CX_ERR_FORMAT,
			"%s: the NPY header has %u bytes, but %zu are left in the file", map->label, len,
			left - fixed);
	d->label = map->label;
	d->at = (const char *)p + fixed;
	d->end = d->at + len;
	*off += fixed + len;
	return CX_OK;
}

cx_status cx_npy_parse(const cx_file_map *map, size_t *off, cx_npy *out, cx_err *err)
{
	dict d = {0};
	size_t at = *off, left;
	int n_long = 0;
	cx_status st;
	memset(out, 0, sizeof *out);
	if (at > map->size)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "%s: byte %zu is past the end", map->label, at);
	if ((st = find_header(map, &at, &d, err)) != CX_OK) return st;
	if ((st = take_dict(&d, out, err)) != CX_OK) return st;
	for (int32_t i = 0; i < out->rank; i++) n_long += out->dims[i] > 1;
	if (d.fortran && n_long > 1)
		return CX_FAIL(err, CX_ERR_UNSUPPORTED,
			"%s: is in Fortran order; save numpy.ascontiguousarray(x) instead", map->label);
	if (!cx__dims_count(out->rank, out->dims, &out->n) ||
		!cx_mul_u64((uint64_t)out->n, types[out->type].bytes, &out->bytes))
		return bad_header(&d, "shape has a product that wraps", err);
	left = map->size - at;
	if (out->bytes > left)
		return CX_FAIL(err, CX_ERR_FORMAT,
			"%s: the array has %llu bytes, but %zu are left in the file", map->label,
			(unsigned long long)out->bytes, left);
	out->label = map->label;
	out->data = map->data + at;
	*off = at + (size_t)out->bytes;
	return CX_OK;
}

cx_status cx_npy_open(const cx_alloc *a, const char *path, cx_npy *out, cx_err *err)
{
	cx_file_map *map;
	size_t off = 0;
	cx_status st;
	memset(out, 0, sizeof *out);
	if ((st = cx_file_map_open(a, path, &map, err)) != CX_OK) return st;
	st = cx_npy_parse(map, &off, out, err);
	if (st == CX_OK && off != map->size)
		st = CX_FAIL(
			err, CX_ERR_FORMAT, "%s: %zu bytes follow the array", map->label, map->size - off);
	if (st != CX_OK) {
		cx_file_map_close(map);
		memset(out, 0, sizeof *out);
		return st;
	}
	out->map = map;
	return CX_OK;
}

void cx_npy_close(cx_npy *npy)
{
	cx_file_map_close(npy->map);
	memset(npy, 0, sizeof *npy);
}

/* ---- conversion ---- */

/* binary16 to binary64, exactly. */
static double half_to_f64(uint16_t h)
{
	uint32_t exp = h >> 10 & 31, man = h & 1023, bits;
	float f;
	if (exp == 31) bits = 0x7f800000u | man << 13;
	else if (exp > 0) bits = (exp + 112) << 23 | man << 13;
	else { /* zero or subnormal: man * 2^-24, exact in binary32 */ f = (float)man * 0x1p-24f;
		return h & 0x8000 ? -(double)f : (double)f;
	}
	bits |= (uint32_t)(h & 0x8000) << 16;
	memcpy(&f, &bits, 4);
	return f;
}

/* Element i; 64-bit integers are rounded. */
static double element(const cx_npy *npy, int64_t i)
{
	const unsigned char *p = npy->data + (uint64_t)i * types[npy->type].bytes;
	int16_t i2;
	uint16_t u2;
	int32_t i4;
	uint32_t u4;
	int64_t i8;
	uint64_t u8;
	float f4;
	double f8;
	switch (npy->type) {
	case CX_NPY_B1:
		return *p != 0;
	case CX_NPY_I1:
		return (int8_t)*p;
	case CX_NPY_U1:
		return *p;
	case CX_NPY_I2:
		memcpy(&i2, p, 2);
		return i2;
	case CX_NPY_U2:
		memcpy(&u2, p, 2);
		return u2;
	case CX_NPY_I4:
		memcpy(&i4, p, 4);
		return i4;
	case CX_NPY_U4:
		memcpy(&u4, p, 4);
		return u4;
	case CX_NPY_I8:
		memcpy(&i8, p, 8);
		return (double)i8;
	case CX_NPY_U8:
		memcpy(&u8, p, 8);
		return (double)u8;
	case CX_NPY_F2:
		memcpy(&u2, p, 2);
		return half_to_f64(u2);
	case CX_NPY_F4:
		memcpy(&f4, p, 4);
		return f4;
	case CX_NPY_F8:
		memcpy(&f8, p, 8);
		return f8;
	case CX_NPY_TYPE_COUNT:
		break;
	}
	return 0;
}

void cx_npy_to_f32(const cx_npy *npy, float *dst)
{
	if (npy->type == CX_NPY_F4 && npy->bytes) memcpy(dst, npy->data, npy->bytes);
	else
		for (int64_t i = 0; i < npy->n; i++) dst[i] = (float)element(npy, i);
}

void cx_npy_to_f64(const cx_npy *npy, double *dst)
{
	for (int64_t i = 0; i < npy->n; i++) dst[i] = element(npy, i);
}

cx_status cx_npy_to_i64(const cx_npy *npy, int64_t *dst, cx_err *err)
{
	if (npy->type == CX_NPY_F2 || npy->type == CX_NPY_F4 || npy->type == CX_NPY_F8)
		return CX_FAIL(err, CX_ERR_FORMAT, "%s: holds %s, must hold integers", npy->label,
			types[npy->type].descr);
	for (int64_t i = 0; i < npy->n; i++) {
		if (npy->type == CX_NPY_I8 || npy->type == CX_NPY_U8) {
			memcpy(&dst[i], npy->data + 8 * i, 8);
			if (npy->type == CX_NPY_U8 && dst[i] < 0)
				return CX_FAIL(err, CX_ERR_FORMAT,
					"%s: element %lld is %llu, which does not fit a signed integer", npy->label,
					(long long)i, (unsigned long long)dst[i]);
		} else {
			dst[i] = (int64_t)element(npy, i);
		}
	}
	return CX_OK;
}

/* ---- writing ---- */

/* The dict, padded with blanks and closed with a newline, so that head_bytes + its length is a
 * multiple of 64. Returns the length. */
static size_t header_text(
	char *text, size_t head_bytes, cx_npy_type type, int32_t rank, const int64_t *dims)
{
	int n = snprintf(text, HEADER_WRITE_MAX, "{'descr': '%c%s', 'fortran_order': False, 'shape': (",
		types[type].bytes > 1 ? '<' : '|', types[type].descr);
	for (int32_t i = 0; i < rank; i++)
		n += snprintf(
			text + n, HEADER_WRITE_MAX - (size_t)n, "%s%lld", i ? ", " : "", (long long)dims[i]);
	n += snprintf(text + n, HEADER_WRITE_MAX - (size_t)n, "%s), }", rank == 1 ? "," : "");
	do text[n++] = ' ';
	while ((head_bytes + (size_t)n + 1) % HEADER_ALIGN != 0);
	text[n++] = '\n';
	return (size_t)n;
}

cx_status cx_npy_write(const cx_alloc *a, const char *path, cx_npy_type type, int32_t rank,
	const int64_t *dims, const void *data, cx_err *err)
{
	char head[HEADER_WRITE_MAX + 16] = "\x93NUMPY\x01";
	const size_t fixed = MAGIC_BYTES + 4;
	cx_file_out *out;
	uint64_t bytes;
	int64_t n;
	size_t len;
	cx_status st;
	if ((unsigned)type >= CX_NPY_TYPE_COUNT || rank < 0 || rank > CX_FILE_MAX_RANK)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "%s: no such NPY type or rank", cx_path_tail(path));
	if (!cx__dims_count(rank, dims, &n) || !cx_mul_u64((uint64_t)n, types[type].bytes, &bytes) ||
		bytes > SIZE_MAX)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "%s: the shape of the array to write is not possible",
			cx_path_tail(path));
	len = header_text(
		head + fixed, fixed, type, rank, dims); /* at most 8 dims of 20 digits: below 65536 */
	head[8] = (char)(len & 255);
	head[9] = (char)(len >> 8);
	if ((st = cx_file_out_open(a, path, &out, err)) != CX_OK) return st;
	if ((st = cx_file_out_write(out, head, fixed + len, err)) != CX_OK) goto fail;
	if (bytes && (st = cx_file_out_write(out, data, (size_t)bytes, err)) != CX_OK) goto fail;
	return cx_file_out_commit(out, err);
fail:
	cx_file_out_discard(out);
	return st;
}
