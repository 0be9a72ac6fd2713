/* When a certificate is due, and what is read of a CA's answers. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "unit.h"

#define DAY  ((int64_t)DAY_S)
#define HOUR ((int64_t)HOUR_S)
#define NOW  1795000000 /* some day after BUILD_DATE */

/* clang-format off */
static const struct {
	struct renew_facts f;
	int64_t at;
	const char *why;
} dues[] = {
	{ { 0, 0, 0, 0, 0 }, 0, "no certificate: at once" },
	{ { NOW, NOW, 0, 0, 0 }, 0, "no lifetime" },
	{ { NOW, NOW - 1, 0, 0, 0 }, 0, "it ends before it begins" },
	{ { NOW, NOW + 90 * DAY, 0, 0, 0 }, NOW + 60 * DAY, "90 days: 30 left" },
	{ { NOW, NOW + 90 * DAY, 0, 0, 59 }, NOW + 60 * DAY + 59, "jitter" },
	{ { NOW, NOW + 90 * DAY, 0, 0, UINT32_MAX }, NOW + 60 * DAY + UINT32_MAX % HOUR, "at most an hour" },
	{ { NOW, NOW + 6 * DAY, 0, 0, 0 }, NOW + 4 * DAY, "6 days: 2 left" },
	{ { NOW, NOW + 60, 0, 0, UINT32_MAX }, NOW + 40, "60 s: 20 left, no jitter" },
	{ { NOW, NOW + DAY, 0, 0, 77 }, NOW + 16 * HOUR, "a day: no jitter" },
	{ { NOW - 80 * DAY, NOW + 10 * DAY, 0, 0, 0 }, NOW - 20 * DAY, "long due" },
	{ { NOW, NOW + 90 * DAY, NOW + 50 * DAY, NOW + 51 * DAY, 0 }, NOW + 50 * DAY, "the CA's window: its start" },
	{ { NOW, NOW + 90 * DAY, NOW + 50 * DAY, NOW + 50 * DAY + 10, 25 }, NOW + 50 * DAY + 5, "somewhere in it" },
	{ { NOW, NOW + 90 * DAY, NOW - DAY, NOW - DAY + 9, 3 }, NOW - DAY + 3, "over: at once" },
	{ { NOW, NOW + 90 * DAY, NOW + 70 * DAY, NOW + 70 * DAY + 1, 0 }, NOW + 70 * DAY, "later than we would" },
	{ { NOW, NOW + 90 * DAY, NOW + 89 * DAY, NOW + 90 * DAY, 0 }, NOW + 75 * DAY, "not at the last moment" },
	{ { NOW, NOW + 90 * DAY, NOW + 9, NOW + 9, 0 }, NOW + 60 * DAY, "an empty window is none" },
	{ { NOW, NOW + 90 * DAY, NOW + 9, NOW + 8, 0 }, NOW + 60 * DAY, "nor one that ends first" },
};

static const struct {
	struct slice text;
	int64_t s;
	const char *why;
} times[] = {
	{ T("2026-11-21T00:00:00Z"), 1795219200, "UTC" },
	{ T("2026-11-21t00:00:00z"), 1795219200, "small letters are as good" },
	{ T("2026-11-21T01:30:00+01:30"), 1795219200, "east" },
	{ T("2026-11-20T16:00:00-08:00"), 1795219200, "west" },
	{ T("2026-11-21T00:00:00.123456789Z"), 1795219200, "a fraction" },
	{ T("2026-11-21T00:00:00.5+00:00"), 1795219200, "a fraction and an offset" },
	{ T("1970-01-01T00:00:00Z"), 0, "the beginning" },
	{ T("2026-11-21T00:00:00"), -1, "no zone" },
	{ T("2026-11-21"), -1, "no time" },
	{ T("2026-13-21T00:00:00Z"), -1, "no month" },
	{ T("2026-11-21T00:00:00Zx"), -1, "something behind" },
	{ T("2026-11-21T00:00:00+1:00"), -1, "short offset" },
	{ T("2026-11-21T00:00:00+01:000"), -1, "long offset" },
	{ T("2026-11-21T00:00:00+ab:cd"), -1, "no offset" },
	{ T(""), -1, "nothing" },
};

