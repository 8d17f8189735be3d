//! A client of D-Bus, as much as talking with systemd needs: one connection, calls that wait for their answers, and the
//! signals that come in between.
//!
//! A message (D-Bus specification, "Message Protocol") is a header of 12 bytes, an array of header fields, zeros up to a
//! multiple of 8, and the body. Every value begins at a multiple of its own alignment; what types a body has, a signature
//! of letters says. Both ends are on one machine: the byte order is its own.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use crate::limits::{BUS_MESSAGE_BYTES, BUS_WAIT};

/// Something that a message carries.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `y`.
    Byte(u8),
    /// `b`.
    Bool(bool),
    /// `n`.
    Int16(i16),
    /// `q`.
    Uint16(u16),
    /// `i`.
    Int32(i32),
    /// `u`.
    Uint32(u32),
    /// `x`.
    Int64(i64),
    /// `t`.
    Uint64(u64),
    /// `d`.
    Double(f64),
    /// `s`.
    Text(String),
    /// `o`.
    Path(String),
    /// `g`.
    Signature(String),
    /// `a`: the signature of an element, and all of them.
    Array(String, Vec<Value>),
    /// `(…)`.
    Structure(Vec<Value>),
    /// `v`.
    Variant(Box<Value>),
}

/// Why a call has no answer.
#[derive(Debug)]
pub enum Failure {
    /// The connection does not work.
    Connection(io::Error),
    /// The other end says no.
    Refused {
        /// As `org.freedesktop.systemd1.NoSuchUnit`.
        name: String,
        /// For people.
        message: String,
    },
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Connection(error)
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

impl Value {
    /// The letters of its type.
    pub fn signature(&self) -> String {
        match self {
            Value::Byte(_) => "y".into(),
            Value::Bool(_) => "b".into(),
            Value::Int16(_) => "n".into(),
            Value::Uint16(_) => "q".into(),
            Value::Int32(_) => "i".into(),
            Value::Uint32(_) => "u".into(),
            Value::Int64(_) => "x".into(),
            Value::Uint64(_) => "t".into(),
            Value::Double(_) => "d".into(),
            Value::Text(_) => "s".into(),
            Value::Path(_) => "o".into(),
            Value::Signature(_) => "g".into(),
            Value::Array(element, _) => format!("a{element}"),
            Value::Structure(fields) => format!("({})", fields.iter().map(Value::signature).collect::<String>()),
            Value::Variant(_) => "v".into(),
        }
    }

    /// A list of words.
    pub fn texts(words: &[&str]) -> Value {
        Value::Array("s".into(), words.iter().map(|word| Value::Text((*word).into())).collect())
    }

    fn write(&self, into: &mut Vec<u8>) {
        align(into, alignment(self.signature().as_bytes().first().copied().unwrap_or(b'y')));
        match self {
            Value::Byte(value) => into.push(*value),
            Value::Bool(value) => into.extend(u32::from(*value).to_ne_bytes()),
            Value::Int16(value) => into.extend(value.to_ne_bytes()),
            Value::Uint16(value) => into.extend(value.to_ne_bytes()),
            Value::Int32(value) => into.extend(value.to_ne_bytes()),
            Value::Uint32(value) => into.extend(value.to_ne_bytes()),
            Value::Int64(value) => into.extend(value.to_ne_bytes()),
            Value::Uint64(value) => into.extend(value.to_ne_bytes()),
            Value::Double(value) => into.extend(value.to_ne_bytes()),
            Value::Text(text) | Value::Path(text) => {
                into.extend((text.len() as u32).to_ne_bytes());
                into.extend(text.as_bytes());
                into.push(0);
            }
            Value::Signature(text) => {
                into.push(text.len() as u8);
                into.extend(text.as_bytes());
                into.push(0);
            }
            Value::Array(element, values) => {
                let length = into.len();
                into.extend([0; 4]);
                // Zeros before the first element do not count.
                align(into, alignment(element.as_bytes().first().copied().unwrap_or(b'y')));
                let start = into.len();
                values.iter().for_each(|value| value.write(into));
                let bytes = (into.len() - start) as u32;
                if let Some(place) = into.get_mut(length..length + 4) {
                    place.copy_from_slice(&bytes.to_ne_bytes());
                }
            }
            Value::Structure(fields) => fields.iter().for_each(|field| field.write(into)),
            Value::Variant(value) => {
                Value::Signature(value.signature()).write(into);
                value.write(into);
            }
        }
    }

