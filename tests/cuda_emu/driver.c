/* driver.c - the functions of libcuda.so.1 that backends/cuda calls, and the plug-in's symbol.
 * Return values are checked as a driver would: a context, live objects. See emu.h. */
#include "backends/cuda/cuda.h"
#include "tests/cuda_emu/emu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define API __attribute__((visibility("default")))

/* With the name of a family and no function at the end; absent where there is no C++ compiler. */
extern const emu_kernel *const emu_kernels[] __attribute__((weak));

API extern emu_state emu_state_of_tests;
emu_state emu_state_of_tests = {.countdown = -1, .code = 719, .n_devices = 1, .major = 9};
static emu_state *const emu = &emu_state_of_tests;

API int emu_executes(void);
int emu_executes(void)
{
	return emu_kernels != NULL;
}

/* ---- the plug-in ---- */

#define IMAGE(name)                                                                                \
	{                                                                                              \
		name, name, sizeof name                                                                    \
	}
static const cx_cuda_image images[] = {IMAGE("attn"), IMAGE("gen"), IMAGE("grad"), IMAGE("map"),
	IMAGE("matmul"), IMAGE("matmul-0.0.0"), IMAGE("move"), IMAGE("reduce"), IMAGE("row"),
	IMAGE("seq"), {NULL, NULL, 0}};
API extern cx_cuda_plugin cx_cuda_device_code;
cx_cuda_plugin cx_cuda_device_code = {
	CX_CUDA_VERSION, sizeof(struct cx_kparams), "0.0 (emulated)", images};

/* ---- objects ---- */

struct CUmod_st {
	char name[64], family[64];
};
struct CUfunc_st {
	const emu_kernel *kernel;
	struct CUmod_st *module;
	char name[64];
	struct CUfunc_st *next;
};
struct CUevent_st {
	double at;
};
typedef struct op {
	struct op *next;
	int kind; /* 0 kernel, 1 copy, 2 fill */
	cx_cu_function function;
	emu_index grid, group;
	uint32_t n_args;
	cx_cu_ptr at[CX_DK_ARGS];
	struct cx_kparams p;
	size_t bytes;
} op;
struct CUgraph_st {
	op *ops;
};
struct CUgraphExec_st {
	op *ops;
};
struct CUstream_st {
	bool capturing, broken;
	op *ops, **last;
};
static struct CUfunc_st *functions; /* of modules that are loaded */
static int retained;
static bool current; /* the thread's context */

/* A call: does it fail? */
static bool fails(void)
{
	emu->n_calls++;
	if (emu->countdown < 0 || emu->countdown-- > 0) return false;
	emu->fired = 1;
	return true;
}
#define CALL                                                                                       \
	if (fails()) return emu->code
#define INSIDE                                                                                     \
	CALL;                                                                                          \
	if (!current) return emu->n_misused++, 201

static void drop_ops(op *o)
{
	while (o) {
		op *next = o->next;
		free(o);
		o = next;
	}
}

static cx_cu_result run(op *o)
{
	void *args[CX_DK_ARGS + 1];
	if (o->kind == 1) memmove((void *)(uintptr_t)o->at[0], (void *)(uintptr_t)o->at[1], o->bytes);
	if (o->kind == 2) memset((void *)(uintptr_t)o->at[0], 0, o->bytes);
	if (o->kind != 0) return 0;
	emu->n_launches++;
	for (uint32_t i = 0; i < o->n_args; i++) args[i] = &o->at[i];
	args[o->n_args] = &o->p;
	if (o->function->kernel)
		emu->n_misused += emu_run(o->function->kernel, o->grid, o->group, args);
	return 0;
}

/* Runs it, or keeps it in the graph that is captured. */
static cx_cu_result give(cx_cu_stream s, const op *o)
{
	op *copy;
	if (!s->capturing) {
		op once = *o;
		return run(&once);
	}
	copy = malloc(sizeof *copy);
	if (!copy) return CX_CU_OUT_OF_MEMORY;
	*copy = *o;
	copy->next = NULL;
	*s->last = copy;
	s->last = &copy->next;
	emu->n_captured++;
	return 0;
}

