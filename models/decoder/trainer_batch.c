/* trainer_batch.c - the windows of a micro-batch: which, what of them is masked, what is dropped.
 *
 * In: the number of the micro-batch in the run. Out: cx_train_batch, ready for a graph's inputs.
 *
 * Masking comes before dropping, so that "silent" means silent in the recording; a query may then
 * ask for a unit that the window does not see. Every draw is a function of seed and window
   * (Philox). */
#include <math.h>
#include <string.h>

#include "graph/philox.h"
#include "models/decoder/mask.h"
#include "models/decoder/trainer.h"

enum { TAG_UNITS = 0x756e6974, TAG_EVENTS = 0x64726f70 };

static cx_status no_memory(cx_err *err)
{
	return CX_FAIL(err, CX_ERR_MEMORY, "training: out of memory");
}

static bool masks(const cx_net_config *net, const cx_train_opts *o)
{
	return net->kind == CX_NET_CORTEX && net->cortex.use_masked_spike_head && o->mask_weight > 0 &&
		   o->mask_fraction > 0 && o->mask_queries > 0;
}

cx_status cx__train_batch_init(cx_train_batch *t, const cx_net_config *net, const cx_train_opts *o,
	const cx_dataset *data, const cx_alloc *alloc, cx_err *err)
{
	const cx_dataset_info *i = cx_dataset_get_info(data);
	uint64_t events = (uint64_t)o->batch * i->max_events[CX_PART_TRAIN];
	size_t n = (size_t)o->batch, cells = (size_t)i->window * i->n_units;
	cx_arena *a = &t->arena;
	cx_arena_init(a, alloc);
	t->n = (uint32_t)n;
	t->epoch = UINT64_MAX;
	if (events > INT32_MAX / 4)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "training: a batch of %lld windows has %llu events",
			(long long)o->batch, (unsigned long long)events);
	t->cap_events = t->b.cap_events = (uint32_t)events;
	t->room = masks(net, o) ? (uint32_t)(o->batch * o->mask_queries) : 0;
	t->cap_queries = t->room ? (uint32_t)(2 * events) + t->room : 0; /* one silent cell per event */
	t->order = cx_arena_array(a, i->n_windows[CX_PART_TRAIN], sizeof *t->order);
	t->which = cx_arena_array(a, n, sizeof *t->which);
	t->id = cx_arena_array(a, n, sizeof *t->id);
	t->first_unit = cx_arena_array(a, n, sizeof *t->first_unit);
	t->n_units = cx_arena_array(a, n, sizeof *t->n_units);
	t->weight = cx_arena_array(a, n, sizeof *t->weight);
	t->b.off = cx_arena_array(a, n + 1, sizeof *t->b.off);
	t->b.target = cx_arena_array(a, n * i->behavior_dim, sizeof *t->b.target);
	t->b.neuron = cx_arena_array(a, events + 1, sizeof *t->b.neuron);
	t->b.time = cx_arena_array(a, events + 1, sizeof *t->b.time);
	t->b.value = cx_arena_array(a, events + 1, sizeof *t->b.value);
	t->q_off = cx_arena_array(a, n + 1, sizeof *t->q_off);
	t->q_neuron = cx_arena_array(a, t->cap_queries + 1, sizeof *t->q_neuron);
	t->q_time = cx_arena_array(a, t->cap_queries + 1, sizeof *t->q_time);
	t->q_target = cx_arena_array(a, t->cap_queries + 1, sizeof *t->q_target);
	if (!t->order || !t->which || !t->id || !t->first_unit || !t->n_units || !t->weight ||
		!t->b.off || !t->b.target || !t->b.neuron || !t->b.time || !t->b.value || !t->q_off ||
		!t->q_neuron || !t->q_time || !t->q_target)
		return no_memory(err);
	for (size_t k = 0; k < n; k++) t->weight[k] = 1;
	if (net->kind == CX_NET_CORTEX) return CX_OK;
	t->counts = cx_arena_array(a, n * cells, sizeof *t->counts);
	t->turned = cx_arena_array(a, n * cells, sizeof *t->turned);
	return t->counts && t->turned ? CX_OK : no_memory(err);
}

void cx__train_batch_deinit(cx_train_batch *t)
{
	cx_arena_deinit(&t->arena);
}

/* ---- draws ---- */

/* True with probability limit / 2^32, for number i of stream `tag` of window id. */
static bool drawn(uint64_t seed, uint64_t id, uint32_t tag, uint32_t i, uint32_t limit)
{
	uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)}, w[4];
	uint32_t at[4] = {i / 4, tag, (uint32_t)id, (uint32_t)(id >> 32)};
	cx__philox(at, key, w);
	return w[i % 4] < limit;
}

static uint32_t limit_of(double share)
{
	return (uint32_t)fmin(share * 0x1p32, 0xffffffff);
}

/* Takes events from each window in place. */
static void drop_events(cx_train_batch *t, const cx_train_opts *o)
{
	uint32_t units = limit_of(o->drop_units), events = limit_of(o->drop_events);
	int32_t kept = 0, end = 0;
	if (!units && !events) return;
	for (uint32_t w = 0; w < t->n; w++) {
		int32_t from = end;
		end = t->b.off[w + 1];
		t->b.off[w] = kept;
		for (int32_t i = from; i < end; i++) {
			uint32_t unit = (uint32_t)t->b.neuron[i], k = (uint32_t)(i - from);
			if (units && drawn(o->seed, t->id[w], TAG_UNITS, unit, units)) continue;
			if (events && drawn(o->seed, t->id[w], TAG_EVENTS, k, events)) continue;
			t->b.neuron[kept] = t->b.neuron[i];
			t->b.time[kept] = t->b.time[i];
			t->b.value[kept++] = t->b.value[i];
		}
	}
	t->b.off[t->n] = kept;
}

