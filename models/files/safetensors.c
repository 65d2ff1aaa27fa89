/* safetensors.c - safetensors files. See safetensors.h. */
#include "models/files/safetensors.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <utf8proc.h>

#include "models/files/json.h"
#include "models/files/out.h"

enum { HEADER_MAX = 100 * 1000 * 1000, HEADER_ALIGN = 8, MAX_SHARDS = 4096 };

static const char index_suffix[] = ".index.json";

/* The format's element types; CX_DTYPE_COUNT: the graph has no such type. */
static const struct {
	const char *name;
	uint32_t bytes;
	cx_dtype dtype;
} st_types[] = {
	{"F32", 4, CX_F32},
	{"F16", 2, CX_F16},
	{"BF16", 2, CX_BF16},
	{"I32", 4, CX_I32},
	{"I64", 8, CX_I64},
	{"U8", 1, CX_U8},
	{"I8", 1, CX_I8},
	{"BOOL", 1, CX_BOOL},
	{"F64", 8, CX_DTYPE_COUNT},
	{"I16", 2, CX_DTYPE_COUNT},
	{"U16", 2, CX_DTYPE_COUNT},
	{"U32", 4, CX_DTYPE_COUNT},
	{"U64", 8, CX_DTYPE_COUNT},
	{"F8_E5M2", 1, CX_DTYPE_COUNT},
	{"F8_E4M3", 1, CX_DTYPE_COUNT},
	{"F8_E8M0", 1, CX_DTYPE_COUNT},
};
enum { N_TYPES = sizeof st_types / sizeof *st_types };

/* One file. */
typedef struct shard {
	cx_file_map *map; /* owned by the cx_safetensors */
	const char *name; /* as the index calls it */
	json_t *header;   /* NULL once read */
	size_t data_at;   /* byte of the file at which the data area begins */
	cx_tensor_list tensors;
} shard;

typedef struct meta_pair {
	const char *key, *value;
} meta_pair;

struct cx_safetensors {
	cx_alloc alloc;
	cx_arena arena; /* owns all but maps and json */
	const char *label;
	shard *shards;
	size_t n_shards;
	cx_tensor_list tensors;
	meta_pair *meta;
	size_t n_meta;
};

static cx_status out_of_memory(const char *label, cx_err *err)
{
	return CX_FAIL(err, CX_ERR_MEMORY, "%s: out of memory while reading it", label);
}

/* ---- one file ---- */

static cx_status read_header(shard *s, cx_err *err)
{
	const cx_file_map *m = s->map;
	uint64_t n;
	cx_status st;
	if (m->size < 8)
		return CX_FAIL(err, CX_ERR_FORMAT, "%s: has %zu bytes, too few for a safetensors file",
			m->label, m->size);
	memcpy(&n, m->data, 8);
	if (n > HEADER_MAX)
		return CX_FAIL(err, CX_ERR_FORMAT,
			"%s: says its header has %llu bytes, more than the format's 100 MB", m->label,
			(unsigned long long)n);
	if (n > m->size - 8)
		return CX_FAIL(err, CX_ERR_FORMAT,
			"%s: says its header has %llu bytes, but %zu are left in the file", m->label,
			(unsigned long long)n, m->size - 8);
	if (n == 0 || m->data[8] != '{')
		return CX_FAIL(
			err, CX_ERR_FORMAT, "%s: the safetensors header does not begin with {", m->label);
	if ((st = cx_json_parse(m->label, m->data + 8, (size_t)n, &s->header, err)) != CX_OK) return st;
	s->data_at = 8 + (size_t)n;
	return CX_OK;
}

static cx_status bad_tensor(const cx_file_tensor *t, const char *what, cx_err *err)
{
	return CX_FAIL(err, CX_ERR_FORMAT, "%s: tensor '%.100s' %s", t->file, t->name, what);
}

