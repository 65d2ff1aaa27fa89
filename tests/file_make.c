/* file_make.c - makes files for tests, good ones and bad ones. See file_make.h. */
#include "tests/file_make.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void give_up(const char *what, const char *path)
{
	fprintf(stderr, "%s: ", what);
	perror(path);
	exit(2);
}

/* ---- bytes ---- */

void bytes_put(bytes *b, const void *p, size_t n)
{
	if (b->cap - b->n < n) {
		b->cap = (b->n + n) * 2 + 64;
		b->p = realloc(b->p, b->cap);
		if (!b->p) give_up("bytes", "realloc");
	}
	if (n) memcpy(b->p + b->n, p, n);
	b->n += n;
}

void bytes_u8(bytes *b, uint8_t v)
{
	bytes_put(b, &v, sizeof v);
}

void bytes_u16(bytes *b, uint16_t v)
{
	bytes_put(b, &v, sizeof v);
}

void bytes_u32(bytes *b, uint32_t v)
{
	bytes_put(b, &v, sizeof v);
}

void bytes_u64(bytes *b, uint64_t v)
{
	bytes_put(b, &v, sizeof v);
}

void bytes_f32(bytes *b, float v)
{
	bytes_put(b, &v, sizeof v);
}

void bytes_f64(bytes *b, double v)
{
	bytes_put(b, &v, sizeof v);
}

void bytes_text(bytes *b, const char *s)
{
	bytes_put(b, s, strlen(s));
}

void bytes_align(bytes *b, size_t align)
{
	while (b->n % align) bytes_u8(b, 0);
}

void bytes_fill(bytes *b, size_t n)
{
	for (size_t i = 0; i < n; i++) bytes_u8(b, (uint8_t)i);
}

void bytes_free(bytes *b)
{
	free(b->p);
	memset(b, 0, sizeof *b);
}

bytes bytes_load(const char *path)
{
	FILE *f = fopen(path, "rb");
	unsigned char buf[65536];
	bytes b = {0};
	size_t n;
	if (!f) give_up("cannot read", path);
	while ((n = fread(buf, 1, sizeof buf, f)) > 0) bytes_put(&b, buf, n);
	fclose(f);
	return b;
}

void bytes_save(const bytes *b, const char *path)
{
	FILE *f = fopen(path, "wb");
	if (!f || (b->n && fwrite(b->p, 1, b->n, f) != b->n) || fclose(f) != 0)
		give_up("cannot write", path);
}

/* ---- GGUF ---- */

void gguf_head(bytes *b, uint32_t version, uint64_t n_tensors, uint64_t n_kv)
{
	bytes_text(b, "GGUF");
	bytes_u32(b, version);
	bytes_u64(b, n_tensors);
	bytes_u64(b, n_kv);
}

void gguf_text(bytes *b, const char *s)
{
	bytes_u64(b, strlen(s));
	bytes_text(b, s);
}

void gguf_key(bytes *b, const char *key, uint32_t type)
{
	gguf_text(b, key);
	bytes_u32(b, type);
}

void gguf_key_u32(bytes *b, const char *key, uint32_t v)
{
	gguf_key(b, key, 4);
	bytes_u32(b, v);
}

void gguf_key_text(bytes *b, const char *key, const char *v)
{
	gguf_key(b, key, 8);
	gguf_text(b, v);
}

void gguf_key_array(bytes *b, const char *key, uint32_t elem_type, uint64_t n)
{
	gguf_key(b, key, 9);
	bytes_u32(b, elem_type);
	bytes_u64(b, n);
}

void gguf_tensor(
	bytes *b, const char *name, uint32_t n_dims, const uint64_t *ne, uint32_t type, uint64_t off)
{
	gguf_text(b, name);
	bytes_u32(b, n_dims);
	for (uint32_t i = 0; i < n_dims; i++) bytes_u64(b, ne[i]);
	bytes_u32(b, type);
	bytes_u64(b, off);
}

