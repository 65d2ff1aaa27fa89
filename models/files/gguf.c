/* gguf.c - an open GGUF: its parts, and the getters of its metadata. See gguf.h; gguf_part.c reads
 * the bytes. */
#include "models/files/gguf.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/files/gguf_part.h"

enum { KEY_MAX = 192, SPLIT_MAX = 99999, SPLIT_SUFFIX = 20 /* "-00001-of-00003.gguf" */ };

struct cx_gguf {
	cx_alloc alloc;
	cx_arena arena; /* owns all but the maps */
	gguf_part *parts;
	size_t n_parts; /* parts with a map */
	cx_tensor_list tensors;
	const char *arch; /* general.architecture or NULL */
};

/* ---- opening ---- */

/* Opens the other parts: "<stem>-00002-of-0000N.gguf" and so on beside the first. */
static cx_status open_splits(cx_gguf *g, size_t n, cx_err *err)
{
	const cx_file_map *first = g->parts[0].map;
	size_t len = strlen(first->path);
	char want[64], *path;
	gguf_part *parts;
	cx_status st;
	snprintf(want, sizeof want, "-%05d-of-%05zu.gguf", 1, n);
	if (len < SPLIT_SUFFIX || strcmp(first->path + len - SPLIT_SUFFIX, want) != 0)
		return CX_FAIL(err, CX_ERR_FORMAT,
			"%s: is split in %zu parts, but its name does not end in %s", first->label, n, want);
	parts = cx_arena_array(&g->arena, n, sizeof *parts);
	path = cx_arena_strdup(&g->arena, first->path);
	if (!parts || !path)
		return CX_FAIL(err, CX_ERR_MEMORY, "%s: out of memory for %zu parts", first->label, n);
	parts[0] = g->parts[0];
	g->parts = parts;
	for (size_t i = 1; i < n; i++) {
		int64_t no = -1;
		snprintf(want, sizeof want, "-%05zu-of-%05zu.gguf", i + 1, n);
		memcpy(path + len - SPLIT_SUFFIX, want, SPLIT_SUFFIX);
		if ((st = cx_file_map_open(&g->alloc, path, &parts[i].map, err)) != CX_OK) return st;
		g->n_parts++;
		if ((st = cx__gguf_part_read(&parts[i], &g->arena, err)) != CX_OK) return st;
		if ((st = cx__gguf_part_i64(&parts[i], "split.no", CX_REQUIRED, 0, SPLIT_MAX, &no, err)) !=
			CX_OK)
			return st;
		if ((size_t)no != i)
			return CX_FAIL(err, CX_ERR_FORMAT, "%s: split.no is %lld, but the file's name says %zu",
				parts[i].map->label, (long long)no, i);
	}
	return CX_OK;
}

static cx_status check_split(cx_gguf *g, cx_err *err)
{
	const gguf_part *p = &g->parts[0];
	int64_t count = 1, no = 0;
	cx_status st;
	if ((st = cx__gguf_part_i64(p, "split.count", CX_OPTIONAL, 0, SPLIT_MAX, &count, err)) != CX_OK)
		return st;
	if ((st = cx__gguf_part_i64(p, "split.no", CX_OPTIONAL, 0, SPLIT_MAX, &no, err)) != CX_OK)
		return st;
	if (count <= 1) return CX_OK;
	if (no != 0)
		return CX_FAIL(err, CX_ERR_FORMAT,
			"%s: is part %lld of %lld of a split model; give the first part", p->map->label,
			(long long)no + 1, (long long)count);
	return open_splits(g, (size_t)count, err);
}

/* One list from the tensors of all parts. */
static cx_status list_tensors(cx_gguf *g, cx_err *err)
{
	const char *label = g->parts[0].map->label;
	cx_file_tensor *all = g->parts[0].tensors;
	int64_t claimed = -1;
	size_t n = 0;
	cx_status st;
	for (size_t i = 0; i < g->n_parts; i++) n += g->parts[i].n_tensors;
	if (g->n_parts > 1) {
		size_t at = 0;
		st = cx__gguf_part_i64(
			&g->parts[0], "split.tensors.count", CX_OPTIONAL, 0, INT64_MAX, &claimed, err);
		if (st != CX_OK) return st;
		if (claimed >= 0 && (uint64_t)claimed != n)
			return CX_FAIL(err, CX_ERR_FORMAT,
				"%s: split.tensors.count is %lld, but the %zu parts hold %zu", label,
				(long long)claimed, g->n_parts, n);
		all = cx_arena_array(&g->arena, n, sizeof *all);
		if (!all) return CX_FAIL(err, CX_ERR_MEMORY, "%s: out of memory for %zu tensors", label, n);
		for (size_t i = 0; i < g->n_parts; at += g->parts[i].n_tensors, i++)
			if (g->parts[i].n_tensors)
				memcpy(all + at, g->parts[i].tensors, g->parts[i].n_tensors * sizeof *all);
	}
	return cx__tensor_list_init(&g->tensors, &g->arena, all, n, label, err);
}

