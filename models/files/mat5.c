/* mat5.c - MATLAB 5 arrays. See mat5.h.
 *
 * A file is 128 bytes of head, then elements: a tag (type, bytes), data, padding to 8. A tag whose
 * upper half of the first word is not zero is the small form: bytes and type share that word, the
 * data is the second one. An array (miMATRIX) holds flags, dimensions, name, real part, imaginary
 * part; a compressed element (miCOMPRESSED) holds one array as a zlib stream. */
#include "models/files/mat5.h"

#include <string.h>
#include <zlib.h>

enum {
	HEAD = 128,
	TAG = 8,
	MI_INT8 = 1,
	MI_INT32 = 5,
	MI_UINT32 = 6,
	MI_MATRIX = 14,
	MI_COMPRESSED
};
enum { CLASS_DOUBLE = 6, CLASS_UINT64 = 15, FLAG_COMPLEX = 0x800 };

/* Bytes per element by storage type; 0: no number. */
static const uint8_t type_bytes[14] = {0, 1, 1, 2, 2, 4, 4, 4, 0, 8, 0, 0, 8, 8};

typedef struct span {
	const unsigned char *p;
	size_t n;
} span;

static uint32_t u32(const unsigned char *p)
{
	uint32_t v;
	memcpy(&v, p, sizeof v);
	return v;
}

/* Takes the next element from *s: its type and data; *s moves behind its padding. */
static bool element(span *s, uint32_t *type, span *data)
{
	uint32_t word, bytes;
	size_t step;
	if (s->n < TAG) return false;
	word = u32(s->p);
	if (word >> 16) {
		*type = word & 0xffff;
		bytes = word >> 16;
		if (bytes > 4) return false;
		*data = (span){s->p + 4, bytes};
		step = TAG;
	} else {
		*type = word;
		bytes = u32(s->p + 4);
		if (bytes > s->n - TAG) return false;
		*data = (span){s->p + TAG, bytes};
		step = TAG + bytes;
		/* compressed elements are not padded */
		if (word != MI_COMPRESSED) step += (8 - bytes % 8) % 8;
		if (step > s->n) step = s->n;
	}
	s->p += step;
	s->n -= step;
	return true;
}

static cx_status damaged(const cx_mat5 *m, const char *what, cx_err *err)
{
	return CX_FAIL(err, CX_ERR_FORMAT, "%s: array %zu: %s", m->label, m->n_arrays + 1, what);
}

static cx_status shape(cx_mat5 *m, cx_mat5_array *a, const span *dims, cx_err *err)
{
	size_t rank = dims->n / 4;
	a->n = 1;
	if (dims->n % 4 || rank < 2 || rank > CX_MAT5_MAX_RANK)
		return damaged(m, "it has no 2 to 8 dimensions", err);
	a->rank = (int32_t)rank;
	for (size_t i = 0; i < rank; i++) {
		a->dims[i] = (int32_t)u32(dims->p + 4 * i);
		if (a->dims[i] < 0 || !cx_mul_i64(a->n, a->dims[i], &a->n))
			return damaged(m, "its dimensions are negative or too large", err);
	}
	return CX_OK;
}

/* One array, the inside of a miMATRIX. */
static cx_status matrix(cx_mat5 *m, span s, cx_err *err)
{
	cx_mat5_array a = {0};
	span flags, dims, name, data;
	uint32_t type, class;
	char *copy;
	cx_status st;
	if (s.n == 0) return CX_OK; /* an empty array without a name is legal, and of no use */
	if (!element(&s, &type, &flags) || type != MI_UINT32 || flags.n != 8)
		return damaged(m, "its flags are damaged", err);
	class = flags.p[0];
	if (!element(&s, &type, &dims) || type != MI_INT32)
		return damaged(m, "its dimensions are damaged", err);
	if ((st = shape(m, &a, &dims, err)) != CX_OK) return st;
	if (!element(&s, &type, &name) || type != MI_INT8 || name.n > 255 || memchr(name.p, 0, name.n))
		return damaged(m, "its name is damaged", err);
	copy = cx_arena_alloc(&m->arena, name.n + 1);
	if (!copy) return CX_FAIL(err, CX_ERR_MEMORY, "%s: out of memory", m->label);
	memcpy(copy, name.p, name.n);
	a.name = copy;
	a.numeric = class >= CLASS_DOUBLE && class <= CLASS_UINT64 && !(u32(flags.p) & FLAG_COMPLEX);
	if (a.numeric) {
		if (!element(&s, &type, &data) || type >= sizeof type_bytes || !type_bytes[type])
			return damaged(m, "its data is damaged", err);
		if (data.n % type_bytes[type] || (int64_t)(data.n / type_bytes[type]) != a.n)
			return CX_FAIL(err, CX_ERR_FORMAT,
				"%s: '%.60s' has %lld elements, but %zu bytes of data", m->label, a.name,
				(long long)a.n, data.n);
		a.type = type;
		a.data = data.p;
	}
	if (m->n_arrays >= CX_MAT5_MAX_ARRAYS) return damaged(m, "there are too many arrays", err);
	m->arrays[m->n_arrays++] = a;
	return CX_OK;
}

