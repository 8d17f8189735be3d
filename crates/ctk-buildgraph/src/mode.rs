//! `--chmod`: octal, or symbolic as `chmod` has it.

/// What becomes of permission bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileMode(Form);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    Octal(u32),
    Symbolic(Vec<Clause>),
}

/// `u+x`: one operator of one clause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Clause {
    /// Those whose bits change, as a mask of the nine `rwx` bits.
    who: u32,
    operator: char,
    /// `rwx` as three bits.
    bits: u32,
    /// `X`
    conditional: bool,
    /// `s`
    ids: bool,
    /// `t`
    sticky: bool,
    /// `u`, `g` and `o` after the operator: whose bits are copied, by their shift.
    copied: [bool; 3],
}

const USER: u32 = 0o700;
const GROUP: u32 = 0o070;
const OTHER: u32 = 0o007;
const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;
const STICKY: u32 = 0o1000;

impl FileMode {
    /// The mode that `text` says; none if it says none. At most `7777`.
    pub fn parse(text: &str) -> Option<FileMode> {
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777)?;
            return Some(FileMode(Form::Octal(mode)));
        }
        let mut clauses = Vec::new();
        for clause in text.split(',') {
            let who_end = clause.find(|c| !"ugoa".contains(c))?;
            let who = clause[..who_end].chars().fold(0, |mask, who| mask | mask_of(who));
            let who = if who_end == 0 { 0o777 } else { who };
            let mut rest = &clause[who_end..];
            while !rest.is_empty() {
                let operator = rest.chars().next().filter(|c| "+-=".contains(*c))?;
                let end = rest[1..].find(['+', '-', '=']).map_or(rest.len(), |at| at + 1);
                clauses.push(Clause::parse(who, operator, &rest[1..end])?);
                rest = &rest[end..];
            }
        }
        Some(FileMode(Form::Symbolic(clauses)))
    }

    /// The bits of a file or directory that had `mode`.
    pub fn apply(&self, mode: u32, directory: bool) -> u32 {
        match &self.0 {
            Form::Octal(mode) => *mode,
            Form::Symbolic(clauses) => clauses.iter().fold(mode, |mode, clause| clause.apply(mode, directory)),
        }
    }

    /// The bits of directories that are made on the way to the destination: BuildKit makes them with an octal mode, as
    /// far as its umask of 022 lets it.
    pub fn of_parents(&self) -> u32 {
        match &self.0 {
            Form::Octal(mode) => mode & 0o755,
            Form::Symbolic(_) => 0o755,
        }
    }
}

fn mask_of(who: char) -> u32 {
    match who {
        'u' => USER,
        'g' => GROUP,
        'o' => OTHER,
        _ => 0o777,
    }
}

impl Clause {
    fn parse(who: u32, operator: char, permissions: &str) -> Option<Clause> {
        let mut clause =
            Clause { who, operator, bits: 0, conditional: false, ids: false, sticky: false, copied: [false; 3] };
        for permission in permissions.chars() {
            match permission {
                'r' => clause.bits |= 4,
                'w' => clause.bits |= 2,
                'x' => clause.bits |= 1,
                'X' => clause.conditional = true,
                's' => clause.ids = true,
                't' => clause.sticky = true,
                'u' => clause.copied[2] = true,
                'g' => clause.copied[1] = true,
                'o' => clause.copied[0] = true,
                _ => return None,
            }
        }
        Some(clause)
    }

