//! Threads that work a graph off: nothing before its needs, never more at once than there is room for.

use std::hash::Hash;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use ctk_dag::{Graph, Scheduler};
use ctk_plan::Cancel;

use crate::Slots;

/// How often the user's word is looked for.
const CANCEL_POLL: Duration = Duration::from_millis(50);

/// Why not everything was done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended<E> {
    /// The first failure that is not only the end of what another one stopped.
    Failed(E),
    /// Somebody said stop.
    Cancelled,
}

struct State<N, E> {
    scheduler: Scheduler<N>,
    ended: Option<Ended<E>>,
}

struct Workers<'a, N, E> {
    state: Mutex<State<N, E>>,
    changed: Condvar,
    slots: &'a Slots,
    stop: &'a Cancel,
}

/// Does `work` for every node of `graph`, which has no cycle. `cancel` is the user's word; `stop` is what `work` has to
/// heed: given after it, and after the first failure. `work` says `None` when it was stopped. Returns when no work runs
/// any more.
pub(crate) fn run<N, E>(
    graph: &Graph<N>,
    slots: &Slots,
    cancel: &Cancel,
    stop: &Cancel,
    work: impl Fn(&N) -> Result<(), Option<E>> + Sync,
) -> Result<(), Ended<E>>
where
    N: Clone + Eq + Hash + Send,
    E: Send,
{
    let Ok(scheduler) = Scheduler::new(graph) else { unreachable!("inputs come before their users") };
    let threads = slots.count().min(graph.nodes().len());
    let state = Mutex::new(State { scheduler, ended: None });
    let workers = Workers { state, changed: Condvar::new(), slots, stop };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| workers.work(&work));
        }
        workers.watch(cancel);
    });
    match workers.state.into_inner().expect("no panic while locked").ended {
        Some(_) if cancel.is_cancelled() => Err(Ended::Cancelled),
        Some(ended) => Err(ended),
        None => Ok(()),
    }
}

impl<N: Clone + Eq + Hash, E> Workers<'_, N, E> {
    /// Passes the user's word on until all is done.
    fn watch(&self, cancel: &Cancel) {
        let mut state = self.state.lock().expect("no panic while locked");
        while !state.scheduler.is_done() && state.ended.is_none() {
            if cancel.is_cancelled() {
                self.end(&mut state, Ended::Cancelled);
                break;
            }
            state = self.changed.wait_timeout(state, CANCEL_POLL).expect("no panic while locked").0;
        }
    }

    fn end(&self, state: &mut State<N, E>, ended: Ended<E>) {
        self.stop.cancel();
        state.scheduler.stop();
        match (&state.ended, &ended) {
            (None, _) | (Some(Ended::Cancelled), Ended::Failed(_)) => state.ended = Some(ended),
            _ => {}
        }
        self.changed.notify_all();
    }

    fn work(&self, work: &impl Fn(&N) -> Result<(), Option<E>>) {
        let _alarm = Alarm(self);
        let mut state = self.state.lock().expect("no panic while locked");
        loop {
            if state.ended.is_some() || state.scheduler.is_done() {
                return;
            }
            let Some(node) = state.scheduler.next_ready() else {
                state = self.changed.wait(state).expect("no panic while locked");
                continue;
            };
            drop(state);
            let result = match self.slots.take(self.stop) {
                Some(_slot) => work(&node),
                None => Err(None),
            };
            state = self.state.lock().expect("no panic while locked");
            state.scheduler.finished(&node, result.is_ok());
            match result {
                Ok(()) => self.changed.notify_all(),
                Err(Some(error)) => self.end(&mut state, Ended::Failed(error)),
                Err(None) => self.end(&mut state, Ended::Cancelled),
            }
        }
    }
}

/// Wakes the others when a worker panics: what they wait for will never be there.
struct Alarm<'a, 'b, N: Clone + Eq + Hash, E>(&'a Workers<'b, N, E>);

