/* decoder_table.c - `cortex decoder eval --table`: every linear decoder on a recording, side by
 * side. */
#include "serve/decoder_table.h"
#include "models/decoder/dataset.h"
#include "models/decoder/metrics.h"
#include "models/decoder/nwb.h"
#include "models/decoder/ridge.h"
#include "models/files/map.h"
#include "models/files/sha256.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

double cx__seconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

void cx__table_add(cx_table *t, const cx_table_row *row)
{
	if (t->n_rows < CX_TABLE_ROWS) t->row[t->n_rows++] = *row;
}

static void cell(const cx_table_row *r, uint32_t c, char *out, size_t size)
{
	if (isnan(r->r2[c])) snprintf(out, size, "-");
	else if (r->sd[c] > 0) snprintf(out, size, "%.4f ± %.4f", r->r2[c], r->sd[c]);
	else snprintf(out, size, "%.4f", r->r2[c]);
}

static double mean(const cx_table *t, const cx_table_row *r)
{
	double sum = 0;
	for (uint32_t c = 0; c < t->n_cols; c++) sum += r->r2[c];
	return sum / t->n_cols;
}

static void print_json(const cx_table *t)
{
	printf("{\"title\": \"%s\", \"rows\": [", t->title);
	for (uint32_t i = 0; i < t->n_rows; i++) {
		const cx_table_row *r = &t->row[i];
		printf("%s\n {\"protocol\": \"%s\", \"decoder\": \"%s\", \"settings\": \"%s\", \"r2\": {",
			i ? "," : "", r->protocol, r->decoder, r->settings);
		for (uint32_t c = 0; c < t->n_cols; c++)
			if (isnan(r->r2[c])) printf("%s\"%s\": null", c ? ", " : "", t->col[c]);
			else printf("%s\"%s\": %.6f", c ? ", " : "", t->col[c], r->r2[c]);
		if (isnan(mean(t, r))) printf("}, \"r2_mean\": null, ");
		else printf("}, \"r2_mean\": %.6f, ", mean(t, r));
		printf("\"seconds\": %.3f}", r->seconds);
	}
	printf("]}\n");
}

static void print_markdown(const cx_table *t)
{
	char text[40];
	printf("%s\n\n| protocol | decoder | settings |", t->title);
	for (uint32_t c = 0; c < t->n_cols; c++) printf(" R2 %s |", t->col[c]);
	printf(" mean |\n|---|---|---|");
	for (uint32_t c = 0; c <= t->n_cols; c++) printf("---|");
	for (uint32_t i = 0; i < t->n_rows; i++) {
		const cx_table_row *r = &t->row[i];
		printf("\n| %s | %s | %s |", r->protocol, r->decoder, r->settings);
		for (uint32_t c = 0; c < t->n_cols; c++) {
			cell(r, c, text, sizeof text);
			printf(" %s |", text);
		}
		if (isnan(mean(t, r))) printf(" - |");
		else printf(" %.4f |", mean(t, r));
	}
	printf("\n");
	if (t->note[0]) printf("\n%s\n", t->note);
}

static void print_text(const cx_table *t)
{
	char text[40];
	printf("%s\n%-20s %-22s %-44s", t->title, "protocol", "decoder", "settings");
	for (uint32_t c = 0; c < t->n_cols; c++) printf(" %9s", t->col[c]);
	printf("      mean  fit s\n");
	for (uint32_t i = 0; i < t->n_rows; i++) {
		const cx_table_row *r = &t->row[i];
		printf("%-20s %-22s %-44s", r->protocol, r->decoder, r->settings);
		for (uint32_t c = 0; c < t->n_cols; c++) {
			cell(r, c, text, sizeof text);
			printf(" %9s", text);
		}
		if (isnan(mean(t, r))) printf(" %9s %6.1f\n", "-", r->seconds);
		else printf(" %9.4f %6.1f\n", mean(t, r), r->seconds);
	}
	if (t->note[0]) printf("%s\n", t->note);
}

void cx__table_print(const cx_table *t, cx_table_form form)
{
	if (form == CX_TABLE_JSON) print_json(t);
	else if (form == CX_TABLE_MARKDOWN) print_markdown(t);
	else print_text(t);
}

/* ---- blocks of time ---- */

typedef struct bench {
	const decoder_args *a;
	const cx_session *s;
	cx_host host;
	cx_table *t;
	size_t first, n; /* of the test bins */
	bool gaps;
	double *truth, *y, *kept; /* [n, n_kin] */
	cx_err *err;
} bench;

