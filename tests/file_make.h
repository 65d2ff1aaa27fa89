/* file_make.h - for tests about files: growing byte strings, GGUF pieces, a temporary folder,
 * fixtures, seeds.
 *
 * Nothing here checks anything, so that broken files can be made as easily as good ones. A failure
 * of the machine (no memory, no disk) ends the program with a message. */
#ifndef CX_TESTS_FILE_MAKE_H
#define CX_TESTS_FILE_MAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "models/files/gguf.h"

typedef struct bytes {
	unsigned char *p;
	size_t n, cap;
} bytes;

void bytes_put(bytes *b, const void *p, size_t n);
void bytes_u8(bytes *b, uint8_t v);
void bytes_u16(bytes *b, uint16_t v);
void bytes_u32(bytes *b, uint32_t v);
void bytes_u64(bytes *b, uint64_t v);
void bytes_f32(bytes *b, float v);
void bytes_f64(bytes *b, double v);
void bytes_text(bytes *b, const char *s); /* without a terminator */
void bytes_align(bytes *b, size_t align); /* zeros up to a multiple */
void bytes_fill(bytes *b, size_t n);      /* n bytes 0, 1, 2 ... */
void bytes_free(bytes *b);
bytes bytes_load(const char *path); /* a whole file */
void bytes_save(const bytes *b, const char *path);

/* GGUF pieces, in the order in which a file has them. Types as in cx_gguf_type; ggml type ids as in
 * dtype.def. */
void gguf_head(bytes *b, uint32_t version, uint64_t n_tensors, uint64_t n_kv);
void gguf_text(bytes *b, const char *s);                 /* u64 length and bytes */
void gguf_key(bytes *b, const char *key, uint32_t type); /* the value follows */
void gguf_key_u32(bytes *b, const char *key, uint32_t v);
void gguf_key_text(bytes *b, const char *key, const char *v);
void gguf_key_array(
	bytes *b, const char *key, uint32_t elem_type, uint64_t n); /* n elements follow */
void gguf_tensor(
	bytes *b, const char *name, uint32_t n_dims, const uint64_t *ne, uint32_t type, uint64_t off);

/* A good file: 13 metadata entries of every type and three tensors; the data ends with the file. */
bytes gguf_good(void);
/* Touches all that an open file hands out; under a sanitizer this is the proof that it lies inside
 * the file. A tensor that is not found by its own name ends the program. */
unsigned gguf_walk(const cx_gguf *g);

/* The path of a fixture ("formats/single.npy") in $CORTEX_FIXTURES or ../shared/fixtures; NULL, and
 * a line that says so, if it is not there. Static storage, four paths deep. */
const char *fixture(const char *name);
/* The path of a file in a temporary folder, which is removed with what is in it when the program
 * ends. Same storage. */
const char *temp_path(const char *name);
/* Puts an input for the fuzz target where the test runner looks for it:
 * <build>/corpus/<target>/<name>. */
void fuzz_seed(const char *target, const char *name, const bytes *b);

#endif
