/* test_cpu.c - kernels of the cpu backend at sizes at which vectors, tiles and blocks are full,
 * against the reference: on every instruction set that this machine runs, with 1, 2 and 3 threads;
 * all of them must give the same bits. In place where the kernel says so. tests/test_grid.c: every
 * op x dtype x layout; tests/test_cpu_rows.c: rows alone against together. */
#include "tests/cpu_run.h"
#include "tests/rng.h"

#include "backends/cpu/cpu.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N_ISA = 3, N_THREADS = 3 };
static const char *const isa_names[N_ISA] = {"generic", "avx2", "avx512"};
static cx_runtime *runtimes[N_ISA][N_THREADS];
static cx_device *devices[N_ISA][N_THREADS]; /* NULL: not on this machine */

static int n_failed, n_passed;
static int n_messages;

static int open_devices(void **state)
{
	(void)state;
	for (int i = 0; i < N_ISA; i++)
		for (int t = 0; t < N_THREADS; t++) {
			cx_config cfg = {.isa = isa_names[i], .n_threads = t + 1};
			cx_err err = {0};
			if (cx_runtime_create(&cfg, &runtimes[i][t], &err) != CX_OK) return -1;
			if (cx_device_open(runtimes[i][t], "cpu", 0, &devices[i][t], &err) != CX_OK) continue;
			((cx_cpu_device *)devices[i][t])->share_ns = 0; /* share even the smallest step */
		}
	return devices[0][0] ? 0 : -1;
}

static int close_devices(void **state)
{
	(void)state;
	for (int i = 0; i < N_ISA; i++)
		for (int t = 0; t < N_THREADS; t++) {
			cx_device_close(devices[i][t]);
			cx_runtime_free(runtimes[i][t]);
		}
	return 0;
}

static void report(cx_op op, int isa, int threads, const char *what, const char *fmt, ...)
	CX_PRINTF(5, 6);
static void report(cx_op op, int isa, int threads, const char *what, const char *fmt, ...)
{
	va_list ap;
	n_failed++;
	if (n_messages++ >= 40) return;
	printf("FAIL %s on %s, %d threads, %s: ", cx__ops[op].name, isa_names[isa], threads, what);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
}

static double tolerance(cx_op op, cx_dtype t)
{
	cx_tol tol = cx__ops[op].tol;
	return t == CX_F16 ? tol.f16 : t == CX_BF16 ? tol.bf16 : tol.f32;
}

/* Outputs of r against the reference; what the case is called goes into messages. */
static bool near_reference(
	const step_values *v, uint32_t id, const step_result *r, int isa, int threads, const char *what)
{
	const cx_node *n = &v->g->nodes[id];
	for (uint32_t o = 0; o < r->n_out; o++) {
		const cx_desc *d = &v->g->nodes[id + o].desc;
		double e = step_nmse(d->dtype, v->value[id + o], r->out[o], cx__desc_elems(d));
		if (e <= tolerance((cx_op)n->op, d->dtype)) continue;
		report((cx_op)n->op, isa, threads, what, "%s, output %u: nmse %g", r->kernel->name, o, e);
		return false;
	}
	return true;
}

static bool same_bits(const step_values *v, uint32_t id, const step_result *a, const step_result *b,
	int isa, int threads, const char *what)
{
	int64_t at = 0;
	for (uint32_t o = 0; o < a->n_out; o++) {
		const cx_desc *d = &v->g->nodes[id + o].desc;
		if (step_same(d->dtype, a->out[o], b->out[o], cx__desc_elems(d), &at)) continue;
		report((cx_op)v->g->nodes[id].op, isa, threads, what,
			"output %u differs in element %lld from generic, 1 thread", o, (long long)at);
		return false;
	}
	return true;
}

