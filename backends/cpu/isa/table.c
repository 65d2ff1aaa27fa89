/* table.c - the table of this instruction set's kernels. */
#include "backends/cpu/isa/kernels.h"

#define CX_STR2(x) #x
#define CX_STR(x) CX_STR2(x)

const cx_cpu_isa CX_ISA_NAME(cx__cpu_isa) = {
	.name = CX_STR(CX_ISA),
	.f_rows = CX__F_ROWS,
	.q_rows = CX__Q_ROWS,
	.q_cols = CX__Q_COLS,
	.p_vecs = CX__P_VECS,
	.p_i8_step = CX_HAVE_DOT8 ? 4 : 2,
	.bf16_dot = CX_HAVE_BF16,
	.act_bytes = CX_HAVE_DOT8,
	.to_f32 = CX_ISA_NAME(cx__to_f32),
	.from_f32 = CX_ISA_NAME(cx__from_f32),
	.add = CX_ISA_NAME(cx__row_add),
	.mul = CX_ISA_NAME(cx__row_mul),
#define ROW1(f) .f = CX_ISA_NAME(cx__row_##f),
	CX_CPU_ROW1(ROW1).dot_f = CX_ISA_NAME(cx__dot_f),
	.pack_a = CX_ISA_NAME(cx__pack_a),
	.pack_at = CX_ISA_NAME(cx__pack_at),
	.pack_w = CX_ISA_NAME(cx__pack_w),
	.gemm_p = CX_ISA_NAME(cx__gemm_p),
	.quant_i8 = CX_ISA_NAME(cx__quant_i8),
	.quant_act = CX_ISA_NAME(cx__quant_act),
#define DOT(id, kind) [CX_##id] = CX_ISA_NAME(cx__dot_##id),
#define PACK(id, kind) [CX_##id] = CX_ISA_NAME(cx__pack_##id),
#define GEMM(id, kind) [CX_##id] = CX_ISA_NAME(cx__gemm_q_##kind),
	.dot_q = {CX_Q_FORMATS(DOT)},
	.pack_q = {CX_Q_FORMATS(PACK)},
	.gemm_q = {CX_Q_FORMATS(GEMM)},
};
