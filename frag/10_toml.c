/* ==== toml ===================================================================
 * Owns    nothing: the tree is in the caller's arena.
 * Offers  toml_parse, toml_get, toml_kind_names.
 * Calls   base, arena, diag. All of TOML 1.0.0. After an error the parser goes
 *         on with the next line, so that all errors are told at once. */

#define TOML_ERRORS_MAX 20

/* How a table or array came to be; what may still be added follows from it. */
enum {
	TOML_EXPLICIT = 1, /* [header], or the root */
	TOML_IMPLICIT = 2, /* named on the way to a header */
	TOML_DOTTED = 4,   /* made by a dotted key */
	TOML_CLOSED = 8,   /* inline: nothing is ever added */
	TOML_TABLES = 16   /* [[header]]: an array that grows */
};

static const char *const toml_kind_names[TOML_KINDS] = {
	[TOML_STRING] = "a text", [TOML_INTEGER] = "an integer", [TOML_FLOAT] = "a float",
	[TOML_BOOLEAN] = "true or false", [TOML_DATETIME] = "a date and time",
	[TOML_DATETIME_LOCAL] = "a local date and time", [TOML_DATE_LOCAL] = "a date",
	[TOML_TIME_LOCAL] = "a time", [TOML_ARRAY] = "an array", [TOML_TABLE] = "a table",
};

struct toml_parser {
	struct arena *arena;
	struct diags *diags;
	const char *p, *end, *line_start;
	unsigned line, depth;
	struct toml *table; /* that lines go into */
	bool (*value)(struct toml_parser *, struct toml *); /* arrays hold values */
};

static const struct toml *
toml_get(const struct toml *t, const char *key)
{
	struct slice k = slice_of(key);

	for (t = t && t->kind == TOML_TABLE ? t->first : NULL; t; t = t->next)
		if (slice_eq(t->key, k))
			return t;
	return NULL;
}

/* Characters, not bytes, from the start of the line; from 1. */
static unsigned
toml_col(const struct toml_parser *tp, const char *at)
{
	unsigned col = 1;

	for (const char *p = tp->line_start; p < at; p++)
		col += ((unsigned char)*p & 0xc0) != 0x80;
	return col;
}

__attribute__((format(printf, 3, 4))) static bool
toml_error(struct toml_parser *tp, const char *at, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	if (tp->diags->errors < TOML_ERRORS_MAX)
		diag_add(tp->diags, DIAG_ERROR, tp->line, toml_col(tp, at), "%s", text);
	return false;
}

static bool
toml_at(const struct toml_parser *tp, char c)
{
	return tp->p < tp->end && *tp->p == c;
}

static bool
toml_at_text(const struct toml_parser *tp, const char *s)
{
	size_t n = strlen(s);

	return (size_t)(tp->end - tp->p) >= n && memcmp(tp->p, s, n) == 0;
}

static void
toml_blanks(struct toml_parser *tp)
{
	while (tp->p < tp->end && is_blank(*tp->p))
		tp->p++;
}

static bool
toml_is_control(char c)
{
	return ((unsigned char)c < ' ' && c != '\t') || c == 0x7f;
}

static bool
toml_at_newline(const struct toml_parser *tp)
{
	return toml_at(tp, '\n') || toml_at_text(tp, "\r\n");
}

/* Over one line end. */
static void
toml_newline(struct toml_parser *tp)
{
	tp->p += *tp->p == '\r' ? 2 : 1;
	tp->line++;
	tp->line_start = tp->p;
}

static bool
toml_comment(struct toml_parser *tp)
{
	if (!toml_at(tp, '#'))
		return true;
	for (; tp->p < tp->end && !toml_at_newline(tp); tp->p++)
		if (toml_is_control(*tp->p))
			return toml_error(tp, tp->p, "a comment holds a control character");
	return true;
}

/* What may stand behind a value or header: blanks, a comment, the line's end. */
static bool
toml_line_end(struct toml_parser *tp)
{
	toml_blanks(tp);
	if (!toml_comment(tp))
		return false;
	if (tp->p == tp->end)
		return true;
	if (!toml_at_newline(tp))
		return toml_error(tp, tp->p, "expected the end of the line");
	toml_newline(tp);
	return true;
}