/* Inflates one element: first its tag, which says how long it is, then all. */
static cx_status inflate_one(cx_mat5 *m, const span *packed, cx_err *err)
{
	unsigned char tag[TAG], *data = NULL;
	z_stream z = {.next_in = (unsigned char *)packed->p, .avail_in = (uInt)packed->n};
	uint32_t bytes;
	int code;
	cx_status st;
	if (inflateInit(&z) != Z_OK)
		return CX_FAIL(err, CX_ERR_MEMORY, "%s: zlib: out of memory", m->label);
	z.next_out = tag;
	z.avail_out = TAG;
	code = inflate(&z, Z_NO_FLUSH);
	bytes = u32(tag + 4);
	if ((code != Z_OK && code != Z_STREAM_END) || z.avail_out || u32(tag) != MI_MATRIX ||
		bytes / 1040 > packed->n) {
		st = damaged(m, "its compressed data is damaged", err);
	} else if (!(data = cx_arena_alloc(&m->arena, (size_t)bytes + 1))) {
		st = CX_FAIL(err, CX_ERR_MEMORY, "%s: out of memory", m->label);
	} else {
		z.next_out = data;
		z.avail_out = bytes + 1; /* one more, to see the checksum behind the last byte */
		code = inflate(&z, Z_FINISH);
		st = code == Z_STREAM_END && z.avail_out == 1
				 ? matrix(m, (span){data, bytes}, err)
				 : damaged(m, "its compressed data is damaged", err);
	}
	inflateEnd(&z);
	return st;
}

static cx_status head(const cx_mat5 *m, const cx_file_map *map, cx_err *err)
{
	if (map->size < HEAD || memcmp(map->data, "MATLAB ", 7) != 0) {
		return CX_FAIL(err, CX_ERR_FORMAT, "%s is no MATLAB 5 file", m->label);
	}
	if (!memcmp(map->data, "MATLAB 7.3", 10))
		return CX_FAIL(err, CX_ERR_FORMAT,
			"%s is a MATLAB 7.3 file, which is HDF5; save it with -v7 to have it read", m->label);
	if (!memcmp(map->data + 126, "MI", 2))
		return CX_FAIL(err, CX_ERR_FORMAT, "%s is big-endian, which is not read", m->label);
	if (memcmp(map->data + 124, "\0\1IM", 4) != 0)
		return CX_FAIL(
			err, CX_ERR_FORMAT, "%s is no MATLAB 5 file (version or byte order)", m->label);
	return CX_OK;
}

cx_status cx_mat5_parse(const cx_alloc *alloc, const cx_file_map *map, cx_mat5 *out, cx_err *err)
{
	span s, data;
	uint32_t type;
	cx_status st;
	memset(out, 0, sizeof *out);
	cx_arena_init(&out->arena, alloc);
	out->label = map->label;
	if ((st = head(out, map, err)) != CX_OK) return st;
	out->arrays = cx_arena_array(&out->arena, CX_MAT5_MAX_ARRAYS, sizeof *out->arrays);
	if (!out->arrays) return CX_FAIL(err, CX_ERR_MEMORY, "%s: out of memory", out->label);
	s = (span){map->data + HEAD, map->size - HEAD};
	while (st == CX_OK && s.n > 0) {
		if (!element(&s, &type, &data)) st = damaged(out, "it is cut short", err);
		else if (type == MI_COMPRESSED) st = inflate_one(out, &data, err);
		else if (type == MI_MATRIX) st = matrix(out, data, err);
		else st = damaged(out, "it is neither an array nor a compressed one", err);
	}
	if (st != CX_OK) cx_mat5_close(out);
	return st;
}

cx_status cx_mat5_open(const cx_alloc *alloc, const char *path, cx_mat5 *out, cx_err *err)
{
	cx_file_map *map;
	cx_status st;
	memset(out, 0, sizeof *out);
	if ((st = cx_file_map_open(alloc, path, &map, err)) != CX_OK) return st;
	if ((st = cx_mat5_parse(alloc, map, out, err)) == CX_OK) out->map = map;
	else cx_file_map_close(map);
	return st;
}

void cx_mat5_close(cx_mat5 *m)
{
	cx_arena_deinit(&m->arena);
	cx_file_map_close(m->map);
	memset(m, 0, sizeof *m);
}

cx_status cx_mat5_get(
	const cx_mat5 *m, const char *name, cx_need need, const cx_mat5_array **out, cx_err *err)
{
	for (size_t i = 0; i < m->n_arrays; i++)
		if (!strcmp(m->arrays[i].name, name)) {
			*out = &m->arrays[i];
			if (m->arrays[i].numeric) return CX_OK;
			return CX_FAIL(
				err, CX_ERR_FORMAT, "%s: '%.60s' is no real, full, numeric array", m->label, name);
		}
	if (need == CX_OPTIONAL) return CX_OK;
	return CX_FAIL(err, CX_ERR_FORMAT, "%s: there is no array '%.60s'", m->label, name);
}

void cx_mat5_to_f64(const cx_mat5_array *a, double *dst)
{
#define CASE(id, ctype)                                                                            \
	case id:                                                                                       \
		for (int64_t i = 0; i < a->n; i++) {                                                       \
			ctype v;                                                                               \
			memcpy(&v, a->data + (size_t)i * sizeof v, sizeof v);                                  \
			dst[i] = (double)v;                                                                    \
		}                                                                                          \
		break
	switch (a->type) {
		CASE(1, int8_t);
		CASE(2, uint8_t);
		CASE(3, int16_t);
		CASE(4, uint16_t);
		CASE(5, int32_t);
		CASE(6, uint32_t);
		CASE(7, float);
		CASE(9, double);
		CASE(12, int64_t);
		CASE(13, uint64_t);
	}
#undef CASE
}
