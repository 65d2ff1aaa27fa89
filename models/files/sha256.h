/* sha256.h - SHA-256 (FIPS 180-4) of a block of memory, to recognise published files. */
#ifndef CX_FILES_SHA256_H
#define CX_FILES_SHA256_H

#include "graph/base.h"

/* hex: 64 lower-case digits and a terminator. */
CX_API void cx_sha256_hex(const void *data, size_t n, char hex[65]);

#endif
