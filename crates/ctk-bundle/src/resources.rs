//! `linux.resources` as what is written into which file of which controller; and device rules as a list or a program.

use ctk_sys::Filter;

use crate::Error;
use crate::spec::{Device, DeviceRule, Resources};

/// Something to write into a file of a cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Whose file it is.
    pub controller: &'static str,
    /// The file.
    pub file: String,
    /// What.
    pub value: String,
    /// Where the wish stands.
    pub field: String,
    /// Whether a kernel without the file is as good.
    pub optional: bool,
}

impl std::fmt::Display for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} = {}", self.file, self.value)
    }
}

struct Settings(Vec<Setting>);

impl Settings {
    fn put(&mut self, controller: &'static str, file: impl Into<String>, value: impl ToString, field: &str) {
        let field = format!("linux.resources.{field}");
        self.0.push(Setting { controller, file: file.into(), value: value.to_string(), field, optional: false });
    }

    /// What is said, and is not the zero that stands for nothing.
    fn wish<T: ToString + Default + PartialEq>(
        &mut self,
        controller: &'static str,
        file: &str,
        value: Option<T>,
        field: &str,
    ) {
        if let Some(value) = value.filter(|value| *value != T::default()) {
            self.put(controller, file, value, field);
        }
    }

    fn may(&mut self, controller: &'static str, file: impl Into<String>, value: impl ToString, field: &str) {
        self.put(controller, file, value, field);
        if let Some(last) = self.0.last_mut() {
            last.optional = true;
        }
    }
}

/// For version 1.
pub fn version_1(resources: &Resources) -> Vec<Setting> {
    let mut all = Settings(Vec::new());
    if let Some(memory) = &resources.memory {
        let files = [
            ("memory.limit_in_bytes", memory.limit, "memory.limit"),
            ("memory.soft_limit_in_bytes", memory.reservation, "memory.reservation"),
            ("memory.memsw.limit_in_bytes", memory.swap, "memory.swap"),
        ];
        for (file, value, field) in files {
            all.wish("memory", file, value, field);
        }
        if let Some(value) = memory.kernel_tcp.filter(|value| *value != 0) {
            all.may("memory", "memory.kmem.tcp.limit_in_bytes", value, "memory.kernelTCP");
        }
        if let Some(value) = memory.swappiness {
            all.put("memory", "memory.swappiness", value, "memory.swappiness");
        }
        if memory.disable_oom_killer == Some(true) {
            all.put("memory", "memory.oom_control", 1, "memory.disableOOMKiller");
        }
    }
    if let Some(cpu) = &resources.cpu {
        all.wish("cpu", "cpu.shares", cpu.shares, "cpu.shares");
        all.wish("cpu", "cpu.cfs_period_us", cpu.period, "cpu.period");
        all.wish("cpu", "cpu.cfs_quota_us", cpu.quota, "cpu.quota");
        if let Some(value) = cpu.burst {
            all.put("cpu", "cpu.cfs_burst_us", value, "cpu.burst");
        }
        all.wish("cpu", "cpu.rt_period_us", cpu.realtime_period, "cpu.realtimePeriod");
        all.wish("cpu", "cpu.rt_runtime_us", cpu.realtime_runtime, "cpu.realtimeRuntime");
        if let Some(value) = cpu.idle {
            all.put("cpu", "cpu.idle", value, "cpu.idle");
        }
    }
    cpuset(resources, &mut all);
    pids(resources, &mut all);
    if let Some(io) = &resources.block_io {
        all.wish("blkio", "blkio.bfq.weight|blkio.weight", io.weight, "blockIO.weight");
        all.wish("blkio", "blkio.leaf_weight", io.leaf_weight, "blockIO.leafWeight");
        for (index, device) in io.weight_device.iter().enumerate() {
            let field = format!("blockIO.weightDevice[{index}]");
            let place = format!("{}:{}", device.major, device.minor);
            if let Some(weight) = device.weight {
                let file = "blkio.bfq.weight_device|blkio.weight_device";
                all.put("blkio", file, format!("{place} {weight}"), &field);
            }
            if let Some(weight) = device.leaf_weight {
                all.put("blkio", "blkio.leaf_weight_device", format!("{place} {weight}"), &field);
            }
        }
        let rates = [
            (&io.throttle_read_bps_device, "blkio.throttle.read_bps_device", "throttleReadBpsDevice"),
            (&io.throttle_write_bps_device, "blkio.throttle.write_bps_device", "throttleWriteBpsDevice"),
            (&io.throttle_read_iops_device, "blkio.throttle.read_iops_device", "throttleReadIOPSDevice"),
            (&io.throttle_write_iops_device, "blkio.throttle.write_iops_device", "throttleWriteIOPSDevice"),
        ];
        for (list, file, name) in rates {
            for (index, device) in list.iter().enumerate() {
                let value = format!("{}:{} {}", device.major, device.minor, device.rate);
                all.put("blkio", file, value, &format!("blockIO.{name}[{index}]"));
            }
        }
    }
    for (index, page) in resources.hugepage_limits.iter().enumerate() {
        let file = format!("hugetlb.{}.limit_in_bytes", page.page_size);
        all.put("hugetlb", file, page.limit, &format!("hugepageLimits[{index}]"));
    }
    if let Some(network) = &resources.network {
        all.wish("net_cls", "net_cls.classid", network.class_id, "network.classID");
        for (index, entry) in network.priorities.iter().enumerate() {
            let value = format!("{} {}", entry.name, entry.priority);
            all.put("net_prio", "net_prio.ifpriomap", value, &format!("network.priorities[{index}]"));
        }
    }
    rdma(resources, &mut all);
    all.0
}

