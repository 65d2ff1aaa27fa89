/* test_vulkan_prod.c - matrix products of the vulkan backend: weights larger than a descriptor,
 * rows alone and among others, integer dot products against the plain path, cooperative matrices
 * as far as a machine without them can tell. Under the validation layer, whose every message is
 * an error. */
#include "tests/cpu_run.h"
#include "tests/product.h"
#include "tests/random_graph.h"
#include "tests/vulkan_env.h"

#include "backends/vulkan/spirv.h"
#include "backends/vulkan/vk.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static cx_runtime *rt;
static cx_device *dev;
static cx_vk_device *vk;

static int open_all(void **state)
{
	(void)state;
	vulkan_env();
	if (vulkan_open(1, &rt, &dev)) vk = (cx_vk_device *)dev;
	return 0;
}

static int close_all(void **state)
{
	(void)state;
	cx_device_close(dev);
	cx_runtime_free(rt);
	return 0;
}

#define OK(call)                                                                                   \
	do {                                                                                           \
		cx_err err_ = {0}, *err = &err_;                                                           \
		cx_status st_ = (call);                                                                    \
		if (st_ != CX_OK) fail_msg("%s: %s", #call, err_.msg);                                     \
	} while (0)

static void silent(void)
{
	if (vk->n_messages) fail_msg("%u messages of the validation layer", vk->n_messages);
}

/* A weight of more than 128 MiB, and on a device that says that its descriptors reach less: in
 * pieces, same result. */
static void __attribute__((unused)) test_large_weight(void **state)
{
	static const struct {
		cx_dtype t;
		int64_t m, n, k;
		uint64_t range;
	} cases[] = {{CX_F32, 1, 34000, 1024, 0}, {CX_Q8_0, 2, 3001, 512, 1 << 19},
		{CX_F16, 20, 3001, 512, 1 << 19}, {CX_Q6_K, 1, 3001, 512, 1 << 19},
		{CX_F32, 300, 700, 512, 1 << 19}};
	cx_device *cpu = NULL;
	uint64_t range = vk ? vk->max_range : 0;
	(void)state;
	if (!dev) skip();
	OK(cx_device_open(rt, "cpu", 0, &cpu, err));
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		product p = product_make(cases[i].t, cases[i].m, cases[i].n, cases[i].k);
		float *want = product_run(rt, cpu, &p, p.m), *got;
		double e;
		if (cases[i].range) vk->max_range = cases[i].range;
		else assert_true(p.w_bytes > 128u << 20);
		got = product_run(rt, dev, &p, p.m);
		vk->max_range = range;
		e = step_nmse(CX_F32, want, got, p.m * p.n);
		if (!(e <= 1e-10))
			fail_msg("%s [%d,%d,%d]: nmse %g", cx_dtype_get(p.dtype)->name, (int)p.m, (int)p.n,
				(int)p.k, e);
		free(want);
		free(got);
		product_free(&p);
	}
	cx_device_close(cpu);
	silent();
}

/* A row alone, and among others, in whatever shape of work that makes: the same bits. */
static void rows_alone(const cx_dtype *types, size_t n_types)
{
	static const int64_t few[] = {1, 2, 4, 7, 8, 9, 40};
	for (size_t t = 0; t < n_types; t++) {
		product p = product_make(types[t], 67, 77, 768);
		float *all = product_run(rt, dev, &p, 67);
		for (size_t i = 0; i < sizeof few / sizeof *few; i++) {
			float *some = product_run(rt, dev, &p, few[i]);
			if (memcmp(all, some, (size_t)(few[i] * p.n) * 4) != 0)
				fail_msg("%s: %d rows differ from the same of 67", cx_dtype_get(types[t])->name,
					(int)few[i]);
			free(some);
		}
		free(all);
		product_free(&p);
	}
	silent();
}

static void test_rows_alone(void **state)
{
	static const cx_dtype types[] = {CX_F32, CX_F16, CX_BF16, CX_Q8_0, CX_Q4_K, CX_Q5_1, CX_MXFP4};
	(void)state;
	if (!dev) skip();
	rows_alone(types, sizeof types / sizeof *types);
}

/* ---- times ---- */

/* Three steps, and one: a program of one step is also timed. */
static void test_times(void **state)
{
	product p;
	(void)state;
	if (!dev) skip();
	p = product_make(CX_F16, 64, 96, 128);
	for (int i = 0; i < 2; i++) {
		p.x_dtype = i ? CX_F32 : CX_F16;
		product_check_times(rt, dev, &p);
	}
	product_free(&p);
	silent();
}

/* ---- integer dot products ---- */

/* Where the driver has them but says that they are slow (lavapipe), they are used all the same. */
static bool idot_on(void)
{
	if (dev && vk->has_idot) vk->use_idot = true;
	else printf("# no integer dot products on this device\n");
	return dev && vk->use_idot;
}

