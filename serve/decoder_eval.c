/* decoder_eval.c - decodes the test part of a recording through a planned graph and reports how
 * well. */
#include "models/decoder/metrics.h"
#include "serve/cmd_decoder.h"
#include "serve/svg.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct report {
	size_t first, n;
	double *y;  /* [n, n_kin] decoded */
	double *us; /* [n] latency per window, sorted afterwards */
	double r2[8], bound[8], fit_seconds;
	cx_plan_stats plan;
} report;

static double now_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static cx_status decode(const cx_session *s, cx_linear_decoder *d, report *r, cx_err *err)
{
	for (size_t i = 0; i < r->n; i++) {
		double start = now_us();
		cx_status st = cx_linear_step(d, r->y + i * s->n_kin, err);
		if (st != CX_OK) return st;
		r->us[i] = now_us() - start;
		if (i % 64 == 63) cx__progress((void *)"decoding", (double)i / (double)r->n);
	}
	cx__progress((void *)"decoding", 1);
	return CX_OK;
}

static void print_json(
	const decoder_args *a, const cx_session *s, const report *r, const char *device)
{
	double mean = 0;
	printf("{\"method\": \"%s\", ", a->fit.method == CX_LINEAR_WIENER ? "wiener" : "kalman");
	if (a->fit.method == CX_LINEAR_WIENER)
		printf("\"history\": %zu, \"ridge\": %.9g, ", a->fit.history, a->fit.ridge);
	printf("\"device\": \"%s\", \"train_bins\": %zu, \"test_bins\": %zu, \"r2\": {", device,
		r->first, r->n);
	for (size_t c = 0; c < s->n_kin; c++) {
		printf("%s\"%s\": %.6f", c ? ", " : "", s->kin_name[c], r->r2[c]);
		mean += r->r2[c] / (double)s->n_kin;
	}
	printf("}, \"r2_mean\": %.6f, ", mean);
	if (s->bayes) {
		printf("\"bayes_r2\": {");
		for (size_t c = 0; c < s->n_kin; c++)
			printf("%s\"%s\": %.6f", c ? ", " : "", s->kin_name[c], r->bound[c]);
		printf("}, ");
	}
	printf(
		"\"latency_us\": {\"p50\": %.2f, \"p99\": %.2f}, \"plan\": {\"nodes\": %u, \"steps\": %u, "
		"\"slab_bytes\": %llu}}\n",
		r->us[r->n / 2], r->us[r->n * 99 / 100], r->plan.n_nodes, r->plan.n_steps,
		(unsigned long long)r->plan.slab_bytes);
}

static void print_text(
	const decoder_args *a, const cx_session *s, const report *r, const char *device)
{
	if (a->fit.method == CX_LINEAR_WIENER)
		printf("wiener decoder, history %zu, ridge %g", a->fit.history, a->fit.ridge);
	else printf("kalman decoder");
	printf(": fitted on %zu bins in %.2f s, decoded %zu on %s\n", r->first, r->fit_seconds, r->n,
		device);
	printf("%-8s %9s%s\n", "column", "R2", s->bayes ? "   Bayes-optimal   share" : "");
	for (size_t c = 0; c < s->n_kin; c++) {
		printf("%-8s %9.5f", s->kin_name[c], r->r2[c]);
		if (s->bayes) printf("   %13.5f   %4.0f %%", r->bound[c], 100 * r->r2[c] / r->bound[c]);
		printf("\n");
	}
	printf("plan: %u nodes in %u steps (%u fused away), slab %llu B (liveness bound %llu), weights "
		   "%llu B, "
		   "planned in %.2f ms\n",
		r->plan.n_nodes, r->plan.n_steps, r->plan.n_fused, (unsigned long long)r->plan.slab_bytes,
		(unsigned long long)r->plan.slab_bound, (unsigned long long)r->plan.weight_bytes,
		1e3 * r->plan.build_seconds);
	printf("latency per window: median %.1f us, 99th percentile %.1f us, worst %.1f us\n",
		r->us[r->n / 2], r->us[r->n * 99 / 100], r->us[r->n - 1]);
}

/* The velocity columns, or the last two: true, decoded, and the Bayes-optimal one where it is
 * known. */
