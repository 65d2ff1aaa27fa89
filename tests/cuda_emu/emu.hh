/* emu.hh - CUDA's words for the host's C++ compiler, before a family of kernels is read. */
#include <math.h>
#include <stddef.h>
#include <string.h>
#include <utility>

#include "tests/cuda_emu/emu.h"

#define __CUDACC__ 1
#define __global__
#define __device__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __shared__ static
#define __grid_constant__

extern "C" emu_index emu_thread, emu_block, emu_dim;
extern "C" void emu_barrier(void);
#define threadIdx emu_thread
#define blockIdx emu_block
#define blockDim emu_dim
#define __syncthreads() emu_barrier()

static inline unsigned __float_as_uint(float x)
{
	unsigned u;
	memcpy(&u, &x, sizeof u);
	return u;
}
static inline float __uint_as_float(unsigned u)
{
	float x;
	memcpy(&x, &u, sizeof x);
	return x;
}
static inline int __float_as_int(float x)
{
	return (int)__float_as_uint(x);
}
static inline float __int_as_float(int i)
{
	return __uint_as_float((unsigned)i);
}
static inline int __dp4a(int a, int b, int c)
{
	for (int l = 0; l < 32; l += 8) c += (signed char)(a >> l) * (signed char)(b >> l);
	return c;
}
static inline float sinpif(float x)
{
	return (float)sin(M_PI * remainder((double)x, 2.0));
}
static inline float cospif(float x)
{
	return (float)cos(M_PI * remainder((double)x, 2.0));
}

/* f(args[0], args[1], ...), each read as what f takes. */
template <class... A, size_t... I>
static void emu_apply(void (*f)(A...), void **args, std::index_sequence<I...>)
{
	f(*(typename std::remove_const<A>::type *)args[I]...);
}
template <class... A> static void emu_call(void (*f)(A...), void **args)
{
	emu_apply(f, args, std::index_sequence_for<A...>());
}
template <class... A> static constexpr unsigned emu_args(void (*)(A...))
{
	return sizeof...(A) - 1;
}
