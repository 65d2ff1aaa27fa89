/* prodi.comp - products with Q8_0 and I8C weights by integer dot products of four int8 (OpSDot,
 * SPV_KHR_integer_dot_product, which glslang 12 reaches only through SPIR-V intrinsics). x comes
 * as digits (digits.comp): three dot products per four elements give the block's exact sum of q
 * * w. Order of sums and what follows as in prod.glsl. Tensors besides those: 7 the digits. K is
 * a multiple of 32, rows of w begin at whole words (I8C). */
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_spirv_intrinsics : require
#include "shaders/prod.glsl"
#include "shaders/quant.glsl"

CX_IN(1)
CX_VIEWS(2, readonly)
CX_BLOCKS(2)
CX_VIEWS(7, readonly)

spirv_instruction(
	extensions = ["SPV_KHR_integer_dot_product"], capabilities = [6019, 6018], id = 4450)
int cx_sdot(uint a, uint b, spirv_literal int packed_4x8);

/* Where the 32 bytes of block s of column n begin, and their factor. */
uint cx_block(uint n, uint s, out float d)
{
	uint at = cx_w0 + n * cx_ms[2] + s * 32u;
	d = 1.0;
	if (W == CX_I8C) return at;
	at = cx_w0 + (n * cx_ms[2] + s) * 34u;
	d = cx_h2(at);
	return at + 2u;
}

uint cx_word(uint at)
{
	return W == CX_I8C ? cx_b32_2.v[at / 4u] : cx_u162(at) | cx_u162(at + 2u) << 16;
}

/* A marked block: the floats themselves. */
float cx_floats(uint m, uint k, uint at, float d, float sum)
{
	for (uint j = 0; j < 32; j++) {
		float q = float(int(cx_word(at + (j & ~3u)) << (24u - 8u * (j % 4u))) >> 24);
		float x = cx_ld1(X, cx_base[1] + m * cx_ms[1] + (k + j) * cx_ns[1]);
		precise float a = fma(x, q * d, sum);
		sum = a;
	}
	return sum;
}

void cx_lane(uint l, uint m0, uint n0, inout float acc[ROWS][COLS])
{
	uint n_blocks = cx_k / 32u, digits = T_OFF(7);
	for (uint s = l; s < n_blocks; s += 8u) {
		uint at[COLS], from[ROWS];
		float d[COLS];
		ivec3 sum[ROWS][COLS];
		[[unroll]] for (uint c = 0; c < COLS; c++)
			at[c] = cx_block(min(n0 + c, cx_n - 1u), s, d[c]);
		[[unroll]] for (uint r = 0; r < ROWS; r++) {
			from[r] = digits + (min(m0 + r, cx_m - 1u) * n_blocks + s) * 25u;
			[[unroll]] for (uint c = 0; c < COLS; c++) sum[r][c] = ivec3(0);
		}
		for (uint j = 0; j < 8; j++) {
			uint w[COLS];
			[[unroll]] for (uint c = 0; c < COLS; c++) w[c] = cx_word(at[c] + 4u * j);
			[[unroll]] for (uint r = 0; r < ROWS; r++) {
				uvec3 x = uvec3(cx_b32_7.v[from[r] + 1u + j], cx_b32_7.v[from[r] + 9u + j],
					cx_b32_7.v[from[r] + 17u + j]);
				[[unroll]] for (uint c = 0; c < COLS; c++)
					sum[r][c] += ivec3(
						cx_sdot(x.x, w[c], 0), cx_sdot(x.y, w[c], 0), cx_sdot(x.z, w[c], 0));
			}
		}
		[[unroll]] for (uint r = 0; r < ROWS; r++) {
			float scale = uintBitsToFloat(cx_b32_7.v[from[r]]);
			[[unroll]] for (uint c = 0; c < COLS; c++) {
				precise float low = float(sum[r][c].y * 256 + sum[r][c].z), a;
				precise float v = float(sum[r][c].x) * 65536.0 + low;
				a = acc[r][c] + v * (scale * d[c]);
				if (cx_isnan(scale) || !(abs(d[c]) < cx_inf()))
					a = cx_floats(min(m0 + r, cx_m - 1u), s * 32u, at[c], d[c], acc[r][c]);
				acc[r][c] = a;
			}
		}
	}
}

#include "shaders/prod_main.glsl"
