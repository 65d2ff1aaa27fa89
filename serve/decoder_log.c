/* decoder_log.c - what a training run remembers of its steps: train.tsv, train.svg. See
 * decoder_run.h. */
#include "models/files/out.h"
#include "serve/decoder_run.h"
#include "serve/svg.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE = 256, FIELDS = 8 };

cx_status cx__run_log_add(cx_run_log *l, const cx_run_row *row, cx_err *err)
{
	if (l->n == l->cap) {
		size_t cap = l->cap ? 2 * l->cap : 64;
		cx_run_row *at = realloc(l->row, cap * sizeof *at);
		if (!at) return CX_FAIL(err, CX_ERR_MEMORY, "out of memory");
		l->row = at;
		l->cap = cap;
	}
	l->row[l->n++] = *row;
	return CX_OK;
}

void cx__run_log_deinit(cx_run_log *l)
{
	free(l->row);
	memset(l, 0, sizeof *l);
}

cx_status cx__run_log_print(const cx_run_log *l, char **text, cx_err *err)
{
	size_t size = (l->n + 2) * LINE, at;
	char *t = *text = malloc(size);
	if (!t) return CX_FAIL(err, CX_ERR_MEMORY, "out of memory");
	at = (size_t)snprintf(t, LINE, "%.17g %lld %lld %.17g %.17g %.17g %.17g\n", l->best,
		(long long)l->best_step, (long long)l->waited, l->sum[0], l->sum[1], l->sum[2], l->sum[3]);
	for (size_t i = 0; i < l->n; i++) {
		const cx_run_row *r = &l->row[i];
		at += (size_t)snprintf(t + at, LINE, "%lld %.17g %.17g %.17g %.17g %.17g %.17g %.17g\n",
			(long long)r->step, r->epoch, r->loss, r->mse, r->xent, r->norm, r->rate, r->val);
	}
	return CX_OK;
}

/* n numbers of a line; gives what comes after it, or NULL. */
static const char *fields(const char *text, double *v, int n)
{
	for (int i = 0; i < n; i++) {
		char *end;
		v[i] = strtod(text, &end);
		if (end == text) return NULL;
		text = end;
	}
	return *text == '\n' ? text + 1 : NULL;
}

cx_status cx__run_log_parse(cx_run_log *l, const char *text, const char *label, cx_err *err)
{
	double v[FIELDS];
	cx_status st = CX_OK;
	memset(l, 0, sizeof *l);
	text = fields(text, v, 7);
	if (text) {
		l->best = v[0];
		l->best_step = (int64_t)v[1];
		l->waited = (int64_t)v[2];
		memcpy(l->sum, v + 3, sizeof l->sum);
	}
	while (st == CX_OK && text && *text) {
		cx_run_row r;
		if (!(text = fields(text, v, FIELDS))) break;
		r = (cx_run_row){(int64_t)v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]};
		st = cx__run_log_add(l, &r, err);
	}
	if (st == CX_OK && !text)
		st = CX_FAIL(err, CX_ERR_FORMAT, "%s: the log in its metadata is damaged", label);
	if (st != CX_OK) cx__run_log_deinit(l);
	return st;
}

cx_status cx__run_log_write(const cx_run_log *l, const char *path, cx_err *err)
{
	static const char head[] = "step\tepoch\tloss\tmse\tmasked_xent\tgrad_norm\trate\tval_r2\n";
	cx_file_out *o;
	cx_status st = cx_file_out_open(NULL, path, &o, err);
	if (st != CX_OK) return st;
	st = cx_file_out_write(o, head, sizeof head - 1, err);
	for (size_t i = 0; i < l->n && st == CX_OK; i++) {
		const cx_run_row *r = &l->row[i];
		char line[LINE], val[24] = "-";
		int n;
		if (!isnan(r->val)) snprintf(val, sizeof val, "%.6f", r->val);
		n = snprintf(line, sizeof line, "%lld\t%.3f\t%.6g\t%.6g\t%.6g\t%.6g\t%.6g\t%s\n",
			(long long)r->step, r->epoch, r->loss, r->mse, r->xent, r->norm, r->rate, val);
		st = cx_file_out_write(o, line, (size_t)n, err);
	}
	if (st == CX_OK) return cx_file_out_commit(o, err);
	cx_file_out_discard(o);
	return st;
}

/* Rows that lie on the grid of log_every; a last one may not. */
static size_t on_grid(const cx_run_log *l, int64_t log_every)
{
	size_t n = 0;
	while (n < l->n && l->row[n].step == (int64_t)(n + 1) * log_every) n++;
	return n;
}

cx_status cx__run_log_draw(
	const cx_run_log *l, int64_t log_every, const char *title, const char *path, cx_err *err)
{
	size_t n = on_grid(l, log_every);
	double *y, held = NAN;
	cx_svg_panel panel[2];
	cx_status st;
	memset(panel, 0, sizeof panel);
	if (n < 2) return CX_OK;
	if (!(y = malloc(3 * n * sizeof *y))) return CX_FAIL(err, CX_ERR_MEMORY, "out of memory");
	for (size_t i = 0; i < n; i++) {
		y[i] = l->row[i].loss;
		y[n + i] = 1 - l->row[i].mse;
		if (!isnan(l->row[i].val)) held = l->row[i].val; /* holds until the next score */
		y[2 * n + i] = held;
	}
	panel[0] = (cx_svg_panel){.title = "Loss", .unit = "z-scored", .n_lines = 1};
	panel[0].line[0] = (cx_svg_line){"train", "#222222", y, 1};
	panel[1] = (cx_svg_panel){.title = "R2, mean over columns", .unit = "R2", .n_lines = 2};
	panel[1].line[0] = (cx_svg_line){"train, as trained", "#222222", y + n, 1};
	panel[1].line[1] = (cx_svg_line){"val", "#d62728", y + 2 * n, 1};
	st = cx_svg_write(path, title, "every point is the mean over the steps since the one before",
		"steps", panel, 2, n, (double)log_every, (double)log_every, err);
	free(y);
	return st;
}
