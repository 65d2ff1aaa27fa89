/* zip.h - the members of a zip archive that stores them uncompressed, where they lie.
 *
 * For PyTorch's files, which are such archives: hundreds of megabytes that are used in place, and
 * perhaps inside another file; a general zip library would copy them out. Read from the central
 * directory at the end, so a file that was cut short is refused. Compressed, encrypted, split and
 * zip64 archives are refused by name. Checksums are not verified. */
#ifndef CX_FILES_ZIP_H
#define CX_FILES_ZIP_H

#include "graph/base.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cx_zip_member {
	const char *name; /* in the arena */
	const unsigned char *data;
	size_t size;
} cx_zip_member;

typedef struct cx_zip {
	const cx_zip_member *at; /* [n], sorted by name (strcmp), names unique; folders left out */
	size_t n;
} cx_zip;

/* The archive is data[size] and nothing else; `label` names it in messages. Everything is checked
 * here. The arena owns names and list; data must outlive them. */
cx_status cx_zip_open(cx_zip *z, cx_arena *arena, const char *label, const unsigned char *data,
	size_t size, cx_err *err);
const cx_zip_member *cx_zip_find(const cx_zip *z, const char *name); /* NULL: there is none */

#ifdef __cplusplus
}
#endif
#endif
