//! What holds for every graph.

use std::collections::BTreeSet;

use ctk_dag::{Graph, Scheduler};
use proptest::prelude::*;

fn graph(edges: &[(u8, u8)], nodes: u8) -> Graph<u8> {
    let mut graph = Graph::new();
    (0..nodes).for_each(|n| graph.insert(n));
    edges.iter().for_each(|(a, b)| graph.need(*a, *b));
    graph
}

fn acyclic() -> impl Strategy<Value = Graph<u8>> {
    (1u8..12).prop_flat_map(|nodes| {
        prop::collection::vec((0..nodes, 0..nodes), 0..30).prop_map(move |edges| {
            // Each needs only smaller ones.
            let edges: Vec<_> = edges.into_iter().filter(|(a, b)| a > b).collect();
            graph(&edges, nodes)
        })
    })
}

fn any() -> impl Strategy<Value = Graph<u8>> {
    (1u8..10).prop_flat_map(|nodes| {
        prop::collection::vec((0..nodes, 0..nodes), 0..20).prop_map(move |edges| graph(&edges, nodes))
    })
}

proptest! {
    #[test]
    fn an_order_puts_needs_first(graph in acyclic()) {
        let order = graph.order().unwrap();
        prop_assert_eq!(order.len(), graph.nodes().len());
        for (at, node) in order.iter().enumerate() {
            for need in graph.needs_of(node) {
                prop_assert!(order[..at].contains(need));
            }
        }
    }

    #[test]
    fn a_graph_has_an_order_or_cycles_that_are_cycles(graph in any()) {
        let cycles = graph.cycles();
        prop_assert_eq!(graph.order().is_err(), !cycles.is_empty());
        let mut seen = BTreeSet::new();
        for cycle in cycles {
            for (at, node) in cycle.0.iter().enumerate() {
                let next = &cycle.0[(at + 1) % cycle.0.len()];
                prop_assert!(graph.needs_of(node).contains(&next));
                prop_assert!(seen.insert(*node), "no node is in two reports or twice in one");
            }
        }
    }

    #[test]
    fn a_closure_is_closed_and_no_larger(graph in any(), target in 0u8..10) {
        let closure = graph.closure([&target]);
        for node in &closure {
            prop_assert!(graph.needs_of(node).iter().all(|n| closure.contains(n)));
            prop_assert!(graph.dependents([node]).contains(&target));
        }
        prop_assert_eq!(closure.contains(&target), graph.contains(&target));
    }

    #[test]
    fn every_node_runs_once_or_is_skipped_for_a_reason(graph in acyclic(), fails in prop::collection::btree_set(0u8..12, 0..4), hands in 1usize..4) {
        let mut scheduler = Scheduler::new(&graph).unwrap();
        let (mut running, mut done, mut failed, mut skipped) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        loop {
            while running.len() < hands {
                match scheduler.next_ready() {
                    Some(node) => {
                        prop_assert!(graph.needs_of(&node).iter().all(|n| done.contains(*n)));
                        running.push(node);
                    }
                    None => break,
                }
            }
            let Some(node) = running.pop() else { break };
            if fails.contains(&node) {
                failed.push(node);
                skipped.extend(scheduler.finished(&node, false));
            } else {
                done.push(node);
                prop_assert!(scheduler.finished(&node, true).is_empty());
            }
        }
        prop_assert!(scheduler.is_done());
        prop_assert_eq!(done.len() + failed.len() + skipped.len(), graph.nodes().len());
        for node in &skipped {
            let needs = graph.closure([node]);
            prop_assert!(needs.iter().any(|n| failed.contains(n)));
        }
        let mut told = scheduler.skipped();
        skipped.sort();
        told.sort();
        prop_assert_eq!(told, skipped);
    }
}

#[test]
fn a_cycle_reads_well() {
    let mut graph = Graph::new();
    graph.need("c", "a");
    graph.need("a", "b");
    graph.need("b", "a");
    graph.need("x", "x");
    graph.need("free", "x");
    let told: Vec<String> = graph.cycles().iter().map(|c| c.to_string()).collect();
    assert_eq!(told, ["a → b → a", "x → x"]);
}

#[test]
fn a_stop_leaves_the_running_alone() {
    let mut graph = Graph::new();
    graph.need(2, 1);
    graph.insert(3);
    let mut scheduler = Scheduler::new(&graph).unwrap();
    assert_eq!(scheduler.next_ready(), Some(1));
    assert_eq!(scheduler.stop(), [2, 3]);
    assert!(!scheduler.is_done());
    assert!(scheduler.finished(&1, true).is_empty());
    assert!(scheduler.is_done() && scheduler.ready().is_empty());
}
