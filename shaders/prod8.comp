/* prod8.comp - int8 products (prod8.glsl) where the device has no integer dot product. */
#version 450
#extension GL_GOOGLE_include_directive : require

int cx_dot4(uint a, uint b, int sum)
{
	for (int i = 0; i < 32; i += 8)
		sum += bitfieldExtract(int(a), i, 8) * bitfieldExtract(int(b), i, 8);
	return sum;
}

#include "shaders/prod8.glsl"
