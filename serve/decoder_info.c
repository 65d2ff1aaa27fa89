/* decoder_info.c - `cortex decoder info`: what a Cortex decoder is: configuration, tensors,
 * parameter count, work per window; and its served graph or its weights as a file. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/decoder/checkpoint.h"
#include "models/files/out.h"
#include "serve/cmd_decoder.h"

static const char usage[] =
	"usage: cortex decoder info --model xs|s|m|nano|FILE [OPTIONS]\n"
	"\n"
	"Prints the configuration, every tensor, the parameter count, and the work of one window.\n"
	"FILE is a checkpoint (safetensors, PyTorch .pt, a distributed checkpoint's folder; nothing "
	"in\n"
	"it is executed) or a configuration file that ends in .conf.\n"
	"\n"
	"  --events N      events per window; default 512\n"
	"  --config        print the [model] section of a configuration file instead, every key with "
	"its default\n"
	"  --json          one JSON object on stdout\n"
	"  --graph F.cxg   write the graph that is served, in text form: for cortex plan, dump, "
	"profile, diff\n"
	"  --batch N       windows of that graph; default 1\n"
	"  --export F.safetensors   write the weights (of a size: first values for --seed)\n"
	"  --seed S        default 1\n";

enum {
	OPT_MODEL = 256,
	OPT_EVENTS,
	OPT_CONFIG,
	OPT_JSON,
	OPT_GRAPH,
	OPT_BATCH,
	OPT_EXPORT,
	OPT_SEED
};

static const struct option long_options[] = {{"model", required_argument, NULL, OPT_MODEL},
	{"events", required_argument, NULL, OPT_EVENTS}, {"config", no_argument, NULL, OPT_CONFIG},
	{"json", no_argument, NULL, OPT_JSON}, {"graph", required_argument, NULL, OPT_GRAPH},
	{"batch", required_argument, NULL, OPT_BATCH}, {"export", required_argument, NULL, OPT_EXPORT},
	{"seed", required_argument, NULL, OPT_SEED}, {"help", no_argument, NULL, 'h'}, {0}};

typedef struct info {
	const char *name, *graph, *export;
	long events, batch, seed;
	bool config, json;
	cx_cortex_config c;
	cx_cortex *m; /* of a checkpoint, else NULL */
} info;

/* ---- what is asked for ---- */

static bool whole(const char *option, const char *text, long lo, long hi, long *out)
{
	char *end;
	*out = strtol(text, &end, 10);
	if (end != text && !*end && *out >= lo && *out <= hi) return true;
	cx__cmd_usage(
		"decoder", "--%s '%.40s' is not a whole number in %ld..%ld", option, text, lo, hi);
	return false;
}

static bool set_option(info *i, int opt)
{
	switch (opt) {
	case OPT_MODEL:
		i->name = optarg;
		return true;
	case OPT_GRAPH:
		i->graph = optarg;
		return true;
	case OPT_EXPORT:
		i->export = optarg;
		return true;
	case OPT_CONFIG:
		i->config = true;
		return true;
	case OPT_JSON:
		i->json = true;
		return true;
	case OPT_EVENTS:
		return whole("events", optarg, 0, 1 << 24, &i->events);
	case OPT_BATCH:
		return whole("batch", optarg, 1, 4096, &i->batch);
	case OPT_SEED:
		return whole("seed", optarg, 0, 0x7fffffffffffffffL, &i->seed);
	default:
		return false;
	}
}

static bool ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), k = strlen(end);
	return n >= k && strcmp(s + n - k, end) == 0;
}

static cx_status open_model(info *i, cx_err *err)
{
	cx_cortex_size size;
	cx_status st;
	if (cx_cortex_size_parse(i->name, &size)) {
		i->c = cx_cortex_config_size(size);
		return CX_OK;
	}
	if (ends_with(i->name, ".conf")) return cx_cortex_config_read(NULL, i->name, &i->c, err);
	if ((st = cx_cortex_open(i->name, NULL, &i->m, err)) == CX_OK)
		i->c = *cx_cortex_get_config(i->m);
	return st;
}

/* ---- printing ---- */

/* 4828936 as "4,828,936". Four results live at once. */
static const char *grouped(uint64_t v)
{
	static char buf[4][32];
	static int at;
	char *out = buf[at++ % 4], digits[24];
	int n = snprintf(digits, sizeof digits, "%llu", (unsigned long long)v), k = 0;
	for (int d = 0; d < n; d++) {
		if (d && (n - d) % 3 == 0) out[k++] = ',';
		out[k++] = digits[d];
	}
	out[k] = 0;
	return out;
}

