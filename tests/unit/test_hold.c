/* Waiting for an instance, as far as the master has a part in it: places, who
 * is worth waiting for, what the master is told, what pages say of a process. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "unit.h"

enum { WAITING = 5 };

static struct process proc;
static struct upstream up;
static struct instance insts[2];
static struct route to_up;
static struct exchange xs[WAITING];
static int master; /* its end */

/* An upstream with a process of two replicas, both up. */
static int
fleet_setup(void **state)
{
	static struct roster roster;
	int sv[2];

	(void)state;
	if (!board) {
		board_open();
		assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sv), 0);
		ctl_fd = sv[0];
		master = sv[1];
	}
	memset(board, 0, sizeof *board);
	memset(timer_lists, 0, sizeof timer_lists);
	n_timer_lists = 0;
	me = &board->workers[3];
	now_ms = 5000;
	held_news = quiet_due = false;
	proc = (struct process){ .name = "web", .replicas = 2 };
	roster = (struct roster){ 0 };
	up = (struct upstream){ .name = "web", .instances = insts, .n_instances = 2,
		.roster = &roster, .process = &proc, .hold_ms = 300, .connect_ms = 700 };
	to_up = (struct route){ .upstream = &up };
	for (size_t i = 0; i < LEN(insts); i++) {
		insts[i] = (struct instance){ .up = &up, .board = &board->instances[i] };
		insts[i].board->addrs.n = 1;
		insts[i].board->run = RUN_UP;
	}
	for (size_t i = 0; i < WAITING; i++)
		xs[i] = (struct exchange){ .route = &to_up, .wait.turn = i + 1 };
	return 0;
}

/* What the master is told; "" : nothing. */
static const char *
told(void)
{
	static char b[CTL_MAX];
	ssize_t n = recv(master, b, sizeof b - 1, MSG_DONTWAIT);

	b[n > 0 ? n : 0] = '\0';
	return b;
}

/* ---- places ---- */

static void
test_places(void **state)
{
	struct board_instance *b = insts[0].board;

	(void)state;
	insts[0].max_connections = 2;
	assert_true(flight_begin(&xs[0], &insts[0]));
	b->in_flight++; /* another worker's */
	assert_false(flight_begin(&xs[0], &insts[0]));
	assert_int_equal(b->in_flight, 2);
	assert_int_equal(board->flights[3][0][0], 1);
	now_ms = 6000;
	flight_end(xs[0].parity, &insts[0]);
	assert_int_equal(b->in_flight, 1);
	assert_int_equal(board->flights[3][0][0], 0);
	assert_int_equal(b->used_ms, 6000);
	assert_true(flight_begin(&xs[0], &insts[0]));
	insts[1].max_connections = 0;
	for (int i = 0; i < 100; i++)
		assert_true(flight_begin(&xs[0], &insts[1]));
	assert_int_equal(insts[1].board->in_flight, 100);
}

static void
test_places_by_run(void **state)
{
	static const struct {
		enum run run;
		bool taken, quiet;
	} rows[] = {
		{ RUN_NONE, true, false },
		{ RUN_OFF, false, false },
		{ RUN_ASLEEP, false, false },
		{ RUN_STARTING, false, false },
		{ RUN_UP, true, false },
		{ RUN_DRAINING, false, true }, /* it may have seen ours: told again */
	};

	(void)state;
	for (size_t i = 0; i < LEN(rows); i++) {
		quiet_due = false;
		insts[0].board->in_flight = insts[0].board->flights[0] = 0;
		insts[0].board->run = rows[i].run;
		assert_int_equal(flight_begin(&xs[0], &insts[0]), rows[i].taken);
		assert_int_equal(insts[0].board->in_flight, rows[i].taken);
		assert_int_equal(quiet_due, rows[i].quiet);
	}
}

