/* deflate_bench FILE...: size and CPU of the room deflate beside zlib -1, -6 and -9,
 * for the first 2, 20, 100 KB and 1 MB of each file in pieces of 4, 16 and 64 KB.
 * LEVEL=n: gzip_level, 6 otherwise. Percent: bytes beside zlib -6; x: its time. */

#define main warp_main
#include "../../warp.c"
#undef main

#include <malloc.h>
#include <zlib.h>

enum { TEXT_MAX = 1000000, ROUNDS = 5, BYTES_A_ROUND = 400000 };

static unsigned char text[TEXT_MAX], out[2 * TEXT_MAX], back[TEXT_MAX + 1];
static int level = 6;

/* As nginx does: a new stream for each answer, the text in one go. */
static size_t
by_zlib(size_t n, int how)
{
	z_stream z = { .next_in = text, .avail_in = (uInt)n, .next_out = out, .avail_out = sizeof out };

	if (deflateInit2(&z, how, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK ||
	    deflate(&z, Z_FINISH) != Z_STREAM_END)
		exit(1);
	deflateEnd(&z);
	return z.total_out;
}

static size_t
by_warp(size_t n, int piece)
{
	static struct gzip g;
	size_t done = 0;

	gzip_begin(&g, level);
	for (size_t at = 0, some; at < n; at += some) {
		some = MIN(n - at, (size_t)piece);
		done += gzip_add(&g, (struct slice){ (char *)text + at, some }, at + some == n, (char *)out + done);
	}
	return done;
}

static void
inflates(size_t n, size_t written)
{
	z_stream z = { .next_in = out, .avail_in = (uInt)written, .next_out = back, .avail_out = sizeof back };

	if (inflateInit2(&z, 15 + 16) != Z_OK || inflate(&z, Z_FINISH) != Z_STREAM_END ||
	    z.total_out != n || z.avail_in > 0 || memcmp(back, text, n) != 0) {
		fprintf(stderr, "what comes out is no gzip of what went in\n");
		exit(1);
	}
	inflateEnd(&z);
}

static double
cpu_us(size_t (*how)(size_t, int), size_t n, int arg)
{
	int times = (int)(BYTES_A_ROUND / n) + 1;
	struct timespec a, b;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
	for (int i = 0; i < times; i++)
		how(n, arg);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
	return ((double)(b.tv_sec - a.tv_sec) * 1e6 + (double)(b.tv_nsec - a.tv_nsec) / 1e3) / times;
}

static void
row(const char *name, size_t n)
{
	static const struct {
		size_t (*how)(size_t, int);
		int arg;
	} v[] = { { by_zlib, 6 }, { by_zlib, 1 }, { by_zlib, 9 }, { by_warp, 4096 }, { by_warp, 16384 }, { by_warp, 65536 } };
	double us[LEN(v)];
	size_t bytes[LEN(v)];

	for (size_t i = 0; i < LEN(v); i++) {
		us[i] = 1e9;
		bytes[i] = v[i].how(n, v[i].arg);
		inflates(n, bytes[i]);
	}
	for (int r = 0; r < ROUNDS; r++) /* all in turn: the machine has moods */
		for (size_t i = 0; i < LEN(v); i++) {
			double t = cpu_us(v[i].how, n, v[i].arg);
			us[i] = MIN(us[i], t);
		}
	printf("%-12s %7zu %7zu %6.0f", name, n, bytes[0], us[0]);
	for (size_t i = 1; i < LEN(v); i++)
		printf(" |%+6.1f%% %4.2fx", 100.0 * (double)bytes[i] / (double)bytes[0] - 100, us[i] / us[0]);
	printf("\n");
}

int
main(int argc, char **argv)
{
	static const size_t sizes[] = { 2000, 20000, 100000, TEXT_MAX };

	setvbuf(stdout, NULL, _IOLBF, 0);
	mallopt(M_TRIM_THRESHOLD, 1 << 26); /* zlib's memory stays there, as it does in a busy server */
	if (getenv("LEVEL"))
		level = atoi(getenv("LEVEL"));
	printf("text           bytes zlib -6     us |  zlib -1      |  zlib -9      |"
	       "  warp -%d, 4 KB |     16 KB     |     64 KB\n", level);
	for (int i = 1; i < argc; i++) {
		FILE *f = fopen(argv[i], "r");
		size_t n = f ? fread(text, 1, sizeof text, f) : 0;
		const char *slash = strrchr(argv[i], '/');
		if (f)
			fclose(f);
		for (size_t k = 0; k < LEN(sizes) && (k == 0 || sizes[k - 1] < n); k++)
			row(slash ? slash + 1 : argv[i], MIN(n, sizes[k]));
	}
	return 0;
}
