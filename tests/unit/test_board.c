/* What processes share, in every state that one of them can leave behind: an
 * operation is done by a child, one instruction at a time, and looked at after
 * each of them, as it would be if the child had been killed there. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include <sys/ptrace.h>

#include "unit.h"

enum { SLOT = 3, OTHER = 5, STEPS_MAX = 200000, DEADLINE_MS = 100 };

static struct upstream up;
static struct instance inst;
static struct roster roster;
static struct exchange x;

static int
board_setup(void **state)
{
	(void)state;
	if (!board)
		board_open();
	memset(board, 0, sizeof *board);
	me = &board->workers[SLOT];
	clock_turn();
	roster = (struct roster){ 0 };
	up = (struct upstream){ .name = "u", .instances = &inst, .n_instances = 1, .roster = &roster };
	inst = (struct instance){ .up = &up, .board = &board->instances[0] };
	memcpy(inst.board->key, "u a", 4);
	inst.board->run = RUN_UP;
	x = (struct exchange){ 0 };
	return 0;
}

/* Looks before, between any two instructions of it, and behind. */
static void
each_step(void (*operation)(void), void (*look)(void))
{
	pid_t pid = fork();
	int status, steps = 0;

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
			_exit(1);
		raise(SIGSTOP);
		operation();
		kill(getpid(), SIGSTOP);
		_exit(0);
	}
	assert_true(pid > 0 && waitpid(pid, &status, 0) == pid && WIFSTOPPED(status));
	for (bool ends = false; !ends && steps < STEPS_MAX; steps++) {
		look();
		assert_int_equal(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSTOPPED(status));
		ends = steps > 0 && WSTOPSIG(status) == SIGSTOP;
	}
	look();
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	assert_in_range(steps, 10, STEPS_MAX - 1);
}

/* ---- places of a worker that was killed ---- */

static void
places_begin(void)
{
	flight_begin(&x, &inst);
}

static void
places_refused(void)
{
	inst.max_connections = 1;
	inst.board->run = RUN_DRAINING; /* taken, and given back */
	flight_begin(&x, &inst);
}

static void
places_all(void)
{
	if (flight_begin(&x, &inst))
		flight_end(x.parity, &inst);
}

static void
places_held(void)
{
	held_count(&up, true);
	held_count(&up, false);
}

/* The master takes back what the worker has, and nobody else has anything. */
static void
places_look(void)
{
	static struct board_instance was;
	static atomic_ushort own[FLIGHT_EPOCHS + 1];
	struct board_instance *b = inst.board;
	bool same = memcmp(&was, b, sizeof was) == 0 && memcmp(own, board->flights[SLOT][0], sizeof own) == 0;

	if (same)
		return;
	memcpy(&was, b, sizeof was);
	memcpy(own, board->flights[SLOT][0], sizeof own);
	board_worker_gone(SLOT);
	assert_int_equal(b->in_flight, 0);
	for (size_t i = 0; i < FLIGHT_EPOCHS; i++)
		assert_int_equal(b->flights[i], 0);
	assert_int_equal(b->held, 0);
	memcpy(b, &was, sizeof was);
	memcpy(board->flights[SLOT][0], own, sizeof own);
}

static void
test_killed_between(void **state)
{
	static void (*const operations[])(void) = { places_begin, places_refused, places_all, places_held };

	for (size_t i = 0; i < LEN(operations); i++) {
		board_setup(state);
		each_step(operations[i], places_look);
	}
}

/* Its places are given back, those of others are not. */
static void
test_places_of_others(void **state)
{
	struct exchange theirs = { 0 };

	(void)state;
	me = &board->workers[OTHER];
	assert_true(flight_begin(&theirs, &inst) && flight_begin(&theirs, &inst));
	held_count(&up, true);
	me = &board->workers[SLOT];
	assert_true(flight_begin(&x, &inst));
	held_count(&up, true);
	board_worker_gone(SLOT);
	assert_int_equal(inst.board->in_flight, 2);
	assert_int_equal(inst.board->flights[0], 2);
	assert_int_equal(inst.board->held, 1);
}

/* ---- what is read while it is written ---- */

/* n addresses of that byte, and of as many bytes. */
static void
address_of(unsigned n, unsigned char byte)
{
	union sock s[INSTANCE_ADDRS];
	socklen_t sn[INSTANCE_ADDRS];

	memset(s, byte, sizeof s);
	for (size_t i = 0; i < INSTANCE_ADDRS; i++)
		sn[i] = byte;
	board_addrs_set(inst.board, s, sn, n);
}

static void
address_is_whole(unsigned i)
{
	union sock s;
	socklen_t n;

	if (!board_addrs_get(inst.board, i, &s, &n))
		return;
	for (size_t k = 0; k < sizeof s; k++)
		assert_int_equal(((const unsigned char *)&s)[k], n);
}

