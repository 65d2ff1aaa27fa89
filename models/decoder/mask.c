/* mask.c - see mask.h. */
#include "models/decoder/mask.h"

#include <math.h>

#include "graph/philox.h"

enum { MAX_DRAWS = 8 };

cx_mask_opts cx_mask_default(void)
{
	return (cx_mask_opts){.fraction = 0.15, .silent = 1};
}

/* The words of one window's generator, drawn in order. */
typedef struct draws {
	uint32_t key[2], id[2], n, word[4];
} draws;

static uint32_t next(draws *d)
{
	if (d->n % 4 == 0) {
		uint32_t at[4] = {
			d->n / 4, 0x6d61736b, d->id[0], d->id[1]}; /* "mask": a stream of its own */
		cx__philox(at, d->key, d->word);
	}
	return d->word[d->n++ % 4];
}

static int32_t below(draws *d, int32_t n)
{
	return (int32_t)((uint64_t)next(d) * (uint32_t)n >> 32);
}

static bool has_event(const cx_mask_batch *b, int32_t from, int32_t to, int32_t neuron, int32_t t)
{
	for (int32_t i = from; i < to; i++)
		if (b->neuron[i] == neuron && b->time[i] == t) return true;
	return false;
}

static cx_status check(
	const cx_mask_opts *o, const cx_mask_batch *b, const cx_mask_queries *q, cx_err *err)
{
	double need;
	if (!(o->fraction >= 0 && o->fraction <= 1))
		return CX_FAIL(
			err, CX_ERR_ARGUMENT, "masking: fraction is %g, must be in 0..1", o->fraction);
	if (!(o->silent >= 0 && o->silent <= 16))
		return CX_FAIL(err, CX_ERR_ARGUMENT, "masking: silent is %g, must be in 0..16", o->silent);
	if (o->n_time < 1 || (!b->first_neuron && o->n_neurons < 1))
		return CX_FAIL(err, CX_ERR_ARGUMENT, "masking: there are no cells to draw from");
	if (b->off[0] != 0)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "masking: off[0] is %d, must be 0", (int)b->off[0]);
	for (uint32_t i = 0; i < b->n_windows; i++)
		if (b->off[i + 1] < b->off[i])
			return CX_FAIL(err, CX_ERR_ARGUMENT, "masking: window %u ends before it begins", i);
	need = (1 + o->silent) * b->off[b->n_windows];
	if (q->cap < floor(need))
		return CX_FAIL(err, CX_ERR_ARGUMENT, "masking: room for %u queries, %.0f may be needed",
			q->cap, floor(need));
	return CX_OK;
}

/* Cells without events, for the k-th dropped event of the window. Events from `from` to `end` are
 * those of the window before anything was dropped. */
static void draw_silent(const cx_mask_opts *o, const cx_mask_batch *b, uint32_t w, uint32_t k,
	int32_t from, int32_t end, draws *d, cx_mask_queries *q, int32_t *n)
{
	int32_t first = b->first_neuron ? b->first_neuron[w] : 0;
	int32_t count = b->first_neuron ? b->window_neurons[w] : o->n_neurons;
	int64_t want = (int64_t)floor(k * o->silent) - (int64_t)floor((k - 1) * o->silent);
	for (; want > 0 && count > 0; want--) {
		for (int i = 0; i < MAX_DRAWS; i++) {
			int32_t neuron = first + below(d, count), t = below(d, o->n_time);
			if (has_event(b, from, end, neuron, t)) continue;
			q->neuron[*n] = neuron;
			q->time[*n] = t;
			q->target[(*n)++] = 0;
			break;
		}
	}
}

cx_status cx_mask_apply(const cx_mask_opts *o, cx_mask_batch *b, cx_mask_queries *q, cx_err *err)
{
	uint32_t limit = (uint32_t)fmin(o->fraction * 0x1p32, 0xffffffff);
	int32_t n = 0, kept = 0, from, end = 0;
	cx_status st = check(o, b, q, err);
	if (st != CX_OK) return st;
	for (uint32_t w = 0; w < b->n_windows; w++) {
		uint64_t id = b->id ? b->id[w] : w;
		draws d = {.key = {(uint32_t)o->seed, (uint32_t)(o->seed >> 32)},
			.id = {(uint32_t)id, (uint32_t)(id >> 32)}};
		draws coin = d;
		uint32_t k = 0;
		coin.key[1] ^= 0x80000000u; /* its own stream: dropping does not depend on silent cells */
		from = end;
		end = b->off[w + 1];
		q->off[w] = n;
		/* silent cells first: they look at the window's events while these are in place */
		for (int32_t i = from; i < end; i++)
			if (next(&coin) < limit) draw_silent(o, b, w, ++k, from, end, &d, q, &n);
		coin.n = 0;
		b->off[w] = kept;
		for (int32_t i = from; i < end; i++) {
			bool drop = next(&coin) < limit;
			int32_t to = drop ? n++ : kept++;
			(drop ? q->neuron : b->neuron)[to] = b->neuron[i];
			(drop ? q->time : b->time)[to] = b->time[i];
			(drop ? q->target : b->value)[to] = b->value[i];
		}
	}
	b->off[b->n_windows] = kept;
	q->off[b->n_windows] = n;
	return CX_OK;
}
