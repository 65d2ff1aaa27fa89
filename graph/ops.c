/* ops.c - the info table made from ops.def, and what the columns `grad`, `tol` and
 * `alias` mean. */
#include "graph/grad.h"
#include "graph/shape.h"

#include <string.h>

/* clang-format off */
/* How near a backend must be to the reference, as normalised mean square error by output dtype
 * {f32, f16, bf16}. The reference accumulates in double and rounds once. Half a unit in the last
 * place is a relative error of 2^-12 in f16 and 2^-9 in bf16; where a backend's error in f32 moves
 * a value across a rounding boundary it is a whole unit off, at most 2^-10 and 2^-7. In a tensor of
 * one element that is the whole error: 2^-20 and 2^-14.
 *   EXACT  one correctly rounded operation, or none: the same bits
 *   MAP    a function of one or two elements: about 8 units in the last place of f32
 *   SUM    a sum along an axis in f32, any order, and functions of it
 * TILE   products summed over an axis. With block formats the other operand may be rounded to
 * 16-bit
 *          integers, one scale per block: 2^-16 of the block's largest magnitude, near 1e-9 of the
 *          result's power; ten times that where a small result cancels. Never to 8 bits. */
#define CX_TOL_EXACT {0.0, 0.0, 0.0}
#define CX_TOL_MAP {1e-12, 1e-6, 6.2e-5}
#define CX_TOL_SUM {1e-11, 1e-6, 6.2e-5}
#define CX_TOL_TILE {1e-8, 1e-6, 6.2e-5}

/* Which operand an output is the updated content of; -1: a new tensor. */
#define CX_ALIAS_none {-1, -1, -1, -1}
#define CX_ALIAS_first {0, -1, -1, -1}
#define CX_ALIAS_conv1d {-1, 3, -1, -1}
#define CX_ALIAS_delta {-1, 5, -1, -1}
#define CX_ALIAS_adamw {0, 2, 3, -1}
#define CX_ALIAS_kv {4, 5, -1, -1}

/* The gradient slot must be written out: a rule of grad_*.c, or this. */
#define cx__grad_stop NULL

enum { CX_NMAX_0, CX_NMAX_1, CX_NMAX_2, CX_NMAX_3, CX_NMAX_4, CX_NMAX_5, CX_NMAX_6, CX_NMAX_7,
	CX_NMAX_8, CX_NMAX_9, CX_NMAX_10, CX_NMAX_V = 255 };

const cx_op_info cx__ops[CX_OP_COUNT] = {
#define CX_OP(op, n_min, n_max, n_out, attr, shape, grad, kind, tol, alias, fuzz, inputs, doc) \
	[CX_OP_##op] = {#op, n_min, CX_NMAX_##n_max, n_out, CX_KIND_##kind, CX_ATTR_##attr, \
		cx__shape_##shape, cx__grad_##grad, #grad, CX_TOL_##tol, CX_ALIAS_##alias, inputs, doc},
#include "graph/ops.def"
#undef CX_OP
};
/* clang-format on */

bool cx__op_by_name(const char *name, size_t len, cx_op *out)
{
	for (int i = 0; i < CX_OP_COUNT; i++) {
		const char *s = cx__ops[i].name;
		if (len == 0 || s[0] != name[0] || strlen(s) != len || memcmp(s, name, len) != 0) continue;
		*out = (cx_op)i;
		return true;
	}
	return false;
}