static cx_status draw(const decoder_args *a, const cx_session *s, const report *r, cx_err *err)
{
	size_t n = r->n < 600 ? r->n : 600, c0 = s->n_kin >= 4 ? 2 : 0;
	size_t n_panels = s->n_kin - c0 < 2 ? s->n_kin - c0 : 2;
	const char *method = a->fit.method == CX_LINEAR_WIENER ? "Wiener" : "Kalman";
	bool seconds = s->bin_seconds > 0;
	cx_svg_panel panel[2];
	char title[2][64], path[1100], sub[160];
	cx_status st;
	memset(panel, 0, sizeof panel);
	for (size_t p = 0; p < n_panels; p++) {
		size_t c = c0 + p;
		snprintf(title[p], sizeof title[p], "%s, R2 %.4f", s->kin_name[c], r->r2[c]);
		panel[p].title = title[p];
		panel[p].unit = !strncmp(s->kin_name[c], "vel", 3) ? "m/s" : "as recorded";
		panel[p].line[0] =
			(cx_svg_line){"true", "#222222", s->kin + r->first * s->n_kin + c, s->n_kin};
		panel[p].line[1] = (cx_svg_line){"decoded", "#d62728", r->y + c, s->n_kin};
		panel[p].n_lines = 2;
		if (s->bayes)
			panel[p].line[panel[p].n_lines++] = (cx_svg_line){
				"Bayes-optimal", "#1f77b4", s->bayes + r->first * s->n_kin + c, s->n_kin};
	}
	snprintf(sub, sizeof sub,
		"%s decoder, %zu units; fitted on bins 0..%zu, shown: the first %zu bins after", method,
		s->n_units, r->first - 1, n);
	snprintf(path, sizeof path, "%s/decoded.svg", a->out);
	st = cx_svg_write(path, "Hand movement, true and decoded from spikes", sub,
		seconds ? "seconds" : "bins", panel, n_panels, n,
		(double)r->first * (seconds ? s->bin_seconds : 1), seconds ? s->bin_seconds : 1, err);
	if (st == CX_OK && !a->json) printf("picture: %s\n", path);
	return st;
}

static cx_status evaluate(const decoder_args *a, const cx_session *s, report *r, cx_host *host,
	bool with_picture, cx_err *err)
{
	cx_linear_opts fit = a->fit;
	cx_linear_decoder *d = NULL;
	double start = now_us();
	cx_status st;
	fit.n_train = r->first;
	cx__progress((void *)"fitting", 0);
	if ((st = cx_linear_open(s, &fit, host->rt, host->dev, &d, err)) != CX_OK) return st;
	r->fit_seconds = (now_us() - start) * 1e-6;
	cx__progress((void *)"fitting", 1);
	if ((st = decode(s, d, r, err)) == CX_OK) {
		cx_plan_get_stats(cx_linear_plan(d), &r->plan);
		cx_r2(s->kin + r->first * s->n_kin, r->y, r->n, s->n_kin, r->r2);
		if (s->bayes)
			cx_r2(s->kin + r->first * s->n_kin, s->bayes + r->first * s->n_kin, r->n, s->n_kin,
				r->bound);
		qsort(r->us, r->n, sizeof *r->us, by_value);
		if (a->json) print_json(a, s, r, cx_device_name(host->dev));
		else print_text(a, s, r, cx_device_name(host->dev));
		if (with_picture) st = draw(a, s, r, err);
	}
	cx_linear_close(d);
	return st;
}

cx_status cx__decoder_eval(
	const decoder_args *a, const cx_session *s, bool with_picture, cx_err *err)
{
	report r = {.first = cx_session_split(s, a->fraction)};
	cx_host host = {0};
	cx_status st;
	r.n = s->n_bins - r.first;
	if (r.first < 2 || r.n < 1)
		return CX_FAIL(err, CX_ERR_ARGUMENT,
			"%zu bins are too few to fit on %g of them and test on the rest", s->n_bins,
			a->fraction);
	r.y = calloc(r.n * s->n_kin, sizeof *r.y);
	r.us = calloc(r.n, sizeof *r.us);
	if (!r.y || !r.us) st = CX_FAIL(err, CX_ERR_MEMORY, "out of memory");
	else if ((st = cx__host_open(a->backend, &host, err)) == CX_OK)
		st = evaluate(a, s, &r, &host, with_picture, err);
	cx__host_close(&host);
	free(r.y);
	free(r.us);
	return st;
}
