/* map_ops.c - scalar.def as functions over a tile: f32 in vectors of the machine's own width, int64
 * one by one.
 *
 * The result never depends on where in a tile an element lies: every lane computes alone. y may be
 * a or b. */
#include "backends/cpu/isa/map_ops.h"
#include "backends/cpu/isa/lane.h"
#include "backends/cpu/isa/vmath.h"

#if defined(CX_ISA_avx512)
enum { W = 16 };
#elif defined(CX_ISA_avx2)
enum { W = 8 };
#else
enum { W = 4 };
#endif
typedef float mf __attribute__((vector_size(W * 4)));
typedef int32_t mi __attribute__((vector_size(W * 4)));
typedef float mf_mem __attribute__((vector_size(W * 4), aligned(4), may_alias));

/* A v16 function on W lanes: the other lanes are computed by nobody, the compiler sees that they
 * are not used. */
CX_INLINE v16 widen(mf x)
{
#if defined(CX_ISA_avx512)
	return x;
#elif defined(CX_ISA_avx2)
	return (v16){x, x};
#else
	return (v16){{x, x, x, x}};
#endif
}
CX_INLINE mf narrow(v16 x)
{
#if defined(CX_ISA_avx512)
	return x;
#elif defined(CX_ISA_avx2)
	return x.a;
#else
	return x.q[0];
#endif
}
CX_INLINE mf load(const float *p)
{
	return *(const mf_mem *)p;
}
CX_INLINE void store(float *p, mf x)
{
	*(mf_mem *)p = x;
}
CX_INLINE mf load_n(const float *p, int64_t n)
{
	float t[W] = {0};
	memcpy(t, p, (size_t)n * sizeof *t);
	return load(t);
}
CX_INLINE void store_n(float *p, mf x, int64_t n)
{
	float t[W];
	store(t, x);
	memcpy(p, t, (size_t)n * sizeof *t);
}
CX_INLINE mf splat(float v)
{
	return v - (mf){0};
}
CX_INLINE mf pick(mi m, mf a, mf b)
{
	return (mf)((m & (mi)a) | (~m & (mi)b));
}

#undef CX_SEL
#define CX_SEL(cond, a, b) pick((cond), (a), (b))
#define CX_K(v) splat((float)(v))
#define CX_EXP(x) narrow(v16_exp(widen(x)))
#define CX_LOG(x) narrow(v16_log(widen(x)))
#define CX_LOG1P(x) narrow(v16_log1p(widen(x)))
#define CX_SQRT(x) narrow(v16_sqrt(widen(x)))
#define CX_SIN(x) narrow(v16_sin(widen(x)))
#define CX_COS(x) narrow(v16_cos(widen(x)))
#define CX_TANH(x) narrow(v16_tanh(widen(x)))
#define CX_ERF(x) narrow(v16_erf(widen(x)))
#define CX_ERFCN(x) narrow(erfcn_lanes(widen(x)))
#define CX_FLOOR(x) narrow(v16_floor(widen(x)))
#define CX_CEIL(x) narrow(v16_ceil(widen(x)))
#define CX_ROUND(x) narrow(v16_rint(widen(x)))
#define CX_FABS(x) narrow(v16_abs(widen(x)))
/* 1 - erf(a), a = -x / sqrt 2, to a few units in the last place of the result, also where it is
 * tiny: with t = 1 / (1 + |a|/2) it is t exp(P(t) - a^2), P of Press et al., Numerical Recipes 6.2;
 * what the roundings of a, of a^2 and of the difference took is put back. */
CX_INLINE v16 erfcn_lanes(v16 x)
{
	static const float coef[] = {0.17087277f, -0.82215223f, 1.48851587f, -1.13520398f, 0.27886807f,
		-0.18628806f, 0.09678418f, 0.37409196f, 1.00002368f, -1.26551223f};
	v16 one = v16_set1(1.0f), big = v16_set1(20.0f), c = v16_set1(-0.70710678f);
	v16 a = v16_mul(x, c), z = v16_abs(a), rest, t, s, lo, p, r, e, d;
	z = v16_select(v16_gt(z, big), big, z); /* the result is 0 from 10.1 on */
	t = v16_div(one, v16_fma(v16_set1(0.5f), z, one));
	s = v16_mul(z, z);
	rest = v16_fma(x, v16_set1(-1.21016175e-8f), v16_fma(x, c, v16_neg(a)));
	lo = v16_fma(z, z, v16_neg(s));
	lo = v16_fma(v16_add(a, a), rest, lo); /* a and its rest have a sign, their product has not */
	lo = v16_select(v16_gt(v16_abs(a), big), v16_zero(), lo); /* not infinity times 0 */
	p = v16_set1(coef[0]);
	for (int i = 1; i < 10; i++) p = v16_fma(p, t, v16_set1(coef[i]));
	e = v16_sub(p, s);
	d = v16_sub(e, p); /* e + (p - (e - d)) - (s + d) is p - s exactly (Knuth) */
	lo = v16_sub(lo, v16_sub(v16_sub(p, v16_sub(e, d)), v16_add(s, d)));
	r = v16_mul(t, v16_exp(e));
	r = v16_fnma(r, lo, r);
	return v16_select(v16_lt(a, v16_zero()), v16_sub(v16_set1(2.0f), r), r);
}

/* libm's, lane by lane: the one function of two elements, and rare. */
CX_INLINE mf pow_lanes(mf a, mf b)
{
	for (int i = 0; i < W; i++) a[i] = powf(a[i], b[i]);
	return a;
}
#define CX_POW(a, b) pow_lanes((a), (b))

