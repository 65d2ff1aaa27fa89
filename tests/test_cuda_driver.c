/* test_cuda_driver.c - the cuda backend without a device: on a libcuda.so.1 that runs launches on
 * the host (tests/cuda_emu/). What is launched and captured for a plan, what comes out of it, every
 * driver call and every allocation made to fail in turn, what is missing said in a sentence. Then a
 * part of the op grid on it; `LD_PRELOAD=build/tests/cuda/libcuda.so.1 CX_GRID_BACKENDS=cuda
 * build/tests/test_grid` is all of it. */
#include "tests/cuda_emu/emu.h"
#include "tests/product.h"

#include "backends/cuda/cuda.h"
#include "graph/plan.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static emu_state *emu;
static emu_state fresh;
static cx_cuda_plugin *plugin;
static bool executes; /* kernels are there, not launches alone */
static char folder[1024];

static cx_status open_at(const cx_config *config, cx_runtime **rt, cx_device **dev, cx_err *err)
{
	assert_int_equal(cx_runtime_create(config, rt, NULL), CX_OK);
	return cx_device_open(*rt, "cuda", 0, dev, err);
}

static void close_both(cx_runtime *rt, cx_device *dev)
{
	cx_device_close(dev);
	cx_runtime_free(rt);
}

/* Opening fails with this sentence and leaves nothing behind. */
static void opens_not(cx_status st, const char *must)
{
	cx_runtime *rt;
	cx_device *dev;
	cx_err err = {0};
	assert_int_equal(open_at(NULL, &rt, &dev, &err), st);
	assert_null(dev);
	if (!strstr(err.msg, must)) fail_msg("'%s' does not say '%s'", err.msg, must);
	close_both(rt, dev);
	if (emu) assert_int_equal(emu->n_live, 0);
}

/* ---- what is missing ---- */

static int look(void **state)
{
	char path[1100], *slash;
	ssize_t n = readlink("/proc/self/exe", folder, sizeof folder - 1);
	void *lib, *sym, *real = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
	int (*has_kernels)(void);
	(void)state;
	folder[n > 0 ? n : 0] = 0;
	slash = strrchr(folder, '/');
	if (slash) *slash = 0;
	if (real) { /* a driver that is there would be found before ours: its name is the same */
		dlclose(real);
		printf("# there is a driver here: make test-gpu tests it\n");
	} else {
		opens_not(CX_ERR_DEVICE, "libcuda.so.1 was not found");
	}
	snprintf(path, sizeof path, "%s/cuda/libcuda.so.1", folder);
	lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!lib) {
		printf("# %s\n", dlerror());
		return 1;
	}
	emu = dlsym(lib, EMU_STATE);
	plugin = dlsym(lib, CX_CUDA_SYMBOL);
	sym = dlsym(lib, EMU_EXECUTES);
	if (!emu || !plugin || !sym) return 1;
	memcpy(&has_kernels, &sym, sizeof has_kernels);
	executes = has_kernels() != 0;
	fresh = *emu;
	snprintf(path, sizeof path, "%s/../cortex-cuda.so", folder);
	if (access(path, R_OK) != 0) opens_not(CX_ERR_UNSUPPORTED, "cortex-cuda.so is neither beside");
	snprintf(path, sizeof path, "%s/cuda/libcuda.so.1", folder);
	return dlopen(path, RTLD_NOW | RTLD_GLOBAL) ? 0 : 1; /* now device code is in the process */
}

static int reset(void **state)
{
	(void)state;
	*emu = fresh;
	return 0;
}

static void test_sentences(void **state)
{
	static const struct {
		int code;
		const char *must;
	} init[] = {{100, "finds no NVIDIA device"}, {34, "stub of a toolkit"},
		{803, "of different versions"}, {804, "forward-compatible"},
		{999, "cuInit gives CUDA_ERROR_UNKNOWN (999)"}, {998, "an error of the driver (998)"}};
	cx_runtime *rt;
	cx_device *dev;
	cx_err err = {0};
	(void)state;
	for (size_t i = 0; i < sizeof init / sizeof init[0]; i++) {
		emu->init_code = init[i].code;
		opens_not(CX_ERR_DEVICE, init[i].must);
	}
	emu->init_code = 0;
	emu->n_devices = 0;
	opens_not(CX_ERR_DEVICE, "finds no NVIDIA device");
	emu->n_devices = 1;
	emu->major = 7;
	opens_not(CX_ERR_DEVICE, "compute capability 7.0");
	emu->major = 9;
	plugin->version++;
	opens_not(CX_ERR_UNSUPPORTED, "of another version");
	plugin->version--;
	assert_int_equal(cx_runtime_create(NULL, &rt, NULL), CX_OK);
	assert_int_equal(cx_device_open(rt, "cuda", 1, &dev, &err), CX_ERR_ARGUMENT);
	assert_non_null(strstr(err.msg, "has 1 device, there is no 1"));
	cx_runtime_free(rt);
}

