/* seq.c - ONNX operators that run along a sequence, as ours: scans unrolled, recurrences,
 * convolution with state. */
#include "tests/onnx/onnx.h"

#include <math.h>
#include <string.h>

enum { MAX_STEPS = 32 };

/* Row t of axis `axis`, without the axis. */
static cx_tensor step_of(onnx_ctx *c, cx_tensor x, int64_t axis, int64_t t)
{
	cx_list d = dims_of(c, x), left = {0};
	for (int32_t i = 0; i < d.n; i++)
		if (i != axis) left.v[left.n++] = d.v[i];
	return reshape_(c, part_(c, x, axis, t, 1), left);
}

/* Values stacked along a new axis. */
static cx_tensor stack(onnx_ctx *c, cx_tensor *steps, int64_t n, int64_t axis)
{
	cx_list d = dims_of(c, steps[0]), more = {.n = d.n + 1};
	for (int32_t i = 0, j = 0; i < more.n; i++) more.v[i] = i == axis ? 1 : d.v[j++];
	for (int64_t t = 0; t < n; t++) steps[t] = reshape_(c, steps[t], more);
	return cx_concat(c->g, steps, (uint32_t)n, &(cx_attr_axis){.axis = axis});
}

/* ---- Scan: the body once per step. Opset 8 has a batch axis first, here of size 1. ---- */

static bool scan(onnx_ctx *c, const onnx_node *n, int arg)
{
	const Onnx__GraphProto *body = attr_(n, "body")->g;
	size_t old = c->opset < 9, n_scan = (size_t)attr_i(n, "num_scan_inputs", 1),
		   n_state = n->n_input - old - n_scan;
	size_t n_stacked = n->n_output - n_state;
	cx_tensor state[8], in[8], all[8][MAX_STEPS];
	int64_t steps;
	(void)arg;
	if (n_state > 8 || n_scan > 8 || n_stacked > 8) return onnx_not_ours(c, "many operands");
	if (attr_(n, "scan_input_axes") || attr_(n, "scan_input_directions") ||
		attr_(n, "scan_output_axes") || attr_(n, "scan_output_directions") ||
		(old && shape_(c, in_(c, n, 1)).dim[0] != 1))
		return onnx_not_ours(c, "scan along other axes, or of batches");
	for (size_t i = 0; i < n_state; i++)
		state[i] = old ? step_of(c, in_(c, n, 1 + i), 0, 0) : in_(c, n, i);
	for (size_t i = 0; i < n_scan; i++)
		in[i] = old ? step_of(c, in_(c, n, 1 + n_state + i), 0, 0) : in_(c, n, n_state + i);
	steps = shape_(c, in[0]).dim[0];
	if (steps > MAX_STEPS || steps < 1) return onnx_not_ours(c, "number of steps");
	for (int64_t t = 0; t < steps; t++) {
		uint32_t mark = c->n_values;
		for (size_t i = 0; i < n_state; i++) onnx_set(c, body->input[i]->name, state[i]);
		for (size_t i = 0; i < n_scan; i++)
			onnx_set(c, body->input[n_state + i]->name, step_of(c, in[i], 0, t));
		if (!onnx_import(c, body)) return false;
		for (size_t i = 0; i < n_state; i++) state[i] = onnx_find(c, body->output[i]->name);
		for (size_t i = 0; i < n_stacked; i++)
			all[i][t] = onnx_find(c, body->output[n_state + i]->name);
		c->n_values = mark;
	}
	c->op = n->op_type;
	for (size_t i = 0; i < n_state; i++) out_(c, n, i, old ? stack(c, &state[i], 1, 0) : state[i]);
	for (size_t i = 0; i < n_stacked; i++) {
		cx_tensor y = stack(c, all[i], steps, 0);
		out_(c, n, n_state + i, old ? stack(c, &y, 1, 0) : y);
	}
	return true;
}

/* ---- recurrent cells; one direction, all sequences of full length ---- */

