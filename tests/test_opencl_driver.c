/* test_opencl_driver.c - the opencl backend when things go wrong: every driver call made to fail in
 * turn, every allocation, a lost device, buffers that are too large, a damaged program cache, a
 * driver that would end the process. */
#include "tests/cpu_run.h"
#include "tests/product.h"

#include "graph/plan.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#ifdef CX_HAVE_OPENCL
#include "backends/opencl/opencl.h"

static bool have_device;

/* Once look() has found a device, runtimes are told so: to probe again would fork a process that
 * has a driver's threads, whose child can hang on a lock that one of them holds. */
static cx_status open_at(const cx_config *config, cx_runtime **rt, cx_device **dev, cx_err *err)
{
	assert_int_equal(cx_runtime_create(config, rt, NULL), CX_OK);
	if (have_device) *cx__runtime_note(*rt, &cx__backend_opencl) = 1;
	return cx_device_open(*rt, "opencl", 0, dev, err);
}

static void close_both(cx_runtime *rt, cx_device *dev)
{
	cx_device_close(dev);
	cx_runtime_free(rt);
}

static int look(void **state)
{
	cx_runtime *rt;
	cx_device *dev;
	cx_err err = {0};
	(void)state;
	have_device = open_at(NULL, &rt, &dev, &err) == CX_OK;
	if (!have_device) printf("# no OpenCL device, its failures are not tested: %s\n", err.msg);
	close_both(rt, dev);
	return 0;
}

/* Where a run may not allocate: what counts. */
static cx_fault *counter;

/* y = silu(x) + x, with what is left of the device's programs: everything that a small model does.
 */
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
		long before = counter->n_calls;
		st = cx_exec_run(exec, err);
		assert_int_equal(counter->n_calls, before);
	}
	if (st == CX_OK) st = cx_exec_get_output(exec, 0, y, sizeof x, err);
	cx_exec_free(exec);
	cx_store_free(store);
	cx_plan_free(plan);
	cx_graph_free(g);
	return st;
}

/* ---- driver calls ---- */

/* The call that fails, counted over all calls that can. */
static long calls_left;
static bool call_failed;
static cx_cl_api real;

static bool fails(void)
{
	if (calls_left-- != 0) return false;
	call_failed = true;
	return true;
}

#define FAILING(name, params, args)                                                                \
	static cl_int CL_API_CALL fail_##name params                                                   \
	{                                                                                              \
		return fails() ? CL_OUT_OF_RESOURCES : real.name args;                                     \
	}
FAILING(BuildProgram,
	(cl_program p, cl_uint n, const cl_device_id *d, const char *o,
		void(CL_CALLBACK *f)(cl_program, void *), void *c),
	(p, n, d, o, f, c))
FAILING(SetKernelArg, (cl_kernel k, cl_uint i, size_t n, const void *v), (k, i, n, v))
FAILING(EnqueueNDRangeKernel,
	(cl_command_queue q, cl_kernel k, cl_uint n, const size_t *o, const size_t *g, const size_t *l,
		cl_uint ne, const cl_event *we, cl_event *e),
	(q, k, n, o, g, l, ne, we, e))
FAILING(EnqueueFillBuffer,
	(cl_command_queue q, cl_mem m, const void *p, size_t ps, size_t o, size_t n, cl_uint ne,
		const cl_event *we, cl_event *e),
	(q, m, p, ps, o, n, ne, we, e))
FAILING(EnqueueCopyBuffer,
	(cl_command_queue q, cl_mem a, cl_mem b, size_t ao, size_t bo, size_t n, cl_uint ne,
		const cl_event *we, cl_event *e),
	(q, a, b, ao, bo, n, ne, we, e))
FAILING(EnqueueReadBuffer,
	(cl_command_queue q, cl_mem m, cl_bool b, size_t o, size_t n, void *p, cl_uint ne,
		const cl_event *we, cl_event *e),
	(q, m, b, o, n, p, ne, we, e))
FAILING(EnqueueWriteBuffer,
	(cl_command_queue q, cl_mem m, cl_bool b, size_t o, size_t n, const void *p, cl_uint ne,
		const cl_event *we, cl_event *e),
	(q, m, b, o, n, p, ne, we, e))
