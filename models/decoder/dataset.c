/* dataset.c - collects sessions, cuts them into windows, hands out batches. See dataset.h. */
#include "models/decoder/dataset.h"
#include "models/decoder/events.h"
#include "models/decoder/protocol.h"

#include <math.h>
#include <string.h>

#define MIN_SD 1e-6

typedef struct part_session {
	cx_session s;
	cx_events events;
	cx_places places;
	uint32_t offset; /* number of the first unit */
} part_session;

typedef struct window {
	uint32_t session, place;
} window;

struct cx_dataset {
	cx_dataset_opts o;
	cx_alloc alloc;
	part_session *at;
	size_t n, cap;
	window *list[CX_PART_COUNT]; /* [info.n_windows[part]] */
	cx_dataset_info info;
	uint32_t column[CX_MAX_BEHAVIOR];
	bool finished;
};

cx_dataset_opts cx_dataset_default(void)
{
	return (cx_dataset_opts){
		.bin_seconds = 0.05, .window = 20, .stride = 1, .buckets = 8, .train = 0.7, .val = 0.1};
}

cx_dataset_opts cx_dataset_protocol(cx_protocol p)
{
	cx_dataset_opts o = cx_dataset_default();
	o.protocol = p;
	if (p == CX_PROTOCOL_TRIAL) { /* -100..+500 ms in bins of 5 ms */
		o.bin_seconds = 0.005;
		o.window = 120;
		o.ahead = 99;
	} else if (p == CX_PROTOCOL_NLB) {
		o.bin_seconds = 0.005;
		o.window = 120;
		o.lag_seconds = 0.08;
	}
	return o;
}

static cx_status check_opts(const cx_dataset_opts *o, cx_err *err)
{
	if (o->protocol >= CX_PROTOCOL_COUNT)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "dataset: there is no protocol %d", (int)o->protocol);
	if (o->window < 1 || o->window > 1024 || o->ahead >= o->window)
		return CX_FAIL(err, CX_ERR_ARGUMENT,
			"dataset: a window of %u bins with %u ahead; 1 to 1024 bins, and fewer ahead, are "
			"possible",
			o->window, o->ahead);
	if (o->stride < 1 || o->buckets < 2 || o->buckets > 256)
		return CX_FAIL(err, CX_ERR_ARGUMENT,
			"dataset: stride %u (at least 1), %u value buckets (2 to 256)", o->stride, o->buckets);
	if (!(o->train > 0 && o->val >= 0 && o->train + o->val < 1 + 1e-9))
		return CX_FAIL(err, CX_ERR_ARGUMENT,
			"dataset: fractions of %g train and %g val; train must be above 0 and the sum at most "
			"1",
			o->train, o->val);
	if (!(fabs(o->lag_seconds) <= 10))
		return CX_FAIL(err, CX_ERR_ARGUMENT, "dataset: a lag of %g s", o->lag_seconds);
	return CX_OK;
}

cx_status cx_dataset_create(
	const cx_dataset_opts *opts, const cx_alloc *alloc, cx_dataset **out, cx_err *err)
{
	cx_status st = check_opts(opts, err);
	*out = NULL;
	if (st != CX_OK) return st;
	*out = cx_calloc(alloc, 1, sizeof **out);
	if (!*out) return CX_FAIL(err, CX_ERR_MEMORY, "dataset: out of memory");
	(*out)->o = *opts;
	(*out)->alloc = alloc ? *alloc : cx_alloc_default();
	return CX_OK;
}

void cx_dataset_free(cx_dataset *d)
{
	cx_alloc alloc;
	if (!d) return;
	alloc = d->alloc;
	for (size_t i = 0; i < d->n; i++) {
		cx_session_deinit(&d->at[i].s);
		cx_events_deinit(&d->at[i].events);
		cx_places_deinit(&d->at[i].places);
	}
	for (int p = 0; p < CX_PART_COUNT; p++)
		cx_free(&alloc, d->list[p], d->info.n_windows[p] * sizeof *d->list[p]);
	cx_free(&alloc, d->at, d->cap * sizeof *d->at);
	cx_free(&alloc, d, sizeof *d);
}

