/* nd.c - strided copies: whole lines where the innermost axis is contiguous on both sides, 16 x 16
 * squares where the source is contiguous along another axis (a transpose), else element by element.
 */
#include "backends/cpu/isa/nd.h"

enum { SQUARE = 16 };

bool cx_nd_init(cx_nd *nd, int32_t rank, const int64_t *dim, const int64_t *dst, const int64_t *src)
{
	memset(nd, 0, sizeof *nd);
	for (int32_t i = 0; i < rank; i++) {
		int32_t n = nd->rank;
		if (dim[i] == 0) return false;
		if (dim[i] == 1) continue;
		if (n && nd->dst[n - 1] == dim[i] * dst[i] && nd->src[n - 1] == dim[i] * src[i]) {
			nd->dim[n - 1] *= dim[i];
			nd->dst[n - 1] = dst[i];
			nd->src[n - 1] = src[i];
			continue;
		}
		nd->dim[n] = dim[i];
		nd->dst[n] = dst[i];
		nd->src[n] = src[i];
		nd->rank++;
	}
	return true;
}

/* n elements with strides ds, ss. */
#define STRIDED(type)                                                                              \
	for (int64_t i = 0; i < n; i++)                                                                \
	((type *)(void *)dst)[i * ds] = ((const type *)(const void *)src)[i * ss]
static void line(char *dst, int64_t ds, const char *src, int64_t ss, int64_t n, uint32_t size)
{
	if (ds == 1 && ss == 1) {
		memcpy(dst, src, (size_t)n * size);
		return;
	}
	switch (size) {
	case 1:
		STRIDED(uint8_t);
		break;
	case 2:
		STRIDED(uint16_t);
		break;
	case 4:
		STRIDED(uint32_t);
		break;
	default:
		STRIDED(uint64_t);
		break;
	}
}

void cx_nd_line(char *dst, const char *src, int64_t stride, int64_t n, uint32_t size)
{
	line(dst, 1, src, stride, n, size);
}

static void offsets(const cx_nd *nd, int32_t n, int64_t r, int64_t *d, int64_t *s)
{
	*d = *s = 0;
	for (int32_t i = n - 1; i >= 0; i--) {
		*d += r % nd->dim[i] * nd->dst[i];
		*s += r % nd->dim[i] * nd->src[i];
		r /= nd->dim[i];
	}
}

/* One square: ni lines of the destination, nj of the source, which are read once, next to each
 * other, and turned in a buffer of their own. */
#define TURN(type)                                                                                 \
	do {                                                                                           \
		type buf[SQUARE][SQUARE];                                                                  \
		for (int64_t j = 0; j < nj; j++) memcpy(buf[j], src + j * ss * size, (size_t)ni * size);   \
		for (int64_t i = 0; i < ni; i++) {                                                         \
			type *to = (type *)(void *)(dst + i * ds * size);                                      \
			for (int64_t j = 0; j < nj; j++) to[j] = buf[j][i];                                    \
		}                                                                                          \
	} while (0)
static void turn(
	char *dst, int64_t ds, const char *src, int64_t ss, int64_t ni, int64_t nj, uint32_t size)
{
	switch (size) {
	case 1:
		TURN(uint8_t);
		break;
	case 2:
		TURN(uint16_t);
		break;
	case 4:
		TURN(uint32_t);
		break;
	default:
		TURN(uint64_t);
		break;
	}
}

/* The last two axes as squares: the source runs along the first of them, the destination along the
 * second. */
static void squares(
	const cx_nd *nd, uint32_t size, char *dst, const char *src, const cx_cpu_team *t)
{
	int32_t a = nd->rank - 2, b = nd->rank - 1;
	int64_t na = (nd->dim[a] + SQUARE - 1) / SQUARE, nb = (nd->dim[b] + SQUARE - 1) / SQUARE,
			n = na * nb, lo, hi;
	for (int32_t i = 0; i < a; i++) n *= nd->dim[i];
	cx_cpu_share(t, n, 1, &lo, &hi);
	for (int64_t u = lo; u < hi; u++) {
		int64_t d, s, i0 = u / nb % na * SQUARE, j0 = u % nb * SQUARE;
		int64_t ni = nd->dim[a] - i0 < SQUARE ? nd->dim[a] - i0 : SQUARE;
		int64_t nj = nd->dim[b] - j0 < SQUARE ? nd->dim[b] - j0 : SQUARE;
		offsets(nd, a, u / (na * nb), &d, &s);
		d += i0 * nd->dst[a] + j0 * nd->dst[b];
		s += i0 * nd->src[a] + j0 * nd->src[b];
		if (nd->src[a] == 1 && nd->dst[b] == 1) {
			turn(dst + d * size, nd->dst[a], src + s * size, nd->src[b], ni, nj, size);
			continue;
		}
		for (int64_t i = 0; i < ni; i++)
			line(dst + (d + i * nd->dst[a]) * size, nd->dst[b], src + (s + i * nd->src[a]) * size,
				nd->src[b], nj, size);
	}
}

void cx_nd_copy(const cx_nd *nd, uint32_t size, char *dst, const char *src, const cx_cpu_team *t)
{
	int32_t last = nd->rank - 1;
	int64_t rows = 1, lo, hi, d, s;
	if (nd->rank == 0) {
		if (t->rank == 0) memcpy(dst, src, size);
		return;
	}
	if (nd->rank >= 2 && nd->src[last] != 1 && nd->src[last] != 0)
		for (int32_t k = 0; k < last; k++) {
			cx_nd sq = *nd;
			if (nd->src[k] != 1 || nd->dim[k] < 4) continue;
			for (int32_t i = k; i < last - 1; i++) { /* axis k to the place before the last */
				sq.dim[i] = nd->dim[i + 1];
				sq.dst[i] = nd->dst[i + 1];
				sq.src[i] = nd->src[i + 1];
			}
			sq.dim[last - 1] = nd->dim[k];
			sq.dst[last - 1] = nd->dst[k];
			sq.src[last - 1] = nd->src[k];
			squares(&sq, size, dst, src, t);
			return;
		}
	if (nd->rank == 1) { /* one line: cut it */
		cx_cpu_share(t, nd->dim[0], 1024, &lo, &hi);
		if (lo < hi)
			line(dst + lo * nd->dst[0] * size, nd->dst[0], src + lo * nd->src[0] * size, nd->src[0],
				hi - lo, size);
		return;
	}
	for (int32_t i = 0; i < last; i++) rows *= nd->dim[i];
	cx_cpu_share(t, rows, 1, &lo, &hi);
	for (int64_t r = lo; r < hi; r++) {
		offsets(nd, last, r, &d, &s);
		line(dst + d * size, nd->dst[last], src + s * size, nd->src[last], nd->dim[last], size);
	}
}
