/* linear.c - fits, plans and runs a linear decoder. See linear.h. */
#include "models/decoder/linear.h"

#include <string.h>

struct cx_linear_decoder {
	const cx_session *s;
	cx_linear_method method;
	size_t first, t;
	cx_wiener wiener;
	cx_kalman kalman;
	cx_graph *graph;
	cx_plan *plan;
	cx_store *store;
	cx_exec *exec;
	int in, in_step, out;
	float *x; /* the window or the bin's counts */
	size_t x_bytes;
	cx_alloc alloc;
};

static cx_status fit(cx_linear_decoder *d, const cx_linear_opts *o, cx_err *err)
{
	size_t history = o->history ? o->history : 10;
	cx_status st;
	if (o->method == CX_LINEAR_WIENER) {
		if ((st = cx_wiener_fit(d->s, o->n_train, history, o->ridge, &d->wiener, err)) != CX_OK)
			return st;
		d->x_bytes = d->wiener.n_features * sizeof *d->x;
	} else {
		if ((st = cx_kalman_fit(d->s, o->n_train, &d->kalman, err)) != CX_OK) return st;
		d->x_bytes = d->s->n_units * sizeof *d->x;
	}
	d->x = cx_malloc(&d->alloc, d->x_bytes);
	return d->x ? CX_OK : CX_FAIL(err, CX_ERR_MEMORY, "decoder: out of memory");
}

static cx_status prepare(cx_linear_decoder *d, cx_runtime *rt, cx_device *dev, cx_err *err)
{
	cx_plan_opts opts = {.devices = &dev, .n_devices = 1};
	bool wiener = d->method == CX_LINEAR_WIENER;
	cx_status st;
	if ((st = cx_graph_create(&d->alloc, &d->graph, err)) != CX_OK) return st;
	if (wiener) cx_wiener_build(d->graph, &d->wiener, 1);
	else cx_kalman_build(d->graph, &d->kalman);
	if ((st = cx_graph_finish(d->graph, err)) != CX_OK) return st;
	if ((st = cx_plan_build(d->graph, &opts, &d->plan, err)) != CX_OK) return st;
	if ((st = cx_store_create(rt, &d->store, err)) != CX_OK) return st;
	st = wiener ? cx_wiener_store(&d->wiener, d->store, err)
				: cx_kalman_store(&d->kalman, d->store, err);
	if (st != CX_OK || (st = cx_exec_create(d->plan, d->store, &d->exec, err)) != CX_OK) return st;
	d->in = cx_exec_input(d->exec, wiener ? "x" : "z");
	d->in_step = wiener ? -1 : cx_exec_input(d->exec, "step");
	d->out = cx_exec_output(d->exec, "y");
	if (wiener) return CX_OK;
	return cx_store_state_write(
		d->store, "kalman.x", d->kalman.x0, d->kalman.n_state * sizeof(float), err);
}

cx_status cx_linear_open(const cx_session *s, const cx_linear_opts *opts, cx_runtime *rt,
	cx_device *dev, cx_linear_decoder **out, cx_err *err)
{
	cx_linear_decoder *d = cx_calloc(&s->alloc, 1, sizeof *d);
	cx_status st;
	*out = NULL;
	if (!d) return CX_FAIL(err, CX_ERR_MEMORY, "decoder: out of memory");
	d->s = s;
	d->alloc = s->alloc;
	d->method = opts->method;
	d->first = d->t = opts->n_train;
	if ((st = fit(d, opts, err)) == CX_OK && (st = prepare(d, rt, dev, err)) == CX_OK) {
		*out = d;
		return CX_OK;
	}
	cx_linear_close(d);
	return st;
}

void cx_linear_close(cx_linear_decoder *d)
{
	cx_alloc alloc;
	if (!d) return;
	alloc = d->alloc;
	cx_exec_free(d->exec);
	cx_store_free(d->store);
	cx_plan_free(d->plan);
	cx_graph_free(d->graph);
	cx_wiener_deinit(&d->wiener);
	cx_kalman_deinit(&d->kalman);
	cx_free(&alloc, d->x, d->x_bytes);
	cx_free(&alloc, d, sizeof *d);
}

cx_status cx_linear_step(cx_linear_decoder *d, double *y, cx_err *err)
{
	float out[8]; /* n_kin <= 8 */
	cx_status st;
	if (d->t >= d->s->n_bins)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "decoder: bin %zu is past the recording's end", d->t);
	if (d->method == CX_LINEAR_WIENER) {
		cx_wiener_features(d->s, d->wiener.history, d->t, 1, d->x);
	} else {
		size_t done = d->t - d->first;
		int32_t step = (int32_t)(done < d->kalman.n_gain ? done : d->kalman.n_gain - 1);
		for (size_t u = 0; u < d->s->n_units; u++) d->x[u] = d->s->spikes[d->t * d->s->n_units + u];
		if ((st = cx_exec_set_input(d->exec, d->in_step, &step, sizeof step, err)) != CX_OK)
			return st;
	}
	if ((st = cx_exec_set_input(d->exec, d->in, d->x, d->x_bytes, err)) != CX_OK) return st;
	if ((st = cx_exec_run(d->exec, err)) != CX_OK) return st;
	if ((st = cx_exec_get_output(d->exec, d->out, out, d->s->n_kin * sizeof *out, err)) != CX_OK)
		return st;
	for (size_t c = 0; c < d->s->n_kin; c++) y[c] = out[c];
	d->t++;
	return CX_OK;
}

const cx_plan *cx_linear_plan(const cx_linear_decoder *d)
{
	return d->plan;
}
