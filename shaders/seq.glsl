/* seq.glsl - the rows of a sequence of a ragged batch and its row of the state. off i32 [B+1] (absent: all rows are
 * sequence 0's), slot i32 [B] (absent: b; out of range: -1, start from zeros and keep nothing). */
#define CX_SEQUENCES(off, slot)                                                                    \
	CX_VIEWS(off, readonly)                                                                        \
	CX_LOAD_I32(off) CX_VIEWS(slot, readonly) CX_LOAD_I32(slot) void cx_sequence(uint b,           \
		const bool has_off, const bool has_slot, int n_rows, int n_slots, out int first,           \
		out int end, out int at)                                                                   \
	{                                                                                              \
		first = 0;                                                                                 \
		end = b == 0u ? n_rows : 0;                                                                \
		at = int(b);                                                                               \
		if (has_off) {                                                                             \
			first = max(cx_li##off(T_OFF(off) + b * T_STRIDE(off, 5)), 0);                         \
			end = min(cx_li##off(T_OFF(off) + (b + 1u) * T_STRIDE(off, 5)), n_rows);               \
		}                                                                                          \
		if (has_slot) at = cx_li##slot(T_OFF(slot) + b * T_STRIDE(slot, 5));                       \
		if (at < 0 || at >= n_slots) at = -1;                                                      \
	}
