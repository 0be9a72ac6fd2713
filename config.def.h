/* config.def.h: what warp is compiled with. The first `make` copies it to
 * config.h; change that copy. What may change at run time is a key of the
 * configuration file instead (`warp -D`). */

#ifndef CONFIG_H
#define CONFIG_H

#define VERSION "0.1"

/* places */
#define CONFIG_PATH  "/etc/warp.toml" /* read unless another is named */
#define ADMIN_SOCKET "/run/warp.sock" /* preset of admin.listen */
#define SPOOL_DIR    "/tmp"           /* request bodies that outgrow memory */
#define ACME_DIR     "/var/lib/warp/acme" /* preset of tls.acme_directory */
#define ACME_URL     "https://acme-v02.api.letsencrypt.org/directory"

/* what is built in; 0 leaves it out, and its keys are refused. `make size` says what each
 * one costs */
#define WITH_TLS       1 /* https with clients and backends, rediss, PostgreSQL's sslmode */
#define WITH_ACME      (1 && WITH_TLS) /* certificates that warp gets itself */
#define WITH_GZIP      1
#define WITH_CACHE     1
#define WITH_REDIS     (1 && WITH_CACHE) /* its second level */
#define WITH_POSTGRES  (1 && WITH_CACHE) /* notifications that purge it */
#define WITH_UWSGI     1 /* [fastrouter], uwsgi backends, announcements, uWSGI's options */
#define WITH_FASTCGI   1
#define WITH_DASHBOARD 1 /* the page; status and metrics stay */
#define WITH_DIALECTS  1 /* [webserver], [[hosts]] and [[sites]] */
#define WITH_HELP      1 /* what `warp -D` says of each key */

/* memory: each is an upper bound, taken lazily */
#ifndef RELAY_BYTES
#define RELAY_BYTES 65536 /* moved per read and write of a body; 128K costs
                             more cache than it saves system calls */
#endif
#define GATHER_BYTES 2048 /* pieces of up to that in all are sent as one */
#ifndef BLOCK_SMALL_BYTES
#define BLOCK_SMALL_BYTES 4080 /* an exchange with its head; musl makes it a page,
                                  but 4672 bytes of 4096 */
#endif
#define BLOCK_TINY_BYTES (BLOCK_SMALL_BYTES / 2 - 12) /* the same with a short head; half a page of musl's */
#ifndef BLOCKS_KEPT_SMALL
#define BLOCKS_KEPT_SMALL 128 /* free blocks kept for the next request */
#endif
#ifndef BLOCKS_KEPT_LARGE
#define BLOCKS_KEPT_LARGE 8
#endif
#define BLOCKS_REST_MS   200   /* unused so long: given back */
#define MEMORY_PART      4     /* preset of memory_bytes: one such part of all there is, */
#define MEMORY_MIN       4194304 /* but so much for each worker */
#define MEMORY_NEEDS     4     /* exchanges whose worst needs it must have room for */
#define CGROUPS_TEXT     16384 /* bytes of /proc/self/cgroup */
#define LIMIT_TEXT       64    /* of a limit there */
#define STARVED_MS       100   /* all wait for memory: then one goes first */
#define STARVED_BATCH    16    /* go on in one turn when there is some again */
#define HANDSHAKE_SLOW_MS 2000 /* makes way when there is none */
#define SPLICE_PIPES     64     /* bodies spliced at once; others are copied */
#define SPLICE_BYTES     262144 /* of one pipe, in the kernel */
#define SPLICE_MIN       65536  /* shorter rests of bodies are copied */
#define FIELDS_MAX       256   /* header lines in one head; 431 beyond */
#define FIELDS_ADDED     16    /* that warp adds to a head: 9 of a file, 2 of gzip */
#define TARGET_MAX       16384 /* bytes of a request target; 414 beyond */
#define REGEX_PARTS      16384 /* of an expression, copies for {2,5} included; 16 bytes each */
#define REGEX_SETS       256   /* brackets and classes in one */
#define REGEX_DEPTH      64    /* brackets inside each other */
#define RANGES_MAX       16    /* parts of one body asked for at once; more: all of it */
#define HEAD_ADDED_MAX   4096  /* room for what warp adds to a head */
#define VARS_TIMES       4     /* as variables, parts of a head are said up to so often */
#define CHUNK_EXT_MAX    8192  /* bytes of chunk extensions beyond those that content
                                  has paid for, or of trailers; more: refused */
