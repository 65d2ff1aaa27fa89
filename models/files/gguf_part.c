/* gguf_part.c - reads one GGUF file: header, metadata, tensor infos (spec/llm.md 3.2), every length
 * checked.
 *
 * In: the bytes of the file.   Out: a gguf_part whose pointers all lie inside the map or in the
 * arena.
 *
 * Whatever the file claims is compared with the bytes that are left before anything is allocated or
 * walked, so that time and memory stay proportional to the file's size. */
#include "models/files/gguf_part.h"

#include <stdlib.h>
#include <string.h>

enum {
	VERSION_MIN = 2,
	VERSION_MAX = 3,
	NAME_MAX_BYTES = 65535, /* the format's own limit for keys */
	DIMS_MAX = 4,
	ALIGN_DEFAULT = 32,
	ALIGN_MIN = 8, /* the format asks for a multiple of 8: data can then be read in place */
	KV_MIN_BYTES = 8 + 1 + 4 + 1,
	TENSOR_MIN_BYTES = 8 + 1 + 4 + 4 + 8
};

/* ORDER GGUF */
static const uint8_t type_bytes[CX_GGUF_TYPE_COUNT] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

/* Types of ggml that dtype.def has no row for: only to be able to name them when they are refused.
 */
static const struct {
	uint32_t id;
	const char *name;
} foreign_types[] = {
	{4, "Q4_2"},
	{5, "Q4_3"},
	{9, "Q8_1"},
	{15, "Q8_K"},
	{16, "IQ2_XXS"},
	{17, "IQ2_XS"},
	{18, "IQ3_XXS"},
	{19, "IQ1_S"},
	{21, "IQ3_S"},
	{22, "IQ2_S"},
	{25, "I16"},
	{28, "F64"},
	{29, "IQ1_M"},
	{31, "Q4_0_4_4"},
	{32, "Q4_0_4_8"},
	{33, "Q4_0_8_8"},
	{34, "TQ1_0"},
	{35, "TQ2_0"},
	{36, "IQ4_NL_4_4"},
	{37, "IQ4_NL_4_8"},
	{38, "IQ4_NL_8_8"},
	{40, "NVFP4"},
	{41, "Q1_0"},
	{42, "Q2_0"},
};

typedef struct reader {
	const cx_file_map *map;
	size_t pos;
	const char *what; /* for messages: "metadata entry", "tensor" */
	uint64_t index;   /* its number */
	const char *name; /* its name, once read */
} reader;

static size_t left(const reader *r)
{
	return r->map->size - r->pos;
}

static cx_status fail_here(const reader *r, const char *text, cx_err *err)
{
	if (r->name)
		return CX_FAIL(
			err, CX_ERR_FORMAT, "%s: %s '%.80s' %s", r->map->label, r->what, r->name, text);
	return CX_FAIL(err, CX_ERR_FORMAT, "%s: %s %llu %s", r->map->label, r->what,
		(unsigned long long)r->index, text);
}

static cx_status need_bytes(const reader *r, uint64_t n, cx_err *err)
{
	if (n <= left(r)) return CX_OK;
	if (r->name)
		return CX_FAIL(err, CX_ERR_FORMAT,
			"%s: the file ends inside %s '%.60s': it needs %llu bytes more at byte %zu of %zu",
			r->map->label, r->what, r->name, (unsigned long long)n, r->pos, r->map->size);
	return CX_FAIL(err, CX_ERR_FORMAT,
		"%s: the file ends inside %s %llu: it needs %llu bytes more at byte %zu of %zu",
		r->map->label, r->what, (unsigned long long)r->index, (unsigned long long)n, r->pos,
		r->map->size);
}

static cx_status read_u32(reader *r, uint32_t *out, cx_err *err)
{
	cx_status st = need_bytes(r, 4, err);
	if (st != CX_OK) return st;
	memcpy(out, r->map->data + r->pos, 4);
	r->pos += 4;
	return CX_OK;
}

static cx_status read_u64(reader *r, uint64_t *out, cx_err *err)
{
	cx_status st = need_bytes(r, 8, err);
	if (st != CX_OK) return st;
	memcpy(out, r->map->data + r->pos, 8);
	r->pos += 8;
	return CX_OK;
}

