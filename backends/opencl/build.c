/* build.c - programs from the sources in kernels/: built once per device and set of #defines, and
 * kept in a folder if the runtime was given one.
 *
 * A file holds a check value, then what the driver gave as the program's binary. Its name is a hash
 * of all that went in: sources, options, device and driver. A file that does not check out is built
 * anew and replaced. Drivers that keep programs themselves (PoCL) are left to do so. */
#include "backends/opencl/opencl.h"
#include "backends/opencl/texts.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct cx_cl_built {
	cx_cl_built *next;
	cl_program program;
	const char *family;
	size_t defines_size;
	char defines[];
};

enum { N_SOURCES = 4 };

static const char *text_of(const char *family)
{
	for (const cx__kernel_text *t = cx__kernel_texts; t->name; t++)
		if (strcmp(t->name, family) == 0) return t->text;
	CX_ASSERT(!"a family of kernels");
	return "";
}

/* Which families read blocks of sixteen. */
static bool needs_quant(const char *family)
{
	static const char *const names[] = {"matmul", "attn", "move", "row", "seq", "grad"};
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
		if (strcmp(names[i], family) == 0) return true;
	return false;
}

/* No fast-math, and no warnings, which some drivers print; what the device does by default is IEEE
 * but for division. */
static const char *options_of(const cx_cl_device *dev)
{
	return dev->exact_div ? "-w -cl-std=CL1.2 -cl-fp32-correctly-rounded-divide-sqrt"
						  : "-w -cl-std=CL1.2";
}

static uint64_t hash(uint64_t h, const void *data, size_t n)
{
	const unsigned char *p = data;
	for (size_t i = 0; i < n; i++) h = (h ^ p[i]) * 0x100000001b3u; /* FNV-1a */
	return h;
}

static cx_status build_failed(
	cx_cl_device *dev, cl_program p, const char *family, cl_int code, cx_err *err)
{
	char log[160] = "";
	size_t n = 0;
	char *text = NULL;
	if (code != CL_BUILD_PROGRAM_FAILURE) return cx__cl_fail(dev, "clBuildProgram", code, err);
	dev->cl.GetProgramBuildInfo(p, dev->id, CL_PROGRAM_BUILD_LOG, 0, NULL, &n);
	if (n > 0) text = cx_calloc(cx__cl_alloc_of(dev), n + 1, 1);
	if (text && dev->cl.GetProgramBuildInfo(p, dev->id, CL_PROGRAM_BUILD_LOG, n, text, NULL) ==
					CL_SUCCESS) {
		const char *from = strstr(text, "error");
		snprintf(log, sizeof log, "%s", from ? from : text);
		for (char *c = log; *c; c++)
			if (*c == '\n') *c = 0;
	}
	if (text) cx_free(cx__cl_alloc_of(dev), text, n + 1);
	return CX_FAIL(err, CX_ERR_DEVICE, "%s: the driver's compiler refuses kernels '%s': %s",
		dev->base.name, family, log);
}

/* ---- files ---- */

static bool path_of(const cx_cl_device *dev, const char *const *src, char *path, size_t size)
{
	const char *dir = cx_runtime_config(dev->base.rt)->cache_dir, *options = options_of(dev);
	uint64_t a = 0xcbf29ce484222325u, b = 0x84222325cbf29ce4u;
	if (!dir || dev->keeps_programs) return false;
	for (int i = 0; i < N_SOURCES; i++) {
		a = hash(a, src[i], strlen(src[i]) + 1);
		b = hash(b, src[i], strlen(src[i]) + 1);
	}
	a = hash(a, options, strlen(options));
	b = hash(b, dev->ident, strlen(dev->ident));
	a = hash(a, &b, sizeof b);
	return (size_t)snprintf(path, size, "%s/opencl-%016llx%016llx", dir, (unsigned long long)a,
			   (unsigned long long)b) < size;
}

static void log_damage(const cx_cl_device *dev, const char *path)
{
	const cx_config *cfg = cx_runtime_config(dev->base.rt);
	char msg[1200];
	if (!cfg->log) return;
	snprintf(msg, sizeof msg,
		"cached program %s is damaged or of another driver, and is built anew", path);
	cfg->log(cfg->log_ctx, CX_LOG_WARN, "opencl", msg);
}

