//! A file is whole or absent: whatever call of the storage fails, whatever a power failure forgets, whenever its writer is
//! killed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::Duration;
use std::{env, fs};

use neurarch::prelude::*;
use neurarch::state::checkpoint;
use neurarch::state::file::{NewFile, Place, Storage};

/// A folder in memory, of which a power failure leaves what was synced.
#[derive(Clone, Debug, Default)]
struct Memory(Rc<RefCell<Contents>>);

#[derive(Debug, Default)]
struct Contents {
    files: Vec<Bytes>,
    /// Which file has a name.
    names: BTreeMap<PathBuf, usize>,
    /// The same, after a power failure.
    synced_names: BTreeMap<PathBuf, usize>,
    calls: usize,
    /// The number of the call that fails.
    fails_at: usize,
    /// Whether all calls after it fail too, as those of a process that is no more.
    is_last: bool,
}

#[derive(Debug, Default)]
struct Bytes {
    now: Vec<u8>,
    /// The same, after a power failure.
    synced: Vec<u8>,
}

impl Memory {
    /// Counts a call; says whether it fails.
    fn call(&self) -> io::Result<()> {
        let mut contents = self.0.borrow_mut();
        contents.calls += 1;
        let (calls, at) = (contents.calls, contents.fails_at);
        let fails = calls == at || calls > at && contents.is_last;
        if fails { Err(io::Error::other("the storage fails")) } else { Ok(()) }
    }

    /// Returns the bytes of a file, if it is there.
    fn read(&self, path: &str) -> Option<Vec<u8>> {
        let contents = self.0.borrow();
        contents.names.get(Path::new(path)).map(|&file| contents.files[file].now.clone())
    }

    /// Returns what a power failure may leave under a name: the file that had it when the folder was synced, or the one
    /// that has it now.
    fn after_power_failure(&self, path: &str) -> [Option<Vec<u8>>; 2] {
        let contents = self.0.borrow();
        [&contents.synced_names, &contents.names].map(|names| {
            names.get(Path::new(path)).map(|&file| contents.files[file].synced.clone())
        })
    }

    /// Fails at a call, and at all after it if it `is_last`; counts from now on.
    fn fail_at(&self, call: usize, is_last: bool) {
        let mut contents = self.0.borrow_mut();
        (contents.calls, contents.fails_at, contents.is_last) = (0, call, is_last);
    }
}

/// A file that is being written.
#[derive(Debug)]
struct Open {
    memory: Memory,
    file: usize,
    at: usize,
}

impl Write for Open {
    /// One that fails writes a part.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let done = self.memory.call();
        let written = if done.is_ok() { bytes } else { &bytes[..bytes.len() / 2] };
        let now = &mut self.memory.0.borrow_mut().files[self.file].now;
        let end = self.at + written.len();
        now.resize(now.len().max(end), 0);
        now[self.at..end].copy_from_slice(written);
        self.at = end;
        done.map(|()| written.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Open {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let SeekFrom::Start(at) = to else { return Err(io::ErrorKind::Unsupported.into()) };
        self.at = at as usize;
        Ok(at)
    }
}

impl Storage for Memory {
    type File = Open;

    fn find(&self, path: &Path) -> io::Result<Place> {
        self.call()?;
        let is_there = self.0.borrow().names.contains_key(path);
        Ok(Place { target: path.to_owned(), is_there })
    }

    fn create(&self, path: &Path, _: bool) -> io::Result<Option<Open>> {
        self.call()?;
        let mut contents = self.0.borrow_mut();
        let file = contents.files.len();
        contents.files.push(Bytes::default());
        contents.names.insert(path.to_owned(), file);
        Ok(Some(Open { memory: self.clone(), file, at: 0 }))
    }

    fn take_after(&self, _: &Open, _: &Path) -> io::Result<()> {
        self.call()
    }

    fn sync(&self, file: &Open) -> io::Result<()> {
        self.call()?;
        let bytes = &mut self.0.borrow_mut().files[file.file];
        bytes.synced = bytes.now.clone();
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call()?;
        let names = &mut self.0.borrow_mut().names;
        let file = names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        names.insert(to.to_owned(), file);
        Ok(())
    }

