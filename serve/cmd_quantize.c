/* cmd_quantize.c - `cortex quantize`: a Cortex decoder to int8, calibrated on a recording, and what
 * that did to it. */
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "models/files/map.h"
#include "serve/cmd_decoder.h"
#include "serve/quantize_data.h"

static const char usage[] =
	"usage: cortex quantize --model FILE --data PATH|--simulate|--uniform --out FILE [OPTIONS]\n"
	"\n"
	"Makes the linears of a Cortex decoder int8: weights by output channel, activations by layer, "
	"in\n"
	"steps from the windows of a recording; products are sums of integers. Prints each layer, the\n"
	"memory before and after, and what int8 does to the output.\n"
	"\n"
	"  --model FILE       a checkpoint, or xs|s|m|nano: that size with its first values\n"
	"  --data PATH        FILE.nwb, FILE.mat, SPIKES.npy,KINEMATICS.npy, or a folder of them\n"
	"  --simulate         a simulated session, the one that FILE was trained on if it was\n"
	"  --uniform          random events, all as likely; there is no R2 then\n"
	"  --out FILE         safetensors; every command that takes a decoder takes it\n"
	"  --method M         how far activations count: percentile (the 99th of the batches' "
	"largest),\n"
	"                     entropy (least divergence), search (least error of the product), none\n"
	"                     (products of floats); default auto: measured, the best one for each\n"
	"                     layer, then for the output\n"
	"  --batches N        to calibrate on; default 50\n"
	"  --eval-batches N   to measure the output on, of the test part; default 100, at most what "
	"there\n"
	"                     is\n"
	"  --batch N          windows of a batch; default 8\n"
	"  --events N         events of a uniform window; default 512\n"
	"  --bin S --window N seconds of a bin, bins of a window; default: as trained, else 0.05 and "
	"20\n"
	"  --seed N           of what is drawn; default 1\n"
	"  --backend B        cpu, ref, ...; default: the best there is\n"
	"  --json             one JSON object on stdout\n";

typedef struct args {
	const char *model, *out, *backend;
	cx_windows_args w;
	cx_quantize_method method;
	bool json;
} args;

typedef struct quantize {
	const args *a;
	cx_cortex *m;
	cx_host host;
	cx_windows windows;
	cx_quantize_report r;
	double r2[2][CX_MAX_BEHAVIOR], mean[2]; /* f32, int8 */
	unsigned long long file_bytes;
} quantize;

/* ---- options ---- */

static bool whole(const char *option, const char *text, long lo, long hi, long *out)
{
	char *end;
	errno = 0;
	*out = strtol(text, &end, 10);
	if (end != text && !*end && errno == 0 && *out >= lo && *out <= hi) return true;
	cx__cmd_usage(
		"quantize", "--%s '%.40s' is not a whole number in %ld..%ld", option, text, lo, hi);
	return false;
}

static bool seconds(const char *text, double *out)
{
	char *end;
	*out = strtod(text, &end);
	if (end != text && !*end && *out >= 1e-4 && *out <= 10) return true;
	cx__cmd_usage("quantize", "--bin '%.40s' is not a number in 0.0001..10", text);
	return false;
}

static bool set_option(args *a, int opt)
{
	switch (opt) {
	case 'm':
		a->model = optarg;
		return true;
	case 'd':
		a->w.path = optarg;
		return true;
	case 'S':
		a->w.simulate = true;
		return true;
	case 'u':
		a->w.uniform = true;
		return true;
	case 'o':
		a->out = optarg;
		return true;
	case 'M':
		if (cx_quantize_method_parse(optarg, &a->method)) return true;
		cx__cmd_usage("quantize",
			"there is no method '%.40s' (auto, percentile, entropy, search, none)", optarg);
		return false;
	case 'n':
		return whole("batches", optarg, 1, CX_CALIB_MAX_BATCHES, &a->w.n_calib);
	case 'e':
		return whole("eval-batches", optarg, 1, 1000000, &a->w.n_eval);
	case 'b':
		return whole("batch", optarg, 1, 1024, &a->w.batch);
	case 'E':
		return whole("events", optarg, 0, 65536, &a->w.events);
	case 'w':
		return whole("window", optarg, 1, 1024, &a->w.window);
	case 's':
		return whole("seed", optarg, 0, 0x7fffffff, &a->w.seed);
	case 't':
		return seconds(optarg, &a->w.bin);
	case 'B':
		a->backend = optarg;
		return true;
	case 'j':
		a->json = true;
		return true;
	default:
		return false;
	}
}