/* One node on every device. */
static void check_node(const step_values *v, uint32_t id, const char *what)
{
	cx_op op = (cx_op)v->g->nodes[id].op;
	step_result first = {0}, r;
	for (int i = 0; i < N_ISA; i++)
		for (int t = 0; t < N_THREADS; t++) {
			bool ok = true;
			if (!devices[i][t]) continue;
			step_run(devices[i][t], v, id, -1, 0, &r);
			if (!r.kernel) {
				report(op, i, t + 1, what, "no kernel");
				continue;
			}
			if (i == 0 && t == 0) ok = near_reference(v, id, &r, i, t + 1, what);
			else ok = first.kernel && same_bits(v, id, &first, &r, i, t + 1, what);
			for (int j = 0; j < 8 && t == 0 && ok; j++) {
				step_result in_place;
				if (!(r.kernel->inplace >> j & 1)) continue;
				step_run(devices[i][t], v, id, j, 0, &in_place);
				if (in_place.kernel) ok = same_bits(v, id, &r, &in_place, i, t + 1, "in place");
				step_result_free(&in_place);
			}
			n_passed += ok;
			if (i == 0 && t == 0) first = r;
			else step_result_free(&r);
		}
	step_result_free(&first);
}

/* ---- sizes: every kernel with full vectors, tiles, blocks ---- */

typedef struct filler {
	const cx_graph *g;
	uint64_t seed;
} filler;

/* i32 leaves: "off" 0..n evenly, "idx" mod 7, "pos" counting from 100, "slot" i; floats in [-1, 1],
 * "a" in [0.5, 1]. */
static void fill_sized(void *ctx, uint32_t id, void *buf, uint64_t bytes)
{
	const filler *f = ctx;
	const cx_node *n = &f->g->nodes[id];
	int64_t elems = cx__desc_elems(&n->desc);
	cx_rng rng = cx__rng_make(f->seed, id);
	(void)bytes;
	for (int64_t i = 0; i < elems; i++) {
		float x = cx__rng_float(&rng, n->name[0] == 'a' ? 0.5f : -1.0f, 1.0f);
		int32_t k = n->name[0] == 'o'   ? (int32_t)(i * 32)
					: n->name[0] == 'i' ? (int32_t)(i % 7)
					: n->name[0] == 'p' ? (int32_t)(i + 100)
										: (int32_t)i;
		uint16_t h;
		switch (n->desc.dtype) {
		case CX_F32:
			((float *)buf)[i] = x;
			break;
		case CX_F16:
			h = (uint16_t)(((cx__rng_u64(&rng) & 0x83ff) | 0x3800));
			memcpy((char *)buf + 2 * i, &h, 2);
			break;
		case CX_BOOL:
			((uint8_t *)buf)[i] = cx__rng_int(&rng, 0, 3) > 0;
			break;
		case CX_I64:
			((int64_t *)buf)[i] = cx__rng_int(&rng, -1000, 1000);
			break;
		default:
			((int32_t *)buf)[i] = k;
			break;
		}
	}
}

static cx_tensor leaf(cx_graph *g, const char *name, cx_dtype t, int rank, const int64_t *dim)
{
	return cx_input(g, name, t, rank, dim);
}
#define LEAF(name, t, ...)                                                                         \
	leaf(g, name, t, (int)(sizeof((int64_t[]){__VA_ARGS__}) / 8), (const int64_t[]){__VA_ARGS__})
#define F(name, ...) LEAF(name, CX_F32, __VA_ARGS__)
#define I(name, ...) LEAF(name, CX_I32, __VA_ARGS__)

/* The op under test is the node that this returns. */
typedef cx_tensor build_fn(cx_graph *g);

#define BUILD(name, expr)                                                                          \
	static cx_tensor build_##name(cx_graph *g)                                                     \
	{                                                                                              \
		return expr;                                                                               \
	}
#define AXES(...)                                                                                  \
	&(cx_attr_reduce)                                                                              \
	{                                                                                              \
		.axes = cx_list_of((int)(sizeof((int[]){__VA_ARGS__}) / sizeof(int)), __VA_ARGS__)         \
	}
