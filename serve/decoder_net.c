/* decoder_net.c - rows of the table for networks that `cortex decoder train` wrote.
 *
 * In: lists of files, one list per row: seeds of the same training. Out: R2 on the test part, mean
 * and standard deviation over the list. The recording is cut into windows as the file says; the
   * z-score is the file's. */
#include "models/decoder/train_config.h"
#include "serve/decoder_table.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

typedef struct entry {
	char path[1200];
	cx_train_meta meta;
	cx_net_config net;
	cx_dataset *data;
	const cx_dataset_info *info;
	double r2[CX_MAX_BEHAVIOR];
} entry;

/* A folder stands for its best.safetensors. */
static cx_status file_of(const char *text, size_t n, char *path, size_t size, cx_err *err)
{
	struct stat info;
	int k = snprintf(path, size, "%.*s", (int)n, text);
	if (k > 0 && (size_t)k < size && stat(path, &info) == 0 && S_ISDIR(info.st_mode))
		k = snprintf(path, size, "%.*s/best.safetensors", (int)n, text);
	if (k > 0 && (size_t)k < size) return CX_OK;
	return CX_FAIL(err, CX_ERR_ARGUMENT, "--checkpoint: a path is empty or too long");
}

static cx_status open_data(entry *e, const char *data, double fraction, cx_err *err)
{
	cx_data_conf *d = &e->meta.config.data;
	cx_status st;
	if (d->protocol == CX_PROTOCOL_CONTINUOUS && !(fabs(d->train + d->val - fraction) < 1e-9))
		return CX_FAIL(err, CX_ERR_ARGUMENT,
			"%s was trained on %g of a recording, the table fits on %g: --train-fraction says how "
			"much",
			cx_path_tail(e->path), d->train + d->val, fraction);
	if (snprintf(d->path, sizeof d->path, "%s", data) >= (int)sizeof d->path)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "--data: the path is too long");
	if ((st = cx_train_config_open(&e->meta.config, NULL, &e->data, err)) != CX_OK) return st;
	e->info = cx_dataset_get_info(e->data);
	if (e->info->n_units != e->meta.n_units)
		return CX_FAIL(err, CX_ERR_SHAPE, "%s was trained on %u units, the data has %u",
			cx_path_tail(e->path), e->meta.n_units, e->info->n_units);
	if (e->info->n_windows[CX_PART_TEST] == 0)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "%s: no test window", cx_path_tail(data));
	st = cx_dataset_set_scale(e->data, e->meta.mean, e->meta.sd, e->meta.behavior_dim, err);
	if (st != CX_OK) return st;
	return cx_train_config_net(&e->meta.config, e->info, &e->net, err);
}

static cx_status score(entry *e, const cx_host *host, cx_err *err)
{
	cx_net_file *f = NULL;
	cx_evaluator *v = NULL;
	cx_status st = cx_net_file_open(e->path, &e->net, host->rt, host->dev, NULL, &f, err);
	if (st == CX_OK) st = cx_net_file_evaluator(f, e->data, &v, err);
	if (st == CX_OK) st = cx_evaluator_score(v, CX_PART_TEST, e->r2, NULL, NULL, err);
	cx_evaluator_free(v);
	cx_net_file_close(f);
	return st;
}

/* sum and square are of the entries so far. */
static void take(const entry *e, const cx_table *t, double *sum, double *square)
{
	for (uint32_t c = 0; c < t->n_cols; c++) {
		double v = NAN;
		for (uint32_t k = 0; k < e->info->behavior_dim; k++)
			if (!strcmp(e->info->name[k], t->col[c])) v = e->r2[k];
		sum[c] += v;
		square[c] += v * v;
	}
}

static void describe(const entry *e, int n, cx_table_row *row)
{
	double params = (double)cx_net_n_elems(&e->net);
	snprintf(row->protocol, sizeof row->protocol, "%.0f/%.0f %%, %s",
		100 * (e->meta.config.data.train + e->meta.config.data.val),
		100 * (1 - e->meta.config.data.train - e->meta.config.data.val),
		e->info->ahead ? "acausal" : "causal");
	snprintf(row->decoder, sizeof row->decoder, "%s", cx_net_name(e->net.kind));
	if (n > 1)
		snprintf(row->settings, sizeof row->settings, "%.0f k parameters, %u bins, %d seeds",
			params / 1e3, e->info->window, n);
	else
		snprintf(row->settings, sizeof row->settings, "%.0f k parameters, %u bins", params / 1e3,
			e->info->window);
}

cx_status cx__decoder_net_row(const decoder_args *a, const char *list, const char *data,
	const cx_host *host, cx_table *t, cx_err *err)
{
	double sum[CX_TABLE_COLS] = {0}, square[CX_TABLE_COLS] = {0};
	static entry e; /* paths and a configuration: large for a stack */
	cx_table_row row = {0};
	cx_status st = CX_OK;
	int n = 0;
	for (const char *next = list; st == CX_OK && *next;) {
		size_t len = strcspn(next, ",");
		memset(&e, 0, sizeof e);
		if ((st = file_of(next, len, e.path, sizeof e.path, err)) == CX_OK &&
			(st = cx_train_meta_read(e.path, NULL, &e.meta, err)) == CX_OK &&
			(st = open_data(&e, data, a->fraction, err)) == CX_OK &&
			(st = score(&e, host, err)) == CX_OK) {
			take(&e, t, sum, square);
			describe(&e, ++n, &row);
		}
		cx_dataset_free(e.data);
		next += len;
		next += *next == ',';
	}
	if (st != CX_OK) return st;
	for (uint32_t c = 0; c < t->n_cols; c++) {
		double m = sum[c] / n, var = n > 1 ? (square[c] - n * m * m) / (n - 1) : 0;
		row.r2[c] = m;
		row.sd[c] = var > 0 ? sqrt(var) : 0;
	}
	cx__table_add(t, &row);
	return CX_OK;
}
