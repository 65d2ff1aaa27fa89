/* test_cortex_files.c - checkpoints of the Cortex decoder: every container, export and back, what
 * is missing, too many or bent, pickles that would run something, archives cut anywhere. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include "graph/quant.h"
#include "models/files/pickle.h"
#include "models/files/torch.h"
#include "models/files/zip.h"
#include "tests/cortex_make.h"

#define OK(call)                                                                                   \
	do {                                                                                           \
		cx_err err_ = {0}, *err = &err_;                                                           \
		cx_status st_ = (call);                                                                    \
		if (st_ != CX_OK) fail_msg("%s: %s", #call, err_.msg);                                     \
	} while (0)

static cx_cortex *nano; /* golden weights */

static int make_nano(void **state)
{
	cx_cortex_config c = cx_cortex_config_size(CX_CORTEX_NANO);
	(void)state;
	nano = golden_model(&c);
	return 0;
}

static int free_nano(void **state)
{
	(void)state;
	cx_cortex_close(nano);
	return 0;
}

static const char *saved(const bytes *b, const char *name)
{
	const char *path = temp_path(name);
	bytes_save(b, path);
	return path;
}

/* Same geometry, names and values, but for linears where int8. */
static void same_model(const cx_cortex *a, const cx_cortex *b, bool int8)
{
	assert_memory_equal(&a->config, &b->config, sizeof a->config);
	assert_int_equal(a->n, b->n);
	for (size_t i = 0; i < a->n; i++) {
		const cx_cortex_weight *x = &a->w[i], *y = &b->w[i];
		assert_string_equal(x->p.name, y->p.name);
		if (int8 && y->dtype == CX_I8C) {
			int64_t n = x->p.dim[0], k = x->p.dim[1];
			float *row = malloc((size_t)k * 4);
			for (int64_t r = 0; r < n; r++) {
				const float *want = (const float *)x->data + r * k;
				float scale = cx_i8c_scale(y->data, n, k, r);
				cx_dequant_i8c_row(y->data, n, k, r, row);
				for (int64_t c = 0; c < k; c++)
					assert_true(fabsf(row[c] - want[c]) <= 0.5001f * scale);
			}
			free(row);
			continue;
		}
		assert_int_equal(y->dtype, CX_F32);
		assert_int_equal(x->bytes, y->bytes);
		assert_memory_equal(x->data, y->data, x->bytes);
	}
}

/* ---- containers ---- */

static void pt_files(void **state)
{
	static const char *const spellings[] = {"model_state_dict", "model", "state_dict", NULL};
	(void)state;
	for (int i = 0; i < 4; i++) {
		torch_opts o = {.spelling = spellings[i], .leave = -1, .bend = -1};
		bytes b = torch_file(nano, &o);
		cx_cortex *m;
		OK(cx_cortex_open(saved(&b, "model.pt"), NULL, &m, err));
		same_model(nano, m, false);
		assert_string_equal(cx_cortex_container(m), "pytorch");
		assert_string_equal(cx_cortex_config_name(cx_cortex_get_config(m)), "nano");
		cx_cortex_close(m);
		fuzz_seed("fuzz_checkpoint", spellings[i] ? spellings[i] : "bare", &b);
		bytes_free(&b);
	}
	assert_true(access("executed", F_OK) != 0); /* what the file's object asked for */
}

static void int8_files(void **state)
{
	torch_opts o = {.spelling = "state_dict", .leave = -1, .bend = -1, .int8 = true};
	bytes b = torch_file(nano, &o);
	cx_cortex *m, *again;
	struct stat info;
	int n = 0;
	(void)state;
	OK(cx_cortex_open(saved(&b, "int8.pt"), NULL, &m, err));
	same_model(nano, m, true);
	for (size_t i = 0; i < m->n; i++) n += m->w[i].dtype == CX_I8C;
	assert_int_equal(n, 6 + 4 * 3); /* all linears but that of the masked-spike head */
	OK(cx_cortex_save(m, temp_path("int8.safetensors"), NULL, 0, err));
	OK(cx_cortex_open(temp_path("int8.safetensors"), NULL, &again, err));
	for (size_t i = 0; i < m->n; i++) {
		assert_int_equal(m->w[i].dtype, again->w[i].dtype);
		assert_int_equal(m->w[i].bytes, again->w[i].bytes);
		assert_memory_equal(m->w[i].data, again->w[i].data, m->w[i].bytes);
	}
	assert_int_equal(stat(temp_path("int8.safetensors"), &info), 0);
	print_message("# nano: %llu bytes as f32, %lld as int8\n",
		(unsigned long long)cx_cortex_n_bytes(nano), (long long)info.st_size);
	cx_cortex_close(m);
	cx_cortex_close(again);
	bytes_free(&b);
}

