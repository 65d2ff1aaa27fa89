/* torch.c - see torch.h. Layouts from PyTorch's torch/serialization.py, torch/_utils.py and
 * torch/distributed/checkpoint/{metadata,filesystem}.py. */
#include "models/files/torch.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "models/files/pickle.h"
#include "models/files/zip.h"

enum { MAX_FILES = 4096 };

struct cx_torch {
	cx_alloc alloc;
	cx_arena arena;
	const char *label;
	cx_file_map **maps; /* [n_maps] */
	const char **files; /* [n_maps] their names in a distributed checkpoint */
	size_t n_maps, cap_maps;
	cx_file_tensor *at; /* [n] */
	size_t n, cap;
	cx_tensor_list list;
};

static cx_status no_memory(const cx_torch *t, cx_err *err)
{
	return CX_FAIL(err, CX_ERR_MEMORY, "%s: out of memory", t->label);
}

static cx_status bad(const cx_torch *t, const char *name, const char *what, cx_err *err)
{
	return CX_FAIL(err, CX_ERR_FORMAT, "%s: tensor '%.60s' %s", t->label, name, what);
}

static cx_status add_map(cx_torch *t, cx_file_map *map, const char *file, cx_err *err)
{
	if (t->n_maps == t->cap_maps) {
		size_t cap = t->cap_maps ? 2 * t->cap_maps : 4;
		cx_file_map **maps = cx_arena_array(&t->arena, cap, sizeof *maps);
		const char **files = cx_arena_array(&t->arena, cap, sizeof *files);
		if (!maps || !files) {
			cx_file_map_close(map);
			return no_memory(t, err);
		}
		if (t->n_maps) {
			memcpy(maps, t->maps, t->n_maps * sizeof *maps);
			memcpy(files, t->files, t->n_maps * sizeof *files);
		}
		t->maps = maps;
		t->files = files;
		t->cap_maps = cap;
	}
	t->maps[t->n_maps] = map;
	t->files[t->n_maps++] = file;
	return CX_OK;
}

static cx_status add_tensor(cx_torch *t, const cx_file_tensor *x, cx_err *err)
{
	if (t->n == t->cap) {
		size_t cap = t->cap ? 2 * t->cap : 128;
		cx_file_tensor *at = cx_arena_array(&t->arena, cap, sizeof *at);
		if (!at) return no_memory(t, err);
		if (t->n) memcpy(at, t->at, t->n * sizeof *at);
		t->at = at;
		t->cap = cap;
	}
	t->at[t->n++] = *x;
	return CX_OK;
}

/* ---- one archive ---- */

typedef struct archive {
	cx_torch *t;
	const char *file; /* for the tensors */
	cx_zip zip;
	const char *root; /* "name/", what all members begin with */
} archive;

static const struct {
	const char *storage;
	int size;
	bool usable;
	cx_dtype dtype;
} storages[] = {{"FloatStorage", 4, true, CX_F32}, {"HalfStorage", 2, true, CX_F16},
	{"BFloat16Storage", 2, true, CX_BF16}, {"IntStorage", 4, true, CX_I32},
	{"LongStorage", 8, true, CX_I64}, {"CharStorage", 1, true, CX_I8},
	{"ByteStorage", 1, true, CX_U8}, {"BoolStorage", 1, true, CX_BOOL},
	{"DoubleStorage", 8, false, CX_F32}, {"ShortStorage", 2, false, CX_F32},
	{"ComplexFloatStorage", 8, false, CX_F32}, {"ComplexDoubleStorage", 16, false, CX_F32}};

static cx_status archive_open(
	archive *ar, const unsigned char *data, size_t size, const cx_pickle **root, cx_err *err)
{
	cx_torch *t = ar->t;
	const cx_zip_member *pkl = NULL, *order;
	char name[300];
	cx_status st;
	if ((st = cx_zip_open(&ar->zip, &t->arena, t->label, data, size, err)) != CX_OK) return st;
	for (size_t i = 0; i < ar->zip.n && !pkl; i++) {
		const char *slash = strchr(ar->zip.at[i].name, '/');
		if (slash && strcmp(slash, "/data.pkl") == 0) pkl = &ar->zip.at[i];
	}
	if (!pkl)
		return CX_FAIL(err, CX_ERR_FORMAT,
			"%s: a zip archive without data.pkl: PyTorch did not write it", t->label);
	if (strlen(pkl->name) >= 200)
		return CX_FAIL(
			err, CX_ERR_FORMAT, "%s: the archive's folder has too long a name", t->label);
	ar->root = cx_arena_strdup(&t->arena, pkl->name);
	if (!ar->root) return no_memory(t, err);
	*(strchr(ar->root, '/') + 1) = 0;
	snprintf(name, sizeof name, "%sbyteorder", ar->root);
	order = cx_zip_find(&ar->zip, name);
	if (order && (order->size != 6 || memcmp(order->data, "little", 6) != 0))
		return CX_FAIL(
			err, CX_ERR_UNSUPPORTED, "%s: its byte order is not little-endian", t->label);
	return cx_pickle_parse(&t->arena, t->label, pkl->data, pkl->size, root, err);
}

