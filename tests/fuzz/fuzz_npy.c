/* fuzz_npy.c - any bytes as NPY arrays, one after another: refused with a sentence, or read without
 * leaving them. */
#include <stdlib.h>

#include "models/files/npy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	cx_file_map *map;
	size_t off = 0;
	cx_npy npy;
	cx_status st = CX_OK;
	if (cx_file_map_copy(NULL, "fuzz.npy", data, size, &map, NULL) != CX_OK) return 0;
	while (off < map->size && st == CX_OK) {
		cx_err err = {0};
		size_t before = off;
		st = cx_npy_parse(map, &off, &npy, &err);
		if (st == CX_OK) { /* n is at most the file's size, or 0 */
			double *d = malloc((size_t)npy.n * sizeof *d + 1);
			int64_t *i = malloc((size_t)npy.n * sizeof *i + 1);
			float *f = malloc((size_t)npy.n * sizeof *f + 1);
			if (off <= before || !d || !i || !f) abort();
			cx_npy_to_f64(&npy, d);
			cx_npy_to_f32(&npy, f);
			(void)cx_npy_to_i64(&npy, i, NULL);
			free(d);
			free(i);
			free(f);
		} else if (off != before || !err.msg[0]) {
			abort();
		}
	}
	cx_file_map_close(map);
	return 0;
}
