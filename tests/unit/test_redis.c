/* The way to Redis, on a real loop: a redis-server that the test starts, and impostors that
 * say nothing, or the wrong thing, or stop in the middle. Whatever they do, who asks is
 * answered once and in time. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "unit.h"

enum { TIMEOUT_MS = 300, PATIENCE_MS = 5000, OBJECT_MAX = 1 << 20 };

static char dir[] = "/tmp/warp-redis-XXXXXX";
static struct conf *cf;
static int log_fd;
static const char *ca;      /* trusted instead of the system's; NULL: those */
static uint16_t name_port;  /* names are at 127.0.0.1 and this; 0: nowhere */

/* ---- the worker ---- */

static uint64_t
counted(enum redis_count what)
{
	return wide_get(&me->redis[what]);
}

static bool
state_is(int state)
{
	return redis.state == (enum redis_state)state;
}

/* Turns until is(what); false: not in time. */
static bool
turns_until(bool (*is)(int), int what, int ms)
{
	int64_t end;

	clock_turn();
	for (end = now_ms + ms; !is(what) && now_ms < end; )
		loop_turn(5);
	return is(what);
}

static bool
never(int unused)
{
	(void)unused;
	return false;
}

static void
turns_for(int ms)
{
	turns_until(never, 0, ms);
}

/* Connects to url, without waiting. */
static void
begin(const char *url, unsigned timeout_ms)
{
	char file[64];
	FILE *f;

	snprintf(file, sizeof file, "%s/warp.toml", dir);
	assert_non_null(f = fopen(file, "w"));
	fprintf(f, "[cache]\nmax_object_bytes = %d\nredis_timeout_ms = %u\nredis_url = \"%s\"\n"
	    "[[routes]]\nrespond = { status = 200 }\n", OBJECT_MAX, timeout_ms, url);
	assert_int_equal(fclose(f), 0);
	cf = conf_load(file);
	if (cf->diags.errors > 0)
		diags_print(&cf->diags, stderr);
	assert_int_equal(cf->diags.errors, 0);
	assert_int_equal(board_attach(cf), 0);
	resolve_fixed(cf);
	if (ca)
		assert_null(trust_load(&cf->arena, ca, &cf->cache.redis_at->up->tls.trust));
	if (name_port) {
		union sock at = { .in = { .sin_family = AF_INET, .sin_port = htons(name_port),
			.sin_addr.s_addr = htonl(INADDR_LOOPBACK) } };
		socklen_t n = sizeof at.in;
		board_addrs_set(cf->cache.redis_at->board, &at, &n, 1);
	}
	memset(me, 0, sizeof *me);
	memset(&redis, 0, sizeof redis);
	assert_int_equal(ftruncate(log_fd, 0), 0);
	lseek(log_fd, 0, SEEK_SET);
	clock_turn();
	redis_open(&cf->cache);
}

static void
end(void)
{
	struct redis_sweep *s;

	redis_pause(0);
	timer_clear(&redis.timer);
	timer_clear(&redis.sweep_timer);
	while ((s = sweep_first())) {
		link_drop(&s->link);
		free(s);
	}
	redis.n_sweeps = 0;
	assert_in_range(ledger.held, 0, OBJECT_MAX / 2); /* blocks that are kept */
	assert_int_equal(me->upstream_connections, 0);
	conf_free(cf);
}

/* How often the log says so. */
static int
log_says(const char *what)
{
	static char text[65536];
	ssize_t n = pread(log_fd, text, sizeof text - 1, 0);
	int times = 0;

	text[MAX(n, 0)] = '\0';
	for (const char *p = text; (p = strstr(p, what)); p++)
		times++;
	return times;
}

/* ---- who asks ---- */

struct caller {
	int calls;
	bool hit;
	char *value;
	size_t n;
	struct caller *other; /* forgotten when this one is answered */
	bool asks_again;
};

static int pending;

static void
caller_done(void *arg, struct slice value)
{
	struct caller *c = arg;
	bool again = c->asks_again;

	pending--;
	c->calls++;
	c->hit = value.p != NULL;
	free(c->value);
	c->value = NULL;
	if (value.p) {
		assert_true(ledger.held > value.n); /* on the account of memory_bytes */
		c->value = malloc(value.n + 1);
		memcpy(c->value, value.p, value.n);
	}
	c->n = value.n;
	if (c->other) {
		redis_forget(c->other);
		pending--;
	}
	c->asks_again = false;
	if (again && redis_get(S("again"), caller_done, c))
		pending++;
}

static bool
ask(struct caller *c, const char *key)
{
	bool good = redis_get(slice_of(key), caller_done, c);

	pending += good;
	return good;
}

static bool
none_pending(int unused)
{
	(void)unused;
	return pending == 0;
}

/* Asks for key, and waits: its value, or NULL. One at a time. */
static const char *
got(const char *key)
{
	static struct caller c;

	free(c.value);
	c = (struct caller){ 0 };
	if (!ask(&c, key))
		return NULL;
	assert_true(turns_until(none_pending, 0, PATIENCE_MS));
	assert_int_equal(c.calls, 1);
	if (c.hit)
		c.value[c.n] = '\0';
	return c.hit ? c.value : NULL;
}

