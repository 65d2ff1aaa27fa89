/* adamw.comp - one step of AdamW in place. Tensors: p, m, v (updated), g, lr, t. P_F: 0 beta1,
 * 1 1-beta1, 2 beta2, 3 1-beta2, 4 eps,
 * 5 decay, 6 ln beta1, 7 ln beta2: 1 - beta^t is -expm1(t ln beta), which does not cancel. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "shaders/common.glsl"
#include "shaders/math.glsl"

layout(constant_id = 1) const uint DT = 0;
layout(constant_id = 2) const uint G = 0;
layout(constant_id = 3) const uint RANK = 0; /* of g, 0: dense */

CX_INOUT(0)
CX_INOUT(1) CX_INOUT(2) CX_IN(3) CX_IN(4) CX_IN(5)

	void main()
{
	uint i = cx_item();
	if (i >= P_N) return;
	float lr = cx_ld4(CX_F32, T_OFF(4)), t = cx_ld5(CX_F32, T_OFF(5));
	float g = cx_ld3(G, RANK == 0 ? T_OFF(3) + i : cx_at(3, i, RANK)),
		  old = cx_ld0(DT, T_OFF(0) + i);
	float mean = P_F(0) * cx_ld1(CX_F32, T_OFF(1) + i) + P_F(1) * g;
	float square = P_F(2) * cx_ld2(CX_F32, T_OFF(2) + i) + P_F(3) * g * g;
	float c1 = -cx_expm1(t * P_F(6)), c2 = -cx_expm1(t * P_F(7));
	float step_ = mean / c1 / (sqrt(square / c2) + P_F(4));
	cx_st0(DT, T_OFF(0) + i, old - lr * (step_ + P_F(5) * old));
	cx_st1(CX_F32, T_OFF(1) + i, mean);
	cx_st2(CX_F32, T_OFF(2) + i, square);
}