/// For version 2.
pub fn version_2(resources: &Resources) -> Result<Vec<Setting>, Error> {
    let mut all = Settings(Vec::new());
    let word = |value: i64| if value < 0 { "max".to_owned() } else { value.to_string() };
    if let Some(memory) = &resources.memory {
        let limit = memory.limit.filter(|value| *value != 0);
        if let Some(value) = limit {
            all.put("memory", "memory.max", word(value), "memory.limit");
        }
        if let Some(value) = memory.reservation.filter(|value| *value != 0) {
            all.put("memory", "memory.low", word(value), "memory.reservation");
        }
        if let Some(both) = memory.swap.filter(|value| *value != 0) {
            let swap = match (both, limit) {
                (-1, _) => -1,
                (both, Some(limit)) if limit >= 0 && both >= limit => both - limit,
                (_, None) => {
                    let reason = "needs memory.limit: version 2 limits swap by itself";
                    return Err(Error::config("linux.resources.memory.swap", reason));
                }
                (_, Some(_)) => {
                    let reason = "is less than memory.limit, and counts memory too";
                    return Err(Error::config("linux.resources.memory.swap", reason));
                }
            };
            all.may("memory", "memory.swap.max", word(swap), "memory.swap");
        }
    }
    if let Some(cpu) = &resources.cpu {
        if let Some(shares) = cpu.shares.filter(|value| *value != 0) {
            all.put("cpu", "cpu.weight", weight(shares), "cpu.shares");
        }
        let (quota, period) = (cpu.quota.filter(|value| *value != 0), cpu.period.filter(|value| *value != 0));
        if quota.is_some() || period.is_some() {
            let quota = quota.map_or("max".to_owned(), word);
            all.put("cpu", "cpu.max", format!("{quota} {}", period.unwrap_or(100_000)), "cpu.quota");
        }
        if let Some(value) = cpu.burst {
            all.put("cpu", "cpu.max.burst", value, "cpu.burst");
        }
        if let Some(value) = cpu.idle {
            all.put("cpu", "cpu.idle", value, "cpu.idle");
        }
    }
    cpuset(resources, &mut all);
    pids(resources, &mut all);
    if let Some(io) = &resources.block_io {
        if let Some(value) = io.weight.filter(|value| *value != 0) {
            let both = format!("{value}|{}", io_weight(value));
            all.put("io", "io.bfq.weight|io.weight", both, "blockIO.weight");
        }
        for (index, device) in io.weight_device.iter().enumerate() {
            if let Some(weight) = device.weight {
                let value = format!("{}:{} {weight}", device.major, device.minor);
                all.put("io", "io.bfq.weight", value, &format!("blockIO.weightDevice[{index}]"));
            }
        }
        let rates = [
            (&io.throttle_read_bps_device, "rbps", "throttleReadBpsDevice"),
            (&io.throttle_write_bps_device, "wbps", "throttleWriteBpsDevice"),
            (&io.throttle_read_iops_device, "riops", "throttleReadIOPSDevice"),
            (&io.throttle_write_iops_device, "wiops", "throttleWriteIOPSDevice"),
        ];
        for (list, key, name) in rates {
            for (index, device) in list.iter().enumerate() {
                let value = format!("{}:{} {key}={}", device.major, device.minor, device.rate);
                all.put("io", "io.max", value, &format!("blockIO.{name}[{index}]"));
            }
        }
    }
    for (index, page) in resources.hugepage_limits.iter().enumerate() {
        let field = format!("hugepageLimits[{index}]");
        all.put("hugetlb", format!("hugetlb.{}.max", page.page_size), page.limit, &field);
        all.may("hugetlb", format!("hugetlb.{}.rsvd.max", page.page_size), page.limit, &field);
    }
    rdma(resources, &mut all);
    for (file, value) in resources.unified.iter().flatten() {
        let field = format!("linux.resources.unified.{file}");
        if file.contains('/') || file.is_empty() || file.starts_with("cgroup.") {
            return Err(Error::config(&field, "is not a file of a controller"));
        }
        for line in value.lines() {
            let (file, value, field) = (file.clone(), line.into(), field.clone());
            all.0.push(Setting { controller: unified_controller(&file), file, value, field, optional: false });
        }
    }
    Ok(all.0)
}

