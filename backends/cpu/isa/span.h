/* span.h - ragged batches with carried state: operands off [B+1] and slot [B], both optional. */
#ifndef CX_CPU_SPAN_H
#define CX_CPU_SPAN_H

#include "backends/cpu/cpu.h"

/* Rows [first, end) of a sequence and its row of the state: -1 to start from zeros and keep
 * nothing. */
typedef struct cx_span {
	int64_t first, end, slot;
} cx_span;

static inline int64_t cx_span_count(const cx_cpu_call *c, uint32_t off, uint32_t slot)
{
	if (cx_cpu_has(c, off)) return c->in[off].d.dim[0] - 1;
	return cx_cpu_has(c, slot) ? c->in[slot].d.dim[0] : 1;
}

/* A table that lies must not read outside. */
static inline cx_span cx_span_at(
	const cx_cpu_call *c, int64_t b, uint32_t off, uint32_t slot, int64_t n_rows, int64_t n_slots)
{
	cx_span s = {0, b == 0 ? n_rows : 0, b};
	if (cx_cpu_has(c, off)) {
		const int32_t *o = (const int32_t *)(const void *)c->in[off].p;
		s.first = o[b * c->in[off].d.stride[0]];
		s.end = o[(b + 1) * c->in[off].d.stride[0]];
		if (s.first < 0) s.first = 0;
		if (s.end > n_rows) s.end = n_rows;
	}
	if (cx_cpu_has(c, slot))
		s.slot = ((const int32_t *)(const void *)c->in[slot].p)[b * c->in[slot].d.stride[0]];
	if (s.slot < 0 || s.slot >= n_slots) s.slot = -1;
	return s;
}

#endif
