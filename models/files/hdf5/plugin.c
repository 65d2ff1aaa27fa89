/* plugin.c - HDF5 files through libhdf5: becomes cortex-nwb.so, the only object that links it.
 *
 * In: a path. Out: arrays in plain C types. See models/files/hdf5.h. The library's own printing is
 * off; the first entry of its error stack, which names the cause, goes into the message. */
#include "models/files/hdf5.h"

#include <hdf5.h>
#include <stdio.h>
#include <string.h>

struct cx_h5 {
	hid_t file;
	cx_alloc alloc;
	char label[84]; /* the path's tail */
};

static herr_t first_reason(unsigned n, const H5E_error2_t *e, void *out)
{
	if (n == 0 && e->desc) snprintf(out, 100, "%s", e->desc);
	return 0;
}

/* Names file, field and the library's reason. */
static cx_status failed(const cx_h5 *f, const char *name, cx_status code, cx_err *err)
{
	char why[100] = "";
	H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, first_reason, why);
	return CX_FAIL(err, code, "%.84s: %.60s: %.90s", f->label, name, why[0] ? why : "damaged");
}

/* Per thread in a thread-safe libhdf5, hence at every call. */
static void be_quiet(void)
{
	H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
	H5Eclear2(H5E_DEFAULT);
}

static cx_status h5_close(cx_h5 *f, cx_err *err)
{
	cx_status st = CX_OK;
	cx_alloc alloc;
	if (!f) return CX_OK;
	be_quiet();
	alloc = f->alloc;
	if (f->file >= 0 && H5Fclose(f->file) < 0) st = failed(f, "closing the file", CX_ERR_IO, err);
	cx_free(&alloc, f, sizeof *f);
	return st;
}

static cx_status h5_open(const cx_alloc *a, const char *path, bool write, cx_h5 **out, cx_err *err)
{
	size_t n = strlen(path);
	cx_h5 *f = cx_calloc(a, 1, sizeof *f);
	cx_status st;
	*out = NULL;
	if (!f) return CX_FAIL(err, CX_ERR_MEMORY, "HDF5: out of memory");
	f->alloc = a ? *a : cx_alloc_default();
	if (n > 80) snprintf(f->label, sizeof f->label, "...%s", path + n - 80);
	else snprintf(f->label, sizeof f->label, "%s", path);
	be_quiet();
	f->file = write ? H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT)
					: H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
	if (f->file >= 0) {
		*out = f;
		return CX_OK;
	}
	if (write) st = failed(f, "it cannot be written", CX_ERR_IO, err);
	else st = failed(f, "it is not an HDF5 file, or a damaged one", CX_ERR_FORMAT, err);
	cx_free(&f->alloc, f, sizeof *f);
	return st;
}

/* Every link on the way must be asked for: the library fails where an inner one is missing. */
static htri_t exists(const cx_h5 *f, const char *name)
{
	char part[256];
	size_t n = strlen(name);
	htri_t yes = 1;
	if (n >= sizeof part) return 0;
	for (size_t i = 1; i <= n && yes > 0; i++)
		if (name[i] == '/' || !name[i]) {
			memcpy(part, name, i);
			part[i] = 0;
			yes = H5Lexists(f->file, part, H5P_DEFAULT);
			if (yes > 0) yes = H5Oexists_by_name(f->file, part, H5P_DEFAULT);
		}
	return yes;
}

/* A damaged header may claim any size: more than deflate (1032 to 1) can make of the stored bytes
 * is a lie. */
static bool plausible(hid_t set, hid_t type, uint64_t n)
{
	uint64_t stored = H5Dget_storage_size(set), size = H5Tget_size(type), bytes;
	return size > 0 && cx_mul_u64(n, size, &bytes) && bytes / 1040 <= stored + 1024 &&
		   n <= SIZE_MAX / 64;
}

