/* map.c - read-only bytes of a file or of a block of memory. See map.h. */
#include "models/files/map.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LABEL_MAX = 80 };

const char *cx_path_tail(const char *path)
{
	size_t n = path ? strlen(path) : 0;
	if (!path) return "";
	if (n <= LABEL_MAX) return path;
	path += n - LABEL_MAX;
	while (((unsigned char)*path & 0xc0) == 0x80)
		path++; /* not from the middle of a UTF-8 character */
	return path;
}

/* The struct, and behind it the path and the label: one block, one free. */
static cx_file_map *map_create(const cx_alloc *a, const char *path)
{
	size_t n = strlen(path) + 1, bytes = sizeof(cx_file_map) + n + LABEL_MAX + 4;
	cx_file_map *m = cx_calloc(a, 1, bytes);
	const char *tail = cx_path_tail(path);
	char *text;
	if (!m) return NULL;
	m->alloc = a && a->realloc ? *a : cx_alloc_default();
	m->self_bytes = bytes;
	text = (char *)(m + 1);
	memcpy(text, path, n);
	m->path = text;
	m->label = text + n;
	if (tail != path) memcpy(text + n, "...", 3);
	memcpy(text + n + (tail != path ? 3 : 0), tail, strlen(tail) + 1);
	return m;
}

static cx_status map_fd(cx_file_map *m, int fd, cx_err *err)
{
	struct stat st;
	void *p;
	if (fstat(fd, &st) != 0) return CX_FAIL(err, CX_ERR_IO, "%s: %s", m->label, strerror(errno));
	if (S_ISDIR(st.st_mode))
		return CX_FAIL(err, CX_ERR_IO, "%s: is a folder, not a file", m->label);
	if (!S_ISREG(st.st_mode)) return CX_FAIL(err, CX_ERR_IO, "%s: is not a regular file", m->label);
	if (st.st_size <= 0) return CX_FAIL(err, CX_ERR_FORMAT, "%s: the file is empty", m->label);
	if ((uint64_t)st.st_size > SIZE_MAX / 2)
		return CX_FAIL(err, CX_ERR_IO, "%s: %lld bytes do not fit the address space", m->label,
			(long long)st.st_size);
	p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (p == MAP_FAILED)
		return CX_FAIL(err, CX_ERR_IO, "%s: cannot be mapped: %s", m->label, strerror(errno));
	m->data = p;
	m->size = (size_t)st.st_size;
	m->mapped = true;
	return CX_OK;
}

cx_status cx_file_map_open(const cx_alloc *a, const char *path, cx_file_map **out, cx_err *err)
{
	cx_file_map *m;
	cx_status st;
	int fd;
	*out = NULL;
	if (!path || !*path) return CX_FAIL(err, CX_ERR_ARGUMENT, "no file name given");
	m = map_create(a, path);
	if (!m) return CX_FAIL(err, CX_ERR_MEMORY, "%s: out of memory", cx_path_tail(path));
	/* O_NONBLOCK: opening a FIFO must be refused, not wait for a writer. */
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0) {
		st = errno == ENOENT
				 ? CX_FAIL(err, CX_ERR_IO, "%s: there is no such file", m->label)
				 : CX_FAIL(err, CX_ERR_IO, "%s: cannot be opened: %s", m->label, strerror(errno));
	} else {
		st = map_fd(m, fd, err);
		close(fd);
	}
	if (st != CX_OK) {
		cx_file_map_close(m);
		return st;
	}
	*out = m;
	return CX_OK;
}

cx_status cx_file_map_copy(const cx_alloc *a, const char *name, const void *data, size_t size,
	cx_file_map **out, cx_err *err)
{
	cx_file_map *m;
	void *copy;
	*out = NULL;
	if (size == 0) return CX_FAIL(err, CX_ERR_FORMAT, "%s: the file is empty", cx_path_tail(name));
	m = map_create(a, name);
	copy = m ? cx_malloc(a, size) : NULL;
	if (!copy) {
		cx_file_map_close(m);
		return CX_FAIL(err, CX_ERR_MEMORY, "%s: out of memory", cx_path_tail(name));
	}
	memcpy(copy, data, size);
	m->data = copy;
	m->size = size;
	*out = m;
	return CX_OK;
}

void cx_file_map_close(cx_file_map *m)
{
	cx_alloc a;
	if (!m) return;
	a = m->alloc;
	if (m->mapped) munmap((void *)m->data, m->size);
	else cx_free(&a, (void *)m->data, m->size);
	cx_free(&a, m, m->self_bytes);
}

static char *join(const cx_alloc *a, const char *dir, size_t n_dir, const char *name)
{
	size_t n = strlen(name) + 1;
	bool slash = n_dir > 0 && dir[n_dir - 1] != '/';
	char *path = cx_malloc(a, n_dir + slash + n);
	if (!path) return NULL;
	memcpy(path, dir, n_dir);
	if (slash) path[n_dir] = '/';
	memcpy(path + n_dir + slash, name, n);
	return path;
}

char *cx_path_sibling(const cx_alloc *a, const char *path, const char *name)
{
	const char *slash = strrchr(path, '/');
	return join(a, path, slash ? (size_t)(slash - path) + 1 : 0, name);
}

char *cx_path_join(const cx_alloc *a, const char *dir, const char *name)
{
	return join(a, dir, strlen(dir), name);
}