    fn apply(&self, mode: u32, directory: bool) -> u32 {
        let mut bits = self.bits;
        if self.conditional && (directory || mode & 0o111 != 0) {
            bits |= 1;
        }
        for (at, _) in self.copied.iter().enumerate().filter(|(_, copied)| **copied) {
            bits |= (mode >> (3 * at)) & 7;
        }
        let mut given = (bits * 0o111) & self.who;
        // Set-id bits go with user and group, the sticky bit with either; `o` has none.
        let ids = |mask| if self.who & mask != 0 { u32::MAX } else { 0 };
        let id_bits = (SETUID & ids(USER)) | (SETGID & ids(GROUP));
        if self.ids {
            given |= id_bits;
        }
        if self.sticky && self.who & (USER | GROUP) != 0 {
            given |= STICKY;
        }
        match self.operator {
            '+' => mode | given,
            '-' => mode & !given,
            // Bits copied from others leave the set-id bits alone.
            _ if self.copied.contains(&true) => (mode & !self.who) | given,
            _ => (mode & !self.who & !id_bits) | given,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_change_as_buildkit_changes_them() {
        // Of a directory 7777, a file 7777, a directory 0755 and a file 0000, as BuildKit 0.25 left them.
        for (text, expected) in [
            ("=", [0o1000, 0o1000, 0, 0]),
            ("u=", [0o3077, 0o3077, 0o055, 0]),
            ("g=", [0o5707, 0o5707, 0o705, 0]),
            ("o=", [0o7770, 0o7770, 0o750, 0]),
            ("a=rx", [0o1555, 0o1555, 0o555, 0o555]),
            ("a-s", [0o1777, 0o1777, 0o755, 0]),
            ("u-s", [0o3777, 0o3777, 0o755, 0]),
            ("-t", [0o6777, 0o6777, 0o755, 0]),
            ("o-t", [0o7777, 0o7777, 0o755, 0]),
            ("u-t", [0o6777, 0o6777, 0o755, 0]),
            ("g+s", [0o7777, 0o7777, 0o2755, 0o2000]),
            ("+s", [0o7777, 0o7777, 0o6755, 0o6000]),
            ("o+s", [0o7777, 0o7777, 0o755, 0]),
            ("u=s", [0o7077, 0o7077, 0o4055, 0o4000]),
            ("a=t", [0o1000, 0o1000, 0o1000, 0o1000]),
            ("u=o", [0o7777, 0o7777, 0o555, 0]),
            ("+X", [0o7777, 0o7777, 0o755, 0]),
            ("a+w", [0o7777, 0o7777, 0o777, 0o222]),
            ("u=rws", [0o7677, 0o7677, 0o4655, 0o4600]),
            ("+w", [0o7777, 0o7777, 0o777, 0o222]),
            ("+t", [0o7777, 0o7777, 0o1755, 0o1000]),
            ("ug+t", [0o7777, 0o7777, 0o1755, 0o1000]),
            ("g=s", [0o7707, 0o7707, 0o2705, 0o2000]),
            ("a=s", [0o7000, 0o7000, 0o6000, 0o6000]),
            ("u=X", [0o3177, 0o3177, 0o155, 0]),
            ("u=rX,u-r", [0o3177, 0o3177, 0o155, 0]),
            ("g=u,o=g", [0o7777, 0o7777, 0o777, 0]),
            ("u=u", [0o7777, 0o7777, 0o755, 0]),
            ("+", [0o7777, 0o7777, 0o755, 0]),
            ("u+rg", [0o7777, 0o7777, 0o755, 0o400]),
            ("u+r+x", [0o7777, 0o7777, 0o755, 0o500]),
            ("640", [0o640; 4]),
            ("00755", [0o755; 4]),
        ] {
            let mode = FileMode::parse(text).unwrap();
            let found = [(0o7777, true), (0o7777, false), (0o755, true), (0, false)].map(|(m, d)| mode.apply(m, d));
            assert_eq!(found.map(|m| format!("{m:o}")), expected.map(|m| format!("{m:o}")), "{text}");
        }
    }

    #[test]
    fn what_is_no_mode_is_none() {
        for text in ["", "8", "10000", "0o755", " 755", "u", "ux", "u+q", "u+x,", "u+x ,g+x", "755,u+x", "x+u"] {
            assert_eq!(FileMode::parse(text), None, "{text}");
        }
        assert_eq!(FileMode::parse("4777").unwrap().of_parents(), 0o755);
        assert_eq!(FileMode::parse("640").unwrap().of_parents(), 0o640);
        assert_eq!(FileMode::parse("u=").unwrap().of_parents(), 0o755);
    }
}
