/* warp.h: the nouns of warp.c, room by room, from the ground up.
 *
 * No prototypes here: warp.c defines before it calls. Times are milliseconds
 * on the monotonic clock unless a name says otherwise; sizes are bytes. */

#ifndef WARP_H
#define WARP_H

#include <bearssl.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

#include "config.h"

/* ==== ground ============================================================== */

#define DATE_LEN 29 /* Sun, 06 Nov 1994 08:49:37 GMT */
enum { HAS_DATE = 1, HAS_TIME = 2, HAS_ZONE = 4 }; /* parts of date_rfc3339 */

/* A view of n bytes someone else owns; good until that buffer moves. */
struct slice {
	const char *p;
	size_t n;
};

struct slices {
	struct slice *v;
	int n;
};

/* Bytes being written into memory of fixed size. A piece that does not fit is left
 * out and sets full: the caller checks once, at the end. */
struct text {
	char *p;
	size_t n, cap;
	bool full;
};

/* A place in a ring; NULL: in none. Members embed their place (see OWNER); the ring
 * itself is one more place. An empty ring may be all zero. */
struct link {
	struct link *prev, *next;
};

/* Records of one size, taken and given back. A record given back has a pointer to
 * the next at next_at. */
struct slots {
	size_t size, next_at;
	char *v;          /* room for most */
	uint32_t n, most; /* the first n were taken at some time */
	char *given;      /* records given back, the last first */
};

struct arena_block {
	struct arena_block *next;
	size_t n, cap;
	max_align_t data[];
};

/* Memory that is freed all at once: a configuration and what hangs from it. */
struct arena {
	struct arena_block *top;
};

/* A path, followed to its end: name in dir. */
struct walk {
	int dir;
	uid_t who;   /* can change the path; ANYBODY: more than one user */
	uid_t own;   /* may own the file too */
	bool linked; /* a link that is not root's is in the path */
	bool shared; /* others may add names to dir */
	bool magic;  /* name is in /proc, whose links lead to open files */
	bool made;   /* walk_open has made the file */
	char name[PATH_MAX]; /* of the file; before, the rest of the path */
};

/* Exit status of every process. 0 is success. */
enum exit_status { EXIT_CONFIG = 1, EXIT_USAGE = 2, EXIT_BIND = 3, EXIT_OTHER = 4 };

enum log_level { LOG_LVL_ERROR, LOG_LVL_WARN, LOG_LVL_INFO, LOG_LVL_DEBUG };

/* Lines of one kind, logged and left out in this second. */
struct calm {
	time_t second;
	unsigned said, unsaid;
};

enum sink_kind {
	SINK_PLAIN,  /* a file, or a device that never blocks */
	SINK_STREAM, /* a pipe or a terminal: whole lines, up to PIPE_BUF at once */
	SINK_SOCKET, /* whole lines by send(), up to SOCKET_PIECE */
	SINK_DGRAM   /* the host's syslog: a datagram for each line, whose first byte
	                is its priority, '0' to '7' */
};

/* Where lines go. Lines that a slow reader does not take wait in buf; lines that do
 * not fit there are lost and counted. The maker owns fd and buf. */
struct sink {
	enum sink_kind kind;
	int fd;         /* -1: none */
	char *buf;      /* cap bytes; n of them are lines to be written */
	size_t n, cap;
	bool torn;      /* the first line has lost its beginning to the reader */
	bool blocked;   /* the reader is slow, or writing failed: POLLOUT says more */
	uint64_t lost;  /* lines */
};

/* A fault in a text that the operator wrote, and its place. line and col count
 * from 1; line 0: not in the file (environment, command line). */
enum diag_level { DIAG_ERROR, DIAG_WARNING };
struct diag {
	enum diag_level level;
	unsigned line, col;
	char *text; /* in the arena */
	struct diag *next;
};

/* All faults, in the order found until conf sorts them by line. */
struct diags {
	struct arena *arena; /* borrowed */
	const char *file;    /* shown before line:col */
	struct slice source; /* whole text, to quote lines from */
	const struct slices *secrets; /* words whose rest of the line is not shown */
	struct diag *first, *last;
	int errors, warnings;
};

/* ==== sandbox ============================================================= */

enum sandbox_mode { SANDBOX_AUTO, SANDBOX_OFF, SANDBOX_STRICT };

/* The letters of the rows of calls_allowed, in this order; the last: it starts programs. */
enum sandbox_role { SANDBOX_WORKER, SANDBOX_NAMES, SANDBOX_CLERK, SANDBOX_NOT };

/* What linux/filter.h, seccomp.h and landlock.h say, which not every libc brings. */
enum filter_code {
	FILTER_LOAD = 0x20,    /* four bytes of what is called */
	FILTER_IF = 0x15,      /* equal to k: skips `yes` operations, else `no` */
	FILTER_IF_GE = 0x35,
	FILTER_IF_BITS = 0x45, /* any bit of k */
	FILTER_AND = 0x54,
	FILTER_END = 0x06      /* with k */
};
enum { FILTER_NUMBER = 0, FILTER_ARCH = 4, FILTER_ARGS = 16 }; /* of struct seccomp_data */
enum { FILTER_TRAP = 0x30000, FILTER_ERRNO = 0x50000, FILTER_ALLOW = 0x7fff0000 };
enum { SECCOMP_MODE = 2 };                         /* of prctl */
enum { SECCOMP_FILTER = 1, SECCOMP_AS_FAST = 4 };  /* of seccomp */
enum { FILTER_MAX = 400, SOCK_KINDS = 15 };

#ifdef SANDBOX_KILLS
#define FILTER_REFUSE FILTER_TRAP
#else
#define FILTER_REFUSE (FILTER_ERRNO | ENOSYS) /* libc goes another way, where it can */
#endif

struct filter_op {
	uint16_t code;
	uint8_t yes, no;
	uint32_t k;
};

struct filter {
	struct filter_op ops[FILTER_MAX];
	unsigned short n;
};

struct filter_given {
	unsigned short n;
	struct filter_op *ops;
};

enum { LANDLOCK_VERSION = 1, LANDLOCK_BENEATH = 1, LANDLOCK_BIND = 1, LANDLOCK_SIGNAL = 2,
	LANDLOCK_FIRST = 12 /* rights in version 0, had there been one */ };
#define LANDLOCK_READS  UINT64_C(0x0c)   /* of files, directories */
#define LANDLOCK_SPOOLS UINT64_C(0x4122) /* write, remove, make, truncate files */

struct landlock_rules {
	uint64_t files, ports, scopes;
};

struct landlock_dir {
	uint64_t files;
	int32_t fd;
};

/* ==== buf ================================================================= */

enum block_class { BLOCK_TINY, BLOCK_SMALL, BLOCK_LARGE, BLOCK_TLS /* a pair of record buffers */,
	BLOCK_CLASSES };

/* Raw memory of its class's size, header included. On a free list, or owned
 * by exactly one buf, exchange, or the worker (as scratch). */
struct block {
	struct block *next; /* on the free list */
	uint32_t cap;       /* bytes of data */
	uint8_t klass;
	_Alignas(max_align_t) char data[];
};

/* Bytes [off, off + n) of a block it owns; b is NULL while empty. */
struct buf {
	struct block *b;
	uint32_t off, n;
};

/* ==== toml ================================================================ */

enum toml_kind {
	TOML_STRING,
	TOML_INTEGER,
	TOML_FLOAT,
	TOML_BOOLEAN,
	TOML_DATETIME,       /* with offset */
	TOML_DATETIME_LOCAL,
	TOML_DATE_LOCAL,
	TOML_TIME_LOCAL,
	TOML_ARRAY,
	TOML_TABLE,
	TOML_KINDS
};

/* One value and, in a table, its key. Lives in the arena given to toml_parse;
 * slices point into that arena, never into the text. */
struct toml {
	enum toml_kind kind;
	struct slice key;      /* decoded; empty in an array and at the root */
	unsigned line, col;    /* of the key, or of the value in an array */
	unsigned vline, vcol;  /* of the value */
	struct slice text;     /* string: decoded, then a NUL; dates: as written */
	int64_t integer;
	double real;
	bool boolean;
	uint8_t flags;         /* the parser's: how a table was defined */
	struct toml *first, *last, *next; /* children, in file order */
	size_t count;
};

/* How a table or array came to be; what may still be added follows from it. */
enum {
	TOML_EXPLICIT = 1, /* [header], or the root */
	TOML_IMPLICIT = 2, /* named on the way to a header */
	TOML_DOTTED = 4,   /* made by a dotted key */
	TOML_CLOSED = 8,   /* inline: nothing is ever added */
	TOML_TABLES = 16   /* [[header]]: an array that grows */
};

struct toml_parser {
	struct arena *arena;
	struct diags *diags;
	const char *p, *end, *line_start;
	const char *col_at; /* col is the column there; counting goes on from it */
	unsigned line, col;
	unsigned depth;       /* tables and arrays around this place */
	unsigned open;        /* '[' and '{' of values, not closed yet */
	unsigned table_depth; /* depth of table */
	struct toml *table;   /* lines go into it */
	bool (*value)(struct toml_parser *, struct toml *); /* arrays hold values */
};

/* 0x, 0o, 0b */
struct number_base {
	char letter;
	unsigned base;
	const char *digits;
};

/* ==== addr ================================================================ */

enum {
	IP_BYTES = 16,
	IP_WORDS = IP_BYTES / 2,
	IP_V4_PREFIX = 12, /* bytes of ::ffff: before an IPv4 address */
	IP_V4_BITS = 32,
	IP_BITS = 128
};

/* An IP address as 16 bytes; IPv4 is ::ffff:a.b.c.d. All zero: none (unix). */
struct ip {
	uint8_t b[16];
};

struct cidr {
	struct ip ip;
	uint8_t bits; /* of 128; or */
};

enum { CIDR_PRIVATE = 254, CIDR_UNIX = 255 }; /* a word instead: see cidr_words */

union sock {
	struct sockaddr sa;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
	struct sockaddr_un un;
};

enum addr_kind {
	ADDR_NONE,
	ADDR_INET,     /* numeric; sock is set */
	ADDR_NAME,     /* host to be resolved, port */
	ADDR_UNIX,     /* path; sock is set */
	ADDR_ABSTRACT, /* Linux abstract socket; sock is set */
	ADDR_FD        /* an inherited descriptor: fd://N */
};

enum scheme { SCHEME_NONE, SCHEME_HTTP, SCHEME_HTTPS, SCHEME_UWSGI };

/* One address in the grammar of CONFIG.md. text and host are in the arena. */
struct addr {
	enum addr_kind kind;
	enum scheme scheme;
	const char *text; /* canonical: host:port, [v6]:port, unix:/path, @name */
	const char *host; /* for Host and SNI; NULL for unix */
	uint16_t port;
	bool any;         /* `:port`: every interface, v6 and v4 */
	int fd;           /* ADDR_FD; of a shared socket that is bound, whatever its kind */
	bool shared;      /* ADDR_FD that was said as =N: the N-th of [[shared_sockets]], if
	                     there are any */
	union sock sock;
	socklen_t sock_n;
	bool dgram;       /* datagrams come there */
};

struct addr_scheme {
	struct slice name; /* with its :// */
	enum scheme scheme;
	int port;          /* if none is given; -1: it must be */
};

/* PROXY protocol, versions 1 and 2. */
enum {
	PROXY_V1_MAX = 107,
	PROXY_V1_PARTS = 6,
	PROXY_V2_HEAD = 16,
	PROXY_V2_MAX = 4096,      /* with its TLVs; nginx takes as much */
	PROXY_V2_UNIX = 2 * 108,  /* two paths */
	PROXY_V2_LOCAL = 0x20,    /* version and command in one byte */
	PROXY_V2_PROXY = 0x21,
	PROXY_V2_TCP4 = 0x11,     /* family and transport */
	PROXY_V2_TCP6 = 0x21
};

/* ==== regex =============================================================== */

#define REGEX_GROUPS    10 /* $0 to $9 */
#define REGEX_SET_WORDS ((UCHAR_MAX + 1) / 32)

/* Those before EDGE take a byte; those behind it have children. */
enum regex_kind { RE_BYTE, RE_ANY, RE_SET, RE_EDGE, RE_GROUP, RE_ALT, RE_LOOP, RE_SEQ };

/* Of a loop. */
enum { RE_SKIP = 1, RE_AGAIN = 2, RE_SPARE = 4 /* not said to be there: skipped if empty */ };

/* A node of an expression's tree; its children stand behind it, one after the other. */
struct regex_node {
	uint8_t kind;
	bool groups;     /* are in it */
	uint16_t arg;    /* BYTE: it; SET: its index; EDGE: contexts; GROUP: its number */
	uint16_t size;   /* nodes, with all below */
	uint16_t last;   /* its last child's place, from its own */
	uint16_t back, next; /* to the sibling before and behind; 0: there is none */
	uint16_t empty;  /* contexts in which it matches nothing at all */
	uint16_t length; /* bytes it takes, RE_VARIES: not always as many */
};

/* A regular expression, in an arena. */
struct regex {
	const struct regex_node *v;
	const uint32_t (*sets)[REGEX_SET_WORDS];
	size_t n;
	unsigned groups;
	bool anchored; /* begins with ^ */
	bool words;    /* has \b, or the like */
};

struct regex_span {
	int from, to;
};

/* ==== template ============================================================ */

/* What a name in braces stands for; in a log behind a `$`, too. Variables up to protocol
 * are the keys of the log's json, in this order. */
enum variable {
	VAR_NONE, VAR_TIME, VAR_CLIENT, VAR_METHOD, VAR_URI, VAR_HOST, VAR_STATUS, VAR_BYTES,
	VAR_SECS, VAR_UPSTREAM, VAR_INSTANCE, VAR_UPSTREAM_SECS, VAR_REQUEST_ID, VAR_REFERER,
	VAR_USER_AGENT, VAR_PROTOCOL, VAR_ROUTE, VAR_USER, VAR_CACHE, VAR_REQUEST, VAR_PATH, VAR_QUERY,
	VAR_SCHEME, VAR_PORT, VAR_CLIENT_PORT, VAR_TLS_VERSION, VAR_TLS_SUBJECT, VAR_TLS_ISSUER,
	VAR_TLS_SERIAL, VAR_TLS_FINGERPRINT, VAR_HEADER, VAR_COOKIE, VAR_PARAMETER, VAR_FIELD,
	VAR_GROUP, VARIABLES
};

#define VAR(v) (UINT64_C(1) << (v))

/* In which texts a variable is one: all, the log's, only warp's own formats. */
enum { IN_TEXT = 1, IN_LOG = 2, IN_FORMAT = 4 };

/* A step of a template: text as it is (in json a name), then a variable. */
struct piece {
	struct slice text;
	enum variable var;
	struct slice arg; /* of what kind: the field's name, or a group's digit */
};

/* A text with variables, in pieces; without any it is the text alone. */
struct template {
	struct slice text; /* first: as it was said */
	struct piece *v;
	size_t n;          /* 0: no variables */
};

/* ==== http ================================================================ */

/* The fields that are known: id and name, and the name's first letter and its last but one,
 * which with its length tell it from all the others. */
/* clang-format off */
#define FIELDS(F) \
	F(ACCEPT, "Accept", 'a', 'p') \
	F(ACCEPT_ENCODING, "Accept-Encoding", 'a', 'n') \
	F(ACCEPT_RANGES, "Accept-Ranges", 'a', 'e') \
	F(AGE, "Age", 'a', 'g') \
	F(AUTHORIZATION, "Authorization", 'a', 'o') \
	F(CACHE_CONTROL, "Cache-Control", 'c', 'o') \
	F(CDN_CACHE_CONTROL, "CDN-Cache-Control", 'c', 'o') \
	F(CONNECTION, "Connection", 'c', 'o') \
	F(CONTENT_ENCODING, "Content-Encoding", 'c', 'n') \
	F(CONTENT_LENGTH, "Content-Length", 'c', 't') \
	F(CONTENT_LOCATION, "Content-Location", 'c', 'o') \
	F(CONTENT_RANGE, "Content-Range", 'c', 'g') \
	F(CONTENT_TYPE, "Content-Type", 'c', 'p') \
	F(COOKIE, "Cookie", 'c', 'i') \
	F(DATE, "Date", 'd', 't') \
	F(ETAG, "ETag", 'e', 'a') \
	F(EXPECT, "Expect", 'e', 'c') \
	F(EXPIRES, "Expires", 'e', 'e') \
	F(FORWARDED, "Forwarded", 'f', 'e') \
	F(HOST, "Host", 'h', 's') \
	F(HTTP2_SETTINGS, "HTTP2-Settings", 'h', 'g') \
	F(IF_MATCH, "If-Match", 'i', 'c') \
	F(IF_MODIFIED_SINCE, "If-Modified-Since", 'i', 'c') \
	F(IF_NONE_MATCH, "If-None-Match", 'i', 'c') \
	F(IF_RANGE, "If-Range", 'i', 'g') \
	F(IF_UNMODIFIED_SINCE, "If-Unmodified-Since", 'i', 'c') \
	F(KEEP_ALIVE, "Keep-Alive", 'k', 'v') \
	F(LAST_MODIFIED, "Last-Modified", 'l', 'e') \
	F(LOCATION, "Location", 'l', 'o') \
	F(PROXY_AUTHENTICATE, "Proxy-Authenticate", 'p', 't') \
	F(PROXY_AUTHORIZATION, "Proxy-Authorization", 'p', 'o') \
	F(PROXY_CONNECTION, "Proxy-Connection", 'p', 'o') \
	F(RANGE, "Range", 'r', 'g') \
	F(REFERER, "Referer", 'r', 'e') \
	F(SERVER, "Server", 's', 'e') \
	F(SET_COOKIE, "Set-Cookie", 's', 'i') \
	F(TE, "TE", 't', 't') \
	F(TRAILER, "Trailer", 't', 'e') \
	F(TRANSFER_ENCODING, "Transfer-Encoding", 't', 'n') \
	F(UPGRADE, "Upgrade", 'u', 'd') \
	F(USER_AGENT, "User-Agent", 'u', 'n') \
	F(VARY, "Vary", 'v', 'r') \
	F(VIA, "Via", 'v', 'i') \
	F(X_ADMIN_TOKEN, "X-Admin-Token", 'x', 'e') \
	F(X_CLIENT_CERT_SUBJECT, "X-Client-Cert-Subject", 'x', 'c') \
	F(X_FORWARDED_FOR, "X-Forwarded-For", 'x', 'o') \
	F(X_FORWARDED_HOST, "X-Forwarded-Host", 'x', 's') \
	F(X_FORWARDED_PORT, "X-Forwarded-Port", 'x', 'r') \
	F(X_FORWARDED_PROTO, "X-Forwarded-Proto", 'x', 't') \
	F(X_REAL_IP, "X-Real-IP", 'x', 'i') \
	F(X_REQUEST_ID, "X-Request-Id", 'x', 'i') \
	F(X_ACCEL_REDIRECT, "X-Accel-Redirect", 'x', 'c') \
	F(X_SENDFILE, "X-Sendfile", 'x', 'l')
