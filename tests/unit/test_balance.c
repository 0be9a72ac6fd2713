/* Who is asked: standing, breaker, each strategy over its roster, cookies; and
 * how long idle connections live. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "unit.h"

enum { INSTANCES = 8, MANY = 1000, DRAWS = 20000 };

static struct arena arena;
static struct conf conf_one; /* of one upstream */
static struct upstream *up;
static struct instance *ins; /* its instances */

/* A fresh upstream of that strategy; weights NULL: all 1. */
static void
upstream_make(const char *strategy, int n, const unsigned *weights)
{
	up = arena_alloc(&arena, sizeof *up);
	ins = arena_alloc(&arena, (size_t)MAX(n, 1) * sizeof *ins);
	*up = (struct upstream){ .name = "u", .instances = ins, .n_instances = n,
		.balance = balance_find(slice_of(strategy)), .max_fails = 3, .fail_ms = 1000,
		.sticky_cookie = { S("c"), NULL, 0 }, .keepalive_ms = 60000 };
	conf_one.upstreams = up;
	conf_one.n_upstreams = 1;
	for (int i = 0; i < n; i++)
		ins[i] = (struct instance){ .up = up, .weight = weights ? weights[i] : 1,
			.replica = -1,
			.addr = { .kind = ADDR_NAME, .text = arena_fmt(&arena, "10.0.0.%d:80", i) } };
	memset(board->instances, 0, sizeof board->instances);
	assert_int_equal(board_attach(&conf_one), 0);
	for (int i = 0; i < n; i++)
		ins[i].board->addrs.n = 1;
	now_ms = 100000;
	log_level = LOG_LVL_ERROR;
	random_state[0] = 1;
	random_state[1] = 2;
}

static void
roster_free(void)
{
	struct roster *r = up->roster;

	free(r->ready);
	free(r->weight);
	free(r->turns);
	free(r->ring);
	free(r);
	up->roster = NULL;
}

/* upstream_make, and its roster; to be freed with roster_free. */
static void
upstream_of(const char *strategy, int n, const unsigned *weights)
{
	upstream_make(strategy, n, weights);
	rosters_open(&conf_one);
}

static const struct instance *
pick(uint64_t tried, uint64_t key)
{
	struct pick p = { tried, key, NULL };

	return balance_pick(up, &p);
}

/* Letters of who is picked, n times. */
static const char *
picks(int n, uint64_t tried)
{
	static char b[128];

	for (int i = 0; i < n; i++) {
		const struct instance *in = pick(tried, 0);
		b[i] = in ? (char)('a' + (in - ins)) : '-';
	}
	b[n] = '\0';
	return b;
}

static void
fails(int i, int times)
{
	while (times-- > 0)
		instance_failed(&ins[i]);
}

/* How often each is picked in n draws with keys 1..n. */
static void
count(int n, unsigned seen[INSTANCES])
{
	memset(seen, 0, INSTANCES * sizeof *seen);
	for (int k = 1; k <= n; k++)
		seen[pick(0, (uint64_t)k) - ins]++;
}

/* ---- standing ---- */

static void
test_standing(void **state)
{
	/* clang-format off */
	static const struct {
		unsigned addrs;
		enum run run;
		bool drained;
		enum health health;
		bool checks, process;
		int n, open_ms;
		enum standing want;
		const char *words, *reason;
	} rows[] = {
		{ 1, RUN_NONE, 0, 0, 0, 0, 2, 0, STAND_UP, "", "nothing against it" },
		{ 0, RUN_NONE, 0, 0, 0, 0, 2, 0, STAND_UNRESOLVED, "its name does not resolve", "no address" },
		{ 0, RUN_NONE, 1, 0, 0, 0, 2, 0, STAND_UNRESOLVED, "its name does not resolve", "before drained" },
		{ 0, RUN_OFF, 0, 0, 0, 1, 2, 0, STAND_OFF, "its process does not run", "before the address" },
		{ 0, RUN_STARTING, 0, 0, 0, 1, 2, 0, STAND_STARTING, "its process is starting", "before the address" },
		{ 1, RUN_OFF, 1, 0, 0, 1, 2, 0, STAND_DRAINED, "drained by the operator", "before the process" },
		{ 1, RUN_OFF, 0, 0, 0, 1, 2, 0, STAND_OFF, "its process does not run", "off" },
		{ 1, RUN_STARTING, 0, HEALTH_DOWN, 1, 1, 2, 0, STAND_STARTING, "its process is starting", "before health" },
		{ 1, RUN_DRAINING, 0, 0, 0, 1, 2, 0, STAND_DRAINING, "its process is to be stopped", "draining" },
		{ 1, RUN_UP, 0, HEALTH_UP, 1, 1, 2, 0, STAND_UP, "", "process and checks are good" },
		{ 1, RUN_UP, 0, HEALTH_UNKNOWN, 1, 1, 2, 0, STAND_CHECKING, "not checked yet", "a process, not checked" },
		{ 1, RUN_UP, 0, HEALTH_UNKNOWN, 0, 1, 2, 0, STAND_UP, "", "a process without checks" },
		{ 1, RUN_NONE, 0, HEALTH_UNKNOWN, 1, 0, 2, 0, STAND_UP, "", "up until proven down" },
		{ 1, RUN_NONE, 0, HEALTH_DOWN, 1, 0, 2, 500, STAND_UNHEALTHY, "connect refused, 3 of 3, 12 s ago", "before the breaker" },
		{ 1, RUN_NONE, 0, HEALTH_DOWN, 1, 0, 1, 0, STAND_UNHEALTHY, "connect refused, 3 of 3, 12 s ago", "the only one as well" },
		{ 1, RUN_NONE, 0, HEALTH_DOWN, 0, 0, 2, 0, STAND_UP, "", "what checks said that are no more" },
		{ 1, RUN_NONE, 0, HEALTH_UP, 1, 0, 2, 500, STAND_FAILING, "3 failures, tried again in 1 s", "open" },
		{ 1, RUN_NONE, 0, 0, 0, 0, 2, 6001, STAND_FAILING, "3 failures, tried again in 7 s", "seconds round up" },
		{ 1, RUN_NONE, 0, 0, 0, 0, 2, -1, STAND_TRIAL, "3 failures, the next request decides", "half-open" },
		{ 1, RUN_NONE, 0, 0, 0, 0, 1, 500, STAND_UP, "", "the only one is never shut out" },
	};
	/* clang-format on */
	struct process process = { .name = "p" };

	(void)state;
	for (size_t i = 0; i < LEN(rows); i++) {
		char b[WHY_MAX];
		struct text why = { b, 0, sizeof b, false };
		struct board_instance *bi;

		upstream_make("round_robin", rows[i].n, NULL);
		up->fail_ms = 7000;
		up->health = (struct health_conf){ .on = rows[i].checks, .unhealthy = 3, .healthy = 2 };
		up->process = rows[i].process ? &process : NULL;
		bi = ins[0].board;
		bi->addrs.n = rows[i].addrs;
		bi->run = rows[i].run;
		bi->drained = rows[i].drained;
		bi->health = rows[i].health;
		bi->fails = 3;
		bi->open_until_ms = rows[i].open_ms ? now_ms + rows[i].open_ms : 0;
		if (rows[i].health == HEALTH_DOWN) {
			bi->check_fails = 57;
			bi->checked_ms = now_ms - 12999;
			board_text_set(&bi->check_why, S("connect refused"));
		}
		row_int(rows[i].reason, S(""), "standing", instance_standing(&ins[0]), rows[i].want);
		instance_why(&ins[0], &why);
		row_slice(rows[i].reason, S(""), "why", text_slice(&why), slice_of(rows[i].words));
	}
	for (size_t i = 0; i < STANDINGS; i++)
		assert_non_null(standing_names[i]);
	rows_end();
}