bytes gguf_good(void)
{
	enum { F32 = 0, Q8_0 = 8 };
	static const uint64_t ne_4[] = {4}, ne_4_3[] = {4, 3}, ne_64_2[] = {64, 2};
	bytes b = {0};
	gguf_head(&b, 3, 3, 13);
	gguf_key_text(&b, "general.architecture", "llama");
	gguf_key_u32(&b, "general.alignment", 64);
	gguf_key_u32(&b, "llama.block_count", 5);
	gguf_key(&b, "small", 0), bytes_u8(&b, 200);
	gguf_key(&b, "minus", 11), bytes_u64(&b, (uint64_t)-7);
	gguf_key(&b, "huge", 10), bytes_u64(&b, UINT64_MAX);
	gguf_key(&b, "eps", 6), bytes_f32(&b, 0.5f);
	gguf_key(&b, "double", 12), bytes_f64(&b, -2.25);
	gguf_key(&b, "flag", 7), bytes_u8(&b, 1);
	gguf_key_array(&b, "tokens", 8, 3), gguf_text(&b, "a"), gguf_text(&b, ""), gguf_text(&b, "bcd");
	gguf_key_array(&b, "heads", 5, 2), bytes_u32(&b, 4), bytes_u32(&b, 2);
	gguf_key_array(&b, "scores", 6, 2), bytes_f32(&b, 1.5f), bytes_f32(&b, -1.0f);
	gguf_key_array(&b, "nested", 9, 2);
	bytes_u32(&b, 8), bytes_u64(&b, 1), gguf_text(&b, "in");
	bytes_u32(&b, 7), bytes_u64(&b, 2), bytes_u8(&b, 0), bytes_u8(&b, 1);
	gguf_tensor(&b, "w", 2, ne_4_3, F32, 0);
	gguf_tensor(&b, "q", 2, ne_64_2, Q8_0, 64);
	gguf_tensor(&b, "v", 1, ne_4, F32, 256);
	bytes_align(&b, 64);
	bytes_fill(&b, 256 + 16);
	return b;
}

/* Touches all that an open file hands out; under a sanitizer this is the proof that it lies inside
 * the file. */
unsigned gguf_walk(const cx_gguf *g)
{
	const cx_tensor_list *l = cx_gguf_tensors(g);
	unsigned sum = 0;
	for (size_t i = 0; i < l->n; i++) {
		for (uint64_t k = 0; k < l->at[i].bytes; k++) sum += l->at[i].data[k];
		if (cx_tensor_list_find(l, l->at[i].name) != &l->at[i]) abort();
	}
	for (size_t i = 0; i < cx_gguf_n_kv(g); i++) {
		const cx_gguf_kv *kv = cx_gguf_kv_at(g, i);
		sum += (unsigned)strlen(kv->key);
		for (uint64_t k = 0; k < kv->n && kv->elem != CX_GGUF_ARRAY; k++) {
			if (kv->strs)
				for (size_t c = 0; c < kv->strs[k].len; c++)
					sum += (unsigned char)kv->strs[k].ptr[c];
			else sum += (unsigned)cx_gguf_kv_i64(kv, k) + (cx_gguf_kv_f64(kv, k) > 0);
		}
	}
	return sum;
}

/* ---- places ---- */

enum { PATH_SIZE = 1024, N_PATHS = 4 };

static char paths[N_PATHS][PATH_SIZE];
static char temp_dir[PATH_SIZE / 2];

static char *next_path(void)
{
	static int i;
	return paths[i++ % N_PATHS];
}

const char *fixture(const char *name)
{
	const char *root = getenv("CORTEX_FIXTURES");
	char *path = next_path();
	snprintf(path, PATH_SIZE, "%s/%s", root && *root ? root : "../shared/fixtures", name);
	if (access(path, R_OK) == 0) return path;
	printf("  # no fixture %s\n", path);
	return NULL;
}

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *at)
{
	(void)info;
	(void)type;
	(void)at;
	if (remove(path) != 0) perror(path);
	return 0;
}

static void remove_temp_dir(void)
{
	nftw(temp_dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

const char *temp_path(const char *name)
{
	char *path = next_path();
	if (!temp_dir[0]) {
		const char *root = getenv("TMPDIR");
		snprintf(temp_dir, sizeof temp_dir, "%s/cortex-test-XXXXXX", root && *root ? root : "/tmp");
		if (!mkdtemp(temp_dir)) give_up("no temporary folder", temp_dir);
		atexit(remove_temp_dir);
	}
	snprintf(path, PATH_SIZE, "%s/%s", temp_dir, name);
	return path;
}

void fuzz_seed(const char *target, const char *name, const bytes *b)
{
	char exe[PATH_SIZE / 2], path[PATH_SIZE];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
	char *slash;
	if (n <= 0) return; /* no seeds, then: the fuzzer begins with nothing */
	exe[n] = '\0';
	for (int up = 0; up < 2; up++) { /* <build>/tests/test_x */
		slash = strrchr(exe, '/');
		if (!slash) return;
		*slash = '\0';
	}
	snprintf(path, sizeof path, "%s/corpus", exe);
	mkdir(path, 0777);
	snprintf(path, sizeof path, "%s/corpus/%s", exe, target);
	mkdir(path, 0777);
	snprintf(path, sizeof path, "%s/corpus/%s/%s", exe, target, name);
	bytes_save(b, path);
}
