//! When the files of a layer were made: which of their times are no part of what they are.
//!
//! A file that a step writes has the time at which it was written. Another run of that step gives another time, so it
//! counts as the image's date, whatever that is: cut where it is later, and, in a layer from an earlier build, raised
//! where it is earlier. A time that a program chose (`touch -d`, an unpacked archive) is content, and is only cut. The two
//! are told apart by what is noted here, of the layer itself and of all that it was made from, for files keep their times
//! when they are copied, moved or given another mode:
//!
//! - What ctk itself copies and makes gets a time that nobody chooses, a second and [`STAMP_NANOS`]; that is noted alone.
//! - Of programs the span in which they ran is noted, in whole seconds, for programs cut times when they copy them. The
//!   times of all that they could read count as whole seconds from then on, too.

use ctk_layer::Time;
use serde::{Deserialize, Serialize};

/// Where in its second the time of a file lies that ctk made.
const STAMP_NANOS: u32 = 1000;
/// Times are compared in these, for that is what many programs keep when they copy a file.
const PER_SECOND: i64 = 1_000_000;

/// Times at which steps wrote, as spans in microseconds since 1970, both ends included; sorted, and none touches another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Made(Vec<(i64, i64)>);

impl Made {
    /// The time for files that ctk makes in this second.
    pub fn stamp(seconds: i64) -> Time {
        Time { seconds, nanos: STAMP_NANOS }
    }

    /// Adds the [stamp](Made::stamp) of a second.
    pub fn add_stamp(&mut self, seconds: i64) {
        let stamp = micros(Made::stamp(seconds));
        self.join(&[(stamp, stamp)]);
    }

    /// Adds a program that ran between these seconds, after everything that was added before.
    pub fn add_program(&mut self, from_seconds: i64, to_seconds: i64) {
        let whole = |from: i64, to: i64| {
            (from.saturating_mul(PER_SECOND), to.saturating_mul(PER_SECOND).saturating_add(PER_SECOND - 1))
        };
        for (from, to) in &mut self.0 {
            (*from, *to) = whole(from.div_euclid(PER_SECOND), to.div_euclid(PER_SECOND));
        }
        self.join(&[whole(from_seconds, to_seconds.max(from_seconds))]);
    }

    /// Adds those of another layer.
    pub fn merge(&mut self, other: &Made) {
        self.join(&other.0);
    }

    fn join(&mut self, spans: &[(i64, i64)]) {
        let mut all = std::mem::take(&mut self.0);
        all.extend(spans);
        all.sort_unstable();
        for (from, to) in all {
            match self.0.last_mut() {
                Some(last) if from <= last.1.saturating_add(1) => last.1 = last.1.max(to),
                _ => self.0.push((from, to)),
            }
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a step wrote at that time.
    pub fn holds(&self, time: Time) -> bool {
        let time = micros(time);
        let after = self.0.partition_point(|(from, _)| *from <= time);
        after > 0 && time <= self.0[after - 1].1
    }

    /// The time as an image of the date `epoch` has it; as it is without one.
    pub fn dated(&self, time: Time, epoch: Option<i64>) -> Time {
        match epoch {
            Some(epoch) if self.holds(time) => Time::seconds(epoch),
            _ => time.clamp_to(epoch),
        }
    }

    /// The time as far as it is content.
    pub fn content(&self, time: Time) -> Option<Time> {
        (!self.holds(time)).then_some(time)
    }
}

fn micros(time: Time) -> i64 {
    time.seconds.saturating_mul(PER_SECOND).saturating_add(i64::from(time.nanos) / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_joined_and_found() {
        let mut made = Made::default();
        for (from, to) in [(10, 12), (20, 20), (13, 15), (5, 6), (11, 11), (19, 25)] {
            made.add_program(from, to);
        }
        assert_eq!(made.0, [(5_000_000, 6_999_999), (10_000_000, 15_999_999), (19_000_000, 25_999_999)]);
        for nanos in [0, 999, 1000, 999_999_999] {
            let held: Vec<i64> = (0..30).filter(|second| made.holds(Time { seconds: *second, nanos })).collect();
            assert_eq!(held, [5, 6, 10, 11, 12, 13, 14, 15, 19, 20, 21, 22, 23, 24, 25]);
        }
    }

    #[test]
    fn stamps_are_exact_until_a_program_saw_them() {
        let mut made = Made::default();
        made.add_stamp(7);
        made.add_stamp(-3);
        for second in [7, -3] {
            assert!(made.holds(Made::stamp(second)) && made.holds(Time { seconds: second, nanos: 1999 }));
            assert!(!made.holds(Time::seconds(second)) && !made.holds(Time { seconds: second, nanos: 2000 }));
        }
        made.add_program(9, 8);
        for second in [7, -3, 9] {
            assert!(made.holds(Time::seconds(second)) && made.holds(Time { seconds: second, nanos: 999_999_999 }));
        }
        assert!(![6, 8, 10, -2, -4].into_iter().any(|second| made.holds(Time::seconds(second))));
    }

    #[test]
    fn what_was_made_has_the_images_date_and_what_was_chosen_is_cut() {
        let mut made = Made::default();
        made.add_program(100, 110);
        for (time, epoch, expected) in [(105, 50, 50), (105, 500, 500), (7, 50, 7), (70, 50, 50), (120, 500, 120)] {
            assert_eq!(made.dated(Time { seconds: time, nanos: 0 }, Some(epoch)), Time::seconds(expected));
        }
        let time = Time { seconds: 105, nanos: 7 };
        assert_eq!((made.dated(time, None), made.content(time)), (time, None));
    }
}
