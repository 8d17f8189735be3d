//! When the files of a layer were made: which of their times are no part of what they are.
//!
//! A file that a step writes has the time at which it was written. Another run of that step gives another time, so it
//! counts as the image's date, whatever that is: cut where it is later, and, in a layer from an earlier build, raised
//! where it is earlier. A time that a program chose (`touch -d`, an unpacked archive) is content, and is only cut. The two
//! are told apart by the spans in which steps ran: those of the layer itself and of all that it was made from, for files
//! keep their times when they are copied, moved or given another mode.

use ctk_layer::Time;
use serde::{Deserialize, Serialize};

/// Spans of time in which steps ran, in seconds since 1970, both ends included; sorted, and none touches another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Made(Vec<(i64, i64)>);

impl Made {
    /// Adds a span.
    pub fn add(&mut self, from: i64, to: i64) {
        self.merge(&Made(vec![(from, to.max(from))]));
    }

    /// Adds those of another layer.
    pub fn merge(&mut self, other: &Made) {
        let mut all = std::mem::take(&mut self.0);
        all.extend(&other.0);
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

    /// Whether a step ran at that time.
    pub fn holds(&self, seconds: i64) -> bool {
        let after = self.0.partition_point(|(from, _)| *from <= seconds);
        after > 0 && seconds <= self.0[after - 1].1
    }

    /// The time as an image of the date `epoch` has it; as it is without one.
    pub fn dated(&self, time: Time, epoch: Option<i64>) -> Time {
        match epoch {
            Some(epoch) if self.holds(time.seconds) => Time::seconds(epoch),
            _ => time.clamp_to(epoch),
        }
    }

    /// The time as far as it is content.
    pub fn content(&self, time: Time) -> Option<Time> {
        (!self.holds(time.seconds)).then_some(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_joined_and_found() {
        let mut made = Made::default();
        for (from, to) in [(10, 12), (20, 20), (13, 15), (5, 6), (11, 11), (19, 25)] {
            made.add(from, to);
        }
        assert_eq!(made.0, [(5, 6), (10, 15), (19, 25)]);
        let held: Vec<i64> = (0..30).filter(|second| made.holds(*second)).collect();
        assert_eq!(held, [5, 6, 10, 11, 12, 13, 14, 15, 19, 20, 21, 22, 23, 24, 25]);
    }

    #[test]
    fn what_was_made_has_the_images_date_and_what_was_chosen_is_cut() {
        let mut made = Made::default();
        made.add(100, 110);
        for (time, epoch, expected) in [(105, 50, 50), (105, 500, 500), (7, 50, 7), (70, 50, 50), (120, 500, 120)] {
            assert_eq!(made.dated(Time { seconds: time, nanos: 0 }, Some(epoch)), Time::seconds(expected));
        }
        let time = Time { seconds: 105, nanos: 7 };
        assert_eq!((made.dated(time, None), made.content(time)), (time, None));
    }
}
