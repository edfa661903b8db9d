# SPDX-License-Identifier: MIT
# bash completion for tmem(7)

_tmem_sizes='256M 512M 1G 2G 4G'

# Answers with what compgen makes of the word that is completed, $cur.
_tmem_reply() {
	mapfile -t COMPREPLY < <(compgen "$@" -- "$cur")
}

# Completes the program's own command line once its name is there.
_tmem_run() {
	local cur=$1 prev=$2 i word
	for ((i = 2; i < COMP_CWORD; i++)); do
		word=${COMP_WORDS[i]}
		case $word in
		--)
			((i++))
			break
			;;
		-m | --memory | --swap-dir | --swap-max | --on-full | \
			--max-stall | --read-ahead | --heat | --keep-poor | --meter | --cool | --report | --report-file | \
			--profile | --stats | --interval)
			((i++))
			;;
		-*) ;;
		*)
			break
			;;
		esac
	done
	if ((i < COMP_CWORD)) || [[ ${COMP_WORDS[i - 1]} == -- ]]; then
		if declare -F _command_offset >/dev/null; then
			_command_offset "$i"
		else
			_tmem_reply -c -f
		fi
		return
	fi
	case $prev in
	--swap-dir)
		_tmem_reply -d
		;;
	--report-file | --profile | --stats)
		_tmem_reply -f
		;;
	--on-full)
		_tmem_reply -W 'grow pause term'
		;;
	--read-ahead | --heat | --keep-poor | --meter | --cool)
		_tmem_reply -W 'on off'
		;;
	--report)
		_tmem_reply -W 'text json none'
		;;
	-m | --memory)
		_tmem_reply -W "$_tmem_sizes 50% auto"
		;;
	--swap-max)
		_tmem_reply -W "$_tmem_sizes"
		;;
	--interval)
		_tmem_reply -W '500ms 1s 10s'
		;;
	--max-stall)
		_tmem_reply -W '60/30 80/60'
		;;
	*)
		if [[ $cur == -* ]]; then
			_tmem_reply -W '-m --memory
				--swap-dir --swap-max --on-full --max-stall
				--read-ahead --heat --keep-poor --meter --cool
				--report --report-file --profile --stats
				--interval --exec --help --'
		else
			_tmem_reply -c
		fi
		;;
	esac
}

# Processes that could be looked at.
_tmem_pids() {
	local pid
	for pid in /proc/[1-9]*; do
		printf '%s\n' "${pid#/proc/}"
	done
}

_tmem_option_or_pid() {
	if [[ $cur == -* ]]; then
		_tmem_reply -W "$1"
	else
		_tmem_reply -W "$(_tmem_pids)"
	fi
}

_tmem_bench() {
	local cur=$1 prev=$2
	case $prev in
	--corpus)
		_tmem_reply -f
		;;
	--pid)
		_tmem_reply -W "$(_tmem_pids)"
		;;
	--limit)
		_tmem_reply -W "$_tmem_sizes"
		;;
	--pages | --threads | --rounds) ;;
	*)
		_tmem_reply -W '--corpus --pid --pages
			--threads --rounds --limit --json --help'
		;;
	esac
}

_tmem_core() {
	local cur=$1
	if [[ $cur == -* ]]; then
		_tmem_reply -W '-o --output --in-place --json --help'
	else
		_tmem_reply -f
	fi
}

_tmem_estimate() {
	local cur=$1 prev=$2
	case $prev in
	--corpus)
		_tmem_reply -f
		;;
	-m | --memory)
		_tmem_reply -W "$_tmem_sizes"
		;;
	--pages | --seconds) ;;
	*)
		_tmem_option_or_pid '--corpus -m --memory --pages --track
			--seconds --json --help'
		;;
	esac
}

_tmem_set() {
	local cur=$1 prev=$2
	case $prev in
	-m | --memory)
		_tmem_reply -W "$_tmem_sizes 50% auto"
		;;
	*)
		_tmem_option_or_pid '-m --memory --help'
		;;
	esac
}

_tmem_top() {
	local cur=$1 prev=$2
	case $prev in
	--interval)
		_tmem_reply -W '500ms 1s 10s'
		;;
	*)
		_tmem_reply -W '--once --interval --json
			--help'
		;;
	esac
}

_tmem() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
	COMPREPLY=()
	if ((COMP_CWORD == 1)); then
		_tmem_reply -W \
			'run top set core doctor estimate bench help --help --version'
		return
	fi
	case ${COMP_WORDS[1]} in
	run)
		_tmem_run "$cur" "$prev"
		;;
	doctor)
		if [[ $cur == -* ]]; then
			_tmem_reply -W '--json --help --'
		else
			_tmem_reply -c -f
		fi
		;;
	bench)
		_tmem_bench "$cur" "$prev"
		;;
	estimate)
		_tmem_estimate "$cur" "$prev"
		;;
	set)
		_tmem_set "$cur" "$prev"
		;;
	top)
		_tmem_top "$cur" "$prev"
		;;
	core)
		_tmem_core "$cur"
		;;
	help)
		_tmem_reply -W 'run top set core doctor estimate
			bench'
		;;
	esac
}

complete -F _tmem tmem
