/* test_vulkan_driver.c - the vulkan backend when things go wrong: every driver call made to fail in
 * turn, by a lost device and by want of device memory, a machine without a driver, one without a
 * loader. The validation layer watches that nothing is left behind. */
#include "tests/vulkan_env.h"

#include "backends/vulkan/vk.h"
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

static bool have_device;

/* While set, there is no Vulkan loader to be found: this dlopen() stands before the C library's. */
static bool hide_loader;
void *dlopen(const char *file, int flags)
{
	static void *(*real)(const char *, int);
	if (hide_loader && file && strstr(file, "libvulkan")) return NULL;
	if (!real) {
		void *sym = dlsym(RTLD_NEXT, "dlopen");
		memcpy(&real, &sym, sizeof sym);
	}
	return real(file, flags);
}

static void on_log(void *ctx, cx_log_level level, const char *where, const char *msg)
{
	int *n = ctx;
	if (level < CX_LOG_ERROR || strcmp(where, "vulkan") != 0) return;
	if ((*n)++ < 10) printf("%.400s\n", msg);
}

static int look(void **state)
{
	cx_runtime *rt;
	cx_device *dev;
	(void)state;
	vulkan_env();
	have_device = vulkan_open(1, &rt, &dev);
	if (!have_device) return 0;
	cx_device_close(dev);
	cx_runtime_free(rt);
	return 0;
}

/* y = silu(x x') + x of the identity: products, elementwise ops, a copy, and times of the steps. */
static cx_status run_model(cx_runtime *rt, cx_device *dev, float *y, cx_err *err)
{
	static const float x[16] = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1};
	static const int64_t dim[2] = {4, 4};
	cx_plan_opts opts = {.devices = &dev, .n_devices = 1, .no_fuse = true};
	const cx_alloc *alloc = &cx_runtime_config(rt)->alloc;
	cx_attr_matmul trans = {.trans_b = true};
	cx_graph *g = NULL;
	cx_plan *plan = NULL;
	cx_store *store = NULL;
	cx_exec *exec = NULL;
	cx_tensor t;
	cx_status st = cx_graph_create(alloc, &g, err);
	if (st != CX_OK) return st;
	t = cx_input(g, "x", CX_F32, 2, dim);
	t = cx_add(g, cx_copy(g, cx_silu(g, cx_matmul(g, t, t, &trans))), t);
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
	if (st == CX_OK) st = cx_exec_get_output(exec, 0, y, sizeof x, err);
	cx_exec_free(exec);
	cx_store_free(store);
	cx_plan_free(plan);
	cx_graph_free(g);
	return st;
}

static void check_result(const float *y)
{
	for (int i = 0; i < 16; i++) {
		float want = i % 5 ? 0 : 1.7310586f;
		assert_true(y[i] >= want - 1e-5f && y[i] <= want + 1e-5f);
	}
}

/* ---- driver calls ---- */

/* The call that fails, counted over all calls that can. */
static long calls_left;
static const char *failed_call;
static VkResult with;
static cx_vk_fns real;

static bool fails(const char *name)
{
	if (calls_left-- != 0) return false;
	failed_call = name;
	return true;
}