/* Which columns are decoded, by the first session; the others must have the same. */
static cx_status columns(cx_dataset *d, const cx_session *s, cx_err *err)
{
	cx_dataset_info *info = &d->info;
	uint32_t n = 0, column[CX_MAX_BEHAVIOR], vel[CX_MAX_BEHAVIOR], n_vel = 0;
	for (uint32_t c = 0; c < s->n_kin; c++) {
		column[n++] = c;
		if (!strncmp(s->kin_name[c], "vel", 3)) vel[n_vel++] = c;
	}
	if (!d->o.all_columns && n_vel > 0) memcpy(column, vel, (n = n_vel) * sizeof *vel);
	if (d->n == 0) {
		info->behavior_dim = n;
		info->bin_seconds = s->bin_seconds;
		memcpy(d->column, column, n * sizeof *column);
		for (uint32_t c = 0; c < n; c++)
			memcpy(info->name[c], s->kin_name[column[c]], sizeof info->name[c]);
		return CX_OK;
	}
	if (n != info->behavior_dim || memcmp(column, d->column, n * sizeof *column) != 0)
		return CX_FAIL(err, CX_ERR_SHAPE,
			"session %zu has %u columns of movement to decode, the first one %u", d->n + 1, n,
			info->behavior_dim);
	if (fabs(s->bin_seconds - info->bin_seconds) > 1e-9)
		return CX_FAIL(err, CX_ERR_SHAPE, "session %zu has bins of %g s, the first one %g s",
			d->n + 1, s->bin_seconds, info->bin_seconds);
	return CX_OK;
}

static cx_status add(cx_dataset *d, cx_session *s, const cx_recording *r, cx_err *err)
{
	part_session *p;
	uint32_t limit = d->o.max_neurons;
	cx_status st;
	if (d->finished) return CX_FAIL(err, CX_ERR_ARGUMENT, "dataset: it is finished already");
	if (d->n == d->cap) {
		size_t cap = d->cap ? 2 * d->cap : 4;
		p = cx_realloc(&d->alloc, d->at, d->cap * sizeof *p, cap * sizeof *p);
		if (!p) return CX_FAIL(err, CX_ERR_MEMORY, "dataset: out of memory");
		d->at = p;
		d->cap = cap;
	}
	if ((st = columns(d, s, err)) != CX_OK) return st;
	if (limit && d->info.n_units + s->n_units > limit)
		return CX_FAIL(err, CX_ERR_ARGUMENT,
			"session %zu: unit %zu would be neuron %zu, which exceeds max_neurons = %u", d->n + 1,
			s->n_units - 1, d->info.n_units + s->n_units - 1, limit);
	p = &d->at[d->n];
	memset(p, 0, sizeof *p);
	st = cx_events_init(&p->events, &d->alloc, s->spikes, s->n_bins, s->n_units, err);
	if (st == CX_OK)
		st = cx_protocol_cut(&d->o, s, r, d->column, d->info.behavior_dim, &p->places, err);
	if (st != CX_OK) {
		cx_events_deinit(&p->events);
		return st;
	}
	p->offset = d->info.n_units;
	p->s = *s;
	memset(s, 0, sizeof *s);
	d->info.n_units += (uint32_t)p->s.n_units;
	d->info.dropped_kin += p->places.dropped_kin;
	d->info.dropped_obs += p->places.dropped_obs;
	d->info.dropped_edge += p->places.dropped_edge;
	d->info.dropped_gap += p->places.dropped_gap;
	d->n++;
	return CX_OK;
}

cx_status cx_dataset_add_session(cx_dataset *d, cx_session *s, cx_err *err)
{
	cx_status st = add(d, s, NULL, err);
	cx_session_deinit(s);
	return st;
}

cx_status cx_dataset_add_recording(cx_dataset *d, const cx_recording *r, cx_err *err)
{
	cx_session s;
	cx_status st = cx_session_bin(r, d->o.bin_seconds, d->o.heldout, &d->alloc, &s, err);
	if (st != CX_OK) return st;
	st = add(d, &s, r, err);
	cx_session_deinit(&s);
	return st;
}

/* Events of a window are one run of the session's list. */
static void run_of(const cx_dataset *d, const window *w, uint32_t *first, uint32_t *end)
{
	const part_session *p = &d->at[w->session];
	int64_t a = p->places.at[w->place].bin - (int64_t)(d->o.window - 1 - d->o.ahead);
	*end = p->events.start[a + d->o.window];
	*first = p->events.start[a < 0 ? 0 : a];
}