static cx_status read_dtype(cx_file_tensor *t, const json_t *v, uint32_t *elem_bytes, cx_err *err)
{
	if (!json_is_string(v)) return bad_tensor(t, "has no dtype string", err);
	for (int i = 0; i < N_TYPES; i++) {
		if (strcmp(json_string_value(v), st_types[i].name) != 0) continue;
		t->dtype_name = st_types[i].name;
		t->usable = st_types[i].dtype != CX_DTYPE_COUNT;
		t->dtype = t->usable ? st_types[i].dtype : CX_F32;
		*elem_bytes = st_types[i].bytes;
		return CX_OK;
	}
	return CX_FAIL(err, CX_ERR_UNSUPPORTED, "%s: tensor '%.80s' has unknown dtype '%.20s'", t->file,
		t->name, json_string_value(v));
}

static cx_status read_shape(cx_file_tensor *t, const json_t *v, cx_err *err)
{
	if (!json_is_array(v)) return bad_tensor(t, "has no shape array", err);
	if (json_array_size(v) > CX_FILE_MAX_RANK) return bad_tensor(t, "has more than 8 dims", err);
	t->rank = (int32_t)json_array_size(v);
	for (int32_t i = 0; i < t->rank; i++) {
		const json_t *d = json_array_get(v, (size_t)i);
		if (!json_is_integer(d) || json_integer_value(d) < 0)
			return bad_tensor(t, "has a dim that is not an integer from 0 up", err);
		t->dims[i] = json_integer_value(d);
	}
	return CX_OK;
}

static cx_status read_tensor(const shard *s, cx_file_tensor *t, const json_t *v, cx_err *err)
{
	const json_t *offs = json_object_get(v, "data_offsets"), *b, *e;
	uint64_t room = s->map->size - s->data_at, begin, end;
	uint32_t elem_bytes = 0;
	int64_t n;
	cx_status st;
	if (!json_is_object(v)) return bad_tensor(t, "is not described by an object", err);
	if ((st = read_dtype(t, json_object_get(v, "dtype"), &elem_bytes, err)) != CX_OK) return st;
	if ((st = read_shape(t, json_object_get(v, "shape"), err)) != CX_OK) return st;
	if (!cx__dims_count(t->rank, t->dims, &n) || !cx_mul_u64((uint64_t)n, elem_bytes, &t->bytes))
		return bad_tensor(t, "has a shape whose product wraps", err);
	b = json_array_get(offs, 0);
	e = json_array_get(offs, 1);
	if (!json_is_integer(b) || !json_is_integer(e) || json_array_size(offs) != 2 ||
		json_integer_value(b) < 0 || json_integer_value(e) < json_integer_value(b))
		return bad_tensor(t, "has no data_offsets of the form [begin, end]", err);
	begin = (uint64_t)json_integer_value(b);
	end = (uint64_t)json_integer_value(e);
	if (end > room)
		return CX_FAIL(err, CX_ERR_FORMAT,
			"%s: tensor '%.80s' ends at byte %llu of the data area, which has %llu", t->file,
			t->name, (unsigned long long)end, (unsigned long long)room);
	if (end - begin != t->bytes)
		return CX_FAIL(err, CX_ERR_FORMAT,
			"%s: tensor '%.80s' has %llu bytes at its data_offsets, but its shape and dtype say "
			"%llu",
			t->file, t->name, (unsigned long long)(end - begin), (unsigned long long)t->bytes);
	t->data = s->map->data + s->data_at + begin;
	return CX_OK;
}

/* Sorted by place, each tensor must begin where the one before ended: that excludes overlaps and
 * holes at once. */
static cx_status check_cover(
	const shard *s, cx_arena *arena, const cx_file_tensor *at, size_t n, cx_err *err)
{
	const cx_file_tensor **t = cx__tensors_by_data(arena, at, n);
	const unsigned char *next = s->map->data + s->data_at, *end = s->map->data + s->map->size;
	if (!t) return out_of_memory(s->map->label, err);
	for (size_t i = 0; i < n; i++) {
		if (t[i]->data < next)
			return CX_FAIL(err, CX_ERR_FORMAT, "%s: tensors '%.60s' and '%.60s' overlap",
				s->map->label, t[i - 1]->name, t[i]->name);
		if (t[i]->data > next)
			return CX_FAIL(err, CX_ERR_FORMAT,
				"%s: %zu bytes before tensor '%.80s' belong to no tensor", s->map->label,
				(size_t)(t[i]->data - next), t[i]->name);
		next = t[i]->data + t[i]->bytes;
	}
	if (next != end)
		return CX_FAIL(err, CX_ERR_FORMAT, "%s: the last %zu bytes belong to no tensor",
			s->map->label, (size_t)(end - next));
	return CX_OK;
}