cx_status cx_gguf_open_map(const cx_alloc *a, cx_file_map *map, cx_gguf **out, cx_err *err)
{
	cx_gguf *g = cx_calloc(a, 1, sizeof *g);
	const cx_gguf_kv *arch;
	cx_status st;
	*out = NULL;
	if (!g) {
		st = CX_FAIL(err, CX_ERR_MEMORY, "%s: out of memory", map->label);
		cx_file_map_close(map);
		return st;
	}
	g->alloc = a && a->realloc ? *a : cx_alloc_default();
	cx_arena_init(&g->arena, &g->alloc);
	g->parts = cx_arena_array(&g->arena, 1, sizeof *g->parts);
	if (!g->parts) {
		st = CX_FAIL(err, CX_ERR_MEMORY, "%s: out of memory", map->label);
		cx_file_map_close(map);
		goto fail;
	}
	g->parts[0].map = map;
	g->n_parts = 1;
	if ((st = cx__gguf_part_read(&g->parts[0], &g->arena, err)) != CX_OK) goto fail;
	if ((st = check_split(g, err)) != CX_OK) goto fail;
	if ((st = list_tensors(g, err)) != CX_OK) goto fail;
	arch = cx__gguf_part_find(&g->parts[0], "general.architecture");
	if (arch && arch->type == CX_GGUF_STRING) g->arch = arch->strs[0].ptr;
	*out = g;
	return CX_OK;
fail:
	cx_gguf_close(g);
	return st;
}

cx_status cx_gguf_open(const cx_alloc *a, const char *path, cx_gguf **out, cx_err *err)
{
	cx_file_map *map;
	cx_status st;
	*out = NULL;
	if ((st = cx_file_map_open(a, path, &map, err)) != CX_OK) return st;
	return cx_gguf_open_map(a, map, out, err);
}

void cx_gguf_close(cx_gguf *g)
{
	cx_alloc a;
	if (!g) return;
	a = g->alloc;
	for (size_t i = 0; i < g->n_parts; i++) cx_file_map_close(g->parts[i].map);
	cx_arena_deinit(&g->arena);
	cx_free(&a, g, sizeof *g);
}

const char *cx_gguf_label(const cx_gguf *g)
{
	return g->parts[0].map->label;
}
uint32_t cx_gguf_version(const cx_gguf *g)
{
	return g->parts[0].version;
}
const cx_tensor_list *cx_gguf_tensors(const cx_gguf *g)
{
	return &g->tensors;
}
size_t cx_gguf_n_kv(const cx_gguf *g)
{
	return g->parts[0].n_kv;
}
const cx_gguf_kv *cx_gguf_kv_at(const cx_gguf *g, size_t i)
{
	return i < g->parts[0].n_kv ? &g->parts[0].kv[i] : NULL;
}

/* ---- metadata ---- */

/* ORDER GGUF */
static const char *const type_names[CX_GGUF_TYPE_COUNT] = {
	"u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64"};

static bool is_float(cx_gguf_type t)
{
	return t == CX_GGUF_F32 || t == CX_GGUF_F64;
}
static bool is_int(cx_gguf_type t)
{
	return !is_float(t) && t != CX_GGUF_STRING && t != CX_GGUF_ARRAY;
}

static int compare_key(const void *key, const void *elem)
{
	return strcmp(key, (*(const cx_gguf_kv *const *)elem)->key);
}

const cx_gguf_kv *cx__gguf_part_find(const gguf_part *p, const char *key)
{
	const cx_gguf_kv **hit =
		p->n_kv ? bsearch(key, p->by_key, p->n_kv, sizeof *p->by_key, compare_key) : NULL;
	return hit ? *hit : NULL;
}

/* Spells out "{a}."; NULL if the file names no architecture or the key does not fit: no such key
 * then. */
static const char *full_key(const cx_gguf *g, const char *key, char buf[KEY_MAX])
{
	int n;
	if (strncmp(key, "{a}.", 4) != 0) return key;
	if (!g->arch) return NULL;
	n = snprintf(buf, KEY_MAX, "%s%s", g->arch, key + 3);
	return n > 0 && n < KEY_MAX ? buf : NULL;
}

const cx_gguf_kv *cx_gguf_find(const cx_gguf *g, const char *key)
{
	char buf[KEY_MAX];
	const char *full = full_key(g, key, buf);
	return full ? cx__gguf_part_find(&g->parts[0], full) : NULL;
}