/* Blanks, comments and line ends inside an array. */
static bool
toml_space(struct toml_parser *tp)
{
	for (;;) {
		toml_blanks(tp);
		if (!toml_comment(tp))
			return false;
		if (tp->p == tp->end || !toml_at_newline(tp))
			return true;
		toml_newline(tp);
	}
}

/* ---- strings ---- */

static void
utf8_add(struct text *t, uint32_t c)
{
	if (c < 0x80) {
		text_char(t, (char)c);
	} else if (c < 0x800) {
		text_char(t, (char)(0xc0 | c >> 6));
		text_char(t, (char)(0x80 | (c & 0x3f)));
	} else if (c < 0x10000) {
		text_char(t, (char)(0xe0 | c >> 12));
		text_char(t, (char)(0x80 | (c >> 6 & 0x3f)));
		text_char(t, (char)(0x80 | (c & 0x3f)));
	} else {
		text_char(t, (char)(0xf0 | c >> 18));
		text_char(t, (char)(0x80 | (c >> 12 & 0x3f)));
		text_char(t, (char)(0x80 | (c >> 6 & 0x3f)));
		text_char(t, (char)(0x80 | (c & 0x3f)));
	}
}

static int
toml_digit(char c, int base)
{
	int v = c >= '0' && c <= '9' ? c - '0' : -1;

	if (v < 0 && lower(c) >= 'a' && lower(c) <= 'f')
		v = lower(c) - 'a' + 10;
	return v < base ? v : -1;
}

