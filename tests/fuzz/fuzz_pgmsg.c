/* Any bytes as what a PostgreSQL server sends, and as its URL. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "fuzz.h"

/* Each message in turn, read as each kind that has parts. */
static void
messages(struct slice in)
{
	struct slice rest = in, a, b;
	struct pgmsg msg;
	int n;

	while ((n = pgmsg_parse(rest, &msg)) > 0) {
		MUST((size_t)n == msg.body.n + PGMSG_HEAD && lies_in(msg.body, rest));
		if (pgmsg_bell(msg.body, &a, &b))
			MUST(lies_in(a, msg.body) && lies_in(b, msg.body) && b.p[b.n] == '\0' &&
			    !memchr(b.p, '\0', b.n) && a.p + a.n + 1 == b.p);
		pgmsg_error(msg.body, &a, &b);
		MUST(lies_in(a, msg.body) && lies_in(b, msg.body));
		rest = slice_from(rest, (size_t)n);
	}
	MUST(n < 0 || rest.n < PGMSG_MAX + 1);
}

static void
url(struct slice in)
{
	struct arena a = { NULL };
	struct pgurl u;
	const char *why;

	if (pgurl_parse(&a, in, &u, &why)) {
		MUST(u.mode < SSL_MODES && u.addr.text && !u.addr.any);
		MUST(u.addr.kind == ADDR_NAME || u.addr.kind == ADDR_INET || u.addr.kind == ADDR_UNIX);
		for (int i = 0; i < PGURL_WORDS; i++)
			MUST(strlen(u.said[i].p ? u.said[i].p : "") == u.said[i].n);
	} else
		MUST(*why);
	arena_free(&a);
}

/* What is quoted ends where it should, and says what it did. */
static void
listen_of(struct slice in)
{
	size_t cap = 2 * in.n + 20, n = 0, i;
	char *p = malloc(cap);
	struct text t = { p, 0, cap, false };
	struct pgmsg msg;

	pgmsg_listen(&t, in);
	MUST(!t.full && pgmsg_parse(text_slice(&t), &msg) == (in.n < 65000 ? (int)t.n : -1));
	for (i = PGMSG_HEAD + 8; i < t.n - 2; i++) {
		MUST(p[i] == in.p[n++]);
		if (p[i] == '"')
			MUST(p[++i] == '"');
	}
	MUST(n == in.n && p[i] == '"');
	free(p);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice in = exact(data, size);
	char out[512], bare[40];
	struct text t = { out, 0, sizeof out, false }, own = { bare, 0, sizeof bare, false };
	unsigned char sign[br_sha256_SIZE];

	messages(in);
	url(in);
	if (size < 30000)
		listen_of(in);
	scram_is_server(in, (const unsigned char *)"0123456789abcdef0123456789abcdef");
	if (size < 300 && !memmem(data, size, "i=", 2)) { /* rounds take their time */
		text_str(&own, "n=,r=A");
		MUST(scram_answer(&t, in, text_slice(&own), in, sign));
	}
	exact_free(in);
	return 0;
}
