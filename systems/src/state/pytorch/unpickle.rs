//! A pickle read as torch's `weights_only` reads it: nothing runs, and all that it names is judged.
//!
//! `pytorch_reader`, which reads the numbers, keeps no order, lets keys that are spelled alike collide, passes over
//! what it does not know, and copies a value whenever the pickle refers to it. So it only gets pickles that were read here.

use std::collections::HashMap;
use std::io::{BufRead, ErrorKind, Read};

use super::error::Fault;
use super::value::{Dict, Id, Pickle, Value, Values};

/// Which objects a pickle may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Objects {
    /// Those of `weights_only`.
    WeightsOnly,
    /// Modules as well: objects of any class that have a module's dictionaries.
    Modules,
}

/// Reads one pickle.
pub(super) fn unpickle(from: &mut impl BufRead, objects: Objects) -> Result<Pickle, Fault> {
    let machine = Machine {
        from,
        objects,
        at: 0,
        values: Values::default(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        copied: 0,
    };
    machine.run()
}

/// A value on the stack, and what a copy of it costs: that of all values below it, those with several names counted for
/// each.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub id: Id,
    pub weight: u64,
}

/// Returns what a value weighs that has so many bytes beside itself: every 16 as much as a value.
pub(super) fn weight(bytes: usize) -> u64 {
    1 + bytes as u64 / 16
}

/// What the references of a pickle may copy beside as much as it has bytes: files of `torch.save` copy some 0.4 for each
/// byte, small and large ones, state dicts and whole models.
const FREE: u64 = 256;

/// The stack machine that pickles are written for.
pub(super) struct Machine<'r, R> {
    from: &'r mut R,
    pub objects: Objects,
    /// Bytes that were read.
    at: u64,
    pub values: Values,
    pub stack: Vec<Entry>,
    /// How high the stack was at each mark.
    marks: Vec<usize>,
    memo: HashMap<u32, Entry>,
    /// What all references so far weigh.
    copied: u64,
}