static const struct option long_options[] = {{"model", required_argument, NULL, 'm'},
	{"data", required_argument, NULL, 'd'}, {"simulate", no_argument, NULL, 'S'},
	{"uniform", no_argument, NULL, 'u'}, {"out", required_argument, NULL, 'o'},
	{"method", required_argument, NULL, 'M'}, {"batches", required_argument, NULL, 'n'},
	{"eval-batches", required_argument, NULL, 'e'}, {"batch", required_argument, NULL, 'b'},
	{"events", required_argument, NULL, 'E'}, {"window", required_argument, NULL, 'w'},
	{"seed", required_argument, NULL, 's'}, {"bin", required_argument, NULL, 't'},
	{"backend", required_argument, NULL, 'B'}, {"json", no_argument, NULL, 'j'},
	{"help", no_argument, NULL, 'h'}, {0}};

/* ---- printing ---- */

static void print_layers(const quantize *q)
{
	const cx_quantize_report *r = &q->r;
	printf("%-42s %7s %9s %9s %9s %9s %-10s %9s %9s %9s %8s %8s %8s %8s\n", "layer", "batches",
		"abs max", "p99", "entropy", "search", "chosen", "step", "w step <", "w step >", "err p99",
		"err ent", "err sea", "weights");
	for (size_t i = 0; i < r->n_layers; i++) {
		const cx_quantize_layer *l = &r->layer[i];
		printf("%-42s %7u %9.4g %9.4g %9.4g %9.4g %-10s %9.3g %9.3g %9.3g %7.3f%% %7.3f%% %7.3f%% "
			   "%7.3f%%\n",
			l->name, l->n_batches, (double)l->abs_max, (double)l->cut[CX_QUANTIZE_PERCENTILE],
			(double)l->cut[CX_QUANTIZE_ENTROPY], (double)l->cut[CX_QUANTIZE_SEARCH],
			cx_quantize_method_name(l->chosen), (double)l->act_scale, (double)l->weight_scale_min,
			(double)l->weight_scale_max, 100 * l->error[CX_QUANTIZE_PERCENTILE],
			100 * l->error[CX_QUANTIZE_ENTROPY], 100 * l->error[CX_QUANTIZE_SEARCH],
			100 * l->error[CX_QUANTIZE_NONE]);
	}
	printf("errors: of the layer's product, int8 - f32 over f32, root mean square; weights: with "
		   "activations left as they are\n");
}

static void print_text(const quantize *q)
{
	static const char *const sets[] = {
		"weights only", "percentile", "entropy", "search", "best per layer"};
	const cx_quantize_report *r = &q->r;
	const cx_windows *w = &q->windows;
	const char *column = "";
	print_layers(q);
	printf("\n%zu of %zu linears are int8; %llu bytes of tensors before (f32), %llu after "
		   "(%.1f %% less); file %llu bytes\n",
		r->n_layers, r->n_linears, (unsigned long long)r->bytes_before,
		(unsigned long long)r->bytes_after,
		100 - 100 * (double)r->bytes_after / (double)r->bytes_before, q->file_bytes);
	printf("\noutput of %u windows, |int8 - f32|, z-scored   %10s %10s\n",
		w->data.n_eval * w->data.n_windows, "largest", "mean");
	for (int k = 0; k < CX_QUANTIZE_N_METHODS; k++)
		if (r->tried[k])
			printf("  %-40s    %10.6f %10.6f%s\n", sets[k], r->max_diff[k], r->mean_diff[k],
				k == (int)r->chosen ? "  <- kept" : "");
	if (w->set) {
		const cx_dataset_info *info = cx_dataset_get_info(w->set);
		printf("\n%-12s %10s %10s %10s\n", "R2", "f32", "int8", "loss");
		for (uint32_t c = 0; c < info->behavior_dim; c++) {
			column = info->name[c];
			printf("%-12s %10.6f %10.6f %10.6f\n", column, q->r2[0][c], q->r2[1][c],
				q->r2[0][c] - q->r2[1][c]);
		}
		printf("%-12s %10.6f %10.6f %10.6f\n", "mean", q->mean[0], q->mean[1],
			q->mean[0] - q->mean[1]);
	}
	printf("wrote %s\n", q->a->out);
}

