/* gzip_add held against zlib's inflate: whatever goes in, in whatever pieces, comes out
 * again, each piece at once; and against zlib -6: it is not much longer. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include <zlib.h>

#include "unit.h"

enum { TEXT_MAX = 1000000, LINES = 6 };

static char text[TEXT_MAX + 256];
static unsigned char back[TEXT_MAX + 1];

/* Lines, taken by chance. In them @ is a word, # a number, $ eight digits of a hash,
 * ~ any byte, ^ the next byte of 256, & a byte of four. */
static const struct sample {
	const char *name, *lines[LINES];
} samples[] = {
	{ "html",
	    { "<div class=\"@ @-@\" id=\"@#\">\n", "</div>\n", "\t<h2><a href=\"/@/#\">@ @</a></h2>\n",
	        "\t<p>@ @ @, @ @ @ <em>@</em> @ @. @ @: @ @ @.</p>\n",
	        "\t\t<li class=\"@\"><img src=\"/@/$.png\" alt=\"@ @\"></li>\n",
	        "\t<td>#</td><td>@</td><td>@ @</td>\n" } },
	{ "json",
	    { "{\"id\":#,\"name\":\"@ @\",\"tags\":[\"@\",\"@\"],\"etag\":\"$\"},\n",
	        "{\"id\":#,\"name\":\"@\",\"owner\":{\"id\":#,\"login\":\"@\"},\"private\":false},\n",
	        "{\"id\":#,\"at\":\"2026-11-30T06:#Z\",\"size\":#,\"url\":\"https://@.example/@/#\"},\n",
	        "{\"id\":#,\"name\":\"@ @\",\"tags\":[],\"etag\":null},\n" } },
	{ "css",
	    { ".@-@ > .@:hover {\n", "\tmargin: #px #px;\n", "\tcolor: #$;\n", "}\n\n",
	        "\tpadding-@: #em;\n", "\tbackground: url(/@/@.svg) no-repeat;\n" } },
	{ "js",
	    { "function @(@, @) {\n", "\tif (@.@ === # && !@) {\n\t\treturn @.@(@, #);\n\t}\n", "}\n\n",
	        "\tconst @ = @.map((@) => @.@ + #);\n", "\t// @ @ @ @ @\n",
	        "\tthis.@.addEventListener('@', (e) => this.@(e));\n" } },
	{ "log",
	    { "10.0.#.# - - [30/Nov/2026:06:#:# +0000] \"GET /@/@?id=# HTTP/1.1\" 200 # \"-\" \"Mozilla/5.0\"\n",
	        "10.0.#.# - - [30/Nov/2026:06:#:# +0000] \"POST /@/# HTTP/1.1\" 302 # \"-\" \"curl/8.0\"\n",
	        "10.0.#.# - @ [30/Nov/2026:06:#:# +0000] \"GET /@.$.js HTTP/1.1\" 304 0 \"-\" \"@/#\"\n" } },
	{ "prose", { "@ @ @ @ @, @ @ @. ", "@ @ @; @ @ @ @ @ @ @ @.\n", "@ @? @ @ @ @ @ " } },
	{ "random", { "~" } },
	{ "zeros and random", { "00000000000000000000000000000000000000000000000000", "~", "~~" } },
	{ "four values", { "&" } },
	{ "one run", { "a" } },
	{ "short period", { "abc" } },
	{ "all bytes in turn", { "^" } },
};
enum { TEXTS = 6 }; /* the first of them */

static const char *const words[] = { "the", "of", "and", "to", "in", "proxy", "is", "server", "that", "item",
	"value", "request", "for", "user", "list", "index", "with", "as", "data", "cache", "order", "on",
	"name", "header", "not", "be", "button", "title", "from", "date", "page", "this", "content", "result",
	"by", "active", "which", "time", "upstream", "image", "or", "error", "field", "price", "status",
	"main", "left", "element", "response", "total", "client", "window", "update", "connection",
	"product", "category", "message", "wrapper", "document", "available", "customer", "small",
	"certificate", "description" };

static struct slice
first(struct slice s, size_t n)
{
	return (struct slice){ s.p, MIN(s.n, n) };
}

