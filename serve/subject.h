/* subject.h - what dump and profile look at: a model's bucket (-m) or a graph in text form
 * (--graph), on a device, with inputs to run it on. */
#ifndef CX_SUBJECT_H
#define CX_SUBJECT_H

#include "graph/plan.h"
#include "models/files/map.h"
#include "models/decoder/checkpoint.h"
#include "models/llm/llm.h"
#include "serve/command.h"

typedef struct cx_subject_opts {
	const char *model, *graph, *backend; /* exactly one of model and graph */
	long bucket;                         /* tokens of a model's run; 0: 1, a decode step */
	uint64_t seed;                       /* of made-up leaves */
	bool no_fuse, allow_fallback;
} cx_subject_opts;

typedef struct cx_subject {
	cx_host host;
	cx_llm *llm;
	cx_cortex *decoder;
	cx_graph *g;
	cx_store *store;
	int64_t past, n_tokens; /* of a model: tokens in the cache before this run; events */
	void **weights;         /* [g->n_nodes] made-up ones, by leaf */
	uint64_t seed;
} cx_subject;

/* Opens device and graph; nothing is planned yet. Free with cx__subject_close() in every case. */
cx_status cx__subject_open(const cx_subject_opts *opts, cx_subject *out, cx_err *err);
void cx__subject_close(cx_subject *s); /* zeroed is fine */
cx_status cx__subject_plan(
	const cx_subject *s, const cx_subject_opts *opts, cx_stage stage, cx_plan **out, cx_err *err);
/* An exec of a whole plan with all weights bound and all inputs set. A model's are those of a run
 * in the middle of its context; a graph's are from the seed: floats in [-1, 1), integers 0, 1, 2,
 * 0, ... The store lives in s; free the exec first. */
cx_status cx__subject_exec(cx_subject *s, const cx_plan *plan, cx_exec **out, cx_err *err);

/* Options that dump and profile share: -m --graph --bucket --backend --seed --no-fuse
 * --allow-fallback. */
/* clang-format off */
#define CX_SUBJECT_OPTIONS                                                                         \
	{"model", required_argument, NULL, 'm'}, {"graph", required_argument, NULL, 'g'},              \
	{"bucket", required_argument, NULL, 'b'}, {"backend", required_argument, NULL, 'B'},           \
	{"seed", required_argument, NULL, 's'}, {"no-fuse", no_argument, NULL, 'F'},                   \
	{"allow-fallback", no_argument, NULL, 'A'}
/* clang-format on */
#define CX_SUBJECT_USAGE                                                                           \
	"  -m, --model PATH   a GGUF file or a folder with safetensors; or a decoder: xs, s, m, "      \
	"nano\n"                                                                                       \
	"                     or a checkpoint of one\n"                                                \
	"  --graph FILE.cxg   a graph in text form\n"                                                  \
	"  --bucket N         tokens per run of a model, 1..4096; default 1, a decode step; of a\n"    \
	"                     decoder: events of its one window, default 512\n"                        \
	"  --backend B        cpu, ref, ...; default: the best there is\n"                             \
	"  --seed S           of the made-up inputs and weights of --graph; default 1\n"               \
	"  --no-fuse          every node is a step of its own\n" CX_FALLBACK_USAGE
/* 1: taken; 0: not one of these; -1: refused with a message. */
int cx__subject_option(cx_subject_opts *o, const char *cmd, int opt, const char *value);
/* A whole number in lo..hi, else a message and false. */
bool cx__cmd_number(
	const char *cmd, const char *name, const char *text, long lo, long hi, long *out);

#endif
