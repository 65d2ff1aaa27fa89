/* fuse.h - what the fusion patterns share: a proposal, the questions they ask, the one place that
 * decides. */
#ifndef CX_FUSE_H
#define CX_FUSE_H

#include "graph/plan.h"

typedef struct cx_fuser {
	cx_plan *p;
	cx_readers rd; /* as of the start of this pattern's walk */
	cx_fusion kind;
	bool changed; /* something was fused since */
	cx_status st; /* sticky: out of memory */
	cx_err *err;
} cx_fuser;

/* A proposal: these nodes become one. Attributes are copied when it is accepted. */
enum { CX_GROUP_MEMBERS = 48, CX_GROUP_IN = 64 };
typedef struct cx_group {
	uint32_t member[CX_GROUP_MEMBERS], n_member;
	uint32_t in[CX_GROUP_IN], n_in;
	uint32_t out[CX_MAX_OUT], n_out;
	cx_op op;
	const void *attr;
	const cx_prog *prog;
} cx_group;

static inline void cx__group_member(cx_group *g, uint32_t node)
{
	if (node != CX_NO && g->n_member < CX_GROUP_MEMBERS) g->member[g->n_member++] = node;
}
static inline void cx__group_in(cx_group *g, uint32_t t)
{
	if (g->n_in < CX_GROUP_IN) g->in[g->n_in++] = t;
}

/* Makes the group one node if that is legal and the device has the kernel; else notes why not (when
 * it is a near miss: `note`). True if done. Pointers into p->n and p->t are stale after it. */
bool cx__fuse_commit(cx_fuser *f, const cx_group *g, bool note);
/* The legality part alone: reason, or CX_WHY_FUSED; *slot is where in the order it may stand. */
cx_reason cx__fuse_check(cx_fuser *f, const cx_group *g, uint32_t *slot);

/* The live node that writes t, if t is a root read as it is; CX_NO for leaves and views. */
uint32_t cx__fuse_def(const cx_fuser *f, uint32_t t);
/* The same with this op and one output; CX_NO otherwise. */
uint32_t cx__fuse_def_op(const cx_fuser *f, uint32_t t, cx_op op);
/* The one live node that reads root t, exactly once, t being no output and no state; CX_NO
 * otherwise. */
uint32_t cx__fuse_reader(const cx_fuser *f, uint32_t t);
uint32_t cx__fuse_reader_op(const cx_fuser *f, uint32_t t, cx_op op);
bool cx__fuse_same(
	const cx_fuser *f, uint32_t a, uint32_t b); /* the same bytes, read the same way */
/* A constant float of one element. */
bool cx__fuse_scalar(const cx_fuser *f, uint32_t t, float *value);
/* The operand of a two-operand node that is not t; CX_NO if both are. */
uint32_t cx__fuse_other(const cx_fuser *f, uint32_t node, uint32_t t);

#define CX_FUSION(name, why) void cx__fuse_##name(cx_fuser *f, uint32_t node);
#include "graph/fusions.def"
#undef CX_FUSION

#endif