static bool
put_parts(struct slice key, const struct slice *parts, int n, uint32_t secs)
{
	struct text *t;
	size_t all = 0;

	for (int i = 0; i < n; i++)
		all += parts[i].n;
	if (!(t = redis_set(key, all, secs)))
		return false;
	for (int i = 0; i < n; i++)
		text_add(t, parts[i]);
	redis_set_end(true);
	return true;
}

static bool
put(const char *key, const char *value, uint32_t secs)
{
	struct slice parts[] = { slice_of(value) };

	return put_parts(slice_of(key), parts, 1, secs);
}

static bool
all_answered(int unused)
{
	(void)unused;
	return redis.n == 0;
}

static bool
stored_is(int n)
{
	return counted(REDIS_STORED) >= (uint64_t)n;
}

static bool
deleted_is(int n)
{
	return counted(REDIS_DELETED) >= (uint64_t)n;
}

static bool
sweeps_are_over(int unused)
{
	(void)unused;
	return redis.n_sweeps == 0 && redis.n == 0;
}

/* ---- redis-server ---- */

static pid_t server;
static uint16_t port;

static uint16_t
port_free(int *fd_out)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t n = sizeof in;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof in), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &n), 0);
	if (fd_out)
		*fd_out = fd;
	else
		close(fd);
	return ntohs(in.sin_port);
}

/* A blocking connection to port; -1: refused. */
static int
call(void)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
		.sin_port = htons(port) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct timeval limit = { .tv_sec = 5 };

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	if (connect(fd, (struct sockaddr *)&in, sizeof in) == 0)
		return fd;
	close(fd);
	return -1;
}

/* Says a line to the server, in its inline form; its answer's first bytes. */
static const char *
said(const char *auth, const char *line)
{
	static char b[4096];
	int fd = call();
	ssize_t n;

	assert_true(fd >= 0);
	if (auth) {
		dprintf(fd, "AUTH %s\r\n", auth);
		assert_true(recv(fd, b, 5, MSG_WAITALL) == 5 && b[0] == '+');
	}
	dprintf(fd, "%s\r\n", line);
	n = recv(fd, b, sizeof b - 1, 0);
	b[MAX(n, 0)] = '\0';
	close(fd);
	return b;
}

/* Starts a redis-server at port with more arguments, separated by blanks. */
static void
server_start(const char *more)
{
	char text[512], *argv[40], number[8];
	int n = 0, fd = -1;

	if (!port)
		port = port_free(NULL);
	snprintf(number, sizeof number, "%u", port);
	snprintf(text, sizeof text, "redis-server --port %s --bind 127.0.0.1 --appendonly no "
	    "--loglevel warning --dir %s %s", number, dir, more);
	for (char *p = strtok(text, " "); p; p = strtok(NULL, " "))
		argv[n++] = p;
	argv[n++] = (char *)(uintptr_t)"--save";
	argv[n++] = (char *)(uintptr_t)"";
	argv[n] = NULL;
	if ((server = fork()) == 0) {
		int null = open("/dev/null", O_RDWR);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(null, STDOUT_FILENO);
		execvp(argv[0], argv);
		_exit(127);
	}
	for (int i = 0; i < 500 && (fd = call()) < 0; i++)
		usleep(10000);
	assert_true(fd >= 0);
	close(fd);
}

static void
server_stop(void)
{
	if (server > 0) {
		kill(server, SIGCONT);
		kill(server, SIGKILL);
		waitpid(server, NULL, 0);
	}
	server = 0;
}

static void
url_begin(const char *before, const char *after)
{
	char url[128];

	snprintf(url, sizeof url, "redis://%s127.0.0.1:%u%s", before, port, after);
	begin(url, TIMEOUT_MS);
}

/* ---- with a real one ---- */

static void
test_get_set(void **state)
{
	char big[] = "\0\r\n$-1\r\n";
	struct slice parts[] = { { big, 1 }, { big + 1, sizeof big - 2 } };
	static struct caller c;

	(void)state;
	server_start("");
	url_begin("", "");
	if (state_is(REDIS_DIALLING))
		assert_false(ask(&c, "a")); /* not yet */
	assert_true(turns_until(state_is, REDIS_GREETING, PATIENCE_MS));
	assert_true(ask(&c, "a")); /* sent with the greeting */
	assert_true(turns_until(none_pending, 0, PATIENCE_MS));
	assert_true(state_is(REDIS_READY) && c.calls == 1 && !c.hit);
	me->redis[REDIS_MISSES] = (struct wide){ 0 };
	assert_int_equal(log_says(" is used"), 1);
	assert_null(got("a"));
	assert_int_equal(counted(REDIS_MISSES), 1);
	assert_true(put("a", "one", 10));
	assert_string_equal(got("a"), "one"); /* right behind it */
	assert_int_equal(counted(REDIS_STORED), 1);
	assert_int_equal(counted(REDIS_HITS), 1);
	assert_true(put("empty", "", 10));
	assert_string_equal(got("empty"), "");
	assert_true(put_parts(S("b"), parts, 2, 10));
	assert_true(ask(&c, "b"));
	assert_true(turns_until(none_pending, 0, PATIENCE_MS));
	assert_true(c.hit && c.n == sizeof big - 1 && memcmp(c.value, big, c.n) == 0);
	assert_false(put("a", "x", 0)); /* lives less than a second */
	assert_true(strncmp(said(NULL, "TTL a"), ":", 1) == 0);
	assert_in_range(atoi(said(NULL, "TTL a") + 1), 8, 10);
	assert_non_null(redis_set(S("a"), 3, 10)); /* not stored after all */
	text_str(&redis.c.out, "tw");
	redis_set_end(false);
	assert_non_null(redis_set(S("a"), 3, 10)); /* not all of it came */
	text_str(&redis.c.out, "tw");
	redis_set_end(true);
	assert_string_equal(got("a"), "one");
	redis_delete(S("a"));
	assert_null(got("a"));
	assert_int_equal(counted(REDIS_DELETED), 1);
	said(NULL, "LPUSH list x");
	assert_null(got("list")); /* WRONGTYPE is a miss, and said once */
	assert_null(got("list"));
	assert_true(state_is(REDIS_READY));
	assert_int_equal(counted(REDIS_ERRORS), 2);
	assert_int_equal(log_says("refuses GET: WRONGTYPE"), 1);
	assert_string_equal(got("empty"), "");
	free(c.value);
	c.value = NULL;
	end();
	server_stop();
}