typedef struct cell {
	cx_tensor w, r, wb, rb, h, mem; /* [G*H,I] [G*H,H] [G*H] [G*H] [B,H] [B,H] */
	cx_tensor peep[3];
	int64_t size;
} cell;

static cx_tensor gate_rows(onnx_ctx *c, cx_tensor w, int64_t gate, int64_t size)
{
	return cx_is_none(w) ? w : part_(c, w, 0, gate * size, size);
}

static cx_tensor linear(onnx_ctx *c, cx_tensor x, cx_tensor w, cx_tensor b)
{
	x = cx_matmul(c->g, x, w, &(cx_attr_matmul){.trans_b = true});
	return cx_is_none(b) ? x : cx_add(c->g, x, b);
}

/* x W' + wb + h R' + rb of one gate. */
static cx_tensor gate(onnx_ctx *c, const cell *s, cx_tensor x, cx_tensor h, int64_t i)
{
	return cx_add(c->g,
		linear(c, x, gate_rows(c, s->w, i, s->size), gate_rows(c, s->wb, i, s->size)),
		linear(c, h, gate_rows(c, s->r, i, s->size), gate_rows(c, s->rb, i, s->size)));
}

static cx_tensor peeped(onnx_ctx *c, const cell *s, cx_tensor pre, cx_tensor mem, int i)
{
	return cx_is_none(s->peep[i]) ? pre : cx_add(c->g, pre, cx_mul(c->g, s->peep[i], mem));
}

static void lstm_step(onnx_ctx *c, cell *s, cx_tensor x)
{
	cx_graph *g = c->g;
	cx_tensor i = cx_sigmoid(g, peeped(c, s, gate(c, s, x, s->h, 0), s->mem, 0));
	cx_tensor f = cx_sigmoid(g, peeped(c, s, gate(c, s, x, s->h, 2), s->mem, 2)),
			  o = gate(c, s, x, s->h, 1);
	s->mem = cx_add(g, cx_mul(g, f, s->mem), cx_mul(g, i, cx_tanh(g, gate(c, s, x, s->h, 3))));
	o = cx_sigmoid(g, peeped(c, s, o, s->mem, 1));
	s->h = cx_mul(g, o, cx_tanh(g, s->mem));
}

static void gru_step(onnx_ctx *c, cell *s, cx_tensor x, bool linear_before_reset)
{
	cx_graph *g = c->g;
	cx_tensor z = cx_sigmoid(g, gate(c, s, x, s->h, 0)), r = cx_sigmoid(g, gate(c, s, x, s->h, 1)),
			  n;
	cx_tensor rh = gate_rows(c, s->r, 2, s->size), rb = gate_rows(c, s->rb, 2, s->size);
	n = linear(c, x, gate_rows(c, s->w, 2, s->size), gate_rows(c, s->wb, 2, s->size));
	if (linear_before_reset) n = cx_add(g, n, cx_mul(g, r, linear(c, s->h, rh, rb)));
	else n = cx_add(g, n, linear(c, cx_mul(g, r, s->h), rh, rb));
	n = cx_tanh(g, n);
	s->h = cx_add(g, cx_mul(g, cx_sub(g, like(c, z, 1), z), n), cx_mul(g, z, s->h));
}

/* Initial state [D,B,H] (or [B,D,H] in layout 1), zeros if absent. */
static cx_tensor initial(onnx_ctx *c, const onnx_node *n, size_t i, int64_t batch, int64_t size)
{
	if (!has_in(n, i)) return expand_(c, scalar(c, CX_F32, 0), DIMS_(batch, size));
	return reshape_(c, in_(c, n, i), DIMS_(batch, size));
}

static bool check_cell(onnx_ctx *c, const onnx_node *n, int64_t steps)
{
	int64_t len[64], count = has_in(n, 4) ? host_ints(c, in_(c, n, 4), len, 64) : 0;
	if (!attr_is(n, "direction", "forward", "forward") || attr_(n, "activations") ||
		attr_(n, "clip"))
		return onnx_not_ours(c, "direction or activations");
	for (int64_t i = 0; i < count; i++)
		if (len[i] != steps) return onnx_not_ours(c, "sequences of several lengths");
	return steps >= 1 && steps <= MAX_STEPS ? true : onnx_not_ours(c, "number of steps");
}

