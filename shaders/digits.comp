/* digits.comp - rows of floats for integer dot products: a block of 32 becomes q * scale, q
 * integers of 23 bits in three digits of base 256, each an int8. Nothing is lost that f32 sums
 * would keep: the error is 2^-23 of the block's largest element. A block with NaN or infinities,
 * or so small that its scale times that of an f16 would be subnormal, is marked; the product
 * then reads the floats. Tensors: d, x [m,k]. d: 25 words per block: the scale's bits, then 8
 * words of each digit, the highest first. P_U: 0 blocks of a row. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "shaders/common.glsl"

layout(constant_id = 1) const uint X = 0;

CX_VIEWS(0, writeonly)
CX_IN(1)

int cx_low(int q) { return ((q + 128) & 255) - 128; }

void main()
{
	uint i = cx_item();
	if (i >= P_N) return;
	uint row = i / P_U(0), k = i % P_U(0) * 32u, from = T_OFF(1) + row * T_STRIDE(1, 4);
	uint to = T_OFF(0) + i * 25u, most = 0u;
	for (uint j = 0; j < 32; j++)
		most = max(most, floatBitsToUint(cx_ld1(X, from + (k + j) * T_STRIDE(1, 5))) & 0x7fffffffu);
	uint e = most >> 23;
	bool odd = e == 255u || (e < 54u && most != 0u);
	e = clamp(e, 54u, 254u);
	/* 2^(148-e): the largest becomes 2^21 to 2^22 */
	float inverse = uintBitsToFloat((127u + 148u - e) << 23);
	cx_b32_0.v[to] = odd ? CX_NAN_BITS : (e - 21u) << 23; /* 2^(e-148) */
	for (uint j = 0; j < 8; j++) {
		uvec3 w = uvec3(0u);
		for (uint b = 0; b < 4; b++) {
			float x = odd ? 0.0 : cx_ld1(X, from + (k + 4u * j + b) * T_STRIDE(1, 5));
			int q = int(roundEven(x * inverse)), d0 = cx_low(q), r = (q - d0) >> 8, d1 = cx_low(r);
			w |= (uvec3(uint((r - d1) >> 8), uint(d1), uint(d0)) & 255u) << (8u * b);
		}
		cx_b32_0.v[to + 1u + j] = w.x;
		cx_b32_0.v[to + 9u + j] = w.y;
		cx_b32_0.v[to + 17u + j] = w.z;
	}
}