/* ---- a model ---- */

/* Where a run may not allocate: what counts. */
static cx_fault *counter;

/* y = silu(x) + x: run, profiled, and run five times more. */
static cx_status run_model(cx_runtime *rt, cx_device *dev, float *y, cx_err *err)
{
	static const float x[4] = {1, -2, 3, 0};
	cx_plan_opts opts = {.devices = &dev, .n_devices = 1, .no_fuse = true};
	const cx_alloc *alloc = &cx_runtime_config(rt)->alloc;
	cx_graph *g = NULL;
	cx_plan *plan = NULL;
	cx_store *store = NULL;
	cx_exec *exec = NULL;
	cx_tensor t;
	cx_status st = cx_graph_create(alloc, &g, err);
	if (st != CX_OK) return st;
	t = cx_input(g, "x", CX_F32, 1, (int64_t[]){4});
	t = cx_add(g, cx_copy(g, cx_silu(g, t)), t);
	cx_output(g, "y", t);
	st = cx_graph_finish(g, err);
	if (st == CX_OK) st = cx_plan_build(g, &opts, &plan, err);
	if (st == CX_OK) st = cx_store_create(rt, &store, err);
	if (st == CX_OK) st = cx_exec_create(plan, store, &exec, err);
	if (st == CX_OK) st = cx_exec_set_input(exec, 0, x, sizeof x, err);
	if (st == CX_OK) st = cx_exec_run(exec, err);
	if (st == CX_OK) {
		double seconds[8] = {0};
		assert_true(plan->n_order <= 8);
		st = cx_exec_profile(exec, seconds, plan->n_order, err);
	}
	for (int i = 0; i < 5 && counter && st == CX_OK; i++) {
		long before = counter->n_calls, launches = emu->n_launches, replays = emu->n_replays;
		st = cx_exec_run(exec, err);
		assert_int_equal(counter->n_calls, before);
		assert_int_equal(emu->n_replays, replays + 1);
		assert_true(emu->n_launches >= launches + 2);
	}
	if (st == CX_OK) st = cx_exec_get_output(exec, 0, y, sizeof x, err);
	cx_exec_free(exec);
	cx_store_free(store);
	cx_plan_free(plan);
	cx_graph_free(g);
	return st;
}

static void check_y(const float *y)
{
	if (!executes) return;
	assert_true(y[3] == 0 && y[0] > 1.73f && y[0] < 1.74f && y[1] < -2.2f && y[1] > -2.3f);
}

/* A whole program is one launch of a graph that was captured when it was compiled; nothing runs
 * then, and a run allocates nothing. */
static void test_launches(void **state)
{
	cx_fault fault = {.countdown = -1};
	cx_config config = {.alloc = cx_alloc_fault(&fault)};
	cx_runtime *rt;
	cx_device *dev;
	cx_err err = {0};
	float y[4] = {0};
	(void)state;
	for (int pools = 0; pools < 2; pools++) {
		*emu = fresh;
		emu->no_pools = emu->no_pinned = !pools;
		assert_int_equal(open_at(&config, &rt, &dev, &err), CX_OK);
		counter = &fault;
		if (run_model(rt, dev, y, &err) != CX_OK) fail_msg("%s", err.msg);
		counter = NULL;
		check_y(y);
		assert_true(emu->n_captured >= 2);
		assert_int_equal(emu->n_replays, 6);
		assert_true(emu->n_launches >= 2 * (6 + 1)); /* two kernels: in graphs, and when profiled */
		assert_string_equal(emu->last, "cx_map_item");
		close_both(rt, dev);
		assert_int_equal(emu->n_live, 0);
		assert_int_equal(emu->n_misused, 0);
		assert_int_equal(fault.n_live, 0);
	}
}

/* f32 products have a module of their own, others the general one; the same bits of a row whatever
 * the number of rows. */
static void test_modules(void **state)
{
	static const struct {
		cx_dtype w, x;
		const char *module;
	} cases[] = {{CX_F32, CX_F32, " matmul-0.0.0 "}, {CX_F16, CX_F32, " matmul "},
		{CX_Q4_K, CX_F32, " matmul "}, {CX_BF16, CX_BF16, " matmul "}};
	cx_runtime *rt;
	cx_device *dev;
	cx_err err = {0};
	(void)state;
	assert_int_equal(open_at(NULL, &rt, &dev, &err), CX_OK);
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		product p = product_make(cases[i].w, 64, 96, 256);
		float *all, *one;
		p.x_dtype = cases[i].x;
		all = product_run(rt, dev, &p, 64);
		one = product_run(rt, dev, &p, 1);
		assert_memory_equal(all, one, 96 * sizeof *one);
		assert_non_null(strstr(emu->modules, cases[i].module));
		free(all);
		free(one);
		if (cases[i].w == CX_F32) product_check_times(rt, dev, &p);
		product_free(&p);
	}
	close_both(rt, dev);
	assert_int_equal(emu->n_misused, 0);
	assert_int_equal(emu->n_live, 0);
}