BUILD(add, cx_add(g, F("x", 37, 700), F("y", 37, 700)))
BUILD(add_row, cx_add(g, F("x", 3, 50, 1300), F("y", 1300)))
BUILD(add_column, cx_mul(g, F("x", 50, 1300), F("y", 50, 1)))
BUILD(add_small, cx_mul(g, F("x", 600, 1, 5), F("y", 1, 7, 5)))
BUILD(silu, cx_silu(g, F("x", 4099)))
BUILD(gelu, cx_gelu(g, LEAF("x", CX_F16, 4099)))
BUILD(int_mul, cx_mul(g, LEAF("x", CX_I64, 3, 1000), LEAF("y", CX_I64, 1, 1000)))
BUILD(where, cx_where(g, LEAF("c", CX_BOOL, 5, 600), F("x", 600), F("y", 5, 1)))
BUILD(sum_last, cx_sum(g, F("x", 9, 5003), AXES(1)))
BUILD(sum_first, cx_sum(g, F("x", 403, 301), AXES(0)))
BUILD(sum_middle, cx_mean(g, F("x", 5, 77, 40), AXES(1)))
BUILD(sum_ends, cx_mean(g, F("x", 50, 7, 43), AXES(0, 2)))
BUILD(max_all, cx_amax(g, F("x", 50, 77), NULL))
BUILD(min_first, cx_amin(g, F("x", 77, 500), AXES(0)))
BUILD(argmax, cx_argmax(g, F("x", 5, 3001), &(cx_attr_arg){.axis = 1}))
BUILD(topk, cx_topk(g, F("x", 5, 3001), &(cx_attr_topk){.axis = 1, .k = 60}))
BUILD(cumsum, cx_cumsum(g, F("x", 500, 20), &(cx_attr_cumsum){.axis = 0}))
BUILD(softmax, cx_softmax(g, F("x", 5, 3001), &(cx_attr_softmax){.axis = 1, .scale = 3}))
BUILD(softmax_first, cx_softmax(g, F("x", 300, 31), &(cx_attr_softmax){.axis = 0, .scale = 1}))
BUILD(log_softmax, cx_log_softmax(g, F("x", 5, 3001), &(cx_attr_softmax){.axis = 1, .scale = 3}))
BUILD(layernorm, cx_layernorm(g, F("x", 5, 1027), F("w", 1027), F("b", 1027), NULL))
BUILD(rmsnorm, cx_rmsnorm(g, F("x", 5, 1027), F("w", 1027), NULL))
BUILD(groupnorm, cx_groupnorm(g, F("x", 3, 12, 33, 5), F("w", 12), F("b", 12),
					 &(cx_attr_groupnorm){.groups = 4, .eps = 1e-5f}))
BUILD(matmul, cx_matmul(g, F("x", 37, 300), F("y", 75, 300), &(cx_attr_matmul){.trans_b = true}))
BUILD(matmul_batch, cx_matmul(g, F("x", 3, 4, 20, 70), F("y", 4, 70, 33), NULL))
BUILD(matmul_ta, cx_matmul(g, F("x", 2, 70, 20), F("y", 2, 33, 70),
					 &(cx_attr_matmul){.trans_a = true, .trans_b = true}))
BUILD(rope, cx_rope(g, F("x", 6, 4, 80), I("p", 6), CX_NONE, CX_NONE, CX_NONE, NULL))
BUILD(
	rope_pairs, cx_rope(g, F("x", 6, 4, 80), I("p", 6), CX_NONE, CX_NONE, CX_NONE,
					&(cx_attr_rope){.n_rot = 64, .theta = 1e4f, .amplitude = 1.1f, .pairs = true}))
BUILD(attention, cx_attention(g, F("x", 2, 70, 6, 48), F("k", 2, 150, 2, 48), F("v", 2, 150, 2, 40),
					 CX_NONE, CX_NONE, CX_NONE, CX_NONE, &(cx_attr_attention){.causal = true}))