/* Scores y on the test bins that have kinematics, and adds the row. */
static void add(
	bench *b, const char *decoder, const char *settings, const double *y, double seconds)
{
	size_t d = b->s->n_kin, m = 0;
	cx_table_row row = {.seconds = seconds};
	double r2[8];
	for (size_t i = 0; i < b->n; i++) {
		if (b->s->kin_ok && !b->s->kin_ok[b->first + i]) continue;
		if (b->s->observed && !b->s->observed[b->first + i]) continue;
		memcpy(b->truth + m * d, b->s->kin + (b->first + i) * d, d * sizeof *y);
		memcpy(b->kept + m * d, y + i * d, d * sizeof *y);
		m++;
	}
	cx_r2(b->truth, b->kept, m, d, r2);
	snprintf(row.protocol, sizeof row.protocol, "%.0f/%.0f %%, causal", 100 * b->a->fraction,
		100 * (1 - b->a->fraction));
	snprintf(row.decoder, sizeof row.decoder, "%s", decoder);
	snprintf(row.settings, sizeof row.settings, "%s", settings);
	memcpy(row.r2, r2, d * sizeof *r2);
	cx__table_add(b->t, &row);
}

static cx_status wiener(bench *b)
{
	char what[80];
	cx_wiener w;
	double start = cx__seconds();
	cx_status st = cx_wiener_fit(b->s, b->first, b->a->fit.history, b->a->fit.ridge, &w, b->err);
	if (st != CX_OK) return st;
	snprintf(what, sizeof what, "%zu bins, ridge %g", b->a->fit.history, b->a->fit.ridge);
	cx_wiener_decode(&w, b->s, b->first, b->n, b->y);
	add(b, "Wiener", what, b->y, cx__seconds() - start);
	cx_wiener_deinit(&w);
	return CX_OK;
}

static cx_status tuned(bench *b)
{
	char what[80] = "";
	size_t last = b->s->n_kin - 1, n = 0;
	cx_ridge_choice choice;
	double start = cx__seconds();
	cx_status st =
		cx_ridge_tune(b->s, b->first, 0, cx__progress, (void *)"ridge, tuning", &choice, b->err);
	if (st == CX_OK) st = cx_ridge_decode(b->s, b->first, &choice, b->first, b->n, b->y, b->err);
	if (st != CX_OK) return st;
	for (size_t c = 0; c <= last && n < sizeof what; c++)
		n += (size_t)snprintf(
			what + n, sizeof what - n, "%s%zu", c ? "/" : "bins ", choice.history[c]);
	for (size_t c = 0; c <= last && n < sizeof what; c++)
		n += (size_t)snprintf(
			what + n, sizeof what - n, "%s%.3g", c ? "/" : ", alpha ", choice.alpha[c]);
	add(b, "ridge, tuned", what, b->y, cx__seconds() - start);
	return CX_OK;
}

static cx_status kalman(bench *b)
{
	cx_linear_opts o = {.method = CX_LINEAR_KALMAN, .n_train = b->first};
	cx_linear_decoder *k = NULL;
	double start = cx__seconds(), fitted;
	cx_status st = cx_linear_open(b->s, &o, b->host.rt, b->host.dev, &k, b->err);
	fitted = cx__seconds() - start;
	for (size_t i = 0; st == CX_OK && i < b->n; i++)
		st = cx_linear_step(k, b->y + i * b->s->n_kin, b->err);
	if (st == CX_OK) add(b, "Kalman", "state: all columns", b->y, fitted);
	cx_linear_close(k);
	return st;
}

static cx_status blocks(bench *b)
{
	const cx_session *s = b->s;
	size_t bytes;
	cx_status st;
	b->first = cx_session_split(s, b->a->fraction);
	b->n = s->n_bins - b->first;
	if (b->first < 50 || b->n < 2)
		return CX_FAIL(b->err, CX_ERR_ARGUMENT, "%zu bins are too few for %g of them to fit on",
			s->n_bins, b->a->fraction);
	bytes = b->n * s->n_kin;
	b->truth = calloc(bytes, sizeof *b->truth);
	b->y = calloc(bytes, sizeof *b->y);
	b->kept = calloc(bytes, sizeof *b->kept);
	if (!b->truth || !b->y || !b->kept) return CX_FAIL(b->err, CX_ERR_MEMORY, "out of memory");
	for (size_t t = 0; t < s->n_bins; t++)
		b->gaps = b->gaps || (s->kin_ok && !s->kin_ok[t]) || (s->observed && !s->observed[t]);
	if ((st = wiener(b)) != CX_OK || (st = tuned(b)) != CX_OK) return st;
	if (b->gaps)
		snprintf(b->t->note, sizeof b->t->note,
			"No Kalman row: the recording has gaps, and that fit wants one run of bins.");
	else if ((st = kalman(b)) != CX_OK) return st;
	if (s->bayes)
		add(b, "Bayes-optimal", "knows the simulation", s->bayes + b->first * s->n_kin, 0);
	return CX_OK;
}

/* The last part of a path: tables go into documents, where the folders above mean nothing. */
static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');
	return slash && slash[1] ? slash + 1 : path;
}

