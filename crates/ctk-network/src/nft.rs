//! nf_tables over netlink: batches that the kernel takes as a whole or not at all.
//!
//! A primer. Rules stand in chains, chains in a table; a base chain hangs at a hook of the kernel. A rule is a list of
//! expressions that work on 16 registers of four bytes: load (`meta`, `payload`, `ct`, `fib`), compare (`cmp`,
//! `bitwise`, `lookup` in a set), act (`immediate` verdict, `nat`, `masq`). A map is a set with a value for each key.
//! Every message is a netlink header, `nfgenmsg`, and attributes: length, type, value, padded to four bytes; numbers are
//! big-endian, but what stands in registers is as the kernel has it there. `linux/netfilter/nf_tables.h` has the numbers.

use std::io;

use ctk_netlink::limits::NETLINK_BYTES;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

const SUBSYSTEM: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const EXCLUSIVE: u16 = 0x200;
const DUMP: u16 = 0x300;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;

const RANGES: u32 = 4;
const MAP: u32 = 8;
const PARTS: u32 = 0x80;

/// Keys and values in one message; an attribute ends at 64 KiB.
const ELEMENTS: usize = 500;

/// Family of a table for IPv4 and IPv6.
pub(crate) const INET: u8 = 1;
/// Family of a table for IPv4 alone.
pub(crate) const IPV4: u8 = 2;
/// As the kernel numbers IPv6.
pub(crate) const IPV6: u8 = 10;

/// Types of keys and values, as the `nft` program numbers them to show them.
pub(crate) mod kind {
    pub(crate) const IPV4: u32 = 7;
    pub(crate) const IPV6: u32 = 8;
    pub(crate) const PROTOCOL: u32 = 12;
    pub(crate) const PORT: u32 = 13;
    pub(crate) const DEVICE: u32 = 41;

    /// Several beside each other.
    pub(crate) const fn of(parts: &[u32]) -> u32 {
        let (mut all, mut at) = (0, 0);
        while at < parts.len() {
            all = all << 6 | parts[at];
            at += 1;
        }
        all
    }
}

/// Where a base chain hangs.
pub(crate) struct Hook {
    /// `filter` or `nat`.
    pub(crate) kind: &'static str,
    /// 0 prerouting, 1 input, 2 forward, 3 output, 4 postrouting.
    pub(crate) number: u32,
    /// Lower comes first.
    pub(crate) priority: i32,
}

/// What a set holds.
pub(crate) struct SetShape {
    /// Type and bytes of its keys.
    pub(crate) key: (u32, u32),
    /// Type and bytes of its values, if it is a map.
    pub(crate) value: Option<(u32, u32)>,
    /// Bytes of each part of its keys, if they are ranges.
    pub(crate) ranges: &'static [u32],
}

/// A key of a set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) key: Vec<u8>,
    /// The last of the keys, in a set of ranges.
    pub(crate) end: Option<Vec<u8>>,
    /// The value of a map.
    pub(crate) value: Option<Vec<u8>>,
}

/// Keys of a set.
pub(crate) type Elements = Vec<Element>;

/// Messages that become true together.
pub(crate) struct Batch {
    family: u8,
    bytes: Vec<u8>,
    sequence: u32,
    sets: u32,
    /// Where the last message begins.
    last: usize,
}

impl Batch {
    /// An empty one, for a table of a family.
    pub(crate) fn new(family: u8) -> Batch {
        let mut batch = Batch { family, bytes: Vec::new(), sequence: 0, sets: 0, last: 0 };
        batch.begin(BATCH_BEGIN, 0);
        batch.end();
        batch
    }

