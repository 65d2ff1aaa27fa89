/* cortex_make.c - see cortex_make.h. */
#include "tests/cortex_make.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "graph/quant.h"

/* ---- weights and events ---- */

uint32_t golden_word(const char *name, uint32_t i)
{
	uint32_t h = 2166136261u, u;
	for (; *name; name++) h = (h ^ (unsigned char)*name) * 16777619u;
	u = h + i * 0x9e3779b9u;
	u ^= u >> 16;
	u *= 0x85ebca6bu;
	u ^= u >> 13;
	u *= 0xc2b2ae35u;
	return u ^ u >> 16;
}

void golden_values(const cx_cortex_param *p, float *out)
{
	uint64_t n = cx_cortex_param_elems(p);
	bool bias = strstr(p->name, ".bias") != NULL, norm = strstr(p->name, "norm") != NULL;
	for (uint64_t i = 0; i < n; i++) {
		double r = (double)(golden_word(p->name, (uint32_t)i) >> 8) / 8388608.0 - 1.0;
		if (bias) r = r / 4.0;
		else if (norm) r = 1.0 + r / 4.0;
		else if (p->linear) r = r * sqrt(3.0 / (double)p->dim[1]);
		out[i] = (float)r;
	}
}

cx_cortex *golden_model(const cx_cortex_config *c)
{
	cx_err err = {0};
	cx_cortex *m;
	if (cx_cortex_create(c, 0, NULL, &m, &err) != CX_OK) {
		fprintf(stderr, "golden model: %s\n", err.msg);
		exit(2);
	}
	for (size_t i = 0; i < m->n; i++) /* its memory is its own, and writable */
		golden_values(&m->w[i].p, (float *)(uintptr_t)m->w[i].data);
	return m;
}

const golden_case golden_cases[GOLDEN_CASES] = {
	{"nano", CX_CORTEX_NANO, CX_CORTEX_LAYERNORM, 5, {5, 0, 40, 1, 0}, {3, 2, 0, 1, 4}},
	{"nano_rms", CX_CORTEX_NANO, CX_CORTEX_RMSNORM, 2, {0, 17}, {0, 5}},
	{"nano_none", CX_CORTEX_NANO, CX_CORTEX_LAYERNORM, 1, {0}, {2}},
	{"xs", CX_CORTEX_XS, CX_CORTEX_LAYERNORM, 3, {512, 0, 37}, {4, 1, 2}},
	{"xs_one", CX_CORTEX_XS, CX_CORTEX_LAYERNORM, 1, {24}, {2}},
	{"s", CX_CORTEX_S, CX_CORTEX_LAYERNORM, 3, {0, 300, 1}, {1, 3, 0}},
	{"m", CX_CORTEX_M, CX_CORTEX_LAYERNORM, 1, {64}, {2}},
};

cx_cortex_config golden_config(const golden_case *k)
{
	cx_cortex_config c = cx_cortex_config_size(k->size);
	c.norm = k->norm;
	return c;
}

static int32_t *padded(int n)
{
	int32_t *v = malloc(((size_t)n + 1) * sizeof *v);
	for (int i = 0; i < n; i++) v[i] = -1;
	return v;
}

void golden_batch_make(const golden_case *k, int spare, golden_batch *b)
{
	cx_cortex_config c = golden_config(k);
	int n = 0, q = 0;
	memset(b, 0, sizeof *b);
	for (int i = 0; i < k->n_windows; i++) {
		b->off[i + 1] = n += k->n_events[i];
		b->query_off[i + 1] = q += k->n_queries[i];
	}
	b->bucket = (cx_cortex_bucket){
		.n_windows = k->n_windows, .n_events = n + spare, .n_queries = q + spare};
	b->neuron = padded(n + spare);
	b->time = padded(n + spare);
	b->value = padded(n + spare);
	b->query_neuron = padded(q + spare);
	b->query_time = padded(q + spare);
	for (int i = 0; i < n; i++) {
		uint32_t at = (uint32_t)(3 * i), values = (uint32_t)c.spike_value_buckets - 1;
		b->neuron[i] = (int32_t)(golden_word("events", at) % (uint32_t)c.max_neurons);
		b->time[i] = (int32_t)(golden_word("events", at + 1) % (uint32_t)c.max_time_bins);
		b->value[i] = 1 + (int32_t)(golden_word("events", at + 2) % values);
	}
	for (int i = 0; i < q; i++) {
		uint32_t at = (uint32_t)(2 * i);
		b->query_neuron[i] = (int32_t)(golden_word("queries", at) % (uint32_t)c.max_neurons);
		b->query_time[i] = (int32_t)(golden_word("queries", at + 1) % (uint32_t)c.max_time_bins);
	}
}

