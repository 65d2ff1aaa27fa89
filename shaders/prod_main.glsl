/* prod_main.glsl - the second half of prod.glsl, behind the including shader's cx_lane(), or with
 * CX_PROD_OWN_MAIN only what follows a product. */
void cx_finish(uint m, uint n, float v)
{
	precise float z = v;
	if (m >= cx_m || n >= cx_n) return;
	if (W == CX_I8C) z = z * cx_ld3(CX_F32, cx_base[3] + n);
	z = cx_round_to(
		Y, z); /* 16-bit results: where the op that this one took in would have stored it */
	if (BIAS != 99) z = cx_round_to(Y, z + cx_ld4(BIAS, cx_base[4] + n * cx_ns[4]));
	if (ACT != 0) z = cx_round_to(Y, cx_act(z));
	if (FACTOR != 99)
		z = cx_round_to(
			Y, z * cx_ld6(FACTOR, cx_base[6] + m * cx_ms[6] + n * cx_ns[6]));
	if (RESID != 99) z = z + cx_ld5(RESID, cx_base[5] + m * cx_ms[5] + n * cx_ns[5]);
	cx_st0(Y, cx_base[0] + m * cx_ms[0] + n * cx_ns[0], z);
}

#ifndef CX_PROD_OWN_MAIN

shared float cx_part[LANES == 8 ? ROWS : 1][64];

void main()
{
	uint g = cx_group(), me = gl_LocalInvocationIndex, per_n = LANES == 8 ? 8u : 8u * COLS,
		 per_m = LANES == 8 ? ROWS : 8u * ROWS;
	uint tn = g % P_U(3), tm = g / P_U(3) % P_U(4), b = g / P_U(3) / P_U(4), rest = b;
	uint n0 = tn * per_n + (LANES == 8 ? me / 8u : me % 8u * COLS),
		 m0 = tm * per_m + (LANES == 8 ? 0u : me / 8u * ROWS);
	float acc[ROWS][COLS], total[ROWS][COLS];
	cx_setup();
	[[unroll]] for (uint t = 0; t < 7; t++) cx_base[t] = t == 2u ? 0u : T_OFF(t);
	if (BATCH)
		for (uint k = 4; k > 0; k--) {
			uint d = T_DIM(0, k - 1), q = rest / d, j = rest - q * d;
			[[unroll]] for (uint t = 0; t < 7; t++) cx_base[t] += j * T_STRIDE(t, k - 1);
			rest = q;
		}
	[[unroll]] for (uint r = 0; r < ROWS; r++) [[unroll]] for (uint c = 0; c < COLS; c++)
		total[r][c] = acc[r][c] = 0.0;
	if (LANES == 8) {
		if (g < P_N && n0 < cx_n) cx_lane(me % 8u, m0, n0, acc);
		[[unroll]] for (uint r = 0; r < ROWS; r++) cx_part[r][me] = acc[r][0];
		barrier();
		if (me % 8u != 0u || g >= P_N) return;
		[[unroll]] for (uint r = 0; r < ROWS; r++)
		{
			precise float s = cx_part[r][me];
			[[unroll]] for (uint l = 1; l < 8; l++) s = s + cx_part[r][me + l];
			cx_finish(m0 + r, n0, s);
		}
		return;
	}
	if (g >= P_N || m0 >= cx_m || n0 >= cx_n) return;
	for (uint l = 0; l < 8; l++) {
		[[unroll]] for (uint r = 0; r < ROWS; r++) [[unroll]] for (uint c = 0; c < COLS; c++)
			acc[r][c] = 0.0;
		cx_lane(l, m0, n0, acc);
		[[unroll]] for (uint r = 0; r < ROWS; r++) [[unroll]] for (uint c = 0; c < COLS; c++)
		{
			precise float t = l == 0u ? acc[r][c] : total[r][c] + acc[r][c];
			total[r][c] = t;
		}
	}
	[[unroll]] for (uint r = 0; r < ROWS; r++) [[unroll]] for (uint c = 0; c < COLS; c++)
		cx_finish(m0 + r, n0 + c, total[r][c]);
}

#endif