/* Of each window's queries at most mask_queries, evenly spread over those there are. */
static void thin_queries(cx_train_batch *t, const cx_train_opts *o)
{
	int64_t most = o->mask_queries;
	int32_t to = 0, end = 0;
	for (uint32_t w = 0; w < t->n; w++) {
		int32_t from = end, n;
		end = t->q_off[w + 1];
		n = end - from;
		t->q_off[w] = to;
		for (int64_t k = 0; k < (n < most ? n : most); k++, to++) {
			int32_t i = from + (int32_t)(n <= most ? k : k * n / most);
			t->q_neuron[to] = t->q_neuron[i];
			t->q_time[to] = t->q_time[i];
			t->q_target[to] = t->q_target[i];
		}
	}
	t->q_off[t->n] = to;
	t->n_queries = (uint32_t)to;
	for (uint32_t i = t->n_queries; i < t->room; i++) {
		t->q_neuron[i] = t->q_time[i] = -1;
		t->q_target[i] = -100;
	}
}

static cx_status mask(
	cx_train_batch *t, const cx_train_opts *o, const cx_dataset_info *info, cx_err *err)
{
	cx_mask_opts m = cx_mask_default();
	cx_mask_batch b = {.n_windows = t->n,
		.off = t->b.off,
		.neuron = t->b.neuron,
		.time = t->b.time,
		.value = t->b.value,
		.id = t->id,
		.first_neuron = t->first_unit,
		.window_neurons = t->n_units};
	cx_mask_queries q = {.cap = t->cap_queries,
		.off = t->q_off,
		.neuron = t->q_neuron,
		.time = t->q_time,
		.target = t->q_target};
	cx_status st;
	m.fraction = o->mask_fraction;
	m.n_time = (int32_t)info->window;
	m.n_neurons = (int32_t)info->n_units;
	m.seed = o->seed;
	if ((st = cx_mask_apply(&m, &b, &q, err)) == CX_OK) thin_queries(t, o);
	return st;
}

/* ---- dense ---- */

/* What is kept is scaled up, as dropout does. */
static void drop_counts(cx_train_batch *t, const cx_train_opts *o, size_t window, size_t units)
{
	uint32_t lose_unit = limit_of(o->drop_units), lose = limit_of(o->drop_events);
	float scale = (float)(1 / ((1 - o->drop_units) * (1 - o->drop_events)));
	if (!lose_unit && !lose) return;
	for (uint32_t w = 0; w < t->n; w++)
		for (size_t u = 0; u < units; u++) {
			bool gone = lose_unit && drawn(o->seed, t->id[w], TAG_UNITS, (uint32_t)u, lose_unit);
			for (size_t i = 0; i < window; i++) {
				float *x = &t->counts[((size_t)w * window + i) * units + u];
				if (gone) *x = 0;
				else if (*x != 0)
					*x = lose && drawn(
									 o->seed, t->id[w], TAG_EVENTS, (uint32_t)(i * units + u), lose)
							 ? 0
							 : *x * scale;
			}
		}
}

static cx_status fill_dense(cx_train_batch *t, const cx_net_config *net, const cx_train_opts *o,
	const cx_dataset *data, cx_err *err)
{
	const cx_dataset_info *i = cx_dataset_get_info(data);
	size_t window = i->window, units = i->n_units;
	cx_status st =
		cx_dataset_dense(data, CX_PART_TRAIN, t->which, t->n, t->counts, t->b.target, err);
	if (st != CX_OK) return st;
	drop_counts(t, o, window, units);
	for (size_t w = 0; net->kind == CX_NET_GRU && w < t->n; w++)
		for (size_t k = 0; k < window; k++)
			memcpy(t->turned + (k * t->n + w) * units, t->counts + (w * window + k) * units,
				units * sizeof *t->counts);
	return CX_OK;
}

/* ---- the whole ---- */

cx_status cx__train_batch_fill(cx_train_batch *t, const cx_net_config *net, const cx_train_opts *o,
	const cx_dataset *data, uint64_t index, cx_err *err)
{
	const cx_dataset_info *i = cx_dataset_get_info(data);
	uint64_t per_epoch = i->n_windows[CX_PART_TRAIN] / t->n, epoch = index / per_epoch;
	uint64_t first = index % per_epoch * t->n;
	cx_status st;
	if (epoch != t->epoch) cx_dataset_order(data, CX_PART_TRAIN, o->seed, epoch, t->order);
	t->epoch = epoch;
	for (uint32_t w = 0; w < t->n; w++) {
		uint32_t session, bin, offset;
		t->which[w] = t->order[first + w];
		t->id[w] = index * t->n + w;
		cx_dataset_place(data, CX_PART_TRAIN, t->which[w], &session, &bin);
		t->n_units[w] = (int32_t)cx_dataset_session(data, session, &offset)->n_units;
		t->first_unit[w] = (int32_t)offset;
	}
	if (net->kind != CX_NET_CORTEX) return fill_dense(t, net, o, data, err);
	st = cx_dataset_fill(data, CX_PART_TRAIN, t->which, t->n, &t->b, NULL, err);
	if (st == CX_OK && t->room) st = mask(t, o, i, err);
	if (st != CX_OK) return st;
	drop_events(t, o);
	t->n_events = (uint32_t)t->b.off[t->n];
	return CX_OK;
}
