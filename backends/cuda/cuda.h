/* cuda.h - the inside of the CUDA backend: driver functions, device, modules, programs.
 *
 * The driver is reached by dlopen("libcuda.so.1"), and its interface is written out here, so that
 * no header or library of a vendor is needed to build this. Device code comes from the plug-in
 * cortex-cuda.so (plugin.h). One stream per device: steps see the writes of earlier ones. compile()
 * makes the launches of a program and captures them as one graph; submit() of a whole program is
 * one launch of that graph. */
#ifndef CX_CUDA_H
#define CX_CUDA_H

#include "backends/cuda/plugin.h"
#include "backends/dialect/launch.h"

extern const cx_backend cx__backend_cuda;

/* ---- driver (api.c) ---- */

typedef int cx_cu_result, cx_cu_device;
typedef unsigned long long cx_cu_ptr;
typedef struct CUctx_st *cx_cu_context;
typedef struct CUmod_st *cx_cu_module;
typedef struct CUfunc_st *cx_cu_function;
typedef struct CUstream_st *cx_cu_stream;
typedef struct CUevent_st *cx_cu_event;
typedef struct CUgraph_st *cx_cu_graph;
typedef struct CUgraphExec_st *cx_cu_exec;

enum {
	CX_CU_OK = 0,
	CX_CU_OUT_OF_MEMORY = 2,
	CX_CU_STUB_LIBRARY = 34,
	CX_CU_NO_DEVICE = 100,
	CX_CU_INVALID_IMAGE = 200,
	CX_CU_NO_BINARY = 209,
	CX_CU_PTX_VERSION = 222,
	CX_CU_MISMATCH = 803,
	CX_CU_COMPAT = 804,
	CX_CU_ATTR_MULTIPROCESSORS = 16,
	CX_CU_ATTR_MAJOR = 75,
	CX_CU_ATTR_MINOR = 76,
	CX_CU_ATTR_POOLS = 115,
	CX_CU_STREAM_NON_BLOCKING = 1,
	CX_CU_CAPTURE_THREAD_LOCAL = 1
};

