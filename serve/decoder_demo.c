/* decoder_demo.c - `cortex decoder demo --model`: trains a network, decodes what it has not seen,
 * and draws true against decoded movement. What `make run` shows. */
#include "serve/decoder_run.h"
#include "serve/svg.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHOWN = 600 };

typedef struct decoded {
	uint32_t n, d;
	float *z;                   /* [n, d] */
	double *truth, *y, *bayes;  /* [n, d] in the recording's units */
	double r2[CX_MAX_BEHAVIOR]; /* of the test part */
	bool has_bayes;
} decoded;

static cx_status decode(const char *path, const cx_net_config *net, const cx_dataset *data,
	const cx_host *host, decoded *out, cx_err *err)
{
	const cx_dataset_info *info = cx_dataset_get_info(data);
	cx_net_file *f = NULL;
	cx_evaluator *e = NULL;
	size_t size = (size_t)out->n * out->d;
	cx_status st = cx_net_file_open(path, net, host->rt, host->dev, NULL, &f, err);
	if (st == CX_OK) st = cx_net_file_evaluator(f, data, &e, err);
	if (st == CX_OK) st = cx_evaluator_decode(e, CX_PART_TEST, out->z, err);
	if (st == CX_OK) st = cx_evaluator_score(e, CX_PART_TEST, out->r2, NULL, NULL, err);
	for (size_t i = 0; i < size && st == CX_OK; i++)
		out->y[i] = out->z[i] * info->sd[i % out->d] + info->mean[i % out->d];
	for (uint32_t i = 0; i < out->n && st == CX_OK; i++) {
		cx_dataset_truth(data, CX_PART_TEST, i, out->truth + (size_t)i * out->d);
		cx_dataset_bayes(data, CX_PART_TEST, i, out->bayes + (size_t)i * out->d);
	}
	out->has_bayes = st == CX_OK && size > 0 && isfinite(out->bayes[0]);
	cx_evaluator_free(e);
	cx_net_file_close(f);
	return st;
}

static cx_status draw(
	const decoded *d, const cx_dataset_info *info, const char *what, const char *out, cx_err *err)
{
	uint32_t n = d->n < SHOWN ? d->n : SHOWN, panels = d->d < 2 ? d->d : 2;
	cx_svg_panel panel[2];
	char title[2][64], path[1200], sub[160];
	cx_status st;
	memset(panel, 0, sizeof panel);
	for (uint32_t c = 0; c < panels; c++) {
		snprintf(title[c], sizeof title[c], "%s, R2 %.4f", info->name[c], d->r2[c]);
		panel[c].title = title[c];
		panel[c].unit = "as recorded";
		panel[c].line[0] = (cx_svg_line){"true", "#222222", d->truth + c, d->d};
		panel[c].line[1] = (cx_svg_line){"decoded", "#d62728", d->y + c, d->d};
		panel[c].n_lines = 2;
		if (d->has_bayes)
			panel[c].line[panel[c].n_lines++] =
				(cx_svg_line){"Bayes-optimal", "#1f77b4", d->bayes + c, d->d};
	}
	snprintf(sub, sizeof sub, "%s, %u units, trained on what came before; shown: %u windows", what,
		info->n_units, n);
	if (snprintf(path, sizeof path, "%s/decoded.svg", out) >= (int)sizeof path)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "--out: the path is too long");
	st = cx_svg_write(path, "Hand movement, true and decoded from spikes", sub,
		info->bin_seconds > 0 ? "seconds" : "windows", panel, panels, n, 0,
		info->bin_seconds > 0 ? info->bin_seconds : 1, err);
	if (st == CX_OK) printf("picture: %s\n", path);
	return st;
}

static cx_status show(const decoder_args *a, const cx_train_config *c, const cx_dataset *data,
	const char *out, cx_err *err)
{
	const cx_dataset_info *info = cx_dataset_get_info(data);
	decoded d = {.n = info->n_windows[CX_PART_TEST], .d = info->behavior_dim};
	size_t size = (size_t)d.n * d.d;
	char path[1200];
	cx_net_config net;
	cx_host host = {0};
	cx_status st = cx_train_config_net(c, info, &net, err);
	d.z = malloc((size + 1) * sizeof *d.z);
	d.truth = malloc((3 * size + 1) * sizeof *d.truth);
	d.y = d.truth + size;
	d.bayes = d.y + size;
	if (st == CX_OK && (!d.z || !d.truth)) st = CX_FAIL(err, CX_ERR_MEMORY, "out of memory");
	if (st == CX_OK && snprintf(path, sizeof path, "%s/best.safetensors", out) >= (int)sizeof path)
		st = CX_FAIL(err, CX_ERR_ARGUMENT, "--out: the path is too long");
	if (st == CX_OK) st = cx__host_open(a->backend, &host, err);
	if (st == CX_OK) st = decode(path, &net, data, &host, &d, err);
	if (st == CX_OK) st = draw(&d, info, cx_net_name(net.kind), out, err);
	cx__host_close(&host);
	free(d.z);
	free(d.truth);
	return st;
}

cx_status cx__decoder_demo(const decoder_args *a, cx_err *err)
{
	static cx_train_config c;
	cx_run_args run = {.out = a->out, .backend = a->backend, .overwrite = true};
	cx_dataset *data = NULL;
	cx_status st = cx_train_preset(&c, a->model, err);
	if (st != CX_OK) return st;
	if (a->data &&
		snprintf(c.data.path, sizeof c.data.path, "%s", a->data) >= (int)sizeof c.data.path)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "--data: the path is too long");
	if (a->bin > 0) c.data.bin_seconds = a->bin;
	c.simulate.seed = (int64_t)a->sim.seed;
	c.simulate.units = (int64_t)a->sim.n_units;
	c.simulate.seconds = a->sim.seconds;
	if ((st = cx_train_config_open(&c, NULL, &data, err)) == CX_OK)
		st = cx__run_train(&run, &c, data, err);
	if (st == CX_OK && cx_dataset_get_info(data)->n_windows[CX_PART_TEST] > 0)
		st = show(a, &c, data, run.out, err);
	cx_dataset_free(data);
	return st;
}