/// What is asked for that version 2 has no file for: controller and field.
pub fn only_in_version_1(resources: &Resources) -> Vec<(&'static str, &'static str)> {
    let (memory, cpu) = (resources.memory.as_ref(), resources.cpu.as_ref());
    let asked = [
        ("memory", "memory.swappiness", memory.is_some_and(|memory| memory.swappiness.is_some())),
        ("memory", "memory.disableOOMKiller", memory.is_some_and(|memory| memory.disable_oom_killer == Some(true))),
        ("cpu", "cpu.realtimePeriod", cpu.is_some_and(|cpu| cpu.realtime_period.is_some_and(|value| value != 0))),
        ("cpu", "cpu.realtimeRuntime", cpu.is_some_and(|cpu| cpu.realtime_runtime.is_some_and(|value| value != 0))),
    ];
    asked.into_iter().filter(|(_, _, asked)| *asked).map(|(controller, field, _)| (controller, field)).collect()
}

fn unified_controller(file: &str) -> &'static str {
    let name = file.split('.').next().unwrap_or_default();
    let known = ["cpu", "cpuset", "hugetlb", "io", "memory", "misc", "pids", "rdma"];
    known.into_iter().find(|known| *known == name).unwrap_or("")
}

/// Version 1's 2 to 262144 as version 2's 1 to 10000.
pub fn weight(shares: u64) -> u64 {
    1 + shares.clamp(2, 262_144).saturating_sub(2) * 9999 / 262_142
}

/// Version 1's 10 to 1000 as version 2's 1 to 10000, as every runtime does.
pub fn io_weight(weight: u16) -> u64 {
    1 + u64::from(weight).saturating_sub(10) * 9999 / 990
}

fn cpuset(resources: &Resources, all: &mut Settings) {
    let Some(cpu) = &resources.cpu else { return };
    for (file, value, field) in [("cpuset.cpus", &cpu.cpus, "cpu.cpus"), ("cpuset.mems", &cpu.mems, "cpu.mems")] {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            all.put("cpuset", file, value, field);
        }
    }
}

fn pids(resources: &Resources, all: &mut Settings) {
    let Some(limit) = resources.pids.as_ref().and_then(|pids| pids.limit) else { return };
    // 0 was "no limit" before it could be left out, and still is what everybody writes for that.
    let value = if limit <= 0 { "max".to_owned() } else { limit.to_string() };
    all.put("pids", "pids.max", value, "pids.limit");
}

fn rdma(resources: &Resources, all: &mut Settings) {
    for (device, limit) in resources.rdma.iter().flatten() {
        let mut value = device.clone();
        for (key, number) in [("hca_handle", limit.hca_handles), ("hca_object", limit.hca_objects)] {
            if let Some(number) = number {
                value.push_str(&format!(" {key}={number}"));
            }
        }
        all.put("rdma", "rdma.max", value, &format!("rdma.{device}"));
    }
}

