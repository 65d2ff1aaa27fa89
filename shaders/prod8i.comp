/* prod8i.comp - int8 products (prod8.glsl) by integer dot products of four int8: see prodi.comp. */
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_spirv_intrinsics : require

spirv_instruction(
	extensions = ["SPV_KHR_integer_dot_product"], capabilities = [6019, 6018], id = 4450)
int cx_sdot(uint a, uint b, spirv_literal int packed_4x8);

int cx_dot4(uint a, uint b, int sum)
{
	return sum + cx_sdot(a, b, 0);
}

#include "shaders/prod8.glsl"
