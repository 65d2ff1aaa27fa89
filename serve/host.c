/* host.c - the runtime and the devices that a command runs on; see command.h. */
#include "graph/plan.h"
#include "serve/command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Where compiled kernels are kept: cortex/ in the user's cache folder, made if it is not there.
 * NULL: nowhere. */
static const char *cache_folder(void)
{
	static char path[1024];
	const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
	int n = 0;
	if (xdg && xdg[0] == '/') n = snprintf(path, sizeof path, "%s/cortex", xdg);
	else if (home && home[0] == '/') n = snprintf(path, sizeof path, "%s/.cache/cortex", home);
	if (n <= 0 || (size_t)n >= sizeof path) return NULL;
	for (char *c = path + 1; *c; c++) { /* what is there already stays as it is */
		if (*c != '/') continue;
		*c = 0;
		(void)mkdir(path, 0700);
		*c = '/';
	}
	return mkdir(path, 0700) == 0 || access(path, W_OK | X_OK) == 0 ? path : NULL;
}

/* Puts a hint behind err's message, which gives way where there is not room for both. */
static void hint(cx_err *err, const char *text)
{
	size_t n, room;
	if (!err || strstr(err->msg, text)) return;
	n = strlen(err->msg);
	room = sizeof err->msg - strlen(text) - 1;
	if (n > room) {
		n = room;
		while (n > 0 && ((unsigned char)err->msg[n] & 0xc0) == 0x80) n--; /* not inside UTF-8 */
		memcpy(err->msg + n - 3, "...", 3);
	}
	snprintf(err->msg + n, sizeof err->msg - n, "%s", text);
}

static const char devices_hint[] = "; cortex devices tells what there is";

cx_status cx__host_advise(const cx_host *h, cx_status st, cx_err *err)
{
	if (st == CX_ERR_UNSUPPORTED && err && h->dev && !h->devs[1] && strstr(err->msg, "no kernel"))
		hint(err, "; --allow-fallback runs it on another device");
	if (h->dev && (st == CX_ERR_DEVICE || st == CX_ERR_MEMORY)) hint(err, devices_hint);
	return st;
}

static cx_status split(const char *backend, char *name, size_t size, int *index, cx_err *err)
{
	const char *colon = strchr(backend, ':');
	size_t n = colon ? (size_t)(colon - backend) : strlen(backend);
	char *end;
	long v;
	if (n == 0 || n >= size)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "there is no backend '%.40s'", backend);
	memcpy(name, backend, n);
	name[n] = 0;
	if (!colon) return CX_OK;
	v = strtol(colon + 1, &end, 10);
	if (*end || colon[1] < '0' || colon[1] > '9' || v > 1024)
		return CX_FAIL(
			err, CX_ERR_ARGUMENT, "backend '%.40s': what follows the colon is no index", backend);
	*index = (int)v;
	return CX_OK;
}

cx_status cx__host_open(const char *backend, cx_host *out, cx_err *err)
{
	cx_config config = {.cache_dir = cache_folder()};
	char name[32] = "";
	int index = 0;
	cx_status st;
	memset(out, 0, sizeof *out);
	st = split(backend ? backend : cx_backend_names()[0], name, sizeof name, &index, err);
	if (st == CX_OK) st = cx_runtime_create(&config, &out->rt, err);
	if (st == CX_OK) st = cx_device_open(out->rt, name, index, &out->dev, err);
	if (st != CX_OK) {
		cx__host_close(out);
		hint(err, devices_hint);
	}
	out->devs[0] = out->dev;
	return st;
}

cx_status cx__host_fallback(cx_host *h, cx_err *err)
{
	const char *other = strcmp(h->dev->backend->name, "cpu") == 0 ? "ref" : "cpu";
	return cx_device_open(h->rt, other, 0, &h->devs[1], err);
}

cx_plan_opts cx__host_plan_opts(const cx_host *h)
{
	return (cx_plan_opts){
		.devices = h->devs, .n_devices = h->devs[1] ? 2 : 1, .allow_fallback = h->devs[1] != NULL};
}

void cx__host_report(const cx_host *h, const cx_plan *plan, FILE *to)
{
	uint32_t by_op[CX_OP_COUNT] = {0}, n = 0, n_copies = 0, n_ops = 0;
	if (!h->devs[1] || !plan) return;
	for (uint32_t i = 0; i < plan->n_order; i++) {
		const cx_pnode *s = &plan->n[plan->order[i]];
		if (s->flags & CX_PNODE_XDEV) n_copies++;
		else if (s->dev != 0) n++, by_op[s->op]++;
	}
	fprintf(to, "%u of %u steps on %s by --allow-fallback", n, plan->n_order - n_copies,
		cx_device_name(h->devs[1]));
	for (int op = 0; op < CX_OP_COUNT; op++)
		if (by_op[op]) fprintf(to, "%s%u %s", n_ops++ ? ", " : ": ", by_op[op], cx__ops[op].name);
	fprintf(to, "; %u copies between devices\n", n_copies);
}

void cx__host_close(cx_host *host)
{
	cx_device_close(host->devs[1]);
	cx_device_close(host->dev);
	cx_runtime_free(host->rt);
	memset(host, 0, sizeof *host);
}