    /// From the text form of GVariant, as annotations have it: `true`, `'words'`, `uint32 7`, `['a', 'b']`, `(1, 'x')`.
    /// The error is a sentence.
    pub fn parse(text: &str) -> Result<Value, String> {
        let mut parser = Parser { text, at: 0, depth: 0 };
        let value = parser.value()?;
        parser.space();
        match parser.rest() {
            "" => Ok(value),
            more => Err(format!("`{more}` is too much")),
        }
    }
}

/// Zeros up to a multiple.
fn align(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}

fn alignment(letter: u8) -> usize {
    match letter {
        b'n' | b'q' => 2,
        b'b' | b'i' | b'u' | b's' | b'o' | b'a' | b'h' => 4,
        b'x' | b't' | b'd' | b'(' | b'{' => 8,
        _ => 1,
    }
}

/// Nested values of one text.
const DEPTH: usize = 16;

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn takes(&mut self, word: &str) -> bool {
        self.space();
        let there = self.rest().starts_with(word);
        self.at += if there { word.len() } else { 0 };
        there
    }

    fn value(&mut self) -> Result<Value, String> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(format!("is nested deeper than {DEPTH}"));
        }
        let value = self.one();
        self.depth -= 1;
        value
    }

    fn one(&mut self) -> Result<Value, String> {
        self.space();
        match self.rest().chars().next() {
            None => Err("a value is missing".into()),
            Some(quote @ ('\'' | '"')) => self.quoted(quote).map(Value::Text),
            Some('[') => {
                let values = self.list("[", "]")?;
                let element = values.first().map(Value::signature);
                let element = element.ok_or("an empty list needs its type, as `@as []`")?;
                match values.iter().all(|value| value.signature() == element) {
                    true => Ok(Value::Array(element, values)),
                    false => Err("the values of a list must have one type".into()),
                }
            }
            Some('(') => Ok(Value::Structure(self.list("(", ")")?)),
            Some('<') => {
                self.takes("<");
                let value = self.value()?;
                if self.takes(">") { Ok(Value::Variant(Box::new(value))) } else { Err("`>` is missing".into()) }
            }
            Some('@') => self.typed(),
            Some(_) => self.word(),
        }
    }

    fn quoted(&mut self, quote: char) -> Result<String, String> {
        let mut found = String::new();
        let mut letters = self.rest().char_indices().skip(1);
        while let Some((at, letter)) = letters.next() {
            match letter {
                '\\' => found.extend(letters.next().map(|(_, letter)| match letter {
                    'n' => '\n',
                    't' => '\t',
                    other => other,
                })),
                letter if letter == quote => {
                    self.at += at + 1;
                    return Ok(found);
                }
                other => found.push(other),
            }
        }
        Err("the closing quote is missing".into())
    }

    fn list(&mut self, open: &str, close: &str) -> Result<Vec<Value>, String> {
        let mut values = Vec::new();
        self.takes(open);
        while !self.takes(close) {
            values.push(self.value()?);
            if !self.takes(",") && !self.rest().trim_start().starts_with(close) {
                return Err(format!("`{close}` is missing"));
            }
        }
        Ok(values)
    }

    /// `@t 7`.
    fn typed(&mut self) -> Result<Value, String> {
        self.takes("@");
        let kind = self.rest().split(char::is_whitespace).next().unwrap_or_default();
        self.at += kind.len();
        if let Some(element) = kind.strip_prefix('a') {
            let values = self.list("[", "]")?;
            let values = values.into_iter().map(|value| number_as(value, element)).collect::<Result<Vec<_>, _>>()?;
            return match values.iter().all(|value| value.signature() == element) {
                true => Ok(Value::Array(element.into(), values)),
                false => Err(format!("a value of the list is no `{element}`")),
            };
        }
        let value = self.value()?;
        number_as(value, kind)
    }

    /// `true`, `12`, `uint64 12`.
    fn word(&mut self) -> Result<Value, String> {
        let rest = self.rest();
        let end = rest.find(|c: char| c.is_whitespace() || matches!(c, ',' | ']' | ')' | '>')).unwrap_or(rest.len());
        let word = rest.get(..end).unwrap_or_default();
        self.at += end;
        let named = ["byte", "int16", "uint16", "int32", "uint32", "int64", "uint64", "double"];
        let letters = ["y", "n", "q", "i", "u", "x", "t", "d"];
        if let Some((_, letter)) = named.iter().zip(letters).find(|(name, _)| **name == word) {
            let value = self.value()?;
            return number_as(value, letter);
        }
        match word {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ if word.contains('.') => word.parse().map(Value::Double).map_err(|_| no_value(word)),
            // A number without a type is a 32-bit one; until it is known whether a type goes before it, a larger one.
            _ => match word.parse::<i128>() {
                Ok(number) => match (i32::try_from(number), i64::try_from(number), u64::try_from(number)) {
                    (Ok(number), _, _) => Ok(Value::Int32(number)),
                    (_, Ok(number), _) => Ok(Value::Int64(number)),
                    (_, _, Ok(number)) => Ok(Value::Uint64(number)),
                    _ => Err(no_value(word)),
                },
                Err(_) => Err(no_value(word)),
            },
        }
    }
}