/* A record of torch.distributed.checkpoint.metadata: NEWOBJ, then BUILD of the pairs that
 * follow. */
static void record(bytes *b, const char *name)
{
	pickle_global(b, "torch.distributed.checkpoint.metadata", name);
	bytes_text(b, ")\x81}(");
}

static void size_of(bytes *b, int rank, const int64_t *v)
{
	pickle_global(b, "torch", "Size");
	bytes_text(b, "((");
	for (int i = 0; i < rank; i++) pickle_int(b, v[i]);
	bytes_text(b, "ttR");
}

/* One tensor as two archives (rows [0,half) and the rest) in two shards; flaw: see bad_shards. */
static void put_shards(bytes meta[2], bytes shard[2], const cx_cortex_weight *w, int flaw)
{
	int64_t rows = w->p.dim[0], half = w->p.rank == 2 && rows > 1 ? rows / 2 : rows;
	size_t row = (size_t)w->bytes / (size_t)rows;
	char name[96];
	snprintf(name, sizeof name, "model.%s", w->p.name);
	pickle_text(&meta[0], name);
	record(&meta[0], "TensorStorageMetadata");
	pickle_text(&meta[0], "size");
	size_of(&meta[0], w->p.rank, w->p.dim);
	bytes_text(&meta[0], "ub");
	for (int part = 0; part < (half < rows ? 2 : 1); part++) {
		int64_t off[2] = {part ? half : 0, 0}, dims[2] = {part ? rows - half : half, w->p.dim[1]};
		zip_maker z = {0};
		bytes pkl = {0}, blob;
		bytes_text(&pkl, "\x80\x02");
		pickle_tensor(&pkl, "FloatStorage", "0", w->p.rank, dims);
		bytes_u8(&pkl, '.');
		zip_add(&z, "archive/data.pkl", pkl.p, pkl.n);
		zip_add(&z, "archive/data/0", (const char *)w->data + (size_t)off[0] * row,
			(size_t)dims[0] * row);
		blob = zip_end(&z);
		if (flaw == 1 && part == 1) off[0] = 0;
		record(&meta[1], "MetadataIndex");
		pickle_text(&meta[1], "fqn");
		pickle_text(&meta[1], name);
		pickle_text(&meta[1], "offset");
		size_of(&meta[1], w->p.rank, off);
		bytes_text(&meta[1], "ub");
		record(&meta[1], "_StorageInfo");
		pickle_text(&meta[1], "relative_path");
		pickle_text(&meta[1], flaw == 2 ? "../x.distcp" : part ? "__1_0.distcp" : "__0_0.distcp");
		pickle_text(&meta[1], "offset");
		pickle_int(&meta[1], (int64_t)shard[part].n);
		pickle_text(&meta[1], "length");
		pickle_int(&meta[1], (int64_t)blob.n + (flaw == 3 ? 1 << 30 : 0));
		bytes_text(&meta[1], "ub");
		bytes_put(&shard[part], blob.p, blob.n);
		bytes_free(&blob);
		bytes_free(&pkl);
		if (flaw == 4) break; /* half a tensor */
	}
}

