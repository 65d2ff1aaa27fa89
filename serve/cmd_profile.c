/* cmd_profile.c - `cortex profile`: where the time of a run goes, and how near each step is to what
 * the device can do. */
#include "graph/dump.h"
#include "models/files/out.h"
#include "serve/profile.h"
#include "serve/subject.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
	"usage: cortex profile (-m MODEL | --graph FILE.cxg) [OPTIONS]\n"
	"\n" CX_SUBJECT_USAGE "  --runs N           how many runs the medians are of; default 20\n"
	"  --json             everything as JSON instead of tables\n"
	"  --trace FILE.json  also a Chrome trace of one run of median steps, for Perfetto\n"
	"\n"
	"Each step is started and waited for on its own, and timed by the device's clock where it has "
	"one,\nelse by the host's. Shares are of the ceilings measured first:\n"
	"bytes per second of a large copy, and the f32 arithmetic peak. A share of the copy above "
	"100%\n"
	"means that the bytes came from caches.\n";

typedef struct step_cost {
	double seconds, bytes, flops, share_bytes, share_flops;
} step_cost;

typedef struct op_total {
	const char *op;
	uint32_t n;
	double seconds, bytes, flops;
} op_total;

typedef struct report {
	const cx_plan *plan;
	cx_profile p;
	double sum; /* of all steps */
	op_total ops[CX_OP_COUNT];
	uint32_t n_ops;
} report;

static step_cost cost_of(const report *r, uint32_t pos)
{
	const cx_pnode *n = &r->plan->n[r->plan->order[pos]];
	step_cost c = {.seconds = r->p.seconds[pos],
		.bytes = (double)cx__pnode_bytes(r->plan, n),
		.flops = cx__pnode_flops(r->plan, n)};
	if (c.seconds > 0 && r->p.copy_gbs > 0)
		c.share_bytes = c.bytes / c.seconds * 1e-9 / r->p.copy_gbs;
	if (c.seconds > 0 && r->p.peak_gflops > 0)
		c.share_flops = c.flops / c.seconds * 1e-9 / r->p.peak_gflops;
	return c;
}

static const char *op_of(const report *r, uint32_t pos)
{
	return cx__ops[r->plan->n[r->plan->order[pos]].op].name;
}

static const char *kernel_of(const report *r, uint32_t pos)
{
	const cx_kernel *k = r->plan->n[r->plan->order[pos]].kernel;
	return k ? k->name : "transfer";
}

static int by_seconds(const void *a, const void *b)
{
	double x = ((const op_total *)a)->seconds, y = ((const op_total *)b)->seconds;
	return (x < y) - (x > y);
}

static void total(report *r)
{
	for (uint32_t i = 0; i < r->plan->n_order; i++) {
		op_total *t = &r->ops[r->plan->n[r->plan->order[i]].op];
		step_cost c = cost_of(r, i);
		t->op = op_of(r, i);
		t->n++;
		t->seconds += c.seconds;
		t->bytes += c.bytes;
		t->flops += c.flops;
		r->sum += c.seconds;
	}
	qsort(r->ops, CX_OP_COUNT, sizeof r->ops[0], by_seconds);
	while (r->n_ops < CX_OP_COUNT && r->ops[r->n_ops].n) r->n_ops++;
}

/* ---- table ---- */

static void print_head(const report *r)
{
	for (uint32_t i = 0; i < r->plan->n_devs; i++) {
		double ns = r->plan->devs[i].limits.clock_ns;
		printf("device   %s, steps timed by ", r->plan->devs[i].dev->name);
		if (ns > 0) printf("its own clock of %g ns\n", ns);
		else printf("the host's clock\n");
	}
	printf("ceilings copy %.2f GB/s; %.1f GFLOP/s: %s\n", r->p.copy_gbs, r->p.peak_gflops,
		r->p.peak_how);
	printf("launch   %.2f us for a run of one step of one element, by the host's clock\n\n",
		r->p.launch * 1e6);
}

