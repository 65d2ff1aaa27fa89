/* dialect.h - the language that the kernels in this folder are written in: OpenCL C 1.2 and CUDA
 * through one set of names.
 *
 * Rules. Buffers are byte pointers and typed by the loads of elem.cl.h. No float atomics, no
 * reliance on warps. a*b+c is two roundings unless it is written cx_fma() (OpenCL: the pragma
 * below; CUDA: -fmad=false). Local memory is declared in kernels and handed to functions by
 * pointer. Every barrier is reached by all of a group. Sums of a row run in cx_acc, which is double
 * where the device has it. */
#ifndef CX_DIALECT_H
#define CX_DIALECT_H

#include "kernels/ids.h"
#include "kernels/params.h"

#if defined(__OPENCL_VERSION__)

#pragma OPENCL FP_CONTRACT OFF
typedef uchar cx_u8;
typedef ushort cx_u16;
typedef char cx_i8;
typedef short cx_i16;
typedef long cx_i64;
typedef ulong cx_u64;
#ifdef cl_khr_fp64
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
#define CX_HAVE_F64 1
typedef double cx_acc;
#else
typedef float cx_acc;
#endif

#define CX_KERNEL __kernel void
#define CX_FN static inline
#ifdef CX_DT_0 /* its switch is decided when it is compiled */
#define CX_FN_BIG CX_FN
#else
#define CX_FN_BIG static __attribute__((noinline))
#endif
#define CX_GLOBAL __global
#define CX_LOCAL __local
#define CX_LOCAL_ARRAY(type, name, n) __local type name[n]
#define CX_BARRIER() barrier(CLK_LOCAL_MEM_FENCE)
#define CX_BARRIER_ALL() barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE)
#define CX_GROUP_ID(d) ((cx_u32)get_group_id(d))
#define CX_LOCAL_ID() ((cx_u32)get_local_id(0))
#define CX_LOCAL_SIZE() ((cx_u32)get_local_size(0))
#define CX_GLOBAL_ID(d) ((cx_u32)get_global_id(d))
/* Parameters of all launches of a program lie in one buffer; each kernel is told its row. */
#define CX_PQ __global
#define CX_PARAMS __global const struct cx_kparams *cx_all_params, const cx_u32 cx_row
#define P (cx_all_params[cx_row])

#define cx_f32_bits(x) as_uint(x)
#define cx_bits_f32(x) as_float(x)
#define cx_fma(a, b, c) fma(a, b, c)
#define CX_EXP exp
#define CX_LOG log
#define CX_LOG1P log1p
#define CX_SQRT sqrt
#define CX_SIN sin
#define CX_COS cos
#define CX_TANH tanh
#define CX_ERF erf
#define CX_ERFC erfc
#define CX_FLOOR floor
#define CX_CEIL ceil
#define CX_ROUND rint
#define CX_FABS fabs
#define CX_POW pow
#define CX_SINPI sinpi
#define CX_COSPI cospi
#define CX_EXPM1 expm1
#define CX_ACC_SQRT sqrt
#define CX_ACC_LOG log
#define CX_ACC_EXP exp

/* Sixteen floats, and sixteen ints. */
typedef float16 cx_v16;
typedef int16 cx_n16;
#define cx_v16_all(x) ((float16)(x))
#define cx_n16_all(x) ((int16)(x))
#define cx_v16_fma(a, b, c) fma(a, b, c)
#define cx_v16_ints(n) convert_float16(n)
#define cx_v16_bits(n) as_float16(n)
#define cx_n16_bits(v) as_int16(v)
#define cx_v16_exp(v) exp(v)
#define cx_v16_max_nan(a, b) select(b, a, isless(b, a) | isnan(a)) /* NaN if either is */
#define cx_v16_load(p) vload16(0, p)
#define cx_v16_store(v, p) vstore16(v, 0, p)
#define cx_v16_put(v, a) vstore16(v, 0, a) /* to and from private arrays */
#define cx_v16_take(a) vload16(0, a)
#define cx_n16_put(v, a) vstore16(v, 0, a)
#define cx_n16_take(a) vload16(0, a)
#define cx_n16_u8(p) convert_int16(vload16(0, p))
#define cx_n16_i8(p) convert_int16(vload16(0, (__global const cx_i8 *)(p)))
#define cx_n16_u16(p) convert_int16(vload16(0, p))
#define cx_n16_less(a, b, yes, no)                                                                 \
	((a) < (b) ? (yes) : (no)) /* bits of ints or floats, lane by lane */
#define cx_half_at(p) vload_half(0, (__global const half *)(p))
#define cx_v16_halves(p) vload_half16(0, (__global const half *)(p))
/* Lane l of n >> l & 1. */
#define cx_n16_flags(n)                                                                            \
	((int16)(n) >> (int16)(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15) & (int16)(1))