static cx_status describe(
	const cx_h5 *f, const char *name, hid_t set, cx_h5_object *out, cx_err *err)
{
	hid_t type = H5Dget_type(set), space = H5Dget_space(set);
	hsize_t dims[H5S_MAX_RANK];
	int rank = space >= 0 ? H5Sget_simple_extent_ndims(space) : -1;
	cx_status st = CX_OK;
	if (type < 0 || rank < 0 || H5Sget_simple_extent_dims(space, dims, NULL) != rank) {
		st = failed(f, name, CX_ERR_FORMAT, err);
	} else if (rank > CX_H5_MAX_RANK) {
		st = CX_FAIL(err, CX_ERR_FORMAT, "%.84s: %.60s has rank %d; %d is the most that is read",
			f->label, name, rank, CX_H5_MAX_RANK);
	} else {
		H5T_class_t c = H5Tget_class(type);
		bool whole = c == H5T_INTEGER || c == H5T_ENUM || c == H5T_BITFIELD, fits = true;
		out->kind = whole             ? CX_H5_INT
					: c == H5T_FLOAT  ? CX_H5_FLOAT
					: c == H5T_STRING ? CX_H5_TEXT
									  : CX_H5_OTHER;
		out->rank = rank;
		out->n = H5Sget_simple_extent_type(space) == H5S_NULL ? 0 : 1;
		for (int i = 0; i < rank; i++) {
			out->dims[i] = dims[i];
			fits = fits && cx_mul_u64(out->n, dims[i], &out->n);
		}
		if (!fits || !plausible(set, type, out->n))
			st = CX_FAIL(err, CX_ERR_FORMAT,
				"%.84s: %.60s claims %llu values, more than its %llu stored bytes can hold",
				f->label, name, (unsigned long long)out->n,
				(unsigned long long)H5Dget_storage_size(set));
	}
	if (type >= 0) H5Tclose(type);
	if (space >= 0) H5Sclose(space);
	return st;
}

static cx_status h5_find(cx_h5 *f, const char *name, cx_h5_object *out, cx_err *err)
{
	H5O_info_t info;
	htri_t yes;
	hid_t set;
	cx_status st;
	memset(out, 0, sizeof *out);
	be_quiet();
	yes = exists(f, name);
	if (yes == 0) return CX_OK;
	if (yes < 0 || H5Oget_info_by_name(f->file, name, &info, H5P_DEFAULT) < 0)
		return failed(f, name, CX_ERR_FORMAT, err);
	if (info.type == H5O_TYPE_GROUP) out->kind = CX_H5_GROUP;
	else if (info.type != H5O_TYPE_DATASET) out->kind = CX_H5_OTHER;
	if (out->kind != CX_H5_NONE) return CX_OK;
	if ((set = H5Dopen2(f->file, name, H5P_DEFAULT)) < 0)
		return failed(f, name, CX_ERR_FORMAT, err);
	st = describe(f, name, set, out, err);
	H5Dclose(set);
	return st;
}

/* Opens the set and checks that it still has n elements. */
static cx_status open_set(const cx_h5 *f, const char *name, uint64_t n, hid_t *set, cx_err *err)
{
	cx_h5_object o = {0};
	cx_status st;
	be_quiet();
	*set = H5Dopen2(f->file, name, H5P_DEFAULT);
	if (*set < 0) return failed(f, name, CX_ERR_FORMAT, err);
	st = describe(f, name, *set, &o, err);
	if (st == CX_OK && o.n != n)
		st = CX_FAIL(err, CX_ERR_FORMAT, "%.84s: %.60s has %llu values, not %llu", f->label, name,
			(unsigned long long)o.n, (unsigned long long)n);
	if (st != CX_OK) H5Dclose(*set);
	return st;
}

static cx_status read_as(cx_h5 *f, const char *name, uint64_t n, hid_t type, void *dst, cx_err *err)
{
	hid_t set;
	cx_status st = open_set(f, name, n, &set, err);
	if (st != CX_OK) return st;
	if (n > 0 && H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, dst) < 0)
		st = failed(f, name, CX_ERR_FORMAT, err);
	H5Dclose(set);
	return st;
}

