/* device.c - the OpenCL backend as a device: opening, limits, memory, errors. */
#include "backends/opencl/opencl.h"

#include <stdio.h>
#include <string.h>

const cx_alloc *cx__cl_alloc_of(const cx_cl_device *dev)
{
	return &cx_runtime_config(dev->base.rt)->alloc;
}

cx_status cx__cl_fail(cx_cl_device *dev, const char *call, cl_int code, cx_err *err)
{
	if (code == CL_MEM_OBJECT_ALLOCATION_FAILURE || code == CL_OUT_OF_HOST_MEMORY)
		return CX_FAIL(err, CX_ERR_MEMORY, "%s: out of memory in %s", dev->base.name, call);
	dev->base.failed = true;
	return CX_FAIL(err, CX_ERR_DEVICE, "%s: %s failed with %s (%d)", dev->base.name, call,
		cx__cl_error(code), (int)code);
}

cx_status cx__cl_usable(const cx_cl_device *dev, cx_err *err)
{
	if (!dev->base.failed) return CX_OK;
	return CX_FAIL(err, CX_ERR_DEVICE, "%s has failed before and takes no more work: close it",
		dev->base.name);
}

/* ---- open ---- */

static void cl_close(cx_device *base)
{
	cx_cl_device *dev = (cx_cl_device *)base;
	if (!dev) return;
	cx__cl_built_free(dev);
	cx__cl_drop_events(dev);
	if (dev->times) dev->cl.ReleaseCommandQueue(dev->times);
	if (dev->queue) dev->cl.ReleaseCommandQueue(dev->queue);
	if (dev->context) dev->cl.ReleaseContext(dev->context);
	cx__cl_unload(&dev->cl);
	cx_free(cx__cl_alloc_of(dev), dev, sizeof *dev);
}

static void text_of(const cx_cl_device *dev, cl_device_info what, char *buf, size_t size)
{
	size_t n;
	memset(buf, 0, size);
	if (dev->cl.GetDeviceInfo(dev->id, what, size - 1, buf, NULL) != CL_SUCCESS) buf[0] = 0;
	for (n = strlen(buf); n > 0 && buf[n - 1] == ' '; n--) buf[n - 1] = 0;
}

/* Numbers that the device says about itself; those that it does not say stay 0. */
static void ask(cx_cl_device *dev)
{
	const cx_config *cfg = cx_runtime_config(dev->base.rt);
	char name[128], driver[64], extensions[4096], platform[96] = "";
	cl_device_type type = 0;
	cl_bool unified = CL_FALSE;
	cl_device_fp_config fp = 0;
	cl_ulong max_alloc = 0, memory = 0;
	size_t tick = 0;
	cl_uint units = 1;
	text_of(dev, CL_DEVICE_NAME, name, sizeof name);
	text_of(dev, CL_DRIVER_VERSION, driver, sizeof driver);
	text_of(dev, CL_DEVICE_EXTENSIONS, extensions, sizeof extensions);
	dev->cl.GetPlatformInfo(dev->platform, CL_PLATFORM_NAME, sizeof platform - 1, platform, NULL);
	dev->cl.GetDeviceInfo(dev->id, CL_DEVICE_TYPE, sizeof type, &type, NULL);
	dev->cl.GetDeviceInfo(dev->id, CL_DEVICE_HOST_UNIFIED_MEMORY, sizeof unified, &unified, NULL);
	dev->cl.GetDeviceInfo(dev->id, CL_DEVICE_SINGLE_FP_CONFIG, sizeof fp, &fp, NULL);
	dev->cl.GetDeviceInfo(
		dev->id, CL_DEVICE_MAX_MEM_ALLOC_SIZE, sizeof max_alloc, &max_alloc, NULL);
	dev->cl.GetDeviceInfo(dev->id, CL_DEVICE_GLOBAL_MEM_SIZE, sizeof memory, &memory, NULL);
	dev->cl.GetDeviceInfo(dev->id, CL_DEVICE_MAX_COMPUTE_UNITS, sizeof units, &units, NULL);
	dev->cl.GetDeviceInfo(dev->id, CL_DEVICE_PROFILING_TIMER_RESOLUTION, sizeof tick, &tick, NULL);
	dev->clock_ns = (double)tick;
	dev->dk.is_host = (type & CL_DEVICE_TYPE_CPU) != 0 && unified;
	dev->dk.has_f64 = strstr(extensions, "cl_khr_fp64") != NULL;
	dev->exact_div = (fp & CL_FP_CORRECTLY_ROUNDED_DIVIDE_SQRT) != 0;
	dev->keeps_programs = strstr(platform, "Portable Computing Language") != NULL;
	dev->dk.max_alloc = max_alloc;
	dev->dk.memory = memory;
	dev->dk.n_units = units;
	snprintf(dev->ident, sizeof dev->ident, "%s|%s|%s", platform, name, driver);
	if (cfg->log) {
		char msg[200];
		snprintf(msg, sizeof msg, "driver %s, %s", platform, driver);
		cfg->log(cfg->log_ctx, CX_LOG_INFO, "opencl", msg);
	}
	snprintf(dev->base.name + strlen(dev->base.name),
		sizeof dev->base.name - strlen(dev->base.name), " %.60s, %u units", name, (unsigned)units);
}