/* ---- driver, devices, contexts ---- */

API cx_cu_result cuInit(unsigned flags);
cx_cu_result cuInit(unsigned flags)
{
	return flags ? 1 : emu->init_code;
}

API cx_cu_result cuDriverGetVersion(int *version);
cx_cu_result cuDriverGetVersion(int *version)
{
	*version = 12040;
	return 0;
}

API cx_cu_result cuGetErrorName(cx_cu_result code, const char **name);
cx_cu_result cuGetErrorName(cx_cu_result code, const char **name)
{
	*name = code == 719 ? "CUDA_ERROR_LAUNCH_FAILED" : code == 999 ? "CUDA_ERROR_UNKNOWN" : NULL;
	return *name ? 0 : 1;
}

API cx_cu_result cuDeviceGetCount(int *n);
cx_cu_result cuDeviceGetCount(int *n)
{
	CALL;
	*n = emu->n_devices;
	return 0;
}

API cx_cu_result cuDeviceGet(cx_cu_device *dev, int index);
cx_cu_result cuDeviceGet(cx_cu_device *dev, int index)
{
	CALL;
	*dev = index;
	return index < emu->n_devices ? 0 : 101;
}

API cx_cu_result cuDeviceGetName(char *name, int size, cx_cu_device dev);
cx_cu_result cuDeviceGetName(char *name, int size, cx_cu_device dev)
{
	snprintf(name, (size_t)size, "emulated device %d", dev);
	return 0;
}

API cx_cu_result cuDeviceGetAttribute(int *value, int attr, cx_cu_device dev);
cx_cu_result cuDeviceGetAttribute(int *value, int attr, cx_cu_device dev)
{
	(void)dev;
	*value = attr == CX_CU_ATTR_MAJOR             ? emu->major
			 : attr == CX_CU_ATTR_MULTIPROCESSORS ? 4
			 : attr == CX_CU_ATTR_POOLS           ? !emu->no_pools
												  : 0;
	return 0;
}

API cx_cu_result cuDeviceTotalMem_v2(size_t *bytes, cx_cu_device dev);
cx_cu_result cuDeviceTotalMem_v2(size_t *bytes, cx_cu_device dev)
{
	(void)dev;
	*bytes = (size_t)1 << 30;
	return 0;
}

API cx_cu_result cuDevicePrimaryCtxRetain(cx_cu_context *ctx, cx_cu_device dev);
cx_cu_result cuDevicePrimaryCtxRetain(cx_cu_context *ctx, cx_cu_device dev)
{
	(void)dev;
	CALL;
	*ctx = (cx_cu_context)(void *)&retained;
	retained++;
	emu->n_live++;
	return 0;
}

API cx_cu_result cuDevicePrimaryCtxRelease_v2(cx_cu_device dev);
cx_cu_result cuDevicePrimaryCtxRelease_v2(cx_cu_device dev)
{
	(void)dev;
	if (retained-- <= 0) emu->n_misused++;
	emu->n_live--;
	return 0;
}

API cx_cu_result cuCtxSetCurrent(cx_cu_context ctx);
cx_cu_result cuCtxSetCurrent(cx_cu_context ctx)
{
	if (ctx) CALL;
	current = ctx != NULL;
	return 0;
}

/* ---- streams, events ---- */

API cx_cu_result cuStreamCreate(cx_cu_stream *stream, unsigned flags);
cx_cu_result cuStreamCreate(cx_cu_stream *stream, unsigned flags)
{
	(void)flags;
	INSIDE;
	*stream = calloc(1, sizeof **stream);
	emu->n_live++;
	return 0;
}