static cx_status h5_read_f64(cx_h5 *f, const char *name, uint64_t n, double *dst, cx_err *err)
{
	return read_as(f, name, n, H5T_NATIVE_DOUBLE, dst, err);
}

static cx_status h5_read_i64(cx_h5 *f, const char *name, uint64_t n, int64_t *dst, cx_err *err)
{
	return read_as(f, name, n, H5T_NATIVE_INT64, dst, err);
}

static cx_status read_vlen(const cx_h5 *f, const char *name, hid_t set, hid_t type, uint64_t n,
	size_t width, char *dst, cx_err *err)
{
	char **text = cx_calloc(&f->alloc, n, sizeof *text);
	hid_t space = H5Dget_space(set);
	cx_status st = CX_OK;
	if (!text) st = CX_FAIL(err, CX_ERR_MEMORY, "%.84s: %.60s: out of memory", f->label, name);
	else if (H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, text) < 0)
		st = failed(f, name, CX_ERR_FORMAT, err);
	if (st == CX_OK) {
		for (uint64_t i = 0; i < n; i++)
			snprintf(dst + i * width, width, "%s", text[i] ? text[i] : "");
		H5Dvlen_reclaim(type, space, H5P_DEFAULT, text);
	}
	if (space >= 0) H5Sclose(space);
	cx_free(&f->alloc, text, n * sizeof *text);
	return st;
}

static cx_status read_fixed(const cx_h5 *f, const char *name, hid_t set, hid_t type, uint64_t n,
	size_t width, char *dst, cx_err *err)
{
	size_t size = H5Tget_size(type);
	char *text = cx_calloc(&f->alloc, n, size);
	cx_status st = CX_OK;
	if (!text) st = CX_FAIL(err, CX_ERR_MEMORY, "%.84s: %.60s: out of memory", f->label, name);
	else if (H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, text) < 0)
		st = failed(f, name, CX_ERR_FORMAT, err);
	for (uint64_t i = 0; st == CX_OK && i < n; i++) {
		size_t len = strnlen(text + i * size, size);
		while (len > 0 && text[i * size + len - 1] == ' ') len--;
		snprintf(dst + i * width, width, "%.*s", (int)(len < width ? len : width), text + i * size);
	}
	cx_free(&f->alloc, text, n * size);
	return st;
}

static cx_status h5_read_text(
	cx_h5 *f, const char *name, uint64_t n, size_t width, char *dst, cx_err *err)
{
	hid_t set, stored, type;
	cx_status st = open_set(f, name, n, &set, err);
	htri_t varies;
	if (st != CX_OK) return st;
	stored = H5Dget_type(set);
	varies = stored >= 0 && H5Tget_class(stored) == H5T_STRING ? H5Tis_variable_str(stored) : -1;
	type = varies >= 0 ? H5Tcopy(stored) : -1;
	if (type < 0) st = failed(f, name, CX_ERR_FORMAT, err);
	else if (n > 0)
		st = varies ? read_vlen(f, name, set, type, n, width, dst, err)
					: read_fixed(f, name, set, type, n, width, dst, err);
	if (type >= 0) H5Tclose(type);
	if (stored >= 0) H5Tclose(stored);
	H5Dclose(set);
	return st;
}

static cx_status h5_read_attr_f64(
	cx_h5 *f, const char *name, const char *attr, double *dst, cx_err *err)
{
	cx_status st = CX_OK;
	hid_t a, space;
	be_quiet();
	a = H5Aopen_by_name(f->file, name, attr, H5P_DEFAULT, H5P_DEFAULT);
	if (a < 0) return failed(f, name, CX_ERR_FORMAT, err);
	space = H5Aget_space(a);
	if (space < 0 || H5Sget_simple_extent_npoints(space) != 1 ||
		H5Aread(a, H5T_NATIVE_DOUBLE, dst) < 0)
		st = failed(f, name, CX_ERR_FORMAT, err);
	if (space >= 0) H5Sclose(space);
	H5Aclose(a);
	return st;
}

