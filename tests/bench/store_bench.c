/* What the cache's memory costs: nanoseconds of a hit and of storing, of 1 KB and of 1 MB,
 * fresh and after churn; bytes for each object. */

#define main warp_main
#include "../../warp.c"
#undef main

enum { OBJECTS = 20000, SECS_US = 300000 };

static char body[1 << 20], copy[1 << 20], head_bytes[4096];
static const char head_text[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nDate: Mon, 30 Nov 2026 05:00:00 GMT\r\n"
    "ETag: \"0123456789abcdef\"\r\nCache-Control: max-age=3600\r\nLast-Modified: Mon, 30 Nov 2026 04:00:00 "
    "GMT\r\nServer: backend\r\n\r\n";

static struct store_key
key_of(unsigned n)
{
	static char t[64];
	int len = snprintf(t, sizeof t, "http://www.example.com/articles/%08u", n);

	return store_key((struct slice){ t, (size_t)len }, S(""));
}

static bool
put(unsigned n, size_t size)
{
	struct store_key k = key_of(n);
	struct text head = { head_bytes, 0, sizeof head_bytes, false };
	struct policy f = { .fresh_s = 200 };
	struct store_ref r;
	bool good;

	if (store_find(&k, &r, &f, &head) || !store_begin(&k, &r))
		return false;
	good = store_head(&r, &f, (struct slice){ head_text, sizeof head_text - 1 }, size);
	for (size_t at = 0, piece; good && at < size; at += piece) {
		piece = MIN(size - at, (size_t)65536);
		good = store_add(&r, (struct slice){ body + at, piece });
	}
	store_finish(&r, good);
	store_drop(&r);
	return good;
}

static unsigned pieces;

/* Of this process: other work on the machine counts less. */
static int64_t
cpu_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static bool
get(unsigned n)
{
	struct store_key k = key_of(n);
	struct text head = { head_bytes, 0, sizeof head_bytes, false };
	struct policy f;
	struct store_ref r;
	struct iovec v[64];

	if (!store_find(&k, &r, &f, &head))
		return false;
	for (int got; (got = store_read(&r, v, LEN(v), 65536)) > 0;) {
		size_t sum = 0;
		for (int i = 0; i < got; i++) {
			memcpy(copy + sum, v[i].iov_base, v[i].iov_len);
			sum += v[i].iov_len;
		}
		pieces += (unsigned)got;
		store_skip(&r, sum);
	}
	store_drop(&r);
	return true;
}

static void
measure(const char *what, unsigned objects, size_t size, bool storing)
{
	int64_t from = cpu_us(), took;
	unsigned n = 0, hits = 0;

	pieces = 0;
	do
		for (unsigned i = 0; i < 100; i++, n++) {
			unsigned key = (unsigned)(mix64(n) % objects);
			hits += storing ? put(key, size) : get(key);
		}
	while ((took = cpu_us() - from) < SECS_US);
	printf("%-34s %8.0f ns  %3u%% done  %.1f pieces\n", what, (double)took * 1000 / n, hits * 100 / n,
	    (double)pieces / n);
}

int
main(void)
{
	struct store *s = store_open((size_t)64 << 20);

	store_join(s, 0);
	clock_turn();
	for (unsigned i = 0; i < OBJECTS; i++)
		put(i, 1024);
	printf("block %d: entry of %zu bytes; %u objects of 1 KB: %.0f bytes each beyond head, key, body\n", STORE_BLOCK,
	    sizeof(struct store_entry), (unsigned)s->entries,
	    (double)(s->fresh - 1 - s->n_free) * ((double)s->size / s->n_blocks) / s->entries - 1024 -
	        (sizeof head_text - 1) - 40);
	measure("hit, 100 objects of 1 KB", 100, 1024, false);
	measure("hit, 20000 objects of 1 KB", OBJECTS, 1024, false);
	measure("replacing 1 KB", OBJECTS, 1024, true);
	measure("hit, 20000 objects of 1 KB", OBJECTS, 1024, false);
	for (unsigned i = 0; i < 400000; i++)
		put(OBJECTS + i, 1024);
	measure("storing 1 KB by eviction", 100000000, 1024, true);
	measure("hit, 20000 objects of 1 KB", OBJECTS, 1024, false);
	for (unsigned i = 0; i < 1000; i++)
		put(30000000 + i % 30, sizeof body);
	measure("storing 1 MB after churn", 30, sizeof body, true);
	measure("hit, 30 objects of 1 MB, after churn", 30, sizeof body, false);
	store_close(s);
	s = store_open((size_t)64 << 20);
	store_join(s, 0);
	for (unsigned i = 0; i < 30; i++)
		put(i, sizeof body);
	measure("hit, 30 objects of 1 MB, fresh", 30, sizeof body, false);
	return 0;
}
