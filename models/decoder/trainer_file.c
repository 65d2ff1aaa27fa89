/* trainer_file.c - a trainer to a file and back. See trainer.h.
 *
 * The file is safetensors: a parameter "x" that is trained has "x", "x.m" and "x.v"; one that is
 * not has "x" alone; "train.count" [1] is the number of steps, f32, as AdamW counts them. */
#include "models/decoder/checkpoint.h"
#include "models/decoder/trainer.h"

#include <stdio.h>
#include <string.h>

static cx_status no_memory(cx_err *err)
{
	return CX_FAIL(err, CX_ERR_MEMORY, "training: out of memory");
}

static const char *const suffix[3] = {"", ".m", ".v"};

/* Reads state `name` into new memory of the arena and describes it. */
static cx_status read_state(const cx_trainer *t, cx_arena *a, const cx_cortex_param *p,
	const char *end, bool trained, cx_file_tensor *out, cx_err *err)
{
	uint64_t bytes = cx_cortex_param_elems(p) * sizeof(float);
	char *name = cx_arena_alloc(a, sizeof p->name + 8);
	float *v = cx_arena_alloc(a, (size_t)bytes);
	if (!name || !v) return no_memory(err);
	snprintf(name, sizeof p->name + 8, "%s%s", p->name, end);
	*out = (cx_file_tensor){.name = name,
		.usable = true,
		.dtype = CX_F32,
		.rank = p->rank,
		.data = (const unsigned char *)v,
		.bytes = bytes};
	for (int32_t i = 0; i < p->rank; i++) out->dims[i] = p->dim[i];
	if (trained) return cx_store_state_read(t->store, name, v, bytes, err);
	cx_cortex_param_init(p, t->o.seed, v);
	return CX_OK;
}

static cx_cortex_param count_param(void)
{
	cx_cortex_param p = {.rank = 1, .dim = {1}};
	snprintf(p.name, sizeof p.name, "%s", cx__train_count);
	return p;
}

static cx_status write_file(const cx_trainer *t, const char *path, bool all,
	const cx_safetensors_meta_pair *meta, size_t n_meta, cx_err *err)
{
	cx_cortex_param count = count_param();
	cx_file_tensor *f;
	cx_arena a;
	size_t n = 0;
	cx_status st;
	cx_arena_init(&a, &t->alloc);
	f = cx_arena_array(&a, 3 * t->n + 1, sizeof *f);
	st = f ? CX_OK : no_memory(err);
	for (size_t i = 0; i < t->n; i++) {
		bool trained = !cx_is_none(t->used[i]);
		for (int k = 0; k < (all && trained ? 3 : 1) && st == CX_OK; k++)
			st = read_state(t, &a, &t->desc[i], suffix[k], trained, &f[n++], err);
	}
	if (st == CX_OK && all) st = read_state(t, &a, &count, "", true, &f[n++], err);
	if (st == CX_OK) st = cx_safetensors_write(&t->alloc, path, f, n, meta, n_meta, err);
	cx_arena_deinit(&a);
	return st;
}

cx_status cx_trainer_save(const cx_trainer *t, const char *path,
	const cx_safetensors_meta_pair *meta, size_t n_meta, cx_err *err)
{
	return write_file(t, path, true, meta, n_meta, err);
}

cx_status cx_trainer_export(const cx_trainer *t, const char *path,
	const cx_safetensors_meta_pair *meta, size_t n_meta, cx_err *err)
{
	cx_cortex *m;
	cx_status st;
	if (t->net.kind != CX_NET_CORTEX) return write_file(t, path, false, meta, n_meta, err);
	if ((st = cx_cortex_create(&t->net.cortex, t->o.seed, &t->alloc, &m, err)) != CX_OK) return st;
	if ((st = cx_cortex_read_states(m, t->store, t->used, err)) == CX_OK)
		st = cx_cortex_save(m, path, meta, n_meta, err);
	cx_cortex_close(m);
	return st;
}

/* ---- load ---- */

static cx_status find(const cx_safetensors *f, const cx_cortex_param *p, const char *end,
	const cx_file_tensor **out, cx_err *err)
{
	char name[sizeof p->name + 8];
	cx_status st;
	snprintf(name, sizeof name, "%s%s", p->name, end);
	st = cx_tensor_list_get(cx_safetensors_tensors(f), name, p->rank, p->dim, out, err);
	if (st == CX_OK && (*out)->dtype != CX_F32)
		st = CX_FAIL(err, CX_ERR_FORMAT, "%s: '%s' is %s, must be F32", cx_safetensors_label(f),
			name, (*out)->dtype_name);
	return st;
}

/* First everything is looked for (write false), then everything is written. */
static cx_status pass(cx_trainer *t, const cx_safetensors *f, bool write, size_t *n, cx_err *err)
{
	cx_cortex_param count = count_param();
	const cx_file_tensor *x;
	cx_status st = CX_OK;
	*n = 1;
	for (size_t i = 0; i < t->n; i++) {
		bool trained = !cx_is_none(t->used[i]);
		for (int k = 0; k < (trained ? 3 : 1); k++, ++*n) {
			if ((st = find(f, &t->desc[i], suffix[k], &x, err)) != CX_OK) return st;
			if (!write || !trained) continue;
			if ((st = cx_store_state_write(t->store, x->name, x->data, x->bytes, err)) != CX_OK)
				return st;
		}
	}
	if ((st = find(f, &count, "", &x, err)) != CX_OK || !write) return st;
	return cx_store_state_write(t->store, cx__train_count, x->data, x->bytes, err);
}

cx_status cx_trainer_load(cx_trainer *t, const char *path, cx_err *err)
{
	const cx_file_tensor *x;
	cx_cortex_param count = count_param();
	cx_safetensors *f;
	float done;
	size_t n;
	cx_status st = cx_safetensors_open(&t->alloc, path, &f, err);
	if (st != CX_OK) return st;
	if ((st = pass(t, f, false, &n, err)) != CX_OK) goto done;
	if (cx_safetensors_tensors(f)->n != n) {
		st = CX_FAIL(err, CX_ERR_FORMAT, "%s has %zu tensors, this training has %zu",
			cx_safetensors_label(f), cx_safetensors_tensors(f)->n, n);
		goto done;
	}
	if ((st = find(f, &count, "", &x, err)) != CX_OK) goto done;
	memcpy(&done, x->data, sizeof done);
	if (!(done >= 0 && done <= (float)t->o.steps)) {
		st = CX_FAIL(err, CX_ERR_FORMAT, "%s says %g steps of %lld", cx_safetensors_label(f), done,
			(long long)t->o.steps);
		goto done;
	}
	if ((st = pass(t, f, true, &n, err)) == CX_OK) t->n_done = (int64_t)done;
done:
	cx_safetensors_close(f);
	return st;
}
