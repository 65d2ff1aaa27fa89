/* graph.h - the inside of a cx_graph, for graph/ and backends/ and tests; not public.
 *
 * Node ids are tensor ids. A multi-output node of n outputs is followed by n-1 `proj` nodes (ids
 * +1, +2 ...), which own outputs 1..; so every tensor is one node. Invariants (cx__graph_check
 * verifies): operands have smaller ids; a view's root is no view; every version of a state is
 * updated at most once. */
#ifndef CX_GRAPH_H
#define CX_GRAPH_H

#include "graph/cx.h"

typedef enum cx_kind {
	CX_KIND_LEAF,
	CX_KIND_VIEW,
	CX_KIND_MAP,
	CX_KIND_ROW,
	CX_KIND_TILE,
	CX_KIND_MOVE,
	CX_KIND_SCAN,
	CX_KIND_ATTN,
	CX_KIND_LOSS,
	CX_KIND_GEN,
	CX_KIND_FUSED,
	CX_KIND_META
} cx_kind;

typedef enum cx_attr_id {
#define CX_ATTR(name, fields) CX_ATTR_##name,
#include "graph/attrs.def"
#undef CX_ATTR
	CX_ATTR_COUNT
} cx_attr_id;

/* One field of an attribute struct: how attr.c prints, parses, compares and randomises it. */
typedef struct cx_field {
	char kind; /* 'I' 'F' 'B' 'D' 'O' 'L' */
	const char *name, *doc;
	uint16_t offset;
} cx_field;
typedef struct cx_attr_info {
	const char *name;
	uint16_t size;
	uint16_t n_fields;
	const cx_field *fields;
	const void *defaults; /* [size] */
} cx_attr_info;
extern const cx_attr_info cx__attrs[CX_ATTR_COUNT];
bool cx__attr_equal(cx_attr_id id, const void *a, const void *b);
uint64_t cx__attr_hash(cx_attr_id id, const void *attr); /* equal ones have equal hashes */

/* Normalised mean square error allowed against the reference, by output dtype (f32, f16, bf16). 0:
 * same bits. NaN and Inf must be in the same places with the same sign. Integers and bools are
 * always exact. */
typedef struct cx_tol {
	double f32, f16, bf16;
} cx_tol;

struct cx_shape_ctx;
struct cx_grad_ctx; /* grad.h */
typedef struct cx_op_info {
	const char *name;
	uint8_t n_min, n_max; /* n_max 255: any number */
	uint8_t n_out;        /* at most */
	cx_kind kind;
	cx_attr_id attr;
	cx_status (*shape)(struct cx_shape_ctx *c);
	void (*grad)(struct cx_grad_ctx *c); /* NULL: none, see grad_name and doc */
	const char *grad_name;               /* "mul", "stop" */
	cx_tol tol;
	int8_t alias[CX_MAX_OUT]; /* output o is operand alias[o], updated; -1: a new tensor */
	const char *inputs, *doc;
} cx_op_info;
extern const cx_op_info cx__ops[CX_OP_COUNT];
bool cx__op_by_name(const char *name, size_t len, cx_op *out);

/* dtype, dims, and strides in elements. For BLOCK dtypes the innermost stride is 1 and the others
 * are whole rows. */
typedef struct cx_desc {
	cx_dtype dtype;
	int32_t rank;
	int64_t dim[CX_MAX_RANK];
	int64_t stride[CX_MAX_RANK];
} cx_desc;
void cx__desc_dense(cx_desc *d); /* sets row-major strides from dim */
bool cx__desc_is_dense(const cx_desc *d);
int64_t cx__desc_elems(const cx_desc *d);

/* What a shape rule sees: operands (dtype CX_DTYPE_COUNT where CX_NONE) and attributes; what it
 * gives: outputs. It may normalise attr in place (negative axes, -1 dims). On failure: return
 * CX_FAIL(c->err, CX_ERR_SHAPE, ...). */
typedef struct cx_shape_ctx {
	cx_op op;
	const cx_desc *in;
	uint32_t n_in;
	void *attr;
	const struct cx_prog *prog; /* of map */
	cx_desc out[CX_MAX_OUT]; /* dtype and dims; strides are filled in dense by the caller, but views
	                            set them */
	uint32_t n_out;
	/* views only: element offset of out[0] in the operand's storage; materialise: not expressible
	 * by strides */
	int64_t view_off;
	bool materialise;
	cx_err *err;
} cx_shape_ctx;

/* A map program: registers 0..n_in-1 are the operands (widened), register n_in+i is the result of
 * instruction i. p, q: clamp's bounds, cast's dtype (p). Outputs are registers, narrowed to the
 * output's dtype. */
enum { CX_PROG_MAX = 24, CX_PROG_MAX_IN = 8 };
typedef struct cx_instr {
	uint16_t op;
	uint8_t a, b, c, pad;
	float p, q;
} cx_instr;
typedef struct cx_prog {
	uint8_t n_in, n_instr, n_out, pad;
	uint8_t out[CX_MAX_OUT]; /* registers */
	uint8_t out_dtype[CX_MAX_OUT];
	cx_instr instr[CX_PROG_MAX];
} cx_prog;

typedef struct cx_node {
	uint16_t op;
	uint16_t flags; /* CX_NODE_* */
	uint32_t n_in;
	uint32_t *in;        /* [n_in] node ids, UINT32_MAX where absent */
	void *attr;          /* struct of cx__ops[op].attr */
	const cx_prog *prog; /* map only */
	cx_desc desc;
	uint32_t root;     /* node whose storage this reads: itself unless a view */
	int64_t view_off;  /* elements from the start of root's storage */
	uint32_t state;    /* leaf id of the state of which this is a version, else UINT32_MAX */
	uint32_t n_out;    /* of a node with outputs; proj nodes have 1 */
	const char *name;  /* leaf or output name, or label; "" if none */
	const char *scope; /* "blk.3." or "" */
	const char *file;
	int line;         /* of cx_at(), or NULL, 0 */
	const void *data; /* const: bytes */
	uint64_t data_bytes;
} cx_node;
enum { CX_NODE_STATE_UPDATED = 1 /* this version has a successor */ };

typedef struct cx_out_name {
	const char *name;
	uint32_t id;
} cx_out_name;

struct cx_graph {
	/* owns every pointer below except nodes and outputs, which grow by cx_realloc */
	cx_arena arena;
	cx_node *nodes; /* [n_nodes]; creation order is a valid run order */
	uint32_t n_nodes, cap_nodes;
	cx_out_name *outputs; /* [n_outputs] */
	uint32_t n_outputs, cap_outputs;
	bool finished;
	cx_err first_error; /* sticky */
	const char *scope;  /* current prefix */
	const char *at_file;
	int at_line;
	void *names; /* hash set of leaf names, private to graph.c */
};

/* Structural check by the invariants above: an error names the node. Used after parse and by tests.
 */
cx_status cx__graph_check(const cx_graph *g, cx_err *err);
/* A map or other fused node with a program; otherwise as cx_node_add(). */
cx_tensor cx__node_add(cx_graph *g, cx_op op, const cx_tensor *in, uint32_t n_in, const void *attr,
	const cx_prog *prog);
/* "%12 matmul 'blk.3.q' (model.c:77)" for messages; returns buf. */
const char *cx__node_text(const cx_graph *g, uint32_t id, char *buf, size_t size);

#endif