/* \uXXXX or \UXXXXXXXX, behind the letter. */
static bool
toml_unicode(struct toml_parser *tp, struct text *t, int digits)
{
	const char *at = tp->p - 2;
	uint32_t c = 0;
	int v;

	for (int i = 0; i < digits; i++) {
		if (tp->p == tp->end || (v = toml_digit(*tp->p, 16)) < 0)
			return toml_error(tp, at, "expected %d hexadecimal digits", digits);
		c = c << 4 | (uint32_t)v;
		tp->p++;
	}
	if (c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
		return toml_error(tp, at, "this is no Unicode character");
	utf8_add(t, c);
	return true;
}

/* Behind a backslash. */
static bool
toml_escape(struct toml_parser *tp, struct text *t)
{
	static const char letters[] = "btnfr\"\\", bytes[] = "\b\t\n\f\r\"\\";
	const char *at;
	char c = tp->p < tp->end ? *tp->p : '\0';

	if (c == 'u' || c == 'U') {
		tp->p++;
		return toml_unicode(tp, t, c == 'u' ? 4 : 8);
	}
	if (!c || !(at = strchr(letters, c)))
		return toml_error(tp, tp->p - 1, "unknown escape; use \\\\ for a backslash");
	text_char(t, bytes[at - letters]);
	tp->p++;
	return true;
}

/* A backslash at a line's end takes all white space behind it along. False:
 * there is none. */
static bool
toml_joins_lines(struct toml_parser *tp)
{
	const char *p = tp->p;

	toml_blanks(tp);
	if (!toml_at_newline(tp)) {
		tp->p = p;
		return false;
	}
	while (toml_at_newline(tp)) {
		toml_newline(tp);
		toml_blanks(tp);
	}
	return true;
}

/* Three quotes, and up to two more that belong to the text. */
static bool
toml_long_end(struct toml_parser *tp, char quote, struct text *t)
{
	size_t n = 0;

	while (n < 5 && tp->p + n < tp->end && tp->p[n] == quote)
		n++;
	if (n < 3)
		return false;
	for (size_t i = 3; i < n; i++)
		text_char(t, quote);
	tp->p += n;
	return true;
}

/* One character of a string. False: error. */
static bool
toml_char(struct toml_parser *tp, struct text *t, bool basic, bool lines)
{
	if (lines && toml_at_newline(tp)) {
		text_char(t, '\n');
		toml_newline(tp);
		return true;
	}
	if (toml_is_control(*tp->p))
		return toml_error(tp, tp->p, *tp->p == '\n' || *tp->p == '\r'
		    ? "a text must end on its line; use three quotes for several lines"
		    : "a text holds a control character; use \\u00XX");
	if (!basic || *tp->p != '\\') {
		text_char(t, *tp->p++);
		return true;
	}
	tp->p++;
	return (lines && toml_joins_lines(tp)) || toml_escape(tp, t);
}

/* Bytes from here to the closing quotes, at most: decoding only shortens. */
static size_t
toml_raw_bytes(const struct toml_parser *tp, char quote, bool lines)
{
	const char *p = tp->p;

	for (; p < tp->end && (lines || *p != '\n'); p++) {
		if (*p == '\\' && quote == '"')
			p++;
		else if (*p == quote && (!lines || (tp->end - p > 2 && p[1] == quote && p[2] == quote)))
			return (size_t)(p - tp->p) + 2; /* two quotes may belong to it */
	}
	return (size_t)(MIN(p, tp->end) - tp->p);
}

/* At a quote. Decoded text, NUL behind it. */
static bool
toml_string(struct toml_parser *tp, struct slice *out, bool may_span)
{
	const char *from = tp->p;
	char quote = *from;
	bool basic = quote == '"', lines = toml_at_text(tp, basic ? "\"\"\"" : "'''");
	struct toml_parser began = *tp;
	struct text t = { NULL, 0, 0, false };

	if (lines && !may_span)
		return toml_error(tp, from, "a key cannot span lines");
	tp->p += lines ? 3 : 1;
	if (lines && toml_at_newline(tp))
		toml_newline(tp);
	t.cap = toml_raw_bytes(tp, quote, lines);
	t.p = arena_alloc(tp->arena, t.cap + 1);
	while (tp->p < tp->end) {
		if (lines ? toml_long_end(tp, quote, &t) : *tp->p == quote) {
			tp->p += !lines;
			*out = text_slice(&t);
			return true;
		}
		if (!toml_char(tp, &t, basic, lines))
			return false;
	}
	tp->line = began.line;
	tp->line_start = began.line_start;
	return toml_error(tp, from, "this text has no closing quote%s", lines ? "s" : "");
}

/* ---- numbers and dates ---- */

/* Digits with single underscores between them, without those, into t. */
static bool
number_digits(struct slice s, int base, struct text *t)
{
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] == '_' && i > 0 && i + 1 < s.n && s.p[i - 1] != '_')
			continue;
		if (toml_digit(s.p[i], base) < 0)
			return false;
		text_char(t, s.p[i]);
	}
	return s.n > 0 && !t->full;
}

#define NUMBER_MAX 400 /* characters of one number */

static bool
number_integer(struct slice s, struct toml *v)
{
	char b[NUMBER_MAX];
	struct text t = { b, 0, sizeof b - 1, false };
	bool sign = s.n > 0 && (s.p[0] == '-' || s.p[0] == '+');
	int base = 10;

	if (sign)
		text_char(&t, s.p[0]);
	if (!sign && s.n > 2 && s.p[0] == '0' && strchr("xob", s.p[1]))
		base = s.p[1] == 'x' ? 16 : s.p[1] == 'o' ? 8 : 2;
	s = slice_from(s, base != 10 ? 2 : sign);
	if ((base == 10 && s.n > 1 && s.p[0] == '0') || !number_digits(s, base, &t))
		return false;
	b[t.n] = '\0';
	errno = 0;
	v->integer = strtoll(b, NULL, base);
	v->kind = TOML_INTEGER;
	return errno == 0;
}

static bool
number_special(struct slice s, struct toml *v)
{
	bool negative = s.n > 0 && s.p[0] == '-';

	if (s.n > 0 && (s.p[0] == '-' || s.p[0] == '+'))
		s = slice_from(s, 1);
	v->kind = TOML_FLOAT;
	if (slice_eq(s, S("inf")))
		v->real = negative ? -HUGE_VAL : HUGE_VAL;
	else if (slice_eq(s, S("nan")))
		v->real = negative ? -(double)NAN : (double)NAN;
	else
		return false;
	return true;
}

