/* tensor.c - lists of tensors in files. See tensor.h. */
#include "models/files/tensor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char *cx_dims_text(int32_t rank, const int64_t *dims, char *buf, size_t size)
{
	size_t n = 0;
	if (size == 0) return buf;
	buf[0] = '\0';
	for (int32_t i = 0; i <= rank && n < size; i++) {
		int k = i < rank ? snprintf(buf + n, size - n, "%s%lld", i ? "," : "[", (long long)dims[i])
						 : snprintf(buf + n, size - n, "%s]", rank ? "" : "[");
		if (k < 0) break;
		n += (size_t)k;
	}
	return buf;
}

bool cx__dims_count(int32_t rank, const int64_t *dims, int64_t *out)
{
	int64_t n = 1;
	bool zero = false;
	for (int32_t i = 0; i < rank; i++) {
		if (dims[i] < 0) return false;
		if (dims[i] == 0) zero = true;
		else if (!cx_mul_i64(n, dims[i], &n)) return false;
	}
	*out = zero ? 0 : n;
	return true;
}

static int compare_names(const void *a, const void *b)
{
	const cx_file_tensor *const *x = a, *const *y = b;
	return strcmp((*x)->name, (*y)->name);
}

/* Where two begin at the same byte the smaller comes first: tensors without elements take no room.
 */
static int compare_data(const void *a, const void *b)
{
	const cx_file_tensor *x = *(const cx_file_tensor *const *)a,
						 *y = *(const cx_file_tensor *const *)b;
	uintptr_t p = (uintptr_t)x->data, q = (uintptr_t)y->data;
	if (p != q) return p < q ? -1 : 1;
	return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

static const cx_file_tensor **pointers(cx_arena *arena, const cx_file_tensor *at, size_t n)
{
	const cx_file_tensor **p = cx_arena_array(arena, n, sizeof *p);
	if (p)
		for (size_t i = 0; i < n; i++) p[i] = &at[i];
	return p;
}

const cx_file_tensor **cx__tensors_by_data(cx_arena *arena, const cx_file_tensor *at, size_t n)
{
	const cx_file_tensor **p = pointers(arena, at, n);
	if (p) qsort(p, n, sizeof *p, compare_data);
	return p;
}

cx_status cx__tensor_list_init(cx_tensor_list *l, cx_arena *arena, const cx_file_tensor *at,
	size_t n, const char *label, cx_err *err)
{
	const cx_file_tensor **p = pointers(arena, at, n);
	if (!p) return CX_FAIL(err, CX_ERR_MEMORY, "%s: out of memory for %zu tensors", label, n);
	qsort(p, n, sizeof *p, compare_names);
	for (size_t i = 1; i < n; i++)
		if (strcmp(p[i - 1]->name, p[i]->name) == 0)
			return CX_FAIL(
				err, CX_ERR_FORMAT, "%s: tensor '%.100s' is there twice", p[i]->file, p[i]->name);
	*l = (cx_tensor_list){at, n, p};
	return CX_OK;
}

const cx_file_tensor *cx_tensor_list_find(const cx_tensor_list *l, const char *name)
{
	cx_file_tensor key = {.name = name};
	const cx_file_tensor *k = &key, *const * hit;
	if (l->n == 0) return NULL;
	hit = bsearch(&k, l->by_name, l->n, sizeof *l->by_name, compare_names);
	return hit ? *hit : NULL;
}

cx_status cx_tensor_list_get(const cx_tensor_list *l, const char *name, int32_t rank,
	const int64_t *dims, const cx_file_tensor **out, cx_err *err)
{
	const cx_file_tensor *t = cx_tensor_list_find(l, name);
	const char *file = t ? t->file : l->n ? l->at[0].file : "the model";
	bool same = t && t->rank == rank;
	*out = NULL;
	if (!t) return CX_FAIL(err, CX_ERR_FORMAT, "%s: there is no tensor '%.80s'", file, name);
	for (int32_t i = 0; same && i < rank; i++) same = dims[i] == -1 || dims[i] == t->dims[i];
	if (!same) {
		char have[64], want[64];
		cx_dims_text(t->rank, t->dims, have, sizeof have);
		cx_dims_text(rank, dims, want, sizeof want);
		for (char *c = want; *c; c++)
			if (*c == '-') { /* -1 stands for "any": show it as "*" */
				*c = '*';
				memmove(c + 1, c + 2, strlen(c + 2) + 1);
			}
		return CX_FAIL(
			err, CX_ERR_FORMAT, "%s: tensor '%.60s' is %s, must be %s", file, name, have, want);
	}
	if (!t->usable)
		return CX_FAIL(err, CX_ERR_UNSUPPORTED,
			"%s: tensor '%.60s' has type %s, which the graph does not have", file, name,
			t->dtype_name);
	*out = t;
	return CX_OK;
}
