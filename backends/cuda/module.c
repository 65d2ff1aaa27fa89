/* module.c - device code: the plug-in that holds it, and kernels by name. */
#include "backends/cuda/cuda.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PLUGIN "cortex-cuda.so"

static const cx_cuda_plugin *checked(const cx_cuda_plugin *p, char *why, size_t size)
{
	if (p && p->version == CX_CUDA_VERSION && p->params_bytes == sizeof(struct cx_kparams))
		return p;
	snprintf(why, size, "the plug-in " PLUGIN " is of another version than this program");
	return NULL;
}

static const cx_cuda_plugin *load(const char *path, void **lib, char *why, size_t size)
{
	const cx_cuda_plugin *p;
	*lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!*lib) {
		const char *said = dlerror();
		snprintf(why, size, "%.180s", said ? said : "the plug-in " PLUGIN " does not load");
		return NULL;
	}
	p = checked(dlsym(*lib, CX_CUDA_SYMBOL), why, size);
	if (!p) {
		dlclose(*lib);
		*lib = NULL;
	}
	return p;
}

const cx_cuda_plugin *cx__cu_plugin(void **lib, char *why, size_t size)
{
	static const char *const places[] = {"", "../", "../lib/cortex/"};
	const cx_cuda_plugin *linked = dlsym(RTLD_DEFAULT, CX_CUDA_SYMBOL);
	char exe[1024], path[1200], *slash;
	ssize_t n;
	*lib = NULL;
	if (linked) return checked(linked, why, size);
	n = readlink("/proc/self/exe", exe, sizeof exe - 1);
	exe[n > 0 ? n : 0] = 0;
	slash = strrchr(exe, '/');
	for (size_t i = 0; slash && i < sizeof places / sizeof *places; i++) {
		slash[1] = 0;
		snprintf(path, sizeof path, "%s%s" PLUGIN, exe, places[i]);
		if (access(path, R_OK) == 0) return load(path, lib, why, size);
	}
	snprintf(why, size,
		"the plug-in " PLUGIN " is neither beside the program nor in ../lib/cortex; it is built "
		"where nvcc is");
	return NULL;
}

static const cx_cuda_image *find(const cx_cuda_plugin *p, const char *name)
{
	for (const cx_cuda_image *m = p->images; m->name; m++)
		if (strcmp(m->name, name) == 0) return m;
	return NULL;
}

/* "matmul-1.1.1" where there is such a module, else "matmul". */
static const cx_cuda_image *image_of(const cx_cu_dev *dev, const cx_dk_draft *d)
{
	const cx_cuda_image *m;
	char name[64];
	size_t at = (size_t)snprintf(name, sizeof name, "%s", d->family);
	for (uint32_t t = 0; t < d->n_own && at < sizeof name; t++)
		at += (size_t)snprintf(
			name + at, sizeof name - at, "%c%u", t ? '.' : '-', (unsigned)d->p.t[t].dtype);
	m = at < sizeof name ? find(dev->plugin, name) : NULL;
	return m ? m : find(dev->plugin, d->family);
}

static cx_status load_failed(cx_cu_dev *dev, const char *name, cx_cu_result code, cx_err *err)
{
	if (code != CX_CU_NO_BINARY && code != CX_CU_PTX_VERSION && code != CX_CU_INVALID_IMAGE)
		return cx__cu_fail(dev, "cuModuleLoadData", code, err);
	dev->base.failed = true;
	return CX_FAIL(err, CX_ERR_DEVICE,
		"%s: the driver (CUDA %d.%d) does not take the kernels '%s', which were built with CUDA "
		"%s: a newer driver is needed, or a plug-in built for this device",
		dev->base.name, dev->driver / 1000, dev->driver % 1000 / 10, name, dev->plugin->toolkit);
}

static cx_status module_of(
	cx_cu_dev *dev, const cx_cuda_image *image, cx_cu_module *out, cx_err *err)
{
	cx_cu_loaded *l;
	cx_cu_result code;
	for (l = dev->loaded; l; l = l->next)
		if (l->image == image) {
			*out = l->module;
			return CX_OK;
		}
	l = cx_calloc(cx__cu_alloc_of(dev), 1, sizeof *l);
	if (!l) return CX_FAIL(err, CX_ERR_MEMORY, "%s: no memory for a module", dev->base.name);
	code = dev->cu.ModuleLoadData(&l->module, image->data);
	if (code != CX_CU_OK) {
		cx_free(cx__cu_alloc_of(dev), l, sizeof *l);
		return load_failed(dev, image->name, code, err);
	}
	l->image = image;
	l->next = dev->loaded;
	dev->loaded = l;
	*out = l->module;
	return CX_OK;
}

cx_status cx__cu_function(cx_cu_dev *dev, const cx_dk_draft *d, cx_cu_function *out, cx_err *err)
{
	const cx_cuda_image *image = image_of(dev, d);
	cx_cu_module module = NULL;
	cx_cu_result code;
	cx_status st;
	if (!image)
		return CX_FAIL(err, CX_ERR_UNSUPPORTED, "%s: the plug-in " PLUGIN " has no kernels '%s'",
			dev->base.name, d->family);
	if ((st = module_of(dev, image, &module, err)) != CX_OK) return st;
	code = dev->cu.ModuleGetFunction(out, module, d->name);
	return code == CX_CU_OK ? CX_OK : cx__cu_fail(dev, "cuModuleGetFunction", code, err);
}

void cx__cu_unload_modules(cx_cu_dev *dev)
{
	while (dev->loaded) {
		cx_cu_loaded *l = dev->loaded;
		dev->loaded = l->next;
		dev->cu.ModuleUnload(l->module);
		cx_free(cx__cu_alloc_of(dev), l, sizeof *l);
	}
}