/* On its way back up, it says how far. */
static void
test_why_passes(void **state)
{
	char b[WHY_MAX];
	struct text why = { b, 0, sizeof b, false };

	(void)state;
	upstream_make("round_robin", 2, NULL);
	up->health = (struct health_conf){ .on = true, .unhealthy = 3, .healthy = 2 };
	ins[0].board->health = HEALTH_DOWN;
	ins[0].board->check_passes = 1;
	ins[0].board->checked_ms = now_ms - 3000;
	instance_why(&ins[0], &why);
	assert_true(slice_eq(text_slice(&why), S("passed 1 of 2, 3 s ago")));
}

/* ---- the breaker ---- */

static void
test_breaker(void **state)
{
	struct board_instance *a;

	(void)state;
	upstream_of("round_robin", 2, NULL);
	a = ins[0].board;
	fails(0, 2);
	assert_int_equal(a->open_until_ms, 0);
	assert_string_equal(picks(2, 0), "ab");
	fails(0, 1); /* the third opens it */
	assert_int_equal(a->open_until_ms, now_ms + 1000);
	assert_int_equal(wide_get(&a->failures), 3);
	assert_string_equal(picks(4, 0), "bbbb");
	now_ms += 999;
	assert_string_equal(picks(2, 0), "bb");
	now_ms += 1; /* half-open: one trial */
	assert_non_null(strchr(picks(2, 0), 'a'));
	assert_string_equal(picks(3, 0), "bbb");
	fails(0, 1); /* which failed */
	assert_int_equal(a->open_until_ms, now_ms + 1000);
	now_ms += 1000;
	assert_non_null(strchr(picks(2, 0), 'a'));
	instance_worked(&ins[0]); /* and this one did not */
	assert_int_equal(a->open_until_ms, 0);
	assert_int_equal(a->fails, 0);
	assert_int_equal(a->up_since_ms, now_ms);
	assert_non_null(strchr(picks(2, 0), 'a'));
	fails(0, 1); /* counted anew */
	assert_int_equal(a->open_until_ms, 0);
	roster_free();
}

/* Failures further apart than fail_ms do not add up; those within it do, whatever
 * worked in between. */
static void
test_breaker_window(void **state)
{
	(void)state;
	upstream_make("round_robin", 2, NULL);
	for (int i = 0; i < 9; i++, now_ms += 1001)
		fails(0, 1);
	assert_int_equal(ins[0].board->open_until_ms, 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(ins[1].board->open_until_ms, 0);
		instance_worked(&ins[1]);
		fails(1, 1);
	}
	assert_int_equal(ins[1].board->open_until_ms, now_ms + 1000);
	upstream_make("round_robin", 2, NULL);
	up->max_fails = 0; /* off */
	fails(0, 9);
	assert_int_equal(ins[0].board->open_until_ms, 0);
	assert_int_equal(wide_get(&ins[0].board->failures), 9);
}

