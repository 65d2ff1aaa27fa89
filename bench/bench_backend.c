/* bench_backend.c - ops on one backend through the public interface: a graph of one op per row,
 * planned, run, timed.
 *
 * bench_backend [-b backend] [-r repeats] [-k substring of "op shape dtype"]
 * Default: opencl. Times are of whole runs, launch and wait in them; the row `launch` has 64 small
 * steps and gives the time of one. GB/s counts operands and results once. Weights are random bytes
 * that are finite in their format. */
#include "bench/ceil.h"
#include "graph/cx.h"
#include "graph/quant.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct row {
	const char *op;
	cx_dtype dtype; /* of the weight, or of all */
	int64_t m, n, k;
} row;

static const row rows[] = {
	{"matmul_nt", CX_F32, 512, 512, 512},
	{"matmul_nn", CX_F32, 512, 512, 512},
	{"matmul_nt", CX_F16, 512, 512, 512},
	{"matmul_nt", CX_BF16, 512, 512, 512},
	{"matmul_nt", CX_Q4_K, 512, 512, 512},
	{"matmul_nt", CX_F32, 1, 4096, 4096},
	{"matmul_nt", CX_F16, 1, 4096, 4096},
	{"matmul_nt", CX_BF16, 1, 4096, 4096},
	{"matmul_nt", CX_I8C, 1, 4096, 4096},
	{"matmul_nt", CX_Q8_0, 1, 4096, 4096},
	{"matmul_nt", CX_Q4_0, 1, 4096, 4096},
	{"matmul_nt", CX_Q5_1, 1, 4096, 4096},
	{"matmul_nt", CX_Q2_K, 1, 4096, 4096},
	{"matmul_nt", CX_Q4_K, 1, 4096, 4096},
	{"matmul_nt", CX_Q6_K, 1, 4096, 4096},
	{"matmul_nt", CX_IQ4_NL, 1, 4096, 4096},
	{"matmul_nt", CX_MXFP4, 1, 4096, 4096},
	{"add", CX_F32, 1024, 4096, 0},
	{"silu", CX_F32, 1024, 4096, 0},
	{"sum", CX_F32, 1024, 4096, 0},
	{"softmax", CX_F32, 1024, 4096, 0},
	{"rmsnorm", CX_F32, 1024, 4096, 0},
	{"transpose", CX_F32, 1024, 4096, 0},
	{"attention", CX_F32, 256, 256, 64},
	{"attention_grad", CX_F32, 256, 256, 64},
	{"matmul_tn", CX_F32, 1024, 256, 4096}, /* the gradient of a weight */
	{"launch", CX_F32, 64, 1, 0},
};

static uint64_t rng = 88172645463325252u;
static float noise(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (float)(int32_t)(rng >> 32) * 0x1p-31f;
}

static void die(const char *what, const cx_err *err)
{
	fprintf(stderr, "bench_backend: %s: %s\n", what, err->msg);
	exit(1);
}

/* Dense content of a tensor, aligned like a mapped file; the caller frees. */
static void *content(cx_dtype t, int64_t n, int64_t k, uint64_t *bytes)
{
	int64_t dim[2] = {n, k};
	float *x = malloc((size_t)(n * k) * sizeof *x);
	void *p = NULL;
	if (!x || !cx_dtype_bytes(t, 2, dim, bytes) ||
		posix_memalign(&p, 4096, (size_t)*bytes + 4) != 0)
		exit(1);
	for (int64_t i = 0; i < n * k; i++) x[i] = noise();
	if (t == CX_I8C) cx_quant_i8c(x, n, k, p);
	else cx_quant_row(t, x, p, n * k);
	free(x);
	return p;
}

static cx_tensor input(
	cx_graph *g, const char *name, cx_dtype t, int rank, int64_t a, int64_t b, int64_t c)
{
	return cx_input(g, name, t, rank, (int64_t[]){a, b, c});
}