static bool recurrent(onnx_ctx *c, const onnx_node *n, int gates)
{
	bool rows_first = attr_i(n, "layout", 0); /* [B,T,I] */
	cx_tensor x = in_(c, n, 0), y[MAX_STEPS], last;
	cx_list d = dims_of(c, x);
	int64_t steps = d.v[rows_first], batch = d.v[!rows_first];
	cell s = {.size = attr_i(n, "hidden_size", 1), .peep = {CX_NONE, CX_NONE, CX_NONE}};
	if (!check_cell(c, n, steps)) return false;
	s.w = step_of(c, in_(c, n, 1), 0, 0);
	s.r = step_of(c, in_(c, n, 2), 0, 0);
	s.wb = has_in(n, 3) ? part_(c, step_of(c, in_(c, n, 3), 0, 0), 0, 0, gates * s.size) : CX_NONE;
	s.rb = has_in(n, 3)
			   ? part_(c, step_of(c, in_(c, n, 3), 0, 0), 0, gates * s.size, gates * s.size)
			   : CX_NONE;
	s.h = initial(c, n, 5, batch, s.size);
	if (gates == 4) s.mem = initial(c, n, 6, batch, s.size);
	for (int64_t i = 0; gates == 4 && has_in(n, 7) && i < 3; i++)
		s.peep[i] = gate_rows(c, step_of(c, in_(c, n, 7), 0, 0), i, s.size);
	for (int64_t t = 0; t < steps; t++) {
		cx_tensor row = step_of(c, x, rows_first, t);
		if (gates == 4) lstm_step(c, &s, row);
		else if (gates == 3) gru_step(c, &s, row, attr_i(n, "linear_before_reset", 0));
		else s.h = cx_tanh(c->g, gate(c, &s, row, s.h, 0));
		y[t] = s.h;
	}
	last = stack(c, y, steps, 0); /* [T,B,H] to [T,1,B,H] or [B,T,1,H] */
	if (rows_first)
		out_(c, n, 0, reshape_(c, perm_(c, last, DIMS_(1, 0, 2)), DIMS_(batch, steps, 1, s.size)));
	else out_(c, n, 0, reshape_(c, last, DIMS_(steps, 1, batch, s.size)));
	out_(c, n, 1, reshape_(c, s.h, rows_first ? DIMS_(batch, 1, s.size) : DIMS_(1, batch, s.size)));
	return out_(c, n, 2,
		gates == 4
			? reshape_(c, s.mem, rows_first ? DIMS_(batch, 1, s.size) : DIMS_(1, batch, s.size))
			: s.h);
}

/* ---- causal convolution with state: our conv1d on rows of time ---- */

static bool causal_conv(onnx_ctx *c, const onnx_node *n, int arg)
{
	cx_tensor x = in_(c, n, 0), w = in_(c, n, 1), state, off, y;
	cx_list d = dims_of(c, x); /* [B,C,L] */
	int64_t taps = shape_(c, w).dim[2], starts[65];
	cx_attr_conv1d at = {.silu = attr_is(n, "activation", "silu", "none") ||
								 attr_is(n, "activation", "swish", "none")};
	(void)arg;
	if (d.n != 3 || d.v[0] > 64) return onnx_not_ours(c, "convolution in two dimensions");
	for (int64_t b = 0; b <= d.v[0]; b++) starts[b] = b * d.v[2];
	off = int_const(c, CX_I32, DIMS_(d.v[0] + 1), starts);
	state = has_in(n, 3) ? perm_(c, in_(c, n, 3), DIMS_(0, 2, 1))
						 : expand_(c, like(c, x, 0), DIMS_(d.v[0], taps - 1, d.v[1]));
	x = reshape_(c, perm_(c, x, DIMS_(0, 2, 1)), DIMS_(d.v[0] * d.v[2], d.v[1]));
	y = cx_conv1d(
		c->g, x, reshape_(c, w, DIMS_(d.v[1], taps)), in_(c, n, 2), state, off, CX_NONE, &at);
	out_(c, n, 1, perm_(c, cx_out(c->g, y, 1), DIMS_(0, 2, 1)));
	return out_(c, n, 0, perm_(c, reshape_(c, y, DIMS_(d.v[0], d.v[2], d.v[1])), DIMS_(0, 2, 1)));
}