/* A tuple of n >= 0 integers, or torch.Size of one. */
static bool int_tuple(const cx_pickle *v, int64_t *out, size_t max, size_t *n)
{
	if (cx_pickle_is_a(v, "torch", "Size") && v->args && v->args->n == 1) v = v->args->at[0];
	if (!v || v->kind != CX_PICKLE_TUPLE || v->n > max) return false;
	for (size_t i = 0; i < v->n; i++) {
		if (v->at[i]->kind != CX_PICKLE_INT || v->at[i]->i < 0) return false;
		out[i] = v->at[i]->i;
	}
	*n = v->n;
	return true;
}

/* ('storage', torch.FloatStorage, key, device, n): the member with the bytes. */
static cx_status read_storage(const archive *ar, const cx_pickle *v, const char *name,
	cx_file_tensor *x, const cx_zip_member **member, int *size, cx_err *err)
{
	const cx_pickle *id = v->kind == CX_PICKLE_STORAGE ? v->args : NULL, *cls, *key;
	char path[300];
	if (!id || id->kind != CX_PICKLE_TUPLE || id->n < 5 ||
		!cx_pickle_is_text(id->at[0], "storage") || id->at[1]->kind != CX_PICKLE_GLOBAL ||
		id->at[2]->kind != CX_PICKLE_TEXT || id->at[2]->n > 64)
		return bad(ar->t, name, "has no storage", err);
	cls = id->at[1];
	key = id->at[2];
	x->dtype_name = cls->name;
	*size = 0;
	for (size_t i = 0; i < sizeof storages / sizeof *storages; i++)
		if (strcmp(cls->name, storages[i].storage) == 0) {
			x->usable = storages[i].usable;
			x->dtype = storages[i].dtype;
			*size = storages[i].size;
		}
	if (!*size)
		return CX_FAIL(err, CX_ERR_UNSUPPORTED, "%s: tensor '%.60s' lies in a %.40s", ar->t->label,
			name, cls->name);
	snprintf(path, sizeof path, "%sdata/%.*s", ar->root, (int)key->n, key->s);
	*member = cx_zip_find(&ar->zip, path);
	return *member ? CX_OK : bad(ar->t, name, "has a storage that is not in the archive", err);
}

static bool row_major(const cx_file_tensor *x, const int64_t *stride)
{
	int64_t n = 1;
	for (int32_t i = x->rank; i-- > 0;) {
		if (x->dims[i] != 1 && stride[i] != n) return false;
		n *= x->dims[i];
	}
	return true;
}

static bool is_tensor(const cx_pickle *v)
{
	return cx_pickle_is_a(v, "torch._utils", "_rebuild_tensor_v2") ||
		   cx_pickle_is_a(v, "torch._utils", "_rebuild_parameter");
}

