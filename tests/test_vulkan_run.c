/* test_vulkan_run.c - the vulkan backend beyond single ops: random graphs planned on it, the
 * trained model of the fixtures, memory of its own behind a staging buffer, its cache on disk, and
 * its failures.
 *
 * All under the validation layer, whose every message is an error; a planted hazard shows that it
 * would speak. */
#include "tests/cpu_run.h"
#include "tests/harness.h"
#include "tests/product.h"
#include "tests/vulkan_env.h"

#include "backends/vulkan/vk.h"
#include "models/llm/llm.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

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

/* ---- graphs ---- */

static void graphs(uint64_t first, uint64_t n)
{
	int n_fused = 0;
	for (uint64_t seed = first; seed < first + n; seed++) {
		cx_random_opts o = {.seed = seed,
			.n_nodes = 3 + (uint32_t)(seed % 12),
			.smooth = true,
			.fused = seed % 7 == 0,
			.zeros = seed % 5 == 0,
			.f32_only = seed % 2 == 0};
		cx_plan_check check = {
			.devices = &dev, .n_devices = 1, .no_fuse = seed % 4 == 3, .floor = 1e-2};
		cx_random_graph *rg = NULL;
		cx_plan_stats stats = {0};
		cx_values want;
		OK(cx__random_graph(&o, NULL, &rg, err));
		OK(cx__harness_reference(rg, NULL, &want, err));
		OK(cx__harness_plan(rt, rg, &want, &check, &stats, err));
		n_fused += (int)stats.n_fused;
		cx__values_free(&want);
		cx__random_graph_free(rg);
	}
	silent();
	print_message("%d graphs on vulkan, %d nodes fused into others\n", (int)n, n_fused);
	assert_true(n_fused > 0);
}

static void test_graphs(void **state)
{
	const char *n = getenv("CORTEX_VULKAN_GRAPHS");
	(void)state;
	if (!dev) skip();
	graphs(1, n ? strtoull(n, NULL, 10) : 40);
}

/* Buffers in memory that the host does not see: everything goes through the staging buffer. */
static void test_staging(void **state)
{
	(void)state;
	if (!dev) skip();
	vk->unified = false;
	graphs(101, 8);
	vk->unified = true;
}

/* y of a small graph over x [300,1000] and a table in 16-bit floats. The caller frees. */
static float *run_moves(void)
{
	const int64_t dim[] = {300, 1000}, n_idx = 90;
	float *x = malloc(300 * 1000 * 4), *y = malloc(90 * 1000 * 4);
	int32_t idx[90];
	cx_graph *g = NULL;
	cx_plan *plan = NULL;
	cx_store *store = NULL;
	cx_exec *e = NULL;
	cx_plan_opts opts = {.devices = &dev, .n_devices = 1, .no_fuse = true};
	cx_tensor in, t;
	for (int i = 0; i < 300000; i++)
		x[i] = (float)((unsigned)i % 10007u * 7919u % 10007u) * 1e-4f - 0.5f;
	for (int i = 0; i < 90; i++) idx[i] = i * 7 % 311 - 2; /* some are outside */
	OK(cx_graph_create(NULL, &g, err));
	in = cx_input(g, "x", CX_F32, 2, dim);
	t = cx_cast(g, in, &(cx_attr_cast){.dtype = CX_F16});
	t = cx_cast(g, cx_mul(g, t, t), &(cx_attr_cast){.dtype = CX_F32});
	t = cx_gather(
		g, cx_add(g, t, in), cx_input(g, "i", CX_I32, 1, &n_idx), &(cx_attr_axis){.axis = 0});
	t = cx_copy(g, cx_permute(g, t, &(cx_attr_perm){.perm = cx_list_of(2, 1, 0)}));
	cx_output(g, "y", t);
	OK(cx_graph_finish(g, err));
	OK(cx_plan_build(g, &opts, &plan, err));
	OK(cx_store_create(rt, &store, err));
	OK(cx_exec_create(plan, store, &e, err));
	OK(cx_exec_set_input(e, cx_exec_input(e, "x"), x, 1200000, err));
	OK(cx_exec_set_input(e, cx_exec_input(e, "i"), idx, sizeof idx, err));
	OK(cx_exec_run(e, err));
	OK(cx_exec_get_output(e, 0, y, 90 * 1000 * 4, err));
	cx_exec_free(e);
	cx_store_free(store);
	cx_plan_free(plan);
	cx_graph_free(g);
	free(x);
	return y;
}

