/* kalman.c - fits the Kalman decoder and builds its graph. See kalman.h. */
#include "models/decoder/kalman.h"
#include "models/decoder/linalg.h"

#include <math.h>
#include <string.h>

enum { MAX_STATE = 8, MAX_GAIN = 512 };

/* Everything the fit needs in double; d <= MAX_STATE states, u units, n bins. One block of memory.
 */
typedef struct fit_work {
	size_t d, u, n;
	double *block;
	size_t bytes;
	double *x, *z;      /* [n,d], [n,u] centred */
	double *c, *q;      /* [u,d], [u,u] */
	double *s, *g, *ct; /* [u,u] innovation covariance, [u,d], [d,u] */
	double *z_mean;     /* [u] */
	double a[MAX_STATE * MAX_STATE], w[MAX_STATE * MAX_STATE], x_mean[MAX_STATE];
} fit_work;

static cx_status work_init(fit_work *f, const cx_session *s, size_t n, cx_err *err)
{
	size_t d = s->n_kin, u = s->n_units;
	size_t total = n * d + n * u + u * d + 2 * u * u + 2 * u * d + u;
	double *p = cx_calloc(&s->alloc, total, sizeof *p);
	memset(f, 0, sizeof *f);
	if (!p) return CX_FAIL(err, CX_ERR_MEMORY, "kalman fit: %zu units do not fit in memory", u);
	*f = (fit_work){.d = d, .u = u, .n = n, .block = p, .bytes = total * sizeof *p};
	f->x = p, p += n * d;
	f->z = p, p += n * u;
	f->c = p, p += u * d;
	f->q = p, p += u * u;
	f->s = p, p += u * u;
	f->g = p, p += u * d;
	f->ct = p, p += u * d;
	f->z_mean = p;
	for (size_t t = 0; t < n; t++) {
		for (size_t i = 0; i < d; i++) f->x_mean[i] += s->kin[t * d + i] / (double)n;
		for (size_t i = 0; i < u; i++) f->z_mean[i] += s->spikes[t * u + i] / (double)n;
	}
	for (size_t t = 0; t < n; t++) {
		for (size_t i = 0; i < d; i++) f->x[t * d + i] = s->kin[t * d + i] - f->x_mean[i];
		for (size_t i = 0; i < u; i++) f->z[t * u + i] = s->spikes[t * u + i] - f->z_mean[i];
	}
	return CX_OK;
}

/* coef [m,d] of the least-squares map from rows of x [n,d] to rows of y [n,m]: y_t = coef x_t. */
static cx_status regress(const double *x, size_t d, const double *y, size_t m, size_t n,
	double *coef, double *xty, const char *what, cx_err *err)
{
	double xtx[MAX_STATE * MAX_STATE] = {0};
	cx_status st;
	memset(xty, 0, d * m * sizeof *xty); /* [d,m] */
	for (size_t t = 0; t < n; t++)
		for (size_t i = 0; i < d; i++) {
			for (size_t j = 0; j < d; j++) xtx[i * d + j] += x[t * d + i] * x[t * d + j];
			for (size_t j = 0; j < m; j++) xty[i * m + j] += x[t * d + i] * y[t * m + j];
		}
	if ((st = cx__chol_solve(xtx, d, xty, m, what, err)) != CX_OK) return st;
	for (size_t i = 0; i < d; i++)
		for (size_t j = 0; j < m; j++) coef[j * d + i] = xty[i * m + j];
	return CX_OK;
}

/* cov [m,m] += e e' over t for residuals e = y_t - coef x_t, divided by `over`. */
static void residual_cov(const double *x, size_t d, const double *y, size_t m, size_t n,
	const double *coef, double over, double *e, double *cov)
{
	for (size_t t = 0; t < n; t++) {
		for (size_t j = 0; j < m; j++) {
			e[j] = y[t * m + j];
			for (size_t i = 0; i < d; i++) e[j] -= coef[j * d + i] * x[t * d + i];
		}
		for (size_t i = 0; i < m; i++)
			for (size_t j = 0; j < m; j++) cov[i * m + j] += e[i] * e[j] / over;
	}
}

/* One step of the Riccati recursion: P in, gain K [d,u] and M [d,d] out, P of the next step in
 * place. */