/* ---- writing ---- */

/* Chunks of at most 64 Ki rows, deflated, if there is enough to be worth it. */
static hid_t layout(int rank, const uint64_t *dims, uint64_t n)
{
	hid_t p = H5Pcreate(H5P_DATASET_CREATE);
	hsize_t chunk[CX_H5_MAX_RANK];
	if (n < 1024) return p;
	for (int i = 0; i < rank; i++) chunk[i] = dims[i];
	if (chunk[0] > 65536) chunk[0] = 65536;
	H5Pset_chunk(p, rank, chunk);
	H5Pset_shuffle(p);
	H5Pset_deflate(p, 4);
	return p;
}

static cx_status write_as(cx_h5 *f, const char *name, int rank, const uint64_t *dims, hid_t stored,
	hid_t type, const void *src, cx_err *err)
{
	hsize_t size[CX_H5_MAX_RANK] = {0};
	uint64_t n = 1;
	hid_t space, links, how, set;
	cx_status st = CX_OK;
	for (int i = 0; i < rank; i++) n *= size[i] = dims[i];
	be_quiet();
	space = rank ? H5Screate_simple(rank, size, NULL) : H5Screate(H5S_SCALAR);
	links = H5Pcreate(H5P_LINK_CREATE);
	H5Pset_create_intermediate_group(links, 1);
	how = layout(rank, dims, n);
	set = H5Dcreate2(f->file, name, stored, space, links, how, H5P_DEFAULT);
	if (set < 0 || (n > 0 && H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, src) < 0))
		st = failed(f, name, CX_ERR_IO, err);
	if (set >= 0) H5Dclose(set);
	H5Pclose(how);
	H5Pclose(links);
	H5Sclose(space);
	return st;
}

static cx_status h5_write_f64(
	cx_h5 *f, const char *name, int rank, const uint64_t *dims, const double *src, cx_err *err)
{
	return write_as(f, name, rank, dims, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, src, err);
}

static cx_status h5_write_i64(
	cx_h5 *f, const char *name, int rank, const uint64_t *dims, const int64_t *src, cx_err *err)
{
	return write_as(f, name, rank, dims, H5T_STD_I64LE, H5T_NATIVE_INT64, src, err);
}

static hid_t text_type(void)
{
	hid_t type = H5Tcopy(H5T_C_S1);
	H5Tset_size(type, H5T_VARIABLE);
	H5Tset_cset(type, H5T_CSET_UTF8);
	return type;
}

static cx_status h5_write_text(
	cx_h5 *f, const char *name, int rank, uint64_t n, const char *const *src, cx_err *err)
{
	hid_t type = text_type();
	cx_status st = write_as(f, name, rank, &n, type, type, src, err);
	H5Tclose(type);
	return st;
}

static cx_status h5_write_attr(
	cx_h5 *f, const char *name, const char *attr, const char *value, cx_err *err)
{
	hid_t type = text_type(), space = H5Screate(H5S_SCALAR), a;
	cx_status st = CX_OK;
	be_quiet();
	a = H5Acreate_by_name(f->file, name, attr, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
	if (a < 0 || H5Awrite(a, type, &value) < 0) st = failed(f, name, CX_ERR_IO, err);
	if (a >= 0) H5Aclose(a);
	H5Sclose(space);
	H5Tclose(type);
	return st;
}

CX_API const cx_h5_api cx_h5_plugin;
const cx_h5_api cx_h5_plugin = {.version = CX_H5_VERSION,
	.open = h5_open,
	.close = h5_close,
	.find = h5_find,
	.read_f64 = h5_read_f64,
	.read_i64 = h5_read_i64,
	.read_text = h5_read_text,
	.read_attr_f64 = h5_read_attr_f64,
	.write_f64 = h5_write_f64,
	.write_i64 = h5_write_i64,
	.write_text = h5_write_text,
	.write_attr = h5_write_attr};
