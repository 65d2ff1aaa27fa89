/* zip.c - see zip.h. Layout from PKWARE's APPNOTE 6.3, sections 4.3.7, 4.3.12 and 4.3.16. */
#include "models/files/zip.h"

#include <stdlib.h>
#include <string.h>

enum { LOCAL_BYTES = 30, CENTRAL_BYTES = 46, END_BYTES = 22, COMMENT_MAX = 65535 };

static uint32_t u16(const unsigned char *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static uint32_t u32(const unsigned char *p)
{
	return u16(p) | u16(p + 2) << 16;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const cx_zip_member *)a)->name, ((const cx_zip_member *)b)->name);
}

const cx_zip_member *cx_zip_find(const cx_zip *z, const char *name)
{
	cx_zip_member key = {.name = name};
	return z->n ? bsearch(&key, z->at, z->n, sizeof key, by_name) : NULL;
}

/* The end record; NULL if there is none. */
static const unsigned char *find_end(const unsigned char *data, size_t size)
{
	for (size_t back = END_BYTES; back <= size && back <= END_BYTES + COMMENT_MAX; back++) {
		const unsigned char *p = data + size - back;
		if (memcmp(p, "PK\5\6", 4) == 0 && u16(p + 20) == back - END_BYTES) return p;
	}
	return NULL;
}

/* One central record at p (CENTRAL_BYTES of it are there); fills m, or leaves its name NULL for a
 * folder. */
static cx_status read_member(cx_arena *arena, const char *label, const unsigned char *data,
	size_t dir_off, const unsigned char *p, cx_zip_member *m, cx_err *err)
{
	uint32_t flags = u16(p + 8), method = u16(p + 10), packed = u32(p + 20), size = u32(p + 24);
	uint32_t n = u16(p + 28), local = u32(p + 42);
	char *name = cx_arena_alloc(arena, (size_t)n + 1);
	uint64_t off;
	if (!name) return CX_FAIL(err, CX_ERR_MEMORY, "%s: out of memory", label);
	memcpy(name, p + CENTRAL_BYTES, n);
	if (strlen(name) != n)
		return CX_FAIL(err, CX_ERR_FORMAT, "%s: a zip member's name holds a NUL", label);
	if (n && name[n - 1] == '/' && size == 0) return CX_OK;
	if (packed == UINT32_MAX || size == UINT32_MAX || local == UINT32_MAX)
		return CX_FAIL(err, CX_ERR_UNSUPPORTED,
			"%s: member '%.60s' needs zip64 (4 GiB or more), which is not read", label, name);
	if (flags & 1) return CX_FAIL(err, CX_ERR_UNSUPPORTED, "%s: '%.60s' is encrypted", label, name);
	if (method != 0 || packed != size)
		return CX_FAIL(
			err, CX_ERR_UNSUPPORTED, "%s: '%.60s' is compressed; stored is wanted", label, name);
	if ((uint64_t)local + LOCAL_BYTES > dir_off || memcmp(data + local, "PK\3\4", 4) != 0)
		return CX_FAIL(
			err, CX_ERR_FORMAT, "%s: '%.60s' does not begin where the directory says", label, name);
	off = (uint64_t)local + LOCAL_BYTES + u16(data + local + 26) + u16(data + local + 28);
	if (off + size > dir_off)
		return CX_FAIL(
			err, CX_ERR_FORMAT, "%s: '%.60s' passes the end of the archive", label, name);
	*m = (cx_zip_member){name, data + off, size};
	return CX_OK;
}

cx_status cx_zip_open(cx_zip *z, cx_arena *arena, const char *label, const unsigned char *data,
	size_t size, cx_err *err)
{
	const unsigned char *end = find_end(data, size), *p;
	cx_zip_member *at;
	uint32_t n, dir_bytes, dir_off;
	*z = (cx_zip){0};
	if (!end)
		return CX_FAIL(err, CX_ERR_FORMAT,
			"%s: not a zip archive, or cut short: it has no directory at its end", label);
	n = u16(end + 10);
	dir_bytes = u32(end + 12);
	dir_off = u32(end + 16);
	if (n == 0xffff || dir_off == UINT32_MAX)
		return CX_FAIL(err, CX_ERR_UNSUPPORTED, "%s: a zip64 archive, which is not read", label);
	if (u16(end + 4) || u16(end + 6) || u16(end + 8) != n)
		return CX_FAIL(err, CX_ERR_UNSUPPORTED, "%s: a zip archive of several volumes", label);
	if ((uint64_t)dir_off + dir_bytes > (uint64_t)(end - data))
		return CX_FAIL(err, CX_ERR_FORMAT, "%s: the zip directory passes its end", label);
	if (!(at = cx_arena_array(arena, n, sizeof *at)))
		return CX_FAIL(err, CX_ERR_MEMORY, "%s: out of memory", label);
	p = data + dir_off;
	for (uint32_t i = 0; i < n; i++) {
		size_t left = (size_t)(data + dir_off + dir_bytes - p), bytes = CENTRAL_BYTES;
		cx_status st;
		if (left >= bytes) bytes += u16(p + 28) + u16(p + 30) + u16(p + 32);
		if (left < bytes || memcmp(p, "PK\1\2", 4) != 0)
			return CX_FAIL(
				err, CX_ERR_FORMAT, "%s: record %u of the zip directory is damaged", label, i);
		if ((st = read_member(arena, label, data, dir_off, p, &at[z->n], err)) != CX_OK) return st;
		z->n += at[z->n].name != NULL;
		p += bytes;
	}
	if (z->n) qsort(at, z->n, sizeof *at, by_name);
	for (size_t i = 1; i < z->n; i++)
		if (strcmp(at[i - 1].name, at[i].name) == 0)
			return CX_FAIL(
				err, CX_ERR_FORMAT, "%s: '%.60s' is in the archive twice", label, at[i].name);
	z->at = at;
	return CX_OK;
}
