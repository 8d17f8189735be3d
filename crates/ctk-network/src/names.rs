//! Who has which name: what the name server of a container answers by itself. Values in, values out, but for the reading
//! of files.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use simple_dns::rdata::{A, AAAA, PTR, RData};
use simple_dns::{CLASS, Name, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, RCODE, ResourceRecord, TYPE};

use crate::limits::{DNS_TTL_SECONDS, DNS_UDP_BYTES};
use crate::{Error, Networks, files};

/// Where a container's name server is, as docker's users know it.
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// Letters of a short id.
const SHORT_ID: usize = 12;

/// Names that a container can ask for, and their addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    forward: BTreeMap<String, Vec<IpAddr>>,
    reverse: BTreeMap<IpAddr, Vec<String>>,
    subnets: Vec<IpNet>,
    /// Whether other name servers may be asked: not for who has no way out.
    pub(crate) asks_others: bool,
}

/// What is to be done with a question.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// This is the answer.
    Answer(Vec<u8>),
    /// Somebody else has to be asked.
    Forward,
    /// It is no question.
    Ignore,
}

impl Names {
    /// Everybody on the networks of the container with this id.
    pub(crate) fn load(networks: &Networks, id: &str) -> Result<Names, Error> {
        let mut names = Names::default();
        for network in networks.list()? {
            let folder = networks.folder(&network.name);
            let records = folder.records()?;
            if !records.iter().any(|record| record.id == id) {
                continue;
            }
            names.asks_others |= !network.internal;
            if !network.dns_enabled {
                continue;
            }
            names.subnets.extend(network.subnets.iter().map(|subnet| subnet.subnet));
            for record in records {
                let addresses: Vec<IpAddr> = record.addresses().collect();
                let short = record.id.get(..SHORT_ID);
                let own = [Some(record.name.as_str()), Some(record.id.as_str()), short];
                let all = own.into_iter().flatten().chain(record.interface.aliases.iter().map(String::as_str));
                names.add(all, &network.name, &addresses);
            }
        }
        Ok(names)
    }

    fn add<'a>(&mut self, all: impl Iterator<Item = &'a str>, network: &str, addresses: &[IpAddr]) {
        for (position, name) in all.filter(|name| !name.is_empty()).enumerate() {
            let name = name.to_ascii_lowercase();
            if position == 0 {
                for address in addresses {
                    self.reverse.entry(*address).or_default().push(name.clone());
                }
            }
            for name in [format!("{name}.{}", network.to_ascii_lowercase()), name] {
                let known = self.forward.entry(name).or_default();
                known.extend(addresses.iter().filter(|address| !known.contains(address)).copied().collect::<Vec<_>>());
            }
        }
    }

    /// Answers a question, or says who can. `turn` rotates the addresses that share a name.
    pub(crate) fn answer(&self, bytes: &[u8], over_tcp: bool, turn: usize) -> Verdict {
        let Some(id) = bytes.first_chunk::<2>().map(|id| u16::from_be_bytes(*id)) else { return Verdict::Ignore };
        // Answers are not answered: two name servers would never stop.
        if bytes.len() < 12 || bytes[2] & 0x80 != 0 {
            return Verdict::Ignore;
        }
        let Ok(query) = Packet::parse(bytes) else { return refusal(id, RCODE::FormatError) };
        if query.opcode() != OPCODE::StandardQuery {
            return refusal(id, RCODE::NotImplemented);
        }
        let [question] = query.questions.as_slice() else { return refusal(id, RCODE::FormatError) };
        let is_internet = matches!(question.qclass, QCLASS::CLASS(CLASS::IN) | QCLASS::ANY);
        let name = question.qname.to_string().to_ascii_lowercase();
        let others =
            || if self.asks_others { Verdict::Forward } else { reply(&query, RCODE::Refused, Vec::new(), true) };
        if !is_internet {
            return others();
        }
        if let Some(addresses) = self.forward.get(&name) {
            let data = |address: IpAddr| match (address, question.qtype) {
                (IpAddr::V4(address), QTYPE::TYPE(TYPE::A) | QTYPE::ANY) => Some(RData::A(A::from(address))),
                (IpAddr::V6(address), QTYPE::TYPE(TYPE::AAAA) | QTYPE::ANY) => Some(RData::AAAA(AAAA::from(address))),
                _ => None,
            };
            let mut data: Vec<RData<'_>> = addresses.iter().copied().filter_map(data).collect();
            let count = data.len();
            data.rotate_left(turn % count.max(1));
            return reply(&query, RCODE::NoError, data, over_tcp);
        }
        if let Some(address) = reverse_address(&name)
            && matches!(question.qtype, QTYPE::TYPE(TYPE::PTR) | QTYPE::ANY)
        {
            if let Some(names) = self.reverse.get(&address) {
                let data = names.iter().filter_map(|name| Name::new(name).ok()).map(|name| RData::PTR(PTR(name)));
                return reply(&query, RCODE::NoError, data.collect(), over_tcp);
            }
            // Nobody else knows our addresses, or should hear of them.
            if self.subnets.iter().any(|net| net.contains(&address)) {
                return reply(&query, RCODE::NameError, Vec::new(), over_tcp);
            }
        }
        others()
    }
}

