/* The access log: every format, whatever a client sends, and readers that are
 * slow, full or gone. And who may ask the admin for what. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include <setjmp.h>

#include <cmocka.h>

#define HEAD "GET /a?b=1 HTTP/1.1\r\nHost: shop.example\r\n"
#define NOON 971186136 /* 10/Oct/2000:13:55:36 +0000 */

static struct conf test_conf;
static struct board_worker counts;
static struct upstream up = { .name = "app" };
static struct instance inst = { .up = &up, .addr = { .text = "127.0.0.1:3000" } };
static struct route route = { .line = 7, .upstream = &up };
static int ends[2]; /* of the log: [0] is read by the test */

static void
log_close(void)
{
	if (access_log.sink.fd > STDERR_FILENO && access_log.sink.fd != ends[1])
		close(access_log.sink.fd);
	if (access_log.sink.buf)
		munmap(access_log.sink.buf, LOG_BUFFER);
	arena_free(&access_arena);
	memset(&access_log, 0, sizeof access_log);
	access_log.sink.fd = -1;
	access_on = false;
}

static void
log_open(const char *format, int fd)
{
	log_close();
	memset(&counts, 0, sizeof counts);
	test_conf.log.format = format;
	test_conf.log.access = (struct log_target){ .sink = SINK_FILE, .fd = fd };
	access_start(&test_conf, &counts.log_dropped);
	assert_true(access_on);
}

/* A log that is a file; what was written so far is its content. */
static void
file_log(const char *format)
{
	log_open(format, ends[1] = memfd_create("log", 0));
}

static struct slice
log_text(void)
{
	static char b[4 * LOG_BUFFER];
	ssize_t n;

	access_flush(true);
	n = pread(ends[1], b, sizeof b, 0);
	assert_true(n >= 0);
	return (struct slice){ b, (size_t)n };
}

static void
log_end(void)
{
	log_close();
	close(ends[1]);
}

/* A finished exchange with that request; false: it was no head. */
static bool
exchange_of(struct exchange *x, struct head *h, struct slice request)
{
	*x = (struct exchange){ .route = &route, .inst = &inst, .status = 200, .minor = 1,
		.start_us = now_us - 1234567, .up_start_us = now_us - 1200000, .up_us = 45678,
		.down.body.total = 42, .id = "id-1" };
	assert_true(ip_parse(S("203.0.113.7"), &x->client));
	if (request_parse(h, request) <= 0) {
		x->route = NULL;
		x->inst = NULL;
		x->up_start_us = 0;
		x->id[0] = '\0';
		x->status = 400;
		return false;
	}
	x->head_bytes = request;
	x->method_text = h->method_text;
	x->target = h->target;
	x->host = h->host;
	x->minor = (uint8_t)h->minor;
	return true;
}

static void
line_of(struct slice request)
{
	static struct head h;
	struct exchange x;
	bool good = exchange_of(&x, &h, request);

	access_line(&x, good ? &h : NULL);
}

static void
expect_line(const char *reason, const char *format, struct slice request, const char *want)
{
	struct slice got;

	file_log(format);
	line_of(request);
	got = log_text();
	if (!slice_eq(got, slice_of(want))) {
		print_error("%s\n--- got\n%.*s--- wanted\n%s", reason, (int)got.n, got.p, want);
		fail();
	}
	log_end();
}

/* ---- formats ---- */

