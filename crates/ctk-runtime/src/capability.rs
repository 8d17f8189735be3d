//! Capabilities as a set (`capabilities(7)`).

/// Names by number.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The default set of containers-common: without MKNOD, NET_RAW and AUDIT_WRITE, which docker still gives.
const DEFAULT: [&str; 11] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// A set of capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Capabilities(u64);

impl Capabilities {
    /// None at all.
    pub const NONE: Capabilities = Capabilities(0);
    /// All that have a name here.
    pub const ALL: Capabilities = Capabilities((1 << NAMES.len()) - 1);

    /// What a container gets unless told otherwise.
    pub fn usual() -> Capabilities {
        DEFAULT.iter().filter_map(|name| Capabilities::parse(name)).fold(Capabilities::NONE, Capabilities::with)
    }

    /// The set that a word names: `NET_ADMIN`, `cap_net_admin`, `ALL`; `None` for an unknown word.
    pub fn parse(word: &str) -> Option<Capabilities> {
        let upper = word.to_ascii_uppercase();
        if upper == "ALL" {
            return Some(Capabilities::ALL);
        }
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        NAMES.iter().position(|n| *n == name).map(|number| Capabilities(1 << number))
    }

    /// All names, by number, without `CAP_`.
    pub fn names() -> &'static [&'static str] {
        &NAMES
    }

    /// Both sets together.
    pub fn with(self, other: Capabilities) -> Capabilities {
        Capabilities(self.0 | other.0)
    }

    /// This set without another.
    pub fn without(self, other: Capabilities) -> Capabilities {
        Capabilities(self.0 & !other.0)
    }

    /// What both sets have.
    pub fn common(self, other: Capabilities) -> Capabilities {
        Capabilities(self.0 & other.0)
    }

    /// Whether it has all of `other`.
    pub fn has(self, other: Capabilities) -> bool {
        self.0 & other.0 == other.0
    }

    /// Bit n stands for capability n.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// The set of these bits.
    pub fn from_bits(bits: u64) -> Capabilities {
        Capabilities(bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_name_sets() {
        assert_eq!(Capabilities::parse("cap_chown").unwrap().bits(), 1);
        assert_eq!(Capabilities::parse("SYS_ADMIN").unwrap().bits(), 1 << 21);
        assert_eq!(Capabilities::parse("all"), Some(Capabilities::ALL));
        assert_eq!(Capabilities::parse("SUPER"), None);
        assert_eq!(Capabilities::usual().bits(), 0x0000_0000_8004_05fb);
    }
}
