/* checkpoint.c - see checkpoint.h. Import itself is in import.c. */
#include "models/decoder/checkpoint.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "graph/quant.h"
#include "models/files/torch.h"

static cx_status no_memory(cx_err *err)
{
	return CX_FAIL(err, CX_ERR_MEMORY, "decoder: out of memory");
}

static cx_status new_model(const cx_alloc *alloc, cx_cortex **out, cx_err *err)
{
	cx_cortex *m = cx_calloc(alloc, 1, sizeof *m);
	*out = m;
	if (!m) return no_memory(err);
	m->alloc = alloc && alloc->realloc ? *alloc : cx_alloc_default();
	cx_arena_init(&m->arena, alloc);
	return CX_OK;
}

void cx_cortex_close(cx_cortex *m)
{
	cx_alloc alloc;
	if (!m) return;
	alloc = m->alloc;
	cx_safetensors_close(m->safetensors);
	cx_torch_close(m->torch);
	cx_arena_deinit(&m->arena);
	cx_free(&alloc, m, sizeof *m);
}

/* ---- open and create ---- */

static bool exists(const char *dir, const char *name)
{
	char path[1200];
	struct stat info;
	return snprintf(path, sizeof path, "%s/%s", dir, name) < (int)sizeof path &&
		   stat(path, &info) == 0;
}

/* A map's first bytes tell a zip archive from safetensors. */
static cx_status open_file(cx_cortex *m, const char *path, cx_err *err)
{
	cx_file_map *map;
	cx_status st = cx_file_map_open(&m->alloc, path, &map, err);
	if (st != CX_OK) return st;
	if (map->size >= 2 && map->data[0] == 0x80 && map->data[1] <= 5) {
		st = CX_FAIL(err, CX_ERR_UNSUPPORTED,
			"%s: a bare pickle, as PyTorch wrote before 1.6: save it again", map->label);
		cx_file_map_close(map);
		return st;
	}
	if (map->size >= 4 && memcmp(map->data, "PK\3\4", 4) == 0)
		return cx_torch_open_map(&m->alloc, map, &m->torch, err);
	return cx_safetensors_open_map(&m->alloc, map, &m->safetensors, err);
}

bool cx_cortex_recognise(const char *path)
{
	struct stat info;
	cx_file_map *map;
	cx_safetensors *s;
	bool zip, yes;
	if (stat(path, &info) != 0) return false;
	if (S_ISDIR(info.st_mode)) {
		if (exists(path, ".metadata") || exists(path, "shards/.metadata")) return true;
		if (exists(path, "config.json")) return false;
	} else {
		if (cx_file_map_open(NULL, path, &map, NULL) != CX_OK) return false;
		zip = map->size >= 4 && memcmp(map->data, "PK\3\4", 4) == 0;
		cx_file_map_close(map);
		if (zip) return true;
	}
	if (cx_safetensors_open(NULL, path, &s, NULL) != CX_OK) return false;
	yes = cx_tensor_list_find(cx_safetensors_tensors(s), "encoder.latents") != NULL;
	cx_safetensors_close(s);
	return yes;
}

cx_status cx_cortex_open(const char *path, const cx_alloc *alloc, cx_cortex **out, cx_err *err)
{
	struct stat info;
	cx_cortex *m;
	cx_status st;
	*out = NULL;
	if (stat(path, &info) != 0)
		return CX_FAIL(err, CX_ERR_IO, "%s: %s", cx_path_tail(path), strerror(errno));
	if ((st = new_model(alloc, &m, err)) != CX_OK) return st;
	if (!S_ISDIR(info.st_mode)) st = open_file(m, path, err);
	else if (exists(path, ".metadata") || exists(path, "shards/.metadata"))
		st = cx_torch_open(alloc, path, &m->torch, err);
	else st = cx_safetensors_open(alloc, path, &m->safetensors, err);
	if (st == CX_OK) {
		bool torch = m->torch != NULL;
		m->container = torch ? "pytorch" : "safetensors";
		st = cx__cortex_import(m,
			torch ? cx_torch_tensors(m->torch) : cx_safetensors_tensors(m->safetensors),
			torch ? cx_torch_label(m->torch) : cx_safetensors_label(m->safetensors), err);
	}
	if (st == CX_OK) *out = m;
	else cx_cortex_close(m);
	return st;
}

