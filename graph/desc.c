/* desc.c - shapes and strided descriptions: count, compare, print, dense strides. */
#include "graph/graph.h"

#include <stdio.h>
#include <string.h>

int64_t cx_shape_elems(const cx_shape *s)
{
	int64_t n = 1;
	for (int i = 0; i < s->rank; i++) n *= s->dim[i];
	return n;
}

bool cx_shape_equal(const cx_shape *a, const cx_shape *b)
{
	if (a->rank != b->rank) return false;
	for (int i = 0; i < a->rank; i++)
		if (a->dim[i] != b->dim[i]) return false;
	return true;
}

const char *cx_shape_text(const cx_shape *s, char *buf, size_t size)
{
	size_t at = 0;
	int n = snprintf(buf, size, "[");
	for (int i = 0; i < s->rank; i++) {
		at += (size_t)n;
		if (at >= size) return buf;
		n = snprintf(buf + at, size - at, i ? ",%lld" : "%lld", (long long)s->dim[i]);
	}
	at += (size_t)n;
	if (at < size) snprintf(buf + at, size - at, "]");
	return buf;
}

void cx__desc_dense(cx_desc *d)
{
	int64_t stride = 1;
	for (int i = d->rank - 1; i >= 0; i--) {
		d->stride[i] = stride;
		stride *= d->dim[i] > 0 ? d->dim[i] : 1;
	}
	for (int i = d->rank; i < CX_MAX_RANK; i++) d->stride[i] = d->dim[i] = 0;
}

bool cx__desc_is_dense(const cx_desc *d)
{
	int64_t stride = 1;
	for (int i = d->rank - 1; i >= 0; i--) {
		if (d->dim[i] == 0) return true;
		if (d->dim[i] != 1 && d->stride[i] != stride) {
			/* Not dense, unless an outer dim is 0 and nothing is there at all. */
			return cx__desc_elems(d) == 0;
		}
		stride *= d->dim[i];
	}
	return true;
}

int64_t cx__desc_elems(const cx_desc *d)
{
	int64_t n = 1;
	for (int i = 0; i < d->rank; i++) n *= d->dim[i];
	return n;
}