/* Name, symbol, parameters. */
#define CX_CU_FUNCTIONS(X)                                                                         \
	X(Init, "cuInit", (unsigned flags))                                                            \
	X(DriverGetVersion, "cuDriverGetVersion", (int *version))                                      \
	X(GetErrorName, "cuGetErrorName", (cx_cu_result code, const char **name))                      \
	X(DeviceGetCount, "cuDeviceGetCount", (int *n))                                                \
	X(DeviceGet, "cuDeviceGet", (cx_cu_device * dev, int index))                                   \
	X(DeviceGetName, "cuDeviceGetName", (char *name, int size, cx_cu_device dev))                  \
	X(DeviceGetAttribute, "cuDeviceGetAttribute", (int *value, int attr, cx_cu_device dev))        \
	X(DeviceTotalMem, "cuDeviceTotalMem_v2", (size_t * bytes, cx_cu_device dev))                   \
	X(DevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain", (cx_cu_context * ctx, cx_cu_device dev)) \
	X(DevicePrimaryCtxRelease, "cuDevicePrimaryCtxRelease_v2", (cx_cu_device dev))                 \
	X(CtxSetCurrent, "cuCtxSetCurrent", (cx_cu_context ctx))                                       \
	X(StreamCreate, "cuStreamCreate", (cx_cu_stream * stream, unsigned flags))                     \
	X(StreamDestroy, "cuStreamDestroy_v2", (cx_cu_stream stream))                                  \
	X(StreamSynchronize, "cuStreamSynchronize", (cx_cu_stream stream))                             \
	X(EventCreate, "cuEventCreate", (cx_cu_event * event, unsigned flags))                         \
	X(EventDestroy, "cuEventDestroy_v2", (cx_cu_event event))                                      \
	X(EventRecord, "cuEventRecord", (cx_cu_event event, cx_cu_stream stream))                      \
	X(EventElapsedTime, "cuEventElapsedTime", (float *ms, cx_cu_event from, cx_cu_event to))       \
	X(MemAlloc, "cuMemAlloc_v2", (cx_cu_ptr * p, size_t bytes))                                    \
	X(MemFree, "cuMemFree_v2", (cx_cu_ptr p))                                                      \
	X(MemAllocAsync, "cuMemAllocAsync", (cx_cu_ptr * p, size_t bytes, cx_cu_stream stream))        \
	X(MemFreeAsync, "cuMemFreeAsync", (cx_cu_ptr p, cx_cu_stream stream))                          \
	X(MemAllocHost, "cuMemAllocHost_v2", (void **p, size_t bytes))                                 \
	X(MemFreeHost, "cuMemFreeHost", (void *p))                                                     \
	X(MemcpyHtoDAsync, "cuMemcpyHtoDAsync_v2",                                                     \
		(cx_cu_ptr to, const void *from, size_t bytes, cx_cu_stream stream))                       \
	X(MemcpyDtoHAsync, "cuMemcpyDtoHAsync_v2",                                                     \
		(void *to, cx_cu_ptr from, size_t bytes, cx_cu_stream stream))                             \
	X(MemcpyDtoDAsync, "cuMemcpyDtoDAsync_v2",                                                     \
		(cx_cu_ptr to, cx_cu_ptr from, size_t bytes, cx_cu_stream stream))                         \
	X(MemsetD8Async, "cuMemsetD8Async",                                                            \
		(cx_cu_ptr to, unsigned char value, size_t bytes, cx_cu_stream stream))                    \
	X(ModuleLoadData, "cuModuleLoadData", (cx_cu_module * module, const void *image))              \
	X(ModuleUnload, "cuModuleUnload", (cx_cu_module module))                                       \
	X(ModuleGetFunction, "cuModuleGetFunction",                                                    \
		(cx_cu_function * function, cx_cu_module module, const char *name))                        \
	X(LaunchKernel, "cuLaunchKernel",                                                              \
		(cx_cu_function function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, \
			unsigned bz, unsigned shared, cx_cu_stream stream, void **args, void **extra))         \
	X(StreamBeginCapture, "cuStreamBeginCapture_v2", (cx_cu_stream stream, int mode))              \
	X(StreamEndCapture, "cuStreamEndCapture", (cx_cu_stream stream, cx_cu_graph * graph))          \
	X(GraphInstantiate, "cuGraphInstantiateWithFlags",                                             \
		(cx_cu_exec * exec, cx_cu_graph graph, unsigned long long flags))                          \
	X(GraphDestroy, "cuGraphDestroy", (cx_cu_graph graph))                                         \
	X(GraphExecDestroy, "cuGraphExecDestroy", (cx_cu_exec exec))                                   \
	X(GraphLaunch, "cuGraphLaunch", (cx_cu_exec exec, cx_cu_stream stream))
typedef struct cx_cu_api {
	void *lib;
#define X(name, symbol, params) cx_cu_result(*name) params;
	CX_CU_FUNCTIONS(X)
#undef X
} cx_cu_api;

/* False: no library, or it lacks a function; `why` says which. */
bool cx__cu_load(cx_cu_api *cu, char *why, size_t size);
void cx__cu_unload(cx_cu_api *cu);

/* ---- device (device.c) ---- */

/* A module that is loaded. */
typedef struct cx_cu_loaded {
	struct cx_cu_loaded *next;
	const cx_cuda_image *image;
	cx_cu_module module;
} cx_cu_loaded;

enum { CX_CU_STAGE = 4 << 20 }; /* bytes of pinned memory that small writes go through */

typedef struct cx_cu_dev {
	union {
		cx_device base;
		cx_dk_device dk;
	};
	cx_cu_api cu;
	const cx_cuda_plugin *plugin;
	void *plugin_lib;
	cx_cu_device id;
	bool retained; /* context is */
	cx_cu_context context;
	cx_cu_stream stream;
	cx_cu_event event[2]; /* around a step that is timed */
	bool timing;          /* a timed step is under way */
	bool has_pools;       /* memory can be had in the order of the stream */
	uint8_t *stage;       /* [CX_CU_STAGE] pinned; NULL: none was to be had */
	size_t staged;        /* bytes of it that copies under way may read */
	int driver;           /* 12040: CUDA 12.4 */
	cx_cu_loaded *loaded;
} cx_cu_dev;

typedef struct cx_cu_buffer {
	cx_buffer base;
	cx_cu_ptr at;
} cx_cu_buffer;

const cx_alloc *cx__cu_alloc_of(const cx_cu_dev *dev);
/* DEVICE error that names the call and the driver's name of the error; it marks the device as
 * failed, after which it refuses everything. Out of memory is a MEMORY error, and marks nothing. */
cx_status cx__cu_fail(cx_cu_dev *dev, const char *call, cx_cu_result code, cx_err *err);
/* Whether the device takes work; its context becomes the thread's. */
cx_status cx__cu_enter(cx_cu_dev *dev, cx_err *err);
cx_status cx__cu_mem(cx_cu_dev *dev, size_t bytes, cx_cu_ptr *out, cx_err *err);
void cx__cu_mem_free(cx_cu_dev *dev, cx_cu_ptr at);
/* Copies to the device in the order of the stream; src may be reused at once. */
cx_status cx__cu_put(cx_cu_dev *dev, cx_cu_ptr to, const void *src, size_t bytes, cx_err *err);

/* ---- device code (module.c) ---- */

/* The plug-in: linked into the process, or cortex-cuda.so beside the program or in ../lib/cortex.
 * NULL: `why` says what is the matter. *lib: for dlclose; NULL if there is nothing to close. */
const cx_cuda_plugin *cx__cu_plugin(void **lib, char *why, size_t size);
/* The kernel of a draft, from the module of its dtypes if there is one, else from that of its
 * family; modules stay loaded until the device is closed. */
cx_status cx__cu_function(cx_cu_dev *dev, const cx_dk_draft *d, cx_cu_function *out, cx_err *err);
void cx__cu_unload_modules(cx_cu_dev *dev);

/* ---- programs of steps (program.c) ---- */

cx_status cx__cu_compile(cx_device *dev, const cx_step *steps, uint32_t n_steps,
	const cx_bindings *binds, cx_program **out, cx_err *err);
cx_status cx__cu_submit(cx_program *prog, uint32_t first, uint32_t n, cx_err *err);
void cx__cu_discard(cx_program *prog);

#endif