static const struct {
	struct slice text;
	int64_t s;
	const char *why;
} retries[] = {
	{ T(""), -1, "not said" },
	{ T("0"), 0, "at once" },
	{ T("120"), 120, "seconds" },
	{ T("999999999"), ACME_RETRY_MAX_S, "more than is obeyed" },
	{ T("99999999999999999999"), -1, "no number" },
	{ T("-5"), -1, "negative" },
	{ T("1.5"), -1, "a fraction" },
	{ T("Sat, 21 Nov 2026 00:00:30 GMT"), 30, "a date" },
	{ T("Fri, 20 Nov 2026 00:00:00 GMT"), 0, "a date that is over" },
	{ T("Sat, 21 Nov 2036 00:00:00 GMT"), ACME_RETRY_MAX_S, "in ten years" },
	{ T("Sat, 21 Nov 2026 00:00:30 CET"), -1, "no GMT" },
	{ T("soon"), -1, "a word" },
};

static const struct {
	struct slice url;
	const char *host, *port, *authority, *path; /* host NULL: refused */
	const char *why;
} places[] = {
	{ T("https://ca.example/dir"), "ca.example", "443", "ca.example", "/dir", "plain" },
	{ T("https://ca.example:14000/a/b?c=d"), "ca.example", "14000", "ca.example:14000", "/a/b?c=d", "port and query" },
	{ T("https://ca.example"), "ca.example", "443", "ca.example", "/", "no path" },
	{ T("https://[::1]:8/x"), "::1", "8", "[::1]:8", "/x", "IPv6" },
	{ T("http://ca.example/"), NULL, NULL, NULL, NULL, "http" },
	{ T("/dir"), NULL, NULL, NULL, NULL, "relative" },
	{ T(""), NULL, NULL, NULL, NULL, "nothing" },
	{ T("https:///dir"), NULL, NULL, NULL, NULL, "no host" },
	{ T("https://:443/dir"), NULL, NULL, NULL, NULL, "a port alone" },
	{ T("https://a:70000/"), NULL, NULL, NULL, NULL, "no port" },
	{ T("https://a:b/"), NULL, NULL, NULL, NULL, "letters as port" },
	{ T("https://u@a/"), NULL, NULL, NULL, NULL, "a user" },
	{ T("https://a/ HTTP/1.1"), NULL, NULL, NULL, NULL, "blanks" },
	{ T("https://a/\r\nHost: b"), NULL, NULL, NULL, NULL, "line break" },
	{ T("https://a/\xc3\xa4"), NULL, NULL, NULL, NULL, "no ASCII" },
	{ T("https://[::1/"), NULL, NULL, NULL, NULL, "open bracket" },
};
/* clang-format on */

static struct arena arena;

static void
test_due(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(dues); i++)
		row_int(dues[i].why, S("certificate"), "due", renew_at(&dues[i].f), dues[i].at);
	rows_end();
}

/* Let's Encrypt takes five failures an hour for each name: a sixth has to wait until the first is forgotten. */
static void
test_backoff(void **state)
{
	enum { TRIES = 24, AN_HOUR = 5 };
	int64_t at[TRIES] = { 0 }, wait = 0;

	(void)state;
	for (size_t i = 1; i < TRIES; i++) {
		wait = renew_backoff(wait);
		at[i] = at[i - 1] + wait;
		row_int("not at once, never later than in an hour", S("failure"), "wait",
		    wait >= SECOND_MS && wait <= HOUR_S * SECOND_MS, 1);
		row_int("five failures an hour", S("failure"), "spread",
		    i < AN_HOUR || at[i] - at[i - AN_HOUR] >= HOUR_S * SECOND_MS, 1);
	}
	rows_end();
}

/* A certificate that is due as soon as it is there, as when the clock is ahead, is no reason to ask all the time. */
static void
test_due_again(void **state)
{
	enum { TRIES = 4, SOON = 5000 };
	struct slice name = S("a.example"), secret, leaf;
	struct tls_conf t = { .domains = { &name, 1 } };
	struct cert_set none = { 0 };
	int64_t wait = 0;

	(void)state;
	if (!board)
		board_open();
	log_level = LOG_LVL_ERROR;
	t.set = &none;
	rn.t = &t;
	assert_null(file_read(&arena, "tests/unit/certs/ec.key", RENEW_RESULT_MAX, &secret));
	assert_null(file_read(&arena, "tests/unit/certs/ec.pem", RENEW_RESULT_MAX, &leaf));
	for (int i = 0; i <= TRIES; i++) {
		now_s = (time_t)(i < TRIES ? NOW + 36004 * DAY : NOW);
		wait = i < TRIES ? renew_backoff(wait) : SOON;
		rn.pem = slice_of(arena_fmt(&rn.kept, "%.*s%.*s", (int)secret.n, secret.p, (int)leaf.n, leaf.p));
		renew_saved(&arena);
		row_int(i < TRIES ? "due already" : "not due", S("certificate"), "wait", rn.again_ms - now_ms, wait);
		row_int("said", S("certificate"), "next", board->acme.next_s, i < TRIES ? (uint32_t)(now_s + wait / SECOND_MS) : 0);
	}
	/* it came while the clock was ahead of its end; now that is right */
	rn = (struct renew){ .t = &t, .pem = slice_of(arena_fmt(&arena, "%.*s%.*s", (int)secret.n, secret.p, (int)leaf.n, leaf.p)) };
	now_s = (time_t)(NOW + 36004 * DAY);
	renew_saved(&arena);
	now_s = (time_t)clock_built_s();
	rn.look_ms = rn.again_ms = 0;
	rn.ask_ms = INT64_MAX;
	renew_start();
	row_int("the clock is set right", S("certificate"), "due", board->acme.next_s > now_s, true);
	rn = (struct renew){ 0 };
	arena_free(&arena);
	rows_end();
}

