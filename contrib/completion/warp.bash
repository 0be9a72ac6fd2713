# bash completion of warp: options and verbs; the keys are asked of warp -D, instances
# and processes of the warp that runs.

# The words that may be an argument of -s VERB; of all running ones, those with this -c.
_warp_names() {
	local conf=()
	[ -z "$2" ] || conf=(-c "$2")
	case $1 in
	restart | start | stop) warp -s status "${conf[@]}" 2>/dev/null | awk '/^PROCESS/ { on = 1; next } !NF { on = 0 } on { print $1 }' ;;
	drain | enable) warp -s status "${conf[@]}" 2>/dev/null | awk '/^UPSTREAM/ { on = 1; next } !NF { on = 0 } on { print $1 "/" $2 }' ;;
	esac
}

_warp() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} i file='' words=''
	COMPREPLY=()
	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		-c) file=${COMP_WORDS[i + 1]} ;;
		--)
			compopt -o default
			return
			;;
		esac
	done
	case $prev in
	-c | -p)
		compopt -o filenames
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return
		;;
	-s) words='status reload quit stop upgrade restart start drain enable purge' ;;
	-D) words="man $(warp -D 2>/dev/null | awk '/^[a-z]/ { print $1 }')" ;;
	-e) words='GET POST PUT DELETE HEAD' ;;
	-l | -u | -H | -a | -n) return ;;
	restart | start | stop | drain | enable) words=$(_warp_names "$prev" "$file") ;;
	*) words='-c -u -l -t -T -e -H -a -s -d -p -n -D -V -h --fastrouter --' ;;
	esac
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}
complete -F _warp warp
