/* An expression, a line feed, a text: what is read, and where it matches. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "fuzz.h"

static struct arena arena;

static void
find(const struct regex *re, struct slice text)
{
	struct regex_span span[REGEX_GROUPS];
	bool is = regex_find(re, text, span);

	MUST(is == regex_matches(re, text));
	for (int i = 0; is && i < REGEX_GROUPS; i++) {
		MUST((span[i].from < 0) == (span[i].to < 0) && span[i].from <= span[i].to);
		MUST(span[i].from < 0 || (span[i].from >= span[0].from && span[i].to <= span[0].to));
		MUST(i == 0 || span[i].from < 0 || (unsigned)i <= re->groups);
	}
	MUST(!is || span[0].to <= (int)text.n);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *line = size > 0 ? memchr(data, '\n', size) : NULL;
	size_t n = line ? (size_t)(line - data) : size, at = 0;
	struct slice expression = exact(data, n);
	struct slice text = exact(data + n + (line != NULL), MIN(size - n - (line != NULL), (size_t)64));
	struct regex re;
	const char *why = regex_read(&arena, &re, expression, &at);

	if (why)
		MUST(at <= expression.n);
	else
		find(&re, text);
	exact_free(expression);
	exact_free(text);
	arena_free(&arena);
	return 0;
}
