/* TLS on a chan: both ends of a socket pair are warp's own, so that every
 * order of partial reads and writes can be had. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "unit.h"

enum { MOST = 16, TURNS = 10000, BULK = 300000 };

static struct tls_conf tc;
static struct cert_set *certs; /* for www.example.com and *.example.org */
static struct trust *believed; /* them */
static struct side server, client;
static br_ssl_session_parameters kept;

static struct cert_set *
set_made(struct slices names, struct slice *pem)
{
	struct certs_reader r = { .say = NULL };
	struct cert_set *set = certs_new(&r.a, 1);

	certs_add(set, CERT_MADE, "", "");
	assert_null(cert_make_pem(r.a, &names, NULL, pem));
	assert_true(cert_read(&r, &set->v[0], *pem, *pem));
	set->n = 1;
	return set;
}

static int
all_setup(void **state)
{
	static struct slice names[] = { T("www.example.com"), T("*.example.org") };
	static struct arena a;
	char file[] = "/tmp/warp-test-tls-XXXXXX";
	struct slice pem;
	int fd = mkstemp(file);

	(void)state;
	board_open();
	clock_turn();
	blocks_open(4096);
	scratch = block_take(BLOCK_LARGE);
	loop_open(MOST);
	certs = set_made((struct slices){ names, 2 }, &pem);
	assert_int_equal(write(fd, pem.p, pem.n), pem.n);
	close(fd);
	assert_null(trust_load(&a, file, &believed));
	unlink(file);
	tc = (struct tls_conf){ .on = true, .sessions = 64, .set = certs };
	tls_open(&tc, true);
	return 0;
}

static int
each_setup(void **state)
{
	(void)state;
	tc.strict_sni = false;
	memset(&kept, 0, sizeof kept);
	return 0;
}

static int
each_end(void **state)
{
	(void)state;
	side_close(&server);
	side_close(&client);
	scratch_settle();
	return 0;
}

static void
no_event(struct watch *w, short events)
{
	(void)w;
	(void)events;
}

