/* Any bytes as what a CA answers: a JSON document, a URL, a date. What is made
 * of them for the log is one line, what is sent on is what it was. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "fuzz.h"

static void
document(struct acme *j, struct slice in)
{
	const struct json *v = json_parse(&j->arena, in), *c;
	struct acme_answer an = { .status = 400, .json = v, .retry_s = -1 };
	struct slice name = json_text(json_get(v, "identifier"), "value");

	acme_bad(j, "this", &an);
	MUST(*j->why && !strpbrk(j->why, "\r\n"));
	if (!acme_is(j, &an, "valid"))
		MUST(*j->why && !strpbrk(j->why, "\r\n"));
	if (!acme_judged(j, v, name))
		MUST(*j->why && !strpbrk(j->why, "\r\n"));
	c = acme_choose(j, v, name);
	MUST(c ? json_text(c, "type").n > 0 : j->advice != NULL);
	acme_time(json_text(json_get(v, "suggestedWindow"), "start"));
}

/* What is quoted is read back as it was, if it is UTF-8 at all. */
static void
text(struct arena *a, struct slice in)
{
	struct slice out, quoted = slice_of(json_quoted(a, in));
	const struct json *v = json_parse(a, quoted);
	const unsigned char *p = (const unsigned char *)in.p, *end = p + in.n;
	size_t n = 1;

	for (; p < end && n > 0; p += n)
		n = utf8_length(p, end);
	MUST(v && v->kind == JSON_STRING);
	MUST(n == 0 || slice_eq(v->text, in));
	MUST(b64url_decode(a, b64url(a, in), &out) && slice_eq(out, in));
	b64url_decode(a, in, &out);
}

static void
place(struct arena *a, struct slice in)
{
	struct acme_place to;

	if (!acme_place(a, in, &to))
		return;
	MUST(*to.host && *to.port && to.path.n > 0 && (lies_in(to.path, in) || to.path.n == 1));
	for (size_t i = 0; i < to.path.n; i++)
		MUST(to.path.p[i] > ' ' && to.path.p[i] <= '~');
	MUST(!strpbrk(to.authority, " \r\n@/"));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct acme_task task = { .plain = size & 1, .tls = size & 2 };
	struct acme *j = xcalloc(1, sizeof *j);
	struct slice in = exact(data, size);

	j->task = &task;
	j->retry_s = -1;
	document(j, in);
	text(&j->arena, in);
	place(&j->arena, in);
	acme_retry(in, 1795219200);
	account_read(&j->arena, in);
	arena_free(&j->arena);
	free(j);
	exact_free(in);
	return 0;
}