/* ---- failures ---- */

/* Calls from that of cuDeviceGetCount on, each failing once, by `code`. */
static long each_call_fails(int code, cx_status want)
{
	for (long call = 0;; call++) {
		cx_runtime *rt;
		cx_device *dev;
		cx_err err = {0}, again = {0};
		float y[4] = {0};
		bool opened;
		cx_status st;
		*emu = fresh;
		emu->code = code;
		emu->countdown = call;
		st = open_at(NULL, &rt, &dev, &err);
		opened = st == CX_OK;
		if (opened) st = run_model(rt, dev, y, &err);
		if (!emu->fired) {
			assert_int_equal(st, CX_OK);
			check_y(y);
			close_both(rt, dev);
			assert_int_equal(emu->n_live, 0);
			return call;
		}
		if (st != CX_OK) { /* what fails in freeing has nobody to tell; pinned memory is a wish */
			assert_int_equal(st, want);
			assert_non_null(strstr(err.msg, " cu"));
			if (want == CX_ERR_DEVICE) assert_non_null(strstr(err.msg, "CUDA_ERROR_LAUNCH_FAILED"));
			else assert_non_null(strstr(err.msg, "out of memory"));
		}
		if (st != CX_OK && opened) {
			assert_true(dev->failed == (want == CX_ERR_DEVICE));
			st = run_model(rt, dev, y, &again);
			assert_int_equal(st, want == CX_ERR_DEVICE ? CX_ERR_DEVICE : CX_OK);
			if (want == CX_ERR_DEVICE) assert_non_null(strstr(again.msg, "failed before"));
			else check_y(y); /* a device that was full goes on */
		}
		close_both(rt, dev);
		if (emu->n_live != 0) fail_msg("call %ld leaves %ld objects", call, emu->n_live);
		assert_int_equal(emu->n_misused, 0);
	}
}

static void test_every_call(void **state)
{
	long n;
	(void)state;
	n = each_call_fails(719, CX_ERR_DEVICE);
	assert_true(n > 40);
	assert_int_equal(each_call_fails(CX_CU_OUT_OF_MEMORY, CX_ERR_MEMORY), n);
	print_message("# %ld driver calls, each made to fail, and to run out of memory\n", n);
}

static void test_every_allocation(void **state)
{
	cx_fault fault = {.countdown = -1};
	cx_config config = {.alloc = cx_alloc_fault(&fault)};
	long n;
	(void)state;
	for (n = 0;; n++) {
		cx_runtime *rt;
		cx_device *dev;
		cx_err err = {0};
		float y[4];
		cx_status st;
		fault = (cx_fault){.countdown = -1};
		assert_int_equal(cx_runtime_create(&config, &rt, &err), CX_OK);
		fault.countdown = n;
		st = cx_device_open(rt, "cuda", 0, &dev, &err);
		if (st == CX_OK) st = run_model(rt, dev, y, &err);
		assert_int_equal(st, fault.fired ? CX_ERR_MEMORY : CX_OK);
		assert_true((err.msg[0] != 0) == fault.fired);
		if (dev) assert_false(dev->failed);
		close_both(rt, dev);
		assert_int_equal(fault.n_live, 0);
		assert_int_equal(emu->n_live, 0);
		if (!fault.fired) break;
	}
	print_message("# %ld allocations, each made to fail\n", n);
	assert_true(n > 10);
}

static void test_old_driver(void **state)
{
	cx_runtime *rt;
	cx_device *dev;
	cx_err err = {0};
	float y[4];
	(void)state;
	emu->load_code = CX_CU_PTX_VERSION;
	assert_int_equal(open_at(NULL, &rt, &dev, &err), CX_OK);
	assert_int_equal(run_model(rt, dev, y, &err), CX_ERR_DEVICE);
	assert_non_null(strstr(err.msg, "driver (CUDA 12.4) does not take the kernels 'map'"));
	assert_true(dev->failed);
	close_both(rt, dev);
	assert_int_equal(emu->n_live, 0);
}

