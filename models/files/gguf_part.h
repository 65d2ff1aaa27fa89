/* gguf_part.h - one file of a GGUF: what gguf_part.c reads and gguf.c puts together. Not part of
 * the API. */
#ifndef CX_FILES_GGUF_PART_H
#define CX_FILES_GGUF_PART_H

#include "models/files/gguf.h"

typedef struct gguf_part {
	cx_file_map *map; /* owned by the cx_gguf */
	uint32_t version;
	cx_gguf_kv *kv;            /* [n_kv] in file order */
	const cx_gguf_kv **by_key; /* [n_kv] sorted by strcmp */
	size_t n_kv;
	cx_file_tensor *tensors; /* [n_tensors] in file order, checked against the map */
	size_t n_tensors;
} gguf_part;

/* Reads and checks all of p->map; everything it makes is in `arena`. */
cx_status cx__gguf_part_read(gguf_part *p, cx_arena *arena, cx_err *err);
const cx_gguf_kv *cx__gguf_part_find(const gguf_part *p, const char *key);
/* cx_gguf_i64 on one part; the key is taken as it is. */
cx_status cx__gguf_part_i64(const gguf_part *p, const char *key, cx_need need, int64_t lo,
	int64_t hi, int64_t *io, cx_err *err);

#endif