static cx_status list_windows(cx_dataset *d, cx_err *err)
{
	uint32_t n[CX_PART_COUNT] = {0};
	for (size_t i = 0; i < d->n; i++)
		for (size_t k = 0; k < d->at[i].places.n; k++) n[d->at[i].places.at[k].part]++;
	if (n[CX_PART_TRAIN] == 0)
		return CX_FAIL(err, CX_ERR_ARGUMENT,
			"dataset: no window to train on (%u dropped without movement, %u unobserved, %u past "
			"an "
			"edge, %u between the parts)",
			d->info.dropped_kin, d->info.dropped_obs, d->info.dropped_edge, d->info.dropped_gap);
	for (int p = 0; p < CX_PART_COUNT; p++) {
		d->list[p] = cx_calloc(&d->alloc, n[p], sizeof *d->list[p]);
		if (n[p] && !d->list[p]) return CX_FAIL(err, CX_ERR_MEMORY, "dataset: out of memory");
		d->info.n_windows[p] = n[p];
		n[p] = 0;
	}
	for (size_t i = 0; i < d->n; i++)
		for (size_t k = 0; k < d->at[i].places.n; k++) {
			uint32_t p = d->at[i].places.at[k].part, a, b;
			window w = {(uint32_t)i, (uint32_t)k};
			d->list[p][n[p]++] = w;
			run_of(d, &w, &a, &b);
			if (b - a > d->info.max_events[p]) d->info.max_events[p] = b - a;
		}
	return CX_OK;
}

/* Mean and deviation of the train targets, and of nothing else. */
static void scale(cx_dataset *d)
{
	uint32_t n = d->info.n_windows[CX_PART_TRAIN];
	for (uint32_t c = 0; c < d->info.behavior_dim; c++) {
		double sum = 0, square = 0, mean;
		for (uint32_t i = 0; i < n; i++) {
			const window *w = &d->list[CX_PART_TRAIN][i];
			sum += d->at[w->session].places.at[w->place].y[c];
		}
		mean = sum / n;
		for (uint32_t i = 0; i < n; i++) {
			const window *w = &d->list[CX_PART_TRAIN][i];
			double e = d->at[w->session].places.at[w->place].y[c] - mean;
			square += e * e;
		}
		d->info.mean[c] = mean;
		d->info.sd[c] = fmax(sqrt(square / n), MIN_SD);
	}
}

cx_status cx_dataset_finish(cx_dataset *d, cx_err *err)
{
	cx_status st;
	if (d->finished) return CX_FAIL(err, CX_ERR_ARGUMENT, "dataset: it is finished already");
	if (d->n == 0) return CX_FAIL(err, CX_ERR_ARGUMENT, "dataset: there is no session in it");
	d->info.n_sessions = (uint32_t)d->n;
	d->info.window = d->o.window;
	d->info.ahead = d->o.ahead;
	d->info.buckets = d->o.buckets;
	if ((st = list_windows(d, err)) != CX_OK) return st;
	scale(d);
	d->finished = true;
	return CX_OK;
}

const cx_dataset_info *cx_dataset_get_info(const cx_dataset *d)
{
	return &d->info;
}

cx_status cx_dataset_set_scale(
	cx_dataset *d, const double *mean, const double *sd, uint32_t n, cx_err *err)
{
	if (n != d->info.behavior_dim)
		return CX_FAIL(
			err, CX_ERR_SHAPE, "dataset: a scale of %u columns for %u", n, d->info.behavior_dim);
	for (uint32_t c = 0; c < n; c++)
		if (!isfinite(mean[c]) || !(sd[c] >= MIN_SD && sd[c] < 1e30))
			return CX_FAIL(err, CX_ERR_ARGUMENT, "dataset: column %u: mean %g, deviation %g", c,
				mean[c], sd[c]);
	memcpy(d->info.mean, mean, n * sizeof *mean);
	memcpy(d->info.sd, sd, n * sizeof *sd);
	return CX_OK;
}

const cx_session *cx_dataset_session(const cx_dataset *d, uint32_t i, uint32_t *offset)
{
	CX_ASSERT(i < d->n);
	if (offset) *offset = d->at[i].offset;
	return &d->at[i].s;
}

/* ---- batches ---- */

