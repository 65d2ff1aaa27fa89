/* attr.h - attributes as text: one field at a time, by the tables of attr.c; for text.c and
 * text_parse.c. */
#ifndef CX_ATTR_H
#define CX_ATTR_H

#include "graph/graph.h"

enum { CX_FIELD_TEXT_MAX = 160 }; /* bytes that the text of any field's value fits in */

/* "1e-05", "true", "f16", "[0,2]": the value of one field; floats round-trip exactly. Returns the
 * length. */
size_t cx__field_print(const cx_field *f, const void *attr, char *buf, size_t size);
/* Reads what print wrote; `text` has n bytes. False if it is not a value of that field. */
bool cx__field_parse(const cx_field *f, void *attr, const char *text, size_t n);
bool cx__field_equal(const cx_field *f, const void *a, const void *b);
const cx_field *cx__field_by_name(cx_attr_id id, const char *name, size_t n);

/* "%.9g" whatever the locale; inf, -inf and nan are spelled so. Returns the length. */
size_t cx__float_print(float x, char *buf, size_t size);
bool cx__float_parse(const char *text, size_t n, float *out);
bool cx__int_parse(const char *text, size_t n, int64_t *out);

#endif
