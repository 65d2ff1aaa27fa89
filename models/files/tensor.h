/* tensor.h - tensors as they lie in a file: name, element type, shape, bytes. GGUF and safetensors
 * both give a cx_tensor_list, so that a model asks for its weights in one way.
 *
 * Shapes are row-major and outermost first in both (a GGUF's ne is turned round: ne = {in, out} is
 * [out, in]). */
#ifndef CX_FILES_TENSOR_H
#define CX_FILES_TENSOR_H

#include "graph/cx.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { CX_FILE_MAX_RANK = 8 };

typedef struct cx_file_tensor {
	const char *name;       /* UTF-8, unique in its list */
	const char *file;       /* label of the file that holds it, for messages */
	const char *dtype_name; /* as the format or dtype.def calls it: "F32", "q4_k" */
	bool usable;    /* false: a type that the graph does not have (safetensors F64, F8_E4M3 ...) */
	cx_dtype dtype; /* if usable */
	int32_t rank;   /* 0 is a scalar */
	int64_t dims[CX_FILE_MAX_RANK];
	const unsigned char
		*data; /* [bytes], read-only. GGUF: aligned to 8 or more. safetensors: perhaps not at all */
	uint64_t bytes;
} cx_file_tensor;

typedef struct cx_tensor_list {
	const cx_file_tensor *at; /* [n], in file order */
	size_t n;
	const cx_file_tensor *const *by_name; /* [n], sorted by strcmp */
} cx_tensor_list;

/* NULL if there is none. */
CX_API const cx_file_tensor *cx_tensor_list_find(const cx_tensor_list *l, const char *name);
/* The tensor `name`, with exactly the shape dims[rank] and a usable type; a dim of -1 takes any
 * size. Fails with a sentence that names file, tensor and both shapes. */
CX_API cx_status cx_tensor_list_get(const cx_tensor_list *l, const char *name, int32_t rank,
	const int64_t *dims, const cx_file_tensor **out, cx_err *err);
/* Writes "[2,3]" into buf and returns it; cut if it does not fit. */
CX_API char *cx_dims_text(int32_t rank, const int64_t *dims, char *buf, size_t size);

/* ---- for the readers of this folder ---- */

/* Product of the dims; false if one is negative or the product passes INT64_MAX. rank 0 gives 1. */
bool cx__dims_count(int32_t rank, const int64_t *dims, int64_t *out);
/* Fills *l from at[n] (in `arena`, which then owns the index). A name that comes twice: FORMAT. */
cx_status cx__tensor_list_init(cx_tensor_list *l, cx_arena *arena, const cx_file_tensor *at,
	size_t n, const char *label, cx_err *err);
/* Pointers to at[n], sorted by data and then by size; NULL when memory is short. */
const cx_file_tensor **cx__tensors_by_data(cx_arena *arena, const cx_file_tensor *at, size_t n);

#ifdef __cplusplus
}
#endif
#endif