/* A name that resolves to this, to that, and to nothing. */
static void
test_addresses_change(void **state)
{
	pid_t pid;

	(void)state;
	address_of(1, 1);
	if ((pid = fork()) == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (unsigned char byte = 1;; byte ^= 3) {
			address_of(2, byte);
			address_of(0, byte);
		}
	}
	assert_true(pid > 0);
	for (int64_t until = now_ms + DEADLINE_MS; now_ms < until; clock_turn())
		for (unsigned i = 0; i < LEN(inst.board->addrs.sock); i++)
			address_is_whole(i);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

/* A writer that died in it holds nobody up, and the next one puts it right. */
static void
test_writer_dies(void **state)
{
	union sock s;
	socklen_t n;
	char b[WHY_MAX];

	(void)state;
	address_of(2, 7);
	board_text_set(&inst.board->check_why, S("before"));
	inst.board->addrs.seq++;
	inst.board->check_why.seq++;
	assert_false(board_addrs_get(inst.board, 0, &s, &n));
	assert_string_equal(board_text_get(&inst.board->check_why, b), "");
	address_of(1, 9);
	board_text_set(&inst.board->check_why, S("behind"));
	assert_true(board_addrs_get(inst.board, 0, &s, &n));
	assert_int_equal(n, 9);
	assert_string_equal(board_text_get(&inst.board->check_why, b), "behind");
}

/* ---- counters in two words ---- */

static struct wide *counter;
static uint64_t from, step;
static bool alone; /* by the only writer */

static void
wide_grows(void)
{
	(alone ? wide_count : wide_add)(counter, step);
}

/* It never says less than it was, nor more than it will be. */
static void
wide_look(void)
{
	uint64_t now = wide_get(counter);

	if (now < from || now > from + step)
		fail_msg("%llx while %llx is added to %llx", (unsigned long long)now,
		    (unsigned long long)step, (unsigned long long)from);
}

static void
test_wide(void **state)
{
	static const uint64_t starts[] = { 0, INT32_MAX - 1, INT32_MAX, UINT32_MAX, (uint64_t)UINT32_MAX + 1,
		INT64_MAX - UINT32_MAX };
	static const uint64_t steps[] = { 1, UINT32_MAX };

	(void)state;
	counter = &board->instances[0].requests;
	for (size_t i = 0; i < LEN(starts) * LEN(steps) * 2; i++) {
		from = starts[i / LEN(steps) / 2];
		step = steps[i / 2 % LEN(steps)];
		alone = i % 2 == 0;
		wide_set(counter, (int64_t)from);
		assert_true(wide_get(counter) == from);
		each_step(wide_grows, wide_look);
		assert_true(wide_get(counter) == from + step);
	}
}

/* Of a writer that was killed before it could carry, nothing is ever seen. */
static void
test_wide_without_carry(void **state)
{
	struct wide w = { 0, 0 };
	uint64_t want = (uint64_t)INT32_MAX + 1;

	(void)state;
	w.lo = (uint32_t)want; /* hi was left behind */
	for (int i = 0; i < 10; i++) {
		assert_true(wide_get(&w) == want);
		wide_add(&w, UINT32_MAX / 3);
		want += UINT32_MAX / 3;
	}
}

/* A time comes again after 49 days; what is 0 was never. */
static void
test_times(void **state)
{
	static const int64_t nows[] = { 1, 100000, INT32_MAX, UINT32_MAX, (int64_t)UINT32_MAX + 1,
		(int64_t)UINT32_MAX * 3 + 7 };

	(void)state;
	up.n_instances = 2;
	up.fail_ms = 1000;
	for (size_t i = 0; i < LEN(nows); i++) {
		now_ms = nows[i];
		assert_int_not_equal(clock_low(now_ms), 0);
		assert_true(clock_ago(clock_low(now_ms - 5000)) <= 5000);
		inst.board->open_until_ms = clock_low(now_ms + 999);
		assert_true(instance_open_until(&inst) - now_ms >= 998);
		inst.board->open_until_ms = clock_low(now_ms - 30 * DAY_S * (int64_t)SECOND_MS);
		assert_true(instance_open_until(&inst) > 0 && instance_open_until(&inst) <= now_ms);
	}
}

/* ---- records ---- */

/* As many instances as the configuration may have have records, whoever else would like one. */
static void
test_records_are_for_instances_first(void **state)
{
	static struct process ps = { .name = "a", .replicas = 1, .names_port = true };
	static struct instance one, many[INSTANCES_MAX - 1];
	struct upstream ups[] = { { .name = "a", .instances = &one, .n_instances = 1, .process = &ps },
		{ .name = "b", .instances = many, .n_instances = INSTANCES_MAX - 1 } };
	struct conf cf = { .upstreams = ups, .n_upstreams = LEN(ups) };

	(void)state;
	memset(board->instances, 0, sizeof board->instances);
	one = (struct instance){ .up = &ups[0], .addr = { .kind = ADDR_NONE, .text = "-" } };
	for (int i = 0; i < INSTANCES_MAX - 1; i++) {
		char *text = malloc(16);
		snprintf(text, 16, "10.0.0.1:%d", i + 1);
		many[i] = (struct instance){ .up = &ups[1], .addr = { .kind = ADDR_INET, .text = text } };
	}
	assert_int_equal(board_attach(&cf), 0);
	assert_non_null(one.board);
	assert_null(one.fresh);
	ups[1].n_instances--;
	memset(board->instances, 0, sizeof board->instances);
	assert_int_equal(board_attach(&cf), 0);
	assert_non_null(one.fresh);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_killed_between, board_setup),
		cmocka_unit_test_setup(test_places_of_others, board_setup),
		cmocka_unit_test_setup(test_addresses_change, board_setup),
		cmocka_unit_test_setup(test_writer_dies, board_setup),
		cmocka_unit_test_setup(test_wide, board_setup),
		cmocka_unit_test_setup(test_wide_without_carry, board_setup),
		cmocka_unit_test_setup(test_times, board_setup),
		cmocka_unit_test_setup(test_records_are_for_instances_first, board_setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