cx_status cx_cortex_create(
	const cx_cortex_config *c, uint64_t seed, const cx_alloc *alloc, cx_cortex **out, cx_err *err)
{
	cx_cortex *m;
	cx_status st;
	*out = NULL;
	if ((st = cx_cortex_config_check(c, err)) != CX_OK) return st;
	if ((st = new_model(alloc, &m, err)) != CX_OK) return st;
	m->config = *c;
	m->container = "new";
	m->n = cx_cortex_n_params(c);
	m->w = cx_arena_array(&m->arena, m->n, sizeof *m->w);
	for (size_t i = 0; m->w && i < m->n && st == CX_OK; i++) {
		cx_cortex_weight *w = &m->w[i];
		float *v;
		cx_cortex_param_get(c, i, &w->p);
		w->dtype = w->narrow = CX_F32;
		w->bytes = cx_cortex_param_elems(&w->p) * sizeof *v;
		w->data = v = cx_arena_alloc(&m->arena, (size_t)w->bytes);
		if (v) cx_cortex_param_init(&w->p, seed, v);
		else st = no_memory(err);
	}
	if (!m->w) st = no_memory(err);
	if (st == CX_OK) *out = m;
	else cx_cortex_close(m);
	return st;
}

/* ---- questions ---- */

const cx_cortex_config *cx_cortex_get_config(const cx_cortex *m)
{
	return &m->config;
}

const cx_cortex_weight *cx_cortex_get_weights(const cx_cortex *m, size_t *n)
{
	*n = m->n;
	return m->w;
}

uint64_t cx_cortex_n_bytes(const cx_cortex *m)
{
	uint64_t n = 0;
	for (size_t i = 0; i < m->n; i++) n += m->w[i].bytes;
	return n;
}

const char *cx_cortex_container(const cx_cortex *m)
{
	return m->container;
}

const char *cx_cortex_get_meta(const cx_cortex *m, const char *key)
{
	return m->safetensors ? cx_safetensors_meta(m->safetensors, key) : NULL;
}

cx_status cx_cortex_set(
	cx_cortex *m, size_t index, cx_dtype dtype, const void *data, uint64_t bytes, cx_err *err)
{
	cx_cortex_weight *w = &m->w[index];
	uint64_t need;
	void *copy;
	CX_ASSERT(index < m->n);
	if (!cx_dtype_bytes(dtype, w->p.rank, w->p.dim, &need) || need != bytes)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "decoder: '%s': %llu bytes given, its dims take %llu",
			w->p.name, (unsigned long long)bytes, (unsigned long long)need);
	if (dtype != CX_F32 && dtype != CX_F16 && dtype != CX_BF16 && (!w->p.linear || dtype != CX_I8C))
		return CX_FAIL(err, CX_ERR_ARGUMENT, "decoder: '%s' cannot be %s", w->p.name,
			cx_dtype_get(dtype)->name);
	w->narrow = CX_F32;
	if (dtype != CX_F32 && !w->p.linear) {
		uint64_t n = cx_cortex_param_elems(&w->p);
		if (!(copy = cx_arena_array(&m->arena, (size_t)n, sizeof(float)))) return no_memory(err);
		cx_dequant_row(dtype, data, copy, (int64_t)n);
		w->narrow = dtype;
		dtype = CX_F32;
		bytes = n * sizeof(float);
	} else if (!(copy = cx_arena_memdup(&m->arena, data, (size_t)bytes))) {
		return no_memory(err);
	}
	w->dtype = dtype;
	w->data = copy;
	w->bytes = bytes;
	w->act_scale = 0;
	m->folded[0] = m->folded[1] = NULL;
	return CX_OK;
}

