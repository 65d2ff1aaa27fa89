/* nwb.h - recordings in NWB 2 files (HDF5), as the Neural Latents Benchmark lays them out
 * (spec/decoder.md 4.2).
 *
 * Read: /units/{spike_times, spike_times_index, heldout, obs_intervals, obs_intervals_index},
 * /processing/behavior/<series>/{data, timestamps or starting_time with its rate}, and
 * /intervals/trials/{start_time, stop_time, move_onset_time, split}. Only the spikes are required.
 * Every index is checked before it is used; a fault is one sentence that names file and field.
 *
 * libhdf5 itself does not survive every damaged file. So a child process reads the file first, and
 * the file is refused if the child dies of it; the plug-in is described in models/files/hdf5.h. */
#ifndef CX_DECODER_NWB_H
#define CX_DECODER_NWB_H

#include "models/decoder/recording.h"

typedef struct cx_nwb_opts {
	const char *plugin_folder; /* NULL: the usual places */
	const char *series; /* of movement; NULL: the first that is there of hand_vel, finger_vel,
	                       cursor_vel. One that is named must be there */
} cx_nwb_opts;

/* opts may be NULL. out is zeroed on failure. The two columns of a series *_vel are named vel_x and
 * vel_y; values are as in the file, without conversion. */
CX_API cx_status cx_nwb_read(const char *path, const cx_nwb_opts *opts, const cx_alloc *alloc,
	cx_recording *out, cx_err *err);

/* Writes units, trials, and the kinematics: columns named pos_* as hand_pos, vel_* as hand_vel. A
 * new file or none: it is written beside the target and renamed. */
CX_API cx_status cx_nwb_write(const char *path, const cx_recording *r, const cx_nwb_opts *opts,
	const cx_alloc *alloc, cx_err *err);

#endif
