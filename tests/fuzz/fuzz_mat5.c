/* fuzz_mat5.c - any bytes as a MATLAB 5 file: refused with a sentence, or read without leaving
 * them. */
#include <stdlib.h>

#include "models/files/mat5.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	cx_file_map *map;
	cx_mat5 mat;
	cx_err err = {0};
	if (cx_file_map_copy(NULL, "fuzz.mat", data, size, &map, NULL) != CX_OK) return 0;
	if (cx_mat5_parse(NULL, map, &mat, &err) != CX_OK) {
		if (!err.msg[0] || mat.arrays) abort();
	} else {
		for (size_t i = 0; i < mat.n_arrays; i++) {
			const cx_mat5_array *a = &mat.arrays[i];
			double *d = malloc((size_t)(a->numeric ? a->n : 0) * sizeof *d + 1);
			if (!d || !a->name) abort();
			if (a->numeric) cx_mat5_to_f64(a, d);
			free(d);
		}
		cx_mat5_close(&mat);
	}
	cx_file_map_close(map);
	return 0;
}
