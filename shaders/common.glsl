/* common.glsl - what every shader stands on: launch parameters, tensors of any dtype, conversions.
 *
 * Binding 0: the parameters, one struct cx_kparams (kernels/params.h) per dispatch as words; the push constant is
 * the first word of this dispatch. Binding 1+i: tensor t[i], seen as bytes, half words and words at once; which of
 * them is used depends on a specialization constant, so the driver folds the choice away. i64 is a pair of words.
 * Storage types are only loaded and stored: 8- and 16-bit arithmetic is not asked of a device. */
#extension GL_EXT_shader_8bit_storage : require
#extension GL_EXT_shader_16bit_storage : require
#extension GL_EXT_control_flow_attributes : require
#include "ids.glsl"

layout(local_size_x_id = 0) in;
layout(push_constant, std430) uniform Push
{
	uint base;
}
cx_push;
layout(set = 0, binding = 0, std430) readonly buffer Params
{
	uint w[];
}
cx_prm;

#define P_OP cx_prm.w[cx_push.base]
#define P_N cx_prm.w[cx_push.base + 3]
#define P_U(k) cx_prm.w[cx_push.base + 4 + (k)]
#define P_I(k) int(cx_prm.w[cx_push.base + 4 + (k)])
#define P_F(k) uintBitsToFloat(cx_prm.w[cx_push.base + 20 + (k)])
#define T_OFF(t) cx_prm.w[cx_push.base + 28 + 14 * (t)]
#define T_HAS(t) (cx_prm.w[cx_push.base + 29 + 14 * (t)] != 0xffffffffu)
#define T_DIM(t, k) cx_prm.w[cx_push.base + 30 + 14 * (t) + (k)]
#define T_STRIDE(t, k) cx_prm.w[cx_push.base + 36 + 14 * (t) + (k)]

/* The work group's and the invocation's number, over both axes of the grid. */
uint cx_group()
{
	return gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x;
}
uint cx_item()
{
	return cx_group() * gl_WorkGroupSize.x + gl_LocalInvocationIndex;
}

/* Offset of row-major index i of tensor t, over its own last `rank` axes. */
uint cx_at(const uint t, uint i, const uint rank)
{
	uint off = T_OFF(t);
	for (uint k = 6; k > 6 - rank; k--) {
		uint d = T_DIM(t, k - 1), q = i / d;
		off += (i - q * d) * T_STRIDE(t, k - 1);
		i = q;
	}
	return off;
}

/* ---- numbers ---- */

bool cx_isnan(float x)
{
	return (floatBitsToUint(x) & 0x7fffffffu) > 0x7f800000u;
}
bool cx_isinf(float x)
{
	return (floatBitsToUint(x) & 0x7fffffffu) == 0x7f800000u;
}
const uint CX_NAN_BITS = 0x7fc00000u;
const uint CX_INF_BITS = 0x7f800000u;
float cx_nan()
{
	return uintBitsToFloat(CX_NAN_BITS);
}
float cx_inf()
{
	return uintBitsToFloat(CX_INF_BITS);
}

float cx_f16_to_f32(uint h)
{
	uint s = (h & 0x8000u) << 16, e = h >> 10 & 31u, m = h & 0x3ffu;
	float small = float(m) * (1.0 / 16777216.0);
	uint big =
		e == 31u ? 0x7f800000u | m << 13 | (m != 0u ? 0x400000u : 0u) : (e + 112u) << 23 | m << 13;
	return uintBitsToFloat(s | (e == 0u ? floatBitsToUint(small) : big));
}

/* Nearest even, in integers throughout. */
uint cx_f32_to_f16(float f)
{
	uint u = floatBitsToUint(f), s = u >> 16 & 0x8000u, a = u & 0x7fffffffu, r;
	if (a > 0x7f800000u) {
		r = 0x7e00u | (a >> 13 & 0x3ffu);
	} else if (a >= 0x477ff000u) { /* 65520 and above */
		r = 0x7c00u;
	} else if (a < 0x38800000u) { /* below 2^-14: a multiple of 2^-24 */
		uint shift = min(126u - (a >> 23), 31u), m = (a & 0x7fffffu) | 0x800000u;
		uint half_ = 1u << (shift - 1u), rest = m & ((1u << shift) - 1u);
		r = m >> shift;
		if (rest > half_ || (rest == half_ && (r & 1u) != 0u)) r++;
		if (shift > 25u) r = 0u;
	} else {
		a += 0xfffu + (a >> 13 & 1u);
		r = (a >> 13) - (112u << 10);
	}
	return s | r;
}

