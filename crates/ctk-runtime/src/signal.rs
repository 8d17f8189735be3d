//! Signals by name.

const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];

/// The first real-time signal, as the C library counts: it keeps two of the kernel's for itself.
const REAL_TIME_MIN: i32 = 34;
const REAL_TIME_MAX: i32 = 64;

/// The number of a signal as images and people write it: `SIGTERM`, `term`, `15`, `RTMIN+3`.
pub fn signal_number(word: &str) -> Option<i32> {
    let upper = word.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(index) = NAMES.iter().position(|known| *known == name) {
        return Some(index as i32 + 1);
    }
    let real_time = match name {
        "RTMIN" => Some(REAL_TIME_MIN),
        "RTMAX" => Some(REAL_TIME_MAX),
        _ => {
            let up = name.strip_prefix("RTMIN+").and_then(|n| n.parse::<i32>().ok()).map(|n| REAL_TIME_MIN + n);
            up.or_else(|| name.strip_prefix("RTMAX-").and_then(|n| n.parse::<i32>().ok()).map(|n| REAL_TIME_MAX - n))
        }
    };
    let real_time = real_time.filter(|number| (REAL_TIME_MIN..=REAL_TIME_MAX).contains(number));
    let digits = !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
    real_time.or_else(|| word.parse().ok().filter(|number| digits && (1..=REAL_TIME_MAX).contains(number)))
}

/// The name of a signal without `SIG`, if it has one.
pub fn signal_name(number: i32) -> Option<&'static str> {
    NAMES.get(usize::try_from(number).ok()?.checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (word, expected) in [
            ("SIGINT", Some(2)),
            ("quit", Some(3)),
            ("10", Some(10)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("SIGSYS", Some(31)),
            ("0", None),
            ("65", None),
            ("+1", None),
            ("x", None),
            ("RTMIN+99", None),
            ("", None),
        ] {
            assert_eq!(signal_number(word), expected, "{word}");
        }
        assert_eq!((signal_name(15), signal_name(0), signal_name(40)), (Some("TERM"), None, None));
    }
}