/* The entry, or NULL with CX_OK if it may be absent. */
static cx_status find_needed(
	const cx_gguf *g, const char *key, cx_need need, const cx_gguf_kv **out, cx_err *err)
{
	char buf[KEY_MAX];
	const char *full = full_key(g, key, buf);
	*out = full ? cx__gguf_part_find(&g->parts[0], full) : NULL;
	if (*out || need == CX_OPTIONAL) return CX_OK;
	return CX_FAIL(err, CX_ERR_FORMAT, "%s: metadata key '%.100s' is missing", cx_gguf_label(g),
		full ? full : key);
}

static cx_status bad_kv_type(const char *label, const cx_gguf_kv *kv, const char *want, cx_err *err)
{
	if (kv->type == CX_GGUF_ARRAY)
		return CX_FAIL(err, CX_ERR_FORMAT,
			"%s: metadata key '%.80s' is an array of %llu %s, must be %s", label, kv->key,
			(unsigned long long)kv->n, type_names[kv->elem], want);
	return CX_FAIL(err, CX_ERR_FORMAT, "%s: metadata key '%.80s' has type %s, must be %s", label,
		kv->key, type_names[kv->type], want);
}

static uint64_t raw_u64(const cx_gguf_kv *kv, uint64_t i)
{
	uint64_t v;
	memcpy(&v, kv->raw + i * 8, 8);
	return v;
}

int64_t cx_gguf_kv_i64(const cx_gguf_kv *kv, uint64_t i)
{
	const unsigned char *p = kv->raw;
	int32_t i32;
	uint32_t u32;
	int16_t i16;
	uint16_t u16;
	double d;
	switch (kv->elem) {
	case CX_GGUF_U8:
	case CX_GGUF_BOOL:
		return p[i];
	case CX_GGUF_I8:
		return (int8_t)p[i];
	case CX_GGUF_U16:
		memcpy(&u16, p + 2 * i, 2);
		return u16;
	case CX_GGUF_I16:
		memcpy(&i16, p + 2 * i, 2);
		return i16;
	case CX_GGUF_U32:
		memcpy(&u32, p + 4 * i, 4);
		return u32;
	case CX_GGUF_I32:
		memcpy(&i32, p + 4 * i, 4);
		return i32;
	case CX_GGUF_U64:
		return raw_u64(kv, i) > INT64_MAX ? INT64_MAX : (int64_t)raw_u64(kv, i);
	case CX_GGUF_I64:
		return (int64_t)raw_u64(kv, i);
	case CX_GGUF_F32:
	case CX_GGUF_F64:
		d = cx_gguf_kv_f64(kv, i);
		if (isnan(d)) return 0;
		return d >= 0x1p63 ? INT64_MAX : d <= -0x1p63 ? INT64_MIN : (int64_t)d;
	default:
		return 0;
	}
}

double cx_gguf_kv_f64(const cx_gguf_kv *kv, uint64_t i)
{
	double d;
	float f;
	switch (kv->elem) {
	case CX_GGUF_F32:
		memcpy(&f, kv->raw + 4 * i, 4);
		return f;
	case CX_GGUF_F64:
		memcpy(&d, kv->raw + 8 * i, 8);
		return d;
	case CX_GGUF_U64:
		return (double)raw_u64(kv, i);
	default:
		return (double)cx_gguf_kv_i64(kv, i);
	}
}

/* Element i of an integer entry, inside [lo, hi]. */
static cx_status int_in_range(const char *label, const cx_gguf_kv *kv, uint64_t i, int64_t lo,
	int64_t hi, int64_t *out, cx_err *err)
{
	int64_t v = cx_gguf_kv_i64(kv, i);
	if (kv->elem == CX_GGUF_U64 && raw_u64(kv, i) > INT64_MAX)
		return CX_FAIL(err, CX_ERR_FORMAT, "%s: metadata key '%.80s' is %llu, too large", label,
			kv->key, (unsigned long long)raw_u64(kv, i));
	if (!(v >= lo && v <= hi))
		return CX_FAIL(err, CX_ERR_FORMAT,
			"%s: metadata key '%.80s' is %lld, must be from %lld to %lld", label, kv->key,
			(long long)v, (long long)lo, (long long)hi);
	*out = v;
	return CX_OK;
}

static cx_status kv_int(
	const char *label, const cx_gguf_kv *kv, int64_t lo, int64_t hi, int64_t *io, cx_err *err)
{
	if (!is_int(kv->type)) return bad_kv_type(label, kv, "an integer", err);
	return int_in_range(label, kv, 0, lo, hi, io, err);
}

cx_status cx__gguf_part_i64(const gguf_part *p, const char *key, cx_need need, int64_t lo,
	int64_t hi, int64_t *io, cx_err *err)
{
	const cx_gguf_kv *kv = cx__gguf_part_find(p, key);
	if (kv) return kv_int(p->map->label, kv, lo, hi, io, err);
	if (need == CX_OPTIONAL) return CX_OK;
	return CX_FAIL(err, CX_ERR_FORMAT, "%s: metadata key '%.100s' is missing", p->map->label, key);
}

