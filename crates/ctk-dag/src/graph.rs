//! Nodes by name, and what each needs.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::hash::Hash;

/// A directed graph: an edge goes from a node to what it needs. Orders are those of insertion, so that the same graph
/// always gives the same answers.
#[derive(Clone, Debug)]
pub struct Graph<N> {
    nodes: Vec<N>,
    index: HashMap<N, usize>,
    needs: Vec<Vec<usize>>,
}

/// Nodes that need each other: each needs the next, and the last needs the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cycle<N>(pub Vec<N>);

impl<N: fmt::Display> fmt::Display for Cycle<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for node in &self.0 {
            write!(f, "{node} → ")?;
        }
        match self.0.first() {
            Some(first) => write!(f, "{first}"),
            None => write!(f, "nothing"),
        }
    }
}

impl<N: fmt::Debug + fmt::Display> std::error::Error for Cycle<N> {}

impl<N> Default for Graph<N> {
    fn default() -> Graph<N> {
        Graph { nodes: Vec::new(), index: HashMap::new(), needs: Vec::new() }
    }
}

impl<N: Clone + Eq + Hash> Graph<N> {
    /// No nodes yet.
    pub fn new() -> Graph<N> {
        Graph::default()
    }

    /// Adds a node; one that is there stays.
    pub fn insert(&mut self, node: N) {
        self.number(node);
    }

    fn number(&mut self, node: N) -> usize {
        if let Some(number) = self.index.get(&node) {
            return *number;
        }
        let number = self.nodes.len();
        self.nodes.push(node.clone());
        self.index.insert(node, number);
        self.needs.push(Vec::new());
        number
    }

    /// Says that `node` needs `needed`; both are added when missing.
    pub fn need(&mut self, node: N, needed: N) {
        let (from, to) = (self.number(node), self.number(needed));
        if !self.needs[from].contains(&to) {
            self.needs[from].push(to);
        }
    }

    /// Every node, in order of insertion.
    pub fn nodes(&self) -> &[N] {
        &self.nodes
    }

    /// Whether the node is there.
    pub fn contains(&self, node: &N) -> bool {
        self.index.contains_key(node)
    }

    /// What `node` needs directly.
    pub fn needs_of(&self, node: &N) -> Vec<&N> {
        self.index.get(node).map_or_else(Vec::new, |n| self.needs[*n].iter().map(|m| &self.nodes[*m]).collect())
    }

    /// What needs `node` directly.
    pub fn needed_by(&self, node: &N) -> Vec<&N> {
        let Some(number) = self.index.get(node) else { return Vec::new() };
        (0..self.nodes.len()).filter(|n| self.needs[*n].contains(number)).map(|n| &self.nodes[n]).collect()
    }

