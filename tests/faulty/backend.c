/* backend.c - the backend `faulty` of the test-only binary cortex-faulty: cpu, with what the
 * environment says is wrong with it. The list of backends here stands in for backends/list.c.
 *
 *   CORTEX_FAULT="op kind [seed [steps]]"  every step of this op comes out wrong, with `steps` only
 *                            in programs of so many; kinds as in faulty.h, in small letters:
 *                            "rope stride", "linear epsilon"
 *   CORTEX_LACKS="op op ..." it has no kernel for these
 *   CORTEX_LOST=n            the device is lost at the n-th start of a program, from 1
 *   CORTEX_MEMORY=bytes      it has no memory for larger buffers
 *
 * What cannot be understood is an error of opening the device. */
#include "tests/faulty.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static fault what;
static bool lacks[CX_OP_COUNT];
static cx_backend table;
static const cx_backend *below;
static long lost_at, n_submits;
static unsigned long long max_bytes;

static const cx_kernel *faulty_find(const cx_device *dev, const cx_kernel_key *key)
{
	return lacks[key->op] ? NULL : below->find(dev, key);
}

static cx_status faulty_alloc(
	cx_device *dev, uint64_t bytes, const void *host, cx_buffer **out, cx_err *err)
{
	*out = NULL;
	if (max_bytes && bytes > max_bytes)
		return CX_FAIL(err, CX_ERR_MEMORY, "%s: no memory for a buffer of %llu bytes", dev->name,
			(unsigned long long)bytes);
	return below->alloc(dev, bytes, host, out, err);
}

static cx_status faulty_submit(cx_program *prog, uint32_t first, uint32_t n, cx_err *err)
{
	if (lost_at && ++n_submits >= lost_at)
		return CX_FAIL(err, CX_ERR_DEVICE, "faulty:0: the device is lost");
	return below->submit(prog, first, n, err);
}

static bool find_op(const char *name, cx_op *out)
{
	for (int op = 0; op < CX_OP_COUNT; op++) {
		if (strcmp(cx__ops[op].name, name) != 0) continue;
		*out = (cx_op)op;
		return true;
	}
	return false;
}

static bool find_kind(const char *name)
{
	static const char *const names[] = {
#define X(id, text) #id,
		FAULT_KINDS(X)
#undef X
	};
	for (int k = 0; k < FAULT_COUNT; k++) {
		size_t i = 0;
		while (names[k][i] && tolower((unsigned char)names[k][i]) == name[i]) i++;
		if (names[k][i] || name[i]) continue;
		what.kind = (fault_kind)k;
		return true;
	}
	return false;
}

static bool read_fault(const char *text)
{
	char op[40] = "", kind[20] = "", more;
	unsigned long long seed = 1;
	int n;
	memset(&what, 0, sizeof what);
	if (!text || !*text) return true;
	n = sscanf(text, "%39s %19s %llu %u %c", op, kind, &seed, &what.min_steps, &more);
	what.seed = seed;
	what.on = what.any = true;
	return n >= 2 && n <= 4 && find_op(op, &what.op) && find_kind(kind);
}

static bool read_lacks(const char *text)
{
	char word[40];
	int n;
	cx_op op;
	memset(lacks, 0, sizeof lacks);
	for (; text && sscanf(text, "%39s%n", word, &n) == 1; text += n) {
		if (!find_op(word, &op)) return false;
		lacks[op] = true;
	}
	return true;
}

static cx_status faulty_backend_open(cx_runtime *rt, int index, cx_device **out, cx_err *err)
{
	const char *lost = getenv("CORTEX_LOST"), *memory = getenv("CORTEX_MEMORY");
	cx_device *dev;
	*out = NULL;
	if (index != 0)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "backend faulty has one device, not %d", index);
	if (!read_fault(getenv("CORTEX_FAULT")))
		return CX_FAIL(err, CX_ERR_ARGUMENT,
			"CORTEX_FAULT '%.60s' is not \"op kind [seed [steps]]\"", getenv("CORTEX_FAULT"));
	if (!read_lacks(getenv("CORTEX_LACKS")))
		return CX_FAIL(
			err, CX_ERR_ARGUMENT, "CORTEX_LACKS '%.60s' is no list of ops", getenv("CORTEX_LACKS"));
	lost_at = lost ? strtol(lost, NULL, 10) : 0;
	max_bytes = memory ? strtoull(memory, NULL, 10) : 0;
	if (!(dev = faulty_open(rt, &what)))
		return CX_FAIL(err, CX_ERR_DEVICE, "faulty: the cpu device below it does not open");
	below = dev->backend;
	table = *below;
	table.find = faulty_find;
	table.alloc = faulty_alloc;
	table.submit = faulty_submit;
	dev->backend = &table;
	*out = dev;
	return CX_OK;
}

static const cx_backend cx__backend_faulty = {.name = "faulty", .open = faulty_backend_open};

#define CX_BACKEND(name) extern const cx_backend cx__backend_##name;
#include "backends/list.def"
#undef CX_BACKEND

const cx_backend *const cx__backends[] = {
#define CX_BACKEND(name) &cx__backend_##name,
#include "backends/list.def"
#undef CX_BACKEND
	&cx__backend_faulty,
	NULL,
};

const char *const *cx_backend_names(void)
{
	static const char *const names[] = {
#define CX_BACKEND(name) #name,
#include "backends/list.def"
#undef CX_BACKEND
		"faulty",
		NULL,
	};
	return names;
}