impl<R: BufRead> Machine<'_, R> {
    fn run(mut self) -> Result<Pickle, Fault> {
        loop {
            let [op] = self.array()?;
            if op == b'.' {
                let root = self.pop()?.id;
                return Ok(Pickle { values: self.values, root, bytes: self.at });
            }
            self.step(op)?;
        }
    }

    /// Does what an opcode says. Those that are missing are not in `weights_only` either.
    fn step(&mut self, op: u8) -> Result<(), Fault> {
        match op {
            // PROTO
            0x80 => match self.array()? {
                [2] => Ok(()),
                [other] => self.fail(format!("expected protocol 2, got {other}")),
            },
            b'N' => self.push(Value::None, 1),
            0x88 => self.push(Value::Bool(true), 1),
            0x89 => self.push(Value::Bool(false), 1),
            // BININT, BININT1, BININT2, LONG1, BINFLOAT
            b'J' => {
                let number = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(number.into()), 1)
            }
            b'K' => {
                let [number] = self.array()?;
                self.push(Value::Int(number.into()), 1)
            }
            b'M' => {
                let number = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(number.into()), 1)
            }
            0x8a => self.long(),
            b'G' => {
                let number = f64::from_be_bytes(self.array()?);
                self.push(Value::Float(number), 1)
            }
            // BINUNICODE, SHORT_BINSTRING
            b'X' => {
                let length = u32::from_le_bytes(self.array()?);
                self.text(length)
            }
            b'U' => {
                let [length] = self.array()?;
                self.text(length.into())
            }
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b')' => self.push(Value::Tuple(Vec::new()), 1),
            0x85..=0x87 => {
                let from = self.stack.len().checked_sub(usize::from(op - 0x84));
                let from = from.filter(|&from| from >= self.floor());
                let Some(from) = from else { return self.fail("the stack is too short") };
                self.tuple(from)
            }
            b't' => {
                let from = self.mark()?;
                self.tuple(from)
            }
            b']' => self.push(Value::List(Vec::new()), 1),
            b'}' => self.push(Value::Dict(Dict::default()), 1),
            // APPEND, APPENDS, SETITEM, SETITEMS
            b'a' => self.append(1),
            b'e' => {
                let from = self.mark()?;
                self.append(self.stack.len() - from)
            }
            b's' => self.set_items(2),
            b'u' => {
                let from = self.mark()?;
                self.set_items(self.stack.len() - from)
            }
            // BINPUT, LONG_BINPUT, BINGET, LONG_BINGET
            b'q' => {
                let [place] = self.array()?;
                self.put(place.into())
            }
            b'r' => {
                let place = u32::from_le_bytes(self.array()?);
                self.put(place)
            }
            b'h' => {
                let [place] = self.array()?;
                self.fetch(place.into())
            }
            b'j' => {
                let place = u32::from_le_bytes(self.array()?);
                self.fetch(place)
            }
            // GLOBAL, BINPERSID, REDUCE, NEWOBJ, BUILD
            b'c' => self.global(),
            b'Q' => self.storage(),
            b'R' => self.reduce(),
            0x81 => {
                self.pop()?;
                let class = self.pop()?.id;
                let name = self.called(class)?;
                let weight = weight(name.len());
                self.push(Value::Opaque(name), weight)
            }
            b'b' => self.build(),
            other => self.fail(format!("weights_only has no opcode 0x{other:02x}")),
        }
    }

    pub(super) fn fail<T>(&self, message: impl Into<String>) -> Result<T, Fault> {
        Err(Fault::Pickle { at: self.at, message: message.into() })
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut read = [0; N];
        match self.from.read_exact(&mut read) {
            Ok(()) => self.at += N as u64,
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                return self.fail("the pickle ends early");
            }
            Err(error) => return Err(error.into()),
        }
        Ok(read)
    }

    /// Reads so many bytes; memory grows with those that are there.
    fn bytes(&mut self, length: u32) -> Result<Vec<u8>, Fault> {
        let mut read = Vec::new();
        self.from.by_ref().take(length.into()).read_to_end(&mut read)?;
        self.at += read.len() as u64;
        if read.len() as u64 != u64::from(length) {
            return self.fail(format!("expected {length} bytes, got {}", read.len()));
        }
        Ok(read)
    }

    pub(super) fn line(&mut self) -> Result<String, Fault> {
        let mut read = Vec::new();
        self.from.read_until(b'\n', &mut read)?;
        self.at += read.len() as u64;
        match (read.pop(), String::from_utf8(read)) {
            (Some(b'\n'), Ok(line)) => Ok(line),
            _ => self.fail("expected a line of UTF-8"),
        }
    }

    pub(super) fn push(&mut self, value: Value, weight: u64) -> Result<(), Fault> {
        match self.values.push(value) {
            Some(id) => self.stack.push(Entry { id, weight }),
            None => return self.fail("too many values"),
        }
        Ok(())
    }

    /// How high the stack is below what came after the last mark.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    pub(super) fn pop(&mut self) -> Result<Entry, Fault> {
        match self.stack.len() > self.floor() {
            true => self.stack.pop().map_or_else(|| self.fail("the stack is empty"), Ok),
            false => self.fail("the stack is empty"),
        }
    }

    pub(super) fn top(&mut self) -> Result<&mut Entry, Fault> {
        let at = self.at;
        let is_there = self.stack.len() > self.floor();
        let top = self.stack.last_mut().filter(|_| is_there);
        top.ok_or_else(|| Fault::Pickle { at, message: "the stack is empty".to_owned() })
    }

    fn mark(&mut self) -> Result<usize, Fault> {
        self.marks.pop().map_or_else(|| self.fail("no mark is left"), Ok)
    }

    fn long(&mut self) -> Result<(), Fault> {
        let [length] = self.array()?;
        let bytes = self.bytes(length.into())?;
        let sign = bytes.last().map_or(0, |last| if last & 0x80 == 0 { 0 } else { 0xff });
        let mut number = [sign; 8];
        let Some(own) = number.get_mut(..bytes.len()) else {
            return self.push(Value::Opaque("long int".into()), 1);
        };
        own.copy_from_slice(&bytes);
        self.push(Value::Int(i64::from_le_bytes(number)), 1)
    }

    fn text(&mut self, length: u32) -> Result<(), Fault> {
        match String::from_utf8(self.bytes(length)?) {
            Ok(text) => self.push(Value::Text(text.into()), weight(length as usize)),
            Err(_) => self.fail("expected UTF-8"),
        }
    }

    fn tuple(&mut self, from: usize) -> Result<(), Fault> {
        let items = self.stack.split_off(from);
        let weight = items.iter().map(|item| item.weight).sum::<u64>();
        self.push(Value::Tuple(items.iter().map(|item| item.id).collect()), 1 + weight)
    }

    /// Takes so many values from above the container that is to have them.
    fn items(&mut self, n: usize) -> Result<Vec<Entry>, Fault> {
        let from = self.stack.len().checked_sub(n).filter(|&from| from > self.floor());
        let Some(from) = from else { return self.fail("the stack is too short") };
        let items = self.stack.split_off(from);
        let weight = items.iter().map(|item| item.weight).sum::<u64>();
        self.top()?.weight += weight;
        Ok(items)
    }

    fn append(&mut self, n: usize) -> Result<(), Fault> {
        let items = self.items(n)?;
        let id = self.top()?.id;
        match &mut self.values[id] {
            Value::List(list) => list.extend(items.iter().map(|item| item.id)),
            other => {
                let found = other.type_name();
                return self.fail(format!("Can only append to lists, but got {found}"));
            }
        }
        Ok(())
    }

    fn set_items(&mut self, n: usize) -> Result<(), Fault> {
        let items = self.items(n)?;
        let id = self.top()?.id;
        for pair in items.chunks(2) {
            let &[key, value] = pair else { return self.fail("expected pairs of keys and values") };
            let key_weight = key.weight;
            let key = match &self.values[key.id] {
                Value::Text(text) => text.clone(),
                Value::Int(number) => number.to_string().into(),
                other => {
                    let found = other.type_name();
                    return self
                        .fail(format!("expected a key that is a str or an int, got {found}"));
                }
            };
            match &mut self.values[id] {
                Value::Dict(dict) => {
                    dict.weight += key_weight + value.weight;
                    dict.insert(key, value.id)
                        .map_err(|key| Fault::Collision { name: key.to_string() })?;
                }
                other => {
                    let found = other.type_name();
                    return self.fail(format!("Can only set items of dicts, but got {found}"));
                }
            }
        }
        Ok(())
    }

    /// Counts a copy that the reader of the numbers makes.
    pub(super) fn copy(&mut self, weight: u64) -> Result<(), Fault> {
        self.copied = self.copied.saturating_add(weight);
        match self.copied > self.at + FREE {
            true => self.fail("references to what is there already fill more than the pickle"),
            false => Ok(()),
        }
    }

    fn put(&mut self, place: u32) -> Result<(), Fault> {
        let top = *self.top()?;
        self.memo.insert(place, top);
        self.copy(top.weight)
    }

    fn fetch(&mut self, place: u32) -> Result<(), Fault> {
        let Some(&entry) = self.memo.get(&place) else {
            return self.fail(format!("nothing was put at {place}"));
        };
        self.stack.push(entry);
        self.copy(entry.weight)
    }
}