/* clang-format on */

enum field_id {
	F_OTHER,
#define ID(id, name, first, near_last) F_##id,
	FIELDS(ID)
#undef ID
	FIELD_IDS,
	F_CUT = 63 /* of no name: see head_cut_name */
};

enum method {
	M_OTHER,
	M_GET,
	M_HEAD,
	M_POST,
	M_PUT,
	M_DELETE,
	M_PATCH,
	M_OPTIONS,
	M_TRACE,
	M_CONNECT,
	METHODS
};

/* One field. start..end is the whole line with its CRLF, so that runs of kept
 * lines are copied at once. */
struct field {
	struct slice name, value;
	const char *start, *end; /* start NULL: the line ended in a bare LF */
	uint8_t id; /* enum field_id */
	bool plain; /* its name has only letters and '-' */
	bool drop;  /* does not travel on */
	bool kept;  /* found before: no Connection option may drop it */
};

enum target_form { TARGET_ORIGIN, TARGET_ABSOLUTE, TARGET_ASTERISK };

/* The parsed head of a request or response, in any protocol. Every slice points
 * into the bytes it was parsed from. RFC 9112 2 to 5. */
struct head {
	enum method method;
	struct slice method_text, target;
	enum target_form form;
	struct slice path, query; /* raw; query without '?' */
	bool has_query;
	bool path_plain;          /* path is its own normalised view */
	struct slice host;        /* Host, or the authority of an absolute target */
	bool has_host;
	int status;
	struct slice reason;
	int minor;                /* HTTP/1.minor: 0 or 1 */
	int n;
	uint16_t first[FIELD_IDS]; /* 1 + index of the first such field, if there is one */
	uint8_t count[FIELD_IDS];  /* how many (saturates) */
	struct field f[FIELDS_MAX + FIELDS_ADDED];
};

enum body_kind { BODY_NONE, BODY_LENGTH, BODY_CHUNKED, BODY_CLOSE };

enum chunk_state {
	CHUNK_SIZE,     /* at the first digit */
	CHUNK_DIGITS,   /* after the first digit */
	CHUNK_BWS,      /* blanks: ';' must come */
	CHUNK_EXT,      /* after ';' */
	CHUNK_EXT_NAME,
	CHUNK_EXT_NAMED, /* blanks after a name */
	CHUNK_EXT_EQUALS,
	CHUNK_EXT_VALUE,
	CHUNK_QUOTED,   /* in a quoted extension value */
	CHUNK_ESCAPED,  /* after a backslash there */
	CHUNK_EXT_END,  /* behind a quoted value */
	CHUNK_SIZE_LF,
	CHUNK_DATA,
	CHUNK_DATA_CR,
	CHUNK_DATA_LF,
	CHUNK_TRAILER,  /* at the start of a trailer line, or the final CRLF */
	CHUNK_TRAILING, /* inside a trailer line */
	CHUNK_TRAILER_LF,
	CHUNK_END_LF,
	CHUNK_DONE
};

/* Where a body ends, and how much of it has passed. RFC 9112 6.3, 7.1. */
struct body {
	enum body_kind kind;
	enum chunk_state chunk;
	bool done;
	uint64_t left;      /* of the length, or of the current chunk */
	uint64_t total;     /* bytes of content seen */
	uint32_t ext_bytes; /* of extensions not yet paid for, or of all trailers */
	uint32_t line_at;   /* where the current trailer line starts in its text */
	bool need_trailers; /* chunk_decode stopped: trailers need memory */
	bool lenient;       /* of a response: blanks behind a chunk's size are ignored */
	uint8_t digits;     /* of the current chunk's size */
};

enum ext_class {
	EXT_BLANK, EXT_SEMICOLON, EXT_EQUALS, EXT_QUOTE, EXT_BACKSLASH, EXT_CR,
	EXT_TOKEN, EXT_TEXT, EXT_BAD, EXT_CLASSES
};

/* Statuses from..to, both included. */
struct status_range {
	uint16_t from, to;
};

struct statuses {
	struct status_range *v;
	int n;
};

/* ==== path ================================================================ */

/* The normalised view of a path, with PATH_PAD zero bytes in front so that
 * the route scan may load the 8 bytes that end anywhere in it. */
struct path_view {
	struct slice path, raw;
	const uint16_t *ends; /* where in raw each byte of path ended */
};

/* ==== conditions ========================================================== */

/* Parts of a body, in the order asked for. RFC 9110 14.2. */
struct ranges {
	int n;
	uint64_t total; /* bytes of all */
	struct range {
		uint64_t first, n;
	} v[RANGES_MAX];
};

/* ==== json ================================================================ */