/* The driver is loaded and asked only after a child process came back from doing so. */
static cx_status check_driver(cx_runtime *rt, cx_err *err)
{
	int *probed = cx__runtime_note(rt, &cx__backend_opencl); /* 0 not yet, 1 good */
	char why[200] = "";
	if (*probed == 1) return CX_OK;
	if (!cx__cl_probe(why, sizeof why)) return CX_FAIL(err, CX_ERR_DEVICE, "opencl: %s", why);
	*probed = 1;
	return CX_OK;
}

static cx_status cl_open(cx_runtime *rt, int index, cx_device **out, cx_err *err)
{
	const cx_alloc *alloc = &cx_runtime_config(rt)->alloc;
	cx_cl_device *dev;
	char why[200] = "";
	cl_int code = CL_SUCCESS;
	cx_status st;
	int n = 0;
	*out = NULL;
	if ((st = check_driver(rt, err)) != CX_OK) return st;
	dev = cx_calloc(alloc, 1, sizeof *dev);
	if (!dev) return CX_FAIL(err, CX_ERR_MEMORY, "no memory for device opencl:%d", index);
	dev->base.backend = &cx__backend_opencl;
	dev->base.rt = rt;
	dev->dk.own_from = 2e6;
	dev->dk.text_from = 200000;
	snprintf(dev->base.name, sizeof dev->base.name, "opencl:%d", index);
	if (!cx__cl_load(&dev->cl, why, sizeof why)) {
		st = CX_FAIL(err, CX_ERR_DEVICE, "opencl: %s", why);
		goto fail;
	}
	if (index < 0 || !cx__cl_pick(&dev->cl, index, &dev->platform, &dev->id, &n)) {
		st = CX_FAIL(err, CX_ERR_ARGUMENT, "backend opencl has %d device%s, there is no %d", n,
			n == 1 ? "" : "s", index);
		goto fail;
	}
	ask(dev);
	cl_context_properties props[] = {
		CL_CONTEXT_PLATFORM, (cl_context_properties)(uintptr_t)dev->platform, 0};
	dev->context = dev->cl.CreateContext(props, 1, &dev->id, NULL, NULL, &code);
	if (!dev->context) {
		st = cx__cl_fail(dev, "clCreateContext", code, err);
		goto fail;
	}
	dev->queue = dev->cl.CreateCommandQueue(dev->context, dev->id, 0, &code);
	if (!dev->queue) {
		st = cx__cl_fail(dev, "clCreateCommandQueue", code, err);
		goto fail;
	}
	dev->times = dev->cl.CreateCommandQueue(
		dev->context, dev->id, CL_QUEUE_PROFILING_ENABLE, &code); /* none: no clock */
	*out = &dev->base;
	return CX_OK;
fail:
	cl_close(&dev->base);
	return st;
}

