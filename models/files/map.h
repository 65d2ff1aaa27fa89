/* map.h - a file's bytes, read-only: memory-mapped, or a copy of a block of memory.
 *
 * Every reader of this folder takes its bytes from a cx_file_map, so that none of them reads past
 * the end of what it was given: fuzzers hand in exact-size copies, programs hand in paths. A mapped
 * file must not be cut short by somebody else while it is open (the system would answer a read with
 * SIGBUS). */
#ifndef CX_FILES_MAP_H
#define CX_FILES_MAP_H

#include "graph/base.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the bytes of little-endian files are handed out as they are: this host must convert them"
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cx_file_map {
	const unsigned char *data; /* [size]; page-aligned for a file, 16-byte aligned for a copy */
	size_t size;               /* bytes, at least 1 */
	const char *path;          /* as given */
	const char *label; /* path for messages: its last 80 bytes at most, "..." before them if cut */
	cx_alloc alloc;    /* below: for cx_file_map_close() only */
	size_t self_bytes;
	bool mapped;
} cx_file_map;

/* What a getter of this folder does when the field is absent: OPTIONAL leaves the output as it was
 * (put the default there first) and gives CX_OK; REQUIRED fails and names file and field. A field
 * that is there but wrong fails. */
typedef enum cx_need { CX_OPTIONAL, CX_REQUIRED } cx_need;

/* Maps a regular file. A missing or unreadable file gives IO; a directory, a device or an empty
 * file FORMAT or IO, with a sentence. *out is NULL on failure. Owned by the caller:
 * cx_file_map_close(). */
CX_API cx_status cx_file_map_open(
	const cx_alloc *a, const char *path, cx_file_map **out, cx_err *err);
/* The same for a block of memory, copied: exactly `size` bytes, so that a checker sees a read past
 * them. `name` stands for the path in messages. An empty block is refused like an empty file. */
CX_API cx_status cx_file_map_copy(const cx_alloc *a, const char *name, const void *data,
	size_t size, cx_file_map **out, cx_err *err);
/* NULL is fine. Every pointer into data is invalid afterwards. */
CX_API void cx_file_map_close(cx_file_map *m);

/* The path of a file that lies beside `path`: its folder and `name`. NULL when memory is short; the
 * caller frees strlen + 1 bytes. cx_path_join(a, dir, name) puts `name` into the folder `dir`. */
CX_API char *cx_path_sibling(const cx_alloc *a, const char *path, const char *name);
CX_API char *cx_path_join(const cx_alloc *a, const char *dir, const char *name);
/* "" for NULL, else the last 80 bytes of the path at most: for messages, which are short. */
CX_API const char *cx_path_tail(const char *path);

#ifdef __cplusplus
}
#endif
#endif