impl<N: Clone + Eq + Hash, E> Drop for Alarm<'_, '_, N, E> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop.cancel();
            if let Ok(mut state) = self.0.state.lock() {
                self.0.end(&mut state, Ended::Cancelled);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;

    /// Work that looks at what is done and how much runs beside it.
    struct Seen<'a> {
        graph: &'a Graph<u8>,
        width: usize,
        running: AtomicUsize,
        done: Mutex<BTreeSet<u8>>,
        started: Mutex<Vec<u8>>,
    }

    impl<'a> Seen<'a> {
        fn new(graph: &'a Graph<u8>, width: usize) -> Seen<'a> {
            Seen { graph, width, running: AtomicUsize::new(0), done: Mutex::default(), started: Mutex::default() }
        }

        fn work(&self, node: u8, pause: Duration, stop: &Cancel) -> bool {
            assert!(self.running.fetch_add(1, Ordering::SeqCst) < self.width, "wider than allowed");
            let needs = self.graph.needs_of(&node);
            assert!(needs.iter().all(|need| self.done.lock().unwrap().contains(need)), "before its needs");
            self.started.lock().unwrap().push(node);
            let began = Instant::now();
            while began.elapsed() < pause && !stop.is_cancelled() {
                std::thread::sleep(Duration::from_micros(100));
            }
            let whole = !stop.is_cancelled();
            if whole {
                self.done.lock().unwrap().insert(node);
            }
            self.running.fetch_sub(1, Ordering::SeqCst);
            whole
        }

        /// Nothing runs any more, and nothing ran twice.
        fn over(&self) {
            assert_eq!(self.running.load(Ordering::SeqCst), 0);
            let mut started = self.started.lock().unwrap().clone();
            started.sort();
            let count = started.len();
            started.dedup();
            assert_eq!(started.len(), count, "a node ran twice");
        }
    }

    fn graphs() -> impl Strategy<Value = Graph<u8>> {
        (1u8..14).prop_flat_map(|nodes| {
            prop::collection::vec((0..nodes, 0..nodes), 0..30).prop_map(move |edges| {
                let mut graph = Graph::new();
                (0..nodes).for_each(|node| graph.insert(node));
                edges.into_iter().filter(|(user, need)| user > need).for_each(|(user, need)| graph.need(user, need));
                graph
            })
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn everything_is_done_after_its_needs(graph in graphs(), width in 1usize..5, pauses in prop::collection::vec(0u64..800, 14)) {
            let (seen, slots) = (Seen::new(&graph, width), Slots::new(width));
            let (cancel, stop) = (Cancel::new(), Cancel::new());
            let ended = run::<_, ()>(&graph, &slots, &cancel, &stop, |node| {
                seen.work(*node, Duration::from_micros(pauses[*node as usize]), &stop);
                Ok(())
            });
            prop_assert_eq!(ended, Ok(()));
            seen.over();
            prop_assert_eq!(seen.done.lock().unwrap().len(), graph.nodes().len());
        }

        #[test]
        fn two_share_the_room(one in graphs(), two in graphs(), width in 1usize..4) {
            let slots = Slots::new(width);
            let running = AtomicUsize::new(0);
            let all = |graph: &Graph<u8>| {
                run::<_, ()>(graph, &slots, &Cancel::new(), &Cancel::new(), |_| {
                    assert!(running.fetch_add(1, Ordering::SeqCst) < width);
                    std::thread::sleep(Duration::from_micros(200));
                    running.fetch_sub(1, Ordering::SeqCst);
                    Ok(())
                })
            };
            std::thread::scope(|scope| {
                let other = scope.spawn(|| all(&two));
                assert_eq!(all(&one), Ok(()));
                assert_eq!(other.join().unwrap(), Ok(()));
            });
        }

        #[test]
        fn a_failure_stops_the_rest(graph in graphs(), width in 1usize..5, fails in prop::collection::btree_set(0u8..14, 1..4)) {
            let (seen, slots) = (Seen::new(&graph, width), Slots::new(width));
            let (cancel, stop) = (Cancel::new(), Cancel::new());
            let ended = run(&graph, &slots, &cancel, &stop, |node| {
                let whole = seen.work(*node, Duration::from_micros(300), &stop);
                if fails.contains(node) {
                    seen.done.lock().unwrap().remove(node);
                    return Err(Some(*node));
                }
                if whole { Ok(()) } else { Err(None) }
            });
            seen.over();
            match ended {
                Ok(()) => prop_assert!(fails.iter().all(|node| !graph.contains(node))),
                Err(Ended::Failed(node)) => prop_assert!(fails.contains(&node) && stop.is_cancelled()),
                Err(Ended::Cancelled) => prop_assert!(false, "nobody said stop"),
            }
        }

        #[test]
        fn a_stop_ends_it_at_once(graph in graphs(), width in 1usize..5, after in 0u64..3000) {
            let (seen, slots) = (Seen::new(&graph, width), Slots::new(width));
            let (cancel, stop) = (Cancel::new(), Cancel::new());
            let (given, began) = (cancel.clone(), Instant::now());
            let ended = std::thread::scope(|scope| {
                scope.spawn(move || {
                    std::thread::sleep(Duration::from_micros(after));
                    given.cancel();
                });
                // Work that would take a minute, and heeds the word.
                run::<_, ()>(&graph, &slots, &cancel, &stop, |node| match seen.work(*node, Duration::from_secs(60), &stop) {
                    true => Ok(()),
                    false => Err(None),
                })
            });
            prop_assert_eq!(ended, Err(Ended::Cancelled));
            prop_assert!(began.elapsed() < Duration::from_secs(5));
            seen.over();
        }
    }

    #[test]
    fn a_panic_ends_it_for_all() {
        let mut graph = Graph::new();
        (0..6u8).for_each(|node| graph.insert(node));
        graph.need(6, 0);
        let (slots, cancel, stop) = (Slots::new(3), Cancel::new(), Cancel::new());
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            run::<_, ()>(&graph, &slots, &cancel, &stop, |node| match node {
                0 => panic!("a mistake"),
                _ => {
                    while !stop.is_cancelled() {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    Err(None)
                }
            })
        }));
        assert!(ended.is_err());
        assert_eq!(*slots_free(&slots), 3, "the room is free again");
    }

    fn slots_free(slots: &Slots) -> std::sync::MutexGuard<'_, usize> {
        slots.free.lock().unwrap()
    }
}