/* Kernels count elements in 32 bits, so no buffer is larger than 4 GiB. */
static void cl_limits(const cx_device *base, cx_limits *out)
{
	const cx_cl_device *dev = (const cx_cl_device *)base;
	*out = (cx_limits){.alignment = 64,
		.max_buffer = dev->dk.max_alloc < UINT32_MAX ? dev->dk.max_alloc : UINT32_MAX,
		.max_bytes = dev->dk.memory,
		.n_threads = dev->dk.n_units,
		.maps_host = dev->dk.is_host,
		.clock_ns = dev->times ? dev->clock_ns : 0};
}

static const cx_kernel *cl_find(const cx_device *base, const cx_kernel_key *key)
{
	return cx__dk_find((const cx_dk_device *)base, key);
}

/* ---- memory ---- */

static cx_status cl_alloc(
	cx_device *base, uint64_t bytes, const void *host, cx_buffer **out, cx_err *err)
{
	cx_cl_device *dev = (cx_cl_device *)base;
	cx_cl_buffer *b;
	cl_int code = CL_SUCCESS;
	size_t size = bytes ? (size_t)((bytes + 3) & ~(uint64_t)3) : 4;
	static const cl_uint zero = 0;
	cx_status st;
	*out = NULL;
	if ((st = cx__cl_usable(dev, err)) != CX_OK) return st;
	if (bytes > dev->dk.max_alloc || bytes > UINT32_MAX)
		return CX_FAIL(err, CX_ERR_MEMORY,
			"%s: a buffer of %llu bytes is larger than its limit of %llu", dev->base.name,
			(unsigned long long)bytes, (unsigned long long)dev->dk.max_alloc);
	b = cx_calloc(cx__cl_alloc_of(dev), 1, sizeof *b);
	if (!b) return CX_FAIL(err, CX_ERR_MEMORY, "%s: no memory for a buffer", dev->base.name);
	b->base = (cx_buffer){base, bytes};
	if (host && bytes)
		b->mem = dev->cl.CreateBuffer(dev->context, CL_MEM_READ_WRITE | CL_MEM_USE_HOST_PTR,
			(size_t)bytes, (void *)(uintptr_t)host, &code);
	else b->mem = dev->cl.CreateBuffer(dev->context, CL_MEM_READ_WRITE, size, NULL, &code);
	if (!b->mem) {
		st = code == CL_INVALID_BUFFER_SIZE
				 ? CX_FAIL(err, CX_ERR_MEMORY, "%s: no buffer of %llu bytes", dev->base.name,
					   (unsigned long long)bytes)
				 : cx__cl_fail(dev, "clCreateBuffer", code, err);
	} else if (!host) {
		code = dev->cl.EnqueueFillBuffer(
			dev->queue, b->mem, &zero, sizeof zero, 0, size, 0, NULL, NULL);
		if (code != CL_SUCCESS) st = cx__cl_fail(dev, "clEnqueueFillBuffer", code, err);
	}
	if (st != CX_OK) {
		if (b->mem) dev->cl.ReleaseMemObject(b->mem);
		cx_free(cx__cl_alloc_of(dev), b, sizeof *b);
		return st;
	}
	*out = &b->base;
	return CX_OK;
}

static void cl_free(cx_buffer *buf)
{
	cx_cl_buffer *b = (cx_cl_buffer *)buf;
	cx_cl_device *dev;
	if (!b) return;
	dev = (cx_cl_device *)buf->dev;
	dev->cl.ReleaseMemObject(b->mem);
	cx_free(cx__cl_alloc_of(dev), b, sizeof *b);
}

