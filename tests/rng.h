/* rng.h - splitmix64 for tests: a seed gives the same numbers everywhere. */
#ifndef CX_TESTS_RNG_H
#define CX_TESTS_RNG_H

#include <stdbool.h>
#include <stdint.h>

typedef struct cx_rng {
	uint64_t s;
} cx_rng;

static inline uint64_t cx__rng_u64(cx_rng *r)
{
	uint64_t z = r->s += 0x9e3779b97f4a7c15u;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}
/* Independent streams of one seed. */
static inline cx_rng cx__rng_make(uint64_t seed, uint64_t stream)
{
	cx_rng r = {seed * 0x2545f4914f6cdd1du + stream * 0xd1342543de82ef95u + 1};
	cx__rng_u64(&r);
	return r;
}
/* lo..hi, both inclusive. */
static inline int64_t cx__rng_int(cx_rng *r, int64_t lo, int64_t hi)
{
	return lo + (int64_t)(cx__rng_u64(r) % (uint64_t)(hi - lo + 1));
}
/* True once in n times. */
static inline bool cx__rng_one_in(cx_rng *r, int64_t n)
{
	return cx__rng_int(r, 1, n) == 1;
}
/* [lo, hi), 24 random bits. */
static inline float cx__rng_float(cx_rng *r, float lo, float hi)
{
	return lo + (hi - lo) * (float)(cx__rng_u64(r) >> 40) * 0x1p-24f;
}

#endif