static cx_dtype dtype_of(const info *i, size_t index, uint64_t *bytes)
{
	size_t n;
	const cx_cortex_weight *w = i->m ? cx_cortex_get_weights(i->m, &n) + index : NULL;
	cx_cortex_param p;
	cx_cortex_param_get(&i->c, index, &p);
	*bytes = w ? w->bytes : 4 * cx_cortex_param_elems(&p);
	return w ? w->dtype : CX_F32;
}

typedef struct row {
	const char *name;
	long long value;
} row;
enum { N_ROWS = 11 };

static void config_rows(const cx_cortex_config *c, row out[N_ROWS])
{
	const row rows[N_ROWS] = {{"hidden_dim", c->hidden_dim}, {"num_layers", c->num_layers},
		{"num_heads", c->num_heads}, {"head_dim", c->head_dim}, {"num_latents", c->num_latents},
		{"latent_dim", c->latent_dim}, {"cross_attn_heads", c->cross_attn_heads},
		{"max_neurons", c->max_neurons}, {"max_time_bins", c->max_time_bins},
		{"spike_value_buckets", c->spike_value_buckets}, {"behavior_dim", c->behavior_dim}};
	memcpy(out, rows, sizeof rows);
}

static void print_work(const info *i)
{
	cx_cortex_flops f = cx_cortex_count_flops(&i->c, i->events);
	printf("\nwork of a window of %ld events, GFLOP (two per multiplication)\n", i->events);
	printf("  cross-attention: queries          %9.4f  folded: computed once, not served\n",
		f.cross_q / 1e9);
	printf("  cross-attention: keys and values  %9.4f\n", f.cross_kv / 1e9);
	printf("  cross-attention: core             %9.4f\n", f.cross_core / 1e9);
	printf("  cross-attention: out              %9.4f\n", f.cross_out / 1e9);
	printf("  self-attention blocks: linears    %9.4f\n", f.self_linear / 1e9);
	printf("  self-attention blocks: cores      %9.4f\n", f.self_core / 1e9);
	printf("  behaviour head                    %9.4f\n", f.behavior / 1e9);
	printf("  total                             %9.4f\n", f.total / 1e9);
}

static void print_text(const info *i)
{
	row rows[N_ROWS];
	uint64_t total = 0, bytes;
	size_t n = cx_cortex_n_params(&i->c);
	const char *size = cx_cortex_config_name(&i->c);
	printf("Cortex decoder, size %s", size);
	if (i->m) printf(", from a %s checkpoint", cx_cortex_container(i->m));
	config_rows(&i->c, rows);
	printf("\n\nconfiguration\n");
	for (int k = 0; k < N_ROWS; k++) printf("  %-22s %lld\n", rows[k].name, rows[k].value);
	printf("  %-22s %g (hidden width %lld)\n", "mlp_ratio", i->c.mlp_ratio,
		(long long)cx_cortex_mlp_hidden(&i->c));
	printf("  %-22s %g\n", "dropout", i->c.dropout);
	printf("  %-22s %s\n", "use_masked_spike_head", i->c.use_masked_spike_head ? "true" : "false");
	printf("  %-22s %s\n", "norm", i->c.norm == CX_CORTEX_RMSNORM ? "rmsnorm" : "layernorm");
	printf("\n%-52s %-14s %-5s %11s %12s\n", "tensor", "shape", "type", "parameters", "bytes");
	for (size_t k = 0; k < n; k++) {
		cx_cortex_param p;
		char dims[48];
		cx_dtype t = dtype_of(i, k, &bytes);
		cx_cortex_param_get(&i->c, k, &p);
		total += bytes;
		printf("%-52s %-14s %-5s %11s %12s\n", p.name,
			cx_dims_text(p.rank, p.dim, dims, sizeof dims), cx_dtype_get(t)->name,
			grouped(cx_cortex_param_elems(&p)), grouped(bytes));
	}
	printf("%zu tensors, %s parameters, %s bytes\n", n, grouped(cx_cortex_n_elems(&i->c)),
		grouped(total));
	print_work(i);
}

static void print_json(const info *i)
{
	row rows[N_ROWS];
	cx_cortex_flops f = cx_cortex_count_flops(&i->c, i->events);
	uint64_t total = 0, bytes;
	size_t n = cx_cortex_n_params(&i->c);
	config_rows(&i->c, rows);
	printf("{\"size\": \"%s\", \"config\": {", cx_cortex_config_name(&i->c));
	for (int k = 0; k < N_ROWS; k++) printf("\"%s\": %lld, ", rows[k].name, rows[k].value);
	printf("\"mlp_ratio\": %.17g, \"dropout\": %.17g, \"use_masked_spike_head\": %s, \"norm\": "
		   "\"%s\"}, \"tensors\": [",
		i->c.mlp_ratio, i->c.dropout, i->c.use_masked_spike_head ? "true" : "false",
		i->c.norm == CX_CORTEX_RMSNORM ? "rmsnorm" : "layernorm");
	for (size_t k = 0; k < n; k++) {
		cx_cortex_param p;
		char dims[48];
		cx_dtype t = dtype_of(i, k, &bytes);
		cx_cortex_param_get(&i->c, k, &p);
		total += bytes;
		printf("%s{\"name\": \"%s\", \"shape\": %s, \"dtype\": \"%s\", \"bytes\": %llu}",
			k ? ", " : "", p.name, cx_dims_text(p.rank, p.dim, dims, sizeof dims),
			cx_dtype_get(t)->name, (unsigned long long)bytes);
	}
	printf("], \"n_tensors\": %zu, \"n_parameters\": %llu, \"bytes\": %llu, \"events\": %ld, "
		   "\"flop_per_window\": %.0f}\n",
		n, (unsigned long long)cx_cortex_n_elems(&i->c), (unsigned long long)total, i->events,
		f.total);
}

