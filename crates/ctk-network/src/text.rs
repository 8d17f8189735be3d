//! The forms in which people write addresses and ports.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::PORTS_PUBLISHED;
use crate::{AddressRange, Error, HostAddress, Join, MacAddress, Port, Protocol};

fn invalid<T>(what: &'static str, text: &str, expected: &'static str) -> Result<T, Error> {
    Err(Error::Invalid { what, text: text.into(), expected })
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddress {
    type Err = Error;

    /// Six bytes in hexadecimal, between `:` or `-`; of one device, not of a group.
    fn from_str(text: &str) -> Result<MacAddress, Error> {
        let parts: Vec<&str> = text.split([':', '-']).collect();
        let byte = |part: &&str| if part.len() == 2 { u8::from_str_radix(part, 16).ok() } else { None };
        let bytes: Option<Vec<u8>> = parts.iter().map(byte).collect();
        match bytes.and_then(|bytes| <[u8; 6]>::try_from(bytes).ok()) {
            Some(bytes) if bytes[0] & 1 == 0 && bytes != [0; 6] => Ok(MacAddress(bytes)),
            Some(_) => invalid("MAC address", text, "the address of one device: an even first byte, not all zero"),
            None => invalid("MAC address", text, "six bytes such as 02:42:ac:11:00:02"),
        }
    }
}

impl Serialize for MacAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MacAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<MacAddress, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Protocol {
    /// Its number in the IP header.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        })
    }
}

impl FromStr for Protocol {
    type Err = Error;

    fn from_str(text: &str) -> Result<Protocol, Error> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Protocol::Tcp),
            "udp" => Ok(Protocol::Udp),
            "sctp" => Ok(Protocol::Sctp),
            _ => invalid("protocol", text, "tcp, udp or sctp"),
        }
    }
}

impl FromStr for Port {
    type Err = Error;

    /// `[[ADDRESS:][HOST[-HOST]]:]CONTAINER[-CONTAINER][/PROTOCOL]`, an IPv6 address in brackets.
    fn from_str(text: &str) -> Result<Port, Error> {
        const FORM: &str = "[[ADDRESS:]HOST:]CONTAINER[/tcp|udp|sctp], ranges as FIRST-LAST, an IPv6 address in []";
        let fail = || Error::Invalid { what: "published port", text: text.into(), expected: FORM };
        let (ports, protocol) = text.rsplit_once('/').unwrap_or((text, "tcp"));
        let protocol = protocol.parse::<Protocol>().map_err(|_| fail())?;
        let (address, ports) = match ports.strip_prefix('[') {
            Some(rest) => rest.split_once("]:").map(|(address, ports)| (Some(address), ports)).ok_or_else(fail)?,
            None if ports.matches(':').count() == 2 => {
                ports.split_once(':').map(|(address, ports)| (Some(address), ports)).ok_or_else(fail)?
            }
            None => (None, ports),
        };
        let host_address = match address {
            None | Some("") => None,
            Some(address) => Some(address.parse::<IpAddr>().map_err(|_| fail())?),
        };
        let (host, container) = match ports.split_once(':') {
            Some((host, container)) => (host, container),
            None if address.is_none() => ("", ports),
            None => return Err(fail()),
        };
        let container = port_range(container).filter(|(first, _)| *first > 0).ok_or_else(fail)?;
        let host = match host {
            "" | "0" => None,
            host => Some(port_range(host).filter(|(first, _)| *first > 0).ok_or_else(fail)?),
        };
        let count = |(first, last): (u16, u16)| usize::from(last - first) + 1;
        if count(container) > PORTS_PUBLISHED {
            return Err(Error::TooMany { what: "ports published by one option", limit: PORTS_PUBLISHED });
        }
        match host {
            Some(host) if count(host) != count(container) && count(container) != 1 => invalid(
                "published port",
                text,
                "as many ports of the host as of the container, or one of the container and a range to choose from",
            ),
            host => Ok(Port { host_address, host, container, protocol }),
        }
    }
}

fn port_range(text: &str) -> Option<(u16, u16)> {
    let number = |text: &str| if text.starts_with('+') { None } else { text.parse::<u16>().ok() };
    match text.split_once('-') {
        Some((first, last)) => Some((number(first)?, number(last)?)).filter(|(first, last)| first <= last),
        None => number(text).map(|port| (port, port)),
    }
}

impl FromStr for Join {
    type Err = Error;

    /// `NETWORK[:OPTION[,OPTION]…]` with `ip=` and `ip6=`, `mac=`, `alias=` and `interface_name=`, as podman has it; an
    /// `ip=` may be of either family, and `alias=` there several times.
    fn from_str(text: &str) -> Result<Join, Error> {
        const OPTIONS: &str =
            "ip=ADDRESS, ip6=ADDRESS, mac=ADDRESS, alias=NAME, interface_name=NAME, each behind a `,`";
        let fail = || Error::Invalid { what: "network of a container", text: text.into(), expected: OPTIONS };
        let (network, options) = text.split_once(':').unwrap_or((text, ""));
        let mut join = Join { network: network.into(), ..Join::default() };
        for option in options.split(',').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').ok_or_else(fail)?;
            match (name, value.parse::<IpAddr>()) {
                ("ip", Ok(IpAddr::V4(address))) => join.ipv4 = Some(address),
                ("ip" | "ip6", Ok(IpAddr::V6(address))) => join.ipv6 = Some(address),
                ("mac" | "mac_address", _) => join.mac = Some(value.parse()?),
                ("alias", _) if !value.is_empty() => join.aliases.push(value.into()),
                ("interface_name", _) => join.interface = Some(value.into()),
                _ => return Err(fail()),
            }
        }
        Ok(join)
    }
}

