/* prodt.comp - products of f32 and f16 operands whose rows are contiguous, read four elements at
 * a time as texels (uniform texel buffers: vector loads without a loop over lanes on software
 * devices, and the texture path on others). w is [n,k] rows, or with NN [k,n]; then a tile has
 * whole texels of columns. Same order of sums as prod.comp, so the same bits. Strides, offsets
 * and K are multiples of 4 (the host sees to it). Texels: x at binding 8, w at 9. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "shaders/prod.glsl"

layout(constant_id = 13) const bool NN = false;
/* Texels of a row in one go: the second is in the cache line that the first one brought. */
const uint AT_ONCE = TAIL || NN ? 1 : 2;
layout(set = 0, binding = 8) uniform samplerBuffer cx_tx;
layout(set = 0, binding = 9) uniform samplerBuffer cx_tw;

void cx_lane(uint l, uint m0, uint n0, inout float acc[ROWS][COLS])
{
	uint K = cx_k, ws = (NN ? cx_ns[2] : cx_ms[2]) / 4u, xs = cx_ms[1] / 4u;
	uint m_end = cx_m - 1u, n_end = cx_n - 1u, w0 = (cx_w0 + cx_base[2]) / 4u,
		 x0 = cx_base[1] / 4u;
	uint at_x[ROWS], at_w[COLS];
	[[unroll]] for (uint r = 0; r < ROWS; r++) at_x[r] = x0 + min(m0 + r, m_end) * xs;
	[[unroll]] for (uint c = 0; c < COLS; c++) at_w[c] =
		NN ? w0 + min(n0 / 4u + c, n_end / 4u) : w0 + min(n0 + c, n_end) * ws;
	for (uint s = l * 32u; s < K; s += 256u) {
		uint end = min(s + 32u, K);
		for (uint k = s; k < end; k += 4u * AT_ONCE) {
			vec4 x[ROWS * AT_ONCE], w[NN ? (COLS + 3) / 4 : COLS * AT_ONCE];
			[[unroll]] for (uint r = 0; r < ROWS * AT_ONCE; r++) x[r] =
				texelFetch(cx_tx, int(at_x[r / AT_ONCE] + k / 4u + r % AT_ONCE));
			if (!NN) [[unroll]]
				for (uint c = 0; c < COLS * AT_ONCE; c++) w[c] =
					texelFetch(cx_tw, int(at_w[c / AT_ONCE] + k / 4u + c % AT_ONCE));
			[[unroll]] for (uint q = 0; q < 4 * AT_ONCE; q++)
			{
				if (NN) [[unroll]]
					for (uint c = 0; c < (COLS + 3) / 4; c++)
						w[c] = texelFetch(cx_tw, int(at_w[c] + (k + q) * ws));
				[[unroll]] for (uint r = 0; r < ROWS; r++)
				{
					[[unroll]] for (uint c = 0; c < COLS; c++)
					{
						float a = x[r * AT_ONCE + q / 4][q % 4];
						float b = NN ? w[c / 4][c % 4] : w[c * AT_ONCE + q / 4][q % 4];
						precise float sum = fma(a, b, acc[r][c]);
						acc[r][c] = sum;
					}
				}
			}
		}
	}
}

#include "shaders/prod_main.glsl"
