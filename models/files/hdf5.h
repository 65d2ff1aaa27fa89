/* hdf5.h - HDF5 files through the plug-in cortex-nwb.so, which alone links libhdf5.
 *
 * The binary starts and runs without either; opening a file then fails with a sentence that says
 * what is missing. The plug-in is looked for in the folder given, or else beside the program, in
 * the folder above it, and in ../lib/cortex from there. Names are absolute paths inside the file
 * ("/units/spike_times"); a failure names file and field and quotes the library's own reason.
 * Nothing is printed. */
#ifndef CX_FILES_HDF5_H
#define CX_FILES_HDF5_H

#include "graph/base.h"

enum { CX_H5_VERSION = 1, CX_H5_MAX_RANK = 4 };

typedef struct cx_h5 cx_h5;

typedef enum cx_h5_kind {
	CX_H5_NONE, /* there is nothing of that name */
	CX_H5_GROUP,
	CX_H5_INT, /* also bool and other enumerations */
	CX_H5_FLOAT,
	CX_H5_TEXT, /* of fixed or variable length */
	CX_H5_OTHER
} cx_h5_kind;

typedef struct cx_h5_object {
	cx_h5_kind kind;
	int rank;                         /* 0 is a scalar */
	uint64_t dims[CX_H5_MAX_RANK], n; /* n: elements */
} cx_h5_object;

/* What the plug-in gives: its symbol `cx_h5_plugin`. Integers and floats of any size and byte order
 * are converted, every filter and layout of the library is read. */
typedef struct cx_h5_api {
	uint32_t version; /* CX_H5_VERSION */
	/* write: a new file. *out is NULL on failure. */
	cx_status (*open)(const cx_alloc *a, const char *path, bool write, cx_h5 **out, cx_err *err);
	cx_status (*close)(
		cx_h5 *f, cx_err *err); /* NULL is fine; a failure means that the data is not written */
	cx_status (*find)(cx_h5 *f, const char *name, cx_h5_object *out, cx_err *err);
	cx_status (*read_f64)(cx_h5 *f, const char *name, uint64_t n, double *dst, cx_err *err);
	cx_status (*read_i64)(cx_h5 *f, const char *name, uint64_t n, int64_t *dst, cx_err *err);
	/* Each into width bytes of dst [n, width], cut if longer, always terminated. */
	cx_status (*read_text)(
		cx_h5 *f, const char *name, uint64_t n, size_t width, char *dst, cx_err *err);
	cx_status (*read_attr_f64)(
		cx_h5 *f, const char *name, const char *attr, double *dst, cx_err *err);
	/* Groups on the way to a name are made as needed. rank 0 is a scalar (n = 1). */
	cx_status (*write_f64)(
		cx_h5 *f, const char *name, int rank, const uint64_t *dims, const double *src, cx_err *err);
	cx_status (*write_i64)(cx_h5 *f, const char *name, int rank, const uint64_t *dims,
		const int64_t *src, cx_err *err);
	cx_status (*write_text)(
		cx_h5 *f, const char *name, int rank, uint64_t n, const char *const *src, cx_err *err);
	cx_status (*write_attr)(
		cx_h5 *f, const char *name, const char *attr, const char *value, cx_err *err);
} cx_h5_api;

/* folder: where the plug-in lies; NULL: the usual places. The plug-in stays loaded until the
 * program ends, as libhdf5 has state of its own. */
CX_API cx_status cx_h5_load(const char *folder, const cx_h5_api **out, cx_err *err);

#endif