void golden_batch_free(golden_batch *b)
{
	free(b->neuron);
	free(b->time);
	free(b->value);
	free(b->query_neuron);
	free(b->query_time);
}

/* ---- expected values ---- */

double golden_value(const char *name, const char *tensor, int i)
{
	static char *text; /* read once */
	char key[80], *at;
	if (!text) {
		FILE *f = fopen("tests/golden/cortex.tsv", "rb");
		long n = 0;
		if (f && fseek(f, 0, SEEK_END) == 0) n = ftell(f);
		if (!f || n <= 0) {
			fprintf(stderr, "tests/golden/cortex.tsv cannot be read: run in the repository\n");
			exit(2);
		}
		text = calloc((size_t)n + 2, 1);
		text[0] = '\n';
		rewind(f);
		if (fread(text + 1, 1, (size_t)n, f) != (size_t)n) exit(2);
		fclose(f);
	}
	snprintf(key, sizeof key, "\n%s\t%s\t%d\t", name, tensor, i);
	at = strstr(text, key);
	return at ? strtod(at + strlen(key), NULL) : NAN;
}

int golden_count(const char *name, const char *tensor)
{
	int n = 0;
	while (!isnan(golden_value(name, tensor, n))) n++;
	return n;
}

/* ---- zip ---- */

void zip_add(zip_maker *z, const char *name, const void *data, size_t n)
{
	size_t at = z->out.n, name_n = strlen(name);
	size_t extra = (64 - (at + 30 + name_n + 4) % 64) % 64 + 4;
	bytes_u32(&z->out, 0x04034b50);
	for (int i = 0; i < 3; i++) bytes_u16(&z->out, 0); /* version, flags, method: stored */
	bytes_u32(&z->out, 0);                             /* time, date */
	bytes_u32(&z->out, 0);                             /* checksum: not looked at */
	bytes_u32(&z->out, (uint32_t)n);
	bytes_u32(&z->out, (uint32_t)n);
	bytes_u16(&z->out, (uint16_t)name_n);
	bytes_u16(&z->out, (uint16_t)extra);
	bytes_text(&z->out, name);
	for (size_t i = 0; i < extra; i++) bytes_u8(&z->out, 0);
	bytes_put(&z->out, data, n);
	bytes_u32(&z->directory, 0x02014b50);
	for (int i = 0; i < 4; i++) bytes_u16(&z->directory, 0);
	bytes_u32(&z->directory, 0);
	bytes_u32(&z->directory, 0);
	bytes_u32(&z->directory, (uint32_t)n);
	bytes_u32(&z->directory, (uint32_t)n);
	bytes_u16(&z->directory, (uint16_t)name_n);
	for (int i = 0; i < 4; i++) bytes_u16(&z->directory, 0); /* extra, comment, disk, internal */
	bytes_u32(&z->directory, 0);
	bytes_u32(&z->directory, (uint32_t)at);
	bytes_text(&z->directory, name);
	z->n++;
}

bytes zip_end(zip_maker *z)
{
	bytes out = z->out;
	size_t at = out.n;
	bytes_put(&out, z->directory.p, z->directory.n);
	bytes_u32(&out, 0x06054b50);
	bytes_u32(&out, 0);
	bytes_u16(&out, (uint16_t)z->n);
	bytes_u16(&out, (uint16_t)z->n);
	bytes_u32(&out, (uint32_t)z->directory.n);
	bytes_u32(&out, (uint32_t)at);
	bytes_u16(&out, 0);
	bytes_free(&z->directory);
	memset(z, 0, sizeof *z);
	return out;
}

/* ---- pickle ---- */

void pickle_text(bytes *b, const char *s)
{
	bytes_u8(b, 'X');
	bytes_u32(b, (uint32_t)strlen(s));
	bytes_text(b, s);
}

void pickle_int(bytes *b, int64_t v)
{
	bytes_u8(b, 0x8a); /* LONG1 */
	bytes_u8(b, 8);
	bytes_u64(b, (uint64_t)v);
}

void pickle_global(bytes *b, const char *module, const char *name)
{
	bytes_u8(b, 'c');
	bytes_text(b, module);
	bytes_u8(b, '\n');
	bytes_text(b, name);
	bytes_u8(b, '\n');
}

static void pickle_tuple(bytes *b, int rank, const int64_t *v)
{
	bytes_u8(b, '(');
	for (int i = 0; i < rank; i++) pickle_int(b, v[i]);
	bytes_u8(b, 't');
}

