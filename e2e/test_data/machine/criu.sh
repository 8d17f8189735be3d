# What the machine that `runtime_checkpoint` switches on does: prints `name: value` lines, which the case reads.
. /e2e/counting.sh

# After what the firmware wrote.
echo
say criu "$(criu --version)"
take counter
say run "$(quiet ctk-runtime run --detach box)"
sleep 1
rm -f /run/hook-*
say checkpoint "$(quiet ctk-runtime checkpoint --image-path /run/images --work-path /run/work box)"
say gone "$(status) $(ls -d /sys/fs/cgroup/box 2>&1 | grep -v 'No such')"
say stopped "$(sed -n 's/.*"status":"\([a-z]*\)".*/\1/p' /run/hook-poststop)"
say log "$(ls /run/work; ls /run/images | grep descriptors)"
was=$(tail -n 1 $count)
say still "$(sleep 0.3; test "$was" = "$(tail -n 1 $count)" && echo yes)"
say restore "$(quiet ctk-runtime restore --detach --pid-file /run/pid --image-path /run/images --work-path /run/work box)"
say counts "$(goes_on "$was")"
say status "$(status) $(sed -n 's/.*"pid": \([0-9]*\).*/\1/p' "$(ctk-runtime state box > /run/state; echo /run/state)" | grep -c "^$(cat /run/pid)$")"
say hooks "$(cat /run/hook-createRuntime | sed -n 's/.*"status":"\([a-z]*\)","pid":\([0-9]*\).*/\1 \2/p' | sed "s/$(cat /run/pid)/same/") $(sed -n 's/.*"status":"\([a-z]*\)".*/\1/p' /run/hook-poststart)"
say limits "$(cat /sys/fs/cgroup/box/memory.max /sys/fs/cgroup/box/pids.max)"
touch /run/host/file
say inside "$(ctk-runtime exec box sh -c 'ls /mnt; cat /proc/1/cgroup; hostname' 2>&1)"
say masked "$(ctk-runtime exec box sh -c 'cat /proc/keys | wc -c; grep -c "/null /proc/keys.* - tmpfs" /proc/self/mountinfo; ls /proc/acpi | wc -l; echo > /proc/sys/kernel/domainname' 2>&1)"
say place "$(ls /run/ctk-runtime/box)"

# Once more, and it goes on; what was written down then is made again.
say leave "$(quiet ctk-runtime checkpoint --leave-running --image-path /run/second box) $(status)"
say delete "$(quiet ctk-runtime delete --force box)"
echo 0 > $count
say second "$(quiet ctk-runtime restore --detach --image-path /run/second box) $(status)"
say remembered "$(until_is is_more 10; is_more 10 && echo yes)"
say pause "$(quiet ctk-runtime pause box) $(quiet ctk-runtime checkpoint --leave-running --image-path /run/paused box) $(status)"
say resume "$(quiet ctk-runtime resume box)"

# Memory first, then what has changed since.
say pre "$(quiet ctk-runtime checkpoint --pre-dump --image-path /run/pre box) $(status)"
say absolute "$(quiet ctk-runtime checkpoint --parent-path /run/pre --image-path /run/last box) $(status)"
say last "$(quiet ctk-runtime checkpoint --parent-path ../pre --image-path /run/last box)"
say parent "$(readlink /run/last/parent)"
was=$(tail -n 1 $count)
say from-parent "$(quiet ctk-runtime restore --detach --image-path /run/last box) $(goes_on "$was")"
ctk-runtime delete --force box

# Images that are of no use leave nothing.
rm /run/second/core-1.img
say broken "$(quiet ctk-runtime restore --detach --image-path /run/second box | tr -d '\n')"
say broken-left "$(status) $(ls -d /sys/fs/cgroup/box /run/ctk-runtime/box 2>&1 | grep -v 'No such')"

# A terminal, in the foreground.
take terminal
ctk-runtime run box > /run/terminal 2>&1 < /dev/null &
until_is grep -q tick /run/terminal
say terminal "$(quiet ctk-runtime checkpoint --image-path /run/terminal-images box) $(tr -d '\r' < /run/terminal | sort -u)"
wait
rm /run/terminal
ctk-runtime restore --image-path /run/terminal-images box > /run/terminal 2>&1 < /dev/null &
until_is grep -q tick /run/terminal
say terminal-again "$(status) $(tr -d '\r' < /run/terminal | sort -u)"
say terminal-tty "$(ctk-runtime exec box readlink /proc/1/fd/0)"
ctk-runtime kill box KILL
wait
say terminal-end "$(status)"

# A network namespace of the host.
take network
ip netns add e2e
say network "$(quiet ctk-runtime run --detach box)"
sleep 0.5
say network-checkpoint "$(quiet ctk-runtime checkpoint --image-path /run/network box)"
was=$(tail -n 1 $count)
say network-restore "$(quiet ctk-runtime restore --detach --image-path /run/network box) $(goes_on "$was")"
ip netns exec e2e readlink /proc/self/ns/net > /run/net
say network-same "$(readlink "/proc/$(ctk-runtime state box | sed -n 's/.*"pid": \([0-9]*\).*/\1/p')/ns/net" | grep -c "$(cat /run/net | tr -d '[]' | sed 's/net://')")"
ctk-runtime delete --force box

# In a scope of systemd's.
take scoped
say scoped "$(quiet ctk-runtime --systemd-cgroup run --detach box)"
sleep 0.5
say scoped-checkpoint "$(quiet ctk-runtime checkpoint --image-path /run/scoped box) $(systemctl is-active e2e-box.scope)"
was=$(tail -n 1 $count)
say scoped-restore "$(quiet ctk-runtime --systemd-cgroup restore --detach --image-path /run/scoped box) $(systemctl is-active e2e-box.scope)"
say scoped-counts "$(goes_on "$was") $(cat "/proc/$(ctk-runtime state box | sed -n 's/.*"pid": \([0-9]*\).*/\1/p')/cgroup")"
ctk-runtime delete --force box
say scoped-left "$(systemctl list-units --all --no-legend --plain 'e2e-*.scope')"

podman() { command podman --cgroup-manager systemd --runtime /e2e/bin/ctk-runtime --storage-driver vfs "$@" 2> /run/podman-said; }
say podman "$(podman run --detach --name counter --network none --rootfs /e2e/bundle/rootfs sh -c 'i=0; while :; do i=$((i+1)); echo $i >> /tmp/count; sleep 0.1; done' | wc -l)"
sleep 0.5
say podman-checkpoint "$(podman container checkpoint counter | wc -l; tail -1 /run/podman-said)"
was=$(tail -n 1 $count)
say podman-restore "$(podman container restore counter | wc -l) $(goes_on "$was"; tail -1 /run/podman-said)"
say podman-rm "$(podman rm --force --time 0 counter | wc -l)"
say done "$(cut -d' ' -f1 /proc/uptime)"
sync
poweroff -f