fn no_value(word: &str) -> String {
    format!("`{word}` is no value; words stand in quotes")
}

/// A number as one of another type, if it fits.
fn number_as(value: Value, letter: &str) -> Result<Value, String> {
    let number = match &value {
        Value::Int32(number) => i128::from(*number),
        Value::Int64(number) => i128::from(*number),
        Value::Uint64(number) => i128::from(*number),
        Value::Double(_) if letter == "d" => return Ok(value),
        other if other.signature() == letter => return Ok(value),
        _ => return Err(format!("a value is no `{letter}`")),
    };
    let fits = match letter {
        "y" => u8::try_from(number).map(Value::Byte).ok(),
        "n" => i16::try_from(number).map(Value::Int16).ok(),
        "q" => u16::try_from(number).map(Value::Uint16).ok(),
        "i" => i32::try_from(number).map(Value::Int32).ok(),
        "u" => u32::try_from(number).map(Value::Uint32).ok(),
        "x" => i64::try_from(number).map(Value::Int64).ok(),
        "t" => u64::try_from(number).map(Value::Uint64).ok(),
        "d" => Some(Value::Double(number as f64)),
        _ => None,
    };
    fits.ok_or_else(|| format!("{number} is no `{letter}`"))
}

/// Values in the order of a body.
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, count: usize) -> io::Result<&'a [u8]> {
        let end = self.at.checked_add(count).ok_or_else(|| wrong("a length without end"))?;
        let found = self.bytes.get(self.at..end).ok_or_else(|| wrong("a message that ends too early"))?;
        self.at = end;
        Ok(found)
    }

    fn byte(&mut self) -> io::Result<u8> {
        Ok(self.take(1)?.first().copied().unwrap_or_default())
    }

    /// `u`.
    pub fn number(&mut self) -> io::Result<u32> {
        self.align(4);
        let mut bytes = [0; 4];
        bytes.copy_from_slice(self.take(4)?);
        Ok(u32::from_ne_bytes(bytes))
    }

    /// `s` or `o`.
    pub fn text(&mut self) -> io::Result<String> {
        let length = self.number()? as usize;
        let bytes = self.take(length)?.to_owned();
        self.take(1)?;
        String::from_utf8(bytes).map_err(|_| wrong("a text that is not UTF-8"))
    }

    /// `g`.
    fn signature(&mut self) -> io::Result<String> {
        let length = usize::from(self.byte()?);
        let bytes = self.take(length)?.to_owned();
        self.take(1)?;
        String::from_utf8(bytes).map_err(|_| wrong("a signature that is not UTF-8"))
    }

    /// The texts of an `as` in a `v`.
    pub fn variant_texts(&mut self) -> io::Result<Vec<String>> {
        if self.signature()? != "as" {
            return Err(wrong("a value that is no list of texts"));
        }
        let end = self.number()? as usize + self.at;
        let mut all = Vec::new();
        while self.at < end {
            all.push(self.text()?);
        }
        Ok(all)
    }

    /// The text in a `v`.
    pub fn variant_text(&mut self) -> io::Result<String> {
        match self.signature()?.as_str() {
            "s" | "o" => self.text(),
            _ => Err(wrong("a value that is no text")),
        }
    }
}

