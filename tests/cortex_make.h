/* cortex_make.h - for tests of the Cortex decoder: the weights and events of
 * tests/golden/cortex.tsv from its hash, the expected values, and files as PyTorch writes them. */
#ifndef CX_TESTS_CORTEX_MAKE_H
#define CX_TESTS_CORTEX_MAKE_H

#include "models/decoder/checkpoint.h"
#include "tests/file_make.h"

/* Element i of a tensor, as tests/golden/make_cortex.py says. */
uint32_t golden_word(const char *name, uint32_t i);
void golden_values(const cx_cortex_param *p, float *out);
/* A model of these weights. Ends the program if it cannot be made. */
cx_cortex *golden_model(const cx_cortex_config *c);

enum { GOLDEN_WINDOWS = 5 };
typedef struct golden_case {
	const char *name;
	cx_cortex_size size;
	cx_cortex_norm norm;
	int n_windows, n_events[GOLDEN_WINDOWS], n_queries[GOLDEN_WINDOWS];
} golden_case;
enum { GOLDEN_CASES = 7 };
extern const golden_case golden_cases[GOLDEN_CASES];
cx_cortex_config golden_config(const golden_case *k);

/* A batch in a bucket: padding rows are -1. */
typedef struct golden_batch {
	cx_cortex_bucket bucket;
	int32_t *neuron, *time, *value, *query_neuron, *query_time;
	int32_t off[GOLDEN_WINDOWS + 1], query_off[GOLDEN_WINDOWS + 1];
} golden_batch;
/* Room for `spare` more events and queries than there are. */
void golden_batch_make(const golden_case *k, int spare, golden_batch *out);
void golden_batch_free(golden_batch *b);

/* Row (case, tensor, i) of the file; NaN if there is none. */
double golden_value(const char *name, const char *tensor, int i);
int golden_count(const char *name, const char *tensor);

/* ---- files ---- */

/* Members of a stored zip archive. Data of each begins at a multiple of 64, as PyTorch's. */
typedef struct zip_maker {
	bytes out, directory;
	int n;
} zip_maker;
void zip_add(zip_maker *z, const char *name, const void *data, size_t n);
bytes zip_end(zip_maker *z); /* the archive; the maker is empty again */

/* Pickle opcodes, protocol 2. */
void pickle_text(bytes *b, const char *s);
void pickle_int(bytes *b, int64_t v);
void pickle_global(bytes *b, const char *module, const char *name);
/* _rebuild_tensor_v2 of a storage of its own. */
void pickle_tensor(bytes *b, const char *storage, const char *key, int rank, const int64_t *dims);

/* A model as torch.save() writes it: under `spelling` (NULL: bare) beside a pickled object. leave:
 * index of a tensor left out, -1: none; extra: name of one too many, or NULL; bend: index of one
 * with a dim too large, -1: none. int8: linears of the encoder and the behaviour head as in the
 * INT8 map. */
typedef struct torch_opts {
	const char *spelling;
	int leave, bend;
	const char *extra;
	bool int8;
} torch_opts;
bytes torch_file(const cx_cortex *m, const torch_opts *o);

#endif