/* Many at once, answered in order; more than fit are bypassed. */
static void
test_pipeline(void **state)
{
	static struct caller c[REDIS_QUEUE + 10];
	char key[16];
	int good = 0;

	(void)state;
	server_start("");
	url_begin("", "");
	assert_true(turns_until(state_is, REDIS_READY, PATIENCE_MS));
	for (size_t i = 0; i < REDIS_QUEUE; i += 2) {
		snprintf(key, sizeof key, "k%zu", i);
		assert_true(put(key, key, 100));
	}
	assert_true(turns_until(stored_is, REDIS_QUEUE / 2, PATIENCE_MS));
	c[4].asks_again = true;
	c[6].other = &c[7];
	for (size_t i = 0; i < LEN(c); i++) {
		snprintf(key, sizeof key, "k%zu", i);
		good += ask(&c[i], key);
	}
	assert_int_equal(good, REDIS_QUEUE);
	assert_int_equal(counted(REDIS_BYPASSED), 10);
	redis_forget(&c[10]);
	pending--;
	assert_true(turns_until(none_pending, 0, PATIENCE_MS));
	for (size_t i = 0; i < LEN(c); i++) {
		snprintf(key, sizeof key, "k%zu", i);
		assert_int_equal(c[i].calls, i == 7 || i == 10 || i >= REDIS_QUEUE ? 0 : i == 4 ? 2 : 1);
		if (c[i].calls == 1 && i % 2 == 0)
			assert_true(c[i].hit && c[i].n == strlen(key) && memcmp(c[i].value, key, c[i].n) == 0);
		else
			assert_false(c[i].hit);
		free(c[i].value);
	}
	end();
	server_stop();
}