static cx_status open_shards(int flaw, cx_cortex **m, cx_err *err)
{
	bytes meta[2] = {{0}}, shard[2] = {{0}}, whole = {0};
	char dir[1200], path[1300];
	cx_status st;
	snprintf(dir, sizeof dir, "%s", temp_path("dist"));
	mkdir(dir, 0777);
	snprintf(path, sizeof path, "%s/shards", dir);
	mkdir(path, 0777);
	for (size_t i = 0; i < nano->n; i++) put_shards(meta, shard, &nano->w[i], i == 3 ? flaw : 0);
	bytes_text(&whole, "\x80\x02");
	record(&whole, "Metadata");
	pickle_text(&whole, "state_dict_metadata");
	bytes_text(&whole, "}(");
	bytes_put(&whole, meta[0].p, meta[0].n);
	bytes_text(&whole, "u");
	pickle_text(&whole, "storage_data");
	bytes_text(&whole, "}(");
	bytes_put(&whole, meta[1].p, meta[1].n);
	bytes_text(&whole, "uub.");
	snprintf(path, sizeof path, "%s/shards/.metadata", dir);
	bytes_save(&whole, path);
	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof path, "%s/shards/__%d_0.distcp", dir, i);
		bytes_save(&shard[i], path);
	}
	st = cx_cortex_open(dir, NULL, m, err);
	bytes_free(&whole);
	for (int i = 0; i < 2; i++) {
		bytes_free(&meta[i]);
		bytes_free(&shard[i]);
	}
	return st;
}

static void sharded_files(void **state)
{
	static const char *const want[] = {
		NULL, "overlap", "not beside it", "outside its shard", "is not whole"};
	cx_cortex *m;
	(void)state;
	OK(open_shards(0, &m, err));
	same_model(nano, m, false);
	cx_cortex_close(m);
	for (int flaw = 1; flaw < 5; flaw++) {
		cx_err err = {0};
		assert_int_equal(open_shards(flaw, &m, &err), CX_ERR_FORMAT);
		assert_null(m);
		if (!strstr(err.msg, want[flaw])) fail_msg("'%s' for '%s'", err.msg, want[flaw]);
	}
}

static void safetensors_files(void **state)
{
	static const cx_safetensors_meta_pair meta[] = {{"behavior_sd", "1.5 2.5"}};
	cx_cortex_config odd = cx_cortex_config_size(CX_CORTEX_NANO);
	cx_cortex *m, *again;
	(void)state;
	OK(cx_cortex_save(nano, temp_path("n.safetensors"), meta, 1, err));
	OK(cx_cortex_open(temp_path("n.safetensors"), NULL, &m, err));
	same_model(nano, m, false);
	assert_string_equal(cx_cortex_get_meta(m, "behavior_sd"), "1.5 2.5");
	assert_null(cx_cortex_get_meta(m, "behavior_mean"));
	assert_string_equal(cx_cortex_container(m), "safetensors");
	cx_cortex_close(m);
	odd.num_heads = 2; /* shapes alone could not tell */
	odd.head_dim = 32;
	odd.cross_attn_heads = 8;
	odd.norm = CX_CORTEX_RMSNORM;
	odd.use_masked_spike_head = false;
	odd.mlp_ratio = 2.7;
	OK(cx_cortex_create(&odd, 5, NULL, &m, err));
	OK(cx_cortex_save(m, temp_path("o.safetensors"), NULL, 0, err));
	OK(cx_cortex_open(temp_path("o.safetensors"), NULL, &again, err));
	assert_int_equal(cx_cortex_mlp_hidden(&again->config), 172);
	again->config.mlp_ratio = 2.7;
	same_model(m, again, false);
	cx_cortex_close(again);
	cx_cortex_close(m);
}

/* f16 and bf16: linears stay, the others become f32, and what they were in a file. */
static void half_precision(void **state)
{
	cx_cortex_config c = cx_cortex_config_size(CX_CORTEX_NANO);
	cx_cortex *m, *again;
	size_t n = 0;
	(void)state;
	OK(cx_cortex_create(&c, 5, NULL, &m, err));
	for (size_t i = 0; i < m->n; i++) {
		cx_cortex_weight *w = &m->w[i];
		uint64_t elems = cx_cortex_param_elems(&w->p);
		uint16_t *half = malloc((size_t)elems * 2);
		cx_dtype t = i % 2 ? CX_F16 : CX_BF16;
		cx_quant_row(t, w->data, half, (int64_t)elems);
		OK(cx_cortex_set(m, i, t, half, elems * 2, err));
		assert_int_equal(w->dtype, w->p.linear ? t : CX_F32);
		assert_int_equal(w->narrow, w->p.linear ? CX_F32 : t);
		n += w->p.linear;
		free(half);
	}
	assert_int_equal(cx_cortex_set(m, 0, CX_F32, "", 4, NULL), CX_ERR_ARGUMENT);
	OK(cx_cortex_save(m, temp_path("h.safetensors"), NULL, 0, err));
	OK(cx_cortex_open(temp_path("h.safetensors"), NULL, &again, err));
	for (size_t i = 0; i < m->n; i++) {
		assert_int_equal(m->w[i].dtype, again->w[i].dtype);
		assert_int_equal(m->w[i].narrow, again->w[i].narrow);
		assert_memory_equal(m->w[i].data, again->w[i].data, m->w[i].bytes);
	}
	assert_int_equal(n, 7 + 4 * 3);
	cx_cortex_close(m);
	cx_cortex_close(again);
}

