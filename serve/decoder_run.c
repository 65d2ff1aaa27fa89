/* decoder_run.c - trains in a folder. See decoder_run.h. */
#include "serve/decoder_run.h"
#include "models/decoder/metrics.h"
#include "serve/decoder_table.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_BYTES = 1200, LOG_SECONDS = 10 };

typedef struct run {
	const cx_run_args *a;
	const cx_train_config *c;
	cx_dataset *data;
	const cx_dataset_info *info;
	cx_host host;
	cx_trainer *t;
	cx_evaluator *e;
	cx_net_config net;
	cx_arena arena;
	cx_safetensors_meta_pair meta[CX_TRAIN_META + 1]; /* the last: "log" */
	cx_run_log log;
	double start, shown;
	double smooth[2]; /* loss and mse for the eye: a mean that forgets */
	int64_t first;    /* steps that were done before this process */
	cx_err *err;
} run;

static volatile sig_atomic_t stop_signal;

static void on_signal(int number)
{
	stop_signal = number;
}

static cx_status path_of(const char *out, const char *name, char *path, cx_err *err)
{
	if (snprintf(path, PATH_BYTES, "%s/%s", out, name) < PATH_BYTES) return CX_OK;
	return CX_FAIL(err, CX_ERR_ARGUMENT, "--out: the path is too long");
}

cx_status cx__run_config(const char *out, cx_train_config *config, cx_err *err)
{
	char path[PATH_BYTES];
	cx_train_meta meta;
	cx_status st = path_of(out, "last.safetensors", path, err);
	if (st == CX_OK) st = cx_train_meta_read(path, NULL, &meta, err);
	if (st == CX_OK) *config = meta.config;
	return st;
}

/* ---- files ---- */

static cx_status checkpoint(run *r)
{
	char path[PATH_BYTES], *text;
	cx_status st = cx__run_log_print(&r->log, &text, r->err);
	if (st != CX_OK) return st;
	if ((st = path_of(r->a->out, "train.tsv", path, r->err)) == CX_OK)
		st = cx__run_log_write(&r->log, path, r->err);
	if (st == CX_OK) st = path_of(r->a->out, "last.safetensors", path, r->err);
	r->meta[CX_TRAIN_META] = (cx_safetensors_meta_pair){"log", text};
	if (st == CX_OK) st = cx_trainer_save(r->t, path, r->meta, CX_TRAIN_META + 1, r->err);
	free(text);
	return st;
}

static cx_status export_to(run *r, const char *name)
{
	char path[PATH_BYTES];
	cx_status st = path_of(r->a->out, name, path, r->err);
	return st == CX_OK ? cx_trainer_export(r->t, path, r->meta, CX_TRAIN_META, r->err) : st;
}

static cx_status resume(run *r)
{
	char path[PATH_BYTES];
	cx_train_meta meta;
	cx_safetensors *f;
	const char *text;
	cx_status st = path_of(r->a->out, "last.safetensors", path, r->err);
	if (st == CX_OK) st = cx_train_meta_read(path, NULL, &meta, r->err);
	if (st != CX_OK) return st;
	if (meta.n_units != r->info->n_units)
		return CX_FAIL(r->err, CX_ERR_SHAPE, "%s was trained on %u units, the data has %u",
			cx_path_tail(path), meta.n_units, r->info->n_units);
	if (memcmp(meta.mean, r->info->mean, r->info->behavior_dim * sizeof *meta.mean) != 0)
		return CX_FAIL(r->err, CX_ERR_ARGUMENT,
			"%s was trained on other data: its movement had a mean of %g, this has %g",
			cx_path_tail(path), meta.mean[0], r->info->mean[0]);
	if ((st = cx_trainer_load(r->t, path, r->err)) != CX_OK) return st;
	if ((st = cx_safetensors_open(NULL, path, &f, r->err)) != CX_OK) return st;
	text = cx_safetensors_meta(f, "log");
	st = cx__run_log_parse(&r->log, text ? text : "", cx_path_tail(path), r->err);
	cx_safetensors_close(f);
	return st;
}

static bool exists(const char *path)
{
	struct stat info;
	return stat(path, &info) == 0;
}

/* Nothing of an older run may be taken for this one's. */
static cx_status clear(run *r)
{
	static const char *const names[] = {
		"last.safetensors", "best.safetensors", "final.safetensors", "train.tsv", "train.svg"};
	char path[PATH_BYTES];
	cx_status st = cx__make_folder(r->a->out, r->err);
	if (st == CX_OK) st = path_of(r->a->out, names[0], path, r->err);
	if (st != CX_OK) return st;
	if (access(r->a->out, W_OK | X_OK) != 0)
		return CX_FAIL(
			r->err, CX_ERR_IO, "--out: %s cannot be written to", cx_path_tail(r->a->out));
	if (!r->a->overwrite && exists(path))
		return CX_FAIL(r->err, CX_ERR_ARGUMENT,
			"%s holds a run; --resume goes on with it, or give another --out",
			cx_path_tail(r->a->out));
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (path_of(r->a->out, names[i], path, NULL) == CX_OK) (void)unlink(path);
	return CX_OK;
}