/* Whoever changes a standing says so; whoever does not, does not. */
static void
test_breaker_epoch(void **state)
{
	unsigned epoch;

	(void)state;
	upstream_of("round_robin", 2, NULL);
	epoch = board->epoch;
	fails(0, 2);
	instance_worked(&ins[0]);
	assert_int_equal(board->epoch, epoch);
	fails(0, 3);
	assert_int_equal(board->epoch, epoch + 1);
	fails(0, 1); /* open already */
	assert_int_equal(board->epoch, epoch + 1);
	instance_worked(&ins[0]);
	assert_int_equal(board->epoch, epoch + 2);
	roster_free();
	upstream_of("round_robin", 1, NULL);
	epoch = board->epoch;
	fails(0, 9);
	assert_int_equal(board->epoch, epoch);
	roster_free();
}

/* The only instance is always asked; when all are open, the one that failed
 * longest ago; but none that is down for another reason. */
static void
test_last_resort(void **state)
{
	(void)state;
	upstream_of("round_robin", 1, NULL);
	fails(0, 5);
	assert_string_equal(picks(3, 0), "aaa");
	roster_free();
	upstream_of("random", 4, NULL);
	up->max_fails = 1;
	fails(1, 1);
	now_ms++;
	fails(2, 1);
	now_ms++;
	fails(3, 1);
	fails(0, 1);
	up->health.on = true;
	ins[3].board->health = HEALTH_DOWN;
	board_changed();
	assert_string_equal(picks(1, 2), "c");
	assert_string_equal(picks(1, 6), "a");
	assert_string_equal(picks(1, 7), "-");
	now_ms++;
	assert_string_equal(picks(1, 0), "b");
	assert_int_equal(ins[1].board->open_until_ms, now_ms + 1000); /* a claim */
	assert_string_equal(picks(1, 1 | 4), "b");
	ins[1].board->drained = true;
	board_changed();
	assert_string_equal(picks(1, 1 | 4), "-");
	roster_free();
}

/* A second worker has a roster of its own, over the same board. */
static void
test_trial_is_one(void **state)
{
	struct upstream *up1, *up2;
	struct instance *ins1, *ins2;
	int trials = 0;

	(void)state;
	upstream_of("round_robin", 3, NULL);
	up1 = up;
	ins1 = ins;
	up = up2 = arena_alloc(&arena, sizeof *up2);
	ins = ins2 = arena_alloc(&arena, 3 * sizeof *ins2);
	*up2 = *up1;
	memcpy(ins2, ins1, 3 * sizeof *ins2);
	up2->instances = ins2;
	for (int i = 0; i < 3; i++)
		ins2[i].up = up2;
	rosters_open(&(struct conf){ .upstreams = up2, .n_upstreams = 1 });
	fails(0, 3);
	now_ms += 1000;
	for (int i = 0; i < 12; i++) {
		up = i % 2 ? up1 : up2;
		ins = i % 2 ? ins1 : ins2;
		roster_refresh(up);
		trials += pick(0, 0) == &ins[0];
	}
	assert_int_equal(trials, 1);
	now_ms += 1000; /* no outcome: another one */
	up = up1;
	ins = ins1;
	assert_non_null(strchr(picks(3, 0), 'a'));
	roster_free();
	up = up2;
	roster_free();
}

/* Two that both saw a trial: one gets it. */
static void
test_claim(void **state)
{
	(void)state;
	upstream_make("round_robin", 2, NULL);
	assert_true(instance_claim(&ins[0])); /* closed: for everybody */
	assert_true(instance_claim(&ins[0]));
	fails(0, 3);
	assert_false(instance_claim(&ins[0])); /* open */
	now_ms += 1000;
	assert_int_equal(instance_standing(&ins[0]), STAND_TRIAL);
	assert_true(instance_claim(&ins[0]));
	assert_int_equal(ins[0].board->open_until_ms, now_ms + 1000);
	assert_false(instance_claim(&ins[0]));
	instance_worked(&ins[0]);
	assert_true(instance_claim(&ins[0]));
	upstream_make("round_robin", 1, NULL);
	fails(0, 3);
	assert_true(instance_claim(&ins[0]));
}

/* ---- the roster ---- */

/* It looks again when told to, and when a breaker's time has come. */
static void
test_refresh(void **state)
{
	(void)state;
	upstream_of("round_robin", 3, NULL);
	assert_string_equal(picks(3, 0), "abc");
	ins[1].board->drained = true;
	assert_string_equal(picks(3, 0), "abc"); /* nobody said anything */
	board_changed();
	assert_string_equal(picks(4, 0), "acac");
	assert_int_equal(up->roster->until_ms, 0);
	fails(2, 3);
	assert_string_equal(picks(2, 0), "aa");
	assert_int_equal(up->roster->until_ms, ins[2].board->open_until_ms);
	roster_free();
	upstream_of("round_robin", 0, NULL);
	assert_string_equal(picks(2, 0), "--");
	roster_free();
}

/* Turns go on in the order of the file, however often the roster is made. */
static void
test_resume(void **state)
{
	unsigned seen[INSTANCES] = { 0 };

	(void)state;
	upstream_of("round_robin", 5, NULL);
	for (int i = 0; i < 25; i++) {
		assert_ptr_equal(pick(0, 0), &ins[i % 5]);
		board_changed();
	}
	assert_string_equal(picks(2, 0), "ab");
	ins[2].board->drained = true; /* it was due: the next one is */
	board_changed();
	assert_string_equal(picks(1, 0), "d");
	ins[0].board->drained = ins[1].board->drained = true;
	board_changed();
	assert_string_equal(picks(2, 0), "ed"); /* d and e alone are left */
	ins[0].board->drained = ins[1].board->drained = ins[2].board->drained = false;
	board_changed();
	assert_string_equal(picks(3, 0), "eab");
	roster_free();
	upstream_of("round_robin", 3, (const unsigned[]){ 5, 1, 1 });
	for (int i = 0; i < 70; i++) {
		seen[pick(0, 0) - ins]++;
		board_changed();
	}
	assert_int_equal(seen[0], 50);
	assert_int_equal(seen[1], 10);
	roster_free();
}

