/* map_ops.h - one instruction of a map program over one tile. */
#ifndef CX_CPU_MAP_OPS_H
#define CX_CPU_MAP_OPS_H

#include "backends/cpu/isa/vec.h"
#include "graph/graph.h"

typedef struct cx_tile_args {
	const void *a, *b; /* f32 or int64 registers */
	float p, q;        /* clamp's bounds */
	int64_t ip, iq;
} cx_tile_args;
typedef void cx_tile_f32(float *y, const cx_tile_args *o, int64_t n);
typedef void cx_tile_i64(int64_t *y, const cx_tile_args *o, int64_t n);

/* The function of a row of scalar.def; NULL for other ops. */
cx_tile_f32 *CX_ISA_NAME(cx__tile_float)(cx_op op);
cx_tile_i64 *CX_ISA_NAME(cx__tile_int)(cx_op op);
/* A unary op in place, as gemm.h wants its activation. */
typedef void cx_tile_act_fn(float *x, size_t n);
cx_tile_act_fn *CX_ISA_NAME(cx__tile_act)(cx_op op);
#define cx_tile_act CX_ISA_NAME(cx__tile_act)
#define cx_tile_float CX_ISA_NAME(cx__tile_float)
#define cx_tile_int CX_ISA_NAME(cx__tile_int)

#endif
