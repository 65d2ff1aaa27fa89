/* vec_generic.h - vec.h with compiler vectors of 16 bytes: any machine. On aarch64 that is NEON;
 * elsewhere fma may be a call into libm, slow but with the same bits. */
#ifndef CX_CPU_VEC_GENERIC_H
#define CX_CPU_VEC_GENERIC_H

#if defined(__aarch64__)
#include <arm_neon.h>
#endif

typedef float cx__f4 __attribute__((vector_size(16)));
typedef int32_t cx__i4 __attribute__((vector_size(16)));
typedef uint32_t cx__u4 __attribute__((vector_size(16)));

typedef struct {
	cx__f4 q[4];
} v16;
typedef struct {
	cx__i4 q[4];
} v16i;
typedef struct {
	cx__i4 q[4];
} v16m; /* -1 or 0 */
typedef struct {
	uint8_t b[64];
} vb;

#define CX_Q(i) CX_UNROLL for (int i = 0; i < 4; i++)
/* Lane by lane through arrays: assigning lanes of an unset vector would read it. */
#define CX_L(i) for (int i = 0; i < 16; i++)
#define CX_GET(T, a, x)                                                                            \
	T a[16];                                                                                       \
	memcpy(a, &(x), sizeof a)

CX_INLINE v16 v16_load(const float *p)
{
	v16 r;
	memcpy(&r, p, sizeof r);
	return r;
}
CX_INLINE void v16_store(float *p, v16 x)
{
	memcpy(p, &x, sizeof x);
}
CX_INLINE v16 v16_load_n(const float *p, size_t n)
{
	v16 r;
	memset(&r, 0, sizeof r);
	memcpy(&r, p, (n < 16 ? n : 16) * sizeof *p);
	return r;
}
CX_INLINE void v16_store_n(float *p, v16 x, size_t n)
{
	memcpy(p, &x, (n < 16 ? n : 16) * sizeof *p);
}
CX_INLINE v16 v16_set1(float x)
{
	v16 r;
	CX_Q(i) r.q[i] = (cx__f4){x, x, x, x};
	return r;
}
#define CX_OP(T, name, expr)                                                                       \
	CX_INLINE T name(T x, T y)                                                                     \
	{                                                                                              \
		T r;                                                                                       \
		CX_Q(i) r.q[i] = (expr);                                                                   \
		return r;                                                                                  \
	}
CX_OP(v16, v16_add, x.q[i] + y.q[i])
CX_OP(v16, v16_sub, x.q[i] - y.q[i])
CX_OP(v16, v16_mul, x.q[i] * y.q[i])
CX_OP(v16, v16_div, x.q[i] / y.q[i])
#define CX_F4(v) ((cx__f4)(v))
#define CX_I4(v) ((cx__i4)(v))
CX_OP(
	v16, v16_max, CX_F4(((x.q[i] > y.q[i]) & CX_I4(x.q[i])) | (~(x.q[i] > y.q[i]) & CX_I4(y.q[i]))))
CX_OP(
	v16, v16_min, CX_F4(((x.q[i] < y.q[i]) & CX_I4(x.q[i])) | (~(x.q[i] < y.q[i]) & CX_I4(y.q[i]))))
CX_INLINE v16 v16_fma(v16 x, v16 y, v16 z)
{
#if defined(__aarch64__)
	CX_Q(i)
	z.q[i] = (cx__f4)vfmaq_f32((float32x4_t)z.q[i], (float32x4_t)x.q[i], (float32x4_t)y.q[i]);
#else
	CX_GET(float, a, x);
	CX_GET(float, b, y);
	CX_GET(float, c, z);
	CX_L(i) c[i] = __builtin_fmaf(a[i], b[i], c[i]);
	memcpy(&z, c, sizeof z);
#endif
	return z;
}
CX_INLINE v16 v16_fnma(v16 x, v16 y, v16 z)
{
	CX_Q(i) x.q[i] = -x.q[i];
	return v16_fma(x, y, z);
}
#define CX_LANEWISE(name, f)                                                                       \
	CX_INLINE v16 name(v16 x)                                                                      \
	{                                                                                              \
		CX_GET(float, a, x);                                                                       \
		CX_L(i) a[i] = f(a[i]);                                                                    \
		memcpy(&x, a, sizeof x);                                                                   \
		return x;                                                                                  \
	}
