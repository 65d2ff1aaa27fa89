/* dtype.c - the table of element types (dtype.def), look-up by name and by GGUF id, bytes of a
 * dense tensor. */
#include "graph/cx.h"

#include <string.h>

static const cx_dtype_info infos[CX_DTYPE_COUNT] = {
#define CX_DTYPE(id, name, elems, bytes, cls, gguf, doc)                                           \
	[CX_##id] = {name, elems, bytes, CX_CLASS_##cls, gguf, doc},
#include "graph/dtype.def"
#undef CX_DTYPE
};

static const cx_dtype_info no_info = {"none", 1, 0, CX_CLASS_BLOCK, -1, "not a dtype"};

const cx_dtype_info *cx_dtype_get(cx_dtype dtype)
{
	return (unsigned)dtype < CX_DTYPE_COUNT ? &infos[dtype] : &no_info;
}

bool cx_dtype_parse(const char *name, cx_dtype *out)
{
	for (int i = 0; i < CX_DTYPE_COUNT; i++) {
		if (strcmp(infos[i].name, name) != 0) continue;
		*out = (cx_dtype)i;
		return true;
	}
	return false;
}

bool cx_dtype_from_gguf(uint32_t gguf_id, cx_dtype *out)
{
	for (int i = 0; i < CX_DTYPE_COUNT; i++) {
		if (infos[i].gguf_id < 0 || (uint32_t)infos[i].gguf_id != gguf_id) continue;
		*out = (cx_dtype)i;
		return true;
	}
	return false;
}

bool cx_dtype_bytes(cx_dtype dtype, int32_t rank, const int64_t *dim, uint64_t *bytes)
{
	const cx_dtype_info *info = cx_dtype_get(dtype);
	uint64_t n = 1, span = 1, scales;
	if ((unsigned)dtype >= CX_DTYPE_COUNT || rank < 0 || rank > CX_MAX_RANK) return false;
	for (int i = 0; i < rank; i++) {
		if (dim[i] < 0 || dim[i] > CX_MAX_DIM) return false;
		n *= (uint64_t)dim[i];
		/* Strides are products of dims even where another dim is 0: they must fit as well. */
		if (!cx_mul_u64(span, dim[i] ? (uint64_t)dim[i] : 1, &span)) return false;
	}
	if (span > (uint64_t)INT64_MAX / 8) return false;
	if (dtype == CX_I8C) {
		if (rank != 2 || !cx_align_u64(n, 4, &n)) return false;
		scales = 4 * (uint64_t)dim[0];
		return cx_add_u64(n, scales, bytes);
	}
	if (info->block_elems > 1 && (rank < 1 || dim[rank - 1] % info->block_elems != 0)) return false;
	return cx_mul_u64(n / (uint64_t)info->block_elems, (uint64_t)info->block_bytes, bytes);
}