/* The largest value, through a socket that takes little at once. */
static void
test_large(void **state)
{
	static char body[OBJECT_MAX + REDIS_VALUE_MORE + 1], key[600];
	static struct caller c;
	struct slice parts[300];
	int n = 0, small = 4096;

	(void)state;
	server_start("");
	url_begin("", "");
	assert_true(turns_until(state_is, REDIS_READY, PATIENCE_MS));
	setsockopt(redis.c.up->s.ch.w.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
	for (size_t i = 0; i < sizeof body; i++)
		body[i] = (char)dice(256);
	for (size_t at = 0; at < sizeof body - 1; n++) {
		parts[n] = (struct slice){ body + at, MIN(sizeof body - 1 - at, 4000u) };
		at += parts[n].n;
	}
	memset(key, 'k', REDIS_KEY_MAX);
	assert_true(put_parts(slice_of(key), parts, n, 10));
	assert_true(redis.c.out.n > 0);
	assert_true(put("small", "x", 10) == false); /* too much waits */
	assert_false(ask(&c, "small"));
	assert_true(turns_until(stored_is, 1, PATIENCE_MS));
	assert_int_equal(redis.c.out.n, 0);
	assert_null(redis.c.out.p);
	assert_true(ask(&c, key));
	assert_true(turns_until(none_pending, 0, PATIENCE_MS));
	assert_true(c.hit && c.n == sizeof body - 1 && memcmp(c.value, body, c.n) == 0);
	parts[0] = (struct slice){ body, sizeof body };
	assert_false(put_parts(S("larger"), parts, 1, 10));
	said(NULL, "SETRANGE larger 1200000 x"); /* by somebody else: too large for us */
	assert_null(got("larger"));
	assert_true(turns_until(state_is, REDIS_RESTING, PATIENCE_MS));
	assert_int_equal(log_says("malformed or too large"), 1);
	free(c.value);
	c.value = NULL;
	end();
	server_stop();
}

static void
test_passwords(void **state)
{
	(void)state;
	server_start("--requirepass p@ss --databases 4");
	url_begin(":p%40ss@", "/3");
	assert_true(turns_until(state_is, REDIS_READY, PATIENCE_MS));
	assert_true(put("in3", "x", 10));
	assert_string_equal(got("in3"), "x");
	assert_true(strstr(said("p@ss", "INFO keyspace"), "db3:keys=1") != NULL);
	end();
	url_begin("default:p%40ss@", "");
	assert_true(turns_until(state_is, REDIS_READY, PATIENCE_MS));
	assert_null(got("in3")); /* database 0 */
	end();
	url_begin(":secret@", "");
	assert_true(turns_until(state_is, REDIS_RESTING, PATIENCE_MS));
	assert_int_equal(log_says("it refuses AUTH: WRONGPASS"), 1);
	turns_for(1500); /* tried again, said once */
	assert_int_equal(log_says("it refuses AUTH: WRONGPASS"), 1);
	assert_true(redis.rest_ms > REDIS_REST_MS);
	assert_int_equal(log_says("secret"), 0);
	end();
	url_begin("", "");
	assert_true(turns_until(state_is, REDIS_RESTING, PATIENCE_MS));
	assert_int_equal(log_says("it refuses PING: NOAUTH"), 1);
	end();
	url_begin(":p%40ss@", "/4");
	assert_true(turns_until(state_is, REDIS_RESTING, PATIENCE_MS));
	assert_int_equal(log_says("it refuses SELECT: ERR DB index"), 1);
	end();
	server_stop();
	server_start(""); /* wants no password */
	url_begin(":secret@", "");
	assert_true(turns_until(state_is, REDIS_RESTING, PATIENCE_MS));
	assert_int_equal(log_says("it refuses AUTH: ERR"), 1);
	assert_int_equal(log_says("secret"), 0);
	end();
	server_stop();
	server_start("--rename-command AUTH x"); /* repeats what it does not know */
	url_begin(":secret@", "");
	assert_true(turns_until(state_is, REDIS_RESTING, PATIENCE_MS));
	assert_int_equal(log_says("it refuses AUTH: ERR unknown command"), 1);
	assert_int_equal(log_says("secret"), 0);
	end();
	server_stop();
}

static void
test_unix(void **state)
{
	char more[128], url[128];

	(void)state;
	snprintf(more, sizeof more, "--unixsocket %s/s --requirepass pw", dir);
	server_start(more);
	snprintf(url, sizeof url, "redis://:pw@%%2F%s%%2Fs/1", dir + 1);
	for (char *p = url + 15; (p = strchr(p, '/')) && p < url + strlen(url) - 2; p++)
		memmove(p + 3, p + 1, strlen(p)), memcpy(p, "%2F", 3);
	begin(url, TIMEOUT_MS);
	assert_true(turns_until(state_is, REDIS_READY, PATIENCE_MS));
	assert_true(put("a", "b", 1));
	assert_string_equal(got("a"), "b");
	end();
	snprintf(url, sizeof url, "unix:%s/s", dir);
	begin(url, TIMEOUT_MS);
	assert_true(turns_until(state_is, REDIS_RESTING, PATIENCE_MS));
	assert_int_equal(log_says("NOAUTH"), 1);
	end();
	snprintf(url, sizeof url, "unix:%s/nobody", dir);
	begin(url, TIMEOUT_MS);
	assert_true(turns_until(state_is, REDIS_RESTING, PATIENCE_MS));
	assert_int_equal(log_says("connect: No such file"), 1);
	end();
	server_stop();
}

/* Full, and loading: those commands are misses, the connection stays. */
static void
test_full(void **state)
{
	static char body[200000];
	struct slice parts[] = { { body, sizeof body } };
	char key[16];
	size_t i;

	(void)state;
	memset(body, 'x', sizeof body);
	server_start("--maxmemory 2mb --maxmemory-policy noeviction");
	url_begin("", "");
	assert_true(turns_until(state_is, REDIS_READY, PATIENCE_MS));
	for (i = 0; i < 30 && counted(REDIS_ERRORS) < 2; i++) {
		snprintf(key, sizeof key, "k%zu", i);
		assert_true(put_parts(slice_of(key), parts, 1, 100));
		assert_true(turns_until(all_answered, 0, PATIENCE_MS));
	}
	assert_int_equal(counted(REDIS_ERRORS), 2);
	assert_int_equal(log_says("refuses SET: OOM"), 1);
	assert_true(state_is(REDIS_READY));
	assert_non_null(got("k0")); /* reading goes on */
	end();
	server_stop();
}

/* Killed in the middle, and back again. */
static void
test_killed(void **state)
{
	static struct caller c[5];

	(void)state;
	server_start("");
	url_begin("", "");
	assert_true(turns_until(state_is, REDIS_READY, PATIENCE_MS));
	assert_true(put("a", "b", 10));
	assert_string_equal(got("a"), "b");
	kill(server, SIGSTOP);
	for (size_t i = 0; i < LEN(c); i++)
		assert_true(ask(&c[i], "a"));
	turns_for(20);
	kill(server, SIGKILL);
	assert_true(turns_until(none_pending, 0, 1000));
	for (size_t i = 0; i < LEN(c); i++)
		assert_true(c[i].calls == 1 && !c[i].hit);
	assert_true(turns_until(state_is, REDIS_RESTING, 1000));
	assert_int_equal(log_says("is not used for now"), 1);
	assert_false(ask(&c[0], "a"));
	turns_for(2500);
	assert_true(counted(REDIS_BYPASSED) > 0);
	server_stop();
	server_start("");
	assert_true(turns_until(state_is, REDIS_READY, 2 * PATIENCE_MS));
	assert_int_equal(log_says("is not used for now"), 1);
	assert_int_equal(log_says("is used"), 2);
	assert_null(got("a"));
	end();
	server_stop();
}

/* Stalled: each waits no longer than its time; three in a row, and nobody waits any more. The
 * late answers of one stall are discarded in order. */
static void
test_stalled(void **state)
{
	static struct caller c;
	int64_t began;

	(void)state;
	server_start("");
	url_begin("", "");
	assert_true(turns_until(state_is, REDIS_READY, PATIENCE_MS));
	assert_true(put("a", "A", 100) && put("b", "B", 100));
	assert_string_equal(got("b"), "B");
	kill(server, SIGSTOP);
	began = now_ms;
	assert_null(got("a"));
	assert_in_range(now_ms - began, TIMEOUT_MS, TIMEOUT_MS + 200);
	assert_true(state_is(REDIS_READY));
	assert_true(ask(&c, "b"));
	kill(server, SIGCONT);
	assert_true(turns_until(none_pending, 0, PATIENCE_MS));
	assert_true(c.hit && c.value[0] == 'B'); /* not a's */
	assert_int_equal(redis.c.late, 0);
	assert_int_equal(counted(REDIS_TIMEOUTS), 1);
	kill(server, SIGSTOP);
	for (int i = 0; i < REDIS_LATE_MAX; i++) { /* two each time: they count once */
		static struct caller d;
		assert_true(ask(&c, "a") && ask(&d, "a"));
		assert_true(turns_until(none_pending, 0, PATIENCE_MS));
		assert_false(c.hit || d.hit);
	}
	assert_true(state_is(REDIS_RESTING));
	assert_int_equal(log_says("late 3 times in a row"), 1);
	assert_false(ask(&c, "a"));
	kill(server, SIGCONT);
	assert_true(turns_until(state_is, REDIS_READY, PATIENCE_MS));
	assert_string_equal(got("a"), "A");
	free(c.value);
	c.value = NULL;
	end();
	server_stop();
}

static bool
path_is(struct slice key, struct slice text)
{
	return slice_starts(key, S("http://h")) && memmem(key.p, key.n, text.p, text.n) != NULL &&
	    !slice_ends(key, S("-not"));
}

/* Purges: by pattern, checked again; keys of others stay; DEL in batches; escaped text. */
static void
test_sweeps(void **state)
{
	char key[64];
	int fd, n = 0;
	char ok[5];

	(void)state;
	server_start("");
	fd = call();
	for (int i = 0; i < 2000; i++) {
		dprintf(fd, "SET warp:1:http://h%d/a*[b]%d x\r\n", i % 3, i);
		dprintf(fd, "SET warp:1:http://h%d/axxb%d x\r\n", i % 3, i);
	}
	dprintf(fd, "SET warp:1:http://h/a*[b]-not x\r\nSET other:/a*[b]1 x\r\nSET warp:2:http://h/a*[b] x\r\n");
	for (; n < 4003 && recv(fd, ok, 5, MSG_WAITALL) == 5; n++)
		;
	assert_int_equal(n, 4003);
	close(fd);
	url_begin("", "");
	redis_sweep(S("/a*[b]"), path_is); /* before it is connected */
	assert_true(turns_until(state_is, REDIS_READY, PATIENCE_MS));
	assert_int_equal(redis.n_sweeps, 1);
	assert_true(turns_until(sweeps_are_over, 0, PATIENCE_MS));
	assert_int_equal(counted(REDIS_DELETED), 2000);
	assert_string_equal(said(NULL, "DBSIZE"), ":2003\r\n");
	assert_string_equal(said(NULL, "EXISTS warp:1:http://h/a*[b]-not other:/a*[b]1 warp:2:http://h/a*[b]"), ":3\r\n");
	for (int i = 0; i < 3 * REDIS_SWEEPS; i++) { /* too many: the last deletes all */
		snprintf(key, sizeof key, "/nothing/%d", i);
		redis_sweep(slice_of(key), path_is);
	}
	assert_int_equal(redis.n_sweeps, REDIS_SWEEPS);
	assert_true(turns_until(sweeps_are_over, 0, PATIENCE_MS));
	assert_string_equal(said(NULL, "DBSIZE"), ":2\r\n");
	end();
	server_stop();
}

/* What is purged while Redis is away goes when it is back; a DEL without room is not lost. */
static void
test_sweeps_late(void **state)
{
	static struct caller c[REDIS_QUEUE];

	(void)state;
	server_start("");
	said(NULL, "SET warp:1:http://h/a x");
	said(NULL, "SET warp:1:http://h/ab x");
	url_begin("", "");
	redis_delete(S("warp:1:http://h/a"));
	assert_int_equal(redis.n_sweeps, 1);
	assert_true(turns_until(state_is, REDIS_READY, PATIENCE_MS));
	assert_true(turns_until(sweeps_are_over, 0, PATIENCE_MS));
	assert_string_equal(said(NULL, "EXISTS warp:1:http://h/a warp:1:http://h/ab"), ":1\r\n");
	for (size_t i = 0; i < REDIS_QUEUE; i++)
		assert_true(ask(&c[i], "a"));
	redis_delete(S("warp:1:http://h/ab")); /* no room: SCAN, again and again */
	assert_int_equal(redis.n_sweeps, 1);
	assert_true(redis.sweep_timer.list);
	assert_true(turns_until(sweeps_are_over, 0, PATIENCE_MS));
	assert_string_equal(said(NULL, "DBSIZE"), ":0\r\n");
	for (int i = 0; i < 150; i++) {
		char line[64];
		snprintf(line, sizeof line, "SET warp:1:http://h/ab%d x", i);
		said(NULL, line);
	}
	redis_sweep(S("/ab"), NULL);
	assert_true(redis.c.scanning);
	for (size_t i = 0; i < REDIS_QUEUE - 1; i++) /* SCAN is answered while all is full */
		assert_true(ask(&c[i], "a"));
	while (redis.c.scanning)
		loop_turn(5);
	assert_true(redis.sweep_timer.list); /* once more */
	assert_true(turns_until(sweeps_are_over, 0, PATIENCE_MS));
	assert_true(none_pending(0));
	assert_string_equal(said(NULL, "DBSIZE"), ":0\r\n");
	end();
	server_stop();
}

/* TLS: the certificate is verified; the name in it counts. */
static void
test_tls(void **state)
{
	static char body[300000];
	static struct caller c;
	struct slice parts[] = { { body, sizeof body } };
	char cert[64], more[512], url[128];

	(void)state;
	snprintf(cert, sizeof cert, "%s/cert.pem", dir);
	snprintf(more, sizeof more, "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 "
	    "-nodes -keyout %s/key.pem -out %s -days 100 -subj /CN=redis.test "
	    "-addext subjectAltName=DNS:redis.test 2>/dev/null", dir, cert);
	assert_int_equal(system(more), 0);
	port = name_port = port_free(NULL);
	snprintf(more, sizeof more, "--port 0 --tls-port %u --tls-cert-file %s --tls-key-file %s/key.pem "
	    "--tls-ca-cert-file %s --tls-auth-clients no --requirepass pw", port, cert, dir, cert);
	server_start(more);
	ca = cert;
	snprintf(url, sizeof url, "rediss://:pw@redis.test:%u", port);
	for (int i = 0; i < 2; i++) { /* the second time resumed or not */
		begin(url, TIMEOUT_MS);
		assert_true(turns_until(state_is, REDIS_READY, PATIENCE_MS));
		for (size_t k = 0; k < sizeof body; k++)
			body[k] = (char)dice(256);
		assert_true(put_parts(S("big"), parts, 1, 10));
		assert_true(turns_until(stored_is, 1, PATIENCE_MS));
		assert_true(ask(&c, "big"));
		assert_true(turns_until(none_pending, 0, PATIENCE_MS));
		assert_true(c.hit && c.n == sizeof body && memcmp(c.value, body, c.n) == 0);
		assert_true(put("a", "b", 10));
		assert_string_equal(got("a"), "b");
		end();
	}
	free(c.value);
	snprintf(url, sizeof url, "rediss://:pw@other.test:%u", port);
	begin(url, TIMEOUT_MS);
	assert_true(turns_until(state_is, REDIS_RESTING, PATIENCE_MS));
	assert_int_equal(log_says("TLS: its certificate is for redis.test, not for other.test"), 1);
	end();
	ca = NULL;
	snprintf(url, sizeof url, "rediss://:pw@redis.test:%u", port);
	begin(url, TIMEOUT_MS);
	assert_true(turns_until(state_is, REDIS_RESTING, PATIENCE_MS));
	assert_int_equal(log_says("TLS: its certificate is not trusted"), 1);
	end();
	server_stop();
	server_start("");
	begin(url, TIMEOUT_MS);
	assert_true(turns_until(state_is, REDIS_RESTING, REDIS_SHAKE_MS + 1000));
	assert_int_equal(log_says("is not used for now: no TLS handshake"), 1);
	end();
	server_stop();
	name_port = 0;
	unlink(cert);
	snprintf(cert, sizeof cert, "%s/key.pem", dir);
	unlink(cert);
}

/* ---- impostors ---- */

static pid_t fake;
static int fake_fd = -1;

/* A process that accepts at port, one connection after another, and does talk. */
static void
fake_start(void (*talk)(int fd))
{
	port = port_free(&fake_fd);
	assert_int_equal(listen(fake_fd, 16), 0);
	if ((fake = fork()) == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		signal(SIGPIPE, SIG_IGN);
		for (int fd; (fd = accept(fake_fd, NULL, NULL)) >= 0; close(fd))
			talk(fd);
		_exit(0);
	}
	close(fake_fd);
}

static void
fake_stop(void)
{
	kill(fake, SIGKILL);
	waitpid(fake, NULL, 0);
	port = 0;
}

static void
say(int fd, const char *text)
{
	if (write(fd, text, strlen(text)) < 0)
		_exit(1);
}

/* Reads one request. */
static void
hear(int fd)
{
	char b[4096];

	if (read(fd, b, sizeof b) <= 0)
		return;
}

static void
greet(int fd)
{
	hear(fd);
	say(fd, "+PONG\r\n");
}

static void
talk_nothing(int fd)
{
	char b[256];

	while (read(fd, b, sizeof b) > 0)
		;
}

static void
talk_hangs_up(int fd)
{
	(void)fd;
}

static void
talk_http(int fd)
{
	hear(fd);
	say(fd, "HTTP/1.1 400 Bad Request\r\n\r\n");
}

static void
talk_unasked(int fd)
{
	greet(fd);
	say(fd, "+more\r\n");
	talk_nothing(fd);
}

static void
talk_huge(int fd)
{
	greet(fd);
	hear(fd);
	say(fd, "$999999999999\r\nxxx");
	talk_nothing(fd);
}

static void
talk_other_type(int fd)
{
	greet(fd);
	hear(fd);
	say(fd, ":1\r\n");
	talk_nothing(fd);
}

static void
talk_half(int fd)
{
	greet(fd);
	hear(fd);
	say(fd, "$10\r\nabc");
}

static void
talk_trickle(int fd)
{
	greet(fd);
	hear(fd);
	say(fd, "$1000000\r\n");
	for (int i = 0; i < 1000; i++) {
		say(fd, "x");
		usleep(10000);
	}
}

static void
talk_bytewise(int fd)
{
	static const char text[] = "$3\r\nabc\r\n$0\r\n\r\n$-1\r\n-LOADING x\r\n$2\r\nok\r\n";

	greet(fd);
	hear(fd);
	for (const char *p = text; *p; p++) {
		usleep(1000);
		if (write(fd, p, 1) < 0)
			return;
	}
	talk_nothing(fd);
}

static void
talk_loading(int fd)
{
	hear(fd);
	say(fd, "-LOADING Redis is loading the dataset in memory\r\n");
	for (int i = 0; i < 3; i++) {
		hear(fd);
		say(fd, "-LOADING Redis is loading the dataset in memory\r\n");
	}
	talk_nothing(fd);
}

static void
talk_full(int fd)
{
	say(fd, "-ERR max number of clients reached\r\n");
	hear(fd);
}

static void
talk_deletes_many(int fd)
{
	greet(fd);
	hear(fd);
	say(fd, ":9223372036854775807\r\n");
	talk_nothing(fd);
}

static void
talk_scan(int fd)
{
	char key[REDIS_KEY_MAX + 2], b[REDIS_KEY_MAX + 64];

	memset(key, 'k', sizeof key - 1);
	key[sizeof key - 1] = '\0';
	memcpy(key, REDIS_PREFIX, 7);
	greet(fd);
	hear(fd);
	say(fd, "*2\r\n$25\r\n1844674407370955161512345\r\n*3\r\n$0\r\n\r\n$6\r\nwarp:1\r\n");
	snprintf(b, sizeof b, "$%zu\r\n%s\r\n", strlen(key), key);
	say(fd, b);
	hear(fd);
	say(fd, "*2\r\n$1\r\n0\r\n*-1\r\n");
	talk_nothing(fd);
}

/* What becomes of a question to each. */
static const struct {
	void (*talk)(int);
	bool ready;        /* it is greeted */
	const char *log;   /* how it ends */
} fakes[] = {
	{ talk_nothing, false, "it does not answer" },
	{ talk_hangs_up, false, "it closed the connection" },
	{ talk_http, false, "malformed" },
	{ talk_full, false, "it refuses PING: ERR max number of clients reached" },
	{ talk_huge, true, "malformed or too large" },
	{ talk_other_type, true, "it answers what was not asked" },
	{ talk_half, true, "it closed the connection" },
};

static void
test_impostors(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(fakes); i++) {
		fake_start(fakes[i].talk);
		url_begin("", "");
		if (fakes[i].ready) {
			assert_true(turns_until(state_is, REDIS_READY, PATIENCE_MS));
			assert_null(got("a"));
		}
		if (!turns_until(state_is, REDIS_RESTING, PATIENCE_MS) || log_says(fakes[i].log) != 1)
			row_bad(fakes[i].log, S("impostor"), "state %d", (int)redis.state);
		if (log_says("is not used for now") != 1)
			row_bad(fakes[i].log, S("impostor"), "said %d times", log_says("is not used for now"));
		end();
		fake_stop();
	}
	rows_end();
}