#define CAUSE_MAX        192   /* text of why a request failed */
#define REQUEST_ID_MAX   64    /* of a trusted X-Request-Id; longer: made anew */
#define ERROR_PAGE_MAX   65536 /* bytes of one file in error_dir */
#define ENVFILE_MAX      65536 /* bytes of a process's envfile */
#define VALUES_ROOM      512   /* bytes for the values in a page or body; doubled while too few */
#define ERROR_PAGES_MAX  64    /* files of error_dir that are read */
#define CONFIG_FILE_MAX  4194304
#define PIPE_WAIT_MS     2000 /* for a configuration from a pipe */
#define TOML_DEPTH_MAX   64   /* nested tables, dotted keys and arrays */
#define JSON_DEPTH_MAX   32   /* nested arrays and objects */
#define PATH_PAD         8     /* zero bytes before a normalised path */
#define GZIP_WINDOW      16384 /* bytes kept of each stream; without them, text in
                                  pieces of so many is 10 to 15 % longer */
#define GZIP_RECALL      4096  /* of these a piece may refer to, and to 2 for each of its
                                  bytes: an event costs 9 us */
#define GZIP_HASH_BITS   14    /* 32 KB of chains */
#define GZIP_TOKENS      16384 /* of one block, 32 KB */
#define GZIP_FIXED       128   /* fewer tokens do not pay for codes of their own */
#define GZIP_GOOD        16    /* a match as long: half as many looks for a better one */
#define GZIP_SPARE       3072  /* bytes of room, most of it for what is written in vain */
/* gzip_level 1 to 9: places looked at for a match, and how long is enough */
#define GZIP_EFFORTS                                                             \
	{ 2, 8 }, { 4, 16 }, { 6, 32 }, { 8, 32 }, { 12, 48 }, { 26, 64 }, { 48, 128 },         \
	    { 96, 256 }, { 256, 256 }

/* board: fixed, so that it can be mapped before the first fork */
#define WORKERS_MAX      64   /* server.worker_threads */
#define INSTANCES_MAX    1024 /* of all upstreams */
#define INSTANCE_KEY_MAX 192  /* upstream name and address */
#define INSTANCE_ADDRS   4    /* addresses of one name, tried in order */
#define PROCS_MAX        256  /* replicas of all processes */
#define PROC_NAME_MAX    64   /* bytes of a replica's name */
#define PROC_NUMBER_MAX  8    /* of these for its number */
#define PROC_LINES       8    /* of a program, kept for status */
#define WHY_MAX          160  /* bytes of a reason, or a line of output */
#define ROUTE_HITS       1024 /* routes whose hits are counted */
#define SESSIONS_MAX     16384 /* TLS sessions remembered; 120 bytes each */
#define SESSION_SECS     3600  /* how long */
#ifndef TLS_BUFS_KEPT
#define TLS_BUFS_KEPT    8     /* free pairs of record buffers, 33 KB each */
#endif
#define TLS_HANDSHAKES_MAX 256 /* at one time, per worker; the oldest makes way */
#define TLS_RSA_MIN      2048  /* bits of RSA keys in a trusted chain */
#define ACME_NAMES_MAX   32    /* names of one certificate by ACME */
#define ACME_NAME_MAX    256   /* bytes of one */
#define ACME_TOKEN_MAX   192   /* bytes of a challenge's token, or answer */
#define INI_VALUE_MAX    4096 /* bytes of a value in an ini with its variables filled in */
#define INI_CACHE_PORT   ":3017" /* for uwsgi's cache_set, if the FastRouter has no port */
#define ROUTERS_MAX      8    /* [[fastrouter]] */
#define ROUTER_ITEMS_MAX 65536 /* entries of the map of one */
#define RATE_CELLS       4096 /* clients a rate limit remembers; power of 2 */
#define RATE_WAYS        4    /* cells looked at for one client */
#define RATE_SKEW_US     100000 /* a worker of a busy host may be so late to see what time it is */
#define CROWD_CELLS      16384 /* clients whose connections are counted; more are not; power of 2 */
#define CROWD_WAYS       8    /* cells looked at for one client */