/* _rebuild_tensor_v2(storage, offset, size, stride, ...), perhaps as the data of a parameter. */
static cx_status read_tensor(
	const archive *ar, const char *name, const cx_pickle *v, cx_file_tensor *x, cx_err *err)
{
	const cx_pickle *a = v->args;
	const cx_zip_member *m = NULL;
	int64_t stride[CX_FILE_MAX_RANK], count;
	size_t rank, n_stride;
	uint64_t off;
	int size = 0;
	cx_status st;
	*x = (cx_file_tensor){.name = name, .file = ar->file};
	if (cx_pickle_is_a(v, "torch._utils", "_rebuild_parameter")) {
		v = a && a->kind == CX_PICKLE_TUPLE && a->n ? a->at[0] : NULL;
		if (!cx_pickle_is_a(v, "torch._utils", "_rebuild_tensor_v2"))
			return bad(ar->t, name, "is a parameter without data", err);
		a = v->args;
	}
	if (!a || a->kind != CX_PICKLE_TUPLE || a->n < 4 || a->at[1]->kind != CX_PICKLE_INT ||
		a->at[1]->i < 0 || !int_tuple(a->at[2], x->dims, CX_FILE_MAX_RANK, &rank) ||
		!int_tuple(a->at[3], stride, CX_FILE_MAX_RANK, &n_stride) || rank != n_stride)
		return bad(ar->t, name, "has no shape", err);
	x->rank = (int32_t)rank;
	if ((st = read_storage(ar, a->at[0], name, x, &m, &size, err)) != CX_OK) return st;
	if (!cx__dims_count(x->rank, x->dims, &count) ||
		!cx_mul_u64((uint64_t)count, (uint64_t)size, &x->bytes) ||
		!cx_mul_u64((uint64_t)a->at[1]->i, (uint64_t)size, &off))
		return bad(ar->t, name, "has impossible dims", err);
	if (count && !row_major(x, stride))
		return bad(ar->t, name, "is not contiguous: save a copy of it", err);
	if (off > m->size || x->bytes > m->size - off)
		return bad(ar->t, name, "passes the end of its storage", err);
	x->data = m->data + off;
	return CX_OK;
}

static char *text_of(cx_torch *t, const cx_pickle *v, size_t skip)
{
	char *s = cx_arena_alloc(&t->arena, v->n - skip + 1);
	if (s) memcpy(s, v->s + skip, v->n - skip);
	return s;
}

static cx_status read_map(const archive *ar, const cx_pickle *root, cx_err *err)
{
	static const char *const spellings[] = {"model_state_dict", "model", "state_dict"};
	const cx_pickle *map = root;
	cx_status st;
	for (size_t i = 0; i < 3; i++) {
		const cx_pickle *v = cx_pickle_get(root, spellings[i]);
		if (!v || is_tensor(v) || (v->kind != CX_PICKLE_DICT && v->kind != CX_PICKLE_OBJECT))
			continue;
		map = v;
		break;
	}
	if (map->kind != CX_PICKLE_DICT && map->kind != CX_PICKLE_OBJECT)
		return CX_FAIL(err, CX_ERR_FORMAT, "%s: does not hold a map of tensors", ar->t->label);
	for (size_t i = 0; i + 1 < map->n; i += 2) {
		const cx_pickle *key = map->at[i], *v = map->at[i + 1];
		cx_file_tensor x;
		char *name;
		if (key->kind != CX_PICKLE_TEXT || !is_tensor(v)) continue;
		if (key->n > 400)
			return CX_FAIL(err, CX_ERR_FORMAT, "%s: a tensor's name is too long", ar->t->label);
		if (!(name = text_of(ar->t, key, 0))) return no_memory(ar->t, err);
		if ((st = read_tensor(ar, name, v, &x, err)) != CX_OK ||
			(st = add_tensor(ar->t, &x, err)) != CX_OK)
			return st;
	}
	if (ar->t->n == 0)
		return CX_FAIL(err, CX_ERR_FORMAT,
			"%s: holds no tensors under model_state_dict, model, state_dict, or at its top",
			ar->t->label);
	return CX_OK;
}

/* ---- distributed checkpoint ---- */

/* A box of a tensor. */
typedef struct piece {
	int64_t off[CX_FILE_MAX_RANK], size[CX_FILE_MAX_RANK];
} piece;

static bool overlap(const piece *a, const piece *b, int32_t rank)
{
	for (int32_t i = 0; i < rank; i++)
		if (a->off[i] >= b->off[i] + b->size[i] || b->off[i] >= a->off[i] + a->size[i])
			return false;
	return true;
}

/* Rows of a dense box into its place. */
static void copy_piece(const cx_file_tensor *to, unsigned char *dst, const piece *p,
	const cx_file_tensor *from, size_t size)
{
	int64_t at[CX_FILE_MAX_RANK] = {0};
	int32_t last = to->rank - 1;
	const unsigned char *src = from->data;
	size_t row = (size_t)p->size[last] * size;
	if (from->bytes == 0) return;
	for (;;) {
		int64_t off = 0;
		int32_t i = last;
		for (int32_t k = 0; k < to->rank; k++) off = off * to->dims[k] + p->off[k] + at[k];
		memcpy(dst + (size_t)off * size, src, row);
		src += row;
		while (--i >= 0 && ++at[i] == p->size[i]) at[i] = 0;
		if (i < 0) return;
	}
}

