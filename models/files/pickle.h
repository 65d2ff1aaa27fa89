/* pickle.h - Python pickles as plain data; nothing in them is ever executed.
 *
 * A pickle is a program for a stack machine. The opcodes that build data (protocols 2 to 5: None,
 * numbers, texts, tuples, lists, dicts, references) are carried out. Where Python would import a
 * name and call it, the name, the arguments and the state are kept as a record (CX_PICKLE_OBJECT)
 * for the caller to recognise or to leave alone. Any other opcode is an error. Memory is
 * proportional to the pickle's size. */
#ifndef CX_FILES_PICKLE_H
#define CX_FILES_PICKLE_H

#include "graph/base.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum cx_pickle_kind {
	CX_PICKLE_NONE,
	CX_PICKLE_BOOL,   /* i */
	CX_PICKLE_INT,    /* i; one that does not fit is FLOAT */
	CX_PICKLE_FLOAT,  /* f */
	CX_PICKLE_TEXT,   /* s[n], not terminated; UTF-8 unchecked */
	CX_PICKLE_BYTES,  /* s[n] */
	CX_PICKLE_TUPLE,  /* at[n] */
	CX_PICKLE_LIST,   /* at[n]; sets too */
	CX_PICKLE_DICT,   /* at[n], key and value by turns */
	CX_PICKLE_GLOBAL, /* s[n] module, name */
	CX_PICKLE_OBJECT, /* cls (GLOBAL), args, state or NULL; at[n]: items set on it, as in a DICT */
	CX_PICKLE_STORAGE /* args: a persistent id, in PyTorch's files the tuple of a storage */
} cx_pickle_kind;

typedef struct cx_pickle cx_pickle;
struct cx_pickle {
	cx_pickle_kind kind;
	int64_t i;
	double f;
	const char *s;
	size_t n, cap;
	const char *name; /* of a GLOBAL, in the arena, terminated */
	cx_pickle **at;
	cx_pickle *cls, *args, *state;
};

/* data[size] begins with a pickle; what follows its end is not looked at. Texts point into data,
 * the rest is in the arena. Graphs with cycles are possible: walk by known shapes only. */
cx_status cx_pickle_parse(cx_arena *arena, const char *label, const unsigned char *data,
	size_t size, const cx_pickle **out, cx_err *err);

/* NULL is a value that is there: all of these answer false or NULL for it. */
bool cx_pickle_is_text(const cx_pickle *v, const char *text);
/* A GLOBAL, or an OBJECT whose cls is one, of this module and name. */
bool cx_pickle_is_a(const cx_pickle *v, const char *module, const char *name);
/* Of a DICT or of an OBJECT's items (an OrderedDict), or of the state of an OBJECT: the value of
 * the last entry with this text as key; NULL if there is none. */
const cx_pickle *cx_pickle_get(const cx_pickle *v, const char *key);

#ifdef __cplusplus
}
#endif
#endif