/* the cache */
#define CHECKS_MAX     1024   /* bytes of If-None-Match and If-Modified-Since to the upstream */
#define CACHE_AGAIN_MS 1      /* until who met a busy store tries again, */
#define CACHE_TRIES    20     /* so often; then he goes past it */
#define PASS_BYTES     16384  /* stored at once; so much room, at least, has what passes through */
#define CACHE_WAIT_MS  5000   /* for another's fetch; then a request goes alone */
#define CACHE_PASSES   1024   /* keys remembered whose answers cannot be stored; power of 2 */
#define CACHE_PASS_MS  60000  /* so long: requests for them do not wait for each other */
#define REPAIR_AGAIN_MS 10    /* until a store that another worker holds is repaired */
#define PURGE_TRIES    100    /* of one key, while others hold the lock */
#define REDIS_ASKS     2      /* for one request: for the names of Vary, then the variant */
#define CACHE_SKEW_S   60     /* so far the clock may be set back, or that of who filled Redis be ahead */
#define CACHE_PIECES   16     /* of a stored body, copied at once */

/* the store: the cache's memory */
#define STORE_SLOTS    (2 * WORKERS_MAX) /* new and draining workers; / 32 */
#define STORE_MIN      65536 /* bytes of a whole store */
#ifndef STORE_BLOCK
#define STORE_BLOCK    512   /* bytes; an object of 1 KB takes 3 (measured: 1024 wastes
                                a third more, 256 costs large bodies speed) */
#endif
#define STORE_KEY_MAX  4096  /* bytes of a key and its variant; longer: not stored */
#define STORE_CHAIN    64    /* entries of one bucket, or variants of one key; then the
                                oldest goes */
#define STORE_BATCH    64    /* blocks taken, or entries looked at by a purge, under one
                                hold of the lock: some 10 us */
#define STORE_LOOKS    256   /* places looked at for victims, under one hold */
#define STORE_STRIDE   8192  /* blocks without an entry's beginning that count as one */
#define STORE_SPINS    100   /* looks at the lock, 1 us or less, */
#define STORE_YIELDS   100   /* then so many turns for others; then: bypass */
#define STORE_SPARE    64    /* one block of so many is for beginnings, pins, updates */
#define STORE_FADE     8     /* lookups until another word of the sketch is halved */

