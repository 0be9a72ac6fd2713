/* Below the exchange: clocks and timers, rate limits, buffers, kept request
 * bodies, and the frames of chunks that are sent. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "unit.h"

/* ---- timers ---- */

enum { TIMERS = 8 };

static struct timer timers[TIMERS];
static char fired[128]; /* a letter for each */
static size_t n_fired;
static struct timer *victim; /* cleared by the next that fires */

static void
timer_note(struct timer *t)
{
	fired[n_fired++] = (char)('a' + (t - timers));
	fired[n_fired] = '\0';
	if (victim)
		timer_clear(victim);
	victim = NULL;
}

static void
timer_again(struct timer *t)
{
	timer_note(t);
	timer_set(t, 10);
}

static int
timers_setup(void **state)
{
	(void)state;
	memset(timer_lists, 0, sizeof timer_lists);
	memset(timers, 0, sizeof timers);
	n_timer_lists = 0;
	for (size_t i = 0; i < TIMERS; i++)
		timers[i].fire = timer_note;
	now_ms = 1000;
	n_fired = 0;
	fired[0] = '\0';
	victim = NULL;
	return 0;
}

static const char *
run_at(int64_t ms)
{
	now_ms = ms;
	n_fired = 0;
	fired[0] = '\0';
	timers_run();
	return fired;
}

static void
test_timers(void **state)
{
	(void)state;
	assert_int_equal(timers_next_ms(), -1);
	timer_set(&timers[0], 50);
	timer_set(&timers[1], 20);
	now_ms = 1010;
	timer_set(&timers[2], 20);
	assert_int_equal(timers_next_ms(), 10);
	assert_string_equal(run_at(1019), "");
	assert_int_equal(timers_next_ms(), 1);
	assert_string_equal(run_at(1020), "b");
	assert_null(timers[1].list);
	assert_string_equal(run_at(1029), "");
	now_ms = 2000;
	assert_int_equal(timers_next_ms(), 0); /* late is not negative */
	assert_int_equal(strlen(run_at(2000)), 2);
	assert_int_equal(timers_next_ms(), -1);
}

/* Setting it again moves it behind the others; 0 takes it off. */
static void
test_timer_set_again(void **state)
{
	(void)state;
	timer_set(&timers[0], 20);
	timer_set(&timers[1], 20);
	now_ms = 1010;
	timer_set(&timers[0], 20);
	assert_string_equal(run_at(1020), "b");
	assert_string_equal(run_at(1030), "a");
	timer_set(&timers[0], 20);
	timer_set(&timers[0], 0);
	assert_int_equal(timers_next_ms(), -1);
	timer_set(&timers[0], 20);
	timer_set(&timers[0], 5); /* to another list */
	assert_int_equal(timers_next_ms(), 5);
	timer_clear(&timers[0]);
	timer_clear(&timers[0]);
	assert_int_equal(timers_next_ms(), -1);
}

static void
test_timer_keep(void **state)
{
	(void)state;
	timer_keep(&timers[0], 20);
	now_ms = 1010;
	timer_keep(&timers[0], 20);
	assert_int_equal(timers_next_ms(), 10);
	timer_keep(&timers[0], 30);
	assert_int_equal(timers_next_ms(), 30);
	timer_keep(&timers[0], 0);
	assert_int_equal(timers_next_ms(), -1);
}

/* What fires may set itself, and clear one that is due too. */
static void
test_timer_fires(void **state)
{
	(void)state;
	timers[0].fire = timer_again;
	timer_set(&timers[0], 10);
	assert_string_equal(run_at(1010), "a");
	assert_string_equal(run_at(1020), "a");
	assert_int_equal(timers_next_ms(), 10);
	timer_clear(&timers[0]);
	timer_set(&timers[1], 10);
	timer_set(&timers[2], 10);
	timer_set(&timers[3], 10);
	victim = &timers[2];
	assert_string_equal(run_at(1030), "bd");
	timer_set(&timers[1], 10);
	timer_set(&timers[2], 20);
	victim = &timers[2];
	assert_string_equal(run_at(2000), "b");
}

