/* ==== answers ================================================================
 * Owns    the text of the error page being made.
 * Offers  answer_error, answer_write.
 * Calls   base, http, heads. What warp says when no backend does. */

#define ERROR_TEXT_MAX 1024

static void
html_add(struct text *t, const char *s)
{
	for (; *s; s++)
		switch (*s) {
		case '<': text_add(t, S("&lt;")); break;
		case '>': text_add(t, S("&gt;")); break;
		case '&': text_add(t, S("&amp;")); break;
		default: text_char(t, *s);
		}
}

static void
json_add(struct text *t, const char *s)
{
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			text_char(t, '\\');
		text_char(t, (unsigned char)*s < ' ' ? ' ' : *s);
	}
}

/* JSON for who asks for it and not for HTML as well. */
static bool
wants_json(const struct head *h)
{
	bool json = false;

	for (int i = 0; h && i < h->n; i++) {
		if (h->f[i].id != F_ACCEPT)
			continue;
		if (memmem(h->f[i].value.p, h->f[i].value.n, "text/html", 9))
			return false;
		json |= memmem(h->f[i].value.p, h->f[i].value.n, "json", 4) != NULL;
	}
	return json;
}

static const struct error_page *
error_page(int status, bool json)
{
	for (int i = 0; i < conf->n_pages; i++)
		if (conf->pages[i].status == status && conf->pages[i].json == json)
			return &conf->pages[i];
	return NULL;
}

static void
error_text(struct text *t, int status, bool json, const char *cause)
{
	if (json) {
		text_fmt(t, "{\"status\":%d,\"error\":\"%s\"", status, status_text(status));
		if (*cause) {
			text_str(t, ",\"cause\":\"");
			json_add(t, cause);
			text_char(t, '"');
		}
		text_str(t, "}\n");
		return;
	}
	text_fmt(t, "<!doctype html>\n<title>%d %s</title>\n<h1>%d %s</h1>\n", status,
	    status_text(status), status, status_text(status));
	if (*cause) {
		text_str(t, "<p>");
		html_add(t, cause);
		text_str(t, "</p>\n");
	}
}

/* The error in the words and the form the client asked for. The body lies in
 * a static buffer: good until the next one. */
static struct answer
answer_error(const struct head *h, int status, const char *cause)
{
	static char buf[ERROR_TEXT_MAX];
	struct text t = { buf, 0, sizeof buf, false };
	bool json = wants_json(h);
	const struct error_page *page = error_page(status, json);

	if (!page)
		error_text(&t, status, json, conf->server.show_errors ? cause : "");
	return (struct answer){
		.status = status,
		.content_type = json ? S("application/json") : S("text/html; charset=utf-8"),
		.body = page ? page->body : text_slice(&t),
	};
}

/* The head of a made-up answer. route is NULL before one is chosen. */
static bool
answer_write(struct text *t, const struct exchange *x, const struct answer *a)
{
	status_write(t, a->status, slice_of(status_text(a->status)));
	if (conf->server.server_tokens)
		text_add(t, S("Server: warp/" VERSION "\r\n"));
	line_write(t, S("Date"), clock_date());
	if (a->content_type.n > 0)
		line_write(t, S("Content-Type"), a->content_type);
	if (a->status != 204 && a->status != 304) {
		text_add(t, S("Content-Length: "));
		text_uint(t, a->body.n);
		text_add(t, S("\r\n"));
	}
	text_add(t, a->extra);
	if (x->route)
		pairs_write(t, &x->route->add_response_headers);
	connection_write(t, x);
	text_add(t, S("\r\n"));
	return !t->full;
}