static void
test_backup(void **state)
{
	(void)state;
	upstream_of("round_robin", 4, NULL);
	ins[2].backup = ins[3].backup = true;
	assert_string_equal(picks(4, 0), "abab");
	ins[0].max_connections = ins[1].max_connections = 1;
	ins[0].board->in_flight = ins[1].board->in_flight = 1;
	assert_string_equal(picks(2, 0), "--"); /* full is not down */
	assert_string_equal(picks(2, 1), "--");
	assert_string_equal(picks(2, 3), "cc"); /* this request has been to all of them */
	ins[2].board->in_flight = 1;
	assert_string_equal(picks(2, 3), "dd");
	assert_string_equal(picks(2, 11), "cc");
	assert_string_equal(picks(2, 15), "--");
	ins[0].board->drained = true;
	fails(1, 3);
	assert_string_equal(picks(4, 0), "cdcd");
	instance_worked(&ins[1]);
	ins[1].board->in_flight = 0;
	assert_string_equal(picks(2, 0), "bb");
	roster_free();
}

/* Share of the instance that came back, at parts of slow_start. */
static void
test_slow_start(void **state)
{
	static const struct {
		int ms, share; /* of 100 for each of the two others */
	} rows[] = { { 0, 1 }, { 5, 1 }, { 100, 10 }, { 500, 50 }, { 990, 99 }, { 1000, 100 } };

	(void)state;
	for (size_t k = 0; k < LEN(rows); k++) {
		unsigned seen[INSTANCES] = { 0 };
		int round = 200 + rows[k].share;

		upstream_of("round_robin", 3, NULL);
		up->slow_start_ms = 1000;
		free(up->roster->ring);
		up->roster->ring = calloc(roster_ring_max(up), sizeof *up->roster->ring);
		ins[1].board->up_since_ms = now_ms - rows[k].ms;
		for (int i = 0; i < 10 * round; i++)
			seen[pick(0, 0) - ins]++;
		row_int("slow start", S(""), "its share", seen[1], 10 * rows[k].share);
		row_int("slow start", S(""), "share of another", seen[0], 1000);
		row_int("slow start", S(""), "looks again", up->roster->until_ms,
		    rows[k].ms < 1000 ? now_ms + SLOW_START_MS : 0);
		roster_free();
	}
	rows_end();
}

/* It gets there by itself, step by step. */
static void
test_slow_start_ends(void **state)
{
	unsigned seen[INSTANCES];

	(void)state;
	upstream_make("random", 2, NULL);
	up->slow_start_ms = 1000;
	rosters_open(&conf_one);
	ins[0].board->up_since_ms = now_ms;
	count(2000, seen);
	assert_in_range(seen[0], 1, 60);
	now_ms += 500;
	count(3000, seen);
	assert_in_range(seen[0], 880, 1120);
	now_ms += 500;
	count(2000, seen);
	assert_in_range(seen[0], 900, 1100);
	assert_true(up->roster->even);
	roster_free();
}

/* ---- turns ---- */

static void
test_round_robin(void **state)
{
	(void)state;
	assert_string_equal(balances[0].name, "round_robin");
	upstream_of("round_robin", 3, NULL);
	assert_string_equal(picks(7, 0), "abcabca");
	roster_free();
	upstream_of("round_robin", 3, (const unsigned[]){ 5, 1, 1 });
	assert_string_equal(picks(14, 0), "aabacaaaabacaa"); /* as nginx does it */
	roster_free();
	upstream_of("round_robin", 2, (const unsigned[]){ 100, 300 });
	assert_string_equal(picks(8, 0), "babbbabb");
	assert_int_equal(up->roster->n_ring, 4);
	roster_free();
	upstream_of("round_robin", 1, NULL);
	assert_string_equal(picks(3, 0), "aaa");
	assert_string_equal(picks(2, 1), "--");
	roster_free();
}

/* In any run of `total` picks each has its weight. */
static void
test_weights_exact(void **state)
{
	enum { N = 4 };

	(void)state;
	for (int round = 0; round < 200; round++) {
		unsigned w[N], total = 0, seen[INSTANCES];

		for (int i = 0; i < N; i++)
			total += w[i] = 1 + dice(9);
		upstream_of("round_robin", N, w);
		count((int)(3 * total), seen);
		for (int i = 0; i < N; i++)
			assert_int_equal(seen[i], 3 * w[i]);
		roster_free();
	}
}

/* Weights that no round has room for are scaled; each keeps a turn. */
static void
test_ring_is_bounded(void **state)
{
	unsigned w[MANY], turns[MANY] = { 0 }, all = 0;

	(void)state;
	upstream_of("round_robin", 2, (const unsigned[]){ 65535, 1 });
	pick(0, 0);
	assert_in_range(up->roster->n_ring, RING_MAX, RING_MAX + 1);
	roster_free();
	for (int i = 0; i < MANY; i++)
		all += w[i] = i == 7 ? 65535 : i == 8 ? 32768 : 1 + dice(50);
	upstream_of("round_robin", MANY, w);
	pick(0, 0);
	assert_in_range(up->roster->n_ring, MANY, (int)roster_ring_max(up));
	for (int i = 0; i < up->roster->n_ring; i++)
		turns[up->roster->ring[i]]++;
	for (int i = 0; i < MANY; i++)
		assert_in_range(turns[i], 1, MAX(w[i] * RING_MAX / all, 1));
	assert_in_range(turns[7], 2 * turns[8], 2 * turns[8] + 1);
	roster_free();
}

