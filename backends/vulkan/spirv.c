/* spirv.c - see spirv.h. One pass over each function instance: SPIR-V lists a block behind its
 * dominator, so whether a
 * block can be reached and which values are constants is known when it comes. */
#include "backends/vulkan/spirv.h"

#include <string.h>

/* Opcodes and decorations by their numbers in the SPIR-V specification, unified1. */
enum {
	OP_SOURCE = 3,
	OP_SOURCE_EXT = 4,
	OP_NAME = 5,
	OP_MEMBER_NAME = 6,
	OP_LINE = 8,
	OP_EXT_INST = 12,
	OP_ENTRY = 15,
	OP_MODE = 16,
	OP_CAPABILITY = 17,
	OP_TRUE = 41,
	OP_FALSE = 42,
	OP_CONSTANT = 43,
	OP_SPEC_TRUE = 48,
	OP_SPEC_FALSE = 49,
	OP_SPEC = 50,
	OP_SPEC_OP = 52,
	OP_FUNCTION = 54,
	OP_PARAMETER = 55,
	OP_FUNCTION_END = 56,
	OP_CALL = 57,
	OP_VARIABLE = 59,
	OP_LOAD = 61,
	OP_STORE = 62,
	OP_ARRAY_LENGTH = 68,
	OP_DECORATE = 71,
	OP_SHUFFLE = 79,
	OP_EXTRACT = 81,
	OP_INSERT = 82,
	OP_IMAGE_FETCH = 95,
	OP_F_TO_U = 109,
	OP_BITCAST = 124,
	OP_CONTROL_BARRIER = 224,
	OP_MEMORY_BARRIER = 225,
	OP_PHI = 245,
	OP_LOOP_MERGE = 246,
	OP_SELECTION_MERGE = 247,
	OP_LABEL = 248,
	OP_BRANCH = 249,
	OP_CONDITIONAL = 250,
	OP_SWITCH = 251,
	OP_RETURN = 253,
	OP_RETURN_VALUE = 254,
	OP_UNREACHABLE = 255,
	OP_SDOT = 4450,
	OP_COOP_LOAD = 5359,
	OP_COOP_STORE = 5360,
	OP_NO_LINE = 317,
	DECORATION_SPEC_ID = 1,
	HEADER = 5,
	MAX_PARAMS = 24,
	MAX_INSTANCES = 4096
};

typedef struct value {
	bool known;
	uint32_t v;
} value;

/* A function with some of its parameters constant. */
typedef struct instance {
	uint32_t function; /* id */
	uint32_t as;       /* its id in the new module */
	value arg[MAX_PARAMS];
	uint32_t n_arg;
} instance;

typedef struct cutter {
	const uint32_t *in;
	size_t n;
	const uint32_t *spec;
	uint32_t n_spec, bound, next, main;
	cx_spv *out, body, deco, edges; /* edges: pairs of labels, from and to, of this instance */
	uint32_t label;                 /* of the block being written */
	value *val;                     /* [bound] */
	uint32_t *map;                  /* [bound] id in the new module; 0: the same */
	uint32_t *spec_id;              /* [bound] 1 + SpecId */
	size_t *function;               /* [bound] where it starts, 0: not a function */
	uint8_t *local;                 /* [bound] made inside a function */
	uint8_t
		*mark; /* [bound] labels: 1 reached, 2 named by a merge that stays; results: 4 written */
	instance *inst; /* [MAX_INSTANCES] */
	uint32_t n_inst;
	bool failed;
} cutter;

static uint32_t op_of(uint32_t w)
{
	return w & 0xffff;
}
static uint32_t len_of(uint32_t w)
{
	return w >> 16;
}

/* ---- writing ---- */

static void put(cutter *c, cx_spv *s, const uint32_t *w, size_t n)
{
	if (c->failed) return;
	if (s->n + n > s->cap) {
		size_t cap = (s->n + n) * 2 + 256;
		uint32_t *p = cx_realloc(s->alloc, s->word, s->cap * 4, cap * 4);
		if (!p) {
			c->failed = true;
			return;
		}
		s->word = p;
		s->cap = cap;
	}
	if (n) memcpy(s->word + s->n, w, n * 4); /* w may be NULL where n is 0 */
	s->n += n;
}

