/* Lines on their way to readers that are slow, full, gone or torn from them,
 * and to the host's syslog. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include <sched.h>
#include <sys/mount.h>

#include "unit.h"

static char ring[4096];
static int ends[2];

static struct sink
sink_of(int fd)
{
	struct sink s = { .buf = ring, .cap = sizeof ring };

	sink_use(&s, fd, false);
	return s;
}

static void
add(struct sink *s, const char *line)
{
	sink_add(s, slice_of(line));
}

/* What came there, at most one datagram of a socket. */
static const char *
came(int fd)
{
	static char b[65536];
	ssize_t n = -1;

	if (fcntl(fd, F_SETFL, O_NONBLOCK) == 0)
		n = read(fd, b, sizeof b - 1);
	b[MAX(n, 0)] = '\0';
	return b;
}

/* Until it takes no more; how many bytes. */
static size_t
fill(int fd)
{
	int flags = fcntl(fd, F_GETFL);
	size_t n = 0;
	char b[4096];

	memset(b, '.', sizeof b);
	fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	for (size_t piece = sizeof b; piece > 0; piece /= 2)
		for (ssize_t put; (put = write(fd, b, piece)) > 0;)
			n += (size_t)put;
	fcntl(fd, F_SETFL, flags);
	return n;
}

static void
test_kinds(void **state)
{
	struct sink s;
	int fd;

	(void)state;
	assert_int_equal(pipe(ends), 0);
	assert_int_equal(sink_of(ends[1]).kind, SINK_STREAM);
	close(ends[0]);
	close(ends[1]);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	assert_int_equal(sink_of(ends[1]).kind, SINK_SOCKET);
	close(ends[0]);
	close(ends[1]);
	assert_true((fd = memfd_create("x", 0)) >= 0);
	assert_int_equal(sink_of(fd).kind, SINK_PLAIN);
	close(fd);
	s = sink_of(fd); /* closed */
	add(&s, "x\n");
	assert_false(sink_flush(&s));
	assert_int_equal(errno, EBADF);
}

/* A pipe of others, which may block: nobody waits, lines stay whole and in
 * order, what has no room is counted. */
static void
test_full_pipe(void **state)
{
	struct sink s;
	char line[32], want[32];
	unsigned n = 0;
	size_t full;
	FILE *f;

	(void)state;
	assert_int_equal(pipe(ends), 0);
	full = fill(ends[1]);
	s = sink_of(ends[1]);
	assert_int_equal(fcntl(ends[1], F_GETFL) & O_NONBLOCK, 0);
	assert_int_equal(sink_waits(&s), -1);
	while (s.lost < 5) {
		snprintf(line, sizeof line, "line %u\n", n++);
		add(&s, line);
		assert_true(sink_flush(&s));
	}
	assert_true(s.blocked && s.n <= s.cap && s.cap - s.n < sizeof line);
	assert_int_equal(sink_waits(&s), ends[1]);
	for (char b[4096]; full > 0;)
		full -= (size_t)read(ends[0], b, MIN(full, sizeof b));
	assert_true(sink_flush(&s));
	assert_int_equal(s.n, 0);
	assert_false(s.blocked || s.torn);
	assert_int_equal(sink_waits(&s), -1);
	close(ends[1]);
	assert_non_null(f = fdopen(ends[0], "r"));
	for (unsigned i = 0; i < n - 5; i++) {
		snprintf(want, sizeof want, "line %u\n", i);
		assert_non_null(fgets(line, sizeof line, f));
		assert_string_equal(line, want);
	}
	assert_null(fgets(line, sizeof line, f));
	fclose(f);
}