impl FromStr for AddressRange {
    type Err = Error;

    /// `FIRST-LAST` or a subnet.
    fn from_str(text: &str) -> Result<AddressRange, Error> {
        if let Ok(net) = text.parse::<ipnet::IpNet>() {
            return Ok(AddressRange { first: net.network(), last: net.broadcast() });
        }
        let pair = text.split_once('-').and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
        match pair {
            Some((IpAddr::V4(first), IpAddr::V4(last))) if first <= last => {
                Ok(AddressRange { first: first.into(), last: last.into() })
            }
            Some((IpAddr::V6(first), IpAddr::V6(last))) if first <= last => {
                Ok(AddressRange { first: first.into(), last: last.into() })
            }
            _ => invalid("range of addresses", text, "a subnet such as 10.89.0.128/25, or FIRST-LAST"),
        }
    }
}

impl FromStr for HostAddress {
    type Err = Error;

    fn from_str(text: &str) -> Result<HostAddress, Error> {
        if text == "host-gateway" {
            return Ok(HostAddress::Gateway);
        }
        let address = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        match address.parse() {
            Ok(address) => Ok(HostAddress::Address(address)),
            Err(_) => invalid("address of a host", text, "an IP address or host-gateway"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let shown = text.parse::<Port>().map_or_else(
            |error| error.to_string().split(';').next().unwrap_or_default().to_owned(),
            |port| format!("{:?} {:?} {:?} {}", port.host_address, port.host, port.container, port.protocol),
        );
        assert_eq!(shown, expected);
    }

    #[test]
    fn ports_are_read_as_their_users_write_them() {
        check("80", "None None (80, 80) tcp");
        check("8080:80", "None Some((8080, 8080)) (80, 80) tcp");
        check(":80/udp", "None None (80, 80) udp");
        check("127.0.0.1:8080:80", "Some(127.0.0.1) Some((8080, 8080)) (80, 80) tcp");
        check("127.0.0.1::80", "Some(127.0.0.1) None (80, 80) tcp");
        check("[::1]:8080:80/sctp", "Some(::1) Some((8080, 8080)) (80, 80) sctp");
        check("8000-8010:80", "None Some((8000, 8010)) (80, 80) tcp");
        check("8000-8002:90-92", "None Some((8000, 8002)) (90, 92) tcp");
    }

    #[test]
    fn wrong_ports_are_refused() {
        for text in ["", "0", "a", "80/x", "1:2:3:4", "70000", "9-8", "+80", "127.0.0.1:80:", "[::1:80:80", "x:1:2"] {
            check(text, &format!("invalid published port `{text}`"));
        }
        check("8000-8001:90-92", "invalid published port `8000-8001:90-92`");
        check("1-65535", "ports published by one option: more than the limit of 4096");
    }

    #[test]
    fn networks_have_options() {
        let join: Join = "back:ip=10.0.0.7,ip=fd00::7,mac=02:00:00:00:00:01,alias=db,alias=store".parse().unwrap();
        assert_eq!((join.network.as_str(), join.aliases.len()), ("back", 2));
        assert_eq!((join.ipv4, join.ipv6), (Some([10, 0, 0, 7].into()), Some("fd00::7".parse().unwrap())));
        assert_eq!("back".parse::<Join>().unwrap(), Join { network: "back".into(), ..Join::default() });
        for text in ["back:ip", "back:ip=x", "back:ip6=10.0.0.1", "back:what=1", "back:alias=", "back:mac=1"] {
            assert!(text.parse::<Join>().is_err(), "{text}");
        }
    }

    #[test]
    fn hardware_addresses_are_of_one_device() {
        assert_eq!("02:42:AC-11:00:02".parse::<MacAddress>().unwrap().to_string(), "02:42:ac:11:00:02");
        for text in ["03:42:ac:11:00:02", "0:42:ac:11:00:02", "02:42:ac:11:00", "00:00:00:00:00:00", "+2:42:ac:11:0:02"]
        {
            assert!(text.parse::<MacAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn ranges_are_subnets_or_first_and_last() {
        let range: AddressRange = "10.89.0.128/25".parse().unwrap();
        assert_eq!((range.first.to_string(), range.last.to_string()), ("10.89.0.128".into(), "10.89.0.255".into()));
        assert!("10.0.0.9-10.0.0.3".parse::<AddressRange>().is_err());
        assert!("10.0.0.9-fd00::3".parse::<AddressRange>().is_err());
    }
}
