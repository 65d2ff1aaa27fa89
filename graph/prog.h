/* prog.h - map programs: what may stand in one, and their text. See cx_prog in graph.h. */
#ifndef CX_PROG_H
#define CX_PROG_H

#include "graph/graph.h"

/* Number of register operands that an instruction of this op reads: 1 (unary, clamp, cast), 2, 3
 * (where); 0: not an op of map programs. */
int cx__prog_arity(unsigned op);
/* Registers are defined before they are read, ops are elementwise, dtypes plain, counts in range.
 */
cx_status cx__prog_check(const cx_prog *p, cx_err *err);

enum { CX_PROG_TEXT_MAX = 2048 };
/* "r2=mul r0 r1;r3=clamp r2 0 1;r4=cast r3 bf16;out r4:f32". Returns the length. */
size_t cx__prog_print(const cx_prog *p, char *buf, size_t size);
/* Reads that for n_in operands; structure only, cx__prog_check() does the rest. */
bool cx__prog_parse(const char *text, size_t n, uint32_t n_in, cx_prog *out);

#endif