/* the FastRouter's nodes */
#define SERVERS_MAX    8      /* subscription servers of upstreams */
#define UPSTREAM_NODES 16     /* of one upstream */
#define UPSTREAM_SILENT_MS 17000 /* without an announcement: it is gone */
#define NODE_UNITS     32768  /* of all keys, nodes and values */
#define NODE_UNIT      64     /* bytes; a key takes 1 mostly, a node 2 or 3 */
#define NODES_OF_KEY   1024   /* one key leaves room for others */
#define NODE_BUCKETS   2048   /* of keys; power of 2 */
#define NODE_SCOPES    32     /* routers of all configurations that are at work */
#define NODE_MARKS     256    /* static nodes that are remembered; power of 2 */
#define NODE_STAMPS    8192   /* nodes whose signatures are remembered; power of 2 */
#define NODE_WAYS      8      /* places of one mark, or stamp; power of 2 */
#define NODE_VALUE_MAX 2048   /* bytes of a value that addresses are looked for in: some 100 */
#define CACHE_KEY_MAX  2048   /* bytes of a key of a cache, as uWSGI, and */
#define CACHE_VALUE_MAX 65536 /* of a value; all caches together take half of the units */
#define NODE_TRIES     4      /* of one request, before the fallback list */
#define NODE_DOTS      5      /* of one key: subscription_dotsplit, as uWSGI */
#define NODE_SWEEP_MS  1000   /* between looks at what has gone */
#define CLERK_BATCH    64     /* datagrams heard in a turn */
#define CLERK_CLIENTS  32     /* of caches and figures at one time; the oldest makes way */
#define CLERK_CLIENT_MS 4000  /* and each has so much time; a uwsgi process gives up then */
#define CLERK_BLOCK_MAX 4096  /* bytes of a command beside its value */
#define CLERK_PEM_MAX  16384  /* bytes of a public key's file */
#define SUBSCRIBE_BYTES 1048576 /* of announcements that wait in the kernel */
#define MAPPER_ASKS    256    /* requests that wait for a mapper, in each worker */
#define MAPPER_QUEUE   512    /* questions of all workers to one; more: its latest answers */
#define MAPPER_KNOWN   256    /* answers that are remembered of each; power of 2 */
#define MAPPER_KNOWN_MS 5000  /* so long; only while it is too slow, or not there */
#define MAPPER_LINE    1024   /* bytes of what it writes that are kept */
#define MAPPER_WAIT_MS 5000   /* for an answer; then it is killed and started anew */
#define MAPPER_START_MS 10000 /* to load its file: an interpreter takes its time */
#define MAPPER_LATE_MS 1000   /* a worker waits so much longer, for the helper that kills it */
#define MAPPER_REST_MAX_MS 30000 /* before one that keeps on ending is started again */
#define AIDE_WAIT_MS   5000   /* a start waits for the clerk, and for mappers to be loaded */
#define AIDE_STOP_MS   1000   /* for a clerk or mapper to leave; then it is killed */

/* ACME */
#define BUILD_DATE       20261121 /* an earlier clock is wrong */
#define ACME_ANSWER_MAX  262144 /* bytes of an answer of the CA */
#define ACME_TRAILERS_MAX 4096  /* bytes behind its chunks */
#define ACME_CONNECT_MS  10000  /* to one address */
#define ACME_REQUEST_MS  30000
#define ACME_PROOF_MS    120000 /* the CA looks at a challenge, or signs */
#define ACME_JOB_MS      300000 /* a whole job */
#define ACME_POLL_MS     500    /* first look whether the CA is done; doubles */
#define ACME_POLL_MAX_MS 8000
#define ACME_NONCES      10     /* that the CA may refuse for one request */
#define ACME_RETRY_MS    5000   /* after a failure; each later wait is */
#define ACME_RETRY_TIMES 8      /* times longer: CAs forgive five failures an hour */
#define ACME_RETRY_MOST_MS 3600000
#define ACME_RETRY_MAX_S 604800 /* longest Retry-After obeyed */
#define ACME_LIMITED_S   3600   /* after rateLimited without Retry-After */
#define ACME_ASK_S       21600  /* between questions when to renew; RFC 9773 4.3.2 */
#define ACME_LOOK_MS     30000  /* between looks at the wall clock */

/* PostgreSQL */
#define PGMSG_MAX        65536   /* bytes of a message; a payload has below 8000 */
#define PG_OUT_MAX       8192    /* bytes of one of ours; some clouds' passwords have 2 KB */
#define SCRAM_ROUNDS_MAX 1000000 /* 1.2 s; the usual 4096 take 5 ms */
#define PG_CONNECT_MS    5000    /* to one address */
#define PG_LOGIN_MS      10000   /* TLS, password and LISTEN, all together */
#define PG_SILENT_MS     60000   /* without a word: it is asked whether it lives */
#define PG_ANSWER_MS     10000   /* for the answer to that */
#define PG_RETRY_MS      1000    /* after a failure; doubles */
#define PG_RETRY_MAX_MS  30000
#define PG_REFUSED_MS    10000   /* at least, if the password or database is wrong */
#define PG_STABLE_MS     60000   /* listened so long: the backoff starts over */

