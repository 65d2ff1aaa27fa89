/* prodc.comp - products of f16 operands on cooperative matrices (VK_NV_cooperative_matrix), sums
 * in f32: a subgroup of 32 makes a tile of 32 x 32 from 16 x 16 x 16 multiplications. Operands
 * pass through shared memory, with zeros behind their ends, so any dims and strides will do; the
 * order of sums over k is that of the steps of 16, whatever the number of rows. What follows the
 * product: prod.glsl. */
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_NV_cooperative_matrix : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#define CX_PROD_OWN_MAIN 1
#include "shaders/prod.glsl"

CX_IN(1)
CX_IN(2)

#include "shaders/prod_main.glsl"

shared float16_t cx_xs[32 * 16];
shared float16_t cx_ws[32 * 16];
shared float cx_ys[32 * 32];

void main()
{
	uint g = cx_group(), me = gl_LocalInvocationIndex, rest = g / P_U(3) / P_U(4);
	uint n0 = g % P_U(3) * 32u, m0 = g / P_U(3) % P_U(4) * 32u;
	fcoopmatNV<32, gl_ScopeSubgroup, 16, 16> acc[2][2];
	cx_setup();
	[[unroll]] for (uint t = 0; t < 7; t++) cx_base[t] = T_OFF(t);
	if (BATCH)
		for (uint k = 4; k > 0; k--) {
			uint d = T_DIM(0, k - 1), q = rest / d, j = rest - q * d;
			[[unroll]] for (uint t = 0; t < 7; t++) cx_base[t] += j * T_STRIDE(t, k - 1);
			rest = q;
		}
	[[unroll]] for (uint i = 0; i < 2; i++)
		[[unroll]] for (uint j = 0; j < 2; j++)
			acc[i][j] = fcoopmatNV<32, gl_ScopeSubgroup, 16, 16>(0.0);
	for (uint k0 = 0; k0 < cx_k; k0 += 16u) {
		fcoopmatNV<16, gl_ScopeSubgroup, 16, 16> a[2], b[2];
		barrier();
		for (uint i = me; i < 512u; i += 32u) {
			uint r = i / 16u, k = k0 + i % 16u;
			float x = 0.0, w = 0.0;
			if (m0 + r < cx_m && k < cx_k)
				x = cx_ld1(X, cx_base[1] + (m0 + r) * cx_ms[1] + k * cx_ns[1]);
			if (n0 + r < cx_n && k < cx_k)
				w = cx_ld2(W, cx_base[2] + (n0 + r) * cx_ms[2] + k * cx_ns[2]);
			cx_xs[i] = float16_t(x);
			cx_ws[i] = float16_t(w);
		}
		barrier();
		[[unroll]] for (uint i = 0; i < 2; i++) {
			coopMatLoadNV(a[i], cx_xs, i * 256u, 16u, false);
			coopMatLoadNV(b[i], cx_ws, i * 256u, 16u, true);
		}
		[[unroll]] for (uint i = 0; i < 2; i++)
			[[unroll]] for (uint j = 0; j < 2; j++)
				acc[i][j] = coopMatMulAddNV(a[i], b[j], acc[i][j]);
	}
	[[unroll]] for (uint i = 0; i < 2; i++)
		[[unroll]] for (uint j = 0; j < 2; j++)
			coopMatStoreNV(acc[i][j], cx_ys, i * 512u + j * 16u, 32u, false);
	barrier();
	if (g >= P_N) return;
	for (uint i = me; i < 1024u; i += 32u) cx_finish(m0 + i / 32u, n0 + i % 32u, cx_ys[i]);
}