cx_status cx_cortex_set_act_scale(cx_cortex *m, size_t index, float scale, cx_err *err)
{
	cx_cortex_weight *w = &m->w[index];
	CX_ASSERT(index < m->n);
	if (scale != 0 && !(scale >= CX_ACT_SCALE_MIN && scale <= CX_ACT_SCALE_MAX))
		return CX_FAIL(err, CX_ERR_ARGUMENT, "decoder: '%s': act_scale is %g, must be in %g..%g",
			w->p.name, (double)scale, CX_ACT_SCALE_MIN, CX_ACT_SCALE_MAX);
	if (scale != 0 && w->dtype != CX_I8C)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "decoder: '%s' is %s, an act_scale is for i8c",
			w->p.name, cx_dtype_get(w->dtype)->name);
	w->act_scale = scale;
	m->folded[0] = m->folded[1] = NULL;
	return CX_OK;
}

/* ---- store ---- */

static cx_status bind_weights(const cx_cortex *m, cx_store *store, cx_err *err)
{
	for (size_t i = 0; i < m->n; i++) {
		const cx_cortex_weight *w = &m->w[i];
		cx_status st = cx_store_weight(
			store, w->p.name, w->dtype, w->p.rank, w->p.dim, w->data, w->bytes, err);
		if (st != CX_OK) return st;
	}
	return CX_OK;
}

static cx_tensor weight_leaf(void *ctx, cx_graph *g, const cx_cortex_param *p, size_t index)
{
	const cx_cortex *m = ctx;
	return cx_weight(g, p->name, m->w[index].dtype, p->rank, p->dim);
}

static cx_tensor scaled_product(
	void *ctx, cx_graph *g, const cx_cortex_param *p, size_t index, cx_tensor x, cx_tensor w)
{
	const cx_cortex *m = ctx;
	(void)p;
	return cx_matmul(
		g, x, w, &(cx_attr_matmul){.trans_b = true, .act_scale = m->w[index].act_scale});
}

cx_cortex_source cx_cortex_get_source(const cx_cortex *m)
{
	return (cx_cortex_source){.get = weight_leaf,
		.ctx = (void *)m,
		.folded = m->folded[0] != NULL,
		.product = scaled_product};
}

static const char *const fold_out[2] = {"cross_q", "behavior_q"};
static const char *const fold_leaf[2] = {"folded.cross_q", "folded.behavior_q"};

static int64_t fold_rows(const cx_cortex *m, int i)
{
	return i == 0 ? m->config.num_latents : m->config.behavior_dim;
}

static uint64_t fold_bytes(const cx_cortex *m, int i)
{
	return (uint64_t)fold_rows(m, i) * (uint64_t)m->config.latent_dim * sizeof(float);
}

/* Computes what depends on the weights alone, with a graph of its own over the same store. */
static cx_status fold(cx_cortex *m, cx_device *dev, cx_store *store, cx_err *err)
{
	cx_plan_opts opts = {.devices = &dev, .n_devices = 1};
	cx_cortex_source src = cx_cortex_get_source(m);
	cx_graph *g = NULL;
	cx_plan *plan = NULL;
	cx_exec *x = NULL;
	float *v[2] = {NULL, NULL};
	cx_status st;
	if ((st = cx_graph_create(&m->alloc, &g, err)) != CX_OK) return st;
	cx_cortex_fold_build(&m->config, &src, g);
	if ((st = cx_graph_finish(g, err)) != CX_OK ||
		(st = cx_plan_build(g, &opts, &plan, err)) != CX_OK ||
		(st = cx_exec_create(plan, store, &x, err)) != CX_OK || (st = cx_exec_run(x, err)) != CX_OK)
		goto done;
	for (int i = 0; i < 2 && st == CX_OK; i++) {
		v[i] = cx_arena_alloc(&m->arena, (size_t)fold_bytes(m, i));
		st = v[i] ? cx_exec_get_output(
						x, cx_exec_output(x, fold_out[i]), v[i], fold_bytes(m, i), err)
				  : no_memory(err);
	}
	if (st == CX_OK) memcpy(m->folded, v, sizeof v);
done:
	cx_exec_free(x);
	cx_plan_free(plan);
	cx_graph_free(g);
	return st;
}