/* Each write is whole lines that do not mix with those of others. */
static void
test_pieces(void **state)
{
	static const struct { enum sink_kind kind; size_t max; } rows[] = {
		{ SINK_STREAM, PIPE_BUF }, { SINK_SOCKET, SOCKET_PIECE }, { SINK_PLAIN, SIZE_MAX },
	};
	static char b[3 * PIPE_BUF];

	(void)state;
	for (size_t i = 0; i < LEN(rows); i++) {
		struct sink s = { .kind = rows[i].kind };
		for (int round = 0; round < 200; round++) {
			struct slice rest = { b, 0 };
			while (rest.n < sizeof b - 300) {
				size_t n = 1 + dice(299);
				memset(b + rest.n, 'x', n);
				b[rest.n + n - 1] = '\n';
				rest.n += n;
			}
			while (rest.n > 0) {
				size_t n = sink_piece(&s, rest);
				assert_in_range(n, 1, MIN(rest.n, rows[i].max));
				assert_int_equal(rest.p[n - 1], '\n');
				assert_true(n == rest.n || n + 300 > MIN(rest.n, rows[i].max));
				rest = slice_from(rest, n);
			}
		}
		memset(b, 'x', sizeof b); /* no end in sight: as much as goes */
		assert_int_equal(sink_piece(&s, (struct slice){ b, sizeof b }), MIN(sizeof b, rows[i].max));
	}
	assert_int_equal(sink_piece(&(struct sink){ .kind = SINK_DGRAM }, S("6a\n6b\n")), 3);
}

/* A line that its reader has half of: another reader gets none of it. */
static void
test_torn(void **state)
{
	struct sink s;
	size_t full;
	int file;

	(void)state;
	signal(SIGPIPE, SIG_IGN);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	s = sink_of(ends[1]);
	add(&s, "first line\n");
	add(&s, "second\n");
	sink_eat(&s, 5); /* as if a socket had taken "first" */
	assert_true(s.torn);
	assert_int_equal(s.n, 13);
	full = fill(ends[1]);
	assert_true((file = memfd_create("x", 0)) >= 0);
	sink_move(&s, file, false);
	assert_false(s.torn || s.blocked);
	assert_true(sink_flush(&s));
	assert_int_equal(lseek(file, 0, SEEK_SET), 0);
	assert_string_equal(came(file), "second\n");

	sink_use(&s, ends[1], false); /* the same reader gets the rest */
	add(&s, "third line\n");
	sink_eat(&s, 5);
	assert_true(s.torn && sink_flush(&s) && s.blocked);
	for (char b[4096]; full > 0;)
		full -= (size_t)read(ends[0], b, MIN(full, sizeof b));
	assert_true(sink_flush(&s));
	assert_int_equal(s.n, 0);
	assert_false(s.torn || s.blocked);
	assert_string_equal(came(ends[0]), " line\n");
	close(file);
	close(ends[0]);
	close(ends[1]);
}

/* A line at a time, of any length, through a socket that takes what it likes. */
static void
test_slow_socket(void **state)
{
	static char sent[1 << 20], got[1 << 20];
	struct sink s;
	size_t n_sent = 0, n_got = 0;
	int small = 4096;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
	setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
	s = sink_of(ends[1]);
	for (int i = 0; i < 5000; i++) {
		char line[600];
		size_t n = 1 + dice(sizeof line - 1);
		uint64_t lost = s.lost;
		ssize_t r;

		memset(line, 'a' + i % 26, n);
		line[n - 1] = '\n';
		sink_add(&s, (struct slice){ line, n });
		if (s.lost == lost && n_sent + n <= sizeof sent) {
			memcpy(sent + n_sent, line, n);
			n_sent += n;
		} else if (s.lost == lost)
			break;
		assert_true(sink_flush(&s));
		if (dice(3) == 0 && (r = read(ends[0], got + n_got, MIN(dice(4000) + 1u, sizeof got - n_got))) > 0)
			n_got += (size_t)r;
	}
	for (ssize_t r = 1; r > 0;) {
		assert_true(sink_flush(&s));
		if ((r = read(ends[0], got + n_got, sizeof got - n_got)) > 0)
			n_got += (size_t)r;
	}
	assert_true(s.lost > 0 && n_got > 100000);
	assert_true(n_got <= n_sent + sizeof ring);
	assert_memory_equal(got, sent, MIN(n_got, n_sent));
	close(ends[0]);
	close(ends[1]);
}

