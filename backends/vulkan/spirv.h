/* spirv.h - a shader cut down to what one pipeline needs. */
#ifndef CX_VK_SPIRV_H
#define CX_VK_SPIRV_H

#include "graph/base.h"

enum { CX_SPV_MODE_NAN = 1, CX_SPV_MODE_DENORM = 2, CX_SPV_MODE_RTE = 4 };

typedef struct cx_spv {
	const cx_alloc *alloc;
	uint32_t *word; /* [n], room for cap */
	size_t n, cap;
} cx_spv;

/* out = the module `in` for these values of its specialization constants (ids 0..n_spec-1):
 * branches and switches
 * on constants are taken, functions are made anew for each set of constant arguments, what
 * cannot be reached is
 * left out; and `modes` are added for 32-bit floats. Drivers do the same, but only after
 * inlining everything,
 * which takes them many times as long. The constants stay specialization constants. False: out
 * of memory, or a
 * module that is not as glslang writes them. Free out->word (cap * 4 bytes) in either case. */
bool cx__spv_specialise(const uint32_t *in, size_t n, const uint32_t *spec, uint32_t n_spec,
	uint32_t modes, cx_spv *out);

#endif