/// One device rule: later ones win.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// `b`, `c`, or `a` for both.
    pub kind: char,
    /// `None` for all.
    pub major: Option<u32>,
    /// `None` for all.
    pub minor: Option<u32>,
    /// Of `r`, `w`, `m`: 4, 2, 1.
    pub access: u8,
    /// Whether it may or may not.
    pub allow: bool,
}

const READ: u8 = 4;
const WRITE: u8 = 2;
const MAKE: u8 = 1;

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let number = |n: Option<u32>| n.map_or("*".to_owned(), |n| n.to_string());
        write!(f, "{} {}:{} ", self.kind, number(self.major), number(self.minor))?;
        for (bit, letter) in [(READ, 'r'), (WRITE, 'w'), (MAKE, 'm')] {
            if self.access & bit != 0 {
                write!(f, "{letter}")?;
            }
        }
        Ok(())
    }
}

/// What every container may: make nodes (using them is another matter), the usual devices, terminals.
const ALWAYS: [(char, Option<u32>, Option<u32>, u8); 10] = [
    ('c', None, None, MAKE),
    ('b', None, None, MAKE),
    ('c', Some(1), Some(3), 7),
    ('c', Some(1), Some(8), 7),
    ('c', Some(1), Some(7), 7),
    ('c', Some(5), Some(0), 7),
    ('c', Some(1), Some(5), 7),
    ('c', Some(1), Some(9), 7),
    ('c', Some(136), None, 7),
    ('c', Some(5), Some(2), 7),
];

/// The rules of a container, in order; with those that every container has, if `usual`.
pub fn device_rules(rules: &[DeviceRule], usual: bool) -> Result<Vec<Rule>, Error> {
    let mut all = Vec::with_capacity(rules.len() + ALWAYS.len());
    for (index, rule) in rules.iter().enumerate() {
        let field = |name: &str| format!("linux.resources.devices[{index}].{name}");
        let kind = match rule.kind.as_deref().unwrap_or("a") {
            "" | "a" => 'a',
            "b" => 'b',
            "c" | "u" => 'c',
            other => return Err(Error::config(&field("type"), format!("`{other}` is none of a, b, c"))),
        };
        let number = |value: Option<i64>, name: &str| match value {
            None | Some(-1) => Ok(None),
            Some(value) => u32::try_from(value)
                .map(Some)
                .map_err(|_| Error::config(&field(name), format!("{value} is no number of a device"))),
        };
        let mut access = 0;
        for letter in rule.access.as_deref().unwrap_or("rwm").chars() {
            access |= match letter {
                'r' => READ,
                'w' => WRITE,
                'm' => MAKE,
                other => return Err(Error::config(&field("access"), format!("`{other}` is none of r, w, m"))),
            };
        }
        if access == 0 {
            access = 7;
        }
        let (major, minor) = (number(rule.major, "major")?, number(rule.minor, "minor")?);
        all.push(Rule { kind, major, minor, access, allow: rule.allow });
    }
    if usual {
        all.extend(ALWAYS.map(|(kind, major, minor, access)| Rule { kind, major, minor, access, allow: true }));
    }
    Ok(all)
}

/// The rule that lets a container use a device of `linux.devices`.
pub fn rule_for(device: &Device) -> Option<Rule> {
    let kind = device.kind.chars().next().filter(|kind| matches!(kind, 'b' | 'c' | 'u'))?;
    let kind = if kind == 'u' { 'c' } else { kind };
    let number = |value: Option<i64>| value.and_then(|value| u32::try_from(value).ok());
    let (major, minor) = (number(device.major)?, number(device.minor)?);
    Some(Rule { kind, major: Some(major), minor: Some(minor), access: 7, allow: true })
}

/// What is written into `devices.allow` and `devices.deny` of version 1.
pub fn device_files(rules: &[Rule]) -> Vec<(&'static str, String)> {
    let everything = |rule: &Rule| rule.kind == 'a' && rule.major.is_none() && rule.minor.is_none() && rule.access == 7;
    let mut files = Vec::new();
    for rule in rules {
        let file = if rule.allow { "devices.allow" } else { "devices.deny" };
        match rule.kind {
            _ if everything(rule) => files.push((file, "a".to_owned())),
            'a' => ['b', 'c'].into_iter().for_each(|kind| files.push((file, Rule { kind, ..*rule }.to_string()))),
            _ => files.push((file, rule.to_string())),
        }
    }
    files
}