/* ---- linear attention. Its decay is one per key element, ours one per head: so unrolled, in
 * elementary ops ---- */

/* [B,T,H*d] at step t as [B,H,d,1] (or [B,H,1,d]). */
static cx_tensor head_step(onnx_ctx *c, cx_tensor x, int64_t t, int64_t heads, bool column)
{
	cx_list d = dims_of(c, x);
	int64_t size = d.v[2] / heads;
	x = cast_(c,
		reshape_(c, part_(c, x, 1, t, 1),
			column ? DIMS_(d.v[0], heads, size, 1) : DIMS_(d.v[0], heads, 1, size)),
		CX_F32);
	return x;
}

static bool linear_attention(onnx_ctx *c, const onnx_node *n, int arg)
{
	cx_graph *g = c->g;
	cx_tensor q = in_(c, n, 0), k = in_(c, n, 1), v = in_(c, n, 2), s, y[MAX_STEPS], out;
	cx_list d = dims_of(c, q);
	int64_t heads = attr_i(n, "q_num_heads", 1), kv = attr_i(n, "kv_num_heads", 1),
			group = heads / kv;
	int64_t dk = d.v[2] / heads, dv = shape_(c, v).dim[2] / kv;
	bool delta = attr_is(n, "update_rule", "delta", "gated_delta") ||
				 attr_is(n, "update_rule", "gated_delta", "gated_delta");
	float scale = attr_f(n, "scale", 0);
	(void)arg;
	if (d.v[1] > MAX_STEPS) return onnx_not_ours(c, "number of steps");
	if (scale == 0) scale = 1 / sqrtf((float)dk);
	s = has_in(n, 3) ? cast_(c, in_(c, n, 3), CX_F32)
					 : expand_(c, scalar(c, CX_F32, 0), DIMS_(d.v[0], kv, dk, dv));
	for (int64_t t = 0; t < d.v[1]; t++) {
		cx_tensor kt = head_step(c, k, t, kv, true), vt = head_step(c, v, t, kv, false), qt;
		if (has_in(n, 4)) s = cx_mul(g, s, cx_exp(g, head_step(c, in_(c, n, 4), t, kv, true)));
		if (delta) vt = cx_sub(g, vt, reduce_(c, CX_OP_sum, cx_mul(g, s, kt), DIMS_(2), true));
		if (has_in(n, 5)) {
			cx_tensor beta = in_(c, n, 5);
			vt = cx_mul(g, vt, head_step(c, beta, t, shape_(c, beta).dim[2], true));
		}
		s = cx_add(g, s, cx_mul(g, kt, vt));
		qt = reshape_(c, head_step(c, q, t, heads, false), DIMS_(d.v[0], kv, group, dk));
		qt = cx_mul(g, qt, scalar(c, CX_F32, scale));
		y[t] = reshape_(c, cx_matmul(g, qt, s, NULL), DIMS_(d.v[0], heads * dv));
	}
	out = stack(c, y, d.v[1], 1);
	out_(c, n, 0, cast_(c, out, dtype_(c, q)));
	return out_(c, n, 1, cast_(c, s, dtype_(c, has_in(n, 3) ? in_(c, n, 3) : q)));
}

const onnx_row onnx_rows_seq[] = {
	{"Scan", scan, 0},
	{"RNN", recurrent, 1},
	{"GRU", recurrent, 3},
	{"LSTM", recurrent, 4},
	{"CausalConvWithState", causal_conv, 0},
	{"LinearAttention", linear_attention, 0},
	{NULL, NULL, 0},
};