/* [sign] digits [. digits] [e [sign] digits] */
static bool
number_float(struct slice s, struct toml *v)
{
	char b[NUMBER_MAX];
	struct text t = { b, 0, sizeof b - 1, false };
	struct slice rest = s, whole;
	size_t e = 0;

	while (e < s.n && lower(s.p[e]) != 'e')
		e++;
	rest.n = e;
	if (rest.n > 0 && (rest.p[0] == '-' || rest.p[0] == '+')) {
		text_char(&t, rest.p[0]);
		rest = slice_from(rest, 1);
	}
	slice_cut(&rest, '.', &whole);
	if ((whole.n > 1 && whole.p[0] == '0') || !number_digits(whole, 10, &t))
		return false;
	if (!rest.p && e == s.n)
		return false;
	if (rest.p) {
		text_char(&t, '.');
		if (!number_digits(rest, 10, &t))
			return false;
	}
	if (e < s.n) {
		rest = slice_from(s, e + 1);
		text_char(&t, 'e');
		if (rest.n > 0 && (rest.p[0] == '-' || rest.p[0] == '+')) {
			text_char(&t, rest.p[0]);
			rest = slice_from(rest, 1);
		}
		if (!number_digits(rest, 10, &t))
			return false;
	}
	b[t.n] = '\0';
	v->kind = TOML_FLOAT;
	v->real = strtod(b, NULL);
	return true;
}

/* n digits at the front of *s; -1 when they are not there. */
static int
date_number(struct slice *s, size_t n)
{
	int64_t v = s->n >= n ? slice_uint((struct slice){ s->p, n }, INT_MAX) : -1;

	if (v >= 0)
		*s = slice_from(*s, n);
	return (int)v;
}

static bool
date_sign(struct slice *s, char c)
{
	if (s->n == 0 || lower(s->p[0]) != c)
		return false;
	*s = slice_from(*s, 1);
	return true;
}