/* ---- strictness ---- */

static void expect(const torch_opts *o, const char *want, const char *also)
{
	bytes b = torch_file(nano, o);
	cx_cortex *m;
	cx_err err = {0};
	assert_int_equal(cx_cortex_open(saved(&b, "bad.pt"), NULL, &m, &err), CX_ERR_FORMAT);
	assert_null(m);
	if (!strstr(err.msg, want) || !strstr(err.msg, also) || !strstr(err.msg, "bad.pt"))
		fail_msg("'%s' for '%s', '%s'", err.msg, want, also);
	bytes_free(&b);
}

static void strict(void **state)
{
	(void)state;
	for (size_t i = 0; i < nano->n; i++) {
		torch_opts o = {.spelling = "model", .leave = (int)i, .bend = -1};
		const char *name = nano->w[i].p.name;
		expect(&o, "there is no tensor", name);
		o.leave = -1;
		o.bend = (int)i;
		/* sizes that only this tensor tells move to the next one that must agree */
		if (strcmp(name, "tokenizer.neuron_emb.weight") == 0 || strstr(name, "time_emb") ||
			strstr(name, "value_emb") || strcmp(name, "encoder.latents") == 0 ||
			strcmp(name, "behavior_head.query") == 0 || strstr(name, "blocks.0.mlp.0"))
			continue;
		expect(&o, "must be", name);
	}
	expect(&(torch_opts){.spelling = "model", .leave = -1, .bend = -1, .extra = "encoder.rope"},
		"encoder.rope", "not one of");
	expect(
		&(torch_opts){.leave = -1, .bend = -1, .extra = "encoder.self_attn_blocks.3.norm_mlp.bias"},
		"there is no tensor", "encoder.self_attn_blocks.3.");
	expect(&(torch_opts){.leave = -1, .bend = -1, .extra = "encoder.latents"}, "twice",
		"encoder.latents");
	expect(&(torch_opts){.leave = -1, .bend = -1, .extra = "encoder.self_attn_blocks.900.x"},
		"num_layers is 901", "");
}

/* ---- damage ---- */

/* Cut anywhere, or one byte changed anywhere: refused, or tensors inside the file. */
static void damaged(void **state)
{
	torch_opts o = {.spelling = "model", .leave = -1, .bend = -1};
	bytes b = torch_file(nano, &o);
	uint32_t r = 1;
	int refused = 0, n = 0;
	(void)state;
	for (size_t cut = 1; cut < b.n; cut += 1 + cut / 8 + b.n / 300) {
		cx_file_map *map;
		cx_torch *t;
		cx_err err = {0};
		OK(cx_file_map_copy(NULL, "cut.pt", b.p, cut, &map, err));
		assert_int_not_equal(cx_torch_open_map(NULL, map, &t, &err), CX_OK);
		assert_true(err.msg[0] != 0);
	}
	for (int i = 0; i < 3000; i++, n++) {
		size_t tail = 24000, at; /* directory and pickle */
		cx_file_map *map;
		cx_torch *t;
		cx_err err = {0};
		unsigned char was;
		r = r * 1664525u + 1013904223u;
		at = b.n - 1 - (size_t)(r >> 8) % (b.n < tail ? b.n : tail);
		was = b.p[at];
		b.p[at] ^= (unsigned char)(1u << (r >> 5 & 7));
		OK(cx_file_map_copy(NULL, "bent.pt", b.p, b.n, &map, err));
		if (cx_torch_open_map(NULL, map, &t, &err) != CX_OK) {
			assert_true(err.msg[0] != 0);
			refused++;
		} else {
			volatile unsigned sum = 0;
			for (size_t k = 0; k < cx_torch_tensors(t)->n; k++) {
				const cx_file_tensor *x = &cx_torch_tensors(t)->at[k];
				if (x->bytes) sum += x->data[0] + x->data[x->bytes - 1];
			}
			(void)sum;
			cx_torch_close(t);
		}
		b.p[at] = was;
	}
	print_message("# %d of %d files with one bit changed refused\n", refused, n);
	assert_true(refused > n / 10 && refused < n);
	bytes_free(&b);
}