BUILD(
	attention_mask, cx_attention(g, F("x", 2, 70, 6, 64), F("k", 2, 150, 2, 64),
						F("v", 2, 150, 2, 64), CX_NONE, CX_NONE, LEAF("m", CX_BOOL, 2, 1, 70, 150),
						F("b", 6, 1, 150), &(cx_attr_attention){.window = 90}))
BUILD(attention_ragged,
	cx_attention(g, F("x", 96, 4, 33), LEAF("k", CX_F16, 96, 2, 33), LEAF("v", CX_F16, 96, 2, 20),
		I("o", 4), I("o2", 4), CX_NONE, CX_NONE, NULL))
BUILD(paged, cx_paged_attention(g, F("x", 64, 4, 64), F("k", 160, 2, 64), F("v", 160, 2, 64),
				 I("i", 2, 10), I("o", 3), I("p", 2), &(cx_attr_paged){.page = 16}))
BUILD(copy,
	cx_copy(g, cx_permute(g, F("x", 5, 67, 43), &(cx_attr_perm){.perm = cx_list_of(3, 2, 0, 1)})))
BUILD(copy_steps, cx_copy(g, cx_slice(g, F("x", 300, 43),
								 &(cx_attr_slice){.begin = cx_list_of(2, 1, 2),
									 .size = cx_list_of(2, 140, 13),
									 .step = cx_list_of(2, 2, 3)})))
BUILD(gather, cx_gather(g, F("x", 9, 1000), I("i", 40), &(cx_attr_axis){.axis = 0}))
BUILD(scatter,
	cx_scatter(g, F("x", 9, 1000), I("i", 40), F("y", 40, 1000), &(cx_attr_scatter){.add = true}))
BUILD(concat,
	cx_concat(g, (cx_tensor[]){F("x", 3, 100, 7), F("y", 3, 50, 7)}, 2, &(cx_attr_axis){.axis = 1}))
BUILD(pad,
	cx_pad(g, F("x", 30, 100),
		&(cx_attr_pad){.before = cx_list_of(2, 3, 5), .after = cx_list_of(2, 1, 9), .value = 2}))
BUILD(embed_sum,
	cx_embed_sum(g, (cx_tensor[]){F("x", 9, 300), I("i", 50), F("y", 12, 300), I("i2", 50)}, 4))
BUILD(conv1d, cx_conv1d(g, F("x", 96, 75), F("w", 75, 4), F("b", 75), F("s", 5, 3, 75), I("o", 4),
				  I("t", 3), &(cx_attr_conv1d){.silu = true}))
BUILD(delta, cx_delta_rule(g, F("x", 96, 2, 40), F("k", 96, 2, 40), F("v", 96, 4, 50),
				 F("g", 96, 4), F("y", 96, 4), F("s", 5, 4, 40, 50), I("o", 4), I("t", 3), NULL))
BUILD(delta_chunk, cx_delta_rule(g, F("x", 150, 2, 16), F("k", 150, 2, 16), F("v", 150, 4, 20),
					   F("g", 150, 4), F("y", 150, 4), F("s", 1, 4, 16, 20), CX_NONE, CX_NONE,
					   &(cx_attr_delta){.chunk = 64, .scale = 0.2f}))
BUILD(scan, cx_scan(g, F("a", 2, 100, 75), F("x", 2, 100, 75), F("h", 2, 75),
				LEAF("r", CX_BOOL, 2, 100), NULL))
BUILD(cscan, cx_cscan(g, F("a", 2, 50, 75), F("x", 2, 50, 75), F("y", 2, 50, 75), F("z", 2, 50, 75),
				 F("h", 2, 75), F("j", 2, 75), CX_NONE, &(cx_attr_reset){.reverse = true}))