API cx_cu_result cuStreamDestroy_v2(cx_cu_stream stream);
cx_cu_result cuStreamDestroy_v2(cx_cu_stream stream)
{
	if (stream->capturing) emu->n_misused++;
	free(stream);
	emu->n_live--;
	return 0;
}

API cx_cu_result cuStreamSynchronize(cx_cu_stream stream);
cx_cu_result cuStreamSynchronize(cx_cu_stream stream)
{
	INSIDE;
	if (stream->capturing) return emu->n_misused++, 900;
	return 0;
}

API cx_cu_result cuEventCreate(cx_cu_event *event, unsigned flags);
cx_cu_result cuEventCreate(cx_cu_event *event, unsigned flags)
{
	(void)flags;
	INSIDE;
	*event = calloc(1, sizeof **event);
	emu->n_live++;
	return 0;
}

API cx_cu_result cuEventDestroy_v2(cx_cu_event event);
cx_cu_result cuEventDestroy_v2(cx_cu_event event)
{
	free(event);
	emu->n_live--;
	return 0;
}

API cx_cu_result cuEventRecord(cx_cu_event event, cx_cu_stream stream);
cx_cu_result cuEventRecord(cx_cu_event event, cx_cu_stream stream)
{
	struct timespec t;
	(void)stream;
	INSIDE;
	clock_gettime(CLOCK_MONOTONIC, &t);
	event->at = 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
	return 0;
}

API cx_cu_result cuEventElapsedTime(float *ms, cx_cu_event from, cx_cu_event to);
cx_cu_result cuEventElapsedTime(float *ms, cx_cu_event from, cx_cu_event to)
{
	INSIDE;
	*ms = (float)(to->at - from->at);
	return 0;
}

/* ---- memory: filled with a pattern, as none of it may be taken for zeros ---- */

static cx_cu_result take(cx_cu_ptr *p, size_t bytes)
{
	void *at = aligned_alloc(256, (bytes + 255) & ~(size_t)255);
	if (!at) return CX_CU_OUT_OF_MEMORY;
	memset(at, 0xa5, bytes);
	*p = (cx_cu_ptr)(uintptr_t)at;
	emu->n_live++;
	return 0;
}

static cx_cu_result leave(cx_cu_ptr p)
{
	free((void *)(uintptr_t)p);
	emu->n_live--;
	return 0;
}

API cx_cu_result cuMemAlloc_v2(cx_cu_ptr *p, size_t bytes);
cx_cu_result cuMemAlloc_v2(cx_cu_ptr *p, size_t bytes)
{
	INSIDE;
	return take(p, bytes);
}

API cx_cu_result cuMemFree_v2(cx_cu_ptr p);
cx_cu_result cuMemFree_v2(cx_cu_ptr p)
{
	return leave(p);
}

API cx_cu_result cuMemAllocAsync(cx_cu_ptr *p, size_t bytes, cx_cu_stream stream);
cx_cu_result cuMemAllocAsync(cx_cu_ptr *p, size_t bytes, cx_cu_stream stream)
{
	INSIDE;
	if (stream->capturing || emu->no_pools) return emu->n_misused++, 801;
	return take(p, bytes);
}

API cx_cu_result cuMemFreeAsync(cx_cu_ptr p, cx_cu_stream stream);
cx_cu_result cuMemFreeAsync(cx_cu_ptr p, cx_cu_stream stream)
{
	if (stream->capturing || emu->no_pools) emu->n_misused++;
	return leave(p);
}

API cx_cu_result cuMemAllocHost_v2(void **p, size_t bytes);
cx_cu_result cuMemAllocHost_v2(void **p, size_t bytes)
{
	INSIDE;
	if (emu->no_pinned) return CX_CU_OUT_OF_MEMORY;
	*p = malloc(bytes);
	emu->n_live++;
	return 0;
}

API cx_cu_result cuMemFreeHost(void *p);
cx_cu_result cuMemFreeHost(void *p)
{
	free(p);
	emu->n_live--;
	return 0;
}

