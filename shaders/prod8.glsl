/* prod8.glsl - products of int8 rows (quant8.comp) with I8C weights: exact sums, then
 * y = float(sum) * (s * scale[n]) and what follows a product. The including shader defines
 * int cx_dot4(uint a, uint b, int sum), of four int8 each. W is given CX_I8, so that nothing else
 * applies the scale. Work and tensors as in prod.glsl, which has no say in the order of sums here;
 * 7: the rows as words. P_F: 0 act_scale. */
#define CX_PROD_OWN_MAIN
#include "shaders/prod.glsl"

CX_VIEWS(2, readonly)
CX_VIEWS(7, readonly)

#include "shaders/prod_main.glsl"

/* Four weights of a row that begins at `at`, from k on. */
uint cx_four(uint at, uint k)
{
	uint word = 0u;
	if (cx_k % 4u == 0u) return cx_b32_2.v[(at + k) / 4u];
	for (uint b = 0; b < 4u && k + b < cx_k; b++) word |= uint(cx_b8_2.v[at + k + b]) << (8u * b);
	return word;
}

/* Is one of the bytes -128? */
bool cx_marked(uint word)
{
	uint v = word ^ 0x80808080u;
	return ((v - 0x01010101u) & ~v & 0x80808080u) != 0u;
}

void cx_end(uint m, uint n, int sum, bool bad)
{
	precise float scale = P_F(0) * cx_ld3(CX_F32, cx_base[3] + min(n, cx_n - 1u));
	precise float v = float(sum) * scale;
	cx_finish(m, n, bad ? cx_nan() : v);
}

shared int cx_sums[LANES == 8 ? ROWS : 1][64];
shared uint cx_bad[64];

void main()
{
	uint g = cx_group(), me = gl_LocalInvocationIndex, per_n = LANES == 8 ? 8u : 8u * COLS,
		 per_m = LANES == 8 ? ROWS : 8u * ROWS;
	uint tn = g % P_U(3), tm = g / P_U(3) % P_U(4), bad = 0u;
	uint n0 = tn * per_n + (LANES == 8 ? me / 8u : me % 8u * COLS),
		 m0 = tm * per_m + (LANES == 8 ? 0u : me / 8u * ROWS);
	int acc[ROWS][COLS];
	cx_setup();
	[[unroll]] for (uint t = 0; t < 7; t++) cx_base[t] = T_OFF(t);
	uint words = (cx_k + 3u) / 4u;
	[[unroll]] for (uint r = 0; r < ROWS; r++)
		[[unroll]] for (uint c = 0; c < COLS; c++) acc[r][c] = 0;
	if (g < P_N && m0 < cx_m && n0 < cx_n)
		for (uint k = LANES == 8 ? me % 8u : 0u; k < words; k += LANES) {
			uint w[COLS];
			[[unroll]] for (uint c = 0; c < COLS; c++)
				w[c] = cx_four(cx_w0 + min(n0 + c, cx_n - 1u) * cx_ms[2], 4u * k);
			[[unroll]] for (uint r = 0; r < ROWS; r++) {
				uint x = cx_b32_7.v[T_OFF(7) + min(m0 + r, cx_m - 1u) * words + k];
				if (cx_marked(x)) bad |= 1u << r;
				[[unroll]] for (uint c = 0; c < COLS; c++) acc[r][c] = cx_dot4(x, w[c], acc[r][c]);
			}
		}
	if (LANES == 8) {
		[[unroll]] for (uint r = 0; r < ROWS; r++) cx_sums[r][me] = acc[r][0];
		cx_bad[me] = bad;
		barrier();
		if (me % 8u != 0u || g >= P_N) return;
		[[unroll]] for (uint l = 1; l < 8; l++) bad |= cx_bad[me + l];
		[[unroll]] for (uint r = 0; r < ROWS; r++) {
			int sum = 0;
			[[unroll]] for (uint l = 0; l < 8; l++) sum += cx_sums[r][me + l];
			cx_end(m0 + r, n0, sum, (bad >> r & 1u) != 0u);
		}
		return;
	}
	if (g >= P_N || m0 >= cx_m || n0 >= cx_n) return;
	[[unroll]] for (uint r = 0; r < ROWS; r++) [[unroll]] for (uint c = 0; c < COLS; c++)
		cx_end(m0 + r, n0 + c, acc[r][c], (bad >> r & 1u) != 0u);
}
