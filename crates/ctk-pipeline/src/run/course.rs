//! Which step is next: thinking only. Whoever runs steps asks [`Course::next`] until it says nothing, and tells
//! [`Course::ended`] how each ended.

use ctk_dag::{Graph, Scheduler};

use super::RunError;
use super::event::Ending;
use super::job::{Task, When};
use super::stop::Reason;

/// What is to be done about a step now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Move {
    /// It runs.
    Start(usize),
    /// It never runs, and is as if it had ended so.
    Leave(usize, Ending),
}

/// The steps of a run, and how far they are.
pub(crate) struct Course<'a> {
    tasks: &'a [Task],
    scheduler: Scheduler<usize>,
    /// Those whose needs have ended, in the order in which that happened.
    waiting: std::collections::VecDeque<usize>,
    /// So many at the front will run, as long as the reason is this one: nobody asks them again.
    checked: (usize, Option<Reason>),
    /// Whether what needs it may run: it succeeded, or was not meant to run.
    good: Vec<Option<bool>>,
    kept: Vec<bool>,
    running: usize,
    at_once: usize,
    failed: bool,
}

impl<'a> Course<'a> {
    /// At its beginning. `at_once` is how many steps run at once, at most.
    pub fn new(tasks: &'a [Task], at_once: usize) -> Result<Course<'a>, RunError> {
        let mut graph = Graph::new();
        for task in tasks {
            graph.insert(task.number);
            task.needs.iter().for_each(|need| graph.need(task.number, *need));
        }
        let labels = |cycle: ctk_dag::Cycle<usize>| {
            let labels: Vec<String> = cycle.0.iter().map(|number| tasks[*number].label()).collect();
            RunError::Cycle(labels.join(", "))
        };
        Ok(Course {
            tasks,
            scheduler: Scheduler::new(&graph).map_err(labels)?,
            waiting: std::collections::VecDeque::new(),
            checked: (0, None),
            good: vec![None; tasks.len()],
            kept: vec![false; tasks.len()],
            running: 0,
            at_once: at_once.max(1),
            failed: false,
        })
    }

    /// What is to be done next; none: nothing, until something ends. `reason` is why everything ends, if it does;
    /// `is_kept` is asked of steps whose needs were all kept.
    pub fn next(&mut self, reason: Option<Reason>, is_kept: &dyn Fn(&Task) -> bool) -> Option<Move> {
        self.waiting.extend(self.scheduler.ready());
        let tasks = self.tasks;
        if self.checked.1 != reason {
            self.checked = (0, reason);
        }
        let from = if self.running >= self.at_once { self.checked.0 } else { 0 };
        for at in from..self.waiting.len() {
            let number = self.waiting[at];
            let task = &tasks[number];
            let ending = match self.verdict(task, reason) {
                Verdict::Skip { is_good } => {
                    self.good[number] = Some(is_good);
                    Ending::Skipped
                }
                Verdict::Run if task.needs.iter().all(|need| self.kept[*need]) && is_kept(task) => {
                    (self.good[number], self.kept[number]) = (Some(true), true);
                    Ending::Kept
                }
                // Those behind it may be ones that are left.
                Verdict::Run if self.running >= self.at_once => {
                    self.checked.0 = at + 1;
                    continue;
                }
                Verdict::Run => {
                    self.remove(at);
                    self.running += 1;
                    return Some(Move::Start(number));
                }
            };
            self.remove(at);
            self.scheduler.finished(&number, true);
            return Some(Move::Leave(number, ending));
        }
        None
    }

    fn remove(&mut self, at: usize) {
        self.waiting.remove(at);
        self.checked.0 -= usize::from(at < self.checked.0);
    }

    /// A step that was started ended so.
    pub fn ended(&mut self, number: usize, ending: Ending) {
        self.running -= 1;
        self.good[number] = Some(ending.is_good());
        self.failed |= matches!(ending, Ending::Failed | Ending::TimedOut);
        self.scheduler.finished(&number, true);
    }

    /// How many run.
    pub fn running(&self) -> usize {
        self.running
    }

    fn verdict(&self, task: &Task, reason: Option<Reason>) -> Verdict {
        if reason.is_some_and(|reason| reason != Reason::Failure || task.when == When::Success) {
            return Verdict::Skip { is_good: false };
        }
        let needs_are_good = task.needs.iter().all(|need| self.good[*need] == Some(true));
        match task.when {
            When::Always => Verdict::Run,
            When::Never => Verdict::Skip { is_good: true },
            When::Failure if self.failed || !needs_are_good => Verdict::Run,
            When::Failure => Verdict::Skip { is_good: true },
            When::Success if needs_are_good => Verdict::Run,
            When::Success => Verdict::Skip { is_good: false },
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Run,
    /// Whether what needs it may run all the same.
    Skip {
        is_good: bool,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::run::job::{Retry, TaskWork};

    fn task(number: usize, needs: Vec<usize>, when: When) -> Task {
        Task {
            number,
            id: None,
            needs,
            work: TaskWork::Native { commands: Vec::new() },
            directory: "/workspace".into(),
            env: Default::default(),
            secret_env: Default::default(),
            volumes: Vec::new(),
            timeout: None,
            allow_failure: false,
            allow_exit_codes: Vec::new(),
            retry: Retry::default(),
            when,
            group: None,
            services: Vec::new(),
            cache: None,
        }
    }

    /// Steps that need earlier ones, and how each ends if it runs.
    fn steps() -> impl Strategy<Value = (Vec<Task>, Vec<Ending>)> {
        let when = prop::sample::select(vec![When::Success, When::Success, When::Failure, When::Always, When::Never]);
        let ending = prop::sample::select(vec![Ending::Succeeded, Ending::Succeeded, Ending::Allowed, Ending::Failed]);
        prop::collection::vec((prop::collection::vec(any::<prop::sample::Index>(), 0..4), when, ending), 1..30)
            .prop_map(|all| {
                let tasks = all.iter().enumerate().map(|(number, (needs, when, _))| {
                    let mut needs: Vec<usize> =
                        needs.iter().filter(|_| number > 0).map(|need| need.index(number.max(1))).collect();
                    needs.sort_unstable();
                    needs.dedup();
                    task(number, needs, *when)
                });
                (tasks.collect(), all.iter().map(|(.., ending)| *ending).collect())
            })
    }

    proptest! {
        #[test]
        fn every_step_has_its_turn_once(
            (tasks, endings) in steps(),
            at_once in 1usize..5,
            fail_fast in any::<bool>(),
            picks in prop::collection::vec(any::<prop::sample::Index>(), 30),
        ) {
            let mut course = Course::new(&tasks, at_once).unwrap();
            let mut reason = None;
            let mut done: Vec<Option<Ending>> = vec![None; tasks.len()];
            let mut running: Vec<usize> = Vec::new();
            let mut picks = picks.iter();
            loop {
                while let Some(made) = course.next(reason, &|_| false) {
                    let number = match made {
                        Move::Start(number) | Move::Leave(number, _) => number,
                    };
                    prop_assert_eq!(done[number], None);
                    prop_assert!(!running.contains(&number));
                    // Never before what it needs has ended, however.
                    prop_assert!(tasks[number].needs.iter().all(|need| done[*need].is_some()));
                    let is_bad = |need: &usize| matches!(done[*need], Some(Ending::Failed));
                    match made {
                        Move::Start(number) => {
                            prop_assert!(tasks[number].when != When::Never);
                            prop_assert!(tasks[number].when != When::Success || !tasks[number].needs.iter().any(is_bad));
                            prop_assert!(tasks[number].when != When::Success || reason.is_none());
                            running.push(number);
                        }
                        Move::Leave(number, ending) => {
                            prop_assert_eq!(ending, Ending::Skipped);
                            prop_assert!(tasks[number].when != When::Always);
                            done[number] = Some(ending);
                        }
                    }
                    prop_assert!(running.len() <= at_once);
                    prop_assert_eq!(course.running(), running.len());
                }
                if running.is_empty() {
                    break;
                }
                let at = picks.next().map_or(0, |pick| pick.index(running.len()));
                let number = running.remove(at);
                done[number] = Some(endings[number]);
                course.ended(number, endings[number]);
                if endings[number] == Ending::Failed && fail_fast {
                    reason = Some(Reason::Failure);
                }
            }
            prop_assert!(done.iter().all(Option::is_some));
            if !endings.contains(&Ending::Failed) {
                let runs = |task: &Task| matches!(task.when, When::Success | When::Always);
                let ran = |task: &&Task| done[task.number] != Some(Ending::Skipped);
                let wanted = tasks.iter().filter(|task| runs(task)).count();
                prop_assert_eq!(tasks.iter().filter(ran).count(), wanted);
            }
        }

        #[test]
        fn nothing_begins_after_an_interrupt((tasks, endings) in steps(), before in 0usize..20) {
            let mut course = Course::new(&tasks, 3).unwrap();
            let mut running = Vec::new();
            let mut turns = 0;
            loop {
                let reason = (turns >= before).then_some(Reason::Cancel);
                match course.next(reason, &|_| false) {
                    Some(Move::Start(number)) => {
                        prop_assert!(reason.is_none());
                        running.push(number);
                    }
                    Some(Move::Leave(..)) => {}
                    None => match running.pop() {
                        Some(number) => course.ended(number, endings[number]),
                        None => break,
                    },
                }
                turns += 1;
            }
        }

        #[test]
        fn what_is_kept_rests_on_what_is_kept((tasks, _) in steps(), same in prop::collection::vec(any::<bool>(), 30)) {
            let mut course = Course::new(&tasks, 2).unwrap();
            let mut kept = vec![false; tasks.len()];
            let mut running = Vec::new();
            loop {
                match course.next(None, &|task| same[task.number]) {
                    Some(Move::Start(number)) => running.push(number),
                    Some(Move::Leave(number, Ending::Kept)) => {
                        prop_assert!(same[number] && tasks[number].needs.iter().all(|need| kept[*need]));
                        kept[number] = true;
                    }
                    Some(Move::Leave(..)) => {}
                    None => match running.pop() {
                        Some(number) => course.ended(number, Ending::Succeeded),
                        None => break,
                    },
                }
            }
        }
    }
}
