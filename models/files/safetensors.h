/* safetensors.h - reads and writes safetensors files, single or sharded (spec/llm.md 3.1).
 *
 * Everything is checked when the file is opened: the header's size (at most 100 MB and inside the
 * file) and JSON (no name twice), dtypes, shapes whose products wrap, end - begin against shape and
 * dtype, and that the tensors cover the data area without holes or overlaps. Data lies where the
 * file puts it: it may be unaligned for its type. */
#ifndef CX_FILES_SAFETENSORS_H
#define CX_FILES_SAFETENSORS_H

#include "models/files/map.h"
#include "models/files/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cx_safetensors cx_safetensors;

/* `path` is a .safetensors file, a .safetensors.index.json, or a folder that holds
 * model.safetensors.index.json or model.safetensors (the first of the two that is there). Of a
 * sharded set only the files that the index names are opened, and only the tensors that it names
 * are listed; the files lie beside the index. *out is NULL on failure. Owned by the caller:
 * cx_safetensors_close(). */
CX_API cx_status cx_safetensors_open(
	const cx_alloc *a, const char *path, cx_safetensors **out, cx_err *err);
/* A single file from a map, which is taken over, on failure too. */
CX_API cx_status cx_safetensors_open_map(
	const cx_alloc *a, cx_file_map *map, cx_safetensors **out, cx_err *err);
CX_API void cx_safetensors_close(
	cx_safetensors *s); /* NULL is fine; all pointers handed out become invalid */

CX_API const char *cx_safetensors_label(
	const cx_safetensors *s); /* of the file or the index, for messages */
/* dtype_name is the file's ("F32", "BF16"). Types that the graph lacks are listed with usable =
 * false. */
CX_API const cx_tensor_list *cx_safetensors_tensors(const cx_safetensors *s);
/* A string of "__metadata__" (of the first shard), NULL if absent. */
CX_API const char *cx_safetensors_meta(const cx_safetensors *s, const char *key);

/* What is to be written: name (unique), dtype (F32 F16 BF16 I32 I64 U8 I8 BOOL), rank, dims, data
 * (dense). The other fields are not read. */
typedef struct cx_safetensors_meta_pair {
	const char *key, *value;
} cx_safetensors_meta_pair;
/* Writes one file, atomically (out.h), tensors in the given order, the header padded so that data
 * begins at a multiple of 8. Put types of larger elements first to keep all of them aligned. */
CX_API cx_status cx_safetensors_write(const cx_alloc *a, const char *path,
	const cx_file_tensor *tensors, size_t n_tensors, const cx_safetensors_meta_pair *meta,
	size_t n_meta, cx_err *err);

#ifdef __cplusplus
}
#endif
#endif
