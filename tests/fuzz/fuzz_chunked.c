/* A chunked body gives the same content and trailers, or fails at the same
 * byte, however it is cut into reads. The first byte says how. */

#include "fuzz.h"

struct decoded {
	char *content;
	size_t n;
	size_t used;
	bool bad, done;
	char trailers[TRAILER_MAX];
	size_t trailers_n;
};

/* Decodes all of in, step bytes at a time. */
static struct decoded
decode(struct slice in, size_t step)
{
	struct decoded d = { .content = malloc(in.n + 1) };
	struct text trailers = { d.trailers, 0, sizeof d.trailers, false };
	struct body b = { .kind = BODY_CHUNKED };
	size_t content, part;
	ssize_t got;
	char *piece;

	while (d.used < in.n && !b.done && !d.bad) {
		part = MIN(step, in.n - d.used);
		piece = malloc(part);
		memcpy(piece, in.p + d.used, part);
		got = chunk_decode(&b, piece, part, &content, &trailers);
		if ((d.bad = got < 0))
			content = 0;
		else
			d.used += (size_t)got;
		MUST(content <= part && (got < 0 || got == (ssize_t)part || b.done));
		memcpy(d.content + d.n, piece, content);
		d.n += content;
		free(piece);
	}
	d.done = b.done;
	d.trailers_n = trailers.n;
	MUST(d.bad || b.total == d.n);
	return d;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct decoded whole, parts;
	struct slice in;

	if (n < 2)
		return 0;
	in = (struct slice){ (const char *)data + 1, n - 1 };
	whole = decode(in, in.n);
	parts = decode(in, 1 + data[0] % 16);
	MUST(whole.bad == parts.bad && whole.done == parts.done);
	if (!whole.bad) {
		MUST(whole.n == parts.n && whole.used == parts.used);
		MUST(memcmp(whole.content, parts.content, whole.n) == 0);
		MUST(whole.trailers_n == parts.trailers_n &&
		    memcmp(whole.trailers, parts.trailers, whole.trailers_n) == 0);
	}
	free(whole.content);
	free(parts.content);
	return 0;
}
