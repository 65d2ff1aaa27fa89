/* csv.h - numbers from a comma-separated file with a header row: "id,lower,upper,size" and one row
 * of numbers per line.
 *
 * Strict: every line has as many cells as the header, every wanted cell is a number of its column's
 * type and nothing else (no quotes, no units; blanks around a cell are allowed); an error names
 * file, line and column. Lines end in LF or CRLF; the last one may lack it; empty lines are allowed
 * only at the end. Columns that were not asked for are not read. */
#ifndef CX_FILES_CSV_H
#define CX_FILES_CSV_H

#include "models/files/map.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { CX_CSV_MAX_COLS = 256 }; /* in a file */

typedef enum cx_csv_type { CX_CSV_I64, CX_CSV_F64 } cx_csv_type;

typedef struct cx_csv_col {
	const char *name; /* in: as in the header row */
	cx_csv_type type; /* in */
	int64_t *i64;     /* out: [n_rows] if CX_CSV_I64 */
	double *f64;      /* out: [n_rows] if CX_CSV_F64; finite */
} cx_csv_col;

/* Reads cols[n_cols] of the file at `path`. On success *n_rows >= 1 and the columns' arrays are the
 * caller's: cx_csv_free(). On failure they are NULL. */
CX_API cx_status cx_csv_read(const cx_alloc *a, const char *path, cx_csv_col *cols, size_t n_cols,
	size_t *n_rows, cx_err *err);
CX_API cx_status cx_csv_parse(const cx_alloc *a, const cx_file_map *map, cx_csv_col *cols,
	size_t n_cols, size_t *n_rows, cx_err *err);
CX_API void cx_csv_free(const cx_alloc *a, cx_csv_col *cols, size_t n_cols, size_t n_rows);

#ifdef __cplusplus
}
#endif
#endif