static void
test_quiet_is_told(void **state)
{
	struct conf none = { 0 };

	(void)state;
	assert_true(flight_begin(&xs[0], &insts[0]) && flight_begin(&xs[0], &insts[0]));
	insts[0].board->run = RUN_DRAINING;
	flight_end(xs[0].parity, &insts[0]);
	assert_int_equal(front_settle(&none), -1);
	assert_string_equal(told(), "");
	flight_end(xs[0].parity, &insts[0]);
	assert_int_equal(front_settle(&none), -1);
	assert_string_equal(told(), "Z");
	assert_int_equal(front_settle(&none), -1);
	assert_string_equal(told(), "");
}

/* The process moved on to another program: the old one is quiet when the last
 * request of its epoch has ended. */
static void
test_quiet_of_an_epoch(void **state)
{
	struct board_instance *b = insts[0].board;

	(void)state;
	assert_true(flight_begin(&xs[0], &insts[0]));
	b->epoch++;
	assert_true(flight_begin(&xs[1], &insts[0]));
	assert_int_equal(b->flights[0], 1);
	assert_int_equal(b->flights[1], 1);
	flight_end(xs[1].parity, &insts[0]);
	assert_false(quiet_due);
	flight_end(xs[0].parity, &insts[0]);
	assert_true(quiet_due);
	assert_int_equal(b->in_flight, 0);
}

static void
test_quiet_is_not_lost(void **state)
{
	struct conf none = { 0 };

	(void)state;
	while (master_tell(CTL_START, "web"))
		; /* it does not listen */
	quiet_due = true;
	assert_int_equal(front_settle(&none), HELD_AGAIN_MS);
	while (*told())
		;
	assert_int_equal(front_settle(&none), -1);
	assert_string_equal(told(), "Z");
}

/* ---- who is worth waiting for ---- */

static void
test_how_long(void **state)
{
	static const struct {
		const char *why;
		enum run run[2];
		uint32_t places;
		uint64_t tried;
		bool passed;
		uint32_t ms;
	} rows[] = {
		{ "one restarts", { RUN_STARTING, RUN_OFF }, 0, 0, false, 300 },
		{ "all were stopped", { RUN_OFF, RUN_OFF }, 0, 0, false, 0 },
		{ "who asks starts it", { RUN_ASLEEP, RUN_OFF }, 0, 0, false, 300 },
		{ "both refused", { RUN_UP, RUN_UP }, 0, 3, false, 300 },
		{ "both are full", { RUN_UP, RUN_UP }, 1, 0, false, 700 },
		{ "both have places, but refused", { RUN_UP, RUN_UP }, 1, 3, false, 300 },
		{ "had no place for it", { RUN_UP, RUN_UP }, 1, 3, true, 700 },
		{ "no places while it starts", { RUN_STARTING, RUN_STARTING }, 1, 0, false,
		  300 },
	};

	(void)state;
	for (size_t i = 0; i < LEN(rows); i++) {
		struct exchange x = { .route = &to_up, .tried = rows[i].tried,
			.passed = rows[i].passed };
		for (size_t k = 0; k < LEN(insts); k++) {
			insts[k].board->run = rows[i].run[k];
			insts[k].max_connections = rows[i].places;
		}
		row_int(rows[i].why, S(""), "ms", hold_ms(&x), rows[i].ms);
	}
	rows_end();
}

static void
test_start_is_asked_for(void **state)
{
	(void)state;
	insts[1].board->run = RUN_OFF;
	hold_start(&up);
	assert_string_equal(told(), ""); /* it starts at boot, or never */
	insts[1].board->run = RUN_ASLEEP;
	hold_start(&up);
	assert_string_equal(told(), "Bweb");
	now_ms += SECOND_MS - 1;
	hold_start(&up);
	assert_string_equal(told(), "");
	now_ms++;
	hold_start(&up);
	assert_string_equal(told(), "Bweb");
	now_ms += 10 * SECOND_MS;
	insts[1].board->run = RUN_STARTING;
	hold_start(&up);
	assert_string_equal(told(), "");
}

/* ---- the queue ---- */

