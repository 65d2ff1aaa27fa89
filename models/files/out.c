/* out.c - atomic replacement of a file. See out.h. */
#include "models/files/out.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "models/files/map.h"

enum { SUFFIX_MAX = 48, MAX_TRIES = 1000 };

struct cx_file_out {
	cx_alloc alloc;
	size_t self_bytes;
	int fd;
	char *path, *temp; /* behind the struct */
};

/* What the rename may replace: nothing, or a regular file. Links are followed, so that they stay.
 */
static cx_status find_target(const char *path, char real[PATH_MAX], const char **out, cx_err *err)
{
	struct stat sb;
	*out = path;
	if (lstat(path, &sb) != 0) return CX_OK; /* open() says what is wrong, if anything is */
	if (S_ISLNK(sb.st_mode)) {
		if (!realpath(path, real) || stat(real, &sb) != 0)
			return CX_FAIL(
				err, CX_ERR_IO, "%s: cannot be written: %s", cx_path_tail(path), strerror(errno));
		*out = real;
	}
	if (S_ISREG(sb.st_mode)) return CX_OK;
	return CX_FAIL(err, CX_ERR_IO, "%s: cannot be written: it is %s", cx_path_tail(path),
		S_ISDIR(sb.st_mode) ? "a folder" : "not a regular file");
}

cx_status cx_file_out_open(const cx_alloc *a, const char *path, cx_file_out **out, cx_err *err)
{
	char real[PATH_MAX];
	size_t n, bytes;
	cx_file_out *o;
	*out = NULL;
	if (!path || !*path) return CX_FAIL(err, CX_ERR_ARGUMENT, "no file name given");
	if (find_target(path, real, &path, err) != CX_OK) return CX_ERR_IO;
	n = strlen(path);
	bytes = sizeof *o + 2 * (n + 1) + SUFFIX_MAX;
	o = cx_calloc(a, 1, bytes);
	if (!o) return CX_FAIL(err, CX_ERR_MEMORY, "%s: out of memory", cx_path_tail(path));
	o->alloc = a && a->realloc ? *a : cx_alloc_default();
	o->self_bytes = bytes;
	o->path = (char *)(o + 1);
	o->temp = o->path + n + 1;
	memcpy(o->path, path, n + 1);
	/* not mkstemp: its files are 0600 whatever the umask says */
	for (int i = 0; i < MAX_TRIES; i++) {
		snprintf(o->temp, n + SUFFIX_MAX, "%s.%ld.%d.tmp", path, (long)getpid(), i);
		o->fd = open(o->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
		if (o->fd >= 0 || errno != EEXIST) break;
	}
	if (o->fd < 0) {
		cx_status st = CX_FAIL(
			err, CX_ERR_IO, "%s: cannot be written: %s", cx_path_tail(path), strerror(errno));
		cx_free(&o->alloc, o, bytes);
		return st;
	}
	*out = o;
	return CX_OK;
}

cx_status cx_file_out_write(cx_file_out *o, const void *data, size_t n, cx_err *err)
{
	const unsigned char *p = data;
	while (n > 0) {
		ssize_t k =
			write(o->fd, p, n < (1u << 30) ? n : (1u << 30)); /* Linux caps one write near 2 GiB */
		if (k < 0 && errno == EINTR) continue;
		if (k <= 0)
			return CX_FAIL(err, CX_ERR_IO, "%s: write failed: %s", cx_path_tail(o->path),
				k < 0 ? strerror(errno) : "the disk took nothing");
		p += k;
		n -= (size_t)k;
	}
	return CX_OK;
}

/* Makes the rename itself survive a power cut. Some file systems refuse to sync a folder: the data
 * is safe then. */
static void sync_folder(cx_file_out *o)
{
	char *slash = strrchr(o->path, '/');
	int fd;
	if (slash == o->path) slash++;
	if (slash) *slash = '\0';
	fd = open(slash ? o->path : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) return;
	(void)fsync(fd);
	close(fd);
}

cx_status cx_file_out_commit(cx_file_out *o, cx_err *err)
{
	const char *what = NULL;
	cx_status st = CX_OK;
	int saved = 0;
	if (fsync(o->fd) != 0) what = "fsync";
	if (what) saved = errno;
	if (close(o->fd) != 0 && !what) {
		what = "close";
		saved = errno;
	}
	o->fd = -1;
	if (!what && rename(o->temp, o->path) != 0) {
		what = "rename";
		saved = errno;
	}
	if (what) {
		st = CX_FAIL(
			err, CX_ERR_IO, "%s: %s failed: %s", cx_path_tail(o->path), what, strerror(saved));
		unlink(o->temp);
	} else {
		sync_folder(o);
	}
	cx_free(&o->alloc, o, o->self_bytes);
	return st;
}

void cx_file_out_discard(cx_file_out *o)
{
	if (!o) return;
	if (o->fd >= 0) close(o->fd);
	unlink(o->temp);
	cx_free(&o->alloc, o, o->self_bytes);
}