/// What came.
#[derive(Debug, Default)]
struct Message {
    kind: u8,
    reply_serial: u32,
    member: String,
    error: String,
    signature: String,
    body: Vec<u8>,
}

const CALL: u8 = 1;
const RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

impl Message {
    /// Reads the fields of a header.
    fn fields(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut reader = Reader::new(bytes);
        while reader.at < bytes.len() {
            reader.align(8);
            if reader.at >= bytes.len() {
                break;
            }
            let code = reader.byte()?;
            match (code, reader.signature()?.as_str()) {
                (5, "u") => self.reply_serial = reader.number()?,
                (8, "g") => self.signature = reader.signature()?,
                (3, "s") => self.member = reader.text()?,
                (4, "s") => self.error = reader.text()?,
                (_, "u") => drop(reader.number()?),
                (_, "g") => drop(reader.signature()?),
                (_, "s" | "o") => drop(reader.text()?),
                _ => return Err(wrong("a header field of an unknown type")),
            }
        }
        Ok(())
    }
}

/// The answer to a call.
#[derive(Debug)]
pub struct Answer(Message);

impl Answer {
    /// Its values.
    pub fn values(&self) -> Reader<'_> {
        Reader::new(&self.0.body)
    }
}

/// Whom a call is for.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The name on the bus.
    pub destination: &'a str,
    /// The object.
    pub path: &'a str,
    /// The interface.
    pub interface: &'a str,
}

/// A connection to a bus, or to one service alone.
pub struct Connection {
    stream: UnixStream,
    serial: u32,
    signals: VecDeque<Message>,
}

impl Connection {
    /// Connects, and says who we are: by what the kernel knows, so that it is true in user namespaces too. `alone` is a
    /// socket of one service, where nobody hands out names. Gives up after [`BUS_WAIT`].
    pub fn open(socket: &Path, alone: bool) -> Result<Connection, Failure> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(BUS_WAIT))?;
        stream.set_write_timeout(Some(BUS_WAIT))?;
        // All in one: systemd that reads the last line together with a message lets the message lie until more comes.
        stream.write_all(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        loop {
            let line = line(&mut stream)?;
            match line.split(' ').next().unwrap_or_default() {
                "DATA" => {}
                "OK" => break,
                _ => return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("it says `{line}`")).into()),
            }
        }
        let mut connection = Connection { stream, serial: 0, signals: VecDeque::new() };
        if !alone {
            connection.call(BUS, "Hello", &[])?;
        }
        Ok(connection)
    }

    /// Asks the bus for signals. Not needed where one service is alone.
    pub fn listen(&mut self, rule: &str) -> Result<(), Failure> {
        self.call(BUS, "AddMatch", &[Value::Text(rule.into())]).map(drop)
    }

    /// Calls, and waits for the answer.
    pub fn call(&mut self, target: Target<'_>, member: &str, values: &[Value]) -> Result<Answer, Failure> {
        self.serial += 1;
        self.stream.write_all(&call(self.serial, target, member, values))?;
        let deadline = Instant::now() + BUS_WAIT;
        loop {
            let message = self.receive(deadline)?;
            match message.kind {
                RETURN if message.reply_serial == self.serial => return Ok(Answer(message)),
                ERROR if message.reply_serial == self.serial => {
                    let text = if message.signature.starts_with('s') {
                        Reader::new(&message.body).text()?
                    } else {
                        String::new()
                    };
                    return Err(Failure::Refused { name: message.error, message: text });
                }
                SIGNAL => self.signals.push_back(message),
                _ => {}
            }
        }
    }

    /// Waits for a signal of this name that `accepts` takes. Those before it are forgotten.
    pub fn wait_for<T>(
        &mut self,
        member: &str,
        accepts: impl Fn(Reader<'_>) -> io::Result<Option<T>>,
    ) -> Result<T, Failure> {
        let deadline = Instant::now() + BUS_WAIT;
        loop {
            let message = match self.signals.pop_front() {
                Some(message) => message,
                None => self.receive(deadline)?,
            };
            if message.kind == SIGNAL
                && message.member == member
                && let Some(found) = accepts(Reader::new(&message.body))?
            {
                return Ok(found);
            }
        }
    }

    fn receive(&mut self, deadline: Instant) -> io::Result<Message> {
        let rest = deadline.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(rest))?;
        let mut head = [0; 16];
        self.stream.read_exact(&mut head).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
            _ => error,
        })?;
        let number = |at: usize| {
            let mut bytes = [0; 4];
            bytes.copy_from_slice(head.get(at..at + 4).unwrap_or(&[0; 4]));
            u32::from_ne_bytes(bytes) as usize
        };
        let (body, fields) = (number(4), number(12));
        if head.first() != Some(&ORDER) || body > BUS_MESSAGE_BYTES || fields > BUS_MESSAGE_BYTES {
            return Err(wrong("a message of another byte order, or larger than 1 MiB"));
        }
        let mut rest = vec![0; fields.next_multiple_of(8) + body];
        self.stream.read_exact(&mut rest)?;
        let mut message = Message { kind: head.get(1).copied().unwrap_or_default(), ..Message::default() };
        message.fields(rest.get(..fields).unwrap_or_default())?;
        message.body = rest.split_off(fields.next_multiple_of(8));
        Ok(message)
    }
}