#define FAILING(name, params, args)                                                                \
	static VkResult VKAPI_CALL fail_##name params                                                  \
	{                                                                                              \
		return fails(#name) ? with : real.name args;                                               \
	}
#define MAKING(name, info, type)                                                                   \
	FAILING(                                                                                       \
		name, (VkDevice d, const info *i, const VkAllocationCallbacks *a, type *o), (d, i, a, o))
MAKING(CreateBuffer, VkBufferCreateInfo, VkBuffer)
MAKING(CreateBufferView, VkBufferViewCreateInfo, VkBufferView)
MAKING(AllocateMemory, VkMemoryAllocateInfo, VkDeviceMemory)
MAKING(CreateCommandPool, VkCommandPoolCreateInfo, VkCommandPool)
MAKING(CreateShaderModule, VkShaderModuleCreateInfo, VkShaderModule)
MAKING(CreatePipelineLayout, VkPipelineLayoutCreateInfo, VkPipelineLayout)
MAKING(CreateDescriptorSetLayout, VkDescriptorSetLayoutCreateInfo, VkDescriptorSetLayout)
MAKING(CreateDescriptorPool, VkDescriptorPoolCreateInfo, VkDescriptorPool)
FAILING(BindBufferMemory, (VkDevice d, VkBuffer b, VkDeviceMemory m, VkDeviceSize o), (d, b, m, o))
FAILING(MapMemory,
	(VkDevice d, VkDeviceMemory m, VkDeviceSize o, VkDeviceSize n, VkMemoryMapFlags f, void **p),
	(d, m, o, n, f, p))
FAILING(AllocateCommandBuffers,
	(VkDevice d, const VkCommandBufferAllocateInfo *i, VkCommandBuffer *o), (d, i, o))
FAILING(AllocateDescriptorSets,
	(VkDevice d, const VkDescriptorSetAllocateInfo *i, VkDescriptorSet *o), (d, i, o))
FAILING(BeginCommandBuffer, (VkCommandBuffer c, const VkCommandBufferBeginInfo *i), (c, i))
FAILING(EndCommandBuffer, (VkCommandBuffer c), (c))
FAILING(QueueSubmit, (VkQueue q, uint32_t n, const VkSubmitInfo *i, VkFence f), (q, n, i, f))
FAILING(ResetFences, (VkDevice d, uint32_t n, const VkFence *f), (d, n, f))
FAILING(CreateComputePipelines,
	(VkDevice d, VkPipelineCache c, uint32_t n, const VkComputePipelineCreateInfo *i,
		const VkAllocationCallbacks *a, VkPipeline *o),
	(d, c, n, i, a, o))
FAILING(GetQueryPoolResults,
	(VkDevice d, VkQueryPool p, uint32_t f, uint32_t n, size_t s, void *o, VkDeviceSize t,
		VkQueryResultFlags g),
	(d, p, f, n, s, o, t, g))

/* The device is done all the same, so that what it used may be destroyed. */
static VkResult VKAPI_CALL fail_WaitForFences(
	VkDevice d, uint32_t n, const VkFence *f, VkBool32 all, uint64_t t)
{
	VkResult r = real.WaitForFences(d, n, f, all, t);
	return fails("WaitForFences") ? with : r;
}

static void make_fail(cx_device *dev, long call, VkResult result)
{
	cx_vk_fns *vk = &((cx_vk_device *)dev)->vk;
	real = *vk;
	calls_left = call;
	failed_call = NULL;
	with = result;
#define X(name) vk->name = fail_##name;
	X(CreateBuffer)
	X(CreateBufferView)
	X(AllocateMemory)
	X(CreateCommandPool)
	X(CreateShaderModule)
	X(CreatePipelineLayout)
	X(CreateDescriptorSetLayout)
	X(CreateDescriptorPool)
	X(BindBufferMemory)
	X(MapMemory)
	X(AllocateCommandBuffers)
	X(AllocateDescriptorSets)
	X(BeginCommandBuffer)
	X(EndCommandBuffer)
	X(QueueSubmit)
	X(ResetFences)
	X(CreateComputePipelines)
	X(GetQueryPoolResults)
	X(WaitForFences)
#undef X
}

/* What a failed run says, and what the device is good for afterwards. */
static void check_failure(
	cx_runtime *rt, cx_device *dev, VkResult result, cx_status st, const cx_err *err)
{
	cx_err again = {0};
	float y[16] = {0};
	bool lost = result == VK_ERROR_DEVICE_LOST;
	if (st != (lost ? CX_ERR_DEVICE : CX_ERR_MEMORY) ||
		!strstr(err->msg, lost ? "the device was lost" : "out of device memory") ||
		!strstr(err->msg, "vulkan:0"))
		fail_msg("vk%s: status %s, '%s'", failed_call, cx_status_name(st), err->msg);
	if (lost) assert_true(dev->failed);
	st = run_model(rt, dev, y, &again);
	if (dev->failed) {
		assert_int_equal(st, CX_ERR_DEVICE);
		assert_non_null(strstr(again.msg, "failed earlier"));
	} else { /* memory may be there the next time */
		if (st != CX_OK) fail_msg("after vk%s: %s", failed_call, again.msg);
		check_result(y);
	}
}

static void every_call(VkResult result)
{
	int n_messages = 0;
	long call;
	for (call = 0;; call++) {
		cx_fault fault = {.countdown = -1};
		cx_config config = {
			.alloc = cx_alloc_fault(&fault), .log = on_log, .log_ctx = &n_messages, .validate = 1};
		cx_runtime *rt;
		cx_device *dev;
		cx_err err = {0};
		float y[16] = {0};
		cx_status st;
		bool fired;
		assert_int_equal(cx_runtime_create(&config, &rt, &err), CX_OK);
		assert_int_equal(cx_device_open(rt, "vulkan", 0, &dev, &err), CX_OK);
		make_fail(dev, call, result);
		st = run_model(rt, dev, y, &err);
		fired = failed_call != NULL;
		if (fired) check_failure(rt, dev, result, st, &err);
		else if (st == CX_OK) check_result(y);
		else fail_msg("%s", err.msg);
		cx_device_close(dev); /* the layer names what was not destroyed */
		cx_runtime_free(rt);
		assert_int_equal(fault.n_live, 0);
		if (n_messages) fail_msg("validation messages after vk%s", failed_call);
		if (!fired) break;
	}
	print_message("# %ld driver calls, each made to fail: %s\n", call, cx__vk_result(result));
	assert_true(call > 30);
}

static void test_lost(void **state)
{
	(void)state;
	if (!have_device) skip();
	every_call(VK_ERROR_DEVICE_LOST);
}

static void test_no_memory(void **state)
{
	(void)state;
	if (!have_device) skip();
	every_call(VK_ERROR_OUT_OF_DEVICE_MEMORY);
}

/* ---- machines without ---- */

/* In a process of its own; the sentence must contain `must`. */
static void open_without(const char *drivers, bool loader, const char *must)
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
		if (drivers) {
			setenv("VK_DRIVER_FILES", drivers, 1);
			setenv("VK_ICD_FILENAMES", drivers, 1);
		}
		hide_loader = !loader;
		if (cx_runtime_create(NULL, &rt, &err) != CX_OK) _exit(6);
		st = cx_device_open(rt, "vulkan", 0, &dev, &err);
		if (st == CX_ERR_DEVICE && !dev && strstr(err.msg, must)) _exit(0);
		fprintf(stderr, "status %d: %s\n", (int)st, err.msg);
		_exit(7);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (!WIFEXITED(status)) fail_msg("opening ended the process with signal %d", WTERMSIG(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_no_driver(void **state)
{
	(void)state;
	if (!have_device) skip();
	open_without("/nowhere/at/all.json", true, "driver");
}

static void test_no_loader(void **state)
{
	(void)state;
	open_without(NULL, false, "libvulkan.so.1 cannot be loaded");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_loader),
		cmocka_unit_test(test_no_driver),
		cmocka_unit_test(test_lost),
		cmocka_unit_test(test_no_memory),
	};
	return cmocka_run_group_tests_name("vulkan_driver", tests, look, NULL);
}
