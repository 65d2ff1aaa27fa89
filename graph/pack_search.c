/* pack_search.c - looks for a packing within a capacity by depth-first search with restarts.
 *
 * In: the reduced problem and a capacity.   Out: p->off, or the proof that there is none, or
 * neither in time.
 *
 * Only packings are looked for in which every buffer rests on another or on the ground: if there is
 * any packing, pushing everything down gives one of these (the canonical solutions of MiniMalloc:
 * Moffitt, ASPLOS 2023, doi 10.1145/3623278.3624752, from which the section bounds and the orders
 * come as well).
 *
 * State. Every clique has a `ground`, below which no buffer of it still to be placed can start;
 * every buffer has `low`, the largest ground it spans. `slack` is what a clique can still waste:
 * the capacity less the end of the shortest schedule of its open buffers, each starting at its low
 * or later.
 *
 * Choice. A valley is a run of cliques with equal ground between higher ones. A buffer that lies in
 * the valley and starts at its ground can be placed for good: nothing can come below it. So: pick a
 * clique in a valley; either one of its buffers starts at the ground, or none does, and then the
 * ground rises by a known amount. That makes two packings differ in the first choice in which they
 * differ, and no packing is visited twice.
 *
 * After a placement the pieces of time that no open buffer connects are solved one by one; when one
 * fails, search goes back to the placement that created it, past all that was done in the others.
 *
 * Restarts. Runs are short. Several rules for picking the clique and ordering the buffers take
 * turns, and each learns which buffers were left over where it failed and prefers them in the next
 * run (squeaky wheel; Joslin and Clements, JAIR 10, 1999). States that failed for good are
 * remembered by hash across all runs. */
#include "graph/pack_impl.h"

#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX
#define SEEN_MAX (1u << 18) /* failed states remembered: 2 MiB */

/* ---- rules ---- */

/* Which clique to decide next: the one with the smallest score. */
typedef enum pick_rule {
	PICK_CHOICES,       /* fewest choices, then the lowest ground */
	PICK_SLACK_LOWEST,  /* least slack, then the lowest ground */
	PICK_SLACK_CHOICES, /* slack times choices */
	PICK_BLEND,         /* slack times ground times choices */
} pick_rule;

/* In what order to try its buffers, largest first: W lifetime, A lifetime times size, T busiest
 * moment. */
static const char *const orders[] = {"WAT", "TAW"};
enum { N_BASES = sizeof orders / sizeof *orders };

static const struct {
	pick_rule pick;
	uint8_t order; /* into orders[] */
} rules[] = {
	{PICK_CHOICES, 0},
	{PICK_SLACK_LOWEST, 0},
	{PICK_SLACK_CHOICES, 0},
	{PICK_BLEND, 0},
	{PICK_CHOICES, 1},
	{PICK_SLACK_LOWEST, 1},
	{PICK_SLACK_CHOICES, 1},
	{PICK_BLEND, 1},
};
enum { N_RULES = sizeof rules / sizeof *rules };

/* ---- state ---- */

typedef struct undo {
	int64_t *where, old;
} undo;

/* A stretch of cliques [a, z) to be solved; `owner` is the frame whose choice opened it. A linked
 * list, since going back restores earlier lists. */
typedef struct part {
	uint32_t a, z, owner, next;
} part;

/* A part being solved. */
typedef struct frame {
	uint32_t a, z, owner;
	uint32_t clique;                          /* the one picked */
	uint32_t choices, n_choices, next_choice; /* in s->choices */
	uint32_t agenda, n_parts; /* list of parts still to do besides this one; pool height */
	uint32_t n_placed;        /* heights before the current choice */
	size_t n_undo;
	uint64_t hash;
	bool gap_done;
} frame;

