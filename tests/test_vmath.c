/* test_vmath.c - exp, log, tanh, erf, sin, cos ... of the cpu backend against libm in double: ulps,
 * special values, the same bits from every instruction set and at every place in a row. */
#include "backends/cpu/isa.h"

#include <math.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static double ref_sigmoid(double x)
{
	return x < 0 ? exp(x) / (1.0 + exp(x)) : 1.0 / (1.0 + exp(-x));
}
static double ref_silu(double x)
{
	return x * ref_sigmoid(x);
}
static double ref_gelu(double x)
{
	return 0.5 * x * erfc(-x * M_SQRT1_2);
}
static double ref_gelu_tanh(double x)
{
	return x * ref_sigmoid(2.0 * 0.79788456080286536 * (x + 0.044715 * x * x * x));
}
static double ref_relu(double x)
{
	return x < 0 ? 0.0 : x;
}

/* Range of arguments, error in ulps of the result (of x for gelu and its like: their small results
 * cancel). */
typedef struct {
	const char *name;
	size_t field;
	double (*ref)(double);
	double lo, hi, ulps;
	bool of_x;
} function;
#define F(f) #f, offsetof(cx_cpu_isa, f)
static const function functions[] = {
	{F(exp), exp, -105, 89, 2, false},
	{F(log), log, 0, 3.4e38, 2, false},
	{F(log1p), log1p, -1, 1e6, 4, false},
	{F(expm1), expm1, -30, 89, 4, false},
	{F(tanh), tanh, -12, 12, 2, false},
	{F(sigmoid), ref_sigmoid, -104, 104, 4, false},
	{F(erf), erf, -6, 6, 2, false},
	{F(sin), sin, -1e5, 1e5, 2, false},
	{F(cos), cos, -1e5, 1e5, 2, false},
	{F(sin), sin, -10, 10, 2, false},
	{F(cos), cos, -10, 10, 2, false},
	{F(sin), sin, -3e38, 3e38, 2, false},
	{F(silu), ref_silu, -110, 110, 4, true},
	{F(gelu), ref_gelu, -10, 10, 4, true},
	{F(gelu_tanh), ref_gelu_tanh, -10, 10, 4, true},
	{F(relu), ref_relu, -10, 10, 0, false},
};
static const char *const isa_names[] = {"generic", "avx2", "avx512"};
typedef void (*row_fn)(float *, size_t);
static row_fn get(const cx_cpu_isa *isa, const function *f)
{
	row_fn r;
	memcpy(&r, (const char *)isa + f->field, sizeof r);
	return r;
}

/* Distance in units of the last place that a float has at `at`, not finer than the subnormals. */
static double ulps(float got, double want, double at)
{
	int e;
	if (isnan(want)) return isnan(got) ? 0.0 : INFINITY;
	if (isinf(got) || fabs(want) >= 0x1.ffffffp127) /* halfway to what would be 2^128 */
		return isinf(got) && fabs(want) >= 0x1.fffffefp127 && (got > 0) == (want > 0) ? 0.0
			   : !isinf(got) && fabs(want) < 0x1.000001p128 ? fabs(got - want) * 0x1p-104
															: INFINITY;
	frexp(at, &e);
	return fabs(got - want) / ldexp(1.0, e - 24 < -149 ? -149 : e - 24);
}

enum { N = 20000 };
static void arguments(const function *f, float *x)
{
	uint64_t r = 12345;
	for (int i = 0; i < N; i++) {
		double u, v;
		r = r * 6364136223846793005u + 1442695040888963407u;
		u = (double)(r >> 11) * 0x1p-53;
		/* half spread evenly, half over the exponents down to the subnormals, towards 0 from both
		 * ends */
		v = i & 1 ? f->lo + (f->hi - f->lo) * u
				  : (i & 2 ? f->hi : f->lo) * exp(-u * (i & 4 ? 100.0 : 8.0));
		x[i] = (float)v;
		if (!(x[i] >= (float)f->lo && x[i] <= (float)f->hi)) x[i] = (float)f->hi;
	}
}