static void
test_tried(void **state)
{
	(void)state;
	upstream_of("round_robin", 3, NULL);
	assert_string_equal(picks(4, 1), "bcbc");
	assert_string_equal(picks(2, 5), "bb");
	assert_string_equal(picks(2, 7), "--");
	ins[1].board->addrs.n = 0; /* not resolved any more */
	board_changed();
	assert_string_equal(picks(4, 0), "caca");
	roster_free();
}

/* No strategy gives out what is tried, full, or not up. */
static void
test_excluded(void **state)
{
	(void)state;
	for (size_t k = 0; k < LEN(balances); k++) {
		upstream_of(balances[k].name, 6, (const unsigned[]){ 1, 2, 3, 4, 5, 6 });
		ins[1].max_connections = 2;
		ins[1].board->in_flight = 2;
		ins[2].board->drained = true;
		ins[3].backup = true;
		for (int i = 0; i < 1000; i++) {
			const struct instance *in = pick(1, (uint64_t)i);
			if (in != &ins[4] && in != &ins[5]) {
				row_bad(balances[k].name, S(""), "gave %d", (int)(in ? in - ins : -1));
				break;
			}
		}
		ins[1].board->in_flight = 1;
		row_int(balances[k].name, S(""), "who is left", pick(1 | 16 | 32, 0) - ins, 1);
		ins[1].board->in_flight = 2;
		row_int(balances[k].name, S(""), "is none", !pick(1 | 16 | 32, 0), true);
		roster_free();
	}
	rows_end();
}

/* ---- shares ---- */

/* Expected share in thousandths, within five standard deviations; those of
 * turns are exact. */
static void
test_shares(void **state)
{
	static const struct {
		const char *strategy;
		unsigned weights[3];
		int want[3];
		bool exact;
	} rows[] = {
		{ "round_robin", { 1, 1, 1 }, { 333, 333, 333 }, false },
		{ "round_robin", { 3, 1, 1 }, { 600, 200, 200 }, true },
		{ "weighted", { 3, 1, 1 }, { 600, 200, 200 }, false },
		{ "weighted", { 1, 1, 1 }, { 333, 333, 333 }, false },
		{ "random", { 3, 1, 1 }, { 600, 200, 200 }, false },
		{ "random", { 1, 1, 1 }, { 333, 333, 333 }, false },
		{ "random_two", { 1, 1, 1 }, { 333, 333, 333 }, false },
		{ "random_two", { 3, 1, 1 }, { 600, 200, 200 }, false },
		{ "least_conn", { 3, 1, 1 }, { 600, 200, 200 }, true },
		{ "least_time", { 3, 1, 1 }, { 600, 200, 200 }, true },
		{ "ip_hash", { 1, 1, 1 }, { 333, 333, 333 }, false },
		{ "ip_hash", { 3, 1, 1 }, { 600, 200, 200 }, false },
		{ "uri_hash", { 3, 1, 1 }, { 600, 200, 200 }, false },
		{ "header_hash", { 2, 2, 1 }, { 400, 400, 200 }, false },
		{ "cookie", { 3, 1, 1 }, { 600, 200, 200 }, true },
		{ "first", { 1, 3, 1 }, { 1000, 0, 0 }, true },
	};

	(void)state;
	for (size_t k = 0; k < LEN(rows); k++) {
		unsigned seen[INSTANCES];

		upstream_of(rows[k].strategy, 3, rows[k].weights);
		count(DRAWS, seen);
		for (int i = 0; i < 3; i++) {
			long off = labs((long)seen[i] * 1000 - (long)rows[k].want[i] * DRAWS);
			/* 5 sqrt(p (1 - p) n), p = 1/2 at most; and the thousandths cut off */
			if (off > (rows[k].exact ? 0 : 354 * 1000 + DRAWS))
				row_bad(rows[k].strategy, S(""), "%c was picked %u of %d times",
				    'a' + i, seen[i], DRAWS);
		}
		roster_free();
	}
	rows_end();
}

/* ---- the least ---- */

static void
test_least_conn(void **state)
{
	(void)state;
	upstream_of("least_connections", 3, NULL);
	assert_string_equal(up->balance->name, "least_conn");
	assert_string_equal(picks(4, 0), "abca"); /* all idle: turns */
	ins[0].board->in_flight = 3;
	ins[1].board->in_flight = 2;
	ins[2].board->in_flight = 4;
	assert_string_equal(picks(2, 0), "bb");
	ins[2].board->in_flight = 2;
	assert_string_equal(picks(4, 0), "bcbc"); /* ties: turns */
	assert_string_equal(picks(2, 2), "cc");
	roster_free();
	upstream_of("least_conn", 2, (const unsigned[]){ 3, 1 });
	ins[0].board->in_flight = 2;
	ins[1].board->in_flight = 1;
	assert_string_equal(picks(2, 0), "aa"); /* 2/3 < 1/1 */
	ins[0].board->in_flight = 4;
	assert_string_equal(picks(2, 0), "bb");
	roster_free();
}