/* Both ends of a connection, of which the client wants that name. */
static void
pair_open(const char *name, const struct trust *trust, int bytes)
{
	struct tls_peer peer = { name, trust, NULL, &kept };
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	for (int i = 0; i < 2 && bytes; i++)
		setsockopt(fds[i], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
	server = client = (struct side){ .x = NULL };
	chan_open(&server.ch, fds[0], no_event);
	chan_open(&client.ch, fds[1], no_event);
	assert_true(side_tls(&server));
	assert_true(tls_client(&client.ch, &peer));
}

/* Until both are done, or one has failed. */
static enum shake
pair_shake(void)
{
	enum shake s = SHAKE_WAITS, c = SHAKE_WAITS;

	for (int i = 0; i < TURNS && (s == SHAKE_WAITS || c == SHAKE_WAITS); i++) {
		if (c == SHAKE_WAITS)
			c = tls_shake(&client.ch);
		if (s == SHAKE_WAITS)
			s = tls_shake(&server.ch);
		if (c == SHAKE_FAILED || s == SHAKE_FAILED)
			return SHAKE_FAILED;
	}
	assert_int_equal(s, SHAKE_DONE);
	assert_int_equal(c, SHAKE_DONE);
	return SHAKE_DONE;
}

static void
pair(const char *name)
{
	pair_open(name, believed, 0);
	assert_int_equal(pair_shake(), SHAKE_DONE);
}

/* ---- handshakes ---- */

static void
test_sessions(void **state)
{
	(void)state;
	pair("www.example.com");
	assert_false(server.ch.tls->resumed);
	assert_int_equal(kept.session_id_len, 32);
	each_end(NULL);
	pair("www.example.com");
	assert_true(server.ch.tls->resumed);
	each_end(NULL);
	pair_open("a.example.org", believed, 0); /* the same session for another name */
	assert_int_equal(pair_shake(), SHAKE_FAILED);
	assert_int_equal(server.ch.tls->err, BR_ERR_RESUME_MISMATCH);
	each_end(NULL);
	pair("a.example.org"); /* which is forgotten by that */
	assert_false(server.ch.tls->resumed);
	each_end(NULL);
	tls_settings++; /* a reload has changed something: there is no session */
	pair("a.example.org");
	assert_false(server.ch.tls->resumed);
}

static void
test_session_age(void **state)
{
	(void)state;
	pair("www.example.com");
	each_end(NULL);
	now_s += SESSION_SECS + 1;
	pair("www.example.com");
	assert_false(server.ch.tls->resumed);
	now_s -= SESSION_SECS + 1;
}

/* A writer that was killed in its slot; the slot is used again later. */
static void
test_session_torn(void **state)
{
	struct board_session *s;

	(void)state;
	pair("www.example.com");
	s = session_slot(&kept);
	s->seq |= 1;
	each_end(NULL);
	pair("www.example.com");
	assert_false(server.ch.tls->resumed);
	s->until_s = now_s - 1;
	session_save(NULL, &server.ch.tls->c.server, &kept);
	assert_int_equal(s->seq & 1, session_slot(&kept) == s ? 0 : 1);
	s->seq = 0;
}

static const struct {
	const char *name;
	bool trusted;
	int err; /* the client's; 0: it is content */
	const char *why;
} verify_rows[] = {
	{ "www.example.com", true, 0, "" },
	{ "WWW.Example.COM", true, 0, "" },
	{ "x.example.org", true, 0, "" },
	{ "example.org", true, BR_ERR_X509_BAD_SERVER_NAME, "for www.example.com and others, not for example.org" },
	{ "x.y.example.org", true, BR_ERR_X509_BAD_SERVER_NAME, "not for x.y.example.org" },
	{ "127.0.0.1", true, BR_ERR_X509_BAD_SERVER_NAME, "not for 127.0.0.1" },
	{ "other", false, 0, "" }, /* nobody asks */
};

static void
test_verify(void **state)
{
	char why[WHY_MAX];

	(void)state;
	for (size_t i = 0; i < LEN(verify_rows); i++) {
		struct slice name = slice_of(verify_rows[i].name);
		pair_open(verify_rows[i].name, verify_rows[i].trusted ? believed : NULL, 0);
		enum shake s = pair_shake();
		if ((s == SHAKE_DONE) != (verify_rows[i].err == 0) ||
		    (s == SHAKE_FAILED && client.ch.tls->err != verify_rows[i].err))
			row_bad("verdict", name, "%d", client.ch.tls->err);
		if (s == SHAKE_FAILED) {
			tls_why(&client.ch, why, sizeof why);
			if (!strstr(why, verify_rows[i].why))
				row_bad("words", name, "%s", why);
		}
		each_end(NULL);
		memset(&kept, 0, sizeof kept);
	}
	rows_end();
}

static void
test_strict(void **state)
{
	char why[WHY_MAX];

	(void)state;
	tc.strict_sni = true;
	pair_open("other.example", NULL, 0);
	assert_int_equal(pair_shake(), SHAKE_FAILED);
	tls_shake(&server.ch);
	assert_true(server.ch.tls->unserved);
	tls_why(&server.ch, why, sizeof why);
	assert_non_null(strstr(why, "other.example"));
	each_end(NULL);
	pair("a.example.org");
}

/* Certificates of a set: what they are for, and with which key. */
static const struct {
	const char *name;
	int key_type;
} rank_certs[] = {
	{ "a.example", BR_KEYTYPE_EC }, { "b.example", BR_KEYTYPE_RSA },
	{ "*.w.example", BR_KEYTYPE_EC }, { "x.w.example", BR_KEYTYPE_RSA },
	{ "a.example", BR_KEYTYPE_RSA },
};

static const struct {
	const char *name;
	int ec, rsa; /* which the best rank has for a client that can do both; -1: none */
} rank_rows[] = {
	{ "a.example", 0, 4 }, { "b.example", -1, 1 }, { "x.w.example", -1, 3 },
	{ "y.w.example", 2, -1 }, { "", 0, 4 }, { "other.example", 0, 4 },
};

/* The name decides, whatever keys there are for others. */
static void
test_rank(void **state)
{
	struct slice names[LEN(rank_certs)];
	struct cert v[LEN(rank_certs)];
	struct cert_set set = { .v = v, .n = LEN(rank_certs) };

	(void)state;
	for (size_t i = 0; i < LEN(rank_certs); i++) {
		names[i] = slice_of(rank_certs[i].name);
		v[i] = (struct cert){ .key_type = rank_certs[i].key_type, .names = { &names[i], 1 },
			.ec.curve = BR_EC_secp256r1 };
	}
	for (size_t i = 0; i < LEN(rank_rows); i++) {
		struct slice name = slice_of(rank_rows[i].name);
		const struct cert *ec = NULL, *rsa = NULL;
		for (int rank = RANK_EXACT; rank >= RANK_OTHER && !ec && !rsa; rank--) {
			ec = cert_choose(&set, name, rank, BR_KEYTYPE_EC, UINT32_MAX);
			rsa = cert_choose(&set, name, rank, BR_KEYTYPE_RSA, UINT32_MAX);
		}
		if ((ec ? ec - v : -1) != rank_rows[i].ec || (rsa ? rsa - v : -1) != rank_rows[i].rsa)
			row_bad("choice", name, "ec %d, rsa %d", ec ? (int)(ec - v) : -1,
			    rsa ? (int)(rsa - v) : -1);
	}
	rows_end();
}

static void
test_plain(void **state)
{
	(void)state;
	pair_open("www.example.com", believed, 0);
	tls_free(&client.ch);
	assert_int_equal(write(client.ch.w.fd, "GET / HTTP/1.1\r\n", 16), 16);
	assert_int_equal(tls_shake(&server.ch), SHAKE_PLAIN);
	side_plain(&server);
	assert_null(server.ch.tls);
	assert_true(slice_eq(buf_slice(&server.src.in), S("GET / HTTP/1.1\r\n")));
}

/* What a set is replaced by is for new handshakes; it goes with the last old one. */
static void
test_replaced(void **state)
{
	static struct slice names[] = { T("new.example") };
	struct slice pem;
	struct cert_set *fresh;

	(void)state;
	pair_open("www.example.com", believed, 0);
	assert_int_equal(certs->handshakes, 1);
	fresh = set_made((struct slices){ names, 1 }, &pem);
	tls_certs = fresh; /* as tls_certs_use, which would free ours at the end */
	assert_int_equal(pair_shake(), SHAKE_DONE);
	assert_int_equal(certs->handshakes, 0);
	each_end(NULL);
	memset(&kept, 0, sizeof kept);
	pair_open("www.example.com", believed, 0);
	assert_int_equal(fresh->handshakes, 1);
	tls_certs_use(certs);
	assert_true(fresh->replaced);
	assert_int_equal(pair_shake(), SHAKE_FAILED); /* and frees it: see ASan */
}

static void
test_acme(void **state)
{
	static const char *names[] = { TLS_ALPN_ACME };
	static struct slice domain[] = { T("www.example.com") };

	(void)state;
	tc.domains = (struct slices){ domain, 1 };
	tls_make();
	br_ssl_engine_set_protocol_names(&client_made.eng, names, 1);
	pair_open("www.example.com", NULL, 0);
	assert_int_equal(pair_shake(), SHAKE_FAILED); /* nobody expects it */
	each_end(NULL);
	assert_true(challenge_set(0, "www.example.com", "", "token.print"));
	pair_open("www.example.com", NULL, 0);
	assert_int_equal(pair_shake(), SHAKE_DONE);
	each_end(NULL);
	challenge_set(0, NULL, NULL, NULL);
	tc.domains.n = 0;
	tls_make();
}

/* ---- bytes ---- */

struct sender {
	struct side *to, *from;
	size_t sent, got;
	uint32_t piece;
};

static char
byte_at(size_t i)
{
	return (char)(i * 31 + (i >> 8) * 7);
}

static void
send_some(struct sender *d)
{
	static char b[40000];
	struct iovec v[3];
	size_t n = MIN(d->piece * 7 % 30011 + 1, (uint32_t)(BULK - d->sent));

	if (!chan_flush(&d->from->ch) || n == 0)
		return;
	for (size_t i = 0; i < n; i++)
		b[i] = byte_at(d->sent + i);
	v[0] = (struct iovec){ b, n / 3 };
	v[1] = (struct iovec){ b + n / 3, n / 3 };
	v[2] = (struct iovec){ b + n / 3 * 2, n - n / 3 * 2 };
	assert_int_equal(chan_send(&d->from->ch, v, 3, NULL), 0);
	d->sent += n;
	d->piece = d->piece * 17 + 5;
}

static void
take_some(struct sender *d)
{
	struct buf *in = &d->to->src.in;

	if (side_fill(d->to) > 0) {
		for (uint32_t i = 0; i < in->n; i++)
			assert_int_equal(buf_p(in)[i], byte_at(d->got + i));
		d->got += in->n;
		buf_eat(in, in->n);
	}
	assert_false(d->to->ch.broken);
}

static void
test_bulk(void **state)
{
	struct sender up = { &server, &client, 0, 0, 3 }, down = { &client, &server, 0, 0, 11 };

	(void)state;
	pair_open("www.example.com", believed, 4096);
	pair_shake();
	for (int i = 0; i < TURNS && (up.got < BULK || down.got < BULK); i++) {
		send_some(&up);
		send_some(&down);
		take_some(&up);
		if (i % 3 == 0)
			take_some(&down);
	}
	assert_int_equal(up.got, BULK);
	assert_int_equal(down.got, BULK);
	assert_null(server.ch.tls->bufs); /* nothing under way: given back */
	assert_null(client.ch.tls->bufs);
	assert_false(server.ch.waits || client.ch.waits);
}

/* More than fits is kept inside, and the loop knows. */
static void
test_inside(void **state)
{
	struct iovec v = { "0123456789", 10 };
	char b[7];
	size_t got = 0;

	(void)state;
	pair("www.example.com");
	for (int i = 0; i < 3; i++)
		assert_int_equal(chan_send(&client.ch, &v, 1, NULL), 0);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(tls_take(&server.ch, b, sizeof b), sizeof b);
		assert_true(server.ch.w.inside);
		for (size_t k = 0; k < sizeof b; k++)
			assert_int_equal(b[k], '0' + (char)((got + k) % 10));
		got += sizeof b;
	}
	assert_int_equal(tls_take(&server.ch, b, sizeof b), 2);
	assert_false(server.ch.w.inside);
	assert_int_equal(tls_take(&server.ch, b, sizeof b), 0);
	assert_null(server.ch.tls->bufs);
}