static void test_accuracy(void **state)
{
	static float x[N], y[N], first[N];
	(void)state;
	for (size_t k = 0; k < sizeof functions / sizeof *functions; k++) {
		const function *f = &functions[k];
		bool have_first = false;
		double worst = 0.0;
		arguments(f, x);
		for (int s = 0; s < 3; s++) {
			const cx_cpu_isa *isa = cx__cpu_isa_named(isa_names[s]);
			if (!isa) continue;
			memcpy(y, x, sizeof y);
			get(isa, f)(y, N);
			if (!have_first) memcpy(first, y, sizeof y);
			have_first = true;
			assert_memory_equal(y, first, sizeof y);
		}
		for (int i = 0; i < N; i++) {
			double want = f->ref((double)x[i]),
				   e = ulps(first[i], want, f->of_x ? (double)x[i] : want);
			if (!(e <= f->ulps))
				fail_msg("%s(%.9g) is %.9g, not %.9g: %.2f ulp", f->name, x[i], first[i], want, e);
			worst = e > worst ? e : worst;
		}
		print_message(
			"%-9s [%g, %g]: %.2f ulp%s\n", f->name, f->lo, f->hi, worst, f->of_x ? " of x" : "");
	}
}

static void test_special(void **state)
{
	static const float in[] = {0.0f, -0.0f, INFINITY, -INFINITY, NAN, 1e-45f, -1e-45f, 3.4e38f,
		-3.4e38f, 1.0f, -1.0f, 0.625f};
	enum { M = sizeof in / sizeof *in };
	(void)state;
	for (int s = 0; s < 3; s++)
		for (size_t k = 0; k < sizeof functions / sizeof *functions; k++) {
			const cx_cpu_isa *isa = cx__cpu_isa_named(isa_names[s]);
			const function *f = &functions[k];
			float y[M];
			if (!isa) continue;
			memcpy(y, in, sizeof y);
			get(isa, f)(y, M);
			for (int i = 0; i < M; i++) {
				double want = f->ref((double)in[i]);
				if (f->of_x &&
					isinf(in[i])) { /* -inf: the formula x / (1 + e^-x) gives NaN, the limit is 0 */
					assert_true(in[i] > 0 ? y[i] == INFINITY : isnan(y[i]) || y[i] == 0.0f);
					continue;
				}
				if (f->of_x && fabsf(in[i]) > 1e38f) want = in[i] > 0 ? in[i] : 0.0;
				bool ok =
					ulps(y[i], want, f->of_x ? (double)in[i] : want) <= (f->ulps > 0 ? f->ulps : 0);
				if (!ok) fail_msg("%s %s(%g) is %g, not %g", isa->name, f->name, in[i], y[i], want);
				if (in[i] == 0.0f && want == 0.0)
					assert_int_equal(signbit(y[i]) != 0, signbit(want) != 0);
			}
		}
}

/* An element's value does not depend on where in the row it is, and nothing outside is touched. */
static void test_places(void **state)
{
	float x[40], y[42], one;
	(void)state;
	for (int i = 0; i < 40; i++) x[i] = (float)(i - 20) * 0.37f + 0.01f;
	for (int s = 0; s < 3; s++)
		for (size_t k = 0; k < sizeof functions / sizeof *functions; k++) {
			const cx_cpu_isa *isa = cx__cpu_isa_named(isa_names[s]);
			for (int n = 0; isa && n <= 40; n++) {
				for (int i = 0; i < 42; i++) y[i] = 77.0f;
				memcpy(y + 1, x, (size_t)n * sizeof *x);
				get(isa, &functions[k])(y + 1, (size_t)n);
				assert_true(y[0] == 77.0f && y[n + 1] == 77.0f);
				for (int i = 0; i < n; i++) {
					one = x[i];
					get(isa, &functions[k])(&one, 1);
					if (!isnan(one)) assert_memory_equal(&one, y + 1 + i, sizeof one);
				}
			}
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_accuracy),
		cmocka_unit_test(test_special),
		cmocka_unit_test(test_places),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
