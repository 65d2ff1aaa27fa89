/* mat5.h - reads numeric arrays from MATLAB 5 files ("MAT-File Format", level 5; what MATLAB's save
 * writes as -v6 and -v7), little-endian, plain or zlib-compressed.
 *
 * Real full arrays of any numeric class at the top level are read. Cells, structs, text, sparse and
 * complex arrays are passed over, but listed, so that a message can tell "not there" from "not
 * readable". Refused with a sentence: level 4, 7.3 (that is HDF5), big-endian files, and any size
 * that leaves the file. */
#ifndef CX_FILES_MAT5_H
#define CX_FILES_MAT5_H

#include "models/files/map.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { CX_MAT5_MAX_RANK = 8, CX_MAT5_MAX_ARRAYS = 4096 };

typedef struct cx_mat5_array {
	const char *name;
	bool numeric;                   /* false: passed over; only the name is set */
	int32_t rank;                   /* at least 2 */
	int64_t dims[CX_MAT5_MAX_RANK]; /* column-major: the first one varies fastest */
	int64_t n;                      /* elements */
	uint32_t type;             /* of storage: miINT8 1 ... miDOUBLE 9, miINT64 12, miUINT64 13 */
	const unsigned char *data; /* [n] elements, perhaps unaligned */
} cx_mat5_array;

typedef struct cx_mat5 {
	cx_arena arena; /* names, and arrays that were compressed */
	const char *label;
	cx_mat5_array *arrays; /* [n_arrays] in file order */
	size_t n_arrays;
	cx_file_map *map; /* owned; NULL after cx_mat5_parse() */
} cx_mat5;

CX_API cx_status cx_mat5_open(const cx_alloc *a, const char *path, cx_mat5 *out, cx_err *err);
/* From a map, which must outlive *out. */
CX_API cx_status cx_mat5_parse(
	const cx_alloc *a, const cx_file_map *map, cx_mat5 *out, cx_err *err);
CX_API void cx_mat5_close(cx_mat5 *m); /* zeroed and half-built are fine */

/* The numeric array of that name; CX_REQUIRED and absent, or not numeric: FORMAT. */
CX_API cx_status cx_mat5_get(
	const cx_mat5 *m, const char *name, cx_need need, const cx_mat5_array **out, cx_err *err);
/* Column-major as stored; dst[a->n]. 64-bit integers are rounded. */
CX_API void cx_mat5_to_f64(const cx_mat5_array *a, double *dst);

#ifdef __cplusplus
}
#endif
#endif