static cx_status read_meta(cx_safetensors *f, const shard *s, const json_t *v, cx_err *err)
{
	const char *key;
	json_t *value;
	if (!json_is_object(v))
		return CX_FAIL(err, CX_ERR_FORMAT, "%s: __metadata__ is not an object", s->map->label);
	f->meta = cx_arena_array(&f->arena, json_object_size(v), sizeof *f->meta);
	if (!f->meta) return out_of_memory(s->map->label, err);
	f->n_meta = 0;
	json_object_foreach((json_t *)v, key, value)
	{
		meta_pair *m = &f->meta[f->n_meta];
		if (!json_is_string(value))
			return CX_FAIL(
				err, CX_ERR_FORMAT, "%s: __metadata__ '%.80s' is not a string", s->map->label, key);
		m->key = cx_arena_strdup(&f->arena, key);
		m->value = cx_arena_strdup(&f->arena, json_string_value(value));
		if (!m->key || !m->value) return out_of_memory(s->map->label, err);
		f->n_meta++;
	}
	return CX_OK;
}

/* Reads and checks s->map; the first shard's metadata are the set's. */
static cx_status read_shard(cx_safetensors *f, shard *s, cx_err *err)
{
	cx_file_tensor *at;
	const char *name;
	json_t *v;
	size_t n = 0;
	cx_status st;
	if ((st = read_header(s, err)) != CX_OK) return st;
	at = cx_arena_array(&f->arena, json_object_size(s->header), sizeof *at);
	if (!at) return out_of_memory(s->map->label, err);
	json_object_foreach(s->header, name, v)
	{
		if (strcmp(name, "__metadata__") == 0) {
			if (s == f->shards && (st = read_meta(f, s, v, err)) != CX_OK) return st;
			continue;
		}
		at[n].file = s->map->label;
		at[n].name = cx_arena_strdup(&f->arena, name);
		if (!at[n].name) return out_of_memory(s->map->label, err);
		if ((st = read_tensor(s, &at[n], v, err)) != CX_OK) return st;
		n++;
	}
	json_decref(s->header);
	s->header = NULL;
	if ((st = check_cover(s, &f->arena, at, n, err)) != CX_OK) return st;
	return cx__tensor_list_init(&s->tensors, &f->arena, at, n, s->map->label, err);
}

/* ---- opening ---- */

static cx_safetensors *create(const cx_alloc *a, const char *path)
{
	cx_safetensors *f = cx_calloc(a, 1, sizeof *f);
	if (!f) return NULL;
	f->alloc = a && a->realloc ? *a : cx_alloc_default();
	cx_arena_init(&f->arena, &f->alloc);
	f->label = cx_arena_strdup(&f->arena, cx_path_tail(path));
	if (f->label) return f;
	cx_safetensors_close(f);
	return NULL;
}

cx_status cx_safetensors_open_map(
	const cx_alloc *a, cx_file_map *map, cx_safetensors **out, cx_err *err)
{
	cx_safetensors *f = create(a, map->path);
	cx_status st;
	*out = NULL;
	if (f) f->shards = cx_arena_array(&f->arena, 1, sizeof *f->shards);
	if (!f || !f->shards) {
		st = out_of_memory(map->label, err);
		cx_file_map_close(map);
		cx_safetensors_close(f);
		return st;
	}
	f->shards[0].map = map;
	f->n_shards = 1;
	if ((st = read_shard(f, &f->shards[0], err)) != CX_OK) {
		cx_safetensors_close(f);
		return st;
	}
	f->tensors = f->shards[0].tensors;
	*out = f;
	return CX_OK;
}

/* A name in an index is a file beside it, never a way out of the folder. */
static bool plain_file_name(const char *s)
{
	return *s && !strchr(s, '/') && !strchr(s, '\\') && strcmp(s, ".") != 0 && strcmp(s, "..") != 0;
}

