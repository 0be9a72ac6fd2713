#!/bin/sh
# Starts three backends and warp with BWS's three ways to balance, and counts who answers.
# WARP=path says which warp; the ports 3001 to 3003 and 8080 to 8082 must be free.
# shellcheck disable=SC2317 # await calls them
cd "$(dirname "$0")" || exit 1
failed=0

ok() { echo "ok      $*"; }
bad() { echo "FAILED  $*"; failed=1; }
ask() { curl -s -m 10 "$@"; }
# within WHAT SHARE FROM TO: is it?
within() {
	if [ "$2" -ge "$3" ] && [ "$2" -le "$4" ]; then ok "$1: $2"; else bad "$1: $2, not $3 to $4"; fi
}
# until it succeeds, for ten seconds
await() {
	tries=0
	until "$@"; do
		tries=$((tries + 1))
		[ $tries -lt 100 ] || { bad "not within ten seconds: $*"; return 1; }
		sleep 0.1
	done
}
answers() { ask -o /dev/null "$1"; }
held() {
	n=0
	for p in 3001 3002 3003; do n=$((n + $(ask "localhost:$p/held"))); done
	[ "$n" -eq "$1" ]
}
# count PORT TEXT: how many lines of it begin so
count() { echo "$2" | grep -c "^$1 "; }

python3 test_backend.py 3001 3002 3003 & backends=$!
WARPDRIVE_ADMIN_LISTEN=off "${WARP:-../warp}" --config test_load_balancing.toml & warp=$!
trap 'kill $backends $warp 2>/dev/null; wait' EXIT
for p in 3001 3002 3003; do await answers localhost:$p/ || exit 1; done
await answers localhost:8080/api/health || exit 1

echo "round robin, http://localhost:8080/api/test"
got=$(ask -H 'Host: roundrobin.example.com' 'localhost:8080/api/test?[1-12]')
for p in 3001 3002 3003; do within "round_robin, of 12 requests backend $p had" "$(count $p "$got")" 4 4; done

echo "weighted 3 to 2, http://localhost:8081/"
got=$(ask -H 'Host: weighted.example.com' 'localhost:8081/?[1-500]')
within "weighted, of 500 requests backend 3001 had" "$(count 3001 "$got")" 245 355
within "weighted, of 500 requests backend 3002 had" "$(count 3002 "$got")" 145 255

echo "least connections, http://localhost:8082/"
for n in 1 2; do
	ask -H 'Host: leastconn.example.com' -o /dev/null localhost:8082/hold & holds="$holds $!"
	await held $n
done
got=$(ask -H 'Host: leastconn.example.com' 'localhost:8082/?[1-10]')
free=$(echo "$got" | cut -d' ' -f1 | sort -u)
for p in 3001 3002 3003; do ask -o /dev/null localhost:$p/release; done
# shellcheck disable=SC2086 # several words
wait $holds
case $free in
300[123]) ok "least_connections: while two backends are busy, $free has all 10 requests" ;;
*) bad "least_connections: while two backends are busy, who answers is" "$free" ;;
esac

echo "header forwarding, Host: proxy.localhost"
got=$(ask -H 'Host: proxy.localhost' localhost:8080/api/data)
for name in X-Forwarded-For X-Forwarded-Proto X-Forwarded-Host Forwarded; do
	if line=$(echo "$got" | grep -i "^$name: "); then ok "$line"; else bad "no $name arrives"; fi
done

echo "static files still work, http://localhost:8080/"
case $(ask localhost:8080/) in
*"<html"* | *"<!doctype"*) ok "static files are served beside it" ;;
*) bad "no page at http://localhost:8080/" ;;
esac
exit $failed