static cx_status check_range(const cx_buffer *buf, uint64_t off, uint64_t bytes, cx_err *err)
{
	if (off <= buf->bytes && bytes <= buf->bytes - off) return CX_OK;
	return CX_FAIL(err, CX_ERR_ARGUMENT, "%s: %llu bytes at %llu are outside a buffer of %llu",
		buf->dev->name, (unsigned long long)bytes, (unsigned long long)off,
		(unsigned long long)buf->bytes);
}

static cx_status cl_write(
	cx_buffer *buf, uint64_t off, const void *src, uint64_t bytes, cx_err *err)
{
	cx_cl_device *dev = (cx_cl_device *)buf->dev;
	cx_status st = check_range(buf, off, bytes, err);
	cl_int code;
	if (st != CX_OK || (st = cx__cl_usable(dev, err)) != CX_OK || !bytes) return st;
	code = dev->cl.EnqueueWriteBuffer(dev->queue, ((cx_cl_buffer *)buf)->mem, CL_TRUE, (size_t)off,
		(size_t)bytes, src, 0, NULL, NULL);
	return code == CL_SUCCESS ? CX_OK : cx__cl_fail(dev, "clEnqueueWriteBuffer", code, err);
}

static cx_status cl_read(cx_buffer *buf, uint64_t off, void *dst, uint64_t bytes, cx_err *err)
{
	cx_cl_device *dev = (cx_cl_device *)buf->dev;
	cx_status st = check_range(buf, off, bytes, err);
	cl_int code;
	if (st != CX_OK || (st = cx__cl_usable(dev, err)) != CX_OK || !bytes) return st;
	code = dev->cl.EnqueueReadBuffer(dev->queue, ((cx_cl_buffer *)buf)->mem, CL_TRUE, (size_t)off,
		(size_t)bytes, dst, 0, NULL, NULL);
	return code == CL_SUCCESS ? CX_OK : cx__cl_fail(dev, "clEnqueueReadBuffer", code, err);
}

void cx__cl_drop_events(cx_cl_device *dev)
{
	for (int i = 0; i < 2; i++) {
		if (dev->event[i]) dev->cl.ReleaseEvent(dev->event[i]);
		dev->event[i] = NULL;
	}
	dev->timing = false;
}

/* From the start of the step's first launch to the end of its last; 0 if it had none. */
static cl_int read_times(cx_cl_device *dev)
{
	cl_event last = dev->event[1] ? dev->event[1] : dev->event[0];
	cl_ulong from = 0, to = 0;
	cl_int code = CL_SUCCESS;
	if (last)
		code = dev->cl.GetEventProfilingInfo(
			dev->event[0], CL_PROFILING_COMMAND_START, sizeof from, &from, NULL);
	if (last && code == CL_SUCCESS)
		code = dev->cl.GetEventProfilingInfo(last, CL_PROFILING_COMMAND_END, sizeof to, &to, NULL);
	dev->base.seconds = to > from ? 1e-9 * (double)(to - from) : 0;
	cx__cl_drop_events(dev);
	return code;
}

static cx_status cl_wait(cx_device *base, cx_err *err)
{
	cx_cl_device *dev = (cx_cl_device *)base;
	cx_status st = cx__cl_usable(dev, err);
	cl_int code;
	if (st != CX_OK) return st;
	code = dev->cl.Finish(dev->queue);
	if (code == CL_SUCCESS && dev->timing) code = dev->cl.Finish(dev->times);
	if (code != CL_SUCCESS) return cx__cl_fail(dev, "clFinish", code, err);
	if (!dev->timing) return CX_OK;
	code = read_times(dev);
	return code == CL_SUCCESS ? CX_OK : cx__cl_fail(dev, "clGetEventProfilingInfo", code, err);
}

const cx_backend cx__backend_opencl = {"opencl", cl_open, cl_close, cl_limits, cl_find, cl_alloc,
	cl_free, cl_write, cl_read, cx__cl_compile, cx__cl_submit, cl_wait, cx__cl_discard};