static void print_table(const report *r)
{
	char label[300];
	double launches = r->p.launch * r->plan->n_order;
	bool host = r->plan->devs[0].limits.clock_ns == 0;
	print_head(r);
	printf("%5s %10s %5s %11s %11s %5s %5s  %-16s %-28s %s\n", "step", "us", "%", "KB", "MFLOP",
		"%copy", "%peak", "op", "kernel", "name");
	for (uint32_t i = 0; i < r->plan->n_order; i++) {
		step_cost c = cost_of(r, i);
		printf("%5u %10.2f %5.1f %11.1f %11.3f %5.1f %5.1f  %-16s %-28s %s\n", i, c.seconds * 1e6,
			r->sum > 0 ? 100 * c.seconds / r->sum : 0.0, c.bytes * 1e-3, c.flops * 1e-6,
			100 * c.share_bytes, 100 * c.share_flops, op_of(r, i), kernel_of(r, i),
			cx__pnode_label(r->plan, &r->plan->n[r->plan->order[i]], label, sizeof label));
	}
	printf("\n%-16s %6s %12s %6s %10s %10s\n", "op", "steps", "us", "%", "GB/s", "GFLOP/s");
	for (uint32_t i = 0; i < r->n_ops; i++) {
		const op_total *t = &r->ops[i];
		double s = t->seconds > 0 ? t->seconds : 1e-12;
		printf("%-16s %6u %12.2f %6.1f %10.2f %10.2f\n", t->op, t->n, t->seconds * 1e6,
			r->sum > 0 ? 100 * t->seconds / r->sum : 0.0, t->bytes / s * 1e-9, t->flops / s * 1e-9);
	}
	printf("\n%u steps: %.2f us one by one", r->plan->n_order, r->sum * 1e6);
	if (host)
		printf(", of which launches up to %.2f us", (launches < r->sum ? launches : r->sum) * 1e6);
	printf("; a whole run takes %.2f us\n", r->p.run_seconds * 1e6);
}

/* ---- JSON ---- */

static void json_head(cx_text_out *t, const report *r)
{
	double ns = r->plan->devs[0].limits.clock_ns;
	cx__put(t, "{\"format\":\"cortex-profile\",\"version\":1,\"device\":");
	cx__put_json(t, r->plan->devs[0].dev->name);
	cx__put(t, ",\"clock\":\"%s\",\"clock_ns\":%g", ns > 0 ? "device" : "host", ns);
	cx__put(t,
		",\n\"ceilings\":{\"copy_gbs\":%.4f,\"peak_gflops\":%.4f,\"peak_how\":", r->p.copy_gbs,
		r->p.peak_gflops);
	cx__put_json(t, r->p.peak_how);
	cx__put(t, "},\n\"launch_seconds\":%.9f,\"run_seconds\":%.9f,\"steps_seconds\":%.9f,\n",
		r->p.launch, r->p.run_seconds, r->sum);
}

static void write_json(cx_text_out *t, const report *r)
{
	char label[300];
	json_head(t, r);
	cx__put(t, "\"steps\":[");
	for (uint32_t i = 0; i < r->plan->n_order; i++) {
		step_cost c = cost_of(r, i);
		cx__put(t, "%s{\"pos\":%u,\"op\":\"%s\",\"kernel\":\"%s\",\"name\":", i ? ",\n" : "", i,
			op_of(r, i), kernel_of(r, i));
		cx__put_json(
			t, cx__pnode_label(r->plan, &r->plan->n[r->plan->order[i]], label, sizeof label));
		cx__put(t,
			",\"seconds\":%.9f,\"bytes\":%.0f,\"flops\":%.0f,\"copy_share\":%.6f,"
			"\"peak_share\":%.6f}",
			c.seconds, c.bytes, c.flops, c.share_bytes, c.share_flops);
	}
	cx__put(t, "],\n\"ops\":[");
	for (uint32_t i = 0; i < r->n_ops; i++)
		cx__put(t, "%s{\"op\":\"%s\",\"steps\":%u,\"seconds\":%.9f,\"bytes\":%.0f,\"flops\":%.0f}",
			i ? ",\n" : "", r->ops[i].op, r->ops[i].n, r->ops[i].seconds, r->ops[i].bytes,
			r->ops[i].flops);
	cx__put(t, "]}\n");
}