static const struct {
	const char *reason, *format, *request, *want;
} formats[] = {
	{ "common", "common", HEAD "\r\n",
	  "203.0.113.7 - - [10/Oct/2000:13:55:36 +0000] \"GET /a?b=1 HTTP/1.1\" 200 42\n" },
	{ "combined", "combined", HEAD "Referer: http://x/\r\nUser-Agent: curl/8\r\n\r\n",
	  "203.0.113.7 - - [10/Oct/2000:13:55:36 +0000] \"GET /a?b=1 HTTP/1.1\" 200 42 "
	  "\"http://x/\" \"curl/8\"\n" },
	{ "combined, nothing said", "combined", HEAD "\r\n",
	  "203.0.113.7 - - [10/Oct/2000:13:55:36 +0000] \"GET /a?b=1 HTTP/1.1\" 200 42 \"-\" \"-\"\n" },
	{ "combined, user", "combined", HEAD "Authorization: Basic YW5uYTpwdw==\r\n\r\n",
	  "203.0.113.7 - anna [10/Oct/2000:13:55:36 +0000] \"GET /a?b=1 HTTP/1.1\" 200 42 \"-\" \"-\"\n" },
	{ "combined, no user", "combined", HEAD "Authorization: Basic YW5uYQ==\r\n\r\n",
	  "203.0.113.7 - - [10/Oct/2000:13:55:36 +0000] \"GET /a?b=1 HTTP/1.1\" 200 42 \"-\" \"-\"\n" },
	{ "combined, token", "combined", HEAD "Authorization: Bearer YW5uYTpwdw==\r\n\r\n",
	  "203.0.113.7 - - [10/Oct/2000:13:55:36 +0000] \"GET /a?b=1 HTTP/1.1\" 200 42 \"-\" \"-\"\n" },
	{ "combined, no head", "combined", "BAD\r\n\r\n",
	  "203.0.113.7 - - [10/Oct/2000:13:55:36 +0000] \"-\" 400 42 \"-\" \"-\"\n" },
	{ "HTTP/1.0, refused", "common", "POST * HTTP/1.0\r\n\r\n",
	  "203.0.113.7 - - [10/Oct/2000:13:55:36 +0000] \"-\" 400 42\n" },
	{ "HTTP/1.0, empty lines first", "common", "\r\nPUT /x HTTP/1.0\r\n\r\n",
	  "203.0.113.7 - - [10/Oct/2000:13:55:36 +0000] \"PUT /x HTTP/1.0\" 200 42\n" },
	{ "json", "json", HEAD "Referer: r\r\nUser-Agent: u\r\n\r\n",
	  "{\"time\":\"2000-10-10T13:55:36+00:00\",\"client\":\"203.0.113.7\",\"method\":\"GET\","
	  "\"uri\":\"/a?b=1\",\"host\":\"shop.example\",\"status\":200,\"bytes\":42,\"secs\":1.234,"
	  "\"upstream\":\"app\",\"instance\":\"127.0.0.1:3000\",\"upstream_secs\":0.045,"
	  "\"request_id\":\"id-1\",\"referer\":\"r\",\"user_agent\":\"u\",\"protocol\":\"HTTP/1.1\"}\n" },
	{ "json, no head", "json", "BAD\r\n\r\n",
	  "{\"time\":\"2000-10-10T13:55:36+00:00\",\"client\":\"203.0.113.7\",\"status\":400,"
	  "\"bytes\":42,\"secs\":1.234}\n" },
	{ "every variable", "$client|$method|$uri|$host|$status|$bytes|$secs|$upstream|$instance|"
	  "$upstream_secs|$request_id|$referer|$user_agent|$protocol|$time|$route|$http_x_a",
	  HEAD "X-A: 1\r\n\r\n", "203.0.113.7|GET|/a?b=1|shop.example|200|42|1.234|app|"
	  "127.0.0.1:3000|0.045|id-1|-|-|HTTP/1.1|10/Oct/2000:13:55:36 +0000|7|1\n" },
	{ "every variable, no head", "$client|$method|$uri|$host|$status|$bytes|$secs|$upstream|"
	  "$instance|$upstream_secs|$request_id|$referer|$user_agent|$protocol|$route|$http_x_a",
	  "BAD\r\n\r\n", "203.0.113.7|-|-|-|400|42|1.234|-|-|-|-|-|-|-|-|-\n" },
	{ "text around", "a $status$bytes, b.", HEAD "\r\n", "a 20042, b.\n" },
	{ "the first of two fields", "$http_cookie", HEAD "Cookie: a\r\nCookie: b\r\n\r\n", "a\n" },
	{ "a line cannot be forged", "$user_agent", HEAD "User-Agent: a\tb\"c\\d\xff\r\n\r\n",
	  "a\\x09b\\x22c\\x5Cd\\xFF\n" },
};