/// Says that a question cannot be answered, by its own bytes.
pub(crate) fn failure(bytes: &[u8]) -> Option<Vec<u8>> {
    let query = Packet::parse(bytes).ok()?;
    match reply(&query, RCODE::ServerFailure, Vec::new(), true) {
        Verdict::Answer(bytes) => Some(bytes),
        _ => None,
    }
}

fn refusal(id: u16, code: RCODE) -> Verdict {
    let mut packet = Packet::new_reply(id);
    *packet.rcode_mut() = code;
    packet.build_bytes_vec().map_or(Verdict::Ignore, Verdict::Answer)
}

fn reply(query: &Packet<'_>, code: RCODE, data: Vec<RData<'_>>, over_tcp: bool) -> Verdict {
    let mut packet = Packet::new_reply(query.id());
    *packet.rcode_mut() = code;
    let mut flags = PacketFlag::RESPONSE | PacketFlag::RECURSION_AVAILABLE;
    if query.has_flags(PacketFlag::RECURSION_DESIRED) {
        flags |= PacketFlag::RECURSION_DESIRED;
    }
    packet.set_flags(flags);
    packet.questions = query.questions.clone();
    if let [question] = query.questions.as_slice() {
        let record = |data| ResourceRecord::new(question.qname.clone(), CLASS::IN, DNS_TTL_SECONDS, data);
        packet.answers = data.into_iter().map(record).collect();
    }
    // What was promised by EDNS, but not less than every client takes (RFC 6891, 6.2.3).
    let room = query.opt().map_or(512, |opt| usize::from(opt.udp_packet_size).clamp(512, DNS_UDP_BYTES));
    let bytes = packet.build_bytes_vec_compressed();
    let Ok(bytes) = bytes else { return Verdict::Ignore };
    if over_tcp || bytes.len() <= room {
        return Verdict::Answer(bytes);
    }
    // Come again over TCP.
    packet.answers.clear();
    packet.set_flags(PacketFlag::TRUNCATION);
    packet.build_bytes_vec_compressed().map_or(Verdict::Ignore, Verdict::Answer)
}

/// The address in a name such as `2.0.88.10.in-addr.arpa`.
fn reverse_address(name: &str) -> Option<IpAddr> {
    if let Some(rest) = name.strip_suffix(".in-addr.arpa") {
        let parts = rest.split('.').rev().map(str::parse::<u8>).collect::<Result<Vec<u8>, _>>().ok()?;
        return Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(parts).ok()?)));
    }
    let rest = name.strip_suffix(".ip6.arpa")?;
    let mut number = 0_u128;
    let mut count = 0;
    for part in rest.split('.').rev() {
        if part.len() != 1 {
            return None;
        }
        number = number << 4 | u128::from(u8::from_str_radix(part, 16).ok()?);
        count += 1;
    }
    (count == 32).then(|| IpAddr::V6(number.into()))
}

/// A name that can be asked for: RFC 1123, and `_`.
pub(crate) fn is_host_name(name: &str) -> bool {
    let is_part = |part: &str| {
        (1..=63).contains(&part.len())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !part.starts_with('-')
    };
    name.len() <= 253 && name.split('.').all(is_part)
}

/// What stands in the file that says whether members changed.
pub(crate) fn generation(networks: &Networks) -> Option<Vec<u8>> {
    files::read(&networks.directory.join("changed"), 64).ok().flatten()
}

#[cfg(test)]
mod tests {
    use simple_dns::Question;

    use super::*;

    fn names() -> Names {
        let mut names = Names { asks_others: true, ..Names::default() };
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        names.subnets = vec!["10.89.0.0/24".parse().unwrap()];
        names.add(["db", "0123456789ab", "store"].into_iter(), "Back", &[address("10.89.0.2"), address("fd00::2")]);
        names.add(["db2", "store"].into_iter(), "Back", &[address("10.89.0.3")]);
        names
    }

    fn question(name: &str, kind: TYPE) -> Vec<u8> {
        let mut packet = Packet::new_query(7);
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        let question = Question::new(Name::new(name).unwrap(), QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false);
        packet.questions.push(question);
        packet.build_bytes_vec().unwrap()
    }