static cx_tensor build(cx_graph *g, const row *r)
{
	cx_attr_matmul trans = {.trans_b = true};
	cx_dtype act = r->dtype == CX_F16 || r->dtype == CX_BF16 ? r->dtype : CX_F32;
	if (!strcmp(r->op, "matmul_nt"))
		return cx_matmul(g, input(g, "x", act, 2, r->m, r->k, 0),
			cx_weight(g, "w", r->dtype, 2, (int64_t[]){r->n, r->k}), &trans);
	if (!strcmp(r->op, "matmul_nn"))
		return cx_matmul(g, input(g, "x", act, 2, r->m, r->k, 0),
			cx_weight(g, "w", r->dtype, 2, (int64_t[]){r->k, r->n}), NULL);
	if (!strcmp(r->op, "attention")) {
		cx_tensor q = input(g, "x", r->dtype, 3, r->m, 8, r->k),
				  k = input(g, "y", r->dtype, 3, r->n, 8, r->k);
		cx_attr_attention at = {.causal = true};
		return cx_attention(g, q, k, input(g, "z", r->dtype, 3, r->n, 8, r->k), CX_NONE, CX_NONE,
			CX_NONE, CX_NONE, &at);
	}
	if (!strcmp(r->op, "attention_grad")) {
		cx_tensor q = input(g, "x", r->dtype, 3, r->m, 8, r->k),
				  k = input(g, "y", r->dtype, 3, r->n, 8, r->k);
		return cx_attention_grad(g, q, k, input(g, "z", r->dtype, 3, r->n, 8, r->k), q, q, CX_NONE,
			CX_NONE, CX_NONE, CX_NONE, NULL);
	}
	if (!strcmp(r->op, "matmul_tn"))
		return cx_matmul(g, input(g, "x", r->dtype, 2, r->k, r->m, 0),
			input(g, "y", r->dtype, 2, r->k, r->n, 0), &(cx_attr_matmul){.trans_a = true});
	cx_tensor x = input(g, "x", r->dtype, 2, r->m, r->n, 0), y;
	if (!strcmp(r->op, "add")) return cx_add(g, x, input(g, "y", r->dtype, 2, r->m, r->n, 0));
	if (!strcmp(r->op, "silu")) return cx_silu(g, x);
	if (!strcmp(r->op, "sum")) return cx_sum(g, x, &(cx_attr_reduce){.axes = cx_list_of(1, 1)});
	if (!strcmp(r->op, "softmax")) return cx_softmax(g, x, NULL);
	if (!strcmp(r->op, "rmsnorm"))
		return cx_rmsnorm(g, x, input(g, "y", r->dtype, 1, r->n, 0, 0), NULL);
	if (!strcmp(r->op, "transpose"))
		return cx_copy(g, cx_permute(g, x, &(cx_attr_perm){.perm = cx_list_of(2, 1, 0)}));
	y = x;
	for (int64_t i = 0; i < r->m; i++) y = cx_softmax(g, y, NULL);
	return y;
}

typedef struct bench {
	cx_runtime *rt;
	cx_device *dev;
	int repeats;
} bench;

static uint64_t set_all(const row *r, cx_graph *g, cx_exec *x)
{
	static const char *const names[] = {"x", "y", "z"};
	uint64_t total = 0;
	cx_err err = {0};
	(void)r;
	for (uint32_t id = 0; id < cx_graph_n_nodes(g); id++)
		for (int i = 0; i < 3; i++) {
			cx_tensor t = {id};
			cx_shape s = cx_tensor_shape(g, t);
			uint64_t bytes;
			void *p;
			if (strcmp(cx_tensor_name(g, t), names[i]) != 0) continue;
			p = content(cx_tensor_dtype(g, t), 1, cx_shape_elems(&s), &bytes);
			if (cx_exec_set_input(x, cx_exec_input(x, names[i]), p, bytes, &err) != CX_OK)
				die(r->op, &err);
			total += bytes;
			free(p);
		}
	return total;
}