struct cx__pack_search {
	cx__pack_prob *p;
	uint32_t n_words, n_cwords;
	int64_t capacity;
	/* buffers */
	int64_t *low;
	uint64_t *open;         /* bits [n_words] */
	uint64_t *overlap;      /* bits [n][n_words] */
	uint32_t *o_lo, *o_hi;  /* [n] words of overlap that are not 0 lie in [o_lo, o_hi) */
	uint64_t *code;         /* [n] random: the state's hash is a sum of products with these */
	double *base[N_BASES];  /* [n] rank in the order, 0 to 1, best is largest */
	double *blame[N_RULES]; /* [n] */
	double *key;            /* [n] of the current run, largest first */
	/* cliques */
	int64_t *ground, *top, *slack; /* top: of what was placed */
	uint32_t *n_open, *n_cross;    /* open buffers; those that also are in the next clique */
	uint64_t *members;             /* bits [n_cliques][n_words] */
	uint32_t *m_lo, *m_hi; /* [n_cliques] words of members that are not 0 lie in [m_lo, m_hi) */
	uint64_t *c_code;      /* [n_cliques] random, likewise */
	uint64_t *dirty;       /* bits [n_cwords]: to be checked */
	/* stacks */
	undo *undos;
	size_t n_undo, max_undo;
	uint32_t *placed, n_placed;
	part *parts;
	uint32_t n_parts, max_parts;
	frame *frames;
	uint32_t n_frames, max_frames;
	uint32_t *choices, n_choices, max_choices;
	/* scratch of one step */
	int64_t *at, *len; /* [n] */
	uint32_t *valley;  /* [n_cliques] first clique of the run of equal ground, NONE: no valley */
	int32_t *n_start;  /* [n_cliques + 1] */
	/* memory */
	uint64_t *seen; /* [n_seen] hashes, a power of two */
	uint32_t n_seen;
	uint32_t run, rule; /* runs so far; in use */
	bool overflow;      /* a stack was full: treat like a run that is out of nodes */
};

