
# These take the place of two functions above, which put what several names have
# in common into the line unquoted, give up in a word whose quote is still open,
# and drop what differs in case from what was typed.

# __upsauth_find_quote finds the quote that a word leaves open, and what follows.
__upsauth_find_quote()
{
    local i
    __upsauth_quote='' __upsauth_typed=$1
    for ((i = 0; i < ${#1}; i++)); do
        case $__upsauth_quote${1:i:1} in
            '\' | '"\')
                ((i++))
                ;;
            "'" | '"')
                __upsauth_quote=${1:i:1} __upsauth_typed=${1:i+1}
                ;;
            "''" | '""')
                __upsauth_quote='' __upsauth_typed=$1
                ;;
        esac
    done
}

eval "__upsauth_plain_results() $(declare -f __upsauth_get_completion_results | tail -n +2)"

__upsauth_get_completion_results()
{
    __upsauth_find_quote "$cur"
    # The line is evaluated.
    words[${#words[@]}-1]+=$__upsauth_quote
    __upsauth_plain_results
    [[ -n $__upsauth_quote ]] || __upsauth_typed=$cur
}

eval "__upsauth_described_completion_case() $(declare -f __upsauth_handle_standard_completion_case | tail -n +2)"

__upsauth_handle_standard_completion_case()
{
    local name char quoted=()
    if [[ ${completions[*]} == *$'\t'* ]]; then
        __upsauth_described_completion_case
        return
    fi
    for name in "${completions[@]}"; do
        case $__upsauth_quote in
            "'")
                name=${name//"'"/"'\\''"}
                ;;
            '"')
                for char in '\' '"' '$' '`'; do
                    name=${name//"$char"/"\\$char"}
                done
                ;;
            *)
                printf -v name '%q' "$name"
                ;;
        esac
        quoted+=("$name")
    done
    COMPREPLY=("${quoted[@]}")
    ((${#quoted[@]} > 1)) || return 0
    if [[ $COMP_TYPE == 63 ]]; then
        COMPREPLY=("${completions[@]}") # they are only listed
        return 0
    fi
    # What the names have in common must not be less than what was typed.
    for name in "${quoted[@]}"; do
        if [[ ${name:0:${#__upsauth_typed}} != "${quoted[0]:0:${#__upsauth_typed}}" ]]; then
            COMPREPLY=()
        fi
    done
}