FAILING(GetEventProfilingInfo, (cl_event e, cl_profiling_info i, size_t n, void *v, size_t *r),
	(e, i, n, v, r))
FAILING(Flush, (cl_command_queue q), (q))
FAILING(Finish, (cl_command_queue q), (q))

static cl_mem CL_API_CALL fail_CreateBuffer(
	cl_context c, cl_mem_flags f, size_t n, void *p, cl_int *code)
{
	if (!fails()) return real.CreateBuffer(c, f, n, p, code);
	*code = CL_OUT_OF_RESOURCES;
	return NULL;
}
static cl_program CL_API_CALL fail_CreateProgramWithSource(
	cl_context c, cl_uint n, const char **s, const size_t *l, cl_int *code)
{
	if (!fails()) return real.CreateProgramWithSource(c, n, s, l, code);
	*code = CL_OUT_OF_RESOURCES;
	return NULL;
}
static cl_kernel CL_API_CALL fail_CreateKernel(cl_program p, const char *name, cl_int *code)
{
	if (!fails()) return real.CreateKernel(p, name, code);
	*code = CL_OUT_OF_RESOURCES;
	return NULL;
}

static void make_fail(cx_device *dev, long call)
{
	cx_cl_api *cl = &((cx_cl_device *)dev)->cl;
	real = *cl;
	calls_left = call;
	call_failed = false;
#define X(name) cl->name = fail_##name;
	X(BuildProgram)
	X(SetKernelArg)
	X(EnqueueNDRangeKernel)
	X(EnqueueFillBuffer)
	X(EnqueueCopyBuffer)
	X(EnqueueReadBuffer)
	X(EnqueueWriteBuffer) X(Flush) X(Finish) X(GetEventProfilingInfo) X(CreateBuffer)
		X(CreateProgramWithSource) X(CreateKernel)
#undef X
}

static void test_every_call(void **state)
{
	long call;
	(void)state;
	if (!have_device) skip();
	for (call = 0;; call++) {
		cx_runtime *rt;
		cx_device *dev;
		cx_err err = {0}, again = {0};
		float y[4] = {0};
		cx_status st;
		assert_int_equal(open_at(NULL, &rt, &dev, &err), CX_OK);
		make_fail(dev, call);
		st = run_model(rt, dev, y, &err);
		if (!call_failed) {
			assert_int_equal(st, CX_OK);
			assert_true(y[3] == 0 && y[0] > 1.73f && y[0] < 1.74f);
			close_both(rt, dev);
			break;
		}
		if (st != CX_OK) { /* the last clFinish is that of freeing: nobody to tell */
			assert_int_equal(st, CX_ERR_DEVICE);
			assert_non_null(strstr(err.msg, "cl"));
			assert_non_null(strstr(err.msg, "CL_OUT_OF_RESOURCES"));
			assert_true(dev->failed);
			assert_int_equal(run_model(rt, dev, y, &again), CX_ERR_DEVICE);
			assert_non_null(strstr(again.msg, "failed before"));
		}
		close_both(rt, dev);
	}
	print_message("# %ld driver calls, each made to fail\n", call);
	assert_true(call > 20);
}

/* ---- memory ---- */

static void test_every_allocation(void **state)
{
	cx_fault fault = {.countdown = -1};
	cx_config config = {.alloc = cx_alloc_fault(&fault)};
	cx_runtime *rt;
	cx_device *dev;
	cx_err err = {0};
	long n;
	(void)state;
	if (!have_device) skip();
	for (n = 0;; n++) { /* opening, and the first program */
		float y[4];
		cx_status st;
		fault = (cx_fault){.countdown = -1};
		err = (cx_err){0};
		assert_int_equal(cx_runtime_create(&config, &rt, &err), CX_OK);
		*cx__runtime_note(rt, &cx__backend_opencl) = 1; /* probed above */
		fault.countdown = n;
		st = cx_device_open(rt, "opencl", 0, &dev, &err);
		if (st == CX_OK) st = run_model(rt, dev, y, &err);
		assert_int_equal(st, fault.fired ? CX_ERR_MEMORY : CX_OK);
		assert_true((err.msg[0] != 0) == fault.fired);
		if (dev) assert_false(dev->failed);
		close_both(rt, dev);
		assert_int_equal(fault.n_live, 0);
		if (!fault.fired) break;
	}
	print_message("# %ld allocations, each made to fail\n", n);
	assert_true(n > 10);
}