/* ---- progress ---- */

/* One line that is written over on a terminal; elsewhere a line every few seconds. */
static void show(run *r, const cx_train_result *step, bool last)
{
	bool tty = isatty(STDERR_FILENO);
	int64_t done = cx_trainer_n_done(r->t), total = r->c->train.steps;
	double now = cx__seconds(), spent = now - r->start, speed, left;
	double keep = done == r->first + 1 ? 0 : 0.95;
	char val[32] = "";
	r->smooth[0] = keep * r->smooth[0] + (1 - keep) * step->loss;
	r->smooth[1] = keep * r->smooth[1] + (1 - keep) * step->mse;
	if (!last && now - r->shown < (tty ? 0.2 : LOG_SECONDS)) return;
	r->shown = now;
	speed = (double)(done - r->first) / (spent > 0 ? spent : 1e-9);
	left = (double)(total - done) / (speed > 0 ? speed : 1e-9);
	if (r->log.best_step) snprintf(val, sizeof val, ", best val R2 %.4f", r->log.best);
	fprintf(stderr, "%sstep %lld/%lld  loss %.4f  R2 %.3f%s  %.0f windows/s  %.0f:%02.0f left%s",
		tty ? "\r" : "", (long long)done, (long long)total, r->smooth[0], 1 - r->smooth[1], val,
		speed * (double)(r->c->train.batch * r->c->train.accumulate), floor(left / 60),
		floor(fmod(left, 60)), tty ? last ? "   \n" : "   " : "\n");
}

/* ---- the loop ---- */

static cx_status score(run *r, double *val)
{
	double r2[CX_MAX_BEHAVIOR];
	cx_status st = cx_evaluator_score(r->e, CX_PART_VAL, r2, val, NULL, r->err);
	if (st != CX_OK) return st;
	if (r->log.best_step && !(*val > r->log.best)) {
		r->log.waited++;
		return CX_OK;
	}
	r->log.best = *val;
	r->log.best_step = cx_trainer_n_done(r->t);
	r->log.waited = 0;
	return export_to(r, "best.safetensors");
}

/* What is due after a step: a score, a row, a checkpoint. */
static cx_status after_step(run *r, const cx_train_result *s, bool end)
{
	const cx_run_conf *c = &r->c->train;
	int64_t done = cx_trainer_n_done(r->t);
	double n, val = NAN;
	cx_status st = CX_OK;
	r->log.sum[0] += s->loss;
	r->log.sum[1] += s->mse;
	r->log.sum[2] += s->xent;
	n = r->log.sum[3] += 1;
	if (r->info->n_windows[CX_PART_VAL] && (end || done % c->eval_every == 0)) st = score(r, &val);
	if (st == CX_OK && (end || !isnan(val) || done % c->log_every == 0)) {
		double windows = (double)(done * c->batch * c->accumulate);
		cx_run_row row = {done, windows / r->info->n_windows[CX_PART_TRAIN], r->log.sum[0] / n,
			r->log.sum[1] / n, r->log.sum[2] / n, s->norm, s->rate, val};
		st = cx__run_log_add(&r->log, &row, r->err);
		memset(r->log.sum, 0, sizeof r->log.sum);
	}
	if (st == CX_OK && (end || done % c->checkpoint_every == 0)) st = checkpoint(r);
	return st;
}

static bool finished(const run *r)
{
	const cx_run_conf *c = &r->c->train;
	return cx_trainer_n_done(r->t) >= c->steps || (c->patience && r->log.waited >= c->patience);
}

static cx_status loop(run *r)
{
	cx_train_result s = {0};
	cx_status st = CX_OK;
	r->start = r->shown = cx__seconds();
	r->first = cx_trainer_n_done(r->t);
	while (st == CX_OK && !finished(r)) {
		if ((st = cx_trainer_step(r->t, &s, r->err)) != CX_OK) break;
		st = after_step(r, &s, cx_trainer_n_done(r->t) == r->c->train.steps);
		show(r, &s, st == CX_OK && finished(r));
		if (st == CX_OK && stop_signal) {
			st = checkpoint(r);
			if (st == CX_OK)
				st = CX_FAIL(r->err, CX_ERR_IO,
					"interrupted at step %lld of %lld; --resume goes on from there",
					(long long)cx_trainer_n_done(r->t), (long long)r->c->train.steps);
		}
	}
	return st;
}

/* ---- the end ---- */

