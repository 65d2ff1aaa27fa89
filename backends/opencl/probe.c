/* probe.c - tries the OpenCL driver in a child process. PoCL, for one, calls abort() where it finds
 * no folder for its cache or no /sys: that must not be ours. The child says by one byte how far it
 * came; silence means that it died. */
#include "backends/opencl/opencl.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FOUND = 'f', NO_LIBRARY = 'l', NO_DEVICE = 'd', NO_CONTEXT = 'c', PROBE_MS = 30000 };

static char try_driver(void)
{
	cx_cl_api cl;
	cl_platform_id platform = NULL;
	cl_device_id device = NULL;
	cl_int code = CL_SUCCESS;
	char why[120];
	int n = 0;
	if (!cx__cl_load(&cl, why, sizeof why)) return NO_LIBRARY;
	if (!cx__cl_pick(&cl, 0, &platform, &device, &n)) return NO_DEVICE;
	cl_context_properties props[] = {
		CL_CONTEXT_PLATFORM, (cl_context_properties)(uintptr_t)platform, 0};
	if (!cl.CreateContext(props, 1, &device, NULL, NULL, &code)) return NO_CONTEXT;
	return FOUND;
}

/* Never returns. What the driver prints is not the program's to say. */
static void child(int out)
{
	struct rlimit no_core = {0, 0};
	int null = open("/dev/null", O_RDWR);
	char said;
	setrlimit(RLIMIT_CORE, &no_core);
	signal(SIGABRT, SIG_DFL);
	signal(SIGSEGV, SIG_DFL);
	if (null >= 0) {
		dup2(null, 1);
		dup2(null, 2);
	}
	said = try_driver();
	_exit(write(out, &said, 1) == 1 ? 0 : 1);
}

bool cx__cl_probe(char *why, size_t size)
{
	int ends[2];
	struct pollfd wait_for;
	char said = 0;
	bool timely;
	pid_t pid;
	if (pipe(ends) != 0) {
		snprintf(why, size, "the OpenCL driver could not be probed: no pipe");
		return false;
	}
	pid = fork();
	if (pid == 0) child(ends[1]);
	close(ends[1]);
	if (pid < 0) {
		close(ends[0]);
		snprintf(why, size, "the OpenCL driver could not be probed: no process");
		return false;
	}
	wait_for = (struct pollfd){ends[0], POLLIN, 0};
	timely = poll(&wait_for, 1, PROBE_MS) > 0;
	if (timely && read(ends[0], &said, 1) != 1) said = 0;
	close(ends[0]);
	if (!timely) kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	if (said == NO_LIBRARY)
		snprintf(why, size, "libOpenCL.so.1 was not found: no OpenCL driver is installed");
	else if (said == NO_DEVICE) snprintf(why, size, "the OpenCL library knows no device");
	else if (said == NO_CONTEXT) snprintf(why, size, "the OpenCL driver makes no context");
	else if (!timely) snprintf(why, size, "the OpenCL driver does not answer");
	else if (said != FOUND)
		snprintf(why, size,
			"the OpenCL driver ends the process that uses it (PoCL does, where it has no cache "
			"folder: set "
			"POCL_CACHE_DIR, or no /sys)");
	return said == FOUND;
}
