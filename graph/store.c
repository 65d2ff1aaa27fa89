/* store.c - weights and states by name, shared by all plans of a model.
 *
 * A weight is the caller's memory; each device that needs it gets a buffer once: that memory itself
 * where the device can read it, else a copy. A state is one buffer on one device, made by the first
 * exec that has it. */
#include "graph/store.h"

#include <string.h>

typedef struct on_device {
	cx_buffer *buf;
	struct on_device *next;
} on_device;

typedef struct entry {
	struct entry *next;
	cx_desc desc;
	uint64_t bytes;
	const void *data; /* weights */
	on_device *where; /* states have exactly one */
	bool is_state;
	size_t name_size;
	char name[];
} entry;

enum { N_BUCKETS = 1024 };
struct cx_store {
	cx_alloc alloc;
	entry *bucket[N_BUCKETS];
};

static uint32_t hash(const char *name, bool is_state)
{
	uint32_t h = is_state ? 2166136261u : 16777619u;
	for (; *name; name++) h = (h ^ (unsigned char)*name) * 16777619u;
	return h % N_BUCKETS;
}

static entry *find(const cx_store *s, const char *name, bool is_state)
{
	entry *e = s->bucket[hash(name, is_state)];
	while (e && (e->is_state != is_state || strcmp(e->name, name) != 0)) e = e->next;
	return e;
}

static entry *add(
	cx_store *s, const char *name, bool is_state, const cx_desc *d, uint64_t bytes, cx_err *err)
{
	size_t n = strlen(name) + 1;
	uint32_t h = hash(name, is_state);
	entry *e = cx_calloc(&s->alloc, 1, sizeof *e + n);
	if (!e) {
		CX_FAIL(err, CX_ERR_MEMORY, "out of memory for '%.100s' in the store", name);
		return NULL;
	}
	e->desc = *d;
	e->bytes = bytes;
	e->is_state = is_state;
	e->name_size = n;
	memcpy(e->name, name, n);
	e->next = s->bucket[h];
	s->bucket[h] = e;
	return e;
}

static cx_status same_shape(const entry *e, const cx_desc *want, cx_err *err)
{
	char a[80], b[80];
	cx_shape have = {.rank = e->desc.rank}, need = {.rank = want->rank};
	memcpy(have.dim, e->desc.dim, sizeof have.dim);
	memcpy(need.dim, want->dim, sizeof need.dim);
	if (e->desc.dtype == want->dtype && cx_shape_equal(&have, &need)) return CX_OK;
	return CX_FAIL(err, CX_ERR_SHAPE, "%s '%.80s' is %s%s in the store, the graph wants %s%s",
		e->is_state ? "state" : "weight", e->name, cx_dtype_get(e->desc.dtype)->name,
		cx_shape_text(&have, a, sizeof a), cx_dtype_get(want->dtype)->name,
		cx_shape_text(&need, b, sizeof b));
}

cx_status cx_store_create(cx_runtime *rt, cx_store **out, cx_err *err)
{
	const cx_alloc *alloc = &cx_runtime_config(rt)->alloc;
	cx_store *s = cx_calloc(alloc, 1, sizeof *s);
	*out = s;
	if (!s) return CX_FAIL(err, CX_ERR_MEMORY, "out of memory for a store");
	s->alloc = *alloc;
	return CX_OK;
}

void cx_store_free(cx_store *s)
{
	cx_alloc alloc;
	if (!s) return;
	alloc = s->alloc;
	for (int b = 0; b < N_BUCKETS; b++) {
		for (entry *e = s->bucket[b], *next; e; e = next) {
			for (on_device *d = e->where, *after; d; d = after) {
				after = d->next;
				d->buf->dev->backend->free(d->buf);
				cx_free(&alloc, d, sizeof *d);
			}
			next = e->next;
			cx_free(&alloc, e, sizeof *e + e->name_size);
		}
	}
	cx_free(&alloc, s, sizeof *s);
}

cx_status cx_store_weight(cx_store *s, const char *name, cx_dtype dtype, int32_t rank,
	const int64_t *dim, const void *data, uint64_t bytes, cx_err *err)
{
	cx_desc d = {.dtype = dtype, .rank = rank};
	uint64_t need;
	entry *e;
	if (!name || (unsigned)dtype >= CX_DTYPE_COUNT || !cx_dtype_bytes(dtype, rank, dim, &need))
		return CX_FAIL(err, CX_ERR_ARGUMENT, "weight '%.100s': dtype or dims are not possible",
			name ? name : "");
	if (need != bytes || (!data && bytes))
		return CX_FAIL(err, CX_ERR_ARGUMENT,
			"weight '%.100s': %llu bytes given, its dims take %llu", name,
			(unsigned long long)bytes, (unsigned long long)need);
	if (find(s, name, false))
		return CX_FAIL(err, CX_ERR_ARGUMENT, "weight '%.100s' is in the store already", name);
	for (int32_t i = 0; i < rank; i++) d.dim[i] = dim[i];
	cx__desc_dense(&d);
	e = add(s, name, false, &d, bytes, err);
	if (!e) return CX_ERR_MEMORY;
	e->data = data;
	return CX_OK;
}