/* The shard called `name`, opened if it is new. */
static cx_status get_shard(
	cx_safetensors *f, const char *index_path, const char *name, shard **out, cx_err *err)
{
	shard *s;
	char *path;
	cx_status st;
	for (size_t i = 0; i < f->n_shards; i++)
		if (strcmp(f->shards[i].name, name) == 0) {
			*out = &f->shards[i];
			return CX_OK;
		}
	if (!plain_file_name(name))
		return CX_FAIL(err, CX_ERR_FORMAT,
			"%s: weight_map names the file '%.60s', which is not a plain file name", f->label,
			name);
	if (f->n_shards == MAX_SHARDS)
		return CX_FAIL(
			err, CX_ERR_FORMAT, "%s: weight_map names more than %d files", f->label, MAX_SHARDS);
	s = &f->shards[f->n_shards];
	s->name = cx_arena_strdup(&f->arena, name);
	path = cx_path_sibling(&f->alloc, index_path, name);
	if (!s->name || !path) {
		if (path) cx_free(&f->alloc, path, strlen(path) + 1);
		return out_of_memory(f->label, err);
	}
	st = cx_file_map_open(&f->alloc, path, &s->map, err);
	cx_free(&f->alloc, path, strlen(path) + 1);
	if (st != CX_OK) return st;
	f->n_shards++;
	*out = s;
	return read_shard(f, s, err);
}

static cx_status read_index(cx_safetensors *f, const char *path, const json_t *map, cx_err *err)
{
	size_t n = json_object_size(map), i = 0;
	cx_file_tensor *at = cx_arena_array(&f->arena, n, sizeof *at);
	const char *name;
	json_t *v;
	cx_status st;
	f->shards = cx_arena_array(&f->arena, n < MAX_SHARDS ? n : MAX_SHARDS, sizeof *f->shards);
	if (!at || !f->shards) return out_of_memory(f->label, err);
	json_object_foreach((json_t *)map, name, v)
	{
		const cx_file_tensor *t;
		shard *s = NULL;
		if (!json_is_string(v))
			return CX_FAIL(
				err, CX_ERR_FORMAT, "%s: weight_map '%.80s' is not a file name", f->label, name);
		if ((st = get_shard(f, path, json_string_value(v), &s, err)) != CX_OK) return st;
		t = cx_tensor_list_find(&s->tensors, name);
		if (!t)
			return CX_FAIL(err, CX_ERR_FORMAT,
				"%s: tensor '%.80s' is not in it, although the index says so", s->map->label, name);
		at[i++] = *t;
	}
	return cx__tensor_list_init(&f->tensors, &f->arena, at, n, f->label, err);
}

static cx_status open_index(const cx_alloc *a, const char *path, cx_safetensors **out, cx_err *err)
{
	cx_safetensors *f = NULL;
	json_t *root = NULL;
	cx_json_at at, map;
	cx_status st = cx_json_load(a, path, &root, err);
	if (st != CX_OK) return st;
	f = create(a, path);
	if (!f) st = out_of_memory(cx_path_tail(path), err);
	if (st == CX_OK) st = cx_json_root(f->label, root, &at, err);
	if (st == CX_OK) st = cx_json_object(&at, "weight_map", CX_REQUIRED, &map, err);
	if (st == CX_OK) st = read_index(f, path, map.obj, err);
	json_decref(root);
	if (st == CX_OK) *out = f;
	else cx_safetensors_close(f);
	return st;
}

static cx_status open_folder(const cx_alloc *a, const char *dir, cx_safetensors **out, cx_err *err)
{
	static const char *const names[] = {"model.safetensors.index.json", "model.safetensors"};
	for (size_t i = 0; i < 2; i++) {
		char *path = cx_path_join(a, dir, names[i]);
		struct stat sb;
		cx_status st;
		bool there;
		if (!path) return out_of_memory(cx_path_tail(dir), err);
		there = stat(path, &sb) == 0 && !S_ISDIR(sb.st_mode);
		st = there ? cx_safetensors_open(a, path, out, err) : CX_OK;
		cx_free(a, path, strlen(path) + 1);
		if (there) return st;
	}
	return CX_FAIL(err, CX_ERR_IO,
		"%s: the folder holds neither model.safetensors nor model.safetensors.index.json",
		cx_path_tail(dir));
}

