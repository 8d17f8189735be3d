//! Moby's patterns: Go's, with `**` for any number of components. A pattern speaks of a whole path.

use super::{PatternError, Set, Token, check_pattern, decode, tokens};

/// A pattern of an ignore file or of `--exclude`, cleaned and without `!`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeepPattern {
    form: Form,
    /// What every path that it matches begins with.
    prefix: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    /// No wildcard: this path.
    Exact,
    /// `…**`: whatever begins so.
    Prefix,
    /// `**…`: whatever ends so; after `**/`, a whole name at least.
    Suffix(Vec<u8>),
    Nodes(Vec<Node>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Char(char),
    /// Any character but `/`.
    One,
    /// Any characters but `/`.
    Star,
    Set(Set),
    /// `**` or `**/` before something: nothing, or anything up to a `/`.
    Deep,
    /// `**` at the end: anything.
    Rest,
}

/// Steps after which a match notes where it was in vain: most need fewer, and no pattern needs many more.
const STEPS_BEFORE_NOTES: usize = 512;

impl DeepPattern {
    /// The pattern `text`.
    pub fn new(text: &str) -> Result<DeepPattern, PatternError> {
        check_pattern(text)?;
        let all = tokens(text)?;
        let mut nodes = Vec::new();
        let mut form = None;
        let mut at = 0;
        while at < all.len() {
            let first = at == 0;
            match &all[at..] {
                [Token::Star, Token::Star, rest @ ..] => {
                    let slash = usize::from(rest.first() == Some(&Token::Char('/')));
                    at += 2 + slash;
                    let last = at == all.len();
                    nodes.push(if last { Node::Rest } else { Node::Deep });
                    form = match (first, last) {
                        (true, _) => Some(Form::Suffix(Vec::new())),
                        (false, true) if form.is_none() => Some(Form::Prefix),
                        _ => Some(Form::Nodes(Vec::new())),
                    };
                    continue;
                }
                [Token::Star, ..] => nodes.push(Node::Star),
                [Token::One, ..] => nodes.push(Node::One),
                [Token::Set(set), ..] => nodes.push(Node::Set(set.clone())),
                [Token::Char(char), ..] => {
                    nodes.push(Node::Char(*char));
                    at += 1;
                    continue;
                }
                [] => {}
            }
            form = Some(Form::Nodes(Vec::new()));
            at += 1;
        }
        let prefix: String = nodes
            .iter()
            .map_while(|node| match node {
                Node::Char(char) => Some(*char),
                _ => None,
            })
            .collect();
        // With an escape in it, `**` at the start speaks of whole components again.
        let escaped = text.contains('\\');
        let form = match form {
            _ if escaped => Form::Nodes(nodes),
            None => Form::Exact,
            Some(Form::Nodes(_)) => Form::Nodes(nodes),
            Some(Form::Suffix(_)) => Form::Suffix(all[2..].iter().map_while(Token::char).collect::<String>().into()),
            Some(form) => form,
        };
        Ok(DeepPattern { form, prefix: prefix.into_bytes() })
    }

    /// Whether it matches the path, relative and with `/`.
    pub fn matches(&self, path: &[u8]) -> bool {
        match &self.form {
            Form::Exact => path == self.prefix,
            Form::Prefix => path.starts_with(&self.prefix),
            Form::Suffix(suffix) => {
                path.ends_with(suffix) || suffix.strip_prefix(b"/").is_some_and(|name| name == path)
            }
            Form::Nodes(nodes) => {
                path.starts_with(&self.prefix) && Matcher { nodes, path, steps: 0, vain: Vec::new() }.from(0, 0)
            }
        }
    }

    /// Whether it could match something below the directory `path`.
    pub fn may_reach(&self, path: &[u8]) -> bool {
        let below = |prefix: &[u8]| prefix.len() > path.len() && prefix.starts_with(path) && prefix[path.len()] == b'/';
        match &self.form {
            Form::Exact => below(&self.prefix),
            _ if self.prefix.len() > path.len() => below(&self.prefix),
            Form::Nodes(nodes) => {
                let slashes = |path: &[u8]| path.iter().filter(|byte| **byte == b'/').count();
                path.starts_with(&self.prefix) && slashes_at_most(nodes).is_none_or(|most| most > slashes(path))
            }
            _ => path.starts_with(&self.prefix),
        }
    }
}

/// How many `/` there are in what the nodes match, unless they match any number.
fn slashes_at_most(nodes: &[Node]) -> Option<usize> {
    let mut count = 0;
    for node in nodes {
        match node {
            Node::Deep | Node::Rest => return None,
            Node::Char('/') => count += 1,
            Node::Set(set) if set.takes('/') => count += 1,
            _ => {}
        }
    }
    Some(count)
}

impl Token {
    fn char(&self) -> Option<char> {
        match self {
            Token::Char(char) => Some(*char),
            _ => None,
        }
    }
}

struct Matcher<'a> {
    nodes: &'a [Node],
    path: &'a [u8],
    steps: usize,
    /// Pairs of node and place from which nothing matched.
    vain: Vec<bool>,
}

impl Matcher<'_> {
    fn from(&mut self, mut node: usize, mut at: usize) -> bool {
        loop {
            let rest = &self.path[at..];
            let Some(current) = self.nodes.get(node) else { return rest.is_empty() };
            let length = match (current, decode(rest)) {
                (Node::Rest, _) => return true,
                (Node::Star | Node::Deep, _) => return self.branch(node, at),
                (Node::Char(wanted), Some((char, length))) if *wanted == char => length,
                (Node::One, Some((char, length))) if char != '/' => length,
                (Node::Set(set), Some((char, length))) if set.takes(char) => length,
                _ => return false,
            };
            node += 1;
            at += length;
        }
    }

    /// Tries each length that the wildcard `node` may have.
    fn branch(&mut self, node: usize, at: usize) -> bool {
        let note = node * (self.path.len() + 1) + at;
        self.steps += 1;
        if self.steps > STEPS_BEFORE_NOTES {
            if self.vain.is_empty() {
                self.vain = vec![false; self.nodes.len() * (self.path.len() + 1)];
            }
            if self.vain[note] {
                return false;
            }
        }
        let deep = self.nodes[node] == Node::Deep;
        let mut end = at;
        let mut found = self.from(node + 1, end);
        while !found {
            let Some((char, length)) = decode(&self.path[end..]) else { break };
            if char == '/' && !deep {
                break;
            }
            end += length;
            found = (!deep || char == '/') && self.from(node + 1, end);
        }
        if !found && !self.vain.is_empty() {
            self.vain[note] = true;
        }
        found
    }
}