/* A CA may date back by more than the certificate is good for: what counts is when it came. And while that is in use,
 * failures are followed by a next try before its end. */
static void
test_short_lived(void **state)
{
	enum { LIVES = 600, BACK = 3600 };
	struct slice name = S("a.example"), secret, leaf;
	struct cert c = { .origin = CERT_ACME, .names = { &name, 1 } };
	struct cert_set have = { .v = &c, .n = 1 };
	struct tls_conf t = { .domains = { &name, 1 }, .set = &have };
	int tries = 0;

	(void)state;
	if (!board)
		board_open();
	log_level = LOG_LVL_ERROR;
	assert_null(file_read(&arena, "tests/unit/certs/ec.key", RENEW_RESULT_MAX, &secret));
	assert_null(file_read(&arena, "tests/unit/certs/ec.pem", RENEW_RESULT_MAX, &leaf));
	rn = (struct renew){ .t = &t, .pem = slice_of(arena_fmt(&arena, "%.*s%.*s", (int)secret.n, secret.p,
	    (int)leaf.n, leaf.p)) };
	clock_turn();
	c.until_s = 4905665105; /* as the file says */
	c.from_s = c.until_s - LIVES - BACK;
	now_s = (time_t)(c.until_s - LIVES);
	renew_saved(&arena);
	row_int("came now", S("certificate"), "not due", rn.wait_ms, 0);
	rn.look_ms = rn.again_ms = 0;
	rn.ask_ms = INT64_MAX;
	renew_start();
	row_int("came now", S("certificate"), "due", board->acme.next_s - (uint32_t)now_s, LIVES * 2 / 3);
	now_s += LIVES * 2 / 3;
	for (; now_s < c.until_s; tries++) {
		renew_failed("no CA", "", -1);
		now_s += (time_t)((rn.again_ms - now_ms) / SECOND_MS);
	}
	row_int("before its end", S("failures"), "tries", tries >= 4 && tries <= 8, true);
	rn.other_ca = true;
	for (int i = 0; i < 24; i++)
		renew_failed("no CA", "", -1);
	row_int("of another CA", S("failures"), "wait", rn.again_ms - now_ms >= ACME_RETRY_MOST_MS, true);
	rn = (struct renew){ 0 };
	arena_free(&arena);
	rows_end();
}

static void
test_times(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(times); i++)
		row_int(times[i].why, times[i].text, "time", acme_time(times[i].text), times[i].s);
	for (size_t i = 0; i < LEN(retries); i++) {
		struct slice in = exact(retries[i].text);
		row_int(retries[i].why, in, "wait", acme_retry(in, 1795219200), retries[i].s);
		exact_free(in);
	}
	rows_end();
}

/* Before it the clock is wrong, and that is said once. */
static void
test_clock(void **state)
{
	(void)state;
	assert_true(clock_built_s() > 1795000000 && clock_built_s() % DAY_S == 0);
	if (!board)
		board_open();
	log_level = LOG_LVL_ERROR;
	now_s = 0;
	assert_false(renew_clock_is_right());
	assert_true(rn.clock_said);
	assert_string_equal(board->acme.why.s, "this host's clock is wrong");
	now_s = (time_t)clock_built_s();
	assert_true(renew_clock_is_right());
	assert_false(rn.clock_said);
}

static void
test_places(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(places); i++) {
		struct slice in = exact(places[i].url);
		struct acme_place to;
		bool good = acme_place(&arena, in, &to);
		row_int(places[i].why, in, "verdict", good, places[i].host != NULL);
		if (good && places[i].host) {
			row_slice(places[i].why, in, "host", slice_of(to.host), slice_of(places[i].host));
			row_slice(places[i].why, in, "port", slice_of(to.port), slice_of(places[i].port));
			row_slice(places[i].why, in, "Host", slice_of(to.authority),
			    slice_of(places[i].authority));
			row_slice(places[i].why, in, "path", to.path, slice_of(places[i].path));
		}
		exact_free(in);
	}
	arena_free(&arena);
	rows_end();
}