static cx_status gain_step(fit_work *f, double *p, double *k, double *m, cx_err *err)
{
	size_t d = f->d, u = f->u;
	double ap[MAX_STATE * MAX_STATE], prior[MAX_STATE * MAX_STATE], ikc[MAX_STATE * MAX_STATE];
	cx_status st;
	cx__mat_mul(ap, f->a, p, d, d, d);
	cx__mat_mul_t(prior, ap, f->a, d, d, d);
	for (size_t i = 0; i < d * d; i++) prior[i] += f->w[i];
	cx__mat_mul(f->g, f->c, prior, u, d, d);  /* C P */
	cx__mat_mul_t(f->s, f->g, f->c, u, d, u); /* C P C' */
	for (size_t i = 0; i < u * u; i++) f->s[i] += f->q[i];
	if ((st = cx__chol_solve(f->s, u, f->g, d, "kalman fit", err)) != CX_OK) return st;
	for (size_t i = 0; i < d; i++) /* K = P C' S^-1 = (S^-1 C P)' */
		for (size_t j = 0; j < u; j++) k[i * u + j] = f->g[j * d + i];
	cx__mat_mul(ap, k, f->c, d, u, d);
	for (size_t i = 0; i < d; i++)
		for (size_t j = 0; j < d; j++) ikc[i * d + j] = (i == j) - ap[i * d + j];
	cx__mat_mul(m, ikc, f->a, d, d, d);
	cx__mat_mul(p, ikc, prior, d, d, d);
	return CX_OK;
}

/* Gains until they stop changing, at most MAX_GAIN. out->m and out->k have room for MAX_GAIN. */
static cx_status gains(fit_work *f, cx_kalman *out, cx_err *err)
{
	size_t d = f->d, u = f->u;
	double p[MAX_STATE * MAX_STATE] = {0}, m[MAX_STATE * MAX_STATE];
	double *k = f->ct; /* [d,u], free by now */
	cx_status st;
	for (size_t t = 0; t < MAX_GAIN; t++) {
		double change = 0, size = 0;
		for (size_t i = 0; i < d * u; i++) size = fmax(size, fabs(k[i]));
		memcpy(f->z, k, d * u * sizeof *k); /* the centred counts are no longer needed */
		if ((st = gain_step(f, p, k, m, err)) != CX_OK) return st;
		for (size_t i = 0; i < d * u; i++) change = fmax(change, fabs(k[i] - f->z[i]));
		for (size_t i = 0; i < d * u; i++) out->k[t * d * u + i] = (float)k[i];
		for (size_t i = 0; i < d * d; i++) out->m[t * d * d + i] = (float)m[i];
		out->n_gain = t + 1;
		if (t > 0 && change <= 1e-9 * size) break;
	}
	return CX_OK;
}

static cx_status fit(fit_work *f, cx_kalman *out, cx_err *err)
{
	size_t d = f->d, u = f->u, n = f->n;
	double scratch[MAX_STATE * MAX_STATE], e[MAX_STATE];
	cx_status st;
	if ((st = regress(f->x, d, f->x + d, d, n - 1, f->a, scratch, "kalman fit: movement", err)) !=
		CX_OK)
		return st;
	residual_cov(f->x, d, f->x + d, d, n - 1, f->a, (double)(n - 1), e, f->w);
	if ((st = regress(f->x, d, f->z, u, n, f->c, f->g, "kalman fit: counts", err)) != CX_OK)
		return st;
	residual_cov(f->x, d, f->z, u, n, f->c, (double)n, f->s, f->q);
	for (size_t i = 0; i < u; i++) f->q[i * u + i] += 1e-6;
	for (size_t i = 0; i < d; i++) {
		out->x_mean[i] = (float)f->x_mean[i];
		out->x0[i] = (float)f->x[(n - 1) * d + i];
	}
	for (size_t i = 0; i < u; i++) out->z_mean[i] = (float)f->z_mean[i];
	memset(f->ct, 0, d * u * sizeof *f->ct);
	return gains(f, out, err);
}