/* bounds of time, ms */
#define LINGER_MS        2000  /* silence after an answer that ended early */
#define LINGER_ALL_MS    30000 /* and all reading after it */
#define DRAIN_IDLE_MS    3000  /* for idle clients of a draining worker */
#define ACCEPT_RETRY_MS  100   /* after EMFILE and its like */
#define RESPAWN_MS       500   /* before a worker that died young is replaced */
#define RESPAWN_YOUNG_MS 1000  /* this young */
#define RESOLVE_WAIT_MS  1000  /* a start waits for the first names */
#define DNS_TTL_SECS     30    /* until names are looked up again */
#define DNS_RETRY_SECS   2     /* until a name that failed is */
#define HOSTS_MAX        1048576 /* bytes of /etc/hosts; of a longer one nothing is known */
#define READY_WAIT_MS    10000 /* for new workers to accept, or a reload is
                                  given up */
#define USERS_LOOK_MS    1000  /* between looks at basic_auth_file */
#define CERTS_WATCH_SECS 5     /* between looks at files of certificates */
#define LOG_FLUSH_MS     500   /* access lines wait at most this long */

/* admin */
#define VERBS_MAX     16    /* under way at one time, in each worker */
#define USAGE_WAIT_MS 200   /* for the master, before figures are shown as they are */
#define VERB_MAX      400   /* bytes of a verb and argument; below CTL_MAX */
#define ADMIN_ROUTES  1000  /* shown in /status */
#define PAGE_MAX      13312 /* bytes of the dashboard */

/* Redis */
#define REDIS_QUEUE      64    /* commands that wait for an answer, in each worker */
#define REDIS_CONNECT_MS 250   /* to one address; to be greeted by it */
#define REDIS_SHAKE_MS   5000  /* a TLS handshake: slow hosts take a second for it */
#define REDIS_SLOW_MS    1000  /* an answer that no request waits for */
#define REDIS_LATE_MAX   3     /* answers in a row that are late: it is left alone */
#define REDIS_REST_MS    1000  /* so long at first; doubles */
#define REDIS_REST_MAX_MS 30000
#define REDIS_JITTER     4     /* rests are shorter by up to 1 / so much */
#define REDIS_VALUE_MORE 66560 /* bytes of a value beside the body: its head and front */
#define REDIS_UNSENT     65536 /* bytes that may wait before a command, or it is not made */
#define REDIS_KEY_MAX    512   /* bytes; the rest of longer ones is hashed */
#define REDIS_SECRET_MAX 4096  /* bytes of user and password; tokens are long */
#define REDIS_COMMAND    128   /* of a command beside key, value and pattern */
#define REDIS_PREFIX     "warp:1:" /* of all keys; the number changes with their form */
#define REDIS_SWEEPS     16    /* purges that wait for another; more: all is purged */
#define REDIS_SCAN       "500" /* keys looked at in one step of a purge: 0.2 ms of Redis */
#define REDIS_DELETES    100   /* keys deleted together */
#define REDIS_BATCH      16384 /* their bytes */
#define REDIS_PATTERN    128   /* bytes of a purged path that Redis is to look for */
#define REDIS_AGAIN_MS   100   /* until a purge that found no room tries again */
#define REDIS_ERRORS_MS  60000 /* between lines about commands it refuses */
#define STORED_VERSION   1     /* of the values */
#define RESP_LINE_MAX    65536 /* bytes of a line of a reply */
#define RESP_KEPT        120   /* of these are kept */
#define RESP_DEPTH_MAX   16    /* arrays in arrays */
#define RESP_ELEMENTS_MAX 65536 /* of one reply */

/* the fleet */
#ifndef HELD_MAX
#define HELD_MAX         1024  /* requests waiting for one upstream, or for their turn by rate
                                  limits, in each worker */
#endif
#define HOLD_PROCESS_MS  10000 /* hold_secs of an upstream with a process */
#define HELD_AGAIN_MS    100   /* between tries of held requests */
#define PACE_TIMER_MS    1024  /* longest sleep of those that rate limits delay; a power of 4 */
#define PACE_LONG_MS     60000 /* a longer delay is warned of: clients do not wait that long */
#define RING_MAX         1024  /* turns of weighted round robin */
#define SLOW_START_MS    100   /* between looks at weights */
#define IDLE_LIFE_TRUST  10  /* after so many learned idle lives without a closing,
                                a longer one is tried */
