/* device.c - the CUDA backend as a device: opening, limits, memory, errors. */
#include "backends/cuda/cuda.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

const cx_alloc *cx__cu_alloc_of(const cx_cu_dev *dev)
{
	return &cx_runtime_config(dev->base.rt)->alloc;
}

static const char *error_name(const cx_cu_dev *dev, cx_cu_result code)
{
	const char *name = NULL;
	if (dev->cu.GetErrorName(code, &name) != CX_CU_OK || !name) return "an error of the driver";
	return name;
}

cx_status cx__cu_fail(cx_cu_dev *dev, const char *call, cx_cu_result code, cx_err *err)
{
	if (code == CX_CU_OUT_OF_MEMORY)
		return CX_FAIL(err, CX_ERR_MEMORY, "%s: out of memory in %s", dev->base.name, call);
	dev->base.failed = true;
	return CX_FAIL(err, CX_ERR_DEVICE, "%s: %s failed with %s (%d)", dev->base.name, call,
		error_name(dev, code), code);
}

cx_status cx__cu_enter(cx_cu_dev *dev, cx_err *err)
{
	cx_cu_result code;
	if (dev->base.failed)
		return CX_FAIL(err, CX_ERR_DEVICE, "%s has failed before and takes no more work: close it",
			dev->base.name);
	code = dev->cu.CtxSetCurrent(dev->context);
	return code == CX_CU_OK ? CX_OK : cx__cu_fail(dev, "cuCtxSetCurrent", code, err);
}

/* ---- open ---- */

static void cu_close(cx_device *base)
{
	cx_cu_dev *dev = (cx_cu_dev *)base;
	if (!dev) return;
	if (dev->context) dev->cu.CtxSetCurrent(dev->context);
	if (dev->stream) dev->cu.StreamSynchronize(dev->stream);
	cx__cu_unload_modules(dev);
	for (int i = 0; i < 2; i++)
		if (dev->event[i]) dev->cu.EventDestroy(dev->event[i]);
	if (dev->stage) dev->cu.MemFreeHost(dev->stage);
	if (dev->stream) dev->cu.StreamDestroy(dev->stream);
	if (dev->context) dev->cu.CtxSetCurrent(NULL);
	if (dev->retained) dev->cu.DevicePrimaryCtxRelease(dev->id);
	cx__cu_unload(&dev->cu);
	if (dev->plugin_lib) dlclose(dev->plugin_lib);
	cx_free(cx__cu_alloc_of(dev), dev, sizeof *dev);
}

/* What cuInit says, as a sentence about what to do. */
static cx_status init_failed(cx_cu_dev *dev, cx_cu_result code, cx_err *err)
{
	const char *what = NULL;
	if (code == CX_CU_NO_DEVICE) what = "the driver finds no NVIDIA device";
	else if (code == CX_CU_STUB_LIBRARY)
		what = "libcuda.so.1 is the stub of a toolkit, not a driver: take it off the library path";
	else if (code == CX_CU_MISMATCH)
		what = "libcuda.so.1 and the driver in the kernel are of different versions: reboot, or "
			   "install both anew";
	else if (code == CX_CU_COMPAT)
		what = "the forward-compatible libcuda.so.1 does not support this device: take it off the "
			   "library path";
	if (what) return CX_FAIL(err, CX_ERR_DEVICE, "cuda: %s", what);
	return CX_FAIL(err, CX_ERR_DEVICE, "cuda: the driver does not start: cuInit gives %s (%d)",
		error_name(dev, code), code);
}

static int attribute(const cx_cu_dev *dev, int attr)
{
	int value = 0;
	return dev->cu.DeviceGetAttribute(&value, attr, dev->id) == CX_CU_OK ? value : 0;
}