BUILD(xent, cx_cross_entropy(g, F("x", 40, 1003), I("i", 40), NULL))
BUILD(mse, cx_mse(g, F("x", 40, 1003), F("y", 40, 1003), NULL))
BUILD(poisson, cx_poisson_nll(g, F("x", 40, 1003), F("y", 40, 1003), NULL))
BUILD(adamw, cx_adamw(g, F("x", 5000), F("g", 5000), F("m", 5000), F("a", 5000), F("a2", 1),
				 F("a3", 1), NULL))
BUILD(random, cx_random(g, I("p", 4), &(cx_attr_random){.dims = cx_list_of(1, 5001), .kind = 1}))
BUILD(iota,
	cx_iota(g,
		&(cx_attr_iota){.dims = cx_list_of(2, 50, 41), .axis = 1, .dtype = CX_F32, .step = 0.25f}))

static const struct {
	const char *name;
	build_fn *build;
} sized[] = {
#define ROW(name)                                                                                  \
	{                                                                                              \
#name, build_##name                                                                        \
	}
	ROW(add),
	ROW(add_row),
	ROW(add_column),
	ROW(add_small),
	ROW(silu),
	ROW(gelu),
	ROW(int_mul),
	ROW(where),
	ROW(sum_last),
	ROW(sum_first),
	ROW(sum_middle),
	ROW(sum_ends),
	ROW(max_all),
	ROW(min_first),
	ROW(argmax),
	ROW(topk),
	ROW(cumsum),
	ROW(softmax),
	ROW(softmax_first),
	ROW(log_softmax),
	ROW(layernorm),
	ROW(rmsnorm),
	ROW(groupnorm),
	ROW(matmul),
	ROW(matmul_batch),
	ROW(matmul_ta),
	ROW(rope),
	ROW(rope_pairs),
	ROW(attention),
	ROW(attention_mask),
	ROW(attention_ragged),
	ROW(paged),
	ROW(copy),
	ROW(copy_steps),
	ROW(gather),
	ROW(scatter),
	ROW(concat),
	ROW(pad),
	ROW(embed_sum),
	ROW(conv1d),
	ROW(delta),
	ROW(delta_chunk),
	ROW(scan),
	ROW(cscan),
	ROW(xent),
	ROW(mse),
	ROW(poisson),
	ROW(adamw),
	ROW(random),
	ROW(iota),
#undef ROW
};

static void test_sizes(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof sized / sizeof sized[0]; i++) {
		cx_graph *g = NULL;
		cx_err err = {0};
		cx_tensor t;
		step_values v;
		filler f;
		assert_int_equal(cx_graph_create(NULL, &g, &err), CX_OK);
		t = sized[i].build(g);
		cx_output(g, "y", t);
		if (cx_graph_finish(g, &err) != CX_OK) fail_msg("%s: %s", sized[i].name, err.msg);
		f = (filler){g, i + 1};
		step_values_make(&v, g, fill_sized, &f);
		check_node(&v, t.id, sized[i].name);
		step_values_free(&v);
		cx_graph_free(g);
	}
	print_message("# %d runs of sized cases on instruction sets and threads\n", n_passed);
	if (n_failed) fail_msg("%d of them are wrong", n_failed);
}

/* find() reads kernels.def; names are unique per op and every row answers for its own op. */
static void test_rows(void **state)
{
	(void)state;
	for (int i = 0; i < CX_CPU_N_KERNELS; i++) {
		const cx_cpu_kernel *k = &cx__cpu_kernels[i];
		assert_true(strncmp(k->base.name, "cx_", 3) == 0);
		for (int j = i + 1; j < CX_CPU_N_KERNELS; j++)
			if (cx__cpu_kernels[j].op == k->op && cx__cpu_kernels[j - 1].op != k->op)
				fail_msg("rows of %s are not next to each other", cx__ops[k->op].name);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_sizes),
	};
	return cmocka_run_group_tests(tests, open_devices, close_devices);
}
