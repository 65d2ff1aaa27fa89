/* fuzz_checkpoint.c - any bytes as a PyTorch file and as a bare pickle: refused with a sentence, or
 * tensors whose every byte can be read. */
#include <stdlib.h>
#include <string.h>

#include "models/files/pickle.h"
#include "models/files/torch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void pickle(const uint8_t *data, size_t size)
{
	cx_arena arena = {0};
	cx_err err = {0};
	const cx_pickle *v;
	cx_status st = cx_pickle_parse(&arena, "fuzz.pkl", data, size, &v, &err);
	if ((st == CX_OK) != (v != NULL) || (st != CX_OK && !err.msg[0])) abort();
	if (arena.used > 4096 + 1024 * (uint64_t)size) abort(); /* proportional to the input */
	cx_arena_deinit(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	cx_file_map *map;
	cx_torch *t;
	cx_err err = {0};
	volatile unsigned sum = 0;
	uint8_t *exact = malloc(size ? size : 1);
	if (!exact) return 0;
	memcpy(exact, data, size);
	pickle(exact, size);
	free(exact);
	if (cx_file_map_copy(NULL, "fuzz.pt", data, size, &map, NULL) != CX_OK) return 0;
	if (cx_torch_open_map(NULL, map, &t, &err) != CX_OK) {
		if (!err.msg[0]) abort();
		return 0;
	}
	for (size_t i = 0; i < cx_torch_tensors(t)->n; i++) {
		const cx_file_tensor *x = &cx_torch_tensors(t)->at[i];
		for (uint64_t k = 0; k < x->bytes; k++) sum += x->data[k];
	}
	(void)sum;
	cx_torch_close(t);
	return 0;
}
