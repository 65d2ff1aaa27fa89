/* fill.comp - zeros. Tensor: y, dense. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "shaders/common.glsl"

layout(constant_id = 1) const uint SIZE = 4;

CX_VIEWS(0, writeonly)
CX_STORE_RAW(0)

	void main()
{
	uint i = cx_item();
	if (i < P_N) cx_sr0(SIZE, T_OFF(0) + i, uvec2(0u));
}