static uint32_t mapped(const cutter *c, uint32_t id)
{
	return id < c->bound && c->map[id] ? c->map[id] : id;
}

/* Where the result id of an instruction is: 0 none. */
static uint32_t result_at(uint32_t op)
{
	switch (op) {
	case OP_STORE:
	case OP_COOP_STORE:
	case OP_SELECTION_MERGE:
	case OP_LOOP_MERGE:
	case OP_BRANCH:
	case OP_CONDITIONAL:
	case OP_SWITCH:
	case OP_RETURN:
	case OP_RETURN_VALUE:
	case OP_UNREACHABLE:
	case OP_CONTROL_BARRIER:
	case OP_MEMORY_BARRIER:
	case OP_FUNCTION_END:
	case OP_LINE:
	case OP_NO_LINE:
		return 0;
	case OP_LABEL:
		return 1;
	default:
		return 2;
	}
}

/* Is word i (from 1) of this instruction a number, not an id? */
static bool is_literal(const uint32_t *w, uint32_t i)
{
	switch (op_of(w[0])) {
	case OP_LOAD:
	case OP_VARIABLE:
	case OP_ARRAY_LENGTH:
		return op_of(w[0]) == OP_VARIABLE ? i == 3 : i >= 4;
	case OP_STORE:
	case OP_LOOP_MERGE:
		return i >= 3;
	case OP_FUNCTION:
		return i == 3;
	case OP_SELECTION_MERGE:
		return i >= 2;
	case OP_CONDITIONAL:
		return i >= 4;
	case OP_SWITCH:
		return i >= 3 && i % 2 == 1;
	case OP_EXT_INST:
	case OP_IMAGE_FETCH:
		return op_of(w[0]) == OP_EXT_INST ? i == 4 : i == 5;
	case OP_COOP_LOAD:
	case OP_COOP_STORE:
		return i == (op_of(w[0]) == OP_COOP_LOAD ? 6u : 5u);
	case OP_EXTRACT:
		return i >= 4;
	case OP_INSERT:
	case OP_SHUFFLE:
	case OP_SDOT:
		return i >= 5;
	default:
		return false;
	}
}

static void put_instr(cutter *c, const uint32_t *w)
{
	uint32_t r = result_at(op_of(w[0]));
	put(c, &c->body, w, 1);
	for (uint32_t i = 1; i < len_of(w[0]); i++) {
		uint32_t x = is_literal(w, i) ? w[i] : mapped(c, w[i]);
		put(c, &c->body, &x, 1);
	}
	if (r && w[r] < c->bound) c->mark[w[r]] |= 4;
}

static void reach(cutter *c, uint32_t label)
{
	put(c, &c->edges, (uint32_t[]){c->label, label}, 2);
	if (label < c->bound) c->mark[label] |= 1;
}

static bool is_edge(const cutter *c, uint32_t from, uint32_t to)
{
	for (size_t i = 0; i + 1 < c->edges.n; i += 2)
		if (c->edges.word[i] == from && c->edges.word[i + 1] == to) return true;
	return false;
}

static void put_branch(cutter *c, uint32_t label)
{
	uint32_t w[2] = {2u << 16 | OP_BRANCH, mapped(c, label)};
	put(c, &c->body, w, 2);
	reach(c, label);
}

/* ---- folding ---- */

static value make(uint32_t v)
{
	return (value){true, v};
}
static value at(const cutter *c, uint32_t id)
{
	return id < c->bound ? c->val[id] : (value){0};
}

static value fold_two(uint32_t op, uint32_t a, uint32_t b)
{
	switch (op) {
	case 128:
		return make(a + b);
	case 130:
		return make(a - b);
	case 132:
		return make(a * b);
	case 134:
		return b ? make(a / b) : (value){0};
	case 137:
		return b ? make(a % b) : (value){0};
	case 164:
	case 170:
		return make(a == b);
	case 165:
	case 171:
		return make(a != b);
	case 166:
		return make(a | b);
	case 167:
		return make(a & b);
	case 172:
		return make(a > b);
	case 173:
		return make((int32_t)a > (int32_t)b);
	case 174:
		return make(a >= b);
	case 175:
		return make((int32_t)a >= (int32_t)b);
	case 176:
		return make(a < b);
	case 177:
		return make((int32_t)a < (int32_t)b);
	case 178:
		return make(a <= b);
	case 179:
		return make((int32_t)a <= (int32_t)b);
	case 194:
		return b < 32 ? make(a >> b) : (value){0};
	case 196:
		return b < 32 ? make(a << b) : (value){0};
	case 197:
		return make(a | b);
	case 198:
		return make(a ^ b);
	case 199:
		return make(a & b);
	default:
		return (value){0};
	}
}