static void
test_unasked(void **state)
{
	(void)state;
	fake_start(talk_unasked);
	url_begin("", "");
	assert_true(turns_until(state_is, REDIS_RESTING, PATIENCE_MS));
	assert_int_equal(log_says("it answers what was not asked"), 1);
	end();
	fake_stop();
}

/* A value that comes byte by byte and never ends is a miss in time. */
static void
test_trickle(void **state)
{
	int64_t began;

	(void)state;
	fake_start(talk_trickle);
	url_begin("", "");
	assert_true(turns_until(state_is, REDIS_READY, PATIENCE_MS));
	began = now_ms;
	assert_null(got("a"));
	assert_in_range(now_ms - began, TIMEOUT_MS, TIMEOUT_MS + 200);
	assert_null(got("a"));
	assert_null(got("a"));
	assert_true(state_is(REDIS_RESTING));
	end();
	fake_stop();
}

static void
test_bytewise(void **state)
{
	static struct caller c[5];

	(void)state;
	fake_start(talk_bytewise);
	url_begin("", "");
	assert_true(turns_until(state_is, REDIS_READY, PATIENCE_MS));
	for (size_t i = 0; i < LEN(c); i++)
		assert_true(ask(&c[i], "a"));
	assert_true(turns_until(none_pending, 0, PATIENCE_MS));
	assert_true(c[0].hit && c[0].n == 3 && memcmp(c[0].value, "abc", 3) == 0);
	assert_true(c[1].hit && c[1].n == 0);
	assert_true(!c[2].hit && !c[3].hit);
	assert_true(c[4].hit && c[4].n == 2 && memcmp(c[4].value, "ok", 2) == 0);
	for (size_t i = 0; i < LEN(c); i++)
		free(c[i].value);
	end();
	fake_stop();
}