/* Binned as for a decoder of 0.05 s bins, all columns; the first session of the path. */
static cx_status continuous(const decoder_args *a, const char *path, cx_table *t, cx_err *err)
{
	cx_dataset_opts o = cx_dataset_default();
	bench b = {.a = a, .t = t, .err = err};
	cx_dataset *d = NULL;
	char bins[32] = "";
	cx_status st;
	o.train = a->fraction;
	o.val = 0;
	o.all_columns = true;
	if (a->bin > 0) o.bin_seconds = a->bin;
	if ((st = cx_dataset_create(&o, NULL, &d, err)) == CX_OK &&
		(st = cx_dataset_add_path(d, path, err)) == CX_OK)
		st = cx_dataset_finish(d, err);
	if (st == CX_OK) {
		double width;
		b.s = cx_dataset_session(d, 0, NULL);
		width = b.s->bin_seconds > 0 ? b.s->bin_seconds : a->bin;
		t->n_cols = (uint32_t)b.s->n_kin;
		memcpy(t->col, b.s->kin_name, sizeof t->col);
		if (width > 0) snprintf(bins, sizeof bins, " of %.4g ms", 1e3 * width);
		snprintf(t->title, sizeof t->title, "%.60s: %zu units, %zu bins%s, decoding the last %zu",
			base_name(path), b.s->n_units, b.s->n_bins, bins,
			b.s->n_bins - cx_session_split(b.s, a->fraction));
		if ((st = cx__host_open(a->backend, &b.host, err)) == CX_OK) st = blocks(&b);
		for (int i = 0; i < a->n_checkpoints && st == CX_OK; i++)
			st = cx__decoder_net_row(a, a->checkpoint[i], path, &b.host, t, err);
	}
	cx__host_close(&b.host);
	free(b.truth);
	free(b.y);
	free(b.kept);
	cx_dataset_free(d);
	return st;
}

/* ---- files ---- */

/* What the benchmark calls this file, or NULL. */
static const char *official(const char *path)
{
	static const struct {
		const char *name;
		uint64_t bytes;
		const char *sha;
	} known[] = {
#define CX_MC_MAZE(name, bytes, sha) {name, bytes, sha},
#include "serve/mc_maze.def"
#undef CX_MC_MAZE
	};
	cx_file_map *map;
	const char *found = NULL;
	char hex[65];
	if (cx_file_map_open(NULL, path, &map, NULL) != CX_OK) return NULL;
	for (size_t i = 0; !found && i < sizeof known / sizeof *known; i++) {
		if (map->size != known[i].bytes) continue;
		cx_sha256_hex(map->data, map->size, hex);
		if (!strcmp(hex, known[i].sha)) found = known[i].name;
	}
	cx_file_map_close(map);
	return found;
}

/* Trials with a train part in an NWB file? Anything that is no NWB file has none. */
static cx_status has_trials(const char *path, bool *yes, cx_err *err)
{
	size_t n = strlen(path);
	cx_recording r;
	cx_status st;
	*yes = false;
	if (n < 4 || strcmp(path + n - 4, ".nwb") != 0) return CX_OK;
	if ((st = cx_nwb_read(path, NULL, NULL, &r, err)) != CX_OK) return st;
	for (size_t i = 0; i < r.n_trials; i++)
		*yes = *yes || (r.n_samples > 0 && r.trials[i].split == CX_TRIAL_TRAIN &&
						   !isnan(r.trials[i].onset));
	cx_recording_deinit(&r);
	return CX_OK;
}

cx_status cx__decoder_table(const decoder_args *a, cx_err *err)
{
	cx_table t = {0};
	cx_table_form form = a->json ? CX_TABLE_JSON : a->markdown ? CX_TABLE_MARKDOWN : CX_TABLE_TEXT;
	bool trials = false,
		 first = !a->protocol || !strcmp(a->protocol, "continuous") || !strcmp(a->protocol, "all");
	bool rest = !a->protocol || strcmp(a->protocol, "continuous") != 0;
	char pair[2200];
	const char *path = a->data, *name;
	cx_status st;
	if (!path && a->spikes && a->kin &&
		snprintf(pair, sizeof pair, "%s,%s", a->spikes, a->kin) < (int)sizeof pair)
		path = pair;
	if (!path) return CX_FAIL(err, CX_ERR_ARGUMENT, "eval --table needs --data");
	name = official(path);
	if (name) fprintf(stderr, "%s is the official file of %s\n", cx_path_tail(path), name);
	if ((st = has_trials(path, &trials, err)) != CX_OK) return st;
	if (first && (st = continuous(a, path, &t, err)) != CX_OK) return st;
	if (first) cx__table_print(&t, form);
	if (!rest || (!trials && !a->protocol)) return CX_OK;
	memset(&t, 0, sizeof t);
	snprintf(t.title, sizeof t.title, "%.80s%s%.40s: trials, train to fit, val to score",
		base_name(path), name ? ", official " : "", name ? name : "");
	if ((st = cx__decoder_trials(a, path, &t, err)) == CX_OK) cx__table_print(&t, form);
	return st;
}