static void bad_pickles(void **state)
{
	static const struct {
		const char *text;
		size_t n;
		const char *want;
	} cases[] = {{"\x80\x02", 2, "ends inside"}, {"\x80\x09.", 3, "newer than 5"},
		{".", 1, "missing on the stack"}, {"(.", 2, "missing on the stack"},
		{"t.", 2, "mark is missing"}, {"NR.", 3, "missing on the stack"}, {"i", 1, "opcode 0x69"},
		{"\x82\x01.", 3, "opcode 0x82"}, {"P0\n.", 4, "opcode 0x50"}, {"N(Ne.", 5, "no list"},
		{"}(Nu.", 5, "without a value"}, {"NNNs.", 5, "no dict"}, {"NNb.", 4, "no object"},
		{"NNa.", 4, "no list"}, {"h\0.", 3, "never made"},
		{"Nr\xff\xff\xff\xff.", 7, "out of range"},
		{"X\xff\xff\xff\xff"
		 "a.",
			7, "ends inside"},
		{"NN\x93.", 4, "no text"}, {"cos\nsystem", 10, "ends inside"}, {"0.", 2, "missing"}};
	cx_arena arena = {0};
	const cx_pickle *v;
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		cx_err err = {0};
		unsigned char *exact = malloc(cases[i].n);
		memcpy(exact, cases[i].text, cases[i].n);
		assert_int_equal(cx_pickle_parse(&arena, "p", exact, cases[i].n, &v, &err), CX_ERR_FORMAT);
		if (!strstr(err.msg, cases[i].want)) fail_msg("'%s' for '%s'", err.msg, cases[i].want);
		free(exact);
	}
	/* a list that holds itself, a negative number, a long one, a float */
	OK(cx_pickle_parse(&arena, "p", (const unsigned char *)"]q\0h\0a.", 7, &v, err));
	assert_ptr_equal(v->at[0], v);
	OK(cx_pickle_parse(&arena, "p", (const unsigned char *)"\x8a\x01\xfe.", 4, &v, err));
	assert_int_equal(v->i, -2);
	OK(cx_pickle_parse(
		&arena, "p", (const unsigned char *)"\x8a\x09\0\0\0\0\0\0\0\0\xff.", 12, &v, err));
	assert_true(v->kind == CX_PICKLE_FLOAT && v->f == -0x1p64);
	OK(cx_pickle_parse(&arena, "p", (const unsigned char *)"G\xbf\xf8\0\0\0\0\0\0.", 10, &v, err));
	assert_true(v->f == -1.5);
	cx_arena_deinit(&arena);
}

static void zip_with(const char *want, size_t at, size_t n, const char *value)
{
	zip_maker z = {0};
	bytes b;
	cx_zip zip;
	cx_arena arena = {0};
	cx_err err = {0};
	zip_add(&z, "a", "xyz", 3);
	zip_add(&z, "b", "12", 2);
	b = zip_end(&z);
	memcpy(b.p + b.n - at, value, n);
	assert_int_not_equal(cx_zip_open(&zip, &arena, "z", b.p, b.n, &err), CX_OK);
	if (!strstr(err.msg, want)) fail_msg("'%s' for '%s'", err.msg, want);
	cx_arena_deinit(&arena);
	bytes_free(&b);
}

