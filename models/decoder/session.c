/* session.c - holds and loads binned recordings. See session.h. */
#include "models/decoder/session.h"
#include "models/files/npy.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Past it products of two values, or their f32 form, would overflow. */
#define MAX_KIN 1e15

static void name_columns(cx_session *s)
{
	static const char *const four[] = {"pos_x", "pos_y", "vel_x", "vel_y"};
	for (size_t c = 0; c < s->n_kin; c++)
		if (s->n_kin == 4) snprintf(s->kin_name[c], sizeof s->kin_name[c], "%s", four[c]);
		else if (s->n_kin == 2) snprintf(s->kin_name[c], sizeof s->kin_name[c], "%s", four[c + 2]);
		else snprintf(s->kin_name[c], sizeof s->kin_name[c], "y%u", (unsigned)c % 100);
}

cx_status cx_session_init(cx_session *s, const cx_alloc *alloc, size_t n_bins, size_t n_units,
	size_t n_kin, bool with_bayes, cx_err *err)
{
	memset(s, 0, sizeof *s);
	s->alloc = alloc ? *alloc : cx_alloc_default();
	if (n_bins < 1 || n_units < 1 || n_units > 65535 || n_kin < 1 || n_kin > 8)
		return CX_FAIL(err, CX_ERR_SHAPE,
			"a session of %zu bins, %zu units and %zu kinematic columns: bins >= 1, units 1..65535 "
			"and "
			"columns 1..8 are wanted",
			n_bins, n_units, n_kin);
	if (n_bins > UINT32_MAX / n_units || n_bins > SIZE_MAX / 64)
		return CX_FAIL(
			err, CX_ERR_SHAPE, "a session of %zu bins x %zu units is too large", n_bins, n_units);
	s->n_bins = n_bins;
	s->n_units = n_units;
	s->n_kin = n_kin;
	name_columns(s);
	s->spikes = cx_calloc(&s->alloc, n_bins, n_units);
	s->kin = cx_calloc(&s->alloc, n_bins * n_kin, sizeof *s->kin);
	if (with_bayes) s->bayes = cx_calloc(&s->alloc, n_bins * n_kin, sizeof *s->bayes);
	if (!s->spikes || !s->kin || (with_bayes && !s->bayes)) {
		cx_session_deinit(s);
		return CX_FAIL(err, CX_ERR_MEMORY, "a session of %zu bins x %zu units: out of memory",
			n_bins, n_units);
	}
	return CX_OK;
}

void cx_session_deinit(cx_session *s)
{
	cx_free(&s->alloc, s->spikes, s->n_bins * s->n_units);
	cx_free(&s->alloc, s->kin, s->n_bins * s->n_kin * sizeof *s->kin);
	cx_free(&s->alloc, s->kin_ok, s->n_bins);
	cx_free(&s->alloc, s->observed, s->n_bins);
	cx_free(&s->alloc, s->bayes, s->n_bins * s->n_kin * sizeof *s->bayes);
	memset(s, 0, sizeof *s);
}

static cx_status check_shapes(const cx_npy *spikes, const cx_npy *kin, cx_err *err)
{
	if (spikes->rank != 2)
		return CX_FAIL(err, CX_ERR_SHAPE, "%.100s: spikes have rank %d; [bins, units] is wanted",
			spikes->label, (int)spikes->rank);
	if (kin->rank != 2)
		return CX_FAIL(err, CX_ERR_SHAPE,
			"%.100s: kinematics have rank %d; [bins, columns] is wanted", kin->label,
			(int)kin->rank);
	if (spikes->dims[0] != kin->dims[0])
		return CX_FAIL(err, CX_ERR_SHAPE, "%.80s has %lld bins, but %.80s has %lld", spikes->label,
			(long long)spikes->dims[0], kin->label, (long long)kin->dims[0]);
	return CX_OK;
}

static cx_status fill(const cx_npy *spikes, const cx_npy *kin, cx_session *s, cx_err *err)
{
	size_t n = s->n_bins * s->n_units;
	double *counts = cx_malloc(&s->alloc, n * sizeof *counts);
	if (!counts) return CX_FAIL(err, CX_ERR_MEMORY, "%.100s: out of memory", spikes->label);
	cx_npy_to_f64(spikes, counts);
	for (size_t i = 0; i < n; i++) {
		if (!(counts[i] >= 0 && counts[i] <= 255 && counts[i] == floor(counts[i]))) {
			cx_status st = CX_FAIL(err, CX_ERR_FORMAT,
				"%.100s: bin %zu, unit %zu: %g is no spike count (a whole number in 0..255)",
				spikes->label, i / s->n_units, i % s->n_units, counts[i]);
			cx_free(&s->alloc, counts, n * sizeof *counts);
			return st;
		}
		s->spikes[i] = (uint8_t)counts[i];
	}
	cx_free(&s->alloc, counts, n * sizeof *counts);
	cx_npy_to_f64(kin, s->kin);
	for (size_t i = 0; i < s->n_bins * s->n_kin; i++)
		if (!(fabs(s->kin[i]) <= MAX_KIN))
			return CX_FAIL(err, CX_ERR_FORMAT,
				"%.100s: bin %zu, column %zu: %g is not a number in -%g..%g", kin->label,
				i / s->n_kin, i % s->n_kin, s->kin[i], MAX_KIN, MAX_KIN);
	return CX_OK;
}

cx_status cx_session_load(const char *spikes_path, const char *kin_path, const cx_alloc *alloc,
	cx_session *out, cx_err *err)
{
	cx_npy spikes = {0}, kin = {0};
	cx_status st;
	memset(out, 0, sizeof *out);
	if ((st = cx_npy_open(alloc, spikes_path, &spikes, err)) != CX_OK) goto done;
	if ((st = cx_npy_open(alloc, kin_path, &kin, err)) != CX_OK) goto done;
	if ((st = check_shapes(&spikes, &kin, err)) != CX_OK) goto done;
	if ((st = cx_session_init(out, alloc, (size_t)spikes.dims[0], (size_t)spikes.dims[1],
			 (size_t)kin.dims[1], false, err)) != CX_OK)
		goto done;
	if ((st = fill(&spikes, &kin, out, err)) != CX_OK) cx_session_deinit(out);
done:
	cx_npy_close(&spikes);
	cx_npy_close(&kin);
	return st;
}

size_t cx_session_split(const cx_session *s, double train_fraction)
{
	return (size_t)floor((double)s->n_bins * train_fraction);
}

cx_status cx_session_load_bayes(cx_session *s, const char *path, cx_err *err)
{
	size_t n = s->n_bins * s->n_kin;
	cx_npy npy = {0};
	cx_status st = cx_npy_open(&s->alloc, path, &npy, err);
	if (st != CX_OK) return st;
	if (npy.rank != 2 || npy.dims[0] != (int64_t)s->n_bins || npy.dims[1] != (int64_t)s->n_kin) {
		st = CX_FAIL(err, CX_ERR_SHAPE, "%.100s is not of the kinematics' shape [%zu, %zu]",
			npy.label, s->n_bins, s->n_kin);
	} else {
		if (!s->bayes) s->bayes = cx_malloc(&s->alloc, n * sizeof *s->bayes);
		if (s->bayes) cx_npy_to_f64(&npy, s->bayes);
		else st = CX_FAIL(err, CX_ERR_MEMORY, "%.100s: out of memory", npy.label);
	}
	cx_npy_close(&npy);
	return st;
}
