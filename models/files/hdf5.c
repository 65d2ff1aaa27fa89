/* hdf5.c - finds and loads the HDF5 plug-in. See hdf5.h. */
#include "models/files/hdf5.h"
#include "models/files/map.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PLUGIN "cortex-nwb.so"

static cx_status load(const char *path, const cx_h5_api **out, cx_err *err)
{
	/* NODELETE: libhdf5 registers handlers that run when the program ends. */
	void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
	const cx_h5_api *api = lib ? dlsym(lib, "cx_h5_plugin") : NULL;
	if (!lib) {
		const char *why = dlerror();
		return CX_FAIL(err, CX_ERR_UNSUPPORTED, "HDF5 files cannot be read: %.180s",
			why ? why : "the plug-in " PLUGIN " does not load");
	}
	if (!api || api->version != CX_H5_VERSION)
		return CX_FAIL(err, CX_ERR_UNSUPPORTED,
			"HDF5 files cannot be read: %.120s is of another version than this program",
			cx_path_tail(path));
	*out = api;
	return CX_OK;
}

cx_status cx_h5_load(const char *folder, const cx_h5_api **out, cx_err *err)
{
	static const char *const places[] = {"", "../", "../lib/cortex/"};
	char exe[1024], path[1200];
	ssize_t n;
	char *slash;
	*out = NULL;
	if (folder) {
		if (snprintf(path, sizeof path, "%s/%s", folder, PLUGIN) >= (int)sizeof path)
			return CX_FAIL(err, CX_ERR_ARGUMENT, "the path of the plug-in folder is too long");
		return load(path, out, err);
	}
	n = readlink("/proc/self/exe", exe, sizeof exe - 1);
	exe[n > 0 ? n : 0] = 0;
	slash = strrchr(exe, '/');
	if (slash) {
		slash[1] = 0;
		for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
			snprintf(path, sizeof path, "%s%s%s", exe, places[i], PLUGIN);
			if (access(path, R_OK) == 0) return load(path, out, err);
		}
	}
	return CX_FAIL(err, CX_ERR_UNSUPPORTED,
		"HDF5 (NWB) files cannot be read: the plug-in " PLUGIN
		" is neither beside the program nor in ../lib/cortex; it is built where libhdf5-dev is "
		"installed");
}
