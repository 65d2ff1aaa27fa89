/* fuzz_safetensors.c - any bytes as a safetensors file: refused with a sentence, or read without
 * leaving them. */
#include <stdlib.h>

#include "models/files/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static volatile unsigned sink;
	unsigned sum = 0;
	uint64_t total = 0;
	cx_file_map *map;
	cx_err err = {0};
	cx_safetensors *s = NULL;
	cx_status st = cx_file_map_copy(NULL, "fuzz.safetensors", data, size, &map, &err);
	if (st == CX_OK) st = cx_safetensors_open_map(NULL, map, &s, &err);
	if (st == CX_OK) {
		const cx_tensor_list *l = cx_safetensors_tensors(s);
		for (size_t i = 0; i < l->n; i++) {
			if (cx_tensor_list_find(l, l->at[i].name) != &l->at[i]) abort();
			for (uint64_t k = 0; k < l->at[i].bytes; k++) sum += l->at[i].data[k];
			total += l->at[i].bytes;
		}
		if (total > size - 8) abort(); /* no overlaps: together no more than the file */
		sum += cx_safetensors_meta(s, "format") != NULL;
		sink = sum;
	} else if (s || !err.msg[0] || err.code != st) {
		abort();
	}
	cx_safetensors_close(s);
	return 0;
}