/* The end record is the last 22 bytes, before it two records of 47. */
static void bad_archives(void **state)
{
	zip_maker z = {0};
	cx_arena arena = {0};
	cx_zip zip;
	bytes b;
	(void)state;
	zip_add(&z, "a/", "", 0);
	zip_add(&z, "b", "12", 2);
	zip_add(&z, "a", "xyz", 3);
	b = zip_end(&z);
	OK(cx_zip_open(&zip, &arena, "z", b.p, b.n, err));
	assert_int_equal(zip.n, 2);
	assert_memory_equal(cx_zip_find(&zip, "a")->data, "xyz", 3);
	assert_null(cx_zip_find(&zip, "c"));
	bytes_free(&b);
	cx_arena_deinit(&arena);
	zip_with("no directory", 22, 4, "PK\5\7");
	zip_with("zip64 archive", 12, 2, "\xff\xff");
	zip_with("several volumes", 18, 2, "\1\0");
	zip_with("directory passes", 10, 4, "\xff\xff\xff\0");
	zip_with("directory is damaged", 22 + 47, 4, "PK\1\3");
	zip_with("compressed", 22 + 47 - 10, 2, "\x8\0");
	zip_with("encrypted", 22 + 47 - 8, 2, "\1\0");
	zip_with("zip64", 22 + 47 - 24, 4, "\xff\xff\xff\xff");
	zip_with("where the directory says", 22 + 47 - 42, 4, "\1\0\0\0");
	zip_with("where the directory says", 22 + 47 - 42, 4, "\xff\xff\xff\x7f");
	zip_with("passes the end", 22 + 47 - 20, 8, "\xff\xff\xff\0\xff\xff\xff\0");
	zip_with("in the archive twice", 22 + 1, 1, "a");
}

/* Every allocation fails in turn: an error each time, nothing left behind. */
static void out_of_memory(void **state)
{
	torch_opts o = {.spelling = "model", .leave = -1, .bend = -1, .int8 = true};
	bytes b = torch_file(nano, &o);
	char path[1200];
	long n = 0;
	(void)state;
	snprintf(path, sizeof path, "%s", saved(&b, "mem.pt")); /* its storage is used again */
	for (;; n++) {
		cx_fault fault = {.countdown = n};
		cx_alloc a = cx_alloc_fault(&fault);
		cx_cortex *m;
		cx_err err = {0};
		cx_status st = cx_cortex_open(path, &a, &m, &err);
		if (st == CX_OK) st = cx_cortex_save(m, temp_path("mem.safetensors"), NULL, 0, &err);
		cx_cortex_close(m);
		assert_int_equal(fault.n_live, 0);
		if (!fault.fired) {
			assert_int_equal(st, CX_OK);
			break;
		}
		assert_int_equal(st, CX_ERR_MEMORY);
	}
	print_message("# %ld allocations failed in turn\n", n);
	assert_true(n > 10);
	bytes_free(&b);
}

/* ---- the command ---- */

static char binary[1100];

/* Runs `cortex ARGS`; what it prints, stderr too, goes to text. Gives what pclose() does. */
static int cortex(const char *args, char *text, size_t size)
{
	char line[2400];
	size_t n;
	FILE *f;
	snprintf(line, sizeof line, "%s %s 2>&1", binary, args);
	f = popen(line, "r");
	assert_non_null(f);
	n = fread(text, 1, size - 1, f);
	text[n] = 0;
	return pclose(f);
}

static int info(const char *args, char *text, size_t size)
{
	char line[2300];
	snprintf(line, sizeof line, "decoder info %s", args);
	return cortex(line, text, size);
}

/* Commands that look at a model take a decoder: a size, or a checkpoint of any container. */
static void dumped(void **state)
{
	torch_opts o = {.spelling = "state_dict", .leave = -1, .bend = -1, .int8 = true};
	bytes b = torch_file(nano, &o);
	char *text = malloc(1 << 18), args[1400];
	(void)state;
	assert_int_equal(
		cortex("dump -m nano --bucket 100 --stage planned --backend cpu", text, 1 << 18), 0);
	assert_non_null(strstr(text, "weight \"folded.cross_q\" : f32[32,64]"));
	assert_non_null(strstr(text, "embed_sum("));
	assert_null(strstr(text, "norm_q")); /* the latents' queries are not computed */
	snprintf(args, sizeof args, "profile -m %s --bucket 64 --runs 1 --backend cpu",
		saved(&b, "dump.pt"));
	assert_int_equal(cortex(args, text, 1 << 18), 0);
	assert_non_null(strstr(text, "encoder.self_attn_blocks.2.mlp.sum"));
	assert_true(cx_cortex_recognise(temp_path("dump.pt")));
	assert_false(cx_cortex_recognise(temp_path("not there")));
	assert_false(cx_cortex_recognise("tests/golden/cortex.tsv"));
	bytes_free(&b);
	free(text);
}