/* The mapped file that metadata calls `v`: a plain name beside it. */
static cx_status shard_file(
	cx_torch *t, const char *dir, const cx_pickle *v, const cx_file_map **out, cx_err *err)
{
	char *name, path[1200];
	cx_file_map *map;
	cx_status st;
	if (!v || v->kind != CX_PICKLE_TEXT || v->n == 0 || v->n > 200 || memchr(v->s, '/', v->n) ||
		memchr(v->s, 0, v->n) || v->s[0] == '.')
		return CX_FAIL(err, CX_ERR_FORMAT, "%s: names a file that is not beside it", t->label);
	if (!(name = text_of(t, v, 0))) return no_memory(t, err);
	for (size_t i = 0; i < t->n_maps; i++)
		if (t->files[i] && strcmp(t->files[i], name) == 0) {
			*out = t->maps[i];
			return CX_OK;
		}
	if (t->n_maps >= MAX_FILES)
		return CX_FAIL(err, CX_ERR_FORMAT, "%s: names too many files", t->label);
	if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "%s: the path is too long", t->label);
	if ((st = cx_file_map_open(&t->alloc, path, &map, err)) != CX_OK) return st;
	*out = map;
	return add_map(t, map, name, err);
}

/* A piece as it was stored: an archive of its own, of one tensor, inside a shard. */
static cx_status read_piece(cx_torch *t, const char *dir, const char *name, const cx_pickle *info,
	cx_file_tensor *x, cx_err *err)
{
	const cx_pickle *off = cx_pickle_get(info, "offset"), *n = cx_pickle_get(info, "length"), *root;
	const cx_file_map *map = NULL;
	archive ar = {.t = t};
	cx_status st;
	if ((st = shard_file(t, dir, cx_pickle_get(info, "relative_path"), &map, err)) != CX_OK)
		return st;
	if (!off || !n || off->kind != CX_PICKLE_INT || n->kind != CX_PICKLE_INT || off->i < 0 ||
		n->i < 0 || (uint64_t)off->i > map->size || (uint64_t)n->i > map->size - (uint64_t)off->i)
		return bad(t, name, "lies outside its shard", err);
	ar.file = map->label;
	if ((st = archive_open(&ar, map->data + off->i, (size_t)n->i, &root, err)) != CX_OK) return st;
	if (!is_tensor(root)) return bad(t, name, "is no tensor in its shard", err);
	return read_tensor(&ar, name, root, x, err);
}

enum { MAX_PIECES = 1024 }; /* of one tensor */

typedef struct sharded {
	cx_torch *t;
	const char *dir;
	const cx_pickle *storage; /* storage_data */
	piece *pieces;            /* [MAX_PIECES] */
} sharded;

static bool entry_of(const cx_pickle *index, const cx_pickle *fqn)
{
	const cx_pickle *v = cx_pickle_get(index, "fqn");
	return v && v->kind == CX_PICKLE_TEXT && v->n == fqn->n && memcmp(v->s, fqn->s, v->n) == 0;
}

/* Reads the piece of one entry and copies it into its place, unless it is all there is. `first`: an
 * earlier piece, NULL if there is none. */
static cx_status join_piece(const sharded *s, const cx_file_tensor *x, unsigned char **joined,
	const cx_file_tensor *first, size_t entry, piece *p, cx_file_tensor *part, cx_err *err)
{
	const cx_pickle *index = s->storage->at[entry], *info = s->storage->at[entry + 1];
	const cx_pickle *at = cx_pickle_get(index, "offset");
	size_t n = 0;
	cx_status st;
	if ((st = read_piece(s->t, s->dir, x->name, info, part, err)) != CX_OK) return st;
	memset(p, 0, sizeof *p);
	if (at && at->kind != CX_PICKLE_NONE &&
		(!int_tuple(at, p->off, CX_FILE_MAX_RANK, &n) || n != (size_t)x->rank))
		return bad(s->t, x->name, "has a piece without a place", err);
	if (part->rank != x->rank) return bad(s->t, x->name, "has a piece of another rank", err);
	if (first && strcmp(part->dtype_name, first->dtype_name) != 0)
		return bad(s->t, x->name, "has pieces of several types", err);
	for (int32_t i = 0; i < x->rank; i++) {
		p->size[i] = part->dims[i];
		if (p->off[i] > x->dims[i] || p->size[i] > x->dims[i] - p->off[i])
			return bad(s->t, x->name, "has a piece outside its shape", err);
	}
	if (!part->usable) return CX_OK;
	if (!*joined && part->bytes && x->rank > 0) {
		int64_t count;
		uint64_t bytes;
		if (!cx__dims_count(x->rank, x->dims, &count) ||
			!cx_mul_u64(
				(uint64_t)count, (uint64_t)cx_dtype_get(part->dtype)->block_bytes, &bytes) ||
			bytes > SIZE_MAX)
			return bad(s->t, x->name, "has impossible dims", err);
		if (bytes == part->bytes) return CX_OK; /* the only piece: used where it lies */
		if (!(*joined = cx_arena_alloc(&s->t->arena, (size_t)bytes))) return no_memory(s->t, err);
	}
	if (*joined) copy_piece(x, *joined, p, part, (size_t)cx_dtype_get(part->dtype)->block_bytes);
	return CX_OK;
}