/* Requests that stay: numbers rise together, by weight. */
static void
test_least_conn_fills(void **state)
{
	(void)state;
	upstream_of("least_conn", 3, (const unsigned[]){ 1, 2, 3 });
	for (int i = 0; i < 60; i++)
		pick(0, 0)->board->in_flight++;
	assert_int_equal(ins[0].board->in_flight, 10);
	assert_int_equal(ins[1].board->in_flight, 20);
	assert_int_equal(ins[2].board->in_flight, 30);
	roster_free();
}

static void
test_random_two(void **state)
{
	unsigned seen[INSTANCES];

	(void)state;
	upstream_of("random_two", 2, NULL);
	ins[0].board->in_flight = 1;
	assert_string_equal(picks(8, 0), "bbbbbbbb"); /* both are looked at */
	roster_free();
	upstream_of("random_two", 3, NULL);
	ins[0].board->in_flight = 2;
	ins[1].board->in_flight = 1;
	count(DRAWS, seen);
	assert_int_equal(seen[0], 0); /* never better than the other */
	assert_in_range(seen[1], DRAWS / 3 - 354, DRAWS / 3 + 354); /* beats a alone */
	roster_free();
}

static void
test_least_time(void **state)
{
	(void)state;
	upstream_of("least_time", 3, NULL);
	ins[0].board->average_us = 3000;
	ins[1].board->average_us = 2000;
	assert_string_equal(picks(2, 0), "cc"); /* never asked: goes first */
	ins[2].board->in_flight = 1; /* but not with a crowd */
	assert_string_equal(picks(2, 0), "bb");
	ins[2].board->average_us = 9000;
	ins[1].board->in_flight = 1;
	assert_string_equal(picks(2, 0), "aa"); /* 3000 < 2 x 2000 */
	ins[0].board->in_flight = 1;
	assert_string_equal(picks(2, 0), "bb");
	ins[0].board->in_flight = ins[1].board->in_flight = ins[2].board->in_flight = 0;
	ins[0].board->used_ms = ins[1].board->used_ms = now_ms;
	ins[2].board->used_ms = now_ms - 2 * TIME_HALVES_MS;
	assert_string_equal(picks(2, 0), "bb"); /* 9000 / 4 */
	ins[2].board->used_ms = now_ms - 3 * TIME_HALVES_MS;
	assert_string_equal(picks(2, 0), "cc"); /* time for another look */
	ins[2].board->used_ms = 1;
	assert_string_equal(picks(2, 0), "cc");
	roster_free();
}

static void
test_average(void **state)
{
	const struct instance *in;

	(void)state;
	upstream_make("least_time", 1, NULL);
	in = &ins[0];
	instance_timed(in, 8000);
	assert_int_equal(in->board->average_us, 8000);
	instance_timed(in, 16000);
	assert_int_equal(in->board->average_us, 9000);
	instance_timed(in, 1000);
	assert_int_equal(in->board->average_us, 8000);
	for (int i = 0; i < 200; i++)
		instance_timed(in, 100);
	assert_in_range(in->board->average_us, 100, 107);
	instance_timed(in, INT64_MAX);
	assert_in_range(in->board->average_us, 1, INT32_MAX);
	in->board->average_us = 0;
	instance_timed(in, 0);
	assert_int_equal(in->board->average_us, 1); /* 0 means none */
}

static void
test_first(void **state)
{
	(void)state;
	upstream_of("first", 3, NULL);
	ins[0].max_connections = 1;
	assert_string_equal(picks(3, 0), "aaa");
	ins[0].board->in_flight = 1;
	assert_string_equal(picks(3, 0), "bbb");
	fails(1, 3);
	assert_string_equal(picks(3, 0), "ccc");
	ins[0].board->in_flight = 0;
	assert_string_equal(picks(3, 0), "aaa");
	roster_free();
}

/* ---- by a key ---- */

static void
test_ln(void **state)
{
	static const struct {
		double x, ln;
	} rows[] = { { 0.5, -0.693147181 }, { 0.999999, -1.0000005e-6 }, { 0.1, -2.302585093 },
		{ 0.7071, -0.346583182 }, { 1e-9, -20.72326584 }, { 0.3, -1.203972804 } };

	(void)state;
	for (size_t i = 0; i < LEN(rows); i++) {
		double off = ln(rows[i].x) / rows[i].ln - 1;
		if (off > 1e-7 || off < -1e-7)
			row_bad("ln", S(""), "of %g is %.9g, expected %.9g", rows[i].x, ln(rows[i].x),
			    rows[i].ln);
	}
	rows_end();
}

/* When one leaves, its clients alone move; when it is back, they do, and
 * nobody else. A heavier one only wins clients. */
static void
test_rendezvous(void **state)
{
	static const unsigned weights[][INSTANCES] = { { 1, 1, 1, 1, 1 }, { 3, 1, 2, 1, 7 } };
	static const struct instance *was[DRAWS];
	enum { N = 5 };

	(void)state;
	for (size_t k = 0; k < LEN(weights); k++) {
		upstream_of("header_hash", N, weights[k]);
		for (int i = 0; i < DRAWS; i++)
			was[i] = pick(0, (uint64_t)i);
		for (int gone = 0; gone < N; gone++) {
			int moved = 0, wrong = 0, to[N] = { 0 };

			ins[gone].board->drained = true;
			board_changed();
			for (int i = 0; i < DRAWS; i++) {
				const struct instance *now = pick(0, (uint64_t)i);
				wrong += was[i] != &ins[gone] && now != was[i];
				moved += now != was[i];
				to[now - ins] += now != was[i];
			}
			row_int("others move", S(""), "keys", wrong, 0);
			row_int("its own move", S(""), "keys", moved > DRAWS / 20, true);
			for (int i = 0; i < N; i++) /* to all others */
				row_int("nobody gets them", S(""), "keys", to[i] > 0, i != gone);
			ins[gone].board->drained = false;
		}
		board_changed();
		ins[0].weight *= 2;
		for (int i = 0; i < DRAWS; i++) {
			const struct instance *now = pick(0, (uint64_t)i);
			if (now != was[i] && now != &ins[0])
				row_bad("a heavier one", S(""), "made %d move elsewhere", i);
		}
		roster_free();
	}
	rows_end();
}