API cx_cu_result cuMemcpyHtoDAsync_v2(
	cx_cu_ptr to, const void *from, size_t bytes, cx_cu_stream stream);
cx_cu_result cuMemcpyHtoDAsync_v2(cx_cu_ptr to, const void *from, size_t bytes, cx_cu_stream stream)
{
	INSIDE;
	if (stream->capturing) return emu->n_misused++, 900;
	memcpy((void *)(uintptr_t)to, from, bytes);
	emu->n_copies++;
	return 0;
}

API cx_cu_result cuMemcpyDtoHAsync_v2(void *to, cx_cu_ptr from, size_t bytes, cx_cu_stream stream);
cx_cu_result cuMemcpyDtoHAsync_v2(void *to, cx_cu_ptr from, size_t bytes, cx_cu_stream stream)
{
	INSIDE;
	if (stream->capturing) return emu->n_misused++, 900;
	memcpy(to, (const void *)(uintptr_t)from, bytes);
	return 0;
}

API cx_cu_result cuMemcpyDtoDAsync_v2(
	cx_cu_ptr to, cx_cu_ptr from, size_t bytes, cx_cu_stream stream);
cx_cu_result cuMemcpyDtoDAsync_v2(cx_cu_ptr to, cx_cu_ptr from, size_t bytes, cx_cu_stream stream)
{
	op o = {.kind = 1, .at = {to, from}, .bytes = bytes};
	INSIDE;
	return give(stream, &o);
}

API cx_cu_result cuMemsetD8Async(
	cx_cu_ptr to, unsigned char value, size_t bytes, cx_cu_stream stream);
cx_cu_result cuMemsetD8Async(cx_cu_ptr to, unsigned char value, size_t bytes, cx_cu_stream stream)
{
	op o = {.kind = 2, .at = {to}, .bytes = bytes};
	INSIDE;
	if (value) return 1;
	return give(stream, &o);
}

/* ---- modules, launches ---- */

API cx_cu_result cuModuleLoadData(cx_cu_module *module, const void *image);
cx_cu_result cuModuleLoadData(cx_cu_module *module, const void *image)
{
	char *dash;
	INSIDE;
	if (emu->load_code) return emu->load_code;
	*module = calloc(1, sizeof **module);
	snprintf((*module)->name, sizeof(*module)->name, "%s", (const char *)image);
	snprintf((*module)->family, sizeof(*module)->family, "%s", (const char *)image);
	dash = strchr((*module)->family, '-');
	if (dash) *dash = 0;
	snprintf(emu->modules + strlen(emu->modules), sizeof emu->modules - strlen(emu->modules),
		" %s ", (const char *)image);
	emu->n_live++;
	return 0;
}

API cx_cu_result cuModuleUnload(cx_cu_module module);
cx_cu_result cuModuleUnload(cx_cu_module module)
{
	for (struct CUfunc_st **f = &functions; *f;) {
		struct CUfunc_st *gone = *f;
		if (gone->module != module) {
			f = &gone->next;
			continue;
		}
		*f = gone->next;
		free(gone);
	}
	free(module);
	emu->n_live--;
	return 0;
}

static const emu_kernel *kernel_of(const char *family, const char *name)
{
	for (int i = 0; emu_kernels[i]; i++)
		for (const emu_kernel *k = emu_kernels[i]; k->name; k++)
			if (!strcmp(k->family, family) && !strcmp(k->name, name)) return k;
	return NULL;
}

API cx_cu_result cuModuleGetFunction(
	cx_cu_function *function, cx_cu_module module, const char *name);
cx_cu_result cuModuleGetFunction(cx_cu_function *function, cx_cu_module module, const char *name)
{
	struct CUfunc_st *f;
	INSIDE;
	f = calloc(1, sizeof *f);
	f->module = module;
	f->kernel = emu_kernels ? kernel_of(module->family, name) : NULL;
	snprintf(f->name, sizeof f->name, "%s", name);
	f->next = functions;
	functions = f;
	*function = f;
	return emu_kernels && !f->kernel ? 500 : 0;
}