static void
test_room(void **state)
{
	char b[8];
	struct sink s = { .buf = b, .cap = sizeof b };

	(void)state;
	add(&s, "123\n");
	add(&s, "45678\n");
	assert_int_equal(s.lost, 1);
	add(&s, "abc\n"); /* it fits exactly */
	add(&s, "\n");
	assert_int_equal(s.lost, 2);
	assert_memory_equal(b, "123\nabc\n", 8);
}

/* Somebody's file description is never switched; warp's own does not block. */
static void
test_own(void **state)
{
	int own;

	(void)state;
	assert_int_equal(pipe(ends), 0);
	own = stream_own(fcntl(ends[1], F_DUPFD_CLOEXEC, STDERR_FILENO + 1));
	assert_true(fcntl(own, F_GETFL) & O_NONBLOCK);
	assert_true(fcntl(own, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(fcntl(ends[1], F_GETFL) & O_NONBLOCK, 0);
	assert_int_equal(write(own, "x", 1), 1);
	assert_string_equal(came(ends[0]), "x");
	close(own);
	close(ends[0]);
	close(ends[1]);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	assert_int_equal(stream_own(ends[1]), ends[1]); /* nobody opens a socket anew */
	close(ends[0]);
	close(ends[1]);
}

static void
test_clean(void **state)
{
	char b[] = "a\tb\nc\x1b[2J\x7f\x80\xc3\xa4\r";

	(void)state;
	text_clean(b, sizeof b - 1);
	assert_string_equal(b, "a?b?c?[2J?\x80\xc3\xa4?");
}

/* ---- the end ---- */

/* A reader that comes back within the time gets all; another costs no more. */
static void
test_finish(void **state)
{
	static char other[256];
	struct sink s, t = { .kind = SINK_STREAM, .fd = -1, .buf = other, .cap = sizeof other };
	int64_t began;
	pid_t child;
	int status, slow[2];
	size_t full;

	(void)state;
	assert_int_equal(pipe(ends), 0);
	full = fill(ends[1]);
	s = sink_of(ends[1]);
	add(&s, "the last line\n");
	assert_true((child = fork()) >= 0);
	if (child == 0) {
		char b[65536], last[15] = "";
		close(ends[1]);
		poll(NULL, 0, 30);
		for (ssize_t n; full > 0 && (n = read(ends[0], b, MIN(full, sizeof b))) > 0;)
			full -= (size_t)n;
		_exit(read(ends[0], last, 14) == 14 && strcmp(last, "the last line\n") == 0 ? 7 : 1);
	}
	clock_turn();
	sinks_finish(&s, &t, 5000);
	assert_int_equal(s.n, 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(WEXITSTATUS(status), 7);
	assert_int_equal(pipe(slow), 0);
	fill(slow[1]);
	sink_use(&s, slow[1], false);
	add(&s, "nobody takes this\n");
	clock_turn();
	began = now_ms;
	sinks_finish(&s, &s, 50);
	clock_turn();
	assert_in_range(now_ms - began, 50, 1000);
	assert_true(s.n > 0);
	close(ends[0]);
	close(ends[1]);
	close(slow[0]);
	close(slow[1]);
}

/* ---- the host's syslog ---- */

/* A /dev of our own, where listener answers to SYSLOG_PATH. -1: not here. */
static int
syslog_listen(int type)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX, .sun_path = SYSLOG_PATH };
	int fd = socket(AF_UNIX, type | SOCK_NONBLOCK, 0);

	unlink(SYSLOG_PATH);
	assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof un), 0);
	if (type == SOCK_STREAM)
		assert_int_equal(listen(fd, 5), 0);
	return fd;
}

