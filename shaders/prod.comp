/* prod.comp - products of every kind: x and w are floats of any strides, or w is a block format
 * read as it is. prod.glsl has
 * the order of sums and what follows the product. */
#version 450
#extension GL_GOOGLE_include_directive : require
#include "shaders/prod.glsl"
#include "shaders/quant.glsl"

CX_IN(1)
CX_IN(2)
CX_BLOCKS(2)

	float cx_x(uint m, uint k)
{
	return cx_ld1(X, cx_base[1] + m * cx_ms[1] + k * cx_ns[1]);
}

/* Eight elements of column n of w; past the end zeros. */
void cx_w8(uint n, uint k, out float w[8])
{
	if (W == CX_I8C) {
		uint at = cx_w0 + n * cx_ms[2] + k;
		[[unroll]] for (uint j = 0; j < 8; j++)
		{
			w[j] = 0.0;
			if (!TAIL || k + j < cx_k) w[j] = cx_i82(at + j);
		}
	} else if (W > CX_BF16) {
		cx_deq2(W, cx_w0 + (cx_base[2] + n * cx_ms[2]) * cx_block_bytes(W), k, w);
	} else {
		uint at = cx_w0 + cx_base[2] + n * cx_ms[2] + k * cx_ns[2];
		[[unroll]] for (uint j = 0; j < 8; j++)
		{
			w[j] = 0.0;
			if (!TAIL || k + j < cx_k) w[j] = cx_ld2(W, at + j * cx_ns[2]);
		}
	}
}

/* acc += the products of lane l for the tile at (m0, n0). Rows and columns past the end read
 * the last one. */
void cx_lane(uint l, uint m0, uint n0, inout float acc[ROWS][COLS])
{
	for (uint s = l * 32u; s < cx_k; s += 256u)
		for (uint k = s; k < min(s + 32u, cx_k); k += 8u) {
			float w[COLS][8];
			[[unroll]] for (uint c = 0; c < COLS; c++) cx_w8(min(n0 + c, cx_n - 1u), k, w[c]);
			[[unroll]] for (uint r = 0; r < ROWS; r++)
			{
				uint m = min(m0 + r, cx_m - 1u);
				[[unroll]] for (uint j = 0; j < 8; j++)
				{
					float x = 0.0;
					if (!TAIL || k + j < cx_k) x = cx_x(m, k + j);
					[[unroll]] for (uint c = 0; c < COLS; c++)
					{
						precise float a = fma(x, w[c][j], acc[r][c]);
						acc[r][c] = a;
					}
				}
			}
		}
}

#include "shaders/prod_main.glsl"
