/* fns.c - this instruction set's functions, in the order of kernels.def. */
#include "backends/cpu/isa/lane.h"

#define CX_CPU_KERNEL(op, name, ...) void CX_ISA_NAME(name)(const cx_cpu_call *c, cx_cpu_team *t);
#include "backends/cpu/kernels.def"
#undef CX_CPU_KERNEL

const cx_cpu_fn CX_ISA_NAME(cx__cpu_fns)[CX_CPU_N_KERNELS] = {
#define CX_CPU_KERNEL(op, name, ...) CX_ISA_NAME(name),
#include "backends/cpu/kernels.def"
#undef CX_CPU_KERNEL
};