const BUS: Target<'static> =
    Target { destination: "org.freedesktop.DBus", path: "/org/freedesktop/DBus", interface: "org.freedesktop.DBus" };

const ORDER: u8 = if cfg!(target_endian = "little") { b'l' } else { b'B' };

/// The bytes of a call.
fn call(serial: u32, target: Target<'_>, member: &str, values: &[Value]) -> Vec<u8> {
    let mut body = Vec::new();
    values.iter().for_each(|value| value.write(&mut body));
    let signature: String = values.iter().map(Value::signature).collect();
    let mut fields = vec![
        (1, Value::Path(target.path.into())),
        (2, Value::Text(target.interface.into())),
        (3, Value::Text(member.into())),
        (6, Value::Text(target.destination.into())),
    ];
    if !signature.is_empty() {
        fields.push((8, Value::Signature(signature)));
    }
    let fields = fields
        .into_iter()
        .map(|(code, value)| Value::Structure(vec![Value::Byte(code), Value::Variant(Box::new(value))]));
    let mut message = vec![ORDER, CALL, 0, 1];
    message.extend((body.len() as u32).to_ne_bytes());
    message.extend(serial.to_ne_bytes());
    Value::Array("(yv)".into(), fields.collect()).write(&mut message);
    align(&mut message, 8);
    message.extend(body);
    message
}