static void test_limits(void **state)
{
	cx_runtime *rt;
	cx_device *dev;
	cx_limits limits;
	cx_buffer *buf = NULL;
	cx_err err = {0};
	char *big = calloc(1, 3 << 20), two[2] = {1, 2};
	(void)state;
	assert_non_null(big);
	assert_int_equal(open_at(NULL, &rt, &dev, &err), CX_OK);
	dev->backend->limits(dev, &limits);
	assert_int_equal(
		dev->backend->alloc(dev, limits.max_buffer + 1, NULL, &buf, &err), CX_ERR_MEMORY);
	assert_null(buf);
	assert_non_null(strstr(err.msg, "larger than its limit"));
	assert_int_equal(dev->backend->alloc(dev, 0, NULL, &buf, &err), CX_OK);
	assert_int_equal(dev->backend->write(buf, 0, two, 2, &err), CX_ERR_ARGUMENT);
	assert_int_equal(dev->backend->read(buf, 1, two, 0, NULL), CX_ERR_ARGUMENT);
	dev->backend->free(buf);
	/* Writes small and large, through staging more than once round; zeros before them. */
	assert_int_equal(dev->backend->alloc(dev, 3 << 20, NULL, &buf, &err), CX_OK);
	assert_int_equal(dev->backend->read(buf, (3 << 20) - 2, two, 2, &err), CX_OK);
	assert_true(two[0] == 0 && two[1] == 0);
	for (int i = 0; i < 20; i++) {
		memset(big, i, 3 << 20);
		assert_int_equal(
			dev->backend->write(buf, 5, big, i % 5 ? 900001 : (3 << 20) - 5, &err), CX_OK);
		assert_int_equal(dev->backend->read(buf, 900004, two, 2, &err), CX_OK);
		assert_true(two[0] == i && two[1] == (i % 5 ? i : i - i % 5));
	}
	dev->backend->free(buf);
	close_both(rt, dev);
	assert_int_equal(emu->n_live, 0);
	free(big);
}

/* ---- the plug-in ---- */

/* Device code alone: it needs no library, and each image is a fat binary for a family. */
static void test_plugin(void **state)
{
	char path[1200], line[300];
	const cx_cuda_plugin *p;
	void *lib;
	FILE *f;
	int n = 0;
	(void)state;
	snprintf(path, sizeof path, "%s/../cortex-cuda.so", folder);
	if (access(path, R_OK) != 0) {
		printf("# no plug-in was built (make CUDA=yes): its content is not looked at\n");
		skip();
	}
	lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	assert_non_null(lib);
	p = dlsym(lib, CX_CUDA_SYMBOL);
	assert_non_null(p);
	assert_int_equal(p->version, CX_CUDA_VERSION);
	assert_int_equal(p->params_bytes, sizeof(struct cx_kparams));
	for (const cx_cuda_image *m = p->images; m->name; m++, n++) {
		uint32_t magic;
		assert_true(m->bytes > 1000);
		memcpy(&magic, m->data, sizeof magic);
		assert_int_equal(magic, 0xba55ed50);
	}
	for (const cx_cuda_image *m = plugin->images; m->name; m++) { /* what the emulation has */
		const cx_cuda_image *same = p->images;
		while (same->name && strcmp(same->name, m->name) != 0) same++;
		assert_non_null(same->name);
	}
	dlclose(lib);
	snprintf(line, sizeof line, "readelf -d '%.200s' 2>&1", path);
	f = popen(line, "r");
	assert_non_null(f);
	while (fgets(line, sizeof line, f)) assert_null(strstr(line, "NEEDED"));
	pclose(f);
	printf("# the plug-in: %d images, no library that it needs\n", n);
}

/* ---- the grid ---- */

static void test_grid_part(void **state)
{
	char program[1100], preload[1100];
	int status = 0;
	pid_t pid;
	(void)state;
	snprintf(program, sizeof program, "%s/test_grid", folder);
	snprintf(preload, sizeof preload, "%s/cuda/libcuda.so.1", folder);
#if defined(__SANITIZE_ADDRESS__)
	executes = false; /* its runtime must be the first library */
#endif
	if (!executes || access(program, X_OK) != 0) {
		printf("# the grid is not run: no C++ compiler, no test_grid, or a sanitizer\n");
		skip();
	}
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		setenv("LD_PRELOAD", preload, 1);
		setenv("CX_GRID_BACKENDS", "cuda", 1);
		setenv("CX_GRID_CASES", "0-19", 1);
		setenv("CX_GRID_SECONDS", "60", 1);
		setenv("CX_GRID_MODELS", "0", 1);
		if (!freopen("/dev/null", "w", stdout)) _exit(1);
		execl(program, program, (char *)NULL);
		_exit(127);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_sentences, reset),
		cmocka_unit_test_setup(test_launches, reset),
		cmocka_unit_test_setup(test_modules, reset),
		cmocka_unit_test_setup(test_every_call, reset),
		cmocka_unit_test_setup(test_every_allocation, reset),
		cmocka_unit_test_setup(test_old_driver, reset),
		cmocka_unit_test_setup(test_limits, reset),
		cmocka_unit_test_setup(test_plugin, reset),
		cmocka_unit_test(test_grid_part),
	};
	return cmocka_run_group_tests(tests, look, NULL);
}