/* Descriptors of 384 KiB under tensors of 1.2 MB: cut into pieces, the same bits. */
static void test_small_descriptors(void **state)
{
	uint64_t range = vk ? vk->max_range : 0;
	float *want, *got;
	(void)state;
	if (!dev) skip();
	want = run_moves();
	vk->max_range = 384 << 10;
	got = run_moves();
	vk->max_range = range;
	assert_memory_equal(want, got, 90 * 1000 * 4);
	free(want);
	free(got);
	silent();
}

/* ---- the trained model ---- */

static const char *fixture(const char *name)
{
	static char path[600];
	const char *dir = getenv("CORTEX_FIXTURES");
	snprintf(path, sizeof path, "%s/%s", dir ? dir : "../shared/fixtures", name);
	return access(path, R_OK) == 0 ? path : NULL;
}

static void test_stories(void **state)
{
	const char *path = fixture("llm/stories260K/stories260K.gguf");
	cx_llm_session_opts opts = {.n_ctx = 512};
	cx_llm *m = NULL;
	cx_llm_session *s = NULL;
	json_t *json, *want;
	float *logits;
	size_t vocab;
	int32_t id = 1;
	(void)state;
	if (!dev || !path) skip();
	OK(cx_llm_open(path, NULL, &m, err));
	vocab = (size_t)cx_llm_get_config(m)->vocab;
	logits = malloc(vocab * sizeof *logits);
	json = json_load_file(fixture("llm/stories260K/greedy_tokens.json"), 0, NULL);
	want = json_object_get(json, "tokens");
	assert_int_equal(json_array_size(want), 257);
	OK(cx_llm_session_create(m, rt, dev, &opts, &s, err));
	for (size_t i = 0; i < 257; i++) {
		size_t best = 0;
		if (json_integer_value(json_array_get(want, i)) != id)
			fail_msg("token %zu is %d, not %d", i, (int)id,
				(int)json_integer_value(json_array_get(want, i)));
		OK(cx_llm_session_eval(s, &id, 1, false, logits, err));
		for (size_t k = 1; k < vocab; k++)
			if (logits[k] > logits[best]) best = k;
		id = (int32_t)best;
	}
	print_message("# stories260K on vulkan: 257 of 257 ids\n");
	cx_llm_session_free(s);
	cx_llm_close(m);
	json_decref(json);
	free(logits);
	silent();
}

/* ---- validation ---- */

/* Two writes of the same bytes without a barrier: the layer must say so, or all the silence
 * above means nothing. */