/* The value of op on n operands x. */
static value fold(const cutter *c, uint32_t op, const uint32_t *x, uint32_t n)
{
	value a = n > 0 ? at(c, x[0]) : (value){0}, b = n > 1 ? at(c, x[1]) : (value){0};
	float f;
	if (op == 169 && n == 3) return !a.known ? (value){0} : a.v ? b : at(c, x[2]);
	if (n == 2 && op == 166 && ((a.known && a.v) || (b.known && b.v))) return make(1);
	if (n == 2 && op == 167 && ((a.known && !a.v) || (b.known && !b.v))) return make(0);
	if (n == 2 && a.known && b.known) return fold_two(op, a.v, b.v);
	if (n != 1 || !a.known) return (value){0};
	if (op == 168) return make(!a.v);
	if (op == OP_BITCAST) return a;
	if (op == OP_F_TO_U) {
		memcpy(&f, &a.v, 4);
		return f >= 0 && f < 1e6f ? make((uint32_t)f) : (value){0};
	}
	return (value){0};
}

/* ---- the module's own constants ---- */

static value spec_value(const cutter *c, uint32_t id, uint32_t standard)
{
	uint32_t s = c->spec_id[id];
	return make(s && s - 1 < c->n_spec ? c->spec[s - 1] : standard);
}

static void constant(cutter *c, const uint32_t *w)
{
	uint32_t op = op_of(w[0]), n = len_of(w[0]);
	if (n < 3 || w[2] >= c->bound) return;
	if (op == OP_TRUE || op == OP_FALSE) c->val[w[2]] = make(op == OP_TRUE);
	if (op == OP_CONSTANT && n == 4) c->val[w[2]] = make(w[3]);
	if (op == OP_SPEC && n == 4) c->val[w[2]] = spec_value(c, w[2], w[3]);
	if (op == OP_SPEC_TRUE || op == OP_SPEC_FALSE) {
		c->val[w[2]] = spec_value(c, w[2], op == OP_SPEC_TRUE);
		c->val[w[2]].v = c->val[w[2]].v != 0;
	}
	if (op == OP_SPEC_OP && n > 4) c->val[w[2]] = fold(c, w[3], w + 4, n - 4);
}

/* What is where: specialization ids, constants, functions, ids made inside functions. */
static void survey(cutter *c)
{
	bool inside = false;
	for (size_t i = HEADER; i < c->n && !c->failed;) {
		const uint32_t *w = c->in + i;
		uint32_t op = op_of(w[0]), n = len_of(w[0]), r;
		if (n == 0 || i + n > c->n) {
			c->failed = true;
			return;
		}
		if (op == OP_ENTRY) c->main = w[2];
		if (op == OP_DECORATE && n == 4 && w[2] == DECORATION_SPEC_ID && w[1] < c->bound)
			c->spec_id[w[1]] = w[3] + 1;
		if (op == OP_FUNCTION) {
			inside = true;
			if (w[2] < c->bound) c->function[w[2]] = i;
		}
		r = inside ? result_at(op) : 0;
		if (r && r < n && w[r] < c->bound) c->local[w[r]] = 1;
		if (!inside) constant(c, w);
		if (op == OP_FUNCTION_END) inside = false;
		i += n;
	}
}

/* ---- functions ---- */

