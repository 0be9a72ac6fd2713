/* fuzz.h: what the targets have in common. Included behind warp.c. */

#ifndef FUZZ_H
#define FUZZ_H

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What must hold: prints which line does not, and stops. */
#define MUST(what)                                                               \
	do {                                                                     \
		if (!(what)) {                                                   \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__,         \
			    __LINE__, #what);                                    \
			abort();                                                 \
		}                                                                \
	} while (0)

/* A copy with nothing behind it. */
static struct slice
exact(const void *from, size_t n)
{
	char *p = malloc(n);

	if (n > 0)
		memcpy(p, from, n);
	return (struct slice){ p, n };
}

static void
exact_free(struct slice s)
{
	free((void *)(uintptr_t)s.p);
}

/* s lies in `in`, or is empty. */
static bool
lies_in(struct slice s, struct slice in)
{
	return s.n == 0 || (s.p >= in.p && s.p + s.n <= in.p + in.n);
}

#endif
