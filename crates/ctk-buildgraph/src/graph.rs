//! The graph: vertices in an arena, inputs always before their users.

use ctk_syntax::Span;

use crate::{Exec, FileAction, MountKind, Op, Selection};

/// Names a vertex of one graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VertexId(usize);

impl VertexId {
    /// Its place in [`Graph::vertices`].
    pub fn index(self) -> usize {
        self.0
    }
}

/// An operation and what it works on.
#[derive(Clone, Debug)]
pub struct Vertex {
    /// What it does.
    pub op: Op,
    /// What it needs, in the order that the op's indices speak of.
    pub inputs: Vec<VertexId>,
    /// For people: `[build 2/5] RUN make`.
    pub name: String,
    /// Where it was written.
    pub origin: Option<Span>,
    /// What variables in its text mean, for people; a process has its environment.
    pub variables: Vec<(String, String)>,
}

/// Operations and their order. Acyclic by construction: a vertex can only name earlier ones.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    vertices: Vec<Vertex>,
}

impl Graph {
    /// Adds a vertex; an equal one without a place of its own is not added twice.
    ///
    /// # Panics
    /// If an input is of another graph.
    pub fn add(&mut self, vertex: Vertex) -> VertexId {
        assert!(vertex.inputs.iter().all(|i| i.0 < self.vertices.len()), "inputs come before their users");
        let source = vertex.inputs.is_empty();
        if source && let Some(same) = self.vertices.iter().position(|v| v.inputs.is_empty() && v.op == vertex.op) {
            return VertexId(same);
        }
        self.vertices.push(vertex);
        VertexId(self.vertices.len() - 1)
    }

    /// The vertex named `id`.
    pub fn get(&self, id: VertexId) -> &Vertex {
        &self.vertices[id.0]
    }

    /// All vertices with their names, inputs first.
    pub fn vertices(&self) -> impl DoubleEndedIterator<Item = (VertexId, &Vertex)> {
        self.vertices.iter().enumerate().map(|(i, v)| (VertexId(i), v))
    }

    /// The processes that `target` needs, to be settled before keys are made, each with its name and place.
    pub fn processes_mut(&mut self, target: VertexId) -> impl Iterator<Item = (&mut Exec, &str, Option<Span>)> {
        let mut needed = vec![false; self.vertices.len()];
        self.reachable(target).into_iter().for_each(|id| needed[id.0] = true);
        self.vertices.iter_mut().zip(needed).filter(|(_, needed)| *needed).filter_map(|(vertex, _)| {
            match &mut vertex.op {
                Op::Exec(exec) => Some((exec.as_mut(), vertex.name.as_str(), vertex.origin)),
                _ => None,
            }
        })
    }

    /// How many vertices there are.
    pub fn len(&self) -> usize {
        self.vertices.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.vertices.is_empty()
    }

    /// Which vertices `target` needs, itself included, inputs first.
    pub fn reachable(&self, target: VertexId) -> Vec<VertexId> {
        let mut needed = vec![false; self.vertices.len()];
        needed[target.0] = true;
        for index in (0..=target.0).rev() {
            if needed[index] {
                self.vertices[index].inputs.iter().for_each(|i| needed[i.0] = true);
            }
        }
        (0..self.vertices.len()).filter(|i| needed[*i]).map(VertexId).collect()
    }

    /// What the vertices `target` needs read of local contexts, each with the vertex that reads it.
    pub fn reads(&self, target: VertexId) -> Vec<Read> {
        let of = |id: VertexId| {
            let Vertex { op, name, origin, .. } = self.get(id);
            op.selections().map(|selection| Read { selection: selection.clone(), step: name.clone(), origin: *origin })
        };
        self.reachable(target).into_iter().flat_map(of).collect()
    }
}

/// A step's reading of a local context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// What is read.
    pub selection: Selection,
    /// The name of the vertex.
    pub step: String,
    /// Where the vertex was written.
    pub origin: Option<Span>,
}

impl Op {
    /// What it reads of local contexts.
    pub fn selections(&self) -> impl Iterator<Item = &Selection> {
        let (actions, mounts): (&[FileAction], &[_]) = match self {
            Op::File { actions, .. } => (actions, &[]),
            Op::Exec(exec) => (&[], &exec.mounts),
            _ => (&[], &[]),
        };
        let of_actions = actions.iter().filter_map(|action| match action {
            FileAction::Copy { selection, .. } => selection.as_ref(),
            _ => None,
        });
        let of_mounts = mounts.iter().filter_map(|mount: &crate::ExecMount| match &mount.kind {
            MountKind::Bind { selection, .. } | MountKind::Cache { selection, .. } => selection.as_ref(),
            _ => None,
        });
        of_actions.chain(of_mounts)
    }
}