CX_LANEWISE(v16_sqrt, __builtin_sqrtf)
CX_LANEWISE(v16_rint, __builtin_rintf)
CX_LANEWISE(v16_floor, __builtin_floorf)
CX_LANEWISE(v16_ceil, __builtin_ceilf)
CX_LANEWISE(v16_trunc, __builtin_truncf)

#define CX_CMP(name, T, op)                                                                        \
	CX_INLINE v16m name(T x, T y)                                                                  \
	{                                                                                              \
		v16m r;                                                                                    \
		CX_Q(i) r.q[i] = x.q[i] op y.q[i];                                                         \
		return r;                                                                                  \
	}
CX_CMP(v16_lt, v16, <)
CX_CMP(v16_le, v16, <=)
CX_CMP(v16_eq, v16, ==)
CX_CMP(v16i_eq, v16i, ==)
CX_CMP(v16i_gt, v16i, >)
CX_OP(v16m, v16m_and, x.q[i] & y.q[i])
CX_OP(v16m, v16m_or, x.q[i] | y.q[i])
CX_INLINE v16m v16m_not(v16m x)
{
	CX_Q(i) x.q[i] = ~x.q[i];
	return x;
}
CX_INLINE int v16m_any(v16m x)
{
	CX_GET(int32_t, a, x);
	int r = 0;
	CX_L(i) r |= a[i];
	return r != 0;
}
CX_INLINE v16 v16_select(v16m m, v16 yes, v16 no)
{
	v16 r;
	CX_Q(i) r.q[i] = CX_F4((m.q[i] & CX_I4(yes.q[i])) | (~m.q[i] & CX_I4(no.q[i])));
	return r;
}

CX_INLINE v16i v16i_set1(int32_t x)
{
	v16i r;
	CX_Q(i) r.q[i] = (cx__i4){x, x, x, x};
	return r;
}
CX_INLINE v16i v16i_load(const int32_t *p)
{
	v16i r;
	memcpy(&r, p, sizeof r);
	return r;
}
CX_INLINE void v16i_store(int32_t *p, v16i x)
{
	memcpy(p, &x, sizeof x);
}
#define CX_U4(v) ((cx__u4)(v))
CX_OP(v16i, v16i_add, CX_I4(CX_U4(x.q[i]) + CX_U4(y.q[i])))
CX_OP(v16i, v16i_sub, CX_I4(CX_U4(x.q[i]) - CX_U4(y.q[i])))
CX_OP(v16i, v16i_mul, CX_I4(CX_U4(x.q[i]) * CX_U4(y.q[i])))
CX_OP(v16i, v16i_and, x.q[i] & y.q[i])
CX_OP(v16i, v16i_or, x.q[i] | y.q[i])
CX_OP(v16i, v16i_xor, x.q[i] ^ y.q[i])
CX_INLINE v16i v16i_sll(v16i x, int n)
{
	CX_Q(i) x.q[i] = CX_I4(CX_U4(x.q[i]) << (uint32_t)n);
	return x;
}
CX_INLINE v16i v16i_srl(v16i x, int n)
{
	CX_Q(i) x.q[i] = CX_I4(CX_U4(x.q[i]) >> (uint32_t)n);
	return x;
}
CX_INLINE v16i v16i_sra(v16i x, int n)
{
	CX_Q(i) x.q[i] = x.q[i] >> n;
	return x;
}
CX_INLINE v16i v16_to_i(v16 x)
{
	int32_t r[16];
	CX_GET(float, a, x);
	CX_L(i)
	{
		float f = __builtin_rintf(a[i]);
		r[i] = f >= -2147483648.0f && f < 2147483648.0f ? (int32_t)f : INT32_MIN; /* as x86 does */
	}
	return v16i_load(r);
}
CX_INLINE v16 v16i_to_f(v16i x)
{
	v16 r;
	CX_Q(i) r.q[i] = __builtin_convertvector(x.q[i], cx__f4);
	return r;
}
CX_INLINE v16i v16_as_v16i(v16 x)
{
	v16i r;
	memcpy(&r, &x, sizeof r);
	return r;
}
CX_INLINE v16 v16i_as_v16(v16i x)
{
	v16 r;
	memcpy(&r, &x, sizeof r);
	return r;
}

CX_INLINE v16 v16_load_f16(const uint16_t *p)
{
	float a[16];
	CX_L(i) a[i] = cx_f16_to_f32(p[i]);
	return v16_load(a);
}
CX_INLINE void v16_store_f16(uint16_t *p, v16 x)
{
	CX_GET(float, a, x);
	CX_L(i) p[i] = cx_f32_to_f16(a[i]);
}
CX_INLINE v16i v16i_load_u16(const uint16_t *p)
{
	int32_t a[16];
	CX_L(i) a[i] = p[i];
	return v16i_load(a);
}
CX_INLINE void v16i_store_u16(uint16_t *p, v16i x)
{
	CX_GET(int32_t, a, x);
	CX_L(i) p[i] = (uint16_t)a[i];
}