/* More durations than lists: late, never early; the longest at worst. */
static void
test_timer_lists_full(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < TIMER_LISTS; i++)
		timer_set(&timers[0], 100 + 10 * i);
	assert_int_equal(n_timer_lists, TIMER_LISTS);
	timer_set(&timers[0], 111);
	assert_int_equal(n_timer_lists, TIMER_LISTS);
	assert_int_equal(timers_next_ms(), 120);
	timer_set(&timers[0], 5);
	assert_int_equal(timers_next_ms(), 100);
	timer_set(&timers[0], 1000000);
	assert_int_equal(timers_next_ms(), 100 + 10 * (TIMER_LISTS - 1));
	/* one that lives in another's list is kept, too */
	timer_set(&timers[0], 111);
	now_ms += 50;
	timer_keep(&timers[0], 111);
	assert_int_equal(timers_next_ms(), 70);
}

/* Random deadlines: each fires once, not early, at the first run when due. */
static void
test_timers_random(void **state)
{
	int64_t due[TIMERS] = { 0 };

	(void)state;
	for (int round = 0; round < 20000; round++) {
		size_t i = dice(TIMERS);
		uint32_t ms = dice(12);
		const char *got;
		int64_t next = INT64_MAX;

		timer_set(&timers[i], ms);
		due[i] = ms ? now_ms + ms : 0;
		for (size_t k = 0; k < TIMERS; k++)
			if (due[k])
				next = MIN(next, due[k]);
		assert_int_equal(timers_next_ms(),
		    next == INT64_MAX ? -1 : MAX(next - now_ms, 0));
		got = run_at(now_ms + dice(4));
		for (size_t k = 0; k < TIMERS; k++) {
			bool want = due[k] && due[k] <= now_ms;
			assert_int_equal(strchr(got, 'a' + (int)k) != NULL, want);
			if (want)
				due[k] = 0;
		}
	}
}

/* ---- rate limits ---- */

#define LIMIT(n, ms, most) { .requests = n, .per_ms = ms, .burst = most }

static int64_t turn_us; /* of the last request */

static int
rate_setup(void **state)
{
	(void)state;
	if (!board)
		board_open();
	memset(board->rates, 0, sizeof board->rates);
	now_us = 1000000000;
	return 0;
}

/* How many of n pass at once. */
static unsigned
let_pass(const struct rate_limit *r, uint64_t tag, unsigned n)
{
	unsigned yes = 0;

	while (n-- > 0)
		yes += rate_take(r, tag, &turn_us) == 0;
	return yes;
}

static void
test_rate(void **state)
{
	/* clang-format off */
	static const struct {
		struct rate_limit r;
		unsigned at_once; /* of 100 */
		unsigned wait_s;  /* told to the next */
		unsigned later;   /* of 100, after one period */
		const char *why;
	} rows[] = {
		{ LIMIT(10, 1000, 10), 10, 1, 10, "ten a second" },
		{ LIMIT(10, 1000, 1), 1, 1, 1, "no burst" },
		{ LIMIT(10, 1000, 20), 20, 1, 10, "a burst of two periods" },
		{ LIMIT(1, 60000, 1), 1, 60, 1, "one a minute" },
		{ LIMIT(5, 60000, 5), 5, 12, 5, "five a minute" },
		{ LIMIT(3, 1000, 3), 3, 1, 3, "a third of a second" },
		{ LIMIT(1, 1500, 1), 1, 2, 1, "seconds are rounded up" },
	};
	/* clang-format on */

	(void)state;
	for (size_t i = 0; i < LEN(rows); i++) {
		const struct rate_limit *r = &rows[i].r;

		rate_setup(NULL);
		row_int(rows[i].why, S(""), "at once", let_pass(r, 7, 100), rows[i].at_once);
		row_int(rows[i].why, S(""), "wait", rate_take(r, 7, &turn_us), rows[i].wait_s);
		row_int(rows[i].why, S(""), "somebody else", rate_take(r, 8, &turn_us), 0);
		now_us += (int64_t)r->per_ms * 1000;
		row_int(rows[i].why, S(""), "later", let_pass(r, 7, 100), rows[i].later);
		now_us += (int64_t)r->per_ms * 1000 * 100;
		row_int(rows[i].why, S(""), "much later", let_pass(r, 7, 100), rows[i].at_once);
	}
	rows_end();
}

/* Who waits as long as he is told passes then; the mean rate holds. */
static void
test_rate_wait(void **state)
{
	static const struct rate_limit r = LIMIT(7, 10000, 3);
	unsigned passed = 0;

	(void)state;
	for (int i = 0; i < 200; i++) {
		unsigned wait = rate_take(&r, 5, &turn_us);
		if (wait > 0) {
			now_us += (int64_t)wait * 1000000;
			assert_int_equal(rate_take(&r, 5, &turn_us), 0);
		}
		now_us += dice(1000000);
	}
	rate_setup(NULL);
	for (int ms = 0; ms < 1000000; ms += 100, now_us += 100000)
		passed += rate_take(&r, 5, &turn_us) == 0;
	assert_in_range(passed, 700, 703);
}

