/* api.c - the OpenCL driver: loaded at run time, its devices, its error codes. */
#include "backends/opencl/opencl.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

bool cx__cl_load(cx_cl_api *cl, char *why, size_t size)
{
	memset(cl, 0, sizeof *cl);
	cl->lib = dlopen("libOpenCL.so.1", RTLD_NOW | RTLD_LOCAL);
	if (!cl->lib) {
		snprintf(why, size, "libOpenCL.so.1 was not found: no OpenCL driver is installed");
		return false;
	}
#define X(name)                                                                                    \
	void *fn_##name = dlsym(cl->lib, "cl" #name);                                                  \
	memcpy(&cl->name, &fn_##name, sizeof fn_##name);                                               \
	if (!fn_##name) {                                                                              \
		snprintf(why, size, "libOpenCL.so.1 has no function cl" #name);                            \
		cx__cl_unload(cl);                                                                         \
		return false;                                                                              \
	}
	CX_CL_FUNCTIONS(X)
#undef X
	return true;
}

void cx__cl_unload(cx_cl_api *cl)
{
	if (cl->lib) dlclose(cl->lib);
	cl->lib = NULL;
}

const char *cx__cl_error(cl_int code)
{
	switch (code) {
#define X(name)                                                                                    \
	case name:                                                                                     \
		return #name;
		X(CL_DEVICE_NOT_FOUND)
		X(CL_DEVICE_NOT_AVAILABLE)
		X(CL_COMPILER_NOT_AVAILABLE)
		X(CL_MEM_OBJECT_ALLOCATION_FAILURE)
		X(CL_OUT_OF_RESOURCES)
		X(CL_OUT_OF_HOST_MEMORY)
		X(CL_BUILD_PROGRAM_FAILURE)
		X(CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST)
		X(CL_INVALID_VALUE)
		X(CL_INVALID_DEVICE)
		X(CL_INVALID_CONTEXT)
		X(CL_INVALID_COMMAND_QUEUE)
		X(CL_INVALID_MEM_OBJECT)
		X(CL_INVALID_BINARY)
		X(CL_INVALID_BUILD_OPTIONS)
		X(CL_INVALID_PROGRAM)
		X(CL_INVALID_PROGRAM_EXECUTABLE)
		X(CL_INVALID_KERNEL_NAME)
		X(CL_INVALID_KERNEL)
		X(CL_INVALID_ARG_INDEX)
		X(CL_INVALID_ARG_VALUE)
		X(CL_INVALID_ARG_SIZE)
		X(CL_INVALID_KERNEL_ARGS)
		X(CL_INVALID_WORK_GROUP_SIZE)
		X(CL_INVALID_WORK_ITEM_SIZE)
		X(CL_INVALID_GLOBAL_WORK_SIZE)
		X(CL_INVALID_OPERATION)
		X(CL_INVALID_BUFFER_SIZE)
#undef X
	default:
		return "an error of the driver";
	}
}

/* Devices of one kind; stops at device `index`, counted from *n on. */
static bool pick_kind(const cx_cl_api *cl, const cl_platform_id *platforms, cl_uint n_platforms,
	cl_device_type kind, int index, cl_platform_id *platform, cl_device_id *device, int *n)
{
	cl_device_id ids[16];
	bool found = false;
	for (cl_uint i = 0; i < n_platforms; i++) {
		cl_uint n_ids = 0;
		if (cl->GetDeviceIDs(platforms[i], kind, 16, ids, &n_ids) != CL_SUCCESS) continue;
		if (n_ids > 16) n_ids = 16;
		for (cl_uint j = 0; j < n_ids; j++) {
			if (*n == index) {
				*platform = platforms[i];
				*device = ids[j];
				found = true;
			}
			++*n;
		}
	}
	return found;
}

bool cx__cl_pick(
	const cx_cl_api *cl, int index, cl_platform_id *platform, cl_device_id *device, int *n)
{
	cl_platform_id platforms[16];
	cl_uint n_platforms = 0;
	bool found;
	*n = 0;
	if (cl->GetPlatformIDs(16, platforms, &n_platforms) != CL_SUCCESS) return false;
	if (n_platforms > 16) n_platforms = 16;
	found = pick_kind(cl, platforms, n_platforms, CL_DEVICE_TYPE_GPU | CL_DEVICE_TYPE_ACCELERATOR,
		index, platform, device, n);
	if (pick_kind(cl, platforms, n_platforms, CL_DEVICE_TYPE_CPU, index, platform, device, n))
		found = true;
	return found;
}