    fn begin(&mut self, kind: u16, flags: u16) {
        self.last = self.bytes.len();
        let is_batch = kind < SUBSYSTEM;
        let family = if is_batch { 0 } else { self.family };
        let subsystem: u16 = if is_batch { SUBSYSTEM >> 8 } else { 0 };
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(REQUEST | flags).to_ne_bytes());
        self.bytes.extend_from_slice(&self.sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&[family, 0]);
        self.bytes.extend_from_slice(&subsystem.to_be_bytes());
        self.sequence += 1;
    }

    fn end(&mut self) {
        let length = (self.bytes.len() - self.last) as u32;
        self.bytes[self.last..self.last + 4].copy_from_slice(&length.to_ne_bytes());
    }

    fn message(&mut self, kind: u16, flags: u16, attributes: impl FnOnce(&mut Vec<u8>)) {
        self.begin(SUBSYSTEM | kind, flags);
        attributes(&mut self.bytes);
        self.end();
    }

    /// The table, with bytes that we want to find again.
    pub(crate) fn table(&mut self, name: &str, userdata: &[u8]) {
        self.message(0, CREATE, |to| {
            text(to, 1, name);
            if !userdata.is_empty() {
                put(to, 6, userdata);
            }
        });
    }

    /// Removes the table and all in it.
    pub(crate) fn remove_table(&mut self, name: &str) {
        self.message(2, 0, |to| text(to, 1, name));
    }

    /// A chain, at a hook or to be jumped to.
    pub(crate) fn chain(&mut self, table: &str, name: &str, hook: Option<&Hook>) {
        self.message(3, CREATE, |to| {
            text(to, 1, table);
            text(to, 3, name);
            if let Some(hook) = hook {
                nest(to, 4, |to| {
                    number(to, 1, hook.number);
                    number(to, 2, hook.priority as u32);
                });
                number(to, 5, 1);
                text(to, 7, hook.kind);
            }
        });
    }

    /// A rule at the end of a chain.
    pub(crate) fn rule(&mut self, table: &str, chain: &str, rule: &Rule) {
        self.message(6, CREATE | APPEND, |to| {
            text(to, 1, table);
            text(to, 2, chain);
            nest(to, 4, |to| to.extend_from_slice(&rule.0));
        });
    }

    /// A set or map.
    pub(crate) fn set(&mut self, table: &str, name: &str, shape: &SetShape) {
        self.sets += 1;
        let id = self.sets;
        self.message(9, CREATE, |to| {
            text(to, 1, table);
            text(to, 2, name);
            let ranges = if shape.ranges.is_empty() { 0 } else { RANGES | PARTS };
            number(to, 3, if shape.value.is_some() { MAP } else { 0 } | ranges);
            number(to, 4, shape.key.0);
            number(to, 5, shape.key.1);
            if let Some((kind, bytes)) = shape.value {
                number(to, 6, kind);
                number(to, 7, bytes);
            }
            if !shape.ranges.is_empty() {
                nest(to, 9, |to| {
                    nest(to, 2, |to| shape.ranges.iter().for_each(|bytes| nest(to, 1, |to| number(to, 1, *bytes))));
                });
            }
            number(to, 10, id);
            if shape.key.0 == kind::DEVICE {
                put(to, 13, &names_as_they_are());
            }
        });
    }

    /// Keys into a set. `exclusive`: it is an error if one is there.
    pub(crate) fn add(&mut self, table: &str, set: &str, elements: &Elements, exclusive: bool) {
        self.elements(12, CREATE | if exclusive { EXCLUSIVE } else { 0 }, table, set, elements);
    }

    /// Keys out of a set; it is an error if one is not there.
    pub(crate) fn remove(&mut self, table: &str, set: &str, elements: &Elements) {
        self.elements(14, 0, table, set, elements);
    }

    fn elements(&mut self, kind: u16, flags: u16, table: &str, set: &str, elements: &Elements) {
        for part in elements.chunks(ELEMENTS) {
            self.message(kind, flags, |to| {
                text(to, 1, table);
                text(to, 2, set);
                nest(to, 3, |to| {
                    for element in part {
                        nest(to, 1, |to| {
                            nest(to, 1, |to| put(to, 1, &element.key));
                            if let Some(value) = &element.value {
                                nest(to, 2, |to| put(to, 1, value));
                            }
                            if let Some(end) = &element.end {
                                nest(to, 10, |to| put(to, 1, end));
                            }
                        });
                    }
                });
            });
        }
    }

    /// The bytes of all messages, the last of which is acknowledged.
    fn finish(mut self) -> (Vec<u8>, u32) {
        let acknowledged = self.sequence - 1;
        let at = self.last + 6;
        let flags = u16::from_ne_bytes([self.bytes[at], self.bytes[at + 1]]) | ACK;
        self.bytes[at..at + 2].copy_from_slice(&flags.to_ne_bytes());
        self.begin(BATCH_END, 0);
        self.end();
        (self.bytes, acknowledged)
    }
}