CX_INLINE float v16_sum(v16 x)
{
	cx__f4 a = x.q[0] + x.q[2], b = x.q[1] + x.q[3];
	a = a + b;
	return (a[0] + a[2]) + (a[1] + a[3]);
}
CX_INLINE float v16_hmax(v16 x) /* no NaN in x */
{
	CX_GET(float, a, x);
	float m = a[0];
	CX_L(i) m = a[i] > m ? a[i] : m;
	return m;
}
CX_INLINE void v16_sum8(float *y, const v16 *x)
{
	for (int i = 0; i < 8; i++) y[i] = v16_sum(x[i]);
}

/* One half, little-endian, at p. */
CX_INLINE float cx__f16_at(const uint8_t *p)
{
	return cx_f16_load(p);
}

/* ---- bytes and integer products (quantised weights) ---- */

#define CX_B(i) for (int i = 0; i < 64; i++)
CX_INLINE vb vb_set1(uint8_t x)
{
	vb r;
	memset(&r, x, sizeof r);
	return r;
}
CX_INLINE vb vb_and(vb x, vb y)
{
	CX_B(i) x.b[i] = (uint8_t)(x.b[i] & y.b[i]);
	return x;
}
CX_INLINE vb vb_or(vb x, vb y)
{
	CX_B(i) x.b[i] = (uint8_t)(x.b[i] | y.b[i]);
	return x;
}
CX_INLINE vb vb_xor(vb x, vb y)
{
	CX_B(i) x.b[i] = (uint8_t)(x.b[i] ^ y.b[i]);
	return x;
}
CX_INLINE vb vb_sll(vb x, int n)
{
	CX_B(i) x.b[i] = (uint8_t)(x.b[i] << n);
	return x;
}
CX_INLINE vb vb_srl4(vb x, int n0, int n1, int n2, int n3)
{
	const int n[4] = {n0, n1, n2, n3};
	CX_B(i) x.b[i] = (uint8_t)(x.b[i] >> n[i / 16]);
	return x;
}
CX_INLINE vb vb_table(const uint8_t *t16, vb idx)
{
	CX_B(i) idx.b[i] = t16[idx.b[i] & 15];
	return idx;
}
CX_INLINE vb vb_or_bits(vb x, uint64_t m, uint8_t val)
{
	CX_B(i) x.b[i] = (uint8_t)(x.b[i] | (m >> i & 1 ? val : 0));
	return x;
}
CX_INLINE vb vb_gather16(const uint8_t *p, int size, int o0, int o1, int o2, int o3)
{
	(void)size;
	vb r;
	memcpy(r.b, p + o0, 16);
	memcpy(r.b + 16, p + o1, 16);
	memcpy(r.b + 32, p + o2, 16);
	memcpy(r.b + 48, p + o3, 16);
	return r;
}
CX_INLINE v16 v16_spread4(float f0, float f1, float f2, float f3)
{
	return (v16){{{f0, f0, f0, f0}, {f1, f1, f1, f1}, {f2, f2, f2, f2}, {f3, f3, f3, f3}}};
}
CX_INLINE v16 v16_f16x4(const uint8_t *p, int size, int o0, int o1, int o2, int o3)
{
	(void)size;
	return v16_spread4(
		cx_f16_load(p + o0), cx_f16_load(p + o1), cx_f16_load(p + o2), cx_f16_load(p + o3));
}
CX_INLINE v16i v16i_spread(uint64_t x, int i0, int i1, int i2, int i3)
{
	const int n[4] = {i0, i1, i2, i3};
	int32_t r[16];
	CX_L(i) r[i] = (int8_t)(x >> (8 * n[i / 4]));
	return v16i_load(r);
}