static size_t
symbol_make(char *p, char symbol, size_t at)
{
	switch (symbol) {
	case '@':
		return (size_t)sprintf(p, "%s", words[dice(1 + dice(LEN(words)))]);
	case '#':
		return (size_t)sprintf(p, "%u", dice(dice(2) ? 60 : 100000));
	case '$':
		return (size_t)sprintf(p, "%04x%04x", dice(65536), dice(65536));
	case '~':
		*p = (char)dice(256);
		return 1;
	case '^':
		*p = (char)at;
		return 1;
	case '&':
		*p = (char)('a' + dice(1000) / 250);
		return 1;
	default:
		*p = symbol;
		return 1;
	}
}

static struct slice
text_make(const struct sample *k, size_t n)
{
	unsigned lines = 0;

	while (lines < LINES && k->lines[lines])
		lines++;
	for (size_t at = 0; at < n;)
		for (const char *p = k->lines[dice(lines)]; *p && at < n; p++)
			at += symbol_make(text + at, *p, at);
	return (struct slice){ text, n };
}

/* A stream on its way through gzip_add and inflate. */
struct trip {
	struct gzip g;
	z_stream z;
	struct slice in; /* what went in */
	size_t out;
	bool bad;
};

static void
trip_begin(struct trip *t, int level, unsigned char *to)
{
	*t = (struct trip){ .z = { .next_out = to, .avail_out = sizeof back } };
	memset(&t->g, 0x55, sizeof t->g);
	gzip_begin(&t->g, level);
	inflateInit2(&t->z, 15 + 16);
}

/* What is out yields all that went in; the last piece ends the stream: inflate has
 * looked at CRC and length then. */
static void
trip_add(struct trip *t, struct slice piece, bool last)
{
	struct slice in = exact(piece);
	size_t room = in.n + in.n / 1024 + GZIP_SPARE, n;
	char *out = malloc(room);
	const unsigned char *begin = t->z.next_out - t->z.total_out;
	int got;

	n = gzip_add(&t->g, in, last, out);
	t->in = (struct slice){ t->in.n ? t->in.p : piece.p, t->in.n + piece.n };
	t->z.next_in = (unsigned char *)out;
	t->z.avail_in = (uInt)n;
	got = inflate(&t->z, Z_SYNC_FLUSH);
	t->out += n;
	t->bad |= n > room || got != (last ? Z_STREAM_END : Z_OK) || t->z.avail_in > 0 ||
	    t->z.total_out != t->in.n || memcmp(begin + t->in.n - in.n, piece.p, in.n) != 0;
	exact_free(in);
	free(out);
}

/* Returns how many bytes were out. */
static size_t
trip_end(struct trip *t, const char *why)
{
	if (t->bad || memcmp(back, t->in.p, t->in.n) != 0)
		row_bad(why, first(t->in, 60), "%zu bytes at effort %u do not come back", t->in.n,
		    t->g.effort.looks);
	inflateEnd(&t->z);
	return t->out;
}

/* Text in pieces of at most `piece` bytes, 0: of random size. The last one may be empty. */
static size_t
round_trip(const char *why, struct slice in, int level, size_t piece, bool empty_last)
{
	static struct trip t;
	size_t n;

	trip_begin(&t, level, back);
	do {
		n = piece ? piece : 1 + dice(dice(2) ? 100 : RELAY_BYTES);
		n = MIN(in.n, n);
		trip_add(&t, first(in, n), n == in.n && !empty_last);
		in = slice_from(in, n);
	} while (in.n > 0);
	if (empty_last)
		trip_add(&t, in, true);
	return trip_end(&t, why);
}

static void
test_all_comes_back(void **state)
{
	(void)state;
	for (size_t k = 0; k < LEN(samples); k++)
		for (int level = 1; level <= 9; level++)
			round_trip(samples[k].name, text_make(&samples[k], 70000), level, RELAY_BYTES, level % 2);
	rows_end();
}

static void
test_pieces(void **state)
{
	static const struct {
		size_t n, piece;
	} t[] = {
		{ 0, 1 }, { 1, 1 }, { 2, 1 }, { 3, 3 }, { 4, 4 }, { 5, 2 }, { 300, 1 }, { 3000, 7 },
		{ 10000, 100 }, { 70000, 1000 }, { 100000, 4096 }, { 40000, 16384 }, { 100000, 16385 },
		{ 65536, 65536 }, { 65537, 65536 }, { 131072, 65536 }, { 200000, 65535 }, { 300000, 0 },
	};

	(void)state;
	for (size_t k = 0; k < LEN(samples); k++)
		for (size_t i = 0; i < LEN(t); i++)
			round_trip(samples[k].name, text_make(&samples[k], t[i].n), 6, t[i].piece, i % 2);
	rows_end();
}