static void test_hazard_is_seen(void **state)
{
	VkCommandBufferBeginInfo begin = {VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
	cx_runtime *rt2;
	cx_device *dev2;
	cx_vk_device *d;
	cx_buffer *b = NULL;
	(void)state;
	if (!dev) skip();
	assert_true(vulkan_open(1, &rt2, &dev2));
	d = (cx_vk_device *)dev2;
	OK(dev2->backend->alloc(dev2, 4096, NULL, &b, err));
	assert_int_equal(d->n_messages, 0);
	d->vk.BeginCommandBuffer(d->copy_cmd, &begin);
	d->vk.CmdFillBuffer(d->copy_cmd, ((cx_vk_buffer *)b)->m.buf, 0, 4096, 1);
	d->vk.CmdFillBuffer(d->copy_cmd, ((cx_vk_buffer *)b)->m.buf, 0, 4096, 2);
	d->vk.EndCommandBuffer(d->copy_cmd);
	assert_true(d->n_messages > 0);
	dev2->backend->free(b);
	cx_device_close(dev2);
	cx_runtime_free(rt2);
}

static void fill_random(void *ctx, uint32_t id, void *buf, uint64_t bytes)
{
	assert_int_equal(cx__random_fill(ctx, id, buf, bytes), CX_OK);
}

/* GPU-assisted validation watches every access of the shaders. A subset: lavapipe takes minutes
 * to compile an
 * instrumented tile of products, and layer 1.3.239 calls byte 859 of a descriptor of 2064
 * bytes outside, in the
 * second dispatch of delta_rule. */
static void __attribute__((unused)) test_gpu_assisted(void **state)
{
	static const cx_op ops[] = {CX_OP_add, CX_OP_sum, CX_OP_softmax, CX_OP_layernorm, CX_OP_rope,
		CX_OP_gather, CX_OP_scatter, CX_OP_concat, CX_OP_pad, CX_OP_topk, CX_OP_conv1d, CX_OP_scan,
		CX_OP_cast, CX_OP_attention};
	cx_runtime *rt2;
	cx_device *dev2;
	(void)state;
	if (!dev) skip();
	if (!vulkan_open(2, &rt2, &dev2)) fail();
	for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
		cx_random_opts o = {.seed = 4000 + i, .layout = i % 2 ? CX_LAYOUT_STRIDED : CX_LAYOUT_ANY};
		cx_random_graph *rg = NULL;
		step_values v;
		step_result r = {0};
		uint32_t id = UINT32_MAX;
		OK(cx__random_case(ops[i], &o, NULL, &rg, err));
		for (uint32_t n = 0; n < rg->g->n_nodes; n++)
			if (rg->g->nodes[n].op == ops[i]) id = n;
		step_values_make(&v, rg->g, fill_random, rg);
		double t0 = vulkan_seconds();
		step_run(dev2, &v, id, -1, 0, &r);
		if (getenv("SHOW")) printf("%s %.1f\n", cx__ops[ops[i]].name, vulkan_seconds() - t0);
		if (((cx_vk_device *)dev2)->n_messages)
			fail_msg("%s: the layer complains", cx__ops[ops[i]].name);
		step_result_free(&r);
		step_values_free(&v);
		cx__random_graph_free(rg);
	}
	cx_device_close(dev2);
	cx_runtime_free(rt2);
}

/* ---- division ---- */

/* Where the driver's division is not known to be correctly rounded, shaders divide in integers. */
static void test_soft_division(void **state)
{
	bool exact = vk && vk->exact_div;
	(void)state;
	if (!dev) skip();
	vk->exact_div = false;
	for (uint64_t seed = 1; seed <= 12; seed++) {
		cx_random_opts o = {.seed = seed, .f32_only = true, .specials = seed % 2};
		cx_random_graph *rg = NULL;
		step_values v;
		step_result r = {0};
		uint32_t id = UINT32_MAX;
		OK(cx__random_case(CX_OP_div, &o, NULL, &rg, err));
		for (uint32_t n = 0; n < rg->g->n_nodes; n++)
			if (rg->g->nodes[n].op == CX_OP_div) id = n;
		step_values_make(&v, rg->g, fill_random, rg);
		step_run(dev, &v, id, -1, 0, &r);
		assert_true(step_nmse(rg->g->nodes[id].desc.dtype, v.value[id], r.out[0],
						cx__desc_elems(&rg->g->nodes[id].desc)) == 0);
		step_result_free(&r);
		step_values_free(&v);
		cx__random_graph_free(rg);
	}
	vk->exact_div = exact;
	silent();
}

/* ---- the cache ---- */

typedef struct log_seen {
	int n;
	char last[600];
} log_seen;

static void on_log(void *ctx, cx_log_level level, const char *where, const char *msg)
{
	log_seen *l = ctx;
	if (level < CX_LOG_WARN || strcmp(where, "vulkan") != 0) return;
	l->n++;
	snprintf(l->last, sizeof l->last, "%s", msg);
}