static uint64_t mix(uint64_t z)
{
	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static void set_value(cx__pack_search *s, int64_t *where, int64_t value)
{
	if (s->n_undo == s->max_undo) {
		s->overflow =
			true; /* the value is still set: the run is dropped and rebuilt from nothing */
	} else {
		s->undos[s->n_undo++] = (undo){where, *where};
	}
	*where = value;
}

static void mark(cx__pack_search *s, uint32_t lo, uint32_t hi)
{
	for (uint32_t w = lo / 64; w <= (hi - 1) / 64; w++) {
		uint64_t m = ~(uint64_t)0;
		if (w == lo / 64) m &= ~(uint64_t)0 << (lo & 63);
		if (w == (hi - 1) / 64) m &= ~(uint64_t)0 >> (63 - ((hi - 1) & 63));
		s->dirty[w] |= m;
	}
}

/* ---- inference ---- */

/* Raises the ground of clique c to the lowest of its open buffers, and schedules them one on the
 * other in order of low, which is the shortest that they can stack. False if that passes the
 * capacity. */
static bool check_clique(cx__pack_search *s, uint32_t c)
{
	const cx__pack_prob *p = s->p;
	const uint64_t *members = s->members + (size_t)c * s->n_words;
	int64_t *at = s->at, *len = s->len, end = 0;
	uint32_t n = 0;
	for (uint32_t w = s->m_lo[c]; w < s->m_hi[c]; w++)
		for (uint64_t m = members[w] & s->open[w]; m; m &= m - 1) {
			uint32_t i = w * 64 + (uint32_t)__builtin_ctzll(m), j = n++;
			int64_t low = s->low[i];
			if (low + p->size[i] > s->capacity) return false;
			for (; j > 0 && at[j - 1] > low; j--) {
				at[j] = at[j - 1];
				len[j] = len[j - 1];
			}
			at[j] = low;
			len[j] = p->size[i];
		}
	if (!n) return true;
	if (at[0] > s->ground[c]) set_value(s, &s->ground[c], at[0]);
	for (uint32_t j = 0; j < n; j++) end = (at[j] > end ? at[j] : end) + len[j];
	if (s->capacity - end != s->slack[c]) set_value(s, &s->slack[c], s->capacity - end);
	return end <= s->capacity;
}

/* Checks what was marked. On failure the open buffers of the clique that failed take the blame. */
static bool propagate(cx__pack_search *s)
{
	for (uint32_t v = 0; v < s->n_cwords; v++)
		for (; s->dirty[v]; s->dirty[v] &= s->dirty[v] - 1) {
			uint32_t c = v * 64 + (uint32_t)__builtin_ctzll(s->dirty[v]);
			if (check_clique(s, c)) continue;
			for (uint32_t w = s->m_lo[c]; w < s->m_hi[c]; w++)
				for (uint64_t m = s->members[(size_t)c * s->n_words + w] & s->open[w]; m;
					 m &= m - 1)
					s->blame[s->rule][w * 64 + (uint32_t)__builtin_ctzll(m)] += 1.0;
			memset(s->dirty, 0, s->n_cwords * sizeof *s->dirty);
			return false;
		}
	return true;
}

/* Places buffer i at its low, below everything open that it overlaps. */
static bool place(cx__pack_search *s, uint32_t i)
{
	const cx__pack_prob *p = s->p;
	const uint64_t *overlap = s->overlap + (size_t)i * s->n_words;
	int64_t end = s->low[i] + p->size[i];
	s->placed[s->n_placed++] = i;
	s->open[i / 64] &= ~((uint64_t)1 << (i & 63));
	for (uint32_t c = p->lo[i]; c < p->hi[i]; c++) {
		set_value(s, &s->ground[c], end);
		set_value(s, &s->top[c], end);
		s->n_open[c]--;
		if (c + 1 < p->hi[i]) s->n_cross[c]--;
	}
	mark(s, p->lo[i], p->hi[i]);
	for (uint32_t w = s->o_lo[i]; w < s->o_hi[i]; w++)
		for (uint64_t m = overlap[w] & s->open[w]; m; m &= m - 1) {
			uint32_t j = w * 64 + (uint32_t)__builtin_ctzll(m);
			if (s->low[j] >= end) continue;
			set_value(s, &s->low[j], cx__pack_align(end, p->align[j]));
			mark(s, p->lo[j], p->hi[j]);
		}
	return propagate(s);
}

static void go_back(cx__pack_search *s, size_t n_undo, uint32_t n_placed)
{
	const cx__pack_prob *p = s->p;
	while (s->n_undo > n_undo) {
		undo *u = &s->undos[--s->n_undo];
		*u->where = u->old;
	}
	while (s->n_placed > n_placed) {
		uint32_t i = s->placed[--s->n_placed];
		s->open[i / 64] |= (uint64_t)1 << (i & 63);
		for (uint32_t c = p->lo[i]; c < p->hi[i]; c++) {
			s->n_open[c]++;
			if (c + 1 < p->hi[i]) s->n_cross[c]++;
		}
	}
}

/* The next place above its low where buffer i can rest, given that nothing of clique c starts at
 * the ground: on the end of a buffer that is still open. INT64_MAX: there is none. */
static int64_t next_rest(const cx__pack_search *s, uint32_t i, uint32_t c)
{
	const uint64_t *overlap = s->overlap + (size_t)i * s->n_words;
	const uint64_t *members = s->members + (size_t)c * s->n_words;
	int64_t best = INT64_MAX;
	for (uint32_t w = s->o_lo[i]; w < s->o_hi[i]; w++)
		for (uint64_t m = overlap[w] & s->open[w]; m; m &= m - 1) {
			uint32_t j = w * 64 + (uint32_t)__builtin_ctzll(m);
			int64_t end = s->low[j] + s->p->size[j];
			/* one of c that could start at the ground has to rise itself first, onto one not of c
			 */
			if ((members[w] >> (j & 63) & 1) && s->low[j] == s->ground[c]) continue;
			if (end < best) best = end;
		}
	return best == INT64_MAX ? best : cx__pack_align(best, s->p->align[i]);
}

/* Nothing of clique c starts at its ground: raise what could. */
static bool raise(cx__pack_search *s, uint32_t c)
{
	const cx__pack_prob *p = s->p;
	int64_t ground = s->ground[c];
	uint32_t n = 0;
	for (uint32_t w = s->m_lo[c]; w < s->m_hi[c]; w++)
		for (uint64_t m = s->members[(size_t)c * s->n_words + w] & s->open[w]; m; m &= m - 1) {
			uint32_t i = w * 64 + (uint32_t)__builtin_ctzll(m);
			if (s->low[i] != ground) continue;
			s->at[n] = next_rest(s, i, c);
			if (s->at[n] > s->capacity - p->size[i]) return false;
			s->len[n++] = i;
		}
	for (uint32_t k = 0; k < n; k++) {
		uint32_t i = (uint32_t)s->len[k];
		set_value(s, &s->low[i], s->at[k]);
		mark(s, p->lo[i], p->hi[i]);
	}
	return propagate(s);
}

/* ---- parts and frames ---- */

/* Puts the connected stretches of [a, z) with something open on top of the agenda, least slack
 * first. */
static uint32_t push_parts(
	cx__pack_search *s, uint32_t a, uint32_t z, uint32_t owner, uint32_t agenda)
{
	uint32_t first = s->n_parts;
	for (uint32_t c = a, end; c < z; c = end) {
		int64_t slack = INT64_MAX;
		uint32_t k;
		end = c + 1;
		if (!s->n_open[c]) continue;
		slack = s->slack[c];
		for (; end < z && s->n_cross[end - 1]; end++)
			if (s->slack[end] < slack) slack = s->slack[end];
		if (s->n_parts == s->max_parts) {
			s->overflow = true;
			return agenda;
		}
		/* `next` holds the order while sorting: most slack first, as the last one pushed is solved
		 * first */
		for (k = s->n_parts++; k > first && s->at[k - first - 1] < slack; k--) {
			s->parts[k] = s->parts[k - 1];
			s->at[k - first] = s->at[k - first - 1];
		}
		s->parts[k] = (part){c, end, owner, NONE};
		s->at[k - first] = slack;
	}
	for (uint32_t k = first; k < s->n_parts; k++) {
		s->parts[k].next = agenda;
		agenda = k;
	}
	return agenda;
}

/* Finds valleys, counts per clique the buffers that could start at its ground, hashes the state of
 * [a, z). */
static uint64_t survey(cx__pack_search *s, uint32_t a, uint32_t z)
{
	const cx__pack_prob *p = s->p;
	uint64_t hash = mix((uint64_t)s->capacity);
	for (uint32_t c = a, end; c < z; c = end) {
		bool valley = c == a || s->ground[c - 1] > s->ground[c];
		for (end = c; end < z && s->ground[end] == s->ground[c]; end++) {
			uint64_t at = (uint64_t)s->ground[end] * 2 + 1 + (s->top[end] == s->ground[end]);
			if (p->any_align) at += mix((uint64_t)s->top[end]);
			hash += at * s->c_code[end];
		}
		if (end < z && s->ground[end] < s->ground[c]) valley = false;
		for (uint32_t k = c; k < end; k++) {
			s->valley[k] = valley ? c : NONE;
			s->n_start[k] = 0;
		}
	}
	s->n_start[z] = 0;
	for (uint32_t w = p->first[a] / 64; w * 64 < p->first[z]; w++)
		for (uint64_t m = s->open[w]; m; m &= m - 1) {
			uint32_t i = w * 64 + (uint32_t)__builtin_ctzll(m), lo = p->lo[i], hi = p->hi[i];
			if (lo < a || lo >= z) continue;
			hash += ((uint64_t)s->low[i] + 1) * s->code[i];
			if (s->low[i] != s->ground[lo] || s->valley[lo] == NONE ||
				s->valley[lo] != s->valley[hi - 1])
				continue;
			s->n_start[lo]++;
			s->n_start[hi]--;
		}
	return mix(hash);
}

static double score(const cx__pack_search *s, uint32_t c, int n_start)
{
	double slack = (double)s->slack[c], ground = (double)s->ground[c], cap = (double)s->capacity;
	double choices = n_start + (s->slack[c] > 0);
	switch (rules[s->rule].pick) {
	case PICK_CHOICES:
		return choices * (cap + 1.0) + ground;
	case PICK_SLACK_LOWEST:
		return slack * 16.0 + ground / (cap + 1.0);
	case PICK_SLACK_CHOICES:
		return (slack + cap / 64.0) * choices;
	default:
		return (slack + cap / 32.0) * (ground + cap / 32.0) * choices;
	}
}

static uint32_t pick(const cx__pack_search *s, uint32_t a, uint32_t z)
{
	uint32_t best = NONE;
	double best_score = 0.0;
	int n_start = 0;
	for (uint32_t c = a; c < z; c++) {
		double mine;
		n_start += s->n_start[c];
		if (s->valley[c] == NONE) continue;
		mine = score(s, c, n_start);
		if (best != NONE && mine >= best_score) continue;
		best = c;
		best_score = mine;
	}
	return best; /* the lowest ground is always a valley */
}

/* Resting: on something placed, or on the ground floor. */
static bool rests(const cx__pack_search *s, uint32_t i)
{
	const cx__pack_prob *p = s->p;
	if (s->low[i] == 0) return true;
	for (uint32_t c = p->lo[i]; c < p->hi[i]; c++)
		if (cx__pack_align(s->top[c], p->align[i]) == s->low[i]) return true;
	return false;
}

/* Appends the buffers of f->clique that can start at its ground, largest key first. Of two that are
 * alike only one is tried. */
static void list_choices(cx__pack_search *s, frame *f)
{
	const cx__pack_prob *p = s->p;
	uint32_t c = f->clique, *list = s->choices + s->n_choices, n = 0;
	f->choices = s->n_choices;
	for (uint32_t w = s->m_lo[c]; w < s->m_hi[c]; w++)
		for (uint64_t m = s->members[(size_t)c * s->n_words + w] & s->open[w]; m; m &= m - 1) {
			uint32_t i = w * 64 + (uint32_t)__builtin_ctzll(m), k;
			bool twin = false;
			if (s->low[i] != s->ground[c] || s->valley[p->lo[i]] != s->valley[c] ||
				s->valley[p->hi[i] - 1] != s->valley[c] || !rests(s, i))
				continue;
			for (k = 0; k < n && !twin; k++)
				twin = p->lo[list[k]] == p->lo[i] && p->hi[list[k]] == p->hi[i] &&
					   p->size[list[k]] == p->size[i] && p->align[list[k]] == p->align[i];
			if (twin) continue;
			if (s->n_choices + n == s->max_choices) {
				s->overflow = true;
				break;
			}
			for (k = n++; k > 0 && s->key[list[k - 1]] < s->key[i]; k--) list[k] = list[k - 1];
			list[k] = i;
		}
	f->n_choices = n;
	s->n_choices += n;
}

/* Opens a frame for the part on top of the agenda; false if its state is known to fail. */
static bool open_frame(cx__pack_search *s, uint32_t agenda)
{
	const part *t = &s->parts[agenda];
	frame *f = &s->frames[s->n_frames++];
	*f = (frame){.a = t->a,
		.z = t->z,
		.owner = t->owner,
		.agenda = t->next,
		.n_parts = s->n_parts,
		.n_placed = s->n_placed,
		.n_undo = s->n_undo,
		.choices = s->n_choices};
	f->hash = survey(s, f->a, f->z);
	if (s->seen[f->hash & (s->n_seen - 1)] == f->hash) return false;
	f->clique = pick(s, f->a, f->z);
	list_choices(s, f);
	return true;
}

/* Goes on to the next choice of the top frame that does not fail at once. Gives the new agenda;
 * false: none left. */
static bool advance(cx__pack_search *s, uint32_t *agenda)
{
	uint32_t me = s->n_frames - 1;
	frame *f = &s->frames[me];
	while (!s->overflow) {
		bool ok;
		go_back(s, f->n_undo, f->n_placed);
		s->n_parts = f->n_parts;
		s->n_choices = f->choices + f->n_choices;
		if (f->next_choice < f->n_choices) {
			ok = place(s, s->choices[f->choices + f->next_choice++]);
		} else if (!f->gap_done && s->slack[f->clique] > 0) {
			f->gap_done = true;
			ok = raise(s, f->clique);
		} else {
			s->seen[f->hash & (s->n_seen - 1)] = f->hash;
			return false;
		}
		if (!ok) continue;
		*agenda = push_parts(s, f->a, f->z, me, f->agenda);
		return true;
	}
	return true;
}

/* ---- one run ---- */

static void start_state(cx__pack_search *s)
{
	const cx__pack_prob *p = s->p;
	memset(s->open, 0, s->n_words * sizeof *s->open);
	for (uint32_t i = 0; i < p->n; i++) {
		s->low[i] = 0;
		s->open[i / 64] |= (uint64_t)1 << (i & 63);
	}
	for (uint32_t c = 0; c < p->n_cliques; c++) {
		s->ground[c] = s->top[c] = 0;
		s->slack[c] = s->capacity - p->load[c];
		s->n_open[c] = s->n_cross[c] = 0;
	}
	for (uint32_t i = 0; i < p->n; i++)
		for (uint32_t c = p->lo[i]; c < p->hi[i]; c++) {
			s->n_open[c]++;
			if (c + 1 < p->hi[i]) s->n_cross[c]++;
		}
	memset(s->dirty, 0, s->n_cwords * sizeof *s->dirty);
	s->n_undo = 0;
	s->n_placed = s->n_parts = s->n_frames = s->n_choices = 0;
	s->overflow = false;
}

/* Searches until found, refuted, or out of steps or nodes. On YES the placed buffers are at their
 * lows. */
static cx__pack_found run_once(
	cx__pack_search *s, uint64_t max_steps, uint64_t stop, cx__pack_budget *b)
{
	uint32_t agenda;
	start_state(s);
	agenda = push_parts(s, 0, s->p->n_cliques, NONE, NONE);
	for (uint64_t n = 0; agenda != NONE; n++) {
		bool ok;
		if (n >= max_steps || b->nodes >= stop || s->overflow || s->n_frames == s->max_frames)
			return CX__PACK_UNKNOWN;
		/* a step looks at every clique of its part: charge for that, so that nodes tell time */
		b->nodes += cx__pack_step_cost(s->parts[agenda].z - s->parts[agenda].a);
		if ((n & 255) == 255 && cx__pack_spent(b)) return CX__PACK_UNKNOWN;
		ok = open_frame(s, agenda) && advance(s, &agenda);
		while (!ok) {
			uint32_t owner = s->frames[s->n_frames - 1].owner;
			if (owner == NONE) return CX__PACK_NO;
			s->n_frames = owner + 1;
			ok = advance(s, &agenda);
		}
	}
	return s->overflow ? CX__PACK_UNKNOWN : CX__PACK_YES;
}

/* Ranks by the order, then moves forward what was left over in earlier runs of this rule. */
static void set_keys(cx__pack_search *s)
{
	double *blame = s->blame[s->rule], most = 1.0;
	const double *base = s->base[rules[s->rule].order];
	for (uint32_t i = 0; i < s->p->n; i++)
		if (blame[i] > most) most = blame[i];
	for (uint32_t i = 0; i < s->p->n; i++) {
		s->key[i] = base[i] + 2.0 * blame[i] / most;
		blame[i] *= 0.5;
	}
}

/* 1 1 2 1 1 2 4 ...: most runs are short, and now and then one is long (Luby, Sinclair, Zuckerman
 * 1993). */
static uint64_t luby(uint32_t i)
{
	uint32_t k = 1;
	for (;;) {
		while (((uint32_t)1 << k) - 1 < i) k++;
		if (((uint32_t)1 << k) - 1 == i) return (uint64_t)1 << (k - 1);
		i -= ((uint32_t)1 << (k - 1)) - 1;
		k = 1;
	}
}

cx__pack_found cx__pack_search_run(
	cx__pack_search *s, int64_t capacity, uint64_t slice, cx__pack_budget *b)
{
	cx__pack_prob *p = s->p;
	uint64_t stop = b->max_nodes - b->nodes < slice ? b->max_nodes : b->nodes + slice;
	if (capacity < p->bound) return CX__PACK_NO;
	s->capacity = capacity;
	while (b->nodes < stop && !cx__pack_spent(b)) {
		uint64_t most = 2 * (uint64_t)p->n * luby(s->run / N_RULES + 1);
		cx__pack_found found;
		s->rule = s->run++ % N_RULES;
		set_keys(s);
		found = run_once(s, most, stop, b);
		if (found == CX__PACK_NO) return found;
		if (found != CX__PACK_YES) continue;
		p->peak = 0;
		for (uint32_t i = 0; i < p->n; i++) {
			p->off[i] = s->low[i];
			if (p->off[i] + p->size[i] > p->peak) p->peak = p->off[i] + p->size[i];
		}
		return found;
	}
	return CX__PACK_UNKNOWN;
}

/* ---- creation ---- */

static double weigh(const cx__pack_prob *p, uint32_t i, char what)
{
	double most = 0.0;
	switch (what) {
	case 'W':
		return (double)p->width[i];
	case 'A':
		return (double)p->width[i] * (double)p->size[i];
	default:
		break;
	}
	for (uint32_t c = p->lo[i]; c < p->hi[i]; c++)
		if ((double)p->load[c] > most) most = (double)p->load[c];
	return most;
}

typedef struct weighed {
	double w[3];
	uint32_t i;
} weighed;

static int weighed_cmp(const void *a, const void *b)
{
	const weighed *x = a, *y = b;
	for (int k = 0; k < 3; k++)
		if (x->w[k] != y->w[k]) return x->w[k] < y->w[k] ? -1 : 1;
	return x->i > y->i ? -1 : x->i < y->i;
}

/* base[i]: the share of buffers that i comes before. */
static void rank(const cx__pack_prob *p, const char *order, weighed *tmp, double *base)
{
	for (uint32_t i = 0; i < p->n; i++) {
		tmp[i].i = i;
		for (int k = 0; k < 3; k++) tmp[i].w[k] = weigh(p, i, order[k]);
	}
	qsort(tmp, p->n, sizeof *tmp, weighed_cmp);
	for (uint32_t r = 0; r < p->n; r++) base[tmp[r].i] = (double)r / p->n;
}

static void fill_bits(cx__pack_search *s)
{
	const cx__pack_prob *p = s->p;
	for (uint32_t i = 0; i < p->n; i++) s->o_lo[i] = i / 64;
	for (uint32_t c = 0; c < p->n_cliques; c++)
		s->c_code[c] = mix(c + UINT64_C(0xd1b54a32d192ed03));
	for (uint32_t i = 0; i < p->n; i++) {
		uint32_t end = p->first[p->hi[i]];
		s->o_hi[i] = (end - 1) / 64 + 1;
		s->code[i] = mix(i + UINT64_C(0x9e3779b97f4a7c15));
		for (uint32_t c = p->lo[i]; c < p->hi[i]; c++) {
			if (!s->m_hi[c]) s->m_lo[c] = i / 64;
			s->m_hi[c] = i / 64 + 1;
			s->members[(size_t)c * s->n_words + i / 64] |= (uint64_t)1 << (i & 63);
		}
		for (uint32_t j = i + 1; j < end; j++) {
			s->overlap[(size_t)i * s->n_words + j / 64] |= (uint64_t)1 << (j & 63);
			s->overlap[(size_t)j * s->n_words + i / 64] |= (uint64_t)1 << (i & 63);
			if (i / 64 < s->o_lo[j]) s->o_lo[j] = i / 64;
		}
	}
}

cx_status cx__pack_search_create(cx_arena *ar, cx__pack_prob *p, cx__pack_search **out, cx_err *err)
{
	cx__pack_search *s = cx_arena_alloc(ar, sizeof *s);
	size_t n = p->n, nc = p->n_cliques;
	weighed *tmp;
	size_t spans = 0;
	bool ok;
	if (!s) goto no_memory;
	s->p = p;
	s->n_words = (uint32_t)((n + 63) / 64);
	s->n_cwords = (uint32_t)((nc + 63) / 64);
	/* a placement changes two values per clique it spans, and those of its neighbours; both
	 * estimates are generous, and a run that needs more is given up like one that takes too long */
	for (size_t i = 0; i < n; i++) spans += p->hi[i] - p->lo[i];
	s->max_undo = 8 * spans + 256 * n;
	for (s->n_seen = 1024; s->n_seen < SEEN_MAX && s->n_seen < 256 * n;) s->n_seen *= 2;
	s->max_frames = (uint32_t)(4 * n + 64);
	s->max_parts = (uint32_t)(4 * n + nc + 64);
	s->max_choices = (uint32_t)(n * ((n < 512 ? n : 512) + 2));
	ok = (s->low = cx_arena_array(ar, n, 8)) && (s->open = cx_arena_array(ar, s->n_words, 8)) &&
		 (s->overlap = cx_arena_array(ar, n * s->n_words, 8)) &&
		 (s->o_lo = cx_arena_array(ar, n, 4)) && (s->o_hi = cx_arena_array(ar, n, 4)) &&
		 (s->m_lo = cx_arena_array(ar, nc, 4)) && (s->m_hi = cx_arena_array(ar, nc, 4)) &&
		 (s->code = cx_arena_array(ar, n, 8)) && (s->key = cx_arena_array(ar, n, 8)) &&
		 (s->ground = cx_arena_array(ar, nc, 8)) && (s->top = cx_arena_array(ar, nc, 8)) &&
		 (s->slack = cx_arena_array(ar, nc, 8)) && (s->n_open = cx_arena_array(ar, nc, 4)) &&
		 (s->n_cross = cx_arena_array(ar, nc, 4)) &&
		 (s->members = cx_arena_array(ar, nc * s->n_words, 8)) &&
		 (s->dirty = cx_arena_array(ar, s->n_cwords, 8)) &&
		 (s->c_code = cx_arena_array(ar, nc, 8)) && (s->placed = cx_arena_array(ar, n, 4)) &&
		 (s->undos = cx_arena_array(ar, s->max_undo, sizeof *s->undos)) &&
		 (s->parts = cx_arena_array(ar, s->max_parts, sizeof *s->parts)) &&
		 (s->frames = cx_arena_array(ar, s->max_frames, sizeof *s->frames)) &&
		 (s->choices = cx_arena_array(ar, s->max_choices, 4)) &&
		 (s->at = cx_arena_array(ar, n + nc, 8)) && (s->len = cx_arena_array(ar, n + nc, 8)) &&
		 (s->valley = cx_arena_array(ar, nc + 1, 4)) &&
		 (s->n_start = cx_arena_array(ar, nc + 1, 4)) &&
		 (s->seen = cx_arena_array(ar, s->n_seen, 8)) && (tmp = cx_arena_array(ar, n, sizeof *tmp));
	for (int k = 0; ok && k < N_BASES; k++) ok = (s->base[k] = cx_arena_array(ar, n, 8)) != NULL;
	for (int k = 0; ok && k < N_RULES; k++) ok = (s->blame[k] = cx_arena_array(ar, n, 8)) != NULL;
	if (!ok) goto no_memory;
	for (int k = 0; k < N_BASES; k++) rank(p, orders[k], tmp, s->base[k]);
	fill_bits(s);
	*out = s;
	return CX_OK;
no_memory:
	return CX_FAIL(err, CX_ERR_MEMORY, "pack: no memory to search among %u buffers", p->n);
}
