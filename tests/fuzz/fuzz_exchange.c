/* Whole exchanges: a worker with its real loop, clients and servers on its sockets, all in
 * this process, and a clock that stands until an input moves it. Behind each input nothing
 * is left, each answer is framed as it should be and is that of its request, and servers
 * have got no request that no client has sent.
 *
 * An input is text, so that seeds can be read. Its first sign is a sum: 1, clients speak
 * PROXY; 2, calls read and write a few bytes; 4, memory is short; 8, there is hardly any.
 * Then steps, each a letter and what it needs: numbers of one sign ('0' is 0; modulo what
 * there is), TEXT, which is its length as such a sign and as many bytes. In e, a client is
 * its number, a server's connection how many have got a request after it.
 *   He MPVn F..   a client's head: method, path, version, number of fields, fields
 *   Ae SVn F..    a server's head, with the number of the request that it got last
 *   Be KTEXT      a client's body, in the way K: see body(); De KTEXT  a server's
 *   We TEXT       what a client writes; Xe TEXT  a server
 *   Se  Ce  Ze    a client ends writing; closes; reads no more, or again
 *   Fe  Ee  Ve    so a server
 *   Re n          who reads no more reads n times 64 bytes; re n  a server's
 *   Ni            instance i refuses, or listens again
 *   Tn  Ln        n turns of the loop; the clock moves by waits[n]
 *   Mn            the next n descriptors cannot be had
 *   P  U          purges the cache; there is news of instances
 * The loop turns behind each step but behind those after a `+`. */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int64_t host_us = 1000000000;
static unsigned host_short, host_lacks; /* bytes that calls move; calls that fail */

static int
host_clock(clockid_t which, struct timespec *t)
{
	int64_t us = host_us + (which == CLOCK_MONOTONIC ? 0 : INT64_C(1800000000) * 1000000);

	*t = (struct timespec){ us / 1000000, us % 1000000 * 1000 };
	return 0;
}

static bool
host_fails(void)
{
	if (host_lacks == 0)
		return false;
	host_lacks--;
	errno = EMFILE;
	return true;
}

static int
host_accept(int fd, struct sockaddr *sa, socklen_t *n, int flags)
{
	return host_fails() ? -1 : accept4(fd, sa, n, flags);
}

static int
host_socket(int family, int type, int protocol)
{
	return host_fails() ? -1 : socket(family, type, protocol);
}

static ssize_t
host_recv(int fd, void *to, size_t n, int flags)
{
	return recv(fd, to, host_short && host_short < n ? host_short : n, flags);
}

/* Every other call takes nothing, as from one whose buffer is full. */
static bool
host_writes(size_t *n)
{
	static unsigned calls;

	if (!host_short)
		return true;
	if (host_short < *n)
		*n = host_short;
	errno = EAGAIN;
	return calls++ % 2 == 0;
}

static ssize_t
host_send(int fd, const void *p, size_t n, int flags)
{
	return host_writes(&n) ? send(fd, p, n, flags) : -1;
}

static ssize_t
host_sendmsg(int fd, const struct msghdr *m, int flags)
{
	size_t n = m->msg_iov[0].iov_len;

	if (!host_short)
		return sendmsg(fd, m, flags);
	return host_writes(&n) ? send(fd, m->msg_iov[0].iov_base, n, flags) : -1;
}

#define clock_gettime(...) host_clock(__VA_ARGS__)
#define accept4(...)       host_accept(__VA_ARGS__)
#define socket(...)        host_socket(__VA_ARGS__)
#define recv(...)          host_recv(__VA_ARGS__)
#define send(...)          host_send(__VA_ARGS__)
#define sendmsg(...)       host_sendmsg(__VA_ARGS__)

#define main static warp_main
#include "../../warp.c"
#undef main

#undef accept4
#undef socket
#undef recv
#undef send

#include "fuzz.h"

#define CLIENTS  6
#define SERVERS  16
#define SENT_MAX 65536
#define HEARD_MAX  262144
#define IDS      1000
#define ID_N     3 /* digits of one, always: a part of 12 is not 1 */
#define TRIES    4 /* of one request, at most */
#define SHORT    7
#define ROUNDS   20000 /* of deadlines; a client that waits is looked at each 20 ms */

enum { WEB, WEB_TOO, UWSGI, FASTCGI, AUTH, INSTANCES };
enum { F_PROXY = 1, F_SHORT = 2, F_TENSE = 4, F_FULL = 8 };