/* Rows of x that try the digits: a NaN, infinities, tiny, huge, one element that hides the rest. */
static void special_rows(product *p)
{
	for (int64_t i = 0; i < p->m * p->k; i++) {
		int64_t row = i / p->k, at = i % p->k;
		if (row == 1) p->x[i] *= 1e-30f;
		if (row == 2) p->x[i] *= 1e36f;
		if (row == 3 && at % 32 == 5) p->x[i] = 4000;
		if (row == 4) p->x[i] = at == 40 ? NAN : p->x[i];
		if (row == 5) p->x[i] = at == 33 ? INFINITY : p->x[i];
		if (row == 6) p->x[i] = at < 64 ? 0 : 0x1p-140f;
		if (row == 7) p->x[i] *= 0x1p-70f;
	}
}

static void test_idot(void **state)
{
	static const cx_dtype types[] = {CX_Q8_0, CX_I8C}, xs[] = {CX_F32, CX_F16};
	static const int64_t dims[][3] = {{40, 33, 320}, {3, 5, 96}, {1, 77, 768}};
	bool was = vk && vk->use_idot;
	double worst = 0;
	(void)state;
	if (!idot_on()) skip();
	for (int t = 0; t < 2; t++)
		for (int x = 0; x < 2; x++)
			for (size_t i = 0; i < (x ? 1 : 3); i++) {
				product p = product_make(types[t], dims[i][0], dims[i][1], dims[i][2]);
				float *plain, *dots;
				p.x_dtype = xs[x];
				if (p.m > 8 && p.x_dtype == CX_F32) special_rows(&p);
				vk->use_idot = false;
				assert_string_equal(product_kernel(dev, &p, p.m), "cx_matmul_tile_f32");
				plain = product_run(rt, dev, &p, p.m);
				vk->use_idot = true;
				assert_string_equal(product_kernel(dev, &p, p.m), "cx_matmul_tile_i8");
				dots = product_run(rt, dev, &p, p.m);
				for (int64_t m = 0; m < p.m; m++) { /* row by row, for they differ in size */
					double e = step_nmse(CX_F32, plain + m * p.n, dots + m * p.n, p.n);
					double most = xs[x] == CX_F32 ? 1e-11 : 1e-6;
					if (!(e <= most))
						fail_msg("%s, x %s, row %d of [%d,%d,%d]: nmse %g",
							cx_dtype_get(types[t])->name, cx_dtype_get(xs[x])->name, (int)m,
							(int)p.m, (int)p.n, (int)p.k, e);
					if (xs[x] == CX_F32 && e > worst) worst = e;
				}
				free(plain);
				free(dots);
				product_free(&p);
			}
	rows_alone(types, 2);
	print_message("# integer dot products against the plain path, f32: nmse at most %.2g\n", worst);
	vk->use_idot = was;
	silent();
}

static void fill_random(void *ctx, uint32_t id, void *buf, uint64_t bytes)
{
	assert_int_equal(cx__random_fill(ctx, id, buf, bytes), CX_OK);
}

/* Whether activations are rounded to int8 (graph/ops.def, matmul). */
static bool in_bytes(const cx_node *n)
{
	return n->op == CX_OP_matmul ? ((const cx_attr_matmul *)n->attr)->act_scale > 0
								 : ((const cx_attr_linear *)n->attr)->act_scale > 0;
}

/* One case of an op against the reference; true if integer dot products ran, of int8 activations or
 * of others, as asked. */
static bool random_case(cx_op op, uint64_t seed, bool bytes)
{
	cx_random_opts o = {.seed = seed, .float_dtype = seed % 3 ? CX_F32 : CX_F16};
	cx_random_graph *rg = NULL;
	step_values v;
	step_result r = {0};
	uint32_t id = UINT32_MAX;
	bool dots = false;
	OK(cx__random_case(op, &o, NULL, &rg, err));
	for (uint32_t i = 0; i < rg->g->n_nodes; i++)
		if (rg->g->nodes[i].op == op) id = i;
	if (id != UINT32_MAX && in_bytes(&rg->g->nodes[id]) == bytes) {
		step_values_make(&v, rg->g, fill_random, rg);
		step_run(dev, &v, id, -1, 0, &r);
		dots = r.kernel && (bytes || strstr(r.kernel->name, "_i8"));
		for (uint32_t k = 0; dots && k < r.n_out; k++) {
			const cx_desc *d = &rg->g->nodes[id + k].desc;
			double e = step_nmse(d->dtype, v.value[id + k], r.out[k], cx__desc_elems(d));
			if (!(e <= (d->dtype == CX_F32 ? cx__ops[op].tol.f32 : cx__ops[op].tol.f16)))
				fail_msg("%s seed %d: nmse %g", cx__ops[op].name, (int)seed, e);
		}
		step_result_free(&r);
		step_values_free(&v);
	}
	cx__random_graph_free(rg);
	return dots;
}

static void test_idot_cases(void **state)
{
	static const cx_op ops[] = {CX_OP_matmul, CX_OP_linear};
	bool was = vk && vk->use_idot;
	(void)state;
	if (!idot_on()) skip();
	for (int i = 0; i < 4; i++) {
		const char *what = i / 2 ? "with int8 activations " : "";
		int n = 0;
		for (uint64_t seed = 1; seed <= 400 && n < 6; seed++)
			n += random_case(ops[i % 2], seed, i / 2);
		print_message(
			"# %d cases of %s %sby integer dot products\n", n, cx__ops[ops[i % 2]].name, what);
		assert_true(n == 6);
	}
	vk->use_idot = was;
	silent();
}

