/* A request head: whole, in pieces, its framing and its fields. */

#include "fuzz.h"

static bool
within(struct slice s, struct slice in)
{
	return s.n == 0 || (s.p >= in.p && s.p + s.n <= in.p + in.n);
}

/* Scanned in two pieces, the head ends where it ended in one. */
static void
scan_twice(struct slice in, int eaten)
{
	uint32_t scanned = 0;
	struct slice half = { in.p, in.n / 2 };
	int got = head_scan(half, &scanned);

	if (got == 0)
		got = head_scan(in, &scanned);
	MUST(got == eaten);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static struct head h;
	struct slice in = { (const char *)data, n };
	struct body b;
	uint32_t scanned = 0;
	int end = head_scan(in, &scanned), got = request_parse(&h, in);

	scan_twice(in, end);
	MUST(got <= (int)n && got > -600);
	if (got <= 0)
		return 0;
	MUST(within(h.target, in) && within(h.host, in) && h.n <= FIELDS_MAX);
	MUST(within(h.path, in) || slice_eq(h.path, S("/"))); /* of http://host */
	for (int i = 0; i < h.n; i++)
		MUST(is_token(h.f[i].name) && is_field_value(h.f[i].value) &&
		    within(h.f[i].name, in) && within(h.f[i].value, in));
	if (body_of_request(&b, &h) == 0)
		MUST(b.kind != BODY_CLOSE && (b.kind != BODY_CHUNKED || h.count[F_CONTENT_LENGTH] == 0));
	head_hop_by_hop(&h);
	MUST(!h.first[F_HOST] || !h.f[h.first[F_HOST] - 1].drop);
	in.n = (size_t)got - 1;
	MUST(request_parse(&h, in) <= 0); /* a byte less is not a whole head */
	return 0;
}