static const char config[] =
    "[server]\nlisten = [\"@warp-fuzz-%d\"]\nmax_connections = 16\nmax_header_bytes = 4096\n"
    "max_body_bytes = 50000\nheader_timeout_secs = 1\nbody_timeout_secs = 2\n"
    "keepalive_timeout_secs = 3\nwrite_timeout_secs = 2\ntunnel_timeout_secs = 4\n"
    "memory_bytes = 67108864\nsandbox = \"off\"\ntrusted_proxies = [\"192.0.2.1\"]\n"
    "[log]\naccess = \"/dev/null\"\nformat = \"combined\"\nerror = \"/dev/null\"\nlevel = \"error\"\n"
    "[cache]\nsize_bytes = 1048576\nmax_object_bytes = 20000\nstale_secs = 5\n"
    "[middleware]\nforwarded = true\nvia = true\nx_sendfile_enabled = true\n"
    "x_sendfile_root = \"%s\"\n"
    "[upstreams.web]\nread_timeout_secs = 2\nconnect_timeout_secs = 1\n"
    "[[upstreams.web.instances]]\nsocket = \"@warp-fuzz-%d-0\"\n"
    "[[upstreams.web.instances]]\nsocket = \"@warp-fuzz-%d-1\"\n"
    "[upstreams.again]\nretry_on = [500, 503]\nread_timeout_secs = 2\nhold_secs = 1\nmax_fails = 2\n"
    "proxy_protocol = false\n"
    "[[upstreams.again.instances]]\nsocket = \"@warp-fuzz-%d-0\"\n"
    "[[upstreams.again.instances]]\nsocket = \"@warp-fuzz-%d-1\"\nmax_connections = 1\n"
    "[upstreams.uw]\nsocket = \"@warp-fuzz-%d-2\"\nprotocol = \"uwsgi\"\nread_timeout_secs = 2\n"
    "[upstreams.fc]\nsocket = \"@warp-fuzz-%d-3\"\nprotocol = \"fastcgi\"\nroot = \"/srv\"\n"
    "read_timeout_secs = 2\n"
    "[upstreams.auth]\nsocket = \"@warp-fuzz-%d-4\"\nread_timeout_secs = 2\n"
    "[[routes]]\npath_prefix = \"/plain\"\nupstream = \"web\"\ncache = false\ngzip = false\n"
    "[[routes]]\npath_prefix = \"/gz\"\nupstream = \"web\"\ngzip = true\n"
    "[[routes]]\npath_prefix = \"/files\"\nstatic_dir = \"%s\"\nstrip_prefix = true\nlisting = true\n"
    "[[routes]]\npath_prefix = \"/uw\"\nupstream = \"uw\"\ncache = false\n"
    "[[routes]]\npath_prefix = \"/fc\"\nupstream = \"fc\"\ncache = false\n"
    "[[routes]]\npath_prefix = \"/auth\"\nupstream = \"web\"\ncache = false\n"
    "forward_auth = { upstream = \"auth\", path = \"/check\", copy_headers = [\"X-User\"], cache_secs = 1 }\n"
    "[[routes]]\npath_prefix = \"/again\"\nupstream = \"again\"\ncache = false\nintercept_errors = [404, 500]\n"
    "[[routes]]\npath_prefix = \"/kept\"\nupstream = \"web\"\ncache = false\nbuffer_request = 64\n"
    "[[routes]]\npath_prefix = \"/strip\"\nupstream = \"web\"\ncache = false\nstrip_prefix = true\n"
    "map_back = true\nadd_headers = [{ name = \"X-Was\", value = \"{uri}\" }]\n"
    "add_response_headers = [{ name = \"X-On\", value = \"{upstream}\" }]\n"
    "[[routes]]\npath_prefix = \"/pace\"\nupstream = \"web\"\ncache = false\n"
    "rate_limit = { requests = 2, per_secs = 1, burst = 2, key = \"all\", delay = true }\n"
    "[[routes]]\npath_prefix = \"/say\"\nrespond = { status = 200, body = \"{query.a}\" }\n";

static const char *const methods[] = { "GET", "POST", "HEAD", "PUT", "OPTIONS", "DELETE", "CONNECT", "PRI" };
static const char *const paths[] = { "/plain", "/gz", "/files/https.toml", "/uw", "/fc", "/auth", "/again",
	"/kept", "/strip/a", "/pace", "/say?a=b", "/files/", "/gz?a", "http://a.example/plain", "*", "/gz/b" };
static const char *const versions[] = { "1.1", "1.0", "1.2", "2.0" };
static const char *const statuses[] = { "200 OK", "204 No Content", "304 Not Modified", "206 Partial Content",
	"404 Not Found", "500 Oops", "503 Later", "100 Continue", "103 Early Hints", "101 Switching Protocols",
	"401 Who", "302 Found", "999 ", "200", "099 x", "205 Reset" };
static const char *const request_fields[] = { "Content-Length: 5", "Content-Length: 70", "Transfer-Encoding: chunked",
	"Connection: close", "Connection: keep-alive", "Connection: Upgrade\r\nUpgrade: websocket",
	"Expect: 100-continue", "Accept-Encoding: gzip", "TE: trailers", "Cache-Control: no-cache",
	"Cache-Control: only-if-cached", "If-None-Match: \"a\"", "If-Modified-Since: Fri, 01 Jan 2027 00:00:00 GMT",
	"Range: bytes=0-3", "Authorization: Basic YTpi", "Cookie: a=b", "X-Forwarded-For: 9.9.9.9",
	"Transfer-Encoding: chunked, chunked", "Transfer-Encoding: identity", "Transfer-Encoding : chunked",
	"Content-Length: +5", "Content-Length: 0", "Content_Length: 9", "Connection: X-Id, close",
	"Host: b.example", " folded: yes", "Content-Length: 5, 5", "Content-Length: 20000", "X-A: \x01",
	"Transfer-Encoding: Chunked", "Trailer: X-T", "Range: bytes=-5,1-1", "If-Range: \"a\"",
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13", "Connection: close, te\r\nTE: gzip",
	"Content-Length: 18446744073709551617" };
static const char *const answer_fields[] = { "Content-Length: 5", "Content-Length: 1024", "Transfer-Encoding: chunked",
	"Connection: close", "Connection: keep-alive", "Connection: Upgrade\r\nUpgrade: websocket",
	"Cache-Control: max-age=2", "ETag: \"a\"", "Vary: Accept-Encoding", "Content-Type: text/html",
	"Set-Cookie: a=b; Path=/", "Location: /a", "X-Sendfile: /https.toml", "X-Accel-Redirect: /https.toml",
	"Content-Length: 0", "Last-Modified: Fri, 01 Jan 2027 00:00:00 GMT", "Content-Range: bytes 0-3/10",
	"Content-Encoding: gzip", "Transfer-Encoding: gzip, chunked", "Content-Length: 6", "Trailer: X-T",
	"Cache-Control: max-age=1, stale-while-revalidate=9", "Vary: *", " folded: yes", "Transfer-Encoding : chunked",
	"Cache-Control: no-store", "Content-Type: text/plain", "X-A: \x01", "Content-Length: 40000", "X-User: me",
	"Cache-Control: s-maxage=9, stale-if-error=9", "Age: 1", "Refresh: 1; url=/a", "Vary: X-A",
	"Transfer-Encoding: chunked\r\nContent-Length: 5", "X-Accel-Buffering: no" };
static const unsigned waits[] = { 1, 20, 100, 400, 1000, 2001, 3001, 5000, 10000, 61000 };

/* One of both sides of the worker: a client, or a connection that a server accepted. */
struct end {
	int fd; /* -1: closed */
	int at; /* of a server: which instance */
	bool opened, shut, slow, late, over; /* late: it was slow once */
	unsigned id, heard; /* of a server: of the request that it got last; how late that was */
	size_t sent_n, got_n, seen, ids; /* ids: how many numbers we wrote */
	char *sent, *got;
};