static void test_no_allocation(void **state)
{
	cx_fault fault = {.countdown = -1};
	cx_config config = {.alloc = cx_alloc_fault(&fault)};
	cx_runtime *rt;
	cx_device *dev;
	cx_err err = {0};
	float y[4];
	(void)state;
	if (!have_device) skip();
	assert_int_equal(open_at(&config, &rt, &dev, &err), CX_OK);
	counter = &fault;
	assert_int_equal(run_model(rt, dev, y, &err), CX_OK);
	counter = NULL;
	assert_true(fault.n_calls > 10);
	close_both(rt, dev);
	assert_int_equal(fault.n_live, 0);
}

static void test_limits(void **state)
{
	cx_runtime *rt;
	cx_device *dev, *none;
	cx_limits limits;
	cx_buffer *buf = NULL;
	cx_err err = {0};
	char two[2] = {1, 2};
	(void)state;
	if (!have_device) skip();
	assert_int_equal(open_at(NULL, &rt, &dev, &err), CX_OK);
	dev->backend->limits(dev, &limits);
	assert_true(limits.max_buffer > 0);
	assert_int_equal(
		dev->backend->alloc(dev, limits.max_buffer + 1, NULL, &buf, &err), CX_ERR_MEMORY);
	assert_null(buf);
	assert_non_null(strstr(err.msg, "larger than its limit"));
	err = (cx_err){0};
	assert_int_equal(cx_device_open(rt, "opencl", 4711, &none, &err), CX_ERR_ARGUMENT);
	assert_non_null(strstr(err.msg, "4711"));
	err = (cx_err){0};
	assert_int_equal(dev->backend->alloc(dev, 0, NULL, &buf, &err), CX_OK);
	assert_int_equal(dev->backend->write(buf, 0, two, 2, &err), CX_ERR_ARGUMENT);
	assert_int_equal(dev->backend->read(buf, 1, two, 0, NULL), CX_ERR_ARGUMENT);
	dev->backend->free(buf);
	close_both(rt, dev);
}

/* ---- times ---- */

static void test_times(void **state)
{
	cx_runtime *rt;
	cx_device *dev;
	cx_err err = {0};
	product p;
	(void)state;
	if (!have_device) skip();
	assert_int_equal(open_at(NULL, &rt, &dev, &err), CX_OK);
	p = product_make(CX_F16, 64, 96, 128);
	for (int i = 0; i < 2; i++) {
		p.x_dtype = i ? CX_F32 : CX_F16;
		product_check_times(rt, dev, &p);
	}
	product_free(&p);
	close_both(rt, dev);
}

/* ---- programs on disk ---- */

static int n_from_source;
static cl_program CL_API_CALL count_source(
	cl_context c, cl_uint n, const char **s, const size_t *l, cl_int *code)
{
	n_from_source++;
	return real.CreateProgramWithSource(c, n, s, l, code);
}

static int n_logged;
static void on_log(void *ctx, cx_log_level level, const char *where, const char *msg)
{
	(void)ctx;
	n_logged += level == CX_LOG_WARN && !strcmp(where, "opencl") && strstr(msg, "built anew");
}

/* Runs with a device that keeps its programs in `dir`; returns how many were built from source, and
 * leaves in n_logged how many lines said that a file was no good. */
static int run_cached(const char *dir)
{
	cx_config config = {.cache_dir = dir, .log = on_log};
	cx_runtime *rt;
	cx_device *dev;
	cx_err err = {0};
	float y[4] = {0};
	assert_int_equal(open_at(&config, &rt, &dev, &err), CX_OK);
	real = ((cx_cl_device *)dev)->cl;
	((cx_cl_device *)dev)->keeps_programs = false; /* as with a driver that does not */
	((cx_cl_device *)dev)->cl.CreateProgramWithSource = count_source;
	n_from_source = n_logged = 0;
	if (run_model(rt, dev, y, &err) != CX_OK) fail_msg("%s", err.msg);
	assert_true(y[3] == 0 && y[0] > 1.73f && y[0] < 1.74f);
	close_both(rt, dev);
	return n_from_source;
}