/// One instruction of extended BPF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u8,
    /// Destination in the low, source in the high four bits.
    pub registers: u8,
    /// Distance of a jump, or offset of a load.
    pub offset: i16,
    /// Operand.
    pub immediate: i32,
}

/// A `BPF_PROG_TYPE_CGROUP_DEVICE` program for version 2: the last rule that fits decides; without one, no.
pub fn device_program(rules: &[Rule]) -> Vec<Instruction> {
    let op = |code: u8, registers: u8, offset: i16, immediate: i32| Instruction { code, registers, offset, immediate };
    // r1 is `struct bpf_cgroup_dev_ctx`: u32 access_type (access << 16 | type), major, minor.
    let mut program = vec![
        op(0x61, 0x12, 0, 0),      // r2 = access_type
        op(0xbc, 0x23, 0, 0),      // w3 = w2
        op(0x54, 0x02, 0, 0xffff), // w2 &= 0xffff: 1 block, 2 character
        op(0x74, 0x03, 0, 16),     // w3 >>= 16: 1 make, 2 read, 4 write
        op(0x61, 0x14, 4, 0),      // r4 = major
        op(0x61, 0x15, 8, 0),      // r5 = minor
    ];
    for rule in rules.iter().rev() {
        let mut tests = Vec::new();
        match rule.kind {
            'b' => tests.push(op(0x55, 0x02, 0, 1)),
            'c' => tests.push(op(0x55, 0x02, 0, 2)),
            _ => {}
        }
        let bits = |from: u8, to: i32| if rule.access & from != 0 { to } else { 0 };
        let access = bits(MAKE, 1) | bits(READ, 2) | bits(WRITE, 4);
        let mut before = Vec::new();
        if access != 7 {
            if rule.allow {
                // Everything asked for must be among what is allowed.
                before.extend([op(0xbc, 0x31, 0, 0), op(0x54, 0x01, 0, !access)]);
                tests.push(op(0x55, 0x01, 0, 0)); // if w1 != 0: next rule
            } else {
                // Anything asked for that is denied is enough.
                before.extend([op(0xbc, 0x31, 0, 0), op(0x54, 0x01, 0, access)]);
                tests.push(op(0x15, 0x01, 0, 0)); // if w1 == 0: next rule
            }
        }
        for (register, number) in [(0x04, rule.major), (0x05, rule.minor)] {
            if let Some(number) = number {
                tests.push(op(0x55, register, 0, number as i32));
            }
        }
        program.extend(before);
        let count = tests.len();
        for (index, mut test) in tests.into_iter().enumerate() {
            // Over the other tests and the two instructions of the verdict.
            test.offset = (count - index - 1 + 2) as i16;
            program.push(test);
        }
        program.extend([op(0xb7, 0x00, 0, i32::from(rule.allow)), op(0x95, 0, 0, 0)]);
        if count == 0 {
            return program;
        }
    }
    program.extend([op(0xb7, 0x00, 0, 0), op(0x95, 0, 0, 0)]);
    program
}