/* Digits that no descriptor reaches: the plain path. */
static void test_idot_small_descriptors(void **state)
{
	uint64_t range = vk ? vk->max_range : 0;
	bool was = vk && vk->use_idot;
	product p;
	float *want, *got;
	(void)state;
	if (!idot_on()) skip();
	p = product_make(CX_Q8_0, 200, 40, 1024);
	want = product_run(rt, dev, &p, p.m);
	vk->max_range = 300 << 10; /* x is 800 KiB, its digits 625 */
	assert_string_equal(product_kernel(dev, &p, p.m), "cx_matmul_tile_f32");
	got = product_run(rt, dev, &p, p.m);
	vk->max_range = range;
	assert_true(step_nmse(CX_F32, want, got, p.m * p.n) <= 1e-11);
	vk->use_idot = was;
	free(want);
	free(got);
	product_free(&p);
	silent();
}

/* ---- cooperative matrices ---- */

static void test_coop_is_chosen(void **state)
{
	product p;
	bool had = vk && vk->has_coopmat;
	(void)state;
	if (!dev) skip();
	p = product_make(CX_F16, 40, 33, 70);
	for (int on = 0; on < 2; on++) {
		vk->has_coopmat = on;
		p.x_dtype = CX_F16;
		assert_string_equal(
			product_kernel(dev, &p, p.m), on ? "cx_matmul_coop_f16" : "cx_matmul_tile_f32");
		p.x_dtype = CX_F32; /* f32 operands are never rounded to f16 */
		assert_string_equal(product_kernel(dev, &p, p.m), "cx_matmul_tile_f32");
	}
	vk->has_coopmat = had;
	product_free(&p);
}

static bool has_op(const cx_spv *s, uint32_t op)
{
	for (size_t i = 5; i < s->n && s->word[i] >> 16; i += s->word[i] >> 16)
		if ((s->word[i] & 0xffff) == op) return true;
	return false;
}

/* What a driver with cooperative matrices would be given: cut down, and as SPIR-V should be. */
static void test_coop_module(void **state)
{
	static const uint32_t spec[][14] = {
		{32, CX_F16, CX_F16, CX_F16, 99, 99, 99, 0, 8, 4, 1, 0, 0, 0},
		{32, CX_F16, CX_F16, CX_F16, CX_F16, CX_F16, CX_F16, CX_OP_silu, 1, 4, 8, 1, 1, 1},
		{32, CX_F32, CX_F16, CX_F16, CX_F32, 99, 99, CX_OP_gelu, 8, 8, 1, 1, 0, 1}};
	const cx_vk_shader *sh = &cx__vk_shaders[CX_SHADER_prodc];
	const char *dir = getenv("TMPDIR");
	cx_alloc alloc = cx_alloc_default();
	bool tool = system("command -v spirv-val >/dev/null 2>&1") == 0;
	(void)state;
	for (size_t i = 0; i < sizeof spec / sizeof *spec; i++) {
		cx_spv out = {.alloc = &alloc};
		char path[300], command[400];
		FILE *f = NULL;
		int fd;
		assert_true(cx__spv_specialise(sh->code, sh->n_bytes / 4, spec[i], 14, 7, &out));
		assert_true(out.n > 100 && out.n < sh->n_bytes / 4);
		assert_true(has_op(&out, 5359) && has_op(&out, 5360) && has_op(&out, 5361));
		snprintf(path, sizeof path, "%s/cortex-coop-XXXXXX", dir ? dir : "/tmp");
		assert_true((fd = mkstemp(path)) >= 0 && (f = fdopen(fd, "wb")) != NULL);
		assert_int_equal(fwrite(out.word, 4, out.n, f), out.n);
		fclose(f);
		snprintf(command, sizeof command, "spirv-val --target-env vulkan1.2 %s", path);
		if (tool) assert_int_equal(system(command), 0);
		remove(path);
		cx_free(&alloc, out.word, out.cap * 4);
	}
	print_message("# cooperative matrices: modules %s\n",
		tool ? "pass spirv-val" : "made; spirv-val is not installed");
}

int main(void)
{
	if (getenv("CORTEX_FILTER")) cmocka_set_test_filter(getenv("CORTEX_FILTER"));
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows_alone),
#if !defined(__SANITIZE_ADDRESS__) /* a minute there, and nothing of the host's that others lack */
		cmocka_unit_test(test_large_weight),
#endif
		cmocka_unit_test(test_times),
		cmocka_unit_test(test_idot),
		cmocka_unit_test(test_idot_cases),
		cmocka_unit_test(test_idot_small_descriptors),
		cmocka_unit_test(test_coop_is_chosen),
		cmocka_unit_test(test_coop_module),
	};
	return cmocka_run_group_tests_name("vulkan_prod", tests, open_all, close_all);
}
