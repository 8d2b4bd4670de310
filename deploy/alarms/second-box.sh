#!/bin/sh
# A second box on the network of the barn that rings when the engine is dead, or when an alarm rings and nobody comes.
#
# It needs curl and a way of its own to make noise: two commands, RING and HUSH. It runs on anything that runs a shell,
# from a power supply of its own. docs/alarms.md says how to try it out.
#
#   ENGINE=http://10.0.0.5:3000 RING='gpioset -z gpiochip0 17=1' HUSH='pkill gpioset' ./second-box.sh
set -u
ENGINE=${ENGINE:?address of the engine, such as http://10.0.0.5:3000}
RING=${RING:?command that makes noise}
HUSH=${HUSH:?command that stops it}
PERIOD_SECONDS=${PERIOD_SECONDS:-10} # as alarms.heartbeat_seconds
MISSED_MAX=${MISSED_MAX:-3}          # beats that may be missing
WAITING_MAX=${WAITING_MAX:-30}       # looks with an alarm that nobody has acknowledged; 0 leaves that to the engine

missed=0 waiting=0 beat='' rings=0
while :; do
    # Anything but 200 with a beat that is new counts as none: an answer from a cache is no sign of life.
    answer=$(curl --silent --fail --max-time "$PERIOD_SECONDS" "$ENGINE/api/v1/heartbeat") || answer=''
    now=$(printf '%s' "$answer" | sed -n 's/.*"beat":\([0-9]*\).*/\1/p')
    if [ -n "$now" ] && [ "$now" != "$beat" ]; then missed=0; else missed=$((missed + 1)); fi
    beat=$now
    case $answer in
    '' | *'"alarms_waiting":0'*) waiting=0 ;;
    *) waiting=$((waiting + 1)) ;;
    esac
    why=''
    if [ "$missed" -gt "$MISSED_MAX" ]; then why="the engine is silent"; fi
    if [ "$WAITING_MAX" -gt 0 ] && [ "$waiting" -gt "$WAITING_MAX" ]; then why="nobody answers an alarm"; fi
    if [ -n "$why" ] && [ "$rings" -eq 0 ]; then
        echo "second-box: $why" >&2
        rings=1
        sh -c "$RING" &
    elif [ -z "$why" ] && [ "$rings" -eq 1 ]; then
        echo "second-box: all is well again" >&2
        rings=0
        sh -c "$HUSH"
    fi
    sleep "$PERIOD_SECONDS"
done