/* The instance of a function with these arguments, made if it is new; its id. */
static uint32_t instance_of(cutter *c, uint32_t function, const uint32_t *arg, uint32_t n)
{
	instance want = {.function = function, .n_arg = n};
	if (n > MAX_PARAMS) {
		c->failed = true;
		return function;
	}
	for (uint32_t i = 0; i < n; i++) want.arg[i] = at(c, arg[i]);
	for (uint32_t k = 0; k < c->n_inst; k++) {
		const instance *have = &c->inst[k];
		bool same = have->function == function;
		for (uint32_t i = 0; i < n && same; i++)
			same = have->arg[i].known == want.arg[i].known &&
				   (!want.arg[i].known || have->arg[i].v == want.arg[i].v);
		if (same) return have->as;
	}
	if (c->n_inst == MAX_INSTANCES) {
		c->failed = true;
		return function;
	}
	want.as = c->n_inst ? c->next++ : function; /* main keeps its id */
	c->inst[c->n_inst++] = want;
	return want.as;
}

static void put_call(cutter *c, const uint32_t *w)
{
	uint32_t n = len_of(w[0]), as = instance_of(c, w[3], w + 4, n - 4), head[4];
	head[0] = w[0];
	head[1] = w[1];
	head[2] = mapped(c, w[2]);
	head[3] = as;
	put(c, &c->body, head, 4);
	for (uint32_t i = 4; i < n; i++) {
		uint32_t x = mapped(c, w[i]);
		put(c, &c->body, &x, 1);
	}
	c->mark[w[2]] |= 4;
}

/* Incoming values of blocks that are gone are left out. */
static void put_phi(cutter *c, const uint32_t *w)
{
	uint32_t n = len_of(w[0]), some = 0;
	size_t head = c->body.n;
	value v = {0};
	bool same = true;
	put(c, &c->body, (uint32_t[]){0, w[1], mapped(c, w[2])}, 3);
	for (uint32_t i = 3; i + 1 < n; i += 2) {
		value x = at(c, w[i]);
		if (!is_edge(c, w[i + 1], c->label)) continue;
		put(c, &c->body, (uint32_t[]){mapped(c, w[i]), mapped(c, w[i + 1])}, 2);
		if (some++ == 0) v = x;
		else same = same && x.known && v.known && x.v == v.v;
	}
	if (c->failed) return;
	c->body.word[head] = (3 + 2 * some) << 16 | OP_PHI;
	if (same) c->val[w[2]] = v;
	c->mark[w[2]] |= 4;
}

/* The end of a block; `merge` is the selection or loop merge before it, or NULL. */
static void put_end(cutter *c, const uint32_t *w, const uint32_t *merge)
{
	uint32_t op = op_of(w[0]), n = len_of(w[0]), to = 0;
	value v = op == OP_CONDITIONAL || op == OP_SWITCH ? at(c, w[1]) : (value){0};
	if (op == OP_CONDITIONAL && v.known) to = v.v ? w[2] : w[3];
	if (op == OP_SWITCH && v.known) {
		to = w[2];
		for (uint32_t i = 3; i + 1 < n; i += 2)
			if (w[i] == v.v) to = w[i + 1];
	}
	if (merge && (!to || op_of(merge[0]) == OP_LOOP_MERGE)) {
		put_instr(c, merge);
		for (uint32_t i = 1; i <= (op_of(merge[0]) == OP_LOOP_MERGE ? 2u : 1u); i++)
			if (merge[i] < c->bound) c->mark[merge[i]] |= 2;
	}
	if (to) {
		put_branch(c, to);
		return;
	}
	put_instr(c, w);
	for (uint32_t i = op == OP_BRANCH ? 1 : 2;
		 i < n && (op == OP_BRANCH || op == OP_CONDITIONAL || op == OP_SWITCH); i++)
		if (!is_literal(w, i)) reach(c, w[i]);
}

/* A block that nothing reaches but a merge names: it must be there, and end. */
static void put_stub(cutter *c, const uint32_t *label, uint32_t loop)
{
	put_instr(c, label);
	if (loop) put(c, &c->body, (uint32_t[]){2u << 16 | OP_BRANCH, mapped(c, loop)}, 2);
	else put(c, &c->body, (uint32_t[]){1u << 16 | OP_UNREACHABLE}, 1);
}

typedef struct walk {
	bool live;             /* the block is written */
	const uint32_t *merge; /* waiting for the block's end */
	bool started;
	uint32_t param;
} walk;