static void pickle_ordered_dict(bytes *b)
{
	pickle_global(b, "collections", "OrderedDict");
	bytes_u8(b, ')');
	bytes_u8(b, 'R');
}

void pickle_tensor(bytes *b, const char *storage, const char *key, int rank, const int64_t *dims)
{
	int64_t stride[8], n = 1;
	for (int i = rank; i-- > 0;) {
		stride[i] = n;
		n *= dims[i];
	}
	pickle_global(b, "torch._utils", "_rebuild_tensor_v2");
	bytes_text(b, "((");
	pickle_text(b, "storage");
	pickle_global(b, "torch", storage);
	pickle_text(b, key);
	pickle_text(b, "cpu");
	pickle_int(b, n);
	bytes_text(b, "tQ");
	pickle_int(b, 0);
	pickle_tuple(b, rank, dims);
	pickle_tuple(b, rank, stride);
	bytes_u8(b, 0x89); /* False */
	pickle_ordered_dict(b);
	bytes_text(b, "tR");
}

typedef struct torch_maker {
	bytes pkl;
	zip_maker zip;
	int n;
} torch_maker;

static void torch_tensor(torch_maker *t, const char *name, const char *storage, int rank,
	const int64_t *dims, const void *data, size_t n)
{
	char key[16], path[32];
	snprintf(key, sizeof key, "%d", t->n++);
	snprintf(path, sizeof path, "m/data/%s", key);
	pickle_text(&t->pkl, name);
	pickle_tensor(&t->pkl, storage, key, rank, dims);
	bytes_u8(&t->pkl, 's');
	zip_add(&t->zip, path, data, n);
}

/* What the calibration script writes for a linear. */
static void torch_int8(torch_maker *t, const cx_cortex_weight *w)
{
	uint64_t off = cx_i8c_scale_off(w->p.dim[0], w->p.dim[1]);
	unsigned char *q = malloc(off + 4 * (size_t)w->p.dim[0]);
	char name[96];
	cx_quant_i8c(w->data, w->p.dim[0], w->p.dim[1], q);
	snprintf(name, sizeof name, "%s_int8", w->p.name);
	torch_tensor(t, name, "CharStorage", 2, w->p.dim, q, (size_t)(w->p.dim[0] * w->p.dim[1]));
	snprintf(name, sizeof name, "%s_scale", w->p.name);
	torch_tensor(t, name, "FloatStorage", 1, w->p.dim, q + off, 4 * (size_t)w->p.dim[0]);
	free(q);
}

bytes torch_file(const cx_cortex *m, const torch_opts *o)
{
	torch_maker t = {0};
	bytes_text(&t.pkl, "\x80\x02");
	if (o->spelling) {
		bytes_u8(&t.pkl, '}');
		pickle_text(&t.pkl, "config"); /* an object that Python would build and run */
		pickle_global(&t.pkl, "os", "system");
		bytes_u8(&t.pkl, '(');
		pickle_text(&t.pkl, "touch executed");
		bytes_text(&t.pkl, "tR}");
		pickle_text(&t.pkl, "num_heads");
		pickle_int(&t.pkl, 4);
		bytes_text(&t.pkl, "sbs");
		pickle_text(&t.pkl, o->spelling);
	}
	pickle_ordered_dict(&t.pkl);
	for (size_t i = 0; i < m->n; i++) {
		const cx_cortex_weight *w = &m->w[i];
		int64_t dims[2] = {w->p.dim[0], w->p.dim[1]};
		size_t n = (size_t)w->bytes;
		void *data = calloc(n + 4 * (size_t)dims[0] + 4 * (size_t)dims[1], 1);
		memcpy(data, w->data, n);
		if ((int)i == o->bend) { /* one row more */
			n += n / (size_t)dims[0];
			dims[0]++;
		}
		if ((int)i == o->leave) n = 0;
		else if (o->int8 && w->p.linear && !strstr(w->p.name, "masked")) torch_int8(&t, w);
		else torch_tensor(&t, w->p.name, "FloatStorage", w->p.rank, dims, data, n);
		free(data);
	}
	if (o->extra) torch_tensor(&t, o->extra, "FloatStorage", 1, (int64_t[]){1}, "abcd", 4);
	if (o->spelling) bytes_u8(&t.pkl, 's');
	bytes_u8(&t.pkl, '.');
	zip_add(&t.zip, "m/data.pkl", t.pkl.p, t.pkl.n);
	zip_add(&t.zip, "m/byteorder", "little", 6);
	zip_add(&t.zip, "m/version", "3\n", 2);
	bytes_free(&t.pkl);
	return zip_end(&t.zip);
}
