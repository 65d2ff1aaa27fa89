/* opencl.h - the inside of the OpenCL backend: driver functions, device, programs, launches.
 *
 * The driver is reached by dlopen("libOpenCL.so.1"); headers give types alone. One in-order queue
 * per device: steps see the writes of earlier ones without barriers of ours. compile() turns each
 * step into launches whose kernels have their arguments set once; submit() only enqueues. Device
 * code is in kernels/, see kernels/dialect.h. */
#ifndef CX_OPENCL_H
#define CX_OPENCL_H

#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>

#include "backends/dialect/launch.h"

extern const cx_backend cx__backend_opencl;

/* ---- driver (api.c) ---- */

#define CX_CL_FUNCTIONS(X)                                                                         \
	X(GetPlatformIDs)                                                                              \
	X(GetPlatformInfo)                                                                             \
	X(GetDeviceIDs)                                                                                \
	X(GetDeviceInfo)                                                                               \
	X(CreateContext)                                                                               \
	X(ReleaseContext)                                                                              \
	X(CreateCommandQueue)                                                                          \
	X(ReleaseCommandQueue)                                                                         \
	X(CreateBuffer)                                                                                \
	X(ReleaseMemObject)                                                                            \
	X(CreateProgramWithSource)                                                                     \
	X(CreateProgramWithBinary)                                                                     \
	X(BuildProgram)                                                                                \
	X(GetProgramBuildInfo)                                                                         \
	X(GetProgramInfo)                                                                              \
	X(ReleaseProgram)                                                                              \
	X(CreateKernel)                                                                                \
	X(SetKernelArg)                                                                                \
	X(ReleaseKernel)                                                                               \
	X(EnqueueNDRangeKernel)                                                                        \
	X(EnqueueCopyBuffer)                                                                           \
	X(EnqueueFillBuffer)                                                                           \
	X(EnqueueReadBuffer)                                                                           \
	X(EnqueueWriteBuffer)                                                                          \
	X(GetEventProfilingInfo)                                                                       \
	X(ReleaseEvent)                                                                                \
	X(Flush)                                                                                       \
	X(Finish)
typedef struct cx_cl_api {
	void *lib;
#define X(name) __typeof__(cl##name) *name;
	CX_CL_FUNCTIONS(X)
#undef X
} cx_cl_api;

/* False: no library, or it lacks a function; `why` says which. */
bool cx__cl_load(cx_cl_api *cl, char *why, size_t size);
void cx__cl_unload(cx_cl_api *cl);
/* "CL_OUT_OF_RESOURCES" */
const char *cx__cl_error(cl_int code);
/* Device `index` of all platforms, graphics processors first; also gives how many there are. */
bool cx__cl_pick(
	const cx_cl_api *cl, int index, cl_platform_id *platform, cl_device_id *device, int *n);

/* Whether the driver can be used at all, found out in a child process, since some drivers abort
 * where they cannot initialise. False: `why` says what happened. (probe.c) */
bool cx__cl_probe(char *why, size_t size);

/* ---- device (device.c) ---- */

typedef struct cx_cl_built cx_cl_built; /* a program that was built (build.c) */

typedef struct cx_cl_device {
	union {
		cx_device base;
		cx_dk_device dk;
	};
	cx_cl_api cl;
	cl_platform_id platform;
	cl_device_id id;
	cl_context context;
	cl_command_queue queue;
	/* Steps that are timed go through a queue of their own, since profiling costs some drivers
	 * time. NULL: the device has no clock. Events: of the step's first and last launch. */
	cl_command_queue times;
	cl_event event[2];
	double clock_ns;
	bool timing; /* a timed step is under way */
	cx_cl_built *built;
	char ident[320];     /* device and driver, for names of cached programs */
	bool keeps_programs; /* the driver has a cache of its own */
	bool exact_div;      /* division and square root can be asked to be correctly rounded */
} cx_cl_device;

typedef struct cx_cl_buffer {
	cx_buffer base;
	cl_mem mem;
} cx_cl_buffer;

const cx_alloc *cx__cl_alloc_of(const cx_cl_device *dev);
/* Forgets the events of a timed step. */
void cx__cl_drop_events(cx_cl_device *dev);
/* DEVICE error that names the call; most mark the device as failed, after which it refuses
 * everything. */
cx_status cx__cl_fail(cx_cl_device *dev, const char *call, cl_int code, cx_err *err);
cx_status cx__cl_usable(const cx_cl_device *dev, cx_err *err);

/* ---- programs built from source (build.c) ---- */

/* The program of a kernels/<family>.cl.h with these #define lines before it; kept until the device
 * is closed. */
cx_status cx__cl_build(
	cx_cl_device *dev, const char *family, const char *defines, cl_program *out, cx_err *err);
void cx__cl_built_free(cx_cl_device *dev);

/* ---- programs of steps (program.c) ---- */

cx_status cx__cl_compile(cx_device *dev, const cx_step *steps, uint32_t n_steps,
	const cx_bindings *binds, cx_program **out, cx_err *err);
cx_status cx__cl_submit(cx_program *prog, uint32_t first, uint32_t n, cx_err *err);
void cx__cl_discard(cx_program *prog);

#endif