static void print_json(const quantize *q)
{
	const cx_quantize_report *r = &q->r;
	printf("{\"layers\": [");
	for (size_t i = 0; i < r->n_layers; i++) {
		const cx_quantize_layer *l = &r->layer[i];
		printf("%s\n {\"layer\": \"%s\", \"calib_batches\": %u, \"act_abs_max\": %.9g, "
			   "\"act_abs_max_p99\": %.9g, \"act_entropy\": %.9g, \"act_search\": %.9g, "
			   "\"chosen\": \"%s\", \"act_scale\": "
			   "%.9g, \"weight_scale_min\": %.9g, \"weight_scale_max\": %.9g, "
			   "\"error_percentile\": %.9g, \"error_entropy\": %.9g, \"error_search\": %.9g, "
			   "\"error_weights\": %.9g}",
			i ? "," : "", l->name, l->n_batches, (double)l->abs_max,
			(double)l->cut[CX_QUANTIZE_PERCENTILE], (double)l->cut[CX_QUANTIZE_ENTROPY],
			(double)l->cut[CX_QUANTIZE_SEARCH], cx_quantize_method_name(l->chosen),
			(double)l->act_scale, (double)l->weight_scale_min, (double)l->weight_scale_max,
			l->error[CX_QUANTIZE_PERCENTILE], l->error[CX_QUANTIZE_ENTROPY],
			l->error[CX_QUANTIZE_SEARCH], l->error[CX_QUANTIZE_NONE]);
	}
	printf("], \"n_layers\": %zu, \"n_linears\": %zu, \"bytes_before\": %llu, \"bytes_after\": "
		   "%llu, \"file_bytes\": %llu, \"windows\": %u, \"chosen\": \"%s\", \"output\": {",
		r->n_layers, r->n_linears, (unsigned long long)r->bytes_before,
		(unsigned long long)r->bytes_after, q->file_bytes,
		q->windows.data.n_eval * q->windows.data.n_windows, cx_quantize_method_name(r->chosen));
	for (int k = 0, first = 1; k < CX_QUANTIZE_N_METHODS; k++) {
		if (!r->tried[k]) continue;
		printf("%s\"%s\": {\"max_diff\": %.9g, \"mean_diff\": %.9g}", first ? "" : ", ",
			cx_quantize_method_name((cx_quantize_method)k), r->max_diff[k], r->mean_diff[k]);
		first = 0;
	}
	printf("}");
	if (q->windows.set)
		printf(", \"r2_f32\": %.6f, \"r2_int8\": %.6f, \"r2_loss\": %.6f", q->mean[0], q->mean[1],
			q->mean[0] - q->mean[1]);
	printf("}\n");
}

/* ---- the work ---- */

/* "f32" and the like; a bar where a person watches. */
static void show(void *ctx, const char *what, double done)
{
	(void)ctx;
	cx__progress((void *)(uintptr_t)what, done);
}

static cx_status open_model(quantize *q, cx_err *err)
{
	const args *a = q->a;
	cx_cortex_size size;
	cx_cortex_config c;
	if (!cx_cortex_size_parse(a->model, &size)) return cx_cortex_open(a->model, NULL, &q->m, err);
	c = cx_cortex_config_size(size);
	return cx_cortex_create(&c, (uint64_t)a->w.seed, NULL, &q->m, err);
}

