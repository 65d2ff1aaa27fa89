/* fuzz_gguf.c - any bytes as a GGUF file: refused with a sentence, or read without leaving them. */
#include <stdlib.h>
#include <string.h>

#include "models/files/gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Uses every byte that the reader hands out; returned so that nothing is optimised away. */
static unsigned walk(const cx_gguf *g)
{
	const cx_tensor_list *l = cx_gguf_tensors(g);
	unsigned sum = 0;
	for (size_t i = 0; i < l->n; i++) {
		if (cx_tensor_list_find(l, l->at[i].name) != &l->at[i]) abort();
		for (uint64_t k = 0; k < l->at[i].bytes; k++) sum += l->at[i].data[k];
	}
	for (size_t i = 0; i < cx_gguf_n_kv(g); i++) {
		const cx_gguf_kv *kv = cx_gguf_kv_at(g, i);
		if (!cx_gguf_find(g, kv->key) && strncmp(kv->key, "{a}.", 4) != 0) abort();
		for (uint64_t k = 0; k < kv->n && kv->elem != CX_GGUF_ARRAY; k++) {
			if (!kv->strs) sum += (unsigned)cx_gguf_kv_i64(kv, k) + (cx_gguf_kv_f64(kv, k) > 0);
			else
				for (size_t c = 0; c < kv->strs[k].len; c++)
					sum += (unsigned char)kv->strs[k].ptr[c];
		}
	}
	return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static volatile unsigned sink;
	cx_file_map *map;
	cx_err err = {0};
	cx_gguf *g = NULL;
	cx_status st = cx_file_map_copy(NULL, "fuzz.gguf", data, size, &map, &err);
	if (st == CX_OK) st = cx_gguf_open_map(NULL, map, &g, &err);
	if (st == CX_OK) sink = walk(g);
	else if (g || !err.msg[0] || err.code != st) abort();
	cx_gguf_close(g);
	return 0;
}