static short inside_seen;

static void
inside_ready(struct watch *w, short events)
{
	char b[4];

	inside_seen = events;
	w->inside = tls_take((struct chan *)w, b, sizeof b) == sizeof b && w->inside;
	loop_watch(w, POLLIN);
}

/* The loop calls for bytes that poll does not know of. */
static void
test_loop_inside(void **state)
{
	struct iovec v = { "0123456789", 10 };

	(void)state;
	pair("www.example.com");
	assert_int_equal(chan_send(&client.ch, &v, 1, NULL), 0);
	server.ch.w.ready = inside_ready;
	loop_watch(&server.ch.w, POLLIN);
	for (int i = 0; i < 3; i++) {
		inside_seen = 0;
		loop_turn(0);
		assert_int_equal(inside_seen, POLLIN);
		assert_int_equal(server.ch.w.inside, i < 2);
	}
	inside_seen = 0;
	loop_turn(0);
	assert_int_equal(inside_seen, 0);
}

/* The end is told apart from having been cut off. */
static void
test_ends(void **state)
{
	struct iovec v = { "last", 4 };
	char b[64];

	(void)state;
	pair("www.example.com");
	chan_send(&client.ch, &v, 1, NULL);
	side_close(&client);
	assert_int_equal(tls_take(&server.ch, b, sizeof b), 4);
	assert_false(server.ch.eof);
	assert_true(server.ch.w.inside);
	assert_int_equal(tls_take(&server.ch, b, sizeof b), -1);
	assert_true(server.ch.eof);
	assert_false(server.ch.broken);
	each_end(NULL);
	pair("www.example.com");
	chan_send(&client.ch, &v, 1, NULL);
	shutdown(client.ch.w.fd, SHUT_RDWR);
	assert_int_equal(tls_take(&server.ch, b, sizeof b), 4);
	assert_int_equal(tls_take(&server.ch, b, sizeof b), -1);
	assert_true(server.ch.broken);
}

