/* csv.c - columns of numbers from a text file. See csv.h. */
#include "models/files/csv.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { NUMBER_MAX = 64, BOM_BYTES = 3 };

typedef struct text {
	const char *at, *end;
} text; /* [at, end) */

typedef struct table {
	const cx_file_map *map;
	int wanted[CX_CSV_MAX_COLS]; /* per column of the file: index into cols, or -1 */
	size_t n_file_cols;
	cx_csv_col *cols;
	size_t n_cols;
} table;

static text trimmed(text t)
{
	while (t.at < t.end && (*t.at == ' ' || *t.at == '\t')) t.at++;
	while (t.at < t.end && (t.end[-1] == ' ' || t.end[-1] == '\t')) t.end--;
	return t;
}

/* Cuts the first line off `rest`, without its line end. False at the end of the text. */
static bool next_line(text *rest, text *line)
{
	const char *nl;
	if (rest->at >= rest->end) return false;
	nl = memchr(rest->at, '\n', (size_t)(rest->end - rest->at));
	*line = (text){rest->at, nl ? nl : rest->end};
	rest->at = nl ? nl + 1 : rest->end;
	if (line->end > line->at && line->end[-1] == '\r') line->end--;
	return true;
}

/* Cuts the first cell off `line`; line->at is NULL after the last one. */
static text next_cell(text *line)
{
	const char *comma = memchr(line->at, ',', (size_t)(line->end - line->at));
	text cell = {line->at, comma ? comma : line->end};
	line->at = comma ? comma + 1 : NULL;
	return trimmed(cell);
}

static cx_status read_header(table *t, text line, cx_err *err)
{
	t->n_file_cols = 0;
	while (line.at) {
		text cell = next_cell(&line);
		size_t n = (size_t)(cell.end - cell.at);
		if (t->n_file_cols == CX_CSV_MAX_COLS)
			return CX_FAIL(err, CX_ERR_FORMAT, "%s: line 1: more than %d columns", t->map->label,
				CX_CSV_MAX_COLS);
		t->wanted[t->n_file_cols] = -1;
		for (size_t i = 0; i < t->n_cols; i++) {
			if (strlen(t->cols[i].name) != n || memcmp(t->cols[i].name, cell.at, n) != 0) continue;
			for (size_t k = 0; k < t->n_file_cols; k++)
				if (t->wanted[k] == (int)i)
					return CX_FAIL(err, CX_ERR_FORMAT, "%s: line 1: column '%s' is there twice",
						t->map->label, t->cols[i].name);
			t->wanted[t->n_file_cols] = (int)i;
		}
		t->n_file_cols++;
	}
	for (size_t i = 0; i < t->n_cols; i++) {
		bool found = false;
		for (size_t k = 0; k < t->n_file_cols; k++) found = found || t->wanted[k] == (int)i;
		if (!found)
			return CX_FAIL(err, CX_ERR_FORMAT, "%s: line 1: there is no column '%s'", t->map->label,
				t->cols[i].name);
	}
	return CX_OK;
}

/* A signed decimal integer and nothing else. Overflow and junk are told apart. */
static bool parse_i64(text cell, int64_t *out, bool *overflow)
{
	bool neg = cell.at < cell.end && *cell.at == '-';
	int64_t v = 0;
	*overflow = false;
	if (neg) cell.at++;
	if (cell.at == cell.end) return false;
	for (; cell.at < cell.end; cell.at++) {
		int d = *cell.at - '0';
		if (d < 0 || d > 9) return false;
		if (!cx_mul_i64(v, 10, &v) || !cx_add_i64(v, neg ? -d : d, &v)) *overflow = true;
	}
	*out = v;
	return true;
}

static bool parse_f64(text cell, double *out)
{
	char buf[NUMBER_MAX], *end;
	size_t n = (size_t)(cell.end - cell.at);
	if (n == 0 || n >= sizeof buf) return false;
	for (size_t i = 0; i < n; i++) /* strtod also reads hex, "inf" and "nan" */
		if (!strchr("+-.0123456789eE", cell.at[i]) || cell.at[i] == '\0') return false;
	memcpy(buf, cell.at, n);
	buf[n] = '\0';
	*out = strtod(buf, &end);
	return *end == '\0' && end != buf && isfinite(*out);
}