static struct end clients[CLIENTS], servers[SERVERS];
static int n_servers, flags;
static unsigned n_heard;
static bool lacked; /* descriptors, at some time */
static int doors[INSTANCES], base_fds, ctl_end;
static uint32_t base_held;
static struct listener door;
static struct slice tape;
static char everything[CLIENTS + SERVERS][SENT_MAX + HEARD_MAX];

enum framed { PART, BAD, GOOD };

/* A request that clients have sent with this number. */
static struct asked {
	unsigned sent, got; /* by clients, by servers */
	bool once, whole, head;
	struct slice content;
	unsigned answers; /* by servers, that speak HTTP; more than one: who knows which is meant */
	int status;
	enum framed answered;
	struct slice answer;
} asked[IDS];
static unsigned n_ids;
static struct text contents = { NULL, 0, 1 << 20, false };

/* ---- what an input says ---- */

static int
next(void)
{
	int c = tape.n > 0 ? (unsigned char)*tape.p : '0';

	tape = slice_from(tape, tape.n > 0);
	return c;
}

static unsigned
pick(size_t n)
{
	return (unsigned)((unsigned char)(next() - '0') % n);
}

static struct slice
pick_text(void)
{
	struct slice s = { tape.p, pick(256) };

	s = (struct slice){ tape.p, MIN(s.n, tape.n) };
	tape = slice_from(tape, s.n);
	return s;
}

/* ---- ends ---- */

static void
end_open(struct end *e, int fd, int at, char *room)
{
	*e = (struct end){ .fd = fd, .at = at, .opened = true, .sent = room, .got = room + SENT_MAX };
}

static void
end_close(struct end *e)
{
	if (e->fd >= 0)
		close(e->fd);
	e->fd = -1;
}

static int
door_name(struct sockaddr_un *to, const char *end)
{
	*to = (struct sockaddr_un){ .sun_family = AF_UNIX };
	return (int)offsetof(struct sockaddr_un, sun_path) + 1 +
	    snprintf(to->sun_path + 1, sizeof to->sun_path - 1, "warp-fuzz-%d%s", (int)getpid(), end);
}

static void
door_open(int i)
{
	char end[] = { '-', (char)('0' + i), '\0' };
	struct sockaddr_un to;
	int n = door_name(&to, end);

	doors[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	MUST(doors[i] >= 0 && bind(doors[i], (struct sockaddr *)&to, (socklen_t)n) == 0);
	MUST(listen(doors[i], SERVERS) == 0);
}

static struct end *
client_at(unsigned i)
{
	struct end *e = &clients[i];
	struct sockaddr_un to;
	int n = door_name(&to, "");

	if (e->opened)
		return e;
	end_open(e, socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), 0, everything[i]);
	MUST(e->fd >= 0);
	if (connect(e->fd, (struct sockaddr *)&to, (socklen_t)n) < 0)
		end_close(e);
	return e;
}

/* The connection that so many others have heard something after. */
static struct end *
server_at(unsigned after)
{
	static struct end none = { .fd = -1 };

	for (int i = 0; i < n_servers; i++) {
		unsigned later = 0;
		for (int k = 0; k < n_servers; k++)
			later += servers[k].heard > servers[i].heard;
		if (later == after)
			return &servers[i];
	}
	return &none;
}

/* False: not all of it, if anything. */
static bool
end_write(struct end *e, struct slice s)
{
	ssize_t n;

	if (e->fd < 0 || e->shut || (n = send(e->fd, s.p, MIN(s.n, SENT_MAX - e->sent_n),
	    MSG_NOSIGNAL | MSG_DONTWAIT)) <= 0)
		return false;
	memcpy(e->sent + e->sent_n, s.p, (size_t)n);
	e->sent_n += (size_t)n;
	return (size_t)n == s.n;
}

/* Reads at most n bytes; who has heard very much, of a cache for one, leaves. */
static void
end_read(struct end *e, size_t n)
{
	ssize_t got = 1;

	while (e->opened && e->fd >= 0 && !e->over && n > 0 && got > 0) {
		got = recv(e->fd, e->got + e->got_n, MIN(n, HEARD_MAX - e->got_n), MSG_DONTWAIT);
		e->over = got == 0 || (got < 0 && errno != EAGAIN);
		if (got > 0) {
			e->got_n += (size_t)got;
			n -= (size_t)got;
		}
		if (e->got_n == HEARD_MAX)
			end_close(e);
	}
}

/* The number of the last request among what came. */
static void
server_look(struct end *e)
{
	struct slice in = { e->got + e->seen, e->got_n - e->seen };
	const char *name = e->at == FASTCGI || e->at == UWSGI ? "HTTP_X_ID" : "X-Id: ";
	size_t skip = strlen(name) + (e->at == UWSGI ? 2 : 0);
	const char *p;

	if (e->heard == 0)
		e->heard = ++n_heard;
	while ((p = memmem(in.p, in.n, name, strlen(name))) && p + skip + ID_N <= in.p + in.n) {
		in = slice_from(in, (size_t)(p - in.p) + skip);
		e->id = 0;
		for (int i = 0; i < ID_N && isdigit((unsigned char)*in.p); i++, in = slice_from(in, 1))
			e->id = (e->id * 10 + (unsigned)(*in.p - '0')) % IDS;
		e->seen = (size_t)(in.p - e->got);
		e->heard = ++n_heard;
	}
}

/* ---- what both sides say ---- */

/* With FastCGI in a record: RFC-less, see its specification 3.3. */
static bool
say(struct end *e, struct slice s)
{
	char head[] = { 1, 6, 0, 1, (char)(s.n >> 8), (char)s.n, 0, 0 };

	if (e->at == FASTCGI && s.n > 0)
		end_write(e, (struct slice){ head, sizeof head });
	return end_write(e, s);
}

static void
fields(struct text *t, const char *const *from, size_t n_from)
{
	for (unsigned n = pick(10); n > 0; n--)
		text_fmt(t, "%s\r\n", from[pick(n_from)]);
	text_str(t, "\r\n");
}

