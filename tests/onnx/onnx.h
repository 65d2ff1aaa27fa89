/* onnx.h - turns an ONNX graph into one of ours, for test_onnx.c.
 *
 * The cases come with their inputs, so every value is known while the graph is built: what ONNX
 * passes as a tensor and we as an attribute (axes, sizes) is read by evaluating the graph so far on
 * the reference. Element types that we lack but can hold are widened or narrowed (f64 to f32; i16,
 * u16 to i32; u32, u64 to i64): the case is then compared in that type and counted apart. An
 * operator that is not ours sets `why`. */
#ifndef CX_TEST_ONNX_H
#define CX_TEST_ONNX_H

#include "tests/ref_run.h"

#include "onnx.pb-c.h"

typedef Onnx__NodeProto onnx_node;

enum { ONNX_MAX_VALUES = 1024 };
typedef struct onnx_value {
	const char *name;
	cx_tensor t;
} onnx_value;

typedef struct onnx_ctx {
	ref_run *r;
	cx_graph *g;
	int64_t opset;
	onnx_value values[ONNX_MAX_VALUES]; /* searched from the end: bodies of Scan shadow */
	uint32_t n_values;
	const char *why; /* why the case is not ours; NULL: it is */
	const char *op;  /* operator that said so */
	bool widened;    /* some type was not ours as it is */
} onnx_ctx;

/* A row of the operator tables: false, with why set, if this use of it is not ours. arg is the
 * function's own. */
typedef bool onnx_fn(onnx_ctx *c, const onnx_node *n, int arg);
typedef struct onnx_row {
	const char *name;
	onnx_fn *fn;
	int arg;
} onnx_row;
extern const onnx_row onnx_rows_math[], onnx_rows_move[], onnx_rows_nn[], onnx_rows_seq[];

/* Adds all nodes of a graph (or body of a Scan); false with why set. */
bool onnx_import(onnx_ctx *c, const Onnx__GraphProto *graph);
/* Our element type for an ONNX one; false: there is none. */
bool onnx_dtype(int32_t data_type, cx_dtype *out, bool *widened);
/* Dense content in our type, to be freed; NULL with *why set if the type is not ours. */
void *onnx_tensor_data(
	const Onnx__TensorProto *t, cx_dtype *dtype, cx_list *dims, bool *widened, const char **why);
bool onnx_not_ours(onnx_ctx *c, const char *why); /* sets why, returns false */

/* ---- inside the tables ---- */

void onnx_set(onnx_ctx *c, const char *name, cx_tensor t);
cx_tensor onnx_find(const onnx_ctx *c, const char *name);
static inline bool has_in(const onnx_node *n, size_t i)
{
	return i < n->n_input && n->input[i][0];
}
static inline bool has_out(const onnx_node *n, size_t i)
{
	return i < n->n_output && n->output[i][0];
}
cx_tensor in_(const onnx_ctx *c, const onnx_node *n, size_t i); /* CX_NONE where absent */
bool out_(onnx_ctx *c, const onnx_node *n, size_t i,
	cx_tensor t); /* does nothing for an absent output; true */
const Onnx__AttributeProto *attr_(const onnx_node *n, const char *name); /* NULL: absent */
int64_t attr_i(const onnx_node *n, const char *name, int64_t missing);
float attr_f(const onnx_node *n, const char *name, float missing);
bool attr_is(const onnx_node *n, const char *name, const char *value, const char *missing);
bool attr_list(const onnx_node *n, const char *name, cx_list *out); /* false: absent */

/* Values of an integer (or float) tensor, at most max; gives how many there are. */
int64_t host_ints(onnx_ctx *c, cx_tensor t, int64_t *v, int64_t max);
double host_number(onnx_ctx *c, cx_tensor t); /* the first element */
cx_list host_list(onnx_ctx *c, cx_tensor t);
/* Operand i if it is there, else attribute `name`. False: neither. */
bool list_arg(onnx_ctx *c, const onnx_node *n, size_t i, const char *name, cx_list *out);

cx_shape shape_(const onnx_ctx *c, cx_tensor t);
cx_dtype dtype_(const onnx_ctx *c, cx_tensor t);
int64_t axis_of(int64_t axis, int32_t rank);
cx_tensor scalar(onnx_ctx *c, cx_dtype t, double v);
cx_tensor like(onnx_ctx *c, cx_tensor x, double v); /* a scalar of x's dtype */
cx_tensor int_const(onnx_ctx *c, cx_dtype t, cx_list dims, const int64_t *v);
cx_tensor cast_(onnx_ctx *c, cx_tensor x, cx_dtype t); /* x itself if it is of that type */
cx_tensor reshape_(onnx_ctx *c, cx_tensor x, cx_list dims);
cx_tensor perm_(onnx_ctx *c, cx_tensor x, cx_list perm);
cx_tensor expand_(onnx_ctx *c, cx_tensor x, cx_list dims);
/* Elements [begin, begin + n) of an axis; and those at these places. */
cx_tensor part_(onnx_ctx *c, cx_tensor x, int64_t axis, int64_t begin, int64_t n);
cx_tensor pick_(onnx_ctx *c, cx_tensor x, int64_t axis, int64_t n, const int64_t *at);
/* Indices as ONNX has them, i64 and negative from the end, to i32 inside [0, size). */
cx_tensor index_(onnx_ctx *c, cx_tensor idx, int64_t size);
cx_list dims_of(const onnx_ctx *c, cx_tensor t);
cx_tensor reduce_(onnx_ctx *c, cx_op op, cx_tensor x, cx_list axes, bool keep);

#endif
