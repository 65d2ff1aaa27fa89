/* faulty.h - a cpu device with one broken kernel, for the tests of cortex diff: everything is
 * forwarded to cpu, and steps of one key (op, attributes, types and dims) come out wrong. */
#ifndef CX_TESTS_FAULTY_H
#define CX_TESTS_FAULTY_H

#include "graph/plan.h"

/* id, what goes wrong */
#define FAULT_KINDS(X)                                                                             \
	X(SIGN, "flipped sign")                                                                        \
	X(TAIL, "tail of the last row off by one")                                                     \
	X(STRIDE, "rows and columns swapped")                                                          \
	X(HALF, "sums kept with few bits")                                                             \
	X(MISSING, "an element is not written")                                                        \
	X(STALE, "nothing is written")                                                                 \
	X(BARRIER, "the second half is not yet there")                                                 \
	X(SCALE, "a factor of 1.01")                                                                   \
	X(NAN, "a NaN")                                                                                \
	X(INDEX, "a row from the wrong place")                                                         \
	X(EPSILON, "a wrong epsilon")
typedef enum fault_kind {
#define X(id, text) FAULT_##id,
	FAULT_KINDS(X)
#undef X
		FAULT_COUNT
} fault_kind;
extern const char *const fault_names[FAULT_COUNT];

/* What is broken: steps of this op with this attribute struct and these operands. */
typedef struct fault {
	fault_kind kind;
	uint64_t seed;
	cx_op op;
	const void *attr;
	const cx_prog *prog;
	cx_desc in[64], out[CX_MAX_OUT];
	uint32_t n_in, n_out;
	bool any; /* of this op whatever its attributes and operands: attr .. out above are not read */
	bool on;
	uint32_t min_steps; /* only in programs of so many steps */
	uint32_t n_effect;  /* out: steps whose result it moved out of tolerance */
} fault;

bool fault_hits(const fault *f, cx_op op, const void *attr, const cx_prog *prog, uint32_t n_in,
	uint32_t n_out, const cx_desc *in, const cx_desc *out);
/* One at a time; `what` must outlive the device. NULL on failure; cx_device_close() it. */
cx_device *faulty_open(cx_runtime *rt, fault *what);

#endif