static void function_instr(
	cutter *c, const instance *it, walk *k, const uint32_t *w, const uint32_t *loop_of)
{
	uint32_t op = op_of(w[0]), n = len_of(w[0]), r = result_at(op);
	if (op == OP_LINE || op == OP_NO_LINE) return;
	if (op == OP_PARAMETER) {
		if (k->param < it->n_arg) c->val[w[2]] = it->arg[k->param];
		k->param++;
		put_instr(c, w);
	} else if (op == OP_LABEL) {
		c->label = w[1];
		if (!k->started) c->mark[w[1]] |= 1;
		k->started = true;
		k->live = (c->mark[w[1]] & 1) != 0;
		if (k->live) put_instr(c, w);
		else if (c->mark[w[1]] & 2) put_stub(c, w, loop_of[w[1]]);
	} else if (!k->live && k->started) {
		return;
	} else if (op == OP_SELECTION_MERGE || op == OP_LOOP_MERGE) {
		k->merge = w;
	} else if ((op >= OP_BRANCH && op <= OP_UNREACHABLE)) {
		put_end(c, w, k->merge);
		k->merge = NULL;
		k->live = false;
	} else if (op == OP_CALL) {
		put_call(c, w);
	} else if (op == OP_PHI) {
		put_phi(c, w);
	} else {
		put_instr(c, w);
		if (r == 2 && n > 3 && !is_literal(w, 3)) c->val[w[2]] = fold(c, op, w + 3, n - 3);
	}
}

/* Fresh ids for what the function makes, unless it is main. */
static void rename_locals(cutter *c, const instance *it, size_t start, uint32_t *loop_of)
{
	uint32_t label = 0;
	for (size_t i = start; i < c->n; i += len_of(c->in[i])) {
		const uint32_t *w = c->in + i;
		uint32_t op = op_of(w[0]), r = result_at(op);
		if (r && w[r] < c->bound) {
			c->map[w[r]] = it->function == c->main ? 0 : op == OP_FUNCTION ? it->as : c->next++;
			c->mark[w[r]] = 0;
			c->val[w[r]] = (value){0};
			loop_of[w[r]] = 0;
		}
		if (op == OP_LABEL) label = w[1];
		if (op == OP_LOOP_MERGE && w[2] < c->bound)
			loop_of[w[2]] = label; /* of its continue block */
		if (op == OP_FUNCTION_END) break;
	}
}

/* Decorations of what the instance has written. */
static void decorate(cutter *c, size_t start)
{
	for (size_t i = HEADER; i < start && op_of(c->in[i]) != OP_FUNCTION; i += len_of(c->in[i])) {
		const uint32_t *w = c->in + i;
		if (op_of(w[0]) != OP_DECORATE || w[1] >= c->bound || !c->local[w[1]] ||
			!(c->mark[w[1]] & 4))
			continue;
		put(c, &c->deco, (uint32_t[]){w[0], mapped(c, w[1])}, 2);
		put(c, &c->deco, w + 2, len_of(w[0]) - 2);
	}
}

static void write_instance(cutter *c, uint32_t k, uint32_t *loop_of)
{
	instance it = c->inst[k];
	size_t start = it.function < c->bound ? c->function[it.function] : 0;
	walk w = {0};
	if (start == 0) {
		c->failed = true;
		return;
	}
	rename_locals(c, &it, start, loop_of);
	c->edges.n = 0;
	for (size_t i = start; i < c->n && !c->failed; i += len_of(c->in[i])) {
		if (op_of(c->in[i]) == OP_FUNCTION_END) {
			put(c, &c->body, c->in + i, 1);
			break;
		}
		function_instr(c, &it, &w, c->in + i, loop_of);
	}
	decorate(c, start);
	for (size_t i = start; i < c->n; i += len_of(c->in[i])) { /* marks are per instance */
		uint32_t r = result_at(op_of(c->in[i]));
		if (r && c->in[i + r] < c->bound) c->mark[c->in[i + r]] = 0;
		if (op_of(c->in[i]) == OP_FUNCTION_END) break;
	}
}

/* ---- the whole ---- */

static const struct {
	uint32_t bit, capability, mode;
} modes_of[3] = {
	{CX_SPV_MODE_NAN, 4466, 4461}, {CX_SPV_MODE_DENORM, 4464, 4459}, {CX_SPV_MODE_RTE, 4467, 4462}};