static void info_command(void **state)
{
	static const struct {
		const char *args, *want;
	} good[] = {{"--model xs", "61 tensors, 4,828,936 parameters, 19,315,744 bytes\n"},
		{"--model s", "77 tensors, 24,800,776 parameters, 99,203,104 bytes\n"},
		{"--model m", "109 tensors, 83,514,632 parameters, 334,058,528 bytes\n"},
		{"--model nano --json", "\"n_parameters\": 205256, "},
		{"--model s", "encoder.self_attn_blocks.6.mlp.2.weight              [512,2048] "}},
	  bad[] = {{"", "--model"}, {"--model xl", "xl: No such file"},
		  {"--model xs --events -1", "--events '-1'"}, {"--model xs extra", "'extra'"}};
	char *text = malloc(1 << 16), args[2000], path[900];
	cx_graph *g;
	bytes b;
	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
		assert_int_equal(info(good[i].args, text, 1 << 16), 0);
		if (!strstr(text, good[i].want)) fail_msg("'%s' for '%s'", text, good[i].want);
	}
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		assert_int_equal(info(bad[i].args, text, 1 << 16), 1 << 8); /* exit code 1 */
		if (!strstr(text, bad[i].want) || strchr(text, '\n') != text + strlen(text) - 1)
			fail_msg("'%s' for '%s'", text, bad[i].want);
	}
	b = torch_file(nano, &(torch_opts){.spelling = "model", .leave = 7, .bend = -1});
	snprintf(path, sizeof path, "%s", saved(&b, "lacks.pt"));
	snprintf(args, sizeof args, "--model %s", path);
	assert_int_equal(info(args, text, 1 << 16), 1 << 8);
	assert_non_null(strstr(text, "there is no tensor 'encoder.cross_attn.norm_q.weight'"));
	bytes_free(&b);
	/* weights out and in again; a configuration; the served graph */
	snprintf(path, sizeof path, "%s", temp_path("cli.safetensors"));
	snprintf(args, sizeof args, "--model nano --export %s", path);
	assert_int_equal(info(args, text, 1 << 16), 0);
	snprintf(args, sizeof args, "--model %s", path);
	assert_int_equal(info(args, text, 1 << 16), 0);
	assert_non_null(strstr(text, "size nano, from a safetensors checkpoint"));
	snprintf(path, sizeof path, "%s", temp_path("cli.conf"));
	snprintf(args, sizeof args, "--model m --config >%s", path);
	assert_int_equal(info(args, text, 1 << 16), 0);
	snprintf(args, sizeof args, "--model %s", path);
	assert_int_equal(info(args, text, 1 << 16), 0);
	assert_non_null(strstr(text, "size m\n"));
	snprintf(path, sizeof path, "%s", temp_path("cli.cxg"));
	snprintf(args, sizeof args, "--model s --batch 4 --events 100 --graph %s", path);
	assert_int_equal(info(args, text, 1 << 16), 0);
	b = bytes_load(path);
	OK(cx_graph_parse((const char *)b.p, b.n, NULL, &g, err));
	assert_non_null(strstr(text, "4 windows, 400 events"));
	cx_graph_free(g);
	bytes_free(&b);
	free(text);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(pt_files), cmocka_unit_test(int8_files),
		cmocka_unit_test(sharded_files), cmocka_unit_test(safetensors_files),
		cmocka_unit_test(half_precision), cmocka_unit_test(strict), cmocka_unit_test(damaged),
		cmocka_unit_test(bad_pickles), cmocka_unit_test(bad_archives),
		cmocka_unit_test(out_of_memory), cmocka_unit_test(info_command), cmocka_unit_test(dumped)};
	const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
	snprintf(binary, sizeof binary, "%.*s/../cortex", slash ? (int)(slash - argv[0]) : 1,
		slash ? argv[0] : ".");
	return cmocka_run_group_tests_name("cortex files", tests, make_nano, free_nano);
}