/* Whether they pass at once or not, the turns of a burst are as far apart as its rate. */
static void
test_rate_turns(void **state)
{
	static const struct rate_limit r = LIMIT(4, 1000, 5);

	(void)state;
	for (int i = 0; i < 5; i++) {
		assert_int_equal(rate_take(&r, 5, &turn_us), 0);
		assert_int_equal(turn_us - now_us, i * 250000);
	}
	assert_int_not_equal(rate_take(&r, 5, &turn_us), 0);
	now_us += 300000;
	assert_int_equal(rate_take(&r, 5, &turn_us), 0);
	assert_int_equal(turn_us - now_us, 1250000 - 300000);
	now_us += 60000000;
	assert_int_equal(rate_take(&r, 5, &turn_us), 0);
	assert_int_equal(turn_us, now_us);
}

/* A worker that has not looked at the clock for some ms refuses nobody for that. */
static void
test_rate_two_clocks(void **state)
{
	static const struct rate_limit r = LIMIT(2, 600000, 2);

	(void)state;
	assert_int_equal(rate_take(&r, 5, &turn_us), 0);
	now_us -= 50000;
	assert_int_equal(rate_take(&r, 5, &turn_us), 0);
	assert_int_not_equal(rate_take(&r, 5, &turn_us), 0);
}

/* Where nobody may wait now, what is owed stays owed. */
static void
test_rate_no_turn(void **state)
{
	static const struct rate_limit r = LIMIT(1, 1000, 5);

	(void)state;
	rate_setup(NULL);
	assert_int_equal(rate_take(&r, 5, NULL), 0);
	assert_int_equal(rate_take(&r, 5, NULL), 1);
	assert_int_equal(let_pass(&r, 5, 100), 4);
	assert_int_equal(rate_take(&r, 5, NULL), 5);
	assert_int_equal(rate_take(&r, 5, &turn_us), 1);
}

/* Under a lower limit nobody owes more than that can be. */
static void
test_rate_lowered(void **state)
{
	static const struct rate_limit slow = LIMIT(5, 600000, 5), fast = LIMIT(10, 1000, 10);

	(void)state;
	rate_setup(NULL);
	assert_int_equal(let_pass(&slow, 7, 100), 5);
	assert_int_equal(rate_take(&fast, 7, &turn_us), 1);
	now_us += 1000000;
	assert_int_equal(let_pass(&fast, 7, 100), 10);
}

/* As many clients as a set of cells has are told apart; one more takes the
 * place of the one whose debt ends first. */
static void
test_rate_cells(void **state)
{
	static const struct rate_limit one = LIMIT(1, 10000, 1);

	(void)state;
	for (uint64_t i = 1; i <= RATE_WAYS; i++, now_us += 1000)
		assert_int_equal(rate_take(&one, i << 32, &turn_us), 0);
	for (uint64_t i = 1; i <= RATE_WAYS; i++)
		assert_int_not_equal(rate_take(&one, i << 32, &turn_us), 0);
	assert_int_equal(rate_take(&one, 99ull << 32, &turn_us), 0);
	assert_int_not_equal(rate_take(&one, 99ull << 32, &turn_us), 0);
	for (uint64_t i = 2; i <= RATE_WAYS; i++)
		assert_int_not_equal(rate_take(&one, i << 32, &turn_us), 0);
	for (uint64_t tag = 1; tag < 100000; tag += 7) /* stays within the table */
		rate_take(&one, tag, &turn_us);
	rate_take(&one, UINT64_MAX, &turn_us);
}

static void
test_hash64(void **state)
{
	(void)state;
	assert_int_not_equal(hash64(0, "", 0), 0);
	assert_int_not_equal(hash64(1, "a", 1), hash64(1, "b", 1));
	assert_int_equal(hash64(1, "ab", 2), hash64(1, "ab", 2));
}

/* ---- clock ---- */

static void
test_date(void **state)
{
	static const struct {
		time_t s;
		const char *want;
	} rows[] = {
		{ 784111777, "Sun, 06 Nov 1994 08:49:37 GMT" },
		{ 0, "Thu, 01 Jan 1970 00:00:00 GMT" },
		{ 951782400, "Tue, 29 Feb 2000 00:00:00 GMT" },
		{ 4102444799, "Thu, 31 Dec 2099 23:59:59 GMT" },
	};

	(void)state;
	for (size_t i = 0; i < LEN(rows); i++) {
		now_s = rows[i].s;
		row_slice("date", S(""), "clock_date", clock_date(), slice_of(rows[i].want));
		row_slice("again", S(""), "clock_date", clock_date(), slice_of(rows[i].want));
	}
	rows_end();
}