/* All pieces of one tensor: disjoint, and together as large as it is. */
static cx_status read_sharded(
	const sharded *s, const cx_pickle *fqn, const char *name, const cx_pickle *meta, cx_err *err)
{
	cx_file_tensor x = {.name = name, .file = s->t->label}, part = {0}, first = {0};
	piece *pieces = s->pieces;
	unsigned char *joined = NULL;
	int64_t count, total = 0, n_part;
	size_t rank, n = 0;
	cx_status st;
	if (!int_tuple(cx_pickle_get(meta, "size"), x.dims, CX_FILE_MAX_RANK, &rank))
		return bad(s->t, name, "has no shape", err);
	x.rank = (int32_t)rank;
	if (!cx__dims_count(x.rank, x.dims, &count)) return bad(s->t, name, "has impossible dims", err);
	for (size_t i = 0; i + 1 < s->storage->n; i += 2) {
		if (!entry_of(s->storage->at[i], fqn)) continue;
		if (n == MAX_PIECES) return bad(s->t, name, "has too many pieces", err);
		st = join_piece(s, &x, &joined, n ? &first : NULL, i, &pieces[n], &part, err);
		if (st != CX_OK) return st;
		for (size_t k = 0; k < n && part.bytes; k++)
			if (overlap(&pieces[k], &pieces[n], x.rank))
				return bad(s->t, name, "has pieces that overlap", err);
		if (!cx__dims_count(part.rank, part.dims, &n_part) || !cx_add_i64(total, n_part, &total))
			return bad(s->t, name, "has impossible dims", err);
		if (part.bytes || n == 0) first = part;
		n++;
	}
	if (n == 0 || total != count) return bad(s->t, name, "is not whole", err);
	x.usable = first.usable;
	x.dtype = first.dtype;
	x.dtype_name = first.dtype_name;
	x.data = joined ? joined : first.data;
	x.bytes = first.bytes;
	if (x.usable) x.bytes = (uint64_t)count * (uint64_t)cx_dtype_get(x.dtype)->block_bytes;
	return add_tensor(s->t, &x, err);
}

static cx_status read_shards(cx_torch *t, const char *dir, cx_file_map *meta, cx_err *err)
{
	const cx_pickle *root, *tensors;
	sharded s = {.t = t, .dir = dir};
	cx_status st = cx_pickle_parse(&t->arena, t->label, meta->data, meta->size, &root, err);
	if (st != CX_OK) return st;
	tensors = cx_pickle_get(root, "state_dict_metadata");
	s.storage = cx_pickle_get(root, "storage_data");
	if (!(s.pieces = cx_arena_array(&t->arena, MAX_PIECES, sizeof *s.pieces)))
		return no_memory(t, err);
	if (!tensors || !s.storage || tensors->kind != CX_PICKLE_DICT ||
		s.storage->kind != CX_PICKLE_DICT)
		return CX_FAIL(
			err, CX_ERR_FORMAT, "%s: not the metadata of a distributed checkpoint", t->label);
	for (size_t i = 0; i + 1 < tensors->n; i += 2) {
		const cx_pickle *fqn = tensors->at[i];
		char *name;
		if (fqn->kind != CX_PICKLE_TEXT || fqn->n < 7 || fqn->n > 400 ||
			memcmp(fqn->s, "model.", 6) != 0 ||
			!cx_pickle_is_a(tensors->at[i + 1], "torch.distributed.checkpoint.metadata",
				"TensorStorageMetadata"))
			continue;
		if (!(name = text_of(t, fqn, 6))) return no_memory(t, err);
		if ((st = read_sharded(&s, fqn, name, tensors->at[i + 1], err)) != CX_OK) return st;
	}
	if (t->n == 0)
		return CX_FAIL(err, CX_ERR_FORMAT, "%s: holds no tensors under 'model.'", t->label);
	return CX_OK;
}