static void
head(struct end *e)
{
	char b[8192];
	struct text t = { b, 0, sizeof b, false };
	const char *method = methods[pick(LEN(methods))], *path = paths[pick(LEN(paths))];

	if (e->sent_n == 0 && flags & F_PROXY)
		text_str(&t, "PROXY TCP4 192.0.2.1 192.0.2.2 1000 80\r\n");
	text_fmt(&t, "%s %s HTTP/%s\r\nHost: a.example\r\nX-Id: %0*u\r\n", method,
	    path, versions[pick(LEN(versions))], ID_N, n_ids++ % (IDS - 1) + 1);
	fields(&t, request_fields, LEN(request_fields));
	e->ids += end_write(e, text_slice(&t));
}

static void
answer(struct end *e)
{
	char b[8192];
	struct text t = { b, 0, sizeof b, false };
	const char *status = statuses[pick(LEN(statuses))], *version = versions[pick(LEN(versions))];

	if (e->at == FASTCGI)
		text_fmt(&t, "Status: %s\r\n", status);
	else
		text_fmt(&t, "HTTP/%s %s\r\n", version, status);
	if (e->id)
		text_fmt(&t, "X-Id: %0*u\r\n", ID_N, e->id);
	fields(&t, answer_fields, LEN(answer_fields));
	e->ids += say(e, text_slice(&t)) && e->id;
}

static void
body(struct end *e)
{
	static char much[16384], b[sizeof much + 64];
	struct text t = { b, 0, sizeof b, false };
	unsigned kind = pick(7);
	struct slice s = pick_text();

	for (size_t i = 0; !much[sizeof much - 1] && i < sizeof much; i++)
		much[i] = (char)('a' + i % 23);
	if (kind > 4)
		s = (struct slice){ much, s.n > 0 ? (unsigned char)*s.p % 64 * 256u : 1024 };
	if (kind == 1 || kind == 5)
		text_fmt(&t, "%zx\r\n%.*s\r\n", s.n, (int)s.n, s.p);
	else if (kind == 2 || kind == 3)
		text_fmt(&t, "0\r\n%s\r\n", kind == 3 ? "X-T: 1\r\n" : "");
	else if (kind == 4)
		text_str(&t, "hello");
	else
		text_add(&t, s);
	if (e->at == FASTCGI && kind == 2)
		end_write(e, (struct slice){ "\1\3\0\1\0\10\0\0\0\0\0\0\0\0\0\0", 16 });
	else
		say(e, text_slice(&t));
}

/* ---- the worker ---- */

static void
listens(struct conf *cf)
{
	for (int u = 0; u < cf->n_upstreams; u++)
		for (int i = 0; i < cf->upstreams[u].n_instances; i++) {
			struct instance *in = &cf->upstreams[u].instances[i];
			board_addrs_set(in->board, &in->addr.sock, &in->addr.sock_n, 1);
		}
	door = (struct listener){ .addr = cf->server.listens[0], .kind = LISTEN_HTTP };
	MUST(listen_open(&door, 0600, false) == 0);
	for (int i = 0; i < INSTANCES; i++)
		door_open(i);
}

/* Open descriptors, but pipes: a symbolizer has some. Of those of the worker, the busy ones. */
static int
count_fds(void)
{
	struct stat st;
	struct pollfd all[128];
	int n = 2 * (int)n_pipes;

	for (int fd = 0; fd < (int)LEN(all); fd++)
		all[fd] = (struct pollfd){ fd, 0, 0 };
	poll(all, LEN(all), 0);
	for (int fd = 3; fd < (int)LEN(all); fd++) /* 125 calls are much of what an input takes */
		n += !(all[fd].revents & POLLNVAL) && fstat(fd, &st) == 0 && !S_ISFIFO(st.st_mode);
	for (const struct pipe *p = pipes_free; p; p = p->next)
		n -= 2;
	return n;
}

static void rest(void);

static void
setup(void)
{
	int fd = memfd_create("warp.toml", 0), p = (int)getpid(), ctl[2];
	char name[64], dir[512];
	struct conf *cf;

	MUST(fd >= 0 && getcwd(dir, sizeof dir - 32));
	strcat(dir, "/contrib/examples");
	dprintf(fd, config, p, dir, p, p, p, p, p, p, p, dir);
	snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
	cf = conf_load(name);
	close(fd);
	if (cf->diags.errors > 0)
		diags_print(&cf->diags, stderr);
	MUST(cf->diags.errors == 0);
	clock_turn();
	board_open();
	board->seed = 1;
	pages_load(cf);
	MUST(logs_open(&cf->log) == 0 && board_attach(cf) == 0);
	logs_use(&cf->log);
	listens(cf);
	cache_adopt(cf, NULL);
	cf->cache.store->seed = 1;
	MUST(store_bells_open(1) == 0 && socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ctl) == 0);
	ctl_end = ctl[1];
	signal(SIGPIPE, SIG_IGN);
	spool_open(false);
	maintenance_open(cf);
	files_open(cf);
	me = &board->workers[0];
	worker_open(cf, &door, 1, ctl[0]);
	contents.p = malloc(contents.cap);
	rest();
	base_fds = count_fds();
	base_held = ledger.held;
}