/* <PRI>Mmm dd hh:mm:ss warp[PID]: TEXT */
static void
expect_record(const char *record, int priority, const char *text)
{
	char start[16], pid[32];
	const char *at;

	snprintf(start, sizeof start, "<%d>", priority);
	snprintf(pid, sizeof pid, " warp[%d]: ", (int)getpid());
	if (strncmp(record, start, strlen(start)) != 0 || !(at = strstr(record, pid)) ||
	    strcmp(at + strlen(pid), text) != 0 || at != record + strlen(start) + 15)
		fail_msg("'%s', wanted <%d>...%s%s", record, priority, pid, text);
}

static void
in_own_dev(void)
{
	struct sink s = { .buf = ring, .cap = sizeof ring };
	static char line[3 * SYSLOG_LINE];
	const char *text;
	int host, conn;
	unsigned n = 0, seen = 0;

	sink_use(&s, -1, true); /* nobody listens: lost, not waited for */
	assert_int_equal(s.kind, SINK_DGRAM);
	add(&s, "6nobody\n");
	assert_true(sink_flush(&s));
	assert_int_equal(s.n, 0);
	assert_int_equal(s.lost, 1);
	assert_int_equal(sink_waits(&s), -1);

	host = syslog_listen(SOCK_DGRAM); /* the next line finds it */
	add(&s, "6one\n");
	add(&s, "3two\n");
	assert_true(sink_flush(&s));
	expect_record(came(host), SYSLOG_FACILITY * 8 + 6, "one");
	expect_record(came(host), SYSLOG_FACILITY * 8 + 3, "two");
	memset(line, 'x', sizeof line);
	line[0] = '4';
	line[sizeof line - 1] = '\n';
	sink_add(&s, (struct slice){ line, sizeof line });
	assert_true(sink_flush(&s));
	assert_int_equal(strlen(came(host)), SYSLOG_LINE - 1); /* cut */

	while (s.lost < 3 && n < 100000) { /* full: the lines wait, then are lost */
		snprintf(line, sizeof line, "6number %u\n", n++);
		add(&s, line);
		assert_true(sink_flush(&s));
	}
	assert_true(s.blocked);
	assert_int_equal(sink_waits(&s), syslog_fd);
	for (; *(text = came(host)); seen++) {
		snprintf(line, sizeof line, "number %u", seen);
		expect_record(text, SYSLOG_FACILITY * 8 + 6, line);
		assert_true(sink_flush(&s));
	}
	assert_int_equal(seen, n - 2); /* all but what the ring had no room for */

	close(host); /* the daemon is started anew */
	host = syslog_listen(SOCK_DGRAM);
	add(&s, "6again\n");
	assert_true(sink_flush(&s));
	expect_record(came(host), SYSLOG_FACILITY * 8 + 6, "again");
	assert_int_equal(s.lost, 3);

	close(host); /* one that takes a stream: a NUL ends each record */
	host = syslog_listen(SOCK_STREAM);
	add(&s, "6stream\n");
	add(&s, "5second\n");
	assert_true(sink_flush(&s));
	conn = accept(host, NULL, NULL);
	assert_true(conn >= 0);
	text = came(conn);
	expect_record(text, SYSLOG_FACILITY * 8 + 6, "stream");
	expect_record(text + strlen(text) + 1, SYSLOG_FACILITY * 8 + 5, "second");
	close(conn);
	close(host);
}

static void
test_syslog(void **state)
{
	pid_t child;
	int status;

	(void)state;
	if (geteuid() != 0)
		skip();
	assert_true((child = fork()) >= 0);
	if (child == 0) { /* with a /dev of its own */
		if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
		    mount("dev", "/dev", "tmpfs", 0, NULL) < 0)
			_exit(3);
		in_own_dev();
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 3)
		skip(); /* no mount namespaces here */
	assert_int_equal(WEXITSTATUS(status), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kinds),
		cmocka_unit_test(test_full_pipe),
		cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_torn),
		cmocka_unit_test(test_slow_socket),
		cmocka_unit_test(test_room),
		cmocka_unit_test(test_own),
		cmocka_unit_test(test_clean),
		cmocka_unit_test(test_finish),
		cmocka_unit_test(test_syslog),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