/* Trace Event Format, complete events ("X"), one track per device; times in microseconds. */
static void write_trace(cx_text_out *t, const report *r)
{
	char label[300];
	double at = 0;
	cx__put(t, "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n");
	for (uint32_t d = 0; d < r->plan->n_devs; d++) {
		cx__put(t,
			"{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":1,\"tid\":%u,\"args\":{\"name\":",
			d + 1);
		cx__put_json(t, r->plan->devs[d].dev->name);
		cx__put(t, "}},\n");
	}
	cx__put(t, "{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":1,\"args\":{\"name\":\"cortex\"}}");
	for (uint32_t i = 0; i < r->plan->n_order; i++) {
		const cx_pnode *n = &r->plan->n[r->plan->order[i]];
		step_cost c = cost_of(r, i);
		cx__put(t, ",\n{\"name\":\"%s\",\"cat\":\"step\",\"ph\":\"X\",\"pid\":1,\"tid\":%u,",
			op_of(r, i), n->dev + 1u);
		cx__put(t,
			"\"ts\":%.3f,\"dur\":%.3f,\"args\":{\"step\":%u,\"kernel\":\"%s\",\"label\":", at * 1e6,
			c.seconds * 1e6, i, kernel_of(r, i));
		cx__put_json(t, cx__pnode_label(r->plan, n, label, sizeof label));
		cx__put(t, ",\"bytes\":%.0f,\"flops\":%.0f}}", c.bytes, c.flops);
		at += c.seconds;
	}
	cx__put(t, "\n]}\n");
}

static cx_status to_file(const char *path, const char *text, size_t n, cx_err *err)
{
	cx_file_out *o = NULL;
	cx_status st;
	if ((st = cx_file_out_open(NULL, path, &o, err)) != CX_OK) return st;
	if ((st = cx_file_out_write(o, text, n, err)) == CX_OK) return cx_file_out_commit(o, err);
	cx_file_out_discard(o);
	return st;
}

/* path NULL: standard output. */
static cx_status emit(
	const report *r, void (*write)(cx_text_out *, const report *), const char *path, cx_err *err)
{
	cx_text_out t = {0};
	char *text;
	size_t n;
	cx_status st;
	write(&t, r);
	if ((st = cx__text_out_take(&t, &text, &n, err)) != CX_OK) return st;
	if (path) st = to_file(path, text, n, err);
	else fwrite(text, 1, n, stdout);
	cx_free(NULL, text, n + 1);
	return st;
}

static cx_status profile(
	const cx_subject_opts *o, cx_subject *s, long runs, bool json, const char *trace, cx_err *err)
{
	cx_plan *plan = NULL;
	cx_exec *x = NULL;
	report r = {0};
	cx_status st;
	if ((st = cx__subject_plan(s, o, CX_STAGE_planned, &plan, err)) != CX_OK) return st;
	r.plan = plan;
	st = cx__profile_ceilings(s->host.rt, s->host.dev, &r.p, err);
	if (st == CX_OK) st = cx__subject_exec(s, plan, &x, err);
	if (st == CX_OK) st = cx__profile_run(plan, x, runs, &r.p, err);
	if (st == CX_OK) {
		total(&r);
		if (trace) st = emit(&r, write_trace, trace, err);
		if (st == CX_OK && json) st = emit(&r, write_json, NULL, err);
		else if (st == CX_OK) print_table(&r);
		if (st == CX_OK && !json) cx__host_report(&s->host, plan, stdout);
	}
	cx__profile_free(&r.p);
	cx_exec_free(x);
	cx_plan_free(plan);
	return cx__host_advise(&s->host, st, err);
}

int cx__cmd_profile(int argc, char **argv)
{
	static const struct option options[] = {CX_SUBJECT_OPTIONS,
		{"runs", required_argument, NULL, 'r'}, {"json", no_argument, NULL, 'j'},
		{"trace", required_argument, NULL, 't'}, {"help", no_argument, NULL, 'h'}, {0}};
	cx_subject_opts o = {.seed = 1};
	cx_subject s = {0};
	const char *trace = NULL;
	long runs = 20;
	bool json = false;
	cx_err err = {0};
	cx_status st;
	int opt;
	optind = 1;
	while ((opt = getopt_long(argc, argv, "m:h", options, NULL)) != -1) {
		int taken = cx__subject_option(&o, "profile", opt, optarg);
		if (opt == 'h') return fputs(usage, stdout) < 0;
		if (opt == '?' || taken < 0) return 1;
		if (opt == 'r' && !cx__cmd_number("profile", "--runs", optarg, 1, 10000, &runs)) return 1;
		if (opt == 'j') json = true;
		if (opt == 't') trace = optarg;
	}
	if (optind < argc) return cx__cmd_usage("profile", "'%.60s' is no option", argv[optind]);
	if ((st = cx__subject_open(&o, &s, &err)) == CX_OK)
		st = profile(&o, &s, runs, json, trace, &err);
	cx__subject_close(&s);
	return st == CX_OK ? 0 : cx__cmd_fail("profile", &err);
}