static void
test_loading(void **state)
{
	(void)state;
	fake_start(talk_loading);
	url_begin("", "");
	assert_true(turns_until(state_is, REDIS_READY, PATIENCE_MS));
	assert_null(got("a"));
	assert_true(put("a", "b", 1));
	assert_true(turns_until(all_answered, 0, PATIENCE_MS));
	assert_true(state_is(REDIS_READY));
	assert_int_equal(log_says("LOADING"), 1);
	redis_sweep(S("/x"), NULL); /* waits */
	turns_for(200);
	assert_int_equal(redis.n_sweeps, 1);
	assert_false(redis.c.scanning);
	end();
	fake_stop();
}

/* Numbers and keys that no Redis sends. */
static void
test_nonsense(void **state)
{
	(void)state;
	fake_start(talk_deletes_many);
	url_begin("", "");
	assert_true(turns_until(state_is, REDIS_READY, PATIENCE_MS));
	redis_delete(S("warp:1:a"));
	assert_true(turns_until(deleted_is, 1, PATIENCE_MS));
	assert_int_equal(counted(REDIS_DELETED), REDIS_DELETES);
	end();
	fake_stop();
	fake_start(talk_scan);
	url_begin("", "");
	assert_true(turns_until(state_is, REDIS_READY, PATIENCE_MS));
	redis_sweep(S(""), NULL);
	assert_true(turns_until(sweeps_are_over, 0, PATIENCE_MS));
	assert_true(state_is(REDIS_READY));
	assert_int_equal(counted(REDIS_DELETED), 0);
	end();
	fake_stop();
}