static cx_status read_str(reader *r, cx_gguf_str *out, cx_err *err)
{
	uint64_t n;
	cx_status st;
	if ((st = read_u64(r, &n, err)) != CX_OK) return st;
	if ((st = need_bytes(r, n, err)) != CX_OK) return st;
	*out = (cx_gguf_str){(const char *)r->map->data + r->pos, (size_t)n};
	r->pos += (size_t)n;
	return CX_OK;
}

static char *terminated(cx_arena *arena, cx_gguf_str s)
{
	char *t = cx_arena_alloc(arena, s.len + 1);
	if (t) memcpy(t, s.ptr, s.len);
	return t;
}

static cx_status out_of_memory(const reader *r, cx_err *err)
{
	return CX_FAIL(err, CX_ERR_MEMORY, "%s: out of memory while reading it", r->map->label);
}

/* A key or a tensor's name: becomes r->name, the subject of what follows. */
static cx_status read_name(reader *r, cx_arena *arena, const char **out, cx_err *err)
{
	cx_gguf_str s;
	cx_status st;
	r->name = NULL;
	if ((st = read_str(r, &s, err)) != CX_OK) return st;
	if (s.len == 0) return fail_here(r, "has an empty name", err);
	if (s.len > NAME_MAX_BYTES) return fail_here(r, "has a name of more than 65535 bytes", err);
	if (memchr(s.ptr, 0, s.len)) return fail_here(r, "has a NUL byte in its name", err);
	r->name = *out = terminated(arena, s);
	return r->name ? CX_OK : out_of_memory(r, err);
}

/* ---- metadata ---- */

static cx_status check_bools(const reader *r, const unsigned char *p, uint64_t n, cx_err *err)
{
	for (uint64_t i = 0; i < n; i++)
		if (p[i] > 1) return fail_here(r, "holds a bool that is neither 0 nor 1", err);
	return CX_OK;
}

/* n numbers or bools. */
static cx_status skip_plain(reader *r, uint32_t type, uint64_t n, cx_err *err)
{
	const unsigned char *p = r->map->data + r->pos;
	uint64_t bytes;
	cx_status st;
	if (!cx_mul_u64(n, type_bytes[type], &bytes))
		return fail_here(r, "has an array whose size wraps", err);
	if ((st = need_bytes(r, bytes, err)) != CX_OK) return st;
	if (type == CX_GGUF_BOOL && (st = check_bools(r, p, n, err)) != CX_OK) return st;
	r->pos += (size_t)bytes;
	return CX_OK;
}

/* The head of an array: its element type and count. Every element takes at least so many bytes. */
static cx_status read_array_head(reader *r, uint32_t *type, uint64_t *n, cx_err *err)
{
	uint64_t bytes;
	cx_status st;
	if ((st = read_u32(r, type, err)) != CX_OK) return st;
	if ((st = read_u64(r, n, err)) != CX_OK) return st;
	if (*type >= CX_GGUF_TYPE_COUNT) return fail_here(r, "has an array of an unknown type", err);
	if (!cx_mul_u64(*n,
			*type == CX_GGUF_STRING  ? 8
			: *type == CX_GGUF_ARRAY ? 12
									 : type_bytes[*type],
			&bytes))
		return fail_here(r, "has an array whose size wraps", err);
	return need_bytes(r, bytes, err);
}

/* Walks over n elements of a type that nests; depth counts the arrays around them. */
static cx_status skip_elems(reader *r, uint32_t type, uint64_t n, int depth, cx_err *err)
{
	cx_status st = CX_OK;
	if (depth > CX_GGUF_MAX_DEPTH) return fail_here(r, "nests arrays deeper than 4", err);
	if (type != CX_GGUF_STRING && type != CX_GGUF_ARRAY) return skip_plain(r, type, n, err);
	for (uint64_t i = 0; i < n && st == CX_OK; i++) {
		if (type == CX_GGUF_STRING) {
			cx_gguf_str s;
			st = read_str(r, &s, err);
		} else {
			uint32_t inner;
			uint64_t count;
			st = read_array_head(r, &inner, &count, err);
			if (st == CX_OK) st = skip_elems(r, inner, count, depth + 1, err);
		}
	}
	return st;
}