enum json_kind { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

/* One value and, in an object, its name. Lives in the arena that was given to
 * json_parse; texts are decoded and end in a NUL. RFC 8259. */
struct json {
	enum json_kind kind;
	struct slice name;  /* in an object */
	struct slice text;  /* string: decoded; number: as written */
	bool boolean;
	struct json *first, *last, *next; /* children, in order */
};

/* Reads a copy of the text, with a NUL at end. Strings are decoded in place, which
 * makes none longer. */
struct json_reader {
	struct arena *arena;
	const char *p, *end;
};

/* JSON being written. */
struct json_out {
	FILE *to;
	int lines;  /* so deep a member has a line of its own; 0: all in one */
	int depth;  /* brackets that are open */
	bool more;  /* a comma is due */
};

/* ==== der ================================================================= */

enum der_tag {
	DER_BOOLEAN = 0x01,
	DER_INTEGER = 0x02,
	DER_BITS = 0x03,
	DER_OCTETS = 0x04,
	DER_OID = 0x06,
	DER_UTF8 = 0x0c,
	DER_PRINTABLE = 0x13,
	DER_T61 = 0x14,
	DER_IA5 = 0x16,
	DER_UTC_TIME = 0x17,
	DER_TIME = 0x18,
	DER_SEQUENCE = 0x30,
	DER_SET = 0x31,
	DER_KEY_ID = 0x80,   /* [0] of an AuthorityKeyIdentifier */
	DER_DNS_NAME = 0x82, /* [2] of a GeneralName */
	DER_0 = 0xa0,        /* a certificate's version */
	DER_3 = 0xa3         /* and its extensions */
};

enum {
	ASN1_LONG_TAG = 0x1f, /* further bytes of the tag follow: refused */
	ASN1_LONG = 0x80,     /* so many bytes of length follow */
	ASN1_LENGTH_BYTES = 3
};

enum {
	EC_KEY_BYTES = 32,       /* of a private key of P-256 */
	EC_POINT_BYTES = 65,     /* of the public one: 4, x, y */
	SIGNATURE_MAX = 80,   /* of an ECDSA signature on P-256: 72 */
	SERIAL_BYTES = 16,
	DER_HEADER_MAX = 4,   /* tag and length */
	DER_ROOM = 1024,      /* of all but the names */
	DER_MAX = 65535,      /* content that two bytes of length can count */
	DNS_NAME_MAX = 253,   /* RFC 1035 2.3.4, as text */
	ACME_HASH = 32        /* RFC 8737 3 */
};

/* DER, written from its end to its front, so that a length is known when it is
 * due. The bytes begin at `at`. */
struct der {
	unsigned char *p;
	size_t at, cap;
	bool full;
};

/* ==== certs =============================================================== */

enum cert_origin {
	CERT_FILE, /* of tls.cert and key, or tls.certs */
	CERT_ACME, /* of acme_directory */
	CERT_MADE  /* self-signed: there is none by ACME yet */
};

/* A chain with its key, as BearSSL wants them. The set owns all of it. */
struct cert {
	enum cert_origin origin;
	const char *cert_file, *key_file; /* absolute; may be the same; MADE: NULL */
	struct slice pem;                 /* key and chain, as certs_pack sends them */
	br_x509_certificate *chain;       /* leaf first */
	size_t n_chain;
	int key_type;                     /* BR_KEYTYPE_RSA, BR_KEYTYPE_EC */
	int issuer_key_type;              /* of the leaf's signer: BR_KEYTYPE_… */
	br_rsa_private_key rsa;
	br_ec_private_key ec;             /* its curve tells which */
	unsigned key_bits;                /* of RSA's modulus or of the curve */
	struct slices names;              /* dNSNames, or else the CN; lower case */
	struct slice issuer;              /* organisation and common name, for people */
	struct slice issuer_id, serial;   /* authority key identifier (may be empty) and
	                                     serial number, raw; for ARI */
	int64_t from_s, until_s;          /* wall clock */
};

/* All certificates of a configuration. Made anew when a file changes; the old set
 * is freed when the last handshake that may use it has ended. */
struct cert_set {
	struct arena arena;
	struct cert *v;     /* the first is the default */
	int n;
	unsigned handshakes; /* of the worker, that still use it */
	bool replaced;
};

/* Trusted authorities: the certificates of one bundle. */
struct trust {
	const char *file; /* absolute, or the system's */
	br_x509_trust_anchor *v;
	size_t n;
};

/* One pair of `[[tls.certs]]`. */
struct cert_files {
	const char *cert, *key; /* absolute */
	unsigned line, col;     /* for complaints */
};

/* `[tls]` */
struct tls_conf {
	bool enabled;             /* as said, else if cert, key, certs or domains are */
	bool on;                  /* enabled, and a certificate or domains are set */
	bool broken;              /* has a fault, which was reported */
	struct cert_files *files;
	int n_files;
	struct slices domains;    /* for ACME; lower case; none: no ACME */
	const char *acme_dir;     /* absolute */
	struct slice acme_url, acme_email, eab_kid, eab_hmac;
	struct trust *acme_trust; /* of acme_ca_file, or the system's */
	bool redirect;
	uint16_t redirect_port;   /* of the redirect: the first https listener's */
	uint32_t hsts_secs;
	uint32_t sessions;        /* session_cache; 0: none */
	struct trust *clients;    /* of client_ca_file; NULL: clients are not asked */
	bool client_optional;
	bool strict_sni, legacy;
	struct cert_set *set;     /* loaded with the configuration, or since */
	uint64_t print;           /* of the files that set was loaded from */
};

/* One object of a PEM text. */
struct pem {
	struct slice name; /* CERTIFICATE, EC PRIVATE KEY, ...; in the text */
	struct slice der;  /* in the arena */
	bool encrypted;    /* as openssl did before PKCS#8 */
};

/* Parts of a certificate, still encoded. */
struct x509 {
	struct slice serial, issuer, subject, extensions;
};

/* A part of a distinguished name. RFC 4514 2.3. */
struct dn_kind {
	struct slice oid;
	const char *name;
};

/* Certificates being read, and the function that gets their faults. */
struct certs_reader {
	struct arena *a;
	void (*say)(void *to, enum diag_level level, int pair, const char *text);
	void *to;
	int pair;
	bool mild; /* faults are only warnings: another certificate will do */
};

/* `[upstreams.NAME.tls]` */
struct upstream_tls {
	bool verify;
	struct trust *trust;      /* NULL: not verified */
	const char *server_name;  /* NULL: the instance's host */
	struct cert_set *client;  /* one certificate; NULL: none */
};

/* ==== crypt =============================================================== */

#define CRYPT_SALT_MAX     16
#define CRYPT_BYTES_MAX    64
#define CRYPT_PASSWORD_MAX 256
#define BLOWFISH_SUBKEYS   18
#define BLOWFISH_WORDS     (BLOWFISH_SUBKEYS + 4 * 256)

enum crypt_kind { CRYPT_SHA, CRYPT_MD5, CRYPT_ONCE, CRYPT_BCRYPT };

/* A kind of hash: its hash function, bytes of a digest, the step of SHA-crypt's output
 * order, digits of an encoded digest, characters of the salt that count. */
struct crypt_scheme {
	struct slice prefix;
	enum crypt_kind kind;
	const br_hash_class *hash;
	size_t n;
	unsigned step;
	size_t digits, salt;
};

/* What a hash says; slices are of its text. */
struct crypt_hash {
	const struct crypt_scheme *scheme;
	unsigned rounds;
	struct slice salt, want; /* want: the digest */
};

/* A password on its way to its hash, some rounds at a time. */
struct crypt_job {
	const struct crypt_scheme *scheme;
	unsigned round, rounds;
	size_t want_n;
	char want[CRYPT_BYTES_MAX * 2]; /* the digest's text; bcrypt's in base64 */
	union {
		struct {
			size_t password_n, salt_n;
			unsigned char digest[CRYPT_BYTES_MAX], password[CRYPT_PASSWORD_MAX],
			    salt[CRYPT_SALT_MAX];
		};
		struct { /* bcrypt */
			uint32_t blowfish[BLOWFISH_WORDS];
			uint32_t key_words[BLOWFISH_SUBKEYS], salt_words[BLOWFISH_SUBKEYS];
		};
	};
};

/* ==== resp ================================================================ */

struct redis_url {
	bool tls;
	struct slice user, password; /* empty: none */
	uint32_t db;
	struct addr addr;
};

/* What comes next in a reply. */
enum resp_event {
	RESP_TEXT,    /* text */
	RESP_ERROR,   /* text, whose first word is its kind */
	RESP_INTEGER, /* n */
	RESP_NIL,
	RESP_END,     /* of a string; so far events that end an element */
	RESP_ARRAY,   /* n elements follow */
	RESP_BULK,    /* a string of n bytes follows, in pieces */
	RESP_PIECE,   /* text: some of them */
	RESP_MORE,    /* nothing yet */
	RESP_BAD      /* that is no RESP2, or too large: nothing more is read */
};

/* Replies being parsed, in whatever pieces they come. All zero but max at first. */
struct resp {
	uint64_t max;           /* bytes of the longest string that is taken */
	/* of the last event: */
	int64_t n;
	struct slice text;      /* of a line: at most RESP_KEPT bytes */
	unsigned at;            /* arrays around the element */
	char type;              /* first byte of the reply */
	bool whole;             /* the reply has ended */
	/* the parser's: */
	bool bad;
	bool tail;              /* a string's CRLF is due, behind `left` bytes */
	uint64_t left;
	uint32_t elements;      /* of the reply so far */
	unsigned depth;         /* arrays that are open */
	uint32_t due[RESP_DEPTH_MAX]; /* elements to come in each */
	uint32_t line_n;        /* bytes of the line so far */
	char last;              /* of these the last */
	char line[RESP_KEPT];
};

enum {
	STORED_FACTS = 8,
	STORED_WORDS = 6 + STORED_FACTS, /* magic, version, lengths, time */
	STORED_SUM = 8,
	STORED_BYTES = STORED_WORDS * 4 + STORED_SUM
};

/* A response as Redis has it. What the facts mean is the cache's: it makes STORED_VERSION
 * larger when that changes. */
struct stored {
	int64_t stored_s; /* wall clock */
	uint32_t facts[STORED_FACTS];
	struct slice head, body;
};

/* ==== packet ============================================================== */

enum {
	PACKET_HEAD = 4,
	PACKET_PING = 100,       /* modifier1 */
	PACKET_SUBSCRIBES = 224, /* modifier1 */
	PACKET_CACHE = 111,
	PACKET_CACHE_API = 17,   /* modifier2: what applications use */
	KEY_MAX = 255,           /* bytes of a key */
	NODE_ADDRESS_MAX = 255,
	VIA_MAX = 160,           /* bytes of via: more have passed it on than make sense */
	NOTIFY_MAX = 101,        /* bytes of a path for acknowledgements */
	ANNOUNCED_MAX = 4096,    /* bytes of a datagram */
	CACHE_REPLY_MAX = 64     /* bytes of a cache's answer before the value */
};

/* A variable of a block, which both lie in. */
struct packet_var {
	struct slice name, value;
};

/* What a FastRouter looks at; the keys first. */
enum router_var {
	ROUTER_KEY, ROUTER_HOST, ROUTER_NAME, ROUTER_KEYS,
	ROUTER_LENGTH = ROUTER_KEYS, ROUTER_CLIENT, ROUTER_CODING, ROUTER_UPGRADE, ROUTER_VARS
};

/* What a node says to a subscription server; texts lie in the datagram. Empty or 0 is
 * what it leaves out. */
struct announcement {
	bool leaves;             /* the key's node is one no longer */
	struct slice key, address;
	uint32_t modifier1, modifier2, cores, load, weight, backup;
	struct slice proto, algo, sni_key, sni_crt, sni_ca, notify;
	struct slice via;        /* a word of each warp that passed it on */
	uint32_t unix;           /* seconds: when it was signed */
	struct slice sign;       /* a signature of is_signed; empty: none */
	struct slice is_signed;
};

/* A variable of an announcement. */
struct announced {
	const char *name;
	size_t at;
	size_t texts;  /* most bytes of a text; 0: a number */
	uint32_t most;
	bool must;
};

enum cache_verb {
	CACHE_GET, CACHE_EXISTS,
	CACHE_SET,    /* unless the key is there */
	CACHE_UPDATE, /* in any case */
	CACHE_DEL, CACHE_CLEAR, CACHE_VERBS
};

/* How a cache command is answered. */
enum cache_form {
	CACHE_MUTE, /* not at all */
	CACHE_VARS, /* variables, then the value; what fails, by closing */
	CACHE_HEAD, /* a head with its length, and the value */
	CACHE_FLAG, /* a head that says whether there is one, and the value */
	CACHE_BARE, /* the value */
	CACHE_PAGE  /* the value, or a page of HTTP that says 404 */
};

struct cache_command {
	enum cache_verb verb;
	enum cache_form form;
	struct slice key, cache; /* cache empty: the default one */
	struct slice value;      /* of CACHE_SET and CACHE_UPDATE, or */
	uint32_t size;           /* so many bytes of it follow the block */
	uint32_t expires;        /* seconds; 0: never */
	bool absolute;           /* of the clock, not from now */
};

/* ==== fcgi ================================================================ */

enum {
	FCGI_HEAD = 8,
	FCGI_REQUEST = 1,   /* the only id */
	FCGI_RESPONDER = 1, /* role */
	FCGI_END_BYTES = 8
};

enum fcgi_type {
	FCGI_BEGIN = 1, FCGI_ABORT, FCGI_END, FCGI_PARAMS, FCGI_STDIN, FCGI_STDOUT, FCGI_STDERR
};

/* What an application says, in whatever pieces it comes. All zero at first. */
struct fcgi_reader {
	unsigned char head[FCGI_HEAD], body[FCGI_END_BYTES];
	uint8_t head_n, body_n;
	uint32_t left, padding;  /* bytes of the record to come */
	bool ended;              /* the request; then: */
	uint32_t app_status;
	uint8_t protocol_status; /* 0: complete; 1: no more connections; 2: overloaded; 3: no such role */
};

/* ==== deflate ============================================================= */

enum { LITERALS = 286, DISTANCES = 30 }; /* RFC 1951 3.2.5, literals with lengths */
enum { SYMBOLS = 288 };                  /* 3.2.6 */

/* The bits for each of n symbols, the first one lowest, and how many they are. */
struct code {
	uint16_t bits[SYMBOLS];
	uint8_t len[SYMBOLS];
	uint16_t n;
};

/* Bits on their way to memory: fewer than eight, between two codes. */
struct bits {
	unsigned char *to;
	uint64_t held;
	unsigned n;
};

/* n bytes are as those `distance` before; distance 0: no match. */
struct match {
	unsigned n, distance;
};

/* How hard to look for a match: at how many places, and how long is enough. */
struct effort {
	uint16_t looks, enough;
};

/* A piece at hand, behind the end of the text before it. Places with the same hash
 * are a chain: the last one is in head, the one before each in `before`, all modulo
 * 2^16. A token is a literal, or END_OF_BLOCK and more; a distance is next then. */
struct deflate {
	unsigned char text[GZIP_WINDOW + RELAY_BYTES + 8];
	uint16_t head[1 << GZIP_HASH_BITS], before[32768], token[GZIP_TOKENS];
	unsigned shift; /* of a hash */
	size_t tokens;
	uint32_t count[2][SYMBOLS];
	struct code code[2]; /* of literals and lengths, of distances */
};

/* A stream, with the end of what went in. */
struct gzip {
	struct effort effort;
	bool begun;
	uint32_t crc, total; /* total: modulo 2^32 */
	size_t kept;
	char window[GZIP_WINDOW];
};

/* ==== pgmsg =============================================================== */

enum {
	PGMSG_HEAD = 5,           /* type, and length without it */
	PGMSG_VERSION = 196608,   /* 3.0 */
	PGMSG_SSL = 80877103,     /* asks for TLS, in place of the version */
	PGMSG_IN = 0,             /* authentication: done */
	PGMSG_CLEARTEXT = 3,
	PGMSG_MD5 = 5,
	PGMSG_SASL = 10,
	PGMSG_SASL_NEXT = 11,
	PGMSG_SASL_LAST = 12,
	PG_NAME_MAX = 63,         /* bytes of a channel's name */
	SCRAM_RANDOM = 18,        /* bytes of the client's nonce */
	SCRAM_SALT_MAX = 256,     /* bytes */
	SCRAM_ROUNDS_MIN = 4096   /* RFC 7677 4 */
};

/* How much TLS is asked for; as libpq's sslmode. */
enum ssl_mode {
	SSL_DISABLE, SSL_PREFER, SSL_REQUIRE, /* any certificate will do */
	SSL_VERIFY_CA, SSL_VERIFY_FULL,       /* full: for the server's name, too */
	SSL_MODES
};

enum pgurl_word {
	PGURL_HOST, PGURL_PORT, PGURL_USER, PGURL_PASSWORD, PGURL_DATABASE, PGURL_SSLMODE,
	PGURL_CA, PGURL_TIMEOUT, PGURL_APP, /* these two are ignored */
	PGURL_WORDS
};

/* A database and how to log in there. */
struct pgurl {
	struct slice said[PGURL_WORDS]; /* empty: not said */
	struct addr addr; /* of host and port */
	enum ssl_mode mode;
};

/* One message of the server; body points into what came. */
struct pgmsg {
	char type;
	struct slice body;
};

/* ==== conf ================================================================ */

struct pair {
	struct slice name, value;
};

struct pairs {
	struct pair *v;
	int n;
};

/* Of basic_auth: user, hash or text. */
struct logins {
	struct pair *v;
	int n, dear; /* dear: which has the dearest hash, see users_rate */
};

struct cidrs {
	struct cidr *v;
	int n;
};

struct addrs {
	struct addr *v;
	int n;
};

/* `[server]` */
struct server_conf {
	struct addr *listens; /* http_port and listen, lowered to one list */
	int n_listens;
	bool listen_is_default; /* nothing was said: http_port's preset */
	int workers;
	const char *user, *group, *chroot; /* NULL: keep */
	uint32_t max_connections;          /* clients, all workers together */
	uint32_t per_client;               /* of one of them; 0: no limit */
	uint32_t header_ms, body_ms, keepalive_ms, write_ms, tunnel_ms, shutdown_ms;
	uint32_t keepalive_requests;
	uint32_t max_header_bytes;
	uint32_t memory_bytes;             /* that clients may make each worker hold */
	uint64_t max_body_bytes;           /* 0: no limit */
	struct cidrs trusted;
	struct slice client_ip_header;     /* that they say the client's address in; empty: none */
	bool proxy_protocol;
	struct slice admin_token;          /* empty: none */
	int no_route_status;
	bool request_id;
	int socket_mode;
	bool show_errors;
	const char *error_dir;             /* absolute, or NULL */
	bool server_tokens;
	enum sandbox_mode sandbox;
};

/* Files to be served: of a route's static_dir, or for X-Sendfile. */
struct files_conf {
	const char *dir;     /* absolute */
	struct slices index;
	struct slice fallback, cache_control;
	bool listing, dot_files;
};

/* `[middleware]` */
struct middleware_conf {
	bool forward_headers, forwarded, via, log_requests;
	bool x_sendfile, gzip;
	struct files_conf sendfile;
	int gzip_level;
	uint64_t gzip_min;
	struct slices gzip_types;
};

enum log_sink { SINK_OFF, SINK_STDOUT, SINK_STDERR, SINK_FILE, SINK_SYSLOG };

/* Where lines of one kind go. fd belongs to the master, workers inherit it. */
struct log_target {
	enum log_sink sink;
	const char *path; /* SINK_FILE: absolute */
	int fd;
};

/* `[log]` */
struct log_conf {
	struct log_target access, error;
	const char *format; /* common, combined, json, or a pattern */
	enum log_level level;
};

/* `[postgres]` */
struct postgres_conf {
	struct slice url;     /* secret; empty: no helper runs */
	struct slice channel;
	bool keep;            /* the cache, though notifications may have been missed */
	struct pgurl to;      /* of url */
	struct trust *trust;  /* NULL: any certificate is trusted */
};

/* `[admin]` */
struct admin_conf {
	struct addr *listens;
	int n_listens;
	bool is_default; /* the preset socket: a live owner is only a warning */
	bool off;
	struct slice token;
	struct slice expose; /* path prefix; empty: not reachable through routes */
};

struct instance;
struct store;

/* `[cache]` */
struct cache_conf {
	uint64_t size_bytes, max_object_bytes; /* 0: no cache */
	uint32_t default_ttl_ms, stale_ms;
	struct slice redis_url;     /* p NULL: no Redis */
	uint32_t redis_timeout_ms;
	struct redis_url redis;
	struct instance *redis_at;  /* its address; NULL: no Redis */
	struct store *store;        /* the master's; NULL: no cache */
};

enum host_header { HOST_PRESERVE, HOST_UPSTREAM, HOST_TEXT };
enum proxy_out { PROXY_OUT_NONE, PROXY_OUT_V1, PROXY_OUT_V2 };

struct upstream;
struct upconn;
struct board_instance;
struct roster;

/* One backend of an upstream. The second half is the worker's own. */
struct instance {
	struct upstream *up;
	struct addr addr;     /* kind ADDR_NONE: warp chooses it, see board; text is
	                         its place, as "#0" */
	unsigned weight;
	bool backup;          /* only when no other can be asked */
	uint32_t max_connections; /* requests at one time; 0: any */
	int replica;          /* the one of up->process that serves it; -1: none */
	uint64_t hash;        /* of address or place: names it in rendezvous and
	                         cookies */
	struct board_instance *board; /* shared; NULL before board_attach */
	struct board_instance *fresh; /* of the program that is to replace the one that
	                                 serves; NULL: that ends before */
	int current;                  /* while turns are dealt; see roster.ring */
	struct link idle;             /* upconns, newest first */
	unsigned n_idle;
	unsigned addrs_seq;           /* of the addresses that idle connections were last
	                                 compared with */
	br_ssl_session_parameters session; /* of the last TLS connection */
	int64_t closed_ms;            /* when it last closed an idle connection */
	uint32_t closed_life_ms;      /* how long it was idle; 0: none yet */
};

struct balance; /* a strategy: row of balances[] */

/* What a strategy's key is made of. */
enum pick_by { BY_NOTHING, BY_IP, BY_URI, BY_HEADER, BY_COOKIE };

/* What a strategy needs to know of a request. */
struct pick {
	uint64_t tried;         /* bit per instance: excluded */
	uint64_t key;           /* of hash strategies */
	struct instance *stuck; /* named by the cookie; NULL: none */
};

/* pick returns an instance of the roster that may get this request; NULL: none. */
struct balance {
	const char *name, *alias;
	enum pick_by by;
	bool turns; /* uses roster.ring */
	struct instance *(*pick)(struct roster *, const struct pick *);
};

/* `[upstreams.NAME.health]` */
struct health_conf {
	bool on;          /* there is such a section */
	const char *path; /* NULL: a connection is enough */
	uint32_t interval_ms, timeout_ms;
	uint32_t unhealthy, healthy; /* in a row */
	struct statuses expect;
	struct slice host, method;   /* host empty: the instance's address */
	uint32_t port;               /* 0: the instance's */
	bool jitter;
};

enum restart_rule { RESTART_ALWAYS, RESTART_ON_FAILURE, RESTART_NEVER };
enum ready_rule { READY_LISTEN, READY_HEALTH, READY_EXEC };
enum start_rule { START_BOOT, START_REQUEST };
enum child_sink { CHILD_PREFIX, CHILD_FILE, CHILD_SYSLOG, CHILD_NULL };

/* A subscription server that a program is announced to. */
struct announce_conf {
	union sock to;
	socklen_t to_n;
	const char *own;   /* the program's address there; NULL: where it listens */
	struct slice key;  /* empty: those in file, a line KEY[,MODIFIER1] each */
	const char *file;
	uint8_t modifier1;
};

/* `[processes.NAME]`, or `[upstreams.NAME.process]`. {index}, {port} and
 * {socket} still stand in argv and env. */
struct process {
	const char *name;        /* its own, or the upstream's */
	unsigned line;
	struct upstream *up;     /* NULL: it serves none */
	char **argv;             /* NULL behind the last */
	struct pairs env;
	const char *envfile;     /* absolute; NULL: none */
	const char *dir;         /* absolute */
	const char *user, *group; /* NULL: as warp */
	int replicas;
	struct process **after;  /* depends_on */
	int n_after;
	enum restart_rule restart;
	uint32_t backoff_ms, backoff_max_ms;
	int stop_signal;
	uint32_t stop_ms;
	enum ready_rule ready;
	uint32_t ready_ms;
	enum child_sink sink;
	const char *log_path;    /* CHILD_FILE */
	int64_t nofile, as_bytes, core; /* limits; -1: as they are */
	bool oneshot;
	enum start_rule start_on;
	uint32_t idle_stop_ms;   /* 0: never */
	bool names_port, names_socket; /* argv or env have {port}, {socket} */
	struct addr *sockets;    /* conf.shared */
	int *shared, n_shared;   /* the numbers of those that it gets: descriptors 3 and on */
	struct announce_conf *announces; /* subscribe_to */
	int n_announces;
	bool wrapped;            /* of `warp -- CMD`: warp exits with its status */
	uint64_t print;          /* hash: when it changes, a restart is needed */
};

/* `[upstreams.NAME]` */
/* What is spoken to backends: the words of their key. The last two take variables. */
enum protocol { PROTOCOL_HTTP, PROTOCOL_HTTPS, PROTOCOL_UWSGI, PROTOCOL_FASTCGI, PROTOCOLS };

/* For backends that take variables instead of a head. */
struct cgi_conf {
	unsigned modifier1, modifier2; /* of the uwsgi packet */
	struct pairs params;           /* more variables, or instead of warp's */
	const char *root;              /* FastCGI: where scripts are, as the backend sees it */
	struct slice index;            /* FastCGI: the script of a directory, and of all else */
};

/* Of the sticky cookie: the words of its key. */
enum same_site { SAME_SITE_LAX, SAME_SITE_STRICT, SAME_SITE_NONE };

struct upstream {
	const char *name;
	int index;
	unsigned line; /* in the file */
	const struct balance *balance;
	struct instance *instances;
	int n_instances;
	uint32_t connect_ms, read_ms, write_ms, keepalive_ms;
	uint32_t keepalive; /* idle connections kept for each instance */
	uint32_t retries;
	struct statuses retry_on;
	uint32_t max_fails, fail_ms;
	enum host_header host_header;
	struct slice host_text;
	enum proxy_out proxy_out;
	uint32_t hold_ms;
	uint32_t slow_start_ms;
	const char *maintenance;  /* absolute; NULL: none */
	struct slice hash_header;
	struct template sticky_cookie, sticky_domain;
	uint32_t sticky_max_age_s;
	enum same_site sticky_samesite;
	struct health_conf health;
	enum protocol protocol;   /* of all instances, but that url may say http or https */
	struct cgi_conf cgi;      /* for uwsgi and FastCGI */
	struct upstream_tls tls;  /* for instances whose addr.scheme is https */
	struct calm calm;         /* lines about its failures */
	struct process *process;  /* NULL: none */
	struct addrs subscription; /* its nodes are announced there; one, or none */
	struct slice subscription_secret; /* and signed with it; empty: not */
	const struct router_conf *server; /* that stands for it; NULL: none */
	struct roster *roster;    /* the worker's own; NULL elsewhere */
};

/* An address that is connected to by the uwsgi protocol. */
struct node_conf {
	struct addr addr;
	uint8_t modifier1;
};

struct node_confs {
	struct node_conf *v;
	int n;
};

struct uids {
	uid_t *v;
	int n;
};

enum { CODE_PYTHON = 0, CODE_LUA = 6 }; /* modifier1 of use_code_string */

enum node_algo { NODE_WRR, NODE_LRC, NODE_WLRC, NODE_IPHASH, NODE_ALGOS };

/* `[fastrouter]`. Texts that are NULL, lists that are empty: not said. Files and
 * directories are absolute. */
struct router_conf {
	unsigned line; /* in the file */
	struct addrs listen;
	uint32_t backlog;             /* 0: LISTEN_BACKLOG */
	int chmod_socket;             /* -1: as [server] says */
	/* ways from a key to an address */
	const char *use_base;         /* the key is added: no slash between */
	const char *use_pattern;      /* each %s is the key, each %% a percent sign */
	bool use_cache;
	const char *cache_name;       /* never NULL */
	struct pairs cache;           /* key, value: what it begins with */
	const char *cache_file;       /* the same as lines: a key, a blank, a value */
	uint32_t cache_items;         /* bound of its entries */
	struct addrs cache_listen, cache_udp_server;
	int code_modifier;            /* use_code_string; -1: none */
	const char *code_file, *code_function;
	char **program;               /* use_program: argv; NULL: none */
	struct node_confs to, fallback;
	bool fallback_on_no_key;
	uint32_t grace_ms, timeout_ms, tolerance_ms;
	/* the subscription server */
	struct addrs subscription_server;
	const char *fallback_key;
	enum node_algo algo;
	bool dotsplit;
	const char *sign_digest;      /* sha256 and the like; NULL: signatures are not looked at */
	const char *sign_dir;
	uint32_t sign_tolerance_s;
	struct uids sign_skip;
	bool use_credentials;
	struct slices credentials_dirs; /* as use_base */
	struct addrs resubscribe, resubscribe_bind; /* of the latter at most one */
	/* the rest */
	bool cheap, fd_passing, quiet;
	uint64_t post_buffering;      /* bytes in memory; 0: off */
	const char *post_buffering_dir; /* NULL: SPOOL_DIR */
	struct addrs stats;
	bool stats_http;
	uint32_t workers;             /* for [server]; 0, NULL: not said */
	const char *user, *group;
	/* when it runs */
	uint32_t scope, cache_scope; /* what it and its cache are called in the table: see nodes */
	uint32_t place;               /* of scope there */
	int spool_fd;                 /* where bodies are kept; -1: in memory */
};

enum host_kind { HOST_ANY, HOST_EXACT, HOST_WILD, HOST_STEM, HOST_REGEX };
enum path_kind { PATH_ANY, PATH_PREFIX, PATH_EXACT, PATH_REGEX };
enum action { ACT_UPSTREAM, ACT_FILES, ACT_REDIRECT, ACT_RESPOND, ACT_ADMIN, ACTIONS };


enum rate_by { RATE_IP, RATE_ALL, RATE_HEADER, RATE_COOKIE };

/* requests in per_ms, with a burst on top; kept on the board (GCRA). */
struct rate_limit {
	uint32_t requests; /* 0: no limit */
	uint32_t per_ms, burst;
	bool delay;        /* within burst they wait for their turn */
	struct slice key;  /* what is counted, as the file has it: */
	enum rate_by by;
	struct slice name; /* of the field or cookie */
};

/* A file of users, once for all routes that name it. */
struct users {
	struct users *next;
	unsigned at;       /* its number */
	const char *file;  /* absolute */
	struct logins list;
	struct arena arena;
	uint64_t print;    /* changes with the file */
};

/* `[[routes]]`: conditions, action, and what happens on the way. */
struct route {
	unsigned line; /* in the file, for -t and -e */
	struct slice description;
	/* conditions, all of which must hold */
	uint32_t port;       /* of the listener; 0: any */
	enum host_kind host_kind;
	struct slice host;   /* lower case, no port; WILD: ".example.com"; STEM: "www." */
	enum path_kind path_kind;
	struct slice path;   /* prefix, exact text, or the expression */
	struct regex regex, host_regex;
	uint32_t methods;    /* bit per enum method; 0: any */
	struct slices methods_other; /* names that enum method does not know */
	struct pairs headers, cookies, queries;
	struct cidrs clients;
	/* action */
	enum action action;
	struct upstream *upstream;
	struct files_conf files;
	struct template redirect;
	int status;          /* of the redirect or the response */
	struct template body;
	struct slice content_type;
	/* on the way */
	struct statuses intercept;
	bool intercept_pages;                   /* and those that error_dir has a page for */
	bool map_back;
	bool strip_prefix, has_rewrite;
	struct template rewrite;
	struct pairs add_headers, add_response_headers;
	struct template *adds, *answer_adds;    /* their values; NULL: none has variables */
	struct slices remove_headers, remove_response_headers;
	uint32_t read_ms, connect_ms, write_ms; /* 0: the upstream's */
	bool require_auth;
	struct logins *basic_auth;              /* NULL: anybody may */
	struct guard *guard;                    /* of forward_auth; NULL: nobody is asked */
	bool has_max_body;
	uint64_t max_body_bytes;
	struct rate_limit rate;
	int64_t buffer_request;                 /* bytes in memory; -1: stream */
	bool websocket, gzip, cache, forward_headers, forwarded;
	uint32_t asks;                          /* see route_asks */
};

/* An authenticator. */
struct guard {
	struct route via;    /* how it is asked; its guard is this */
	struct slice path;
	struct slices copy;  /* fields of its answer that go along with the request */
	uint32_t ask_ms, cache_ms; /* it may take as long; its answer counts as long, 0: once */
};

/* ==== route =============================================================== */

/* A run of neighbouring routes whose path text has the same length: one key
 * is compared with each of keys[first .. first + n). */
struct route_run {
	uint16_t path_n;
	bool by_host;  /* the key has the host's hash in it */
	uint32_t first, n;
};

/* All routes: the scan reads four bytes of each, the rest only on a hit. */
struct route_table {
	struct route *routes;
	int n;
	uint32_t *keys;
	struct route_run *runs;
	int n_runs;
	bool by_host; /* some route looks at the host */
};

/* A file of server.error_dir: NNN.html or NNN.json. */
struct error_page {
	int status;
	bool json;
	struct template body;
};

struct key; /* a setting: row of a section's table */

/* Where the value of a scalar key comes from: the variable env; else the file,
 * if value has a line; else (value is NULL) the preset. */
struct origin {
	const char *section;
	const struct key *key;
	const char *env;
	const struct toml *value;
};

/* A whole configuration, made by conf_load or conf_simple; the caller frees it with
 * conf_free. */
struct conf {
	struct arena arena;
	struct diags diags;
	const char *file; /* absolute; NULL in simple mode */
	const char *dir;  /* that relative paths start from */
	struct toml *tree;
	struct server_conf server;
	struct middleware_conf middleware;
	struct pairs types; /* extension, type */
	struct log_conf log;
	struct postgres_conf postgres;
	struct admin_conf admin;
	struct cache_conf cache;
	struct tls_conf tls;
	struct slices env_names; /* variables that "env:NAME" texts name */
	struct users *users;     /* of basic_auth_file */
	struct upstream *upstreams; /* behind the last the one that stands for Redis */
	int n_upstreams;
	struct process **processes; /* in start order */
	int n_processes;
	struct addr *shared;     /* `[[shared_sockets]]` */
	int n_shared;
	struct router_conf *routers; /* `[fastrouter]`, `[[fastrouter]]` */
	int n_routers, n_servers; /* behind n_routers, up to n_servers, stand those that are
	                             nothing but subscription servers of upstreams */
	unsigned attached; /* generation of the board that its instances got */
	struct route_table table;
	bool has_gzip;   /* some answers are compressed */
	unsigned hits_half; /* of board.hits: where its workers count */
	struct error_page *pages;
	int n_pages;
	struct origin *origins; /* of all scalar keys of top-level sections */
	int n_origins;
};

/* ==== policy ============================================================== */

/* Directives of Cache-Control. The first have a time, those from D_PUBLIC on allow. */
enum {
	D_MAX_AGE,
	D_S_MAXAGE,
	D_STALE_WHILE,
	D_STALE_IF_ERROR,
	DELTAS,
	D_NO_CACHE = DELTAS,
	D_PRIVATE,
	D_NO_STORE,
	D_MUST_REVALIDATE,
	D_PROXY_REVALIDATE,
	D_ONLY_IF_CACHED,
	D_PUBLIC,
	D_MUST_UNDERSTAND,
	DIRECTIVES
};

#define DIRECTIVE(d) (1u << (d)) /* in a set of them */
#define DELTA_MAX ((int64_t)INT32_MAX) /* seconds; more is this. RFC 9111 1.2.2 */

struct directive {
	int is;             /* D_; DIRECTIVES: not known */
	struct slice value; /* without quotes; empty: none */
	bool quoted, bad;   /* bad: malformed */
};

/* All directives of a head. */
struct cache_control {
	unsigned has; /* DIRECTIVE(d) | ..., but those that name fields */
	uint32_t delta[DELTAS]; /* seconds; 0: it has none */
	bool any, bad;
};

/* What the configuration says of a cache; 0: nothing. */
struct cache_rules {
	uint32_t default_ttl_s; /* for responses that do not say how long they are good */
	uint32_t stale_s;       /* for them all, when the upstream fails */
};

/* What a request allows. */
enum {
	CACHE_LOOK = 1,  /* to answer with what is stored */
	CACHE_STORE = 2, /* to store the answer */
	CACHE_ONLY = 4   /* nothing else: 504 if the upstream had to be asked */
};

/* What a stored response is good for; kept with it. */
struct policy {
	int64_t came_s;   /* then, wall clock */
	uint32_t age_s;   /* it was so old when it came */
	uint32_t fresh_s; /* until it is so old it is fresh */
	uint32_t while_s; /* so long after it is sent, while the upstream is asked */
	uint32_t error_s; /* and so long when the upstream fails */
	bool shared;      /* also to who sends Authorization */
	bool validates;   /* it has an ETag or Last-Modified to ask with */
	uint16_t flags;   /* of an entry of the cache */
};

enum cache_use {
	USE_NOT,      /* as if it were not there */
	USE_VALIDATE, /* the upstream is asked whether it is still right */
	USE_STALE,    /* it is sent, and the upstream is asked meanwhile */
	USE_FRESH
};

/* Which keys are purged. */
struct purge {
	bool all, path, prefix; /* path: compared with the normalised paths of keys */
	size_t n;
	char text[STORE_KEY_MAX];
};

enum { KEYS_SPOILT = 3 /* the target, Location, Content-Location */ };

/* ==== keys =============================================================== */

enum key_kind {
	K_BOOL, K_INT, K_BYTES, K_SECS, K_MODE, K_CHOICE, K_SINK, K_SIGNAL, K_TEXT, K_SECRET, K_PATH,
	K_TEXTS, K_NAMES_OF_FILES, K_TYPES, K_ADDRS, K_CIDRS, K_NAMES, K_FIELDS, K_LINES, K_MATCHES,
	K_PAIRS, K_USERS, K_ENV, K_STATUSES, K_WORDS, K_SOCKETS, K_NODES, K_MAP,
	K_TABLE, K_TABLES, K_OWN, K_ANY, KINDS
};

/* How the environment says a value of some kind. */
enum key_words { NO_WORDS, ONE_VALUE, ONE_TEXT, A_LIST };

/* OUT: left out of this build; refused, but may be off: false, 0 or empty. */
enum key_when { NOW, OUT };

enum section_id {
	SEC_ROOT, SEC_SERVER, SEC_UPSTREAM, SEC_INSTANCE, SEC_UPSTREAM_TLS, SEC_HEALTH,
	SEC_UPSTREAM_PROCESS, SEC_PROCESS, SEC_LIMITS, SEC_ROUTE, SEC_RESPOND, SEC_RATE, SEC_GUARD, SEC_TLS,
	SEC_CERT, SEC_EAB, SEC_CACHE, SEC_POSTGRES, SEC_MIDDLEWARE, SEC_LOG, SEC_ADMIN,
	SEC_WEBSERVER, SEC_WEB_ROUTE, SEC_HOSTS, SEC_SITES, SEC_SITE_PROXY, SEC_SITE_UPSTREAM,
	SEC_SITE_ROUTE, SEC_SITE_BALANCE, SEC_SITE_TIMEOUT, SEC_SITE_HEADERS, SEC_SITE_HEALTH,
	SEC_FASTROUTER, SEC_SHARED_SOCKETS, SECTIONS
};

struct key {
	const char *name;
	uint8_t kind;         /* enum key_kind */
	uint8_t sub;          /* enum section_id, of K_TABLE, K_TABLES */
	uint16_t at, size;    /* where it goes in the section's struct */
	uint8_t when;         /* enum key_when */
	const char *preset;   /* as the environment would say it; NULL: unset */
	const char *words;    /* of K_CHOICE, between blanks; K_ADDRS: the word for none */
	double min, max;      /* of numbers */
	const char *help;
};

/* What a section says, before it is lowered into its conf struct. */
struct server_read {
	struct server_conf out;
	uint32_t http_port, https_port; /* 0: not said */
	struct addrs listen, https_listen;
};

struct tls_read {
	struct tls_conf out;
	bool enabled;
	const char *cert, *key, *client_ca_file, *acme_ca_file;
	struct slices domains;
	int client_verify;
};

struct place {
	struct slice host, socket, url;
	uint32_t port, weight, max_connections;
	bool backup;
};

struct upstream_read {
	struct upstream out;
	struct place place;
	struct slice strategy, host_header;
	const char *ca_file, *cert, *key; /* of its tls */
};

struct process_read {
	struct process out; /* first */
	struct slice command, log;
	struct slices args, depends_on, shared, subscribe;
	const struct toml *table, *upstream; /* NULL: wrapped; serves none */
	const char *where;         /* the section, as errors name it */
	struct slice envfile_text; /* of the file that is there now */
	struct pairs envfile;
	bool ordered;              /* stands in conf.processes */
};

struct route_read {
	struct route out;
	struct slice host, path[PATH_REGEX + 1], upstream;
	struct slices methods;
	struct logins users;
	const char *users_file;
	struct guard guard;
	struct slice guard_upstream;
	int respond_status;
};

struct router_read {
	struct router_conf out; /* first */
	struct slice code, sign_check;
	struct slices program, skip_uids, credentials_dirs, user, group;
	bool no_fd_passing, abstract;
};

/* Values of Fujin's sections: which those of a table are, and whether they are good. */
struct web_read {
	struct slice upstream, path, domain, user, envfile;
};

/* The same of BWS's; some are only looked at in the table itself. */
struct site_read {
	struct slice name, hostname, url, path, upstream;
	uint32_t port;
	const char *dir;
	bool enabled, health;
};

/* What an option of uWSGI takes on the command line. */
enum ini_takes { INI_NONE /* there is no such option */, INI_NOTHING, INI_MAY /* only behind = */, INI_VALUE };

/* An option as it stands in the file: its name and value as a key and its text. */
struct ini_line {
	struct toml said;
	bool says;  /* there is a = */
	bool named; /* %(name) of another one means it */
};

/* A file of uWSGI's being lowered. */
struct ini {
	struct reader *r;
	struct ini_line *v;
	int n;
	struct toml *tree;
	struct toml *early, *args, *shared; /* of the program: they come into the tree at the end */
	bool routes;  /* it has a FastRouter */
	bool runs;    /* and an instance */
	bool sockets, python; /* the instance has sockets; needs Python's plugin */
};

struct admin_read {
	struct addrs listen;
	struct slice token, expose;
};

/* name: as in the manual; upstreams.NAME is read for each NAME. off: a key; where it
 * is off, a section that is not there NOW is ignored. */
struct section {
	const char *name;
	const struct key *keys;
	size_t n;
	const char *off;
	const char *others; /* keys that are accepted and ignored, between blanks; or NULL */
	const char *help;
	enum key_when when;
};

/* ==== hints ============================================================== */

struct near {
	struct slice word, best;
	size_t distance; /* of best */
};

/* ==== values ============================================================= */

/* A configuration being read, and the section in hand. */
struct reader {
	struct conf *conf;
	struct arena *a;          /* conf's */
	const char *where;        /* the section, as errors name it */
	const struct toml *table; /* its table; NULL: none, or its keys are in origins */
	const char *env;   /* the variable whose text is in hand; NULL: the file's */
	const struct toml *secret; /* the first written in the file itself */
	const struct toml *ignored; /* the first key of another program's */
	struct trusted *trusted;
};

/* A bundle of certificates, read or refused. */
struct trusted {
	struct trusted *next;
	const char *asked; /* NULL: the system's */
	struct trust *trust;
	const char *why;   /* refused; NULL: it is good */
};

/* A rule between keys of the section in hand, and whether it is broken. */
struct rule {
	bool broken;
	const char *key;       /* in error, at its value */
	const char *words;     /* what is wrong; its %s is arg */
	const char *arg;       /* NULL: none */
};

/* All lists of warp.h are like this. */
struct list {
	void *v;
	int n;
};

/* ==== processes ========================================================== */

/* What a text was split into. */
struct words {
	struct slices out;
	struct text bytes;  /* of all of them, each with a NUL behind it */
	const char *bad;    /* what is wrong begins here */
	struct slice shell; /* the first word that is more than text to a shell */
};

struct process_list {
	struct process_read *v; /* in the order of the file */
	int n;
};

/* ==== dialects =========================================================== */

/* A site of BWS, while it is made into routes. */
struct site {
	const struct toml *table, *proxy; /* proxy NULL: there is none, or it is off */
	struct site_read is;
	const struct toml **routes; /* the longest path first */
	int n_routes;
	struct toml *pools;         /* name = name in [upstreams] */
	bool all;                   /* one of its routes takes every path */
};

/* ==== conf out =========================================================== */

/* Bytes at most, without program text and the kernel's socket buffers. */
struct memory {
	uint64_t idle;   /* a client's place, its upstream connections' and in the poll array */
	uint64_t busy;   /* what its request can hold */
	uint64_t held;   /* by all requests of a worker: see the ledger */
	uint64_t worker; /* before its first client */
	uint64_t shared; /* the board, where something can lie on it */
	uint64_t all;
};

/* ==== board =============================================================== */

/* No atomic on the board is wider than 32 bits: locks of libatomic are not shared
 * by processes. ARMv5 uses the kernel's helper, which is as good, though gcc does
 * not call it lock-free. */
#if !defined __ARM_ARCH || __ARM_ARCH >= 6
_Static_assert(ATOMIC_INT_LOCK_FREE == 2 && ATOMIC_SHORT_LOCK_FREE == 2 &&
    ATOMIC_BOOL_LOCK_FREE == 2, "processes share these");
#endif

/* 63 bits. hi counts the halves of lo that were passed: its lowest bit is lo's
 * highest, or a carry is on its way. */
struct wide {
	atomic_uint lo, hi;
};

/* Resolved addresses of an instance. Writer: the resolver (or the master for
 * numeric ones); odd seq: being written. */
struct board_addrs {
	atomic_uint seq;
	uint32_t n;
	union sock sock[INSTANCE_ADDRS];
	socklen_t sock_n[INSTANCE_ADDRS];
};

/* A short text that one process writes and others read; odd seq: being
 * written. */
struct board_text {
	atomic_uint seq;
	char s[WHY_MAX];
};

/* The state of an instance's process. */
enum run {
	RUN_NONE,     /* no process */
	RUN_OFF,      /* stopped, failed, or not wanted yet */
	RUN_ASLEEP,   /* off, but a request starts it */
	RUN_STARTING,
	RUN_UP,
	RUN_DRAINING  /* no new requests; stopped when the last has ended */
};

/* Whether an instance gets requests, or why not. */
enum standing {
	STAND_UP,
	STAND_TRIAL,      /* its breaker lets one request through */
	STAND_FAILING,    /* its breaker is open */
	STAND_UNRESOLVED, /* no address yet */
	STAND_UNHEALTHY,  /* its checks fail */
	STAND_CHECKING,   /* its process runs, its checks have not passed yet */
	STAND_DRAINED,    /* by the operator */
	STAND_STARTING,   /* its process starts */
	STAND_DRAINING,   /* its process is to be stopped */
	STAND_OFF,        /* its process does not run */
	STANDINGS
};

enum health { HEALTH_UNKNOWN, HEALTH_UP, HEALTH_DOWN };

/* One instance, in all generations of the configuration. Writers: the master of
 * key, addrs (the resolver, of names), epoch, run and drained; the checking worker
 * of checks; any worker of the rest. Times are the low half of the clock
 * (clock_low); 0: never. */
struct board_instance {
	char key[INSTANCE_KEY_MAX]; /* upstream name, space, address; "" is free */
	struct board_addrs addrs;
	atomic_uint weight;         /* as its node said; 0: the configuration's */
	atomic_uint epoch;          /* grows when its process moves to another address:
	                               older connections are not reused */
	atomic_int run;             /* enum run */
	atomic_bool drained;        /* by the operator */
	atomic_uint up_since_ms;    /* when it came back; 0: never away, or long ago */
	atomic_uint in_flight;      /* exchanges on it now */
	atomic_uint flights[FLIGHT_EPOCHS]; /* of these by the epoch they began in */
	atomic_uint held;           /* of an upstream's first: requests in the queue */
	atomic_uint used_ms;        /* when the last exchange began or ended */
	atomic_uint fails;          /* in the running window */
	atomic_uint generation;     /* of the last configuration that names it */
	atomic_uint window_ms;      /* start of that window */
	atomic_uint open_until_ms;  /* breaker: not picked before; 0: closed */
	struct wide requests, failures, latency_us; /* sums */
	struct wide codes[6];       /* answers by class; [0]: none came */
	atomic_uint average_us;     /* moving average of the time to the answer */
	atomic_uint idle_life_ms;   /* it closes idle connections after this, as
	                               learned; 0: not known */
	atomic_int health;          /* enum health */
	atomic_uint check_passes, check_fails; /* in a row */
	atomic_uint checked_ms;     /* when the last probe ended; 0: none did */
	struct board_text check_why; /* of the last failure; empty: it passed */
};

enum proc_state {
	PROC_OFF,      /* not wanted: by the operator, or nobody asked yet */
	PROC_WAITING,  /* for what it depends on */
	PROC_STARTING, /* runs, not ready */
	PROC_UP,
	PROC_DRAINING, /* ready, but to be stopped when nothing is in flight */
	PROC_STOPPING, /* told to stop */
	PROC_BACKOFF,  /* ended; started again when the wait is over */
	PROC_DONE,     /* ended as it should: oneshot, or restart = never */
	PROC_FAILED,   /* ended, and is not started again */
	PROC_STATES
};

/* One replica of a process, for status. Writer: the master. */
struct board_proc {
	char name[PROC_NAME_MAX];  /* web, or web.1; "" is free */
	atomic_int state;          /* enum proc_state */
	atomic_int pid;            /* 0: none */
	atomic_uint restarts;
	struct wide since_ms;      /* in this state */
	struct wide started_ms;    /* the running process; 0: none runs */
	struct board_text why;     /* how it last ended, or why it waits */
	struct board_text lines[PROC_LINES]; /* its last lines of output; a ring */
	atomic_uint n_lines;       /* lines so far; the next goes to
	                              lines[n_lines % PROC_LINES] */
};

enum redis_state {
	REDIS_OFF,      /* not configured */
	REDIS_RESTING,  /* it failed; tried again later */
	REDIS_DIALLING,
	REDIS_SHAKING,  /* a TLS handshake is under way */
	REDIS_GREETING, /* AUTH, SELECT, PING are not answered yet */
	REDIS_READY,
	REDIS_STATES
};

enum redis_count {
	REDIS_HITS, REDIS_MISSES,
	REDIS_BYPASSED, /* commands not made: it was away, or too much waited */
	REDIS_TIMEOUTS, REDIS_ERRORS, REDIS_STORED, REDIS_DELETED, REDIS_COUNTS
};

/* One worker slot. Writer: that worker (state and pid: the master). */
/* What X-Cache says of a request. */
enum cached { CACHE_BYPASS, CACHE_MISS, CACHE_STALE, CACHE_HIT, CACHED };

enum worker_state { WORKER_FREE, WORKER_STARTING, WORKER_READY, WORKER_DRAINING };
struct board_worker {
	atomic_int pid;
	atomic_int state;
	atomic_uint connections, idle; /* clients now; of these between requests */
	atomic_uint upstream_connections;
	atomic_int redis_state; /* enum redis_state */
	atomic_bool counts_crowd; /* it has written to its part of crowds */
	atomic_uint memory[2]; /* bytes held for clients; the most so far */
	/* sums, all of them wide: see board_worker_gone */
	struct wide accepted, requests, bytes_in, bytes_out, retries, refused, crowded;
	struct wide handshakes, resumed, handshakes_failed; /* of clients; resumed
	                                                         ones are in both */
	struct wide codes[6]; /* answers by class; [0] aborted by the client */
	struct wide latency[LATENCY_BUCKETS]; /* LATENCY_MS[i] or less */
	struct wide latency_us;
	struct wide redis[REDIS_COUNTS];
	struct wide log_dropped;
	struct wide cached[CACHED]; /* requests, by X-Cache */
};

#define CROWD_COUNT 0xfffu

/* What a process has used. Writer: the master. */
struct board_usage {
	atomic_int pid;     /* 0: nobody's */
	atomic_uint pages;  /* resident */
	struct wide ticks;  /* of processors */
};

/* A rate limiter's cell: a client's tag, and when its debt ends (us). */
struct board_rate {
	atomic_uint tag, until_lo, until_hi;
};

/* A TLS session that a client may resume, with any worker. seq is odd while the
 * session is written. Writers: workers. RFC 5246 F.1.4. */
struct board_session {
	atomic_uint seq;
	uint64_t scope;       /* hash of the name that was asked for */
	uint64_t settings;    /* tls_settings when it was made */
	atomic_uint until_s;  /* wall clock */
	br_ssl_session_parameters params;
};

/* An answer that an ACME server looks for. Writer: the ACME helper. RFC 8555 8. */
struct board_challenge {
	atomic_uint seq;
	char domain[ACME_NAME_MAX];  /* "" is free */
	char token[ACME_TOKEN_MAX];  /* of http-01; "" otherwise */
	char answer[ACME_TOKEN_MAX]; /* the key authorization */
};

enum acme_state { ACME_OFF, ACME_WAITING, ACME_ASKING, ACME_FAILED };

/* The progress of ACME, for status. Writer: the master. */
struct board_acme {
	atomic_int state;      /* enum acme_state */
	atomic_uint next_s;    /* the next try, wall clock; 0: none */
	struct board_text why; /* of the last failure; empty: none */
};

enum pg_state { PG_OFF, PG_CONNECTING, PG_LISTENING, PG_RESTING, PG_STATES };

/* How PostgreSQL's helper is doing, for status. Writer: that helper; of PG_OFF the
 * master. */
struct board_pg {
	atomic_int state;      /* enum pg_state */
	atomic_uint since_s;   /* in this state, wall clock */
	struct wide bells;     /* notifications so far */
	struct board_text why; /* of the last failure; empty: none */
};

/* What a FastRouter routes by lies in units of NODE_UNIT bytes on the board. The clerk
 * alone writes: a record is whole before one store links it, and its units rest for two
 * epochs after one store has unlinked it. So workers read without a lock, and whoever is
 * killed leaves nothing half done. A record is named by its first unit; 0: none. */

/* A key with its nodes or, of a cache, its value. */
struct node_key {
	atomic_uint next;       /* of its bucket */
	atomic_uint nodes;      /* the first one */
	atomic_uint turn;       /* the node that was picked last */
	uint32_t scope, hash;
	struct wide hits;       /* lookups */
	atomic_uint until_s;    /* of a value, wall clock; 0: for ever */
	uint32_t value_n;       /* bytes of the value behind the key */
	uint16_t n;             /* of the key */
	uint8_t algo;           /* enum node_algo + 1, of its own; 0: the router's */
	uint8_t origin;         /* enum node_origin: who has set its value */
	char text[];
};

struct node {
	atomic_uint next;       /* of its key */
	atomic_uint dead;       /* it gets no more requests, and goes after the last one */
	uint32_t key;           /* whose it is */
	atomic_uint modifiers;  /* modifier1 << 8 | modifier2 */
	atomic_uint weight, backup, cores, load;
	atomic_uint credit;     /* of wrr: requests that it gets before the next one */
	atomic_uint seen_ms;    /* when it was last announced: clock_low, and */
	atomic_uint seen_s;     /* wall clock */
	atomic_uint fails;
	atomic_uint pid, uid, gid; /* of who announced it; 0: not known */
	struct wide requests, tx, rx; /* bytes from it, bytes to it */
	struct wide requests_then;    /* at its last announcement */
	uint16_t n;
	char address[];
};

/* A router, by what it is called in the table. */
struct node_scope {
	atomic_uint tag;  /* 0: a free cell */
	atomic_uint live; /* nodes that get requests */
};

/* What is known of a static node. */
struct node_mark {
	atomic_uint tag;       /* a hash of router and address; 0: a free cell */
	atomic_uint failed_ms; /* when; 0: it works */
	struct wide hits;
};

/* The latest signed announcements of a node, so that none is heard twice. */
struct node_stamp {
	uint64_t tag;        /* a hash of router, key and address; 0: a free cell */
	uint32_t seen, left; /* the highest `unix` of a subscription; of the opposite */
};

struct board_nodes {
	uint64_t seed;
	atomic_uint epoch;    /* grows when all units that rest may be one step nearer to their use */
	atomic_uint reading[WORKERS_MAX * 2]; /* the epoch in which that worker began; 0: it
	                                         does not read */
	atomic_uint fresh;    /* units from this one on were never used */
	atomic_uint swept_ms; /* when the clerk last looked; clock_low, 0: never */
	atomic_uint slots;    /* of workers, that have ever been used */
	struct node_scope scopes[NODE_SCOPES];
	struct node_mark marks[NODE_MARKS];
	struct node_stamp stamps[NODE_STAMPS];
	uint32_t floors[NODE_STAMPS / NODE_WAYS]; /* no stamp up to this one is taken: some of
	                                             them had to make way */
	atomic_uint buckets[NODE_BUCKETS];
	_Alignas(8) char units[NODE_UNITS][NODE_UNIT]; /* the first NODE_SCOPES are not used */
	/* requests by worker slot and node; of the first units, by slot and router */
	atomic_ushort flights[WORKERS_MAX * 2][NODE_UNITS];
};

#define USAGES (1 + WORKERS_MAX * 2 + PROCS_MAX) /* the master, workers, programs */
#define USAGE_VERB "usage"

struct board {
	uint64_t layout;      /* see board_layout */
	int64_t started_s, started_ms; /* wall clock, monotonic; before the first fork */
	uint64_t seed;        /* of hashes that nobody should aim at */
	atomic_uint log_lost; /* lost lines of the error log, not reported yet */
	atomic_uint generation, reloads;
	atomic_uint oldest; /* generation that a living worker may name */
	struct board_worker workers[WORKERS_MAX * 2]; /* new and draining ones */
	struct board_worker gone;     /* sums of workers that left; by the master */
	atomic_uint epoch;            /* grows when the standing of an instance has
	                                 changed: workers look again */
	struct board_instance instances[INSTANCES_MAX];
	struct board_proc procs[PROCS_MAX]; /* used ones first */
	struct wide hits[2][ROUTE_HITS]; /* of routes; see conf.hits_half */
	struct board_rate rates[RATE_CELLS];
	struct board_session sessions[SESSIONS_MAX];
	struct board_challenge challenges[ACME_NAMES_MAX];
	struct board_acme acme;
	struct board_pg pg;
	struct board_nodes nodes;
	struct board_usage usages[USAGES];
	/* exchanges by worker slot and instance, and the held ones: what a killed
	 * worker leaves behind */
	atomic_ushort flights[WORKERS_MAX * 2][INSTANCES_MAX][FLIGHT_EPOCHS + 1];
	/* connections by client: bits of its hash, and CROWD_COUNT of their number; and those
	 * of each worker slot */
	atomic_uint crowd[CROWD_CELLS];
	atomic_ushort crowds[WORKERS_MAX * 2][CROWD_CELLS];
};

/* ==== store =============================================================== */

/* Where in a chain of blocks: the byte `at` of a block, or behind its last byte. */
struct store_place {
	uint32_t block, at;
};

enum store_state {
	STORE_BEGUN, /* being filled: its head is not known yet */
	STORE_HEAD,  /* being filled: its head is known */
	STORE_PASS,  /* the same, but it will not stay: those who read it get it piece by piece */
	STORE_WHOLE,
	STORE_CUT    /* it will never be whole; in no index */
};

/* An entry stands at the front of its first block; its key, its head and its body
 * follow, through all blocks of the chain. The lock guards all but the atomics.
 * Readers that have pinned the entry read body bytes below n without the lock. */
struct store_entry {
	uint64_t hash;          /* of the key */
	uint32_t next;          /* entry of the bucket; 0: none */
	uint32_t serial;        /* grows from one entry to the next */
	uint32_t generation;    /* not the store's: purged */
	uint32_t pins;          /* refs to it, of all processes */
	uint32_t key_n, vary_n; /* bytes of its texts */
	atomic_uint state;      /* enum store_state */
	atomic_uint n;          /* bytes of the body so far */
	atomic_uint turn;       /* grows with everything that waiting readers are told */
	atomic_uint waiters[STORE_SLOTS / 32]; /* bits of worker slots to be told */
	struct store_place head, body; /* block 0: not known yet */
	uint32_t head_n, head_room;    /* bytes of the head; most, in its place */
	uint32_t head_chain;    /* blocks of a newer, longer head; 0: none */
	uint8_t writer;         /* token of the worker that fills or filled it */
	bool linked;            /* in the index */
	bool hot;               /* found since the hand last passed */
	struct policy facts;    /* what the cache notes about it; copied in and out whole */
};

/* A cell of a worker's pin log: repair knows from it what a killed worker pinned. */
struct store_pin {
	uint32_t entry; /* 0: a free cell */
	uint32_t next;  /* the worker's own: of its free, or of its owed cells; 0: none */
	atomic_uint pos, reads; /* if it does: bytes of the body it has read */
};

/* What a worker leaves behind. */
struct store_worker {
	atomic_uint rung; /* its bell rings already */
	uint32_t log;     /* first block of its pin log; 0: none */
};

/* The front of the mapping. Behind it: the frequency sketch, the buckets of the index,
 * a link for each block (the next of its chain, or of the free ones; 0: the last), two
 * bitmaps (blocks at which an entry begins; blocks that repair found in use), blocks.
 * Numbers above `lock` are fixed, those below are guarded by it
 * (the atomics among them may be read without). */
struct store {
	size_t size;
	uint64_t seed;
	uint32_t n_blocks;
	uint32_t buckets;       /* a power of 2, as are: */
	uint32_t lines;         /* of the sketch */
	atomic_uint lock;       /* the holder's token: its slot + 1; 0: free */
	atomic_uint generation; /* grows when all is purged */
	uint32_t free;          /* first free block */
	atomic_uint n_free;
	atomic_uint fresh;      /* this block and those behind it were never used */
	uint32_t hand;          /* where the next victim is looked for */
	uint32_t serial;        /* of the newest entry */
	uint32_t finds, faded;  /* lookups; words of the sketch halved */
	atomic_uint entries;    /* in the index */
	struct wide evicted, refused, missed_lock; /* entries; newcomers that lost
	                                              against a victim; and bypasses */
	struct store_worker workers[STORE_SLOTS];
};

/* An entry's texts: key finds it and its variants, vary tells these apart. */
struct store_key {
	struct slice key, vary; /* borrowed from the caller */
	uint64_t hash;
};

/* A pinned entry, and how far its body is read, or written. Belongs to one exchange of
 * one worker, ends by store_drop. All zero: none. */
struct store_ref {
	uint32_t entry, pin;
	enum store_state state;    /* as last looked at */
	uint32_t turn;             /* of the entry, then */
	struct store_place place;  /* of the next byte; block 0: not known yet */
	uint32_t pos;              /* read: bytes before place; passed: before the body's second
	                              block */
	uint32_t tail, room;       /* written: last block of the chain, bytes left in it */
	uint32_t older, older_serial; /* written: the entry that it replaces; 0: none */
	bool writing;
	bool gone; /* nobody finds the entry any more, as last looked at */
	bool busy; /* the last failure was the lock's, try again; else there is no room, or entry */
};

struct store_stats {
	uint64_t size, used; /* bytes; used: with everything */
	uint32_t entries;
	uint64_t evicted, refused, missed_lock;
};

/* ==== nodes =============================================================== */

/* Where a request of a FastRouter goes. All zero before its first attempt. */
struct node_pick {
	char address[NODE_ADDRESS_MAX + 1]; /* for the log */
	union sock to;
	socklen_t to_n;
	uint8_t modifier1, modifier2;
	uint32_t node;    /* its record, on which a request is in flight; 0: none */
	uint32_t mark;    /* of a static node, + 1; 0: none */
	uint32_t place;   /* of the router that counts the request, + 1; 0: not counted */
	unsigned nth;     /* fallback nodes that were tried */
};

enum picked {
	PICKED,
	PICKED_NOTHING, /* there is no node */
	PICKED_ASK      /* the mapper knows */
};

/* Where is a request for key to go? */
struct node_ask {
	const struct router_conf *rc;
	struct slice key;
	const struct ip *client;
	unsigned attempt;
};

/* The nodes of a key that may be picked now. */
struct node_field {
	struct node_key *key;
	const struct ip *client;
	uint32_t level;  /* the lowest one of backup that lives */
	uint32_t n;      /* nodes of it that do */
	uint32_t least;  /* their lowest weight */
	unsigned algo;   /* enum node_algo */
};

/* What an announcement has changed. */
enum node_news { NODE_KNOWN, NODE_NEW, NODE_BAD, NODE_NO_ROOM };

/* Who has set a value. */
enum node_origin {
	BY_CONF, BY_FILE, BY_COMMAND,
	BY_BEFORE, /* the configuration or the file, which is being read anew */
	BY_NOBODY  /* it goes */
};

/* ==== timer, loop ========================================================= */

struct timer_list;

/* A deadline. The owner embeds it; on a list while armed. */
struct timer {
	struct link link;        /* in its list */
	struct timer_list *list; /* NULL: not armed */
	int64_t due_ms;          /* when its list looks at it */
	int64_t want_ms;         /* when it shall fire; later if lists are full */
	uint32_t ms;             /* set for this long */
	void (*fire)(struct timer *);
};

/* All timers of one duration, soonest first, because they were armed in order. */
struct timer_list {
	uint32_t ms;
	struct link ring;
};

/* A descriptor in the poll array, in the parking lot, or in neither. */
struct watch {
	int fd;    /* -1: none */
	int slot;  /* in the poll array, -1: not there */
	uint32_t since; /* turn, or ms while unpolled, when it last did something */
	short events;
	bool parked;   /* armed in epoll instead */
	bool known;    /* to epoll, armed or not */
	bool inside;   /* bytes were read and wait above poll: as good as POLLIN */
	struct link link; /* oldest first; in no ring while parked or unwatched */
	struct link starved; /* in a ring of those that are not read */
	void (*ready)(struct watch *, short revents);
};

/* Whose reading waits for memory: a request's that is under way, or one that would begin. */
enum hunger { HUNGER_BEGUN, HUNGER_NEW, HUNGERS };

/* ==== ledger ============================================================== */

/* Bytes. */
struct ledger {
	uint32_t held, most;  /* now; at any time */
	uint32_t easy;        /* above: tense */
	uint32_t full, spent, most_spent; /* two needs, one, half of one is left */
	bool starves;         /* somebody may wait */
	atomic_uint *shown;   /* where held and most are seen; NULL: nowhere */
	int64_t stuck_ms;     /* since then all wait for each other; 0: they do not */
	struct watch *favourite; /* may be read all the same: only compared */
};

/* ==== tls ================================================================= */

#define TLS_RECORD_MAX 16384 /* bytes of plain text in one */
#define TLS_FLIGHT ((RELAY_BYTES / TLS_RECORD_MAX + 1) * BR_SSL_BUFSIZE_OUTPUT) /* bytes
	of records that are sent together */

/* A pair of record buffers, in a block: a connection has it while bytes lie in them. */
struct tls_bufs {
	unsigned char in[BR_SSL_BUFSIZE_INPUT], out[BR_SSL_BUFSIZE_OUTPUT];
};

enum tls_state {
	TLS_HANDSHAKE,
	TLS_OPEN,
	TLS_ENDED    /* closed in peace, or failed: see why */
};

/* The engine of a chan: BearSSL's server or client context, whose first part is
 * eng. */
struct tls {
	union {
		br_ssl_engine_context eng;
		br_ssl_server_context server;
		br_ssl_client_context client;
	} c; /* first */
	struct tls_bufs *bufs;  /* NULL: between records */
	uint32_t have;          /* bytes in bufs->in that the engine has not got yet */
	uint32_t have_at;       /* where they begin */
	uint32_t left_n;        /* bytes of records that the kernel did not take */
	uint32_t left_at, left_cap; /* where they begin; bytes of their memory */
	unsigned char *left;    /* the records; NULL: none */
	enum tls_state state;
	bool is_client;         /* it connects to an upstream */
	bool spoken;            /* the first byte began a handshake */
	bool unserved;          /* the client asked for a name that is not served */
	bool resumed;           /* server: no certificate was needed */
	int err;                /* as BearSSL numbers them; 0: none */
	uint64_t scope;         /* of the resumed session */
	const br_ssl_server_policy_class *policy; /* BearSSL calls back with its address */
	struct cert_set *set;   /* used by a server's handshake */
	const struct cert *cert;  /* chosen from set; NULL after the handshake */
	struct tls_verify *verify; /* during a handshake: checks the peer */
	br_ssl_session_parameters *session; /* client: kept there; NULL: nowhere */
	struct chan *ch;        /* its owner */
	char *shown;            /* of the client's certificate, see tls_shown; NULL: none */
	struct link link;       /* in handshakes */
};

#define TLS_LEAF_MAX 4096 /* bytes of a peer's certificate that are kept */

/* The verifier of a peer's certificates, lent to a handshake. */
struct tls_verify {
	const br_x509_class *vtable; /* first */
	union {
		const br_x509_class *vtable;
		br_x509_minimal_context minimal;
		br_x509_decoder_context key; /* any: only the key is read */
	} x;
	const char *name; /* that the certificate must have; NULL: any */
	bool any;         /* any certificate is trusted */
	unsigned n;       /* certificates so far */
	unsigned verdict;
	size_t leaf_n;    /* bytes in leaf */
	unsigned char leaf[TLS_LEAF_MAX];
};

/* The server that a TLS client connects to. */
struct tls_peer {
	const char *name;          /* asked for and checked; NULL: neither */
	const struct trust *trust; /* NULL: any certificate is trusted */
	const struct cert *client; /* shown if asked for; NULL: none */
	br_ssl_session_parameters *session; /* to resume, then replaced; NULL: none */
};

/* What BearSSL's error number means, and which alert says so where BearSSL sends none;
 * why NULL: see tls_why_cert. */
struct tls_failure {
	int err;
	const char *why;
	unsigned char alert; /* 0: none */
};

/* How well a certificate suits a name. */
enum rank { RANK_OTHER, RANK_FIRST, RANK_WILD, RANK_EXACT };

enum shake { SHAKE_DONE, SHAKE_WAITS, SHAKE_FAILED, SHAKE_PLAIN /* that is no TLS */ };

/* ==== chan ================================================================ */

/* A socket that may have TLS on it, which rooms above do not know. Owns fd, out and
 * tls. What the kernel has not taken yet waits here. */
struct chan {
	struct watch w; /* first: a watch is its chan */
	struct buf out; /* plain text that was not taken */
	struct tls *tls; /* NULL: plain */
	bool waits;   /* the kernel has not taken all that was written */
	bool more;    /* what is sent now is not the end: the kernel may wait for it */
	bool eof;     /* nothing more can be read */
	bool broken;  /* reading or writing failed: close it */
};

/* What a side's deadline is for. */
enum wait { WAIT_NOTHING, WAIT_CONNECT, WAIT_READ, WAIT_WRITE, WAIT_TUNNEL, WAIT_STORED };

enum source_end { SOURCE_OPEN, SOURCE_ENDED, SOURCE_CUT /* reading failed */ };

/* What a body is read from: a connection, or bytes that are here already. What
 * was read and not yet used is in `in`, which during one event may lie in the
 * worker's scratch block. */
struct source {
	ssize_t (*fill)(struct source *); /* reads one piece more: its bytes, 0 when
	                                     there are none now, -1: see end */
	ssize_t (*pass)(struct source *, struct chan *); /* or NULL. Lets the kernel send
	                                     a piece; as fill, or the chan is broken */
	bool pulls;      /* gives a piece whenever it is asked; else poll says when */
	uint8_t end;     /* enum source_end */
	struct fcgi_reader *records; /* what comes is in FastCGI's records; or NULL */
	struct slice whole; /* all of it, if it lies in memory and was not asked for a piece */
	struct buf in;
};

/* One end of an exchange: a chan, its deadline, and what is read from it. */
struct side {
	struct chan ch; /* first */
	struct timer timer;
	struct source src;
	struct exchange *x; /* NULL: none runs */
	bool hup;           /* hung up, or failed: poll says so for ever */
	bool begins;        /* what is read while x is NULL begins a request */
	bool drains;        /* what it reads is not kept: it waits for no memory */
	uint8_t waits;      /* enum wait: what its deadline is for */
};

/* ==== privilege =========================================================== */

#define LOGIN_MAX 256 /* bytes of an account's name; LOGIN_NAME_MAX */

struct identity {
	uid_t uid;
	gid_t gid;
	char name[LOGIN_MAX]; /* for initgroups; "": no such account, or no user given */
	bool user, group;
};

/* ==== redis =============================================================== */

struct upconn;

enum redis_ask_kind { ASK_AUTH, ASK_SELECT, ASK_PING, ASK_GET, ASK_SET, ASK_DEL, ASK_SCAN, ASK_KINDS };

/* A command that was sent, and whose answer is not here yet. */
struct redis_ask {
	struct timer timer;   /* its answer is late; not armed: it is */
	enum redis_ask_kind kind;
	int64_t asked_ms;
	void (*done)(void *arg, struct slice value); /* NULL: nobody waits */
	void *arg;
};

/* A purge: see redis_sweep. */
struct redis_sweep {
	struct link link;
	bool (*is)(struct slice key, struct slice text);
	size_t n;
	char text[];
};

/* What goes with the connection. */
struct redis_conn {
	struct upconn *up;        /* NULL: there is none */
	unsigned late;            /* answers in a row that were late */
	int64_t late_ms;          /* the last of them */
	struct resp resp;
	char *value;              /* of the GET being answered; NULL: not wanted */
	size_t value_n, value_cap;
	struct text out;          /* commands, of which `sent` bytes are with the kernel */
	size_t sent;
	bool scanning;            /* SCAN is not answered yet */
	bool repeat;              /* a DEL found no room: that step is done again */
	char cursor[20], next[20]; /* of this step, of the next; 64 bits in decimal */
	size_t cursor_n, next_n;
	char found[REDIS_KEY_MAX + 1]; /* the key being read; full: too long */
	size_t found_n;
	size_t batch_bytes;       /* keys to be deleted: see redis.batch */
	unsigned batch_n;
};

/* The worker's way to Redis. */
struct redis {
	const struct cache_conf *conf;
	struct instance *at;
	enum redis_state state;
	enum redis_state told;    /* READY or RESTING: what the log says */
	int64_t since_ms;         /* in this state */
	int64_t due_ms;           /* resting: until then */
	uint32_t rest_ms;         /* the last rest */
	struct timer timer;       /* limits the state */
	uint8_t addr_i;           /* the address to be tried */
	int64_t quiet_ms;         /* nothing is logged before of what Redis refuses */
	struct redis_conn c;
	struct redis_ask asks[REDIS_QUEUE]; /* a ring: n, from first on */
	unsigned first, n;
	size_t set_from, set_to;  /* the SET being written: where it begins, its value ends */
	uint32_t set_secs;
	struct link sweeps;       /* the first is under way */
	unsigned n_sweeps;
	struct timer sweep_timer; /* its next step is tried again */
	char batch[REDIS_BATCH];  /* keys to be deleted, as they are sent */
};

/* ==== mapper ============================================================== */

/* A question to a mapper: the key behind it; or its answer: the address, empty if there is
 * none. One packet on the channel of a worker. */
struct map_message {
	uint32_t id;    /* the worker's own */
	uint32_t scope; /* of the router */
	char text[NODE_ADDRESS_MAX];
};

/* A request that waits. */
struct map_ask {
	void (*told)(void *arg, struct slice address); /* NULL: a free place */
	void *arg;
	struct timer late;
	struct map_message m;
	size_t n;       /* bytes of m */
	bool sent;
};

/* ==== pool, exchange, fronts ============================================== */

struct conn;
struct exchange;
enum step { STEP_WAIT, STEP_AGAIN, STEP_DONE };

enum auth { AUTH_NO, AUTH_YES, AUTH_LATER, AUTH_BUSY };

/* Credentials whose hash is being made, and the requests that wait for it. */
struct auth_job {
	struct link link;       /* in the queue */
	struct exchange *first; /* NULL: free */
	struct crypt_job crypt;
	unsigned char print[br_sha256_SIZE]; /* of the credentials; see auth_print */
	bool known;             /* the user exists */
};

/* A place in a queue. */
struct waiter {
	struct link link;
	uint64_t turn;      /* grows from one request to the next */
	int64_t since_ms;   /* began to wait; 0: it never did */
	bool out;           /* waited, and tries again */
};

/* Requests that wait for one thing, by turns: see the room `hold`. */
struct queue {
	struct link ring;   /* of waiters, oldest first */
	unsigned n;
	unsigned n_out;     /* those that try again now */
	unsigned go;        /* how many may try when the loop's turn is over */
	struct timer timer; /* the oldest tries again */
};

/* The instances of an upstream that may be asked, as this worker knows, and the
 * requests that wait for one. */
struct roster {
	struct instance **ready; /* as of epoch; room for all */
	uint32_t *weight;        /* of each, now; see slow_start_secs */
	int *turns;              /* of each, in a round of the ring */
	int n;
	bool even;               /* all weights are equal */
	uint16_t *ring;          /* turns of round robin: places in ready */
	int n_ring, ring_at;
	unsigned epoch;          /* of the board, when ready was made */
	int64_t until_ms;        /* made anew then; 0: when the board changes */
	struct queue queue;
	int64_t asked_ms;        /* when the master was last asked for the process */
};

enum upconn_state { UP_FREE, UP_CONNECTING, UP_BUSY /* or in a TLS handshake */, UP_IDLE };

/* A connection to an instance: connecting, carrying an exchange, or idle in
 * the pool. */
struct upconn {
	struct side s; /* first */
	struct instance *inst;
	struct link link;      /* in inst->idle */
	enum upconn_state state;
	uint32_t served;       /* exchanges completed on it */
	uint8_t addr_i;        /* which of the instance's addresses */
	unsigned epoch;        /* of the instance, when it was opened */
	unsigned addrs_seq;    /* of its addresses, when `to` was last among them */
	uint64_t to;           /* hash of the address */
	int64_t idle_since_ms;
	bool retry_connect;    /* a unix backlog is full: connect again soon */
	bool head;             /* its last request was HEAD */
	uint32_t parsed;       /* bytes of s.in that were no whole head yet */
	struct fetch *fetch;   /* it is read for the cache alone; or NULL */
	struct fcgi_reader reader; /* of s.src, with FastCGI */
};

enum conn_state {
	CONN_FREE,
	CONN_PROXY,  /* a PROXY header is due */
	CONN_TLS,    /* a TLS handshake is under way */
	CONN_IDLE,   /* between requests */
	CONN_HEAD,   /* part of a head is here */
	CONN_BUSY,   /* an exchange runs */
	CONN_CLOSE,  /* answered, nothing more can come */
	CONN_LINGER, /* answered; reads what still comes, or the answer would be lost */
	CONN_STATES
};

/* A request to the admin endpoints. Slices are the exchange's. */
struct admin_request {
	enum method method;
	struct slice path, query; /* path: below admin.expose, percent-encoded */
	bool is_unix;        /* came over a unix socket: needs no token */
	bool wants_html;
	bool cross_site;     /* sent by a page of another site */
	struct slice token;  /* X-Admin-Token or Bearer; may be empty */
	struct slice secret; /* what token must be; empty: none is good */
	bool may_ask;        /* the master, before a page is printed */
};

/* The answer to an admin_request; the caller frees body. With verb set there is no
 * body yet: verb is for the master, good until the next answer; with print as well, that
 * makes the body when the master has answered. */
struct admin_reply {
	int status;
	const char *content_type;
	const char *extra; /* whole header lines; NULL: none */
	char *body;
	size_t n;
	const char *verb;
	void (*print)(const struct conf *, FILE *);
};

/* ---- facts: what /status, its tables and /metrics are made of ---- */

enum value_kind { V_NONE /* not said */, V_NULL, V_BOOL, V_INT, V_REAL, V_TEXT, V_TEXTS };

/* Texts are good until the answer is written. */
struct value {
	enum value_kind kind;
	union {
		int64_t i; /* of V_BOOL and V_INT */
		double real;
		const char *text;
		const struct slices *texts;
	};
};

/* Where a value is shown, and its names. */
struct fact {
	const char *name;   /* in JSON; NULL: not there */
	const char *metric; /* behind warp_; a counter ends in _total; NULL: not there */
	const char *help;   /* of the metric */
	const char *column; /* in its table; NULL: not there */
	short width;        /* of the column; below 0: at the left; FIT; 0: the last */
	short digits;       /* behind the point, of column and metric; 0: as it comes */
	unsigned short at, size; /* of a number in each worker's record */
};

/* A metric with all its samples. */
struct family {
	const char *metric;
	FILE *to;
	char *text;
	size_t n;
	struct family *next;
};

struct column {
	const char *name;
	int width;
	struct column *next;
};

/* Where facts are written. A table takes two rounds: heads, then rows. */
struct teller {
	enum { AS_JSON, AS_HEADS, AS_ROWS, AS_METRICS } as;
	const struct conf *cf;
	struct json_out json;         /* or text, to the same stream */
	struct column *columns, **at; /* at: of the next cell */
	const char *labels;           /* of the next samples: a="b",c="d" */
	struct family *families;
};

/* A path to GET, or a verb to POST. */
struct admin_end {
	const char *path, *help;
	const char *type; /* of what print writes; NULL: text */
	void (*print)(const struct conf *, FILE *);
	void (*print_text)(const struct conf *, FILE *); /* for ?format=text */
	bool is_verb;
	const char *takes; /* what stands behind a verb: /NAME; NULL: nothing */
	const char *(*find)(const struct conf *, struct slice name, FILE *); /* name */
	bool alone; /* the name may be left out */
	bool asks;  /* the master for what processes use, first */
};

enum listener_kind {
	LISTEN_HTTP, LISTEN_ADMIN, LISTEN_ROUTER,
	LISTENER_KINDS,
	LISTEN_SHARED = LISTENER_KINDS, /* bound for programs alone: not for workers, nor */
	LISTEN_SUBSCRIBE, LISTEN_CACHE, LISTEN_CACHE_UDP, LISTEN_STATS /* these: for the clerk */
};

/* A listening socket. fd is shared with the master and all workers. */
struct listener {
	struct watch w; /* first; the worker's */
	struct addr addr;
	enum listener_kind kind;
	int fd;
	unsigned router; /* of those that are a router's: index in conf.routers */
	uint32_t turn;   /* of the loop, when it had clients last */
	bool tls;        /* it speaks https */
	uint16_t port;   /* as bound; 0 for unix */
	bool is_unix;    /* a socket file, whose mode guards it, whatever addr says */
	bool inherited;  /* not ours to unlink */
	bool activated;  /* from LISTEN_FDS: stands in for the preset address */
	dev_t dev;       /* of the socket file we made, to unlink only that */
	ino_t ino;
};

/* A client connection. Idle, it costs only this. */
struct conn {
	struct side s; /* first */
	struct listener *listener;
	struct link link;    /* in idle, or in none */
	struct ip peer;      /* after PROXY protocol; zero: unix */
	uint16_t peer_port;
	atomic_uint *seat;   /* where it is counted: see board.crowd; NULL: it is not */
	struct ip dest;      /* what the client dialled, by PROXY protocol; zero: here */
	uint16_t dest_port;
	uint8_t state;       /* enum conn_state */
	struct passage *passage; /* of a client of [fastrouter]; or NULL */
	bool ghost;          /* nobody is there: its exchange fetches for the cache */
	bool ghost_tls;      /* and who made it had come by TLS */
	uint32_t served;     /* requests so far */
	uint32_t scanned;    /* of in, searched for the end of the head */
	int64_t linger_by_ms; /* lingers until then at most */
};

enum flow_state { FLOW_OFF, FLOW_ON, FLOW_DONE, FLOW_CUT /* its taker left */ };

/* A kernel pipe through which a body is spliced. Owned by the flow whose n
 * bytes it holds, else on the free list. */
struct pipe {
	int r, w;
	uint32_t n;
	struct pipe *next;
};

/* One direction of an exchange: a body on its way. */
struct flow {
	struct source *from;    /* NULL while it is off */
	struct body body;       /* how it arrives */
	enum flow_state state;
	bool chunk_out;         /* how it is sent: chunked, or as it is; */
	bool records;           /* or in FastCGI's records */
	uint64_t limit;         /* bytes of content it may have; 0: any */
	struct pipe *pipe;      /* bytes that the taker's socket did not take */
	void (*tap)(void *tapped, struct slice piece, bool last); /* sees what passes; or NULL */
	void *tapped;
	struct gzip *zip;       /* compresses what passes; NULL: nothing does */
	uint64_t squeezed;      /* bytes that it made */
	struct block *trailers; /* text of kept trailer lines; NULL: none */
	uint32_t trailers_n;
};

/* A body that warp holds: a request's, kept until it is whole, or that of an answer
 * that warp makes. First the bytes in memory, then those in a file. */
struct spool {
	struct source src; /* first */
	const char *mem;
	void *own;         /* mem, or what it lies in, for free(); or NULL */
	size_t mem_n, mem_cap;
	int fd;            /* -1: none; unlinked, or file's */
	int dir;           /* where it is made; -1: in memory */
	uint64_t at;       /* the first byte in fd */
	uint64_t size, sent;
	struct file *file; /* held; NULL: fd is the spool's own */
	void (*next)(struct spool *); /* all is sent: what else there is; or NULL */
};

/* An answer that warp makes up itself. */
struct answer {
	int status;
	struct slice content_type, body;
	struct slice extra;  /* whole header lines, or empty */
	void *owned;         /* body's memory, for free(); or NULL */
};

enum exchange_state {
	X_AUTH,    /* its password is being hashed */
	X_ASK,     /* the master is asked; see admin front */
	X_PACE,    /* rate_limit.delay: waits for its turn */
	X_SPOOL,   /* collecting the request body */
	X_PICK,    /* an instance and a connection to it are due */
	X_STORED,  /* somebody fetches it for the cache: waits for that */
	X_HOLD,    /* no instance now: waits for one */
	X_CONNECT, /* waiting for the upstream connection */
	X_SEND,    /* the head is due upstream */
	X_WAIT,    /* request on its way, no answer yet */
	X_ANSWER,  /* the answer is on its way */
	X_TUNNEL,
	X_STATES
};

/* One request and its answer. Lives in a block from the first byte of a
 * whole head to the last byte of the answer; head bytes follow it there. */
struct exchange {
	struct conn *c;
	struct chan *to;        /* takes the answer: the client's chan */
	struct upconn *u;
	const struct route *route;
	struct instance *inst;  /* in flight on its board record */
	enum exchange_state state; /* see exchange_enter */
	struct block *block;      /* that it lives in */
	struct block *head_block; /* a head too long for that block */
	struct slice head_bytes;
	struct slice method_text, target, host; /* in head_bytes */
	enum method method;
	uint8_t minor;
	struct flow up, down;   /* request body, response body */
	struct spool *spool;    /* the request's body, if it is kept; or NULL */
	struct spool made;      /* the body of an answer that warp makes */
	struct hit *hit;        /* its part in the cache; NULL: none */
	int status;             /* sent to the client; 0: none yet */
	int64_t start_us, up_start_us;
	uint32_t up_us;
	struct ip client;       /* believed address; see trusted_proxies */
	uint32_t tries;         /* upstream connections tried */
	uint64_t tried;         /* bit per instance */
	bool secure;            /* by https, to warp or, as trusted_proxies say, to them */
	bool wants_close;       /* the client said this is its last request */
	bool keep;              /* the client connection survives */
	bool body_whole;        /* all of the request body was read from it */
	bool body_bad;          /* malformed or too big: not read on */
	bool upgrade;           /* asked for, and forwarded */
	bool expect;            /* 100-continue wanted */
	bool sent_any;          /* request bytes went upstream on this try */
	bool interim;           /* a 1xx reached the client */
	bool reusable;          /* u may go back to the pool */
	bool c_ready, u_ready;  /* that side may be read in this event */
	short c_events, u_events; /* what poll said of it in this event */
	bool same;              /* the next try goes to inst again, on a new
	                           connection */
	bool early;             /* a 101 is here; the request's content goes first */
	uint8_t addr_i;         /* which address of inst */
	bool admin;             /* for the admin listener */
	bool known;             /* basic_auth has let its user in */
	int64_t connect_by_ms;  /* no more attempts after this */
	uint16_t interims;      /* 1xx answers so far */
	struct waiter wait;     /* for its turn, then for an instance */
	int held_status;        /* the answer when it has waited too long */
	uint32_t lost;          /* times that it was lost after it was sent */
	bool passed;            /* an instance had no place for it */
	uint8_t parity;         /* of the epoch of inst in which it began */
	bool sticks;            /* the answer sets the cookie of its instance */
	struct asking *asking;  /* an authenticator is asked; or NULL */
	char *grant, *cookies;  /* it let x pass: lines for the upstream, and for the client;
	                           owned; or NULL */
	struct auth_job *auth;  /* X_AUTH: what hashes its password */
	struct exchange *auth_next; /* waits for the same job */
	char id[REQUEST_ID_MAX + 1]; /* this and what follows is not zeroed: see exchange_new */
	char cause[CAUSE_MAX];  /* why 502, 503, 504, in words */
};

/* What an exchange is, but for the question whether it may pass. */
struct asking {
	struct exchange *x;
	struct timer late;
	const struct route *route;
	struct flow up;
	enum method method;
	bool body_whole;
};

/* An authenticator's word that counts for a while. */
struct grant {
	unsigned char print[br_sha256_SIZE];
	int64_t until_ms;
	char *lines;       /* see exchange.grant */
};

/* Flags of an entry of the cache. */
enum {
	ENTRY_NAMES = 1 /* its head is the names of Vary: entries of variants stand beside it */
};

/* What an exchange has to do with the cache. */
struct hit {
	struct source src;     /* first: the body of r, on its way to the client */
	struct exchange *x;
	struct link link;      /* waits for the bell; or to be run */
	struct store_ref r;    /* what is sent, or asked about */
	struct store_ref w;    /* what is filled, until a fetch takes over */
	struct policy policy;  /* of r */
	enum cached word;      /* of X-Cache */
	uint64_t varies;       /* hash of the names of Vary by which it was found; 0: none */
	uint64_t left;         /* bytes of r still to be sent */
	uint32_t salt;         /* see cache_key */
	uint8_t asks;          /* questions to Redis so far */
	uint8_t tries;         /* that met a busy store */
	bool asking;           /* one is under way */
	bool https;            /* as the client's side sees it */
	bool stores;           /* the request is made so that its answer can be stored */
	bool alone;            /* it waits for nobody (any more) */
	bool let_go;           /* it has waited in vain */
	bool saves;            /* the upstream failed: r is the answer */
	bool only;             /* 504 if nothing is stored */
	bool checks_due;       /* the upstream is asked whether r is still right: */
	uint16_t checks_n;
	char *checks;          /* in these lines: owned; NULL: none yet */
};

/* A body on its way into the cache, from an upstream connection, without a client. */
struct fetch {
	struct upconn *u;
	struct flow flow;
	struct store_ref w;
	struct link link;      /* waits for the bell */
	uint8_t parity;        /* see flight_begin */
	bool reusable;         /* u may go back to the pool */
	bool passes;           /* it will not stay in the cache */
	bool waits;            /* for room there */
	uint32_t read_ms;
};

enum lost {
	LOST_CONNECT, /* refused, no route, no such socket */
	LOST_CONNECT_TIMEOUT,
	LOST_TLS, /* no handshake, or the wrong peer */
	LOST_WRITE_TIMEOUT,
	LOST_READ_TIMEOUT,
	LOST_CLOSED,  /* before the answer's head was whole */
	LOST_BAD,     /* its answer is malformed */
	LOSTS
};

/* ==== admin front ======================================================== */

/* Verbs that the master was asked, numbered by place. A place is free again when
 * the master has answered, even if the client has left. */
struct ask {
	bool taken;
	struct conn *c;     /* its exchange waits; NULL: it has left */
	struct admin_reply reply;
	struct timer late;  /* of a page */
	bool is_late;
};

/* ==== gate =============================================================== */

/* What a request has to wait for before its route's action: those before it are passed. */
enum guarded { GUARD_NONE, GUARD_RATE, GUARD_PASSWORD };

/* ==== http front ========================================================= */

/* The clients of one kind of listener. Each kind has places of its own, so that
 * the operator gets in however many clients there are. */
struct seats {
	struct link idle; /* newest first: the last makes way when all are taken */
	uint32_t n, max;
	bool accepting;
};

/* ==== expand ============================================================== */

/* How a value is written: into a head; as text, HTML or JSON; as part of a redirect or of
 * a path. */
enum escape { TO_FIELD, TO_TEXT, TO_HTML, TO_JSON, TO_LOCATION, TO_PATH };

/* Whose values a template gets. */
struct expansion {
	const struct exchange *x;
	const struct head *h;       /* of the request; NULL: none */
	enum escape as;
	bool clf;                   /* time as in the log's common format */
	bool claimed;               /* the user as the client says, known or not */
	const struct path_view *view; /* of its path; NULL: not needed yet */
	const struct regex_span *m; /* groups of path_regex in it; NULL: so */
};

/* ==== access, usage ======================================================= */

/* A worker's access log. */
struct access_log {
	struct sink sink;
	size_t line_max;
	bool json;
	bool braced; /* its pattern is JSON, and so are values in it */
	struct template line;
	int64_t due_ms;       /* of the next flush, while there are lines */
	struct wide *dropped;
};

struct usage {
	bool known;
	double cpu_s;
	uint64_t rss; /* bytes */
};

/* ==== dashboard ========================================================== */

enum page_kind { PAGE_MARKUP, PAGE_STYLE, PAGE_SCRIPT, PAGE_KINDS };

/* ==== heads ============================================================== */

/* One element of Forwarded. RFC 7239 4. */
struct forwarded {
	struct slice who, proto, host; /* as between quotes, if any */
};

/* A request's head on its way to a backend. */
struct forward {
	struct text *t;
	void (*put)(struct text *, struct slice name, struct slice value); /* in its protocol */
	const struct exchange *x;
	const struct head *h;
	bool trusted, edited;
	struct forwarded said; /* by Forwarded, if there is no X-Forwarded-For */
};

/* How what an upstream says is mapped to what its client sees. */
struct mount {
	struct slice outer, inner; /* paths begin with these there; no slash at the end */
	struct slice host;         /* the client's; may have a port */
	bool https;                /* the client's */
	const struct upstream *up;
};

/* ==== maintenance ======================================================== */

/* The maintenance file of an upstream. */
struct notice {
	int dir;            /* opened before chroot; -1: it was not there */
	int64_t looked_ms;  /* 0: never */
	bool out;
	int why;            /* errno of a look that failed; 0: none */
	struct stat st;     /* of the file that body is from */
	char *body;
	size_t n;
};

/* ==== files ============================================================== */

/* A directory that is served. */
struct root {
	const struct files_conf *conf;
	int fd;            /* -1: it is not there */
	int64_t looked_ms; /* 0: never */
};

/* The lines that are said of a file; from SAID_TYPE on not in a 304. */
enum said { SAID_TAG, SAID_MODIFIED, SAID_CACHE, SAID_TYPE, SAID_RANGES, SAID_LENGTH, SAID };

/* What a worker knows of a path. Who sends it holds it too. */
struct file {
	struct file *next; /* in its slot */
	struct link used;
	unsigned root, uses;
	int64_t looked_ms;
	size_t cost;       /* bytes of memory */
	int err;           /* 0: a regular file, EISDIR, or why it cannot be served */
	int fd;            /* -1: none, or bytes has it all */
	char *bytes;       /* of a small file */
	struct stat st;
	bool br, gz;       /* compressed neighbours */
	bool young;        /* changed so lately that its times need not tell the next change */
	struct field said[SAID]; /* without a value: not said */
	char *lines;       /* of said, as they are sent */
	char path[];
};

/* A name in a directory. */
struct entry {
	const char *name;
	bool dir;
	uint64_t size;
	time_t mtime;
};

/* What of a file is sent, and what is said of it. */
struct content {
	struct file *f;
	struct slice coding; /* f is compressed so */
	struct slice type, etag;
	int64_t modified_s;  /* -1: unknown */
	bool vary;           /* it depends on Accept-Encoding */
	struct ranges ranges;
};

/* Several ranges of a file on their way: multipart/byteranges. */
struct parts {
	struct ranges ranges;
	int i;                /* the next */
	char boundary[16 + 1], type[128];
	char text[FILE_SMALL + 512]; /* a part's head, and its bytes if the file is in memory */
};

/* A walk below a directory, one step at a time. */
struct beneath {
	int dir;
	const char *root;         /* the name of dir */
	int dirs[BENEATH_DEPTH];  /* entered on the way */
	int n, links;
	char path[PATH_MAX];      /* the rest */
};

/* ==== flow =============================================================== */

_Static_assert(RELAY_BYTES / 1024 + GZIP_SPARE <= HEAD_ADDED_MAX,
    "a piece that gzip makes longer fits a large block: see blocks_open");

enum relay {
	RELAY_WAIT,     /* for either side */
	RELAY_DONE,     /* the body is with the taker's chan */
	RELAY_SHORT,    /* the source ended before the body */
	RELAY_BAD,      /* the body is malformed */
	RELAY_BAD_FIRST, /* from the start: its head was not sent either */
	RELAY_TOO_BIG,  /* the body is above its limit */
	RELAY_REFUSED   /* the taker left */
};

/* ==== router ============================================================= */

enum passage_state {
	PASSAGE_PACKET,  /* the packet comes */
	PASSAGE_PICK,    /* a node is chosen */
	PASSAGE_ASK,     /* by the mapper */
	PASSAGE_BODY,    /* the body comes, and is kept: post_buffering */
	PASSAGE_DIAL,
	PASSAGE_CONNECT, /* under way */
	PASSAGE_SEND,
	PASSAGE_BYTES    /* pass both ways */
};

/* A client of [fastrouter] and its node. */
struct passage {
	struct side node;        /* fd -1: none yet */
	struct conn *c;          /* whose timer is for both */
	const struct router_conf *rc;
	enum passage_state state;
	uint32_t size;           /* of the packet; 0: not known yet */
	struct spool body;       /* the packet, and a body that is kept */
	struct flow up, down;
	struct node_pick pick;
	unsigned attempt;        /* nodes that were away */
	int status;              /* of the answer, or why there is none; 0: not known */
	int64_t start_us, up_start_us;
	uint64_t length;         /* CONTENT_LENGTH; 0: none */
	struct ip from;          /* REMOTE_ADDR, or the peer: what iphash goes by */
	bool goes_on;            /* more than the packet is to come, it says */
	bool kept;               /* the body is whole, in `body` */
	bool lent;               /* the node has the client's descriptor too */
	bool full;               /* its backlog is: connect again soon */
	bool c_ready, n_ready;   /* that side may be read in this event */
	uint8_t key_n;
	char key[KEY_MAX];
};

/* ==== health ============================================================== */

enum probe_state { PROBE_REST, PROBE_CONNECT, PROBE_SHAKE, PROBE_ANSWER };

/* The checks of one instance, and the check that runs now. Owned by the worker
 * that checks, from health_start until it leaves. */
struct probe {
	struct side s;        /* first; fd -1 while it rests */
	struct instance *in;
	struct board_instance *board; /* in's record or, of its next program, in->fresh */
	enum probe_state state;
	int64_t due_ms;       /* rests until then; or looks again */
	int64_t began_ms, by_ms; /* the running one, and its deadline */
	uint8_t addr_i;       /* which of the instance's addresses */
	uint32_t skipped;     /* bytes of 1xx answers */
	bool spreads;         /* the next rest is any part of an interval */
	bool said;            /* logged: runs, but its checks fail */
	struct fcgi_reader reader; /* of s.src, with FastCGI */
};

/* ==== helper ============================================================== */

/* A connection of a helper, which waits for it. */
struct talk {
	int life;      /* closed by the master: the helper ends */
	struct chan ch; /* w.fd -1: none */
	int64_t by_ms; /* what is waited for must have happened by then */
	uint32_t within_ms; /* how long that was */
};

/* ==== acme, renew ========================================================= */

/* What the CA offers at its directory. RFC 8555 7.1.1, 9773 4. */
enum acme_url { URL_NONCE, URL_ACCOUNT, URL_ORDER, URL_RENEWAL, ACME_URLS };

/* What the helper is to do. All of it is the master's. */
struct acme_task {
	const struct server_conf *server;
	const struct tls_conf *t;
	const br_ec_private_key *account;
	const struct cert *cert; /* to be replaced; NULL: none */
	bool ask;                /* only ask when to replace it */
	bool plain, tls;         /* there are such listeners */
};

/* Where a URL leads to. */
struct acme_place {
	const char *host, *port, *authority; /* authority: as in Host */
	struct slice path;
};

/* The CA's answer. */
struct acme_answer {
	int status;
	struct slice body, location;
	const struct json *json; /* of body; NULL: none */
	int64_t retry_s;         /* of Retry-After; -1: not said */
};

/* One job, from the directory to the certificate. */
struct acme {
	const struct acme_task *task;
	struct arena arena;
	int64_t end_ms;          /* of the job */
	struct slice urls[ACME_URLS];
	struct slice jwk, thumb, kid, nonce;
	bool wants_eab;
	struct slice order;      /* its URL */
	struct talk ca;          /* the connection to the CA, */
	const char *host, *port; /* which is there */
	bool heard;              /* bytes came since the request */
	struct head head;
	struct text in;          /* an answer's bytes so far */
	const char *why;         /* of a failure, one line; "": none */
	const char *advice;
	int64_t retry_s;         /* to wait at least; -1: not said */
};

/* What decides when a certificate is due. Wall clock. */
struct renew_facts {
	int64_t from_s, until_s;               /* of the certificate; until 0: none */
	int64_t window_from_s, window_until_s; /* as the CA suggests; 0: none */
	uint32_t dice;                         /* random, the same for each look */
};

/* What certs_load has said; why: what makes the new ones unusable. */
struct certs_said {
	struct diags ds;
	const char *why;
};

/* The certificate by ACME, and the files of all; one, in the master. */
struct renew {
	struct tls_conf *serves;        /* of the configuration in force */
	int64_t certs_ms;               /* next look at its files; 0: never */
	struct users *users;            /* as serves */
	int64_t users_ms;               /* next look at their files; 0: there are none */
	const struct tls_conf *t;       /* the same; NULL: without ACME */
	const struct server_conf *server;
	bool plain, tls;                /* its listeners */
	uint64_t of;                    /* hash of what jobs depend on */
	pid_t pid;                      /* the helper; 0: none runs */
	bool only_asks;                 /* it only asks when to renew */
	int life;                       /* the helper's result comes here */
	struct arena kept;              /* of pem, which is not written yet */
	struct slice pem;
	int64_t got_from_s, got_until_s; /* of the certificate last written */
	int64_t kill_ms;                /* the helper is killed then */
	int64_t again_ms, look_ms;      /* no job, no look at the clock, before that */
	int64_t limit_ms;               /* no job before that, says the CA */
	int64_t ask_ms;                 /* next question when to renew */
	int64_t wait_ms;                /* after the last failure; 0: there was none */
	struct renew_facts facts;       /* window and dice are kept here */
	bool clock_said;
	bool other_ca;                  /* the certificate is of another CA */
	unsigned char x[EC_KEY_BYTES];
	br_ec_private_key account;
};

/* ==== pg ================================================================== */

/* What the helper says first: purge the text behind, or all that is in memory. */
enum { PURGE_TEXT = 'P', PURGE_MEMORY = 'M' };

/* How far the server has got with authentication. */
enum pg_auth {
	PG_AUTH_NONE,
	PG_AUTH_TOLD,     /* it has the password, or an MD5 of it */
	PG_AUTH_ASKED,    /* SCRAM: it has our first message */
	PG_AUTH_ANSWERED, /* and our proof */
	PG_AUTH_PROVED,   /* and has shown its own */
	PG_AUTH_DONE
};

/* The helper itself. */
struct pg {
	const struct conf *cf;
	const struct pgurl *to;
	struct slice user;      /* the URL's, or whom the helper runs as */
	struct talk k;
	int64_t listening_ms;   /* since then; 0: not yet */
	enum pg_auth auth;
	bool refused;           /* trying again soon is no use */
	bool heard;             /* it has listened before: what is in Redis may be wrong, too */
	bool plain;             /* sslmode=prefer: TLS failed, so the next try goes without */
	struct text bare;       /* SCRAM: our first message */
	unsigned char sign[br_sha256_SIZE]; /* that the server must show */
	size_t at;              /* of in: the next message */
	struct text in, out;    /* what came; a message being written */
	char bare_bytes[SCRAM_RANDOM / 3 * 4 + sizeof "n=,r="];
	char why[WHY_MAX];      /* it failed */
	char said[WHY_MAX];     /* why, in the last line of the log */
};

/* What the server may ask for, and when. */
struct pg_step {
	uint32_t code;
	unsigned from; /* bits of enum pg_auth */
	enum pg_auth to;
	bool (*answer)(struct pg *p, struct slice data);
};

/* ==== clerk =============================================================== */

/* What announcements may be signed over. */
struct sign_digest {
	const char *name;
	const br_hash_class *hash;
	const unsigned char *oid; /* its length, then it */
};

/* Who asks a cache, or for figures. */
struct clerk_client {
	struct watch w;     /* first; fd -1: a free place */
	struct timer late;
	struct link link;   /* the oldest first */
	const struct listener *from;
	char *in, *out;     /* malloc'ed; out NULL: there is no answer yet */
	size_t n, out_n, sent;
};

/* The clerk itself. */
struct clerk {
	const struct conf *cf;
	struct watch life;
	struct timer sweep; /* while there is something in the table */
	uint32_t mark;      /* random: see clerk_mark */
	uint32_t awake;     /* bits of routers, as the master was told */
	bool news;          /* of upstreams, which it was not told yet */
	uint64_t prints[ROUTERS_MAX]; /* of cache files, as they were read */
	struct clerk_client clients[CLERK_CLIENTS];
	struct link order;  /* of clients */
};

/* ==== mapping ============================================================= */

/* How a program of that modifier1 is run: it finds the file in WARP_FILE, the function's
 * name in WARP_FUNCTION, keys as lines of its input. */
struct map_loader {
	int modifier;
	const char *argv[4];
};

/* The channel of a worker. */
struct map_client {
	struct watch w; /* first; fd -1: a free place */
};

struct map_question {
	struct map_client *from; /* NULL: it is gone */
	uint32_t id;
	uint32_t n;
	char key[KEY_MAX + 1];   /* then a newline */
};

struct map_known {
	uint64_t hash;  /* of the key; 0: a free place */
	int64_t at_ms;
	uint32_t n;
	char address[NODE_ADDRESS_MAX];
};

/* Lines that a program writes. */
struct map_lines {
	struct watch w; /* first */
	size_t n;
	char line[MAPPER_LINE];
};

/* A router's mapper. */
struct mapping {
	const struct router_conf *rc;
	pid_t pid;              /* 0: it does not run */
	bool loaded;            /* it has read its file */
	struct watch to;        /* its input */
	struct map_lines from, err;
	struct timer late, again;
	uint32_t wait_ms;       /* until it is started again */
	struct map_question *queue; /* a ring of MAPPER_QUEUE */
	unsigned first, n, written;
	size_t part;            /* bytes of the first question that is not written */
	struct map_known *known;
};

/* ==== proc ================================================================ */

/* Where a replica listens: what {port} and {socket} stand for. */
struct endpoint {
	uint16_t port;     /* 0: a socket, or none */
	char socket[sizeof(((struct sockaddr_un *)0)->sun_path)];
	union sock sock;   /* as the board has it; sock_n 0: the resolver knows */
	socklen_t sock_n;
	union sock other;  /* maybe here instead: `localhost` is ::1 for some */
	socklen_t other_n; /* 0: none */
};

/* What a program is started with. */
struct child_start {
	const struct process *conf;
	const char *label;
	int index;
	const struct endpoint *at;
	struct arena *a;
	uid_t uid;    /* of the program */
	int out;      /* its stdout and stderr */
	pid_t parent;
};

enum proc_event {
	PE_START,  /* it shall run */
	PE_DEPS,   /* what it depends on is ready */
	PE_READY,
	PE_EXIT,
	PE_QUIET,  /* nothing is in flight */
	PE_DUE,    /* the deadline of its state is over */
	PE_STOP,   /* it shall not run */
	PROC_EVENTS
};

/* What a program writes, until its pipe ends, maybe after the program. */
struct output {
	struct watch w;             /* first: the pipe or, if stuck, the log */
	struct output *next;
	struct proc *p;             /* NULL: the program has ended */
	char label[PROC_NAME_MAX];
	int fd;                     /* -1: at its end */
	enum child_sink sink;
	int file;                   /* CHILD_FILE; -1 */
	bool stuck;                 /* lines wait here for the log */
	size_t n, seen;             /* bytes of line; of these kept for status */
	char line[CHILD_LINE];
};

/* One replica of a process. Lives in the master, over reloads, until no
 * configuration has it and it has stopped. */
struct proc {
	struct watch probe;         /* first: connecting to see whether it is ready; -1 */
	const struct process *conf; /* of the configuration in force; NULL: it leaves */
	char name[PROC_NAME_MAX];   /* of the process */
	char label[PROC_NAME_MAX];  /* web, or web.1 where there are several */
	int index;                  /* which replica */
	enum proc_state state;
	bool wanted;                /* shall run */
	bool stopped;               /* by the operator */
	bool again;                 /* stopped to be started anew */
	bool broken;                /* stopped: it did not get ready */
	bool idles;                 /* stopped: nobody asked for it */
	bool waited;                /* board->why says for what */
	bool leaves;                /* freed once it has stopped */
	bool replaced;              /* another proc has its instances */
	pid_t pid;                  /* its process group too; 0: none */
	pid_t warden;               /* its parent */
	uid_t uid;
	int status;                 /* how it ended, as wait says */
	unsigned spawns;            /* number of starts */
	struct output *output;      /* NULL: it does not run */
	struct endpoint at;
	bool chosen;                /* at is warp's choice */
	struct board_instance **on; /* records of its instances */
	int n_on;
	unsigned parity;            /* replaced: its instances' epoch % FLIGHT_EPOCHS */
	uint64_t print, place;      /* of what it was started with: conf->print, and
	                               configured addresses */
	unsigned generation;        /* the first without it */
	uint32_t hurry_ms;          /* it drains no longer, as another is to listen there; 0: any time */
	struct proc *old;           /* the proc to be replaced by this one */
	int64_t started_ms, due_ms; /* 0: none */
	int64_t announce_ms;        /* when subscription servers are told again; 0: they do not
	                               know it */
	int64_t quiet_ms;           /* until then it may have requests of theirs */
	uint32_t backoff_ms;
	int stop_signal;            /* copies, good when conf is gone */
	uint32_t stop_ms;