/* Opens a device with the cache, runs a product, closes it. */
static void run_cached(const char *dir, log_seen *seen)
{
	cx_config cfg = {.cache_dir = dir, .log = on_log, .log_ctx = seen};
	cx_runtime *own = NULL;
	cx_device *d = NULL;
	product p = product_make(CX_F32, 3, 5, 32);
	OK(cx_runtime_create(&cfg, &own, err));
	OK(cx_device_open(own, "vulkan", 0, &d, err));
	free(product_run(own, d, &p, 3));
	cx_device_close(d);
	cx_runtime_free(own);
	product_free(&p);
}

static char *cache_file(const char *dir)
{
	static char path[700];
	char id[64] = "";
	for (uint32_t i = 0; i < VK_UUID_SIZE; i++) snprintf(id + 2 * i, 3, "%02x", vk->uuid[i]);
	snprintf(path, sizeof path, "%s/vulkan-%s.bin", dir, id);
	return path;
}

/* Adds to a byte of the driver's data, with a checksum that fits: magic, u64 bytes, u64 FNV-1a. */
static void change_cache(const char *path, size_t at, unsigned char add)
{
	static unsigned char data[1 << 20];
	FILE *f = fopen(path, "r+b");
	uint64_t sum = 14695981039346656037ull;
	size_t n = fread(data, 1, sizeof data, f);
	assert_true(n > 24 + at && n < sizeof data);
	data[24 + at] = (unsigned char)(data[24 + at] + add);
	for (size_t i = 24; i < n; i++) sum = (sum ^ data[i]) * 1099511628211ull;
	memcpy(data + 16, &sum, sizeof sum);
	rewind(f);
	assert_int_equal(fwrite(data, 1, n, f), n);
	fclose(f);
}

static void test_cache(void **state)
{
	char dir[] = "/tmp/cortex-vulkan-XXXXXX";
	log_seen seen = {0};
	struct stat st;
	FILE *f;
	(void)state;
	if (!dev) skip();
	assert_non_null(mkdtemp(dir));
	run_cached(dir, &seen);
	assert_int_equal(stat(cache_file(dir), &st), 0);
	assert_true(st.st_size > 24);
	run_cached(dir, &seen); /* reads it */
	assert_int_equal(seen.n, 0);
	f = fopen(cache_file(dir), "r+b"); /* a byte of the data changes */
	fseek(f, -1, SEEK_END);
	fputc(fgetc(f) ^ 1, f);
	fseek(f, -1, SEEK_END);
	fputc('x', f);
	fclose(f);
	run_cached(dir, &seen);
	assert_int_equal(seen.n, 1);
	assert_non_null(strstr(seen.last, "is ignored"));
	assert_int_equal(truncate(cache_file(dir), 10), 0);
	run_cached(dir, &seen);
	assert_int_equal(seen.n, 2);
	change_cache(cache_file(dir), 8, 1); /* the maker of the device, another one */
	run_cached(dir, &seen);
	assert_int_equal(seen.n, 3);
	assert_non_null(strstr(seen.last, "another device"));
	run_cached(dir, &seen); /* it was written anew */
	assert_int_equal(seen.n, 3);
	assert_int_equal(truncate(cache_file(dir), 0), 0);
	run_cached(dir, &seen);
	assert_int_equal(seen.n, 4);
	remove(cache_file(dir));
	rmdir(dir);
	run_cached(dir, &seen); /* a folder that is not there */
	assert_int_equal(seen.n, 5);
}

/* ---- failures ---- */

