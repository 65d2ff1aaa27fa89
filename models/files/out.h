/* out.h - writes a whole file or nothing: into a new file beside the target, flushed to disk, then
 * renamed over it.
 *
 * Until cx_file_out_commit() has returned CX_OK the old file, if there was one, stays as it was. */
#ifndef CX_FILES_OUT_H
#define CX_FILES_OUT_H

#include "graph/base.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cx_file_out cx_file_out;

/* Creates "<path>.<pid>.<n>.tmp". A path that is a folder or a device is refused: it would be
 * replaced. Links are followed. *out is NULL on failure. End it with exactly one of commit and
 * discard. */
CX_API cx_status cx_file_out_open(
	const cx_alloc *a, const char *path, cx_file_out **out, cx_err *err);
/* Appends n bytes. After a failure only cx_file_out_discard() makes sense. */
CX_API cx_status cx_file_out_write(cx_file_out *o, const void *data, size_t n, cx_err *err);
/* fsync, rename, fsync of the folder. Frees o in every case; on failure the temporary file is
 * removed. */
CX_API cx_status cx_file_out_commit(cx_file_out *o, cx_err *err);
/* Removes the temporary file and frees o. NULL is fine. */
CX_API void cx_file_out_discard(cx_file_out *o);

#ifdef __cplusplus
}
#endif
#endif
