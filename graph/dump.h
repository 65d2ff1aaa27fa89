/* dump.h - a plan at any stage as text for people and programs: graph text, JSON, Graphviz.
 *
 * Plans come from cx_plan_build() or, stopped early, from cx__plan_build_to(). */
#ifndef CX_DUMP_H
#define CX_DUMP_H

#include "graph/plan.h"

/* A string that grows; zero-initialise with an allocator. After a failed allocation it takes no
 * more and `failed` stays set. */
typedef struct cx_text_out {
	const cx_alloc *alloc;
	char *s;
	size_t n, cap;
	bool failed;
} cx_text_out;
void cx__put(cx_text_out *t, const char *fmt, ...) CX_PRINTF(2, 3); /* at most 511 bytes a call */
/* In double quotes, for JSON in a page: also < > & and all control bytes are escaped; bytes above
 * 126 become U+FFFD, so that the result is ASCII whatever comes in. */
void cx__put_json(cx_text_out *t, const char *s);
/* Gives the string away: cx_free(alloc, *out, *n_bytes + 1). */
cx_status cx__text_out_take(cx_text_out *t, char **out, size_t *n_bytes, cx_err *err);

/* The plan's nodes as a finished graph of its own, fused ones too; prints, parses and evaluates as
 * any other. Leaves keep their names, constants their bytes. Views are made again from reshape,
 * slice, permute and broadcast; CX_ERR_UNSUPPORTED names one that cannot be. */
cx_status cx__plan_to_graph(const cx_plan *p, const cx_alloc *alloc, cx_graph **out, cx_err *err);

typedef enum cx_dump_format { CX_DUMP_text, CX_DUMP_json, CX_DUMP_dot } cx_dump_format;
/* seconds: [steps] of a profile, or NULL. JSON is as docs/DUMP_JSON.md says. */
cx_status cx__plan_dump(const cx_plan *p, cx_dump_format format, const double *seconds,
	const cx_alloc *alloc, char **text, size_t *n_bytes, cx_err *err);

/* What a step is called: label of the source node that it ends with, scope included; "" if none. */
const char *cx__pnode_label(const cx_plan *p, const cx_pnode *n, char *buf, size_t size);

#endif