/* The device's numbers, and whether there is code for it. */
static cx_status ask(cx_cu_dev *dev, int index, cx_err *err)
{
	const cx_config *cfg = cx_runtime_config(dev->base.rt);
	char name[128] = "";
	size_t memory = 0;
	int major, minor;
	dev->cu.DeviceGetName(name, (int)sizeof name - 1, dev->id);
	dev->cu.DeviceTotalMem(&memory, dev->id);
	major = attribute(dev, CX_CU_ATTR_MAJOR);
	minor = attribute(dev, CX_CU_ATTR_MINOR);
	dev->dk.n_units = (uint32_t)attribute(dev, CX_CU_ATTR_MULTIPROCESSORS);
	dev->has_pools = attribute(dev, CX_CU_ATTR_POOLS) == 1;
	dev->dk.memory = dev->dk.max_alloc = memory;
	dev->dk.has_f64 = true;
	dev->dk.own_from = 0;           /* modules for some dtypes lie ready */
	dev->dk.text_from = UINT32_MAX; /* there is no compiler here: map programs are interpreted */
	snprintf(dev->base.name, sizeof dev->base.name, "cuda:%d %.60s, %u units", index, name,
		(unsigned)dev->dk.n_units);
	if (cfg->log) {
		char msg[200];
		snprintf(msg, sizeof msg, "driver CUDA %d.%d, device code of %s, capability %d.%d",
			dev->driver / 1000, dev->driver % 1000 / 10, dev->plugin->toolkit, major, minor);
		cfg->log(cfg->log_ctx, CX_LOG_INFO, "cuda", msg);
	}
	if (major >= 8) return CX_OK;
	return CX_FAIL(err, CX_ERR_DEVICE,
		"%s has compute capability %d.%d; the kernels are built for 8.0 and newer", dev->base.name,
		major, minor);
}

/* Context, stream, events, staging. */
static cx_status start(cx_cu_dev *dev, cx_err *err)
{
	const char *call = "cuDevicePrimaryCtxRetain";
	cx_cu_result code = dev->cu.DevicePrimaryCtxRetain(&dev->context, dev->id);
	dev->retained = code == CX_CU_OK;
	if (code == CX_CU_OK) {
		call = "cuCtxSetCurrent";
		code = dev->cu.CtxSetCurrent(dev->context);
	}
	if (code == CX_CU_OK) {
		call = "cuStreamCreate";
		code = dev->cu.StreamCreate(&dev->stream, CX_CU_STREAM_NON_BLOCKING);
	}
	for (int i = 0; i < 2 && code == CX_CU_OK; i++) {
		call = "cuEventCreate";
		code = dev->cu.EventCreate(&dev->event[i], 0);
	}
	if (code != CX_CU_OK) return cx__cu_fail(dev, call, code, err);
	if (dev->cu.MemAllocHost((void **)&dev->stage, CX_CU_STAGE) != CX_CU_OK)
		dev->stage = NULL; /* writes wait, then */
	return CX_OK;
}

static cx_status find_device(cx_cu_dev *dev, int index, cx_err *err)
{
	char why[200] = "";
	cx_cu_result code;
	int n = 0;
	if (!cx__cu_load(&dev->cu, why, sizeof why))
		return CX_FAIL(err, CX_ERR_DEVICE, "cuda: %s", why);
	code = dev->cu.Init(0);
	if (code != CX_CU_OK) return init_failed(dev, code, err);
	dev->plugin = cx__cu_plugin(&dev->plugin_lib, why, sizeof why);
	if (!dev->plugin) return CX_FAIL(err, CX_ERR_UNSUPPORTED, "cuda: %s", why);
	dev->cu.DriverGetVersion(&dev->driver);
	code = dev->cu.DeviceGetCount(&n);
	if (code != CX_CU_OK) return cx__cu_fail(dev, "cuDeviceGetCount", code, err);
	if (n == 0) return init_failed(dev, CX_CU_NO_DEVICE, err);
	if (index < 0 || index >= n)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "backend cuda has %d device%s, there is no %d", n,
			n == 1 ? "" : "s", index);
	code = dev->cu.DeviceGet(&dev->id, index);
	if (code != CX_CU_OK) return cx__cu_fail(dev, "cuDeviceGet", code, err);
	return ask(dev, index, err);
}