	bool probe_other;           /* probes at.other */
	int64_t probe_ms;           /* next probe; 0: none */
	uint32_t probe_wait_ms;
	unsigned probe_i;           /* turn of the next instance */
	struct board_proc *board;
};

/* A request on the admin socket that waits for a result. */
struct asker {
	int slot;
	pid_t pid;   /* 0: nobody */
	unsigned id; /* of the request in that worker */
};

enum job_kind { JOB_RESTART, JOB_START, JOB_STOP };

/* A verb on a process, replica by replica. */
struct job {
	char name[PROC_NAME_MAX]; /* "" is free */
	enum job_kind kind;
	bool reload;              /* replicas that run as configured are left alone */
	bool over;                /* once more from the start: reloaded again */
	int next;                 /* replica in hand */
	bool begun;               /* with that replica */
	struct proc *proc;        /* the replica's, when begun */
	int64_t due_ms;           /* given up then; 0: never */
	struct proc *fresh;       /* beside proc, JOB_RESTART; NULL: none */
	unsigned starts;          /* its spawns, when begun */
	struct asker asker;
};

/* ==== master ============================================================== */

/* Messages on the socketpair between the master and each worker, one byte of
 * op, then text; CTL_LOGS carries the access and error descriptors. */
enum ctl_op {
	CTL_READY = 'R',  /* worker: accepting */
	CTL_DRAIN = 'D',  /* master: finish what runs, then leave */
	CTL_STOP = 'S',   /* master: leave now */
	CTL_LOGS = 'L',   /* master: new log descriptors */
	CTL_VERB = 'V',   /* worker: the admin's verb; master: its result.
	                     A number names the request: "V3 restart web", "V3 ok" */
	CTL_CHECK = 'H',  /* master: you do the health checks; look at once */
	CTL_WAKE = 'W',   /* held requests may try; from a worker: those of the others */
	CTL_START = 'B',  /* worker: a request waits for this process: "Bweb" */
	CTL_QUIET = 'Z',  /* worker: the last request on a draining instance ended */
	CTL_HEALTH = 'U', /* worker: the health of an instance has changed */
	CTL_PURGE = 'P',  /* master: purge the text behind from Redis */
	CTL_MAP = 'M',    /* worker: it has no channel to the mapper; master: the channel, or
	                     a new mapper is there */
	CTL_USERS = 'A',  /* master: changed users, in the file that comes along; as CTL_CERTS */
	CTL_STALE = 'O',  /* worker: the sandbox keeps it from a directory that was replaced */
	CTL_CERTS = 'C'   /* master: new certificates, certs_pack in the file
	                     that comes along; worker: they did not arrive */
};

#define WORKER_SLOTS (WORKERS_MAX * 2) /* new and draining ones */

/* A worker process, as the master sees it. */
struct worker {
	struct watch ctl; /* first: our end of the socketpair */
	struct timer late; /* it takes too long to finish or stop */
	pid_t pid;     /* 0: slot is free */
	unsigned generation;
	unsigned attached; /* its configuration's */
	bool ready, draining;
	bool stale;    /* another takes its place */
	bool killed;   /* by us: its end is not logged */
	struct store *store; /* it uses, or has left to be repaired; NULL: none */
	int64_t started_ms;
};

enum { AIDE_RESOLVER, AIDE_POSTGRES, AIDE_CLERK, AIDE_MAPPER };

/* A helper process that the master keeps alive. It writes to life when it is ready, and
 * what it has to say. */
struct aide {
	const char *name;
	bool (*wanted)(const struct conf *);
	bool (*suits)(const struct conf *); /* one that runs goes on, with this configuration */
	void (*ready)(struct watch *, short); /* it says something; NULL: nothing more */
	void (*run)(void *task, int life); /* NULL: not built in */
	enum ctl_op op;      /* to the workers, when it says something; 0: it serves no sockets */
	bool alone;          /* it ends before another one follows */
	int first_ms;        /* a start waits so long for its first byte */
	pid_t pid;           /* 0: none */
	struct watch life;
	struct timer again;
	uint32_t wait_ms;    /* until the next one, if this one dies */
};

/* What the master is doing. */
enum master_state { M_STARTING, M_RUNNING, M_RELOADING, M_DRAINING, M_STOPPING, MASTER_STATES };

/* The sockets of a configuration. */
struct listeners {
	struct listener v[LISTENERS_MAX];
	int n, n_served; /* those behind n_served are not for workers */
};

/* How warp was started: read again at each reload. */
struct start {
	char **argv;
	const char *file;            /* NULL: simple mode */
	const char *options;         /* uWSGI's, as the text of an ini; NULL: none */
	const char *listen, *target; /* of simple mode */
	char **wrapped;              /* of `-- CMD`; NULL: none */
	const char *pid_file;
	int notify_fd;  /* -n, or -1 */
	int daemon_fd;  /* the waiting parent of -d, or -1 */
};

/* The master itself. */
struct master {
	const struct start *start;
	enum master_state state;
	struct conf *conf, *next;      /* next: being reloaded */
	struct listeners ls, next_ls;
	struct listeners had;          /* inherited, until all workers are ready */
	struct worker workers[WORKER_SLOTS];
	unsigned generation;           /* that serves */
	unsigned newest;               /* started last; numbers are not reused */
	struct timer respawn;          /* starts missing workers; not armed: none miss */
	struct timer repair;           /* of stores that workers left; not armed: all are good */
	struct timer deadline;         /* of starting, reloading, stopping */
	uint64_t pg_of;                /* hash of what PostgreSQL's helper depends on */
	int pid_fd, notify_fd, daemon_fd;
	struct asker asker;            /* of a reload */
	pid_t checker;                 /* worker that does the health checks; 0: none */
	bool reload_again;             /* a reload is to follow */
	pid_t strangers[STRANGERS_MAX]; /* children that warp did not start */
	int n_strangers;
	int code;                      /* exit status */
};

/* A change of the binary under way. */
struct upgrade {
	struct asker asker;
	bool again;        /* an upgrade is to follow */
	pid_t check;       /* a new binary that checks the configuration; 0: none */
	int says;          /* its output, while there is one; -1: none */
	struct timer late;
	char exe[PATH_MAX];
};

/* What a new worker needs to know. */
struct worker_task {
	struct conf *cf;
	struct listeners *ls;
	int slot;
};

/* What happens to the master; master_do has the reactions. */
enum master_event {
	EV_RELOAD,  /* HUP, or asked over the admin socket, as the next three */
	EV_UPGRADE, /* USR2 */
	EV_QUIT,    /* QUIT */
	EV_STOP,    /* TERM, INT */
	EV_READY,   /* all workers of the newest generation accept */
	EV_DEATH,   /* a worker died before that */
	EV_LATE,    /* the deadline of this state is over */
	EV_DRAINED, /* no worker is left */
	MASTER_EVENTS
};

/* An operator's verb. */
struct verb {
	const char *name;
	bool names;         /* takes the name of a process or an instance */
	void (*act)(const struct verb *, struct slice name, const struct asker *);
	int what;           /* event, kind of job, or whether drained */
	struct asker *told; /* answered when the verb is done; NULL: at once */
};

/* ==== main ================================================================ */

#define HEADERS_MAX 64 /* -H */

/* The command line. */
struct options {
	struct start s;
	char **words; /* argv, without uWSGI's options: argv itself is for the next binary */
	const char *explain, *verb, *arg, *client;
	const char *headers[HEADERS_MAX];
	int n_headers;
	bool check, toml, daemon, list_keys;
};

#endif