static cx_status report(run *r, const char *which, const char *name)
{
	double r2[CX_MAX_BEHAVIOR], best[CX_MAX_BEHAVIOR];
	uint32_t n = r->info->n_windows[CX_PART_TEST], d = r->info->behavior_dim;
	char path[PATH_BYTES];
	cx_net_file *f = NULL;
	cx_evaluator *e = NULL;
	double *truth = NULL;
	cx_status st = path_of(r->a->out, name, path, r->err);
	if (st == CX_OK)
		st = cx_net_file_open(path, &r->net, r->host.rt, r->host.dev, NULL, &f, r->err);
	if (st == CX_OK) st = cx_net_file_evaluator(f, r->data, &e, r->err);
	if (st == CX_OK) st = cx_evaluator_score(e, CX_PART_TEST, r2, NULL, NULL, r->err);
	if (st == CX_OK && !(truth = calloc((size_t)n * d * 2, sizeof *truth)))
		st = CX_FAIL(r->err, CX_ERR_MEMORY, "out of memory");
	if (st == CX_OK) {
		for (uint32_t i = 0; i < n; i++) {
			cx_dataset_truth(r->data, CX_PART_TEST, i, truth + (size_t)i * d);
			cx_dataset_bayes(r->data, CX_PART_TEST, i, truth + (size_t)(n + i) * d);
		}
		cx_r2(truth, truth + (size_t)n * d, n, d, best);
		printf("%s on %u test windows:", which, n);
		for (uint32_t c = 0; c < d; c++) {
			printf(" R2 %s %.4f", r->info->name[c], r2[c]);
			if (!isnan(best[c])) printf(" (%.1f %% of %.4f)", 100 * r2[c] / best[c], best[c]);
		}
		printf("\n");
	}
	free(truth);
	cx_evaluator_free(e);
	cx_net_file_close(f);
	return st;
}

static cx_status end(run *r)
{
	char path[PATH_BYTES], which[80], title[120];
	cx_status st = export_to(r, "final.safetensors");
	if (st == CX_OK && !r->log.best_step) st = export_to(r, "best.safetensors");
	if (st == CX_OK) st = path_of(r->a->out, "train.svg", path, r->err);
	snprintf(title, sizeof title, "Training of %s, %lld steps", cx_net_name(r->net.kind),
		(long long)cx_trainer_n_done(r->t));
	if (st == CX_OK) st = cx__run_log_draw(&r->log, r->c->train.log_every, title, path, r->err);
	if (st != CX_OK || r->a->quiet) return st;
	if (r->log.best_step)
		snprintf(which, sizeof which, "best (step %lld, val R2 %.4f)", (long long)r->log.best_step,
			r->log.best);
	else snprintf(which, sizeof which, "final (there is no val part to choose by)");
	if (r->info->n_windows[CX_PART_TEST] > 0) st = report(r, which, "best.safetensors");
	printf(
		"files: %s/best.safetensors, final.safetensors, last.safetensors, train.tsv, train.svg\n",
		r->a->out);
	return st;
}

static void begin_text(const run *r)
{
	const cx_dataset_info *i = r->info;
	if (r->a->quiet) return;
	printf("%s, %llu parameters, on %s; %u units, windows of %u bins: %u train, %u val, %u test\n",
		cx_net_name(r->net.kind), (unsigned long long)cx_net_n_elems(&r->net),
		cx_device_name(r->host.dev), i->n_units, i->window, i->n_windows[CX_PART_TRAIN],
		i->n_windows[CX_PART_VAL], i->n_windows[CX_PART_TEST]);
	if (r->first > 0) printf("goes on from step %lld\n", (long long)r->first);
	fflush(stdout);
}

cx_status cx__run_train(
	const cx_run_args *a, const cx_train_config *config, cx_dataset *data, cx_err *err)
{
	run r = {.a = a, .c = config, .data = data, .err = err};
	cx_train_opts opts = cx_train_config_opts(config);
	struct sigaction act = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND}, old[2];
	cx_status st;
	r.info = cx_dataset_get_info(data);
	r.log.best = NAN;
	cx_arena_init(&r.arena, NULL);
	stop_signal = 0;
	sigaction(SIGINT, &act, &old[0]);
	sigaction(SIGTERM, &act, &old[1]);
	if ((st = cx_train_config_net(config, r.info, &r.net, err)) == CX_OK &&
		(st = cx_train_meta_make(config, r.info, &r.arena, r.meta, err)) == CX_OK &&
		(st = a->resume ? CX_OK : clear(&r)) == CX_OK &&
		(st = cx__host_open(a->backend, &r.host, err)) == CX_OK &&
		(st = cx_trainer_create(&r.net, &opts, data, r.host.rt, r.host.dev, NULL, &r.t, err)) ==
			CX_OK &&
		(st = cx_trainer_evaluator(r.t, &r.e, err)) == CX_OK)
		st = a->resume ? resume(&r) : CX_OK;
	if (st == CX_OK) {
		r.first = cx_trainer_n_done(r.t);
		begin_text(&r);
		if ((st = loop(&r)) == CX_OK) st = end(&r);
	}
	st = cx__host_advise(&r.host, st, err);
	sigaction(SIGINT, &old[0], NULL);
	sigaction(SIGTERM, &old[1], NULL);
	cx__run_log_deinit(&r.log);
	cx_trainer_free(r.t);
	cx__host_close(&r.host);
	cx_arena_deinit(&r.arena);
	return st;
}