/* Bytes again after n others, which are random: near the longest distances. */
static void
test_distances(void **state)
{
	static const size_t t[] = { 1, 2, 4, 5, 255, 16383, 16384, 16385, 24577, 32767, 32768, 32769, 65535, 65536 };

	(void)state;
	for (size_t i = 0; i < LEN(t); i++)
		for (size_t piece = 8192; piece <= RELAY_BYTES; piece *= 2) {
			for (size_t at = 0; at < 200000; at++)
				text[at] = at < t[i] ? (char)dice(256) : text[at - t[i]];
			round_trip("distance", (struct slice){ text, 200000 }, 1 + (int)(i % 9), piece, false);
		}
	rows_end();
}

/* Streams share the tables of the room: none sees what the other wrote there. */
static void
test_streams_in_turn(void **state)
{
	static struct trip t[2];
	static unsigned char others[sizeof back];
	struct slice in = text_make(&samples[0], 200000);

	(void)state;
	trip_begin(&t[0], 6, back);
	trip_begin(&t[1], 9, others);
	for (size_t at = 0, n; at < in.n; at += n) {
		n = 1 + dice(20000);
		n = MIN(in.n - at, n);
		trip_add(&t[0], (struct slice){ in.p + at, n }, at + n == in.n);
		trip_add(&t[1], (struct slice){ in.p + in.n - at - n, n }, at + n == in.n);
	}
	trip_end(&t[0], "in turn");
	row_int("in turn", S("the other"), "bad", t[1].bad, false);
	inflateEnd(&t[1].z);
	rows_end();
}

static void
test_frame(void **state)
{
	static struct gzip g;
	struct slice in = text_make(&samples[0], 1000);
	unsigned char out[2048];
	size_t n;
	uint32_t crc;

	(void)state;
	gzip_begin(&g, 6);
	n = gzip_add(&g, in, true, (char *)out);
	crc = (uint32_t)crc32(0, (const unsigned char *)in.p, (uInt)in.n);
	assert_memory_equal(out, "\x1f\x8b\x08\0\0\0\0\0\0\xff", 10);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(out[n - 8 + i], crc >> 8 * i & 255);
		assert_int_equal(out[n - 4 + i], in.n >> 8 * i & 255);
	}
}

/* zlib in one go, as nginx has it. */
static size_t
zlib_size(struct slice in, int level)
{
	static unsigned char out[2 * TEXT_MAX];
	z_stream z = { .next_in = (unsigned char *)(uintptr_t)in.p, .avail_in = (uInt)in.n, .next_out = out,
		.avail_out = sizeof out };

	deflateInit2(&z, level, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
	deflate(&z, Z_FINISH);
	deflateEnd(&z);
	return z.total_out;
}

/* Level 6 is at most 5 % longer than zlib's up to 100 KB, and 7 % where each piece of many
 * has but half of zlib's window before it: words by chance are harder than real text.
 * What cannot be compressed is hardly longer than it was. */
static void
test_sizes(void **state)
{
	static const struct {
		size_t n;
		unsigned more; /* percent */
	} t[] = { { 10000, 4 }, { 100000, 5 }, { TEXT_MAX, 7 } };

	(void)state;
	for (size_t k = 0; k < LEN(samples); k++)
		for (size_t i = 0; i < LEN(t); i++) {
			struct slice in = text_make(&samples[k], t[i].n);
			size_t n = round_trip(samples[k].name, in, 6, RELAY_BYTES, false), most;
			most = k < TEXTS ? zlib_size(in, 6) * (100 + t[i].more) / 100 : in.n + in.n / 1024 + 64;
			if (n > most)
				row_bad(samples[k].name, first(in, 60), "%zu bytes become %zu, zlib's are %zu", in.n,
				    n, zlib_size(in, 6));
		}
	rows_end();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_comes_back),
		cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_distances),
		cmocka_unit_test(test_streams_in_turn),
		cmocka_unit_test(test_frame),
		cmocka_unit_test(test_sizes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