static cl_program load(cx_cl_device *dev, const char *path)
{
	const cx_alloc *alloc = cx__cl_alloc_of(dev);
	FILE *f = fopen(path, "rb");
	uint64_t check = 0;
	unsigned char *data = NULL;
	const unsigned char *binary;
	cl_program p = NULL;
	long size = 0;
	size_t n;
	if (!f) return NULL;
	if (fseek(f, 0, SEEK_END) == 0) size = ftell(f);
	if (size > (long)sizeof check && size < 1 << 28) data = cx_malloc(alloc, (size_t)size);
	if (data && fseek(f, 0, SEEK_SET) == 0 && fread(data, 1, (size_t)size, f) == (size_t)size) {
		memcpy(&check, data, sizeof check);
		binary = data + sizeof check;
		n = (size_t)size - sizeof check;
		if (hash(0, binary, n) == check)
			p = dev->cl.CreateProgramWithBinary(dev->context, 1, &dev->id, &n, &binary, NULL, NULL);
	}
	if (p && dev->cl.BuildProgram(p, 1, &dev->id, options_of(dev), NULL, NULL) != CL_SUCCESS) {
		dev->cl.ReleaseProgram(p);
		p = NULL;
	}
	if (!p) log_damage(dev, path);
	if (data) cx_free(alloc, data, (size_t)size);
	fclose(f);
	return p;
}

/* Best effort: a program that cannot be kept is built again next time. Written beside, then
 * renamed. */
static void save(cx_cl_device *dev, cl_program p, const char *path)
{
	const cx_alloc *alloc = cx__cl_alloc_of(dev);
	char part[1100];
	size_t n = 0;
	unsigned char *binary;
	uint64_t check;
	FILE *f;
	bool good = false;
	if (dev->cl.GetProgramInfo(p, CL_PROGRAM_BINARY_SIZES, sizeof n, &n, NULL) != CL_SUCCESS ||
		n == 0)
		return;
	if ((size_t)snprintf(part, sizeof part, "%s.%ld", path, (long)getpid()) >= sizeof part) return;
	binary = cx_malloc(alloc, n);
	if (!binary) return;
	if (dev->cl.GetProgramInfo(p, CL_PROGRAM_BINARIES, sizeof binary, &binary, NULL) ==
			CL_SUCCESS &&
		(f = fopen(part, "wb")) != NULL) {
		check = hash(0, binary, n);
		good = fwrite(&check, 1, sizeof check, f) == sizeof check && fwrite(binary, 1, n, f) == n;
		good = fclose(f) == 0 && good;
		if (!good || rename(part, path) != 0) remove(part);
	}
	cx_free(alloc, binary, n);
}

/* ---- programs ---- */

static cx_status build(
	cx_cl_device *dev, const char *family, const char *const *src, cl_program *out, cx_err *err)
{
	cl_int code = CL_SUCCESS;
	cl_program p = dev->cl.CreateProgramWithSource(
		dev->context, N_SOURCES, (const char **)(uintptr_t)src, NULL, &code);
	cx_status st = CX_OK;
	if (!p) return cx__cl_fail(dev, "clCreateProgramWithSource", code, err);
	code = dev->cl.BuildProgram(p, 1, &dev->id, options_of(dev), NULL, NULL);
	if (code != CL_SUCCESS) {
		st = build_failed(dev, p, family, code, err);
		dev->cl.ReleaseProgram(p);
		return st;
	}
	*out = p;
	return CX_OK;
}

cx_status cx__cl_build(
	cx_cl_device *dev, const char *family, const char *defines, cl_program *out, cx_err *err)
{
	const char *src[N_SOURCES] = {
		defines, text_of("elem"), needs_quant(family) ? text_of("quant") : "", text_of(family)};
	size_t size = strlen(defines) + 1;
	cx_cl_built *b;
	char path[1024];
	bool keep = path_of(dev, src, path, sizeof path);
	cx_status st = CX_OK;
	for (b = dev->built; b; b = b->next)
		if (strcmp(b->family, family) == 0 && strcmp(b->defines, defines) == 0) {
			*out = b->program;
			return CX_OK;
		}
	b = cx_calloc(cx__cl_alloc_of(dev), 1, sizeof *b + size);
	if (!b) return CX_FAIL(err, CX_ERR_MEMORY, "%s: no memory for a program", dev->base.name);
	memcpy(b->defines, defines, size);
	b->defines_size = size;
	b->family = family;
	b->program = keep ? load(dev, path) : NULL;
	if (!b->program) {
		st = build(dev, family, src, &b->program, err);
		if (st == CX_OK && keep) save(dev, b->program, path);
	}
	if (st != CX_OK) {
		cx_free(cx__cl_alloc_of(dev), b, sizeof *b + size);
		return st;
	}
	b->next = dev->built;
	dev->built = b;
	*out = b->program;
	return CX_OK;
}

void cx__cl_built_free(cx_cl_device *dev)
{
	while (dev->built) {
		cx_cl_built *b = dev->built;
		dev->built = b->next;
		dev->cl.ReleaseProgram(b->program);
		cx_free(cx__cl_alloc_of(dev), b, sizeof *b + b->defines_size);
	}
}