/* A turn of the loop, as in worker_run; then the others do what they have to. */
static void
turn(void)
{
	struct pollfd p[INSTANCES];
	char told[CTL_MAX];
	int fd;

	loop_turn(0);
	access_flush(false);
	front_settle(conf);
	while (recv(ctl_end, told, sizeof told, MSG_DONTWAIT) > 0)
		;
	for (int i = 0; i < INSTANCES; i++)
		p[i] = (struct pollfd){ doors[i], POLLIN, 0 };
	for (int i = 0, n = poll(p, INSTANCES, 0); i < INSTANCES && n > 0; i++)
		while (p[i].revents && n_servers < SERVERS && (fd = accept4(doors[i], NULL, NULL,
		    SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
			end_open(&servers[n_servers], fd, i, everything[CLIENTS + n_servers]);
			n_servers++;
		}
	for (int i = 0; i < CLIENTS; i++)
		if (!clients[i].slow)
			end_read(&clients[i], SIZE_MAX);
	for (int i = 0; i < n_servers; i++) {
		if (!servers[i].slow)
			end_read(&servers[i], SIZE_MAX);
		server_look(&servers[i]);
	}
}

static bool
clients_wait(void)
{
	for (int i = 0; i < CLIENTS; i++)
		if (clients[i].opened && clients[i].fd >= 0 && !clients[i].over)
			return true;
	return false;
}

/* Deadlines pass, until there are none and no client is left; behind the last one there is
 * another turn, in which the worker accepts again who came while it did not. */
static void
rest(void)
{
	int ms = 0, last, rounds = 0;

	do {
		turn();
		if (n_conns + n_alone > 0)
			turn();
		last = ms;
		ms = timers_next_ms();
		host_us += MAX(ms, 0) * INT64_C(1000) + 1000;
		if (n_conns + n_alone == 0)
			pool_drain(conf);
		MUST(rounds++ < ROUNDS);
	} while (ms >= 0 || last >= 0 || n_conns + n_alone > 0 || clients_wait());
}

static void
memory_is(int how)
{
	uint32_t all = conf->server.memory_bytes, need = exchange_bytes(conf);

	host_short = how & F_SHORT ? SHORT : 0;
	if (how & F_FULL)
		all = base_held + 3 * need;
	ledger.easy = how & (F_TENSE | F_FULL) ? 0 : all / 4;
	ledger.full = all - 2 * need;
	ledger.spent = all - need;
	ledger.most_spent = all - need / 2;
}

/* ---- steps ---- */

static void
end_step(struct end *e, int what)
{
	switch (what) {
	case 'S':
		if (e->fd >= 0)
			shutdown(e->fd, SHUT_WR);
		e->shut = true;
		break;
	case 'C':
		end_close(e);
		break;
	case 'Z':
		e->late |= e->slow = !e->slow;
		break;
	case 'R':
		end_read(e, pick(256) * 64);
		break;
	case 'W':
		end_write(e, pick_text());
		break;
	default:
		body(e);
	}
}

static void
step(int what)
{
	static const char of_server[] = "FEVrXD", as_client[] = "SCZRWB";
	const char *server = what ? strchr(of_server, what) : NULL;

	if (server)
		end_step(server_at(pick(SERVERS)), as_client[server - of_server]);
	else if (what && strchr(as_client, what))
		end_step(client_at(pick(CLIENTS)), what);
	else if (what == 'H')
		head(client_at(pick(CLIENTS)));
	else if (what == 'A')
		answer(server_at(pick(SERVERS)));
	else if (what == 'T')
		for (unsigned n = pick(16); n > 0; n--)
			turn();
	else if (what == 'L')
		host_us += waits[pick(LEN(waits))] * INT64_C(1000);
	else if (what == 'M')
		lacked = (host_lacks = pick(8)) > 0;
	else if (what == 'P')
		store_purge_all();
	else if (what == 'U')
		front_wake(conf);
	else if (what == 'N') {
		int i = (int)pick(INSTANCES);
		if (doors[i] < 0) {
			door_open(i);
		} else {
			close(doors[i]);
			doors[i] = -1;
		}
	}
}

/* ---- what HTTP/1 says, strictly ---- */

struct message {
	struct slice line, method, target, id;
	int minor, status;
	int64_t length; /* -1: none is said */
	bool chunked, closes, upgrades;
	bool odd; /* it is coded, or stands for a file */
	struct slice content;
};

static bool
is_text(struct slice s)
{
	for (size_t i = 0; i < s.n; i++)
		if (((unsigned char)s.p[i] < ' ' && s.p[i] != '\t') || s.p[i] == 0x7f)
			return false;
	return true;
}

/* Cuts the line that ends in CRLF; false: there is none. */
static bool
crlf_cut(struct slice *rest, struct slice *line)
{
	const char *end = memmem(rest->p, rest->n, "\r\n", 2);

	if (!end)
		return false;
	*line = (struct slice){ rest->p, (size_t)(end - rest->p) };
	*rest = slice_from(*rest, line->n + 2);
	return true;
}

static bool
length_strict(struct message *g, struct slice value)
{
	if (g->length >= 0 || value.n == 0 || value.n > 18)
		return false;
	for (g->length = 0; value.n > 0; value = slice_from(value, 1)) {
		if (*value.p < '0' || *value.p > '9')
			return false;
		g->length = g->length * 10 + *value.p - '0';
	}
	return true;
}

static bool
field_strict(struct message *g, struct slice line)
{
	static const char token[] = "!#$%&'*+-.^_`|~0123456789"
	                            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
	struct slice name, value, item;

	if (!is_text(line) || !slice_cut(&line, ':', &name) || name.n == 0)
		return false;
	for (size_t i = 0; i < name.n; i++)
		if (!memchr(token, name.p[i], sizeof token - 1))
			return false;
	value = slice_trim(line);
	if (slice_ieq(name, S("Content-Length")))
		return length_strict(g, value);
	if (slice_ieq(name, S("Transfer-Encoding"))) {
		bool good = !g->chunked && slice_ieq(value, S("chunked"));
		g->chunked = true;
		return good;
	}
	if (slice_ieq(name, S("Connection")))
		while (slice_list_next(&value, &item))
			g->closes |= slice_ieq(item, S("close"));
	g->upgrades |= slice_ieq(name, S("Upgrade"));
	g->odd |= slice_ieq(name, S("Content-Encoding")) || slice_ieq(name, S("X-Sendfile")) ||
	    slice_ieq(name, S("X-Accel-Redirect"));
	if (slice_ieq(name, S("X-Id")))
		g->id = value;
	return true;
}

/* Cuts a head. RFC 9112 2 to 5, without what may be forgiven. */
static enum framed
head_strict(struct message *g, struct slice *in)
{
	const char *end = in->n > 0 ? memmem(in->p, in->n, "\r\n\r\n", 4) : NULL;
	struct slice lines, line;

	*g = (struct message){ .length = -1 };
	if (!end)
		return PART;
	lines = (struct slice){ in->p, (size_t)(end - in->p) + 2 };
	*in = slice_from(*in, lines.n + 2);
	if (!crlf_cut(&lines, &g->line) || !is_text(g->line))
		return BAD;
	while (crlf_cut(&lines, &line))
		if (!field_strict(g, line))
			return BAD;
	return g->chunked && g->length >= 0 ? BAD : GOOD;
}

static enum framed
request_strict(struct message *g, struct slice *in)
{
	enum framed f = head_strict(g, in);
	struct slice rest = g->line;

	if (f != GOOD)
		return f;
	if (!slice_cut(&rest, ' ', &g->method) || !slice_cut(&rest, ' ', &g->target) || g->method.n == 0 ||
	    g->target.n == 0 || rest.n != 8 || memcmp(rest.p, "HTTP/1.", 7) != 0 || !isdigit((unsigned char)rest.p[7]))
		return BAD;
	g->minor = rest.p[7] - '0';
	return g->chunked && g->minor == 0 ? BAD : GOOD;
}

static enum framed
response_strict(struct message *g, struct slice *in)
{
	enum framed f = head_strict(g, in);
	struct slice rest = g->line;

	if (f != GOOD)
		return f;
	if (rest.n < 13 || memcmp(rest.p, "HTTP/1.1 ", 9) != 0 || rest.p[12] != ' ')
		return BAD;
	g->status = (int)slice_uint((struct slice){ rest.p + 9, 3 }, 999);
	return g->status >= 100 ? GOOD : BAD;
}

/* Cuts a chunk behind its size line. */
static enum framed
chunk_strict(struct slice *in, uint64_t n)
{
	if (n >= in->n || in->n - n < 2) {
		struct slice over = slice_from(*in, MIN(n, in->n));
		text_add(&contents, (struct slice){ in->p, MIN(n, in->n) });
		return over.n == 0 || *over.p == '\r' ? PART : BAD;
	}
	text_add(&contents, (struct slice){ in->p, n });
	*in = slice_from(*in, n);
	if (memcmp(in->p, "\r\n", 2) != 0)
		return BAD;
	*in = slice_from(*in, 2);
	return GOOD;
}

/* The size on the line of a chunk, before extensions; -1: it is none. */
static int64_t
size_strict(struct slice line)
{
	struct slice size;
	int64_t n = 0;

	if (!is_text(line) || !slice_cut(&line, ';', &size))
		return -1;
	while (line.p && size.n > 0 && memchr(" \t", size.p[size.n - 1], 2))
		size.n--;
	if (size.n == 0 || size.n > 15)
		return -1;
	for (; size.n > 0; size = slice_from(size, 1)) {
		if (!isxdigit((unsigned char)*size.p))
			return -1;
		n = n * 16 + hex_value(*size.p);
	}
	return n;
}

/* RFC 9112 7.1. */
static enum framed
chunks_strict(struct slice *in)
{
	struct message trailers = { .length = -1 };
	struct slice line;
	enum framed f;
	int64_t n;

	do {
		if (!crlf_cut(in, &line))
			return PART;
		if ((n = size_strict(line)) < 0)
			return BAD;
		if (n > 0 && (f = chunk_strict(in, (uint64_t)n)) != GOOD)
			return f;
	} while (n > 0);
	for (;;) {
		if (!crlf_cut(in, &line))
			return PART;
		if (line.n == 0)
			return GOOD;
		if (!field_strict(&trailers, line))
			return BAD;
	}
}

/* Cuts the body of g; to_end: without a length it is all that comes. */
static enum framed
body_strict(struct message *g, struct slice *in, bool to_end)
{
	size_t at = contents.n, n;
	enum framed f = GOOD;

	if (g->chunked) {
		f = chunks_strict(in);
	} else if (g->length >= 0 || to_end) {
		n = MIN(in->n, g->length >= 0 ? (uint64_t)g->length : in->n);
		f = g->length > (int64_t)n ? PART : GOOD;
		text_add(&contents, (struct slice){ in->p, n });
		*in = slice_from(*in, n);
	}
	g->content = (struct slice){ contents.p + at, contents.n - at };
	return f;
}

/* ---- what must hold ---- */

static bool forged; /* numbers of requests are in other bytes than ours, or not enough of them */

/* How often a number of a request is in s, however it is written. */
static size_t
count_ids(struct slice s)
{
	size_t n = 0;

	for (size_t i = 0; i + 4 <= s.n; i++)
		n += (s.p[i] | 32) == 'x' && (s.p[i + 1] == '-' || s.p[i + 1] == '_') &&
		    (s.p[i + 2] | 32) == 'i' && (s.p[i + 3] | 32) == 'd';
	return n;
}

static struct slice
sent_by(const struct end *e)
{
	struct slice in = { e->sent, e->sent_n };
	struct ip ip[2];
	uint16_t port[2];
	int n;

	if (!(flags & F_PROXY) || e >= servers)
		return in;
	memset(ip, 0, sizeof ip);
	n = proxy_parse(in, &ip[0], &port[0], &ip[1], &port[1]);
	return n > 0 ? slice_from(in, (size_t)n) : S("");
}

static struct asked *
asked_of(const struct message *g)
{
	int64_t id = slice_uint(g->id, IDS - 1);

	return &asked[MAX(id, 0)];
}

/* Empty lines between requests are nothing: RFC 9112 2.2. */
static struct slice
between(struct slice in)
{
	while (slice_starts(in, S("\r\n")))
		in = slice_from(in, 2);
	return in;
}

/* Notes what a client has asked for. */
static void
client_asked(struct end *e)
{
	struct slice in = sent_by(e), body;
	struct message g;
	enum framed f = GOOD;

	while (e->opened && f == GOOD && (in = between(in)).n > 0 && request_strict(&g, &in) == GOOD) {
		struct asked *a = asked_of(&g);
		body = in;
		f = body_strict(&g, &in, false);
		body.n -= f == GOOD ? in.n : 0;
		forged |= count_ids(body) > 0; /* a server takes them for its own */
		a->sent++;
		a->once = slice_eq(g.method, S("POST"));
		a->head = slice_eq(g.method, S("HEAD"));
		a->content = g.content;
		a->whole = f == GOOD;
	}
}

/* Cuts the content of an answer; head: to HEAD. RFC 9112 6.3. */
static enum framed
answer_strict(struct message *g, struct slice *in, bool head)
{
	if (!head && g->status >= 200 && g->status != 204 && g->status != 304)
		return body_strict(g, in, true);
	g->content = S("");
	return GOOD;
}

/* Notes what a server has answered. */
static void
server_answered(struct end *e)
{
	struct slice in = { e->sent, e->sent_n };
	struct message g;
	enum framed f = GOOD;

	while (e->at <= WEB_TOO && f == GOOD && in.n > 0) {
		if ((f = response_strict(&g, &in)) == GOOD && g.status < 200)
			continue;
		struct asked *a = asked_of(&g);
		if (f == GOOD)
			f = answer_strict(&g, &in, a->head);
		a->answers += f == BAD || g.odd ? 2 : 1;
		a->status = g.status;
		a->answered = f;
		a->answer = g.content;
	}
}

/* A server has got g, whose content is as good as f says. */
static void
server_got(const struct message *g, enum framed f)
{
	struct asked *a = asked_of(g);

	a->got++;
	if (contents.full || forged || a == asked)
		return;
	MUST(a->sent > 0);
	MUST(g->content.n <= a->content.n && memcmp(g->content.p, a->content.p, g->content.n) == 0);
	MUST(f != GOOD || (a->whole && g->content.n == a->content.n));
}

static void
http_check(struct end *e)
{
	struct slice in = { e->got, e->got_n };
	struct message g;
	enum framed f = GOOD;

	while (f == GOOD && (f = request_strict(&g, &in)) == GOOD) {
		f = body_strict(&g, &in, false);
		MUST(f != BAD);
		if (e->at != AUTH)
			server_got(&g, f);
		if (g.upgrades)
			return;
	}
	MUST(f != BAD);
}

/* The names and values that uWSGI or FastCGI write, as far as they matter. */
static void
variable(struct message *g, struct slice name, struct slice value)
{
	if (slice_eq(name, S("HTTP_X_ID")))
		g->id = value;
	else if (slice_eq(name, S("CONTENT_LENGTH")))
		g->length = value.n > 0 ? slice_uint(value, INT64_MAX) : 0;
	g->upgrades |= slice_eq(name, S("HTTP_UPGRADE"));
}

static size_t
low_two(struct slice s)
{
	return (unsigned char)s.p[0] | (size_t)(unsigned char)s.p[1] << 8;
}

/* One request of a connection: specs/uwsgi.md. */
static void
uwsgi_check(struct end *e)
{
	struct slice in = { e->got, e->got_n }, vars, word[2];
	struct message g = { .length = -1 };

	if (in.n < 4 || in.n - 4 < low_two(slice_from(in, 1)))
		return;
	vars = (struct slice){ in.p + 4, low_two(slice_from(in, 1)) };
	in = slice_from(in, 4 + vars.n);
	while (vars.n > 0) {
		for (int i = 0; i < 2; i++) {
			MUST(vars.n >= 2 && low_two(vars) <= vars.n - 2);
			word[i] = (struct slice){ vars.p + 2, low_two(vars) };
			vars = slice_from(vars, 2 + word[i].n);
		}
		variable(&g, word[0], word[1]);
	}
	if (g.upgrades)
		return;
	g.content = in;
	MUST(in.n == 0 || (int64_t)in.n <= g.length);
	server_got(&g, (int64_t)in.n == MAX(g.length, 0) ? GOOD : PART);
}

/* A length in one byte or four: FastCGI 3.4. */
static size_t
fcgi_size(struct slice *s)
{
	size_t n;

	MUST(s->n > 0 && (*s->p >= 0 || s->n >= 4));
	n = (unsigned char)*s->p;
	if (*s->p < 0)
		n = (n & 127) << 24 | (size_t)(unsigned char)s->p[1] << 16 |
		    (size_t)(unsigned char)s->p[2] << 8 | (unsigned char)s->p[3];
	*s = slice_from(*s, *s->p < 0 ? 4 : 1);
	return n;
}

static void
fcgi_variables(struct message *g, struct slice vars)
{
	size_t n, k;

	while (vars.n > 0) {
		n = fcgi_size(&vars);
		k = fcgi_size(&vars);
		MUST(n <= vars.n && k <= vars.n - n);
		variable(g, (struct slice){ vars.p, n }, (struct slice){ vars.p + n, k });
		vars = slice_from(vars, n + k);
	}
}

/* Requests one behind the other: FastCGI 3.3, 5.1 to 5.3. */
static void
fcgi_check(struct end *e)
{
	enum { BEGIN = 1, ABORT, PARAMS = 4, STDIN };
	struct slice in = { e->got, e->got_n }, part;
	struct message g = { .length = -1 };
	size_t from = contents.n;
	int want = BEGIN;

	while (in.n >= 8) {
		size_t n = (size_t)(unsigned char)in.p[4] << 8 | (unsigned char)in.p[5];
		int type = in.p[1];
		if (in.n < 8 + n + (unsigned char)in.p[6])
			n = in.n - 8; /* the rest did not come */
		part = (struct slice){ in.p + 8, n };
		MUST(in.p[0] == 1 && (type == want || (type == ABORT && want != BEGIN)));
		in = slice_from(in, MIN(8 + n + (unsigned char)in.p[6], in.n));
		if (type == BEGIN)
			want = PARAMS;
		text_add(&contents, type == BEGIN ? S("") : part);
		g.content = (struct slice){ contents.p + from, contents.n - from };
		if (type == PARAMS && part.n == 0) {
			fcgi_variables(&g, g.content);
			want = STDIN;
		} else if (type == STDIN && part.n == 0) {
			server_got(&g, GOOD);
			want = BEGIN;
		} else if (type != BEGIN)
			continue;
		from = contents.n;
		if (want == BEGIN)
			g = (struct message){ .length = -1 };
	}
	g.content = (struct slice){ contents.p + from, contents.n - from };
	if (want == STDIN)
		server_got(&g, PART);
}

/* Whether an answer with that number may be to q. */
static bool
is_answer(const struct message *a, const struct message *q)
{
	return forged || a->id.n == 0 || slice_eq(a->id, q->id) || slice_find(q->target, S("/gz"));
}

/* The content of a is what a server has said. */
static void
content_check(const struct message *a, const struct message *q, enum framed f)
{
	const struct asked *is = asked_of(a);

	if (forged || contents.full || is == asked || is->answers != 1 || is->sent != 1 || a->odd ||
	    slice_find(q->target, S("/gz")) || slice_find(q->target, S("/again")))
		return;
	MUST(a->status == is->status);
	MUST(a->content.n <= is->answer.n && memcmp(a->content.p, is->answer.p, a->content.n) == 0);
	MUST(f == PART || (!a->chunked && a->length < 0) || a->content.n == is->answer.n);
}

/* Whether who has sent a request gets an answer: not if it may have come too late, or too
 * little of it. */
static bool
is_owed(const struct end *e)
{
	return e->fd >= 0 && !e->shut && !e->late && !lacked && !(flags & (F_PROXY | F_SHORT));
}

/* The answer to q, which is as whole as rq says, is cut off *out, with those before it that
 * are none. True: there may be another. */
static bool
answer_check(struct end *e, const struct message *q, enum framed rq, struct slice *out)
{
	struct message a;
	enum framed f;

	do {
		MUST(out->n > 0 || rq != GOOD || !is_owed(e));
		if ((f = response_strict(&a, out)) == PART)
			return false;
		MUST(f == GOOD);
		if (a.status == 101)
			return false;
		MUST(is_answer(&a, q));
	} while (a.status < 200);
	MUST(q->method.n > 0 || (a.status >= 400 && a.id.n == 0));
	MUST(!a.chunked || q->method.n == 0 || q->minor > 0);
	f = answer_strict(&a, out, slice_eq(q->method, S("HEAD")));
	MUST(f != BAD);
	content_check(&a, q, f);
	if (f == PART) /* what is left is of it: half a line of a chunk, say */
		return false;
	MUST(out->n == 0 || (!a.closes && rq == GOOD));
	return !a.closes && rq == GOOD;
}

static void
client_check(struct end *e)
{
	struct slice in = sent_by(e), out = { e->got, e->got_n };
	struct message q;
	enum framed f;

	for (;;) {
		in = between(in);
		if (in.n == 0) {
			MUST(out.n == 0);
			return;
		}
		f = request_strict(&q, &in);
		if (f != GOOD)
			q.method = S("");
		else
			f = body_strict(&q, &in, false);
		if (out.n == 0 && f != GOOD)
			return;
		if (!answer_check(e, &q, f, &out))
			return;
		if (q.closes || q.minor == 0)
			return;
	}
}

/* For who looks into an input: FUZZ_SHOW=1. */
static void
show(const struct end *e, int n, const char *what)
{
	for (int i = 0; i < n; i++)
		if (e[i].opened)
			fprintf(stderr, "==== %s %d (at %d) sent:\n%.*s\n==== and got:\n%.*s\n", what, i, e[i].at,
			    (int)e[i].sent_n, e[i].sent, (int)e[i].got_n, e[i].got);
}

static void
check_all(void)
{
	static void (*const of[INSTANCES])(struct end *) = { http_check, http_check, uwsgi_check, fcgi_check,
		http_check };

	forged |= n_ids >= IDS;
	for (int i = 0; i < CLIENTS; i++)
		forged |= count_ids((struct slice){ clients[i].sent, clients[i].sent_n }) != clients[i].ids;
	for (int i = 0; i < n_servers; i++)
		forged |= count_ids((struct slice){ servers[i].sent, servers[i].sent_n }) != servers[i].ids;
	for (int i = 0; i < CLIENTS; i++)
		client_asked(&clients[i]);
	for (int i = 0; i < n_servers; i++)
		server_answered(&servers[i]);
	for (int i = 0; i < n_servers; i++)
		of[servers[i].at](&servers[i]);
	for (int i = 0; i < IDS && !forged; i++)
		MUST(asked[i].got <= asked[i].sent * (asked[i].once ? 1 : TRIES));
	for (int i = 0; i < CLIENTS; i++)
		if (clients[i].opened)
			client_check(&clients[i]);
}

/* Bytes of what authenticators said, which is kept for cache_secs. */
static size_t
granted(void)
{
	size_t n = 0;

	for (size_t i = 0; i < LEN(grants); i++)
		n += grants[i].lines ? strlen(grants[i].lines) + 1 : 0;
	return n;
}

/* Nothing is left of the input. */
static void
check_rest(void)
{
	const struct conf *cf = conf;

	MUST(paced.n == 0 && !auth_busy());
	for (int u = 0; u < cf->n_upstreams; u++)
		for (int i = 0; i < cf->upstreams[u].n_instances; i++) {
			const struct board_instance *b = cf->upstreams[u].instances[i].board;
			MUST(b->in_flight == 0 && b->held == 0 && b->flights[0] + b->flights[1] == 0);
		}
	MUST(me->connections == 0 && me->upstream_connections == 0);
	MUST(count_fds() == base_fds);
	MUST(ledger.held - granted() == base_held);
}

static void
begin(uint8_t sum)
{
	for (int i = 0; i < CLIENTS; i++)
		clients[i] = (struct end){ .fd = -1 };
	memset(asked, 0, sizeof asked);
	contents.n = 0;
	contents.full = forged = false;
	n_servers = 0;
	n_heard = 0;
	lacked = false;
	n_ids = 0;
	random_state[0] = random_state[1] = 1;
	flags = sum;
	worker_conf->server.proxy_protocol = flags & F_PROXY;
	memory_is(flags);
}

static void
end_all(void)
{
	host_lacks = host_short = 0;
	for (int i = 0; i < INSTANCES; i++)
		if (doors[i] < 0)
			door_open(i);
	for (int i = 0; i < CLIENTS; i++)
		if (clients[i].slow) /* it is not known what it would have read */
			end_close(&clients[i]);
	rest();
}

/* Nor is anybody left whom no server took any more: the next input would meet them. */
static void
hang_up(void)
{
	int fd;

	for (int i = 0; i < CLIENTS; i++)
		end_close(&clients[i]);
	for (int i = 0; i < n_servers; i++)
		end_close(&servers[i]);
	for (int i = 0; i < INSTANCES; i++)
		while ((fd = accept(doors[i], NULL, NULL)) >= 0)
			close(fd);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int what;

	if (size == 0)
		return 0;
	if (!board)
		setup();
	tape = (struct slice){ (const char *)data, size };
	begin((uint8_t)pick(16));
	while (tape.n > 0) {
		bool more = (what = next()) == '+';
		step(more ? next() : what);
		if (!more)
			turn();
	}
	end_all();
	if (getenv("FUZZ_SHOW")) {
		show(clients, CLIENTS, "client");
		show(servers, n_servers, "server");
	}
	check_all();
	hang_up();
	memory_is(0);
	store_purge_all();
	rest();
	hang_up();
	check_rest();
	return 0;
}
