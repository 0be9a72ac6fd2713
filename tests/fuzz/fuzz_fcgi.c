/* Any bytes as an application's records, in one piece and in the pieces that the first bytes
 * say: the same output, log and end. And what is written is read. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "fuzz.h"

enum { CUTS = 4, LOG = 100 };

struct decoded {
	struct fcgi_reader r;
	struct text out, err;
	size_t used;
	bool bad;
};

static void
piece(struct decoded *d, const uint8_t *data, size_t n)
{
	struct slice copy = exact(data, n);
	ssize_t used;
	size_t out;

	if (d->bad || d->r.ended) {
		exact_free(copy);
		return;
	}
	used = fcgi_decode(&d->r, (char *)(uintptr_t)copy.p, n, &out, &d->err);
	if (used < 0)
		d->bad = true;
	else {
		MUST(out <= (size_t)used && (size_t)used <= n && (d->r.ended || (size_t)used == n));
		text_add(&d->out, (struct slice){ copy.p, out });
		d->used += (size_t)used;
	}
	exact_free(copy);
}

static void
start(struct decoded *d, size_t size)
{
	*d = (struct decoded){ .out = { malloc(size), 0, size, false }, .err = { malloc(LOG), 0, LOG, false } };
}

/* Any bytes as output and log. */
static void
round_trip(struct slice in)
{
	size_t cap = in.n + 16 * FCGI_HEAD, n = MIN(in.n, (size_t)UINT16_MAX);
	struct text t = { malloc(cap), 0, cap, false }, err = { NULL, 0, 0, false };
	struct fcgi_reader r = { .left = 0 };
	size_t out;

	text_fcgi(&t, FCGI_STDERR, (struct slice){ in.p, n / 2 });
	text_fcgi(&t, FCGI_STDOUT, slice_from((struct slice){ in.p, n }, n / 2));
	text_fcgi(&t, FCGI_STDOUT, S(""));
	text_fcgi(&t, FCGI_END, S("\0\0\0\2\3\0\0\0"));
	MUST(!t.full && fcgi_decode(&r, t.p, t.n, &out, &err) == (ssize_t)t.n);
	MUST(r.ended && r.app_status == 2 && r.protocol_status == 3 && out == n - n / 2);
	MUST(memcmp(t.p, in.p + n / 2, out) == 0);
	free(t.p);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct decoded whole, split;
	struct slice in = exact(data, size);
	size_t from = 0;

	round_trip(in);
	exact_free(in);
	if (size < CUTS)
		return 0;
	start(&whole, size);
	start(&split, size);
	piece(&whole, data + CUTS, size - CUTS);
	for (size_t i = 0; i < CUTS; i++) {
		size_t n = MIN((size_t)data[i], size - CUTS - from);
		piece(&split, data + CUTS + from, n);
		from += n;
	}
	for (; from < size - CUTS; from++) /* the rest by single bytes */
		piece(&split, data + CUTS + from, 1);
	MUST(whole.bad == split.bad);
	if (!whole.bad) {
		MUST(whole.used == split.used && slice_eq(text_slice(&whole.out), text_slice(&split.out)));
		MUST(slice_eq(text_slice(&whole.err), text_slice(&split.err)));
		MUST(whole.r.ended == split.r.ended && whole.r.app_status == split.r.app_status);
		MUST(whole.r.left == split.r.left && whole.r.padding == split.r.padding);
	}
	free(whole.out.p);
	free(whole.err.p);
	free(split.out.p);
	free(split.err.p);
	return 0;
}
