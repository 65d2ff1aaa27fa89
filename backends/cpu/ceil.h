/* ceil.h - what this machine can do at most, measured in the same process as the thing that is
 * compared with it: by the benchmarks and by `cortex profile`. */
#ifndef CX_CPU_CEIL_H
#define CX_CPU_CEIL_H

#include "backends/cpu/pool.h"

typedef struct cx_ceilings {
	double fma_gflops;  /* f32 multiply-adds counted as two, all threads of the pool, best vector
						  width */
	double bf16_gflops; /* pairs of bf16 added to f32; without such an instruction the f32 rate */
	double dot16_gops;  /* products of 16-bit integers added to 32 bits, likewise two per product */
	double dot8_gops;   /* of bytes; without such an instruction that of 16 bits */
	double read_gbs;    /* memory read, 512 MiB, eight streams per thread */
	double copy_gbs;    /* memory copied: bytes read plus bytes written */
} cx_ceilings;

/* The best of a few runs of each, about a second in all; takes 512 MiB for that time. False: no
 * memory. */
bool cx__ceilings_measure(cx_pool *pool, cx_ceilings *out);

#endif