/* A request that failed goes where its key would go without that instance. */
static void
test_hash_retry(void **state)
{
	(void)state;
	upstream_of("ip_hash", 5, NULL);
	for (uint64_t key = 0; key < 200; key++) {
		const struct instance *a = pick(0, key), *b = pick(UINT64_C(1) << (a - ins), key);
		struct board_instance *bi = a->board;

		assert_ptr_not_equal(a, b);
		bi->drained = true;
		board_changed();
		assert_ptr_equal(pick(0, key), b);
		bi->drained = false;
		board_changed();
	}
	roster_free();
}

/* Addresses decide, not places: another order or another upstream is the same. */
static void
test_hash_is_of_address(void **state)
{
	const char *was[100];

	(void)state;
	upstream_of("uri_hash", 4, NULL);
	for (int k = 0; k < 100; k++)
		was[k] = pick(0, (uint64_t)k)->addr.text;
	roster_free();
	upstream_make("uri_hash", 4, NULL);
	up->name = "other";
	for (int i = 0; i < 4; i++)
		ins[i].addr.text = arena_fmt(&arena, "10.0.0.%d:80", 3 - i);
	rosters_open(&conf_one);
	for (int k = 0; k < 100; k++)
		assert_string_equal(pick(0, (uint64_t)k)->addr.text, was[k]);
	roster_free();
}

/* An address twice: a record, a hash and a cookie each; kept over a reload. */
static void
test_twins(void **state)
{
	struct board_instance *was[3];

	(void)state;
	upstream_make("uri_hash", 3, NULL);
	ins[1].addr.text = ins[2].addr.text = ins[0].addr.text;
	assert_int_equal(board_attach(&conf_one), 0);
	assert_string_equal(ins[0].board->key, "u 10.0.0.0:80");
	assert_string_equal(ins[1].board->key, "u 10.0.0.0:80 2");
	assert_string_equal(ins[2].board->key, "u 10.0.0.0:80 3");
	for (int i = 0; i < 3; i++)
		was[i] = ins[i].board;
	assert_int_equal(board_attach(&conf_one), 0);
	for (int i = 0; i < 3; i++)
		assert_ptr_equal(ins[i].board, was[i]);
	rosters_open(&conf_one);
	assert_true(ins[0].hash != ins[1].hash && ins[1].hash != ins[2].hash &&
	    ins[0].hash != ins[2].hash);
	roster_free();
}

/* ---- cookies ---- */

static void
test_cookie_find(void **state)
{
	/* clang-format off */
	static const struct {
		struct slice in;
		const char *want, *why; /* want NULL: not there */
	} rows[] = {
		{ T("c=1"), "1", "alone" },
		{ T("a=0; c=1; b=2"), "1", "between others" },
		{ T("a=0;c=1"), "1", "no blank" },
		{ T("a=0;  c = 1 "), "1", "blanks" },
		{ T("c=\"1\""), "1", "quotes" },
		{ T("c=\""), "\"", "one quote" },
		{ T("c="), "", "empty" },
		{ T("c=a=b"), "a=b", "the first = divides" },
		{ T("c=1; c=2"), "1", "the first counts" },
		{ T("cc=1"), NULL, "a longer name" },
		{ T("C=1"), NULL, "case counts" },
		{ T("b=c=1"), NULL, "a value is no name" },
		{ T("c"), NULL, "no =" },
		{ T(";;=; =1"), NULL, "rubbish" },
		{ T(""), NULL, "nothing" },
	};
	/* clang-format on */

	(void)state;
	for (size_t i = 0; i < LEN(rows); i++)
		for (size_t n = 0; n <= rows[i].in.n; n++) {
			struct slice in = exact((struct slice){ rows[i].in.p, n }), value;
			bool found = cookie_find(in, S("c"), &value);

			if (n == rows[i].in.n) {
				row_int(rows[i].why, in, "cookie_find", found, rows[i].want != NULL);
				if (found && rows[i].want)
					row_slice(rows[i].why, in, "value", value, slice_of(rows[i].want));
			}
			exact_free(in);
		}
	rows_end();
}

/* Who has a cookie stays where he was; who has none gets turns. */
static void
test_stuck(void **state)
{
	char b[STUCK_LEN];
	struct text t = { b, 0, sizeof b, false };
	struct pick p = { 0, 0, NULL };

	(void)state;
	upstream_of("cookie", 3, NULL);
	assert_string_equal(picks(4, 0), "abca");
	text_hex(&t, stuck_value(&ins[2]), STUCK_LEN);
	assert_int_equal(t.n, STUCK_LEN);
	p.stuck = balance_stuck(up, text_slice(&t));
	assert_ptr_equal(p.stuck, &ins[2]);
	for (int i = 0; i < 5; i++)
		assert_ptr_equal(balance_pick(up, &p), &ins[2]);
	p.tried = 4;
	assert_ptr_equal(balance_pick(up, &p), &ins[1]);
	p.tried = 0;
	ins[2].board->drained = true;
	board_changed();
	assert_ptr_not_equal(balance_pick(up, &p), &ins[2]);
	assert_null(balance_stuck(up, S("")));
	assert_null(balance_stuck(up, S("0123456789abcdef")));
	assert_null(balance_stuck(up, (struct slice){ b, STUCK_LEN - 1 }));
	roster_free();
}