static cx_status read_strings(reader *r, cx_arena *arena, cx_gguf_kv *kv, cx_err *err)
{
	cx_gguf_str *s = cx_arena_array(arena, kv->n, sizeof *s);
	cx_status st;
	if (!s) return out_of_memory(r, err);
	for (uint64_t i = 0; i < kv->n; i++)
		if ((st = read_str(r, &s[i], err)) != CX_OK) return st;
	if (kv->type == CX_GGUF_STRING && !(s[0].ptr = terminated(arena, s[0])))
		return out_of_memory(r, err);
	kv->strs = s;
	return CX_OK;
}

static cx_status read_kv(reader *r, cx_arena *arena, cx_gguf_kv *kv, cx_err *err)
{
	uint32_t type;
	size_t begin;
	cx_status st;
	if ((st = read_name(r, arena, &kv->key, err)) != CX_OK) return st;
	if ((st = read_u32(r, &type, err)) != CX_OK) return st;
	if (type >= CX_GGUF_TYPE_COUNT)
		return CX_FAIL(err, CX_ERR_FORMAT, "%s: metadata key '%.80s' has unknown type %u",
			r->map->label, kv->key, type);
	kv->type = kv->elem = type;
	kv->n = 1;
	if (type == CX_GGUF_ARRAY) {
		if ((st = read_array_head(r, &type, &kv->n, err)) != CX_OK) return st;
		kv->elem = type;
	}
	begin = r->pos;
	if (type == CX_GGUF_STRING) st = read_strings(r, arena, kv, err);
	else st = skip_elems(r, type, kv->n, 1, err);
	kv->raw = r->map->data + begin;
	kv->raw_bytes = r->pos - begin;
	return st;
}

static int compare_keys(const void *a, const void *b)
{
	const cx_gguf_kv *x = *(const cx_gguf_kv *const *)a, *y = *(const cx_gguf_kv *const *)b;
	return strcmp(x->key, y->key);
}

static cx_status index_keys(gguf_part *p, cx_arena *arena, reader *r, cx_err *err)
{
	p->by_key = cx_arena_array(arena, p->n_kv, sizeof *p->by_key);
	if (!p->by_key) return out_of_memory(r, err);
	for (size_t i = 0; i < p->n_kv; i++) p->by_key[i] = &p->kv[i];
	qsort(p->by_key, p->n_kv, sizeof *p->by_key, compare_keys);
	for (size_t i = 1; i < p->n_kv; i++) {
		const cx_gguf_kv *x = p->by_key[i - 1], *y = p->by_key[i];
		if (strcmp(x->key, y->key) != 0) continue;
		if (x->type != y->type || x->elem != y->elem || x->n != y->n ||
			x->raw_bytes != y->raw_bytes || memcmp(x->raw, y->raw, x->raw_bytes) != 0)
			return CX_FAIL(err, CX_ERR_FORMAT,
				"%s: metadata key '%.80s' is there twice, with different values", r->map->label,
				x->key);
	}
	return CX_OK;
}

static cx_status read_metadata(gguf_part *p, cx_arena *arena, reader *r, uint64_t n, cx_err *err)
{
	cx_status st;
	if (n > left(r) / KV_MIN_BYTES)
		return CX_FAIL(err, CX_ERR_FORMAT,
			"%s: says it has %llu metadata entries, which %zu bytes cannot hold", r->map->label,
			(unsigned long long)n, left(r));
	p->kv = cx_arena_array(arena, (size_t)n, sizeof *p->kv);
	if (!p->kv) return out_of_memory(r, err);
	p->n_kv = (size_t)n;
	r->what = "metadata entry";
	for (r->index = 0; r->index < n; r->index++)
		if ((st = read_kv(r, arena, &p->kv[r->index], err)) != CX_OK) return st;
	r->name = NULL;
	return index_keys(p, arena, r, err);
}