static void time_row(const bench *b, const row *r)
{
	cx_graph *g = NULL;
	cx_plan *plan = NULL;
	cx_store *store = NULL;
	cx_exec *x = NULL;
	cx_err err = {0};
	cx_plan_opts opts = {.devices = &b->dev, .n_devices = 1, .no_fuse = true};
	double t[200], us, flops = 0, steps = 1;
	uint64_t bytes = 0, w_bytes = 0;
	bool nn = !strcmp(r->op, "matmul_nn"), product = nn || !strcmp(r->op, "matmul_nt");
	void *w = product ? content(r->dtype, nn ? r->k : r->n, nn ? r->n : r->k, &w_bytes) : NULL;
	cx_tensor y;
	if (cx_graph_create(NULL, &g, &err) != CX_OK) die(r->op, &err);
	y = build(g, r);
	cx_output(g, "out", y);
	if (cx_graph_finish(g, &err) != CX_OK || cx_plan_build(g, &opts, &plan, &err) != CX_OK ||
		cx_store_create(b->rt, &store, &err) != CX_OK ||
		(w && cx_store_weight(store, "w", r->dtype, 2,
				  nn ? (int64_t[]){r->k, r->n} : (int64_t[]){r->n, r->k}, w, w_bytes,
				  &err) != CX_OK) ||
		cx_exec_create(plan, store, &x, &err) != CX_OK)
		die(r->op, &err);
	bytes = set_all(r, g, x) + w_bytes;
	cx_shape s = cx_tensor_shape(g, y);
	bytes +=
		(uint64_t)cx_shape_elems(&s) * (uint64_t)cx_dtype_get(cx_tensor_dtype(g, y))->block_bytes;
	for (int i = -2; i < b->repeats; i++) {
		double t0 = cx__now_us();
		if (cx_exec_run(x, &err) != CX_OK) die(r->op, &err);
		if (i >= 0) t[i] = cx__now_us() - t0;
	}
	if (!strcmp(r->op, "launch")) steps = (double)r->m;
	if (product || !strcmp(r->op, "matmul_tn") || !strcmp(r->op, "attention_grad"))
		flops = 2.0 * (double)r->m * (double)r->n * (double)r->k;
	if (!strcmp(r->op, "attention_grad")) flops *= 5 * 8; /* products, heads */
	us = cx__quantile(t, b->repeats, 0.5);
	printf("%s\t%ldx%ldx%ld\t%s\t%.1f\t%.1f\t%.1f\t%.2f\t%.2f\n", r->op, (long)r->m, (long)r->n,
		(long)r->k, cx_dtype_get(r->dtype)->name, us / steps,
		cx__quantile(t, b->repeats, 0.1) / steps, cx__quantile(t, b->repeats, 0.9) / steps,
		(double)bytes / us * 1e-3, flops / us * 1e-3);
	fflush(stdout);
	cx_exec_free(x);
	cx_store_free(store);
	cx_plan_free(plan);
	cx_graph_free(g);
	free(w);
}

/* What the backend says of its driver, into the head of the table. */
static void on_log(void *ctx, cx_log_level level, const char *where, const char *msg)
{
	(void)ctx;
	(void)where;
	if (level == CX_LOG_INFO && strncmp(msg, "driver ", 7) == 0) printf("# driver: %s\n", msg + 7);
}

int main(int argc, char **argv)
{
	const char *backend = "opencl", *part = "";
	cx_config config = {.log = on_log};
	bench b = {.repeats = 15};
	cx_err err = {0};
	char name[96];
	int c;
	while ((c = getopt(argc, argv, "b:r:k:")) != -1) {
		if (c == 'b') backend = optarg;
		else if (c == 'k') part = optarg;
		else if (c == 'r') b.repeats = atoi(optarg);
		else return 2;
	}
	if (b.repeats < 1 || b.repeats > 200) {
		fprintf(stderr, "bench_backend: repeats are 1 to 200\n");
		return 2;
	}
	if (cx_runtime_create(&config, &b.rt, &err) != CX_OK) die("runtime", &err);
	if (cx_device_open(b.rt, backend, 0, &b.dev, &err) != CX_OK) {
		printf("# %s\n", err.msg); /* nothing to measure on this machine */
		cx_runtime_free(b.rt);
		return 0;
	}
	printf("# backend: %s\nop\tshape\tdtype\tmedian_us\tp10_us\tp90_us\tGB/s\tGFLOP/s\n",
		cx_device_name(b.dev));
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		const row *r = &rows[i];
		snprintf(name, sizeof name, "%s %ldx%ldx%ld %s", r->op, (long)r->m, (long)r->n, (long)r->k,
			cx_dtype_get(r->dtype)->name);
		if (strstr(name, part)) time_row(&b, r);
	}
	cx_device_close(b.dev);
	cx_runtime_free(b.rt);
	return 0;
}