/* Everything before the functions, with the modes and the decorations of the instances in their
 * places. */
static void put_head(cutter *c, uint32_t modes)
{
	bool decorated = false;
	put(c, c->out, c->in, HEADER);
	for (int i = 0; i < 3; i++)
		if (modes & modes_of[i].bit)
			put(c, c->out, (uint32_t[]){2u << 16 | OP_CAPABILITY, modes_of[i].capability}, 2);
	for (size_t i = HEADER; i < c->n && op_of(c->in[i]) != OP_FUNCTION; i += len_of(c->in[i])) {
		const uint32_t *w = c->in + i;
		uint32_t op = op_of(w[0]);
		if (op == OP_NAME || op == OP_MEMBER_NAME || op == OP_SOURCE || op == OP_SOURCE_EXT ||
			op == OP_LINE)
			continue;
		if (op == OP_DECORATE && w[1] < c->bound && c->local[w[1]]) continue;
		if (op == OP_DECORATE && !decorated) {
			put(c, c->out, c->deco.word, c->deco.n);
			decorated = true;
		}
		put(c, c->out, w, len_of(w[0]));
		if (op != OP_ENTRY) continue;
		for (int k = 0; k < 3; k++)
			if (modes & modes_of[k].bit)
				put(c, c->out, (uint32_t[]){4u << 16 | OP_MODE, w[2], modes_of[k].mode, 32}, 4);
	}
	if (!decorated && c->deco.n) c->failed = true;
}

static void release(cutter *c, uint32_t *loop_of)
{
	const cx_alloc *a = c->out->alloc;
	cx_free(a, c->body.word, c->body.cap * 4);
	cx_free(a, c->deco.word, c->deco.cap * 4);
	cx_free(a, c->edges.word, c->edges.cap * 4);
	cx_free(a, c->val, c->bound * sizeof *c->val);
	cx_free(a, c->map, c->bound * sizeof *c->map);
	cx_free(a, c->spec_id, c->bound * sizeof *c->spec_id);
	cx_free(a, c->function, c->bound * sizeof *c->function);
	cx_free(a, c->local, c->bound);
	cx_free(a, c->mark, c->bound);
	cx_free(a, c->inst, MAX_INSTANCES * sizeof *c->inst);
	cx_free(a, loop_of, c->bound * sizeof *loop_of);
}

bool cx__spv_specialise(const uint32_t *in, size_t n, const uint32_t *spec, uint32_t n_spec,
	uint32_t modes, cx_spv *out)
{
	cutter c = {.in = in, .n = n, .spec = spec, .n_spec = n_spec, .out = out};
	uint32_t *loop_of = NULL;
	const cx_alloc *a = out->alloc;
	if (n < HEADER || in[3] > 1 << 20) return false;
	c.body.alloc = c.deco.alloc = c.edges.alloc = a;
	c.bound = c.next = in[3];
	c.val = cx_calloc(a, c.bound, sizeof *c.val);
	c.map = cx_calloc(a, c.bound, sizeof *c.map);
	c.spec_id = cx_calloc(a, c.bound, sizeof *c.spec_id);
	c.function = cx_calloc(a, c.bound, sizeof *c.function);
	c.local = cx_calloc(a, c.bound, 1);
	c.mark = cx_calloc(a, c.bound, 1);
	c.inst = cx_calloc(a, MAX_INSTANCES, sizeof *c.inst);
	loop_of = cx_calloc(a, c.bound, sizeof *loop_of);
	c.failed =
		!c.val || !c.map || !c.spec_id || !c.function || !c.local || !c.mark || !c.inst || !loop_of;
	if (!c.failed) survey(&c);
	if (!c.failed) instance_of(&c, c.main, NULL, 0);
	for (uint32_t k = 0; k < c.n_inst && !c.failed; k++) write_instance(&c, k, loop_of);
	if (!c.failed) put_head(&c, modes);
	if (!c.failed) put(&c, out, c.body.word, c.body.n);
	if (!c.failed) out->word[3] = c.next;
	release(&c, loop_of);
	return !c.failed;
}
