//! The pieces that seccomp programs are made of (seccomp(2), classic BPF).

use ctk_sys::Filter;

/// Loads the word at an offset of `struct seccomp_data`.
pub const LOAD: u16 = 0x20;
/// Goes on so many instructions further.
pub const JUMP: u16 = 0x05;
/// Whether what is loaded is not below the operand.
pub const GREATER_EQUAL: u16 = 0x35;

/// An instruction without jumps.
pub fn statement(code: u16, k: u32) -> Filter {
    Filter { code, jump_true: 0, jump_false: 0, k }
}

/// An instruction that goes on so many instructions further.
pub fn jump(code: u16, k: u32, jump_true: u8, jump_false: u8) -> Filter {
    Filter { code, jump_true, jump_false, k }
}

/// Adds a rule that is valid from the number `start` on; joined with the one before if equal.
pub fn append<R: PartialEq>(ranges: &mut Vec<(u32, R)>, start: u32, rule: R) {
    match ranges.last_mut() {
        Some((_, last)) if *last == rule => {}
        Some((last_start, last)) if *last_start == start => *last = rule,
        _ => ranges.push((start, rule)),
    }
}

/// Code that finds the range of the loaded number by halves and carries out its rule. Each range is a first number and
/// what holds until the next one's.
pub fn search<R>(ranges: &[(u32, R)], carry_out: &impl Fn(&R, &mut Vec<Filter>), out: &mut Vec<Filter>) {
    if let [(_, rule)] = ranges {
        return carry_out(rule, out);
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let Some((first_high, _)) = high.first() else { return };
    let mut left = Vec::new();
    search(low, carry_out, &mut left);
    match u8::try_from(left.len()) {
        Ok(length) => out.push(jump(GREATER_EQUAL, *first_high, length, 0)),
        Err(_) => {
            out.push(jump(GREATER_EQUAL, *first_high, 0, 1));
            out.push(statement(JUMP, left.len() as u32));
        }
    }
    out.extend(left);
    search(high, carry_out, out);
}
