/* profile.h - times of a plan's steps, and the ceilings of the device that they are compared with.
 */
#ifndef CX_PROFILE_H
#define CX_PROFILE_H

#include "graph/plan.h"

typedef struct cx_profile {
	uint32_t n_steps;
	double *seconds;    /* [n_steps] median over the runs, each step waited for; by the device's
						   clock where cx_limits.clock_ns says that it has one, else the host's */
	double run_seconds; /* median of whole runs, steps not waited for */
	double launch;      /* by the host's clock: a run of one step that does nothing to speak of */
	double copy_gbs, peak_gflops;
	const char *peak_how;
} cx_profile;

/* runs 1..10000. The first runs are not counted. */
cx_status cx__profile_run(const cx_plan *plan, cx_exec *x, long runs, cx_profile *out, cx_err *err);
/* Fills launch, copy_gbs, peak_gflops: on cpu from multiply-adds in registers and a copy of 256
 * MiB by its threads; elsewhere from a large copy and an f32 product run as graphs. Seconds. */
cx_status cx__profile_ceilings(cx_runtime *rt, cx_device *dev, cx_profile *out, cx_err *err);
void cx__profile_free(cx_profile *p); /* zeroed is fine */

#endif