/// Tells the `nft` program that keys are not turned round: type 0 is the byte order, 1 the host's.
fn names_as_they_are() -> [u8; 6] {
    let [a, b, c, d] = 1_u32.to_ne_bytes();
    [0, 4, a, b, c, d]
}

/// Expressions of a rule, one after the other.
#[derive(Default)]
pub(crate) struct Rule(Vec<u8>);

/// The first of the four-byte registers, of which there are 16; longer values take several.
pub(crate) const REGISTER: u32 = 8;

/// What `meta` loads.
#[derive(Clone, Copy)]
pub(crate) enum Meta {
    InputName = 6,
    OutputName = 7,
    Family = 15,
    Protocol = 16,
}

impl Rule {
    fn expression(mut self, name: &str, attributes: impl FnOnce(&mut Vec<u8>)) -> Rule {
        nest(&mut self.0, 1, |to| {
            text(to, 1, name);
            nest(to, 2, attributes);
        });
        self
    }

    pub(crate) fn meta(self, what: Meta, register: u32) -> Rule {
        self.expression("meta", |to| {
            number(to, 2, what as u32);
            number(to, 1, register);
        })
    }

    /// Loads bytes of the network header (1) or the transport header (2).
    pub(crate) fn payload(self, header: u32, offset: u32, bytes: u32, register: u32) -> Rule {
        self.expression("payload", |to| {
            number(to, 1, register);
            number(to, 2, header);
            number(to, 3, offset);
            number(to, 4, bytes);
        })
    }

    /// Goes on if a register has this value; if not `equal`, if it has another.
    pub(crate) fn compare(self, register: u32, equal: bool, value: &[u8]) -> Rule {
        self.expression("cmp", |to| {
            number(to, 1, register);
            number(to, 2, u32::from(!equal));
            nest(to, 3, |to| put(to, 1, value));
        })
    }

    /// Keeps only these bits of a register.
    pub(crate) fn mask(self, register: u32, mask: &[u8]) -> Rule {
        self.expression("bitwise", |to| {
            number(to, 1, register);
            number(to, 2, register);
            number(to, 3, mask.len() as u32);
            nest(to, 4, |to| put(to, 1, mask));
            nest(to, 5, |to| put(to, 1, &vec![0; mask.len()]));
        })
    }

    /// Goes on if what the registers hold is in a set; if not `inside`, if it is not.
    pub(crate) fn lookup(self, set: &str, register: u32, inside: bool) -> Rule {
        self.expression("lookup", |to| {
            text(to, 1, set);
            number(to, 2, register);
            if !inside {
                number(to, 5, 1);
            }
        })
    }

    /// Goes on if what the registers hold is in a map, and loads its value.
    pub(crate) fn lookup_value(self, map: &str, register: u32, value: u32) -> Rule {
        self.expression("lookup", |to| {
            text(to, 1, map);
            number(to, 2, register);
            number(to, 3, value);
        })
    }

    /// Loads something about the connection: 0 its state, 2 its status.
    pub(crate) fn connection(self, what: u32, register: u32) -> Rule {
        self.expression("ct", |to| {
            number(to, 2, what);
            number(to, 1, register);
        })
    }