/// A line of the conversation before the messages.
fn line(stream: &mut UnixStream) -> io::Result<String> {
    /// Bytes; those of servers have some 40.
    const LIMIT: usize = 512;
    let mut found = Vec::new();
    let mut byte = [0];
    while !found.ends_with(b"\r\n") {
        stream.read_exact(&mut byte)?;
        found.extend(byte);
        if found.len() > LIMIT {
            return Err(wrong("a line without end"));
        }
    }
    Ok(String::from_utf8_lossy(&found).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn parses(text: &str, expected: Result<Value, &str>) {
        assert_eq!(Value::parse(text), expected.map_err(String::from), "{text}");
    }

    #[test]
    fn texts_are_values() {
        parses("true", Ok(Value::Bool(true)));
        parses(" 'it\\'s' ", Ok(Value::Text("it's".into())));
        parses("\"x\"", Ok(Value::Text("x".into())));
        parses("7", Ok(Value::Int32(7)));
        parses("uint64 18446744073709551615", Ok(Value::Uint64(u64::MAX)));
        parses("@t 5", Ok(Value::Uint64(5)));
        parses("1.5", Ok(Value::Double(1.5)));
        parses("['a', 'b']", Ok(Value::texts(&["a", "b"])));
        parses("@as []", Ok(Value::texts(&[])));
        parses("@at [1, 2]", Ok(Value::Array("t".into(), vec![Value::Uint64(1), Value::Uint64(2)])));
        let pair = Value::Structure(vec![Value::Text("/dev/x".into()), Value::Uint64(9)]);
        parses("[('/dev/x', uint64 9)]", Ok(Value::Array("(st)".into(), vec![pair])));
        parses("yes", Err("`yes` is no value; words stand in quotes"));
        parses("uint32 -1", Err("-1 is no `u`"));
        parses("'x", Err("the closing quote is missing"));
        parses("[]", Err("an empty list needs its type, as `@as []`"));
        parses("[1, 'a']", Err("the values of a list must have one type"));
        parses("true false", Err("`false` is too much"));
        parses("", Err("a value is missing"));
        assert!(Value::parse(&"[".repeat(1000)).is_err());
    }

    #[test]
    fn a_call_has_its_fields_and_every_value_its_place() {
        let target = Target { destination: "a.b", path: "/o", interface: "i.f" };
        let values = [
            Value::Byte(7),
            Value::Array("t".into(), vec![Value::Uint64(1)]),
            Value::Variant(Box::new(Value::Bool(true))),
        ];
        let bytes = call(3, target, "Do", &values);
        // A byte, an array whose length is at 4 and whose element is at 8, a variant: signature of 3 bytes, then at 20.
        let body = [&[7, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, b'b', 0, 0][..], &[1, 0, 0, 0]].concat();
        assert!(cfg!(target_endian = "big") || bytes.ends_with(&body), "{bytes:?}");
        assert_eq!(bytes.len() % 8, body.len() % 8);
        let mut message = Message::default();
        let mut length = [0; 4];
        length.copy_from_slice(&bytes[12..16]);
        message.fields(&bytes[16..16 + u32::from_ne_bytes(length) as usize]).unwrap();
        assert_eq!((message.member.as_str(), message.signature.as_str()), ("Do", "yatv"));
    }

    /// The other end, as systemd's own socket behaves.
    fn answered(with: impl FnOnce(&mut UnixStream) + Send + 'static) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut hello = [0; 29];
            stream.read_exact(&mut hello).unwrap();
            assert_eq!(&hello, b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n");
            with(&mut stream);
            // Until the client is gone.
            let _ = stream.read_to_end(&mut Vec::new());
        });
        (folder, path)
    }

    fn message(kind: u8, serial: u32, values: &[Value]) -> Vec<u8> {
        let field = |code, value| Value::Structure(vec![Value::Byte(code), Value::Variant(Box::new(value))]);
        let fields = vec![
            field(5, Value::Uint32(serial)),
            field(3, Value::Text("Told".into())),
            field(4, Value::Text("x.No".into())),
            field(8, Value::Signature(values.iter().map(Value::signature).collect())),
        ];
        let mut body = Vec::new();
        values.iter().for_each(|value| value.write(&mut body));
        let mut all = vec![ORDER, kind, 0, 1];
        all.extend((body.len() as u32).to_ne_bytes());
        all.extend([0; 4]);
        Value::Array("(yv)".into(), fields).write(&mut all);
        align(&mut all, 8);
        all.extend(body);
        all
    }

    #[test]
    fn answers_errors_and_signals_are_told_apart() {
        let (_folder, path) = answered(|stream| {
            stream.write_all(b"DATA\r\nOK 0123\r\n").unwrap();
            stream.write_all(&message(SIGNAL, 9, &[Value::Uint32(4), Value::Text("early".into())])).unwrap();
            stream.write_all(&message(RETURN, 1, &[Value::Path("/job".into())])).unwrap();
            stream.write_all(&message(ERROR, 2, &[Value::Text("not now".into())])).unwrap();
        });
        let target = Target { destination: "d", path: "/p", interface: "i" };
        let mut connection = Connection::open(&path, true).unwrap();
        assert_eq!(connection.call(target, "Do", &[]).unwrap().values().text().unwrap(), "/job");
        match connection.call(target, "Do", &[]).unwrap_err() {
            Failure::Refused { name, message } => assert_eq!((name.as_str(), message.as_str()), ("x.No", "not now")),
            other => panic!("{other:?}"),
        }
        let found = connection.wait_for("Told", |mut values| {
            values.number()?;
            values.text().map(Some)
        });
        assert_eq!(found.unwrap(), "early");
    }

    #[test]
    fn who_is_not_let_in_is_told_so() {
        let (_folder, path) = answered(|stream| stream.write_all(b"REJECTED EXTERNAL\r\n").unwrap());
        match Connection::open(&path, true).err().unwrap() {
            Failure::Connection(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let (_folder, path) = answered(|stream| {
            stream.write_all(b"OK 0123\r\n").unwrap();
            let mut bytes = message(RETURN, 1, &[]);
            bytes[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
            stream.write_all(&bytes).unwrap();
        });
        let target = Target { destination: "d", path: "/p", interface: "i" };
        let mut connection = Connection::open(&path, true).unwrap();
        assert!(matches!(connection.call(target, "Do", &[]), Err(Failure::Connection(_))));
    }
}