#define CX_MAP1(name, fexpr, iexpr)                                                                \
	static void float_##name(float *y, const cx_tile_args *o, int64_t n)                           \
	{                                                                                              \
		const float *pa = o->a;                                                                    \
		int64_t i = 0;                                                                             \
		for (; i + W <= n; i += W) {                                                               \
			mf x = load(pa + i);                                                                   \
			store(y + i, fexpr);                                                                   \
		}                                                                                          \
		if (i < n) {                                                                               \
			mf x = load_n(pa + i, n - i);                                                          \
			store_n(y + i, fexpr, n - i);                                                          \
		}                                                                                          \
	}
#define CX_MAP1P(name, fexpr, iexpr)                                                               \
	static void float_##name(float *y, const cx_tile_args *o, int64_t n)                           \
	{                                                                                              \
		const float *pa = o->a;                                                                    \
		mf p = splat(o->p), q = splat(o->q);                                                       \
		int64_t i = 0;                                                                             \
		for (; i + W <= n; i += W) {                                                               \
			mf x = load(pa + i);                                                                   \
			store(y + i, fexpr);                                                                   \
		}                                                                                          \
		if (i < n) {                                                                               \
			mf x = load_n(pa + i, n - i);                                                          \
			store_n(y + i, fexpr, n - i);                                                          \
		}                                                                                          \
	}
#define CX_MAP2(name, fexpr, iexpr)                                                                \
	static void float_##name(float *y, const cx_tile_args *o, int64_t n)                           \
	{                                                                                              \
		const float *pa = o->a, *pb = o->b;                                                        \
		int64_t i = 0;                                                                             \
		for (; i + W <= n; i += W) {                                                               \
			mf a = load(pa + i), b = load(pb + i);                                                 \
			store(y + i, fexpr);                                                                   \
		}                                                                                          \
		if (i < n) {                                                                               \
			mf a = load_n(pa + i, n - i), b = load_n(pb + i, n - i);                               \
			store_n(y + i, fexpr, n - i);                                                          \
		}                                                                                          \
	}
#include "graph/scalar.def"
#undef CX_MAP1
#undef CX_MAP1P
#undef CX_MAP2

#define CX_MAP1(name, ...)                                                                         \
	static void act_##name(float *x, size_t n)                                                     \
	{                                                                                              \
		float_##name(x, &(cx_tile_args){.a = x}, (int64_t)n);                                      \
	}
#define CX_MAP1P(name, ...)
#define CX_MAP2(name, ...)
#include "graph/scalar.def"
#undef CX_MAP1
#undef CX_MAP1P
#undef CX_MAP2

static cx_tile_act_fn *const acts[CX_OP_COUNT] = {
#define CX_MAP1(name, ...) [CX_OP_##name] = act_##name,
#define CX_MAP1P(name, ...)
#define CX_MAP2(name, ...)
#include "graph/scalar.def"
#undef CX_MAP1
#undef CX_MAP1P
#undef CX_MAP2
};

/* Registers of 128 bits, so that nothing overflows before it is wrapped. */
typedef __int128 wide;
#define CX_IDIV(a, b) ((b) == 0 ? 0 : (a) / (b))
#define CX_NOINT 0
#define INT_LOOP(decl, iexpr)                                                                      \
	for (int64_t i = 0; i < n; i++) {                                                              \
		decl;                                                                                      \
		y[i] = (int64_t)(uint64_t)(wide)(iexpr);                                                   \
	}
#define CX_MAP1(name, fexpr, iexpr)                                                                \
	static void int_##name(int64_t *y, const cx_tile_args *o, int64_t n)                           \
	{                                                                                              \
		const int64_t *pa = o->a;                                                                  \
		INT_LOOP(wide x = pa[i]; (void)x, iexpr)                                                   \
	}
#define CX_MAP1P(name, fexpr, iexpr)                                                               \
	static void int_##name(int64_t *y, const cx_tile_args *o, int64_t n)                           \
	{                                                                                              \
		const int64_t *pa = o->a;                                                                  \
		wide p = o->ip, q = o->iq;                                                                 \
		INT_LOOP(wide x = pa[i], iexpr)                                                            \
	}
#define CX_MAP2(name, fexpr, iexpr)                                                                \
	static void int_##name(int64_t *y, const cx_tile_args *o, int64_t n)                           \
	{                                                                                              \
		const int64_t *pa = o->a, *pb = o->b;                                                      \
		INT_LOOP(wide a = pa[i]; wide b = pb[i]; (void)a; (void)b, iexpr)                          \
	}
#include "graph/scalar.def"
#undef CX_MAP1
#undef CX_MAP1P
#undef CX_MAP2

static const struct {
	cx_tile_f32 *f;
	cx_tile_i64 *i;
} tiles[CX_OP_COUNT] = {
#define CX_MAP1(name, ...) [CX_OP_##name] = {float_##name, int_##name},
#define CX_MAP1P(name, ...) [CX_OP_##name] = {float_##name, int_##name},
#define CX_MAP2(name, ...) [CX_OP_##name] = {float_##name, int_##name},
#include "graph/scalar.def"
};

cx_tile_act_fn *cx_tile_act(cx_op op)
{
	return acts[op];
}
cx_tile_f32 *cx_tile_float(cx_op op)
{
	return tiles[op].f;
}
cx_tile_i64 *cx_tile_int(cx_op op)
{
	return tiles[op].i;
}