static bool
date_day(struct slice *s)
{
	static const int days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
	int y = date_number(s, 4), m, d;
	bool leap = (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;

	if (y < 0 || !date_sign(s, '-') || (m = date_number(s, 2)) < 1 || m > 12 ||
	    !date_sign(s, '-') || (d = date_number(s, 2)) < 1)
		return false;
	return d <= days[m - 1] + (m == 2 && leap);
}

static bool
date_time(struct slice *s)
{
	int h = date_number(s, 2), m, sec;

	if (h < 0 || h > 23 || !date_sign(s, ':') || (m = date_number(s, 2)) < 0 || m > 59 ||
	    !date_sign(s, ':') || (sec = date_number(s, 2)) < 0 || sec > 60)
		return false;
	if (!date_sign(s, '.'))
		return true;
	if (date_number(s, 1) < 0)
		return false;
	while (date_number(s, 1) >= 0)
		;
	return true;
}

static bool
date_zone(struct slice *s)
{
	int h, m;

	if (date_sign(s, 'z'))
		return true;
	if (!date_sign(s, '+') && !date_sign(s, '-'))
		return false;
	return (h = date_number(s, 2)) >= 0 && h <= 23 && date_sign(s, ':') &&
	    (m = date_number(s, 2)) >= 0 && m <= 59;
}

static bool
date_parse(struct toml_parser *tp, struct slice s, struct toml *v)
{
	struct slice rest = s;

	v->text = arena_dup(tp->arena, s);
	if (s.n > 2 && s.p[2] == ':') {
		v->kind = TOML_TIME_LOCAL;
		return date_time(&rest) && rest.n == 0;
	}
	if (!date_day(&rest))
		return false;
	v->kind = TOML_DATE_LOCAL;
	if (rest.n == 0)
		return true;
	if ((!date_sign(&rest, 't') && !date_sign(&rest, ' ')) || !date_time(&rest))
		return false;
	v->kind = TOML_DATETIME_LOCAL;
	if (rest.n == 0)
		return true;
	v->kind = TOML_DATETIME;
	return date_zone(&rest) && rest.n == 0;
}

/* The characters of a number, date, or word. */
static struct slice
toml_word(struct toml_parser *tp)
{
	const char *from = tp->p, *p = from;

	while (p < tp->end && (isalnum((unsigned char)*p) || strchr("+-_.:", *p)) && *p)
		p++;
	if (p - from == 10 && from[4] == '-' && tp->end - p > 3 && p[0] == ' ' &&
	    isdigit((unsigned char)p[1]) && isdigit((unsigned char)p[2]) && p[3] == ':')
		for (p++; p < tp->end && *p && (isalnum((unsigned char)*p) || strchr("+-.:", *p)); p++)
			;
	tp->p = p;
	return (struct slice){ from, (size_t)(p - from) };
}

static bool
toml_scalar(struct toml_parser *tp, struct toml *v)
{
	const char *from = tp->p;
	struct slice s = toml_word(tp);

	if (slice_eq(s, S("true")) || slice_eq(s, S("false"))) {
		v->kind = TOML_BOOLEAN;
		v->boolean = s.n == 4;
		return true;
	}
	if (s.n == 0)
		return toml_error(tp, from, "expected a value");
	if (s.n > 4 && isdigit((unsigned char)s.p[0]) && (s.p[4] == '-' || s.p[2] == ':')) {
		if (date_parse(tp, s, v))
			return true;
		return toml_error(tp, from, "'%.*s' is no date or time", (int)MIN(s.n, 40), s.p);
	}
	if (number_integer(s, v) || number_special(s, v) || number_float(s, v))
		return true;
	if (isalpha((unsigned char)s.p[0]))
		return toml_error(tp, from, "expected a value; a text needs quotes: \"%.*s\"",
		    (int)MIN(s.n, 40), s.p);
	return toml_error(tp, from, "'%.*s' is no number, or one out of range", (int)MIN(s.n, 40), s.p);
}

/* ---- the tree ---- */

static struct toml *
toml_add(struct toml_parser *tp, struct toml *to, struct slice key, const char *at, enum toml_kind kind)
{
	struct toml *v = arena_alloc(tp->arena, sizeof *v);

	v->kind = kind;
	v->key = key;
	v->line = v->vline = tp->line;
	v->col = v->vcol = toml_col(tp, at);
	if (to->last)
		to->last->next = v;
	else
		to->first = v;
	to->last = v;
	to->count++;
	return v;
}

static struct toml *
toml_find(const struct toml *t, struct slice key)
{
	for (struct toml *v = t->first; v; v = v->next)
		if (slice_eq(v->key, key))
			return v;
	return NULL;
}

/* A bare or quoted key. */
static bool
toml_key(struct toml_parser *tp, struct slice *key)
{
	const char *from = tp->p;

	if (toml_at(tp, '"') || toml_at(tp, '\''))
		return toml_string(tp, key, false);
	while (tp->p < tp->end && (isalnum((unsigned char)*tp->p) || *tp->p == '_' || *tp->p == '-'))
		tp->p++;
	if (tp->p == from)
		return toml_error(tp, from, "expected a key");
	*key = arena_dup(tp->arena, (struct slice){ from, (size_t)(tp->p - from) });
	return true;
}

/* Over a dot that says the key goes on. */
static bool
toml_dot(struct toml_parser *tp)
{
	toml_blanks(tp);
	if (!toml_at(tp, '.'))
		return false;
	tp->p++;
	toml_blanks(tp);
	return true;
}

static bool
toml_twice(struct toml_parser *tp, const char *at, const struct toml *first)
{
	return toml_error(tp, at, "'%.*s' is defined twice, first in line %u",
	    (int)MIN(first->key.n, 40), first->key.p, first->line);
}

/* ---- values ---- */

/* Behind '['. */
static bool
toml_array(struct toml_parser *tp, struct toml *v)
{
	v->kind = TOML_ARRAY;
	for (;;) {
		if (!toml_space(tp))
			return false;
		if (toml_at(tp, ']'))
			break;
		if (!tp->value(tp, toml_add(tp, v, S(""), tp->p, TOML_STRING)) || !toml_space(tp))
			return false;
		if (toml_at(tp, ']'))
			break;
		if (!toml_at(tp, ','))
			return toml_error(tp, tp->p, "expected ',' or ']' in an array");
		tp->p++;
	}
	tp->p++;
	return true;
}

/* key = value into a table, dotted keys made on the way. */
static bool
toml_pair(struct toml_parser *tp, struct toml *to)
{
	struct slice key;
	const char *at = tp->p;
	struct toml *v;

	if (!toml_key(tp, &key))
		return false;
	while (toml_dot(tp)) {
		if (!(v = toml_find(to, key))) {
			v = toml_add(tp, to, key, at, TOML_TABLE);
			v->flags = TOML_DOTTED;
		} else if (v->kind != TOML_TABLE || !(v->flags & TOML_DOTTED))
			return toml_error(tp, at, "'%.*s' was defined in line %u and cannot be added to here",
			    (int)MIN(key.n, 40), key.p, v->line);
		to = v;
		at = tp->p;
		if (!toml_key(tp, &key))
			return false;
	}
	if ((v = toml_find(to, key)))
		return toml_twice(tp, at, v);
	if (!toml_at(tp, '='))
		return toml_error(tp, tp->p, "expected '=' behind the key");
	tp->p++;
	toml_blanks(tp);
	v = toml_add(tp, to, key, at, TOML_STRING);
	return tp->value(tp, v);
}

/* Behind '{'. All on one line, no comma at the end. */
static bool
toml_inline(struct toml_parser *tp, struct toml *v)
{
	v->kind = TOML_TABLE;
	toml_blanks(tp);
	for (bool first = true; !toml_at(tp, '}'); first = false) {
		if (!first && !toml_at(tp, ','))
			return toml_error(tp, tp->p, "expected ',' or '}' in an inline table");
		if (!first)
			tp->p++;
		toml_blanks(tp);
		if (!toml_pair(tp, v))
			return false;
		toml_blanks(tp);
	}
	v->flags = TOML_CLOSED;
	tp->p++;
	return true;
}

static bool
toml_value(struct toml_parser *tp, struct toml *v)
{
	const char *from = tp->p;
	bool done;

	v->vline = tp->line;
	v->vcol = toml_col(tp, from);
	if (toml_at(tp, '"') || toml_at(tp, '\'')) {
		v->kind = TOML_STRING;
		return toml_string(tp, &v->text, true);
	}
	if (!toml_at(tp, '[') && !toml_at(tp, '{'))
		return toml_scalar(tp, v);
	if (tp->depth == TOML_DEPTH_MAX)
		return toml_error(tp, from, "nested deeper than %d levels", TOML_DEPTH_MAX);
	tp->depth++;
	tp->p++;
	done = *from == '[' ? toml_array(tp, v) : toml_inline(tp, v);
	tp->depth--;
	return done;
}

/* ---- headers ---- */

/* One step down toward a header's last key. */
static struct toml *
toml_descend(struct toml_parser *tp, struct toml *to, struct slice key, const char *at)
{
	struct toml *v = toml_find(to, key);

	if (!v) {
		v = toml_add(tp, to, key, at, TOML_TABLE);
		v->flags = TOML_IMPLICIT;
		return v;
	}
	if (v->kind == TOML_ARRAY && v->flags & TOML_TABLES)
		return v->last;
	if (v->kind == TOML_TABLE && !(v->flags & TOML_CLOSED))
		return v;
	toml_error(tp, at, "'%.*s' was defined in line %u as %s, nothing can go below it",
	    (int)MIN(key.n, 40), key.p, v->line,
	    v->kind == TOML_TABLE ? "an inline table" : toml_kind_names[v->kind]);
	return NULL;
}

/* The table that [key] or [[key]] opens in `to`. */
static struct toml *
toml_open(struct toml_parser *tp, struct toml *to, struct slice key, const char *at, bool many)
{
	struct toml *v = toml_find(to, key);

	if (many) {
		if (!v) {
			v = toml_add(tp, to, key, at, TOML_ARRAY);
			v->flags = TOML_TABLES;
		} else if (!(v->flags & TOML_TABLES) || v->kind != TOML_ARRAY) {
			toml_twice(tp, at, v);
			return NULL;
		}
		v = toml_add(tp, v, S(""), at, TOML_TABLE);
	} else if (!v) {
		v = toml_add(tp, to, key, at, TOML_TABLE);
	} else if (v->kind != TOML_TABLE || v->flags != TOML_IMPLICIT) {
		toml_twice(tp, at, v);
		return NULL;
	} else {
		v->line = v->vline = tp->line;
		v->col = v->vcol = toml_col(tp, at);
	}
	v->flags = TOML_EXPLICIT;
	return v;
}

/* [a.b] or [[a.b]] */
static bool
toml_header(struct toml_parser *tp, struct toml *root)
{
	bool many = toml_at_text(tp, "[[");
	struct toml *to = root;
	struct slice key;
	const char *at;

	tp->table = arena_alloc(tp->arena, sizeof *root); /* lines below a bad header */
	tp->table->kind = TOML_TABLE;
	tp->p += many ? 2 : 1;
	toml_blanks(tp);
	at = tp->p;
	if (!toml_key(tp, &key))
		return false;
	while (toml_dot(tp)) {
		if (!(to = toml_descend(tp, to, key, at)))
			return false;
		at = tp->p;
		if (!toml_key(tp, &key))
			return false;
	}
	if (!toml_at_text(tp, many ? "]]" : "]"))
		return toml_error(tp, tp->p, "expected '%s'", many ? "]]" : "]");
	tp->p += many ? 2 : 1;
	if (!(to = toml_open(tp, to, key, at, many)))
		return false;
	tp->table = to;
	return toml_line_end(tp);
}

/* Length of the UTF-8 sequence at p; 0: none. */
static size_t
utf8_length(const unsigned char *p, const unsigned char *end)
{
	size_t n = p[0] < 0x80 ? 1 : p[0] >= 0xc2 && p[0] < 0xe0 ? 2 :
	    (p[0] & 0xf0) == 0xe0 ? 3 : p[0] >= 0xf0 && p[0] < 0xf5 ? 4 : 0;

	if (n == 0 || (size_t)(end - p) < n)
		return 0;
	for (size_t i = 1; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
	    (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
		return 0;
	return n;
}

static bool
toml_check_utf8(struct toml_parser *tp, struct slice text)
{
	const char *end = text.p + text.n;
	size_t n;

	for (const char *p = text.p; p < end; p += n) {
		n = utf8_length((const unsigned char *)p, (const unsigned char *)end);
		if (n == 0)
			return toml_error(tp, p, "this is not UTF-8");
		if (*p == '\n') {
			tp->line++;
			tp->line_start = p + 1;
		}
	}
	return true;
}

/* Parses text into a tree in a; what is wrong goes to ds. Never NULL. */
static struct toml *
toml_parse(struct arena *a, struct slice text, struct diags *ds)
{
	struct toml *root = arena_alloc(a, sizeof *root);
	struct toml_parser tp = { .arena = a, .diags = ds, .p = text.p, .end = text.p + text.n,
		.line_start = text.p, .line = 1, .table = root, .value = toml_value };
	struct toml_parser from = tp;
	bool good;

	root->kind = TOML_TABLE;
	root->flags = TOML_EXPLICIT;
	if (!toml_check_utf8(&tp, text))
		return root;
	tp = from;
	if (toml_at_text(&tp, "\xef\xbb\xbf"))
		tp.line_start = tp.p += 3;
	while (tp.p < tp.end && ds->errors < TOML_ERRORS_MAX) {
		toml_blanks(&tp);
		tp.depth = 0;
		if (toml_at(&tp, '['))
			good = toml_header(&tp, root);
		else if (tp.p == tp.end || toml_at(&tp, '#') || toml_at_newline(&tp))
			good = toml_line_end(&tp);
		else
			good = toml_pair(&tp, tp.table) && toml_line_end(&tp);
		while (!good && tp.p < tp.end && *tp.p != '\n')
			tp.p++;
		if (!good && tp.p < tp.end)
			toml_newline(&tp);
	}
	return root;
}