/* A CA that never stops talking is too late as well. */
static void
test_deadline(void **state)
{
	char room[8];
	struct acme j = { .why = "", .host = "ca", .in = { room, 0, sizeof room, false } };
	int life[2], sv[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, life), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv), 0);
	assert_int_equal(send(sv[1], "1234", 4, 0), 4);
	chan_open(&j.ca.ch, sv[0], NULL);
	j.ca.life = life[0];
	clock_turn();
	j.ca.by_ms = now_ms + MINUTE_S * SECOND_MS;
	row_int("in time", S("CA"), "bytes", acme_recv(&j), 4);
	assert_int_equal(send(sv[1], "1234", 4, 0), 4);
	j.ca.by_ms = now_ms - 1;
	j.ca.within_ms = ACME_REQUEST_MS;
	row_int("too late", S("CA"), "bytes", acme_recv(&j), -1);
	row_slice("too late", S("CA"), "why", slice_of(j.why), S("ca does not answer: it takes more than 30 s"));
	chan_close(&j.ca.ch);
	close(sv[1]);
	close(life[0]);
	close(life[1]);
	arena_free(&j.arena);
	rows_end();
}

/* RFC 9773 4.1 */
static void
test_cert_id(void **state)
{
	static const char key[] = "\x69\x88\x5b\x6b\x87\x46\x40\x41\xe1\xb3\x7b\x84\x7b\xa0\xae\x2c"
	    "\xde\x01\xc8\xd4";
	struct cert c = { .issuer_id = { key, 20 }, .serial = { "\x00\x87\x65\x43\x21", 5 } };

	(void)state;
	row_slice("the example", S("certificate"), "id", acme_cert_id(&arena, &c),
	    S("aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"));
	c.issuer_id.n = 0;
	row_slice("no authority key", S("certificate"), "id", acme_cert_id(&arena, &c), S(""));
	row_slice("no certificate", S(""), "id", acme_cert_id(&arena, NULL), S(""));
	arena_free(&arena);
	rows_end();
}

/* A file is what it was, or new as a whole. */
static void
test_files(void **state)
{
	char dir[] = "/tmp/warp-acme-XXXXXX";
	const char *deep, *path;
	struct slice text;
	struct stat st;

	(void)state;
	assert_non_null(mkdtemp(dir));
	deep = arena_fmt(&arena, "%s/a/b", dir);
	path = arena_fmt(&arena, "%s/k", deep);
	assert_null(acme_dir_make(&arena, deep));
	assert_null(acme_dir_make(&arena, deep));
	assert_int_equal(stat(deep, &st), 0);
	assert_int_equal(st.st_mode & 0777, RENEW_DIR_MODE);
	assert_null(acme_dir_try(&arena, deep));
	assert_null(file_replace(&arena, deep, "k", S("one")));
	assert_null(file_replace(&arena, deep, "k", S("two")));
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, RENEW_FILE_MODE);
	assert_null(file_read(&arena, path, 9, &text));
	row_slice("the second", S("k"), "text", text, S("two"));
	assert_non_null(file_replace(&arena, path, "k", S("three"))); /* that is a file */
	assert_non_null(acme_dir_make(&arena, path));
	assert_non_null(acme_dir_try(&arena, path));
	assert_null(account_load(&arena, deep));
	text = jwk_text(&arena, &rn.account);
	memset(rn.x, 0, sizeof rn.x);
	assert_null(account_load(&arena, deep));
	row_slice("from its file", S("account.key"), "key", jwk_text(&arena, &rn.account), text);
	unlink(arena_fmt(&arena, "%s/account.key", deep));
	unlink(path);
	rmdir(deep);
	rmdir(arena_fmt(&arena, "%s/a", dir));
	assert_int_equal(rmdir(dir), 0); /* nothing was left behind */
	arena_free(&arena);
	rows_end();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_due),
		cmocka_unit_test(test_backoff),
		cmocka_unit_test(test_due_again),
		cmocka_unit_test(test_short_lived),
		cmocka_unit_test(test_times),
		cmocka_unit_test(test_clock),
		cmocka_unit_test(test_places),
		cmocka_unit_test(test_deadline),
		cmocka_unit_test(test_cert_id),
		cmocka_unit_test(test_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
