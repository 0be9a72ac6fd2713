/* Any bytes, cut into the pieces that the first ones say, at the level that they say:
 * zlib's inflate has each piece again as soon as it is out. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include <zlib.h>

#include "fuzz.h"

enum { CUTS = 8, CUT_UNIT = 97 };

static struct gzip g;
static unsigned char back[1 << 20];

/* One piece in and out again. */
static void
piece(z_stream *z, const uint8_t *data, size_t n, bool last)
{
	struct slice in = exact(data, n);
	size_t room = n + n / 1024 + GZIP_SPARE, total = z->total_out;
	char *out = malloc(room);
	int got;

	z->next_in = (unsigned char *)out;
	z->avail_in = (uInt)gzip_add(&g, in, last, out);
	MUST(z->avail_in <= room);
	got = inflate(z, Z_SYNC_FLUSH);
	MUST(got == (last ? Z_STREAM_END : Z_OK) && z->avail_in == 0);
	MUST(z->total_out == total + n && memcmp(back + total, data, n) == 0);
	exact_free(in);
	free(out);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	z_stream z = { .next_out = back, .avail_out = sizeof back };
	const uint8_t *cuts = data + 1, *at = data + 1 + CUTS, *end = data + size;

	if (size < 1 + CUTS || size > sizeof back)
		return 0;
	MUST(inflateInit2(&z, 15 + 16) == Z_OK);
	gzip_begin(&g, 1 + data[0] % 9);
	for (size_t i = 0, n; i < CUTS && cuts[i]; i++, at += n) {
		n = MIN((size_t)cuts[i] * CUT_UNIT, (size_t)(end - at));
		if (n > 0)
			piece(&z, at, n, false);
	}
	for (; end - at > RELAY_BYTES; at += RELAY_BYTES)
		piece(&z, at, RELAY_BYTES, false);
	piece(&z, at, (size_t)(end - at), true);
	inflateEnd(&z);
	return 0;
}