static void
test_balance_find(void **state)
{
	(void)state;
	assert_ptr_equal(balance_find(S("round_robin")), &balances[0]);
	assert_string_equal(balance_find(S("least_connections"))->name, "least_conn");
	assert_null(balance_find(S("")));
	assert_null(balance_find(S("Round_robin")));
	for (size_t i = 0; i < LEN(balances); i++)
		assert_non_null(balances[i].pick);
}

/* ---- idle lives ---- */

static void
test_idle_life(void **state)
{
	/* clang-format off */
	static const struct {
		const char *why;
		struct {
			int after, life; /* ms since the one before; ms idle */
		} closed[5];
		unsigned want;
	} rows[] = {
		{ "one may be a restart", { { 0, 5000 } }, 0 },
		{ "two that agree", { { 0, 5000 }, { 9000, 5010 } }, 5000 },
		{ "too short to say anything", { { 0, 499 }, { 900, 499 } }, 0 },
		{ "the shortest counts", { { 0, 5000 }, { 9000, 4800 }, { 9000, 5100 } }, 4800 },
		{ "several that idled together are one", { { 0, 5000 }, { 1, 5003 }, { 50, 5050 } }, 0 },
		{ "and one more", { { 0, 5000 }, { 1, 5003 }, { 9000, 5050 } }, 5003 },
		{ "a restart says nothing", { { 0, 700 }, { 1, 3000 } }, 0 },
		{ "nor do several", { { 0, 700 }, { 9000, 3000 }, { 9000, 900 }, { 9000, 5000 } }, 0 },
		{ "what was known before stays", { { 0, 5000 }, { 9000, 5000 }, { 9000, 700 }, { 9000, 4000 } }, 5000 },
		{ "learned after a restart", { { 0, 700 }, { 9000, 5000 }, { 9000, 5000 } }, 5000 },
	};
	/* clang-format on */

	(void)state;
	for (size_t k = 0; k < LEN(rows); k++) {
		upstream_make("round_robin", 1, NULL);
		for (size_t i = 0; i < LEN(rows[k].closed) && rows[k].closed[i].life; i++) {
			now_ms += rows[k].closed[i].after;
			idle_life_learn(&ins[0], (uint32_t)rows[k].closed[i].life);
		}
		row_int(rows[k].why, S(""), "idle_life_ms", ins[0].board->idle_life_ms, rows[k].want);
	}
	rows_end();
}

/* Below nine tenths, and few different ones. */
static void
test_idle_limit(void **state)
{
	uint32_t last = 0, different = 0;

	(void)state;
	upstream_make("round_robin", 1, NULL);
	assert_int_equal(idle_limit_ms(&ins[0]), 60000);
	ins[0].board->idle_life_ms = 75000;
	assert_int_equal(idle_limit_ms(&ins[0]), 60000);
	for (uint32_t life = IDLE_LIFE_MIN_MS; life < 66000; life++) {
		uint32_t ms;

		ins[0].board->idle_life_ms = life;
		ms = idle_limit_ms(&ins[0]);
		assert_in_range(ms, life * 7 / 10, life - life / 10);
		different += ms != last;
		last = ms;
	}
	assert_in_range(different, 2, TIMER_LISTS / 2);
}

static int
setup(void **state)
{
	(void)state;
	board_open();
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	arena_free(&arena);
	return 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_standing),
		cmocka_unit_test(test_why_passes),
		cmocka_unit_test(test_breaker),
		cmocka_unit_test(test_breaker_window),
		cmocka_unit_test(test_breaker_epoch),
		cmocka_unit_test(test_last_resort),
		cmocka_unit_test(test_trial_is_one),
		cmocka_unit_test(test_claim),
		cmocka_unit_test(test_refresh),
		cmocka_unit_test(test_resume),
		cmocka_unit_test(test_backup),
		cmocka_unit_test(test_slow_start),
		cmocka_unit_test(test_slow_start_ends),
		cmocka_unit_test(test_round_robin),
		cmocka_unit_test(test_weights_exact),
		cmocka_unit_test(test_ring_is_bounded),
		cmocka_unit_test(test_tried),
		cmocka_unit_test(test_excluded),
		cmocka_unit_test(test_shares),
		cmocka_unit_test(test_least_conn),
		cmocka_unit_test(test_least_conn_fills),
		cmocka_unit_test(test_random_two),
		cmocka_unit_test(test_least_time),
		cmocka_unit_test(test_average),
		cmocka_unit_test(test_first),
		cmocka_unit_test(test_ln),
		cmocka_unit_test(test_rendezvous),
		cmocka_unit_test(test_hash_retry),
		cmocka_unit_test(test_hash_is_of_address),
		cmocka_unit_test(test_twins),
		cmocka_unit_test(test_cookie_find),
		cmocka_unit_test(test_stuck),
		cmocka_unit_test(test_balance_find),
		cmocka_unit_test(test_idle_life),
		cmocka_unit_test(test_idle_limit),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
