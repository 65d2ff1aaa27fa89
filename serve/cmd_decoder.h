/* cmd_decoder.h - what the two files of `cortex decoder` share: options, and the evaluation itself.
 */
#ifndef CX_CMD_DECODER_H
#define CX_CMD_DECODER_H

#include "models/decoder/linear.h"
#include "models/decoder/simulate.h"
#include "serve/command.h"

typedef struct decoder_args {
	const char *data, *out, *spikes, *kin, *backend;
	cx_linear_opts fit;
	cx_simulate_opts sim;
	double fraction;
	double bin; /* seconds per bin as told; 0: not told */
	bool json;
} decoder_args;

/* Fits, decodes the test part, prints R2, plan and latency; draws a->out/decoded.svg if asked. */
cx_status cx__decoder_eval(const decoder_args *a, const cx_session *s, bool draw, cx_err *err);
/* `cortex decoder info`, with options of its own; argv[0] is "info". Gives the exit code. */
int cx__decoder_info(int argc, char **argv);
/* Progress callback: `what` is a label. Draws only on a terminal. */
void cx__progress(void *what, double done);

#endif