/* Nobody is there; the rests grow and vary. */
static void
test_refused(void **state)
{
	uint32_t last = 0;

	(void)state;
	port = port_free(NULL);
	url_begin("", "");
	assert_true(turns_until(state_is, REDIS_RESTING, 1000));
	assert_int_equal(log_says("connect: Connection refused"), 1);
	for (int i = 0; i < 8; i++) {
		assert_true(redis.rest_ms >= last && redis.rest_ms <= REDIS_REST_MAX_MS);
		assert_true(redis.due_ms - now_ms <= redis.rest_ms);
		assert_true(redis.due_ms - now_ms >= redis.rest_ms - redis.rest_ms / 4 - 100);
		last = redis.rest_ms;
		redis.due_ms = now_ms;
		redis_due(&redis.timer);
		assert_true(turns_until(state_is, REDIS_RESTING, 1000));
	}
	assert_int_equal(last, REDIS_REST_MAX_MS);
	assert_int_equal(log_says("is not used for now"), 1);
	end();
	port = 0;
	begin("redis://no.such.name.invalid", TIMEOUT_MS); /* nobody looked it up */
	assert_true(state_is(REDIS_RESTING));
	assert_int_equal(log_says("its name does not resolve"), 1);
	end();
}

/* Two addresses, the first refuses: the second is tried at once. */
static void
test_addresses(void **state)
{
	union sock sock[2];
	socklen_t n[2] = { sizeof sock[0].in, sizeof sock[0].in };

	(void)state;
	server_start("");
	begin("redis://two.names", TIMEOUT_MS);
	memset(sock, 0, sizeof sock);
	for (int i = 0; i < 2; i++) {
		sock[i].in.sin_family = AF_INET;
		sock[i].in.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (unsigned)(i == 0));
		sock[i].in.sin_port = htons(port);
	}
	board_addrs_set(redis.at->board, sock, n, 2);
	redis.due_ms = now_ms;
	assert_true(turns_until(state_is, REDIS_READY, 1500));
	assert_null(got("a"));
	end();
	server_stop();
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_get_set),
		cmocka_unit_test(test_pipeline),
		cmocka_unit_test(test_large),
		cmocka_unit_test(test_passwords),
		cmocka_unit_test(test_unix),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_killed),
		cmocka_unit_test(test_stalled),
		cmocka_unit_test(test_sweeps),
		cmocka_unit_test(test_sweeps_late),
		cmocka_unit_test(test_addresses),
		cmocka_unit_test(test_tls),
		cmocka_unit_test(test_impostors),
		cmocka_unit_test(test_unasked),
		cmocka_unit_test(test_trickle),
		cmocka_unit_test(test_bytewise),
		cmocka_unit_test(test_loading),
		cmocka_unit_test(test_nonsense),
		cmocka_unit_test(test_refused),
	};
	char file[64];
	int bad;

	assert_non_null(mkdtemp(dir));
	signal(SIGPIPE, SIG_IGN);
	log_fd = memfd_create("log", MFD_CLOEXEC);
	log_sink.fd = log_fd;
	log_sink.kind = SINK_PLAIN;
	clock_turn();
	random_state[0] = 7;
	random_state[1] = 1;
	board_open();
	me = &board->workers[0];
	blocks_open(16384);
	scratch = block_take(BLOCK_LARGE);
	loop_open(16);
	pool_open(1);
	tls_open(&(struct tls_conf){ .sessions = 0 }, true);
	bad = cmocka_run_group_tests(tests, NULL, NULL);
	block_give(scratch);
	for (const char *const *f = (const char *const[]){ "warp.toml", "s", NULL }; *f; f++) {
		snprintf(file, sizeof file, "%s/%s", dir, *f);
		unlink(file);
	}
	rmdir(dir);
	return bad;
}
