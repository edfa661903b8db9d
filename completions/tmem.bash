# SPDX-License-Identifier: MIT
# bash completion for tmem(1)

_tmem_amounts='256M 512M 1G 2G 4G 50% auto'

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
			--max-stall | --report | --report-file | --stats | \
			--interval)
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
			mapfile -t COMPREPLY < <(compgen -c -f -- "$cur")
		fi
		return
	fi
	case $prev in
	--swap-dir)
		mapfile -t COMPREPLY < <(compgen -d -- "$cur")
		;;
	--report-file | --stats)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		;;
	--on-full)
		mapfile -t COMPREPLY < <(compgen -W 'grow pause term' -- "$cur")
		;;
	--report)
		mapfile -t COMPREPLY < <(compgen -W 'text json none' -- "$cur")
		;;
	-m | --memory)
		mapfile -t COMPREPLY < <(compgen -W "$_tmem_amounts" -- "$cur")
		;;
	--swap-max)
		mapfile -t COMPREPLY < <(compgen -W '256M 512M 1G 2G 4G' -- "$cur")
		;;
	--interval)
		mapfile -t COMPREPLY < <(compgen -W '500ms 1s 10s' -- "$cur")
		;;
	--max-stall)
		mapfile -t COMPREPLY < <(compgen -W '60/30 80/60' -- "$cur")
		;;
	*)
		if [[ $cur == -* ]]; then
			mapfile -t COMPREPLY < <(compgen -W '-m --memory
				--swap-dir --swap-max --on-full --max-stall
				--report --report-file --stats --interval
				--exec --help --' -- "$cur")
		else
			mapfile -t COMPREPLY < <(compgen -c -- "$cur")
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

_tmem_bench() {
	local cur=$1 prev=$2
	case $prev in
	--corpus)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		;;
	--pid)
		mapfile -t COMPREPLY < <(compgen -W "$(_tmem_pids)" -- "$cur")
		;;
	--limit)
		mapfile -t COMPREPLY < <(compgen -W '256M 512M 1G 2G 4G' -- "$cur")
		;;
	--pages | --threads | --rounds) ;;
	*)
		mapfile -t COMPREPLY < <(compgen -W '--corpus --pid --pages
			--threads --rounds --limit --json --help' -- "$cur")
		;;
	esac
}

_tmem_estimate() {
	local cur=$1 prev=$2
	case $prev in
	--corpus)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		;;
	-m | --memory)
		mapfile -t COMPREPLY < <(compgen -W '256M 512M 1G 2G 4G' -- "$cur")
		;;
	--pages | --seconds) ;;
	*)
		if [[ $cur == -* ]]; then
			mapfile -t COMPREPLY < <(compgen -W '--corpus -m --memory
				--pages --track --seconds --json --help' -- "$cur")
		else
			mapfile -t COMPREPLY < <(compgen -W "$(_tmem_pids)" -- "$cur")
		fi
		;;
	esac
}

_tmem_set() {
	local cur=$1 prev=$2
	case $prev in
	-m | --memory)
		mapfile -t COMPREPLY < <(compgen -W "$_tmem_amounts" -- "$cur")
		;;
	*)
		if [[ $cur == -* ]]; then
			mapfile -t COMPREPLY < <(compgen -W '-m --memory --help' \
				-- "$cur")
		else
			mapfile -t COMPREPLY < <(compgen -W "$(_tmem_pids)" -- "$cur")
		fi
		;;
	esac
}

_tmem_top() {
	local cur=$1 prev=$2
	case $prev in
	--interval)
		mapfile -t COMPREPLY < <(compgen -W '500ms 1s 10s' -- "$cur")
		;;
	*)
		mapfile -t COMPREPLY < <(compgen -W '--once --interval --json
			--help' -- "$cur")
		;;
	esac
}

_tmem() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
	COMPREPLY=()
	if ((COMP_CWORD == 1)); then
		mapfile -t COMPREPLY < <(compgen -W \
			'run top set doctor estimate bench help --help --version' -- "$cur")
		return
	fi
	case ${COMP_WORDS[1]} in
	run)
		_tmem_run "$cur" "$prev"
		;;
	doctor)
		if [[ $cur == -* ]]; then
			mapfile -t COMPREPLY < <(compgen -W '--json --help --' -- "$cur")
		else
			mapfile -t COMPREPLY < <(compgen -c -f -- "$cur")
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
	help)
		mapfile -t COMPREPLY < <(compgen -W 'run top set doctor estimate
			bench' -- "$cur")
		;;
	esac
}

complete -F _tmem tmem
