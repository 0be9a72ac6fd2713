/* The first byte says how large a body is; the rest is a Range, a date, a list of
 * entity-tags: what comes of them lies where it should. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "fuzz.h"

static void
range(struct slice in, uint64_t size)
{
	struct ranges r;
	int got = ranges_parse(&r, in, size);
	uint64_t total = 0;

	MUST(got == 200 || got == 206 || got == 416);
	if (got != 206)
		return;
	MUST(r.n > 0 && r.n <= RANGES_MAX && r.total <= size);
	for (int i = 0; i < r.n; i++) {
		MUST(r.v[i].n > 0 && r.v[i].first < size && r.v[i].n <= size - r.v[i].first);
		total += r.v[i].n;
	}
	MUST(total == r.total);
}

static void
date(struct slice in)
{
	char b[DATE_LEN + 1];
	int64_t t = date_read(in);

	MUST(t >= -1);
	if (t > 0)
		MUST(date_read(date_write(b, (time_t)t)) == t);
}

static void
etags(struct slice in)
{
	struct slice rest = in, item;

	while (etag_next(&rest, &item)) {
		MUST(lies_in(item, in) && item.n >= 2 && etag_eq(item, item, true));
		MUST(etag_eq(item, item, false) == !etag_is_weak(item));
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice in;

	if (size == 0)
		return 0;
	in = exact(data + 1, size - 1);
	now_s = 1790000000;
	range(in, data[0] == UINT8_MAX ? UINT64_MAX : UINT64_C(1) << data[0] % 64 >> 1);
	date(in);
	etags(in);
	exact_free(in);
	return 0;
}
