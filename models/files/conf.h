/* conf.h - configuration files that people write: sections, "key = value" lines, "#" comments.
 *
 *	# comment
 *	[train]
 *	steps = 2000          # the rest of the line
 *	name  = "with blanks, or a #"
 *
 * A program describes its sections by tables; what is read, printed, documented and refused follows
 * from them. Every key has a default; a file says only what differs. An error names file, line and
 * key: an unknown section or key, a key that comes twice, a value of the wrong kind or out of
 * range. Numbers are decimal, true and false are the only truth values, words are written bare. */
#ifndef CX_FILES_CONF_H
#define CX_FILES_CONF_H

#include "models/files/map.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum cx_conf_kind {
	CX_CONF_INT,  /* int64_t in lo..hi */
	CX_CONF_REAL, /* double in lo..hi, finite */
	CX_CONF_BOOL, /* bool */
	CX_CONF_WORD, /* int: index of one of the blank-separated words */
	CX_CONF_TEXT  /* char[size], terminated; may be empty */
} cx_conf_kind;

typedef struct cx_conf_key {
	const char *name;
	cx_conf_kind kind;
	size_t offset;     /* of the field in the section's struct */
	const char *def;   /* the default, written as in a file */
	double lo, hi;     /* INT (exact up to 2^53), REAL */
	const char *words; /* WORD */
	size_t size;       /* TEXT: bytes of the field */
	const char *doc;   /* one line; for people */
} cx_conf_key;

typedef struct cx_conf_section {
	const char *name;
	const cx_conf_key *keys; /* [n_keys]; NULL: the section may be there and is not looked at */
	size_t n_keys;
	void *to; /* the struct that is filled */
} cx_conf_section;

enum { CX_CONF_MAX_KEYS = 256 }; /* of all sections together */

/* Every field to its default. A default that does not read is a fault of the table: asserted. */
CX_API void cx_conf_defaults(const cx_conf_section *s, size_t n_sections);
/* Fields that the file names; others stay as they are (call cx_conf_defaults() first). On failure
 * some fields may have changed. */
CX_API cx_status cx_conf_read(
	const cx_alloc *a, const char *path, const cx_conf_section *s, size_t n_sections, cx_err *err);
CX_API cx_status cx_conf_parse(
	const cx_file_map *map, const cx_conf_section *s, size_t n_sections, cx_err *err);
/* One assignment from a command line: "train.steps=100"; without a section, "steps=100", the first
 * section that has the key. */
CX_API cx_status cx_conf_set(
	const cx_conf_section *s, size_t n_sections, const char *assignment, cx_err *err);
/* The sections as a file: each key with its value, and as comments its meaning, its range and its
 * default. Reads back to the same values. The caller frees: cx_free(a, *text, *n_bytes + 1). */
CX_API cx_status cx_conf_print(const cx_conf_section *s, size_t n_sections, const cx_alloc *a,
	char **text, size_t *n_bytes, cx_err *err);

#ifdef __cplusplus
}
#endif
#endif