/* ---- open ---- */

static cx_status create(const cx_alloc *a, const char *label, cx_torch **out, cx_err *err)
{
	cx_torch *t = cx_calloc(a, 1, sizeof *t);
	*out = t;
	if (!t) return CX_FAIL(err, CX_ERR_MEMORY, "%s: out of memory", label);
	t->alloc = a && a->realloc ? *a : cx_alloc_default();
	cx_arena_init(&t->arena, a);
	t->label = cx_arena_strdup(&t->arena, label);
	return t->label ? CX_OK : CX_FAIL(err, CX_ERR_MEMORY, "%s: out of memory", label);
}

static cx_status finish(cx_torch *t, cx_status st, cx_torch **out, cx_err *err)
{
	if (st == CX_OK) st = cx__tensor_list_init(&t->list, &t->arena, t->at, t->n, t->label, err);
	if (st == CX_OK) *out = t;
	else cx_torch_close(t);
	return st;
}

cx_status cx_torch_open_map(const cx_alloc *a, cx_file_map *map, cx_torch **out, cx_err *err)
{
	const cx_pickle *root;
	archive ar = {.file = map->label};
	cx_status st = create(a, map->label, &ar.t, err);
	*out = NULL;
	if (st == CX_OK) st = add_map(ar.t, map, NULL, err);
	else cx_file_map_close(map);
	if (st == CX_OK) st = archive_open(&ar, map->data, map->size, &root, err);
	if (st == CX_OK) st = read_map(&ar, root, err);
	return finish(ar.t, st, out, err);
}

static cx_status open_folder(const cx_alloc *a, const char *path, cx_torch **out, cx_err *err)
{
	static const char *const inside[] = {"", "/shards"};
	struct stat info;
	char dir[1100], file[1200];
	cx_file_map *map;
	cx_torch *t;
	cx_status st;
	for (size_t i = 0; i < 2; i++) {
		if (snprintf(dir, sizeof dir, "%s%s", path, inside[i]) >= (int)sizeof dir)
			return CX_FAIL(err, CX_ERR_ARGUMENT, "%s: the path is too long", cx_path_tail(path));
		snprintf(file, sizeof file, "%s/.metadata", dir);
		if (stat(file, &info) != 0) continue;
		if ((st = create(a, cx_path_tail(file), &t, err)) == CX_OK &&
			(st = cx_file_map_open(a, file, &map, err)) == CX_OK &&
			(st = add_map(t, map, NULL, err)) == CX_OK)
			st = read_shards(t, dir, map, err);
		return finish(t, st, out, err);
	}
	return CX_FAIL(err, CX_ERR_FORMAT,
		"%s: a folder without .metadata: not a distributed checkpoint", cx_path_tail(path));
}

cx_status cx_torch_open(const cx_alloc *a, const char *path, cx_torch **out, cx_err *err)
{
	struct stat info;
	cx_file_map *map;
	cx_status st;
	*out = NULL;
	if (stat(path, &info) != 0)
		return CX_FAIL(err, CX_ERR_IO, "%s: %s", cx_path_tail(path), strerror(errno));
	if (S_ISDIR(info.st_mode)) return open_folder(a, path, out, err);
	if ((st = cx_file_map_open(a, path, &map, err)) != CX_OK) return st;
	return cx_torch_open_map(a, map, out, err);
}

void cx_torch_close(cx_torch *t)
{
	cx_alloc alloc;
	if (!t) return;
	alloc = t->alloc;
	for (size_t i = 0; i < t->n_maps; i++) cx_file_map_close(t->maps[i]);
	cx_arena_deinit(&t->arena);
	cx_free(&alloc, t, sizeof *t);
}

const char *cx_torch_label(const cx_torch *t)
{
	return t->label;
}

const cx_tensor_list *cx_torch_tensors(const cx_torch *t)
{
	return &t->list;
}