cx_status cx_cortex_bind(cx_cortex *m, cx_runtime *rt, cx_device *dev, cx_store *store, cx_err *err)
{
	cx_status st;
	(void)rt;
	if ((st = bind_weights(m, store, err)) != CX_OK) return st;
	if (!m->folded[0] && (st = fold(m, dev, store, err)) != CX_OK) return st;
	for (int i = 0; i < 2; i++) {
		int64_t dims[2] = {fold_rows(m, i), m->config.latent_dim};
		st = cx_store_weight(
			store, fold_leaf[i], CX_F32, 2, dims, m->folded[i], fold_bytes(m, i), err);
		if (st != CX_OK) return st;
	}
	return CX_OK;
}

void cx_cortex_weight_f32(const cx_cortex_weight *w, float *out)
{
	int64_t k = w->p.dim[1];
	if (w->dtype != CX_I8C) {
		cx_dequant_row(w->dtype, w->data, out, (int64_t)cx_cortex_param_elems(&w->p));
		return;
	}
	for (int64_t r = 0; r < w->p.dim[0]; r++)
		cx_dequant_i8c_row(w->data, w->p.dim[0], k, r, out + r * k);
}

cx_status cx_cortex_write_states(
	const cx_cortex *m, cx_store *store, const cx_tensor *param, cx_err *err)
{
	cx_status st = CX_OK;
	for (size_t i = 0; i < m->n && st == CX_OK; i++) {
		const cx_cortex_weight *w = &m->w[i];
		uint64_t bytes = cx_cortex_param_elems(&w->p) * sizeof(float);
		float *v;
		if (param && cx_is_none(param[i])) continue;
		v = w->dtype == CX_F32 ? NULL : cx_malloc(&m->alloc, (size_t)bytes);
		if (w->dtype != CX_F32 && !v) return no_memory(err);
		if (v) cx_cortex_weight_f32(w, v);
		st = cx_store_state_write(store, w->p.name, v ? v : w->data, bytes, err);
		cx_free(&m->alloc, v, (size_t)bytes);
	}
	return st;
}

cx_status cx_cortex_read_states(cx_cortex *m, cx_store *store, const cx_tensor *param, cx_err *err)
{
	for (size_t i = 0; i < m->n; i++) {
		cx_cortex_weight *w = &m->w[i];
		uint64_t bytes = cx_cortex_param_elems(&w->p) * sizeof(float);
		void *v = (void *)(uintptr_t)w->data;
		cx_status st;
		if (param && cx_is_none(param[i])) continue;
		/* memory of our own can be overwritten; a file's cannot */
		if (w->dtype != CX_F32 || m->safetensors || m->torch)
			v = cx_arena_alloc(&m->arena, (size_t)bytes);
		if (!v) return no_memory(err);
		if ((st = cx_store_state_read(store, w->p.name, v, bytes, err)) != CX_OK) return st;
		w->dtype = w->narrow = CX_F32;
		w->data = v;
		w->bytes = bytes;
		w->act_scale = 0;
	}
	m->folded[0] = m->folded[1] = NULL;
	return CX_OK;
}

/* ---- save ---- */

enum { OWN_META = 5 };

void cx__cortex_act_name(const char *weight, char *out, size_t size)
{
	snprintf(out, size, "%.*s.act_scale", (int)(strlen(weight) - strlen(".weight")), weight);
}

/* F32 data that a narrower type holds exactly, in that type. */
static bool put_narrow(cx_arena *arena, const cx_cortex_weight *w, cx_file_tensor *t)
{
	uint64_t n = cx_cortex_param_elems(&w->p);
	uint16_t *v = cx_arena_array(arena, (size_t)n, sizeof *v);
	if (!v) return false;
	cx_quant_row(w->narrow, w->data, v, (int64_t)n);
	t->dtype = w->narrow;
	t->data = (const unsigned char *)v;
	t->bytes = n * sizeof *v;
	return true;
}