    /// Goes on if the destination is an address of this host.
    pub(crate) fn for_this_host(self) -> Rule {
        let local: u32 = 2;
        let rule = self.expression("fib", |to| {
            number(to, 1, REGISTER);
            number(to, 2, 3);
            number(to, 3, 2);
        });
        rule.compare(REGISTER, true, &local.to_ne_bytes())
    }

    /// Loads a value.
    pub(crate) fn value(self, register: u32, value: &[u8]) -> Rule {
        self.expression("immediate", |to| {
            number(to, 1, register);
            nest(to, 2, |to| put(to, 1, value));
        })
    }

    /// Changes the destination to the address and port in registers.
    pub(crate) fn destination(self, family: u8, address: u32, port: u32) -> Rule {
        self.expression("nat", |to| {
            number(to, 1, 1);
            number(to, 2, u32::from(family));
            number(to, 3, address);
            number(to, 5, port);
            // NF_NAT_RANGE_MAP_IPS and NF_NAT_RANGE_PROTO_SPECIFIED are implied by the registers.
        })
    }

    /// Changes the source to the address of the device that it leaves by.
    pub(crate) fn masquerade(self) -> Rule {
        self.expression("masq", |_| {})
    }

    fn verdict(self, code: i32, chain: Option<&str>) -> Rule {
        self.expression("immediate", |to| {
            number(to, 1, 0);
            nest(to, 2, |to| {
                nest(to, 2, |to| {
                    number(to, 1, code as u32);
                    if let Some(chain) = chain {
                        text(to, 2, chain);
                    }
                });
            });
        })
    }

    pub(crate) fn accept(self) -> Rule {
        self.verdict(1, None)
    }

    pub(crate) fn drop(self) -> Rule {
        self.verdict(0, None)
    }

    pub(crate) fn leave(self) -> Rule {
        self.verdict(-5, None)
    }

    pub(crate) fn jump(self, chain: &str) -> Rule {
        self.verdict(-3, Some(chain))
    }
}

pub(crate) fn put(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
    to.extend_from_slice(&((4 + value.len()) as u16).to_ne_bytes());
    to.extend_from_slice(&kind.to_ne_bytes());
    to.extend_from_slice(value);
    to.resize(to.len().next_multiple_of(4), 0);
}

fn text(to: &mut Vec<u8>, kind: u16, value: &str) {
    let mut bytes = value.as_bytes().to_vec();
    bytes.push(0);
    put(to, kind, &bytes);
}

fn number(to: &mut Vec<u8>, kind: u16, value: u32) {
    put(to, kind, &value.to_be_bytes());
}