    fn sync_folder(&self, _: &Path) -> io::Result<()> {
        self.call()?;
        let mut contents = self.0.borrow_mut();
        contents.synced_names = contents.names.clone();
        Ok(())
    }

    fn list(&self, _: &Path) -> io::Result<Vec<OsString>> {
        self.call()?;
        let contents = self.0.borrow();
        Ok(contents.names.keys().map(|path| path.file_name().unwrap().to_owned()).collect())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call()?;
        let removed = self.0.borrow_mut().names.remove(path);
        removed.map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Nobody else writes here.
    fn remove_abandoned(&self, path: &Path) -> io::Result<()> {
        self.remove(path)
    }
}

/// Writes a header, more than a buffer takes, and then what the header lacked.
fn save(storage: impl Storage, text: u8) -> io::Result<()> {
    let mut file = NewFile::create_in(storage, "folder/file")?;
    file.write_all(&[0; 8])?;
    file.write_all(&[text; 20_000])?;
    file.sync()?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&[text; 8])?;
    file.commit()
}

fn whole(text: u8) -> Option<Vec<u8>> {
    Some(vec![text; 20_008])
}

/// Counts the calls of a save that is not disturbed.
fn calls(memory: &Memory) -> usize {
    memory.fail_at(usize::MAX, false);
    save(memory.clone(), b'a').unwrap();
    memory.0.borrow().calls
}

#[test]
fn whatever_call_fails_a_file_is_the_old_one_or_the_new_one() {
    for (is_last, is_first) in [(false, false), (false, true), (true, false), (true, true)] {
        let n = calls(&Memory::default()) + 1;
        let mut failed = 0;
        for call in 1..=n {
            let memory = Memory::default();
            if !is_first {
                save(memory.clone(), b'a').unwrap();
            }
            let old = memory.read("folder/file");
            memory.fail_at(call, is_last);
            let saved = save(memory.clone(), b'b');
            failed += usize::from(saved.is_err());
            let there = memory.read("folder/file");
            assert!(there == old || there == whole(b'b'), "call {call}");
            for left in memory.after_power_failure("folder/file") {
                match saved {
                    Ok(()) => assert_eq!(left, whole(b'b'), "call {call}: what was saved is lost"),
                    Err(_) => assert!(left == old || left == whole(b'b'), "call {call}: {left:?}"),
                }
            }
            // Nothing is left lying, at once or after the next save.
            let others = || memory.0.borrow().names.len() - usize::from(there.is_some());
            assert!(
                others() == 0 || is_last || call == n,
                "call {call}: {:?}",
                memory.0.borrow().names
            );
            memory.fail_at(usize::MAX, false);
            save(memory.clone(), b'c').unwrap();
            assert_eq!(memory.after_power_failure("folder/file"), [whole(b'c'), whole(b'c')]);
            assert_eq!(memory.0.borrow().names.len(), 1);
        }
        assert!(failed > 5, "{failed} of {n}");
    }
}

/// A storage in which a file is never synced: a kill would not find it out.
#[derive(Clone, Debug)]
struct Forgetful(Memory);

impl Storage for Forgetful {
    type File = Open;

    fn find(&self, path: &Path) -> io::Result<Place> {
        self.0.find(path)
    }

    fn create(&self, path: &Path, is_private: bool) -> io::Result<Option<Open>> {
        self.0.create(path, is_private)
    }

    fn take_after(&self, file: &Open, replaced: &Path) -> io::Result<()> {
        self.0.take_after(file, replaced)
    }

    fn sync(&self, _: &Open) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.0.sync_folder(folder)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        self.0.list(folder)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }

    fn remove_abandoned(&self, path: &Path) -> io::Result<()> {
        self.0.remove_abandoned(path)
    }
}

#[test]
fn a_power_failure_shows_that_a_file_was_not_synced() {
    let memory = Memory::default();
    save(Forgetful(memory.clone()), b'a').unwrap();
    assert_eq!(memory.read("folder/file"), whole(b'a'));
    assert_eq!(memory.after_power_failure("folder/file"), [Some(vec![]), Some(vec![])]);
}