    /// `targets` and all they need, directly or not, in order of insertion. Unknown targets are left out.
    pub fn closure<'a>(&self, targets: impl IntoIterator<Item = &'a N>) -> Vec<N>
    where
        N: 'a,
    {
        self.reach(targets, |n| self.needs[n].clone())
    }

    /// `origins` and all that need them, directly or not, in order of insertion: what a change affects.
    pub fn dependents<'a>(&self, origins: impl IntoIterator<Item = &'a N>) -> Vec<N>
    where
        N: 'a,
    {
        let back = self.backward();
        self.reach(origins, |n| back[n].clone())
    }

    fn reach<'a>(&self, from: impl IntoIterator<Item = &'a N>, next: impl Fn(usize) -> Vec<usize>) -> Vec<N>
    where
        N: 'a,
    {
        let mut seen: BTreeSet<usize> = from.into_iter().filter_map(|n| self.index.get(n).copied()).collect();
        let mut queue: VecDeque<usize> = seen.iter().copied().collect();
        while let Some(at) = queue.pop_front() {
            for to in next(at) {
                if seen.insert(to) {
                    queue.push_back(to);
                }
            }
        }
        seen.into_iter().map(|n| self.nodes[n].clone()).collect()
    }

    /// For each node, who needs it.
    pub(crate) fn backward(&self) -> Vec<Vec<usize>> {
        let mut back = vec![Vec::new(); self.nodes.len()];
        for (from, needs) in self.needs.iter().enumerate() {
            for to in needs {
                back[*to].push(from);
            }
        }
        back
    }

    pub(crate) fn needs_by_number(&self) -> &[Vec<usize>] {
        &self.needs
    }

    pub(crate) fn number_of(&self, node: &N) -> Option<usize> {
        self.index.get(node).copied()
    }

    /// Every node after all it needs; ties in order of insertion. Or a cycle.
    pub fn order(&self) -> Result<Vec<N>, Cycle<N>> {
        let mut missing: Vec<usize> = self.needs.iter().map(Vec::len).collect();
        let back = self.backward();
        let mut ready: BTreeSet<usize> = (0..self.nodes.len()).filter(|n| missing[*n] == 0).collect();
        let mut out = Vec::with_capacity(self.nodes.len());
        while let Some(at) = ready.pop_first() {
            out.push(self.nodes[at].clone());
            for user in &back[at] {
                missing[*user] -= 1;
                if missing[*user] == 0 {
                    ready.insert(*user);
                }
            }
        }
        if out.len() == self.nodes.len() {
            return Ok(out);
        }
        Err(self.cycles().swap_remove(0))
    }

    /// One shortest cycle of every knot (strongly connected part), each beginning with its first-inserted node.
    pub fn cycles(&self) -> Vec<Cycle<N>> {
        let mut out = Vec::new();
        let mut told = vec![false; self.nodes.len()];
        for start in self.knots() {
            if told[start] {
                continue;
            }
            if let Some(path) = self.shortest_way_back(start) {
                // One report per knot: everything that reaches `start` and is reached from it.
                let forward = self.reach_numbers(start, &self.needs);
                let backward = self.reach_numbers(start, &self.backward());
                for n in forward.intersection(&backward) {
                    told[*n] = true;
                }
                out.push(Cycle(path.into_iter().map(|n| self.nodes[n].clone()).collect()));
            }
        }
        out
    }

    /// What is left when everything that is on no cycle, nor needs or leads to one alone, is taken away.
    fn knots(&self) -> Vec<usize> {
        let mut alive = vec![true; self.nodes.len()];
        let back = self.backward();
        for edges in [&self.needs, &back] {
            let other = if std::ptr::eq(edges, &self.needs) { &back } else { &self.needs };
            let mut left: Vec<usize> = edges.iter().map(|list| list.iter().filter(|n| alive[**n]).count()).collect();
            let mut queue: Vec<usize> = (0..alive.len()).filter(|n| alive[*n] && left[*n] == 0).collect();
            while let Some(at) = queue.pop() {
                alive[at] = false;
                for n in other[at].iter().filter(|n| alive[**n]) {
                    left[*n] -= 1;
                    if left[*n] == 0 {
                        queue.push(*n);
                    }
                }
            }
        }
        (0..alive.len()).filter(|n| alive[*n]).collect()
    }

    fn reach_numbers(&self, from: usize, edges: &[Vec<usize>]) -> BTreeSet<usize> {
        let mut seen = BTreeSet::from([from]);
        let mut queue = vec![from];
        while let Some(at) = queue.pop() {
            for to in &edges[at] {
                if seen.insert(*to) {
                    queue.push(*to);
                }
            }
        }
        seen
    }

    fn shortest_way_back(&self, start: usize) -> Option<Vec<usize>> {
        let mut came_from: HashMap<usize, usize> = HashMap::new();
        let mut queue = VecDeque::from([start]);
        while let Some(at) = queue.pop_front() {
            for to in &self.needs[at] {
                if *to == start {
                    let mut path = vec![at];
                    while *path.last()? != start {
                        path.push(*came_from.get(path.last()?)?);
                    }
                    path.reverse();
                    return Some(path);
                }
                if !came_from.contains_key(to) {
                    came_from.insert(*to, at);
                    queue.push_back(*to);
                }
            }
        }
        None
    }
}