/* A byte vector as 32 16-bit values, low byte first whatever the machine. */
CX_INLINE int32_t vb_s16(const vb *x, int i)
{
	return (int16_t)(x->b[2 * i] | x->b[2 * i + 1] << 8);
}
CX_INLINE void vb_put16(vb *x, int i, int v)
{
	x->b[2 * i] = (uint8_t)v;
	x->b[2 * i + 1] = (uint8_t)(v >> 8);
}
CX_INLINE v16i v16i_dot16(v16i acc, vb w, vb a)
{
	CX_GET(int32_t, r, acc);
	CX_L(i)
	r[i] += vb_s16(&w, 2 * i) * vb_s16(&a, 2 * i) + vb_s16(&w, 2 * i + 1) * vb_s16(&a, 2 * i + 1);
	return v16i_load(r);
}
#define CX_HAVE_DOT8 0
#define CX_HAVE_BF16 0
CX_INLINE vb v16_as_vb(v16 x)
{
	vb r;
	memcpy(&r, &x, sizeof r);
	return r;
}
/* Lane j of x[i] and lane i of x[j] change places. */
CX_INLINE void v16_transpose(v16 x[16])
{
	uint32_t a[16][16], b[16][16];
	memcpy(a, x, sizeof a);
	for (int i = 0; i < 16; i++)
		for (int j = 0; j < 16; j++) b[j][i] = a[i][j];
	memcpy(x, b, sizeof b);
}
CX_INLINE vb vb_even16(vb x)
{
	for (int i = 0; i < 32; i++) x.b[2 * i + 1] = 0;
	return x;
}
CX_INLINE vb vb_odd16(vb x)
{
	for (int i = 0; i < 32; i++) {
		x.b[2 * i] = x.b[2 * i + 1];
		x.b[2 * i + 1] = 0;
	}
	return x;
}
CX_INLINE vb vb_sub16(vb x, int16_t z)
{
	for (int i = 0; i < 32; i++) vb_put16(&x, i, vb_s16(&x, i) - z);
	return x;
}
CX_INLINE vb vb_mul16(vb x, v16i s)
{
	CX_GET(int32_t, f, s);
	for (int i = 0; i < 32; i++) vb_put16(&x, i, vb_s16(&x, i) * f[i / 2]);
	return x;
}
CX_INLINE vb vb_load(const void *p)
{
	vb r;
	memcpy(&r, p, sizeof r);
	return r;
}
CX_INLINE void vb_store(void *p, vb x)
{
	memcpy(p, &x, sizeof x);
}
CX_INLINE void v16i_sum_groups(int32_t *out, v16i x)
{
	CX_GET(int32_t, a, x);
	for (int j = 0; j < 4; j++) out[j] = a[4 * j] + a[4 * j + 1] + a[4 * j + 2] + a[4 * j + 3];
}
CX_INLINE void v16i_store_pairs(int16_t *even, int16_t *odd, v16i x)
{
	CX_GET(int32_t, a, x);
	for (int j = 0; j < 8; j++) {
		even[j] = (int16_t)a[2 * j];
		odd[j] = (int16_t)a[2 * j + 1];
	}
}
CX_INLINE void v16i_store_i8(void *p, v16i x)
{
	CX_GET(int32_t, a, x);
	CX_L(i)((uint8_t *)p)[i] = (uint8_t)a[i];
}

/* Groups i0..i3 of the eight of a (0..3) and b (4..7). */
CX_INLINE vb vb_pick(vb a, vb b, int i0, int i1, int i2, int i3)
{
	uint8_t t[128];
	vb_store(t, a);
	vb_store(t + 64, b);
	return vb_gather16(t, 128, 16 * i0, 16 * i1, 16 * i2, 16 * i3);
}
/* x | (bits of the 16 bytes at p, the one at n_i moved to position `up` in group i) & mask << up.
 */
CX_INLINE vb vb_or_field(
	vb x, const uint8_t *p, int n0, int n1, int n2, int n3, uint8_t mask, int up)
{
	vb f = vb_and(vb_srl4(vb_gather16(p, 16, 0, 0, 0, 0), n0, n1, n2, n3), vb_set1(mask));
	return vb_or(x, up ? vb_sll(f, up) : f);
}
/* Eight scales and mins, one per byte, times d and -dmin (halves at p): those of blocks j..j+3 to
 * lanes. */
CX_INLINE void v16_scale_min(const uint8_t *p, uint64_t sc, uint64_t mn, int j, v16 *d, v16 *m)
{
	*d = v16_mul(v16i_to_f(v16i_spread(sc, j, j + 1, j + 2, j + 3)), v16_set1(cx__f16_at(p)));
	*m = v16_mul(v16i_to_f(v16i_spread(mn, j, j + 1, j + 2, j + 3)), v16_set1(-cx__f16_at(p + 2)));
}
#define vb_keep(x) ((void)0)
#define v16_keep(x) ((void)0)

#undef CX_OP
#undef CX_CMP
#endif