static cx_status cu_open(cx_runtime *rt, int index, cx_device **out, cx_err *err)
{
	cx_cu_dev *dev = cx_calloc(&cx_runtime_config(rt)->alloc, 1, sizeof *dev);
	cx_status st;
	*out = NULL;
	if (!dev) return CX_FAIL(err, CX_ERR_MEMORY, "no memory for device cuda:%d", index);
	dev->base.backend = &cx__backend_cuda;
	dev->base.rt = rt;
	snprintf(dev->base.name, sizeof dev->base.name, "cuda:%d", index);
	st = find_device(dev, index, err);
	if (st == CX_OK) st = start(dev, err);
	if (st == CX_OK) *out = &dev->base;
	else cu_close(&dev->base);
	return st;
}

/* Kernels count elements in 32 bits, so no buffer is larger than 4 GiB. */
static void cu_limits(const cx_device *base, cx_limits *out)
{
	const cx_cu_dev *dev = (const cx_cu_dev *)base;
	*out = (cx_limits){.alignment = 256,
		.max_buffer = dev->dk.max_alloc < UINT32_MAX ? dev->dk.max_alloc : UINT32_MAX,
		.max_bytes = dev->dk.memory,
		.n_threads = dev->dk.n_units,
		.clock_ns = 500}; /* what the driver promises of its events */
}

static const cx_kernel *cu_find(const cx_device *base, const cx_kernel_key *key)
{
	return cx__dk_find((const cx_dk_device *)base, key);
}

/* ---- memory ---- */

cx_status cx__cu_mem(cx_cu_dev *dev, size_t bytes, cx_cu_ptr *out, cx_err *err)
{
	cx_cu_result code;
	size_t size = bytes ? bytes : 16;
	*out = 0;
	if (dev->has_pools) {
		code = dev->cu.MemAllocAsync(out, size, dev->stream);
		return code == CX_CU_OK ? CX_OK : cx__cu_fail(dev, "cuMemAllocAsync", code, err);
	}
	code = dev->cu.MemAlloc(out, size);
	return code == CX_CU_OK ? CX_OK : cx__cu_fail(dev, "cuMemAlloc", code, err);
}

void cx__cu_mem_free(cx_cu_dev *dev, cx_cu_ptr at)
{
	if (!at) return;
	if (dev->has_pools) dev->cu.MemFreeAsync(at, dev->stream);
	else dev->cu.MemFree(at);
}

static cx_status cu_alloc(
	cx_device *base, uint64_t bytes, const void *host, cx_buffer **out, cx_err *err)
{
	cx_cu_dev *dev = (cx_cu_dev *)base;
	cx_cu_buffer *b;
	cx_cu_result code;
	cx_status st;
	(void)host; /* limits.maps_host is false */
	*out = NULL;
	if ((st = cx__cu_enter(dev, err)) != CX_OK) return st;
	if (bytes > dev->dk.max_alloc || bytes > UINT32_MAX)
		return CX_FAIL(err, CX_ERR_MEMORY,
			"%s: a buffer of %llu bytes is larger than its limit of %llu", base->name,
			(unsigned long long)bytes,
			(unsigned long long)(dev->dk.max_alloc < UINT32_MAX ? dev->dk.max_alloc : UINT32_MAX));
	b = cx_calloc(cx__cu_alloc_of(dev), 1, sizeof *b);
	if (!b) return CX_FAIL(err, CX_ERR_MEMORY, "%s: no memory for a buffer", base->name);
	b->base = (cx_buffer){base, bytes};
	st = cx__cu_mem(dev, (size_t)bytes, &b->at, err);
	if (st == CX_OK && bytes) {
		code = dev->cu.MemsetD8Async(b->at, 0, (size_t)bytes, dev->stream);
		if (code != CX_CU_OK) st = cx__cu_fail(dev, "cuMemsetD8Async", code, err);
	}
	if (st != CX_OK) {
		cx__cu_mem_free(dev, b->at);
		cx_free(cx__cu_alloc_of(dev), b, sizeof *b);
		return st;
	}
	*out = &b->base;
	return CX_OK;
}