/// A filter is eight bytes in both languages, so that tests may look at either.
const _: () = assert!(size_of::<Instruction>() == size_of::<Filter>());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::read;

    fn lines(settings: &[Setting]) -> Vec<String> {
        settings.iter().map(Setting::to_string).collect()
    }

    const MANY: &str = r#"{"memory":{"limit":1000,"swap":3000,"reservation":500},"cpu":{"shares":1024,"quota":5000,"period":20000,
        "cpus":"0-1"},"pids":{"limit":0},"blockIO":{"weight":500,"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":7}]},
        "hugepageLimits":[{"pageSize":"2MB","limit":9}]}"#;

    #[test]
    fn both_versions_have_their_files() {
        let resources: Resources = read(MANY).unwrap();
        assert_eq!(
            lines(&version_1(&resources)),
            [
                "memory.limit_in_bytes = 1000",
                "memory.soft_limit_in_bytes = 500",
                "memory.memsw.limit_in_bytes = 3000",
                "cpu.shares = 1024",
                "cpu.cfs_period_us = 20000",
                "cpu.cfs_quota_us = 5000",
                "cpuset.cpus = 0-1",
                "pids.max = max",
                "blkio.bfq.weight|blkio.weight = 500",
                "blkio.throttle.read_bps_device = 8:0 7",
                "hugetlb.2MB.limit_in_bytes = 9",
            ]
        );
        assert_eq!(
            lines(&version_2(&resources).unwrap()),
            [
                "memory.max = 1000",
                "memory.low = 500",
                "memory.swap.max = 2000",
                "cpu.weight = 39",
                "cpu.max = 5000 20000",
                "cpuset.cpus = 0-1",
                "pids.max = max",
                "io.bfq.weight|io.weight = 500|4950",
                "io.max = 8:0 rbps=7",
                "hugetlb.2MB.max = 9",
                "hugetlb.2MB.rsvd.max = 9",
            ]
        );
    }

    #[test]
    fn unified_files_are_those_of_controllers() {
        let resources: Resources = read(r#"{"unified":{"io.max":"8:0 rbps=1\n8:16 rbps=2"}}"#).unwrap();
        assert_eq!(lines(&version_2(&resources).unwrap()), ["io.max = 8:0 rbps=1", "io.max = 8:16 rbps=2"]);
        for bad in ["cgroup.kill", "../x.y", ""] {
            let resources: Resources = read(&format!(r#"{{"unified":{{"{bad}":"1"}}}}"#)).unwrap();
            assert!(version_2(&resources).is_err(), "{bad}");
        }
    }

    /// What the kernel would say.
    fn ask(program: &[Instruction], kind: i64, access: i64, major: i64, minor: i64) -> i64 {
        let mut r = [0_i64; 6];
        let mut at = 0_usize;
        loop {
            let i = program[at];
            at += 1;
            let (to, from) = (usize::from(i.registers & 15), usize::from(i.registers >> 4));
            match i.code {
                0x61 => r[to] = [access << 16 | kind, major, minor][i.offset as usize / 4],
                0xbc => r[to] = r[from] & 0xffff_ffff,
                0x54 => r[to] &= i64::from(i.immediate as u32),
                0x74 => r[to] >>= i.immediate,
                0xb7 => r[to] = i64::from(i.immediate),
                0x55 if r[to] != i64::from(i.immediate) => at += i.offset as usize,
                0x15 if r[to] == i64::from(i.immediate) => at += i.offset as usize,
                0x55 | 0x15 => {}
                0x95 => return r[0],
                other => panic!("{other:#x}"),
            }
        }
    }

    #[test]
    fn the_last_rule_that_fits_decides() {
        let rules: Vec<DeviceRule> = read::<crate::spec::List<DeviceRule>>(
            r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"b","major":8,"access":"r"},
                {"allow":false,"type":"b","major":8,"minor":3,"access":"rwm"}]"#,
        )
        .unwrap()
        .0;
        let rules = device_rules(&rules, true).unwrap();
        let program = device_program(&rules);
        let (block, character, make, read, write) = (1, 2, 1, 2, 4);
        assert_eq!(ask(&program, block, read, 8, 0), 1);
        assert_eq!(ask(&program, block, write, 8, 0), 0);
        assert_eq!(ask(&program, block, read | write, 8, 0), 0);
        assert_eq!(ask(&program, block, read, 8, 3), 0);
        assert_eq!(ask(&program, block, make, 8, 3), 1);
        assert_eq!(ask(&program, character, read | write, 1, 3), 1);
        assert_eq!(ask(&program, character, read, 10, 200), 0);
        assert_eq!(ask(&program, character, read | write, 136, 7), 1);
        let files: Vec<String> =
            device_files(&rules[..3]).into_iter().map(|(file, text)| format!("{file} {text}")).collect();
        assert_eq!(files, ["devices.deny a", "devices.allow b 8:* r", "devices.deny b 8:3 rwm"]);
        assert!(device_program(&device_rules(&[], false).unwrap()).ends_with(&[
            Instruction { code: 0xb7, registers: 0, offset: 0, immediate: 0 },
            Instruction { code: 0x95, registers: 0, offset: 0, immediate: 0 },
        ]));
    }
}