/* A record that was changed on its way. */
static void
test_tampered(void **state)
{
	static const char bad[] = "\x17\x03\x03\x00\x20" "0123456789abcdef0123456789abcdef";
	char b[64], why[WHY_MAX];

	(void)state;
	pair("www.example.com");
	assert_int_equal(write(client.ch.w.fd, bad, sizeof bad - 1), sizeof bad - 1);
	assert_int_equal(tls_take(&server.ch, b, sizeof b), -1);
	assert_true(server.ch.broken);
	tls_why(&server.ch, why, sizeof why);
	assert_non_null(strstr(why, "tampered"));
}

/* ---- names ---- */

static const struct {
	struct slice der;
	const char *text;
} dn_rows[] = {
	{ T(""), "" },
	{ T("\x31\x0c\x30\x0a\x06\x03\x55\x04\x03\x0c\x03" "abc"), "CN=abc" },
	{ T("\x31\x0b\x30\x09\x06\x03\x55\x04\x06\x13\x02" "DE" "\x31\x0c\x30\x0a\x06\x03\x55\x04\x03\x0c\x03" "a,b"),
	    "CN=a\\,b,C=DE" },
	{ T("\x31\x0c\x30\x0a\x06\x03\x55\x04\x03\x0c\x03" "a\r\n"), "CN=a\\0D\\0A" },
	{ T("\x31\x0c\x30\x0a\x06\x03\x55\x04\x03\x0c\x03" "\xc3\xbc "), "CN=\\C3\\BC\\ " },
	{ T("\x31\x0c\x30\x0a\x06\x03\x55\x04\x03\x0c\x03" "#a#"), "CN=\\#a#" },
	{ T("\x31\x0c\x30\x0a\x06\x03\x55\x04\x63\x0c\x03" "abc"), "2.5.4.99=abc" },
	{ T("\x31\x0e\x30\x0c\x06\x05\x2a\x86\x48\x86\x63\x0c\x03" "abc"), "1.2.840.867=abc" },
	{ T("\x31\x18\x30\x0a\x06\x03\x55\x04\x0a\x0c\x03" "abc" "\x30\x0a\x06\x03\x55\x04\x0b\x0c\x03" "def"),
	    "O=abc+OU=def" },
	{ T("\x31\x0c\x30\x0a\x06\x03\x55\x04\x03\x0c\x7f" "abc"), "" }, /* its length lies */
};

static void
test_dn(void **state)
{
	char b[SUBJECT_MAX];

	(void)state;
	for (size_t i = 0; i < LEN(dn_rows); i++) {
		struct text t = { b, 0, sizeof b, false };
		struct slice der = exact(dn_rows[i].der);
		dn_write(&t, der);
		if (!slice_eq(text_slice(&t), slice_of(dn_rows[i].text)))
			row_bad("text", der, "%.*s", (int)t.n, t.p);
		exact_free(der);
	}
	rows_end();
}

#define EACH(test) cmocka_unit_test_setup_teardown(test, each_setup, each_end)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		EACH(test_sessions), EACH(test_session_age), EACH(test_session_torn),
		EACH(test_verify), EACH(test_rank), EACH(test_strict), EACH(test_plain), EACH(test_replaced),
		EACH(test_acme), EACH(test_bulk), EACH(test_inside), EACH(test_loop_inside),
		EACH(test_ends), EACH(test_tampered), cmocka_unit_test(test_dn),
	};

	return cmocka_run_group_tests(tests, all_setup, NULL);
}