/* ---- tensors ---- */

static cx_status bad_type(const reader *r, uint32_t id, cx_err *err)
{
	const char *name = "an unknown type";
	for (size_t i = 0; i < sizeof foreign_types / sizeof *foreign_types; i++)
		if (foreign_types[i].id == id) name = foreign_types[i].name;
	return CX_FAIL(err, CX_ERR_UNSUPPORTED,
		"%s: tensor '%.80s' has type %u (%s), which is not supported", r->map->label, r->name, id,
		name);
}

/* bytes from the dims; the dims have been turned round, so that a row is the last one. */
static cx_status size_tensor(const reader *r, cx_file_tensor *t, cx_err *err)
{
	const cx_dtype_info *info = cx_dtype_get(t->dtype);
	int64_t row = t->rank > 0 ? t->dims[t->rank - 1] : 1, n;
	if (!cx__dims_count(t->rank, t->dims, &n))
		return fail_here(r, "has a shape whose product wraps", err);
	if (row % info->block_elems != 0)
		return CX_FAIL(err, CX_ERR_FORMAT,
			"%s: tensor '%.80s' has rows of %lld elements, not a multiple of the %d in a block of "
			"%s",
			r->map->label, t->name, (long long)row, (int)info->block_elems, info->name);
	if (!cx_mul_u64((uint64_t)(n / info->block_elems), (uint64_t)info->block_bytes, &t->bytes))
		return fail_here(r, "has a size in bytes that wraps", err);
	return CX_OK;
}

static cx_status read_tensor(
	reader *r, cx_arena *arena, cx_file_tensor *t, uint64_t *offset, cx_err *err)
{
	uint32_t n_dims, type;
	cx_status st;
	if ((st = read_name(r, arena, &t->name, err)) != CX_OK) return st;
	if ((st = read_u32(r, &n_dims, err)) != CX_OK) return st;
	if (n_dims > DIMS_MAX)
		return CX_FAIL(err, CX_ERR_FORMAT, "%s: tensor '%.80s' says it has %u dims, more than 4",
			r->map->label, t->name, n_dims);
	t->rank = (int32_t)n_dims;
	for (uint32_t i = 0; i < n_dims; i++) {
		uint64_t ne;
		if ((st = read_u64(r, &ne, err)) != CX_OK) return st;
		if (ne == 0 || ne > INT64_MAX)
			return CX_FAIL(err, CX_ERR_FORMAT,
				"%s: tensor '%.80s' has dim %u = %lld, must be positive", r->map->label, t->name, i,
				(long long)ne);
		t->dims[n_dims - 1 - i] = (int64_t)ne;
	}
	if ((st = read_u32(r, &type, err)) != CX_OK) return st;
	if (!cx_dtype_from_gguf(type, &t->dtype)) return bad_type(r, type, err);
	t->usable = true;
	t->dtype_name = cx_dtype_get(t->dtype)->name;
	t->file = r->map->label;
	if ((st = read_u64(r, offset, err)) != CX_OK) return st;
	return size_tensor(r, t, err);
}

/* Puts the tensors into the data area, which begins after the infos at the next multiple of the
 * alignment. */
static cx_status place_tensors(gguf_part *p, const reader *r, const uint64_t *offset, cx_err *err)
{
	int64_t align = ALIGN_DEFAULT;
	uint64_t start, room, end;
	cx_status st =
		cx__gguf_part_i64(p, "general.alignment", CX_OPTIONAL, INT64_MIN, INT64_MAX, &align, err);
	if (st != CX_OK) return st;
	if (align < ALIGN_MIN || (align & (align - 1)) != 0)
		return CX_FAIL(err, CX_ERR_FORMAT,
			"%s: general.alignment is %lld, must be a power of two from 8 up", r->map->label,
			(long long)align);
	if (p->n_tensors == 0) return CX_OK;
	if (!cx_align_u64(r->pos, (uint64_t)align, &start) || start > r->map->size)
		return CX_FAIL(err, CX_ERR_FORMAT, "%s: the file ends at byte %zu, before its tensor data",
			r->map->label, r->map->size);
	room = r->map->size - start;
	for (size_t i = 0; i < p->n_tensors; i++) {
		cx_file_tensor *t = &p->tensors[i];
		if (offset[i] % (uint64_t)align != 0)
			return CX_FAIL(err, CX_ERR_FORMAT,
				"%s: tensor '%.80s' begins at offset %llu, not a multiple of %lld", r->map->label,
				t->name, (unsigned long long)offset[i], (long long)align);
		if (!cx_add_u64(offset[i], t->bytes, &end) || end > room)
			return CX_FAIL(err, CX_ERR_FORMAT,
				"%s: tensor '%.80s' has %llu bytes at offset %llu, but the data area has %llu",
				r->map->label, t->name, (unsigned long long)t->bytes, (unsigned long long)offset[i],
				(unsigned long long)room);
		t->data = r->map->data + start + offset[i];
	}
	return CX_OK;
}

