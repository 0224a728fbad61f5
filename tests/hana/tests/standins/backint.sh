#!/bin/sh
# A Backint program for tests: keeps streams as files in a folder, which the test puts in.
store='@FOLDER@'
while [ $# -gt 1 ]; do
    case $1 in -f) function=$2 ;; -i) input=$2 ;; -o) output=$2 ;; esac
    echo "$1 $2" >>"$store/calls"
    shift 2
done
echo '#SOFTWAREID "backint 1.04" "for tests 1"' >"$output"
while IFS= read -r line; do
    one=$(echo "$line" | cut -d'"' -f2)
    two=$(echo "$line" | cut -d'"' -f4)
    case "$function $line" in
    backup*'#PIPE '*)
        ebid=$(date +%s%N)
        cat "$one" >"$store/$ebid"
        echo "$one" >"$store/$ebid.name"
        echo "#SAVED \"$ebid\" \"$one\" $(stat -c %s "$store/$ebid")" ;;
    restore*'#EBID '*)
        if [ -f "$store/$one" ]; then
            cat "$store/$one" >"$two"
            echo "#RESTORED \"$one\" \"$two\""
        else
            echo "#NOTFOUND \"$one\" \"$two\""
        fi ;;
    inquire*'#NULL '*)
        found=$(grep -lxF "$one" "$store"/*.name | sort -r | head -n 1)
        if [ -n "$found" ]; then
            echo "#BACKUP \"$(basename "$found" .name)\" \"$one\""
        else
            echo "#NOTFOUND \"$one\""
        fi ;;
    inquire*'#EBID '*)
        if [ -f "$store/$one" ]; then echo "#BACKUP \"$one\" \"$two\""; else echo "#NOTFOUND \"$one\" \"$two\""; fi ;;
    delete*'#EBID '*)
        rm -f "$store/$one" "$store/$one.name"
        echo "#DELETED \"$one\" \"$two\"" ;;
    esac
done <"$input" >>"$output"
