/* ids.h - the numbers of ops and dtypes as device code sees them, from the same rows as graph/cx.h.
 */
#ifndef CX_KERNEL_IDS_H
#define CX_KERNEL_IDS_H

enum {
#define CX_DTYPE(id, name, elems, bytes, cls, gguf, doc) CX_##id,
#include "graph/dtype.def"
#undef CX_DTYPE
	CX_DTYPE_COUNT
};

enum {
#define CX_OP(name, ...) CX_OP_##name,
#define CX_UNARY(name, ...) CX_OP_##name,
#define CX_BINARY(name, ...) CX_OP_##name,
#include "graph/ops.def"
#undef CX_OP
#undef CX_UNARY
#undef CX_BINARY
	CX_OP_COUNT
};

#endif
