# The same as systemd.sh on a machine whose controllers are of cgroup version 1.
exec > /dev/console 2>&1
export PATH=/e2e/bin:$PATH
cd /e2e/bundle || exit 1
group() { echo "/sys/fs/cgroup/$1/system.slice/e2e-box.scope"; }

say() { echo "$1: $(echo "$2" | tr '\n' ' ')"; }
inside() { ctk-runtime exec box sh -c "$1" 2>&1; }

# After what the firmware wrote.
echo
cp configs/box.json config.json
# There is no `unified` here.
sed -i 's/"memory.high":"max"//' config.json
ctk-runtime --systemd-cgroup run --detach box > /run/out 2>&1 < /dev/null
say box "$? $(cat /run/out)"
say hierarchies "$(for name in memory pids devices freezer cpuset systemd unified; do test -d "$(group $name)" && echo $name; done)"
say properties "$(systemctl show --property MemoryLimit,TasksMax,CPUShares,DevicePolicy e2e-box.scope)"
say limits "$(cat "$(group memory)/memory.limit_in_bytes" "$(group pids)/pids.max")"
inside 'exec dd if=/dev/zero of=/dev/null bs=200M count=1' > /dev/null
say oom $?
say devices "$(cat "$(group devices)/devices.list")"
systemctl daemon-reload
say devices-reloaded "$(cat "$(group devices)/devices.list")"
say refused "$(inside 'mknod /tmp/serial c 4 64; : < /tmp/serial')"
ctk-runtime update --memory 64M --memory-swap 64M box
say update "$? $(cat "$(group memory)/memory.limit_in_bytes") $(systemctl show --property MemoryLimit e2e-box.scope)"
ctk-runtime delete --force box
say delete $?
say left "$(find /sys/fs/cgroup -name 'e2e-box*'; systemctl list-units --all --no-legend --plain 'e2e-*.scope')"
say done "$(cut -d' ' -f1 /proc/uptime)"
sync
poweroff -f
