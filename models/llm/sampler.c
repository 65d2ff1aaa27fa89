/* sampler.c - temperature, min-p, top-k, top-p, draw. See sampler.h. */
#include "models/llm/sampler.h"
#include "graph/philox.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct cx_candidate {
	float logit;
	int32_t id;
} cx_candidate;

cx_status cx_sampler_init(cx_sampler *s, const cx_sampler_opts *opts, uint32_t n_vocab,
	const cx_alloc *alloc, cx_err *err)
{
	memset(s, 0, sizeof *s);
	if (!(opts->temperature >= 0 && opts->temperature <= 100))
		return CX_FAIL(
			err, CX_ERR_ARGUMENT, "temperature %g is not in 0..100", (double)opts->temperature);
	if (opts->top_k < 0)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "top_k %d is negative", (int)opts->top_k);
	if (!(opts->top_p > 0 && opts->top_p <= 1))
		return CX_FAIL(err, CX_ERR_ARGUMENT, "top_p %g is not in (0, 1]", (double)opts->top_p);
	if (!(opts->min_p >= 0 && opts->min_p <= 1))
		return CX_FAIL(err, CX_ERR_ARGUMENT, "min_p %g is not in [0, 1]", (double)opts->min_p);
	if (n_vocab < 1) return CX_FAIL(err, CX_ERR_ARGUMENT, "sampler: the vocabulary is empty");
	s->opts = *opts;
	s->n_vocab = n_vocab;
	s->alloc = alloc ? *alloc : cx_alloc_default();
	s->work = cx_calloc(&s->alloc, n_vocab, sizeof *s->work);
	return s->work ? CX_OK : CX_FAIL(err, CX_ERR_MEMORY, "sampler: out of memory");
}

void cx_sampler_deinit(cx_sampler *s)
{
	cx_free(&s->alloc, s->work, s->n_vocab * sizeof *s->work);
	memset(s, 0, sizeof *s);
}

/* Descending logit, then ascending id. */
static int by_logit(const void *a, const void *b)
{
	const cx_candidate *x = a, *y = b;
	if (x->logit != y->logit) return x->logit < y->logit ? 1 : -1;
	return (x->id > y->id) - (x->id < y->id);
}

/* Keeps the k best of n, in any order: a heap whose root is the worst kept. */
static void sift(cx_candidate *c, size_t n, size_t i)
{
	for (;;) {
		size_t child = 2 * i + 1;
		cx_candidate t;
		if (child >= n) return;
		if (child + 1 < n && by_logit(&c[child + 1], &c[child]) > 0) child++;
		if (by_logit(&c[child], &c[i]) <= 0) return;
		t = c[i];
		c[i] = c[child];
		c[child] = t;
		i = child;
	}
}

static size_t keep_top_k(cx_candidate *c, size_t n, size_t k)
{
	if (k == 0 || k >= n) return n;
	for (size_t i = k / 2; i-- > 0;) sift(c, k, i);
	for (size_t i = k; i < n; i++)
		if (by_logit(&c[i], &c[0]) < 0) {
			c[0] = c[i];
			sift(c, k, 0);
		}
	return k;
}

/* Shortest prefix of the sorted candidates whose probability reaches top_p. */
static size_t keep_top_p(const cx_candidate *c, size_t n, double top_p)
{
	double total = 0, sum = 0;
	if (top_p >= 1) return n;
	for (size_t i = 0; i < n; i++) total += exp((double)c[i].logit - c[0].logit);
	for (size_t i = 0; i < n; i++) {
		sum += exp((double)c[i].logit - c[0].logit);
		if (sum >= top_p * total) return i + 1;
	}
	return n;
}

static int32_t draw(const cx_candidate *c, size_t n, uint64_t seed, uint64_t position)
{
	uint32_t counter[4] = {(uint32_t)position, (uint32_t)(position >> 32), 0, 0};
	uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)}, word[4];
	double total = 0, sum = 0, u;
	cx__philox(counter, key, word);
	u = (double)(((uint64_t)word[0] << 21) ^ (word[1] >> 11)) * 0x1p-53;
	for (size_t i = 0; i < n; i++) total += exp((double)c[i].logit - c[0].logit);
	for (size_t i = 0; i < n; i++) {
		sum += exp((double)c[i].logit - c[0].logit);
		if (sum > u * total) return c[i].id;
	}
	return c[n - 1].id;
}

cx_status cx_sampler_next(cx_sampler *s, const float *logits, uint32_t n_allowed, uint64_t position,
	int32_t *id, cx_err *err)
{
	size_t n = n_allowed < s->n_vocab ? n_allowed : s->n_vocab, kept = 0;
	int32_t best = 0;
	if (n == 0) return CX_FAIL(err, CX_ERR_ARGUMENT, "sampler: no token is allowed");
	for (size_t i = 0; i < n; i++) {
		if (isnan(logits[i]))
			return CX_FAIL(err, CX_ERR_DEVICE, "the model gave NaN as the logit of token %zu", i);
		if (logits[i] > logits[best]) best = (int32_t)i;
	}
	*id = best;
	if (s->opts.temperature < 1e-5f) return CX_OK;
	if (isinf(logits[best]))
		return CX_OK; /* +inf: certain; -inf: all are, and the lowest id wins */
	for (size_t i = 0; i < n; i++) {
		float l = (logits[i] - logits[best]) / s->opts.temperature;
		if (s->opts.min_p > 0 && !(l >= logf(s->opts.min_p))) continue;
		s->work[kept++] = (cx_candidate){l, (int32_t)i};
	}
	kept = keep_top_k(s->work, kept, (size_t)s->opts.top_k);
	qsort(s->work, kept, sizeof *s->work, by_logit);
	kept = keep_top_p(s->work, kept, s->opts.top_p);
	*id = draw(s->work, kept, s->opts.seed, position);
	return CX_OK;
}