#define IDLE_LIFE_MIN_MS 500   /* shorter idle lives say nothing */
#define IDLE_MASS_MS     100   /* idle connections of different lives that close
                                  within: a restart, which says nothing either */
#define HEAD_REST_MS     20  /* after HEAD: a body may follow all the same */
#define AVERAGE_PART     8     /* a new time counts 1 / so much in the average */
#define TIME_HALVES_MS   1000 /* least_time: an idle instance's average halves */
#define TIME_GUESS_US    50000 /* least_time: before the first answer */
#define MAINTENANCE_MS   200   /* between looks for a maintenance file */
#define MAINTENANCE_BYTES 65536 /* of it that are shown */
#define MAINTENANCE_RETRY "60" /* seconds; its Retry-After */
#define PROBE_HEADS_MAX  262144 /* bytes of a probe's 1xx answers and its head */
#define PROBE_AGAIN_MS   500   /* between probes of a starting instance */
#define PROBE_FIRST_MS   10    /* the first such wait; doubles up to that */
#define CHILD_LINE       4096  /* bytes of one line of output; PIPE_BUF */
#define CHILD_LAST_MS    1000  /* for a log to take the last lines */
#define OUTPUTS_MAX      (2 * PROCS_MAX) /* pipes of programs that run or ran */
#define OUTPUT_READS     64    /* of an ended program's output */
#define STRANGERS_MAX    64    /* children older than warp, left alone */
#define ORPHAN_ROUNDS    20    /* of killing what killed wardens left behind */
#define ORPHAN_WAIT_MS   5     /* between two */
#define FLIGHT_EPOCHS    4     /* programs of one instance that drain at one time */
#define INHERIT_FILES    65536 /* descriptors closed one by one, on old kernels */
#define ANNOUNCE_MS      10000 /* between announcements of a program to subscription servers */
#define ANNOUNCE_AGAIN_MS 1000 /* the second one: datagrams get lost */
#define ANNOUNCE_LEAVE_MS 1000 /* from its withdrawal to its stop_signal: others' requests end */
#define PROBE_SPREAD_MS  100   /* the first probes spread over it */
#define PROBE_JITTER     10    /* intervals vary by 1 / so much */
#define PROBE_TEXT_MAX   1024  /* bytes of a probe's path, host, method */
#define STABLE_MS        10000 /* up so long: the backoff starts over */
#define RUN_DIR          "/run/warp" /* sockets that warp chooses; else in /tmp */
#define PORT_CHOSEN_MIN  20000 /* ports that warp chooses */
#define PORT_CHOSEN_MAX  29999

/* files */
#define FILES_KEPT     128   /* paths remembered; an open file each, or its bytes */
#define FILES_SLOTS    256   /* of their table; power of 2 */
#define FILES_LOOK_MS  1000  /* before a path is looked at anew */
#define FILES_REST_MS  5000  /* not asked for so long: forgotten, its descriptor closed */
#define FILE_SMALL     4096  /* files up to that are kept in memory */
#define FILE_LINES     256   /* bytes of what is said of one, beside its type and cache_control */
#define SENDFILE_MIN   16384 /* shorter pieces are copied: one send, with the head */
#define SENDFILE_BYTES 524288 /* at most in one turn */
#define READ_AHEAD     1048576 /* bytes that the kernel is asked to read before they are due */
#define BENEATH_DEPTH  32    /* directories, on kernels without openat2 */
#define BENEATH_LINKS  16    /* links followed on the way */
#define LISTING_MAX    4096  /* names in the listing of a directory */
#define MIME_TYPES \
	"text/html;html htm shtml|text/css;css|text/javascript;js mjs|text/plain;txt log conf md|" \
	"text/xml;xml xsl|text/csv;csv|text/calendar;ics|text/vtt;vtt|application/json;json map|" \
	"application/ld+json;jsonld|application/manifest+json;webmanifest|application/wasm;wasm|" \
	"application/pdf;pdf|application/rss+xml;rss|application/atom+xml;atom|" \
	"application/xhtml+xml;xhtml|application/zip;zip|application/gzip;gz tgz|" \
	"application/x-bzip2;bz2|application/x-xz;xz|application/zstd;zst|application/x-tar;tar|" \
	"application/x-7z-compressed;7z|application/java-archive;jar war|application/rtf;rtf|" \
	"application/msword;doc|application/vnd.ms-excel;xls|application/vnd.ms-powerpoint;ppt|" \
	"application/vnd.openxmlformats-officedocument.wordprocessingml.document;docx|" \
	"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet;xlsx|" \
	"application/vnd.openxmlformats-officedocument.presentationml.presentation;pptx|" \
	"application/epub+zip;epub|application/vnd.android.package-archive;apk|" \
	"application/vnd.apple.mpegurl;m3u8|image/png;png|image/jpeg;jpg jpeg|image/gif;gif|" \
	"image/svg+xml;svg|image/webp;webp|image/avif;avif|image/x-icon;ico|image/bmp;bmp|" \
	"image/tiff;tif tiff|font/woff2;woff2|font/woff;woff|font/ttf;ttf|font/otf;otf|" \
	"audio/mpeg;mp3|audio/ogg;ogg oga opus|audio/mp4;m4a|audio/flac;flac|audio/wav;wav|" \
	"video/mp4;mp4 m4v|video/webm;webm|video/ogg;ogv|video/mp2t;ts|video/quicktime;mov|" \
	"video/x-matroska;mkv"

