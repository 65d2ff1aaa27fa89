/* list.c - the rows of backends/list.def as tables. */
#include "graph/backend.h"

#define CX_BACKEND(name) extern const cx_backend cx__backend_##name;
#include "backends/list.def"
#undef CX_BACKEND

const cx_backend *const cx__backends[] = {
#define CX_BACKEND(name) &cx__backend_##name,
#include "backends/list.def"
#undef CX_BACKEND
	NULL,
};

const char *const *cx_backend_names(void)
{
	static const char *const names[] = {
#define CX_BACKEND(name) #name,
#include "backends/list.def"
#undef CX_BACKEND
		NULL,
	};
	return names;
}
