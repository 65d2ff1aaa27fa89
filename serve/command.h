/* command.h - one command of the binary per row of commands.def, and what they share. */
#ifndef CX_COMMAND_H
#define CX_COMMAND_H

#include "graph/cx.h"

#include <stdio.h>

#define CX_CMD(name, doc) int cx__cmd_##name(int argc, char **argv);
#include "serve/commands.def"
#undef CX_CMD

/* Prints "cortex <cmd>: <message>" to stderr; returns 1, the exit code. */
int cx__cmd_fail(const char *cmd, const cx_err *err);
int cx__cmd_usage(const char *cmd, const char *fmt, ...) CX_PRINTF(2, 3);

/* Puts "path: " before err's message, and returns its code. */
cx_status cx__err_in(const char *path, cx_err *err);
/* The graph in a text file; messages name the file. */
cx_status cx__graph_read(const char *path, cx_graph **out, cx_err *err);

/* The runtime and the device named by --backend ("cpu", "ref", "cpu:0"; NULL: the best there is).
 */
typedef struct cx_host {
	cx_runtime *rt;
	cx_device *dev;
	cx_device *devs[2]; /* dev, and the one of --allow-fallback or NULL */
} cx_host;
cx_status cx__host_open(const char *backend, cx_host *out, cx_err *err);
/* Opens a second device, cpu (ref if the first is cpu), for the nodes that the first has no kernel
 * for. */
cx_status cx__host_fallback(cx_host *host, cx_err *err);
void cx__host_close(cx_host *host); /* zeroed is fine */
/* Devices and allow_fallback; the rest is zero. Reads host for as long as it is used. */
cx_plan_opts cx__host_plan_opts(const cx_host *host);
/* Puts what to do about it behind the message of a device's failure. Returns st. */
cx_status cx__host_advise(const cx_host *host, cx_status st, cx_err *err);
/* With --allow-fallback, a line: the steps of the plan that are not on the first device. */
void cx__host_report(const cx_host *host, const cx_plan *plan, FILE *to);

#define CX_FALLBACK_USAGE                                                                          \
	"  --allow-fallback   what the device has no kernel for runs on the cpu, with copies, and\n"   \
	"                     is listed; else it is refused by name\n"

#endif