static void
queue_is(const char *want)
{
	char got[WAITING + 1], back[WAITING + 1];
	struct queue *queue = &up.roster->queue;
	size_t n = 0, back_n = 0;

	for (struct link *l = queue->ring.next; l && l != &queue->ring; l = l->next)
		got[n++] = (char)('a' + (OWNER(l, struct exchange, wait.link) - xs));
	for (struct link *l = queue->ring.prev; l && l != &queue->ring; l = l->prev)
		back[back_n++] = (char)('a' + (OWNER(l, struct exchange, wait.link) - xs));
	got[n] = '\0';
	assert_string_equal(got, want);
	assert_int_equal(n, back_n);
	assert_int_equal(n, queue->n);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(got[i], back[n - 1 - i]);
	assert_int_equal(queue->timer.list != NULL, n > 0);
}

static void
test_queue(void **state)
{
	(void)state;
	hold_join(&xs[1]);
	hold_join(&xs[3]);
	hold_join(&xs[0]); /* it came first, and was refused last */
	queue_is("abd");
	hold_join(&xs[4]);
	hold_join(&xs[2]);
	queue_is("abcde");
	hold_leave(&xs[0]);
	hold_leave(&xs[4]);
	hold_leave(&xs[2]);
	queue_is("bd");
	assert_int_equal(up.roster->queue.n_out, 3);
	hold_join(&xs[2]);
	hold_join(&xs[0]);
	queue_is("abcd");
	hold_settle(&xs[4]);
	hold_settle(&xs[4]);
	assert_int_equal(up.roster->queue.n_out, 0);
	for (size_t i = 0; i < WAITING - 1; i++)
		hold_leave(&xs[i]);
	queue_is("");
	assert_int_equal(up.roster->queue.n_out, WAITING - 1);
}

static void
test_news(void **state)
{
	(void)state;
	queue_wake(&up.roster->queue, 1);
	assert_false(held_news); /* nobody waits */
	hold_join(&xs[0]);
	hold_join(&xs[1]);
	queue_wake(&up.roster->queue, 1);
	assert_true(held_news);
	assert_int_equal(up.roster->queue.go, 1);
	queue_wake(&up.roster->queue, 5);
	assert_int_equal(up.roster->queue.go, 2);
	up.roster->queue.go = 0;
	held_news = false;
	now_ms += HELD_AGAIN_MS;
	timers_run();
	assert_true(held_news);
	assert_int_equal(up.roster->queue.go, 1);
	assert_non_null(up.roster->queue.timer.list); /* and again */
}

/* ---- what pages say ---- */

static void
proc_is(size_t i, const char *name, enum proc_state state, const char *why, const char *last)
{
	struct board_proc *b = &board->procs[i];

	snprintf(b->name, sizeof b->name, "%s", name);
	b->state = state;
	board_text_set(&b->why, slice_of(why));
	b->n_lines = *last ? PROC_LINES + 2 : 0;
	board_text_set(&b->lines[1], slice_of(last));
}

static void
test_cause(void **state)
{
	char b[256];
	struct text t = { b, 0, sizeof b, false };

	(void)state;
	proc_is(0, "web.0", PROC_UP, "exit status 3", "old");
	proc_is(1, "web.1", PROC_BACKOFF, "exit status 1", "no module <app>");
	proc_is(2, "webs", PROC_FAILED, "of another", "x");
	proc_is(3, "web.x", PROC_FAILED, "of another", "x");
	proc_is(4, "web", PROC_STARTING, "", "");
	cause_of_process(&t, &proc);
	row_slice("those that are not up", S(""), "cause", text_slice(&t),
	    S("; process web.1: exit status 1, its last words: no module <app>; process web"));
	rows_end();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_places, fleet_setup),
		cmocka_unit_test_setup(test_places_by_run, fleet_setup),
		cmocka_unit_test_setup(test_quiet_is_told, fleet_setup),
		cmocka_unit_test_setup(test_quiet_of_an_epoch, fleet_setup),
		cmocka_unit_test_setup(test_quiet_is_not_lost, fleet_setup),
		cmocka_unit_test_setup(test_how_long, fleet_setup),
		cmocka_unit_test_setup(test_start_is_asked_for, fleet_setup),
		cmocka_unit_test_setup(test_queue, fleet_setup),
		cmocka_unit_test_setup(test_news, fleet_setup),
		cmocka_unit_test_setup(test_cause, fleet_setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