/* SplitMix64 (Steele, Lea, Flood 2014). */
static uint64_t next(uint64_t *s)
{
	uint64_t z = (*s += 0x9e3779b97f4a7c15u);
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

void cx_dataset_order(
	const cx_dataset *d, cx_part part, uint64_t seed, uint64_t epoch, uint32_t *order)
{
	uint32_t n = d->info.n_windows[part];
	uint64_t s = seed;
	s = next(&s) ^ (epoch * 0xd1342543de82ef95u); /* streams of two epochs share no start */
	for (uint32_t i = 0; i < n; i++) order[i] = i;
	for (uint32_t i = n; i > 1;
		 i--) { /* Fisher and Yates; the bias of the product is below 2^-32 */
		uint32_t j = (uint32_t)(((next(&s) >> 32) * i) >> 32), t = order[i - 1];
		order[i - 1] = order[j];
		order[j] = t;
	}
}

static cx_status check_which(
	const cx_dataset *d, cx_part part, const uint32_t *which, uint32_t n, cx_err *err)
{
	for (uint32_t i = 0; i < n; i++)
		if (which[i] >= d->info.n_windows[part])
			return CX_FAIL(err, CX_ERR_ARGUMENT, "dataset: window %u of %u", which[i],
				d->info.n_windows[part]);
	return CX_OK;
}

static void targets(const cx_dataset *d, const window *w, float *y)
{
	const cx_place *p = &d->at[w->session].places.at[w->place];
	for (uint32_t c = 0; c < d->info.behavior_dim; c++)
		y[c] = (float)((p->y[c] - d->info.mean[c]) / d->info.sd[c]);
}

cx_status cx_dataset_fill(const cx_dataset *d, cx_part part, const uint32_t *which, uint32_t n,
	cx_batch *out, uint32_t *n_events, cx_err *err)
{
	uint64_t total = 0;
	uint32_t e = 0, a, b;
	cx_status st = check_which(d, part, which, n, err);
	if (st != CX_OK) return st;
	for (uint32_t i = 0; i < n; i++) {
		run_of(d, &d->list[part][which[i]], &a, &b);
		total += b - a;
	}
	if (n_events) *n_events = total > UINT32_MAX ? UINT32_MAX : (uint32_t)total;
	if (total > out->cap_events)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "dataset: %llu events in a batch with room for %u",
			(unsigned long long)total, out->cap_events);
	out->off[0] = 0;
	for (uint32_t i = 0; i < n; i++) {
		const window *w = &d->list[part][which[i]];
		const part_session *p = &d->at[w->session];
		int64_t first = p->places.at[w->place].bin - (int64_t)(d->o.window - 1 - d->o.ahead);
		for (uint32_t t = first < 0 ? (uint32_t)-first : 0; t < d->o.window; t++) {
			size_t row = (size_t)(first + t);
			for (uint32_t k = p->events.start[row]; k < p->events.start[row + 1]; k++, e++) {
				out->neuron[e] = (int32_t)(p->offset + p->events.unit[k]);
				out->time[e] = (int32_t)t;
				out->value[e] = (int32_t)cx_bucket(p->events.count[k], d->o.buckets);
			}
		}
		out->off[i + 1] = (int32_t)e;
		targets(d, w, out->target + (size_t)i * d->info.behavior_dim);
	}
	return CX_OK;
}

cx_status cx_dataset_dense(const cx_dataset *d, cx_part part, const uint32_t *which, uint32_t n,
	float *x, float *target, cx_err *err)
{
	size_t units = d->info.n_units, len = d->o.window * units;
	cx_status st = check_which(d, part, which, n, err);
	if (st != CX_OK) return st;
	for (uint32_t i = 0; i < n; i++) {
		const window *w = &d->list[part][which[i]];
		const part_session *p = &d->at[w->session];
		int64_t first = p->places.at[w->place].bin - (int64_t)(d->o.window - 1 - d->o.ahead);
		if (target) targets(d, w, target + (size_t)i * d->info.behavior_dim);
		if (!x) continue;
		memset(x + i * len, 0, len * sizeof *x);
		for (uint32_t t = first < 0 ? (uint32_t)-first : 0; t < d->o.window; t++) {
			size_t row = (size_t)(first + t);
			float *to = x + i * len + t * units + p->offset;
			for (uint32_t k = p->events.start[row]; k < p->events.start[row + 1]; k++)
				to[p->events.unit[k]] = p->events.count[k];
		}
	}
	return CX_OK;
}

void cx_dataset_place(
	const cx_dataset *d, cx_part part, uint32_t i, uint32_t *session, uint32_t *bin)
{
	const window *w;
	CX_ASSERT(i < d->info.n_windows[part]);
	w = &d->list[part][i];
	*session = w->session;
	*bin = (uint32_t)d->at[w->session].places.at[w->place].bin;
}

void cx_dataset_truth(const cx_dataset *d, cx_part part, uint32_t i, double *y)
{
	const window *w;
	CX_ASSERT(i < d->info.n_windows[part]);
	w = &d->list[part][i];
	memcpy(y, d->at[w->session].places.at[w->place].y, d->info.behavior_dim * sizeof *y);
}

void cx_dataset_bayes(const cx_dataset *d, cx_part part, uint32_t i, double *y)
{
	uint32_t session, bin;
	const cx_session *s;
	cx_dataset_place(d, part, i, &session, &bin);
	s = &d->at[session].s;
	for (uint32_t c = 0; c < d->info.behavior_dim; c++)
		y[c] = s->bayes && d->o.protocol == CX_PROTOCOL_CONTINUOUS
				   ? s->bayes[(size_t)bin * s->n_kin + d->column[c]]
				   : NAN;
}