/* Changes every file in dir: cuts it to `keep` bytes, or flips a byte in its middle. Returns how
 * many. */
static int damage(const char *dir, long keep, bool remove_all)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	char path[1200];
	int n = 0;
	assert_non_null(d);
	while ((e = readdir(d)) != NULL) {
		if (e->d_name[0] == '.') continue;
		snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
		n++;
		if (remove_all) {
			remove(path);
		} else if (keep >= 0) {
			assert_int_equal(truncate(path, keep), 0);
		} else {
			FILE *f = fopen(path, "r+b");
			long size;
			int c;
			fseek(f, 0, SEEK_END);
			size = ftell(f);
			fseek(f, size / 2, SEEK_SET);
			c = fgetc(f);
			fseek(f, size / 2, SEEK_SET);
			fputc(c ^ 0x20, f);
			fclose(f);
		}
	}
	closedir(d);
	return n;
}

static void test_cache(void **state)
{
	char dir[] = "/tmp/cortex-opencl-XXXXXX";
	int first;
	(void)state;
	if (!have_device) skip();
	assert_non_null(mkdtemp(dir));
	first = run_cached(dir);
	assert_true(first > 0);
	assert_int_equal(run_cached(dir), 0);
	assert_int_equal(n_logged, 0);
	assert_int_equal(damage(dir, -1, false), first);
	assert_int_equal(run_cached(dir), first);
	assert_int_equal(n_logged, first);
	damage(dir, 100, false);
	assert_int_equal(run_cached(dir), first);
	damage(dir, 3, false);
	assert_int_equal(run_cached(dir), first);
	assert_int_equal(n_logged, first);
	assert_int_equal(run_cached(dir), 0);
	assert_int_equal(n_logged, 0);
	damage(dir, 0, true);
	rmdir(dir);
	assert_true(run_cached(dir) > 0); /* a folder that is not there */
}

/* ---- a driver that cannot start ---- */

/* In a process of its own, without what drivers need: the sentence, by what it must contain. */
static void open_without(const char *icds, const char *cache, const char *must)
{
	pid_t pid;
	int status = 0;
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		cx_runtime *rt;
		cx_device *dev;
		cx_err err = {0};
		cx_status st;
		unsetenv("HOME");
		unsetenv("XDG_CACHE_HOME");
		if (cache) setenv("POCL_CACHE_DIR", cache, 1);
		else unsetenv("POCL_CACHE_DIR");
		if (icds) setenv("OCL_ICD_VENDORS", icds, 1);
		have_device = false; /* probe */
		st = open_at(NULL, &rt, &dev, &err);
		_exit(st == CX_OK ? 7 : dev || st != CX_ERR_DEVICE ? 8 : strstr(err.msg, must) ? 0 : 9);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (!WIFEXITED(status)) fail_msg("opening ended the process with signal %d", WTERMSIG(status));
	if (WEXITSTATUS(status) != 0 && !(cache == NULL && WEXITSTATUS(status) == 7))
		fail_msg("opening without %s: case %d", icds ? "drivers" : "a cache folder",
			WEXITSTATUS(status));
}

static void test_no_driver(void **state)
{
	(void)state;
	if (!have_device) skip();
	open_without("/nowhere/at/all", NULL, "no device");
	open_without(NULL, NULL, "ends the process"); /* a driver that needs none opens: fine too */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_times),
		cmocka_unit_test(test_every_call),
		cmocka_unit_test(test_every_allocation),
		cmocka_unit_test(test_no_allocation),
		cmocka_unit_test(test_cache),
		cmocka_unit_test(test_no_driver),
	};
	return cmocka_run_group_tests(tests, look, NULL);
}

#else

static void test_none(void **state)
{
	(void)state;
	printf("# no OpenCL headers when this was built: the backend is not tested\n");
	skip();
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_none)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