#[cfg(test)]
mod tests {
    use super::super::paths::Paths;
    use super::*;

    fn read(pickle: &[u8]) -> Result<Pickle, Fault> {
        unpickle(&mut &*pickle, Objects::WeightsOnly)
    }

    /// What is wrong with a pickle or with the names in it.
    fn wrong(parts: &[&[u8]]) -> String {
        let found = read(&parts.concat());
        found.and_then(|pickle| Paths::of(&pickle)).unwrap_err().to_string()
    }

    /// `torch.FloatStorage` under a key, and a tensor of it as `OrderedDict` has it: `key: tensor`.
    fn tensor(key: &str) -> Vec<u8> {
        let text =
            |text: &str| [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat();
        let storage = [
            &b"("[..],
            &text("storage"),
            b"ctorch\nFloatStorage\n",
            &text("0"),
            &text("cpu"),
            b"K\x01tQ",
        ];
        let rebuilt =
            [&b"ctorch._utils\n_rebuild_tensor_v2\n("[..], &storage.concat(), b"K\x00)))tR"];
        [text(key), rebuilt.concat()].concat()
    }

    #[test]
    fn dicts_keep_their_order_and_their_attribute() {
        let dict = [
            b"\x80\x02ccollections\nOrderedDict\n)R(".to_vec(),
            tensor("z"),
            tensor("a"),
            b"u".to_vec(),
        ];
        let pickle = [dict.concat(), b"}X\x09\x00\x00\x00_metadata}sb.".to_vec()].concat();
        let read = read(&pickle).unwrap();
        let dict = read.values.dict(read.root).unwrap();
        assert_eq!(dict.keys(), ["z", "a"]);
        assert!(dict.metadata.is_some());
        assert_eq!(read.bytes, pickle.len() as u64);
    }

    #[test]
    fn a_length_that_is_not_there_takes_no_memory() {
        assert!(
            wrong(&[b"\x80\x02X\xff\xff\xff\xffab"]).ends_with("expected 4294967295 bytes, got 2")
        );
        assert!(wrong(&[b"\x80\x02ccollections"]).ends_with("expected a line of UTF-8"));
        assert!(wrong(&[b"\x80\x02J\x01"]).ends_with("the pickle ends early"));
    }

    #[test]
    fn references_that_fill_more_than_the_pickle_are_errors() {
        let text = [&b"X\x00\x10\x00\x00"[..], &[b'a'; 4096]].concat();
        let expected = "references to what is there already fill more than the pickle";
        assert!(
            wrong(&[b"\x80\x02(", &text, b"q\x00", &b"h\x00".repeat(100), b"t."])
                .ends_with(expected)
        );
        // A storage has its key.
        let key = [&b"X\x00\x10\x00\x00"[..], &[b'a'; 4096]].concat();
        let storage =
            [&b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\n"[..], &key, b"NK\x01tQq\x00"];
        let fetched = [b"\x80\x02(", &storage.concat()[..], &b"h\x00".repeat(100), b"t."];
        assert!(wrong(&fetched).ends_with(expected));
        // What is called gives back what it is given.
        let given = b"(NNNNNNNNt";
        let parameter = [&b"ctorch._utils\n_rebuild_parameter\n"[..], given, b"\x85R"].concat();
        assert!(
            wrong(&[b"\x80\x02", &parameter, b"."]).ends_with("expected a parameter of a tensor")
        );
        let dict = b"\x80\x02ccollections\nOrderedDict\n(](NNe]tR.";
        assert!(wrong(&[dict]).ends_with("expected an OrderedDict of nothing"));
        // Each tuple has the one before twice.
        assert!(
            wrong(&[b"\x80\x02)q\x00", &b"h\x00h\x00\x86q\x00".repeat(64), b"."])
                .ends_with(expected)
        );
    }

    #[test]
    fn a_dict_in_itself_and_dicts_in_dicts_have_no_end() {
        let itself = wrong(&[b"\x80\x02}q\x00K\x01h\x00s."]);
        assert!(
            itself.ends_with("values that have several names fill more than the pickle"),
            "{itself}"
        );
        let deep = wrong(&[b"\x80\x02", &b"}K\x01".repeat(300), b"N", &b"s".repeat(300), b"."]);
        assert!(deep.ends_with("expected at most 200 levels"), "{deep}");
        // Lists that were filled after they were put aside, each with the next twice.
        let lists: Vec<u8> = (0..60).flat_map(|at| [b']', b'q', at]).collect();
        let fill = (0..59).rev().flat_map(|at| [b'h', at, b'h', at + 1, b'a', b'h', at + 1, b'a']);
        let doubled = wrong(&[b"\x80\x02(", &lists, b"t", &fill.collect::<Vec<_>>(), b"."]);
        assert!(
            doubled.ends_with("values that have several names fill more than the pickle"),
            "{doubled}"
        );
    }

    #[test]
    fn long_names_of_many_tensors_are_errors() {
        let key = [&b"X\x00\x10\x00\x00"[..], &[b'a'; 4096]].concat();
        let tensors: Vec<u8> = (0..200).flat_map(|at| tensor(&at.to_string())).collect();
        let found = wrong(&[b"\x80\x02}", &key, b"}(", &tensors, b"us."]);
        assert!(found.ends_with("the names of tensors fill more than the pickle"), "{found}");
    }

    #[test]
    fn what_weights_only_does_not_read_is_an_error() {
        assert!(wrong(&[b"\x80\x04N."]).ends_with("expected protocol 2, got 4"));
        assert!(
            wrong(&[b"\x80\x02cos\nsystem\nX\x00\x00\x00\x00\x85R."]).contains("GLOBAL os.system")
        );
        assert!(wrong(&[b"\x80\x02c__builtin__\neval\n."]).contains("GLOBAL builtins.eval"));
        assert!(wrong(&[b"\x80\x02NNR."]).ends_with("expected a class or function, got None"));
        // What a legacy file says of a module's class.
        let class = b"\x80\x02(X\x06\x00\x00\x00moduleNNNNtQ.";
        assert!(wrong(&[class]).ends_with("Only persistent_load of storage is allowed"));
        let attribute = b"\x80\x02ccollections\nOrderedDict\n)R}K\x01Nsb.";
        assert!(
            wrong(&[attribute])
                .ends_with("expected a dict with the attribute _metadata alone, got '1'")
        );
        for underflow in [
            &b"\x80\x02."[..],
            b"\x80\x02a",
            b"\x80\x02(a",
            b"\x80\x02u",
            b"\x80\x02\x87",
            b"\x80\x02N(\x85",
        ] {
            let found = wrong(&[underflow]);
            assert!(found.contains("stack") || found.contains("mark"), "{found}");
        }
    }
}