cx_status cx_gguf_i64(const cx_gguf *g, const char *key, cx_need need, int64_t lo, int64_t hi,
	int64_t *io, cx_err *err)
{
	const cx_gguf_kv *kv;
	cx_status st = find_needed(g, key, need, &kv, err);
	if (st != CX_OK || !kv) return st;
	return kv_int(cx_gguf_label(g), kv, lo, hi, io, err);
}

cx_status cx_gguf_f64(
	const cx_gguf *g, const char *key, cx_need need, double lo, double hi, double *io, cx_err *err)
{
	const cx_gguf_kv *kv;
	double v;
	cx_status st = find_needed(g, key, need, &kv, err);
	if (st != CX_OK || !kv) return st;
	if (kv->type == CX_GGUF_BOOL || (!is_int(kv->type) && !is_float(kv->type)))
		return bad_kv_type(cx_gguf_label(g), kv, "a number", err);
	v = cx_gguf_kv_f64(kv, 0);
	if (!(v >= lo && v <= hi && isfinite(v)))
		return CX_FAIL(err, CX_ERR_FORMAT, "%s: metadata key '%.80s' is %g, must be from %g to %g",
			cx_gguf_label(g), kv->key, v, lo, hi);
	*io = v;
	return CX_OK;
}

cx_status cx_gguf_bool(const cx_gguf *g, const char *key, cx_need need, bool *io, cx_err *err)
{
	const cx_gguf_kv *kv;
	int64_t v;
	cx_status st = find_needed(g, key, need, &kv, err);
	if (st != CX_OK || !kv) return st;
	if ((st = kv_int(cx_gguf_label(g), kv, 0, 1, &v, err)) != CX_OK) return st;
	*io = v != 0;
	return CX_OK;
}

cx_status cx_gguf_string(
	const cx_gguf *g, const char *key, cx_need need, const char **io, cx_err *err)
{
	const cx_gguf_kv *kv;
	cx_status st = find_needed(g, key, need, &kv, err);
	if (st != CX_OK || !kv) return st;
	if (kv->type != CX_GGUF_STRING) return bad_kv_type(cx_gguf_label(g), kv, "a string", err);
	if (kv->strs[0].len && memchr(kv->strs[0].ptr, 0, kv->strs[0].len))
		return CX_FAIL(err, CX_ERR_FORMAT, "%s: metadata key '%.80s' has a NUL byte inside",
			cx_gguf_label(g), kv->key);
	*io = kv->strs[0].ptr;
	return CX_OK;
}

cx_status cx_gguf_i64s(const cx_gguf *g, const char *key, cx_need need, int64_t lo, int64_t hi,
	size_t n, int64_t *io, cx_err *err)
{
	const cx_gguf_kv *kv;
	cx_status st = find_needed(g, key, need, &kv, err);
	if (st != CX_OK || !kv) return st;
	if (!is_int(kv->elem))
		return bad_kv_type(cx_gguf_label(g), kv, "an integer or an array of integers", err);
	if (kv->type == CX_GGUF_ARRAY && kv->n != n)
		return CX_FAIL(err, CX_ERR_FORMAT,
			"%s: metadata key '%.80s' has %llu elements, must have %zu", cx_gguf_label(g), kv->key,
			(unsigned long long)kv->n, n);
	for (int pass = 0; pass < 2; pass++) /* check all before the output changes */
		for (size_t i = 0; i < n; i++) {
			int64_t v;
			st = int_in_range(
				cx_gguf_label(g), kv, kv->type == CX_GGUF_ARRAY ? i : 0, lo, hi, &v, err);
			if (st != CX_OK) return st;
			if (pass) io[i] = v;
		}
	return CX_OK;
}

cx_status cx_gguf_array(const cx_gguf *g, const char *key, cx_need need, cx_gguf_class cls,
	const cx_gguf_kv **out, cx_err *err)
{
	static const char *const want[] = {
		"an array of integers", "an array of floats", "an array of strings"};
	const cx_gguf_kv *kv;
	cx_status st;
	bool fits;
	*out = NULL;
	st = find_needed(g, key, need, &kv, err);
	if (st != CX_OK || !kv) return st;
	fits = cls == CX_GGUF_INTS     ? is_int(kv->elem)
		   : cls == CX_GGUF_FLOATS ? is_float(kv->elem)
								   : kv->elem == CX_GGUF_STRING;
	if (kv->type != CX_GGUF_ARRAY || !fits)
		return bad_kv_type(cx_gguf_label(g), kv, want[cls], err);
	*out = kv;
	return CX_OK;
}