/* ---- files ---- */

static cx_status print_config(const info *i, cx_err *err)
{
	cx_cortex_conf conf = {.given = i->c, .norm = (int)i->c.norm};
	cx_conf_section s = cx_cortex_conf_section(&conf);
	cx_cortex_size size;
	char *text;
	size_t n;
	cx_status st;
	if (cx_cortex_size_parse(cx_cortex_config_name(&i->c), &size)) conf.size = (int)size;
	if ((st = cx_conf_print(&s, 1, NULL, &text, &n, err)) != CX_OK) return st;
	fputs(text, stdout);
	cx_free(NULL, text, n + 1);
	return CX_OK;
}

static cx_status write_text(const char *path, const char *text, size_t n, cx_err *err)
{
	cx_file_out *o;
	cx_status st = cx_file_out_open(NULL, path, &o, err);
	if (st != CX_OK) return st;
	if ((st = cx_file_out_write(o, text, n, err)) == CX_OK) return cx_file_out_commit(o, err);
	cx_file_out_discard(o);
	return st;
}

static cx_status write_graph(const info *i, cx_err *err)
{
	cx_cortex_bucket b = {.n_windows = i->batch, .n_events = i->batch * i->events};
	cx_cortex_source src = i->m ? cx_cortex_get_source(i->m) : cx_cortex_weights();
	cx_cortex_graph m;
	cx_graph *g;
	char *text = NULL;
	size_t n = 0;
	cx_status st = cx_graph_create(NULL, &g, err);
	if (st != CX_OK) return st;
	src.folded = true; /* as it is served */
	cx_cortex_build(&i->c, &src, &b, g, &m, NULL);
	cx_output(g, "behavior", m.behavior);
	if ((st = cx_graph_finish(g, err)) == CX_OK &&
		(st = cx_graph_print(g, NULL, &text, &n, err)) == CX_OK)
		st = write_text(i->graph, text, n, err);
	if (st == CX_OK)
		printf("wrote %s: %u nodes, %ld windows, %lld events\n", i->graph, cx_graph_n_nodes(g),
			i->batch, (long long)b.n_events);
	cx_free(NULL, text, n + 1);
	cx_graph_free(g);
	return st;
}

static cx_status write_weights(info *i, cx_err *err)
{
	cx_status st = CX_OK;
	if (!i->m) st = cx_cortex_create(&i->c, (uint64_t)i->seed, NULL, &i->m, err);
	if (st == CX_OK) st = cx_cortex_save(i->m, i->export, NULL, 0, err);
	if (st == CX_OK)
		printf("wrote %s: %s bytes of weights\n", i->export, grouped(cx_cortex_n_bytes(i->m)));
	return st;
}

int cx__decoder_info(int argc, char **argv)
{
	info i = {.events = 512, .batch = 1, .seed = 1};
	cx_err err = {0};
	cx_status st;
	int opt;
	optind = 1;
	while ((opt = getopt_long(argc, argv, "h", long_options, NULL)) != -1) {
		if (opt == 'h') return fputs(usage, stdout) < 0;
		if (opt == '?' || !set_option(&i, opt)) return 1;
	}
	if (optind < argc) return cx__cmd_usage("decoder", "'%.60s' is no option", argv[optind]);
	if (!i.name) return cx__cmd_usage("decoder", "info needs --model: xs, s, m, nano, or a file");
	if ((st = open_model(&i, &err)) == CX_OK) {
		if (i.graph) st = write_graph(&i, &err);
		if (i.export && st == CX_OK) st = write_weights(&i, &err);
		if (st == CX_OK && i.config) st = print_config(&i, &err);
		else if (st == CX_OK && i.json) print_json(&i);
		else if (st == CX_OK && !i.graph && !i.export) print_text(&i);
	}
	cx_cortex_close(i.m);
	return st == CX_OK ? 0 : cx__cmd_fail("decoder", &err);
}
