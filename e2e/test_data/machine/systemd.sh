# What the machine that `runtime_systemd` switches on does: prints `name: value` lines, which the case reads.
exec > /dev/console 2>&1
export PATH=/e2e/bin:$PATH
cd /e2e/bundle || exit 1
slice=/sys/fs/cgroup/system.slice

say() { echo "$1: $(echo "$2" | tr '\n' ' ')"; }
# Takes the configuration of this name.
take() { cp "configs/$1.json" config.json; }
ours() { ctk-runtime --systemd-cgroup "$@"; }
inside() { ctk-runtime exec box sh -c "$1" 2>&1; }
property() { systemctl show --value --property "$1" e2e-box.scope; }
# Units of containers that systemd still knows.
units() { systemctl list-units --all --no-legend --plain "e2e-*.scope" "ctk-*.scope"; }
alone() { setpriv --reuid 1000 --regid 1000 --init-groups env --ignore-environment PATH="$PATH" "$@"; }
user() { alone XDG_RUNTIME_DIR=/run/user/1000 "$@"; }

# After what the firmware wrote.
echo
say boot "$(cut -d' ' -f1 /proc/uptime)"
take greedy
ours run box > /run/out 2>&1
say greedy "$?"
say greedy-left "$(units; ls -d $slice/e2e-box.scope /run/ctk-runtime/box 2>&1 | grep -v 'No such')"

take box
ours run --detach box > /run/out 2>&1 < /dev/null
say box "$? $(cat /run/out)"
systemctl show --property Slice,Description,Delegate,MemoryMax,MemorySwapMax,TasksMax,CPUWeight,CPUQuotaPerSecUSec,AllowedCPUs \
    --property MemoryHigh,TimeoutStopUSec e2e-box.scope | sed 's/=/: /'
say inside "$(cat "/proc/$(ctk-runtime state box | sed -n 's/.*"pid": \([0-9]*\).*/\1/p')/cgroup")"
say seen "$(inside 'cat /proc/self/cgroup')"
cgroup=$slice/e2e-box.scope
say memory.max "$(cat $cgroup/memory.max) $(cat $cgroup/memory.swap.max)"
say pids.max "$(cat $cgroup/pids.max)"
say cpu.max "$(cat $cgroup/cpu.max)"
say cpuset.cpus "$(cat $cgroup/cpuset.cpus)"
inside 'exec dd if=/dev/zero of=/dev/null bs=200M count=1' > /dev/null
say oom $?
say forks "$(inside 'i=0; while test $i -lt 30; do sleep 1 & i=$((i+1)); echo $i; done' | sed -n '/fork/p; $=')"
say refused "$(inside 'mknod /tmp/serial c 4 64; : < /tmp/serial')"
say again "$(ours --root /run/other run box 2>&1 < /dev/null)"

ctk-runtime update --cpu-quota 40000 --memory 96M --memory-swap 96M --pids-limit 20 box
say update "$? $(property MemoryMax) $(property TasksMax) $(property CPUQuotaPerSecUSec)"
# Systemd writes what it knows once more.
systemctl daemon-reload
say reloaded "$(cat $cgroup/memory.max) $(cat $cgroup/pids.max) $(cat $cgroup/cpu.max)"
say refused-after "$(inside ': < /tmp/serial')"
ctk-runtime pause box
say paused "$? $(ctk-runtime state box | grep status)"
ctk-runtime resume box
say resumed "$? $(ctk-runtime state box | grep status)"
say started "$(at=$(date +%s%N); ctk-runtime exec box true; echo $((($(date +%s%N) - at) / 1000000)) ms)"
ctk-runtime delete --force box
say delete "$?"
say left "$(units; ls -d $cgroup /run/ctk-runtime/box 2>&1 | grep -v 'No such')"

take default
ours create first > /run/out 2>&1 < /dev/null
say create "$? $(cat /run/out) $(systemctl is-active ctk-first.scope)"
ctk-runtime start first
say start "$?"
ctk-runtime kill first KILL
say stopped "$(sleep 1; ctk-runtime state first | grep status)"
ctk-runtime delete first
say first "$? $(units)"
say one "$(take one; ours run first 2>&1)"

# Without systemd it is beside our own cgroup, which has processes in it.
say beside "$(ctk-runtime run first 2>&1)"
# Killed on its way: what it leaves is found, or ends by itself.
take default
for delay in 0.1 0.2 0.3 0.4; do
    timeout --signal KILL $delay ctk-runtime --systemd-cgroup create first > /run/out 2>&1 < /dev/null
    ctk-runtime delete --force first
done
say killed "$(sleep 0.3; units; ls /run/ctk-runtime)"

take path
say path "$(ours run box 2>&1)"
take property
say property "$(ours run box 2>&1)"
take box
say cgroupfs "$(ctk-runtime run box 2>&1)"
say missing "$(mv /run/systemd/private /run/systemd/away; mv /run/dbus/system_bus_socket /run/dbus/away; ours run box 2>&1
    mv /run/systemd/away /run/systemd/private)"
# Without a socket of its own, by the bus.
mv /run/systemd/private /run/systemd/away; mv /run/dbus/away /run/dbus/system_bus_socket
take greedy
ours run box > /run/out 2>&1
say by-bus "$? $(units)"
mv /run/systemd/away /run/systemd/private

# An ordinary user, first from below his own systemd, then from somewhere else: his processes have to be moved.
systemctl start user@1000.service
take ordinary
say user "$(user systemd-run --user --quiet --wait --pipe --working-directory "$PWD" /e2e/bin/ctk-runtime --systemd-cgroup run mine 2>&1)"
say user-outside "$(user ctk-runtime --systemd-cgroup run mine 2>&1)"
say user-left "$(user systemctl --user list-units --all --no-legend --plain 'ctk-*.scope')"
take ordinary-sleep
user ctk-runtime --systemd-cgroup run --detach mine > /run/out 2>&1 < /dev/null
say user-detached "$? $(cat /run/out) $(user systemctl --user show --value --property TasksMax ctk-mine.scope)"
say user-exec "$(user ctk-runtime exec mine cat /proc/self/cgroup 2>&1)"
user ctk-runtime update --pids-limit 40 mine
say user-update "$? $(user systemctl --user show --value --property TasksMax ctk-mine.scope)"
user ctk-runtime delete --force mine
say user-delete "$? $(user systemctl --user list-units --all --no-legend --plain 'ctk-*.scope')"
podman() { command podman --cgroup-manager systemd --runtime /e2e/bin/ctk-runtime --storage-driver vfs "$@"; }
cp -a rootfs /home/e2e/rootfs
chown -R 1000:1000 /home/e2e
say user-podman "$(cd /home/e2e; user HOME=/home/e2e podman --cgroup-manager systemd --runtime /e2e/bin/ctk-runtime --runtime-flag root=/run/user/1000/ctk --storage-driver vfs run --rm --network none --memory 32m --pids-limit 20 --rootfs /home/e2e/rootfs cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max)"
say user-missing "$(alone ctk-runtime --root /tmp/none --systemd-cgroup run mine 2>&1)"

say failed "$(systemctl --failed --no-legend --plain)"
say podman "$(podman run --rm --network none --memory 32m --pids-limit 20 --rootfs /e2e/bundle/rootfs sh -c 'cat /proc/self/cgroup /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max')"
say podman-left "$(systemctl list-units --all --no-legend --plain 'libpod-*.scope')"
say done "$(cut -d' ' -f1 /proc/uptime)"
sync
poweroff -f