static cx_status read_cell(const table *t, cx_csv_col *col, text cell, size_t row, cx_err *err)
{
	int n = cell.end - cell.at < 40 ? (int)(cell.end - cell.at) : 40;
	unsigned long long line = (unsigned long long)row + 2;
	bool overflow = false, ok;
	if (cell.at == cell.end)
		return CX_FAIL(err, CX_ERR_FORMAT, "%s: line %llu: column '%s' is empty", t->map->label,
			line, col->name);
	ok = col->type == CX_CSV_I64 ? parse_i64(cell, &col->i64[row], &overflow)
								 : parse_f64(cell, &col->f64[row]);
	if (ok && overflow)
		return CX_FAIL(err, CX_ERR_FORMAT, "%s: line %llu: column '%s': %.*s does not fit 64 bits",
			t->map->label, line, col->name, n, cell.at);
	if (!ok)
		return CX_FAIL(err, CX_ERR_FORMAT, "%s: line %llu: column '%s': '%.*s' is not %s",
			t->map->label, line, col->name, n, cell.at,
			col->type == CX_CSV_I64 ? "an integer" : "a finite number");
	return CX_OK;
}

static cx_status read_row(const table *t, text line, size_t row, cx_err *err)
{
	size_t k = 0;
	cx_status st;
	for (; line.at; k++) {
		text cell = next_cell(&line);
		if (k >= t->n_file_cols || t->wanted[k] < 0) continue;
		if ((st = read_cell(t, &t->cols[t->wanted[k]], cell, row, err)) != CX_OK) return st;
	}
	if (k != t->n_file_cols)
		return CX_FAIL(err, CX_ERR_FORMAT, "%s: line %zu has %zu cells, the header has %zu",
			t->map->label, row + 2, k, t->n_file_cols);
	return CX_OK;
}

static cx_status alloc_cols(const cx_alloc *a, const table *t, size_t n_rows, cx_err *err)
{
	_Static_assert(sizeof(double) == sizeof(int64_t), "one size for both");
	for (size_t i = 0; i < t->n_cols; i++) {
		void *p = cx_calloc(a, n_rows, sizeof(int64_t));
		if (!p)
			return CX_FAIL(
				err, CX_ERR_MEMORY, "%s: out of memory for %zu rows", t->map->label, n_rows);
		if (t->cols[i].type == CX_CSV_I64) t->cols[i].i64 = p;
		else t->cols[i].f64 = p;
	}
	return CX_OK;
}

cx_status cx_csv_parse(const cx_alloc *a, const cx_file_map *map, cx_csv_col *cols, size_t n_cols,
	size_t *n_rows, cx_err *err)
{
	table t = {.map = map, .cols = cols, .n_cols = n_cols};
	text all = {(const char *)map->data, (const char *)map->data + map->size}, rest, line;
	size_t n = 0;
	cx_status st;
	*n_rows = 0;
	for (size_t i = 0; i < n_cols; i++) cols[i].i64 = NULL, cols[i].f64 = NULL;
	if (map->size >= BOM_BYTES && memcmp(map->data, "\xef\xbb\xbf", BOM_BYTES) == 0)
		all.at += BOM_BYTES;
	while (all.end > all.at && strchr("\r\n \t", all.end[-1]) && all.end[-1])
		all.end--; /* empty lines at the end */
	rest = all;
	if (!next_line(&rest, &line))
		return CX_FAIL(err, CX_ERR_FORMAT, "%s: the file has no header row", map->label);
	if ((st = read_header(&t, line, err)) != CX_OK) return st;
	for (text r = rest; next_line(&r, &line);) n++;
	if (n == 0)
		return CX_FAIL(err, CX_ERR_FORMAT, "%s: there are no rows after the header", map->label);
	if ((st = alloc_cols(a, &t, n, err)) != CX_OK) goto fail;
	for (size_t row = 0; next_line(&rest, &line); row++)
		if ((st = read_row(&t, line, row, err)) != CX_OK) goto fail;
	*n_rows = n;
	return CX_OK;
fail:
	cx_csv_free(a, cols, n_cols, n);
	return st;
}

cx_status cx_csv_read(const cx_alloc *a, const char *path, cx_csv_col *cols, size_t n_cols,
	size_t *n_rows, cx_err *err)
{
	cx_file_map *map;
	cx_status st;
	*n_rows = 0;
	for (size_t i = 0; i < n_cols; i++) cols[i].i64 = NULL, cols[i].f64 = NULL;
	if ((st = cx_file_map_open(a, path, &map, err)) != CX_OK) return st;
	st = cx_csv_parse(a, map, cols, n_cols, n_rows, err);
	cx_file_map_close(map);
	return st;
}

void cx_csv_free(const cx_alloc *a, cx_csv_col *cols, size_t n_cols, size_t n_rows)
{
	for (size_t i = 0; i < n_cols; i++) {
		cx_free(a, cols[i].i64, n_rows * sizeof(int64_t));
		cx_free(a, cols[i].f64, n_rows * sizeof(double));
		cols[i].i64 = NULL;
		cols[i].f64 = NULL;
	}
}