/* ---- text ---- */

static void
test_text(void **state)
{
	char *b = malloc(8);
	struct text t = { b, 0, 8, false };

	(void)state;
	text_uint(&t, 0);
	text_uint(&t, 1234567);
	assert_true(slice_eq(text_slice(&t), S("01234567")));
	assert_false(t.full);
	text_add(&t, S(""));
	assert_false(t.full);
	text_char(&t, 'x');
	assert_true(t.full);
	assert_int_equal(t.n, 8);
	t = (struct text){ b, 0, 8, false };
	text_hex(&t, 0xBEEF, 6);
	assert_true(slice_eq(text_slice(&t), S("00beef")));
	text_fmt(&t, "%d", 12); /* no room for the NUL */
	assert_true(t.full);
	assert_int_equal(t.n, 6);
	free(b);
	b = malloc(20);
	t = (struct text){ b, 0, 20, false };
	text_uint(&t, UINT64_MAX);
	assert_true(slice_eq(text_slice(&t), S("18446744073709551615")));
	t.n = 0;
	text_hex(&t, UINT64_MAX, 1);
	assert_true(slice_eq(text_slice(&t), S("ffffffffffffffff")));
	t.n = 0;
	text_hex(&t, 0, 1);
	assert_true(slice_eq(text_slice(&t), S("0")));
	free(b);
}

static void
test_slice_uint(void **state)
{
	static const struct {
		const char *in;
		uint64_t max;
		int64_t want;
	} rows[] = {
		{ "0", 0, 0 },
		{ "1", 0, -1 }, /* BUG: max - d wraps when max < 9 */
		{ "9", 9, 9 }, { "10", 9, -1 }, { "65535", 65535, 65535 },
		{ "65536", 65535, -1 }, { "9223372036854775807", INT64_MAX, INT64_MAX },
		{ "9223372036854775808", INT64_MAX, -1 }, { "", 9, -1 }, { "-1", 9, -1 }, { "1 ", 9, -1 },
		{ "1a", 9, -1 }, { "00000000000000000000000000009", 9, 9 }, { "\xff", 9, -1 }, { "/", 9, -1 },
		{ ":", 9, -1 },
	};

	(void)state;
	for (size_t i = 0; i < LEN(rows); i++) {
		struct slice in = exact(slice_of(rows[i].in));
		row_int("number", in, "slice_uint", slice_uint(in, rows[i].max), rows[i].want);
		exact_free(in);
	}
	rows_end();
}

/* ---- blocks, buffers ---- */

static int
blocks_setup(void **state)
{
	(void)state;
	if (!scratch) {
		blocks_open(16384);
		scratch = block_take(BLOCK_LARGE);
	}
	return 0;
}

static void
test_buf(void **state)
{
	struct buf b = { 0 };

	(void)state;
	assert_int_equal(buf_slice(&b).n, 0);
	buf_free(&b);
	b.b = block_take(BLOCK_SMALL);
	b.off = HEADROOM;
	b.n = 5;
	memcpy(buf_p(&b), "hello", 5);
	buf_eat(&b, 2);
	assert_true(slice_eq(buf_slice(&b), S("llo")));
	buf_move(&b, BLOCK_LARGE);
	assert_int_equal(b.b->klass, BLOCK_LARGE);
	assert_true(slice_eq(buf_slice(&b), S("llo")));
	buf_eat(&b, 3);
	assert_null(b.b);
}

/* What lies in scratch is copied when it is little, and keeps the block, which
 * scratch then leaves, when it is much. */
static void
test_buf_settle(void **state)
{
	struct block *was = scratch;
	struct buf b = { scratch, HEADROOM, 3 };

	(void)state;
	memcpy(buf_p(&b), "abc", 3);
	buf_settle(&b);
	assert_ptr_equal(scratch, was);
	assert_ptr_not_equal(b.b, scratch);
	assert_true(slice_eq(buf_slice(&b), S("abc")));
	buf_free(&b);
	b = (struct buf){ scratch, HEADROOM, BLOCK_SMALL_BYTES };
	buf_settle(&b);
	assert_ptr_equal(b.b, was);
	assert_ptr_not_equal(scratch, was);
	buf_free(&b);
}