static void
test_formats(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(formats); i++)
		expect_line(formats[i].reason, formats[i].format, slice_of(formats[i].request),
		    formats[i].want);
}

/* A route's description, an answer of warp's own, a client of a unix socket. */
static void
test_absent(void **state)
{
	struct exchange x = { .status = 499, .start_us = now_us, .up_start_us = now_us - 2000 };

	(void)state;
	file_log("$client $status $secs $upstream $instance $upstream_secs $route");
	access_line(&x, NULL);
	x.route = &route;
	route.description = S("the shop");
	access_line(&x, NULL);
	route.description = S("");
	x.status = 0;
	x.start_us = now_us + 5; /* never below 0 */
	x.up_start_us = 0;
	access_line(&x, NULL);
	assert_true(slice_eq(log_text(), S("- 499 0.000 - - 0.002 -\n- 499 0.000 app - 0.002 the shop\n"
	    "- - 0.000 app - - 7\n")));
	log_end();
}

static void
test_time_zones(void **state)
{
	static const struct {
		const char *tz, *clf, *iso;
	} rows[] = {
		{ "UTC0", "10/Oct/2000:13:55:36 +0000", "2000-10-10T13:55:36+00:00" },
		{ "IST-5:30", "10/Oct/2000:19:25:36 +0530", "2000-10-10T19:25:36+05:30" },
		{ "NST3:30", "10/Oct/2000:10:25:36 -0330", "2000-10-10T10:25:36-03:30" },
	};

	(void)state;
	for (size_t i = 0; i < LEN(rows); i++) {
		setenv("TZ", rows[i].tz, 1);
		tzset();
		now_s--; /* what is kept is of that second only */
		time_text(false);
		now_s++;
		assert_true(slice_eq(time_text(false), slice_of(rows[i].clf)));
		assert_true(slice_eq(time_text(true), slice_of(rows[i].iso)));
	}
	setenv("TZ", "UTC0", 1);
	tzset();
	now_s--;
	time_text(false);
	now_s++;
}

/* ---- hostile values ---- */

/* One flat object with texts and numbers, ended by a line feed. */
static bool
json_is_good(struct slice s)
{
	const char *p = s.p, *end = s.p + s.n;
	bool text = false;

	if (s.n < 3 || *p++ != '{' || end[-1] != '\n' || end[-2] != '}')
		return false;
	for (end -= 2; p < end; p++) {
		unsigned char c = (unsigned char)*p;
		size_t n = utf8_length((const unsigned char *)p, (const unsigned char *)end);

		if (c < ' ' || n == 0)
			return false;
		if (c == '"')
			text = !text;
		else if (!text && !strchr(",:.0123456789", c))
			return false;
		if (c == '\\' && (end - p < 3 || !strchr("\"\\u", *++p)))
			return false;
		if (c == '\\' && *p == 'u' && (end - p < 6 || strspn(p + 1, "0123456789ABCDEF") < 4))
			return false;
		p += n - 1;
	}
	return !text;
}

static void
test_every_byte(void **state)
{
	static const char *const formats_of[] = { "json", "combined" };
	char b[] = "a?b"; /* ? is the byte */
	struct field f = { .name = S("User-Agent"), .id = F_USER_AGENT };
	struct head h = { .n = 1 };
	struct exchange x = { .status = 200, .start_us = now_us };

	(void)state;
	f.value = (struct slice){ b, 3 };
	h.f[0] = f;
	h.first[F_USER_AGENT] = 1;
	for (size_t k = 0; k < LEN(formats_of); k++)
		for (int c = 0; c < 256; c++) {
			struct slice got;
			b[1] = (char)c;
			file_log(formats_of[k]);
			access_line(&x, &h);
			got = log_text();
			assert_true(k == 1 || json_is_good(got));
			assert_ptr_equal(memchr(got.p, '\n', got.n), got.p + got.n - 1);
			for (size_t i = 0; i + 1 < got.n; i++)
				assert_true(got.p[i] >= ' ' && got.p[i] < 0x7f);
			log_end();
		}
}

