/* api.c - the CUDA driver, loaded at run time. */
#include "backends/cuda/cuda.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

bool cx__cu_load(cx_cu_api *cu, char *why, size_t size)
{
	memset(cu, 0, sizeof *cu);
	cu->lib = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
	if (!cu->lib) {
		snprintf(why, size, "libcuda.so.1 was not found: no NVIDIA driver is installed");
		return false;
	}
#define X(name, symbol, params)                                                                    \
	void *fn_##name = dlsym(cu->lib, symbol);                                                      \
	memcpy(&cu->name, &fn_##name, sizeof fn_##name);                                               \
	if (!fn_##name) {                                                                              \
		snprintf(why, size,                                                                        \
			"libcuda.so.1 has no function " symbol ": the driver is older than CUDA 11.4");        \
		cx__cu_unload(cu);                                                                         \
		return false;                                                                              \
	}
	CX_CU_FUNCTIONS(X)
#undef X
	return true;
}

void cx__cu_unload(cx_cu_api *cu)
{
	if (cu->lib) dlclose(cu->lib);
	cu->lib = NULL;
}