/// Names the file that a child process saves again and again.
const PATH: &str = "NEURARCH_TEST_SAVED_FILE";

/// A text of a number: it is whole if all lines are the same.
fn text(number: u64) -> String {
    format!("{number}\n").repeat(3000)
}

#[test]
#[ignore = "the test below runs it and kills it"]
fn saves_until_it_is_killed() {
    let path = PathBuf::from(env::var_os(PATH).unwrap());
    let first = fs::read_to_string(&path).map_or(0, |text| number(&text));
    for number in first + 1.. {
        let mut file = NewFile::create(&path).unwrap();
        file.write_all(text(number).as_bytes()).unwrap();
        file.commit().unwrap();
        // In one call, so that nothing of a line is missing.
        io::stderr().write_all(format!("{number}\n").as_bytes()).unwrap();
    }
}

/// Returns the number of a whole text.
fn number(whole: &str) -> u64 {
    let number = whole.lines().next().unwrap().parse().unwrap();
    assert_eq!(whole, text(number));
    number
}

#[test]
fn a_file_whose_writers_are_killed_is_whole_and_nothing_is_lost() {
    let folder = env::temp_dir().join(format!("neurarch-{}-killed", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("file");
    let mut kills = 0;
    for kill in 0..200_u64 {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["whole_files::saves_until_it_is_killed", "--exact", "--ignored", "--nocapture"])
            .env(PATH, &path)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        // From within the first save that it can be to some saves later.
        std::thread::sleep(Duration::from_micros(kill * 37 % 3000));
        child.kill().unwrap();
        child.wait().unwrap();
        said.read_to_string(&mut line).unwrap();
        let last = line.lines().filter_map(|line| line.parse().ok()).max().unwrap_or(0);
        let there = number(&fs::read_to_string(&path).unwrap());
        assert!(there == last || there == last + 1, "{there} after {last} was said to be saved");
        kills += 1;
    }
    assert_eq!(kills, 200);
    let mut file = NewFile::create(&path).unwrap();
    file.write_all(b"the last").unwrap();
    file.commit().unwrap();
    let names = || fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names().collect::<Vec<_>>(), ["file"]);
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_checkpoint_is_the_old_one_or_the_new_one_whatever_call_fails() {
    let mut world = World::new();
    let net = Sequential::new().push(Linear::new(3, 4)).push(Tanh);
    let brains = world.spawn_population(&net, 2_000, Seed(3)).unwrap().id();
    let save = |world: &mut World, memory: &Memory| {
        checkpoint::save_in(world, &[brains], memory.clone(), "folder/file")
    };
    let bytes = |world: &mut World| {
        let memory = Memory::default();
        save(world, &memory).unwrap();
        let calls = memory.0.borrow().calls;
        (memory.read("folder/file").unwrap(), calls)
    };
    let (old, _) = bytes(&mut world);
    let before = Memory::default();
    save(&mut world, &before).unwrap();
    world.population_mut(brains).unwrap().perturb(Noise::normal(1.0)).unwrap();
    let (new, n) = bytes(&mut world);
    assert!(old != new && old.len() > 100_000, "more than one buffer");
    for (call, is_last) in (1..=n + 1).flat_map(|call| [(call, false), (call, true)]) {
        let memory = Memory::default();
        let file = Bytes { now: old.clone(), synced: old.clone() };
        {
            let mut contents = memory.0.borrow_mut();
            contents.files.push(file);
            contents.names.insert("folder/file".into(), 0);
            contents.synced_names.insert("folder/file".into(), 0);
        }
        memory.fail_at(call, is_last);
        let saved = save(&mut world, &memory);
        let there = memory.read("folder/file").unwrap();
        assert!(there == old || there == new, "call {call}");
        for left in memory.after_power_failure("folder/file") {
            let left = left.unwrap();
            assert!(left == new || saved.is_err() && left == old, "call {call}: {saved:?}");
        }
    }
}