/* Fills t[0] to t[2] as far as needed; how many, 0: out of memory. */
static size_t put_weight(cx_arena *arena, const cx_cortex_weight *w, cx_file_tensor *t)
{
	uint64_t off;
	char *int8, *scale, *act;
	*t = (cx_file_tensor){.name = w->p.name,
		.usable = true,
		.dtype = w->dtype,
		.rank = w->p.rank,
		.data = w->data,
		.bytes = w->bytes};
	for (int32_t i = 0; i < w->p.rank; i++) t->dims[i] = w->p.dim[i];
	if (w->dtype == CX_F32 && w->narrow != CX_F32) return put_narrow(arena, w, t);
	if (w->dtype != CX_I8C) return 1;
	int8 = cx_arena_alloc(arena, sizeof w->p.name + 8);
	scale = cx_arena_alloc(arena, sizeof w->p.name + 8);
	act = cx_arena_alloc(arena, sizeof w->p.name + 8);
	if (!int8 || !scale || !act) return 0;
	snprintf(int8, sizeof w->p.name + 8, "%s_int8", w->p.name);
	snprintf(scale, sizeof w->p.name + 8, "%s_scale", w->p.name);
	off = cx_i8c_scale_off(w->p.dim[0], w->p.dim[1]);
	t[1] = (cx_file_tensor){.name = scale,
		.usable = true,
		.dtype = CX_F32,
		.rank = 1,
		.dims = {w->p.dim[0]},
		.data = (const unsigned char *)w->data + off,
		.bytes = 4 * (uint64_t)w->p.dim[0]};
	t[0].name = int8;
	t[0].dtype = CX_I8;
	t[0].bytes = (uint64_t)w->p.dim[0] * (uint64_t)w->p.dim[1];
	if (!(w->act_scale > 0)) return 2;
	cx__cortex_act_name(w->p.name, act, sizeof w->p.name + 8);
	t[2] = (cx_file_tensor){.name = act,
		.usable = true,
		.dtype = CX_F32,
		.rank = 1,
		.dims = {1},
		.data = (const unsigned char *)&w->act_scale,
		.bytes = sizeof w->act_scale};
	return 3;
}

/* Larger elements first, so that all stay aligned in the file. */
static void sort_by_size(const cx_file_tensor *from, size_t n, cx_file_tensor *to)
{
	size_t k = 0;
	for (int size = 8; size >= 1; size /= 2)
		for (size_t i = 0; i < n; i++)
			if (cx_dtype_get(from[i].dtype)->block_bytes == size) to[k++] = from[i];
	CX_ASSERT(k == n);
}

cx_status cx_cortex_save(const cx_cortex *m, const char *path, const cx_safetensors_meta_pair *meta,
	size_t n_meta, cx_err *err)
{
	cx_arena arena;
	cx_file_tensor *t, *sorted;
	cx_safetensors_meta_pair *all;
	char heads[24], cross[24];
	size_t n = 0, k;
	cx_status st;
	cx_arena_init(&arena, &m->alloc);
	t = cx_arena_array(&arena, 3 * m->n, sizeof *t);
	sorted = cx_arena_array(&arena, 3 * m->n, sizeof *t);
	all = cx_arena_array(&arena, n_meta + OWN_META, sizeof *all);
	st = t && sorted && all ? CX_OK : no_memory(err);
	for (size_t i = 0; i < m->n && st == CX_OK; i++, n += k)
		if ((k = put_weight(&arena, &m->w[i], t + n)) == 0) st = no_memory(err);
	if (st == CX_OK) {
		snprintf(heads, sizeof heads, "%lld", (long long)m->config.num_heads);
		snprintf(cross, sizeof cross, "%lld", (long long)m->config.cross_attn_heads);
		all[0] = (cx_safetensors_meta_pair){"format", "cortex-decoder-1"};
		all[1] = (cx_safetensors_meta_pair){"model", cx_cortex_config_name(&m->config)};
		all[2] = (cx_safetensors_meta_pair){"num_heads", heads};
		all[3] = (cx_safetensors_meta_pair){"cross_attn_heads", cross};
		all[4] = (cx_safetensors_meta_pair){
			"norm", m->config.norm == CX_CORTEX_RMSNORM ? "rmsnorm" : "layernorm"};
		for (size_t i = 0; i < n_meta; i++) all[OWN_META + i] = meta[i];
		sort_by_size(t, n, sorted);
		st = cx_safetensors_write(&m->alloc, path, sorted, n, all, n_meta + OWN_META, err);
	}
	cx_arena_deinit(&arena);
	return st;
}