/* Sixteen int8. */
typedef char16 cx_b16;
#define cx_b16_load(p) vload16(0, (__global const cx_i8 *)(p))
#define cx_b16_take(a) vload16(0, a)
/* Steps of 1 / inverse from -127 to 127; a NaN gives *bad. */
CX_FN cx_b16 cx_b16_quant(cx_v16 x, float inverse, int *bad)
{
	float16 v = x * inverse;
	*bad |= any(isnan(v));
	return convert_char16_sat_rte(fmin(fmax(v, -127.0f), 127.0f));
}
CX_FN int cx_b16_dot(cx_b16 a, cx_b16 b, int sum)
{
#if defined(cl_khr_integer_dot_product) || defined(__opencl_c_integer_dot_product_input_4x8bit)
	return sum + dot(a.s0123, b.s0123) + dot(a.s4567, b.s4567) + dot(a.s89ab, b.s89ab) +
		   dot(a.scdef, b.scdef);
#else
	short16 p = convert_short16(a) * convert_short16(b);
	int8 q = convert_int8(p.lo) + convert_int8(p.hi);
	int4 r = q.lo + q.hi;
	int2 s = r.lo + r.hi;
	return sum + s.x + s.y;
#endif
}
CX_FN float cx_v16_sum(cx_v16 v)
{
	float8 a = v.lo + v.hi;
	float4 b = a.lo + a.hi;
	float2 c = b.lo + b.hi;
	return c.x + c.y;
}

#elif defined(__CUDACC__)

typedef unsigned char cx_u8;
typedef unsigned short cx_u16;
typedef signed char cx_i8;
typedef short cx_i16;
typedef long long cx_i64;
typedef unsigned long long cx_u64;
#define CX_HAVE_F64 1
typedef double cx_acc;

#define CX_KERNEL extern "C" __global__ void
#define CX_FN static __device__ __forceinline__
#ifdef CX_DT_0
#define CX_FN_BIG CX_FN
#else
#define CX_FN_BIG static __device__ __noinline__
#endif
#define CX_GLOBAL
#define CX_LOCAL
#define CX_LOCAL_ARRAY(type, name, n) __shared__ type name[n]
#define CX_BARRIER() __syncthreads()
#define CX_BARRIER_ALL() __syncthreads() /* what the group wrote to buffers is seen, too */
#define CX_DIM_0(v) v.x
#define CX_DIM_1(v) v.y
#define CX_DIM_2(v) v.z
#define CX_GROUP_ID(d) (CX_DIM_##d(blockIdx))
#define CX_LOCAL_ID() (threadIdx.x)
#define CX_LOCAL_SIZE() (blockDim.x)
#define CX_GLOBAL_ID(d) (CX_DIM_##d(blockIdx) * CX_DIM_##d(blockDim) + CX_DIM_##d(threadIdx))
#define CX_PQ
#define CX_PARAMS const __grid_constant__ struct cx_kparams cx_params
#define P cx_params

#define cx_f32_bits(x) __float_as_uint(x)
#define cx_bits_f32(x) __uint_as_float(x)
#define cx_fma(a, b, c) fmaf(a, b, c)
#define CX_EXP expf
#define CX_LOG logf
#define CX_LOG1P log1pf
#define CX_SQRT sqrtf
#define CX_SIN sinf
#define CX_COS cosf
#define CX_TANH tanhf
#define CX_ERF erff
#define CX_ERFC erfcf
#define CX_FLOOR floorf
#define CX_CEIL ceilf
#define CX_ROUND rintf
#define CX_FABS fabsf
#define CX_POW powf
#define CX_SINPI sinpif
#define CX_COSPI cospif
#define CX_EXPM1 expm1f
#define CX_ACC_SQRT sqrt
#define CX_ACC_LOG log
#define CX_ACC_EXP exp
#include "kernels/cuda16.h"

#else
#error "kernels are compiled as OpenCL C or as CUDA"
#endif

#define CX_K(v) v##f
#define CX_INF cx_bits_f32(0x7f800000u)
#define CX_NAN cx_bits_f32(0x7fc00000u)
#define CX_BUF(name) CX_GLOBAL cx_u8 *name

/* erfc(-x / sqrt 2); what the rounding of that argument takes is put back where it counts. */
CX_FN float cx_erfcn(float x)
{
	const float a = x * -0.70710678f;
	const float rest = cx_fma(x, -1.21016175e-8f, cx_fma(x, -0.70710678f, -a));
	const float y = CX_ERFC(a);
	return a > 0.0f && a < 12.0f ? y - 2.0f * a * rest * y : y;
}
#define CX_ERFCN cx_erfcn

/* Dtype of tensor j of a launch: a constant where the host builds a program for these dtypes alone,
 * which it does for launches with much work; else from the parameters. */
#ifndef CX_DT_0
#define CX_DT_0 P.t[0].dtype
#endif
#ifndef CX_DT_1
#define CX_DT_1 P.t[1].dtype
#endif
#ifndef CX_DT_2
#define CX_DT_2 P.t[2].dtype
#endif
#ifndef CX_DT_3
#define CX_DT_3 P.t[3].dtype
#endif
#ifndef CX_DT_4
#define CX_DT_4 P.t[4].dtype
#endif
#ifndef CX_DT_5
#define CX_DT_5 P.t[5].dtype
#endif

/* Work items that share a row; the host launches groups of exactly this size for kernels that say
 * "a group per". */
#define CX_ROW_ITEMS 64

#endif
