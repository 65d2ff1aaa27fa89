/* npy.h - reads and writes NPY arrays, versions 1.0, 2.0 and 3.0, little-endian, C order.
 *
 * Refused with a sentence: big-endian data, Fortran order (unless at most one dim is longer than 1:
 * the order is then the same), structured, complex, text and object types. A file may hold several
 * arrays one after another: cx_npy_parse() moves an offset along. */
#ifndef CX_FILES_NPY_H
#define CX_FILES_NPY_H

#include "models/files/map.h"
#include "models/files/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* id, descr without the byte order, bytes, the graph's dtype of the same layout (COUNT: none) */
#define CX_NPY_TYPES(X)                                                                            \
	X(B1, "b1", 1, BOOL)                                                                           \
	X(I1, "i1", 1, I8)                                                                             \
	X(U1, "u1", 1, U8)                                                                             \
	X(I2, "i2", 2, DTYPE_COUNT)                                                                    \
	X(U2, "u2", 2, DTYPE_COUNT)                                                                    \
	X(I4, "i4", 4, I32)                                                                            \
	X(U4, "u4", 4, DTYPE_COUNT)                                                                    \
	X(I8, "i8", 8, I64)                                                                            \
	X(U8, "u8", 8, DTYPE_COUNT)                                                                    \
	X(F2, "f2", 2, F16)                                                                            \
	X(F4, "f4", 4, F32)                                                                            \
	X(F8, "f8", 8, DTYPE_COUNT)

typedef enum cx_npy_type {
#define X(id, descr, bytes, dtype) CX_NPY_##id,
	CX_NPY_TYPES(X)
#undef X
		CX_NPY_TYPE_COUNT
} cx_npy_type;

typedef struct cx_npy {
	const char *label; /* of the file, for messages; lives as long as the map */
	cx_npy_type type;
	int32_t rank; /* 0 is a scalar with one element */
	int64_t dims[CX_FILE_MAX_RANK];
	int64_t n;                 /* elements */
	const unsigned char *data; /* [n] elements in C order, perhaps unaligned; inside the map */
	uint64_t bytes;
	cx_file_map *map; /* owned; NULL after cx_npy_parse() */
} cx_npy;

CX_API const char *cx_npy_type_name(cx_npy_type type); /* "f4" */
CX_API uint32_t cx_npy_type_bytes(cx_npy_type type);
CX_API cx_dtype cx_npy_type_dtype(cx_npy_type type); /* CX_DTYPE_COUNT if the graph has none */

/* Opens a file that holds exactly one array. cx_npy_close() it, also after a failure if you like.
 */
CX_API cx_status cx_npy_open(const cx_alloc *a, const char *path, cx_npy *out, cx_err *err);
/* The array that begins at byte *off of a map; *off moves behind it. The map must outlive *out. */
CX_API cx_status cx_npy_parse(const cx_file_map *map, size_t *off, cx_npy *out, cx_err *err);
CX_API void cx_npy_close(cx_npy *npy); /* leaves it zeroed */

/* Copies with conversion; dst[npy->n] aligned for its type. f2 is widened; 64-bit integers are
 * rounded to double first; bool gives 0 or 1. */
CX_API void cx_npy_to_f32(const cx_npy *npy, float *dst);
CX_API void cx_npy_to_f64(const cx_npy *npy, double *dst);
/* Integers and bools only; a u8 above INT64_MAX or another type: FORMAT. */
CX_API cx_status cx_npy_to_i64(const cx_npy *npy, int64_t *dst, cx_err *err);

/* Writes one array, version 1.0, atomically (out.h). data: dense, C order. */
CX_API cx_status cx_npy_write(const cx_alloc *a, const char *path, cx_npy_type type, int32_t rank,
	const int64_t *dims, const void *data, cx_err *err);

#ifdef __cplusplus
}
#endif
#endif