cx_status cx_safetensors_open(
	const cx_alloc *a, const char *path, cx_safetensors **out, cx_err *err)
{
	size_t n = path ? strlen(path) : 0, k = sizeof index_suffix - 1;
	cx_file_map *map;
	struct stat sb;
	cx_status st;
	*out = NULL;
	if (n && stat(path, &sb) == 0 && S_ISDIR(sb.st_mode)) return open_folder(a, path, out, err);
	if (n > k && strcmp(path + n - k, index_suffix) == 0) return open_index(a, path, out, err);
	if ((st = cx_file_map_open(a, path, &map, err)) != CX_OK) return st;
	return cx_safetensors_open_map(a, map, out, err);
}

void cx_safetensors_close(cx_safetensors *f)
{
	cx_alloc a;
	if (!f) return;
	a = f->alloc;
	for (size_t i = 0; i < f->n_shards; i++) {
		json_decref(f->shards[i].header);
		cx_file_map_close(f->shards[i].map);
	}
	cx_arena_deinit(&f->arena);
	cx_free(&a, f, sizeof *f);
}

const char *cx_safetensors_label(const cx_safetensors *f)
{
	return f->label;
}
const cx_tensor_list *cx_safetensors_tensors(const cx_safetensors *f)
{
	return &f->tensors;
}

const char *cx_safetensors_meta(const cx_safetensors *f, const char *key)
{
	for (size_t i = 0; i < f->n_meta; i++)
		if (strcmp(f->meta[i].key, key) == 0) return f->meta[i].value;
	return NULL;
}

/* ---- writing ---- */

static cx_status no_header(const char *path, cx_err *err)
{
	return CX_FAIL(
		err, CX_ERR_MEMORY, "%s: out of memory while writing its header", cx_path_tail(path));
}

/* The name of t's type and its size; refuses what the format cannot hold. */
static cx_status measure(
	const char *path, const cx_file_tensor *t, const char **dtype, uint64_t *bytes, cx_err *err)
{
	uint32_t size = 0;
	int64_t n;
	for (int i = 0; i < N_TYPES && !size; i++)
		if (st_types[i].dtype == t->dtype && t->dtype != CX_DTYPE_COUNT)
			*dtype = st_types[i].name, size = st_types[i].bytes;
	if (!size)
		return CX_FAIL(err, CX_ERR_ARGUMENT,
			"%s: tensor '%.80s' has a type that safetensors does not have", cx_path_tail(path),
			t->name);
	if (t->rank < 0 || t->rank > CX_FILE_MAX_RANK || !cx__dims_count(t->rank, t->dims, &n) ||
		!cx_mul_u64((uint64_t)n, size, bytes))
		return CX_FAIL(err, CX_ERR_ARGUMENT, "%s: tensor '%.80s' has a shape that is not possible",
			cx_path_tail(path), t->name);
	return CX_OK;
}

/* {"dtype":..., "shape":[...], "data_offsets":[at, at + bytes]}; *at moves on. */
static cx_status describe(
	const char *path, const cx_file_tensor *t, uint64_t *at, json_t **out, cx_err *err)
{
	json_t *shape;
	const char *dtype = NULL;
	uint64_t bytes = 0, end;
	cx_status st = measure(path, t, &dtype, &bytes, err);
	*out = NULL;
	if (st != CX_OK) return st;
	if (!cx_add_u64(*at, bytes, &end) || end > INT64_MAX)
		return CX_FAIL(
			err, CX_ERR_ARGUMENT, "%s: the tensors together are too large", cx_path_tail(path));
	shape = json_array();
	for (int32_t i = 0; i < t->rank && shape; i++)
		if (json_array_append_new(shape, json_integer(t->dims[i])) != 0) {
			json_decref(shape);
			shape = NULL;
		}
	if (shape)
		*out = json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtype, "shape", shape, "data_offsets",
			(json_int_t)*at, (json_int_t)end);
	*at = end;
	return *out ? CX_OK : no_header(path, err);
}

/* jansson refuses other names, but in a way that looks like a lack of memory. */
static bool is_utf8(const char *s)
{
	utf8proc_ssize_t n = 1;
	utf8proc_int32_t code;
	for (; *s && n > 0; s += n > 0 ? n : 0)
		n = utf8proc_iterate((const utf8proc_uint8_t *)s, -1, &code);
	return n > 0;
}

