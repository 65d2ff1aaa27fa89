/* random.comp - Philox4x32-10: element i is word i % 4 of counter (i / 4, key[2], key[3]) under
 * key (key[0], key[1]); an invocation
 * makes the four of a counter. Tensors: y (dense), key. KIND: 0 uniform, 1 normal, 2 bits. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "shaders/common.glsl"
#include "shaders/math.glsl"

layout(constant_id = 1) const uint KIND = 0;

CX_OUT(0)
CX_VIEWS(1, readonly)
CX_LOAD_I32(1)

	uvec4 cx_philox(uvec4 c, uvec2 k)
{
	for (uint r = 0; r < 10; r++) {
		uint h0, l0, h1, l1;
		umulExtended(0xD2511F53u, c.x, h0, l0);
		umulExtended(0xCD9E8D57u, c.z, h1, l1);
		c = uvec4(h1 ^ c.y ^ k.x, l1, h0 ^ c.w ^ k.y, l0);
		k += uvec2(0x9E3779B9u, 0xBB67AE85u);
	}
	return c;
}

/* Box-Muller: the radius from the first word, kept off zero, the angle from the second. */
vec2 cx_normal(uint a, uint b)
{
	float r = sqrt(-2.0 * cx_log(float((a >> 8) + 1u) * (1.0 / 16777216.0)));
	float t = 6.283185307179586 * (float(b >> 8) * (1.0 / 16777216.0));
	return vec2(r * cx_cos(t), r * cx_sin(t));
}

uint cx_key(uint j)
{
	return uint(cx_li1(T_OFF(1) + j * T_STRIDE(1, 5)));
}

void main()
{
	uint block = cx_item();
	if (block * 4u >= P_U(0)) return;
	uvec4 w = cx_philox(uvec4(block, 0u, cx_key(2), cx_key(3)), uvec2(cx_key(0), cx_key(1)));
	vec4 v = vec4(w >> 8) * (1.0 / 16777216.0);
	if (KIND == 1) v = vec4(cx_normal(w.x, w.y), cx_normal(w.z, w.w));
	if (KIND == 2) v = uintBitsToFloat(w);
	[[unroll]] for (uint j = 0; j < 4; j++) if (block * 4u + j < P_U(0))
		cx_b32_0.v[T_OFF(0) + block * 4u + j] = KIND == 2 ? w[j] : floatBitsToUint(v[j]);
}
