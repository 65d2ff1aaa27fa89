/* emu.h - a libcuda.so.1 for tests: device memory is host memory, a stream runs at once, a captured
 * graph is a list of what was asked for. Kernels are those of kernels/, read as CUDA by the host's
 * C++ compiler (kernels.cc), an item after the other; without that compiler launches are counted
 * and nothing more.
 *
 * Loaded by dlopen with RTLD_GLOBAL, or by LD_PRELOAD, it stands where the driver and the plug-in
 * with device code would: LD_PRELOAD=build/tests/cuda/libcuda.so.1 build/cortex devices */
#ifndef CX_CUDA_EMU_H
#define CX_CUDA_EMU_H

#ifdef __cplusplus
extern "C" {
#endif

/* What tests set, and see; all calls that can fail are counted. */
typedef struct emu_state {
	long countdown; /* calls until one fails with `code`; negative: none does */
	int code, fired;
	int init_code, load_code; /* of cuInit, of cuModuleLoadData */
	int n_devices, major;     /* devices, and their compute capability */
	int no_pools, no_pinned;  /* as an older driver; as a machine whose memory is locked full */
	long n_calls, n_live;     /* calls; objects and memory that were made and not released */
	long n_launches, n_captured, n_replays; /* kernels run; operations captured; graphs launched */
	long n_copies;                          /* to the device */
	long
		n_misused; /* freed twice, used without a context, barriers that not all of a group reach */
	char last[64]; /* kernel of the last launch, run or captured */
	char modules[256]; /* loaded since the state was set: " map matmul " */
} emu_state;

/* Symbols of the library: an emu_state, and int f(void): whether it has kernels. */
#define EMU_STATE "emu_state_of_tests"
#define EMU_EXECUTES "emu_executes"

/* A kernel as kernels.cc has it. */
typedef struct emu_kernel {
	const char *family, *name;
	void (*call)(void **args); /* of one item */
	unsigned n_args;           /* before the parameters */
} emu_kernel;
typedef struct emu_index {
	unsigned x, y, z;
} emu_index;

/* Runs a kernel; returns groups in which not all items reached a barrier. */
int emu_run(const emu_kernel *k, emu_index grid, emu_index group, void **args);

#ifdef __cplusplus
}
#endif
#endif
