//! What may start now.

use std::collections::BTreeSet;
use std::hash::Hash;

use crate::graph::{Cycle, Graph};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    /// Given out by [`Scheduler::ready`].
    Running,
    Done,
    Failed,
    Skipped,
}

/// Hands out nodes whose needs are done. The caller runs them, any number at once, and tells how each ended.
#[derive(Clone, Debug)]
pub struct Scheduler<N> {
    graph: Graph<N>,
    users: Vec<Vec<usize>>,
    missing: Vec<usize>,
    state: Vec<State>,
    ready: BTreeSet<usize>,
}

impl<N: Clone + Eq + Hash> Scheduler<N> {
    /// A scheduler over the whole graph, which must have no cycle.
    pub fn new(graph: &Graph<N>) -> Result<Scheduler<N>, Cycle<N>> {
        graph.order()?;
        let missing: Vec<usize> = graph.needs_by_number().iter().map(Vec::len).collect();
        let ready = (0..missing.len()).filter(|n| missing[*n] == 0).collect();
        Ok(Scheduler {
            users: graph.backward(),
            state: vec![State::Waiting; missing.len()],
            missing,
            ready,
            graph: graph.clone(),
        })
    }

    /// All nodes that may start and were not given out before, in order of insertion.
    pub fn ready(&mut self) -> Vec<N> {
        std::mem::take(&mut self.ready).into_iter().map(|n| self.give(n)).collect()
    }

    /// One node that may start, if any; for callers with few hands.
    pub fn next_ready(&mut self) -> Option<N> {
        self.ready.pop_first().map(|n| self.give(n))
    }

    fn give(&mut self, number: usize) -> N {
        self.state[number] = State::Running;
        self.graph.nodes()[number].clone()
    }

    /// Tells how a node that was given out ended. When it failed, gives back all that will now never run, in order of
    /// insertion; each node is given back once.
    ///
    /// # Panics
    /// When the node was not given out or was told about before: that is a mistake in the caller.
    pub fn finished(&mut self, node: &N, succeeded: bool) -> Vec<N> {
        let number = self.graph.number_of(node).expect("the node is in the graph");
        assert_eq!(self.state[number], State::Running, "finished() is for nodes that ready() gave out");
        if succeeded {
            self.state[number] = State::Done;
            for user in &self.users[number] {
                self.missing[*user] -= 1;
                if self.missing[*user] == 0 && self.state[*user] == State::Waiting {
                    self.ready.insert(*user);
                }
            }
            return Vec::new();
        }
        self.state[number] = State::Failed;
        let mut skipped = BTreeSet::new();
        let mut queue = vec![number];
        while let Some(at) = queue.pop() {
            for user in &self.users[at] {
                if self.state[*user] == State::Waiting {
                    self.state[*user] = State::Skipped;
                    skipped.insert(*user);
                    queue.push(*user);
                }
            }
        }
        skipped.into_iter().map(|n| self.graph.nodes()[n].clone()).collect()
    }

    /// Gives out nothing more; gives back everything that had not started. For an interrupt.
    pub fn stop(&mut self) -> Vec<N> {
        self.ready.clear();
        let mut out = Vec::new();
        for (number, state) in self.state.iter_mut().enumerate() {
            if *state == State::Waiting {
                *state = State::Skipped;
                out.push(self.graph.nodes()[number].clone());
            }
        }
        out
    }

    /// How many are given out and not told about.
    pub fn running(&self) -> usize {
        self.count(State::Running)
    }

    /// Whether every node is done, failed or skipped.
    pub fn is_done(&self) -> bool {
        !self.state.iter().any(|s| matches!(s, State::Waiting | State::Running))
    }

    /// Nodes that will never run because something they need failed, or because of [`Scheduler::stop`].
    pub fn skipped(&self) -> Vec<N> {
        self.with(State::Skipped)
    }

    /// Nodes that failed.
    pub fn failed(&self) -> Vec<N> {
        self.with(State::Failed)
    }

    fn count(&self, wanted: State) -> usize {
        self.state.iter().filter(|s| **s == wanted).count()
    }

    fn with(&self, wanted: State) -> Vec<N> {
        let numbers = (0..self.state.len()).filter(|n| self.state[*n] == wanted);
        numbers.map(|n| self.graph.nodes()[n].clone()).collect()
    }
}
