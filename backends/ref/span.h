/* span.h - ragged batches with carried state: operands off [B+1] and slot [B], both optional. */
#ifndef CX_REF_SPAN_H
#define CX_REF_SPAN_H

#include "backends/ref/ref.h"

/* Rows first..end-1 of sequence b, and its row of the state: -1 to start from zeros and keep
 * nothing. */
typedef struct span {
	int64_t first, end, slot;
} span;

static inline int64_t n_sequences(const cx__ref_call *c, uint32_t off, uint32_t slot)
{
	if (cx__ref_has(c, off)) return c->in[off].d.dim[0] - 1;
	return cx__ref_has(c, slot) ? c->in[slot].d.dim[0] : 1;
}

static inline span sequence_at(
	const cx__ref_call *c, int64_t b, uint32_t off, uint32_t slot, int64_t n_rows, int64_t n_slots)
{
	span s = {0, b == 0 ? n_rows : 0, b};
	if (cx__ref_has(c, off)) {
		const cx__ref_arg *o = &c->in[off];
		s.first = cx__elem_int(o, b * o->d.stride[0]);
		s.end = cx__elem_int(o, (b + 1) * o->d.stride[0]);
		if (s.first < 0) s.first = 0; /* a table that lies must not read outside */
		if (s.end > n_rows) s.end = n_rows;
	}
	if (cx__ref_has(c, slot)) s.slot = cx__elem_int(&c->in[slot], b * c->in[slot].d.stride[0]);
	if (s.slot < 0 || s.slot >= n_slots) s.slot = -1;
	return s;
}

#endif