static void cu_free(cx_buffer *buf)
{
	cx_cu_buffer *b = (cx_cu_buffer *)buf;
	cx_cu_dev *dev;
	if (!b) return;
	dev = (cx_cu_dev *)buf->dev;
	dev->cu.CtxSetCurrent(dev->context);
	cx__cu_mem_free(dev, b->at);
	cx_free(cx__cu_alloc_of(dev), b, sizeof *b);
}

static cx_status check_range(const cx_buffer *buf, uint64_t off, uint64_t bytes, cx_err *err)
{
	if (off <= buf->bytes && bytes <= buf->bytes - off) return CX_OK;
	return CX_FAIL(err, CX_ERR_ARGUMENT, "%s: %llu bytes at %llu are outside a buffer of %llu",
		buf->dev->name, (unsigned long long)bytes, (unsigned long long)off,
		(unsigned long long)buf->bytes);
}

static cx_status finish(cx_cu_dev *dev, cx_err *err)
{
	cx_cu_result code = dev->cu.StreamSynchronize(dev->stream);
	if (code != CX_CU_OK) return cx__cu_fail(dev, "cuStreamSynchronize", code, err);
	dev->staged = 0;
	return CX_OK;
}

cx_status cx__cu_put(cx_cu_dev *dev, cx_cu_ptr to, const void *src, size_t bytes, cx_err *err)
{
	bool small = dev->stage && bytes <= CX_CU_STAGE / 4;
	cx_cu_result code;
	cx_status st;
	if (small) {
		if (bytes > CX_CU_STAGE - dev->staged && (st = finish(dev, err)) != CX_OK) return st;
		memcpy(dev->stage + dev->staged, src, bytes);
		src = dev->stage + dev->staged;
		dev->staged += (bytes + 63) & ~(size_t)63;
	}
	code = dev->cu.MemcpyHtoDAsync(to, src, bytes, dev->stream);
	if (code != CX_CU_OK) return cx__cu_fail(dev, "cuMemcpyHtoDAsync", code, err);
	return small ? CX_OK : finish(dev, err);
}

static cx_status cu_write(
	cx_buffer *buf, uint64_t off, const void *src, uint64_t bytes, cx_err *err)
{
	cx_cu_dev *dev = (cx_cu_dev *)buf->dev;
	cx_status st = check_range(buf, off, bytes, err);
	if (st != CX_OK || (st = cx__cu_enter(dev, err)) != CX_OK || !bytes) return st;
	return cx__cu_put(dev, ((cx_cu_buffer *)buf)->at + off, src, (size_t)bytes, err);
}

static cx_status cu_read(cx_buffer *buf, uint64_t off, void *dst, uint64_t bytes, cx_err *err)
{
	cx_cu_dev *dev = (cx_cu_dev *)buf->dev;
	cx_status st = check_range(buf, off, bytes, err);
	cx_cu_result code;
	if (st != CX_OK || (st = cx__cu_enter(dev, err)) != CX_OK || !bytes) return st;
	code =
		dev->cu.MemcpyDtoHAsync(dst, ((cx_cu_buffer *)buf)->at + off, (size_t)bytes, dev->stream);
	if (code != CX_CU_OK) return cx__cu_fail(dev, "cuMemcpyDtoHAsync", code, err);
	return finish(dev, err);
}

static cx_status cu_wait(cx_device *base, cx_err *err)
{
	cx_cu_dev *dev = (cx_cu_dev *)base;
	float ms = 0;
	cx_cu_result code;
	cx_status st = cx__cu_enter(dev, err);
	if (st != CX_OK || (st = finish(dev, err)) != CX_OK || !dev->timing) return st;
	dev->timing = false;
	code = dev->cu.EventElapsedTime(&ms, dev->event[0], dev->event[1]);
	if (code != CX_CU_OK) return cx__cu_fail(dev, "cuEventElapsedTime", code, err);
	base->seconds = ms > 0 ? 1e-3 * (double)ms : 0;
	return CX_OK;
}

const cx_backend cx__backend_cuda = {"cuda", cu_open, cu_close, cu_limits, cu_find, cu_alloc,
	cu_free, cu_write, cu_read, cx__cu_compile, cx__cu_submit, cu_wait, cx__cu_discard};