/* A new buffer of the entry on dev; `host`: memory to wrap, or NULL. */
static cx_status make_buffer(
	cx_store *s, entry *e, cx_device *dev, const void *host, cx_buffer **out, cx_err *err)
{
	on_device *d = cx_calloc(&s->alloc, 1, sizeof *d);
	cx_status st;
	if (!d) return CX_FAIL(err, CX_ERR_MEMORY, "out of memory for '%.100s' in the store", e->name);
	st = dev->backend->alloc(dev, e->bytes, host, &d->buf, err);
	if (st != CX_OK) {
		cx_free(&s->alloc, d, sizeof *d);
		return st;
	}
	*out = d->buf;
	d->next = e->where;
	e->where = d;
	return CX_OK;
}

/* A file may put a tensor at any byte: kernels want at least its elements aligned. */
static bool is_aligned(const entry *e)
{
	const cx_dtype_info *info = cx_dtype_get(e->desc.dtype);
	uintptr_t align = info->cls == CX_CLASS_BLOCK ? 4 : (uintptr_t)info->block_bytes;
	return (uintptr_t)e->data % align == 0;
}

cx_status cx__store_weight_on(cx_store *s, const char *name, const cx_desc *want, cx_device *dev,
	cx_buffer **out, cx_err *err)
{
	entry *e = find(s, name, false);
	cx_limits limits = {0};
	cx_status st;
	if (!e) return CX_FAIL(err, CX_ERR_ARGUMENT, "weight '%.100s' is not in the store", name);
	if ((st = same_shape(e, want, err)) != CX_OK) return st;
	for (on_device *d = e->where; d; d = d->next) {
		*out = d->buf;
		if (d->buf->dev == dev) return CX_OK;
	}
	dev->backend->limits(dev, &limits);
	if (limits.maps_host && e->bytes && is_aligned(e))
		return make_buffer(s, e, dev, e->data, out, err);
	if ((st = make_buffer(s, e, dev, NULL, out, err)) != CX_OK || e->bytes == 0) return st;
	st = dev->backend->write(*out, 0, e->data, e->bytes, err);
	if (st != CX_OK) { /* not half a weight: the next exec tries again */
		on_device *d = e->where;
		e->where = d->next;
		dev->backend->free(d->buf);
		cx_free(&s->alloc, d, sizeof *d);
	}
	return st;
}

cx_status cx__store_state_on(cx_store *s, const char *name, const cx_desc *want, cx_device *dev,
	cx_buffer **out, cx_err *err)
{
	entry *e = find(s, name, true);
	uint64_t bytes = 0;
	cx_status st;
	if (!e) {
		if (!cx_dtype_bytes(want->dtype, want->rank, want->dim, &bytes))
			return CX_FAIL(err, CX_ERR_ARGUMENT, "state '%.100s' has impossible dims", name);
		if (!(e = add(s, name, true, want, bytes, err))) return CX_ERR_MEMORY;
	}
	if ((st = same_shape(e, want, err)) != CX_OK) return st;
	if (!e->where) return make_buffer(s, e, dev, NULL, out, err);
	if (e->where->buf->dev != dev)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "state '%.80s' lives on %s, this plan keeps it on %s",
			name, e->where->buf->dev->name, dev->name);
	*out = e->where->buf;
	return CX_OK;
}

static cx_status state_of(cx_store *s, const char *name, uint64_t bytes, entry **out, cx_err *err)
{
	entry *e = name ? find(s, name, true) : NULL;
	if (!e || !e->where)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "no state '%.100s': no exec that has it was made yet",
			name ? name : "");
	if (e->bytes != bytes)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "state '%.100s' has %llu bytes, not %llu", name,
			(unsigned long long)e->bytes, (unsigned long long)bytes);
	*out = e;
	return CX_OK;
}

cx_status cx_store_state_write(
	cx_store *s, const char *name, const void *data, uint64_t bytes, cx_err *err)
{
	entry *e;
	cx_status st = state_of(s, name, bytes, &e, err);
	if (st != CX_OK || bytes == 0) return st;
	return e->where->buf->dev->backend->write(e->where->buf, 0, data, bytes, err);
}

cx_status cx_store_state_read(
	cx_store *s, const char *name, void *data, uint64_t bytes, cx_err *err)
{
	entry *e;
	cx_status st = state_of(s, name, bytes, &e, err);
	if (st != CX_OK || bytes == 0) return st;
	return e->where->buf->dev->backend->read(e->where->buf, 0, data, bytes, err);
}

cx_status cx_store_state_clear(cx_store *s, cx_err *err)
{
	static const unsigned char zeros[64 * 1024];
	for (int b = 0; b < N_BUCKETS; b++) {
		for (entry *e = s->bucket[b]; e; e = e->next) {
			if (!e->is_state || !e->where) continue;
			for (uint64_t at = 0; at < e->bytes; at += sizeof zeros) {
				uint64_t n = e->bytes - at < sizeof zeros ? e->bytes - at : sizeof zeros;
				cx_status st = e->where->buf->dev->backend->write(e->where->buf, at, zeros, n, err);
				if (st != CX_OK) return st;
			}
		}
	}
	return CX_OK;
}