/* What the file said of its training goes on into the new one. */
static cx_status write_file(quantize *q, cx_err *err)
{
	static const char *const keep[] = {"config", "z_mean", "z_sd", "n_units", "columns"};
	cx_safetensors_meta_pair meta[sizeof keep / sizeof *keep + 4];
	char batches[16];
	struct stat info;
	size_t n = 0;
	cx_status st;
	snprintf(batches, sizeof batches, "%u", q->windows.data.n_calib);
	meta[n++] = (cx_safetensors_meta_pair){"quantization",
		q->r.chosen == CX_QUANTIZE_NONE ? "int8_per_channel_weight"
										: "int8_per_channel_weight_per_tensor_activation"};
	meta[n++] = (cx_safetensors_meta_pair){"calib_method", cx_quantize_method_name(q->r.chosen)};
	meta[n++] = (cx_safetensors_meta_pair){"calib_batches", batches};
	meta[n++] = (cx_safetensors_meta_pair){"data_source", q->a->w.uniform    ? "uniform"
														  : q->a->w.simulate ? "simulated"
																			 : "recording"};
	for (size_t i = 0; i < sizeof keep / sizeof *keep; i++) {
		const char *v = cx_cortex_get_meta(q->m, keep[i]);
		if (v) meta[n++] = (cx_safetensors_meta_pair){keep[i], v};
	}
	if ((st = cx_cortex_save(q->m, q->a->out, meta, n, err)) != CX_OK) return st;
	if (stat(q->a->out, &info) != 0)
		return CX_FAIL(err, CX_ERR_IO, "%s: %s", cx_path_tail(q->a->out), strerror(errno));
	q->file_bytes = (unsigned long long)info.st_size;
	return CX_OK;
}

static cx_status run(quantize *q, cx_err *err)
{
	const args *a = q->a;
	cx_quantize_opts o = {.method = a->method, .progress = show};
	cx_cortex_size size;
	bool named = cx_cortex_size_parse(a->model, &size);
	cx_status st;
	if ((st = open_model(q, err)) != CX_OK ||
		(st = cx__windows_open(&a->w, named ? NULL : a->model, q->m, &q->windows, err)) != CX_OK ||
		(st = cx__host_open(a->backend, &q->host, err)) != CX_OK)
		return st;
	st = cx_cortex_quantize(q->m, q->host.rt, q->host.dev, &o, &q->windows.data, &q->r, err);
	if (st != CX_OK) return cx__host_advise(&q->host, st, err);
	for (int k = 0; k < 2 && q->windows.set; k++) {
		q->mean[k] = cx__windows_score(&q->windows, k ? q->r.int8 : q->r.f32, q->r2[k], err);
		if (isnan(q->mean[k]) && err->code != CX_OK) return err->code;
	}
	return write_file(q, err);
}

int cx__cmd_quantize(int argc, char **argv)
{
	args a = {.method = CX_QUANTIZE_AUTO,
		.w = {.events = 512, .seed = 1, .batch = 8, .n_calib = 50, .n_eval = 100}};
	quantize q = {.a = &a};
	cx_err err = {0};
	cx_status st;
	int opt;
	while ((opt = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		if (opt == 'h') return fputs(usage, stdout) < 0;
		if (opt == '?' || !set_option(&a, opt)) return 1;
	}
	if (optind < argc) return cx__cmd_usage("quantize", "'%.60s' is no option", argv[optind]);
	if (!a.model) return cx__cmd_usage("quantize", "--model is wanted: xs, s, m, nano, or a file");
	if (!a.out) return cx__cmd_usage("quantize", "--out FILE is wanted");
	st = run(&q, &err);
	if (st == CX_OK && a.json) print_json(&q);
	else if (st == CX_OK) print_text(&q);
	cx_quantize_report_deinit(&q.r);
	cx__windows_close(&q.windows);
	cx_cortex_close(q.m);
	cx__host_close(&q.host);
	return st == CX_OK ? 0 : cx__cmd_fail("quantize", &err);
}