static void test_failures(void **state)
{
	cx_runtime *rt2;
	cx_device *d = NULL;
	cx_buffer *b = NULL;
	cx_err err = {0};
	char byte = 0;
	(void)state;
	if (!dev) skip();
	assert_int_equal(cx_device_open(rt, "vulkan", 77, &d, &err), CX_ERR_ARGUMENT);
	assert_non_null(strstr(err.msg, "77"));
	err = (cx_err){0};
	assert_int_equal(dev->backend->alloc(dev, 1ull << 50, NULL, &b, &err), CX_ERR_MEMORY);
	assert_true(!b && strstr(err.msg, "vulkan"));
	OK(dev->backend->alloc(dev, 64, NULL, &b, err)); /* and goes on */
	err = (cx_err){0};
	assert_int_equal(dev->backend->write(b, 60, &err, 8, &err), CX_ERR_ARGUMENT);
	dev->backend->free(b);
	/* a device that was lost says so, to every call, and the process lives */
	assert_true(vulkan_open(1, &rt2, &d));
	OK(d->backend->alloc(d, 64, NULL, &b, err));
	err = (cx_err){0};
	assert_int_equal(
		cx__vk_fail((cx_vk_device *)d, VK_ERROR_DEVICE_LOST, "a test", &err), CX_ERR_DEVICE);
	assert_true(d->failed && strstr(err.msg, "lost"));
	err = (cx_err){0};
	assert_int_equal(d->backend->write(b, 0, &byte, 1, &err), CX_ERR_DEVICE);
	assert_int_equal(d->backend->wait(d, NULL), CX_ERR_DEVICE);
	d->backend->free(b);
	cx_device_close(d);
	cx_runtime_free(rt2);
}

static bool counting;
static long n_counted;
static void *count_realloc(void *ctx, void *p, size_t old, size_t size)
{
	cx_alloc a = cx_alloc_default();
	(void)ctx;
	if (counting && size) n_counted++;
	return a.realloc(a.ctx, p, old, size);
}

/* A run takes no memory. */
static void test_run_allocates_nothing(void **state)
{
	cx_config cfg = {.alloc = {count_realloc, NULL}};
	cx_runtime *rt2 = NULL;
	cx_device *d = NULL;
	cx_graph *g = NULL;
	cx_plan *plan = NULL;
	cx_store *store = NULL;
	cx_exec *x = NULL;
	float v[64] = {0};
	(void)state;
	if (!dev) skip();
	OK(cx_runtime_create(&cfg, &rt2, err));
	OK(cx_device_open(rt2, "vulkan", 0, &d, err));
	cx_plan_opts opts = {.devices = &d, .n_devices = 1};
	OK(cx_graph_create(NULL, &g, err));
	cx_output(
		g, "y", cx_softmax(g, cx_silu(g, cx_input(g, "x", CX_F32, 2, (int64_t[]){8, 8})), NULL));
	OK(cx_graph_finish(g, err));
	OK(cx_plan_build(g, &opts, &plan, err));
	OK(cx_store_create(rt2, &store, err));
	OK(cx_exec_create(plan, store, &x, err));
	counting = true;
	for (int i = 0; i < 3; i++) {
		OK(cx_exec_set_input(x, 0, v, sizeof v, err));
		OK(cx_exec_run(x, err));
		OK(cx_exec_get_output(x, 0, v, sizeof v, err));
	}
	counting = false;
	assert_int_equal(n_counted, 0);
	cx_exec_free(x);
	cx_store_free(store);
	cx_plan_free(plan);
	cx_graph_free(g);
	cx_device_close(d);
	cx_runtime_free(rt2);
}

int main(void)
{
	if (getenv("CORTEX_FILTER")) cmocka_set_test_filter(getenv("CORTEX_FILTER"));
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hazard_is_seen),
		cmocka_unit_test(test_graphs),
		cmocka_unit_test(test_staging),
		cmocka_unit_test(test_small_descriptors),
		cmocka_unit_test(test_stories),
		cmocka_unit_test(test_soft_division),
#if !defined(__SANITIZE_ADDRESS__) /* minutes there, and nothing of the host's that others lack */
		cmocka_unit_test(test_gpu_assisted),
#endif
		cmocka_unit_test(test_cache),
		cmocka_unit_test(test_failures),
		cmocka_unit_test(test_run_allocates_nothing)
	};
	return cmocka_run_group_tests_name("vulkan_run", tests, open_all, close_all);
}
