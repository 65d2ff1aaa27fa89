/* ctor.c - one constructor per row of ops.def: cx_add(g, a, b), cx_softmax(g, x, &attr),
 * cx_concat(g, in, n, &attr). */
#include "graph/graph.h"

/* clang-format off */
#define OPERANDS_0 const cx_tensor *in = NULL; uint32_t n_in = 0;
#define OPERANDS_1 cx_tensor in[] = {a0}; uint32_t n_in = 1;
#define OPERANDS_2 cx_tensor in[] = {a0, a1}; uint32_t n_in = 2;
#define OPERANDS_3 cx_tensor in[] = {a0, a1, a2}; uint32_t n_in = 3;
#define OPERANDS_4 cx_tensor in[] = {a0, a1, a2, a3}; uint32_t n_in = 4;
#define OPERANDS_5 cx_tensor in[] = {a0, a1, a2, a3, a4}; uint32_t n_in = 5;
#define OPERANDS_6 cx_tensor in[] = {a0, a1, a2, a3, a4, a5}; uint32_t n_in = 6;
#define OPERANDS_7 cx_tensor in[] = {a0, a1, a2, a3, a4, a5, a6}; uint32_t n_in = 7;
#define OPERANDS_8 cx_tensor in[] = {a0, a1, a2, a3, a4, a5, a6, a7}; uint32_t n_in = 8;
#define OPERANDS_9 cx_tensor in[] = {a0, a1, a2, a3, a4, a5, a6, a7, a8}; uint32_t n_in = 9;
#define OPERANDS_10 cx_tensor in[] = {a0, a1, a2, a3, a4, a5, a6, a7, a8, a9}; uint32_t n_in = 10;
#define OPERANDS_V
/* The parameter that CX_ATTR_PARAM declares is named like its struct: const cx_attr_dims *dims. */
#define ATTR_ARG_YES(attr) attr
#define ATTR_ARG_NO(attr) NULL
#define ATTR_ARG(attr_) CX_CAT(ATTR_ARG_, CX_SECOND(CX_PROBE_##attr_, YES, ~))(attr_)

#undef CX_CTOR_
#define CX_CTOR_(name, n_max, attr_)                                        \
	cx_tensor cx_##name(cx_graph *g CX_IN_##n_max CX_ATTR_PARAM(attr_))     \
	{                                                                       \
		OPERANDS_##n_max                                                    \
		return cx_node_add(g, CX_OP_##name, in, n_in, ATTR_ARG(attr_));     \
	}
#define CX_OP(name, n_min, n_max, n_out, attr, shape, grad, kind, ...) \
	CX_CTOR_##kind(name, n_max, attr)
#include "graph/ops.def"
#undef CX_OP
