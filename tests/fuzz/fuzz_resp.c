/* Any bytes as replies of Redis: the same events, whatever pieces they come in; lengths and
 * depths are bounded. And as a value, as what a value holds, and as a URL. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "fuzz.h"

enum { BULK_MAX = 4096, WORDS_MAX = 1 << 16 };

/* Events as numbers, without regard to where pieces end. */
struct told {
	uint64_t v[WORDS_MAX];
	size_t n;
	uint64_t bytes; /* hash of the pieces of a string */
};

static struct told whole, parts;

static void
tell(struct told *t, uint64_t v)
{
	if (t->n < WORDS_MAX)
		t->v[t->n++] = v;
}

static void
event_note(struct told *t, struct resp *r, enum resp_event e)
{
	MUST(r->depth <= RESP_DEPTH_MAX && r->at <= RESP_DEPTH_MAX);
	MUST(r->elements <= RESP_ELEMENTS_MAX);
	MUST(!r->whole || (r->depth == 0 && r->left == 0 && !r->tail));
	if (e == RESP_MORE)
		return;
	if (e == RESP_PIECE) {
		for (size_t i = 0; i < r->text.n; i++)
			t->bytes = t->bytes * 31 + (unsigned char)r->text.p[i] + 1;
		return;
	}
	tell(t, (uint64_t)e << 8 | (unsigned)r->whole << 7 | r->at);
	if (e == RESP_TEXT || e == RESP_ERROR)
		tell(t, hash64(0, r->text.p, r->text.n));
	if (e == RESP_INTEGER || e == RESP_ARRAY || e == RESP_BULK)
		tell(t, (uint64_t)r->n);
	MUST(e != RESP_BULK || r->n <= BULK_MAX);
	if (e == RESP_BULK)
		t->bytes = 0;
	if (e == RESP_END)
		tell(t, t->bytes);
	if (e != RESP_BAD)
		tell(t, (unsigned char)r->type);
}

/* Feeds in, in pieces of at most `step` bytes (0: of growing size). */
static void
feed(struct told *t, struct slice in, size_t step)
{
	struct resp r = { .max = BULK_MAX };
	enum resp_event e = RESP_MORE;
	size_t grow = 1;

	t->n = 0;
	t->bytes = 0;
	while (in.n > 0 && e != RESP_BAD) {
		struct slice piece = exact(in.p, MIN(in.n, step ? step : grow)), rest = piece;
		grow++;
		in = slice_from(in, piece.n);
		while (rest.n > 0 && e != RESP_BAD) {
			size_t had = rest.n;
			e = resp_next(&r, &rest);
			MUST(e == RESP_BAD || rest.n < had);
			MUST(e != RESP_PIECE || lies_in(r.text, piece));
			event_note(t, &r, e);
		}
		exact_free(piece);
	}
	if (e == RESP_BAD)
		MUST(resp_next(&r, &in) == RESP_BAD);
}

static void
value_is_good(struct slice in)
{
	struct slice key = { in.p, MIN(in.n, 3u) }, value = slice_from(in, key.n);
	struct stored s;

	if (stored_read(&s, value, key))
		MUST(s.head.n + s.body.n + STORED_BYTES == value.n && lies_in(s.head, value) &&
		    lies_in(s.body, value));
}

/* Any bytes as a head and a body are read as they were written. */
static void
value_round(struct slice in)
{
	size_t n = in.n / 3;
	struct slice key = S("k");
	struct stored s = { .stored_s = -(int64_t)in.n, .facts = { 200, UINT32_MAX },
		.head = { in.p, n }, .body = { in.p + n, in.n - n } }, got;
	struct text t = { malloc(STORED_BYTES + in.n), 0, STORED_BYTES + in.n, false };

	stored_begin(&t, &s);
	text_add(&t, s.body);
	stored_end(&t, 0, key);
	MUST(!t.full && t.n == t.cap);
	MUST(stored_read(&got, text_slice(&t), key));
	MUST(slice_eq(got.head, s.head) && slice_eq(got.body, s.body));
	MUST(got.stored_s == s.stored_s && memcmp(got.facts, s.facts, sizeof s.facts) == 0);
	free(t.p);
}

static void
url_is_good(struct slice in)
{
	struct arena a = { NULL };
	struct redis_url u;
	const char *why = NULL;

	if (redis_url_parse(&a, in, &u, &why)) {
		MUST(u.addr.text && (u.addr.kind == ADDR_UNIX || u.addr.port > 0));
		MUST(u.user.n == 0 || u.password.n > 0);
		MUST(!memchr(u.password.n ? u.password.p : "x", '\0', MAX(u.password.n, 1u)));
	} else
		MUST(why);
	arena_free(&a);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice in = exact(data, size);

	feed(&whole, in, SIZE_MAX);
	for (size_t step = 0; step < 3; step++) {
		feed(&parts, in, step);
		MUST(parts.n == whole.n && memcmp(parts.v, whole.v, whole.n * sizeof *whole.v) == 0);
	}
	value_is_good(in);
	value_round(in);
	url_is_good(in);
	exact_free(in);
	return 0;
}
