/* runtime.c - cx_runtime: configuration that devices share; cx_device: opened by backend name. */
#include "graph/backend.h"

#include <string.h>

enum { MAX_BACKENDS = 16 };

struct cx_runtime {
	cx_config config;
	int notes[MAX_BACKENDS]; /* by place in the list of backends */
};

cx_status cx_runtime_create(const cx_config *config, cx_runtime **out, cx_err *err)
{
	cx_alloc alloc = config && config->alloc.realloc ? config->alloc : cx_alloc_default();
	cx_runtime *rt;
	*out = NULL;
	rt = cx_calloc(&alloc, 1, sizeof *rt);
	if (!rt) return CX_FAIL(err, CX_ERR_MEMORY, "out of memory for the runtime");
	if (config) rt->config = *config;
	rt->config.alloc = alloc;
	*out = rt;
	return CX_OK;
}

void cx_runtime_free(cx_runtime *rt)
{
	cx_alloc alloc;
	if (!rt) return;
	alloc = rt->config.alloc;
	cx_free(&alloc, rt, sizeof *rt);
}

const cx_config *cx_runtime_config(const cx_runtime *rt)
{
	return &rt->config;
}

int *cx__runtime_note(cx_runtime *rt, const cx_backend *backend)
{
	int i = 0;
	while (i < MAX_BACKENDS && cx__backends[i] && cx__backends[i] != backend) i++;
	CX_ASSERT(i < MAX_BACKENDS && cx__backends[i]);
	return &rt->notes[i];
}

cx_status cx_device_open(
	cx_runtime *rt, const char *backend, int index, cx_device **out, cx_err *err)
{
	char known[120] = "";
	*out = NULL;
	if (!backend) return CX_FAIL(err, CX_ERR_ARGUMENT, "cx_device_open: no backend named");
	for (const cx_backend *const *b = cx__backends; *b; b++) {
		if (strcmp((*b)->name, backend) == 0) return (*b)->open(rt, index, out, err);
		if (strlen(known) + strlen((*b)->name) + 3 > sizeof known) continue;
		if (known[0]) strcat(known, ", ");
		strcat(known, (*b)->name);
	}
	return CX_FAIL(
		err, CX_ERR_ARGUMENT, "no backend '%.40s' in this build; there is %s", backend, known);
}

void cx_device_close(cx_device *dev)
{
	if (dev) dev->backend->close(dev);
}

const char *cx_device_name(const cx_device *dev)
{
	return dev->name;
}