pub(crate) fn nest(to: &mut Vec<u8>, kind: u16, inner: impl FnOnce(&mut Vec<u8>)) {
    let start = to.len();
    to.extend_from_slice(&[0; 4]);
    inner(to);
    // Ours stay below 64 KiB: element lists are cut, rules are short.
    let length = u16::try_from(to.len() - start).expect("an attribute is below 64 KiB");
    to[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    to[start + 2..start + 4].copy_from_slice(&(kind | NESTED).to_ne_bytes());
}

/// A connection to the network namespace of the thread that opened it.
pub(crate) struct Nft {
    socket: Socket,
}

impl Nft {
    pub(crate) fn open() -> io::Result<Nft> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Nft { socket })
    }

    /// Makes all of it true, or nothing; the error is the first that a message met.
    pub(crate) fn commit(&self, batch: Batch) -> io::Result<()> {
        let (bytes, acknowledged) = batch.finish();
        // A batch is one datagram.
        let room = bytes.len() * 2 + NETLINK_BYTES;
        rustix::net::sockopt::set_socket_send_buffer_size_force(&self.socket, room)?;
        self.socket.send(&bytes, 0)?;
        let mut failed = None;
        loop {
            let mut answer = Vec::with_capacity(NETLINK_BYTES);
            match self.socket.recv(&mut answer, if failed.is_some() { DO_NOT_WAIT } else { 0 }) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                other => other?,
            };
            // Errors of other messages may wait behind the first: they must not answer the next batch.
            for (kind, sequence, payload) in messages(&answer) {
                let code = payload.first_chunk::<4>().map_or(0, |code| i32::from_ne_bytes(*code));
                match kind {
                    ERROR if code != 0 => failed = failed.or(Some(io::Error::from_raw_os_error(-code))),
                    ERROR if sequence == acknowledged => return failed.map_or(Ok(()), Err),
                    _ => {}
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Whether a set has a key; not if there is no such set, or table.
    pub(crate) fn has(&self, family: u8, table: &str, set: &str, key: &[u8]) -> io::Result<bool> {
        let found = self.ask(family, 13, 0, |to| {
            text(to, 1, table);
            text(to, 2, set);
            nest(to, 3, |to| nest(to, 1, |to| nest(to, 1, |to| put(to, 1, key))));
        });
        found.map(|all| all.is_some_and(|all| !all.is_empty()))
    }

    /// What a set or map has; nothing if there is no such set, or table.
    pub(crate) fn elements(&self, family: u8, table: &str, set: &str) -> io::Result<Elements> {
        let all = self.ask(family, 13, DUMP, |to| {
            text(to, 1, table);
            text(to, 2, set);
        })?;
        let mut elements = Vec::new();
        for message in all.unwrap_or_default() {
            for (_, one) in attributes(attribute(&message, 3).unwrap_or_default()) {
                let data = |kind| attribute(one, kind).and_then(|data| attribute(data, 1)).map(<[u8]>::to_vec);
                elements.extend(data(1).map(|key| Element { key, end: data(10), value: data(2) }));
            }
        }
        Ok(elements)
    }

    /// The bytes that were left with a table, if it is there.
    pub(crate) fn userdata(&self, family: u8, table: &str) -> io::Result<Option<Vec<u8>>> {
        let all = self.ask(family, 1, 0, |to| text(to, 1, table))?;
        Ok(all.map(|all| {
            let found = all.iter().find_map(|message| attribute(message, 6));
            found.map(<[u8]>::to_vec).unwrap_or_default()
        }))
    }

    /// Attributes of the answers; `None` if the kernel says that something of it is not there.
    fn ask(
        &self,
        family: u8,
        kind: u16,
        flags: u16,
        build: impl FnOnce(&mut Vec<u8>),
    ) -> io::Result<Option<Vec<Vec<u8>>>> {
        let mut batch = Batch { family, bytes: Vec::new(), sequence: 1, sets: 0, last: 0 };
        batch.message(kind, flags | ACK, build);
        self.socket.send(&batch.bytes, 0)?;
        let mut all = Vec::new();
        loop {
            let mut answer = Vec::with_capacity(NETLINK_BYTES);
            self.socket.recv(&mut answer, 0)?;
            for (kind, _, payload) in messages(&answer) {
                match kind {
                    ERROR => {
                        let code = payload.first_chunk::<4>().map_or(0, |code| i32::from_ne_bytes(*code));
                        return match -code {
                            0 => Ok(Some(all)),
                            NOT_THERE => Ok(None),
                            code => Err(io::Error::from_raw_os_error(code)),
                        };
                    }
                    DONE => return Ok(Some(all)),
                    _ => all.push(payload.get(4..).unwrap_or_default().to_vec()),
                }
            }
        }
    }
}

pub(crate) const ERROR: u16 = 2;
pub(crate) const DONE: u16 = 3;
const DO_NOT_WAIT: i32 = 0x40;
const NOT_THERE: i32 = rustix::io::Errno::NOENT.raw_os_error();

/// Type, sequence number and payload of each message.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, u32, &[u8])> {
    std::iter::from_fn(move || {
        let header = bytes.first_chunk::<16>()?;
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let sequence = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
        let payload = bytes.get(16..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, sequence, payload))
    })
}

pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = bytes.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|one| one.0 == kind).map(|one| one.1)
}
