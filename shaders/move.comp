/* move.comp - elements of any plain dtype, unchanged, from one place to another: copies, views
 * that became steps,
 * assign, concat, tables of the host. Tensors: y, x; each is walked by its own dims. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "shaders/common.glsl"

layout(constant_id = 1) const uint SIZE = 4;   /* bytes of an element */
layout(constant_id = 2) const uint Y_RANK = 0; /* 0: dense */
layout(constant_id = 3) const uint X_RANK = 0;

CX_VIEWS(0, writeonly)
CX_STORE_RAW(0) CX_VIEWS(1, readonly) CX_LOAD_RAW(1)

	void main()
{
	uint i = cx_item();
	if (i >= P_N) return;
	uint to = Y_RANK == 0 ? T_OFF(0) + i : cx_at(0, i, Y_RANK);
	uint from = X_RANK == 0 ? T_OFF(1) + i : cx_at(1, i, X_RANK);
	cx_sr0(SIZE, to, cx_lr1(SIZE, from));
}