static void
test_blocks_kept(void **state)
{
	struct block *b[BLOCKS_KEPT_LARGE + 3];

	(void)state;
	for (size_t i = 0; i < LEN(b); i++) {
		b[i] = block_take(BLOCK_LARGE);
		memset(b[i]->data, 0x5a, b[i]->cap); /* all of it is ours */
	}
	for (size_t i = 0; i < LEN(b); i++)
		block_give(b[i]);
	assert_int_equal(n_blocks_free[BLOCK_LARGE], BLOCKS_KEPT_LARGE);
	block_give(NULL);
}

/* What was in use at one time goes back at the second look after; one that is
 * taken and given all the time stays. */
static void
test_blocks_rest(void **state)
{
	struct block *b[3];

	(void)state;
	for (size_t i = 0; i < LEN(b); i++)
		b[i] = block_take(BLOCK_SMALL);
	for (size_t i = 0; i < LEN(b); i++)
		block_give(b[i]);
	for (int look = 0; look < 3; look++) {
		assert_true(n_blocks_free[BLOCK_SMALL] >= 1);
		block_give(block_take(BLOCK_SMALL));
		assert_non_null(blocks_timer.list);
		now_ms += BLOCKS_REST_MS;
		timers_run();
	}
	assert_int_equal(n_blocks_free[BLOCK_SMALL], 1);
	assert_int_equal(n_blocks_free[BLOCK_LARGE], 0);
	now_ms += BLOCKS_REST_MS;
	timers_run();
	assert_int_equal(n_blocks_free[BLOCK_SMALL], 0);
	assert_null(blocks_timer.list);
}

/* ---- spool ---- */

static char spool_byte(uint64_t at) { return (char)(at * 7 + at / 251); }

/* All of it, as an exchange reads it. */
static void
spool_check(struct spool *sp, uint64_t size)
{
	uint64_t at = 0;

	for (;;) {
		sp->src.fill(&sp->src);
		if (sp->src.in.n == 0)
			break;
		assert_int_equal(sp->src.in.off, HEADROOM);
		for (uint32_t i = 0; i < sp->src.in.n; i++, at++)
			if (buf_p(&sp->src.in)[i] != spool_byte(at))
				fail_msg("byte %llu of %llu is another", (unsigned long long)at,
				    (unsigned long long)size);
		buf_eat(&sp->src.in, sp->src.in.n);
	}
	assert_int_equal(sp->src.end, SOURCE_ENDED);
	assert_int_equal(at, size);
}

static void
test_spool(void **state)
{
	/* clang-format off */
	static const struct {
		size_t size, max, piece;
		bool file;
		const char *why;
	} rows[] = {
		{ 0, 100, 1, false, "empty" },
		{ 100, 100, 7, false, "just fits" },
		{ 101, 100, 7, true, "one byte more" },
		{ 10, 0, 3, true, "no memory at all" },
		{ SPOOL_START, 1 << 20, 1000, false, "first memory" },
		{ SPOOL_START + 1, 1 << 20, 1000, false, "grown" },
		{ 3 * RELAY_BYTES + 5, 1 << 20, RELAY_BYTES, false, "several pieces" },
		{ 3 * RELAY_BYTES + 5, RELAY_BYTES + 1, 10000, true, "memory and file" },
		{ 5000, 4097, 5000, true, "one piece over the edge" },
	};
	/* clang-format on */
	static char piece[RELAY_BYTES];

	(void)state;
	for (size_t i = 0; i < LEN(rows); i++) {
		struct spool *sp = spool_new();

		for (size_t at = 0; at < rows[i].size;) {
			size_t n = MIN(rows[i].piece, rows[i].size - at);
			for (size_t k = 0; k < n; k++)
				piece[k] = spool_byte(at + k);
			assert_int_equal(spool_add(sp, piece, n, rows[i].max), 0);
			at += n;
		}
		row_int(rows[i].why, S(""), "file", sp->fd >= 0, rows[i].file);
		row_int(rows[i].why, S(""), "size", (long long)sp->size, (long long)rows[i].size);
		if (sp->mem_cap > rows[i].max)
			row_bad(rows[i].why, S(""), "%zu bytes of memory", sp->mem_cap);
		spool_check(sp, rows[i].size);
		spool_rewind(sp); /* for another try */
		spool_check(sp, rows[i].size);
		spool_rewind(sp);
		spool_fill(&sp->src); /* given up in the middle */
		spool_free(sp);
	}
	spool_free(NULL);
	rows_end();
}