static cx_status check_overlap(gguf_part *p, cx_arena *arena, const reader *r, cx_err *err)
{
	const cx_file_tensor **t = cx__tensors_by_data(arena, p->tensors, p->n_tensors);
	if (!t) return out_of_memory(r, err);
	for (size_t i = 1; i < p->n_tensors; i++)
		if (t[i - 1]->data + t[i - 1]->bytes > t[i]->data)
			return CX_FAIL(err, CX_ERR_FORMAT, "%s: tensors '%.60s' and '%.60s' overlap",
				r->map->label, t[i - 1]->name, t[i]->name);
	return CX_OK;
}

static cx_status read_tensors(gguf_part *p, cx_arena *arena, reader *r, uint64_t n, cx_err *err)
{
	uint64_t *offset;
	cx_status st;
	if (n > left(r) / TENSOR_MIN_BYTES)
		return CX_FAIL(err, CX_ERR_FORMAT,
			"%s: says it has %llu tensors, which %zu bytes cannot hold", r->map->label,
			(unsigned long long)n, left(r));
	p->tensors = cx_arena_array(arena, (size_t)n, sizeof *p->tensors);
	offset = cx_arena_array(arena, (size_t)n, sizeof *offset);
	if (!p->tensors || !offset) return out_of_memory(r, err);
	p->n_tensors = (size_t)n;
	r->what = "tensor";
	for (r->index = 0; r->index < n; r->index++)
		if ((st = read_tensor(r, arena, &p->tensors[r->index], &offset[r->index], err)) != CX_OK)
			return st;
	r->name = NULL;
	if ((st = place_tensors(p, r, offset, err)) != CX_OK) return st;
	return check_overlap(p, arena, r, err);
}

cx_status cx__gguf_part_read(gguf_part *p, cx_arena *arena, cx_err *err)
{
	reader r = {.map = p->map, .what = "header field"};
	uint64_t n_tensors, n_kv;
	uint32_t version;
	cx_status st;
	if (p->map->size < 4 || memcmp(p->map->data, "GGUF", 4) != 0)
		return CX_FAIL(err, CX_ERR_FORMAT,
			"%s: is not a GGUF file: it does not begin with the letters GGUF", p->map->label);
	r.pos = 4;
	if ((st = read_u32(&r, &version, err)) != CX_OK) return st;
	if (version != 0 && (version & 0xffff) == 0)
		return CX_FAIL(err, CX_ERR_UNSUPPORTED,
			"%s: is a big-endian GGUF; only little-endian ones can be read", p->map->label);
	if (version < VERSION_MIN || version > VERSION_MAX)
		return CX_FAIL(err, CX_ERR_UNSUPPORTED,
			"%s: is GGUF version %u; versions 2 and 3 can be read", p->map->label, version);
	p->version = version;
	r.index = 1;
	if ((st = read_u64(&r, &n_tensors, err)) != CX_OK) return st;
	r.index = 2;
	if ((st = read_u64(&r, &n_kv, err)) != CX_OK) return st;
	if ((st = read_metadata(p, arena, &r, n_kv, err)) != CX_OK) return st;
	return read_tensors(p, arena, &r, n_tensors, err);
}