uint cx_f32_to_bf16(float f)
{
	uint u = floatBitsToUint(f);
	return (u & 0x7fffffffu) > 0x7f800000u ? u >> 16 | 0x40u : (u + 0x7fffu + (u >> 16 & 1u)) >> 16;
}

float cx_bf16_to_f32(uint h)
{
	return uintBitsToFloat(h << 16);
}

/* v as it reads back from a store of this dtype. */
float cx_round_to(const uint dt, float v)
{
	if (dt == CX_F16) v = cx_f16_to_f32(cx_f32_to_f16(v));
	if (dt == CX_BF16) v = cx_bf16_to_f32(cx_f32_to_bf16(v));
	return v;
}

/* ---- tensors ---- */

#define CX_VIEWS(i, q)                                                                             \
	layout(set = 0, binding = 1 + i, std430) q buffer CxB8_##i                                     \
	{                                                                                              \
		uint8_t v[];                                                                               \
	}                                                                                              \
	cx_b8_##i;                                                                                     \
	layout(set = 0, binding = 1 + i, std430) q buffer CxB16_##i                                    \
	{                                                                                              \
		uint16_t v[];                                                                              \
	}                                                                                              \
	cx_b16_##i;                                                                                    \
	layout(set = 0, binding = 1 + i, std430) q buffer CxB32_##i                                    \
	{                                                                                              \
		uint v[];                                                                                  \
	}                                                                                              \
	cx_b32_##i;

/* A float (or bool) element as float. */
#define CX_LOAD_F(i)                                                                               \
	float cx_ld##i(const uint dt, uint o)                                                          \
	{                                                                                              \
		float r;                                                                                   \
		if (dt == CX_F32) r = uintBitsToFloat(cx_b32_##i.v[o]);                                    \
		else if (dt == CX_F16) r = cx_f16_to_f32(uint(cx_b16_##i.v[o]));                           \
		else if (dt == CX_BF16) r = cx_bf16_to_f32(uint(cx_b16_##i.v[o]));                         \
		else r = uint(cx_b8_##i.v[o]) != 0u ? 1.0 : 0.0;                                           \
		return r;                                                                                  \
	}
/* A 32-bit integer element. */
#define CX_LOAD_I32(i)                                                                             \
	int cx_li##i(uint o)                                                                           \
	{                                                                                              \
		return int(cx_b32_##i.v[o]);                                                               \
	}
/* The bits of an element of 1, 2, 4 or 8 bytes. */
#define CX_LOAD_RAW(i)                                                                             \
	uvec2 cx_lr##i(const uint size, uint o)                                                        \
	{                                                                                              \
		uvec2 r = uvec2(0u);                                                                       \
		if (size == 1u) r.x = uint(cx_b8_##i.v[o]);                                                \
		else if (size == 2u) r.x = uint(cx_b16_##i.v[o]);                                          \
		else if (size == 4u) r.x = cx_b32_##i.v[o];                                                \
		else r = uvec2(cx_b32_##i.v[2u * o], cx_b32_##i.v[2u * o + 1u]);                           \
		return r;                                                                                  \
	}
#define CX_STORE_RAW(i)                                                                            \
	void cx_sr##i(const uint size, uint o, uvec2 r)                                                \
	{                                                                                              \
		if (size == 1u) cx_b8_##i.v[o] = uint8_t(r.x);                                             \
		else if (size == 2u) cx_b16_##i.v[o] = uint16_t(r.x);                                      \
		else cx_b32_##i.v[size == 8u ? 2u * o : o] = r.x;                                          \
		if (size == 8u) cx_b32_##i.v[2u * o + 1u] = r.y;                                           \
	}
#define CX_STORE_F(i)                                                                              \
	void cx_st##i(const uint dt, uint o, float v)                                                  \
	{                                                                                              \
		if (dt == CX_F32) cx_b32_##i.v[o] = floatBitsToUint(v);                                    \
		else if (dt == CX_F16) cx_b16_##i.v[o] = uint16_t(cx_f32_to_f16(v));                       \
		else if (dt == CX_BF16) cx_b16_##i.v[o] = uint16_t(cx_f32_to_bf16(v));                     \
		else cx_b8_##i.v[o] = uint8_t(v != 0.0 ? 1u : 0u);                                         \
	}
#define CX_IN(i) CX_VIEWS(i, readonly) CX_LOAD_F(i)
#define CX_OUT(i) CX_VIEWS(i, writeonly) CX_STORE_F(i)
#define CX_INOUT(i) CX_VIEWS(i, ) CX_LOAD_F(i) CX_STORE_F(i)