/* A source that pulls gives a piece a turn, however fast its taker is: in between
 * it is the others' turn. */
static void
test_pulls(void **state)
{
	enum { PIECES = 3 };
	static char text[PIECES * RELAY_BYTES], got[sizeof text + 1];
	struct spool sp = spool_of((struct slice){ text, sizeof text }, NULL);
	struct flow f = { 0 };
	struct chan to;
	bool ready = false;
	int sv[2], room = 2 * sizeof text;
	size_t n = 0;

	(void)state;
	for (size_t i = 0; i < sizeof text; i++)
		text[i] = spool_byte(i);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv), 0);
	assert_int_equal(setsockopt(sv[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof room), 0);
	chan_open(&to, sv[0], NULL);
	flow_begin(&f, &sp.src, BODY_LENGTH, sp.size);
	f.state = FLOW_ON;
	for (int turn = 1; turn <= PIECES; turn++) {
		assert_true(flow_owes(&f, &to));
		assert_int_equal(flow_relay(&f, &to, NULL, &ready),
		    turn < PIECES ? RELAY_WAIT : RELAY_DONE);
		n += (size_t)recv(sv[1], got + n, sizeof got - n, 0);
		assert_int_equal(n, turn * RELAY_BYTES);
	}
	assert_memory_equal(got, text, sizeof text);
	assert_false(ready);
	f.state = FLOW_DONE;
	assert_false(flow_owes(&f, &to));
	flow_end(&f);
	spool_drop(&sp);
	close(sv[0]);
	close(sv[1]);
}

/* ---- chunks that are sent ---- */

static void
test_frame(void **state)
{
	static const size_t sizes[] = { 1, 9, 15, 16, 255, 256, 4095, 4096, 65535, 65536 };

	(void)state;
	for (size_t i = 0; i < LEN(sizes); i++) {
		size_t n = sizes[i], content;
		char *room = malloc(HEADROOM + n + 2), *p = room + HEADROOM, *frame;
		char want[16];
		struct text t = { NULL, 0, 0, false };
		struct body b;

		memset(p, 'x', n);
		frame = chunk_frame(p, &n);
		snprintf(want, sizeof want, "%zx\r\n", sizes[i]);
		assert_true(frame >= room);
		assert_memory_equal(frame, want, strlen(want));
		assert_ptr_equal(frame + n, p + sizes[i] + 2);
		body_set(&b, BODY_CHUNKED, 0);
		assert_int_equal(chunk_decode(&b, frame, n, &content, &t), n);
		assert_int_equal(content, sizes[i]);
		assert_int_equal(b.chunk, CHUNK_SIZE);
		free(room);
	}
}

/* A frame fits into the room that is kept for it, whatever the size. */
static void
test_frame_room(void **state)
{
	char b[32];
	struct text t = { b, 0, sizeof b, false };

	(void)state;
	text_hex(&t, RELAY_BYTES, 1);
	assert_true(t.n + 2 <= HEADROOM);
	assert_true(2 <= TAILROOM);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_timers, timers_setup),
		cmocka_unit_test_setup(test_timer_set_again, timers_setup),
		cmocka_unit_test_setup(test_timer_keep, timers_setup),
		cmocka_unit_test_setup(test_timer_fires, timers_setup),
		cmocka_unit_test_setup(test_timer_lists_full, timers_setup),
		cmocka_unit_test_setup(test_timers_random, timers_setup),
		cmocka_unit_test_setup(test_rate, rate_setup),
		cmocka_unit_test_setup(test_rate_wait, rate_setup),
		cmocka_unit_test_setup(test_rate_turns, rate_setup),
		cmocka_unit_test(test_rate_no_turn),
		cmocka_unit_test_setup(test_rate_two_clocks, rate_setup),
		cmocka_unit_test(test_rate_lowered),
		cmocka_unit_test_setup(test_rate_cells, rate_setup),
		cmocka_unit_test(test_hash64),
		cmocka_unit_test(test_date),
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_slice_uint),
		cmocka_unit_test_setup(test_buf, blocks_setup),
		cmocka_unit_test_setup(test_buf_settle, blocks_setup),
		cmocka_unit_test_setup(test_blocks_kept, blocks_setup),
		cmocka_unit_test_setup(test_blocks_rest, blocks_setup),
		cmocka_unit_test_setup(test_spool, blocks_setup),
		cmocka_unit_test_setup(test_pulls, blocks_setup),
		cmocka_unit_test(test_frame),
		cmocka_unit_test(test_frame_room),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
