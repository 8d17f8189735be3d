#!/bin/sh
# The first process of the machine that `runtime_machine` switches on: prints `name: value` lines, which the case reads.
if ! test -e /switched; then
    /bin/busybox --install -s /bin
    # Nobody can pivot away from the initial file system.
    mount -t tmpfs -o mode=755 tmpfs /new
    for name in bin bundle init lib lib64 usr tmp dev proc sys run profile; do
        if test -e /$name; then cp -a /$name /new/; fi
    done
    touch /new/switched
    exec switch_root /new /init
fi
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t securityfs securityfs /sys/kernel/security
mount -t devtmpfs dev /dev
mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
cd /bundle || exit 1
cgroup=/sys/fs/cgroup/box

say() { echo "$1: $(echo "$2" | tr '\n' ' ')"; }
# Takes the configuration of this name.
take() { cp "configs/$1.json" config.json; }
inside() { ctk-runtime exec box sh -c "$1" 2>&1; }
# The exit code, and how long it took inside, in centiseconds.
timed() {
    inside "now() { cut -d' ' -f1 /proc/uptime | tr -d .; }; at=\$(now); $1 2>/dev/null; echo \$? \$((\$(now) - at))"
}
usage() { sed -n 's/^usage_usec //p' $cgroup/cpu.stat; }
# Centiseconds since boot.
now() { cut -d' ' -f1 /proc/uptime | tr -d .; }
# Parts of a thousand of a processor used in two seconds.
share() {
    used=$(usage); at=$(now)
    sleep 2
    echo $(((($(usage) - used) / 10) / ($(now) - at)))
}

# After what the firmware wrote.
echo
say controllers "$(cat /sys/fs/cgroup/cgroup.controllers)"
say disk "$(cat /sys/block/nvme0n1/dev)"

take greedy
ctk-runtime run box > /run/out 2>&1
say greedy $?
say greedy-left "$(ls -d $cgroup 2>&1)"
say greedy-state "$(ctk-runtime state box 2>&1)"

# A cgroup that gives its controllers away takes no processes; one below it does.
mkdir $cgroup
echo +memory > $cgroup/cgroup.subtree_control
take greedy
ctk-runtime run box > /run/out 2>&1
say divided "$? $(cat /run/out)"
say divided-state "$(ctk-runtime state box 2>&1)"
sed -i 's#"/box"#"/box/below"#' config.json
ctk-runtime run box > /run/out 2>&1
say beneath $?
say beneath-left "$(ls -d $cgroup/below 2>&1)"
rmdir $cgroup
say divided-kept $?

take box
ctk-runtime run --detach box > /run/out 2>&1 < /dev/null
say box "$? $(cat /run/out)"
say memory.max "$(cat $cgroup/memory.max)"
say memory.swap.max "$(cat $cgroup/memory.swap.max)"
say pids.max "$(cat $cgroup/pids.max)"
say cpu.max "$(cat $cgroup/cpu.max)"
say cpu.weight "$(cat $cgroup/cpu.weight)"
say cpuset.cpus "$(cat $cgroup/cpuset.cpus)"
say io.max "$(cat $cgroup/io.max)"
say unified "$(cat $cgroup/memory.high)"

ctk-runtime events --interval 1s box > /run/events &
inside 'exec dd if=/dev/zero of=/dev/null bs=200M count=1' > /dev/null
say oom $?
sleep 2
say oom-events "$(grep -c '"type":"oom"' /run/events)"
say state "$(ctk-runtime state box | grep status)"
say forks "$(inside 'i=0; while test $i -lt 30; do sleep 3 & i=$((i+1)); echo $i; done' | sed -n '/fork/p; $=')"
ctk-runtime exec --detach --pid-file /run/spin box sh -c "while true; do :; done" > /run/out 2>&1 < /dev/null
say spin "$? $(cat /run/out)"
say share "$(share)"

ctk-runtime pause box
say pause $?
say paused "$(ctk-runtime state box | grep status)"
say frozen "$(grep frozen $cgroup/cgroup.events)"
before=$(usage); sleep 1
say used-frozen "$(($(usage) - before))"
say exec-frozen "$(ctk-runtime exec box true 2>&1)"
ctk-runtime resume box
say resume $?
say resumed "$(ctk-runtime state box | grep status)"

ctk-runtime update --cpu-quota 40000 --memory 96M --memory-swap 96M --pids-limit 20 box
say update $?
say share-after "$(share)"
kill -9 "$(cat /run/spin)"
say memory-after "$(cat $cgroup/memory.max) $(inside 'dd if=/dev/zero of=/dev/null bs=64M count=1 2>/dev/null; echo $?')"
say pids-after "$(cat $cgroup/pids.max)"

say write "$(timed 'dd if=/dev/zero of=/dev/disk bs=64k count=32 oflag=direct')"
echo '{"blockIO": {"throttleReadBpsDevice": [{"major": 259, "minor": 0, "rate": 4194304}], "throttleWriteBpsDevice": [{"major": 259, "minor": 0, "rate": 4194304}]}}' |
    ctk-runtime update --resources - box
say update-io "$? $(cat $cgroup/io.max)"
say read "$(timed 'dd if=/dev/disk of=/dev/null bs=64k count=64 iflag=direct')"
say stats "$(ctk-runtime events --stats box)"

say refused "$(inside 'mknod /tmp/serial c 4 64; : < /tmp/serial')"
echo '{"devices": [{"allow": true, "type": "c", "major": 4, "minor": 64, "access": "r"}]}' |
    ctk-runtime update --resources - box
say allowed "$? $(inside ': < /tmp/serial && echo opened')"
say refused-write "$(inside ': > /tmp/serial')"
say refused-after "$(inside 'head -c 1 /dev/disk')"

# Processes in cgroups that the container made.
mkdir $cgroup/below
ctk-runtime exec --detach --cgroup below --pid-file /run/below box sleep 1000 < /dev/null > /run/out 2>&1
say below "$? $(cat /run/out) $(grep -c . $cgroup/below/cgroup.procs)"
ctk-runtime delete --force box
say delete $?
say left "$(ls -d $cgroup /run/ctk-runtime/box 2>&1 | grep -vc 'No such')"
say processes "$(ps | grep -c '[s]leep 1000')"

cat /profile > /sys/kernel/security/apparmor/.load
say apparmor $?
take confined
say confined "$(ctk-runtime run box 2>&1)"
take redirected
say redirected "$(ctk-runtime run box 2>&1)"
take unknown
say unknown "$(ctk-runtime run box 2>&1)"
say done "$(cut -d' ' -f1 /proc/uptime)"
sync
poweroff -f