/* compression */
#define PASSAGE_NAMES 4096 /* bytes of the names of fields, for the access log of [fastrouter] */
#define CGI_BODY_MEMORY 65536 /* bytes of a chunked body for uwsgi or FastCGI, which want its
                                 length; the rest goes to a file, as with buffer_request */
#define GZIP_STREAMS 128 /* at one time in each worker, 17 KB each; others go out as they are */
#define GZIP_TYPES   "text/*,application/json,application/*+json,application/javascript," \
	"application/xml,application/*+xml,image/svg+xml,application/wasm,font/ttf,font/otf"
#define TAG_MAX      256 /* bytes of an ETag that is kept, weak, of a compressed answer */

/* the loop */
#define ACCEPT_BATCH  16  /* new clients per turn and listener */
#define PARK_TURNS    32  /* quiet turns: polling has cost as much by then as
                             parking and waking does (measured: 35 ns a turn,
                             1 us) */
#define UNPOLLED_MS   20    /* until it is seen that a waiting client hung up */
#define PARKED_BATCH  64  /* parked or woken per turn */
#define LISTENERS_MAX 64 /* addresses of server and admin together */
#define FILES_SPARE   256 /* descriptors beside those of clients and upstreams */
#define LISTEN_BACKLOG 4096 /* the kernel cuts it to net.core.somaxconn */
#define LOG_LAST_MS   500   /* for slow readers when a process ends */
#define LOG_RING      16384 /* bytes of error lines that wait for their reader */
#define LOG_BUFFER    65536 /* bytes of access lines that wait; else dropped */
#define TICK_MS       8     /* waits of any length may be late by so much */
#define TICK_MAX_MS   8192  /* longest step of one; each is twice the one before */
#define TIMER_LISTS   72    /* different durations in one configuration */
#define GRANTS        256   /* answers of forward_auth that count for cache_secs */
#define AUTH_CACHE    64    /* basic_auth passwords whose hash was checked */
#define AUTH_JOBS     64    /* passwords being hashed at one time; then 503 */
#define AUTH_JOBS_OF_ONE 16 /* of these for one address */
#define AUTH_TURN_US  500   /* of hashing, before others have their turn */
#define AUTH_ROUNDS_WARN 100000 /* rounds of a hash; 0.2 s a try: a warning */
#define AUTH_BCRYPT   24    /* of these take as long as one of bcrypt */
#define PIPELINE_TURN 8     /* requests of one client answered before others have
                               their turn */
#define ADMIN_PLACES  32    /* clients of the admin listeners, beside max_connections */
#define INTERIM_MAX   10000 /* 1xx answers to one request; then 502 */
#define LATENCY_BUCKETS 12
#define LATENCY_MS { 1, 2, 5, 10, 25, 50, 100, 250, 1000, 2500, 10000, 60000 }

#endif
