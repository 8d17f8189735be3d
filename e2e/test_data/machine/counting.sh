# What the scripts of `runtime_checkpoint` begin with: a counter that is looked at, and words about it.
exec > /dev/console 2>&1
export PATH=/e2e/bin:$PATH
cd /e2e/bundle || exit 1
mkdir -p /run/host
# A line each time: a file that is written anew is empty for a moment.
count=rootfs/tmp/count

say() { echo "$1: $(echo "$2" | tr '\n' ' ')"; }
# Takes the configuration of this name.
take() { cp "configs/$1.json" config.json; }
status() { ctk-runtime state box 2>&1 | sed -n 's/.*"status": "\(.*\)".*/\1/p; /does not exist/p'; }
# Waits for something, ten seconds and more: this machine is slow.
until_is() {
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30; do
        "$@" 2> /dev/null && return
        sleep 0.4
    done
}
is_more() { test "$(tail -n 1 $count)" -gt "$1"; }
# Whether the count goes on from where it was.
goes_on() {
    was=$1
    until_is is_more "$was"
    now=$(tail -n 1 $count)
    if test "$now" -gt "$was" && test "$now" -lt $((was + 60)); then echo yes; else echo "$was then $now"; fi
}
quiet() { "$@" > /run/out 2>&1 < /dev/null; echo "$? $(cat /run/out)"; }