static void
test_json_texts(void **state)
{
	static const struct {
		const char *reason, *value, *want;
	} rows[] = {
		{ "plain", "abc", "abc" },
		{ "quotes", "\"\\/", "\\\"\\\\/" },
		{ "UTF-8 stays", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80" },
		{ "cut UTF-8", "a\xe2\x82", "a\\u00E2\\u0082" },
		{ "overlong", "\xc0\xaf", "\\u00C0\\u00AF" },
		{ "a surrogate", "\xed\xa0\x80", "\\u00ED\\u00A0\\u0080" },
		{ "beyond Unicode", "\xf4\x90\x80\x80", "\\u00F4\\u0090\\u0080\\u0080" },
		{ "tab and DEL", "\t\x7f", "\\u0009\\u007F" },
	};

	(void)state;
	for (size_t i = 0; i < LEN(rows); i++) {
		char b[64];
		struct text t = { b, 0, sizeof b, false };
		text_json(&t, slice_of(rows[i].value), true);
		if (!slice_eq(text_slice(&t), slice_of(rows[i].want)))
			fail_msg("%s: %.*s", rows[i].reason, (int)t.n, t.p);
	}
}

static void
test_cut_short(void **state)
{
	static const char request[] = HEAD "Referer: \xc3\xa9\"\r\nUser-Agent: u\r\n"
	    "Authorization: Basic YW5uYTpwdw==\r\n\r\n";
	static const char *const all[] = { "json", "combined", "$request_id $http_referer" };

	(void)state;
	for (size_t k = 0; k < LEN(all); k++)
		for (size_t n = 0; n < sizeof request; n++) {
			char *copy = malloc(n ? n : 1); /* so that a sanitizer sees the end */
			struct slice got;
			memcpy(copy, request, n);
			file_log(all[k]);
			line_of((struct slice){ copy, n });
			got = log_text();
			assert_true(got.n > 0 && got.p[got.n - 1] == '\n');
			assert_true(k > 0 || json_is_good(got));
			log_end();
			free(copy);
		}
}

/* ---- readers ---- */

/* Waits until due, as the loop does. */
static void
turn(int64_t ms)
{
	struct pollfd p = { .fd = sink_waits(&access_log.sink), .events = POLLOUT };

	now_ms += ms;
	access_flush(false);
	if (p.fd >= 0 && poll(&p, 1, 0) > 0) /* as log_ready */
		access_flush(true);
}

static void
test_when_due(void **state)
{
	(void)state;
	file_log("$status");
	assert_int_equal(access_due_ms(), -1);
	line_of(S(HEAD "\r\n"));
	assert_int_equal(access_due_ms(), LOG_FLUSH_MS);
	turn(LOG_FLUSH_MS - 1);
	assert_int_equal(lseek(ends[1], 0, SEEK_END), 0);
	line_of(S(HEAD "\r\n")); /* does not put it off */
	assert_int_equal(access_due_ms(), 1);
	turn(1);
	assert_int_equal(lseek(ends[1], 0, SEEK_END), 8);
	assert_int_equal(access_due_ms(), -1);
	while (access_log.sink.n <= LOG_BUFFER / 2)
		line_of(S(HEAD "\r\n"));
	turn(0); /* much is written at once */
	assert_int_equal(access_log.sink.n, 0);
	log_end();
}

/* Reads what a pipe or socket holds. */
static size_t
drain(char *b, size_t cap)
{
	size_t n = 0;
	ssize_t got;

	while (n < cap && (got = recv(ends[0], b + n, cap - n, MSG_DONTWAIT)) != 0) {
		if (got < 0 && errno == ENOTSOCK)
			got = read(ends[0], b + n, cap - n);
		if (got <= 0)
			break;
		n += (size_t)got;
	}
	return n;
}

static void
line_numbered(unsigned i)
{
	char b[128];
	int n = snprintf(b, sizeof b, "GET /%u HTTP/1.1\r\nHost: a\r\n\r\n", i);

	line_of((struct slice){ b, (size_t)n });
}

/* The reader stops; what is lost is lost in whole lines, counted, and nothing
 * ever waits. When it reads again the rest comes, in order. */
static void
slow_reader(void)
{
	static char b[8 * LOG_BUFFER];
	unsigned made = 0, seen = 0, last = 0;
	struct slice rest, line;
	size_t n;

	while (wide_get(&counts.log_dropped) < 100) {
		line_numbered(++made);
		turn(1);
		assert_true(made < 1000000);
	}
	assert_int_equal(sink_waits(&access_log.sink), access_log.sink.fd);
	assert_int_equal(access_due_ms(), -1); /* the reader says when: no turn in vain */
	n = drain(b, sizeof b);
	for (int i = 0; i < 100; i++) {
		turn(LOG_RETRY_MS);
		n += drain(b + n, sizeof b - n);
	}
	assert_int_equal(access_due_ms(), -1);
	rest = (struct slice){ b, n };
	while (slice_cut(&rest, '\n', &line) && rest.p) {
		unsigned i = (unsigned)slice_uint(slice_from(line, 1), UINT32_MAX);
		assert_true(line.p[0] == '/' && i > last);
		last = i;
		seen++;
	}
	assert_int_equal(line.n, 0);
	assert_int_equal(seen + wide_get(&counts.log_dropped), made);
}

static void
test_slow_pipe(void **state)
{
	(void)state;
	assert_int_equal(pipe2(ends, O_NONBLOCK), 0);
	assert_int_equal(fcntl(ends[1], F_SETFL, 0), 0); /* the log's end may block */
	log_open("$uri", dup(ends[1]));
	slow_reader();
	log_close();
	close(ends[0]);
	close(ends[1]);
}

static void
test_slow_socket(void **state)
{
	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	log_open("$uri", dup(ends[1]));
	slow_reader();
	log_close();
	close(ends[0]);
	close(ends[1]);
}

/* Each write is whole lines and small enough not to be torn. */
static void
test_pieces(void **state)
{
	char b[2 * PIPE_BUF];
	unsigned lines = 0, records = 0;
	ssize_t n;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
	log_open("combined", dup(ends[1]));
	for (unsigned i = 0; i < 200; i++)
		line_numbered(i);
	access_flush(true);
	while ((n = recv(ends[0], b, sizeof b, MSG_DONTWAIT)) > 0) {
		assert_in_range(n, 1, SOCKET_PIECE);
		assert_int_equal(b[n - 1], '\n');
		for (ssize_t i = 0; i < n; i++)
			lines += b[i] == '\n';
		records++;
	}
	assert_int_equal(lines, 200);
	assert_in_range(records, 2, 20);
	log_close();
	close(ends[0]);
	close(ends[1]);
}

/* A line longer than a pipe takes at once has its values cut, and stays one
 * line and good JSON. */
static void
test_long_line(void **state)
{
	static char request[TARGET_MAX + 256], got[2 * PIPE_BUF];
	struct text t = { request, 0, sizeof request, false };
	size_t n;

	(void)state;
	text_str(&t, "GET /");
	while (t.n < TARGET_MAX)
		text_char(&t, '"');
	text_str(&t, " HTTP/1.1\r\nHost: a\r\n\r\n");
	assert_int_equal(pipe2(ends, O_NONBLOCK), 0);
	log_open("json", dup(ends[1]));
	line_of(text_slice(&t));
	if (wide_get(&counts.log_dropped) == 0) { /* such a target may be no request */
		access_flush(true);
		n = drain(got, sizeof got);
		assert_in_range(n, 100, PIPE_BUF);
		assert_true(json_is_good((struct slice){ got, n }));
	}
	log_close();
	log_open("$http_a", dup(ends[1])); /* fits in no way */
	access_log.line_max = 4;
	line_of(S(HEAD "A: 0123456789\r\n\r\n"));
	assert_int_equal(wide_get(&counts.log_dropped), 1);
	assert_int_equal(access_log.sink.n, 0);
	log_close();
	close(ends[0]);
	close(ends[1]);
}

/* A full disk: the lines wait, then they are dropped; nothing spins. */
static void
test_full_disk(void **state)
{
	(void)state;
	log_open("$uri", open("/dev/full", O_WRONLY));
	line_numbered(1);
	turn(LOG_FLUSH_MS);
	assert_int_equal(access_log.sink.n, 3);
	assert_int_equal(access_due_ms(), LOG_RETRY_MS);
	assert_int_equal(sink_waits(&access_log.sink), -1); /* poll would always say yes */
	for (unsigned i = 0; wide_get(&counts.log_dropped) == 0; i++)
		line_numbered(i);
	log_close();
}

static void
test_reader_gone(void **state)
{
	(void)state;
	signal(SIGPIPE, SIG_IGN); /* as in a worker */
	assert_int_equal(pipe(ends), 0);
	close(ends[0]);
	log_open("$uri", ends[1]);
	line_numbered(1);
	turn(LOG_FLUSH_MS);
	assert_true(access_log.sink.n > 0);
	assert_int_equal(access_due_ms(), LOG_RETRY_MS);
	assert_int_equal(sink_waits(&access_log.sink), -1); /* poll would always say yes */
	log_close();
	close(ends[1]);
}

static void
test_reopen(void **state)
{
	int first, second;
	char b[64];

	(void)state;
	log_open("$uri", dup(first = memfd_create("first", 0)));
	line_numbered(1);
	second = memfd_create("second", 0);
	access_fd(dup(second));
	line_numbered(2);
	access_flush(true);
	assert_int_equal(pread(first, b, sizeof b, 0), 3);
	assert_memory_equal(b, "/1\n", 3);
	assert_int_equal(pread(second, b, sizeof b, 0), 3);
	assert_memory_equal(b, "/2\n", 3);
	memcpy(access_log.sink.buf, "5\n/6\n", 5); /* the old one took "/" of it */
	access_log.sink.n = 5;
	close(access_log.sink.fd);
	access_log.sink.fd = open("/dev/full", O_WRONLY);
	access_log.sink.torn = true;
	access_fd(dup(second));
	access_flush(true);
	assert_int_equal(pread(second, b, sizeof b, 0), 6);
	assert_memory_equal(b, "/2\n/6\n", 6);
	log_close();
	close(first);
	close(second);
}

static void
test_off(void **state)
{
	(void)state;
	log_close();
	test_conf.log.access = (struct log_target){ .sink = SINK_OFF, .fd = -1 };
	access_start(&test_conf, &counts.log_dropped);
	assert_false(access_on);
	assert_null(access_log.sink.buf);
	assert_int_equal(access_due_ms(), -1);
	access_flush(true);
}

/* ---- admin ---- */

static struct admin_reply
ask(enum method method, const char *path, const char *query, bool is_unix, const char *token)
{
	struct admin_request rq = { .method = method, .path = slice_of(path), .query = slice_of(query),
		.is_unix = is_unix, .token = slice_of(token), .secret = test_conf.admin.token };
	struct admin_reply reply;

	admin_answer(&rq, &test_conf, &reply);
	return reply;
}

static const struct {
	const char *reason, *path, *token; /* asked by TCP; token NULL: unix */
	enum method method;
	int status;
	const char *want; /* text of the body, or the verb */
} asked[] = {
	{ "index", "/", NULL, M_GET, 200, "/metrics" },
	{ "health", "/health", NULL, M_GET, 200, "ok\n" },
	{ "HEAD", "/health", NULL, M_HEAD, 200, "ok\n" },
	{ "with token", "/health", "s3cret", M_GET, 200, "ok\n" },
	{ "unix needs none, and a wrong one is no harm", "/health", NULL, M_GET, 200, "ok\n" },
	{ "no token", "/health", "", M_GET, 401, "admin token" },
	{ "wrong token", "/health", "s3creT", M_GET, 401, "admin token" },
	{ "longer", "/health", "s3crets3cret", M_GET, 401, "admin token" },
	{ "who has no token does not learn what there is", "/nope", "x", M_GET, 401, "admin token" },
	{ "unknown", "/nope", NULL, M_GET, 404, "/status" },
	{ "longer path", "/healthy", NULL, M_GET, 404, "/status" },
	{ "below", "/reload/x", NULL, M_POST, 404, "/status" },
	{ "empty", "", NULL, M_GET, 404, "/status" },
	{ "asterisk", "*", NULL, M_OPTIONS, 404, "/status" },
	{ "verb by GET", "/reload", NULL, M_GET, 405, "POST /reload" },
	{ "POST of a page", "/status", NULL, M_POST, 405, "GET  /status" },
	{ "other method", "/status", NULL, M_DELETE, 405, "GET  /status" },
	{ "reload", "/reload", NULL, M_POST, 200, "reload" },
	{ "quit", "/quit", "s3cret", M_POST, 200, "quit" },
	{ "stop", "/stop", NULL, M_POST, 200, "stop" },
	{ "upgrade", "/upgrade", NULL, M_POST, 200, "upgrade" },
	{ "a name is missing", "/restart", NULL, M_POST, 400, "needs a name" },
	{ "an unknown name", "/restart/app", NULL, M_POST, 404, "no process 'app'" },
	{ "a purge without a cache", "/purge/app", NULL, M_POST, 404, "there is no cache" },
	{ "a purge by GET", "/purge/x", NULL, M_GET, 405, "wrong method" },
};

static void
test_admin_asks(void **state)
{
	(void)state;
	test_conf.admin.token = S("s3cret");
	for (size_t i = 0; i < LEN(asked); i++) {
		struct admin_reply r = ask(asked[i].method, asked[i].path, "", !asked[i].token,
		    asked[i].token);
		if (r.status != asked[i].status || !strstr(r.verb ? r.verb : r.body, asked[i].want))
			fail_msg("%s: %d %s", asked[i].reason, r.status, r.verb ? r.verb : r.body);
		assert_true(!r.verb || (!r.body && r.n == 0));
		assert_true(r.verb || strlen(r.body) == r.n);
		assert_int_equal(r.status == 405, r.extra && strstr(r.extra, "Allow: "));
		assert_int_equal(r.status == 401, r.extra && strstr(r.extra, "WWW-Authenticate: "));
		free(r.body);
	}
	test_conf.admin.token = S("");
	for (size_t i = 0; i < 2; i++) {
		struct admin_reply r = ask(M_GET, "/health", "", false, i ? "x" : "");
		assert_int_equal(r.status, 403);
		assert_non_null(strstr(r.body, "admin.token is not set"));
		free(r.body);
	}
}

/* Every number of /metrics is where it should be. */
static void
test_admin_numbers(void **state)
{
	static const char *const want[] = {
		"\nwarp_requests_total{code=\"aborted\"} 1\n", "\nwarp_requests_total{code=\"2xx\"} 22\n",
		"\nwarp_requests_total{code=\"5xx\"} 5\n", "\nwarp_accepted_total 12\n",
		"\nwarp_connections 3\n", "\nwarp_reloads_total 4\n", "\nwarp_log_dropped_total 9\n",
		"\nwarp_workers{state=\"ready\"} 1\n", "\nwarp_workers{state=\"draining\"} 1\n",
		"\nwarp_request_seconds_bucket{le=\"0.001\"} 1\n",
		"\nwarp_request_seconds_bucket{le=\"10\"} 11\n",
		"\nwarp_request_seconds_bucket{le=\"+Inf\"} 12\n",
		"\nwarp_request_seconds_sum 1.500000\n", "\nwarp_request_seconds_count 12\n",
		"\nwarp_instance_requests_total{upstream=\"app\",instance=\"a\\\"\\\\\"} 8\n",
		"\nwarp_instance_up{upstream=\"app\",instance=\"a\\\"\\\\\"} 0\n",
		"\nwarp_instance_in_flight{upstream=\"app\",instance=\"127.0.0.1:3000\"} 2\n",
	};
	static struct instance two[3];
	struct upstream u = { .name = "app", .balance = &balances[0], .instances = two, .n_instances = 3,
		.fail_ms = 2000 };
	struct admin_reply r;

	(void)state;
	for (int i = 0; i < 3; i++)
		two[i] = (struct instance){ .up = &u, .board = &board->instances[MIN(i, 1)],
			.addr = { .kind = ADDR_NAME, .text = i ? "a\"\\" : "127.0.0.1:3000" } };
	board->instances[0].in_flight = 2;
	board->instances[0].addrs.n = board->instances[1].addrs.n = 1;
	wide_set(&board->instances[1].requests, 8);
	board->instances[1].fails = 3;
	board->instances[1].open_until_ms = now_ms + 1500;
	board->reloads = 4;
	wide_set(&board->gone.codes[2], 20);
	wide_set(&board->gone.accepted, 5);
	wide_set(&board->gone.latency_us, 1000000);
	board->workers[0] = (struct board_worker){ .pid = 10, .state = WORKER_READY, .connections = 3,
		.accepted = { 7, 0 }, .codes = { { 1, 0 }, { 0, 0 }, { 2, 0 } }, .latency_us = { 500000, 0 },
		.log_dropped = { 9, 0 } };
	board->workers[5] = (struct board_worker){ .pid = 11, .state = WORKER_DRAINING,
		.codes = { [5] = { 5, 0 } } };
	for (size_t i = 0; i < LATENCY_BUCKETS; i++)
		wide_set(&board->workers[0].latency[i], 1);
	test_conf.upstreams = &u;
	test_conf.n_upstreams = 1;
	r = ask(M_GET, "/metrics", "", true, "");
	for (size_t i = 0; i < LEN(want); i++)
		if (!strstr(r.body, want[i]))
			fail_msg("no %s in\n%s", want[i], r.body);
	free(r.body);
	r = ask(M_GET, "/status", "", true, "");
	assert_non_null(strstr(r.body, "\"state\": \"failing\", \"why\": \"3 failures, tried again in 2 s\""));
	assert_non_null(strstr(r.body, "\"address\": \"a\\\"\\\\\""));
	assert_non_null(strstr(r.body, "\"requests\": 0,\n  \"accepted\": 12"));
	free(r.body);
	now_ms += 1500;
	r = ask(M_GET, "/status", "a=b&format=text", true, "");
	assert_string_equal(r.content_type, "text/plain; charset=utf-8");
	assert_non_null(strstr(r.body, " 3_failures,_the_next_request_decides\n"));
	free(r.body);
	test_conf.n_upstreams = 0;
	memset(board, 0, sizeof *board);
}

/* ---- */

static int
setup(void **state)
{
	(void)state;
	setenv("TZ", "UTC0", 1);
	tzset();
	now_s = NOON;
	now_ms = 1000000;
	now_us = now_ms * 1000;
	log_sink.fd = open("/dev/null", O_WRONLY); /* what it complains about is meant to be */
	board_open();
	return 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_formats),
		cmocka_unit_test(test_absent),
		cmocka_unit_test(test_time_zones),
		cmocka_unit_test(test_every_byte),
		cmocka_unit_test(test_json_texts),
		cmocka_unit_test(test_cut_short),
		cmocka_unit_test(test_when_due),
		cmocka_unit_test(test_slow_pipe),
		cmocka_unit_test(test_slow_socket),
		cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_long_line),
		cmocka_unit_test(test_full_disk),
		cmocka_unit_test(test_reader_gone),
		cmocka_unit_test(test_reopen),
		cmocka_unit_test(test_off),
		cmocka_unit_test(test_admin_asks),
		cmocka_unit_test(test_admin_numbers),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