cx_status cx_kalman_fit(const cx_session *s, size_t n_train, cx_kalman *out, cx_err *err)
{
	size_t d = s->n_kin, u = s->n_units;
	fit_work f;
	cx_status st;
	memset(out, 0, sizeof *out);
	if (n_train < d + 2 || n_train > s->n_bins)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "kalman fit: %zu training bins of %zu; %zu at least",
			n_train, s->n_bins, d + 2);
	for (size_t t = 0; t < n_train; t++)
		if ((s->kin_ok && !s->kin_ok[t]) || (s->observed && !s->observed[t]))
			return CX_FAIL(err, CX_ERR_ARGUMENT,
				"kalman fit: bin %zu has no movement or no spikes; it wants a run of bins without "
				"gaps",
				t);
	if (u > 4000) return CX_FAIL(err, CX_ERR_ARGUMENT, "kalman fit: %zu units; 4000 at most", u);
	if ((st = work_init(&f, s, n_train, err)) != CX_OK) return st;
	*out = (cx_kalman){.n_state = d, .n_units = u, .alloc = s->alloc};
	out->m = cx_calloc(&s->alloc, MAX_GAIN * d * d, sizeof *out->m);
	out->k = cx_calloc(&s->alloc, MAX_GAIN * d * u, sizeof *out->k);
	out->z_mean = cx_calloc(&s->alloc, u, sizeof *out->z_mean);
	out->x_mean = cx_calloc(&s->alloc, d, sizeof *out->x_mean);
	out->x0 = cx_calloc(&s->alloc, d, sizeof *out->x0);
	st = out->m && out->k && out->z_mean && out->x_mean && out->x0
			 ? fit(&f, out, err)
			 : CX_FAIL(err, CX_ERR_MEMORY, "kalman fit: out of memory");
	cx_free(&s->alloc, f.block, f.bytes);
	if (st != CX_OK) cx_kalman_deinit(out);
	return st;
}

void cx_kalman_deinit(cx_kalman *k)
{
	size_t d = k->n_state, u = k->n_units;
	cx_free(&k->alloc, k->m, MAX_GAIN * d * d * sizeof *k->m);
	cx_free(&k->alloc, k->k, MAX_GAIN * d * u * sizeof *k->k);
	cx_free(&k->alloc, k->z_mean, u * sizeof *k->z_mean);
	cx_free(&k->alloc, k->x_mean, d * sizeof *k->x_mean);
	cx_free(&k->alloc, k->x0, d * sizeof *k->x0);
	memset(k, 0, sizeof *k);
}

cx_tensor cx_kalman_build(cx_graph *g, const cx_kalman *k)
{
	int64_t d = (int64_t)k->n_state, u = (int64_t)k->n_units, n = (int64_t)k->n_gain;
	cx_attr_axis rows = {.axis = 0};
	cx_attr_matmul linear = {.trans_b = true};
	cx_tensor step, z, x, m, gain, next, y;
	step = cx_input(cx_at(g), "step", CX_I32, 1, (int64_t[]){1});
	z = cx_input(cx_at(g), "z", CX_F32, 2, (int64_t[]){1, u});
	x = cx_state(g, "kalman.x", CX_F32, 2, (int64_t[]){1, d});
	m = cx_gather(cx_at(g), cx_weight(g, "kalman.m", CX_F32, 3, (int64_t[]){n, d, d}), step, &rows);
	gain =
		cx_gather(cx_at(g), cx_weight(g, "kalman.k", CX_F32, 3, (int64_t[]){n, d, u}), step, &rows);
	m = cx_reshape(g, m, &(cx_attr_dims){.dims = cx_list_of(2, (int)d, (int)d)});
	gain = cx_reshape(g, gain, &(cx_attr_dims){.dims = cx_list_of(2, (int)d, (int)u)});
	z = cx_sub(cx_at(g), z, cx_weight(g, "kalman.z_mean", CX_F32, 1, &u));
	next =
		cx_add(cx_at(g), cx_matmul(cx_at(g), x, m, &linear), cx_matmul(cx_at(g), z, gain, &linear));
	next = cx_assign(cx_at(g), x, next);
	y = cx_add(cx_at(g), next, cx_weight(g, "kalman.x_mean", CX_F32, 1, &d));
	cx_output(g, "y", y);
	return y;
}

cx_status cx_kalman_store(const cx_kalman *k, cx_store *store, cx_err *err)
{
	int64_t d = (int64_t)k->n_state, u = (int64_t)k->n_units, n = (int64_t)k->n_gain;
	size_t f = sizeof(float);
	cx_status st;
	if ((st = cx_store_weight(store, "kalman.m", CX_F32, 3, (int64_t[]){n, d, d}, k->m,
			 k->n_gain * k->n_state * k->n_state * f, err)) != CX_OK ||
		(st = cx_store_weight(store, "kalman.k", CX_F32, 3, (int64_t[]){n, d, u}, k->k,
			 k->n_gain * k->n_state * k->n_units * f, err)) != CX_OK ||
		(st = cx_store_weight(
			 store, "kalman.z_mean", CX_F32, 1, &u, k->z_mean, k->n_units * f, err)) != CX_OK)
		return st;
	return cx_store_weight(store, "kalman.x_mean", CX_F32, 1, &d, k->x_mean, k->n_state * f, err);
}