    #[track_caller]
    fn check(names: &Names, name: &str, kind: TYPE, turn: usize, expected: &str) {
        let shown = match names.answer(&question(name, kind), false, turn) {
            Verdict::Answer(bytes) => {
                let packet = Packet::parse(&bytes).unwrap();
                assert!(packet.id() == 7 && packet.questions.len() == 1 && packet.has_flags(PacketFlag::RESPONSE));
                let answers = packet.answers.iter().map(|record| match &record.rdata {
                    RData::A(a) => Ipv4Addr::from(a.address).to_string(),
                    RData::AAAA(a) => std::net::Ipv6Addr::from(a.address).to_string(),
                    RData::PTR(name) => name.0.to_string(),
                    other => format!("{other:?}"),
                });
                format!("{:?} {}", packet.rcode(), answers.collect::<Vec<_>>().join(" ")).trim_end().to_owned()
            }
            other => format!("{other:?}"),
        };
        assert_eq!(shown, expected);
    }

    #[test]
    fn names_ids_and_aliases_are_answered() {
        let names = names();
        check(&names, "db", TYPE::A, 0, "NoError 10.89.0.2");
        check(&names, "DB", TYPE::A, 0, "NoError 10.89.0.2");
        check(&names, "db", TYPE::AAAA, 0, "NoError fd00::2");
        check(&names, "0123456789ab", TYPE::A, 0, "NoError 10.89.0.2");
        check(&names, "db.back", TYPE::A, 0, "NoError 10.89.0.2");
        check(&names, "db2", TYPE::AAAA, 0, "NoError");
        check(&names, "db2", TYPE::MX, 0, "NoError");
        check(&names, "2.0.89.10.in-addr.arpa", TYPE::PTR, 0, "NoError db");
        check(&names, "9.0.89.10.in-addr.arpa", TYPE::PTR, 0, "NameError");
        check(&names, "9.0.90.10.in-addr.arpa", TYPE::PTR, 0, "Forward");
        check(&names, "example.test", TYPE::A, 0, "Forward");
        let reverse = format!("2.{}0.0.d.f.ip6.arpa", "0.".repeat(27));
        check(&names, &reverse, TYPE::PTR, 0, "NoError db");
    }

    #[test]
    fn shared_aliases_take_turns() {
        let names = names();
        check(&names, "store", TYPE::A, 0, "NoError 10.89.0.2 10.89.0.3");
        check(&names, "store", TYPE::A, 1, "NoError 10.89.0.3 10.89.0.2");
    }

    #[test]
    fn who_has_no_way_out_asks_nobody_else() {
        let names = Names { asks_others: false, ..names() };
        check(&names, "example.test", TYPE::A, 0, "Refused");
        check(&names, "db", TYPE::A, 0, "NoError 10.89.0.2");
    }

    #[test]
    fn what_is_no_question_is_no_trouble() {
        let names = names();
        assert_eq!(names.answer(&[], false, 0), Verdict::Ignore);
        assert_eq!(names.answer(&[0; 11], false, 0), Verdict::Ignore);
        let mut answer = question("db", TYPE::A);
        answer[2] |= 0x80;
        assert_eq!(names.answer(&answer, false, 0), Verdict::Ignore);
        let mut cut = question("db", TYPE::A);
        cut.truncate(14);
        let Verdict::Answer(bytes) = names.answer(&cut, false, 0) else { panic!("a refusal") };
        assert_eq!(Packet::parse(&bytes).unwrap().rcode(), RCODE::FormatError);
    }

    #[test]
    fn an_answer_that_does_not_fit_sends_to_tcp() {
        let mut names = names();
        let many: Vec<IpAddr> = (0..200).map(|last| IpAddr::V4(Ipv4Addr::new(10, 89, 0, last))).collect();
        names.add(["many"].into_iter(), "back", &many);
        let Verdict::Answer(bytes) = names.answer(&question("many", TYPE::A), false, 0) else { panic!("an answer") };
        let packet = Packet::parse(&bytes).unwrap();
        assert!(packet.has_flags(PacketFlag::TRUNCATION) && packet.answers.is_empty());
        let Verdict::Answer(bytes) = names.answer(&question("many", TYPE::A), true, 0) else { panic!("an answer") };
        assert_eq!(Packet::parse(&bytes).unwrap().answers.len(), 200);
    }

    #[test]
    fn aliases_are_host_names() {
        for (name, expected) in
            [("db", true), ("a.b-c_d", true), ("", false), ("a..b", false), ("-a", false), ("a b", false)]
        {
            assert_eq!(is_host_name(name), expected, "{name}");
        }
    }
}
