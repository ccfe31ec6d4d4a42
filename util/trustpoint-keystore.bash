# shellcheck shell=bash
#
# trustpoint-keystore.bash - completion of trustpoint-keystore for bash

# The options of a command, as its --help lists them.
_trustpoint_keystore_options() {
    trustpoint-keystore ${1:+"$1"} --help 2>/dev/null |
        sed -n 's/^  \(--[a-z-]*\).*/\1/p'
    printf '%s\n' --config --keystore --help --version
}

_trustpoint_keystore_commands() {
    trustpoint-keystore --help 2>/dev/null | sed -n '/^Commands:/,/^$/s/^  \([a-z-]*\) .*/\1/p'
}

# Names of records, read without unlocking. A name with a space is one completion.
_trustpoint_keystore_names() {
    local cur=$1 name
    local -a globals=()
    local i
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
        --config | --keystore) globals+=("${COMP_WORDS[i]}" "${COMP_WORDS[i + 1]}") ;;
        esac
    done
    while IFS= read -r name; do
        printf -v name %q "$name"
        [[ $name == "$cur"* ]] && COMPREPLY+=("$name")
    done < <(trustpoint-keystore "${globals[@]}" list --names 2>/dev/null)
}

_trustpoint_keystore() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
    local command='' i arguments=0
    COMPREPLY=()
    # The ':' in a key type would break the word in two.
    declare -F _get_comp_words_by_ref >/dev/null && _get_comp_words_by_ref -n : cur prev

    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
        --config | --keystore | --password-file | --password-fd) ((i++)) ;;
        -*) ;;
        *)
            if [[ -z $command ]]; then command=${COMP_WORDS[i]}; else ((arguments += 1)); fi
            ;;
        esac
    done

    case $prev in
    --type)
        local types="rsa:2048 rsa:3072 rsa:4096 rsa-pss:3072 ec:P-256 ec:P-384 ec:P-521 ed25519 ed448"
        mapfile -t COMPREPLY < <(compgen -W "$types" -- "$cur")
        declare -F __ltrim_colon_completions >/dev/null && __ltrim_colon_completions "$cur"
        return
        ;;
    --label)
        if [[ $command == stub ]]; then
            mapfile -t COMPREPLY < <(compgen -W "own traditional rsa ec" -- "$cur")
        fi
        return
        ;;
    --as)
        [[ $command != doctor ]] || mapfile -t COMPREPLY < <(compgen -u -- "$cur")
        return
        ;;
    --subject | --san | --from | --prefix | --store | --token | --kdf-* | --self-signed | \
        --expires-within | --keystore | --*-fd)
        return
        ;;
    --config | --*-file | --cert | --chain | --key | --out | --csr | --state | --dir)
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        return
        ;;
    esac

    if [[ $cur == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(_trustpoint_keystore_options "$command")" -- "$cur")
    elif [[ -z $command ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(_trustpoint_keystore_commands)" -- "$cur")
    elif [[ $arguments == 0 && ! $command =~ ^(init|list|status|slots|doctor|verify|backup|import|import-trustpoint|generate)$ ]]; then
        _trustpoint_keystore_names "$cur"
    else
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
    fi
}

complete -F _trustpoint_keystore trustpoint-keystore