API cx_cu_result cuLaunchKernel(cx_cu_function f, unsigned gx, unsigned gy, unsigned gz,
	unsigned bx, unsigned by, unsigned bz, unsigned bytes, cx_cu_stream stream, void **args,
	void **extra);
cx_cu_result cuLaunchKernel(cx_cu_function f, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
	unsigned by, unsigned bz, unsigned bytes, cx_cu_stream stream, void **args, void **extra)
{
	op o = {.function = f, .grid = {gx, gy, gz}, .group = {bx, by, bz}};
	INSIDE;
	if (!gx || !gy || !gz || bx * by * bz == 0 || gy > 65535 || gz > 65535 || bytes || extra)
		return emu->n_misused++, 1;
	o.n_args = f->kernel ? f->kernel->n_args : 0;
	for (uint32_t i = 0; i < o.n_args; i++) o.at[i] = *(const cx_cu_ptr *)args[i];
	if (f->kernel) o.p = *(const struct cx_kparams *)args[o.n_args];
	snprintf(emu->last, sizeof emu->last, "%s", f->name);
	return give(stream, &o);
}

/* ---- graphs ---- */

API cx_cu_result cuStreamBeginCapture_v2(cx_cu_stream stream, int mode);
cx_cu_result cuStreamBeginCapture_v2(cx_cu_stream stream, int mode)
{
	(void)mode;
	INSIDE;
	if (stream->capturing) return emu->n_misused++, 1;
	stream->capturing = true;
	stream->ops = NULL;
	stream->last = &stream->ops;
	return 0;
}

API cx_cu_result cuStreamEndCapture(cx_cu_stream stream, cx_cu_graph *graph);
cx_cu_result cuStreamEndCapture(cx_cu_stream stream, cx_cu_graph *graph)
{
	bool fail = fails();
	if (!stream->capturing) return emu->n_misused++, 1;
	stream->capturing = false; /* as the driver does, whatever else happens */
	if (fail) {
		drop_ops(stream->ops);
		return emu->code;
	}
	*graph = calloc(1, sizeof **graph);
	(*graph)->ops = stream->ops;
	emu->n_live++;
	return 0;
}

API cx_cu_result cuGraphInstantiateWithFlags(
	cx_cu_exec *exec, cx_cu_graph graph, unsigned long long flags);
cx_cu_result cuGraphInstantiateWithFlags(
	cx_cu_exec *exec, cx_cu_graph graph, unsigned long long flags)
{
	op **last;
	(void)flags;
	INSIDE;
	*exec = calloc(1, sizeof **exec);
	last = &(*exec)->ops;
	for (const op *o = graph->ops; o; o = o->next) {
		*last = malloc(sizeof **last);
		**last = *o;
		(*last)->next = NULL;
		last = &(*last)->next;
	}
	emu->n_live++;
	return 0;
}

API cx_cu_result cuGraphDestroy(cx_cu_graph graph);
cx_cu_result cuGraphDestroy(cx_cu_graph graph)
{
	drop_ops(graph->ops);
	free(graph);
	emu->n_live--;
	return 0;
}

API cx_cu_result cuGraphExecDestroy(cx_cu_exec exec);
cx_cu_result cuGraphExecDestroy(cx_cu_exec exec)
{
	drop_ops(exec->ops);
	free(exec);
	emu->n_live--;
	return 0;
}

API cx_cu_result cuGraphLaunch(cx_cu_exec exec, cx_cu_stream stream);
cx_cu_result cuGraphLaunch(cx_cu_exec exec, cx_cu_stream stream)
{
	INSIDE;
	if (stream->capturing) return emu->n_misused++, 900;
	emu->n_replays++;
	for (op *o = exec->ops; o; o = o->next) run(o);
	return 0;
}
