/* span.h - rows of a sequence of a ragged batch, for the kernels of sequences and of their
 * gradients: i[0] sequences, i[1] rows, i[2] rows of state. */
#ifndef CX_SPAN_H
#define CX_SPAN_H

#include "kernels/dialect.h"

struct cx_span {
	cx_i32 first, end, slot;
};

CX_FN struct cx_span cx_span_of(CX_BUF(off), CX_PQ const struct cx_ktensor *to, CX_BUF(slot),
	CX_PQ const struct cx_ktensor *ts, CX_PQ const struct cx_kparams *p, cx_i32 b)
{
	struct cx_span s;
	s.first = 0;
	s.end = b == 0 ? p->i[1] : 0;
	s.slot = b;
	if (to->dtype != CX_K_NONE) {
		s.first = ((CX_GLOBAL const cx_i32 *)off)[to->off + (cx_u32)b * to->stride[5]];
		s.end = ((CX_GLOBAL const cx_i32 *)off)[to->off + (cx_u32)(b + 1) * to->stride[5]];
		if (s.first < 0) s.first = 0; /* a table that lies must not read outside */
		if (s.end > p->i[1]) s.end = p->i[1];
	}
	if (ts->dtype != CX_K_NONE)
		s.slot = ((CX_GLOBAL const cx_i32 *)slot)[ts->off + (cx_u32)b * ts->stride[5]];
	if (s.slot < 0 || s.slot >= p->i[2]) s.slot = -1;
	return s;
}

CX_FN cx_u32 cx_state_at(CX_PQ const struct cx_ktensor *t, cx_i32 slot, cx_i32 i, cx_u32 ch)
{
	return t->off + (cx_u32)slot * t->stride[3] + (cx_u32)i * t->stride[4] + ch * t->stride[5];
}

CX_FN cx_u32 cx_head_at(CX_PQ const struct cx_ktensor *t, cx_u32 row, cx_u32 h)
{
	return t->off + row * t->stride[3] + h * t->stride[4];
}

#endif
