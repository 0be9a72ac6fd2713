/* A chunked body in one piece and in the pieces that the first bytes say: the
 * content, the trailers and what is left behind are the same. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "fuzz.h"

enum { CUTS = 4 };

struct decoded {
	char *content;
	size_t n, used;
	struct text t;
	char trailers[4096];
	struct body body;
	bool bad;
};

static void
piece(struct decoded *d, const uint8_t *data, size_t n)
{
	struct slice copy = exact(data, n);
	char *p = (char *)(uintptr_t)copy.p;
	size_t content, at = 0;
	ssize_t used;

	while (at < n && !d->bad && !d->body.done) {
		used = chunk_decode(&d->body, p + at, n - at, &content, &d->t);
		d->bad = used < 0;
		if (d->bad)
			break;
		MUST(content <= (size_t)used && at + (size_t)used <= n);
		memcpy(d->content + d->n, p + at, content);
		d->n += content;
		d->used += (size_t)used;
		at += (size_t)used;
		if (at == n || d->body.done)
			break;
		MUST(d->body.need_trailers && d->t.cap == 0);
		d->body.need_trailers = false;
		d->t = (struct text){ d->trailers, 0, sizeof d->trailers, false };
	}
	exact_free(copy);
}

static void
start(struct decoded *d, size_t size)
{
	d->content = malloc(size);
	d->n = d->used = 0;
	d->t = (struct text){ NULL, 0, 0, false };
	d->bad = false;
	body_set(&d->body, BODY_CHUNKED, 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct decoded whole, split;
	size_t from = 0;

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
	while (from < size - CUTS) { /* the rest by single bytes */
		piece(&split, data + CUTS + from, 1);
		from++;
	}
	MUST(whole.bad == split.bad);
	if (!whole.bad) {
		MUST(whole.used == split.used && whole.n == split.n);
		MUST(memcmp(whole.content, split.content, whole.n) == 0);
		MUST(slice_eq(text_slice(&whole.t), text_slice(&split.t)));
		MUST(whole.body.done == split.body.done && whole.body.chunk == split.body.chunk);
		MUST(whole.body.left == split.body.left && whole.body.total == split.body.total);
		MUST(whole.body.total == whole.n);
		MUST(whole.body.done || whole.used == size - CUTS);
	}
	free(whole.content);
	free(split.content);
	return 0;
}
