/* recording.c - see recording.h. */
#include "models/decoder/recording.h"

#include <string.h>

void cx_recording_deinit(cx_recording *r)
{
	cx_arena_deinit(&r->arena);
	memset(r, 0, sizeof *r);
}

const char *cx_trial_split_name(cx_trial_split s)
{
	static const char *const name[] = {"train", "val", "test", "none"};
	return name[s <= CX_TRIAL_NONE ? s : CX_TRIAL_NONE];
}