static cx_status make_header(const char *path, const cx_file_tensor *t, size_t n,
	const cx_safetensors_meta_pair *meta, size_t n_meta, json_t **out, cx_err *err)
{
	json_t *root = json_object(), *pairs = n_meta ? json_object() : NULL, *v;
	uint64_t at = 0;
	cx_status st = root && (pairs || !n_meta) ? CX_OK : no_header(path, err);
	for (size_t i = 0; i < n_meta && st == CX_OK; i++)
		if (!is_utf8(meta[i].key) || !is_utf8(meta[i].value))
			st = CX_FAIL(err, CX_ERR_ARGUMENT, "%s: metadata entry %zu is not UTF-8",
				cx_path_tail(path), i);
		else if (json_object_set_new(pairs, meta[i].key, json_string(meta[i].value)) != 0)
			st = no_header(path, err);
	if (pairs && st == CX_OK && json_object_set(root, "__metadata__", pairs) != 0)
		st = no_header(path, err);
	json_decref(pairs);
	for (size_t i = 0; i < n && st == CX_OK; i++) {
		if (!is_utf8(t[i].name))
			st = CX_FAIL(err, CX_ERR_ARGUMENT, "%s: the name of tensor %zu is not UTF-8",
				cx_path_tail(path), i);
		else if (strcmp(t[i].name, "__metadata__") == 0 || json_object_get(root, t[i].name))
			st = CX_FAIL(err, CX_ERR_ARGUMENT, "%s: tensor name '%.80s' is taken",
				cx_path_tail(path), t[i].name);
		else if ((st = describe(path, &t[i], &at, &v, err)) == CX_OK &&
				 json_object_set_new(root, t[i].name, v) != 0)
			st = no_header(path, err);
	}
	if (st == CX_OK) *out = root;
	else json_decref(root);
	return st;
}

/* The header as text, padded with blanks; the caller frees *padded bytes. */
static cx_status header_text(const cx_alloc *a, const char *path, const json_t *header, char **out,
	size_t *padded, cx_err *err)
{
	size_t n = json_dumpb(header, NULL, 0, JSON_COMPACT);
	*padded = (n + HEADER_ALIGN - 1) / HEADER_ALIGN * HEADER_ALIGN;
	if (*padded > HEADER_MAX)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "%s: its header would pass the format's 100 MB",
			cx_path_tail(path));
	*out = n ? cx_malloc(a, *padded) : NULL;
	if (!*out) return no_header(path, err);
	memset(*out, ' ', *padded);
	if (json_dumpb(header, *out, *padded, JSON_COMPACT) == n) return CX_OK;
	cx_free(a, *out, *padded);
	return no_header(path, err);
}

static cx_status write_all(const cx_alloc *a, cx_file_out *o, const char *path,
	const json_t *header, const cx_file_tensor *t, size_t n, cx_err *err)
{
	size_t padded = 0;
	uint64_t len;
	char *text = NULL;
	cx_status st = header_text(a, path, header, &text, &padded, err);
	if (st != CX_OK) return st;
	len = padded;
	st = cx_file_out_write(o, &len, sizeof len, err);
	if (st == CX_OK) st = cx_file_out_write(o, text, padded, err);
	cx_free(a, text, padded);
	for (size_t i = 0; i < n && st == CX_OK; i++) {
		const char *dtype;
		uint64_t bytes = 0;
		st = measure(path, &t[i], &dtype, &bytes, err);
		if (st == CX_OK && bytes) st = cx_file_out_write(o, t[i].data, bytes, err);
	}
	return st;
}

cx_status cx_safetensors_write(const cx_alloc *a, const char *path, const cx_file_tensor *tensors,
	size_t n_tensors, const cx_safetensors_meta_pair *meta, size_t n_meta, cx_err *err)
{
	json_t *header = NULL;
	cx_file_out *o = NULL;
	cx_status st;
	if ((st = make_header(path, tensors, n_tensors, meta, n_meta, &header, err)) != CX_OK)
		return st;
	if ((st = cx_file_out_open(a, path, &o, err)) == CX_OK) {
		st = write_all(a, o, path, header, tensors, n_tensors, err);
		if (st == CX_OK) st = cx_file_out_commit(o, err);
		else cx_file_out_discard(o);
	}
	json_decref(header);
	return st;
}
