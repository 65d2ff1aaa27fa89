/* map.h - an elementwise step made ready to run: collapsed axes, typed registers, slots. map.c
 * makes it, isa/map.c runs it. */
#ifndef CX_CPU_MAP_H
#define CX_CPU_MAP_H

#include "backends/cpu/cpu.h"

enum { CX_MAP_TILE = 512, CX_MAP_REGS = CX_PROG_MAX_IN + CX_PROG_MAX };

/* How an operand's tile is found. */
typedef enum cx_map_how {
	CX_MAP_LINEAR, /* its elements lie as the result's do */
	CX_MAP_ROWS,   /* inner stride 1 */
	CX_MAP_SCALAR, /* one element */
	CX_MAP_SPLAT,  /* inner stride 0 */
	CX_MAP_STRIDED
} cx_map_how;

/* The result's index space, with neighbouring axes merged where all operands allow it: n_outer rows
 * of n_inner elements; result element = row * n_inner + column. Float and bool registers are f32,
 * the others int64. */
typedef struct cx_map_plan {
	int32_t rank; /* of the outer axes */
	int64_t dim[CX_MAX_RANK];
	int64_t n_outer, n_inner;
	int64_t rows_per_tile; /* > 1: a tile is that many whole rows */
	int64_t tiles_per_row;
	struct {
		cx_map_how how;
		int64_t stride[CX_MAX_RANK], inner;
	} in[CX_PROG_MAX_IN];
	cx_prog prog;                /* single ops: one instruction */
	cx_dtype dtype[CX_MAP_REGS]; /* of each register */
	uint8_t slot[CX_MAP_REGS];
	uint8_t direct; /* output that the last instruction writes straight to memory, or 255 */
	uint8_t n_slots;
	uint32_t slot_bytes;
	int64_t reduce; /* cx_attr_map.reduce */
} cx_map_plan;

static inline bool cx_map_is_int(cx_dtype t)
{
	return t == CX_I32 || t == CX_I64 || t == CX_U8 || t == CX_I8;
}

/* The prepare() of map kernels. */
cx_status cx__cpu_map_prepare(const cx_cpu_call *c, cx_arena *a, const void **plan, cx_err *err);

#endif
