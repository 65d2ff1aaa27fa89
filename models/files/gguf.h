/* gguf.h - reads GGUF version 2 and 3, little-endian, single or split: metadata and tensors
 * (spec/llm.md 3.2-3.3).
 *
 * The whole file is checked when it is opened: after that no getter can leave the mapping. A file
 * that breaks a rule is refused with a sentence that names file, key or tensor, and the value; what
 * is checked beyond truncation: magic, version, byte order; counts and lengths against the bytes
 * that are left; keys and tensor names unique and without NUL; bools 0 or 1; arrays nested at most
 * CX_GGUF_MAX_DEPTH deep; alignment a power of two from 8 up; tensors: at most 4 dims, none 0,
 * products that do not wrap, a known type, rows of whole blocks, offsets aligned, inside the file
 * and not overlapping. A key that comes twice with the same value is harmless and taken once (a
 * known converter writes general.architecture twice). Gaps between tensors are legal.
 *
 * Not thread-safe while opening; afterwards everything is read-only and may be shared. */
#ifndef CX_FILES_GGUF_H
#define CX_FILES_GGUF_H

#include "models/files/map.h"
#include "models/files/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { CX_GGUF_MAX_DEPTH = 4 };

/* The file's own numbers: ORDER GGUF. */
typedef enum cx_gguf_type {
	CX_GGUF_U8,
	CX_GGUF_I8,
	CX_GGUF_U16,
	CX_GGUF_I16,
	CX_GGUF_U32,
	CX_GGUF_I32,
	CX_GGUF_F32,
	CX_GGUF_BOOL,
	CX_GGUF_STRING,
	CX_GGUF_ARRAY,
	CX_GGUF_U64,
	CX_GGUF_I64,
	CX_GGUF_F64,
	CX_GGUF_TYPE_COUNT
} cx_gguf_type;

typedef struct cx_gguf_str {
	const char *ptr; /* any bytes, NUL among them; not terminated */
	size_t len;
} cx_gguf_str;

typedef struct cx_gguf_kv {
	const char *key;
	cx_gguf_type type; /* CX_GGUF_ARRAY for arrays */
	cx_gguf_type elem; /* of the elements; equals type unless it is an array */
	uint64_t n;        /* elements; 1 unless it is an array */
	const unsigned char
		*raw; /* [raw_bytes] the value, an array's elements without their header; unaligned */
	uint64_t raw_bytes;
	const cx_gguf_str *strs; /* [n] if elem is CX_GGUF_STRING, else NULL */
} cx_gguf_kv;

typedef struct cx_gguf cx_gguf;

/* Opens `path`; for "...-00001-of-0000N.gguf" with split.count N all N parts beside it. *out is
 * NULL on failure. Owned by the caller: cx_gguf_close(). */
CX_API cx_status cx_gguf_open(const cx_alloc *a, const char *path, cx_gguf **out, cx_err *err);
/* The same on a map, which is taken over, on failure too. Parts of a split are looked for beside
 * map->path. */
CX_API cx_status cx_gguf_open_map(const cx_alloc *a, cx_file_map *map, cx_gguf **out, cx_err *err);
CX_API void cx_gguf_close(cx_gguf *g); /* NULL is fine; all pointers handed out become invalid */

CX_API const char *cx_gguf_label(const cx_gguf *g); /* of the first file, for messages */
CX_API uint32_t cx_gguf_version(const cx_gguf *g);
/* All tensors of all parts. Types are the graph's: cx_file_tensor.usable is always true. */
CX_API const cx_tensor_list *cx_gguf_tensors(const cx_gguf *g);
CX_API size_t cx_gguf_n_kv(const cx_gguf *g);
CX_API const cx_gguf_kv *cx_gguf_kv_at(const cx_gguf *g, size_t i); /* in file order */

/* ---- metadata. A key may begin with "{a}.": {a} is the value of general.architecture ---- */

CX_API const cx_gguf_kv *cx_gguf_find(const cx_gguf *g, const char *key); /* NULL if absent */
/* An integer of any width, or a bool, inside [lo, hi]. *io keeps its value when the key is absent
 * and OPTIONAL. */
CX_API cx_status cx_gguf_i64(const cx_gguf *g, const char *key, cx_need need, int64_t lo,
	int64_t hi, int64_t *io, cx_err *err);
/* A float or an integer, finite and inside [lo, hi]. */
CX_API cx_status cx_gguf_f64(
	const cx_gguf *g, const char *key, cx_need need, double lo, double hi, double *io, cx_err *err);
CX_API cx_status cx_gguf_bool(
	const cx_gguf *g, const char *key, cx_need need, bool *io, cx_err *err);
/* A string without NUL inside; terminated; lives as long as g. */
CX_API cx_status cx_gguf_string(
	const cx_gguf *g, const char *key, cx_need need, const char **io, cx_err *err);
/* io[n]: from an array of exactly n integers (or bools), or n times a single one: head_count_kv has
 * both forms. */
CX_API cx_status cx_gguf_i64s(const cx_gguf *g, const char *key, cx_need need, int64_t lo,
	int64_t hi, size_t n, int64_t *io, cx_err *err);

/* An array by what its elements are: INTS takes every integer width and bool, FLOATS f32 and f64.
 * *out is NULL when it is absent and OPTIONAL. */
typedef enum cx_gguf_class { CX_GGUF_INTS, CX_GGUF_FLOATS, CX_GGUF_STRINGS } cx_gguf_class;
CX_API cx_status cx_gguf_array(const cx_gguf *g, const char *key, cx_need need, cx_gguf_class cls,
	const cx_gguf_kv **out, cx_err *err);
/* Element i < kv->n of a numeric value, converted: u64 above INT64_MAX becomes INT64_MAX; the i64
 * of a float is its truncation, saturated (NaN: 0). Strings and arrays give 0. */
CX_API int64_t cx_gguf_kv_i64(const cx_gguf_kv *kv, uint64_t i);
CX_API double cx_gguf_kv_f64(const cx_gguf_kv *kv, uint64_t i);

#ifdef __cplusplus
}
#endif
#endif
